//! Commands that read and change the medium: SBC-3 5.

use super::LogicalUnit;
use super::begin::{Begun, Facts, first_bytes};
use super::plan::{Against, Plan};
use super::task::{Outcome, UnitTask};
use proto::scsi::{Compare, Limits, Sense, Span, parameters};
use smallvec::{SmallVec, smallvec};
use units::{ByteRange, SECTOR_BYTES};
use volume::buffer::{BufferPool, total_len};
use volume::request::{OR_BYTES_MAX, Payload, Request};

/// Most extents of a GET LBA STATUS.
const LBA_STATUS_MAX: u64 = 1024;

/// Bytes of a header of GET LBA STATUS parameter data, and of a descriptor.
const LBA_STATUS_BYTES: (u64, u64) = (8, 16);

impl LogicalUnit {
    pub(super) fn read(&self, span: Span, facts: &Facts<'_>) -> Begun {
        match self.short_range_of(span, facts) {
            Ok(range) if range.is_empty() => Begun::good(),
            Ok(range) => Begun::one(Plan::Read, Request::Read { range }),
            Err(outcome) => Begun::Ended(outcome),
        }
    }

    pub(super) fn verify(&self, (span, compare): (Span, Compare), task: &mut UnitTask, facts: &Facts<'_>) -> Begun {
        let range = match self.short_range_of(span, facts) {
            Ok(range) if range.is_empty() => return Begun::good(),
            Ok(range) => range,
            Err(outcome) => return Begun::Ended(outcome),
        };
        let payload = std::mem::take(&mut task.payload);
        let against = match compare {
            Compare::Nothing => Against::Nothing,
            Compare::Data => Against::Data(payload),
            Compare::SameBlock => Against::Block(payload),
        };
        Plan::verify(range, against).into()
    }

    /// Without a number of blocks all that comes behind is meant. SBC-3 5.14.
    pub(super) fn prefetch(&self, span: Span, facts: &Facts<'_>) -> Begun {
        let range = match self.range_of(span, facts) {
            Ok(range) => range,
            Err(outcome) => return Begun::Ended(outcome),
        };
        let len = if span.blocks == 0 { facts.size_bytes - range.offset() } else { range.len() };
        match ByteRange::new(range.offset(), len) {
            Ok(range) if !range.is_empty() => Begun::one(Plan::Plain, Request::Cache { range }),
            _ => Begun::good(),
        }
    }

    /// All that was written is made durable, whatever part is asked for.
    pub(super) fn synchronize(&self, span: Span, immediate: bool, facts: &Facts<'_>) -> Begun {
        if let Err(outcome) = self.range_of(span, facts) {
            return Begun::Ended(outcome);
        }
        Begun::one(if immediate { Plan::Unawaited } else { Plan::Plain }, Request::Flush)
    }

    pub(super) fn lba_status(&self, lba: u64, allocation: u32, facts: &Facts<'_>) -> Begun {
        let offset = lba.checked_mul(SECTOR_BYTES).filter(|offset| *offset < facts.size_bytes);
        let Some(offset) = offset else { return self.refuse(&Sense::LBA_OUT_OF_RANGE) };
        // Extents of more blocks than their field can tell are cut.
        let len = (facts.size_bytes - offset).min(u64::from(u32::MAX - 7) * SECTOR_BYTES);
        let Ok(range) = ByteRange::new(offset, len) else { return self.refuse(&Sense::LBA_OUT_OF_RANGE) };
        let (header, descriptor) = LBA_STATUS_BYTES;
        let fit = u64::from(allocation).saturating_sub(header) / descriptor;
        let extents_max = usize::try_from(fit.clamp(1, LBA_STATUS_MAX)).unwrap_or(1);
        Begun::one(Plan::LbaStatus { lba, allocation }, Request::Extents { range, extents_max })
    }

    pub(super) fn write(&self, (span, fua): (Span, bool), task: &mut UnitTask, facts: &mut Facts<'_>) -> Begun {
        match self.written(span, Limits::default().transfer_blocks_max.into(), task, facts) {
            Ok((range, payload)) => Begun::one(Plan::Plain, Request::Write { range, payload, fua: self.fua(fua) }),
            Err(outcome) => Begun::Ended(outcome),
        }
    }

