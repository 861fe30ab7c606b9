//! What is asked of the volume for a command, answer by answer.

use super::begin::Begun;
use super::task::{DataIn, Outcome, sense_of};
use super::{LogicalUnit, begin::first_bytes};
use proto::scsi::{Sense, Status, parameters};
use smallvec::smallvec;
use units::{ByteRange, SECTOR_BYTES};
use volume::buffer::{Buffer, BufferPool, total_len};
use volume::error::Error;
use volume::request::{Completion, Extent, PIECE_BYTES_MAX, Payload, Request};

/// Bytes of a verification and of a fill that are asked of the volume at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// How a command goes on with the volume's answers.
#[derive(Debug)]
pub(crate) enum Plan {
    /// One request, whose success is the command's.
    Plain,
    /// The same, but the initiator has its answer already.
    Unawaited,
    /// One read, whose bytes are the command's.
    Read,
    /// Where blocks are that another unit is to borrow.
    Lend,
    /// Where data is.
    LbaStatus { lba: u64, allocation: u32 },
    /// Several requests, which all are to succeed; so many are not answered.
    All { open: usize, failed: Option<Error> },
    /// A verification: what is read piece by piece, of which this is under way and that is left.
    Verify { under_way: ByteRange, rest: ByteRange, against: Against },
    /// A write, and then a verification.
    ThenVerify { range: ByteRange, against: Against },
    /// One block written again and again: what is left.
    Fill { rest: ByteRange, block: Buffer, fua: bool },
}

/// What a verification compares with.
#[derive(Debug)]
pub(crate) enum Against {
    /// Nothing: that it can be read is enough, since every block is held against its checksum.
    Nothing,
    /// As many bytes as are verified.
    Data(Payload),
    /// One block, with each.
    Block(Payload),
}

/// How a command goes on.
#[derive(Debug)]
pub(crate) enum Next {
    /// It waits for other answers.
    Wait(Plan),
    /// It asks on.
    Ask(Plan, Request),
    /// It is over.
    End(Outcome),
}

impl From<(Plan, Request)> for Begun {
    fn from((plan, request): (Plan, Request)) -> Self {
        Self::Asked(plan, smallvec![request])
    }
}

impl Plan {
    /// For so many requests.
    pub(super) const fn all(open: usize) -> Self {
        Self::All { open, failed: None }
    }

    /// A verification, and its first read.
    pub(super) fn verify(range: ByteRange, against: Against) -> (Self, Request) {
        let (under_way, rest) = cut(range);
        (Self::Verify { under_way, rest, against }, Request::Read { range: under_way })
    }

    /// A WRITE SAME, and its first request. Zeros are no data here: their space is given back or never taken. SBC-3 5.43.
    pub(super) fn fill(
        range: ByteRange,
        block: Option<Payload>,
        (unmap, fua): (bool, bool),
        buffers: &mut BufferPool,
    ) -> (Self, Request) {
        let bytes = block.as_ref().map_or(&[][..], |block| first_bytes(block));
        let sector = bytes.get(..SECTOR_LEN).unwrap_or_default();
        let planned = if sector.iter().all(|byte| *byte == 0) {
            let request = if unmap { Request::Trim { range, fua } } else { Request::WriteZeroes { range, fua } };
            (Self::Plain, request)
        } else {
            let block = buffers.take_copy_of(sector);
            next_fill(range, block, fua, buffers)
        };
        buffers.put_all(block.into_iter().flatten());
        planned
    }

    /// Gives back what it holds, since nobody goes on with it.
    pub(crate) fn discard(self, buffers: &mut BufferPool) {
        match self {
            Self::Fill { block, .. } => buffers.put(block),
            Self::Verify { against, .. } | Self::ThenVerify { against, .. } => against.discard(buffers),
            Self::Plain | Self::Unawaited | Self::Read | Self::Lend | Self::LbaStatus { .. } | Self::All { .. } => {}
        }
    }
}

const SECTOR_LEN: usize = 512;
const _: () = assert!(SECTOR_LEN as u64 == SECTOR_BYTES && PIECE_BYTES == PIECE_BYTES_MAX as u64);

impl Against {
    fn discard(self, buffers: &mut BufferPool) {
        if let Self::Data(payload) | Self::Block(payload) = self {
            buffers.put_all(payload);
        }
    }

    /// The first byte of `read`, which begins at byte `at` of what is verified, that is another one.
    fn difference(&self, at: u64, read: &[u8]) -> Option<u64> {
        let differs = |(number, (one, other)): (usize, (&u8, &u8))| (one != other).then_some(at + number as u64);
        match self {
            Self::Nothing => None,
            Self::Data(payload) => {
                // Pieces are as long as what is read at a time.
                let piece = usize::try_from(at / PIECE_BYTES).ok().and_then(|piece| payload.get(piece));
                let expected = piece.map_or(&[][..], |piece| piece.as_slice());
                read.iter().zip(expected).enumerate().find_map(differs)
            }
            Self::Block(payload) => {
                let block = first_bytes(payload).get(..SECTOR_LEN).unwrap_or_default();
                read.iter().zip(block.iter().cycle()).enumerate().find_map(differs)
            }
        }
    }
}

