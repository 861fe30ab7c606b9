//! Segments on their way out of the volume.
//!
//! What is folded and named by no stored page is given back by the store's side; the volume tells how far it has no more
//! use for its segments as a tail of its log ([`Settled`]), and when no read uses one that leaves. What it gives back by
//! itself are segments in which no operation is, left by failed appends: their headers are made void, durably, before the
//! slots go back, since `pool rebuild` replays every segment that it finds.

use super::{Context, Volume};
use crate::error::DiskFault;
use crate::format::SlotHeader;
use crate::io::{Action, IoId};
use crate::pool::{SegmentRow, Settled, Survivors};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use units::{BLOCK_LEN, SegmentId};

/// Segments on their way out.
#[derive(Debug, Default)]
pub(super) struct Releases {
    /// Segments without any operation whose headers are still to be made void.
    empty: BTreeSet<SegmentId>,
    voiding: BTreeMap<IoId, SegmentId>,
    /// Made void; the slot goes back with the first sync of a higher id.
    voided: Vec<(SegmentId, IoId)>,
    /// The disk failed the last header that was to become void.
    is_refused: bool,
    /// Segments that leave once no read uses them.
    leaving: BTreeSet<SegmentId>,
    /// Segments that were moved, with the number of the first fetch that reads them where they are now.
    moved: BTreeMap<SegmentId, u64>,
    /// What was told last.
    settled: Option<Settled>,
}

impl Releases {
    pub(super) fn is_idle(&self) -> bool {
        self.voiding.is_empty() && self.voided.is_empty() && self.leaving.is_empty() && self.moved.is_empty()
    }

    /// Whether slots are about to go back by what the volume does. Those of headers that the disk refuses may never.
    pub(super) fn may_free_slots(&self) -> bool {
        !self.voided.is_empty() || (!self.voiding.is_empty() && !self.is_refused)
    }

    pub(super) fn has_empty(&self) -> bool {
        !self.empty.is_empty()
    }

    /// Nothing can be made durable any more; void headers do no harm where nothing is lost with them.
    pub(super) fn abandon(&mut self) {
        self.empty.clear();
        self.voided.clear();
    }
}

impl Volume {
    /// Whether the store has still to be told what was settled when the volume was opened.
    pub(super) fn has_untold(&self) -> bool {
        self.release.settled.is_none() && self.segments.values().next().is_some_and(|oldest| self.is_settled(oldest))
    }

    /// Tells the store's side how far it has no more use for its segments, when that has changed.
    ///
    /// A segment counts when it is sealed and folded and its footer is durable, and that of all before it: only a successor
    /// tells where a segment without a footer ends. One that was given up and has not gone back stops the rest, since what
    /// is whole of it on the disk is told from what counts by the first operation of a newer one.
    pub(super) fn settle(&mut self, context: &mut Context<'_>) {
        if self.is_frozen() {
            return;
        }
        let before = self.release.settled;
        let from = before.map_or(Bound::Unbounded, |settled| Bound::Excluded(settled.up_to));
        let rest = self.segments.range((from, Bound::Unbounded));
        let last = rest.take_while(|(_, row)| self.is_settled(row)).last().map(|(segment, _)| *segment);
        let Some(up_to) = last.or_else(|| before.map(|settled| settled.up_to)) else { return };
        let mut newest_first = self.segments.values().rev();
        let Some(newest) = newest_first.find(|row| row.first_lsn <= self.durable_lsn) else { return };
        let settled = Some(Settled { up_to, newest_durable: newest.segment });
        if settled != before {
            self.release.settled = settled;
            context.actions.extend(settled.map(Action::Settle));
        }
    }

    fn is_settled(&self, row: &SegmentRow) -> bool {
        // The last one of a mirrored volume tells where its log ends, by which logs are compared.
        let is_kept = self.is_mirrored && self.end().segment == Some(row.segment);
        !is_kept && row.last_lsn.is_some_and(|last| last <= self.folded_to) && !self.log.has_footer_of(row.segment)
    }

    /// Nothing maps the segment any more. It is forgotten once no read uses it.
    pub(super) fn on_leaves(&mut self, context: &mut Context<'_>, segment: SegmentId) {
        self.release.leaving.insert(segment);
        self.unpin(context);
    }

    /// A segment is somewhere else now.
    pub(super) fn on_moved(&mut self, context: &mut Context<'_>, row: &SegmentRow, survivors: Arc<Survivors>) {
        if row.volume == self.id {
            self.segments.insert(row.segment, *row);
            self.survivors.insert(row.segment, survivors);
            self.loans.remove(&row.segment);
        } else {
            self.places.note_moved(*row, survivors);
        }
        self.note_moved(row.segment);
        self.release.moved.insert(row.segment, self.reads.next_number());
        self.unpin(context);
    }

    /// Lets go of the segments that leave, and of the places of those that were moved, once no read uses them.
    pub(super) fn unpin(&mut self, context: &mut Context<'_>) {
        for segment in self.release.leaving.extract_if(.., |segment| !self.reads.uses(*segment, u64::MAX)) {
            self.segments.remove(&segment);
            self.survivors.remove(&segment);
            self.loans.remove(&segment);
            self.places.forget(segment);
            context.actions.push(Action::Unpinned { segment });
        }
        for (segment, _) in self.release.moved.extract_if(.., |segment, first| !self.reads.uses(*segment, *first)) {
            context.actions.push(Action::Unpinned { segment });
        }
    }

    /// Gives up a segment in which no operation is.
    pub(super) fn release_empty(&mut self, context: &mut Context<'_>, segment: SegmentId) {
        self.release.empty.insert(segment);
        self.void_empty(context);
    }

    /// Makes the headers of segments without operations void.
    pub(super) fn void_empty(&mut self, context: &mut Context<'_>) {
        if self.is_poisoned {
            return;
        }
        for segment in std::mem::take(&mut self.release.empty) {
            if let Some(row) = self.segments.get(&segment).copied() {
                self.make_void(context, &row);
            }
        }
    }

    fn make_void(&mut self, context: &mut Context<'_>, row: &SegmentRow) {
        // One that was moved holds an operation.
        let Some(slot) = row.own_slot() else { return };
        let header = SlotHeader::void(self.config.pool, row.segment, self.id, row.first_lsn);
        let mut block = context.buffers.take(BLOCK_LEN);
        header.encode(block.as_mut_slice());
        let id = self.next_io();
        self.release.voiding.insert(id, row.segment);
        let pool_offset = self.config.geometry.slot_offset(slot);
        context.actions.push(Action::Append { id, pool_offset, buffers: vec![block], to_peer: None });
    }

    pub(super) fn on_voided(&mut self, context: &mut Context<'_>, id: IoId, result: Result<(), DiskFault>) {
        let Some(segment) = self.release.voiding.remove(&id) else { return };
        self.release.is_refused = result.is_err();
        if self.is_poisoned {
            return;
        }
        if result.is_err() {
            // Tried again with the next tick; until then the slot is not free.
            self.status.append_faults += 1;
            self.release.empty.insert(segment);
            return;
        }
        let after = self.next_io();
        self.release.voided.push((segment, after));
        self.want_sync(context);
    }

    /// A sync has ended well: gives back the slots of headers that were void before it began.
    pub(super) fn release_voided(&mut self, context: &mut Context<'_>, sync: IoId) {
        for (segment, _) in self.release.voided.extract_if(.., |(_, after)| *after < sync) {
            self.segments.remove(&segment);
            self.loans.remove(&segment);
            context.actions.push(Action::Release { segment });
            self.log.waits_for_space = false;
        }
    }
}
