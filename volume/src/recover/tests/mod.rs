mod packs;
mod power_cut;
pub(crate) mod world;

use super::{DamageKind, fresh};
use crate::format::{SlotHeader, SlotUse};
use crate::rebuild::rebuild;
use crate::recover::{Probed, probe};
use units::{BLOCK_LEN, Lsn, SlotIndex};
use world::{MemoryStore, OTHER_VOLUME, SIZE_BYTES, VOLUME, World, resize_op, trim_op, write_op};

const BLOCKS: u64 = 64;

/// The volume is at `lsn`, its map is what the operations up to there made, and a second recovery says the same.
fn assert_ends_at(world: &mut World, lsn: u64) {
    let mut recovered = world.recover(VOLUME).unwrap();
    assert_eq!(recovered.next_lsn, Lsn(lsn + 1));
    let expected = world.authors[&VOLUME].mapped_at(Lsn(lsn));
    assert_eq!(world.resolve(&mut recovered.map, VOLUME, BLOCKS), expected);
    world.mend(&recovered);
    let mut again = world.recover(VOLUME).unwrap();
    assert_eq!((again.next_lsn, again.chain), (recovered.next_lsn, recovered.chain));
    assert_eq!(again.segments, recovered.segments);
    assert_eq!(world.resolve(&mut again.map, VOLUME, BLOCKS), expected);
    assert!(again.writes.is_empty(), "all is mended: {:?}", again.writes.iter().map(|w| w.0).collect::<Vec<_>>());
    assert!(again.sealed.is_empty() && again.voided.is_empty());
}

fn damage_of(world: &World) -> DamageKind {
    world.recover(VOLUME).map(|recovered| recovered.next_lsn).unwrap_err().kind
}

fn is_void(world: &World, slot: SlotIndex) -> bool {
    let at = world.at(slot, 0);
    SlotHeader::decode(&world.pool.bytes[at..at + BLOCK_LEN]).unwrap().slot_use == SlotUse::Void
}

#[test]
fn a_new_volume_begins_with_the_first_lsn_and_its_size() {
    let world = World::new(8);
    let recovered = world.recover(VOLUME).unwrap();
    assert_eq!((recovered.next_lsn, recovered.chain, recovered.size_bytes), (Lsn(1), 0, SIZE_BYTES));
    assert!(!recovered.map.is_dirty());
    assert_eq!(fresh(VOLUME, 5).size_bytes, 5);
}

/// P1.
#[test]
fn everything_that_left_the_process_is_there_after_a_kill() {
    let mut world = World::new(8);
    world.segment(VOLUME, &[&[write_op(0, 3), write_op(9, 1)], &[trim_op(1, 1)]]);
    world.segment(VOLUME, &[&[write_op(2, 4)]]);
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(2, 4)]);
    world.append(VOLUME, &[resize_op(1 << 30), write_op(40, 2)]);
    let recovered = world.recover(VOLUME).unwrap();
    assert_eq!(recovered.size_bytes, 1 << 30);
    assert_eq!(recovered.sealed.len(), 1);
    let holes: Vec<bool> = recovered.segments.iter().map(|row| row.has_holes).collect();
    assert_eq!(holes, [true, false, true], "a resize counts as a trim of what lies beyond");
    assert_ends_at(&mut world, 7);
}

/// P3.
#[test]
fn a_batch_that_is_torn_at_any_block_ends_the_log_before_it() {
    for torn in 0..4 {
        let mut world = World::new(8);
        world.open(VOLUME);
        world.append(VOLUME, &[write_op(0, 3)]);
        world.append(VOLUME, &[write_op(1, 1), trim_op(0, 1)]);
        let last = world.append(VOLUME, &[write_op(2, 2), write_op(7, 1)]);
        assert_eq!(last.total_blocks, 4);
        world.rot(last.slot, last.block + torn);
        assert_ends_at(&mut world, 3);
    }
}

#[test]
fn a_batch_that_is_lost_ends_the_log_whatever_follows_it() {
    let mut world = World::new(8);
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(0, 3)]);
    let lost = world.append(VOLUME, &[write_op(1, 1)]);
    world.append(VOLUME, &[write_op(2, 2)]);
    world.zero(lost.slot, lost.block..lost.block + lost.total_blocks);
    assert_ends_at(&mut world, 1);
}

