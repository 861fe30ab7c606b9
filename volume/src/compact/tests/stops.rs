//! Stops at any step, power cuts and rot at the same time.

use super::parts::filled;
use super::*;
use crate::format::{Cut, SlotHeader, SlotUse, block_check};
use units::{BLOCK_LEN, SlotIndex};

type Write = (u64, Vec<u8>, Vec<u8>);

/// One step, with what it writes and is not synced.
fn step_noting(disk: &mut Disk, unsynced: &mut Vec<Write>) -> bool {
    match disk.actions.first() {
        Some(Action::Append { pool_offset, buffers, .. }) => {
            let new = buffers[0].as_slice().to_vec();
            let mut old = vec![0; new.len()];
            disk.world.pool.read_at(*pool_offset, &mut old).unwrap();
            unsynced.push((*pool_offset, old, new));
        }
        Some(Action::Sync { .. }) => unsynced.clear(),
        _ => {}
    }
    disk.step()
}

/// What a power cut leaves.
fn cut_power(world: &mut World, unsynced: &[Write], chance: &mut Chance) {
    for (offset, old, _) in unsynced.iter().rev() {
        world.pool.write(*offset, old);
    }
    let mode = chance.below(4);
    for (offset, _, new) in unsynced {
        let stays = chance.below(2) == 0;
        for (at, block) in new.chunks(BLOCK_LEN).enumerate() {
            let stays = match mode {
                0 => false,
                1 => stays,
                2 => chance.below(2) == 0,
                _ => chance.below(8) != 0,
            };
            if stays {
                world.pool.write(offset + (at * BLOCK_LEN) as u64, block);
            }
        }
    }
}

pub(super) fn overwrite_and_trim(world: &mut World, chance: &mut Chance, blocks: u64) {
    random_segment(world, || {
        let first = chance.below(blocks);
        if chance.below(12) == 0 { trim_op(first, 1 + chance.below(9)) } else { write_op(first, 1) }
    });
}

pub(super) fn holds_all(world: &mut World, what: &str) {
    let mut recovered = world.recover(VOLUME).unwrap_or_else(|damage| panic!("{what}: {damage}"));
    let last = units::Lsn(world.authors[&VOLUME].next_lsn.0 - 1);
    assert_eq!(recovered.next_lsn, last.next(), "{what}");
    let mapped = world.resolve(&mut recovered.map, VOLUME, 8192);
    let expected = world.authors[&VOLUME].mapped_at(last);
    let wrong: Vec<_> = (0..8192).filter(|block| mapped.get(block) != expected.get(block)).take(5).collect();
    assert!(wrong.is_empty(), "{what}: blocks {wrong:?}");
    for (location, check) in mapped.values() {
        let row = world.index.segment(location.segment).unwrap_or_else(|| panic!("{what}: no {location:?}"));
        let survivors = world.index.survivors(location.segment).map(AsRef::as_ref);
        let there =
            row.locate(survivors, u32::from(location.block), 1).unwrap_or_else(|| panic!("{what}: {location:?}"));
        let at = world.at(there.slot, there.block);
        let bytes = &world.pool.bytes[at..at + BLOCK_LEN];
        assert_eq!(block_check(location.segment, u32::from(location.block), bytes), *check, "{what}");
    }
}

/// Rots a sector of a header of a parcel or a pack.
fn rot_a_header(world: &mut World, chance: &mut Chance) {
    let packs: Vec<_> = world.index.packs().collect();
    if packs.is_empty() {
        return;
    }
    let (pack, slot) = *chance.pick(&packs);
    let walked = walk_pack(&world.pool, &world.superblock, (slot, pack));
    let mut blocks: Vec<u32> = vec![0, 255];
    for listed in &walked.parcels {
        blocks.extend([listed.start.header.block, listed.start.header.copy]);
    }
    let block = *chance.pick(&blocks);
    let sector = if chance.below(3) == 0 { *chance.pick(&[1, 2, 3, 4, 5, 6, 7]) } else { 0 };
    let at = world.at(slot, block) + 512 * sector;
    let bytes = &mut world.pool.bytes[at..at + 512];
    match chance.below(3) {
        0 => bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(7).wrapping_add(91)),
        1 => bytes[usize::try_from(chance.below(152)).unwrap()] ^= 1 << chance.below(8),
        _ => bytes[10] ^= 1 << chance.below(8),
    }
}

/// Compacts for so many steps; what was written and not synced.
fn run_for(disk: &mut Disk, steps: u64) -> Vec<Write> {
    let mut unsynced = Vec::new();
    disk.act(|compactor, context| compactor.look_at(context, VOLUME));
    disk.act(Compactor::tick);
    let mut ticks = 4;
    for _ in 0..steps {
        if !step_noting(disk, &mut unsynced) && ticks > 0 {
            ticks -= 1;
            disk.act(Compactor::tick);
        }
    }
    unsynced
}

