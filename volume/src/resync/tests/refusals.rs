//! What is not taken: one test for each check.

use super::*;
use crate::format::{Operation, OperationKind, ParcelEntry, PartSet};
use crate::map::Location;
use crate::pool::LeaseClass;
use crate::recover::tests::world::{OTHER_VOLUME, trim_op, write_op};
use units::{BLOCK_LEN, SegmentId};

/// Three segments, of which the second one is cut in two: its parts, and a copy that has none of them.
fn two_parts() -> (World, Vec<Part>, Copy) {
    let mut world = primary();
    world.segment(VOLUME, &[&[write_op(0, 2)]]);
    let row = world.segment(VOLUME, &[&[write_op(0, 10), trim_op(90, 1)], &[write_op(50, 8)]]);
    world.segment(VOLUME, &[&[write_op(70, 2)]]);
    let parts = parts_of(&world, row.segment, Cut::of_log2(1));
    assert_eq!(parts.len(), 2);
    (world, parts, Copy::new())
}

/// A part is refused, and taken without the change.
fn is_refused(change: impl FnOnce(&mut Parcel), why: Refusal) {
    let (_, parts, mut copy) = two_parts();
    assert_eq!(copy.take(changed(&parts[0], change)), Err(why));
    assert!(copy.receiver.is_idle());
    assert_eq!(copy.take(copy_of(&parts[0])), Ok(Taken::Begun));
}

#[test]
fn a_header_that_is_none_is_refused() {
    let (_, parts, mut copy) = two_parts();
    for at in [9, 300] {
        let mut part = copy_of(&parts[0]);
        part.header.as_mut_slice()[at] ^= 1;
        assert_eq!(copy.take(part), Err(Refusal::Header));
    }
    let longer: Vec<u8> = [parts[0].header.as_slice(), &[0; BLOCK_LEN]].concat();
    let part = Part { header: Buffer::copy_of(&longer), payload: copies_of(&parts[0].payload) };
    assert_eq!(copy.take(part), Err(Refusal::Header));
    let mut void = copy_of(&parts[0]);
    let start = decode_parcel_start(void.header.as_slice()).unwrap();
    start.make_void(void.header.as_mut_slice());
    assert_eq!(copy.take(void), Err(Refusal::Header));
}

#[test]
fn a_volume_that_is_not_in_resync_is_refused() {
    is_refused(|parcel| parcel.header.volume = OTHER_VOLUME, Refusal::Volume);
    let (_, parts, mut copy) = two_parts();
    assert_eq!(copy.world.index.drop_asides(VOLUME), Ok(vec![]));
    assert_eq!(copy.take(copy_of(&parts[0])), Err(Refusal::Volume));
}

#[test]
fn a_segment_with_an_id_that_it_cannot_have_is_refused() {
    is_refused(|parcel| parcel.header.segment = SegmentId(SegmentId::MAX.0 / 4 * 3 + 1), Refusal::Segment);
    let (_, parts, mut copy) = two_parts();
    let lease = copy.world.index.lease(LeaseClass::Data).unwrap();
    assert_eq!(copy.take(changed(&parts[0], |parcel| parcel.header.segment = lease.segment)), Err(Refusal::Segment));
    // One that is not newer than the log.
    let mut world = World::new(40);
    world.index.set_site(1);
    let own = world.segment(VOLUME, &[&[write_op(0, 1)]]);
    world.index.begin_resync(VOLUME, own.last_lsn.unwrap()).unwrap();
    copy.world = world;
    let older = SegmentId(own.segment.0 - 1);
    let part = changed(&parts[0], |parcel| {
        parcel.header.segment = older;
        parcel.header.first_lsn = Lsn(2);
    });
    assert_eq!(copy.take(part), Err(Refusal::Segment));
}

#[test]
fn operations_that_are_not_where_they_could_be_are_refused() {
    is_refused(|parcel| parcel.header.last_lsn = Lsn((1 << 62) + 1), Refusal::Header);
    is_refused(
        |parcel| (parcel.header.last_lsn, parcel.header.clean_lsn) = (Lsn(1 << 62), Lsn(1 << 62)),
        Refusal::Lsns,
    );
    is_refused(
        |parcel| {
            (parcel.entries, parcel.checks) = (Vec::new(), Vec::new());
            parcel.header.last_lsn = Lsn(parcel.header.first_lsn.0 - 1);
        },
        Refusal::Lsns,
    );
    // Not behind the log.
    let (_, parts, mut copy) = two_parts();
    copy.world.index.drop_asides(VOLUME).unwrap();
    copy.world.index.begin_resync(VOLUME, Lsn(2)).unwrap();
    assert_eq!(copy.take(copy_of(&parts[0])), Err(Refusal::Lsns));
    // Over those of another segment, one on its way and one that is kept.
    for is_kept in [false, true] {
        for by in [-4, 4] {
            let (_, parts, mut copy) = two_parts();
            copy.take(copy_of(&parts[0])).unwrap();
            if is_kept {
                copy.finish();
            }
            let part = changed(&parts[0], |parcel| {
                parcel.header.segment = SegmentId(parcel.header.segment.0.checked_add_signed(by).unwrap());
            });
            assert_eq!(copy.take(part), Err(Refusal::Lsns), "{is_kept} {by}");
        }
    }
}

