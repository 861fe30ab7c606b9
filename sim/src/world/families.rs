//! Snapshots, views of them and clones: what the daemon's catalogue does, on volumes of the same world.
//!
//! A snapshot is recorded once a flush has ended that was asked after its answer. One that is not recorded yet when the
//! process ends may have been or not; one that was is there for ever, and shows the same for ever.

use super::store_thread::Job;
use super::{Checked, Happening, MS, Site, TICK, World};
use crate::census::Fault;
use crate::oracle::{Moment, Oracle};
use crate::plan::VolumePlan;
use crate::trace::Finding;
use crate::workload::Wish;
use std::collections::BTreeMap;
use units::VolumeId;
use volume::engine::Volume;
use volume::pool::{Boundary, Index, Inheritance, LineageError, Parent, Waiting};
use volume::rebuild::Families as Told;
use volume::recover::{Recovered, fresh_clone, fresh_view};

/// Most snapshots of a world.
const SNAPSHOTS_MAX: usize = 6;

/// Most clones of a world.
const CLONES_MAX: usize = 4;

/// Where the ids of snapshots and clones begin.
const FIRST_ID: u64 = 100;

/// A snapshot.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) parent: Parent,
    boundary: Boundary,
    /// What it shows; `None` while a view has it.
    oracle: Option<Oracle>,
    plan: VolumePlan,
    is_recorded: bool,
}

/// All snapshots, and what waits for what is inherited.
#[derive(Debug, Default)]
pub(super) struct Families {
    pub(super) snapshots: BTreeMap<VolumeId, Snapshot>,
    given_out: u64,
    pub(super) waiting: Waiting<Job>,
    /// Boundaries that the store is told of too late, where that is broken.
    pub(super) held: Vec<Job>,
    /// Ticks since the last round of those who wait.
    pub(super) ticks: u32,
}

impl Families {
    pub(super) const fn next_id(&mut self) -> VolumeId {
        self.given_out += 1;
        VolumeId(FIRST_ID + self.given_out)
    }
}

impl World {
    /// What a client may wish beside the usual, now and then; `false` when there is nothing of it to be done.
    pub(super) fn act_on_families(&mut self, site: usize) -> Checked<bool> {
        match self.random.below(10) {
            0..4 if self.families.snapshots.len() < SNAPSHOTS_MAX && !self.sites[site].is_view => {
                let id = self.families.next_id();
                self.ask(site, Wish::Snapshot(id), false)?;
                Ok(true)
            }
            4..7 => {
                let id = self.pick_snapshot(|snapshot| snapshot.oracle.is_some());
                id.into_iter().for_each(|id| self.queue_job(Job::OpenView(id)));
                Ok(false)
            }
            7..9 if self.sites.iter().filter(|site| site.parent.is_some() && !site.is_view).count() < CLONES_MAX => {
                let id = self.pick_snapshot(|_| true);
                id.into_iter().for_each(|id| self.queue_job(Job::MakeClone(id)));
                Ok(false)
            }
            9 => {
                let view =
                    self.open_sites().into_iter().find(|at| self.sites[*at].is_view && self.sites[*at].is_idle());
                view.map_or(Ok(()), |view| self.close_view(view))?;
                Ok(view == Some(site))
            }
            _ => Ok(false),
        }
    }

    fn pick_snapshot(&mut self, is_wanted: impl Fn(&Snapshot) -> bool) -> Option<VolumeId> {
        let recorded = self.families.snapshots.iter().filter(|(_, one)| one.is_recorded && is_wanted(one));
        let ids: Vec<VolumeId> = recorded.map(|(id, _)| *id).collect();
        (!ids.is_empty()).then(|| *self.random.pick(&ids))
    }

