//! Changes that depend on what is there: the blocks are read, merged and written whole. Of a write or zeroing those are the
//! partial blocks at its ends; of a compare-and-write or an or-write, all. What a copy depends on is elsewhere in the volume: its
//! source and its target are its blocks.
//!
//! While one is under way, every other change of its blocks waits, so that the merge never brings back what another change
//! has overwritten; and it begins only when no change of its blocks is pending or in flight. All wait in the order in which
//! they came: whatever waits does so for what came before, so that nothing waits in a circle, or for ever.

use super::read::Purpose;
use super::request::Pending;
use super::{Context, Volume};
use crate::buffer::Buffer;
use crate::controls::{Safeguard, is_missing};
use crate::error::Error;
use crate::format::{Operation, OperationKind};
use crate::request::{Completion, PIECE_BYTES_MAX, Payload, RequestId};
use std::collections::BTreeMap;
use units::{BLOCK_BYTES, BlockRange, ByteRange, Lsn};

/// What becomes of the bytes that are there.
#[derive(Debug)]
pub(super) enum Merge {
    /// These come there.
    Bytes(Buffer),
    /// Zeros come there.
    Zeros,
    /// Those in `bytes` come there if `expected` are there.
    CompareAndWrite { expected: Buffer, bytes: Buffer },
    /// The bits of these are set.
    Or(Buffer),
    /// What is in these blocks comes there: [`super::copy`].
    Copy(BlockRange),
    /// Nothing comes there: it is told where they are.
    Lend,
}

impl Merge {
    /// Changes what is at its place; leaves it when it is not what is expected, and tells the first byte that differs.
    fn apply(&self, place: &mut [u8]) -> Result<(), u64> {
        match self {
            Self::Bytes(bytes) => place.copy_from_slice(bytes.as_slice()),
            Self::Zeros => place.fill(0),
            Self::CompareAndWrite { expected, bytes } => {
                let differ = place.iter().zip(expected.as_slice()).position(|(found, expected)| found != expected);
                if let Some(at) = differ {
                    return Err(at as u64);
                }
                place.copy_from_slice(bytes.as_slice());
            }
            // These are not merged.
            Self::Copy(_) | Self::Lend => {}
            Self::Or(bytes) => place.iter_mut().zip(bytes.as_slice()).for_each(|(found, bits)| *found |= bits),
        }
        Ok(())
    }

    fn into_buffers(self) -> impl Iterator<Item = Buffer> {
        let (first, second) = match self {
            Self::Bytes(bytes) | Self::Or(bytes) => (Some(bytes), None),
            Self::Zeros | Self::Copy(_) | Self::Lend => (None, None),
            Self::CompareAndWrite { expected, bytes } => (Some(expected), Some(bytes)),
        };
        first.into_iter().chain(second)
    }
}

/// A change that is merged with what is there.
#[derive(Debug)]
struct Edge {
    request: RequestId,
    /// Touches no more blocks than one operation may write.
    range: ByteRange,
    merge: Merge,
    has_begun: bool,
    /// Of a copy whose source may not be on stable storage: it goes on when everything up to here is.
    after: Option<Lsn>,
}

impl Edge {
    /// The blocks that it copies from.
    const fn source(&self) -> Option<BlockRange> {
        match self.merge {
            Merge::Copy(source) => Some(source),
            Merge::Bytes(_) | Merge::Zeros | Merge::CompareAndWrite { .. } | Merge::Or(_) | Merge::Lend => None,
        }
    }
}

/// What is under way or waits.
#[derive(Debug)]
enum Turn {
    /// Waits for every turn before it that shares a block, and for changes in the log.
    Edge(Edge),
    /// Waits for the edges before it.
    Operation(Pending),
}

impl Turn {
    const fn blocks(&self) -> BlockRange {
        match self {
            Self::Edge(edge) => edge.range.blocks_touched(),
            Self::Operation(pending) => pending.operation.range,
        }
    }

