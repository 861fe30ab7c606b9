//! Keeping aside, joining, folding.

use super::*;
use crate::pool::LeaseClass;
use crate::rebuild::{Families, rebuild_with};
use crate::recover::DamageKind;
use crate::recover::tests::world::{snapshot_op, trim_op, write_op};
use std::collections::BTreeMap;

/// A volume with overwritten, trimmed and moved segments and gaps between them.
fn aged() -> World {
    let mut world = primary();
    for n in 0..8 {
        world.segment(VOLUME, &[&[write_op(n * 3 % 20, 4), write_op(n * 5000, 2)], &[trim_op(n * 5 % 17, 2)]]);
        if n == 3 {
            world.segment(VOLUME, &[&[write_op(2, 1), snapshot_op(0), write_op(3, 2)]]);
        }
    }
    world.segment(VOLUME, &[&[write_op(0, 3)]]);
    for dead in world.fold(VOLUME) {
        let row = world.index.segment(dead).unwrap();
        world.release(&row);
    }
    let moved: Vec<SegmentId> = world.index.segments(VOLUME).iter().take(4).map(|row| row.segment).collect();
    world.pack(&moved);
    world.void_left();
    // What was complete is so up to here.
    world.segment(VOLUME, &[&[write_op(60, 1)]]);
    world
}

/// P1. A new copy that is sent all that is left shows the same, in the head and in each snapshot, whatever stops it on its way; until it is
/// folded nobody opens it; and a rebuild comes to the same.
#[test]
fn a_new_copy_is_sent_what_is_left_and_shows_the_same() {
    let world = aged();
    let (to, listing) = listing(&world);
    let mut copy = Copy::new();
    copy.take_all(&world, &listing);
    copy.is_clean();
    assert_eq!(copy.world.recover(VOLUME).unwrap().next_lsn, Lsn(1), "nothing of it is seen");
    assert!(copy.world.index.empty_packs().is_empty());
    copy.crash();
    assert_eq!(copy.world.index.asides(VOLUME).count(), listing.segments.len(), "it is there after a stop");
    copy.join(to, &listing).unwrap();
    copy.crash();
    let kind = copy.world.recover(VOLUME).unwrap_err().kind;
    assert_eq!(kind, DamageKind::Unfolded { to });
    let mut steps = 0;
    while !fold(&mut copy.world.index, &copy.world.pool, VOLUME, 1).unwrap() {
        steps += 1;
        if steps % 3 == 0 {
            let kept = copy.world.index.store().lazy_commits();
            copy.world.crash(kept - usize::from(steps % 2 == 0));
        }
        assert!(steps < 100 && copy.world.recover(VOLUME).is_err());
    }
    copy.shows(&world, to);
    let recovered = copy.world.recover(VOLUME).unwrap();
    assert_eq!((recovered.next_lsn, recovered.chain), (to.next(), world.authors[&VOLUME].chain));
    assert_eq!(recovered.size_bytes, SIZE_BYTES);
    let boundaries: Vec<_> = copy.world.index.boundaries(VOLUME).map(|row| row.boundary).collect();
    assert_eq!(boundaries, world.index.boundaries(VOLUME).map(|row| row.boundary).collect::<Vec<_>>());
    let live = |world: &World| world.index.rows().map(|(row, live)| (row.segment, live)).collect::<Vec<_>>();
    let ours = live(&copy.world);
    let newest = world.index.segments(VOLUME).last().unwrap().segment;
    assert!(live(&world).iter().filter(|(segment, _)| *segment != newest).all(|count| ours.contains(count)));
    copy.is_clean();
    let families = |_: &crate::pool::Index<MemoryStore>| {
        Families::new(
            BTreeMap::new(),
            listing.boundaries.iter().map(|boundary| (VOLUME, *boundary)).collect::<Vec<_>>(),
        )
    };
    let rebuilt = rebuild_with(MemoryStore::default(), &copy.world.superblock, &copy.world.pool, families);
    copy.world.index = rebuilt.unwrap().0;
    copy.shows(&world, to);
}

/// P1. Packs that were given up, or whose segments were dropped, are void before anything else is made of them.
#[test]
fn what_is_given_up_or_dropped_is_void() {
    let world = aged();
    let (to, listing) = listing(&world);
    for loses_writes in [false, true] {
        for appends in 0.. {
            let mut copy = Copy::new();
            (copy.appends_left, copy.loses_writes) = (appends, loses_writes);
            let first = parts_of(&world, listing.segments[0], None).remove(0);
            assert_eq!(copy.take(first), Ok(Taken::Begun));
            copy.finish();
            copy.appends_left = usize::MAX;
            if copy.receiver.take_error().is_none() {
                assert!(appends >= 4);
                break;
            }
            assert!(copy.receiver.is_idle() && copy.world.index.asides(VOLUME).next().is_none());
            copy.take_all(&world, &listing);
            let packs = copy.receiver.take_given_up();
            assert_eq!(copy.join(to, &listing).is_err(), !packs.is_empty(), "{appends}");
            copy.void(&packs);
            if copy.world.index.joined(VOLUME).is_none() {
                copy.join(to, &listing).unwrap();
            }
            copy.fold();
            copy.shows(&world, to);
            copy.is_clean();
        }
    }
    let mut copy = Copy::new();
    copy.take_all(&world, &listing);
    assert!(copy.world.index.note_erasing(VOLUME).is_err(), "it would come back with the next rebuild");
    let used = copy.world.index.figures().slots_used;
    let packs = copy.world.index.drop_asides(VOLUME).unwrap();
    assert!(used > 0 && packs.len() == used as usize);
    copy.void(&packs);
    assert_eq!(copy.world.index.figures().slots_used, 0);
    copy.is_clean();
    copy.crash();
    copy.world.index.note_erasing(VOLUME).unwrap();
    assert!(copy.world.index.resync(VOLUME).is_none() && copy.world.index.asides(VOLUME).next().is_none());
}

