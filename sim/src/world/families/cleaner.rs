//! Carries out what is still to be done (`chores`), behind what is answered: one chore after the other, in any order.

use super::book::Record;
use super::changes::{Answer, Change, Waits};
use super::chores::Chore;
use super::{Task, World};
use crate::census::Fault;
use crate::oracle::BLOCK_SECTORS;
use crate::trace::Finding;
use crate::workload::Wish;
use crate::world::store_thread::Job;
use crate::world::{Checked, MS};
use units::{BLOCK_BYTES, VolumeId};
use volume::compact::EraseError;
use volume::request::Completion;

/// How long it waits before it tries again what failed.
const PAUSE: u64 = 10_000 * MS;

/// How far a chore is: what has been done.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Recorded,
    Resized(usize),
    Looked(usize),
    Trimmed,
    BoundaryDeleted,
    Checkpointed(usize),
    Idle(usize),
    Erased,
    SnapshotsDropped,
}

/// The chore under way, and those that have failed.
#[derive(Debug, Default)]
pub(super) struct Cleaner {
    under_way: Option<(Chore, Stage, Waits)>,
    failed: Vec<Chore>,
    rests_until: u64,
    /// Whether something has changed since nothing was left to do.
    pub(super) has_news: bool,
}

impl Cleaner {
    /// What a crash now is counted as.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.under_way.as_ref().map(|(chore, _, _)| match chore {
            Chore::Erase(_) => Fault::CrashInErasing,
            Chore::Snapshot(..) | Chore::Volume(..) | Chore::Empty(_) | Chore::Delete(..) | Chore::DropSnapshot(_) => {
                Fault::CrashInCleaning
            }
        })
    }
}

impl World {
    /// Whether nothing is left to be done, but what has failed.
    pub(super) fn is_clean(&self) -> bool {
        self.families.cleaner.under_way.is_none() && !self.families.cleaner.has_news
    }

    /// Whether nothing is left to be done at all.
    pub(in crate::world) fn has_no_chores(&self) -> bool {
        self.is_clean() && self.families.cleaner.failed.is_empty()
    }

    pub(in crate::world) fn wake_cleaner(&mut self) {
        self.families.cleaner.has_news = true;
    }

    /// Time has passed: what failed is tried again.
    pub(in crate::world) fn tick_cleaner(&mut self) {
        let cleaner = &mut self.families.cleaner;
        if !cleaner.failed.is_empty() && self.now >= cleaner.rests_until {
            cleaner.failed.clear();
            cleaner.has_news = true;
        }
    }

    pub(super) fn go_on_with_chore(&mut self) -> Checked {
        loop {
            if let Some((_, _, waits)) = &self.families.cleaner.under_way
                && !self.is_ready(waits)
            {
                return Ok(());
            }
            if let Some((chore, stage, waits)) = self.families.cleaner.under_way.take() {
                let answers = self.take_answers(&waits);
                let ended = self.take_end(&waits);
                let next = self.take_stage((chore, stage), &answers, ended)?;
                self.families.cleaner.under_way = next.map(|(stage, waits)| (chore, stage, waits));
                self.families.cleaner.has_news = true;
            } else if !self.begin_chore()? {
                return Ok(());
            }
        }
    }

    /// Begins one of the chores; `false` when there is none.
    fn begin_chore(&mut self) -> Checked<bool> {
        // What is read back is to stay as it is meanwhile.
        let is_hidden = self.families.change.as_ref().is_some_and(Change::hides_records);
        if !self.families.cleaner.has_news || is_hidden || self.is_reading_back {
            return Ok(false);
        }
        let mut chores = self.chores();
        chores.retain(|chore| !self.families.cleaner.failed.contains(chore));
        if chores.is_empty() {
            self.families.cleaner.has_news = false;
            return Ok(false);
        }
        let chore = *self.random.pick(&chores);
        self.trace.tell(|| format!("a chore: {chore:?}"));
        let (stage, waits) = match chore {
            Chore::Snapshot(id, state) => {
                (Stage::Recorded, Waits::record(self.write_record(Record::Snapshot(id, state))))
            }
            Chore::Volume(id, state) => (Stage::Recorded, Waits::record(self.write_record(Record::Volume(id, state)))),
            Chore::DropSnapshot(id) => (Stage::Recorded, Waits::record(self.write_record(Record::Dropped(vec![id])))),
            Chore::Delete(boundary, _) => {
                self.families.ended.remove(&Task::Delete(boundary));
                self.queue_job(Job::Delete(boundary));
                (Stage::BoundaryDeleted, Waits::task(Task::Delete(boundary)))
            }
            Chore::Empty(id) => match self.open_site_of(id) {
                Some(at) => {
                    let wish = Wish::Resize { size_bytes: BLOCK_BYTES, discard_tail: true };
                    (Stage::Resized(at), Waits::answers(vec![(at, self.ask(at, wish, true)?)]))
                }
                None => (Stage::Trimmed, Waits::default()),
            },
            Chore::Erase(id) => match self.open_site_of(id) {
                Some(at) => {
                    (Stage::Checkpointed(at), Waits::answers(vec![(at, self.ask(at, Wish::Checkpoint, true)?)]))
                }
                None => (Stage::Erased, self.erase(id)),
            },
        };
        self.families.cleaner.under_way = Some((chore, stage, waits));
        Ok(true)
    }

