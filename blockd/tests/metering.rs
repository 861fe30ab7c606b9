//! The meter of a whole service, with clients on the wire: readings follow one another without a gap over restarts, and say to
//! the last unit what was there. The only clock is the one that is metered by.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a surprise is a failed test")]

mod wire;

use blockd::catalogue::{Catalogue, CatalogueError, MeterConfig};
use blockd::{Limits, ServingConfig};
use metering::ledger::{Books, Date, Trust, verify};
use metering::{Dimension, Mark, Reading};
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use units::TenantId;
use wire::{READ, Running, WRITE, connect, request, take_reply};

const TRIM: u16 = 4;
const PERIOD_MS: u64 = 1000;
const SIZE_BYTES: u64 = 8 << 20;

async fn start(folder: &Path) -> Running {
    start_with(folder, PERIOD_MS).await
}

async fn start_with(folder: &Path, period_ms: u64) -> Running {
    let how = ServingConfig {
        shard_count: 2,
        is_direct: false,
        map_cache_bytes: 16 << 20,
        scrub_bytes_per_second: 1 << 30,
        limits: Limits::default(),
        meter: MeterConfig { period_ms, ..MeterConfig::default() },
        mirror: None,
    };
    Running::start(folder, how).await
}

/// Every reading that the ledger has.
async fn readings(catalogue: &Catalogue) -> Vec<Reading> {
    let all = catalogue.readings(TenantId::DEFAULT, 0..u64::MAX, &[]).await.unwrap();
    let borders: Vec<u64> = all.first().map_or(Vec::new(), |first| {
        let last = all.iter().map(|reading| reading.wall_ms).max().unwrap();
        (first.wall_ms..last + PERIOD_MS).step_by(200).collect()
    });
    catalogue.readings(TenantId::DEFAULT, 0..u64::MAX, &borders).await.unwrap()
}

