//! Copies within the volume.

use super::*;
use crate::map::{Change, Page};
use crate::pool::{Loans, Place};
use crate::request::{COPY_BYTES_MAX, Lent};

const BLOCK: u64 = 4096;

fn copy(from: u64, to: u64, len: u64) -> Request {
    Request::Copy { source: range(from, len), target: range(to, len), fua: false }
}

/// Blocks that are no two the same.
fn noise(seed: u8, blocks: u64) -> Vec<u8> {
    (0..blocks * BLOCK).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 9) as u8) ^ seed).collect()
}

fn borrowed(driver: &Driver) -> u32 {
    driver.loans.iter().flat_map(|(_, loans)| loans).map(|loan| loan.count).sum()
}

/// P2. What is copied reads as it was, whatever becomes of its source, and nothing is read or written for it.
#[test]
fn a_copy_moves_no_data_and_stays_when_its_source_changes() {
    let mut driver = Driver::new(64);
    let (old, new) = (noise(1, 3), noise(2, 3));
    driver.write(0, &old).unwrap();
    let payload = driver.volume.status().payload_bytes;
    driver.holds_fetches = true;
    driver.done(copy(0, 20 * BLOCK, 3 * BLOCK)).unwrap();
    driver.holds_fetches = false;
    assert_eq!(driver.volume.status().payload_bytes, payload, "no data is written");
    assert_eq!(borrowed(&driver), 3);
    driver.write(0, &new).unwrap();
    assert_eq!(driver.read(20 * BLOCK, 3 * BLOCK).unwrap(), old);
    assert_eq!(driver.read(0, 3 * BLOCK).unwrap(), new);
    // Part of a block of a copy.
    driver.write(21 * BLOCK + 512, &[7; 512]).unwrap();
    let mut expected = old;
    expected[4096 + 512..4096 + 1024].fill(7);
    assert_eq!(driver.read(20 * BLOCK, 3 * BLOCK).unwrap(), expected);
    assert!(driver.volume.is_idle());
}

/// P2. A copy of a copy borrows from where the content is; one of holes takes away what is there.
#[test]
fn copies_of_copies_borrow_from_the_first_and_holes_stay_holes() {
    let mut driver = Driver::new(64);
    let data = noise(3, 4);
    driver.write(BLOCK, &data[..2 * 4096]).unwrap();
    driver.write(4 * BLOCK, &data[2 * 4096..]).unwrap();
    driver.write(40 * BLOCK, &noise(9, 8)).unwrap();
    driver.done(copy(0, 20 * BLOCK, 8 * BLOCK)).unwrap();
    driver.done(copy(20 * BLOCK, 40 * BLOCK, 8 * BLOCK)).unwrap();
    let hole = vec![0; 4096];
    let expected = [&hole[..], &data[..8192], &hole, &data[8192..], &hole, &hole].concat();
    for at in [0, 20, 40] {
        assert_eq!(driver.read(at * BLOCK, 8 * BLOCK).unwrap(), expected, "{at}");
    }
    let all = driver.loans.iter().flat_map(|(segment, loans)| loans.iter().map(|loan| (*segment, *loan)));
    let places = |segment, first: u32, count| (first..first + count).map(move |block| (segment, block));
    let own: Vec<_> = all.clone().flat_map(|(segment, loan)| places(segment, loan.block, loan.count)).collect();
    let source = |loan: Loan| places(loan.source.segment, u32::from(loan.source.block), loan.count);
    assert!(all.flat_map(|(_, loan)| source(loan)).all(|place| !own.contains(&place)));
    assert_eq!(borrowed(&driver), 8);
}