    pub(super) fn write_and_verify(
        &self,
        (span, compare): (Span, bool),
        task: &mut UnitTask,
        facts: &mut Facts<'_>,
    ) -> Begun {
        match self.written(span, Limits::default().transfer_blocks_max.into(), task, facts) {
            Ok((range, payload)) => {
                let pieces = payload.iter().filter(|_| compare);
                let copy: Payload = pieces.map(|piece| facts.buffers.take_copy_of(piece.as_slice())).collect();
                let against = if compare { Against::Data(copy) } else { Against::Nothing };
                Begun::one(Plan::ThenVerify { range, against }, Request::Write { range, payload, fua: true })
            }
            Err(outcome) => Begun::Ended(outcome),
        }
    }

    pub(super) fn or_write(&self, (span, fua): (Span, bool), task: &mut UnitTask, facts: &mut Facts<'_>) -> Begun {
        match self.written(span, OR_BYTES_MAX / SECTOR_BYTES, task, facts) {
            Ok((range, payload)) => Begun::one(Plan::Plain, Request::OrWrite { range, payload, fua: self.fua(fua) }),
            Err(outcome) => Begun::Ended(outcome),
        }
    }

    pub(super) fn compare_and_write(
        &self,
        (span, fua): (Span, bool),
        task: &mut UnitTask,
        facts: &mut Facts<'_>,
    ) -> Begun {
        let range = match self.range_of(span, facts) {
            Ok(_) if span.blocks > u64::from(Limits::default().compare_and_write_max) => {
                return self.refuse(&Sense::INVALID_FIELD_IN_CDB);
            }
            Ok(range) if range.is_empty() => return Begun::good(),
            Ok(range) => range,
            Err(outcome) => return Begun::Ended(outcome),
        };
        let (expected, payload) = split(std::mem::take(&mut task.payload), range.len(), facts.buffers);
        Begun::one(Plan::Plain, Request::CompareAndWrite { range, expected, payload, fua: self.fua(fua) })
    }

    /// Without a number of blocks all to the end is meant. SBC-3 5.43.
    pub(super) fn write_same(
        &self,
        (span, unmap, no_data): (Span, bool, bool),
        task: &mut UnitTask,
        facts: &mut Facts<'_>,
    ) -> Begun {
        let left = (facts.size_bytes / SECTOR_BYTES).saturating_sub(span.lba);
        let span = if span.blocks == 0 { Span { blocks: left, ..span } } else { span };
        let range = match self.range_of(span, facts) {
            Ok(range) if range.is_empty() => return self.refuse(&Sense::LBA_OUT_OF_RANGE),
            Ok(range) => range,
            Err(outcome) => return Begun::Ended(outcome),
        };
        if span.blocks > Limits::default().write_same_blocks_max {
            return self.refuse(&Sense::INVALID_FIELD_IN_CDB);
        }
        let block = if no_data { None } else { Some(std::mem::take(&mut task.payload)) };
        Plan::fill(range, block, (unmap, self.fua(false)), facts.buffers).into()
    }

    pub(super) fn unmap(&self, task: &UnitTask, facts: &Facts<'_>) -> Begun {
        let spans = match parameters::unmap_list(first_bytes(&task.payload), &Limits::default()) {
            Ok(spans) => spans,
            Err(sense) => return self.refuse(&sense),
        };
        let mut requests = SmallVec::new();
        for span in spans {
            match self.range_of(span, facts) {
                Ok(range) if range.is_empty() => {}
                Ok(range) => requests.push(Request::Trim { range, fua: self.fua(false) }),
                Err(outcome) => return Begun::Ended(outcome),
            }
        }
        if requests.is_empty() { Begun::good() } else { Begun::Asked(Plan::all(requests.len()), requests) }
    }

    /// A part of an EXTENDED COPY that stays within the unit. SPC-4 6.4.
    pub(super) fn copy_within(&self, span: Span, source_lba: u64, facts: &Facts<'_>) -> Begun {
        let source = Span { lba: source_lba, ..span };
        let ranges = self.range_of(span, facts).and_then(|target| Ok((self.range_of(source, facts)?, target)));
        match ranges {
            Ok((source, target)) => Begun::one(Plan::Plain, Request::Copy { source, target, fua: self.fua(false) }),
            Err(outcome) => Begun::Ended(outcome),
        }
    }

    /// Where what is to be copied to another unit is.
    pub(super) fn lend(&self, span: Span, facts: &Facts<'_>) -> Begun {
        match self.range_of(span, facts) {
            Ok(range) => Begun::one(Plan::Lend, Request::Lend { range }),
            Err(outcome) => Begun::Ended(outcome),
        }
    }

