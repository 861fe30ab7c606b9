//! Giving slots back. A segment that no stored page names, and that holds nothing unfolded, is dead. Its header is made
//! void, durably, before its slot goes back: `pool rebuild` replays every segment that it finds.
//!
//! A segment with trims, or with a resize, which counts as one beyond the end, is kept until it is the volume's oldest: older
//! ones may hold what it trimmed, and a rebuild without the trim would bring that back.

use super::{Context, Volume};
use crate::error::DiskFault;
use crate::format::SlotHeader;
use crate::io::{Action, IoId};
use crate::pool::SegmentRow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use units::{BLOCK_LEN, SegmentId};

/// Most headers made void at a time.
const VOIDING_MAX: usize = 16;

/// Segments on their way out.
#[derive(Debug, Default)]
pub(super) struct Releases {
    dead: BTreeSet<SegmentId>,
    /// Segments without any operation.
    empty: BTreeSet<SegmentId>,
    /// Of those, the ones whose slots have not gone back. What was given up may be whole on the disk, and only the first
    /// operation of a newer segment tells that it does not count.
    given_up: BTreeSet<SegmentId>,
    voiding: BTreeMap<IoId, SegmentId>,
    /// Made void; the slot goes back with the first sync of a higher id.
    voided: Vec<(SegmentId, IoId)>,
    /// The disk failed the last header that was to become void.
    is_refused: bool,
}

impl Releases {
    pub(super) fn is_idle(&self) -> bool {
        self.voiding.is_empty() && self.voided.is_empty()
    }

    /// Whether slots are about to go back. Those of headers that the disk refuses may never.
    pub(super) fn may_free_slots(&self) -> bool {
        !self.voided.is_empty() || (!self.voiding.is_empty() && !self.is_refused)
    }

    pub(super) fn has_dead(&self) -> bool {
        !self.dead.is_empty() || !self.empty.is_empty()
    }

    pub(super) fn note_dead(&mut self, dead: Vec<SegmentId>) {
        for segment in dead {
            let is_on_its_way = self.voiding.values().any(|voiding| *voiding == segment)
                || self.voided.iter().any(|(voided, _)| *voided == segment);
            if !is_on_its_way {
                self.dead.insert(segment);
            }
        }
    }

    /// Nothing can be made durable any more; void headers do no harm where nothing is lost with them.
    pub(super) fn abandon(&mut self) {
        self.dead.clear();
        self.empty.clear();
        self.voided.clear();
    }
}

impl Volume {
    /// Gives up a segment in which no operation is.
    pub(super) fn release_empty(&mut self, context: &mut Context<'_>, segment: SegmentId) {
        self.release.given_up.insert(segment);
        self.release.empty.insert(segment);
        self.release_dead(context);
    }

    /// Makes the headers of dead segments void, as many as may be now.
    pub(super) fn release_dead(&mut self, context: &mut Context<'_>) {
        if self.is_poisoned {
            return;
        }
        let candidates: Vec<SegmentId> = self.release.empty.iter().chain(&self.release.dead).copied().collect();
        for segment in candidates {
            if self.release.voiding.len() >= VOIDING_MAX {
                return;
            }
            let Some(row) = self.segments.get(&segment).copied() else {
                self.release.dead.remove(&segment);
                continue;
            };
            if self.release.empty.remove(&segment) || self.may_be_released(&row) {
                self.release.dead.remove(&segment);
                self.make_void(context, &row);
            }
        }
    }

    fn may_be_released(&self, row: &SegmentRow) -> bool {
        // The newest one on stable storage tells a rebuild the volume's size and where its log goes on.
        let newer = (Bound::Excluded(row.segment), Bound::Unbounded);
        let is_newest = !self.segments.range(newer).any(|(_, newer)| newer.first_lsn <= self.durable_lsn);
        let is_oldest = self.segments.first_key_value().is_some_and(|(oldest, _)| *oldest == row.segment);
        let is_sealed = row.last_lsn.is_some_and(|last| last <= self.folded_to);
        let tells_an_end = self.log.lacks_footer_before(row.first_lsn)
            || self.release.given_up.first().is_some_and(|oldest| *oldest < row.segment);
        is_sealed && !is_newest && !tells_an_end && (!row.has_holes || is_oldest) && !self.reads.uses(row.segment)
    }

    fn make_void(&mut self, context: &mut Context<'_>, row: &SegmentRow) {
        let header = SlotHeader::void(self.config.pool, row.segment, self.id, row.first_lsn);
        let mut block = context.buffers.take(BLOCK_LEN);
        header.encode(block.as_mut_slice());
        let id = self.next_io();
        self.release.voiding.insert(id, row.segment);
        let pool_offset = self.config.geometry.slot_offset(row.slot);
        context.actions.push(Action::Append { id, pool_offset, buffers: vec![block] });
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
        let before = self.segments.len();
        for (segment, after) in std::mem::take(&mut self.release.voided) {
            if after < sync {
                self.segments.remove(&segment);
                self.release.given_up.remove(&segment);
                context.actions.push(Action::Release { segment });
            } else {
                self.release.voided.push((segment, after));
            }
        }
        if self.segments.len() < before {
            self.log.waits_for_space = false;
            self.release_dead(context);
        }
    }
}
