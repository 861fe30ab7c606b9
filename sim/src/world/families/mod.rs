//! Snapshots, views of them and clones, deletions, rollbacks and groups: what the daemon's catalogue does, on volumes of the
//! same world, in its order. What adds, acts first and is recorded last; what takes away, is recorded first; what follows
//! is told by the records alone (`chores`).
//!
//! A snapshot is answered once its record is durable and a flush has ended that was asked after its operation; both are
//! under way at once. One that was not answered when the process ends may have been or not; one that was is there until
//! it is deleted, and shows the same all the time.

mod book;
mod changes;
mod chores;
mod cleaner;
mod counts;
mod deletions;
mod groups;
mod views;

use super::store_thread::Job;
use super::{Checked, Happening, Site, World};
use crate::oracle::{Moment, Oracle};
use crate::plan::VolumePlan;
use crate::trace::Finding;
use crate::workload::Wish;
use book::{Book, Record};
use changes::Change;
use cleaner::Cleaner;
use deletions::Deletions;
use std::collections::{BTreeMap, BTreeSet};
use units::VolumeId;
use volume::pool::{Boundary, Lease, Parent, Waiting};

/// Most live snapshots of a world.
const SNAPSHOTS_MAX: usize = 7;

/// Most clones of a world.
const CLONES_MAX: usize = 4;

/// Where the ids of snapshots and clones begin.
const FIRST_ID: u64 = 100;

/// What a volume's record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VolumeState {
    Live,
    /// Without a name: another one was made of it.
    Ghost,
    Deleting,
}

/// What a snapshot's record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SnapshotState {
    Live,
    /// Without a name: a volume began as it.
    Pin,
    Deleting,
}

/// A snapshot.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) parent: Parent,
    boundary: Boundary,
    /// What it shows; `None` while a view has it.
    oracle: Option<Oracle>,
    plan: VolumePlan,
    state: SnapshotState,
    /// The first of those that were taken at one point with it.
    group: Option<VolumeId>,
    /// Its record is durable.
    is_written: bool,
    /// Its operation is.
    is_flushed: bool,
    /// When its operation was answered.
    taken: crate::oracle::Step,
    /// It is about to be deleted: no view is opened any more.
    is_leaving: bool,
    /// The disk lied, and its boundary is not there.
    is_lost: bool,
}

/// The catalogue, and what waits for what is inherited.
#[derive(Debug, Default)]
pub(super) struct Families {
    pub(super) snapshots: BTreeMap<VolumeId, Snapshot>,
    /// Ends of generations that no record names.
    orphans: BTreeSet<Parent>,
    given_out: u64,
    book: Book,
    change: Option<Change>,
    cleaner: Cleaner,
    deletions: Deletions,
    /// What the store's thread has come to.
    ended: BTreeMap<Task, Result<(), String>>,
    pub(super) waiting: Waiting<Job>,
    /// Boundaries that the store is told of too late, where that is broken.
    pub(super) held: Vec<Job>,
    /// Ticks since the last round of those who wait.
    pub(super) ticks: u32,
    /// When the members of the last group were asked to be still.
    held_at: u64,
    /// What each volume has leased and not begun.
    spare: BTreeMap<VolumeId, Vec<Lease>>,
}

/// Something that the store's thread is asked by the catalogue, and tells the end of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    NoteParent(VolumeId),
    Delete(Parent),
    Erase(VolumeId),
}

impl Snapshot {
    /// Whether somebody was told that it is there.
    const fn is_answered(&self) -> bool {
        self.is_written && self.is_flushed
    }
}

impl Families {
    const fn next_id(&mut self) -> VolumeId {
        self.given_out += 1;
        VolumeId(FIRST_ID + self.given_out)
    }

    pub(super) fn note_spare(&mut self, volume: VolumeId, lease: Lease) {
        self.spare.entry(volume).or_default().push(lease);
    }

    pub(super) fn not_spare(&mut self, volume: VolumeId, segment: units::SegmentId) {
        if let Some(leases) = self.spare.get_mut(&volume) {
            leases.retain(|lease| lease.segment != segment);
        }
    }
}

impl World {
    /// What a client may wish beside the usual, now and then; `false` when it goes on as usual.
    pub(super) fn act_on_families(&mut self, site: usize) -> Checked<bool> {
        match self.random.below(100) {
            0..30 if self.may_take_snapshot(1) && !self.sites[site].is_view => {
                let id = self.families.next_id();
                self.ask(site, Wish::Snapshot(id), false)?;
                return Ok(true);
            }
            30..48 => {
                let id = self.pick_snapshot(|snapshot| snapshot.oracle.is_some());
                id.into_iter().for_each(|id| self.queue_job(Job::OpenView(id)));
            }
            48..56 => {
                let view =
                    self.open_sites().into_iter().find(|at| self.sites[*at].is_view && self.sites[*at].is_idle());
                view.map_or(Ok(()), |view| self.close_view(view))?;
                return Ok(view == Some(site));
            }
            56..68 => self.begin_clone()?,
            68..80 => self.begin_snapshot_deletion()?,
            80..86 => self.begin_volume_deletion()?,
            86..93 => self.begin_rollback()?,
            93..100 => self.begin_group()?,
            _ => {}
        }
        Ok(false)
    }

    fn may_take_snapshot(&self, count: usize) -> bool {
        let live = self.families.snapshots.values().filter(|one| one.state == SnapshotState::Live).count();
        live + count <= SNAPSHOTS_MAX
    }

