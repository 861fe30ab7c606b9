//! Leases: slots and ids handed out for new segments, from a window that is noted durably first.

use super::{Index, Lease, LeaseClass};
use crate::error::DiskFault;
use crate::store::{Durability, Store};
use units::{SegmentId, SlotIndex};

impl<S: Store> Index<S> {
    /// Leases a slot and an id for a new segment.
    ///
    /// # Errors
    /// [`DiskFault::NoSpace`] when no slot is free for `class`; [`DiskFault::Io`] when the store failed.
    pub fn lease(&mut self, class: LeaseClass) -> Result<Lease, DiskFault> {
        self.slots.check_room(class)?;
        if let Some(lease) = self.slots.lease() {
            return Ok(lease);
        }
        self.refill()?;
        self.slots.lease().ok_or(DiskFault::NoSpace)
    }

    /// The same, of the first slot that `has_space` accepts. Those that it refuses are leased after all others.
    ///
    /// # Errors
    /// As [`Index::lease`], and what `has_space` says when it refuses every free slot.
    pub fn lease_where(
        &mut self,
        class: LeaseClass,
        mut has_space: impl FnMut(SlotIndex) -> Result<(), DiskFault>,
    ) -> Result<Lease, DiskFault> {
        self.slots.check_room(class)?;
        let mut refusal = DiskFault::NoSpace;
        for _ in 0..self.slots.free_count() {
            let Some(slot) = self.slots.next_slot() else { break };
            match has_space(slot) {
                Ok(()) => return self.lease(class),
                Err(fault) => refusal = fault,
            }
            self.slots.put_off();
        }
        Err(refusal)
    }

    /// Says which of several sites the pool is at, [`super::SITES_MAX`] at most: ids of new segments are its own from now on.
    pub fn set_site(&mut self, site: u8) {
        self.slots.set_site(site);
    }

    /// Gives out ids behind this one only: a pool that takes the place of another one must not give out what that had, and what is
    /// in logs that come back to it.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, [`DiskFault::NoSpace`] when it leaves no others.
    pub fn pass_ids(&mut self, up_to: SegmentId) -> Result<(), DiskFault> {
        let mut passed = self.slots.clone();
        passed.pass(up_to)?;
        self.commit(vec![self.pool_row(&passed)], Durability::Durable)?;
        self.slots = passed;
        Ok(())
    }

    /// Gives a lease, or one like it that was had before and not used, the id under which another site writes the segment.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or the id is in use here; [`DiskFault::NoSpace`] when it leaves no others. The
    /// lease is given back.
    pub fn rename_lease(&mut self, lease: Lease, segment: SegmentId) -> Result<Lease, DiskFault> {
        if lease.segment == segment {
            return Ok(lease);
        }
        if let Some(before) = self.slots.leased(segment) {
            self.give_back(lease);
            return Ok(before);
        }
        let renamed = self.renamed(lease, segment);
        if renamed.is_err() {
            self.give_back(lease);
        }
        renamed
    }

    fn renamed(&mut self, lease: Lease, segment: SegmentId) -> Result<Lease, DiskFault> {
        if self.entry(segment).is_some() {
            return Err(DiskFault::Io);
        }
        let renamed = self.slots.renamed(lease, segment)?;
        self.commit(vec![self.pool_row(&renamed)], Durability::Durable)?;
        self.slots = renamed;
        Ok(Lease { segment, ..lease })
    }

    /// Number of free slots that are not for `class`.
    #[must_use]
    pub fn kept_back(&self, class: LeaseClass) -> u32 {
        self.slots.kept_back(class)
    }

    /// Number of slots, and of those that are free.
    #[must_use]
    pub fn slot_counts(&self) -> (u32, u32) {
        (self.slots.total(), u32::try_from(self.slots.free_count()).unwrap_or(u32::MAX))
    }

    /// The free slots, in the order in which they are leased.
    pub fn free_slots(&self) -> impl Iterator<Item = SlotIndex> {
        self.slots.free_slots()
    }

    /// Fills the window up, durably.
    fn refill(&mut self) -> Result<(), DiskFault> {
        let refilled = self.slots.refilled()?;
        self.commit(vec![self.pool_row(&refilled)], Durability::Durable)?;
        self.slots = refilled;
        Ok(())
    }

    /// Gives the slot of a lease that nothing was done with an id above all that were given out.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, [`DiskFault::NoSpace`] when there is no such lease or no id: the lease is
    /// given back.
    pub fn renew(&mut self, lease: Lease) -> Result<Lease, DiskFault> {
        if let Some(renewed) = self.slots.renew(lease) {
            return Ok(renewed);
        }
        let renewed = self.refill().and_then(|()| self.slots.renew(lease).ok_or(DiskFault::NoSpace));
        if renewed.is_err() {
            self.give_back(lease);
        }
        renewed
    }

    /// Takes back a lease of whose slot nothing counts. Its id is not used again.
    pub fn give_back(&mut self, lease: Lease) {
        self.slots.give_back(lease);
    }
}
