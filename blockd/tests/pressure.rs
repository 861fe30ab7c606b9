//! Clients on the wire of a whole service: memory stays within its limits whatever they hold, the others are served, and who
//! is attached sees a volume change its size.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a surprise is a failed test")]

mod wire;

use blockd::catalogue::{CatalogueError, MeterConfig};
use blockd::qos::FairShares;
use blockd::shard::ShardStats;
use blockd::{Limits, ServingConfig};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use wire::{READ, REPLY_BYTES, Running, WRITE, connect, request, take_reply};

/// What a client asks for at a time.
const LARGE: u32 = 2 << 20;

const LIMITS: Limits = Limits {
    connection_requests_max: 256,
    connection_bytes_max: 2 << 20,
    shard_bytes_max: 8 << 20,
    guaranteed_bytes: 64 << 10,
    pooled_bytes_max: 1 << 20,
    writeback_bytes: 4 << 20,
    dirty_bytes_max: 256 << 20,
    spin_max: Duration::ZERO,
    client_stall_max: Duration::from_millis(1),
    fair_shares: FairShares::Tenants,
    drain_max: Duration::from_secs(10),
};

/// One shard with one volume, "v".
struct OneVolume {
    _folder: TempDir,
    service: Running,
}

impl OneVolume {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let how = ServingConfig {
            shard_count: 1,
            is_direct: false,
            map_cache_bytes: 16 << 20,
            scrub_bytes_per_second: 1 << 30,
            limits: LIMITS,
            meter: MeterConfig::default(),
            mirror: None,
        };
        let service = Running::start(folder.path(), how).await;
        service.catalogue().create("v", 1 << 30).await.unwrap();
        Self { _folder: folder, service }
    }

    fn socket(&self) -> PathBuf {
        self.service.socket.clone()
    }

    async fn connect(&self) -> UnixStream {
        connect(&self.service.socket, "v").await
    }

    async fn stats(&self) -> ShardStats {
        self.service.catalogue().shard_stats(0).await.unwrap()
    }

    async fn stats_where(&self, is_so: impl Fn(&ShardStats) -> bool) -> ShardStats {
        loop {
            let stats = self.stats().await;
            if is_so(&stats) {
                return stats;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn stop(self) {
        self.service.stop().await;
    }
}

/// P6. A payload counts from its first byte on: half-sent writes wait for room like others, and give it up to those
/// who wait when nothing more comes.
#[tokio::test(flavor = "multi_thread")]
async fn half_sent_writes_stay_within_the_memory_limit_and_do_not_keep_others_out() {
    let running = OneVolume::start().await;
    let mut half_sent = JoinSet::new();
    for _ in 0..12 {
        let socket = running.socket();
        half_sent.spawn(async move {
            let mut stream = connect(&socket, "v").await;
            let bytes = request(WRITE, LARGE);
            let _ = stream.write_all(&bytes[..bytes.len() - 1]).await;
            // Until it is closed.
            let _ = stream.read(&mut [0]).await;
        });
    }
    running.stats_where(|stats| stats.stalls > 0 && stats.held_bytes >= LIMITS.shard_bytes_max).await;
    let mut honest = running.connect().await;
    honest.write_all(&request(WRITE, 4096)).await.unwrap();
    take_reply(&mut honest, 0).await;
    let honest = tokio::spawn(async move {
        honest.write_all(&request(WRITE, LARGE)).await.unwrap();
        take_reply(&mut honest, 0).await;
    });
    while !honest.is_finished() {
        assert!(running.stats().await.held_bytes < LIMITS.shard_bytes_max + u64::from(LARGE));
    }
    honest.await.unwrap();
    assert!(running.stats().await.stall_closes > 0);
    half_sent.shutdown().await;
    running.stats_where(|stats| stats.connections == 0 && stats.held_bytes == 0).await;
    running.stop().await;
}

/// P6. Nobody waits for ever for memory that is held for replies which are not read.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_read_no_replies_are_closed_when_others_wait_for_the_memory() {
    let running = OneVolume::start().await;
    let mut deaf = Vec::new();
    for _ in 0..6 {
        let mut stream = running.connect().await;
        for _ in 0..8 {
            stream.write_all(&request(READ, LARGE)).await.unwrap();
        }
        deaf.push(stream);
    }
    running.stats_where(|stats| stats.held_bytes >= LIMITS.shard_bytes_max).await;
    let mut honest = running.connect().await;
    for len in [4096, LIMITS.guaranteed_bytes.try_into().unwrap(), LARGE] {
        honest.write_all(&request(READ, len)).await.unwrap();
        take_reply(&mut honest, len).await;
    }
    assert!(running.stats().await.stall_closes > 0);
    drop((deaf, honest));
    running.stats_where(|stats| stats.connections == 0 && stats.held_bytes == 0).await;
    running.stop().await;
}

/// P2. A client that is attached while its volume grows or shrinks is held to the size of the moment.
#[tokio::test(flavor = "multi_thread")]
async fn an_attached_client_is_held_to_the_size_that_the_volume_has_now() {
    const EINVAL: u32 = 22;
    let running = OneVolume::start().await;
    let mut stream = running.connect().await;
    let read_at = |offset: u64| {
        let mut bytes = request(READ, 4096);
        bytes[16..24].copy_from_slice(&offset.to_be_bytes());
        bytes
    };
    let catalogue = running.service.catalogue();
    catalogue.resize("v", 2 << 30, false).await.unwrap();
    stream.write_all(&read_at((2 << 30) - 4096)).await.unwrap();
    take_reply(&mut stream, 4096).await;
    catalogue.resize("v", 1 << 30, false).await.unwrap();
    let refused = catalogue.resize("v", (1 << 30) - 512, true).await.unwrap_err();
    assert!(matches!(refused, CatalogueError::Request(_)), "{refused}");
    stream.write_all(&read_at(1 << 30)).await.unwrap();
    let mut reply = [0; REPLY_BYTES];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[4..8], EINVAL.to_be_bytes());
    stream.write_all(&read_at((1 << 30) - 4096)).await.unwrap();
    take_reply(&mut stream, 4096).await;
    drop(stream);
    running.stop().await;
}