    /// A snapshot is answered.
    pub(super) fn take_snapshot(&mut self, site: usize, id: VolumeId, taken: (Moment, Boundary)) -> Checked {
        let (moment, boundary) = taken;
        let of = &self.sites[site];
        let oracle = of.oracle.fork(&moment, boundary.size_bytes).map_err(Finding)?;
        let parent = Parent { volume: of.id, generation: boundary.generation };
        let plan = VolumePlan { size_bytes: boundary.size_bytes, depth: 1, ..self.plan.volumes[site].clone() };
        let snapshot = Snapshot { parent, boundary, oracle: Some(oracle), plan, is_recorded: false };
        self.families.snapshots.insert(id, snapshot);
        self.trace.note(&[50, id.0, boundary.generation, boundary.lsn.0]);
        self.after(0, Happening::Record(site, id));
        Ok(())
    }

    /// Makes a snapshot durable, to be recorded then.
    pub(super) fn record(&mut self, site: usize, id: VolumeId) -> Checked {
        self.ask(site, Wish::FlushFor(id), false).map(|_| ())
    }

    pub(super) fn note_recorded(&mut self, id: VolumeId) {
        if let Some(snapshot) = self.families.snapshots.get_mut(&id) {
            snapshot.is_recorded = true;
        }
    }

    /// Opens a view of a snapshot; `None` when the store fails.
    pub(super) fn open_view(&mut self, id: VolumeId) -> Checked<Option<usize>> {
        let Some(snapshot) = self.families.snapshots.get(&id) else { return Ok(None) };
        let (parent, plan, size_bytes) = (snapshot.parent, snapshot.plan.clone(), snapshot.boundary.size_bytes);
        if !self.note_heir(id, parent)? {
            return Ok(None);
        }
        let Some(oracle) = self.families.snapshots.get_mut(&id).and_then(|snapshot| snapshot.oracle.take()) else {
            return Ok(None);
        };
        self.trace.tell(|| format!("opens a view of snapshot {id}, of {parent:?}"));
        let site = Site { parent: Some(parent), is_view: true, ..Site::new(id, size_bytes, oracle) };
        Ok(Some(self.add_site(site, plan, fresh_view(id, size_bytes))))
    }

    pub(super) fn make_clone(&mut self, of: VolumeId) -> Checked {
        let Some(snapshot) = self.families.snapshots.get(&of) else { return Ok(()) };
        let (parent, size_bytes) = (snapshot.parent, snapshot.boundary.size_bytes);
        let depth = *self.random.pick(&[1, 2, 4]);
        let plan = VolumePlan { depth, ..snapshot.plan.clone() };
        let in_view = self.sites.iter().find(|site| site.is_view && site.id == of && site.volume.is_some());
        let Some(fork) = snapshot.oracle.as_ref().or_else(|| in_view.map(|site| &site.oracle)) else { return Ok(()) };
        let fork = fork.clone();
        let id = self.families.next_id();
        if !self.note_heir(id, parent)? {
            return Ok(());
        }
        self.trace.tell(|| format!("clones snapshot {of}, of {parent:?}, as {id}"));
        let site = Site { parent: Some(parent), ..Site::new(id, size_bytes, fork.with_tag(id.0)) };
        self.add_site(site, plan, fresh_clone(id, size_bytes));
        Ok(())
    }

    fn note_heir(&mut self, heir: VolumeId, parent: Parent) -> Checked<bool> {
        let Some(index) = &mut self.index else { return Ok(false) };
        match index.note_parent(heir, parent) {
            Ok(()) => {
                if index.inheritance(heir) == Inheritance::Waits {
                    self.note(Fault::HeirEarly);
                }
                Ok(true)
            }
            Err(LineageError::Store(_)) => Ok(false),
            Err(error) => Err(Finding(format!("P1: volume {heir} cannot inherit from {parent:?}: {error}"))),
        }
    }

    fn add_site(&mut self, site: Site, plan: VolumePlan, recovered: Recovered) -> usize {
        let at = self.sites.len();
        let depth = if self.is_open { plan.depth } else { 0 };
        self.plan.volumes.push(plan);
        self.sites.push(Site { volume: Some(Volume::open(self.config(), recovered)), ..site });
        self.after(TICK, Happening::Tick(at));
        for _ in 0..depth {
            let wait = self.random.below(5 * MS);
            self.after(wait, Happening::Client(at));
        }
        at
    }

