//! Planted rot of every kind is told, with its place; a sound pool gives nothing.

use super::*;
use crate::map::Location;
use crate::pool::{LeaseClass, SegmentRow};
use crate::recover::tests::world::{OTHER_VOLUME, VOLUME, World, trim_op, write_op};
use units::Lsn;

/// Segments of two volumes, the first of which is in part overwritten, an open one, and a parcel of each volume.
fn aged() -> (World, Vec<SegmentRow>) {
    let mut world = World::new(40);
    let mut rows = vec![
        world.segment(VOLUME, &[&[write_op(0, 4), write_op(5000, 2)], &[trim_op(9, 1)]]),
        world.segment(VOLUME, &[&[write_op(100, 3)], &[write_op(2, 5)]]),
        world.segment(OTHER_VOLUME, &[&[write_op(0, 3)]]),
    ];
    rows.push(world.segment(OTHER_VOLUME, &[&[write_op(1, 1)]]));
    rows.push(world.segment(VOLUME, &[&[write_op(90, 1)]]));
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(200, 2)]);
    world.sync(VOLUME);
    world.fold(VOLUME);
    world.fold(OTHER_VOLUME);
    (world, rows)
}

fn scrub_all(world: &World) -> Scrubbed {
    let mut all = Scrubbed::default();
    for (slot, segments) in world.index.scrub_order(SlotIndex(0)) {
        for target in segments.into_iter().filter_map(|segment| world.index.scrub_target(segment)) {
            assert_eq!(target.row.a_slot(), slot);
            let found = scrub(&world.pool, &world.superblock, &target);
            all.blocks += found.blocks;
            all.bad.extend(found.bad);
        }
    }
    all
}

/// The only thing that is bad in a pool.
fn only(world: &World) -> BadBlock {
    let found = scrub_all(world);
    assert_eq!(found.bad.len(), 1, "{found:#?}");
    found.bad[0]
}

fn is_live(world: &World, found: &BadBlock) -> bool {
    let (block, place) = found.written_as.unwrap();
    let location = Location { segment: found.segment, block: u16::try_from(place).unwrap() };
    world.index.names(found.volume, block, location).unwrap()
}

/// P2. Every block that is on stable storage is read, live or dead, once, wherever it is.
#[test]
fn a_sound_pool_is_read_whole_and_has_nothing_bad() {
    let (mut world, rows) = aged();
    assert_eq!(scrub_all(&world), Scrubbed { blocks: 6 + 8 + 3 + 1 + 1 + 2, bad: Vec::new() });
    // Two live blocks of the first are overwritten: they do not move.
    world.pack(&[rows[0].segment, rows[2].segment]);
    for _ in 0..2 {
        assert_eq!(scrub_all(&world), Scrubbed { blocks: 4 + 8 + 2 + 1 + 1 + 2, bad: Vec::new() });
        world.void_left();
    }
}

/// P2. Each block of each segment is covered: a flipped bit in any of them is told, with its place.
#[test]
fn rot_is_found_in_every_block_that_counts() {
    let (world, rows) = aged();
    for row in &rows {
        let target = world.index.scrub_target(row.segment).unwrap();
        let filled = {
            let wanted = Wanted {
                reader: &world.pool,
                superblock: &world.superblock,
                row: *row,
                cut: target.durable_lsn.next(),
                durable_lsn: target.durable_lsn,
                known_to: Lsn::ZERO,
                distrusts_footer: false,
            };
            read_segment(&wanted).unwrap().filled_blocks
        };
        let last = world.superblock.geometry.slot_blocks() - 1;
        for block in (0..filled).chain([last - 1, last]) {
            let mut world_with_rot = World { authors: Default::default(), ..aged().0 };
            world_with_rot.rot(row.a_slot(), block);
            let settled = ScrubTarget { is_settled: true, ..target };
            let found = scrub(&world_with_rot.pool, &world_with_rot.superblock, &settled).bad;
            assert_eq!(found.len(), 1, "block {block} of {row:?}: {found:?}");
            let part = found[0].part;
            let expected = match block {
                0 => part == Part::Header,
                block if block >= last - 1 => part == Part::Footer,
                _ => [Part::Batch, Part::Payload].contains(&part),
            };
            assert!(expected, "block {block} of {row:?}: {found:?}");
            assert!(found[0].block == block || part == Part::Footer, "block {block} of {row:?}: {found:?}");
        }
    }
}

