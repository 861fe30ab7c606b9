//! What is still to be done for what is on its way out, told by the records alone: so a crash anywhere on the way changes
//! nothing but when it is done.
//!
//! For each snapshot and volume a record tells what was decided; effects follow, and the record goes last. A volume that is
//! deleted, or was rolled back, lives on as a ghost while a volume has it as its parent, or has snapshots. While a record
//! cannot be read, nothing is given up that it may need.

use super::record::{ParentRecord, SnapshotRecord, SnapshotState, VolumeRecord, VolumeState};
use super::shelf::{Shelf, boundary_of};
use std::collections::BTreeSet;

/// Something to be done.
#[expect(clippy::large_enum_variant, reason = "few are made, and each is done at once")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chore {
    /// Write the record of a snapshot whose name is gone.
    Snapshot(SnapshotRecord),
    /// Write the record of a volume whose name is gone: it is needed, or is needed no more.
    Volume(VolumeRecord),
    /// Throw away what a volume without a name has now: only ends of its generations are needed.
    Empty(u64),
    /// Delete a snapshot's boundary, then its record.
    Delete(SnapshotRecord),
    /// Delete a boundary that has no record.
    DeleteOrphan(ParentRecord),
    /// Give back all that a volume holds, then take away its snapshots' records, then its own.
    Erase(u64, Vec<u64>),
    /// Take the record of a snapshot away whose volume is gone.
    DropSnapshot(u64),
    /// Take the record of a group away.
    DropGroup(u64),
}

/// All that is to be done; some of it may make for more.
pub(super) fn chores(shelf: &Shelf) -> Vec<Chore> {
    let mut chores: Vec<Chore> = shelf.snapshots().filter_map(|kept| of_snapshot(shelf, &kept.record)).collect();
    chores.extend(shelf.volumes().filter_map(|record| of_volume(shelf, record)));
    if !shelf.is_unsure() {
        chores.extend(shelf.orphans().filter(|orphan| !shelf.has_children(*orphan)).map(Chore::DeleteOrphan));
        let of_groups: BTreeSet<u64> = shelf.snapshots().filter_map(|kept| kept.record.group).collect();
        let empty = shelf.groups().filter(|group| !of_groups.contains(&group.id));
        chores.extend(empty.map(|group| Chore::DropGroup(group.id)));
    }
    chores
}

fn of_snapshot(shelf: &Shelf, record: &SnapshotRecord) -> Option<Chore> {
    let Some(volume) = shelf.volume(record.of) else {
        return (!shelf.is_unsure()).then_some(Chore::DropSnapshot(record.id));
    };
    if shelf.may_be_needed(record.of) {
        return None;
    }
    let has_children = shelf.has_children(boundary_of(record));
    let restated = |state| Some(Chore::Snapshot(SnapshotRecord { state, ..record.clone() }));
    match record.state {
        SnapshotState::Live if shelf.head_of(volume.line()).is_some() => None,
        SnapshotState::Live if has_children => restated(SnapshotState::Pin),
        SnapshotState::Pin if has_children => None,
        SnapshotState::Live | SnapshotState::Pin => restated(SnapshotState::Deleting),
        // What is erased as a whole needs not be taken apart.
        SnapshotState::Deleting if is_to_be_erased(shelf, volume) => None,
        SnapshotState::Deleting => Some(Chore::Delete(record.clone())),
    }
}

fn of_volume(shelf: &Shelf, record: &VolumeRecord) -> Option<Chore> {
    let restated = |state| Chore::Volume(VolumeRecord { state, ..record.clone() });
    match record.state {
        VolumeState::Live => shelf.is_former(record).then(|| restated(VolumeState::Ghost)),
        // Its own record says so before anything of it goes: what is left of a log must not be held against records.
        VolumeState::Ghost if is_to_be_erased(shelf, record) => Some(restated(VolumeState::Deleting)),
        VolumeState::Ghost => (!shelf.is_emptied(record.id) && !shelf.is_unsure()).then_some(Chore::Empty(record.id)),
        VolumeState::Deleting if is_to_be_erased(shelf, record) => {
            Some(Chore::Erase(record.id, shelf.taken_of(record.id).map(|kept| kept.record.id).collect()))
        }
        VolumeState::Deleting => {
            let is_needed = shelf.is_parent(record.id) || has_snapshots(shelf, record);
            is_needed.then(|| restated(VolumeState::Ghost))
        }
    }
}

/// What erases a volume whose deletion is recorded, when nothing is left that needs it.
pub(super) fn erasing(shelf: &Shelf, volume: u64) -> Option<Chore> {
    let chore = shelf.volume(volume).and_then(|record| of_volume(shelf, record));
    chore.filter(|chore| matches!(chore, Chore::Erase(..)))
}

