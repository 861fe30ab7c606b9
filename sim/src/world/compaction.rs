//! The compactor, on the same disk as the volumes, and the leases that wait for what it frees.

use super::driver::{Owner, Transfers};
use super::{Checked, Happening, TICK, World};
use crate::census::Fault;
use crate::store::SimStore;
use std::collections::VecDeque;
use volume::compact::{CompactionFigures, Compactor, Context, News};
use volume::error::DiskFault;
use volume::io::Event;
use volume::pool::{Index, Lease, LeaseClass};

/// The compactor and what is under way for it.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    pub(super) compactor: Compactor,
    pub(super) transfers: Transfers,
    /// Leases that found no slot while some were being freed.
    parked: VecDeque<(usize, LeaseClass)>,
    is_turn_due: bool,
}

impl Compaction {
    pub(super) fn is_idle(&self, index: Option<&Index<SimStore>>) -> bool {
        let is_compactor_idle = index.is_none_or(|index| self.compactor.is_idle(index));
        is_compactor_idle && self.transfers.is_empty() && self.parked.is_empty()
    }

    /// Whether it has begun to move something, and has not ended that.
    pub(super) fn is_moving(&self) -> bool {
        self.compactor.is_moving()
    }

    /// Packs that have a slot and do not count.
    pub(super) fn packs_under_way(&self) -> usize {
        self.compactor.packs_under_way()
    }
}

impl World {
    pub(super) fn open_compactor(&mut self) -> Checked {
        self.with_compactor(Compactor::open)?;
        self.after(TICK, Happening::CompactorTick);
        Ok(())
    }

    pub(super) fn tell_compactor(&mut self, event: Event) -> Checked {
        self.with_compactor(|compactor, context| compactor.handle(context, event))
    }

    pub(super) fn tick_compactor(&mut self) -> Checked {
        self.with_compactor(Compactor::tick)
    }

    pub(super) fn turn_compactor(&mut self) -> Checked {
        self.compaction.is_turn_due = false;
        self.with_compactor(Compactor::turn)
    }

    pub(super) fn is_freeing(&self) -> bool {
        self.index.as_ref().is_some_and(|index| self.compaction.compactor.is_freeing(index))
    }

    pub(super) fn with_compactor(&mut self, act: impl FnOnce(&mut Compactor, &mut Context<'_, SimStore>)) -> Checked {
        let Some(index) = &mut self.index else { return Ok(()) };
        let before = self.compaction.compactor.figures().clone();
        let (mut actions, mut news) = (Vec::new(), Vec::new());
        act(&mut self.compaction.compactor, &mut Context { index, actions: &mut actions, news: &mut news });
        self.note_compaction(&before);
        self.carry_out(Owner::Compactor, actions)?;
        news.into_iter().for_each(|news| self.take_news(news));
        let wants_turn = self.index.as_ref().is_some_and(|index| self.compaction.compactor.wants_turn(index));
        if wants_turn && !self.compaction.is_turn_due {
            self.compaction.is_turn_due = true;
            let delay = self.delay();
            self.after(delay, Happening::CompactorTurn);
        }
        self.answer_parked()
    }

    fn take_news(&mut self, news: News) {
        match news {
            News::Tell(volume, event) => {
                let open = self.sites.iter().position(|site| site.id == volume && site.volume.is_some());
                if let Some(site) = open {
                    self.trace.tell(|| format!("{site}: is told {event:?}"));
                    self.answer_later(site, event);
                }
            }
            News::Erased(volume, result) => self.note_erased(volume, result.map_err(|fault| fault.to_string())),
            News::Freed => {}
        }
    }

    fn note_compaction(&mut self, before: &CompactionFigures) {
        let after = self.compaction.compactor.figures();
        let (packs, given_up) = (after.packs_written, after.rounds_given_up);
        if after == before {
            return;
        }
        self.trace.note(&[50, self.now, packs, after.segments_moved, after.blocks_moved, given_up]);
        self.trace.tell(|| format!("the compactor: {:?}", self.compaction.compactor.figures()));
        let census = &mut self.outcome.census;
        census.note_many(Fault::PackWritten, packs - before.packs_written);
        census.note_many(Fault::RoundGivenUp, given_up - before.rounds_given_up);
        census.note_many(Fault::SegmentSuspect, self.compaction.compactor.figures().suspects - before.suspects);
    }

    /// Leases a slot for the compactor.
    pub(super) fn lease_for_compactor(&mut self) -> Checked {
        let result = self.lease(LeaseClass::Compaction)?;
        self.trace.tell(|| format!("the compactor leased {result:?}"));
        self.tell_compactor(Event::Leased { result })
    }

    /// Leases a slot, now or when one has been freed.
    pub(super) fn answer_lease(&mut self, site: usize, class: LeaseClass) -> Checked {
        let result = self.lease(class)?;
        self.trace.tell(|| format!("{site}: leased {result:?}"));
        if result == Err(DiskFault::NoSpace) && self.may_gain_slots(site) {
            self.compaction.parked.push_back((site, class));
            return self.with_compactor(|_, _| ());
        }
        self.answer_leased(site, result);
        Ok(())
    }

    fn answer_leased(&mut self, site: usize, result: Result<Lease, DiskFault>) {
        result.into_iter().for_each(|lease| self.families.note_spare(self.sites[site].id, lease));
        self.answer_later(site, Event::Leased { result });
    }

    fn answer_parked(&mut self) -> Checked {
        let parked = std::mem::take(&mut self.compaction.parked);
        for (site, class) in parked {
            let result = self.lease(class)?;
            if result == Err(DiskFault::NoSpace) && self.may_gain_slots(site) {
                self.compaction.parked.push_back((site, class));
            } else {
                self.answer_leased(site, result);
            }
        }
        Ok(())
    }
}
