//! The sender, and what is kept for a peer.

use super::*;
use crate::compact::parcel::cut_of;
use crate::format::{Cut, SlotHeader};
use crate::pool::PeerBehind;
use crate::recover::tests::world::{copy_op, trim_op, write_op};
use crate::resync::SendError;
use units::BLOCK_LEN;

fn open(world: &World, source: crate::resync::Source) -> Result<(), SendError> {
    Sender::open(&world.pool, &world.superblock, source, None).map(|_| ())
}

/// P1. A segment that is not where it was is never sent in part: what is void of it by now says that it was moved.
#[test]
fn a_segment_that_was_moved_is_not_sent_by_its_old_place() {
    let (mut world, row) = World::cut_in_two();
    let own = world.index.source(row.segment).unwrap();
    world.pack_apart(&[row.segment]);
    assert_eq!(open(&world, own.clone()), Ok(()), "it is there as long as it is not void");
    world.void_left();
    assert_eq!(open(&world, own.clone()), Err(SendError::Void(row.segment)));
    let parcels = world.index.source(row.segment).unwrap();
    assert!(!parcels.is_at(&own), "it is elsewhere");
    assert_eq!(open(&world, parcels.clone()), Ok(()));
    let sender = Sender::open(&world.pool, &world.superblock, parcels.clone(), Cut::of_log2(1)).unwrap();
    assert_eq!(sender.part(1).map(|_| ()), Ok(()));
    // One part alone moves on.
    let places: Vec<_> = world.index.segment(row.segment).unwrap().home.parcels().unwrap().each().collect();
    let (_, place) = places[1];
    let mut pool = world.pool.clone();
    let at = usize::try_from(world.superblock.geometry.block_offset(place.slot, place.block)).unwrap();
    let start = decode_parcel_start(&pool.bytes[at..at + BLOCK_LEN]).unwrap();
    start.make_void(&mut pool.bytes[at..at + BLOCK_LEN]);
    world.pool = pool;
    assert_eq!(open(&world, parcels.clone()), Err(SendError::Void(row.segment)));
    assert!(world.index.source(row.segment).unwrap().is_at(&parcels), "a stop came while it left");
}

/// P1. The slot is another segment's by now.
#[test]
fn a_slot_that_was_used_again_is_not_taken_for_the_segment() {
    let mut world = primary();
    let row = world.segment(VOLUME, &[&[write_op(0, 3)]]);
    world.segment(VOLUME, &[&[write_op(0, 3)]]);
    let source = world.index.source(row.segment).unwrap();
    let header = SlotHeader::pack(world.superblock.pool, SegmentId(row.segment.0 + 1), 0);
    let mut block = vec![0; BLOCK_LEN];
    header.encode(&mut block);
    world.pool.write(world.superblock.geometry.slot_offset(row.a_slot()), &block);
    assert_eq!(open(&world, source), Err(SendError::Moved(row.segment)));
}

#[test]
fn what_is_open_or_rotten_is_not_sent() {
    let mut world = primary();
    let row = world.segment(VOLUME, &[&[write_op(0, 3)]]);
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(9, 1)]);
    let open_row = world.index.segments(VOLUME)[1];
    let source = world.index.source(open_row.segment).unwrap();
    assert_eq!(open(&world, source), Err(SendError::Open(open_row.segment)));
    // The header of its batch is in block 1, its payload behind it.
    world.rot(row.a_slot(), 3);
    let source = world.index.source(row.segment).unwrap();
    let sender = Sender::open(&world.pool, &world.superblock, source, None).unwrap();
    assert_eq!(sender.part(0).map(|_| ()), Err(SendError::Rotten(row.segment)));
}

#[test]
fn what_shares_blocks_is_not_sent_until_it_was_moved() {
    let mut world = primary();
    world.segment(VOLUME, &[&[write_op(0, 3)]]);
    let source = world.authors[&VOLUME].mapped_at(Lsn(1))[&1].0;
    let row = world.segment(VOLUME, &[&[copy_op(20, 1, source)]]);
    world.segment(VOLUME, &[&[write_op(40, 1)]]);
    world.fold(VOLUME);
    let source = world.index.source(row.segment).unwrap();
    assert_eq!(open(&world, source), Err(SendError::Shared(row.segment)));
    world.pack(&[row.segment]);
    world.void_left();
    let source = world.index.source(row.segment).unwrap();
    assert_eq!(open(&world, source), Ok(()));
}

/// P5. What a peer needs stays: trims that it lacks, the segment in which its log ends, and the next one.
#[test]
fn what_a_peer_needs_is_kept() {
    let mut world = primary();
    let one = world.segment(VOLUME, &[&[write_op(0, 4)], &[write_op(4, 1)]]);
    let two = world.segment(VOLUME, &[&[write_op(0, 5)]]);
    let three = world.segment(VOLUME, &[&[trim_op(0, 5)]]);
    let four = world.segment(VOLUME, &[&[write_op(9, 1)]]);
    let five = world.segment(VOLUME, &[&[write_op(11, 1)]]);
    let dead = world.fold(VOLUME);
    assert_eq!(dead, [one.segment, two.segment]);
    let keep = |world: &mut World, durable: u64, sent: u64| {
        let peer = PeerBehind { durable: Lsn(durable), sent: Lsn(sent) };
        world.index.keep_for_peer(VOLUME, Some(peer));
        world.dead(VOLUME)
    };
    assert_eq!(keep(&mut world, 1, 1), [two.segment], "its log ends within the first one");
    assert!(!world.index.may_move(one.segment) && world.index.may_move(four.segment));
    assert_eq!(keep(&mut world, 1, 2), [], "it may have all of it, and the next one follows");
    assert_eq!(keep(&mut world, 2, 2), [one.segment]);
    for row in [one, two] {
        world.index.keep_for_peer(VOLUME, None);
        world.release(&row);
    }
    assert_eq!(world.dead(VOLUME), [three.segment], "the oldest one");
    assert_eq!(keep(&mut world, 3, 3), [], "it lacks the trim");
    assert!(!world.index.has_spent_trims(&world.index.segment(three.segment).unwrap()));
    assert_eq!(keep(&mut world, 4, 4), [three.segment]);
    assert!(world.index.has_spent_trims(&world.index.segment(three.segment).unwrap()));
    assert!(!world.index.may_move(four.segment) && world.index.may_move(five.segment), "the next one is whole");
}

#[test]
fn a_full_segment_is_cut_so_that_its_parts_fit() {
    let mut world = World::with_slots(1 << 20, 8);
    let row = world.segment(VOLUME, &[&[write_op(0, 220)]]);
    let parts = parts_of(&world, row.segment, None);
    assert_eq!(parts.len(), cut_of(220, 256).parts());
    assert!(
        parts
            .iter()
            .all(|part| part.payload.iter().map(|buffer| buffer.as_slice().len()).sum::<usize>() <= 64 * BLOCK_LEN)
    );
}