/// P1.
#[test]
fn a_batch_header_that_rots_below_the_durable_mark_is_damage() {
    let mut world = World::new(8);
    world.open(VOLUME);
    let first = world.append(VOLUME, &[write_op(0, 3)]);
    world.sync(VOLUME);
    world.append(VOLUME, &[write_op(2, 2)]);
    world.rot(first.slot, first.block);
    assert!(matches!(damage_of(&world), DamageKind::HeaderRot { lsn: Lsn(1), durable_lsn: Lsn(1), .. }));
    let told = world.recover(VOLUME).unwrap_err().to_string();
    assert!(told.contains("volume 7") && told.contains("restore the volume"), "{told}");
}

#[test]
fn payload_that_rots_below_the_durable_mark_stays_mapped_for_a_read_to_find() {
    let mut world = World::new(8);
    world.open(VOLUME);
    let first = world.append(VOLUME, &[write_op(0, 3)]);
    world.sync(VOLUME);
    world.append(VOLUME, &[write_op(2, 2)]);
    world.rot(first.slot, first.block + 2);
    assert_ends_at(&mut world, 2);
}

#[test]
fn payload_that_is_bad_above_the_durable_mark_ends_the_log() {
    let mut world = World::new(8);
    world.open(VOLUME);
    let first = world.append(VOLUME, &[write_op(0, 3)]);
    world.append(VOLUME, &[write_op(2, 2)]);
    world.rot(first.slot, first.block + 2);
    assert_ends_at(&mut world, 0);
    assert!(is_void(&world, first.slot));
}

/// P1.
#[test]
fn a_newer_segment_tells_what_was_durable_in_an_older_one() {
    let mut world = World::new(8);
    world.open(VOLUME);
    let first = world.append(VOLUME, &[write_op(0, 3)]);
    world.append(VOLUME, &[write_op(5, 1)]);
    let row = world.seal(VOLUME);
    world.sync(VOLUME);
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(2, 2)]);
    // The footer is believed.
    world.rot(first.slot, first.block);
    assert_ends_at(&mut world, 3);
    // Without it the batches have to do.
    world.rot(row.a_slot(), 31);
    assert!(matches!(damage_of(&world), DamageKind::HeaderRot { lsn: Lsn(1), .. }));
}

#[test]
fn a_sealed_segment_without_its_footer_is_read_by_its_batches() {
    for block in [30, 31] {
        let mut world = World::new(8);
        let row = world.segment(VOLUME, &[&[write_op(0, 3)], &[write_op(1, 2), trim_op(4, 9)]]);
        world.rot(row.a_slot(), block);
        assert_ends_at(&mut world, 3);
    }
}

#[test]
fn a_footer_is_not_believed_for_batches_that_may_not_have_become_durable() {
    let mut world = World::new(8);
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(0, 3)]);
    let lost = world.append(VOLUME, &[write_op(1, 1)]);
    world.append(VOLUME, &[write_op(2, 2)]);
    world.seal(VOLUME);
    world.zero(lost.slot, lost.block + 1..lost.block + 2);
    assert_ends_at(&mut world, 1);
}

#[test]
fn a_segment_after_one_that_was_torn_is_given_up() {
    let mut world = World::new(8);
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(0, 3)]);
    let torn = world.append(VOLUME, &[write_op(1, 1)]);
    world.seal(VOLUME);
    let after = world.open(VOLUME);
    world.append(VOLUME, &[write_op(2, 2)]);
    world.rot(torn.slot, torn.block + 1);
    assert_ends_at(&mut world, 1);
    assert!(is_void(&world, after.a_slot()));
    assert_eq!(world.index.segments(VOLUME).len(), 1);
}

/// P1.
#[test]
fn a_segment_that_is_gone_though_it_was_durable_is_damage() {
    let mut world = World::new(8);
    world.segment(VOLUME, &[&[write_op(0, 3)]]);
    let gone = world.segment(VOLUME, &[&[write_op(1, 1)]]);
    world.sync(VOLUME);
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(2, 2)]);
    world.index.release(gone.segment).unwrap();
    assert!(matches!(damage_of(&world), DamageKind::Missing { lsn: Lsn(2), durable_lsn: Lsn(2) }));
}