/// P2. What is live and what is overwritten are told apart.
#[test]
fn a_rotten_block_is_told_with_what_it_was_and_whether_it_is_live() {
    let (mut world, rows) = aged();
    // The header, a batch's header, then blocks 0 to 3 of the volume, of which 2 and 3 are overwritten.
    for (by, live) in [(1, true), (2, false)] {
        world.rot(rows[0].a_slot(), 2 + by);
        let found = only(&world);
        assert_eq!(found.written_as, Some((BlockIndex(by.into()), 2 + by)));
        assert_eq!((found.volume, found.segment, found.part), (VOLUME, rows[0].segment, Part::Payload));
        assert_eq!((found.badness, is_live(&world, &found)), (Badness::Rotten, live));
        world.rot(rows[0].a_slot(), 2 + by);
    }
}

/// P2. In a pack, the block that rots is told by where it is and by where it was written.
#[test]
fn rot_in_a_pack_is_told_by_both_its_places() {
    let (mut world, rows) = aged();
    let pack = world.pack(&[rows[0].segment, rows[2].segment]);
    world.void_left();
    let place = world.index.segment(rows[2].segment).unwrap().home.each_parcel().next().unwrap();
    world.rot(pack.slot, place.payload() + 1);
    let found = only(&world);
    // Of blocks 0 to 2, block 1 is overwritten and did not move.
    assert_eq!(found.written_as, Some((BlockIndex(2), 4)));
    assert_eq!((found.slot, found.block, found.part), (pack.slot, place.payload() + 1, Part::Payload));
    assert!(is_live(&world, &found));
    world.rot(pack.slot, place.payload() + 1);
    for block in place.headers() {
        world.rot(pack.slot, block);
        let found = only(&world);
        assert_eq!((found.part, found.segment, found.block), (Part::Parcel, rows[2].segment, block));
        world.rot(pack.slot, block);
    }
    for block in [0, 31] {
        world.rot(pack.slot, block);
        let found = scrub_all(&world).bad;
        assert!(found.iter().all(|found| found.part == Part::Header && found.block == block), "{found:?}");
        assert!(found.len() == 2 && found[0].segment == pack.segment, "each parcel looks at it");
        world.rot(pack.slot, block);
    }
}

/// P2. Each part of a segment is read, whatever has become of the others.
#[test]
fn a_part_that_has_lost_its_headers_hides_no_other() {
    let (mut world, row) = World::cut_in_two();
    let pack = world.pack(&[row.segment]);
    world.void_left();
    let places: Vec<ParcelPlace> = world.index.segment(row.segment).unwrap().home.each_parcel().collect();
    places[0].headers().into_iter().for_each(|block| world.rot(pack.slot, block));
    world.rot(pack.slot, places[1].payload());
    let found: Vec<Part> = scrub_all(&world).bad.iter().map(|bad| bad.part).collect();
    assert_eq!(found, [Part::Parcel, Part::Payload]);
}

/// P6. A block that the disk does not give hides none beside it.
#[test]
fn what_cannot_be_read_is_told_alone() {
    let (mut world, rows) = aged();
    let at = world.superblock.geometry.block_offset(rows[1].a_slot(), 3);
    world.pool.unreadable.insert(at / 4096);
    let found = only(&world);
    assert_eq!((found.block, found.badness, found.part), (3, Badness::Unreadable, Part::Payload));
    assert_eq!(scrub_all(&world).blocks, 21);
}

/// What is not on stable storage for certain may be on its way there: it is not judged.
#[test]
fn what_is_not_durable_yet_is_not_judged() {
    let (mut world, _) = aged();
    let open = world.append(VOLUME, &[write_op(300, 1)]);
    world.rot(open.slot, open.block);
    world.rot(open.slot, open.block + 1);
    let torn = world.index.lease(LeaseClass::Data).unwrap();
    world.open_at(OTHER_VOLUME, torn);
    assert_eq!(scrub_all(&world).bad, []);
    assert_eq!(scrub_all(&world).blocks, 21);
}

/// A slot that was given back and filled anew while it was read: the index has other words for what is there now.
#[test]
fn a_segment_that_has_gone_is_no_target_any_more() {
    let (mut world, rows) = aged();
    let before = world.index.scrub_target(rows[0].segment).unwrap();
    world.pack(&[rows[0].segment]);
    assert_ne!(world.index.scrub_target(rows[0].segment), Some(before));
    world.void_left();
    let found = scrub(&world.pool, &world.superblock, &before);
    assert!(found.bad.is_empty() && found.blocks == 0, "its header is void: {found:?}");
    world.release(&rows[3]);
    assert_eq!(world.index.scrub_target(rows[3].segment), None);
}
