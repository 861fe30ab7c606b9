//! Ceilings and shares of a whole service, with clients on the wire: what passes, what waits, and what stays over a restart.
//! Bounds are on counts; the only clock is the one that ceilings are kept by.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a surprise is a failed test")]

mod wire;

use blockd::catalogue::{Catalogue, CatalogueError, MeterConfig, Quota, TenantQos};
use blockd::listener::{Client, Entrance, Exports};
use blockd::qos::{Ceiling, FairShares, QosLimits, QosStatus};
use blockd::{Limits, ServingConfig};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use units::TenantId;
use wire::{READ, REPLY_BYTES, Running, WRITE, connect, request, take_reply};

const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;

async fn start(folder: &Path, shard_count: usize, fair_shares: FairShares) -> Running {
    let how = ServingConfig {
        shard_count,
        is_direct: false,
        map_cache_bytes: 16 << 20,
        scrub_bytes_per_second: 1 << 30,
        limits: Limits { fair_shares, ..Limits::default() },
        meter: MeterConfig::default(),
        mirror: None,
    };
    Running::start(folder, how).await
}

async fn qos_of(running: &Running, name: &str) -> QosStatus {
    let volume = running.catalogue().show(name).unwrap().volume;
    running.catalogue().volume_stats(volume).await.unwrap().unwrap().qos
}

/// Keeps so many requests under way; returns how many were answered until `end`, and those under way after it.
async fn drive(mut stream: UnixStream, (command, len): (u16, u32), depth: usize, end: Instant) -> u64 {
    let bytes = request(command, len);
    let data_bytes = if command == READ { len } else { 0 };
    for _ in 0..depth {
        stream.write_all(&bytes).await.unwrap();
    }
    let mut answered = 0;
    while Instant::now() < end {
        take_reply(&mut stream, data_bytes).await;
        answered += 1;
        stream.write_all(&bytes).await.unwrap();
    }
    for _ in 0..depth {
        take_reply(&mut stream, data_bytes).await;
        answered += 1;
    }
    answered
}

fn iops(rate: u64, burst: u64) -> QosLimits {
    QosLimits { iops: Some(Ceiling { rate, burst }), ..QosLimits::default() }
}

/// The most that may pass from `begin` to now.
fn most(begin: Instant, rate: u64, burst: u64) -> u64 {
    burst + rate * u64::try_from(begin.elapsed().as_millis() + 1).unwrap() / 1000 + 1
}

/// P8. However many clients there are, a volume gets no more than its ceiling, and all of that; another volume is not held.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_keeps_to_its_ceiling_and_its_neighbour_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), 1, FairShares::Tenants).await;
    for name in ["a", "b"] {
        running.catalogue().create(name, 1 << 30).await.unwrap();
    }
    running.catalogue().set_qos("a", iops(300, 60)).await.unwrap();
    let begin = Instant::now();
    let end = begin + Duration::from_millis(1500);
    let mut driven = Vec::new();
    for (volume, command) in [("a", WRITE), ("a", READ), ("a", TRIM), ("b", WRITE)] {
        let stream = connect(&running.socket, volume).await;
        driven.push(tokio::spawn(drive(stream, (command, 4096), 8, end)));
    }
    let mut answered = Vec::new();
    for task in driven {
        answered.push(task.await.unwrap());
    }
    let held: u64 = answered[..3].iter().sum();
    assert!(held <= most(begin, 300, 60), "{answered:?}");
    // What a busy machine leaves of 60 and 450.
    assert!(held >= 300, "{answered:?}");
    assert!(answered[3] > held, "{answered:?}");
    let status = qos_of(&running, "a").await;
    assert!(status.throttled_requests > 0 && status.throttled_ns > 0, "{status:?}");
    assert!(status.iops.unwrap().spent == held, "{status:?}");
    assert_eq!(qos_of(&running, "b").await.throttled_requests, 0);
    running.stop().await;
}

/// P8, P1. A flush or a farewell behind requests that wait comes in its turn: it costs nothing, and nothing overtakes.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_and_a_farewell_are_not_held_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), 1, FairShares::Tenants).await;
    running.catalogue().create("a", 1 << 30).await.unwrap();
    running.catalogue().set_qos("a", iops(50, 5)).await.unwrap();
    let mut stream = connect(&running.socket, "a").await;
    let mut bytes = Vec::new();
    for cookie in 0_u8..20 {
        let mut one = request(if cookie % 4 == 3 { FLUSH } else { WRITE }, if cookie % 4 == 3 { 0 } else { 4096 });
        one[15] = cookie;
        bytes.extend_from_slice(&one);
    }
    bytes.extend_from_slice(&request(DISCONNECT, 0));
    let begin = Instant::now();
    stream.write_all(&bytes).await.unwrap();
    let mut replies = Vec::new();
    stream.read_to_end(&mut replies).await.unwrap();
    let mut cookies: Vec<u8> = replies.chunks(REPLY_BYTES).map(|reply| reply[15]).collect();
    cookies.sort_unstable();
    assert_eq!(cookies, (0..20).collect::<Vec<_>>(), "all are answered, then the connection ends");
    // 15 writes, of which 5 at once and 50 a second.
    assert!(begin.elapsed() >= Duration::from_millis(190), "{:?}", begin.elapsed());
    assert_eq!(qos_of(&running, "a").await.iops.unwrap().spent, 15, "flushes are free");
    running.stop().await;
}

