//! Views of snapshots: opened, looked at, closed; and every snapshot read from end to end after a start.

use super::{Snapshot, World};
use crate::census::Fault;
use crate::oracle::Oracle;
use crate::plan::VolumePlan;
use crate::trace::Finding;
use crate::world::{Checked, Happening, MS, Site, TICK};
use units::VolumeId;
use volume::engine::Volume;
use volume::pool::{Inheritance, LineageError, Parent};
use volume::recover::{Recovered, fresh_view};

impl World {
    /// Opens a view of a snapshot; `None` when that has no name any more, or the store fails.
    pub(in crate::world) fn open_view(&mut self, id: VolumeId) -> Checked<Option<usize>> {
        let Some(snapshot) = self.families.snapshots.get(&id).filter(|one| self.may_be_read(one)) else {
            return Ok(None);
        };
        let (parent, plan, size_bytes) = (snapshot.parent, snapshot.plan.clone(), snapshot.boundary.size_bytes);
        if snapshot.oracle.is_none() || self.note_heir(id, parent)?.is_err() {
            return Ok(None);
        }
        let taken = self.families.snapshots.get_mut(&id).and_then(|snapshot| snapshot.oracle.take());
        let Some(oracle) = taken else { return Ok(None) };
        self.trace.tell(|| format!("opens a view of snapshot {id}, of {parent:?}"));
        let site = Site { parent: Some(parent), is_view: true, ..Site::new(id, size_bytes, oracle) };
        let at = self.sites.len();
        self.sites.push(site);
        self.plan.volumes.push(plan);
        self.serve(at, fresh_view(id, size_bytes));
        Ok(Some(at))
    }

    /// Whether a view of it may be opened: not while the volume that has its name is on its way out.
    fn may_be_read(&self, one: &Snapshot) -> bool {
        let head = self.site_of(one.parent.volume).and_then(|of| self.head_of(self.sites[of].line));
        self.is_named(one) && head.is_some_and(|head| !self.sites[head].is_leaving)
    }

    /// Has the index note what a volume inherits. Tells when its store fails.
    pub(super) fn note_heir(&mut self, heir: VolumeId, parent: Parent) -> Checked<Result<(), String>> {
        let Some(index) = &mut self.index else { return Ok(Err("no index".to_owned())) };
        match index.note_parent(heir, parent) {
            Ok(()) => {
                if index.inheritance(heir) == Inheritance::Waits {
                    self.note(Fault::HeirEarly);
                }
                Ok(Ok(()))
            }
            Err(LineageError::Store(fault)) => Ok(Err(fault.to_string())),
            Err(error) => Err(Finding(format!("P1: volume {heir} cannot inherit from {parent:?}: {error}"))),
        }
    }

    /// Begins to serve a volume, or a view.
    pub(super) fn serve(&mut self, at: usize, recovered: Recovered) {
        self.sites[at].volume = Some(Volume::open(self.config(), recovered));
        self.after(TICK, Happening::Tick(at));
        self.welcome(at);
    }

    /// Lets clients ask a volume.
    pub(super) fn welcome(&mut self, at: usize) {
        self.sites[at].is_leaving = false;
        let depth = if self.is_open { self.plan.volumes[at].depth } else { 0 };
        for _ in 0..depth {
            let wait = self.random.below(5 * MS);
            self.after(wait, Happening::Client(at));
        }
    }

    /// Closes a view that has nothing under way.
    pub(in crate::world) fn close_view(&mut self, at: usize) -> Checked {
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

    /// Closes the view of a snapshot; `false` when somebody reads it.
    pub(super) fn close_view_of(&mut self, id: VolumeId) -> Checked<bool> {
        let open = self.sites.iter().position(|site| site.is_view && site.id == id && site.volume.is_some());
        match open {
            Some(at) if self.sites[at].is_idle() => self.close_view(at).map(|()| true),
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }

    pub(super) fn return_oracle(&mut self, at: usize) {
        let site = &mut self.sites[at];
        if let Some(snapshot) = self.families.snapshots.get_mut(&site.id).filter(|one| one.oracle.is_none()) {
            snapshot.oracle = Some(std::mem::replace(&mut site.oracle, Oracle::new(0, 0, &[])));
        }
    }

    /// What a snapshot shows, and a plan for who begins as it.
    pub(super) fn shown_by(&self, id: VolumeId) -> Option<(&Oracle, VolumePlan)> {
        let snapshot = self.families.snapshots.get(&id)?;
        let in_view = self.sites.iter().find(|site| site.is_view && site.id == id && site.volume.is_some());
        let oracle = snapshot.oracle.as_ref().or_else(|| in_view.map(|site| &site.oracle))?;
        Some((oracle, snapshot.plan.clone()))
    }

    /// Reads every snapshot from end to end, and holds it to that for ever.
    pub(in crate::world) fn read_back_views(&mut self) -> Checked {
        for id in self.families.snapshots.keys().copied().collect::<Vec<_>>() {
            let Some(view) = self.open_view(id)? else { continue };
            self.read_back_site(view)?;
            self.come_to_rest_of(view)?;
            self.close_view(view)?;
        }
        Ok(())
    }
}