#[test]
fn a_newer_segment_cuts_what_the_older_one_was_given_up_with() {
    for has_footer in [false, true] {
        let mut world = World::new(8);
        world.open(VOLUME);
        world.append(VOLUME, &[write_op(0, 3)]);
        let chain = world.author(VOLUME).chain;
        world.append(VOLUME, &[write_op(1, 1)]);
        world.append(VOLUME, &[write_op(0, 1)]);
        world.give_up_from(VOLUME, Lsn(2), chain);
        if has_footer {
            world.seal(VOLUME);
        }
        world.open(VOLUME);
        world.append(VOLUME, &[write_op(9, 2)]);
        world.append(VOLUME, &[write_op(2, 2)]);
        assert_ends_at(&mut world, 3);
    }
}

#[test]
fn the_footer_of_a_segment_that_was_given_up_ends_it() {
    let mut world = World::new(8);
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(0, 3)]);
    let chain = world.author(VOLUME).chain;
    world.append(VOLUME, &[write_op(1, 1)]);
    world.give_up_from(VOLUME, Lsn(2), chain);
    world.seal(VOLUME);
    assert_ends_at(&mut world, 1);
}

#[test]
fn segments_without_a_whole_batch_are_made_void_and_their_slots_given_back() {
    let mut world = World::new(8);
    world.segment(VOLUME, &[&[write_op(0, 3)]]);
    let free = world.index.figures().slots_free;
    // Noted, never begun.
    let never_begun = world.open(VOLUME);
    assert_ends_at(&mut world, 1);
    assert!(is_void(&world, never_begun.a_slot()));
    // Begun, and torn.
    world.open(VOLUME);
    let torn = world.append(VOLUME, &[write_op(9, 2)]);
    world.rot(torn.slot, torn.block);
    assert_ends_at(&mut world, 1);
    assert!(is_void(&world, torn.slot));
    assert_eq!(world.index.figures().slots_free, free);
}

#[test]
fn a_slot_header_that_rots_is_made_up_for_and_written_anew() {
    for is_sealed in [false, true] {
        let mut world = World::new(8);
        world.segment(VOLUME, &[&[write_op(0, 3)]]);
        let row = world.open(VOLUME);
        world.append(VOLUME, &[write_op(1, 1)]);
        if is_sealed {
            world.seal(VOLUME);
        }
        world.rot(row.a_slot(), 0);
        assert_ends_at(&mut world, 2);
        assert!(!is_void(&world, row.a_slot()));
    }
}

