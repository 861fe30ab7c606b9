use super::*;
use crate::store::RocksStore;
use std::sync::mpsc;
use units::{BLOCK_BYTES, Lsn, PoolId};
use volume::format::{Geometry, Superblock};
use volume::io::PageIndex;
use volume::map::{Change, Location, Page, PageWrite};
use volume::pool::{Boundary, Folded, Home, LeaseClass, SegmentRow};

const VOLUME: VolumeId = VolumeId(7);
const PAGES: u64 = 600;

fn superblock() -> Superblock {
    let geometry = Geometry { slot_bytes: 4096 * BLOCK_BYTES, slot_count: 8 };
    Superblock { pool: PoolId([3; 16]), generation: 1, geometry, created_ms: 0 }
}

/// An index in which each of some snapshots holds one block of each page.
fn with_snapshots(folder: &std::path::Path, snapshots: u64) -> Index<RocksStore> {
    let store = RocksStore::create(&folder.join("index")).unwrap();
    let mut index = Index::create(store, &superblock()).unwrap();
    let lease = index.lease(LeaseClass::Data).unwrap();
    let row = SegmentRow {
        segment: lease.segment,
        volume: VOLUME,
        home: Home::Own(lease.slot),
        first_lsn: Lsn(1),
        last_lsn: None,
        has_holes: false,
    };
    index.note_segment(row).unwrap();
    for generation in 0..=snapshots {
        let put = |page: u64| {
            let mut content = Page::empty(false);
            let block = u16::try_from(generation * PAGES + page + 1).unwrap();
            content.change(0, 1, Change::Data { location: Location { segment: row.segment, block }, checks: &[0; 4] });
            PageWrite::put(PageIndex(page), content.encode(), Lsn(1))
        };
        let writes: Vec<PageWrite> = (0..PAGES).map(put).collect();
        let lsn = Lsn(generation + 1);
        index.write_back(VOLUME, generation, &writes, Folded { to: lsn, generation, ..Folded::default() }).unwrap();
        if generation < snapshots {
            index.note_boundary(VOLUME, Boundary { generation, lsn, size_bytes: 0, wall_ms: 0 }).unwrap();
        }
    }
    index
}

fn told<T: Send + 'static>() -> (Callback<T>, mpsc::Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    (Box::new(move |value| sender.send(value).unwrap()), receiver)
}

/// P6. Whoever waits for the store waits for one turn of it at most.
#[test]
fn searches_are_answered_while_deletions_go_on_and_none_keeps_the_store_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = with_snapshots(folder.path(), 3);
    let mut jobs = Jobs::resume(&mut index);
    assert!(jobs.is_empty() && !jobs.is_due());
    let (done, deleted) = told();
    jobs.delete(&mut index, (VOLUME, 1), done);
    let (done, both) = told();
    jobs.search(VOLUME, vec![BTreeSet::from([0]), BTreeSet::from([0, 2]), BTreeSet::new()], done);
    let mut turns = 0;
    while !jobs.is_empty() {
        turns += 1;
        jobs.work(&mut index);
    }
    assert!(turns > 1, "it was done in turns");
    assert_eq!(deleted.try_recv(), Ok(Ok(())));
    // What was being deleted may have counted as there.
    assert_eq!(both.try_recv().unwrap().unwrap().len(), 3);
    let (done, both) = told();
    jobs.search(VOLUME, vec![BTreeSet::from([0]), BTreeSet::from([0, 2]), BTreeSet::new()], done);
    while !jobs.is_empty() {
        assert!(jobs.work(&mut index).is_empty());
    }
    assert_eq!(both.try_recv(), Ok(Ok(vec![PAGES, 2 * PAGES, 0])));
    assert_eq!(index.volume_space(VOLUME).snapshot_blocks, Some(2 * PAGES));
    let (done, deleted) = told();
    jobs.delete(&mut index, (VOLUME, 1), done);
    assert_eq!(deleted.try_recv(), Ok(Ok(())), "it is gone already");
}

/// P1. What was begun before a stop is done after it, without being asked for.
#[test]
fn deletions_go_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = with_snapshots(folder.path(), 3);
    let mut jobs = Jobs::resume(&mut index);
    for generation in [1, 0] {
        jobs.delete(&mut index, (VOLUME, generation), Box::new(|_| {}));
    }
    assert!(jobs.work(&mut index).contains(&VOLUME));
    assert!(!jobs.is_empty());
    drop((jobs, index));
    struct NoPool;
    impl volume::store::PoolReader for NoPool {
        fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), DiskFault> {
            Err(DiskFault::Io)
        }
    }
    let store = RocksStore::open(&folder.path().join("index")).unwrap();
    let mut index = Index::open(store, &superblock(), &NoPool).unwrap();
    assert_eq!(index.volume_space(VOLUME).leaving_boundaries, 2);
    let mut jobs = Jobs::resume(&mut index);
    while !jobs.is_empty() {
        jobs.work(&mut index);
    }
    let space = index.volume_space(VOLUME);
    assert_eq!((space.boundaries, space.snapshot_blocks, space.live_blocks), (1, Some(PAGES), 2 * PAGES));
}