/// Whether nobody needs anything of a volume any more.
fn is_to_be_erased(shelf: &Shelf, record: &VolumeRecord) -> bool {
    let may_be = match record.state {
        VolumeState::Live => false,
        VolumeState::Ghost => true,
        // As long as its record is there, no former volume can take its place.
        VolumeState::Deleting => !shelf.has_unsettled(record.line()),
    };
    may_be && !shelf.is_parent(record.id) && !shelf.may_be_needed(record.id) && !has_snapshots(shelf, record)
}

/// Whether a volume has snapshots that are there.
fn has_snapshots(shelf: &Shelf, record: &VolumeRecord) -> bool {
    let has_name = shelf.head_of(record.line()).is_some();
    let is_there = |snapshot: &SnapshotRecord| match snapshot.state {
        SnapshotState::Live => has_name,
        SnapshotState::Pin => shelf.has_children(boundary_of(snapshot)),
        SnapshotState::Deleting => false,
    };
    shelf.taken_of(record.id).any(|kept| is_there(&kept.record))
}

#[cfg(test)]
mod tests {
    use super::super::record::Metered;
    use super::super::shelf::KeptSnapshot;
    use super::*;

    fn volume(id: u64, state: VolumeState, parent: Option<(u64, u64)>, line: Option<u64>) -> VolumeRecord {
        let parent = parent.map(|(volume, generation)| ParentRecord { volume, generation });
        VolumeRecord {
            id,
            name: format!("vm-{id}"),
            tenant: 0,
            size_bytes: 4096,
            created_ms: 0,
            state,
            parent,
            line,
            image: None,
            history: None,
            qos: None,
            metered: Metered::default(),
            class: 0,
            meter_changes: Vec::new(),
            mirror: None,
        }
    }

    fn snapshot(id: u64, of: u64, generation: u64, state: SnapshotState) -> KeptSnapshot {
        let name = format!("s-{id}");
        let record = SnapshotRecord {
            id,
            of,
            name,
            generation,
            lsn: id,
            size_bytes: 4096,
            at_ms: 0,
            group: None,
            state,
            is_base: false,
        };
        KeptSnapshot { record, damage: None }
    }

    /// Carries everything out, as far as the records go; returns what had effects, in order.
    fn settle(shelf: &mut Shelf) -> Vec<Chore> {
        let mut done = Vec::new();
        loop {
            let found = chores(shelf);
            if found.is_empty() {
                return done;
            }
            for chore in found {
                apply(shelf, &chore);
                done.push(chore);
            }
            assert!(done.len() < 1000, "it never ends");
        }
    }

    fn apply(shelf: &mut Shelf, chore: &Chore) {
        match chore {
            Chore::Snapshot(record) => shelf.put_snapshot(KeptSnapshot { record: record.clone(), damage: None }),
            Chore::Volume(record) => shelf.put_volume(record.clone()),
            Chore::Empty(id) => shelf.note_emptied(*id),
            Chore::Delete(record) => shelf.forget_snapshot(record.id),
            Chore::DeleteOrphan(boundary) => shelf.forget_orphan(*boundary),
            Chore::Erase(volume, snapshots) => {
                assert_eq!(shelf.volume(*volume).unwrap().state, VolumeState::Deleting, "a start does not open it");
                snapshots.iter().for_each(|id| shelf.forget_snapshot(*id));
                shelf.forget_volume(*volume);
            }
            Chore::DropSnapshot(id) => shelf.forget_snapshot(*id),
            Chore::DropGroup(id) => shelf.forget_group(*id),
        }
    }

    /// A deleted volume goes with its snapshots, but lives on for a clone, with what that began as; then all of it goes.
    #[test]
    fn a_deleted_volume_lives_on_for_its_clones() {
        use SnapshotState::{Live, Pin};
        let mut shelf = Shelf::default();
        shelf.put_volume(volume(1, VolumeState::Deleting, None, None));
        shelf.put_snapshot(snapshot(2, 1, 0, Live));
        shelf.put_snapshot(snapshot(3, 1, 1, Live));
        shelf.put_volume(volume(4, VolumeState::Live, Some((1, 1)), None));
        settle(&mut shelf);
        let states: Vec<_> = shelf.snapshots().map(|kept| (kept.record.id, kept.record.state)).collect();
        assert_eq!(states, [(3, Pin)]);
        assert_eq!(shelf.volume(1).unwrap().state, VolumeState::Ghost);
        shelf.put_volume(volume(4, VolumeState::Deleting, Some((1, 1)), None));
        let done = settle(&mut shelf);
        assert!(matches!(done.first(), Some(Chore::Erase(4, _))), "{done:?}");
        assert_eq!((shelf.volumes().count(), shelf.snapshots().count()), (0, 0));
    }

