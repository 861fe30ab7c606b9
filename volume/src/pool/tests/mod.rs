mod changes;
mod families;
mod live_counts;
mod meter;
mod versions;
mod walk;

use super::rows::POOL_KEY;
use super::{Folded, Index, Lease, LeaseClass, OpenError, SegmentRow, WINDOW_SLOTS};
use crate::error::DiskFault;
use crate::format::Superblock;
use crate::io::{LoadedPage, PageIndex};
use crate::map::PageWrite;
use crate::recover::tests::world::{MemoryStore, OTHER_VOLUME, VOLUME, World, trim_op, write_op};
use std::collections::BTreeSet;
use std::sync::Arc;
use units::{Lsn, MeterTime, PoolId, SegmentId};

fn reopened(world: &World, store: MemoryStore, generation: u64) -> Result<Index<MemoryStore>, OpenError> {
    Index::open(store, &Superblock { generation, ..world.superblock }, &world.pool)
}

const fn folded_to(lsn: u64, size_bytes: u64) -> Folded {
    Folded { to: Lsn(lsn), generation: 0, size_bytes, at: MeterTime(0) }
}

#[test]
fn an_index_of_another_pool_or_time_is_refused_and_told_to_be_rebuilt() {
    let mut world = World::new(8);
    let store = |world: &World| world.index.store().clone();
    assert!(matches!(reopened(&world, MemoryStore::default(), 1), Err(OpenError::Stale { store: None, .. })));
    assert!(reopened(&world, store(&world), 1).is_ok());
    assert!(matches!(reopened(&world, store(&world), 2), Err(OpenError::Stale { .. })));
    world.index.note_generation(2).unwrap();
    // A crash before the superblock followed.
    assert!(reopened(&world, store(&world), 1).is_ok());
    assert!(reopened(&world, store(&world), 2).is_ok());
    let other = Superblock { pool: PoolId([4; 16]), ..world.superblock };
    let mut older = store(&world);
    older.keys.get_mut(POOL_KEY).unwrap()[0] -= 1;
    let older = reopened(&world, older, 2).map(|_| ()).unwrap_err();
    assert!(matches!(older, OpenError::OtherVersion(_)), "{older}");
    let told = Index::open(store(&world), &other, &world.pool).map(|_| ()).unwrap_err().to_string();
    assert!([told, older.to_string()].iter().all(|told| told.contains("aljibe pool rebuild")));
    assert!(matches!(Index::create(store(&world), &world.superblock), Err(OpenError::NotEmpty)));
}

#[test]
fn pools_begin_with_different_segment_ids() {
    let first = |byte| {
        let superblock = Superblock { pool: PoolId([byte; 16]), ..World::new(8).superblock };
        let mut index = Index::create(MemoryStore::default(), &superblock).unwrap();
        index.lease(LeaseClass::Data).unwrap().segment
    };
    let firsts: BTreeSet<SegmentId> = (0..=255).map(first).collect();
    assert_eq!(firsts.len(), 256);
    assert!(firsts.iter().all(|first| *first <= SegmentId(1 << 39)));
}

#[test]
fn the_last_slots_are_kept_back_from_data() {
    let mut world = World::new(8);
    let leases: Vec<Lease> = (0..5).map(|_| world.index.lease(LeaseClass::Data).unwrap()).collect();
    assert_eq!(world.index.lease(LeaseClass::Data), Err(DiskFault::NoSpace));
    let figures = world.index.figures();
    assert_eq!((figures.slots_free, figures.slots_used), (3, 5));
    assert_eq!((figures.slots_reserved, figures.slots_for_compaction), (3, 1));
    let reserve = world.index.lease(LeaseClass::Reserve).unwrap();
    world.index.lease(LeaseClass::Reserve).unwrap();
    assert_eq!(world.index.lease(LeaseClass::Reserve), Err(DiskFault::NoSpace));
    let last = world.index.lease(LeaseClass::Compaction).unwrap();
    assert_eq!(world.index.lease(LeaseClass::Compaction), Err(DiskFault::NoSpace));
    world.index.give_back(last);
    world.index.give_back(reserve);
    let again = world.index.lease(LeaseClass::Reserve).unwrap();
    assert_eq!(again.slot, reserve.slot);
    let ids: BTreeSet<SegmentId> = leases.iter().map(|lease| lease.segment).chain([again.segment]).collect();
    assert_eq!(ids.len(), 6);
    assert!(!ids.contains(&reserve.segment), "an id is used once");
}

