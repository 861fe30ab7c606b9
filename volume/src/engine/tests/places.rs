//! Clones and views: blocks in segments of other volumes.

use super::*;
use crate::format::block_check;
use crate::map::{Change, Location, Page};
use crate::pool::Place;

const FOREIGN: SegmentId = SegmentId(500);
const OTHER: SegmentId = SegmentId(501);

fn check(segment: SegmentId, block: u32, fill: u8) -> [u8; 4] {
    block_check(segment, block, &[fill; 4096]).to_le_bytes()
}

/// A clone that inherits block 0, of 1s, from one segment and block 1, of 2s, from another; both in slot 0.
fn driver_of(recovered: Recovered) -> Driver {
    let mut driver = Driver::new(64);
    driver.volume = Volume::open(driver.volume.config, recovered);
    let mut page = Page::empty(false);
    for (at, (segment, block, fill)) in (0_u32..).zip([(FOREIGN, 3, 1), (OTHER, 4, 2)]) {
        let checks = check(segment, u32::from(block), fill);
        page.change(at, 1, Change::Data { location: Location { segment, block }, checks: &checks });
        put(&mut driver, SlotIndex(0), u32::from(block), fill);
    }
    driver.pages.insert(PageIndex(0), page.encode());
    driver
}

fn put(driver: &mut Driver, slot: SlotIndex, block: u32, fill: u8) {
    let at = driver.volume.config.geometry.block_offset(slot, block) as usize;
    driver.pool[at..at + 4096].fill(fill);
}

fn row(segment: SegmentId) -> SegmentRow {
    let (slot, first_lsn, last_lsn) = (SlotIndex(0), Lsn(1), Some(Lsn(9)));
    SegmentRow { segment, volume: VolumeId(3), home: Home::Own(slot), first_lsn, last_lsn, has_holes: false }
}

fn tell(driver: &mut Driver, segment: SegmentId) {
    let place = Some(Box::new(Place { row: row(segment), survivors: None, loans: None }));
    driver.give(Event::Place { segment, place });
    driver.run();
}

fn read(driver: &mut Driver, offset: u64, len: u64) -> u64 {
    let id = driver.ask(Request::Read { range: range(offset, len) });
    driver.run();
    id
}

fn content(driver: &mut Driver, id: u64) -> Vec<u8> {
    match driver.replies.remove(&id).expect("answered") {
        Ok(Completion::Read { buffer, skip, len }) => buffer.as_slice()[skip..skip + len].to_vec(),
        other => panic!("a read was answered by {other:?}"),
    }
}

/// P2. A clone reads what it inherits and what it wrote over it; where a segment is it asks once.
#[test]
fn a_clone_reads_blocks_of_other_volumes_segments() {
    let mut driver = driver_of(recover::fresh_clone(VolumeId(7), 4 * MIB));
    let both = read(&mut driver, 0, 8192);
    let first = read(&mut driver, 0, 4096);
    assert_eq!(driver.asked_places, [FOREIGN, OTHER]);
    assert!(!driver.volume.is_idle() && driver.replies.is_empty());
    tell(&mut driver, FOREIGN);
    assert_eq!(content(&mut driver, first), [1; 4096]);
    assert!(driver.replies.is_empty());
    tell(&mut driver, OTHER);
    assert_eq!(content(&mut driver, both), [[1; 4096], [2; 4096]].concat());
    driver.write(2048, &[7; 2048]).unwrap();
    assert_eq!(driver.read(0, 8192).unwrap(), [vec![1; 2048], vec![7; 2048], vec![2; 4096]].concat());
    assert_eq!(driver.asked_places, [FOREIGN, OTHER]);
    assert!(driver.volume.is_idle());
}

/// P2. What begins after a move reads the new place, and the old one is let go when what began before has ended.
#[test]
fn a_clone_reads_a_segment_of_another_volume_where_it_was_moved_to() {
    let mut driver = driver_of(recover::fresh_clone(VolumeId(7), 4 * MIB));
    let id = read(&mut driver, 0, 4096);
    tell(&mut driver, FOREIGN);
    content(&mut driver, id);
    driver.holds_fetches = true;
    let before = read(&mut driver, 0, 4096);
    let slot = SlotIndex(1);
    put(&mut driver, slot, 2, 1);
    let mut survivors = Survivors::none(16);
    survivors.insert(3);
    let parcel =
        ParcelPlace { pack: SegmentId(900), slot, block: 1, copy: 30, header_blocks: 1, moves: 1, clean_lsn: Lsn(9) };
    let moved = SegmentRow { home: Home::Parcels(Parcels::none(Cut::WHOLE).with(0, parcel)), ..row(FOREIGN) };
    driver.give(Event::Moved { row: Box::new(moved), survivors: Arc::new(survivors) });
    driver.run();
    assert_eq!(driver.unpinned, 0);
    driver.holds_fetches = false;
    driver.run();
    assert_eq!(driver.unpinned, 1);
    assert_eq!(content(&mut driver, before), [1; 4096]);
    put(&mut driver, SlotIndex(0), 3, 9);
    assert_eq!(driver.read(0, 4096).unwrap(), [1; 4096], "from where it is now");
    assert_eq!(driver.volume.status().segments, 0, "it is not the clone's own");
    // One that it never asked for is let go at once, and is asked for when it is needed.
    driver.give(Event::Moved { row: Box::new(row(OTHER)), survivors: Arc::new(Survivors::none(16)) });
    driver.give(Event::Leaves { segment: FOREIGN });
    driver.run();
    assert_eq!(driver.unpinned, 3);
    let again = read(&mut driver, 0, 8192);
    assert_eq!(driver.asked_places, [FOREIGN, FOREIGN, OTHER]);
    tell(&mut driver, FOREIGN);
    driver.give(Event::Place { segment: OTHER, place: None });
    driver.run();
    let error = driver.replies.remove(&again).unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(driver.volume.is_idle());
}

/// P2. A snapshot never changes.
#[test]
fn a_view_is_read_and_takes_no_changes() {
    let mut driver = driver_of(recover::fresh_view(VolumeId(7), MIB));
    let id = read(&mut driver, 4096, 4096);
    tell(&mut driver, OTHER);
    assert_eq!(content(&mut driver, id), [2; 4096]);
    let all = range(0, MIB);
    for change in [
        write(0, &[1; 4096], false),
        Request::Trim { range: all, fua: false },
        Request::WriteZeroes { range: all, fua: false },
        Request::Resize { size_bytes: 2 * MIB, discard_tail: true },
        Request::Snapshot { id: SnapshotId(3) },
    ] {
        assert_eq!(driver.done(change), Err(ErrorKind::InvalidRequest));
    }
    assert_eq!(driver.done(Request::Flush), Ok(()));
    assert_eq!(driver.done(Request::Checkpoint), Ok(()));
    driver.give(Event::Tick);
    driver.run();
    assert!(driver.volume.is_idle() && !driver.volume.wants_ticks() && driver.told.is_empty());
}