    /// Closes a view that has nothing under way.
    pub(super) fn close_view(&mut self, at: usize) -> Checked {
        let id = self.sites[at].id;
        self.trace.tell(|| format!("closes the view of snapshot {id}"));
        self.sites[at].volume = None;
        self.return_oracle(at);
        self.families.waiting.forget(id);
        self.with_compactor(|compactor, context| compactor.closed(context, id))?;
        if let Some(index) = &mut self.index {
            // One that the store does not forget now is forgotten at the next start.
            let _ = index.forget_parent(id);
        }
        Ok(())
    }

    fn return_oracle(&mut self, at: usize) {
        let site = &mut self.sites[at];
        if let Some(snapshot) = self.families.snapshots.get_mut(&site.id).filter(|one| one.oracle.is_none()) {
            snapshot.oracle = Some(std::mem::replace(&mut site.oracle, Oracle::new(0, 0, &[])));
        }
    }

    /// The process has ended, and with it all views.
    pub(super) fn end_views(&mut self) {
        self.families.waiting = Waiting::default();
        self.families.held.clear();
        let unrecorded = self.families.snapshots.values().filter(|one| !one.is_recorded).count();
        self.outcome.census.note_many(Fault::SnapshotUnrecorded, unrecorded as u64);
        for at in (0..self.sites.len()).rev().filter(|at| self.sites[*at].is_view).collect::<Vec<_>>() {
            self.return_oracle(at);
            self.sites.remove(at);
            self.plan.volumes.remove(at);
        }
    }

    /// What the catalogue's records say at a start. What was being recorded is there or not; not where what came before it
    /// may be lost.
    pub(super) fn read_records(&mut self, may_be_torn: bool) -> Told {
        let random = &mut self.random;
        self.families.snapshots.retain(|_, one| one.is_recorded || (!may_be_torn && random.chance(500)));
        let boundaries = self.families.snapshots.values().map(|one| (one.parent.volume, one.boundary));
        Told::new(self.parents(), boundaries)
    }

    /// What every clone inherits.
    pub(super) fn parents(&self) -> BTreeMap<VolumeId, Parent> {
        let clones = self.sites.iter().filter(|site| !site.is_view);
        clones.filter_map(|site| Some((site.id, site.parent?))).collect()
    }

    /// P1. After recovery: the boundary of every snapshot that is recorded is there; where a record came too early it goes.
    pub(super) fn reconcile(&mut self, index: &Index<crate::store::SimStore>) -> Checked {
        let lies = self.injected.lies;
        let mut lost = None;
        self.families.snapshots.retain(|id, one| {
            let is_there = index.boundaries(one.parent.volume).any(|row| row.boundary == one.boundary);
            if !is_there && one.is_recorded && lies == 0 {
                lost = Some(*id);
            }
            one.is_recorded = is_there;
            is_there
        });
        match lost {
            Some(id) => Err(Finding(format!("P1: snapshot {id} is recorded, and its boundary is not there"))),
            None => Ok(()),
        }
    }

    /// Reads every snapshot from end to end, and holds it to that for ever.
    pub(super) fn read_back_views(&mut self) -> Checked {
        let recorded = self.families.snapshots.iter().filter(|(_, one)| one.is_recorded && one.oracle.is_some());
        for id in recorded.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(view) = self.open_view(id)? else { continue };
            self.read_back_site(view)?;
            self.come_to_rest_of(view)?;
            self.close_view(view)?;
        }
        Ok(())
    }

    /// Whether any volume shows more than its own log, or is shown after it has changed.
    pub(super) fn has_families(&self) -> bool {
        self.index.as_ref().is_some_and(|index| {
            self.sites.iter().any(|site| site.parent.is_some() || index.boundaries(site.id).next().is_some())
        })
    }
}
