//! Resizing. Growing is one operation. Shrinking first closes the tail to new changes, waits for those under way, and is
//! refused when data is there that may not be thrown away.

use super::{Context, Parked, Volume, poisoned, reply};
use crate::error::{Error, ErrorKind};
use crate::format::{Operation, OperationKind};
use crate::request::RequestId;
use units::{ADDRESS_SPACE_BYTES, BLOCK_BYTES, BlockIndex, BlockRange, Lsn};

/// A resize under way.
#[derive(Debug)]
pub(super) struct Resize {
    id: RequestId,
    size_bytes: u64,
    discard_tail: bool,
    walked_bytes: u64,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits until nothing changes the tail any more.
    Closing,
    /// Looks for data in the tail.
    Looking,
    /// Its operations are in the log.
    Appending,
}

impl Resize {
    /// The size that new requests must keep to.
    pub(super) fn lower_size(&self, size_bytes: u64) -> u64 {
        self.size_bytes.min(size_bytes)
    }
}

impl Volume {
    pub(super) fn on_resize(&mut self, context: &mut Context<'_>, id: RequestId, size_bytes: u64, discard_tail: bool) {
        let refused = if self.is_poisoned {
            Some(poisoned())
        } else if !size_bytes.is_multiple_of(BLOCK_BYTES) || size_bytes > ADDRESS_SPACE_BYTES {
            let detail = format!("{size_bytes} bytes are no size: a multiple of 4096 up to 2^63 is");
            Some(Error::new(ErrorKind::InvalidRequest, detail))
        } else if self.resize.is_some() {
            Some(Error::new(
                ErrorKind::Unavailable,
                "another resize of the volume is under way; try again when it is done",
            ))
        } else {
            None
        };
        if let Some(error) = refused {
            reply(context, id, Err(error));
            return;
        }
        if size_bytes == self.size_bytes && !self.log.has_given_up {
            // The resize to this size may not be durable yet.
            self.answer_when_durable(context, id, self.applied_lsn);
            return;
        }
        self.resize = Some(Resize { id, size_bytes, discard_tail, walked_bytes: 0, phase: Phase::Closing });
        self.advance_resize(context);
    }

    pub(super) fn advance_resize(&mut self, context: &mut Context<'_>) {
        let Some(resize) = &self.resize else { return };
        let (kept, size) = (resize.size_bytes / BLOCK_BYTES, self.size_bytes.div_ceil(BLOCK_BYTES));
        let tail = BlockRange::new(BlockIndex(kept), size.saturating_sub(kept));
        let discard_tail = resize.discard_tail;
        if resize.phase == Phase::Closing {
            if self.is_changing(tail) || self.subblock.has_any_in(tail) {
                return;
            }
            self.set_phase(Phase::Looking);
        }
        if self.resize.as_ref().is_none_or(|resize| resize.phase == Phase::Appending) {
            return;
        }
        if discard_tail || tail.is_empty() || self.is_tail_empty(context, tail) {
            self.append_resize(context, tail);
        }
    }

    fn set_phase(&mut self, phase: Phase) {
        if let Some(resize) = &mut self.resize {
            resize.phase = phase;
        }
    }

    /// Walks the tail; `false` when the answer is not known yet, or the resize has been refused.
    fn is_tail_empty(&mut self, context: &mut Context<'_>, tail: BlockRange) -> bool {
        loop {
            let Some(resize) = &mut self.resize else { return false };
            let first = BlockIndex(tail.first.0 + resize.walked_bytes / BLOCK_BYTES);
            if first >= tail.end() {
                return true;
            }
            let mut found = Vec::new();
            let walk = self.map.extents(BlockRange::new(first, tail.end().0 - first.0), 2, &mut found);
            if found.iter().any(|extent| extent.is_data) {
                let detail = "data lies beyond the new size; trim it, or discard the tail on purpose";
                self.fail_resize(context, Error::new(ErrorKind::InvalidRequest, detail));
                return false;
            }
            let (walked, page) = match walk {
                Ok(walked) => (walked, None),
                Err((walked, page)) => (walked, Some(page)),
            };
            resize.walked_bytes += walked;
            if let Some(page) = page {
                self.park(context, page, Parked::Resize);
                return false;
            }
        }
    }

    fn append_resize(&mut self, context: &mut Context<'_>, tail: BlockRange) {
        let Some(resize) = &self.resize else { return };
        let (id, size_bytes, discard_tail) = (resize.id, resize.size_bytes, resize.discard_tail);
        self.set_phase(Phase::Appending);
        self.begin(id, true);
        if discard_tail && !tail.is_empty() {
            self.add_operation(context, id, Operation { kind: OperationKind::Trim, range: tail }, None);
        }
        self.add_operation(context, id, Operation::without_range(OperationKind::Resize(size_bytes)), None);
        self.part_done(context, id, Ok(Lsn::ZERO));
    }

    /// Refuses a resize whose operations are not in the log.
    pub(super) fn fail_resize(&mut self, context: &mut Context<'_>, error: Error) {
        if let Some(resize) = self.resize.take_if(|resize| resize.phase != Phase::Appending) {
            reply(context, resize.id, Err(error));
        }
    }

    /// All operations of request `id` are done.
    pub(super) fn note_resize_answered(&mut self, id: RequestId) {
        self.resize.take_if(|resize| resize.id == id);
    }
}
