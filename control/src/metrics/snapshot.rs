//! The figures as plain data.

use crate::model::{Pool, VolumeState};
use std::time::Duration;

/// Every figure at about one moment. Counters count from the daemon's start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// By shard.
    pub shards: Vec<ShardMetrics>,
    /// By volume.
    pub volumes: Vec<VolumeMetrics>,
    /// The pool, unless it is not open.
    pub pool: Option<Pool>,
    /// The meter, unless the volumes are a tenant's.
    pub meter: Option<MeterMetrics>,
}

/// What is to be watched of the meter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MeterMetrics {
    /// How often registers did not say what the map has.
    pub differences_total: u64,
    /// When all volumes were read last, in seconds since 1970; `None` before that.
    pub read_seconds: Option<u64>,
}

/// A request's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Read bytes.
    Read,
    /// Write bytes.
    Write,
    /// Make writes durable.
    Flush,
    /// Forget a range.
    Trim,
    /// Make a range zeros.
    WriteZeroes,
    /// Bring a range near.
    Cache,
    /// Tell what holds data.
    BlockStatus,
}

/// A shard's figures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShardMetrics {
    /// Its number.
    pub shard: u32,
    /// Connections now.
    pub connections: u64,
    /// Connections taken so far.
    pub connections_total: u64,
    /// Requests under way now.
    pub requests_in_flight: u64,
    /// Bytes of memory that requests under way hold now.
    pub buffer_bytes: u64,
    /// Requests by kind.
    pub operations: Vec<OperationMetrics>,
    /// Calls of `io_uring_enter`.
    pub ring_enters_total: u64,
    /// Of the logs.
    pub log: LogMetrics,
    /// Of the map's pages in memory.
    pub map_cache: MapCacheMetrics,
}

/// Requests of one kind on one shard.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationMetrics {
    /// The kind.
    pub operation: Operation,
    /// Answered with success.
    pub completed: u64,
    /// Answered with an error.
    pub failed: u64,
    /// Bytes of those answered with success.
    pub bytes: u64,
    /// From parsed to answered.
    pub latency: Histogram,
}

/// What a shard's logs did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogMetrics {
    /// Batches appended.
    pub batches_total: u64,
    /// Bytes appended, with headers and padding.
    pub appended_bytes_total: u64,
    /// Of one append.
    pub append_latency: Histogram,
    /// Of one fdatasync.
    pub sync_latency: Histogram,
    /// Blocks whose bytes were not those written.
    pub corrupt_blocks_total: u64,
}

/// A shard's map pages in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MapCacheMetrics {
    /// Bytes held now.
    pub bytes: u64,
    /// Most bytes it may hold.
    pub limit_bytes: u64,
    /// Reads, and merges of partial blocks, that were looked up.
    pub lookups_total: u64,
    /// Pages that had to be loaded from the index for requests.
    pub page_loads_total: u64,
}

/// A volume's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeMetrics {
    /// Its name.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Bytes that hold data, when known.
    pub written_bytes: Option<u64>,
    /// Bytes that its history holds, when it has one.
    pub history_bytes: Option<u64>,
    /// The first second of that, in seconds since 1970, when there is one.
    pub history_since_seconds: Option<i64>,
    /// Clients attached now.
    pub connections: u64,
    /// Whether it serves.
    pub state: VolumeState,
    /// Requests by kind.
    pub operations: Vec<VolumeOperationMetrics>,
    /// Requests that had to wait.
    pub waits: WaitMetrics,
}

/// A volume's requests that had to wait before they were taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WaitMetrics {
    /// For a ceiling, the volume's or its tenant's.
    pub throttled: u64,
    /// Time that these waited, added up.
    pub throttled_for: Duration,
    /// For the share of its tenant.
    pub shared: u64,
    /// Time that these waited, added up.
    pub shared_for: Duration,
    /// Credits for operations that are left, where there is a ceiling.
    pub operation_credits: Option<i64>,
    /// Credits for bytes that are left, where there is a ceiling.
    pub byte_credits: Option<i64>,
}

/// Requests of one kind on one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeOperationMetrics {
    /// The kind.
    pub operation: Operation,
    /// Answered with success.
    pub completed: u64,
    /// Answered with an error.
    pub failed: u64,
    /// Bytes of those answered with success.
    pub bytes: u64,
}

/// How long things took: counts of those up to each bound, and of those above all of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// By rising bound; each counts what is above the bound before it.
    pub buckets: Vec<Bucket>,
    /// Those above the last bound.
    pub above: u64,
    /// All of them added up.
    pub sum: Duration,
}

/// One step of a [`Histogram`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// The longest that it counts.
    pub up_to: Duration,
    /// How many.
    pub count: u64,
}

impl Operation {
    /// Its name as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Trim => "trim",
            Self::WriteZeroes => "write_zeroes",
            Self::Cache => "cache",
            Self::BlockStatus => "block_status",
        }
    }
}