    /// One of the snapshots that have a name.
    fn pick_snapshot(&mut self, is_wanted: impl Fn(&Snapshot) -> bool) -> Option<VolumeId> {
        let named = self.families.snapshots.iter().filter(|(_, one)| self.is_named(one) && is_wanted(one));
        let ids: Vec<VolumeId> = named.map(|(id, _)| *id).collect();
        (!ids.is_empty()).then(|| *self.random.pick(&ids))
    }

    /// Whether people find a snapshot: it has been answered, and the volume that it is of is there and whole.
    fn is_named(&self, one: &Snapshot) -> bool {
        let of = self.site_of(one.parent.volume);
        let head = of.and_then(|of| self.head_of(self.sites[of].line));
        let is_whole = !one.is_lost && of.is_some_and(|of| !self.sites[of].is_damaged);
        is_whole && head.is_some() && one.is_answered() && one.state == SnapshotState::Live && !one.is_leaving
    }

    /// The place of a volume that has a record.
    pub(super) fn site_of(&self, volume: VolumeId) -> Option<usize> {
        self.sites.iter().position(|site| site.id == volume && site.has_record())
    }

    /// The volume that has the name of a line.
    fn head_of(&self, line: VolumeId) -> Option<usize> {
        let of_line = (0..self.sites.len()).filter(|at| self.sites[*at].has_record() && self.sites[*at].line == line);
        of_line.max_by_key(|at| self.sites[*at].id).filter(|at| self.sites[*at].state == VolumeState::Live)
    }

    /// Whether another volume has the name of this one, or had it.
    fn is_former(&self, of: &Site) -> bool {
        self.sites.iter().any(|site| site.has_record() && site.line == of.line && site.id > of.id)
    }

    /// The volumes that began as the end of a generation.
    fn children_of(&self, boundary: Parent) -> impl Iterator<Item = &Site> {
        self.sites.iter().filter(move |site| site.has_record() && site.parent == Some(boundary))
    }

    fn is_parent(&self, volume: VolumeId) -> bool {
        self.sites.iter().any(|site| site.has_record() && site.parent.is_some_and(|parent| parent.volume == volume))
    }

    /// Whether clients ask a volume: it has a name, and nothing is done with that.
    pub(super) fn takes_clients(&self, at: usize) -> bool {
        let site = &self.sites[at];
        let is_served = site.is_view || self.head_of(site.line) == Some(at);
        site.volume.is_some() && is_served && !site.is_leaving
    }

    /// A snapshot's operation is answered.
    pub(super) fn take_snapshot(
        &mut self,
        site: usize,
        id: VolumeId,
        (moment, boundary): (Moment, Boundary),
        is_alone: bool,
    ) -> Checked {
        let of = &self.sites[site];
        let oracle = of.oracle.fork(&moment, boundary.size_bytes).map_err(Finding)?;
        let parent = Parent { volume: of.id, generation: boundary.generation };
        let plan = VolumePlan { size_bytes: boundary.size_bytes, depth: 1, ..self.plan.volumes[site].clone() };
        let snapshot = Snapshot {
            parent,
            boundary,
            oracle: Some(oracle),
            plan,
            state: SnapshotState::Live,
            group: None,
            is_written: false,
            is_flushed: false,
            taken: crate::oracle::Step(self.step),
            is_leaving: false,
            is_lost: false,
        };
        self.families.snapshots.insert(id, snapshot);
        self.trace.note(&[50, id.0, boundary.generation, boundary.lsn.0]);
        if is_alone {
            self.after(0, Happening::Record(site, id));
        }
        Ok(())
    }

    /// Makes a snapshot durable, operation and record side by side.
    pub(super) fn record(&mut self, site: usize, id: VolumeId) -> Checked {
        self.write_record(Record::Taken(vec![id]));
        self.ask(site, Wish::FlushFor(id), false).map(|_| ())
    }

    /// The operation of a snapshot that was taken alone is durable, or may not be.
    pub(super) fn note_flushed(&mut self, id: VolumeId, is_flushed: bool) {
        if is_flushed {
            self.families.snapshots.get_mut(&id).into_iter().for_each(|one| one.is_flushed = true);
        } else {
            self.write_record(Record::Dropped(vec![id]));
        }
    }

    /// Whether any volume shows more than its own log, or is shown after it has changed.
    pub(super) fn has_families(&self) -> bool {
        self.index.as_ref().is_some_and(|index| {
            let mut there = self.sites.iter().filter(|site| !site.is_gone);
            there.any(|site| site.parent.is_some() || index.boundaries(site.id).next().is_some())
        })
    }

    /// Whether nothing is under way for the catalogue, nor waits to be done.
    pub(super) fn is_catalogue_at_rest(&self) -> bool {
        let families = &self.families;
        families.change.is_none() && families.book.is_empty() && families.deletions.is_empty() && self.is_clean()
    }

    /// Goes on with all that can go on.
    pub(super) fn go_on_with_catalogue(&mut self) -> Checked {
        if self.index.is_none() {
            return Ok(());
        }
        self.go_on_with_change()?;
        self.go_on_with_chore()
    }
}

impl Site {
    /// Whether the catalogue has a record of it.
    pub(super) const fn has_record(&self) -> bool {
        !self.is_view && !self.is_gone
    }
}