    fn open_site_of(&self, volume: VolumeId) -> Option<usize> {
        self.site_of(volume).filter(|at| self.sites[*at].volume.is_some())
    }

    fn erase(&mut self, volume: VolumeId) -> Waits {
        self.queue_job(Job::Erase(volume));
        Waits::task(Task::Erase(volume))
    }

    fn take_stage(
        &mut self,
        (chore, stage): (Chore, Stage),
        answers: &[Answer],
        ended: Result<(), String>,
    ) -> Checked<Option<(Stage, Waits)>> {
        let failed = answers.iter().find_map(|answer| answer.as_ref().err().map(ToString::to_string));
        if let Some(why) = ended.err().or(failed)
            && !matches!(stage, Stage::Checkpointed(_))
        {
            self.fail_chore(chore, &why)?;
            return Ok(None);
        }
        Ok(match stage {
            Stage::Recorded => None,
            Stage::Resized(at) => {
                let look = self.ask(at, Wish::Extents(0..BLOCK_SECTORS, 1), true)?;
                Some((Stage::Looked(at), Waits::answers(vec![(at, look)])))
            }
            Stage::Looked(at) => {
                let is_data = |answer: &Answer| matches!(answer, Ok(Completion::Extents(found)) if found.iter().any(|one| one.is_data));
                let mut waits = Waits::default();
                if answers.iter().any(is_data) {
                    let wish = Wish::Zero { sectors: 0..BLOCK_SECTORS, is_fua: true, is_write_zeroes: false };
                    waits = Waits::answers(vec![(at, self.ask(at, wish, true)?)]);
                }
                Some((Stage::Trimmed, waits))
            }
            Stage::Trimmed => self.note_emptied(chore),
            Stage::BoundaryDeleted => self.drop_deleted(chore),
            // Whether it could be checkpointed does not matter.
            Stage::Checkpointed(at) => Some((Stage::Idle(at), Waits { idle: Some(at), ..Waits::default() })),
            Stage::Idle(at) => {
                self.close_site(at);
                Some((Stage::Erased, self.erase(self.sites[at].id)))
            }
            Stage::Erased => self.drop_snapshots(chore),
            Stage::SnapshotsDropped => self.drop_volume(chore),
        })
    }

    fn note_emptied(&mut self, chore: Chore) -> Option<(Stage, Waits)> {
        if let Chore::Empty(id) = chore {
            self.site_of(id).into_iter().for_each(|at| self.sites[at].is_emptied = true);
            self.note(Fault::GhostEmptied);
        }
        None
    }

    fn drop_deleted(&mut self, chore: Chore) -> Option<(Stage, Waits)> {
        let Chore::Delete(boundary, id) = chore else { return None };
        self.note(Fault::SnapshotDeleted);
        match id {
            Some(id) => Some((Stage::Recorded, Waits::record(self.write_record(Record::Dropped(vec![id]))))),
            None => {
                self.families.orphans.remove(&boundary);
                None
            }
        }
    }

    fn drop_snapshots(&mut self, chore: Chore) -> Option<(Stage, Waits)> {
        let Chore::Erase(volume) = chore else { return None };
        let snapshots = self.families.snapshots.iter().filter(|(_, one)| one.parent.volume == volume);
        let ids = snapshots.map(|(id, _)| *id).collect();
        Some((Stage::SnapshotsDropped, Waits::record(self.write_record(Record::Dropped(ids)))))
    }

    fn drop_volume(&mut self, chore: Chore) -> Option<(Stage, Waits)> {
        let Chore::Erase(volume) = chore else { return None };
        self.note(Fault::VolumeErased);
        Some((Stage::Recorded, Waits::record(self.write_record(Record::VolumeDropped(volume)))))
    }

    /// What failed is tried again after a while. Something must explain it.
    fn fail_chore(&mut self, chore: Chore, why: &str) -> Checked {
        self.trace.tell(|| format!("a chore failed: {chore:?}: {why}"));
        let injected = &self.injected;
        let known = injected.disk + injected.no_space + injected.syncs + injected.lies + injected.map_pages;
        // Others borrow from a volume for a while; that it comes to an end is looked at in the end.
        let is_lent = why == EraseError::Lent.to_string();
        // Emptying a ghost of a full pool needs a slot.
        if known + injected.full + self.store.faults() == 0 && !is_lent {
            return Err(Finding(format!("P5: nothing explains that {chore:?} fails: {why}")));
        }
        let cleaner = &mut self.families.cleaner;
        if cleaner.failed.is_empty() {
            cleaner.rests_until = self.now + PAUSE;
        }
        cleaner.failed.push(chore);
        Ok(())
    }

    /// The store's thread erases a volume that is closed.
    pub(in crate::world) fn erase_volume(&mut self, volume: VolumeId) -> Checked {
        self.with_compactor(|compactor, context| compactor.erase(context, volume))
    }

    pub(in crate::world) fn note_erased(&mut self, volume: VolumeId, result: Result<(), String>) {
        if let Some(index) = self.index.as_mut().filter(|_| result.is_ok()) {
            // The volume's engine is gone, and nothing was written to these.
            let spare = self.families.spare.remove(&volume).unwrap_or_default();
            spare.into_iter().for_each(|lease| index.give_back(lease));
        }
        self.families.ended.insert(Task::Erase(volume), result);
    }
}
