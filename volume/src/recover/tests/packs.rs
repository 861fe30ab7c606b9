//! Segments that were moved: recovered, rebuilt and checked as they were written.

use super::world::{MemoryStore, OTHER_VOLUME, VOLUME, World, trim_op, write_op};
use crate::check::{CheckOptions, check};
use crate::format::{Operation, SlotHeader, SlotUse};
use crate::pool::{Index, Lease, LeaseClass, SegmentRow};
use crate::rebuild::rebuild;
use crate::recover::{DamageKind, recover};
use crate::store::PoolReader;
use proptest::prelude::*;
use units::{BLOCK_LEN, Lsn, SegmentId};

/// Folded segments of two volumes, each with blocks that are overwritten and trims, and a newer one.
fn aged() -> (World, Vec<SegmentRow>) {
    let mut world = World::new(40);
    let mut rows = Vec::new();
    for n in 0..4 {
        rows.push(world.segment(VOLUME, &[&[write_op(n * 3, 4), write_op(n * 5000, 2)], &[trim_op(n * 5, 2)]]));
        world.segment(OTHER_VOLUME, &[&[write_op(n, 3)]]);
    }
    world.segment(VOLUME, &[&[write_op(90, 1)]]);
    world.fold(VOLUME);
    world.fold(OTHER_VOLUME);
    (world, rows)
}

fn segments(rows: &[SegmentRow]) -> Vec<SegmentId> {
    rows.iter().map(|row| row.segment).collect()
}

/// The index and the pool hold what was written, wherever it is.
fn hold_all(world: &mut World) {
    let report = check(&world.index, &world.pool, CheckOptions { verify_data: true });
    assert!(report.is_clean(), "{:#?}", report.problems);
    for volume in world.index.volumes() {
        let mut recovered = world.recover(volume).unwrap();
        let last = Lsn(world.authors[&volume].next_lsn.0 - 1);
        assert_eq!(recovered.next_lsn, last.next());
        assert_eq!(recovered.size_bytes, world.authors[&volume].size_bytes);
        let mapped = world.resolve(&mut recovered.map, volume, 20 * 2048);
        assert_eq!(mapped, world.authors[&volume].mapped_at(last));
    }
}

/// Loses the index and makes it anew.
fn rebuild_it(world: &mut World) {
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert_eq!((report.damaged.len(), report.notes.len()), (0, 0), "{report:?}");
    for (offset, bytes) in report.mends {
        world.pool.write(offset, &bytes);
    }
    world.index = index;
}

/// Recovers, mends and folds both volumes, as a start does.
fn start(world: &mut World) {
    for volume in world.index.volumes() {
        let recovered = world.recover(volume).unwrap();
        world.mend(&recovered);
        world.author(volume).map = recovered.map;
        world.fold(volume);
    }
}

/// P1. What is left of a segment counts where it is, through a restart and without the index.
#[test]
fn what_was_moved_is_there_as_it_was_written() {
    let (mut world, rows) = aged();
    let live: Vec<Option<u64>> = rows.iter().map(|row| world.index.live_blocks(row.segment)).collect();
    let pack = world.pack(&segments(&rows[..3]));
    hold_all(&mut world);
    world.crash(0);
    assert_eq!(world.index.left_places().count(), 3, "the places before are not free");
    hold_all(&mut world);
    let free = world.index.figures().slots_free;
    world.void_left();
    assert_eq!(world.index.figures().slots_free, free + 3);
    hold_all(&mut world);
    rebuild_it(&mut world);
    hold_all(&mut world);
    assert_eq!(world.index.packs().collect::<Vec<_>>(), [(pack.segment, pack.slot)]);
    for (row, live) in rows.iter().zip(live) {
        assert_eq!(world.index.live_blocks(row.segment), live);
    }
    // And on, with others, to another pack.
    start(&mut world);
    world.pack(&segments(&rows));
    world.void_left();
    assert_eq!(world.index.empty_packs(), [(pack.segment, pack.slot)]);
    assert_eq!(world.index.segment(rows[0].segment).unwrap().parcel.unwrap().moves, 2);
    hold_all(&mut world);
}

/// P1. Where a stop came before the older place was void, that one counts after a rebuild and the newer one never again.
#[test]
fn of_two_places_the_older_one_counts_and_the_newer_one_is_void() {
    let (mut world, rows) = aged();
    let first = world.pack(&segments(&rows[..2]));
    rebuild_it(&mut world);
    hold_all(&mut world);
    assert!(world.index.segments(VOLUME).iter().all(|row| row.parcel.is_none()));
    assert!(!world.index.used_slots().contains(&first.slot));
    start(&mut world);
    world.pack(&segments(&rows[..3]));
    world.void_left();
    let second = world.pack(&segments(&rows[1..2]));
    rebuild_it(&mut world);
    hold_all(&mut world);
    assert_eq!(world.index.segment(rows[1].segment).unwrap().parcel.unwrap().moves, 1);
    assert!(!world.index.used_slots().contains(&second.slot));
}