/// P8. A ceiling is changed while clients wait for it, and none has to come anew; a volume that waits can be closed at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_ceiling_is_changed_live() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), 1, FairShares::Tenants).await;
    let catalogue = running.catalogue();
    catalogue.create("a", 1 << 30).await.unwrap();
    let refused = catalogue.set_qos("a", iops(1, 1)).await.unwrap_err();
    assert!(matches!(refused, CatalogueError::Request(_)), "{refused}");
    catalogue.set_qos("a", iops(10, 10)).await.unwrap();
    let mut stream = connect(&running.socket, "a").await;
    for _ in 0..400 {
        stream.write_all(&request(TRIM, 4096)).await.unwrap();
    }
    for _ in 0..10 {
        take_reply(&mut stream, 0).await;
    }
    let begin = Instant::now();
    catalogue.set_qos("a", QosLimits::default()).await.unwrap();
    for _ in 10..400 {
        take_reply(&mut stream, 0).await;
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "39 seconds by the ceiling");
    catalogue.set_qos("a", iops(10, 10)).await.unwrap();
    for _ in 0..400 {
        stream.write_all(&request(TRIM, 4096)).await.unwrap();
    }
    while qos_of(&running, "a").await.throttled_requests == 0 {
        tokio::task::yield_now().await;
    }
    let begin = Instant::now();
    catalogue.delete("a", true).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(30));
    running.stop().await;
}

/// P8. Ceilings, and what is left of their credits, are there after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn ceilings_and_credits_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), 2, FairShares::Tenants).await;
    running.catalogue().create("a", 1 << 30).await.unwrap();
    let limits = iops(10, 1_000_000);
    running.catalogue().set_qos("a", limits).await.unwrap();
    let stream = connect(&running.socket, "a").await;
    let spent = drive(stream, (TRIM, 4096), 16, Instant::now() + Duration::from_millis(300)).await;
    assert!(spent > 100);
    let left = qos_of(&running, "a").await.iops.unwrap().left;
    assert!(left < 1_000_000 - 50);
    running.stop().await;
    let running = start(folder.path(), 2, FairShares::Tenants).await;
    let status = qos_of(&running, "a").await;
    assert_eq!(status.limits, limits);
    let found = status.iops.unwrap().left;
    // A few seconds at 10 a second.
    assert!((left..left + 600).contains(&found) && found < 1_000_000, "{left} and {found}");
    running.catalogue().set_qos("a", QosLimits::default()).await.unwrap();
    running.stop().await;
    let running = start(folder.path(), 2, FairShares::Tenants).await;
    assert_eq!(qos_of(&running, "a").await, QosStatus::default());
    assert_eq!(running.catalogue().show("a").unwrap().qos, None);
    running.stop().await;
}

/// P8. A tenant's volumes on several shards keep to its ceiling together, and one that is busy alone gets nearly all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_keeps_to_its_ceiling_on_all_shards() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), 2, FairShares::Tenants).await;
    running.catalogue().create_tenant("t", Quota::default()).await.unwrap();
    for name in ["t/a", "t/b"] {
        running.catalogue().create(name, 1 << 30).await.unwrap();
    }
    let shards: Vec<usize> = ["t/a", "t/b"].map(|name| running.catalogue().show(name).unwrap().shard).into();
    assert_ne!(shards[0], shards[1]);
    let begin = Instant::now();
    let qos = TenantQos { limits: iops(400, 40), weight: 1 };
    running.catalogue().set_tenant_qos("t", qos).await.unwrap();
    let end = begin + Duration::from_millis(1500);
    let both = ["t/a", "t/b"].map(|volume| {
        let socket = running.socket.clone();
        tokio::spawn(async move { drive(connect(&socket, volume).await, (TRIM, 4096), 8, end).await })
    });
    let mut answered = 0;
    for task in both {
        answered += task.await.unwrap();
    }
    // Each shard may have one more a second.
    assert!(answered <= most(begin, 402, 42), "{answered}");
    assert!(answered >= 300, "{answered}");
    let spent = async || {
        let shards = running.catalogue().shard_qos().await.unwrap();
        shards.into_iter().map(|shard| shard.tenants[0].1.operations.unwrap().spent).sum::<u64>()
    };
    assert_eq!(spent().await, answered);
    // Its part grows within a few looks.
    let stream = connect(&running.socket, "t/a").await;
    drive(stream, (TRIM, 4096), 8, Instant::now() + Duration::from_secs(1)).await;
    let begun = (Instant::now(), spent().await);
    let stream = connect(&running.socket, "t/a").await;
    drive(stream, (TRIM, 4096), 8, begun.0 + Duration::from_secs(1)).await;
    let passed = spent().await - begun.1;
    assert!(passed <= most(begun.0, 402, 42), "{passed}");
    assert!(passed >= 260, "more than an even part: {passed}");
    running.stop().await;
}

