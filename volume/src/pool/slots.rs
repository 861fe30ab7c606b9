//! Which slots are free, and how they are handed out.
//!
//! Slots go out from a **window**: some free slots and a range of segment ids, noted durably before any of them is used.
//! After a crash, a segment that the store does not know can only be in a slot of the window, with an id of its range.
//! Freed slots are used again in the order in which they were freed, as late as can be.

use super::{Lease, LeaseClass};
use crate::error::DiskFault;
use std::collections::{BTreeMap, VecDeque};
use units::{SegmentId, SlotIndex};

/// Most free slots of the window.
pub const WINDOW_SLOTS: usize = 32;

/// Segment ids that a window takes: more than slots, since a lease that is given back has used up its id.
pub(super) const WINDOW_SEGMENTS: u64 = 2 * WINDOW_SLOTS as u64;

/// Pools with fewer slots keep less back.
const SMALL_POOL_SLOTS: u32 = 16;

/// The free slots.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    total: u32,
    /// In the order in which they were freed.
    free: VecDeque<SlotIndex>,
    /// Free slots of the window.
    window: VecDeque<SlotIndex>,
    /// Leased, and their segments not noted yet.
    leased: BTreeMap<SegmentId, SlotIndex>,
    next_segment: SegmentId,
    /// Ids from here on are not in the window.
    window_end: SegmentId,
}

impl Slots {
    /// All of `free`, and ids from `next_segment` on; the window is empty.
    pub(super) fn new(total: u32, free: VecDeque<SlotIndex>, next_segment: SegmentId) -> Self {
        Self { total, free, window: VecDeque::new(), leased: BTreeMap::new(), next_segment, window_end: next_segment }
    }

    pub(super) const fn total(&self) -> u32 {
        self.total
    }

    /// Free slots that are not for `class`. From data 1 % are kept back, four at least, three in a small pool: for trims,
    /// which a full pool must take, and for compaction. Of these trims leave two, or one, so that slots of which little is
    /// live can always become fewer; in a larger pool up to eight, since a round has all its packs written before it gives
    /// any slot back.
    pub(super) const fn kept_back(&self, class: LeaseClass) -> u32 {
        let is_small = self.total < SMALL_POOL_SLOTS;
        let for_compaction = match self.total / 100 {
            _ if is_small => 1,
            0..=2 => 2,
            slots if slots < 8 => slots,
            _ => 8,
        };
        match class {
            LeaseClass::Data => {
                let hundredth = self.total / 100;
                if hundredth > for_compaction + 2 { hundredth } else { for_compaction + 2 }
            }
            LeaseClass::Reserve => for_compaction,
            LeaseClass::Compaction => 0,
        }
    }

    /// The free slots, in the order in which they are leased.
    pub(super) fn free_slots(&self) -> impl Iterator<Item = SlotIndex> {
        self.window.iter().chain(&self.free).copied()
    }

    pub(super) fn free_count(&self) -> usize {
        self.free.len() + self.window.len()
    }

    /// # Errors
    /// [`DiskFault::NoSpace`] when `class` may have none of the free slots.
    pub(super) fn check_room(&self, class: LeaseClass) -> Result<(), DiskFault> {
        if self.free_count() > self.kept_back(class) as usize { Ok(()) } else { Err(DiskFault::NoSpace) }
    }

    /// Takes the next slot of the window, when it has one and an id for it.
    pub(super) fn lease(&mut self) -> Option<Lease> {
        if self.next_segment >= self.window_end {
            return None;
        }
        let slot = self.window.pop_front()?;
        let segment = self.next_segment;
        self.next_segment = SegmentId(segment.0 + 1);
        self.leased.insert(segment, slot);
        Some(Lease { slot, segment })
    }

    /// The slot that is leased next.
    pub(super) fn next_slot(&self) -> Option<SlotIndex> {
        self.window.front().or_else(|| self.free.front()).copied()
    }

    /// Puts the slot that would be leased next behind all others.
    pub(super) fn put_off(&mut self) {
        if let Some(slot) = self.window.pop_front().or_else(|| self.free.pop_front()) {
            self.free.push_back(slot);
        }
    }

    /// Gives the slot of a lease the next id, when the window has one. Without one the lease stays as it is.
    pub(super) fn renew(&mut self, lease: Lease) -> Option<Lease> {
        if self.next_segment >= self.window_end {
            return None;
        }
        let slot = self.leased.remove(&lease.segment)?;
        let segment = self.next_segment;
        self.next_segment = SegmentId(segment.0 + 1);
        self.leased.insert(segment, slot);
        Some(Lease { slot, segment })
    }

    /// These slots with the window filled up; to be noted durably before it is used.
    ///
    /// # Errors
    /// [`DiskFault::NoSpace`] when the ids are used up, some 10^12 of them.
    pub(super) fn refilled(&self) -> Result<Self, DiskFault> {
        let mut new = self.clone();
        while new.window.len() < WINDOW_SLOTS
            && let Some(slot) = new.free.pop_front()
        {
            new.window.push_back(slot);
        }
        new.window_end = SegmentId(self.next_segment.0 + WINDOW_SEGMENTS);
        if new.window_end > SegmentId::MAX { Err(DiskFault::NoSpace) } else { Ok(new) }
    }

    /// Takes back a lease of which nothing counts.
    pub(super) fn give_back(&mut self, lease: Lease) {
        if self.leased.remove(&lease.segment).is_some() {
            self.window.push_front(lease.slot);
        }
    }

    /// The store knows the segment now.
    pub(super) fn noted(&mut self, segment: SegmentId) {
        self.leased.remove(&segment);
    }

    pub(super) fn free(&mut self, slot: SlotIndex) {
        self.free.push_back(slot);
    }

    /// A free slot turns out not to be one.
    pub(super) fn take_out(&mut self, slot: SlotIndex) {
        self.free.retain(|free| *free != slot);
    }

    /// The window as it is noted: its slots, first id, and the id after its last.
    pub(super) fn window(&self) -> (Vec<SlotIndex>, SegmentId, SegmentId) {
        let slots = self.leased.values().chain(&self.window).copied().collect();
        let first = self.leased.first_key_value().map_or(self.next_segment, |(segment, _)| *segment);
        (slots, first, self.window_end)
    }
}