/// P6. However many ask for their little and read nothing of it: they hold twice the limit at most, and are closed when
/// somebody else waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_reads_no_replies_holds_no_more_than_twice_the_limit() {
    let running = OneVolume::start().await;
    let guaranteed = u32::try_from(LIMITS.guaranteed_bytes).unwrap();
    let mut crowd = Vec::new();
    for _ in 0..400 {
        let mut stream = running.connect().await;
        // The socket holds some of them.
        for _ in 0..64 {
            // It may have been closed already.
            let _ = stream.write_all(&request(READ, guaranteed)).await;
        }
        crowd.push(stream);
        let held_bytes = running.stats().await.held_bytes;
        assert!(held_bytes <= 2 * LIMITS.shard_bytes_max + LIMITS.guaranteed_bytes, "{held_bytes} bytes");
    }
    running.stats_where(|stats| stats.stall_closes > 0).await;
    let mut honest = running.connect().await;
    honest.write_all(&request(READ, LARGE)).await.unwrap();
    take_reply(&mut honest, LARGE).await;
    drop((crowd, honest));
    running.stats_where(|stats| stats.connections == 0 && stats.held_bytes == 0).await;
    running.stop().await;
}

/// P6. Who reads nothing is left alone as long as nobody else needs the memory.
#[tokio::test(flavor = "multi_thread")]
async fn one_client_holds_its_share_and_no_more() {
    let running = OneVolume::start().await;
    let mut deaf = running.connect().await;
    for _ in 0..8 {
        deaf.write_all(&request(READ, LARGE)).await.unwrap();
    }
    running.stats_where(|stats| stats.stalls > 0).await;
    let mut other = running.connect().await;
    for _ in 0..8 {
        other.write_all(&request(WRITE, LARGE)).await.unwrap();
        take_reply(&mut other, 0).await;
        assert!(running.stats().await.held_bytes <= u64::from(LARGE));
    }
    for _ in 0..8 {
        take_reply(&mut deaf, LARGE).await;
    }
    assert_eq!(running.stats().await.stall_closes, 0);
    running.stop().await;
}