/// Waits until the ledger has so many more periods of the first volume.
async fn wait_for_periods(catalogue: &Catalogue, more: usize) -> Vec<Reading> {
    let before = readings(catalogue).await.len();
    loop {
        let read = readings(catalogue).await;
        if read.len() >= before + more {
            return read;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn ask(running: &Running, volume: &str, requests: &[(u16, u32)]) {
    let mut stream = connect(&running.socket, volume).await;
    for (command, len) in requests {
        stream.write_all(&request(*command, *len)).await.unwrap();
        take_reply(&mut stream, if *command == READ { *len } else { 0 }).await;
    }
}

/// Each reading follows the one before, and nothing went back.
fn hold_together(readings: &[Reading]) {
    for pair in readings.windows(2) {
        assert_eq!((pair[1].sequence, pair[1].epoch), (pair[0].sequence + 1, pair[0].epoch), "{pair:?}");
        assert!(pair[1].at >= pair[0].at, "{pair:?}");
        for dimension in Dimension::ALL {
            assert!(pair[1].registers.value(dimension) >= pair[0].registers.value(dimension), "{pair:?}");
        }
    }
}

fn used(from: &Reading, to: &Reading, dimension: Dimension) -> u128 {
    to.registers.value(dimension) - from.registers.value(dimension)
}

/// P7. From its first moment to its last a volume is read without a gap: through a restart, with what it has to the last unit,
/// and each request once.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_metered_from_its_making_to_its_deletion() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path()).await;
    running.catalogue().create("a", SIZE_BYTES).await.unwrap();
    ask(&running, "a", &[(WRITE, 65_536), (WRITE, 4096), (READ, 8192), (TRIM, 4096)]).await;
    let first = wait_for_periods(&running.catalogue(), 4).await;
    hold_together(&first);
    running.stop().await;

    tokio::time::sleep(Duration::from_millis(2 * PERIOD_MS)).await;
    let running = start(folder.path()).await;
    running.catalogue().read_due().await.unwrap();
    let at_once = readings(&running.catalogue()).await;
    assert!(at_once.len() > first.len() + 1, "what nobody read meanwhile is read before bills are made of it");
    let again = wait_for_periods(&running.catalogue(), 3).await;
    assert_eq!(again[..first.len()], first, "what is in the ledger stays as it is");
    ask(&running, "a", &[(READ, 4096)]).await;
    running.catalogue().delete("a", true).await.unwrap();
    let all = wait_for_periods(&running.catalogue(), 0).await;
    hold_together(&all);

    let (begun, ended) = (&all[0], &all[all.len() - 1]);
    assert_eq!((begun.mark, begun.sequence, ended.mark), (Mark::Begins, 0, Mark::Ends));
    assert_eq!(
        used(begun, ended, Dimension::Provisioned),
        u128::from(SIZE_BYTES) * u128::from(ended.at.since(begun.at))
    );
    // Two of sixteen blocks were written twice, and one of them trimmed: since the second period that is all.
    let (settled, last) = (&all[2], &all[all.len() - 1]);
    assert_eq!(used(settled, last, Dimension::Written), 15 * 4096 * u128::from(last.at.since(settled.at)));
    let counts = [Dimension::Reads, Dimension::Writes, Dimension::ReadBytes, Dimension::WriteBytes];
    assert_eq!(counts.map(|of| ended.registers.value(of)), [2, 3, 12_288, 69_632]);
    let physical: Vec<u128> = all.windows(2).map(|pair| used(&pair[0], &pair[1], Dimension::Physical)).collect();
    assert!(physical.iter().any(|used| *used >= u128::from(PERIOD_MS) << 20), "a slot of the pool: {physical:?}");
    running.stop().await;

    // What is deleted is never read again.
    let running = start(folder.path()).await;
    running.catalogue().create("b", SIZE_BYTES).await.unwrap();
    wait_for_periods(&running.catalogue(), 2).await;
    let of_deleted = readings(&running.catalogue()).await.into_iter().filter(|other| other.resource == begun.resource);
    assert_eq!(of_deleted.collect::<Vec<_>>(), all);
    running.stop().await;
}

/// P7. Whoever gives up on readings on their way, wherever that is, keeps nobody from taking them.
#[tokio::test(flavor = "multi_thread")]
async fn readings_that_are_given_up_on_the_way_are_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let running = start_with(folder.path(), 1).await;
    let catalogue = running.catalogue();
    catalogue.create("a", SIZE_BYTES).await.unwrap();
    for number in 0..600 {
        let _ = tokio::time::timeout(Duration::from_micros(20 * (number % 100)), catalogue.read_due()).await;
    }
    catalogue.read_due().await.unwrap();
    wait_for_periods(&catalogue, 2).await;
    running.stop().await;
}

/// P7. A rollback ends the meter of what a volume was and begins that of what it is, at one moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_leaves_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path()).await;
    let catalogue = running.catalogue();
    let before = catalogue.create("a", SIZE_BYTES).await.unwrap().volume;
    ask(&running, "a", &[(WRITE, 65_536)]).await;
    let snapshot = blockd::catalogue::SnapshotName { volume: "a".to_owned(), snapshot: "s".to_owned() };
    catalogue.create_snapshots(std::slice::from_ref(&snapshot), None).await.unwrap();
    let (entry, _) = catalogue.rollback(&snapshot, "undo", true).await.unwrap();
    wait_for_periods(&catalogue, 5).await;
    let all = readings(&catalogue).await;
    let of = |volume| all.iter().filter(|reading| reading.resource == volume).cloned().collect::<Vec<_>>();
    let (former, now) = (of(before), of(entry.volume));
    hold_together(&former);
    hold_together(&now);
    let ended = former.last().unwrap();
    assert_eq!((ended.mark, now[0].mark, now[0].at), (Mark::Ends, Mark::Begins, ended.at));
    let last = now.last().unwrap();
    assert_eq!(
        used(&now[0], last, Dimension::Written),
        65_536 * u128::from(last.at.since(now[0].at)),
        "from the first moment"
    );
    running.stop().await;
}

/// P7. What a tenant is given of the ledger is verified by the key, and has the readings.
#[tokio::test(flavor = "multi_thread")]
async fn the_books_are_signed_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path()).await;
    let catalogue = running.catalogue();
    catalogue.create("a", SIZE_BYTES).await.unwrap();
    wait_for_periods(&catalogue, 2).await;
    let head = catalogue.sign_ledger().await.unwrap();
    let (pieces, mut taken) = mpsc::channel::<Result<Vec<u8>, CatalogueError>>(64);
    let days = (Date::new(1970, 1, 1).unwrap(), Date::new(9999, 12, 31).unwrap());
    catalogue.export_books(TenantId::DEFAULT, (Books::Both, days), &pieces).await.unwrap();
    drop(pieces);
    let mut bundle = Vec::new();
    while let Some(piece) = taken.recv().await {
        bundle.extend(piece.unwrap());
    }
    let trust = Trust { keys: vec![catalogue.ledger_key().await.unwrap()], heads: Vec::new() };
    let verified = verify(&bundle, trust).unwrap();
    assert_eq!(catalogue.heads().await.unwrap().last(), Some(&head));
    assert!(format!("{verified:?}").contains("TenantId(0)"), "{verified:?}");
    running.stop().await;
}
