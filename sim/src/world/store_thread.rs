//! The store's thread: one question after the other, in the order in which volumes asked.

use super::answers::Excuse;
use super::{Checked, Happening, Site, World};
use crate::trace::Finding;
use std::ops::Range;
use units::{Lsn, SegmentId, VolumeId};
use volume::error::DiskFault;
use volume::io::{Action, Event, IoId, LoadedPage, PageIndex};
use volume::map::{Location, Page, PageWrite};
use volume::pool::{Boundary, Folded, LeaseClass, Loan, Parent, Pledge, SegmentRow, Settled};

/// A question to the store.
#[derive(Debug)]
pub(super) enum Job {
    LoadPage {
        site: usize,
        page: PageIndex,
    },
    LoadPlace(usize, SegmentId),
    LoadChanges {
        site: usize,
        id: IoId,
        since: Parent,
        pages: Range<PageIndex>,
        runs_max: usize,
    },
    WriteBack {
        site: usize,
        id: IoId,
        generation: u64,
        pages: Vec<PageWrite>,
        folded: Folded,
    },
    NoteBoundary(usize, Boundary),
    NoteLoans(SegmentId, Vec<Loan>, Vec<Pledge>),
    Pledge(Pledge, Vec<(Location, u32)>),
    Lease {
        site: usize,
        class: LeaseClass,
    },
    Note(Box<SegmentRow>),
    Release(SegmentId),
    Settle(usize, Settled),
    Unpinned(usize, SegmentId),
    /// The catalogue asks, behind what the volumes have told of their boundaries.
    OpenView(VolumeId),
    NoteParent(VolumeId),
    Delete(Parent),
    Closed(VolumeId),
    Erase(VolumeId),
}

impl World {
    pub(super) fn ask_store(&mut self, site: usize, action: Action) -> Checked {
        self.trace.tell(|| format!("{site}: asks {}", told(&action)));
        let job = match action {
            Action::LoadPage { page } => Job::LoadPage { site, page },
            Action::LoadPlace { segment } => Job::LoadPlace(site, segment),
            Action::LoadChanges { id, since, pages, runs_max } => Job::LoadChanges { site, id, since, pages, runs_max },
            Action::WriteBack { id, generation, pages, folded } => {
                self.check_folded(site, folded.to)?;
                Job::WriteBack { site, id, generation, pages, folded }
            }
            Action::NoteLoans { segment, loans, pledges } => Job::NoteLoans(segment, loans, pledges),
            Action::Pledge { pledge, runs } => Job::Pledge(pledge, runs),
            Action::NoteBoundary(boundary) => Job::NoteBoundary(site, boundary),
            Action::Lease { class } => Job::Lease { site, class },
            Action::NoteSegment(row) => Job::Note(row),
            Action::Release { segment } => Job::Release(segment),
            Action::Settle(settled) => Job::Settle(site, settled),
            Action::Unpinned { segment } => Job::Unpinned(site, segment),
            Action::Append { .. } | Action::Fetch { .. } | Action::Sync { .. } | Action::Reply(_) => return Ok(()),
            Action::LeaseFor { .. } | Action::SyncPeer { .. } | Action::TellPrimary(_) | Action::FellOut { .. } => {
                unreachable!("no volume of this world is mirrored")
            }
        };
        let is_late = self.broken == super::Broken::BoundaryOrder;
        if is_late && matches!(job, Job::NoteBoundary(..)) {
            self.families.held.push(job);
        } else {
            let is_write_back = matches!(job, Job::WriteBack { .. });
            self.jobs.push_back(job);
            if is_late && is_write_back {
                self.jobs.extend(self.families.held.drain(..));
            }
        }
        self.await_turn();
        Ok(())
    }

    pub(super) fn queue_job(&mut self, job: Job) {
        self.jobs.push_back(job);
        self.await_turn();
    }

    fn await_turn(&mut self) {
        let delay = self.delay();
        self.store_turn_at = self.store_turn_at.max(self.now + delay);
        self.at(self.store_turn_at, Happening::StoreTurn);
    }

    fn check_folded(&self, site: usize, folded_to: Lsn) -> Checked {
        let durable_lsn = self.sites[site].volume.as_ref().map_or(Lsn::ZERO, |volume| volume.status().durable_lsn);
        if folded_to <= durable_lsn {
            return Ok(());
        }
        Err(Finding(format!("a write-back folds to {folded_to}, and only {durable_lsn} is durable")))
    }

    pub(super) fn take_store_turn(&mut self) -> Checked {
        let Some(job) = self.jobs.pop_front() else { return Ok(()) };
        self.lease_ahead()?;
        let Some(index) = &self.index else { return Ok(()) };
        if let Job::LoadPage { site, .. } | Job::WriteBack { site, .. } = &job {
            let volume = self.sites[*site].id;
            let asked = self.families.waiting.ask(index, volume, job);
            return asked.map_or(Ok(()), |job| self.take_job(job));
        }
        self.take_job(job)
    }

