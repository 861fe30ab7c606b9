//! Packs that a stop left behind, of which nothing counts: what may be done while the disk does not let them become void.

use super::stops::holds_all;
use super::*;
use crate::format::Cut;

/// Compacts on a disk that refuses writes at some places.
fn run_refusing(disk: &mut Disk, refused: &[u64]) {
    for _ in 0..20 {
        disk.act(Compactor::tick);
        disk.act(|compactor, context| compactor.look_at(context, VOLUME));
        loop {
            let at = disk.actions.iter().position(
                |action| matches!(action, Action::Append { pool_offset, .. } if refused.contains(pool_offset)),
            );
            match at.map(|at| disk.actions.remove(at)) {
                Some(Action::Append { id, buffers, .. }) => {
                    let event = Event::Appended { id, buffers, result: Err(DiskFault::Io) };
                    disk.act(|compactor, context| compactor.handle(context, event));
                }
                _ if disk.step() => {}
                _ => break,
            }
        }
    }
}

/// P1, P6. While the disk refuses to make a pack void that a stop left behind, no segment leaves of which it may tell: a
/// rebuild would find a part of it without its trunk.
#[test]
fn nothing_leaves_before_packs_of_a_former_life_are_void() {
    let (mut world, row) = World::cut_in_two();
    let (leases, _) = world.write_packs(&[row.segment], 2);
    world.crash(usize::MAX);
    assert_eq!(world.index.empty_packs().len(), 2);
    world.segment(VOLUME, &[&[write_op(0, 20)]]);
    world.segment(VOLUME, &[&[write_op(100, 1)]]);
    world.fold(VOLUME);
    let geometry = world.superblock.geometry;
    let refused = [0, 31].map(|block| geometry.block_offset(leases[1].slot, block));
    let mut disk = Disk::of(world);
    disk.act(|compactor, context| compactor.look_at(context, VOLUME));
    run_refusing(&mut disk, &refused);
    let (_, report) = rebuild(MemoryStore::default(), &disk.world.superblock, &disk.world.pool).unwrap();
    assert!(report.damaged.is_empty(), "{report:#?}");
}

/// P5. The same, where what comes back was trimmed, and the trims have left.
#[test]
fn what_was_trimmed_does_not_come_back_from_a_pack_of_a_former_life() {
    let mut world = World::new(40);
    let row = world.segment(VOLUME, &[&[write_op(0, 4)]]);
    world.segment(VOLUME, &[&[write_op(100, 1)]]);
    world.fold(VOLUME);
    let (lease, _) = world.write_pack(&[row.segment]);
    world.crash(usize::MAX);
    world.segment(VOLUME, &[&[trim_op(0, 4)]]);
    world.segment(VOLUME, &[&[write_op(100, 1)]]);
    world.segment(VOLUME, &[&[write_op(101, 1)]]);
    world.fold(VOLUME);
    world.fold(VOLUME);
    let geometry = world.superblock.geometry;
    let refused = [0, 31].map(|block| geometry.block_offset(lease.slot, block));
    let mut disk = Disk::of(world);
    run_refusing(&mut disk, &refused);
    let (index, report) = rebuild(MemoryStore::default(), &disk.world.superblock, &disk.world.pool).unwrap();
    assert!(report.damaged.is_empty(), "{report:#?}");
    disk.world.index = index;
    report.mends.iter().for_each(|(offset, bytes)| disk.world.pool.write(*offset, bytes));
    holds_all(&mut disk.world, "rebuilt");
}

/// P1. The same without any error of the disk: more than 64 places were left, and a power cut comes while the others and the
/// packs become void.
#[test]
fn a_power_cut_while_packs_of_a_former_life_become_void_leaves_no_part_alone() {
    let mut world = World::new(160);
    let row = world.segment(VOLUME, &[&[write_op(0, 20)]]);
    let small: Vec<_> = (0..72).map(|n| world.segment(VOLUME, &[&[write_op(100 + n, 1)]]).segment).collect();
    world.segment(VOLUME, &[&[write_op(90, 1)]]);
    world.fold(VOLUME);
    for some in small.chunks(9) {
        world.pack(some);
    }
    world.cut = Cut::of_log2(1).unwrap();
    world.write_packs(&[row.segment], 2);
    world.crash(usize::MAX);
    assert_eq!((world.index.empty_packs().len(), world.index.left_places().count()), (2, 72));
    world.segment(VOLUME, &[&[write_op(0, 20)]]);
    world.segment(VOLUME, &[&[write_op(90, 1)]]);
    world.fold(VOLUME);
    let mut disk = Disk::of(world);
    disk.act(|compactor, context| compactor.look_at(context, VOLUME));
    // The rest of the places, the segment that is dead, and one of the packs.
    disk.appends_left = 72 + 1 + 2;
    while disk.appends_left > 0 && disk.step() {}
    let (_, report) = rebuild(MemoryStore::default(), &disk.world.superblock, &disk.world.pool).unwrap();
    assert!(report.damaged.is_empty(), "{report:#?}");
}

/// P6. One block that the disk does not take does not end compaction for good: of the two headers of a pack that a stop left
/// behind one is void, and a rebuild takes that for void.
#[test]
fn one_bad_block_does_not_end_compaction() {
    let (world, blocks) = parts::filled(24, 45);
    let mut disk = Disk::of(world);
    let mut chance = Chance(3);
    while disk.world.index.figures().slots_free > 5 {
        stops::overwrite_and_trim(&mut disk.world, &mut chance, blocks);
    }
    disk.settle();
    disk.act(Compactor::tick);
    while !disk.actions.iter().any(|action| matches!(action, Action::Sync { .. })) && disk.step() {}
    disk.world.crash(usize::MAX);
    let packs = disk.world.index.empty_packs();
    let refused = [disk.world.superblock.geometry.block_offset(packs[0].1, 0)];
    let mut disk = Disk::of(disk.world);
    run_refusing(&mut disk, &refused);
    let probed = crate::recover::probe(&disk.world.pool, &disk.world.superblock, packs[0].1);
    assert_eq!(probed, crate::recover::Probed::Void(packs[0].0), "for a rebuild it is void");
    assert!(disk.compactor.figures().segments_moved > 0, "{:?}", disk.compactor.figures());
}