/// P1. Recovery takes the higher of a volume's ids for the newer: a slot that was leased ahead bears a new one.
#[test]
fn a_renewed_lease_keeps_its_slot_and_bears_an_id_above_all_that_were_given_out() {
    let mut world = World::new(100);
    let mut ahead = world.index.lease(LeaseClass::Data).unwrap();
    let mut newest = ahead.segment;
    // More than the ids of a window.
    for round in 0..200 {
        if round % 3 == 0 {
            let other = world.index.lease(LeaseClass::Data).unwrap();
            assert!(other.segment > newest && other.slot != ahead.slot);
            newest = other.segment;
            world.index.give_back(other);
        }
        let renewed = world.index.renew(ahead).unwrap();
        assert!(renewed.slot == ahead.slot && renewed.segment > newest);
        assert_eq!(world.index.figures().slots_free, 99);
        (ahead, newest) = (renewed, renewed.segment);
    }
    world.index.store.fails = true;
    let failed = (0..100).find_map(|_| world.index.renew(ahead).map(|renewed| ahead = renewed).err());
    assert_eq!(failed, Some(DiskFault::Io));
    assert_eq!(world.index.figures().slots_free, 100, "it is given back");
}

/// P1, P6. A slot that was leased under another site's id is had again under it by who asks anew, and no other slot is used up; ids of
/// this site lie behind it.
#[test]
fn a_slot_for_another_sites_segment_is_had_again() {
    let mut world = World::new(100);
    let theirs = SegmentId(1_000_000);
    let lease = world.index.lease(LeaseClass::Data).unwrap();
    let first = world.index.rename_lease(lease, theirs).unwrap();
    assert_eq!((first.segment, first.slot), (theirs, lease.slot));
    let lease = world.index.lease(LeaseClass::Data).unwrap();
    assert!(lease.segment > theirs);
    assert_eq!(world.index.rename_lease(lease, theirs), Ok(first));
    assert_eq!(world.index.figures().slots_free, 99);
    // A pool that took the place of another one may be about to give out the very id.
    let own = world.index.lease(LeaseClass::Data).unwrap();
    assert_eq!(world.index.rename_lease(own, own.segment), Ok(own));
    let next = world.index.lease(LeaseClass::Data).unwrap();
    assert!(next.slot != own.slot && next.segment > own.segment);
    [own, next].into_iter().for_each(|lease| world.index.give_back(lease));
    let lease = world.index.lease(LeaseClass::Data).unwrap();
    world.index.store.fails = true;
    assert_eq!(world.index.rename_lease(lease, SegmentId(2_000_000)), Err(DiskFault::Io));
    assert_eq!(world.index.figures().slots_free, 99, "it is given back");
}

#[test]
fn freed_slots_are_used_again_in_the_order_in_which_they_were_freed() {
    let mut world = World::new(8);
    let rows: Vec<SegmentRow> = (0..8).map(|n| world.segment(VOLUME, &[&[write_op(n, 1)]])).collect();
    for n in [5, 2, 7] {
        world.release(&rows[n]);
    }
    let slots: Vec<u32> = (0..3).map(|_| world.index.lease(LeaseClass::Compaction).unwrap().slot.0).collect();
    assert_eq!(slots, [5, 2, 7].map(|n| rows[n].a_slot().0));
}

/// P6. A full host file system has no space for new slots; those that have theirs are found and used.
#[test]
fn slots_without_space_are_put_off_and_lost_to_nobody() {
    let mut world = World::new(100);
    let rows: Vec<SegmentRow> = (0..3).map(|n| world.segment(VOLUME, &[&[write_op(n, 1)]])).collect();
    world.release(&rows[1]);
    let has_space = |slot| if slot == rows[1].a_slot() { Ok(()) } else { Err(DiskFault::NoSpace) };
    let found = world.index.lease_where(LeaseClass::Data, has_space).unwrap();
    assert_eq!(found.slot, rows[1].a_slot());
    assert_eq!(world.index.lease_where(LeaseClass::Data, |_| Err(DiskFault::Io)), Err(DiskFault::Io));
    assert_eq!(world.index.figures().slots_free, 97);
    let slots: BTreeSet<u32> = (0..97).map(|_| world.index.lease(LeaseClass::Compaction).unwrap().slot.0).collect();
    assert_eq!(slots.len(), 97);
}