/// P7. A header that is written anew tells the size at its own place: one that told the size behind a resize in the same segment
/// had the next recovery count the shrinking from before the time mark ahead of it.
#[test]
fn a_header_that_is_written_anew_tells_the_size_before_its_segment() {
    for has_a_newer in [false, true] {
        let mut world = World::new(8);
        world.segment(VOLUME, &[&[write_op(0, 3)]]);
        let row = world.open(VOLUME);
        world.append(VOLUME, &[write_op(1, 1), resize_op(1 << 20)]);
        if has_a_newer {
            // Which tells that the footer can be believed.
            world.seal(VOLUME);
            world.sync(VOLUME);
            world.segment(VOLUME, &[&[write_op(2, 1)]]);
        }
        world.rot(row.a_slot(), 0);
        let recovered = world.recover(VOLUME).unwrap();
        assert_eq!(recovered.size_bytes, 1 << 20);
        world.mend(&recovered);
        let at = world.at(row.a_slot(), 0);
        let header = SlotHeader::decode(&world.pool.bytes[at..at + BLOCK_LEN]).unwrap();
        assert_eq!(header.size_bytes, SIZE_BYTES);
        world.rot(row.a_slot(), 0);
        let (_, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
        let sizes: Vec<u64> =
            report.mends.iter().filter_map(|(_, bytes)| Some(SlotHeader::decode(bytes).ok()?.size_bytes)).collect();
        // It leaves the newest segment to recovery.
        let mended: &[u64] = if has_a_newer { &[SIZE_BYTES] } else { &[] };
        assert_eq!(sizes, mended);
    }
}

/// P2. How long a volume was before a resize that is folded, the stored map does not tell; a header that told the size of now had a
/// rebuild cut off what a snapshot shows behind it.
#[test]
fn a_header_that_is_written_anew_tells_no_size_that_is_not_known() {
    let mut world = World::new(8);
    world.segment(VOLUME, &[&[write_op(0, 3)]]);
    let row = world.segment(VOLUME, &[&[write_op(1, 1), resize_op(1 << 20)]]);
    world.sync(VOLUME);
    world.fold(VOLUME);
    world.rot(row.a_slot(), 0);
    let recovered = world.recover(VOLUME).unwrap();
    assert_eq!(recovered.size_bytes, 1 << 20);
    world.mend(&recovered);
    let at = world.at(row.a_slot(), 0);
    let header = SlotHeader::decode(&world.pool.bytes[at..at + BLOCK_LEN]).unwrap();
    assert_eq!(header.size_bytes, 0);
}

#[test]
fn a_header_of_another_log_position_than_the_index_says_is_damage() {
    let mut world = World::new(8);
    let row = world.segment(VOLUME, &[&[write_op(0, 3)]]);
    world.index.note_segment(crate::pool::SegmentRow { first_lsn: Lsn(2), ..row }).unwrap();
    assert!(matches!(damage_of(&world), DamageKind::OtherHeader { .. }));
}

#[test]
fn a_segment_that_is_void_before_it_is_folded_is_damage_when_it_was_durable() {
    let mut world = World::new(8);
    let row = world.segment(VOLUME, &[&[write_op(0, 3)]]);
    let next = world.open(VOLUME);
    world.append(VOLUME, &[write_op(0, 3)]);
    world.release(&row);
    world.index.note_segment(row).unwrap();
    world.sync(VOLUME);
    world.append(VOLUME, &[write_op(0, 3)]);
    assert!(matches!(damage_of(&world), DamageKind::Missing { lsn: Lsn(1), durable_lsn: Lsn(2) }));
    // Without the batch that tells of it, it may have been given up.
    world.zero(next.a_slot(), 5..32);
    assert_ends_at(&mut world, 0);
}

#[test]
fn a_segment_that_does_not_follow_on_the_one_before_is_damage_when_it_was_durable() {
    let mut world = World::new(8);
    world.segment(VOLUME, &[&[write_op(0, 3)]]);
    world.author(VOLUME).chain ^= 1;
    world.segment(VOLUME, &[&[write_op(1, 3)]]);
    // A power cut took what it follows on, and a batch that had been given up is in its place.
    assert_eq!(world.recover(VOLUME).unwrap().next_lsn, Lsn(2));
    world.sync(VOLUME);
    world.segment(VOLUME, &[&[write_op(2, 3)]]);
    assert!(matches!(damage_of(&world), DamageKind::Chain { lsn: Lsn(2), .. }));
}

/// P6.
#[test]
fn a_block_that_cannot_be_read_never_cuts_the_log() {
    let mut world = World::new(8);
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(0, 3)]);
    let last = world.append(VOLUME, &[write_op(2, 2)]);
    let first = world.superblock.geometry.block_offset(last.slot, last.block) / 4096;
    for block in first..first + u64::from(last.total_blocks) {
        world.pool.unreadable = [block].into();
        assert!(matches!(damage_of(&world), DamageKind::Unreadable { .. }));
    }
    world.pool.unreadable.clear();
    assert_ends_at(&mut world, 2);
}

#[test]
fn the_stored_map_stands_for_all_that_is_folded() {
    let mut world = World::new(8);
    world.segment(VOLUME, &[&[write_op(0, 3)], &[write_op(20, 1)]]);
    let row = world.segment(VOLUME, &[&[write_op(1, 1), resize_op(1 << 33)]]);
    world.fold(VOLUME);
    let recovered = world.recover(VOLUME).unwrap();
    assert!(!recovered.map.is_dirty());
    assert_eq!((recovered.size_bytes, recovered.folded_to), (1 << 33, Lsn(4)));
    assert_ends_at(&mut world, 4);
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(2, 2)]);
    assert_ends_at(&mut world, 5);
    // Its footer and its first batch gone: only what follows it needs it.
    world.rot(row.a_slot(), 31);
    world.rot(row.a_slot(), 1);
    assert_ends_at(&mut world, 5);
}

