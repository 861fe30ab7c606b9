//! What trims and deletions have taken from the pool's live blocks and is not free yet: whoever gave space up sees it come
//! back within a time, whatever else is in the slots. What is overwritten is not owed, since more of the same slots dies
//! by itself. Forgotten by a restart.

use super::{Index, LiveChange};
use crate::store::Store;
use units::{SegmentId, SlotIndex};

/// Blocks that are owed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Owed(u64);

impl<S: Store> Index<S> {
    /// Whole slots that are owed.
    pub(crate) fn owed_slots(&self) -> u64 {
        self.owed.0 / u64::from(self.superblock().geometry.slot_blocks())
    }

    /// A commit has changed live counts. What one segment loses to another is no loss, and what is kept for history's sake
    /// cannot come back.
    pub(super) fn note_live_change(&mut self, live: &LiveChange) {
        let is_kept = |segment: SegmentId| self.entry(segment).is_some_and(|entry| self.is_history(&entry.row));
        let counts = live.totals().filter(|(segment, change)| *change > 0 || !is_kept(*segment));
        let gained: i64 = counts.map(|(_, change)| change).sum();
        self.owe(gained.min(0).unsigned_abs());
    }

    pub(super) fn owe(&mut self, blocks: u64) {
        self.owed.0 = self.owed.0.saturating_add(blocks);
    }

    /// Knows a pack from now on. Its slot has to come back beside what is owed.
    pub(super) fn put_pack(&mut self, pack: SegmentId, slot: SlotIndex) {
        if self.packs.insert(pack, slot).is_none() {
            self.owe(u64::from(self.superblock().geometry.slot_blocks()));
        }
    }

    /// Frees a slot.
    pub(super) fn free_slot(&mut self, slot: SlotIndex) {
        self.slots.free(slot);
        let blocks = u64::from(self.superblock().geometry.slot_blocks());
        self.owed.0 = self.owed.0.saturating_sub(blocks);
    }
}
