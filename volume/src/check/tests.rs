use super::{CheckOptions, CheckReport, ProblemKind, check};
use crate::pool::{Parent, SegmentRow};
use crate::recover::tests::world::{OTHER_VOLUME, VOLUME, World, snapshot_op, trim_op, write_op};
use units::{Lsn, VolumeId};

fn aged() -> (World, Vec<SegmentRow>) {
    let mut world = World::new(30);
    let mut rows = Vec::new();
    for n in 0..4 {
        rows.push(world.segment(VOLUME, &[&[write_op(n * 3, 4)], &[trim_op(n * 5, 2)]]));
        world.segment(OTHER_VOLUME, &[&[write_op(n, 3)]]);
    }
    world.fold(VOLUME);
    world.fold(OTHER_VOLUME);
    (world, rows)
}

fn run(world: &World) -> CheckReport {
    check(&world.index, &world.pool, CheckOptions { verify_data: true })
}

fn kinds(world: &World) -> Vec<ProblemKind> {
    let mut kinds: Vec<ProblemKind> = run(world).problems.iter().map(|problem| problem.kind).collect();
    kinds.dedup();
    kinds
}

#[test]
fn a_good_pool_is_clean_at_every_moment() {
    let mut world = World::new(30);
    assert!(run(&world).is_clean());
    for n in 0..6 {
        world.open(VOLUME);
        assert!(run(&world).is_clean());
        world.append(VOLUME, &[write_op(n * 3, 4), write_op(1 << 30, 1)]);
        assert!(run(&world).is_clean());
        let report = run(&world);
        assert!(report.is_clean(), "{:#?}", report.problems);
        if n % 2 == 0 {
            world.append(VOLUME, &[trim_op(n, 2)]);
            world.fold(VOLUME);
        }
        world.seal(VOLUME);
        let report = run(&world);
        assert!(report.is_clean(), "{:#?}", report.problems);
    }
    let report = run(&world);
    assert_eq!((report.volumes, report.segments, report.operations), (1, 6, 15));
    assert_eq!(report.mapped_blocks, report.verified_blocks);
    assert!(report.mapped_blocks > 10 && report.pages == 2);
}

#[test]
fn a_torn_end_is_no_problem_before_recovery_nor_after_it() {
    let (mut world, _) = aged();
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(3, 1)]);
    let torn = world.append(VOLUME, &[write_op(4, 1)]);
    world.rot(torn.slot, torn.block + 1);
    assert!(run(&world).is_clean());
    world.restart(VOLUME);
    assert!(run(&world).is_clean());
}

/// P2.
#[test]
fn each_planted_fault_is_found() {
    use ProblemKind::{Data, LiveCount, Log, Map, Slot, Superblock};
    type Plant = fn(&mut World, &[SegmentRow]);
    let plants: [(&str, Plant, &[ProblemKind]); 12] = [
        ("a superblock rots", |world, _| world.pool.bytes[4096 + 20] ^= 1, &[Superblock]),
        ("a slot header rots", |world, rows| world.rot(rows[1].a_slot(), 0), &[Slot]),
        ("a footer rots", |world, rows| world.rot(rows[1].a_slot(), 31), &[Log]),
        ("a batch header rots", |world, rows| world.rot(rows[1].a_slot(), 1), &[Log]),
        // Blocks 4 and 5 are trimmed or overwritten since.
        ("a live block rots", |world, rows| world.rot(rows[1].a_slot(), 2), &[Data]),
        ("a slot cannot be read", make_unreadable, &[Log, Data]),
        ("a segment is overwritten by another's", overwrite, &[Log, Data]),
        (
            "a live count is wrong",
            |world, rows| {
                let key = [&[1][..], &rows[1].segment.0.to_be_bytes()].concat();
                change(world, &key, |value| value[29] += 1);
            },
            &[LiveCount],
        ),
        (
            "a page is lost",
            |world, _| {
                let mut store = world.index.store().clone();
                store.keys.retain(|key, _| key[0] != 3 || key[8] != 7);
                reopen(world, store);
            },
            &[Map, LiveCount],
        ),
        (
            "a page rots",
            |world, _| {
                let key = world.index.store().keys.keys().find(|key| key[0] == 3).unwrap().clone();
                change(world, &key, |value| value[0] = 0xff);
            },
            &[Map, LiveCount],
        ),
        (
            "a segment has no row",
            |world, rows| {
                world.index.release(rows[1].segment).unwrap();
            },
            &[Slot, Map],
        ),
        (
            "a row tells another end",
            |world, rows| {
                world.index.note_segment(SegmentRow { last_lsn: Some(Lsn(3)), ..rows[1] }).unwrap();
            },
            &[Log],
        ),
    ];
    for (what, plant, expected) in plants {
        let (mut world, rows) = aged();
        plant(&mut world, &rows);
        let found = kinds(&world);
        assert_eq!(found, expected, "{what}: {:#?}", run(&world).problems);
    }
}

/// P2. A clone whose parent's boundary is gone shows what nobody can tell.
#[test]
fn a_clone_without_its_boundary_is_found() {
    let mut world = World::new(30);
    world.segment(VOLUME, &[&[write_op(0, 4)], &[snapshot_op(0)]]);
    let parent = Parent { volume: VOLUME, generation: 0 };
    let clone = VolumeId(20);
    world.clone_volume(clone, parent, Lsn(2));
    assert!(run(&world).is_clean(), "its parent has not written back yet");
    world.fold(VOLUME);
    world.segment(clone, &[&[write_op(2, 4), trim_op(1, 1)]]);
    assert!(run(&world).is_clean());
    world.fold(clone);
    let report = run(&world);
    assert!(report.is_clean(), "{:#?}", report.problems);
    assert_eq!(report.verified_blocks, 4 + 4);
    let mut store = world.index.store().clone();
    store.keys.retain(|key, _| key[0] != 5);
    reopen(&mut world, store);
    assert_eq!(kinds(&world), [ProblemKind::Lineage]);
}

fn make_unreadable(world: &mut World, rows: &[SegmentRow]) {
    let at = world.superblock.geometry.slot_offset(rows[0].a_slot()) / 4096;
    world.pool.unreadable = (at..at + 30).collect();
}

fn overwrite(world: &mut World, rows: &[SegmentRow]) {
    let (from, to) = (world.at(rows[0].a_slot(), 0), world.at(rows[1].a_slot(), 0));
    world.pool.bytes.copy_within(from..from + (128 << 10), to);
}

fn change(world: &mut World, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
    let mut store = world.index.store().clone();
    change(store.keys.get_mut(key).unwrap());
    reopen(world, store);
}

fn reopen(world: &mut World, store: crate::recover::tests::world::MemoryStore) {
    world.index = crate::pool::Index::open(store, &world.superblock, &world.pool).unwrap();
}
