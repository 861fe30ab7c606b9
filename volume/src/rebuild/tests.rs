use super::rebuild;
use crate::check::{CheckOptions, check};
use crate::recover::tests::world::{MemoryStore, OTHER_VOLUME, VOLUME, World, resize_op, trim_op, write_op};
use crate::recover::{DamageKind, recover};
use units::{Lsn, SlotIndex, VolumeId};

/// The keys of pages in a store.
fn pages(store: &MemoryStore) -> Vec<(Vec<u8>, Vec<u8>)> {
    store.keys.iter().filter(|(key, _)| key[0] == 3).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A pool with overwritten, trimmed and released segments, all folded, and the log going on in an open one.
fn aged(with_tail: bool) -> World {
    let mut world = World::new(40);
    for n in 0..12 {
        world.segment(VOLUME, &[&[write_op(n * 3 % 20, 4), write_op(n * 5000, 2)], &[trim_op(n * 5 % 17, 2)]]);
        world.segment(OTHER_VOLUME, &[&[write_op(n % 4, 3), resize_op((n + 1) << 30)]]);
        for volume in [VOLUME, OTHER_VOLUME] {
            for dead in world.fold(volume) {
                let rows = world.index.segments(volume);
                let row = *rows.iter().find(|row| row.segment == dead).unwrap();
                world.release(&row);
            }
        }
    }
    if with_tail {
        world.open(VOLUME);
        world.append(VOLUME, &[write_op(1, 2)]);
        world.sync(VOLUME);
        world.append(VOLUME, &[write_op(2, 2)]);
    }
    world
}

/// P1. The index is a cache: without it nothing is lost.
#[test]
fn a_rebuilt_index_is_the_one_that_was_lost() {
    for with_tail in [false, true] {
        let mut world = aged(with_tail);
        let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
        assert_eq!((report.volumes, report.damaged.len(), report.notes.len()), (2, 0, 0));
        assert!(report.segments > 5 && report.kept_slots.is_empty());
        for volume in [VOLUME, OTHER_VOLUME] {
            assert!(index.segments(volume).len() < 13, "some were released");
            let last = Lsn(world.authors[&volume].next_lsn.0 - 1);
            let mut recovered = recover(&world.pool, &world.superblock, &index.known(volume, 0)).unwrap();
            assert_eq!(recovered.next_lsn, last.next());
            assert_eq!(recovered.size_bytes, world.authors[&volume].size_bytes);
            let original = std::mem::replace(
                &mut world.index,
                crate::pool::Index::open(index.store().clone(), &world.superblock, &world.pool).unwrap(),
            );
            let mapped = world.resolve(&mut recovered.map, volume, 40 * 2048);
            assert_eq!(mapped, world.authors[&volume].mapped_at(last));
            world.index = original;
        }
        let report = check(&index, &world.pool, CheckOptions { verify_data: true });
        assert!(report.is_clean(), "{:#?}", report.problems);
        assert!(index.next_segment() > world.index.next_segment());
    }
}

#[test]
fn pages_and_live_counts_come_out_the_same_once_all_is_durable() {
    let mut world = aged(false);
    // One more batch, which tells that all before it is durable.
    for volume in [VOLUME, OTHER_VOLUME] {
        world.segment(volume, &[&[trim_op(1 << 20, 1)]]);
        world.fold(volume);
        world.open(volume);
        world.append(volume, &[trim_op(1 << 20, 1)]);
    }
    let (index, _) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert_eq!(pages(index.store()).len(), pages(world.index.store()).len());
    for volume in [VOLUME, OTHER_VOLUME] {
        assert_eq!(index.segments(volume), world.index.segments(volume));
        assert_eq!(index.volume_row(volume), world.index.volume_row(volume));
        for row in world.index.segments(volume) {
            assert_eq!(index.live_blocks(row.segment), world.index.live_blocks(row.segment), "{row:?}");
        }
    }
    let free = world.index.figures().slots_free;
    assert_eq!(index.figures().slots_free, free);
}

#[test]
fn rotten_headers_footers_and_batches_are_made_up_for_where_something_else_tells() {
    let mut world = aged(true);
    let rows = world.index.segments(VOLUME);
    for (n, row) in rows.iter().enumerate().take(rows.len() - 1) {
        match n % 3 {
            0 => world.rot(row.a_slot(), 0),
            1 => world.rot(row.a_slot(), 31),
            _ => world.rot(row.a_slot(), 1),
        }
    }
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert!(report.damaged.is_empty(), "{:?}", report.damaged);
    assert_eq!(index.segments(VOLUME).len(), rows.len());
    let mut recovered = recover(&world.pool, &world.superblock, &index.known(VOLUME, 0)).unwrap();
    world.index = index;
    let last = Lsn(world.authors[&VOLUME].next_lsn.0 - 1);
    assert_eq!(recovered.next_lsn, last.next());
    assert_eq!(world.resolve(&mut recovered.map, VOLUME, 40 * 2048), world.authors[&VOLUME].mapped_at(last));
}

/// P6.
#[test]
fn a_damaged_volume_is_reported_and_the_others_are_rebuilt() {
    let mut world = aged(true);
    let row = world.index.segments(VOLUME)[1];
    world.rot(row.a_slot(), 31);
    world.rot(row.a_slot(), 1);
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert!(matches!(report.damaged[0].kind, DamageKind::HeaderRot { .. }));
    assert_eq!(report.damaged[0].volume, VOLUME);
    assert!(recover(&world.pool, &world.superblock, &index.known(VOLUME, 0)).is_err());
    assert!(recover(&world.pool, &world.superblock, &index.known(OTHER_VOLUME, 0)).is_ok());
}

#[test]
fn a_slot_that_cannot_be_read_is_kept_out_of_use() {
    let mut world = World::new(8);
    let row = world.segment(VOLUME, &[&[write_op(0, 1)]]);
    let at = world.superblock.geometry.slot_offset(row.a_slot()) / 4096;
    world.pool.unreadable = (at..at + 32).collect();
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert_eq!(report.kept_slots, [row.a_slot()]);
    assert_eq!(index.figures().slots_free, 7);
    assert_eq!(index.volumes(), Vec::<VolumeId>::new());
}

/// P2. A disk that writes a footer, or a header with the first batch, into another slot does not get that slot taken for
/// the segment's.
#[test]
fn a_segment_is_where_its_blocks_are_and_not_where_the_disk_wrote_some_of_it() {
    for (first, count) in [(30, 2), (0, 4)] {
        let mut world = World::new(16);
        let other = world.segment(OTHER_VOLUME, &[&[write_op(0, 20)]]);
        let row = world.segment(VOLUME, &[&[write_op(0, 2)], &[write_op(8, 9)]]);
        let block_of =
            |slot, block: u64| usize::try_from(world.superblock.geometry.slot_offset(slot) + block * 4096).unwrap();
        let (from, to) = (block_of(row.a_slot(), first), block_of(other.a_slot(), first));
        world.pool.bytes.copy_within(from..from + count * 4096, to);
        // The header of the other one was never written.
        if first > 0 {
            let header = block_of(other.a_slot(), 0);
            world.pool.bytes[header..header + 2 * 4096].fill(0);
        }
        let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
        assert_eq!(index.segments(VOLUME)[0].a_slot(), row.a_slot(), "blocks {first} and on");
        assert_eq!(report.kept_slots, [other.a_slot()]);
    }
}

/// P2. A footer that the disk wrote to a free slot does not bring its segment back, which was given back since.
#[test]
fn a_footer_over_nothing_is_no_segment() {
    let mut world = World::new(16);
    let row = world.segment(VOLUME, &[&[write_op(0, 2)]]);
    world.segment(VOLUME, &[&[write_op(0, 2)]]);
    let from = usize::try_from(world.superblock.geometry.slot_offset(row.a_slot())).unwrap() + 30 * 4096;
    let to = usize::try_from(world.superblock.geometry.slot_offset(SlotIndex(15))).unwrap() + 30 * 4096;
    world.pool.bytes.copy_within(from..from + 2 * 4096, to);
    world.release(&row);
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert_eq!(index.segments(VOLUME).len(), 1);
    assert_eq!((report.segments, report.free_slots), (1, 15));
}

/// P5. Nothing lies beyond a volume's end, where a power cut took the trim before the shrinking, or both, and the rebuild
/// goes on with what came after.
#[test]
fn a_volume_that_shrank_has_nothing_beyond_its_end_whatever_a_power_cut_took() {
    let shrink = resize_op(50 * 4096);
    for (lost, left) in [(vec![trim_op(50, 1000)], shrink), (vec![trim_op(50, 1000), shrink], write_op(11, 1))] {
        let mut world = World::new(16);
        world.segment(VOLUME, &[&[write_op(10, 1), write_op(100, 2)]]);
        let lost = world.segment(VOLUME, &[&lost]);
        for operation in [left, write_op(12, 1)] {
            world.segment(VOLUME, &[&[operation]]);
        }
        let at = usize::try_from(world.superblock.geometry.slot_offset(lost.a_slot())).unwrap();
        world.pool.bytes[at..at + (128 << 10)].fill(0);
        let (index, _) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
        let mut recovered = recover(&world.pool, &world.superblock, &index.known(VOLUME, 0)).unwrap();
        assert_eq!(recovered.size_bytes, 50 * 4096);
        world.index = index;
        let mapped = world.resolve(&mut recovered.map, VOLUME, 200);
        assert!(mapped.contains_key(&10) && mapped.keys().all(|block| *block < 50), "{mapped:?}");
        let report = check(&world.index, &world.pool, CheckOptions { verify_data: true });
        assert!(report.is_clean(), "{:#?}", report.problems);
    }
}

#[test]
fn an_empty_pool_gives_an_empty_index() {
    let world = World::new(8);
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert_eq!((report.volumes, report.segments, report.free_slots), (0, 0, 8));
    assert_eq!(index.figures().slots_free, 8);
}