/// P1. A store that says that it failed is told again, and what it had all the same does no harm.
#[test]
fn a_store_that_fails_is_told_again() {
    let world = aged();
    let (to, listing) = listing(&world);
    for fails_late in [false, true] {
        let mut copy = Copy::new();
        let parts: Vec<Part> = listing.segments.iter().flat_map(|segment| parts_of(&world, *segment, None)).collect();
        for part in parts {
            assert_eq!(copy.take(copy_of(&part)), Ok(Taken::Begun));
            let store = copy.world.index.store_mut();
            (store.fails, store.fails_late) = (!fails_late, fails_late);
            copy.finish();
            assert!(!copy.receiver.is_ready());
            let store = copy.world.index.store_mut();
            (store.fails, store.fails_late) = (false, false);
            copy.act(Receiver::tick);
            assert!(copy.receiver.is_idle());
            assert_eq!(copy.take(part), Ok(Taken::Known));
        }
        copy.join(to, &listing).unwrap();
        copy.fold();
        copy.shows(&world, to);
    }
}

/// P1. What is not all there, or does not follow, is not joined.
#[test]
fn a_log_is_joined_only_when_all_is_there() {
    let world = aged();
    let (to, listing) = listing(&world);
    let mut copy = Copy::new();
    let first = copy.world.recover(VOLUME).unwrap();
    let whole = |copy: &mut Copy| copy.join(to, &listing);
    assert_eq!(whole(&mut copy), Err(JoinError::Missing(listing.segments[0])));
    copy.take_all(&world, &listing);
    let early = Listing { as_of: to.next(), ..listing.clone() };
    assert_eq!(copy.join(to, &early), Err(JoinError::TooEarly(to.next())));
    assert_eq!(copy.join(Lsn(to.0 - 1), &listing), Err(JoinError::NoEnd));
    let lease = copy.world.index.lease(LeaseClass::Data).unwrap();
    copy.world.index.give_up_packs(&[lease], &std::collections::BTreeSet::new()).unwrap();
    assert_eq!(whole(&mut copy), Err(JoinError::NotVoid));
    copy.void(&[lease.segment]);
    let mut other = Copy::new();
    other.world.index.drop_asides(VOLUME).unwrap();
    assert_eq!(other.join(to, &listing), Err(JoinError::NotBegun));
    other.world.index.begin_resync(VOLUME, Lsn(3)).unwrap();
    assert!(other.world.index.begin_resync(VOLUME, Lsn(4)).is_err());
    assert_eq!(other.world.index.join(&first, to, &listing), Err(JoinError::OtherEnd));
    assert_eq!(whole(&mut copy), Ok(()));
    assert_eq!(copy.world.index.join(&first, to, &listing), Err(JoinError::NotBegun));
}

/// P1. Where the other site gives the number of a generation once more, the copy would show what it was at the first one.
#[test]
fn a_generation_that_ended_before_is_not_joined() {
    let mut world = primary();
    world.segment(VOLUME, &[&[write_op(0, 1), snapshot_op(0)]]);
    let from = Lsn(2);
    let mut copy = Copy::new();
    let first = listing(&world);
    copy.take_all(&world, &first.1);
    copy.join(first.0, &first.1).unwrap();
    copy.fold();
    copy.world.index.begin_resync(VOLUME, from).unwrap();
    world.segment(VOLUME, &[&[write_op(0, 1)], &[write_op(1, 1)]]);
    let mut listing = world.index.listing(VOLUME, (from, Lsn(4)));
    copy.take_all(&world, &listing);
    for boundary in &mut listing.boundaries {
        boundary.lsn = Lsn(4);
    }
    assert_eq!(copy.join(Lsn(4), &listing), Err(JoinError::Generation(0)));
    listing.boundaries.clear();
    copy.join(Lsn(4), &listing).unwrap();
    copy.fold();
    copy.shows(&world, Lsn(4));
}

