//! Time marks.

use super::*;
use crate::format::Operation;

/// The operations of every batch in the pool's slots, in the order of their LSNs.
fn log_of(driver: &Driver) -> Vec<(Lsn, Operation)> {
    let blocks = driver.pool.chunks(4096).skip(POOL_DATA_OFFSET as usize / 4096).enumerate();
    let mut found = BTreeMap::new();
    for (at, _) in blocks {
        let from = POOL_DATA_OFFSET as usize + at * 4096;
        if let Ok((batch, _)) = decode_batch(&driver.pool[from..(from + 4 * 4096).min(driver.pool.len())]) {
            found.extend((batch.first_lsn.0..).map(Lsn).zip(batch.operations));
        }
    }
    found.into_iter().collect()
}

fn marks_of(driver: &Driver) -> Vec<(u64, u64)> {
    let mark = |(lsn, operation): (Lsn, Operation)| match operation.kind {
        OperationKind::TimeMark { wall_ms, .. } => Some((lsn.0, wall_ms)),
        OperationKind::Write
        | OperationKind::Copy { .. }
        | OperationKind::Lent
        | OperationKind::Trim
        | OperationKind::WriteZeroes
        | OperationKind::Resize(_)
        | OperationKind::Snapshot { .. } => None,
    };
    log_of(driver).into_iter().filter_map(mark).collect()
}

fn write_at(driver: &mut Driver, wall_ms: u64) {
    driver.wall_ms = wall_ms;
    driver.done(write(0, &[1; 4096], false)).unwrap();
}

/// P2. What was answered before a second lies before its first mark, what was asked for in it behind; a clock that goes back
/// changes nothing of that. A volume without history has no marks.
#[test]
fn the_first_batch_of_a_second_tells_the_time() {
    let mut driver = Driver::new(8);
    write_at(&mut driver, 900);
    assert_eq!(marks_of(&driver), []);
    driver.done(Request::KeepTime { is_kept: true }).unwrap();
    write_at(&mut driver, 1999);
    write_at(&mut driver, 1999);
    write_at(&mut driver, 2000);
    write_at(&mut driver, 1500);
    let snapshot = driver.ask(Request::Snapshot { id: SnapshotId(9) });
    driver.run();
    let Some(Ok(Completion::Snapshot(boundary))) = driver.replies.remove(&snapshot) else { panic!("no snapshot") };
    assert_eq!(boundary.wall_ms, 2000, "a snapshot is not before what it shows");
    write_at(&mut driver, 5100);
    assert_eq!(marks_of(&driver), [(2, 1999), (5, 2000), (9, 5100)]);
    assert_eq!(driver.volume.status().applied_lsn, Lsn(10));
    driver.done(Request::KeepTime { is_kept: false }).unwrap();
    write_at(&mut driver, 9000);
    assert_eq!(marks_of(&driver).len(), 3);
}

/// P1. An append that failed is made again in another segment, which begins with a mark of its own.
#[test]
fn a_segment_begins_with_a_mark_also_after_a_failed_append() {
    let mut driver = Driver::new(8);
    driver.done(Request::KeepTime { is_kept: true }).unwrap();
    write_at(&mut driver, 1000);
    driver.append_faults.push(DiskFault::Io);
    write_at(&mut driver, 2000);
    write_at(&mut driver, 2001);
    assert_eq!(marks_of(&driver), [(1, 1000), (3, 2000)]);
    assert_eq!(driver.volume.status().applied_lsn, Lsn(5));
}

/// What the marks tell the meter.
fn meter_marks_of(driver: &Driver) -> Vec<u64> {
    let mark = |(_, operation): (Lsn, Operation)| match operation.kind {
        OperationKind::TimeMark { meter, .. } => meter.map(|meter| meter.0),
        OperationKind::Write
        | OperationKind::Copy { .. }
        | OperationKind::Lent
        | OperationKind::Trim
        | OperationKind::WriteZeroes
        | OperationKind::Resize(_)
        | OperationKind::Snapshot { .. } => None,
    };
    log_of(driver).into_iter().filter_map(mark).collect()
}

/// P7. The log of a volume that is metered tells the meter's time at every second of it, whatever becomes of the wall clock, and
/// never goes back.
#[test]
fn the_log_tells_the_meters_time() {
    let mut driver = Driver::new(8);
    driver.volume.config.is_metered = true;
    for (wall_ms, meter) in [(9000, 500), (9000, 999), (2000, 1000), (3000, 1999), (3000, 800), (3000, 2500)] {
        driver.meter = MeterTime(meter);
        write_at(&mut driver, wall_ms);
    }
    assert_eq!(meter_marks_of(&driver), [500, 1000, 2500]);
}

/// P7. What a volume has used is known up to the second of now once all is in the stored map; what comes next counts from then
/// or later, a batch that is in flight among it.
#[test]
fn it_is_told_up_to_when_use_is_known() {
    let metered_to = |driver: &mut Driver| {
        let asked = driver.ask(Request::Meter);
        driver.run();
        let Some(Ok(Completion::Metered(at))) = driver.replies.remove(&asked) else { panic!("no time") };
        assert_eq!(driver.volume.status().folded_to, driver.volume.status().applied_lsn);
        at.0
    };
    let mut driver = Driver::new(8);
    driver.volume.config.is_metered = true;
    driver.meter = MeterTime(1500);
    write_at(&mut driver, 0);
    assert_eq!(metered_to(&mut driver), 1500, "more may come in this second, and count from its mark");
    driver.meter = MeterTime(7800);
    assert_eq!(metered_to(&mut driver), 7000);
    write_at(&mut driver, 0);
    assert_eq!(metered_to(&mut driver), 7800);
    driver.meter = MeterTime(8100);
    driver.holds_appends = true;
    driver.ask(write(0, &[2; 4096], false));
    driver.poll();
    driver.meter = MeterTime(9900);
    let asked = driver.ask(Request::Meter);
    driver.run();
    let answer = driver.replies.remove(&asked);
    assert!(matches!(answer, Some(Ok(Completion::Metered(MeterTime(7800))))), "{answer:?}");
}
