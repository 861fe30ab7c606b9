//! What is still to be done for what is on its way out, told by the records alone, as the daemon's catalogue tells it.

use super::{Snapshot, SnapshotState, VolumeState, World};
use crate::world::{Broken, Site};
use units::VolumeId;
use volume::pool::Parent;

/// Something to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chore {
    /// Write the record of a snapshot whose name is gone.
    Snapshot(VolumeId, SnapshotState),
    /// Write the record of a volume whose name is gone: it is needed, or is needed no more.
    Volume(VolumeId, VolumeState),
    /// Throw away what a volume without a name has beyond the ends of its generations.
    Empty(VolumeId),
    /// Delete the end of a generation, then the record of its snapshot when it has one.
    Delete(Parent, Option<VolumeId>),
    /// Give back all that a volume holds, then take away its snapshots' records, then its own.
    Erase(VolumeId),
    /// Take the record of a snapshot away whose volume is gone.
    DropSnapshot(VolumeId),
}

impl World {
    /// All that is to be done; some of it may make for more.
    pub(super) fn chores(&self) -> Vec<Chore> {
        let answered = self.families.snapshots.iter().filter(|(_, one)| one.is_answered());
        let mut chores: Vec<Chore> = answered.filter_map(|(id, one)| self.chore_of_snapshot(*id, one)).collect();
        let recorded = self.sites.iter().filter(|site| site.has_record());
        chores.extend(recorded.filter_map(|site| self.chore_of_volume(site)));
        let orphans = self.families.orphans.iter().filter(|orphan| !self.has_children(**orphan));
        chores.extend(orphans.map(|orphan| Chore::Delete(*orphan, None)));
        chores
    }

    fn chore_of_snapshot(&self, id: VolumeId, one: &Snapshot) -> Option<Chore> {
        let Some(of) = self.site_of(one.parent.volume) else { return Some(Chore::DropSnapshot(id)) };
        let has_children = self.has_children(one.parent);
        match one.state {
            SnapshotState::Live if self.head_of(self.sites[of].line).is_some() => None,
            SnapshotState::Live if has_children => Some(Chore::Snapshot(id, SnapshotState::Pin)),
            SnapshotState::Pin if has_children => None,
            SnapshotState::Live | SnapshotState::Pin => Some(Chore::Snapshot(id, SnapshotState::Deleting)),
            // What is erased as a whole needs not be taken apart.
            SnapshotState::Deleting if self.is_to_be_erased(&self.sites[of]) => None,
            SnapshotState::Deleting => Some(Chore::Delete(one.parent, Some(id))),
        }
    }

    fn chore_of_volume(&self, site: &Site) -> Option<Chore> {
        let restated = |state| Chore::Volume(site.id, state);
        match site.state {
            VolumeState::Live => self.is_former(site).then_some(restated(VolumeState::Ghost)),
            VolumeState::Ghost if self.is_to_be_erased(site) => Some(restated(VolumeState::Deleting)),
            VolumeState::Ghost => {
                (!site.is_emptied && self.broken != Broken::FullGhosts).then_some(Chore::Empty(site.id))
            }
            VolumeState::Deleting if self.is_to_be_erased(site) => Some(Chore::Erase(site.id)),
            VolumeState::Deleting => {
                (self.is_parent(site.id) || self.has_snapshots(site)).then_some(restated(VolumeState::Ghost))
            }
        }
    }

    /// Whether nobody needs anything of a volume any more.
    fn is_to_be_erased(&self, site: &Site) -> bool {
        let may_be = match site.state {
            VolumeState::Live => false,
            VolumeState::Ghost => true,
            // As long as its record is there, no former volume can take its place.
            VolumeState::Deleting => !self.has_unsettled(site.line),
        };
        may_be && !self.is_parent(site.id) && !self.has_snapshots(site)
    }

    /// Whether a volume of a line still has a record that says that it is there, though another has its name, or had it.
    fn has_unsettled(&self, line: VolumeId) -> bool {
        let of_line = self.sites.iter().filter(|site| site.has_record() && site.line == line);
        of_line.filter(|site| site.state == VolumeState::Live).any(|site| self.is_former(site))
    }

    /// Whether a volume has snapshots that are there.
    fn has_snapshots(&self, site: &Site) -> bool {
        let has_name = self.head_of(site.line).is_some();
        let is_there = |one: &Snapshot| match one.state {
            SnapshotState::Live => has_name,
            SnapshotState::Pin => self.has_children(one.parent),
            SnapshotState::Deleting => false,
        };
        self.families.snapshots.values().any(|one| one.parent.volume == site.id && is_there(one))
    }
}
