//! The catalogue's records: one write after the other, each there as a whole or not at all, and durable when it has ended.
//! What is in memory is what is recorded; at a start records are held against the logs.

use super::{Snapshot, SnapshotState, VolumeState, World};
use crate::census::Fault;
use crate::plan::VolumePlan;
use crate::store::SimStore;
use crate::trace::Finding;
use crate::world::{Checked, Happening, Site};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use units::{Lsn, VolumeId};
use volume::pool::{Index, Parent, Waiting};
use volume::rebuild::Families as Told;

/// One write of records.
#[derive(Debug)]
pub(super) enum Record {
    /// Snapshots that were taken at one point.
    Taken(Vec<VolumeId>),
    Snapshot(VolumeId, SnapshotState),
    /// Records of snapshots are taken away.
    Dropped(Vec<VolumeId>),
    /// A volume that begins as a snapshot.
    Heir(Box<(Site, VolumePlan)>),
    Volume(VolumeId, VolumeState),
    VolumeDropped(VolumeId),
}

/// Counts writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// The writes that have not ended. The first is under way.
#[derive(Debug, Default)]
pub(super) struct Book {
    queue: VecDeque<Record>,
    begun: u64,
    ended: u64,
}

impl Book {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) const fn has(&self, ticket: Ticket) -> bool {
        self.ended >= ticket.0
    }
}

impl World {
    pub(super) fn write_record(&mut self, record: Record) -> Ticket {
        let book = &mut self.families.book;
        book.queue.push_back(record);
        book.begun += 1;
        let ticket = Ticket(book.begun);
        if self.families.book.queue.len() == 1 {
            self.begin_record();
        }
        ticket
    }

    fn begin_record(&mut self) {
        let delay = self.delay();
        self.after(delay, Happening::Recorded);
    }

    /// The write of records that is under way has ended.
    pub(in crate::world) fn end_record(&mut self) -> Checked {
        let Some(record) = self.families.book.queue.pop_front() else { return Ok(()) };
        self.trace.tell(|| format!("recorded: {record:?}").chars().take(200).collect());
        self.families.book.ended += 1;
        self.apply_record(record);
        if !self.families.book.is_empty() {
            self.begin_record();
        }
        Ok(())
    }

    fn apply_record(&mut self, record: Record) {
        let snapshots = &mut self.families.snapshots;
        match record {
            Record::Taken(ids) => {
                for id in &ids {
                    snapshots.get_mut(id).into_iter().for_each(|one| {
                        one.is_written = true;
                        one.group = ids.first().copied().filter(|_| ids.len() > 1);
                    });
                }
            }
            Record::Snapshot(id, state) => snapshots.get_mut(&id).into_iter().for_each(|one| one.state = state),
            Record::Dropped(ids) => {
                for one in ids.into_iter().filter_map(|id| snapshots.remove(&id)) {
                    // One that is deleted has no boundary by now.
                    if one.state != SnapshotState::Deleting {
                        self.families.orphans.insert(one.parent);
                    }
                }
            }
            Record::Heir(heir) => {
                let (site, plan) = *heir;
                self.sites.push(site);
                self.plan.volumes.push(plan);
            }
            Record::Volume(id, state) => {
                self.site_of(id).into_iter().for_each(|at| self.sites[at].state = state);
            }
            Record::VolumeDropped(id) => {
                self.site_of(id).into_iter().for_each(|at| self.sites[at].is_gone = true);
                self.families.orphans.retain(|orphan| orphan.volume != id);
            }
        }
        self.families.cleaner.has_news = true;
    }

    /// The process has ended, and with it all views and all that was under way. The write of records that was so is there
    /// or not.
    pub(in crate::world) fn end_catalogue(&mut self) {
        self.note_crash_of_catalogue();
        let under_way = self.families.book.queue.pop_front().filter(|_| self.random.chance(500));
        under_way.into_iter().for_each(|record| self.apply_record(record));
        for at in (0..self.sites.len()).rev().filter(|at| self.sites[*at].is_view).collect::<Vec<_>>() {
            self.return_oracle(at);
        }
        let families = &mut self.families;
        families.waiting = Waiting::default();
        families.held.clear();
        families.orphans.clear();
        families.ended.clear();
        families.spare.clear();
        families.book = Book::default();
        families.change = None;
        families.cleaner = super::Cleaner::default();
        families.deletions = super::Deletions::default();
        let unanswered = families.snapshots.values().filter(|one| !one.is_answered()).count();
        self.outcome.census.note_many(Fault::SnapshotUnrecorded, unanswered as u64);
        self.families.snapshots.retain(|_, one| one.is_written);
        for at in (0..self.sites.len()).rev().filter(|at| !self.sites[*at].has_record()).collect::<Vec<_>>() {
            self.sites.remove(at);
            self.plan.volumes.remove(at);
        }
        for site in &mut self.sites {
            site.is_leaving = false;
            site.is_emptied = false;
        }
    }