/// P3. What was asked for before of source and target is there when a copy begins, and what is asked after comes after.
#[test]
fn a_copy_waits_for_changes_of_its_source_and_its_target_and_holds_later_ones_back() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 8192]).unwrap();
    driver.holds_appends = true;
    let before = driver.ask(write(4096, &[2; 4096], false));
    let target = driver.ask(write(9 * BLOCK, &[3; 4096], false));
    driver.run();
    let copied = driver.ask(copy(0, 8 * BLOCK, 2 * BLOCK));
    let again = driver.ask(copy(8 * BLOCK, 12 * BLOCK, 2 * BLOCK));
    let after = [driver.ask(write(0, &[4; 8192], false)), driver.ask(write(9 * BLOCK, &[5; 4096], false))];
    driver.run();
    assert!(driver.replies.is_empty(), "they wait: {:?}", driver.replies);
    driver.holds_appends = false;
    driver.run();
    assert!([before, target, copied, again].iter().chain(&after).all(|id| driver.replies[id].is_ok()));
    assert_eq!(driver.read(0, 8192).unwrap(), [4; 8192]);
    assert_eq!(driver.read(8 * BLOCK, 8192).unwrap(), [vec![1; 4096], vec![5; 4096]].concat());
    assert_eq!(driver.read(12 * BLOCK, 8192).unwrap(), [vec![1; 4096], vec![2; 4096]].concat());
    assert!(driver.volume.is_idle());
}

/// P1. What may be lost in a power cut is not shared: a copy of it waits for one sync, a copy of what is durable for none.
#[test]
fn a_copy_of_what_is_not_durable_waits_for_a_sync() {
    let mut driver = Driver::new(64);
    driver.write(0, &noise(1, 2)).unwrap();
    driver.done(copy(0, 20 * BLOCK, 2 * BLOCK)).unwrap();
    assert_eq!(driver.synced, 1);
    driver.done(Request::Flush).unwrap();
    driver.done(copy(0, 30 * BLOCK, 2 * BLOCK)).unwrap();
    assert_eq!(driver.synced, 2, "that of the flush");
    // One that fails ends the copy, too.
    driver.write(0, &noise(2, 2)).unwrap();
    driver.is_sync_failing = true;
    assert_eq!(driver.done(copy(0, 40 * BLOCK, 2 * BLOCK)), Err(ErrorKind::Poisoned));
    assert!(driver.volume.is_idle());
}

/// P6. Whatever cannot be is refused, and nothing is done.
#[test]
fn copies_that_cannot_be_are_refused() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 8192]).unwrap();
    let uneven = Request::Copy { source: range(0, 8192), target: range(8 * BLOCK, 4096), fua: false };
    let size = 4 * MIB;
    for request in [
        uneven,
        copy(0, 4096, 8192),
        copy(512, 8 * BLOCK, 4096),
        copy(0, 8 * BLOCK + 512, 4096),
        copy(0, 8 * BLOCK, 4608),
        copy(size - 4096, 0, 8192),
        copy(0, size - 4096, 8192),
    ] {
        assert_eq!(driver.done(request), Err(ErrorKind::InvalidRequest));
    }
    driver.done(Request::Resize { size_bytes: 256 * MIB, discard_tail: false }).unwrap();
    assert_eq!(driver.done(copy(0, 64 * MIB, COPY_BYTES_MAX + BLOCK)), Err(ErrorKind::InvalidRequest));
    assert_eq!(driver.done(copy(0, 64 * MIB, COPY_BYTES_MAX)), Ok(()));
    assert_eq!(driver.done(copy(0, 0, 0)), Ok(()));
    assert_eq!(driver.read(64 * MIB, 12288).unwrap(), [vec![1; 8192], vec![0; 4096]].concat());
}

/// P1, P6. A batch of copies that the disk refuses is appended in another segment, which then borrows.
#[test]
fn copies_that_fail_are_appended_elsewhere() {
    let mut driver = Driver::new(64);
    let data = noise(5, 3);
    driver.write(0, &data).unwrap();
    driver.append_faults = vec![DiskFault::Io];
    driver.done(copy(0, 20 * BLOCK, 3 * BLOCK)).unwrap();
    assert_eq!(driver.volume.status().append_faults, 1);
    driver.write(0, &[0xff; 12288]).unwrap();
    assert_eq!(driver.read(20 * BLOCK, 3 * BLOCK).unwrap(), data);
    let segments: std::collections::BTreeSet<SegmentId> = driver.loans.iter().map(|(segment, _)| *segment).collect();
    assert_eq!(segments.len(), 2);
}

