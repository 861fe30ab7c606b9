//! Requests that change the volume: taken apart into operations, answered when all of them are done.

use super::copy::kept_whole;
use super::{Context, Volume, poisoned, reply};
use crate::buffer::Buffer;
use crate::error::{Error, ErrorKind};
use crate::format::{Operation, OperationKind};
use crate::map::Location;
use crate::pool::Pledge;
use crate::request::{Completion, PIECE_BYTES_MAX, Payload, REQUEST_BYTES_MAX, RequestId};
use std::collections::BTreeMap;
use units::{BLOCK_BYTES, BlockRange, ByteRange, Lsn};

/// An operation that waits to be appended, or is in a batch under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) operation: Operation,
    pub(super) payload: Option<Buffer>,
    /// Of a copy.
    pub(super) shared: Option<Shared>,
    /// Who asked for it; nobody here, where it came from the primary.
    pub(super) request: Option<RequestId>,
}

/// What a copy is of.
#[derive(Debug)]
pub(super) struct Shared {
    /// Where the map says that the first block is. The operation says where its content is, which is elsewhere where that is
    /// borrowed.
    pub(super) named: Location,
    /// The check values that the blocks have there.
    pub(super) checks: Vec<u32>,
    /// What keeps it, where another volume lends it.
    pub(super) pledge: Option<Pledge>,
}

impl Pending {
    /// One that shares nothing.
    pub(super) const fn new(operation: Operation, payload: Option<Buffer>, request: RequestId) -> Self {
        Self { operation, payload, shared: None, request: Some(request) }
    }

    /// One that nobody here waits for, whose payload is with the driver.
    pub(super) const fn of_nobody(operation: Operation) -> Self {
        Self { operation, payload: None, shared: None, request: None }
    }
}

/// Who asks for a change, and whether the answer is to wait for stable storage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub(super) id: RequestId,
    pub(super) fua: bool,
}

/// A request of which operations are under way.
#[derive(Debug)]
struct WriteRequest {
    /// Operations, or blocks to be merged, that are not done; one more while the request is being taken apart.
    open_parts: u32,
    is_durable_wanted: bool,
    last_lsn: Lsn,
    failed: Option<Error>,
    /// What it is answered with when all has gone well.
    answer: Completion,
}

/// The requests that change the volume and are not answered.
#[derive(Debug, Default)]
pub(super) struct WriteTable {
    requests: BTreeMap<RequestId, WriteRequest>,
}

impl WriteTable {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

impl Volume {
    pub(super) fn on_write(&mut self, context: &mut Context<'_>, asker: Asker, range: ByteRange, payload: Payload) {
        let Asker { id, fua } = asker;
        if let Err(error) = self.check_change(range).and_then(|()| check_payload(range, &payload)) {
            context.buffers.put_all(payload);
            reply(context, id, Err(error));
            return;
        }
        if range.is_empty() {
            reply(context, id, Ok(Completion::Done));
            return;
        }
        self.begin(id, fua);
        if range.is_block_aligned() && self.operation_blocks_max() * BLOCK_BYTES >= PIECE_BYTES_MAX as u64 {
            let mut first = range.blocks_touched().first;
            for piece in payload {
                let blocks = BlockRange::new(first, piece.len() as u64 / BLOCK_BYTES);
                first = blocks.end();
                self.add_operation(context, id, Operation { kind: OperationKind::Write, range: blocks }, Some(piece));
            }
        } else {
            self.write_in_parts(context, id, range, payload);
        }
        self.part_done(context, id, Ok(Lsn::ZERO));
    }

    /// Trims or zeroes: whole blocks by one operation, the partial ones at its ends by merging zeros in.
    pub(super) fn on_zero(&mut self, context: &mut Context<'_>, asker: Asker, range: ByteRange, kind: OperationKind) {
        let Asker { id, fua } = asker;
        if let Err(error) = self.check_change(range) {
            reply(context, id, Err(error));
            return;
        }
        if range.is_empty() {
            reply(context, id, Ok(Completion::Done));
            return;
        }
        self.begin(id, fua);
        let covered = range.blocks_covered();
        if !covered.is_empty() {
            self.add_operation(context, id, Operation { kind, range: covered }, None);
        }
        self.zero_edges(context, id, range);
        self.part_done(context, id, Ok(Lsn::ZERO));
    }

    /// Most blocks that one write operation may have to fit an empty segment with its headers and footer.
    pub(super) fn operation_blocks_max(&self) -> u64 {
        u64::from(self.config.geometry.slot_blocks() - 4).min(PIECE_BYTES_MAX as u64 / BLOCK_BYTES)
    }

    pub(super) fn check_change(&self, range: ByteRange) -> Result<(), Error> {
        if self.is_poisoned {
            return Err(poisoned());
        }
        self.check_range(range)
    }