/// Makes the index anew, once a header has rotted where it is to.
fn rebuild_all(world: &mut World, what: &str) {
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    let is_known = |note: &String| note.contains("never counted");
    assert!(report.damaged.is_empty() && report.notes.iter().all(is_known), "{what}: {report:#?}");
    report.mends.iter().for_each(|(offset, bytes)| world.pool.write(*offset, bytes));
    world.index = index;
    holds_all(world, what);
    let checked = check(&world.index, &world.pool, CheckOptions { verify_data: true });
    assert!(checked.is_clean(), "{what}: {:#?}", checked.problems);
    let (again, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert!(report.damaged.is_empty() && report.notes.is_empty(), "{what}: {report:#?}");
    assert_eq!(again.segments(VOLUME), world.index.segments(VOLUME), "{what}: a second rebuild");
}

/// P1, P2, P5. Stops at any step of any round, power cuts that leave any of what was not synced, rot of one header at the same
/// time, and starts with the index and without: all is there, and nothing that was trimmed.
#[test]
fn stops_and_rot_of_a_header_lose_nothing() {
    let (mut moved, mut parts) = (0, 0);
    for seed in 0..8_u64 {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
        let slots = 18 + u32::try_from(chance.below(14)).unwrap();
        let (mut world, blocks) = filled(slots, 30 + chance.below(25));
        for cycle in 0..6 {
            for _ in 0..60 {
                if world.index.figures().slots_free > 5 {
                    overwrite_and_trim(&mut world, &mut chance, blocks);
                }
            }
            if world.index.figures().slots_free < 3 {
                break;
            }
            let (mut disk, steps) = (Disk::of(world), chance.below(400));
            let unsynced = run_for(&mut disk, steps);
            moved += disk.compactor.figures().segments_moved;
            world = disk.world;
            let mut kept = world.index.store().lazy_commits();
            if chance.below(2) == 0 {
                cut_power(&mut world, &unsynced, &mut chance);
                kept = usize::try_from(chance.below(kept as u64 + 1)).unwrap();
            }
            let what = format!("seed {seed}, cycle {cycle}, {steps} steps");
            match chance.below(4) {
                0 => rebuild_all(&mut world, &what),
                1 => {
                    rot_a_header(&mut world, &mut chance);
                    rebuild_all(&mut world, &what);
                }
                _ => world.crash(kept),
            }
            holds_all(&mut world, &what);
            let recovered = world.recover(VOLUME).unwrap();
            world.mend(&recovered);
            world.author(VOLUME).map = recovered.map;
            world.fold(VOLUME);
            parts += world.index.segments(VOLUME).iter().filter(|row| row.home.each_parcel().count() > 1).count();
        }
    }
    assert!(moved > 50 && parts > 50, "{moved} moved, {parts} in parts");
}

/// A trim comes, and all but the newest segment moves; a bit of the void header that is then in `slot` rots, and the index is made
/// anew: nothing is there but what was.
fn rots_in_void_header(mut world: World, (segment, slot): (SegmentId, SlotIndex), bit: usize) {
    world.segment(VOLUME, &[&[trim_op(3, 2)]]);
    world.segment(VOLUME, &[&[write_op(100, 1)]]);
    world.fold(VOLUME);
    world.fold(VOLUME);
    world.pack(&[segment]);
    world.void_left();
    let all: Vec<_> = world.index.segments(VOLUME).into_iter().filter(|row| !row.is_moved()).collect();
    for other in &all[..all.len() - 1] {
        world.pack(&[other.segment]);
        world.void_left();
    }
    let at = world.at(slot, 0);
    let header = SlotHeader::decode(&world.pool.bytes[at..at + BLOCK_LEN]).unwrap();
    assert_eq!(header.slot_use, SlotUse::Void);
    world.pool.bytes[at + bit / 8] ^= 1 << (bit % 8);
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert!(report.damaged.is_empty(), "bit {bit}: {report:#?}");
    world.index = index;
    holds_all(&mut world, &format!("bit {bit} of byte {}", bit / 8));
}

/// P1, P5. The void header of a pack that was given up brings nothing back when a bit of it has rotted: the other one says
/// that it is void.
#[test]
fn a_bit_of_a_void_header_of_a_pack_brings_nothing_back() {
    for bit in 0..8 * 112 {
        let (mut world, row) = World::cut_in_two();
        let (leases, _) = world.write_packs(&[row.segment], 1);
        let segments = [row.segment].into_iter().collect();
        world.index.give_up_packs(&leases, &segments).unwrap();
        world.void_empty_packs();
        world.cut = Cut::of_log2(1).unwrap();
        rots_in_void_header(world, (row.segment, leases[0].slot), bit);
    }
}

/// P5. A bit that rots in the void header of a slot that a segment has left brings nothing back that was trimmed.
#[test]
fn a_bit_of_a_void_header_of_a_segment_brings_nothing_back() {
    for bit in 0..8 * 112 {
        let (mut world, row) = World::cut_in_two();
        world.cut = Cut::WHOLE;
        rots_in_void_header(world, (row.segment, row.a_slot()), bit);
    }
}