    fn note_crash_of_catalogue(&mut self) {
        let change = self.families.change.as_ref().map(super::Change::fault);
        let chore = self.families.cleaner.fault();
        change.into_iter().chain(chore).for_each(|fault| self.note(fault));
    }

    /// What the records say at a rebuild. A snapshot that nobody was told of is left out where its operation may be lost and
    /// what came after it may be there: no prefix of the log is what it would show.
    pub(in crate::world) fn read_records(&mut self, is_order_lost: bool) -> Told {
        self.families.snapshots.retain(|_, one| one.is_answered() || !is_order_lost);
        let there = self.families.snapshots.values().filter(|one| one.state != SnapshotState::Deleting);
        let boundaries = there.map(|one| (one.parent.volume, one.boundary));
        Told::new(self.parents(), boundaries)
    }

    /// What every volume that began as another inherits, also one that is being deleted.
    pub(in crate::world) fn parents(&self) -> BTreeMap<VolumeId, Parent> {
        let heirs = self.sites.iter().filter(|site| site.has_record());
        heirs.filter_map(|site| Some((site.id, site.parent?))).collect()
    }

    /// Whether a start opens a volume: also one without a name that others began as.
    pub(in crate::world) fn is_to_be_opened(&self, at: usize) -> bool {
        let site = &self.sites[at];
        site.state != VolumeState::Deleting || self.is_parent(site.id)
    }

    /// P1. After recovery records are held against the logs: the boundary of every snapshot that was answered is there. A
    /// record whose operation was lost goes, with all of its group; a boundary without a record is deleted.
    pub(in crate::world) fn reconcile(
        &mut self,
        index: &Index<SimStore>,
        next_lsns: &BTreeMap<VolumeId, Lsn>,
    ) -> Checked {
        let is_there = |one: &Snapshot| index.boundaries(one.parent.volume).any(|row| row.boundary == one.boundary);
        let is_lost = |one: &Snapshot| {
            !is_there(one) && next_lsns.get(&one.parent.volume).is_some_and(|next| one.boundary.lsn >= *next)
        };
        let snapshots = &mut self.families.snapshots;
        let lost_groups: BTreeSet<VolumeId> =
            snapshots.values().filter(|one| is_lost(one)).filter_map(|one| one.group).collect();
        let is_gone = |one: &Snapshot| is_lost(one) || one.group.is_some_and(|group| lost_groups.contains(&group));
        let gone = snapshots.extract_if(.., |_, one| is_gone(one)).filter(|(_, one)| one.is_answered());
        let mut missed: Vec<VolumeId> = gone.map(|(id, _)| id).collect();
        for (id, one) in snapshots.iter_mut() {
            // Of a volume that is damaged, or is only to be erased, nothing is judged.
            let is_judged = next_lsns.contains_key(&one.parent.volume);
            let is_missed = is_judged && one.state != SnapshotState::Deleting && !is_there(one);
            (one.is_flushed, one.is_lost) = (true, is_missed);
            missed.extend(Some(*id).filter(|_| is_missed));
        }
        let named: BTreeSet<Parent> = snapshots.values().map(|one| one.parent).collect();
        let of_rows = self.sites.iter().filter(|site| site.has_record()).flat_map(|site| {
            let generations = index.boundaries(site.id).map(|row| row.boundary.generation);
            generations.map(|generation| Parent { volume: site.id, generation })
        });
        self.families.orphans = of_rows.filter(|parent| !named.contains(parent)).collect();
        match missed.first().filter(|_| self.injected.lies == 0) {
            Some(id) => Err(Finding(format!("P1: snapshot {id} is recorded, and its boundary is not there"))),
            None => Ok(()),
        }
    }

    /// Whether a volume of which another holds a part is damaged, or that part lost: it is not served. Those that it began
    /// as have been asked before.
    pub(in crate::world) fn is_condemned(&self, index: &Index<SimStore>, at: usize) -> bool {
        let Some(parent) = self.sites[at].parent else { return false };
        let is_there = index.boundaries(parent.volume).any(|row| row.boundary.generation == parent.generation);
        !is_there || self.site_of(parent.volume).is_none_or(|of| self.sites[of].is_damaged)
    }
}
