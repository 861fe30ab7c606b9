//! Changes of part of a block: the block is read, merged and written whole.
//!
//! While one is under way, every other change of that block waits, so that the merge never brings back what another change
//! has overwritten; and it begins only when no change of the block is pending or in flight.

use super::read::Purpose;
use super::request::Pending;
use super::{Context, Volume};
use crate::buffer::Buffer;
use crate::error::Error;
use crate::format::{Operation, OperationKind};
use crate::request::{PIECE_BYTES_MAX, Payload, RequestId};
use std::collections::BTreeMap;
use std::ops::Range;
use units::{BLOCK_BYTES, BLOCK_LEN, BlockIndex, BlockRange, ByteRange};

/// A change of part of a block.
#[derive(Debug)]
struct Edge {
    request: RequestId,
    block: BlockIndex,
    within: Range<usize>,
    /// What comes there; zeros when `None`.
    bytes: Option<Buffer>,
    has_begun: bool,
}

/// Changes of parts of blocks under way, and what waits for them.
#[derive(Debug, Default)]
pub(super) struct SubBlocks {
    edges: BTreeMap<u64, Edge>,
    next: u64,
    held: Vec<Pending>,
}

impl SubBlocks {
    pub(super) fn is_empty(&self) -> bool {
        self.edges.is_empty() && self.held.is_empty()
    }

    /// Takes in an operation that has to wait; gives it back when it has not.
    pub(super) fn hold_back(&mut self, pending: Pending) -> Option<Pending> {
        if self.touches(pending.operation.range) {
            self.held.push(pending);
            return None;
        }
        Some(pending)
    }

    /// Whether an edge, or an operation that waits for one, lies in `range`.
    pub(super) fn has_any_in(&self, range: BlockRange) -> bool {
        self.touches(range) || self.held.iter().any(|pending| pending.operation.range.overlaps(range))
    }