/// P1. Neighbours have to follow by their chains, the first one on the log before it.
#[test]
fn a_segment_that_does_not_follow_is_not_joined() {
    let mut world = primary();
    for n in 0..3 {
        world.segment(VOLUME, &[&[write_op(n, 1)]]);
    }
    let (to, listing) = listing(&world);
    for wrong in 0..3 {
        let mut copy = Copy::new();
        for (at, segment) in listing.segments.iter().enumerate() {
            let part = parts_of(&world, *segment, None).remove(0);
            let part = changed(&part, |parcel| parcel.header.chain_before ^= u32::from(at == wrong));
            copy.take(part).unwrap();
        }
        copy.finish();
        assert_eq!(copy.join(to, &listing), Err(JoinError::Chain(listing.segments[wrong])));
    }
}

/// P1. Where only a part of a segment is here it is not joined; when the other part is dead by then, it is not missed.
#[test]
fn a_part_that_died_meanwhile_is_not_missed() {
    let mut world = primary();
    let row = world.segment(VOLUME, &[&[write_op(0, 10)], &[write_op(50, 10)]]);
    let mut copy = Copy::new();
    let cut = Cut::of_log2(1);
    copy.take(parts_of(&world, row.segment, cut).remove(0)).unwrap();
    copy.finish();
    world.segment(VOLUME, &[&[write_op(50, 10)], &[write_op(4, 6)]]);
    world.fold(VOLUME);
    world.cut = Cut::of_log2(1).unwrap();
    world.pack(&[row.segment]);
    world.void_left();
    let (to, listing) = listing(&world);
    for part in parts_of(&world, listing.segments[1], None) {
        copy.take(part).unwrap();
    }
    copy.finish();
    assert_eq!(copy.join(to, &listing), Err(JoinError::Missing(row.segment)));
    let parts = parts_of(&world, row.segment, cut);
    assert_eq!(parts.len(), 1, "the other one is dead");
    assert_eq!(copy.take(copy_of(&parts[0])), Ok(Taken::Known));
    copy.join(to, &listing).unwrap();
    copy.fold();
    copy.shows(&world, to);
    copy.is_clean();
}

/// P1. A segment of which a part came before the rest of it left is joined with what is here.
#[test]
fn a_segment_that_left_meanwhile_is_joined_as_it_is() {
    let mut world = primary();
    let row = world.segment(VOLUME, &[&[write_op(0, 10)], &[write_op(50, 10)]]);
    let mut copy = Copy::new();
    copy.take(parts_of(&world, row.segment, Cut::of_log2(1)).remove(0)).unwrap();
    copy.finish();
    world.segment(VOLUME, &[&[write_op(50, 10)], &[write_op(0, 10)]]);
    world.segment(VOLUME, &[&[write_op(90, 1)]]);
    assert_eq!(world.fold(VOLUME), [row.segment]);
    let (to, before) = listing(&world);
    assert_eq!(copy.join(to, &before), Err(JoinError::Missing(before.segments[1])));
    world.release(&row);
    let (to, listing) = listing(&world);
    copy.take_all(&world, &listing);
    assert_eq!(copy.join(to, &before), Err(JoinError::Missing(row.segment)));
    copy.join(to, &listing).unwrap();
    copy.fold();
    copy.shows(&world, to);
    copy.is_clean();
    // That it was folded is not durable yet.
    copy.crash();
    copy.fold();
    copy.shows(&world, to);
}

/// P1. While the catalogue says that a resync is under way, a rebuild leaves out what is behind the log; without, it takes it.
#[test]
fn a_rebuild_leaves_out_what_is_kept_aside() {
    let world = aged();
    let (to, listing) = listing(&world);
    let mut copy = Copy::new();
    copy.take_all(&world, &listing);
    let boundaries: Vec<_> = listing.boundaries.iter().map(|boundary| (VOLUME, *boundary)).collect();
    for is_recorded in [false, true] {
        let resyncs = is_recorded.then_some((VOLUME, Lsn::ZERO)).into_iter().collect();
        let families = Families::new(BTreeMap::new(), boundaries.clone()).with_resyncs(resyncs);
        let (superblock, pool) = (&copy.world.superblock, &copy.world.pool);
        let (index, report) = rebuild_with(MemoryStore::default(), superblock, pool, |_| families).unwrap();
        assert!(report.damaged.is_empty() && report.notes.is_empty());
        assert_eq!(index.segments(VOLUME).is_empty(), is_recorded);
        if is_recorded {
            report.mends.iter().for_each(|(offset, bytes)| copy.world.pool.write(*offset, bytes));
            copy.world.index = index;
        }
    }
    let packs: Vec<SegmentId> = copy.world.index.empty_packs().into_iter().map(|(pack, _)| pack).collect();
    copy.void(&packs);
    copy.is_clean();
    assert_eq!(copy.world.index.figures().slots_used, 0);
    copy.world.index.set_site(1);
    copy.world.index.begin_resync(VOLUME, Lsn::ZERO).unwrap();
    copy.take_all(&world, &listing);
    copy.join(to, &listing).unwrap();
    copy.fold();
    copy.shows(&world, to);
}