/// What is verified or written next, and what then.
fn cut(range: ByteRange) -> (ByteRange, ByteRange) {
    let first = range.len().min(PIECE_BYTES);
    let whole = "a part of a range is one";
    (
        ByteRange::new(range.offset(), first).expect(whole),
        ByteRange::new(range.offset() + first, range.len() - first).expect(whole),
    )
}

fn next_fill(range: ByteRange, block: Buffer, fua: bool, buffers: &mut BufferPool) -> (Plan, Request) {
    let (now, rest) = cut(range);
    let mut piece = buffers.take(usize::try_from(now.len()).unwrap_or_default());
    for sector in piece.as_mut_slice().chunks_exact_mut(SECTOR_LEN) {
        sector.copy_from_slice(block.as_slice());
    }
    (Plan::Fill { rest, block, fua }, Request::Write { range: now, payload: smallvec![piece], fua })
}

impl LogicalUnit {
    /// Goes on with a command of which a request is answered.
    pub(crate) fn advance(&self, plan: Plan, result: Result<Completion, Error>, buffers: &mut BufferPool) -> Next {
        let answer = match (plan, result) {
            (Plan::All { open, failed }, result) => {
                let failed = failed.or_else(|| result.err());
                if open > 1 {
                    return Next::Wait(Plan::All { open: open - 1, failed });
                }
                return Next::End(failed.map_or_else(Outcome::good, |error| self.fail(&error)));
            }
            (plan, Ok(answer)) => (plan, answer),
            (plan, Err(error)) => {
                plan.discard(buffers);
                return Next::End(self.fail(&error));
            }
        };
        match answer {
            (Plan::Plain, Completion::Miscompare { at }) => {
                Next::End(self.check(&Sense::MISCOMPARE.with_information(at)))
            }
            (Plan::Read, Completion::Read { buffer, skip, len }) => {
                Next::End(Outcome::with_data(DataIn::Buffer { buffer, skip, len }))
            }
            (Plan::Lend, Completion::Lent(lent)) => Next::End(Outcome::with_data(DataIn::Lent(Box::new(lent)))),
            (Plan::LbaStatus { lba, allocation }, Completion::Extents(extents)) => {
                let runs = extents.iter().map(|Extent { len, is_data }| {
                    (u32::try_from(len.div_ceil(SECTOR_BYTES)).unwrap_or(u32::MAX), *is_data)
                });
                Next::End(Outcome::parameters(parameters::lba_status(lba, runs), allocation))
            }
            (Plan::Verify { under_way, rest, against }, Completion::Read { buffer, skip, len }) => {
                self.verified((under_way, rest), against, (buffer, skip..skip + len), buffers)
            }
            (Plan::ThenVerify { range, against }, _) => {
                let (plan, request) = Plan::verify(range, against);
                Next::Ask(plan, request)
            }
            (Plan::Fill { rest, block, .. }, _) if rest.is_empty() => {
                buffers.put(block);
                Next::End(Outcome::good())
            }
            (Plan::Fill { rest, block, fua }, _) => {
                let (plan, request) = next_fill(rest, block, fua, buffers);
                Next::Ask(plan, request)
            }
            (plan, _) => {
                plan.discard(buffers);
                Next::End(Outcome::good())
            }
        }
    }

    fn verified(
        &self,
        (under_way, rest): (ByteRange, ByteRange),
        against: Against,
        (buffer, read): (Buffer, std::ops::Range<usize>),
        buffers: &mut BufferPool,
    ) -> Next {
        // Pieces are counted from the range's beginning, which is told by where its end is.
        let bytes = buffer.as_slice().get(read).unwrap_or_default();
        let total = against_len(&against);
        let at = total.map_or(0, |total| total - (rest.len() + under_way.len()));
        let difference = against.difference(at, bytes);
        buffers.put(buffer);
        if let Some(at) = difference {
            against.discard(buffers);
            return Next::End(self.check(&Sense::MISCOMPARE.with_information(at)));
        }
        if rest.is_empty() {
            against.discard(buffers);
            return Next::End(Outcome::good());
        }
        let (under_way, rest) = cut(rest);
        Next::Ask(Plan::Verify { under_way, rest, against }, Request::Read { range: under_way })
    }

    fn fail(&self, error: &Error) -> Outcome {
        sense_of(error.kind).map_or_else(|| Outcome::status(Status::Busy), |sense| self.check(&sense))
    }
}

/// Bytes that are compared in all, where their number counts.
fn against_len(against: &Against) -> Option<u64> {
    match against {
        Against::Data(payload) => Some(total_len(payload)),
        Against::Nothing | Against::Block(_) => None,
    }
}
