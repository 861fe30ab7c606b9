//! The compactor, on the same disk as the volumes, and the leases that wait for what it frees.

use super::driver::{Owner, Transfers};
use super::{Checked, World};
use crate::store::SimStore;
use std::collections::VecDeque;
use volume::compact::{Compactor, Context, News};
use volume::error::DiskFault;
use volume::io::Event;
use volume::pool::LeaseClass;

/// The compactor and what is under way for it.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    pub(super) compactor: Compactor,
    pub(super) transfers: Transfers,
    /// Leases that found no slot while some were being freed.
    parked: VecDeque<(usize, LeaseClass)>,
}

impl Compaction {
    pub(super) fn is_idle(&self) -> bool {
        self.compactor.is_idle() && self.transfers.is_empty() && self.parked.is_empty()
    }

    pub(super) fn is_freeing(&self) -> bool {
        self.compactor.is_freeing()
    }
}

impl World {
    pub(super) fn tell_compactor(&mut self, event: &Event) -> Checked {
        self.with_compactor(|compactor, context| compactor.handle(context, event))
    }

    pub(super) fn tick_compactor(&mut self) -> Checked {
        self.with_compactor(Compactor::tick)
    }

    pub(super) fn with_compactor(&mut self, act: impl FnOnce(&mut Compactor, &mut Context<'_, SimStore>)) -> Checked {
        let Some(index) = &mut self.index else { return Ok(()) };
        let (mut actions, mut news) = (Vec::new(), Vec::new());
        act(&mut self.compaction.compactor, &mut Context { index, actions: &mut actions, news: &mut news });
        self.carry_out(Owner::Compactor, actions)?;
        for news in news {
            if let News::Tell(volume, event) = news
                && let Some(site) = self.sites.iter().position(|site| site.id == volume)
            {
                self.trace.tell(|| format!("{site}: is told {event:?}"));
                self.answer_later(site, event);
            }
        }
        self.answer_parked()
    }

    /// Leases a slot, now or when one has been freed.
    pub(super) fn answer_lease(&mut self, site: usize, class: LeaseClass) -> Checked {
        let result = self.lease(class)?;
        self.trace.tell(|| format!("{site}: leased {result:?}"));
        if result == Err(DiskFault::NoSpace) && self.compaction.is_freeing() {
            self.compaction.parked.push_back((site, class));
            return Ok(());
        }
        self.answer_later(site, Event::Leased { result });
        Ok(())
    }

    fn answer_parked(&mut self) -> Checked {
        let parked = std::mem::take(&mut self.compaction.parked);
        parked.into_iter().try_for_each(|(site, class)| self.answer_lease(site, class))
    }
}