    fn take_job(&mut self, job: Job) -> Checked {
        let Some(index) = &mut self.index else { return Ok(()) };
        match job {
            Job::LoadPage { site, page } => {
                let result = index.load_page(self.sites[site].id, page);
                self.answer_later(site, Event::PageLoaded { page, result });
            }
            Job::WriteBack { site, id, generation, pages, folded } => {
                let result = index.write_back(self.sites[site].id, generation, &pages, folded);
                self.trace.note(&[7, id.0, folded.to.0, u64::from(result.is_ok())]);
                self.trace.tell(|| format!("{site}: written back to {}: {result:?}", folded.to));
                self.answer_later(site, Event::WroteBack { id, result });
                let volume = self.sites[site].id;
                self.let_heirs_go_on(volume, result.is_ok())?;
                self.with_compactor(|compactor, context| compactor.look_at(context, volume))?;
            }
            // One that fails is written with the next commit.
            Job::NoteLoans(segment, loans, pledges) => {
                let _ = index.note_loans(segment, &loans);
                drop(pledges);
            }
            Job::Pledge(pledge, runs) => index.pledge(pledge, runs),
            Job::NoteBoundary(site, boundary) => drop(index.note_boundary(self.sites[site].id, boundary)),
            Job::Lease { site, class } => self.answer_lease(site, class)?,
            // Those that fail are written with the next commit, or stay taken until the next start.
            Job::Note(row) => {
                let _ = index.note_segment(*row);
                self.families.not_spare(row.volume, row.segment);
            }
            Job::Release(segment) => drop(index.release(segment)),
            Job::Settle(site, settled) => {
                let volume = self.sites[site].id;
                index.settle(volume, settled);
                self.with_compactor(|compactor, context| compactor.look_at(context, volume))?;
            }
            Job::LoadChanges { site, id, since, pages, runs_max } => {
                let result = index.changes(self.sites[site].id, since, pages, runs_max);
                self.answer_later(site, Event::ChangesLoaded { id, result });
            }
            Job::OpenView(id) => drop(self.open_view(id)?),
            Job::NoteParent(heir) => self.note_parent_of(heir)?,
            Job::Delete(boundary) => self.delete_boundary(boundary)?,
            Job::Closed(volume) => self.note_closed(volume)?,
            Job::Erase(volume) => self.erase_volume(volume)?,
            Job::LoadPlace(site, segment) => {
                let volume = self.sites[site].id;
                let place = self.compaction.compactor.hold(index, volume, segment);
                self.answer_later(site, Event::Place { segment, place: place.map(Box::new) });
            }
            Job::Unpinned(site, segment) => {
                let volume = self.sites[site].id;
                self.with_compactor(|compactor, context| compactor.unpinned(context, volume, segment))?;
            }
        }
        Ok(())
    }

    /// A volume has written back, or failed to: its heirs may go on, or are told so.
    fn let_heirs_go_on(&mut self, volume: VolumeId, is_written: bool) -> Checked {
        let Some(index) = &self.index else { return Ok(()) };
        if is_written {
            let ready = self.families.waiting.take_ready(index);
            return ready.into_iter().try_for_each(|job| self.take_job(job));
        }
        let failed = self.families.waiting.take_failed(index, volume);
        self.fail_jobs(failed);
        Ok(())
    }

    /// A volume is closed, and has asked all that it will.
    fn note_closed(&mut self, volume: VolumeId) -> Checked {
        self.families.waiting.forget(volume);
        let Some(index) = &self.index else { return Ok(()) };
        let failed = self.families.waiting.take_failed(index, volume);
        self.fail_jobs(failed);
        self.with_compactor(|compactor, context| compactor.closed(context, volume))
    }

    /// Time passes for those who wait.
    pub(super) fn tick_waiting(&mut self) -> Checked {
        self.families.ticks += 1;
        if !self.families.ticks.is_multiple_of(10) {
            return Ok(());
        }
        let overdue = self.families.waiting.take_overdue();
        // After a failed sync nothing is folded any more; where requests take seconds, some folds take long.
        let is_excused = self.has_faults() || self.injected.syncs > 0 || self.plan.rates.slow > 0;
        if !overdue.is_empty() && !is_excused {
            return Err(Finding("a clone waits for ever for what it inherits".to_owned()));
        }
        self.fail_jobs(overdue);
        Ok(())
    }

    fn fail_jobs(&mut self, jobs: Vec<Job>) {
        let fault = DiskFault::Io;
        for job in jobs {
            if let Job::LoadPage { site, page } = job {
                self.answer_later(site, Event::PageLoaded { page, result: Err(fault) });
            } else if let Job::WriteBack { site, id, .. } = job {
                self.answer_later(site, Event::WroteBack { id, result: Err(fault) });
            }
        }
    }

    /// Sends an answer on its way: in order for one volume; those of two, on two shards, may overtake each other.
    pub(super) fn answer_later(&mut self, site: usize, event: Event) {
        let at = (self.sites[site].store_answer_at + 1).max(self.now + self.delay());
        self.sites[site].store_answer_at = at;
        self.at(at, Happening::StoreAnswers(site, event));
    }

    pub(super) fn take_store_answer(&mut self, site: usize, event: Event) -> Checked {
        if let Event::PageLoaded { result, .. } = &event {
            self.excuse.unavailable = result.is_err();
            self.excuse.corrupt = matches!(result, Ok(LoadedPage::Present(page)) if Page::decode(page).is_err());
        }
        let told = self.tell_volume(site, event);
        self.excuse = Excuse::default();
        told
    }
}

impl Site {
    /// Whether nothing is under way for it.
    pub(super) fn is_idle(&self) -> bool {
        self.transfers.is_empty()
            && self.asked.is_empty()
            && self.volume.as_ref().is_none_or(volume::engine::Volume::is_idle)
    }
}

fn told(action: &Action) -> String {
    if let Action::WriteBack { id, pages, folded, .. } = action {
        return format!("write-back {} of {} pages to {}", id.0, pages.len(), folded.to);
    }
    format!("{action:?}")
}
