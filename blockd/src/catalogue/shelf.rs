//! What the catalogue knows, in memory: volumes by name, the records of all that is there, and who needs what of whom.
//!
//! A volume's line are the volumes that had its name one after the other; rollbacks make it longer. Snapshots belong to the
//! line, so that they keep their names when the volume is rolled back.

use super::floors::Floors;
use super::record::{
    ClassRecord, GroupRecord, ParentRecord, SnapshotRecord, SnapshotState, TenantRecord, TokenRecord, VolumeRecord,
    VolumeState,
};
use super::targets::TargetShelf;
use super::{Entry, Image, SnapshotName};
use crate::listener::Clients;
use std::collections::{BTreeMap, BTreeSet};
use units::{Lsn, TenantId, VolumeId};

/// A volume with a name.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) entry: Entry,
    /// Those who found it and have not left.
    pub(super) clients: Clients,
    /// A change is under way that wants it without clients, or it is being deleted: nobody finds it.
    pub(super) is_leaving: bool,
}

impl Kept {
    pub(super) fn new(entry: Entry) -> Self {
        Self { entry, clients: Clients::default(), is_leaving: false }
    }
}

/// A snapshot's record, and what is wrong with the snapshot by itself ([`Shelf::damage_of_snapshot`] tells all).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptSnapshot {
    pub(super) record: SnapshotRecord,
    pub(super) damage: Option<String>,
}

/// Everything that has a record.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// The volumes that have a name. One whose record has rotted is here only.
    pub(super) names: BTreeMap<String, Kept>,
    volumes: BTreeMap<u64, VolumeRecord>,
    /// The volumes of each line.
    lines: BTreeMap<u64, BTreeSet<u64>>,
    children: BTreeMap<ParentRecord, BTreeSet<u64>>,
    snapshots: BTreeMap<u64, KeptSnapshot>,
    /// The snapshots that were taken of each volume.
    taken: BTreeMap<u64, BTreeSet<u64>>,
    /// Live snapshots that people named, by the line of their volume and their name.
    snapshot_names: BTreeMap<(u64, String), u64>,
    groups: BTreeMap<u64, GroupRecord>,
    /// By name.
    pub(super) tenants: BTreeMap<String, TenantRecord>,
    /// Those that were deleted, by number.
    pub(super) former_tenants: BTreeMap<u64, TenantRecord>,
    /// The highest number that a tenant has or had.
    pub(super) tenants_known: u64,
    pub(super) tokens: BTreeMap<u64, TokenRecord>,
    /// By name.
    pub(super) classes: BTreeMap<String, ClassRecord>,
    pub(super) targets: TargetShelf,
    /// What is kept of mirrored logs.
    pub(super) floors: Floors,
    /// Names, and sizes, of volumes that are being made.
    pub(super) coming: BTreeMap<String, u64>,
    /// Bases of history that are being given up: nobody clones them any more.
    going: BTreeSet<u64>,
    /// Boundaries in the index that no record names.
    orphans: BTreeSet<ParentRecord>,
    /// Volumes that had boundaries at the start: some record that cannot be read may need them.
    bounded: BTreeSet<u64>,
    /// Volumes that cannot be read, with or without a name.
    damaged: BTreeMap<u64, String>,
    /// Volumes without a name that hold nothing any more but for ends of generations.
    emptied: BTreeSet<u64>,
    /// The records that could not be read at the start. What they need nobody knows.
    rotten: BTreeSet<u64>,
}

impl Shelf {
    /// Puts a volume's record in, in the place of the one that is there.
    pub(super) fn put_volume(&mut self, record: VolumeRecord) {
        self.forget_volume(record.id);
        if let Some(parent) = record.parent {
            self.children.entry(parent).or_default().insert(record.id);
        }
        self.lines.entry(record.line()).or_default().insert(record.id);
        self.volumes.insert(record.id, record);
    }

    pub(super) fn forget_volume(&mut self, id: u64) {
        let Some(record) = self.volumes.remove(&id) else { return };
        take_out(&mut self.lines, &record.line(), id);
        if let Some(parent) = record.parent {
            take_out(&mut self.children, &parent, id);
        }
    }

    /// Puts a snapshot's record in, in the place of the one that is there.
    pub(super) fn put_snapshot(&mut self, snapshot: KeptSnapshot) {
        self.forget_snapshot(snapshot.record.id);
        if snapshot.record.state == SnapshotState::Live && !snapshot.record.is_base {
            let key = (self.line_of(snapshot.record.of), snapshot.record.name.clone());
            self.snapshot_names.insert(key, snapshot.record.id);
        }
        self.taken.entry(snapshot.record.of).or_default().insert(snapshot.record.id);
        self.snapshots.insert(snapshot.record.id, snapshot);
    }