    fn overlaps(&self, range: BlockRange) -> bool {
        let source = match self {
            Self::Edge(edge) => edge.source(),
            Self::Operation(_) => None,
        };
        self.blocks().overlaps(range) || source.is_some_and(|source| source.overlaps(range))
    }

    const fn is_edge(&self) -> bool {
        matches!(self, Self::Edge(_))
    }
}

/// Edges under way, and what waits for them.
#[derive(Debug, Default)]
pub(super) struct SubBlocks {
    /// In the order in which they came.
    turns: BTreeMap<u64, Turn>,
    next: u64,
    /// Turns are being looked through, in order: whoever ends one meanwhile need not look what may go on.
    is_resuming: bool,
}

impl SubBlocks {
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Takes in an operation that has to wait; gives it back when it has not.
    pub(super) fn hold_back(&mut self, pending: Pending) -> Option<Pending> {
        if self.has_edge_before(self.next, pending.operation.range) && !is_missing(Safeguard::MergesAlone) {
            self.push(Turn::Operation(pending));
            return None;
        }
        Some(pending)
    }

    /// Whether an edge, or an operation that waits for one, lies in `range`.
    pub(super) fn has_any_in(&self, range: BlockRange) -> bool {
        self.has_any_before(self.next, range)
    }

    fn push(&mut self, turn: Turn) -> u64 {
        let number = self.next;
        self.next += 1;
        self.turns.insert(number, turn);
        number
    }

    fn has_any_before(&self, number: u64, range: BlockRange) -> bool {
        self.turns.range(..number).any(|(_, turn)| turn.overlaps(range))
    }

    fn has_edge_before(&self, number: u64, range: BlockRange) -> bool {
        self.turns.range(..number).any(|(_, turn)| turn.is_edge() && turn.overlaps(range))
    }

    fn edge(&mut self, number: u64) -> Option<&mut Edge> {
        match self.turns.get_mut(&number) {
            Some(Turn::Edge(edge)) => Some(edge),
            Some(Turn::Operation(_)) | None => None,
        }
    }

    /// Whether an edge has waited until its source was on stable storage.
    pub(super) fn has_waited(&self, number: u64) -> bool {
        matches!(self.turns.get(&number), Some(Turn::Edge(Edge { after: Some(_), .. })))
    }

    /// An edge begins anew when everything up to `lsn` is on stable storage.
    pub(super) fn wait_until(&mut self, number: u64, lsn: Lsn) {
        if let Some(edge) = self.edge(number) {
            (edge.has_begun, edge.after) = (false, Some(lsn));
        }
    }

    /// Takes out an edge; returns its request and its range.
    pub(super) fn take(&mut self, number: u64) -> Option<(RequestId, ByteRange)> {
        self.take_edge(number).map(|edge| (edge.request, edge.range))
    }

    fn take_edge(&mut self, number: u64) -> Option<Edge> {
        match self.turns.remove(&number) {
            Some(Turn::Edge(edge)) => Some(edge),
            Some(Turn::Operation(_)) | None => None,
        }
    }

    /// Takes out the operation that has this number, if no edge is before it.
    fn take_operation(&mut self, number: u64) -> Option<Pending> {
        let turn = self.turns.get(&number).filter(|turn| !turn.is_edge())?;
        if self.has_edge_before(number, turn.blocks()) {
            return None;
        }
        match self.turns.remove(&number) {
            Some(Turn::Operation(pending)) => Some(pending),
            Some(Turn::Edge(_)) | None => None,
        }
    }
}

