//! The daemon's figures as plain data, and their Prometheus text.
//!
//! Names begin with `aljibe_`, units are base units, counters end in `_total`. Latencies are kept by shard and
//! operation, not by volume, so that the number of series stays in proportion to the volumes.

mod render;
mod requests;
mod snapshot;

pub(crate) use render::{CONTENT_TYPE, render};
pub(crate) use requests::RequestMetrics;
pub use snapshot::{
    Bucket, Histogram, LogMetrics, MapCacheMetrics, MeterMetrics, Operation, OperationMetrics, ShardMetrics, Snapshot,
    VolumeMetrics, VolumeOperationMetrics, WaitMetrics,
};