    /// What was rolled back keeps its snapshots, by their names, as long as the volume is there.
    #[test]
    fn a_volume_that_was_rolled_back_keeps_its_snapshots() {
        use SnapshotState::Live;
        let mut shelf = Shelf::default();
        shelf.put_volume(volume(1, VolumeState::Live, None, None));
        shelf.put_snapshot(snapshot(2, 1, 0, Live));
        shelf.put_snapshot(snapshot(3, 1, 1, Live));
        // One record makes it a former volume, even where the other was not written before a crash.
        shelf.put_volume(volume(4, VolumeState::Live, Some((1, 0)), Some(1)));
        let done = settle(&mut shelf);
        assert!(matches!(done.as_slice(), [Chore::Volume(_), Chore::Empty(1)]), "{done:?}");
        assert_eq!(shelf.volume(1).unwrap().state, VolumeState::Ghost);
        assert_eq!(shelf.head_of(1).map(|head| head.id), Some(4));
        assert_eq!(shelf.snapshots_of(1).count(), 2);
        assert!(shelf.clones_of(&shelf.snapshot(2).unwrap().record).is_empty(), "it is its own");
        shelf.put_volume(volume(4, VolumeState::Deleting, Some((1, 0)), Some(1)));
        settle(&mut shelf);
        assert_eq!((shelf.volumes().count(), shelf.snapshots().count()), (0, 0));
    }

    /// A family at random: clones, rollbacks, snapshots, some of it being deleted.
    fn random_shelf(seed: u64) -> Shelf {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut below = |limit: u64| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state >> 33) % limit
        };
        let mut shelf = Shelf::default();
        let count = 1 + below(11);
        for id in 1..=count {
            let parent = (id > 1 && below(4) > 0).then(|| (1 + below(id - 1), below(3)));
            let line = parent.filter(|_| below(2) == 0).map(|(parent, _)| shelf.line_of(parent));
            let state = if below(3) == 0 { VolumeState::Deleting } else { VolumeState::Live };
            shelf.put_volume(volume(id, state, parent, line));
            let Some((parent, generation)) = parent else { continue };
            let is_of = |kept: &KeptSnapshot| (kept.record.of, kept.record.generation) == (parent, generation);
            if !shelf.snapshots().any(is_of) {
                shelf.put_snapshot(snapshot(100 + id, parent, generation, SnapshotState::Live));
            }
        }
        for id in 200..200 + below(20) {
            let state = if below(3) == 0 { SnapshotState::Deleting } else { SnapshotState::Live };
            shelf.put_snapshot(snapshot(id, 1 + below(count), 10 + id, state));
        }
        shelf
    }

    fn named(shelf: &Shelf) -> Vec<u64> {
        shelf.volumes().map(|record| record.id).filter(|id| shelf.name_of(*id).is_some()).collect()
    }

    /// P1. Whatever was deleted in whatever order, and wherever a crash left it: no volume that is there loses what it began
    /// as, no snapshot that is there is touched, and of the rest nothing stays.
    #[test]
    fn nothing_that_is_needed_is_given_up_and_nothing_else_stays() {
        for seed in 1..2000 {
            let mut shelf = random_shelf(seed);
            let live = named(&shelf);
            let is_live = |record: &SnapshotRecord| record.state == SnapshotState::Live;
            let has_head = |shelf: &Shelf, record: &SnapshotRecord| shelf.head_of(shelf.line_of(record.of)).is_some();
            let wanted = shelf.snapshots().map(|kept| &kept.record).filter(|record| is_live(record));
            let wanted: Vec<u64> = wanted.filter(|record| has_head(&shelf, record)).map(|record| record.id).collect();
            settle(&mut shelf);
            assert_eq!(named(&shelf), live, "seed {seed}");
            assert!(wanted.iter().all(|id| is_live(&shelf.snapshot(*id).unwrap().record)), "seed {seed}");
            let is_kept = |boundary| shelf.snapshots().any(|kept| boundary_of(&kept.record) == boundary);
            for record in shelf.volumes() {
                let is_whole =
                    record.parent.is_none_or(|parent| shelf.volume(parent.volume).is_some() && is_kept(parent));
                assert!(is_whole, "seed {seed}: volume {} has lost what it began as", record.id);
                let has_wanted = || wanted.iter().any(|id| shelf.snapshot(*id).unwrap().record.of == record.id);
                let is_used = live.contains(&record.id) || shelf.is_parent(record.id) || has_wanted();
                assert!(is_used, "seed {seed}: volume {} stays for nothing", record.id);
                let is_emptied = shelf.is_emptied(record.id);
                assert_eq!(is_emptied, !live.contains(&record.id), "seed {seed}: volume {}", record.id);
            }
            for KeptSnapshot { record, .. } in shelf.snapshots() {
                let is_used = wanted.contains(&record.id) || shelf.has_children(boundary_of(record));
                assert!(is_used, "seed {seed}: snapshot {} stays for nothing", record.id);
            }
        }
    }
}
