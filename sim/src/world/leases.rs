//! Leases as the store's thread gives them: some slots are leased before anyone asks, and get a new id when they go out; one
//! for which there is no room below is put behind the others.

use super::{Checked, World};
use crate::census::Fault;
use crate::trace::Finding;
use std::collections::VecDeque;
use volume::error::DiskFault;
use volume::pool::{Lease, LeaseClass};

/// Leases that a volume may hold and not use yet: one of each class.
const SPARES_MAX: usize = 2;

/// What is leased before anyone asks.
#[derive(Debug, Default)]
pub(super) struct Leases {
    ready: VecDeque<Lease>,
    /// Being filled, while others are given out.
    preparing: VecDeque<Lease>,
}

impl Leases {
    fn len(&self) -> usize {
        self.ready.len() + self.preparing.len()
    }

    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.preparing.clear();
    }
}

impl World {
    pub(super) fn lease(&mut self, class: LeaseClass) -> Checked<Result<Lease, DiskFault>> {
        let Some(lease) = self.leases.ready.pop_front() else {
            return self.lease_with_room(class);
        };
        let Some(index) = &mut self.index else { return Ok(Err(DiskFault::Io)) };
        Ok(index.renew(lease))
    }

    fn lease_with_room(&mut self, class: LeaseClass) -> Checked<Result<Lease, DiskFault>> {
        let Some(index) = &mut self.index else { return Ok(Err(DiskFault::Io)) };
        let (random, rate) = (&mut self.random, self.rates.slot_no_space);
        let mut refused = 0;
        let leased = index.lease_where(class, |_| {
            let is_refused = random.chance(rate);
            refused += u64::from(is_refused);
            if is_refused { Err(DiskFault::NoSpace) } else { Ok(()) }
        });
        self.injected.no_space += refused;
        self.outcome.census.note_many(Fault::SlotNoSpace, refused);
        if leased == Err(DiskFault::NoSpace) && refused == 0 && class != LeaseClass::Compaction && !self.is_freeing() {
            self.check_full(class)?;
        }
        Ok(leased)
    }

    /// Leases a slot before anyone asks, now and then.
    pub(super) fn lease_ahead(&mut self) -> Checked {
        if self.leases.len() < self.plan.leases_ahead && self.random.chance(200) {
            let leased = self.lease_with_room(LeaseClass::Data)?;
            self.leases.preparing.extend(leased);
        }
        if self.random.chance(100) {
            self.leases.ready.extend(self.leases.preparing.pop_front());
        }
        Ok(())
    }

    /// P6: a lease is refused only when there is no slot for it.
    fn check_full(&mut self, class: LeaseClass) -> Checked {
        self.injected.full += 1;
        self.injected.full_reserve += u64::from(class == LeaseClass::Reserve);
        self.note(Fault::PoolFull);
        let Some(index) = &self.index else { return Ok(()) };
        let figures = index.figures();
        let kept_back = index.kept_back(class);
        if figures.slots_free <= kept_back {
            return Ok(());
        }
        Err(Finding(format!("P6: a lease of class {class:?} is refused with {figures:?}")))
    }

    /// P6: at rest no slot is out of use but for a segment, or for what a volume goes on with.
    pub(super) fn check_slots(&self) -> Checked {
        let Some(index) = &self.index else { return Ok(()) };
        let figures = index.figures();
        // Where a sync failed, what the compactor had begun stays as it is until the next start.
        let packs = index.packs().count() + index.left_places().count() + self.compaction.packs_under_way();
        let held = self.sites.len() * SPARES_MAX + self.leases.len() + packs;
        if u64::from(figures.slots_used) <= figures.segments + held as u64 {
            return Ok(());
        }
        Err(Finding(format!("P6: slots are leased and forgotten: {figures:?}")))
    }
}