/// P1. Rows are noted lazily: a power cut may take them, and the window tells where to look.
#[test]
fn segments_whose_rows_a_power_cut_took_are_found_in_the_window() {
    let mut world = World::new(100);
    for n in 0..40 {
        world.segment(VOLUME, &[&[write_op(n % 20, 1)]]);
    }
    world.open(OTHER_VOLUME);
    world.append(OTHER_VOLUME, &[write_op(3, 1)]);
    let before = (world.index.segments(VOLUME), world.index.segments(OTHER_VOLUME));
    assert!(before.0.len() > WINDOW_SLOTS);
    assert!(world.index.store().lazy_commits() > 0);
    world.crash(0);
    assert!(!world.index.adopted().is_empty());
    let mut recovered = world.restart(VOLUME);
    assert_eq!(recovered.next_lsn, Lsn(41));
    let expected = world.authors[&VOLUME].mapped_at(Lsn(40));
    assert_eq!(world.resolve(&mut recovered.map, VOLUME, 64), expected);
    assert_eq!(world.index.segments(VOLUME), before.0);
    assert_eq!(world.restart(OTHER_VOLUME).next_lsn, Lsn(2));
    assert_eq!(world.index.figures().slots_used, 41);
    // Ids go on above all that were given out.
    let lease = world.index.lease(LeaseClass::Data).unwrap();
    assert!(before.0.iter().chain(&before.1).all(|row| row.segment < lease.segment));
}

#[test]
fn leases_that_were_never_opened_do_not_leak() {
    let mut world = World::new(20);
    for round in 0..50 {
        for _ in 0..7 {
            world.index.lease(LeaseClass::Data).unwrap();
        }
        // Noted, and never begun on the disk.
        world.open(VOLUME);
        world.crash(round % 3);
        if !world.index.segments(VOLUME).is_empty() {
            world.restart(VOLUME);
        }
        assert_eq!(world.index.figures().slots_free, 20);
    }
}

#[test]
fn a_rotten_header_in_the_window_hides_no_segment_and_an_unreadable_one_keeps_its_slot() {
    let mut world = World::new(20);
    world.index.note_generation(1).unwrap();
    let first = world.segment(VOLUME, &[&[write_op(1, 1)]]);
    let second = world.segment(VOLUME, &[&[write_op(2, 1)]]);
    world.rot(first.a_slot(), 0);
    let at = world.superblock.geometry.slot_offset(second.a_slot()) / 4096;
    world.pool.unreadable = (at..at + 32).collect();
    world.crash(0);
    assert_eq!(world.index.adopted(), [first.segment]);
    assert_eq!(world.index.kept_slots().collect::<Vec<_>>(), [second.a_slot()]);
    assert_eq!((world.index.figures().slots_kept, world.index.figures().slots_free), (1, 18));
}

#[test]
fn a_segment_is_dead_once_it_is_sealed_folded_and_named_by_no_page() {
    let mut world = World::new(20);
    let first = world.segment(VOLUME, &[&[write_op(0, 4)]]);
    assert_eq!(world.fold(VOLUME), []);
    assert_eq!(world.index.live_blocks(first.segment), Some(4));
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(0, 3)]);
    world.append(VOLUME, &[trim_op(3, 1)]);
    let commits = world.index.store().durable_commits;
    assert_eq!(world.fold(VOLUME), [first.segment]);
    assert_eq!(world.fold(VOLUME), [first.segment], "until it is released");
    assert_eq!(world.index.store().durable_commits, commits);
    world.index.make_durable().unwrap();
    assert_eq!(world.index.store().durable_commits, commits + 1, "its death survives a power cut");
    world.append(VOLUME, &[write_op(0, 3)]);
    world.append(VOLUME, &[write_op(0, 3)]);
    let second = world.seal(VOLUME);
    assert_eq!(world.index.live_blocks(second.segment), Some(3));
    world.open(VOLUME);
    world.append(VOLUME, &[trim_op(0, 9)]);
    let third = world.seal(VOLUME);
    assert_eq!(
        world.fold(VOLUME),
        [first.segment],
        "the second has a trim and is not the oldest, the third is the newest"
    );
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(0, 1)]);
    assert_eq!(world.fold(VOLUME), [first.segment]);
    world.release(&first);
    assert_eq!(world.fold(VOLUME), [second.segment]);
    world.release(&second);
    assert_eq!(world.fold(VOLUME), [third.segment]);
    world.index.unsettle(VOLUME);
    assert_eq!(world.index.dead_segments(VOLUME), [], "of a volume that is closed");
}

#[test]
fn a_segment_is_not_dead_while_it_holds_what_is_not_folded() {
    let mut world = World::new(20);
    world.segment(VOLUME, &[&[write_op(0, 4)]]);
    let second = world.segment(VOLUME, &[&[write_op(0, 4)]]);
    world.segment(VOLUME, &[&[write_op(9, 1)]]);
    world.index.write_back(VOLUME, 0, &[], folded_to(1, 1 << 40)).unwrap();
    assert_eq!(world.dead(VOLUME).len(), 1);
    assert_eq!(world.fold(VOLUME).len(), 1);
    assert_eq!(world.index.live_blocks(second.segment), Some(4));
}