/// P1.
#[test]
fn what_the_stored_map_has_must_be_in_the_log() {
    let mut world = World::new(8);
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(0, 3)]);
    let last = world.append(VOLUME, &[write_op(1, 1)]);
    world.fold(VOLUME);
    world.rot(last.slot, last.block);
    assert!(matches!(damage_of(&world), DamageKind::HeaderRot { lsn: Lsn(2), durable_lsn: Lsn(2), .. }));
}

#[test]
fn a_crash_among_the_writes_of_recovery_changes_nothing() {
    for mask in 0..16_u32 {
        let mut world = World::new(8);
        world.open(VOLUME);
        world.append(VOLUME, &[write_op(0, 3)]);
        let torn = world.append(VOLUME, &[write_op(1, 1)]);
        let sealed = world.seal(VOLUME);
        world.open(VOLUME);
        world.append(VOLUME, &[write_op(2, 2)]);
        world.rot(torn.slot, torn.block + 1);
        world.rot(sealed.a_slot(), 0);
        let recovered = world.recover(VOLUME).unwrap();
        assert_eq!(recovered.writes.len(), 3);
        for (_, (offset, bytes)) in recovered.writes.iter().enumerate().filter(|(n, _)| mask & (1 << n) != 0) {
            world.pool.write(*offset, bytes);
        }
        if mask & 8 != 0 {
            // A footer that was torn.
            world.rot(sealed.a_slot(), 31);
        }
        assert_ends_at(&mut world, 1);
    }
}

/// P8.
#[test]
fn volumes_do_not_see_one_another() {
    let mut world = World::new(8);
    world.open(VOLUME);
    world.open(OTHER_VOLUME);
    for n in 0..3 {
        world.append(VOLUME, &[write_op(n, 1)]);
        world.append(OTHER_VOLUME, &[write_op(n + 10, 1), trim_op(0, 1)]);
    }
    assert_ends_at(&mut world, 3);
    let mut other = world.recover(OTHER_VOLUME).unwrap();
    assert_eq!(other.next_lsn, Lsn(7));
    let expected = world.authors[&OTHER_VOLUME].mapped_at(Lsn(6));
    assert_eq!(world.resolve(&mut other.map, OTHER_VOLUME, BLOCKS), expected);
}

#[test]
fn a_torn_header_does_not_bring_back_the_segment_that_was_in_the_slot_before() {
    let mut world = World::new(8);
    let row = world.segment(VOLUME, &[&[write_op(0, 3)]]);
    let probe_it = |world: &World| probe(&world.pool, &world.superblock, row.a_slot());
    world.rot(row.a_slot(), 0);
    assert!(matches!(probe_it(&world), Probed::Segment(found) if found.segment == row.segment));
    world.rot(row.a_slot(), 1);
    assert!(matches!(probe_it(&world), Probed::Segment(found) if found.segment == row.segment));
    world.rot(row.a_slot(), 1);
    world.rot(row.a_slot(), 0);
    world.release(&row);
    assert_eq!(probe_it(&world), Probed::Void(row.segment));
    // The first sector of a new segment's header came through, and nothing else: there is nothing in the slot to be kept.
    let lease = crate::pool::Lease { slot: row.a_slot(), segment: units::SegmentId(row.segment.0 + 9) };
    let at = world.at(row.a_slot(), 0);
    let old = world.pool.bytes[at + 512..at + 128 * 1024].to_vec();
    world.open_at(OTHER_VOLUME, lease);
    world.append(OTHER_VOLUME, &[write_op(9, 1)]);
    world.pool.bytes[at + 512..at + 128 * 1024].copy_from_slice(&old);
    assert_eq!(probe_it(&world), Probed::Nothing);
}