async fn left_to(catalogue: &Catalogue, tenant: TenantId) -> i64 {
    catalogue.tenant_credits().await.unwrap()[&tenant].operations.unwrap()
}

/// P8. A tenant's ceilings, and what is left of their credits, are there after a restart; they are changed live and go with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_ceilings_and_credits_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), 2, FairShares::Tenants).await;
    let catalogue = running.catalogue();
    let id = catalogue.create_tenant("t", Quota::default()).await.unwrap().id;
    catalogue.create("t/a", 1 << 30).await.unwrap();
    for refused in [TenantQos { limits: iops(1, 1), weight: 1 }, TenantQos { weight: 0, ..TenantQos::default() }] {
        let error = catalogue.set_tenant_qos("t", refused).await.unwrap_err();
        assert!(matches!(error, CatalogueError::Request(_)), "{error}");
    }
    let qos = TenantQos { limits: iops(10, 1_000_000), weight: 3 };
    assert_eq!(catalogue.set_tenant_qos("t", qos).await.unwrap().qos, Some(qos));
    let stream = connect(&running.socket, "t/a").await;
    let spent = drive(stream, (TRIM, 4096), 16, Instant::now() + Duration::from_millis(300)).await;
    assert!(spent > 100);
    let before = left_to(&catalogue, id).await;
    assert!((900_000..1_000_000 - 50).contains(&before), "{before}");
    drop(catalogue);
    running.stop().await;
    let running = start(folder.path(), 2, FairShares::Tenants).await;
    let catalogue = running.catalogue();
    assert_eq!(catalogue.show_tenant("t").unwrap().qos, Some(qos));
    let found = left_to(&catalogue, id).await;
    // A few seconds at 10 a second, and one that is lost in each shard's part.
    assert!((before - 4..before + 600).contains(&found) && found < 1_000_000, "{before} and {found}");
    catalogue.set_tenant_qos("t", TenantQos::default()).await.unwrap();
    assert_eq!(catalogue.show_tenant("t").unwrap().qos, None);
    assert!(catalogue.tenant_credits().await.unwrap().is_empty());
    drop(catalogue);
    running.stop().await;
}

/// P8. Beside a quiet tenant, here a volume, one that floods has little under way; both are answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_waits_while_somebody_else_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), 1, FairShares::Volumes).await;
    for name in ["a", "b"] {
        running.catalogue().create(name, 1 << 30).await.unwrap();
    }
    let end = Instant::now() + Duration::from_millis(500);
    let flood = tokio::spawn(drive(connect(&running.socket, "a").await, (WRITE, 64 << 10), 64, end));
    let quiet = drive(connect(&running.socket, "b").await, (WRITE, 4096), 1, end).await;
    assert!(flood.await.unwrap() > 64 && quiet > 8);
    let (flood, quiet) = (qos_of(&running, "a").await, qos_of(&running, "b").await);
    assert!(flood.shared_requests > 0 && flood.shared_ns > 0, "{flood:?}");
    assert_eq!((quiet.shared_requests, flood.throttled_requests), (0, 0));
    running.stop().await;
}

/// P8. The volume's name is found by clients whatever its ceilings are, and a clone has none of its parent's.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_keeps_ceilings_and_a_clone_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), 2, FairShares::Tenants).await;
    let catalogue = running.catalogue();
    catalogue.create("a", 1 << 30).await.unwrap();
    catalogue.set_qos("a", iops(50, 50)).await.unwrap();
    let snapshot = blockd::catalogue::SnapshotName { volume: "a".to_owned(), snapshot: "s".to_owned() };
    catalogue.create_snapshots(std::slice::from_ref(&snapshot), None).await.unwrap();
    assert_eq!(catalogue.clone_snapshot(&snapshot, "b").await.unwrap().qos, None);
    let (rolled, _) = catalogue.rollback(&snapshot, "undo", false).await.unwrap();
    assert_eq!(rolled.qos, Some(iops(50, 50)));
    assert_eq!(qos_of(&running, "a").await.limits, iops(50, 50));
    let client = Client {
        peer: "test".to_owned(),
        entrance: Entrance::Socket { is_own_user: true },
        is_tls: false,
        certificate: None,
    };
    assert!(catalogue.find("a", &client).is_ok());
    running.stop().await;
}