#[test]
fn a_page_is_loaded_or_the_next_one_told() {
    let mut world = World::new(20);
    world.segment(VOLUME, &[&[write_op(2048 * 3, 1), write_op(2048 * 900 + 5, 1)]]);
    world.segment(OTHER_VOLUME, &[&[write_op(2048 * 5000, 1)]]);
    world.fold(VOLUME);
    world.fold(OTHER_VOLUME);
    let load = |page| world.index.load_page(VOLUME, PageIndex(page)).unwrap();
    assert_eq!(load(0), LoadedPage::Absent { next: Some(PageIndex(3)) });
    assert!(matches!(load(3), LoadedPage::Present(_)));
    assert_eq!(load(4), LoadedPage::Absent { next: Some(PageIndex(900)) });
    assert_eq!(load(901), LoadedPage::Absent { next: None });
}

#[test]
fn a_failed_store_changes_nothing_and_the_rows_follow_later() {
    let mut world = World::new(20);
    world.segment(VOLUME, &[&[write_op(0, 4)]]);
    world.fold(VOLUME);
    let row = world.segment(VOLUME, &[&[write_op(0, 2)]]);
    let encoded = {
        let author = world.author(VOLUME);
        let capture = author.map.capture(Lsn(2), 100);
        author.map.write_back_ended(false);
        capture.writes
    };
    let folded = folded_to(2, 9);
    let (index, pool) = (&mut world.index, &world.pool);
    index.store.fails = true;
    let sealed = SegmentRow { has_holes: true, ..row };
    assert_eq!(index.note_segment(sealed), Err(DiskFault::Io));
    assert_eq!(index.write_back(VOLUME, 0, &encoded, folded), Err(DiskFault::Io));
    assert_eq!(index.live_blocks(row.segment), Some(0));
    assert_eq!(index.volume_row(VOLUME).unwrap().folded_to, Lsn(1));
    index.store.fails = false;
    index.write_back(VOLUME, 0, &encoded, folded).unwrap();
    assert_eq!(index.live_blocks(row.segment), Some(2));
    let index = Index::open(index.store().clone(), &world.superblock, pool).unwrap();
    assert_eq!(index.segments(VOLUME)[1], sealed);
    assert_eq!(index.live_blocks(row.segment), Some(2));
}

#[test]
fn a_page_that_names_a_segment_without_a_row_is_refused() {
    let mut world = World::new(20);
    let row = world.segment(VOLUME, &[&[write_op(0, 4)]]);
    world.index.release(row.segment).unwrap();
    let capture = world.author(VOLUME).map.capture(Lsn(1), 100);
    assert_eq!(world.index.write_back(VOLUME, 0, &capture.writes, folded_to(1, 9)), Err(DiskFault::Io));
}

#[test]
fn a_drop_of_very_many_pages_is_bounded_in_each_commit_and_exact() {
    let mut world = World::new(20);
    let mut rows = Vec::new();
    for n in 0..18 {
        let operations: Vec<_> = (0..20).map(|m| write_op((n * 20 + m) * 2048, 1)).collect();
        rows.push(world.segment(VOLUME, &[&operations]));
        assert!(world.fold(VOLUME).is_empty());
    }
    let commits = world.index.store().commits;
    let first = PageIndex(0);
    let (end, lsn, at) = (PageIndex(u64::MAX), Lsn(1000), MeterTime(0));
    let drop = PageWrite::Drop { first, end, lsn, at, touched: Arc::default() };
    world.index.write_back(VOLUME, 0, &[drop], folded_to(1000, 1 << 40)).unwrap();
    assert_eq!(world.index.store().commits, commits + 2);
    rows.pop();
    assert_eq!(world.dead(VOLUME), rows.iter().map(|row| row.segment).collect::<Vec<_>>());
    assert_eq!(world.index.load_page(VOLUME, first).unwrap(), LoadedPage::Absent { next: None });
}

/// P8.
#[test]
fn forgetting_a_volume_leaves_the_other_as_it_was() {
    let mut world = World::new(20);
    world.segment(VOLUME, &[&[write_op(0, 4)]]);
    let other = world.segment(OTHER_VOLUME, &[&[write_op(0, 4)]]);
    world.fold(VOLUME);
    world.fold(OTHER_VOLUME);
    world.index.forget_volume(VOLUME).unwrap();
    assert_eq!(world.index.volumes(), [OTHER_VOLUME]);
    assert_eq!(world.index.load_page(VOLUME, PageIndex(0)).unwrap(), LoadedPage::Absent { next: None });
    assert_eq!(world.index.live_blocks(other.segment), Some(4));
    assert_eq!(world.index.figures().slots_free, 19);
    world.crash(0);
    assert_eq!(world.index.volume_row(VOLUME), None, "it is durable");
}
