//! What tests of the serving share.

use blockd::catalogue::MeterConfig;
use blockd::open::{OpenPool, PoolConfig, PoolShape};
use blockd::{Limits, Serving, ServingConfig};
use std::path::Path;

/// Serves a pool of 64 MiB in slots of 1 MiB, in a folder, by two shards.
pub(crate) async fn serve(folder: &Path) -> Serving {
    let config = PoolConfig {
        pool: folder.join("pool"),
        index: folder.join("index"),
        shape: PoolShape { pool_bytes: Some(64 << 20), slot_bytes: 1 << 20 },
        is_written_whole: false,
    };
    let how = ServingConfig {
        shard_count: 2,
        is_direct: false,
        map_cache_bytes: 16 << 20,
        limits: Limits::default(),
        meter: MeterConfig::default(),
        scrub_bytes_per_second: 1 << 30,
        mirror: None,
    };
    Serving::start(OpenPool::open_or_make(&config).unwrap(), how).await.unwrap()
}
