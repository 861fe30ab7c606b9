//! The store's thread: one question after the other, in the order in which volumes asked.

use super::answers::Excuse;
use super::{Checked, Happening, Site, World};
use crate::trace::Finding;
use units::{Lsn, SegmentId};
use volume::io::{Action, Event, IoId, LoadedPage, PageIndex};
use volume::map::{Page, PageWrite};
use volume::pool::{LeaseClass, SegmentRow};

/// A question to the store.
#[derive(Debug)]
pub(super) enum Job {
    LoadPage { site: usize, page: PageIndex },
    WriteBack { site: usize, id: IoId, pages: Vec<PageWrite>, folded_to: Lsn, size_bytes: u64 },
    Lease { site: usize, class: LeaseClass },
    Note(SegmentRow),
    Release(SegmentId),
}

impl World {
    pub(super) fn ask_store(&mut self, site: usize, action: Action) -> Checked {
        self.trace.tell(|| format!("{site}: asks {}", told(&action)));
        self.jobs.push_back(match action {
            Action::LoadPage { page } => Job::LoadPage { site, page },
            Action::WriteBack { id, pages, folded_to, size_bytes } => {
                self.check_folded(site, folded_to)?;
                Job::WriteBack { site, id, pages, folded_to, size_bytes }
            }
            Action::Lease { class } => Job::Lease { site, class },
            Action::NoteSegment(row) => Job::Note(row),
            Action::Release { segment } => Job::Release(segment),
            Action::Append { .. } | Action::Fetch { .. } | Action::Sync { .. } | Action::Reply(_) => return Ok(()),
        });
        let delay = self.delay();
        self.store_turn_at = self.store_turn_at.max(self.now + delay);
        self.at(self.store_turn_at, Happening::StoreTurn);
        Ok(())
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
        let Some(index) = &mut self.index else { return Ok(()) };
        let (site, event) = match job {
            Job::LoadPage { site, page } => {
                let result = index.load_page(self.sites[site].id, page);
                (site, Event::PageLoaded { page, result })
            }
            Job::WriteBack { site, id, pages, folded_to, size_bytes } => {
                let result = index.write_back(self.sites[site].id, &pages, folded_to, size_bytes);
                self.trace.note(&[7, id.0, folded_to.0, u64::from(result.is_ok())]);
                self.trace.tell(|| format!("{site}: written back to {folded_to}: {result:?}"));
                (site, Event::WroteBack { id, result })
            }
            Job::Lease { site, class } => {
                let result = self.lease(class)?;
                self.trace.tell(|| format!("{site}: leased {result:?}"));
                (site, Event::Leased { result })
            }
            Job::Note(row) => {
                let _ = index.note_segment(row);
                return Ok(());
            }
            Job::Release(segment) => {
                // One that fails stays taken until the next start.
                let _ = index.release(segment);
                return Ok(());
            }
        };
        // In order for one volume; those of two, on two shards, may overtake each other.
        let at = (self.sites[site].store_answer_at + 1).max(self.now + self.delay());
        self.sites[site].store_answer_at = at;
        self.at(at, Happening::StoreAnswers(site, event));
        Ok(())
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
        let is_quiet = self.appends.is_empty() && self.fetches.is_empty() && self.syncs.is_empty();
        is_quiet && self.asked.is_empty() && self.volume.as_ref().is_none_or(volume::engine::Volume::is_idle)
    }
}

fn told(action: &Action) -> String {
    if let Action::WriteBack { id, pages, folded_to, .. } = action {
        return format!("write-back {} of {} pages to {folded_to}", id.0, pages.len());
    }
    format!("{action:?}")
}