impl Volume {
    /// Takes a write apart, copying it: partial blocks at its ends, whole ones between, as many as a segment can hold.
    pub(super) fn write_in_parts(
        &mut self,
        context: &mut Context<'_>,
        id: RequestId,
        range: ByteRange,
        payload: Payload,
    ) {
        let covered = range.blocks_covered();
        for part in edges_of(range) {
            let mut bytes = context.buffers.take(part.len() as usize);
            copy_payload(&payload, (part.offset() - range.offset()) as usize, bytes.as_mut_slice());
            self.add_edge(context, id, part, Merge::Bytes(bytes));
        }
        let mut first = covered.first;
        while first < covered.end() {
            let count = (covered.end().0 - first.0).min(self.operation_blocks_max());
            let blocks = BlockRange::new(first, count);
            let mut piece = context.buffers.take(blocks.bytes() as usize);
            copy_payload(&payload, (first.byte_offset() - range.offset()) as usize, piece.as_mut_slice());
            self.add_operation(context, id, Operation { kind: OperationKind::Write, range: blocks }, Some(piece));
            first = blocks.end();
        }
        context.buffers.put_all(payload);
    }

    /// Takes an or-write apart, copying it: as many blocks at a time as a segment can hold.
    pub(super) fn or_in_parts(&mut self, context: &mut Context<'_>, id: RequestId, range: ByteRange, payload: Payload) {
        let mut from = range.offset();
        while from < range.end() {
            let end = ((from / BLOCK_BYTES + self.operation_blocks_max()) * BLOCK_BYTES).min(range.end());
            let part = part_of(from, end);
            let mut bits = context.buffers.take(part.len() as usize);
            copy_payload(&payload, (from - range.offset()) as usize, bits.as_mut_slice());
            self.add_edge(context, id, part, Merge::Or(bits));
            from = end;
        }
        context.buffers.put_all(payload);
    }

    /// Zeroes the partial blocks at the ends of `range`.
    pub(super) fn zero_edges(&mut self, context: &mut Context<'_>, id: RequestId, range: ByteRange) {
        for part in edges_of(range) {
            self.add_edge(context, id, part, Merge::Zeros);
        }
    }

    /// Adds a merge of the request, of no more blocks than one operation may write.
    pub(super) fn add_edge(&mut self, context: &mut Context<'_>, request: RequestId, range: ByteRange, merge: Merge) {
        self.add_part(request);
        let number = self.subblock.push(Turn::Edge(Edge { request, range, merge, has_begun: false, after: None }));
        self.begin_subblock(context, number);
    }

    /// Begins what a change held up that has now ended, well or not: edges, operations that waited for one, and a resize.
    pub(super) fn resume_subblocks(&mut self, context: &mut Context<'_>) {
        if self.subblock.is_resuming {
            return;
        }
        self.subblock.is_resuming = true;
        let mut from = 0;
        while let Some(number) = self.subblock.turns.range(from..).next().map(|(number, _)| *number) {
            from = number + 1;
            match self.subblock.take_operation(number) {
                Some(pending) => self.add_pending(context, pending),
                None => self.begin_subblock(context, number),
            }
        }
        self.subblock.is_resuming = false;
        self.advance_resize(context);
    }

    fn begin_subblock(&mut self, context: &mut Context<'_>, number: u64) {
        let Some(edge) = self.subblock.edge(number).filter(|edge| !edge.has_begun) else { return };
        let blocks = edge.range.blocks_touched();
        let (source, after) = (edge.source(), edge.after.unwrap_or(Lsn::ZERO));
        let is_alone = [Some(blocks), source]
            .into_iter()
            .flatten()
            .all(|blocks| !self.subblock.has_any_before(number, blocks) && !self.is_changing(blocks));
        let waits = after > self.durable_lsn && !self.is_poisoned;
        if waits || (!is_alone && !is_missing(Safeguard::MergesAlone)) {
            return;
        }
        if let Some(edge) = self.subblock.edge(number) {
            edge.has_begun = true;
        }
        self.resolve_subblock(context, number);
    }

    pub(super) fn resolve_subblock(&mut self, context: &mut Context<'_>, number: u64) {
        let Some(edge) = self.subblock.edge(number) else { return };
        let (source, blocks) = (edge.source(), edge.range.blocks_touched());
        let lends = matches!(edge.merge, Merge::Lend);
        match source {
            Some(source) => self.share(context, number, source),
            None if lends => self.lend(context, number, blocks),
            None => self.fetch(context, blocks, Purpose::SubBlock(number)),
        }
    }

