use super::*;
use crate::error::ErrorKind;
use crate::pool::{Change, ChangedRun, Changes, ChangesError};
use crate::request::ChangedExtent;

const SINCE: Parent = Parent { volume: VolumeId(7), generation: 0 };

fn change(is_changed: bool) -> Change {
    if is_changed { Change::Data } else { Change::None }
}

fn extent(len: u64, is_changed: bool) -> ChangedExtent {
    ChangedExtent { len, change: change(is_changed) }
}

impl Driver {
    fn ask_changes(&mut self, offset: u64, len: u64, extents_max: usize) -> u64 {
        let id = self.ask(Request::Changed { since: SINCE, range: range(offset, len), extents_max });
        self.run();
        id
    }

    fn answer_changes(&mut self, runs: &[(u64, bool)]) {
        let (id, ..) = self.asked_changes.remove(0);
        let runs = runs.iter().map(|(blocks, is_changed)| ChangedRun { blocks: *blocks, change: change(*is_changed) });
        self.give(Event::ChangesLoaded { id, result: Ok(Changes { runs: runs.collect() }) });
        self.run();
    }

    fn changed(&mut self, id: u64) -> Option<Vec<ChangedExtent>> {
        match self.replies.remove(&id)?.unwrap() {
            Completion::Changed(found) => Some(found),
            other @ (Completion::Read { .. }
            | Completion::Done
            | Completion::Miscompare { .. }
            | Completion::Metered(_)
            | Completion::Lent(_)
            | Completion::Extents(_)
            | Completion::Snapshot(_)) => {
                panic!("{other:?}")
            }
        }
    }
}

/// P2. What was acknowledged before is in the store before the store is asked.
#[test]
fn what_is_in_memory_alone_is_written_back_first() {
    let mut driver = Driver::new(8);
    driver.write(0, &[1; 4096]).unwrap();
    assert!(!driver.told.iter().any(|told| matches!(told, Told::Pages { .. })));
    let id = driver.ask_changes(0, MIB, 8);
    let folded = driver.told.iter().find_map(|told| match told {
        Told::Pages { folded, .. } => Some(folded.to),
        Told::Boundary(_) => None,
    });
    assert_eq!(folded, Some(Lsn(1)));
    assert_eq!(driver.asked_changes.len(), 1);
    driver.answer_changes(&[(1, true), (2047, false)]);
    assert_eq!(driver.changed(id), Some(vec![extent(4096, true), extent(MIB - 4096, false)]));
    // Nothing to write back: it is asked at once.
    let told = driver.told.len();
    driver.ask_changes(0, MIB, 8);
    assert_eq!((driver.told.len(), driver.asked_changes.len()), (told, 1));
    assert!(!driver.volume.is_idle());
}

/// P6.
#[test]
fn a_failing_store_and_a_snapshot_that_is_gone_are_told() {
    let mut driver = Driver::new(8);
    driver.write(0, &[1; 4096]).unwrap();
    driver.is_store_failing = true;
    let id = driver.ask_changes(0, 4096, 1);
    assert_eq!(driver.replies.remove(&id).unwrap().unwrap_err().kind, ErrorKind::Unavailable);
    driver.is_store_failing = false;
    driver.now += 2_000_000_000;
    let id = driver.ask_changes(0, 4096, 1);
    for (fault, kind) in
        [(ChangesError::Gone, ErrorKind::InvalidRequest), (ChangesError::Store(DiskFault::Io), ErrorKind::Unavailable)]
    {
        let (io, ..) = driver.asked_changes.remove(0);
        driver.give(Event::ChangesLoaded { id: io, result: Err(fault) });
        driver.run();
        let told = driver.replies.last_entry().unwrap().remove().unwrap_err();
        assert_eq!(told.kind, kind, "{id}");
        driver.ask_changes(0, 4096, 1);
    }
    let outside = driver.ask_changes(4 * MIB, 1, 1);
    assert_eq!(driver.replies.remove(&outside).unwrap().unwrap_err().kind, ErrorKind::InvalidRequest);
}

/// P6. After a failed sync nothing can be written back, and what needs it fails; the rest is told.
#[test]
fn a_poisoned_volume_tells_only_of_what_the_store_has() {
    let mut driver = Driver::new(8);
    driver.write(0, &[1; 4096]).unwrap();
    driver.is_sync_failing = true;
    let id = driver.ask_changes(0, 4096, 1);
    assert_eq!(driver.replies.remove(&id).unwrap().unwrap_err().kind, ErrorKind::Poisoned);
    let id = driver.ask_changes(0, 4096, 1);
    assert_eq!(driver.replies.remove(&id).unwrap().unwrap_err().kind, ErrorKind::Poisoned);
}

#[test]
fn answers_of_the_store_are_joined_and_cut_to_what_was_asked_for() {
    let mut driver = Driver::new(8);
    driver.volume.size_bytes = 64 * MIB;
    let page = 8 * MIB;
    let id = driver.ask_changes(512, 3 * page, 3);
    let (_, since, pages, runs_max) = driver.asked_changes[0].clone();
    assert_eq!((since, pages, runs_max), (SINCE, PageIndex(0)..PageIndex(4), 3));
    driver.answer_changes(&[(1, true), (4095, false)]);
    assert_eq!(driver.asked_changes[0].2, PageIndex(2)..PageIndex(4));
    driver.answer_changes(&[(2048, false)]);
    driver.answer_changes(&[(2048, true)]);
    let expected = [extent(3584, true), extent(3 * page - 4096, false), extent(512, true)];
    assert_eq!(driver.changed(id), Some(expected.to_vec()));
    let id = driver.ask_changes(0, 3 * page, 2);
    driver.answer_changes(&[(1, true), (1, false), (1, true), (2045, false)]);
    assert_eq!(driver.changed(id), Some(vec![extent(4096, true), extent(4096, false)]));
    let id = driver.ask_changes(0, 7 * page, 2);
    let mut asked = 0;
    while driver.changed(id).is_none() && asked < 100 {
        asked += 1;
        driver.answer_changes(&[(0, false)]);
    }
    assert_eq!(asked, 16, "it ends");
}