/// P1. A pack that was written and that no row names counts for nothing, and its slot is not free before it is void.
#[test]
fn a_pack_that_nothing_was_moved_to_is_found_and_counts_for_nothing() {
    let (mut world, rows) = aged();
    let (lease, _) = world.write_pack(&segments(&rows[..2]));
    world.crash(0);
    assert_eq!(world.index.empty_packs(), [(lease.segment, lease.slot)]);
    assert!(world.index.used_slots().contains(&lease.slot));
    hold_all(&mut world);
    rebuild_it(&mut world);
    assert!(!world.index.used_slots().contains(&lease.slot));
    hold_all(&mut world);
}

/// P1. A header of a pack that has rotted hides nothing.
#[test]
fn a_rotten_header_of_a_pack_is_made_up_for_by_its_first_parcel() {
    let (mut world, rows) = aged();
    let pack = world.pack(&segments(&rows[..3]));
    world.void_left();
    world.rot(pack.slot, 0);
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert!(report.damaged.is_empty() && report.kept_slots.is_empty());
    assert_eq!(segments(&index.segments(VOLUME)), segments(&world.index.segments(VOLUME)));
}

/// P2. A pack that the disk wrote to a second slot too, whole or in part, is in one of them, and the other is out of use.
#[test]
fn a_pack_in_two_slots_is_in_one_of_them() {
    for (is_before, blocks) in [(false, 16), (true, 16), (false, 1), (true, 1)] {
        let (mut world, rows) = aged();
        let geometry = world.superblock.geometry;
        let before = world.index.lease(LeaseClass::Data).unwrap().slot;
        let pack = world.pack(&segments(&rows[..3]));
        world.void_left();
        let behind = world.index.lease(LeaseClass::Data).unwrap().slot;
        let copy = if is_before { before } else { behind };
        assert_eq!(copy < pack.slot, is_before);
        let mut bytes = vec![0; blocks * BLOCK_LEN];
        world.pool.read_at(geometry.slot_offset(pack.slot), &mut bytes).unwrap();
        world.pool.write(geometry.slot_offset(copy), &bytes);
        let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
        assert_eq!((report.damaged.len(), report.notes.len()), (0, 1), "{report:?}");
        assert_eq!(report.kept_slots.len(), 1);
        world.index = index;
        for (offset, bytes) in report.mends {
            world.pool.write(offset, &bytes);
        }
        for volume in world.index.volumes() {
            let mut recovered = world.recover(volume).unwrap();
            let last = Lsn(world.authors[&volume].next_lsn.0 - 1);
            let mapped = world.resolve(&mut recovered.map, volume, 20 * 2048);
            assert_eq!(mapped, world.authors[&volume].mapped_at(last));
        }
    }
}