    pub(super) fn check_range(&self, range: ByteRange) -> Result<(), Error> {
        let limit = self.resize.as_ref().map_or(self.size_bytes, |resize| resize.lower_size(self.size_bytes));
        if range.end() > limit {
            let detail = format!("bytes {}..{} leave the volume of {limit} bytes", range.offset(), range.end());
            return Err(Error::new(ErrorKind::InvalidRequest, detail));
        }
        Ok(())
    }

    /// Begins a request with one open part, which its maker ends when it has added all others.
    pub(super) fn begin(&mut self, id: RequestId, is_durable_wanted: bool) {
        let (last_lsn, answer) = (Lsn::ZERO, Completion::Done);
        let request = WriteRequest { open_parts: 1, is_durable_wanted, last_lsn, failed: None, answer };
        assert!(self.writes.requests.insert(id, request).is_none(), "the driver reused the id of a request under way");
    }

    pub(super) fn add_part(&mut self, id: RequestId) {
        self.writes.requests.get_mut(&id).expect("a part is added to a request under way").open_parts += 1;
    }

    /// Adds an operation of the request, which waits while a block of it is being merged.
    pub(super) fn add_operation(
        &mut self,
        context: &mut Context<'_>,
        id: RequestId,
        operation: Operation,
        payload: Option<Buffer>,
    ) {
        self.add_waiting(context, Pending::new(operation, payload, id));
    }

    /// The same of one that is made.
    pub(super) fn add_waiting(&mut self, context: &mut Context<'_>, pending: Pending) {
        pending.request.into_iter().for_each(|request| self.add_part(request));
        if let Some(waiting) = self.subblock.hold_back(pending) {
            self.add_pending(context, waiting);
        }
    }

    pub(super) fn add_pending(&mut self, context: &mut Context<'_>, pending: Pending) {
        if self.is_poisoned {
            self.drop_pending(context, pending, &poisoned());
        } else if pending.shared.is_some() && !self.may_share() {
            // It was held back while history began.
            self.drop_pending(context, pending, &kept_whole());
        } else {
            self.log.push(pending);
        }
    }

    /// Ends a pending operation without its effect.
    pub(super) fn drop_pending(&mut self, context: &mut Context<'_>, pending: Pending, error: &Error) {
        if let Some(payload) = pending.payload {
            context.buffers.put(payload);
        }
        if let Some(request) = pending.request {
            self.part_done(context, request, Err(error.clone()));
        }
    }

    /// Notes what request `id` is answered with, if not with that it is done.
    pub(super) fn note_answer(&mut self, id: RequestId, answer: Completion) {
        if let Some(request) = self.writes.requests.get_mut(&id) {
            request.answer = answer;
        }
    }

    /// Ends one part of a request; answers it when that was the last.
    pub(super) fn part_done(&mut self, context: &mut Context<'_>, id: RequestId, outcome: Result<Lsn, Error>) {
        let request = self.writes.requests.get_mut(&id).expect("a part belongs to a request under way");
        request.open_parts -= 1;
        match outcome {
            Ok(lsn) => request.last_lsn = request.last_lsn.max(lsn),
            Err(error) => request.failed = Some(error),
        }
        if request.open_parts > 0 {
            return;
        }
        let Some(request) = self.writes.requests.remove(&id) else { return };
        match (request.failed, request.answer) {
            (Some(error), _) => reply(context, id, Err(error)),
            (None, Completion::Done) if request.is_durable_wanted => {
                self.answer_when_durable(context, id, request.last_lsn);
            }
            (None, answer) => reply(context, id, Ok(answer)),
        }
        self.note_resize_answered(id);
    }

    /// Whether a change of a block in `range` is pending or in flight.
    pub(super) fn is_changing(&self, range: BlockRange) -> bool {
        self.log.operations().any(|operation| operation.range.overlaps(range))
    }
}

pub(super) fn check_payload(range: ByteRange, payload: &Payload) -> Result<(), Error> {
    let invalid = |detail: &str| Err(Error::new(ErrorKind::InvalidRequest, detail));
    if range.len() > REQUEST_BYTES_MAX {
        return invalid("a write of more than 32 MiB; split it");
    }
    let (last, others) = match payload.split_last() {
        Some((last, others)) => (last.len(), others),
        None => (0, payload.as_slice()),
    };
    let is_whole = others.iter().all(|piece| piece.len() == PIECE_BYTES_MAX) && last <= PIECE_BYTES_MAX;
    if !is_whole || others.len() as u64 * PIECE_BYTES_MAX as u64 + last as u64 != range.len() {
        return invalid("a payload that is not as long as its range");
    }
    Ok(())
}