/// While history is kept nothing is shared, and its beginning waits for the copies that share.
#[test]
fn with_history_nothing_is_shared() {
    let mut driver = Driver::new(64);
    driver.write(BLOCK, &noise(6, 2)).unwrap();
    driver.holds_appends = true;
    let shared = driver.ask(copy(0, 20 * BLOCK, 3 * BLOCK));
    driver.run();
    let kept = driver.ask(Request::KeepTime { is_kept: true });
    driver.run();
    assert!(driver.replies.is_empty() && !driver.volume.is_idle());
    driver.holds_appends = false;
    driver.run();
    assert!(driver.replies[&shared].is_ok() && driver.replies[&kept].is_ok());
    assert_eq!(driver.done(copy(20 * BLOCK, 40 * BLOCK, 3 * BLOCK)), Err(ErrorKind::InvalidRequest));
    driver.done(Request::KeepTime { is_kept: false }).unwrap();
    driver.done(copy(0, 60 * BLOCK, 2 * BLOCK)).unwrap();
    assert_eq!(borrowed(&driver), 3);
    assert!(driver.volume.is_idle());
}

/// P8. What lies in little pieces is not shared: each would be kept in memory.
#[test]
fn what_lies_in_little_pieces_is_not_shared() {
    let mut driver = Driver::with_slots(64, 1 << 20);
    driver.volume = Volume::open(
        VolumeConfig { shared_piece_blocks_min: 16, ..driver.volume.config },
        recover::fresh(VolumeId(7), 4 * MIB),
    );
    driver.write(0, &noise(1, 64)).unwrap();
    for block in (0..32).step_by(2) {
        driver.write(block * BLOCK, &noise(2, 1)).unwrap();
    }
    let refused = Err(ErrorKind::InvalidRequest);
    assert_eq!(driver.done(copy(0, 100 * BLOCK, 32 * BLOCK)), refused);
    assert_eq!(driver.done(copy(40 * BLOCK, 100 * BLOCK, 8 * BLOCK)), refused);
    assert_eq!(driver.done(copy(40 * BLOCK, 100 * BLOCK, 16 * BLOCK)), Ok(()));
    assert_eq!(driver.done(copy(400 * BLOCK, 100 * BLOCK, BLOCK)), Ok(()), "holes take none");
    assert!(driver.volume.is_idle());
}

fn lend(driver: &mut Driver, from: u64, len: u64) -> Lent {
    let id = driver.ask(Request::Lend { range: range(from, len) });
    driver.run();
    match driver.replies.remove(&id).expect("answered") {
        Ok(Completion::Lent(lent)) => lent,
        other => panic!("a request to lend was answered by {other:?}"),
    }
}

const fn borrow(target: ByteRange, lent: Lent) -> Request {
    Request::Borrow { target, lent, fua: false }
}

/// P1, P2. What a volume lends is durable and kept until the borrower has noted it; the borrower asks where it is, and reads it there.
#[test]
fn another_volume_borrows_what_is_lent() {
    let (mut lender, mut borrower) = (Driver::new(64), Driver::new(64));
    let data = noise(4, 2);
    lender.write(BLOCK, &data).unwrap();
    let lent = lend(&mut lender, 0, 3 * BLOCK);
    assert_eq!((lender.synced, lent.len()), (1, 3 * BLOCK));
    let (_, kept) = &lender.pledged[0];
    assert_eq!(kept.iter().map(|(_, count)| count).sum::<u32>(), 2);
    borrower.next_segment = 1000;
    borrower.write(20 * BLOCK, &noise(5, 3)).unwrap();
    borrower.done(borrow(range(20 * BLOCK, 3 * BLOCK), lent)).unwrap();
    assert_eq!((borrower.asked_places.len(), borrowed(&borrower)), (0, 2));
    // The lender's segment, as the index tells it; its pool is the borrower's.
    borrower.pool.clone_from(&lender.pool);
    let segment = borrower.loans[0].1[0].source.segment;
    let read = borrower.ask(Request::Read { range: range(20 * BLOCK, 3 * BLOCK) });
    borrower.run();
    assert_eq!(borrower.asked_places, [segment]);
    let row = lender.volume.segments[&segment];
    borrower.give(Event::Place { segment, place: Some(Box::new(Place { row, survivors: None, loans: None })) });
    borrower.run();
    let Some(Ok(Completion::Read { buffer, skip, len })) = borrower.replies.remove(&read) else { panic!("not read") };
    assert_eq!(buffer.as_slice()[skip..skip + len], [&vec![0; 4096], &data[..]].concat());
}

