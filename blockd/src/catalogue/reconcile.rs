//! Records held against the logs, at the start, before any log goes on.
//!
//! A record whose operation a power cut took never was answered, and is taken away, with all of its group: later the log
//! would come to the same place with something else in it. The end of a generation that no record names is one that
//! nobody was told of, and is deleted. What cannot be told fails closed: of a volume that is damaged nothing is judged, and
//! while a record cannot be read nothing is given up.

use super::record::{GroupRecord, ParentRecord, SnapshotRecord, SnapshotState};
use super::shelf::{KeptSnapshot, Shelf, boundary_of};
use std::collections::{BTreeMap, BTreeSet};
use units::{Lsn, VolumeId};

/// What the logs and the index say.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Where the log of each volume that is whole goes on.
    pub(super) next_lsns: BTreeMap<VolumeId, Lsn>,
    /// The ends of generations that are needed, as far as the index knows, and their places in the logs.
    pub(super) boundaries: BTreeMap<ParentRecord, Lsn>,
}

/// Puts snapshots and groups on the shelf, which has all volumes, and says which records are to be taken away before
/// anything is written to any volume.
pub(super) fn reconcile(
    shelf: &mut Shelf,
    snapshots: Vec<SnapshotRecord>,
    groups: Vec<GroupRecord>,
    evidence: &Evidence,
) -> Vec<u64> {
    let is_there = |record: &SnapshotRecord| evidence.boundaries.get(&boundary_of(record)) == Some(&Lsn(record.lsn));
    let is_lost = |record: &SnapshotRecord| {
        let next_lsn = evidence.next_lsns.get(&VolumeId(record.of));
        !is_there(record) && next_lsn.is_some_and(|next_lsn| Lsn(record.lsn) >= *next_lsn)
    };
    let lost_groups: BTreeSet<u64> =
        snapshots.iter().filter(|record| is_lost(record)).filter_map(|record| record.group).collect();
    let is_of_lost_group = |record: &SnapshotRecord| record.group.is_some_and(|group| lost_groups.contains(&group));
    let (lost, kept): (Vec<_>, Vec<_>) =
        snapshots.into_iter().partition(|record| is_lost(record) || is_of_lost_group(record));
    let named: BTreeSet<ParentRecord> = kept.iter().map(boundary_of).collect();
    for record in kept {
        let is_missed = record.state != SnapshotState::Deleting && !is_there(&record);
        let is_judged = evidence.next_lsns.contains_key(&VolumeId(record.of));
        let damage = (is_missed && is_judged).then(|| "the index has lost it: rebuild the index".to_owned());
        shelf.put_snapshot(KeptSnapshot { record, damage });
    }
    let (gone, groups): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| lost_groups.contains(&group.id));
    groups.into_iter().for_each(|group| shelf.put_group(group));
    for boundary in evidence.boundaries.keys() {
        shelf.note_bounded(boundary.volume);
        if !named.contains(boundary) {
            shelf.put_orphan(*boundary);
        }
    }
    lost.iter().map(|record| record.id).chain(gone.iter().map(|group| group.id)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::chores::{Chore, chores};
    use super::super::record::{Metered, VolumeRecord, VolumeState};
    use super::*;

    fn volume(id: u64) -> VolumeRecord {
        let (name, state) = (format!("vm-{id}"), VolumeState::Live);
        VolumeRecord {
            id,
            name,
            tenant: 0,
            size_bytes: 4096,
            created_ms: 0,
            state,
            parent: None,
            line: None,
            image: None,
            history: None,
            qos: None,
            metered: Metered::default(),
            class: 0,
            meter_changes: Vec::new(),
            mirror: None,
        }
    }

    fn snapshot(id: u64, of: u64, generation: u64, lsn: u64) -> SnapshotRecord {
        let (name, state) = (format!("s-{id}"), SnapshotState::Live);
        SnapshotRecord { id, of, name, generation, lsn, size_bytes: 4096, at_ms: 0, group: None, state, is_base: false }
    }

    fn boundary(volume: u64, generation: u64, lsn: u64) -> (ParentRecord, Lsn) {
        (ParentRecord { volume, generation }, Lsn(lsn))
    }

    fn evidence(next_lsns: &[(u64, u64)], boundaries: Vec<(ParentRecord, Lsn)>) -> Evidence {
        let next_lsns = next_lsns.iter().map(|(volume, lsn)| (VolumeId(*volume), Lsn(*lsn))).collect();
        Evidence { next_lsns, boundaries: boundaries.into_iter().collect() }
    }

    fn shelf() -> Shelf {
        let mut shelf = Shelf::default();
        [1, 2].into_iter().for_each(|id| shelf.put_volume(volume(id)));
        shelf
    }

    /// P1. A snapshot that was answered is there; one whose operation was lost was not, nor was its group.
    #[test]
    fn a_record_without_its_operation_is_taken_away_with_its_group() {
        let mut shelf = shelf();
        let in_group = |record| SnapshotRecord { group: Some(9), ..record };
        let snapshots = vec![snapshot(5, 1, 0, 10), in_group(snapshot(7, 1, 1, 20)), in_group(snapshot(8, 2, 0, 30))];
        let group = GroupRecord { id: 9, name: None, members: vec![7, 8] };
        let evidence = evidence(&[(1, 21), (2, 30)], vec![boundary(1, 0, 10), boundary(1, 1, 20)]);
        let gone = reconcile(&mut shelf, snapshots, vec![group], &evidence);
        assert_eq!(gone, [7, 8, 9]);
        assert_eq!(shelf.snapshots().map(|kept| kept.record.id).collect::<Vec<_>>(), [5]);
        // Its other members' boundaries have no record now.
        assert_eq!(chores(&shelf), [Chore::DeleteOrphan(ParentRecord { volume: 1, generation: 1 })]);
    }

    /// P1. While a record cannot be read, what it may need stays: it may be that of a snapshot or a clone.
    #[test]
    fn nothing_is_given_up_while_a_record_cannot_be_read() {
        let mut shelf = shelf();
        shelf.put_volume(VolumeRecord { state: VolumeState::Deleting, ..volume(1) });
        shelf.note_rotten(6);
        let deleting = SnapshotRecord { state: SnapshotState::Deleting, ..snapshot(5, 1, 0, 10) };
        let evidence = evidence(&[(2, 40)], vec![boundary(1, 0, 10), boundary(2, 0, 30)]);
        assert!(reconcile(&mut shelf, vec![deleting], Vec::new(), &evidence).is_empty());
        assert_eq!(chores(&shelf), []);
        assert!(shelf.may_be_needed(1) && shelf.may_be_needed(2) && !shelf.may_be_needed(3));
    }

    /// P1. A damaged volume's log says nothing of its snapshots.
    #[test]
    fn the_snapshots_of_a_damaged_volume_are_kept() {
        let mut shelf = shelf();
        let gone = reconcile(&mut shelf, vec![snapshot(5, 1, 0, 10)], Vec::new(), &evidence(&[(2, 1)], Vec::new()));
        assert!(gone.is_empty() && chores(&shelf).is_empty());
        assert_eq!(shelf.snapshot(5).unwrap().damage, None);
        // In a log that is whole, what the index lacks is told.
        let gone = reconcile(&mut shelf, vec![snapshot(5, 1, 0, 10)], Vec::new(), &evidence(&[(1, 99)], Vec::new()));
        assert!(gone.is_empty() && shelf.snapshot(5).unwrap().damage.is_some());
    }
}