    pub(super) fn forget_snapshot(&mut self, id: u64) {
        let Some(snapshot) = self.snapshots.remove(&id) else { return };
        take_out(&mut self.taken, &snapshot.record.of, id);
        let key = (self.line_of(snapshot.record.of), snapshot.record.name);
        if self.snapshot_names.get(&key) == Some(&id) {
            self.snapshot_names.remove(&key);
        }
    }

    pub(super) fn put_group(&mut self, record: GroupRecord) {
        self.groups.insert(record.id, record);
    }

    pub(super) fn forget_group(&mut self, id: u64) {
        self.groups.remove(&id);
    }

    pub(super) fn put_orphan(&mut self, boundary: ParentRecord) {
        self.orphans.insert(boundary);
    }

    pub(super) fn forget_orphan(&mut self, boundary: ParentRecord) {
        self.orphans.remove(&boundary);
    }

    pub(super) fn note_bounded(&mut self, volume: u64) {
        self.bounded.insert(volume);
    }

    pub(super) fn note_damaged(&mut self, volume: u64, reason: String) {
        self.damaged.insert(volume, reason);
    }

    /// Sets the volume of a name aside: it is not served from now on, nor are its snapshots.
    pub(super) fn set_aside(&mut self, name: &str, reason: &str) {
        if let Some(kept) = self.names.get_mut(name) {
            kept.entry.damage = Some(reason.to_owned());
            self.damaged.insert(kept.entry.volume.0, reason.to_owned());
        }
    }

    /// Why a volume cannot be read, when it cannot.
    pub(super) fn damage_of(&self, volume: u64) -> Option<String> {
        self.damaged.get(&volume).cloned()
    }

    /// Why a snapshot cannot be read, when it cannot: for itself, or since the volume that it was taken of cannot.
    pub(super) fn damage_of_snapshot<'a>(&'a self, kept: &'a KeptSnapshot) -> Option<&'a String> {
        kept.damage.as_ref().or_else(|| self.damaged.get(&kept.record.of))
    }

    pub(super) fn note_emptied(&mut self, volume: u64) {
        self.emptied.insert(volume);
    }

    pub(super) fn is_emptied(&self, volume: u64) -> bool {
        self.emptied.contains(&volume)
    }

    pub(super) fn note_rotten(&mut self, id: u64) {
        self.rotten.insert(id);
    }

    pub(super) fn is_unsure(&self) -> bool {
        !self.rotten.is_empty()
    }

    pub(super) fn volume(&self, id: u64) -> Option<&VolumeRecord> {
        self.volumes.get(&id)
    }

    pub(super) fn volumes(&self) -> impl Iterator<Item = &VolumeRecord> {
        self.volumes.values()
    }

    pub(super) fn snapshot(&self, id: u64) -> Option<&KeptSnapshot> {
        self.snapshots.get(&id)
    }

    pub(super) fn snapshots(&self) -> impl Iterator<Item = &KeptSnapshot> {
        self.snapshots.values()
    }