/// P6. What cannot be lent or borrowed is refused.
#[test]
fn what_cannot_be_lent_or_borrowed_is_refused() {
    let mut driver = Driver::new(64);
    driver.write(0, &noise(1, 2)).unwrap();
    for range in [range(512, 4096), range(0, 4608), range(4 * MIB - 4096, 8192)] {
        assert_eq!(driver.done(Request::Lend { range }), Err(ErrorKind::InvalidRequest));
    }
    let lent = lend(&mut driver, 0, 2 * BLOCK);
    for target in [range(BLOCK, 3 * BLOCK), range(512, 2 * BLOCK), range(4 * MIB - 4096, 2 * BLOCK)] {
        assert_eq!(driver.done(borrow(target, lent.clone())), Err(ErrorKind::InvalidRequest));
    }
    driver.done(Request::KeepTime { is_kept: true }).unwrap();
    assert_eq!(driver.done(borrow(range(8 * BLOCK, 2 * BLOCK), lent)), Err(ErrorKind::InvalidRequest));
}

/// P2. The place of what is lent, and of what borrows, is let go when the reads that use it have ended.
#[test]
fn reads_of_copies_hold_the_segments_that_they_use() {
    let mut driver = Driver::new(64);
    let data = noise(8, 1);
    driver.write(0, &data).unwrap();
    // Fills the first segment, so that the copy is in another one.
    driver.write(100 * BLOCK, &noise(9, 10)).unwrap();
    driver.done(copy(0, 20 * BLOCK, BLOCK)).unwrap();
    let (borrower, loans) = driver.loans[0].clone();
    let lender = loans[0].source.segment;
    assert_ne!(borrower, lender);
    driver.holds_fetches = true;
    let id = driver.ask(Request::Read { range: range(20 * BLOCK, BLOCK) });
    driver.run();
    driver.give(Event::Leaves { segment: lender });
    driver.run();
    assert_eq!(driver.unpinned, 0);
    driver.holds_fetches = false;
    driver.run();
    assert_eq!(driver.unpinned, 1);
    assert!(driver.replies[&id].is_ok());
}

/// P2. A clone asks where a segment is that it inherits a copy in, and then where that borrows from.
#[test]
fn a_clone_reads_and_copies_what_its_parent_copied() {
    let mut driver = Driver::new(64);
    driver.volume = Volume::open(driver.volume.config, recover::fresh_clone(VolumeId(9), 4 * MIB));
    let (borrower, lender) = (SegmentId(500), SegmentId(501));
    let check = crate::format::block_check(borrower, 6, &[3; 4096]).to_le_bytes();
    let mut page = Page::empty(false);
    page.change(0, 1, Change::Data { location: Location { segment: borrower, block: 6 }, checks: &check });
    driver.pages.insert(PageIndex(0), page.encode());
    let at = driver.volume.config.geometry.block_offset(SlotIndex(1), 4) as usize;
    driver.pool[at..at + 4096].fill(3);
    let mut loans = Loans::default();
    loans.add(Loan { block: 6, count: 1, source: Location { segment: lender, block: 4 } });
    let tell = |driver: &mut Driver, segment, slot, loans: Option<Loans>| {
        let (volume, first_lsn, last_lsn) = (VolumeId(3), Lsn(1), Some(Lsn(9)));
        let home = Home::Own(SlotIndex(slot));
        let row = SegmentRow { segment, volume, home, first_lsn, last_lsn, has_holes: false };
        let place = Some(Box::new(Place { row, survivors: None, loans: loans.map(Arc::new) }));
        driver.give(Event::Place { segment, place });
        driver.run();
    };
    let read = driver.ask(Request::Read { range: range(0, BLOCK) });
    let copied = driver.ask(copy(0, 20 * BLOCK, BLOCK));
    driver.run();
    assert_eq!(driver.asked_places, [borrower]);
    tell(&mut driver, borrower, 0, Some(loans));
    assert_eq!(driver.asked_places, [borrower, lender]);
    tell(&mut driver, lender, 1, None);
    assert!(driver.replies.remove(&read).unwrap().is_ok() && driver.replies.remove(&copied).unwrap().is_ok());
    assert_eq!(driver.loans[0].1[0].source, Location { segment: lender, block: 4 });
    assert_eq!(driver.read(20 * BLOCK, BLOCK).unwrap(), [3; 4096]);
    assert_eq!(driver.read(0, BLOCK).unwrap(), [3; 4096]);
}