/// P2. A parcel that has rotted is told, by the check and by what cannot do without it.
#[test]
fn a_rotten_parcel_is_told() {
    let (mut world, rows) = aged();
    let pack = world.pack(&segments(&rows[..3]));
    world.void_left();
    let block = world.index.segment(rows[1].segment).unwrap().parcel.unwrap().block;
    world.rot(pack.slot, block);
    let report = check(&world.index, &world.pool, CheckOptions { verify_data: true });
    assert!(report.problems.iter().any(|problem| problem.detail.contains("what was moved there is damaged")));
    assert!(
        report
            .problems
            .iter()
            .any(|problem| problem.detail.contains("named by no row") || problem.detail.contains("is damaged"))
    );
    let (_, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert_eq!(report.notes.len(), 1, "{report:?}");
    // Its index alone: the segment is known and not to be read.
    world.rot(pack.slot, block);
    let at = world.at(pack.slot, block);
    world.pool.bytes[at + 160] ^= 4;
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert!(matches!(report.damaged[0].kind, DamageKind::Parcel { .. }));
    assert!(recover(&world.pool, &world.superblock, &index.known(VOLUME, 0)).is_err());
    assert!(recover(&world.pool, &world.superblock, &index.known(OTHER_VOLUME, 0)).is_ok());
}

/// P1, P2. What was moved had been on stable storage, and so had all before it: rot there is not taken for a torn end, and a
/// read of it is an error.
#[test]
fn rot_before_what_was_moved_is_no_torn_end() {
    let mut world = World::new(16);
    let older = world.segment(VOLUME, &[&[write_op(0, 2)], &[write_op(2, 2)]]);
    world.sync(VOLUME);
    let newest = world.segment(VOLUME, &[&[write_op(4, 1)]]);
    world.fold(VOLUME);
    world.pack(&[newest.segment]);
    world.void_left();
    // The payload of its last batch: that it was durable was told by the batch of the newest.
    world.rot(older.slot, 5);
    rebuild_it(&mut world);
    let mut recovered = world.recover(VOLUME).unwrap();
    assert_eq!(world.resolve(&mut recovered.map, VOLUME, 2048), world.authors[&VOLUME].mapped_at(Lsn(3)));
}

/// P2. A row that is wrong about what is left is found by the check.
#[test]
fn a_wrong_row_of_what_is_left_is_told() {
    let (mut world, rows) = aged();
    let (lease, mut moves) = world.write_pack(&segments(&rows[..1]));
    moves[0].survivors.insert(31);
    world.index.relocate(lease, moves).unwrap();
    let report = check(&world.index, &world.pool, CheckOptions { verify_data: false });
    assert!(report.problems.iter().any(|problem| problem.detail.contains("wrong about which blocks are left")));
}

#[test]
fn a_parcel_that_no_row_names_is_told() {
    let (mut world, rows) = aged();
    let (lease, mut moves): (Lease, _) = world.write_pack(&segments(&rows[..2]));
    moves.pop();
    world.index.relocate(lease, moves).unwrap();
    let report = check(&world.index, &world.pool, CheckOptions { verify_data: false });
    assert!(report.problems.iter().any(|problem| problem.detail.contains("named by no row")), "{report:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Operation>),
    Fold,
    /// Moves those of the oldest segments whose bits are set, and leaves the places before as they are when told so.
    Pack(u8, bool),
    Rebuild,
}

fn step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![
        3 => (0_u64..24, 1_u64..4).prop_map(|(first, count)| write_op(first, count)),
        1 => (0_u64..24, 1_u64..9).prop_map(|(first, count)| trim_op(first, count)),
    ];
    prop_oneof![
        6 => proptest::collection::vec(operation, 1..4).prop_map(Step::Write),
        4 => Just(Step::Fold),
        4 => (1_u8..=255, prop::bool::weighted(0.3)).prop_map(|(bits, is_cut)| Step::Pack(bits, is_cut)),
        1 => Just(Step::Rebuild),
    ]
}

/// Gives back what is dead, as the compactor does.
fn free_dead(world: &mut World) {
    while let Some(segment) = world.dead(VOLUME).first().copied() {
        let row = world.index.segment(segment).unwrap();
        match row.parcel {
            None => world.release(&row),
            Some(parcel) => {
                world.void_parcel_at(row.slot, parcel.block);
                world.index.release(segment).unwrap();
            }
        }
    }
    for (pack, slot) in world.index.empty_packs() {
        let mut block = vec![0; BLOCK_LEN];
        let header = SlotHeader { slot_use: SlotUse::Void, ..SlotHeader::pack(world.superblock.pool, pack, 0) };
        header.encode(&mut block);
        world.pool.write(world.superblock.geometry.slot_offset(slot), &block);
        world.index.release_pack(pack).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// P1, P5. Whatever is moved, and wherever a stop comes, a rebuild brings nothing back that was trimmed or overwritten,
    /// and loses nothing.
    #[test]
    fn a_rebuild_after_moves_gives_what_was_written(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new(48);
        world.segment(VOLUME, &[&[write_op(0, 2)]]);
        world.fold(VOLUME);
        for step in steps {
            match step {
                Step::Write(operations) => {
                    if world.index.figures().slots_free > 6 { world.segment(VOLUME, &[&operations]); }
                }
                Step::Fold => {
                    world.fold(VOLUME);
                    world.void_left();
                    free_dead(&mut world);
                }
                Step::Pack(bits, is_cut) => {
                    world.fold(VOLUME);
                    world.void_left();
                    free_dead(&mut world);
                    let rows = world.index.segments(VOLUME);
                    let movable = rows.iter().take(rows.len().saturating_sub(1)).enumerate();
                    let chosen = movable.filter(|(at, _)| *at < 8 && bits >> at & 1 == 1).map(|(_, row)| row.segment);
                    let mut left = 30_u64;
                    let fits = chosen.take_while(|segment| {
                        let live = world.index.live_blocks(*segment).unwrap();
                        let fits = left > live + 1;
                        left = left.saturating_sub(live + 1);
                        fits
                    });
                    let fits: Vec<SegmentId> = fits.collect();
                    if !fits.is_empty() && world.index.figures().slots_free > 1 {
                        world.pack(&fits);
                        if !is_cut { world.void_left(); }
                    }
                }
                Step::Rebuild => {
                    rebuild_it(&mut world);
                    start(&mut world);
                }
            }
            hold_all(&mut world);
        }
        rebuild_it(&mut world);
        hold_all(&mut world);
    }
}

/// The rows of an index survive its being opened again.
#[test]
fn rows_of_what_was_moved_are_read_back() {
    let (mut world, rows) = aged();
    world.pack(&segments(&rows[..3]));
    let again = Index::open(world.index.store().clone(), &world.superblock, &world.pool).unwrap();
    assert_eq!(again.segments(VOLUME), world.index.segments(VOLUME));
    assert!(rows[..3].iter().all(|row| again.survivors(row.segment) == world.index.survivors(row.segment)));
    assert!(again.left_places().eq(world.index.left_places()));
    assert_eq!(again.figures(), world.index.figures());
}