    /// The snapshots that were taken of a volume, whatever became of them.
    pub(super) fn taken_of(&self, volume: u64) -> impl Iterator<Item = &KeptSnapshot> {
        self.taken.get(&volume).into_iter().flatten().filter_map(|id| self.snapshots.get(id))
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &GroupRecord> {
        self.groups.values()
    }

    pub(super) fn group(&self, id: u64) -> Option<&GroupRecord> {
        self.groups.get(&id)
    }

    pub(super) fn orphans(&self) -> impl Iterator<Item = ParentRecord> {
        self.orphans.iter().copied()
    }

    /// The first volume of the line that a volume is of.
    pub(super) fn line_of(&self, volume: u64) -> u64 {
        self.volumes.get(&volume).map_or(volume, VolumeRecord::line)
    }

    /// The volume that has the name of a line, if one is there.
    pub(super) fn head_of(&self, line: u64) -> Option<&VolumeRecord> {
        let newest = self.volumes.get(self.lines.get(&line)?.last()?)?;
        (newest.state == VolumeState::Live).then_some(newest)
    }

    /// Whether a volume has been rolled back: another one has its name, or had it.
    pub(super) fn is_former(&self, record: &VolumeRecord) -> bool {
        self.lines.get(&record.line()).and_then(BTreeSet::last).is_some_and(|newest| *newest > record.id)
    }

    /// The volumes of a line, in the order in which they were made.
    pub(super) fn volumes_of(&self, line: u64) -> impl Iterator<Item = u64> {
        self.lines.get(&line).into_iter().flatten().copied()
    }

    /// Whether a volume of a line still has a record that says that it is there, though another has its name, or had it.
    pub(super) fn has_unsettled(&self, line: u64) -> bool {
        let mut volumes = self.volumes_of(line).filter_map(|id| self.volumes.get(&id));
        volumes.any(|record| record.state == VolumeState::Live && self.is_former(record))
    }

    /// The snapshot of that name of the volume that is called `volume`.
    pub(super) fn find_snapshot(&self, volume: &str, name: &str) -> Option<&KeptSnapshot> {
        let line = self.line_of(self.names.get(volume)?.entry.volume.0);
        self.snapshots.get(self.snapshot_names.get(&(line, name.to_owned()))?)
    }

    /// The live snapshots of a line, by name.
    pub(super) fn snapshots_of(&self, line: u64) -> impl Iterator<Item = &KeptSnapshot> {
        let of_line = self.snapshot_names.range((line, String::new())..).take_while(move |((of, _), _)| *of == line);
        of_line.filter_map(|(_, id)| self.snapshots.get(id))
    }

    /// The snapshots of its line that come before the end of a volume's generation: what has changed since can be told.
    pub(super) fn snapshots_behind(&self, volume: u64, generation: u64) -> impl Iterator<Item = &KeptSnapshot> {
        let way = self.way_to(volume, generation);
        let is_behind = move |kept: &&KeptSnapshot| kept.damage.is_none() && is_on(&way, &kept.record);
        self.snapshots_of(self.line_of(volume)).filter(is_behind)
    }

    /// Whether a snapshot, of the same line or of one above, comes before the end of a volume's generation.
    pub(super) fn is_behind(&self, snapshot: &SnapshotRecord, (volume, generation): (u64, u64)) -> bool {
        is_on(&self.way_to(volume, generation), snapshot)
    }

    /// The volumes that led to the end of a volume's generation, with the last generation of each that comes before it.
    fn way_to(&self, volume: u64, generation: u64) -> BTreeMap<u64, u64> {
        let before = generation.checked_sub(1).map(|before| (volume, before));
        let mut way: BTreeMap<u64, u64> = before.into_iter().collect();
        let mut child = volume;
        while let Some(parent) = self.volumes.get(&child).and_then(|record| record.parent) {
            // Ids only grow from parent to child, so that the walk ends even over records that are wrong.
            if parent.volume >= child {
                break;
            }
            way.insert(parent.volume, parent.generation);
            child = parent.volume;
        }
        way
    }

    /// The ids of the snapshots that go with a volume.
    pub(super) fn snapshots_with(&self, volume: u64) -> BTreeSet<u64> {
        self.snapshots_of(self.line_of(volume)).map(|kept| kept.record.id).collect()
    }

    /// The volumes that began as the end of a generation.
    pub(super) fn children_of(&self, boundary: ParentRecord) -> impl Iterator<Item = u64> {
        self.children.get(&boundary).into_iter().flatten().copied()
    }

    pub(super) fn has_children(&self, boundary: ParentRecord) -> bool {
        self.children.contains_key(&boundary)
    }

    /// Whether a volume is mirrored.
    pub(super) fn is_mirrored(&self, volume: u64) -> bool {
        self.volumes.get(&volume).is_some_and(|record| record.mirror.is_some())
    }

    /// Whether a volume began as the end of any of a volume's generations.
    pub(super) fn is_parent(&self, volume: u64) -> bool {
        let all = ParentRecord { volume, generation: 0 }..=ParentRecord { volume, generation: u64::MAX };
        self.children.range(all).next().is_some()
    }

    /// Whether a record that could not be read may need what the volume has: only ends of generations that were there at
    /// the start.
    pub(super) fn may_be_needed(&self, volume: u64) -> bool {
        let is_other = |id: &u64| *id != volume;
        self.bounded.contains(&volume) && self.rotten.iter().any(is_other)
    }

    /// Keeps a name for a volume that is being made.
    pub(super) fn note_coming(&mut self, name: &str, size_bytes: u64) {
        self.coming.insert(name.to_owned(), size_bytes);
    }

    pub(super) fn forget_coming(&mut self, name: &str) {
        self.coming.remove(name);
    }

    /// The size of the volume that has a name, or is to have it.
    pub(super) fn taken_by(&self, name: &str) -> Option<u64> {
        let there = self.names.get(name).map(|kept| kept.entry.size_bytes);
        there.or_else(|| self.coming.get(name).copied())
    }

    /// The bases of a volume's history, oldest first.
    pub(super) fn bases_of(&self, volume: u64) -> impl Iterator<Item = &SnapshotRecord> {
        self.recorded_bases_of(volume).filter(|record| !self.going.contains(&record.id))
    }

    /// Those too that are being given up: as long as that is not durable, a start finds them again.
    fn recorded_bases_of(&self, volume: u64) -> impl Iterator<Item = &SnapshotRecord> {
        let is_base = |record: &&SnapshotRecord| record.is_base && record.state == SnapshotState::Live;
        self.taken_of(volume).map(|kept| &kept.record).filter(is_base)
    }

    /// The bases of the history of a line, oldest first.
    pub(super) fn bases_of_line(&self, line: u64) -> impl Iterator<Item = &SnapshotRecord> {
        self.volumes_of(line).flat_map(|volume| self.bases_of(volume))
    }

    /// Behind which operation the log of each volume is kept whole: for history, or for the other site, which may lack it.
    pub(super) fn kept_logs(&self) -> BTreeMap<VolumeId, Lsn> {
        let mirrored = self.volumes().filter(|record| record.mirror.is_some() && record.state == VolumeState::Live);
        let kept = mirrored.filter_map(|record| Some((VolumeId(record.id), self.floors.kept_from(record.id)?)));
        // What is mirrored has no history.
        self.histories().into_iter().chain(kept).collect()
    }

    /// Behind which operation the log of each volume with history is kept. Without a name, a line has none.
    pub(super) fn histories(&self) -> BTreeMap<VolumeId, Lsn> {
        let lines = self.lines.keys().filter(|line| self.head_of(**line).is_some());
        let volumes = lines.flat_map(|line| self.volumes_of(*line));
        volumes.filter_map(|volume| Some((VolumeId(volume), Lsn(self.recorded_bases_of(volume).next()?.lsn)))).collect()
    }

    /// Whether the log behind a base of history is still kept.
    pub(super) fn is_log_kept(&self, base: &SnapshotRecord) -> bool {
        self.histories().get(&VolumeId(base.of)).is_some_and(|from| from.0 <= base.lsn)
    }

    /// Takes a base of history out of use; returns its record as it is to be: kept, without use, for volumes that began as it.
    pub(super) fn take_base(&mut self, id: u64) -> Option<SnapshotRecord> {
        let record = &self.snapshots.get(&id)?.record;
        if !record.is_base || record.state != SnapshotState::Live || !self.going.insert(id) {
            return None;
        }
        let is_needed = self.has_children(boundary_of(record)) || self.may_be_needed(record.of);
        let state = if is_needed { SnapshotState::Pin } else { SnapshotState::Deleting };
        Some(SnapshotRecord { state, ..record.clone() })
    }

    /// The record that [`Shelf::take_base`] told is written, or could not be.
    pub(super) fn end_taking(&mut self, id: u64, written: Option<&SnapshotRecord>) {
        self.going.remove(&id);
        if let Some(record) = written {
            self.put_snapshot(KeptSnapshot { record: record.clone(), damage: None });
        }
    }

    /// What people call a volume.
    pub(super) fn name_of(&self, volume: u64) -> Option<&str> {
        let record = self.volumes.get(&volume)?;
        let head = self.head_of(record.line())?;
        (head.id == volume).then_some(record.name.as_str())
    }

    /// The snapshot that a volume began as, when that has a name; an image that is not shared with its tenant any more has none.
    pub(super) fn parent_of(&self, volume: u64) -> Option<SnapshotName> {
        let heir = self.volumes.get(&volume)?;
        let parent = heir.parent?;
        let head = self.head_of(self.line_of(parent.volume))?;
        let is_shared = |image: &Image| image.shared.includes(TenantId(heir.tenant));
        if head.tenant != heir.tenant && !head.image.as_ref().is_some_and(is_shared) {
            return None;
        }
        let mut snapshots = self.snapshots_of(self.line_of(parent.volume));
        let kept = snapshots.find(|kept| boundary_of(&kept.record) == parent)?;
        Some(SnapshotName { volume: head.name.clone(), snapshot: kept.record.name.clone() })
    }

    /// The names of the volumes that keep a snapshot from being deleted, in order: not its own, which it turned into when
    /// it was rolled back to it, but every other.
    pub(super) fn clones_of(&self, snapshot: &SnapshotRecord) -> Vec<String> {
        let line = self.line_of(snapshot.of);
        let others = self.children_of(boundary_of(snapshot)).filter(|child| self.line_of(*child) != line);
        let mut names: Vec<String> = others
            .map(|child| self.name_of(child).map_or_else(|| format!("deleted volume {child}"), str::to_owned))
            .collect();
        names.sort_unstable();
        names
    }
}

fn is_on(way: &BTreeMap<u64, u64>, snapshot: &SnapshotRecord) -> bool {
    way.get(&snapshot.of).is_some_and(|generation| snapshot.generation <= *generation)
}

fn take_out<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<u64>>, key: &K, id: u64) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(&id);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

/// The boundary that a snapshot shows.
pub(super) const fn boundary_of(snapshot: &SnapshotRecord) -> ParentRecord {
    ParentRecord { volume: snapshot.of, generation: snapshot.generation }
}