    /// The blocks are here: merges the change in and writes them.
    pub(super) fn merge_subblock(&mut self, context: &mut Context<'_>, number: u64, mut found: Buffer, is_hole: bool) {
        let Some(Edge { request, range, merge, .. }) = self.subblock.take_edge(number) else {
            context.buffers.put(found);
            return;
        };
        let blocks = range.blocks_touched();
        if is_hole && matches!(merge, Merge::Zeros) {
            context.buffers.put(found);
            if self.log.has_given_up {
                // A write that failed may be on the disk: it must not come back after this is answered.
                let operation = Operation { kind: OperationKind::Trim, range: blocks };
                self.add_pending(context, Pending::new(operation, None, request));
            } else {
                // The trim that made it a hole may not be durable yet.
                self.part_done(context, request, Ok(self.applied_lsn));
            }
        } else {
            let start = (range.offset() - blocks.first.byte_offset()) as usize;
            let place = found.as_mut_slice().get_mut(start..start + range.len() as usize);
            match merge.apply(place.unwrap_or_default()) {
                Ok(()) => {
                    let operation = Operation { kind: OperationKind::Write, range: blocks };
                    self.add_pending(context, Pending::new(operation, Some(found), request));
                }
                Err(at) => {
                    context.buffers.put(found);
                    self.note_answer(request, Completion::Miscompare { at });
                    self.part_done(context, request, Ok(Lsn::ZERO));
                }
            }
        }
        context.buffers.put_all(merge.into_buffers());
        self.resume_subblocks(context);
    }

    pub(super) fn fail_subblock(&mut self, context: &mut Context<'_>, number: u64, error: Error) {
        if let Some(edge) = self.subblock.take_edge(number) {
            context.buffers.put_all(edge.merge.into_buffers());
            self.part_done(context, edge.request, Err(error));
        }
        self.resume_subblocks(context);
    }
}

/// The parts of a range that do not fill their block: at most one at each end.
fn edges_of(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let head_end = range.offset().next_multiple_of(BLOCK_BYTES);
    let tail_start = range.end() / BLOCK_BYTES * BLOCK_BYTES;
    let (head, tail) = if tail_start < head_end {
        (Some(range), None)
    } else {
        let head = (range.offset() < head_end).then(|| part_of(range.offset(), head_end));
        (head, (tail_start < range.end()).then(|| part_of(tail_start, range.end())))
    };
    head.into_iter().chain(tail)
}

pub(super) fn part_of(from: u64, end: u64) -> ByteRange {
    ByteRange::new(from, end - from).expect("a part of a range")
}

/// Copies the payload's bytes from `from` on.
fn copy_payload(payload: &Payload, from: usize, out: &mut [u8]) {
    let mut at = from;
    let mut filled = 0;
    while filled < out.len() {
        let bytes = payload.get(at / PIECE_BYTES_MAX).and_then(|piece| piece.as_slice().get(at % PIECE_BYTES_MAX..));
        let bytes = bytes.filter(|bytes| !bytes.is_empty()).expect("the payload is as long as its range");
        let count = bytes.len().min(out.len() - filled);
        if let (Some(to), Some(from)) = (out.get_mut(filled..filled + count), bytes.get(..count)) {
            to.copy_from_slice(from);
        }
        filled += count;
        at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_the_partial_blocks_only() {
        let edges = |offset, len| {
            let edges = edges_of(ByteRange::new(offset, len).unwrap());
            edges.map(|part| (part.offset(), part.len())).collect::<Vec<_>>()
        };
        assert_eq!(edges(0, 8192), []);
        assert_eq!(edges(512, 512), [(512, 512)]);
        assert_eq!(edges(0, 512), [(0, 512)]);
        assert_eq!(edges(4096, 4608), [(8192, 512)]);
        assert_eq!(edges(3584, 8192), [(3584, 512), (8192, 3584)]);
        assert_eq!(edges(3584, 512), [(3584, 512)]);
    }
}