    /// Takes what another unit has lent.
    pub(super) fn borrow(&self, span: Span, task: &mut UnitTask, facts: &Facts<'_>) -> Begun {
        match (self.range_of(span, facts), task.lent.take()) {
            (Ok(target), Some(lent)) => {
                Begun::one(Plan::Plain, Request::Borrow { target, lent: *lent, fua: self.fua(false) })
            }
            (Ok(_), None) => self.refuse(&Sense::INVALID_OPCODE),
            (Err(outcome), _) => Begun::Ended(outcome),
        }
    }

    /// Without a write cache every write is durable when it is answered. SBC-3 6.5.5.
    const fn fua(&self, is_asked: bool) -> bool {
        is_asked || !self.mode.write_cache
    }

    /// Where a write goes and what is written, as far as whole blocks have come; `Err` is its end.
    fn written(
        &self,
        span: Span,
        blocks_max: u64,
        task: &mut UnitTask,
        facts: &mut Facts<'_>,
    ) -> Result<(ByteRange, Payload), Outcome> {
        let range = self.range_of(span, facts)?;
        if span.blocks > blocks_max {
            return Err(self.check(&Sense::INVALID_FIELD_IN_CDB));
        }
        let mut payload = std::mem::take(&mut task.payload);
        let sent = total_len(&payload);
        let range = if sent < range.len() { cut_to(range, sent, &mut payload, facts.buffers) } else { range };
        if range.is_empty() {
            facts.buffers.put_all(payload);
            return Err(Outcome::good());
        }
        Ok((range, payload))
    }

    /// The bytes of a span of no more blocks than are moved at once.
    fn short_range_of(&self, span: Span, facts: &Facts<'_>) -> Result<ByteRange, Outcome> {
        let range = self.range_of(span, facts)?;
        if span.blocks > u64::from(Limits::default().transfer_blocks_max) {
            return Err(self.check(&Sense::INVALID_FIELD_IN_CDB));
        }
        Ok(range)
    }

    /// The bytes of a span, which lie in the volume. SBC-3 4.5.
    fn range_of(&self, span: Span, facts: &Facts<'_>) -> Result<ByteRange, Outcome> {
        let capacity = facts.size_bytes / SECTOR_BYTES;
        let is_inside = span.lba.checked_add(span.blocks).is_some_and(|end| end <= capacity);
        let range = is_inside.then(|| ByteRange::new(span.lba * SECTOR_BYTES, span.blocks * SECTOR_BYTES).ok());
        range.flatten().ok_or_else(|| self.check(&Sense::LBA_OUT_OF_RANGE))
    }

    /// A power condition other than on and off there is none, and nothing to eject. Off, all that was written is durable; the
    /// unit stays ready. SBC-3 5.25.
    pub(super) fn start_stop(&self, start: bool, asks_else: bool, immediate: bool) -> Begun {
        if asks_else {
            return self.refuse(&Sense::INVALID_FIELD_IN_CDB);
        }
        if start {
            return Begun::good();
        }
        Begun::one(if immediate { Plan::Unawaited } else { Plan::Plain }, Request::Flush)
    }
}

/// What is left of a write of which fewer bytes come than it asks for: the whole blocks that they are.
fn cut_to(range: ByteRange, bytes: u64, payload: &mut Payload, buffers: &mut BufferPool) -> ByteRange {
    let whole = bytes - bytes % SECTOR_BYTES;
    let mut left = usize::try_from(whole).unwrap_or(usize::MAX);
    for mut piece in std::mem::take(payload) {
        if left == 0 {
            buffers.put(piece);
            continue;
        }
        piece.set_len(piece.len().min(left));
        left -= piece.len();
        payload.push(piece);
    }
    ByteRange::new(range.offset(), whole).expect("a part of a range is one")
}

/// Parts what a COMPARE AND WRITE has sent: what is to be there, and what comes there then. Both fit in one piece.
fn split(payload: Payload, len: u64, buffers: &mut BufferPool) -> (Payload, Payload) {
    let bytes = first_bytes(&payload);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let (expected, written) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
    let written = written.get(..len).unwrap_or(written);
    let parts = (smallvec![buffers.take_copy_of(expected)], smallvec![buffers.take_copy_of(written)]);
    buffers.put_all(payload);
    parts
}