#[test]
fn a_part_of_another_segment_of_the_same_id_is_refused() {
    let changes: [fn(&mut Parcel); 5] = [
        |parcel| parcel.header.chain_before ^= 1,
        |parcel| parcel.header.chain_after ^= 1,
        |parcel| parcel.header.size_bytes += 1,
        |parcel| parcel.header.epoch.0 += 1,
        |parcel| (parcel.header.last_lsn.0, parcel.header.clean_lsn.0) = (90, 90),
    ];
    for is_kept in [false, true] {
        for change in changes {
            let (_, parts, mut copy) = two_parts();
            copy.take(copy_of(&parts[0])).unwrap();
            if is_kept {
                copy.finish();
            }
            assert_eq!(copy.take(changed(&parts[1], change)), Err(Refusal::Differs));
            assert_eq!(copy.take(copy_of(&parts[1])), Ok(Taken::Begun));
        }
        // Cut in another way.
        let (world, parts, mut copy) = two_parts();
        copy.take(copy_of(&parts[0])).unwrap();
        if is_kept {
            copy.finish();
        }
        let segment = world.index.segments(VOLUME)[1].segment;
        let other = parts_of(&world, segment, Cut::of_log2(2)).remove(1);
        assert_eq!(copy.take(other), Err(Refusal::Differs));
    }
}

#[test]
fn what_is_not_of_the_part_is_refused() {
    is_refused(|parcel| parcel.header.part = 1, Refusal::Span);
    is_refused(|parcel| parcel.header.parts = PartSet::default(), Refusal::Span);
    let (_, parts, mut copy) = two_parts();
    let without_trunk = |parcel: &mut Parcel| parcel.header.parts = PartSet::of_part(1);
    assert_eq!(copy.take(changed(&parts[1], without_trunk)), Err(Refusal::Span));
    let with_trim = |parcel: &mut Parcel| {
        let (lsn, operation) = (parcel.header.last_lsn, trim_op(3, 1));
        parcel.entries.push(ParcelEntry { lsn, operation, block: 0 });
        parcel.header.last_lsn = parcel.header.last_lsn.next();
        parcel.header.clean_lsn = parcel.header.last_lsn;
        parcel.entries.last_mut().unwrap().lsn = parcel.header.last_lsn;
    };
    assert_eq!(copy.take(changed(&parts[1], with_trim)), Err(Refusal::Span));
}

/// P1. Without its trunk a segment could not be told, should the rest of it never come.
#[test]
fn a_part_that_comes_before_its_trunk_is_refused() {
    let (_, parts, mut copy) = two_parts();
    assert_eq!(copy.take(copy_of(&parts[1])), Err(Refusal::Trunk));
    copy.take(copy_of(&parts[0])).unwrap();
    assert_eq!(copy.take(copy_of(&parts[1])), Ok(Taken::Begun));
    copy.finish();
    let (_, parts, mut copy) = two_parts();
    copy.take(copy_of(&parts[0])).unwrap();
    copy.finish();
    assert_eq!(copy.take(copy_of(&parts[1])), Ok(Taken::Begun));
}

#[test]
fn what_is_shared_is_refused() {
    let source = Location { segment: SegmentId(77), block: 2 };
    for kind in [OperationKind::Copy { source }, OperationKind::Lent] {
        let change = |parcel: &mut Parcel| {
            let first = &mut parcel.entries[0];
            first.operation = Operation { kind, ..first.operation };
        };
        is_refused(change, Refusal::Shared);
    }
}

#[test]
fn a_part_that_fits_into_no_pack_is_refused() {
    let change = |parcel: &mut Parcel| {
        let last = parcel.header.last_lsn.0;
        let more =
            (last + 1..last + 1_600).map(|lsn| ParcelEntry { lsn: Lsn(lsn), operation: trim_op(lsn, 1), block: 0 });
        parcel.entries.extend(more);
        (parcel.header.last_lsn, parcel.header.clean_lsn) = (Lsn(last + 1_600), Lsn(last + 1_600));
        parcel.header.copy = 60;
    };
    is_refused(change, Refusal::TooLarge);
}

#[test]
fn payload_that_is_not_what_the_header_says_is_refused() {
    let (_, parts, mut copy) = two_parts();
    let mut short = copy_of(&parts[0]);
    short.payload.pop();
    assert_eq!(copy.take(short), Err(Refusal::Length));
    let mut torn = copy_of(&parts[0]);
    let last = torn.payload.pop().unwrap();
    let (one, two) = last.as_slice().split_at(100);
    torn.payload.extend([one, two].map(Buffer::copy_of));
    assert_eq!(copy.take(torn), Err(Refusal::Length));
    let mut longer = copy_of(&parts[0]);
    let last = longer.payload.pop().unwrap();
    longer.payload.push(Buffer::copy_of(&[last.as_slice(), &[0; 100]].concat()));
    assert_eq!(copy.take(longer), Err(Refusal::Length));
    let mut rotten = copy_of(&parts[0]);
    rotten.payload[0].as_mut_slice()[5000] ^= 1;
    assert_eq!(copy.take(rotten), Err(Refusal::Check));
    assert_eq!(copy.take(copy_of(&parts[0])), Ok(Taken::Begun));
}