    /// Whether an edge lies in `range`.
    fn touches(&self, range: BlockRange) -> bool {
        self.edges.values().any(|edge| range.contains(edge.block))
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
        for (block, within) in edges_of(range) {
            let mut bytes = context.buffers.take(within.len());
            let from = block.byte_offset() + within.start as u64 - range.offset();
            copy_payload(&payload, from as usize, bytes.as_mut_slice());
            self.add_edge(context, Edge { request: id, block, within, bytes: Some(bytes), has_begun: false });
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
        payload.into_iter().for_each(|piece| context.buffers.put(piece));
    }

    /// Zeroes the partial blocks at the ends of `range`.
    pub(super) fn zero_edges(&mut self, context: &mut Context<'_>, id: RequestId, range: ByteRange) {
        for (block, within) in edges_of(range) {
            self.add_edge(context, Edge { request: id, block, within, bytes: None, has_begun: false });
        }
    }

    fn add_edge(&mut self, context: &mut Context<'_>, edge: Edge) {
        self.add_part(edge.request);
        let number = self.subblock.next;
        self.subblock.next += 1;
        self.subblock.edges.insert(number, edge);
        self.begin_subblock(context, number);
    }

    /// Begins what a change held up that has now ended, well or not: edges, and a resize.
    pub(super) fn resume_subblocks(&mut self, context: &mut Context<'_>) {
        let waiting: Vec<u64> =
            self.subblock.edges.iter().filter(|(_, edge)| !edge.has_begun).map(|(number, _)| *number).collect();
        for number in waiting {
            self.begin_subblock(context, number);
        }
        self.advance_resize(context);
    }

    fn begin_subblock(&mut self, context: &mut Context<'_>, number: u64) {
        let Some(block) = self.subblock.edges.get(&number).filter(|edge| !edge.has_begun).map(|edge| edge.block) else {
            return;
        };
        let is_first = self.subblock.edges.range(..number).all(|(_, earlier)| earlier.block != block);
        if !is_first || self.is_changing(BlockRange::new(block, 1)) {
            return;
        }
        if let Some(edge) = self.subblock.edges.get_mut(&number) {
            edge.has_begun = true;
        }
        self.resolve_subblock(context, number);
    }

    pub(super) fn resolve_subblock(&mut self, context: &mut Context<'_>, number: u64) {
        if let Some(edge) = self.subblock.edges.get(&number) {
            self.fetch(context, BlockRange::new(edge.block, 1), Purpose::SubBlock(number));
        }
    }

    /// The block is here: merges the change in and writes it.
    pub(super) fn merge_subblock(&mut self, context: &mut Context<'_>, number: u64, mut block: Buffer, is_hole: bool) {
        let Some(edge) = self.subblock.edges.remove(&number) else {
            context.buffers.put(block);
            return;
        };
        if edge.bytes.is_none() && is_hole {
            context.buffers.put(block);
            if self.log.has_given_up {
                // A write that failed may be on the disk: it must not come back after this is answered.
                let operation = Operation { kind: OperationKind::Trim, range: BlockRange::new(edge.block, 1) };
                self.add_pending(context, Pending { operation, payload: None, request: edge.request });
            } else {
                // The trim that made it a hole may not be durable yet.
                self.part_done(context, edge.request, Ok(self.applied_lsn));
            }
        } else {
            if let Some(place) = block.as_mut_slice().get_mut(edge.within.clone()) {
                match &edge.bytes {
                    Some(bytes) => place.copy_from_slice(bytes.as_slice()),
                    None => place.fill(0),
                }
            }
            let operation = Operation { kind: OperationKind::Write, range: BlockRange::new(edge.block, 1) };
            self.add_pending(context, Pending { operation, payload: Some(block), request: edge.request });
        }
        if let Some(bytes) = edge.bytes {
            context.buffers.put(bytes);
        }
        self.let_held_go(context);
    }

    pub(super) fn fail_subblock(&mut self, context: &mut Context<'_>, number: u64, error: Error) {
        if let Some(edge) = self.subblock.edges.remove(&number) {
            if let Some(bytes) = edge.bytes {
                context.buffers.put(bytes);
            }
            self.part_done(context, edge.request, Err(error));
        }
        self.let_held_go(context);
    }

    fn let_held_go(&mut self, context: &mut Context<'_>) {
        let held = std::mem::take(&mut self.subblock.held);
        for pending in held {
            if let Some(free) = self.subblock.hold_back(pending) {
                self.add_pending(context, free);
            }
        }
        self.resume_subblocks(context);
    }
}

/// The partial blocks at the ends of a range, with the bytes of the block that the range covers.
fn edges_of(range: ByteRange) -> impl Iterator<Item = (BlockIndex, Range<usize>)> {
    let block_of = |byte: u64| BlockIndex(byte / BLOCK_BYTES);
    let within = |byte: u64| (byte % BLOCK_BYTES) as usize;
    let (first, last) = (block_of(range.offset()), block_of(range.end()));
    let head = match (within(range.offset()), first == last) {
        (0, false) => None,
        (start, true) => Some((first, start..within(range.end()))),
        (start, false) => Some((first, start..BLOCK_LEN)),
    };
    let tail = (first != last && within(range.end()) != 0).then(|| (last, 0..within(range.end())));
    head.into_iter().chain(tail)
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
        let edges = |offset, len| edges_of(ByteRange::new(offset, len).unwrap()).collect::<Vec<_>>();
        assert_eq!(edges(0, 8192), []);
        assert_eq!(edges(512, 512), [(BlockIndex(0), 512..1024)]);
        assert_eq!(edges(0, 512), [(BlockIndex(0), 0..512)]);
        assert_eq!(edges(4096, 4608), [(BlockIndex(2), 0..512)]);
        assert_eq!(edges(3584, 8192), [(BlockIndex(0), 3584..4096), (BlockIndex(2), 0..3584)]);
        assert_eq!(edges(3584, 512), [(BlockIndex(0), 3584..4096)]);
    }
}
