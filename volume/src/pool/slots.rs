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

/// Most sites that have volumes in common: so many pools give out ids that no other one of them does.
pub const SITES_MAX: u8 = 4;

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
    /// The number of the site, where there are others.
    site: Option<u8>,
}

impl Slots {
    /// All of `free`, and ids from `next_segment` on; the window is empty.
    pub(super) fn new(total: u32, free: VecDeque<SlotIndex>, next_segment: SegmentId) -> Self {
        let (window, leased) = (VecDeque::new(), BTreeMap::new());
        Self { total, free, window, leased, next_segment, window_end: next_segment, site: None }
    }

    /// Gives out from now on only ids that are this site's: those that leave its number when divided by [`SITES_MAX`].
    pub(super) fn set_site(&mut self, site: u8) {
        self.site = Some(site % SITES_MAX);
    }

    /// The id that is given out next.
    fn next_id(&self) -> SegmentId {
        let sites = u64::from(SITES_MAX);
        let ahead = self.site.map_or(0, |site| (u64::from(site) + sites - self.next_segment.0 % sites) % sites);
        SegmentId(self.next_segment.0 + ahead)
    }

    /// Ids that a window takes, those of other sites between them too.
    fn window_segments(&self) -> u64 {
        WINDOW_SEGMENTS * self.site.map_or(1, |_| SITES_MAX.into())
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
        let segment = self.next_id();
        if segment >= self.window_end {
            return None;
        }
        let slot = self.window.pop_front()?;
        self.next_segment = SegmentId(segment.0 + 1);
        self.leased.insert(segment, slot);
        Some(Lease { slot, segment })
    }

    /// The lease under this id, of which nothing is noted yet.
    pub(super) fn leased(&self, segment: SegmentId) -> Option<Lease> {
        self.leased.get(&segment).map(|slot| Lease { slot: *slot, segment })
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
        let segment = self.next_id();
        if segment >= self.window_end {
            return None;
        }
        let slot = self.leased.remove(&lease.segment)?;
        self.next_segment = SegmentId(segment.0 + 1);
        self.leased.insert(segment, slot);
        Some(Lease { slot, segment })
    }

    /// These slots with a lease under an id of another site's, which is not in use here; to be noted durably before it is used. Ids
    /// that are given out later lie behind it, so that they go on in the order of any log that it is part of.
    ///
    /// # Errors
    /// [`DiskFault::NoSpace`] when the id leaves no others.
    pub(super) fn renamed(&self, lease: Lease, segment: SegmentId) -> Result<Self, DiskFault> {
        let mut new = self.clone();
        new.leased.remove(&lease.segment);
        new.leased.insert(segment, lease.slot);
        new.pass(segment)?;
        Ok(new)
    }

    /// Gives out ids behind this one only.
    ///
    /// # Errors
    /// [`DiskFault::NoSpace`] when it leaves no others.
    pub(super) fn pass(&mut self, segment: SegmentId) -> Result<(), DiskFault> {
        if segment >= self.next_segment {
            let next = segment.0.checked_add(1 + self.window_segments()).filter(|end| *end <= SegmentId::MAX.0);
            self.window_end = SegmentId(next.ok_or(DiskFault::NoSpace)?);
            self.next_segment = SegmentId(segment.0 + 1);
        }
        Ok(())
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
        new.window_end = SegmentId(self.next_segment.0 + new.window_segments());
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