/// P1. A volume the disk of which has failed to sync lends nothing: whoever borrowed it would call it durable.
#[test]
fn a_poisoned_volume_lends_nothing_that_is_not_durable() {
    let mut driver = Driver::new(64);
    driver.write(0, &noise(1, 2)).unwrap();
    driver.is_sync_failing = true;
    let id = driver.ask(Request::Lend { range: range(0, 2 * BLOCK) });
    driver.run();
    let waited = driver.replies.remove(&id);
    let id = driver.ask(Request::Lend { range: range(0, 2 * BLOCK) });
    driver.run();
    let later = driver.replies.remove(&id);
    assert!(
        matches!((&waited, &later), (Some(Err(_)), Some(Err(_)))),
        "waited for the sync: {waited:?}; asked after it: {later:?}"
    );
}

/// P1. No copy goes into the log once history has begun, also where it was held back.
#[test]
fn history_begins_behind_borrows_that_are_held_back() {
    let (mut lender, mut driver) = (Driver::new(64), Driver::new(64));
    lender.write(BLOCK, &noise(4, 2)).unwrap();
    let lent = lend(&mut lender, BLOCK, 2 * BLOCK);
    driver.next_segment = 1000;
    driver.write(20 * BLOCK, &noise(5, 3)).unwrap();
    driver.holds_fetches = true;
    let merge = driver.ask(write(20 * BLOCK + 512, &[7; 512], false));
    driver.run();
    let borrowing = driver.ask(borrow(range(20 * BLOCK, 2 * BLOCK), lent));
    let kept = driver.ask(Request::KeepTime { is_kept: true });
    driver.run();
    let is_kept = driver.replies.contains_key(&kept);
    let before = driver.loans.len();
    driver.holds_fetches = false;
    driver.run();
    assert!(driver.replies.contains_key(&merge));
    let shares_later = is_kept && driver.loans.len() > before;
    assert!(
        !shares_later,
        "history has begun, and then a copy went into the log: {:?}",
        driver.replies.get(&borrowing)
    );
}

/// P6. Pieces between holes are little ones, too: each is kept in memory.
#[test]
fn holes_do_not_make_little_pieces_large() {
    let mut driver = Driver::with_slots(64, 1 << 20);
    driver.volume = Volume::open(
        VolumeConfig { shared_piece_blocks_min: 16, ..driver.volume.config },
        recover::fresh(VolumeId(7), 4 * MIB),
    );
    for block in (0..400).step_by(20) {
        driver.write(block * BLOCK, &noise(2, 1)).unwrap();
    }
    let copied = driver.done(copy(0, 512 * BLOCK, 400 * BLOCK));
    let lent = driver.ask(Request::Lend { range: range(0, 400 * BLOCK) });
    driver.run();
    let pieces: usize = driver.loans.iter().map(|(_, loans)| loans.len()).sum();
    assert!(
        copied.is_err(),
        "{pieces} loans of {} blocks are kept for 20 blocks of the slot; lent: {}",
        borrowed(&driver),
        driver.replies[&lent].is_ok()
    );
}

/// P5. An open segment that borrows of a deleted volume is sealed when that is asked for, however full it is.
#[test]
fn an_open_borrower_is_sealed_for_its_lender() {
    let (mut lender, mut driver) = (Driver::new(64), Driver::new(64));
    lender.write(BLOCK, &noise(4, 6)).unwrap();
    let lent = lend(&mut lender, BLOCK, 6 * BLOCK);
    driver.next_segment = 1000;
    driver.write(0, &noise(3, 3)).unwrap();
    driver.done(borrow(range(20 * BLOCK, 6 * BLOCK), lent)).unwrap();
    driver.done(Request::Flush).unwrap();
    let segment = driver.volume.log.open.as_ref().unwrap().segment;
    driver.give(Event::Awaited { segment: SegmentId(segment.0 + 1) });
    driver.run();
    assert!(driver.volume.log.open.is_some(), "another one is awaited");
    driver.give(Event::Awaited { segment });
    driver.run();
    let filled = driver.volume.log.open.as_ref().map(|open| open.filled_blocks);
    assert_eq!(filled, None, "the borrower stays open");
}
