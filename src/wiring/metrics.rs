//! The shards' counters in the words of the metrics.

use blockd::catalogue::MeterFigures;
use blockd::shard::{Histogram as Counts, ShardStats, Verb, VerbStats, VolumeStats};
use control::Volume;
use control::metrics::{
    Bucket, Histogram, LogMetrics, MapCacheMetrics, MeterMetrics, Operation, OperationMetrics, ShardMetrics,
    VolumeMetrics, VolumeOperationMetrics, WaitMetrics,
};
use jiff::Timestamp;
use std::time::Duration;
use volume::engine::Status;

/// The verbs that clients use, and their names.
const OPERATIONS: [(Verb, Operation); 7] = [
    (Verb::Read, Operation::Read),
    (Verb::Write, Operation::Write),
    (Verb::Flush, Operation::Flush),
    (Verb::Trim, Operation::Trim),
    (Verb::WriteZeroes, Operation::WriteZeroes),
    (Verb::Cache, Operation::Cache),
    (Verb::BlockStatus, Operation::BlockStatus),
];

/// The first bucket that is shown apart, 2^10 ns, about a microsecond; shorter times are counted in it.
const FIRST_BUCKET: usize = 10;

/// A shard's figures.
pub(super) fn of_shard(shard: u32, stats: &ShardStats) -> ShardMetrics {
    let sum = |figure: fn(&Status) -> u64| stats.volumes.iter().map(|(_, volume)| figure(&volume.status)).sum();
    ShardMetrics {
        shard,
        connections: stats.connections,
        connections_total: stats.connections_total,
        requests_in_flight: stats.in_flight,
        buffer_bytes: stats.held_bytes,
        operations: OPERATIONS.map(|(verb, operation)| shard_operation(stats, verb, operation)).into(),
        ring_enters_total: stats.ring_enters,
        log: LogMetrics {
            batches_total: stats.appends,
            appended_bytes_total: stats.append_bytes,
            append_latency: histogram(&stats.append_ns),
            sync_latency: histogram(&stats.sync_ns),
            corrupt_blocks_total: sum(|status| status.corrupt_blocks),
        },
        map_cache: MapCacheMetrics {
            bytes: sum(|status| status.map_bytes as u64),
            limit_bytes: stats.map_cache_limit_bytes,
            lookups_total: sum(|status| status.map_lookups),
            page_loads_total: sum(|status| status.map_page_loads),
        },
    }
}

/// The meter's.
pub(super) fn of_meter(figures: MeterFigures) -> MeterMetrics {
    let read_seconds = Some(figures.read_ms / 1000).filter(|read| *read > 0);
    MeterMetrics { differences_total: figures.differences, read_seconds }
}

/// A volume's figures.
pub(super) fn of_volume(volume: Volume, stats: Option<&VolumeStats>) -> VolumeMetrics {
    VolumeMetrics {
        name: volume.name,
        size_bytes: volume.size_bytes,
        written_bytes: volume.written_bytes,
        history_bytes: volume.history.as_ref().map(|history| history.bytes),
        history_since_seconds: volume.history.and_then(|history| history.since).map(Timestamp::as_second),
        connections: volume.connections,
        state: volume.state,
        operations: stats.map(volume_operations).unwrap_or_default(),
        waits: stats.map(waits).unwrap_or_default(),
    }
}

fn waits(stats: &VolumeStats) -> WaitMetrics {
    let qos = stats.qos;
    WaitMetrics {
        throttled: qos.throttled_requests,
        throttled_for: Duration::from_nanos(qos.throttled_ns),
        shared: qos.shared_requests,
        shared_for: Duration::from_nanos(qos.shared_ns),
        operation_credits: qos.iops.map(|credits| credits.left),
        byte_credits: qos.bandwidth.map(|credits| credits.left),
    }
}

/// A volume's requests by kind.
fn volume_operations(stats: &VolumeStats) -> Vec<VolumeOperationMetrics> {
    let operation = |(verb, operation)| {
        let VerbStats { errors, bytes, latency_ns } = stats.verb(verb);
        let completed = latency_ns.count() - errors;
        VolumeOperationMetrics { operation, completed, failed: errors, bytes }
    };
    OPERATIONS.map(operation).into()
}

fn shard_operation(stats: &ShardStats, verb: Verb, operation: Operation) -> OperationMetrics {
    let mut sum = VerbStats::default();
    for (_, volume) in &stats.volumes {
        let of_volume = volume.verb(verb);
        sum.errors += of_volume.errors;
        sum.bytes += of_volume.bytes;
        sum.latency_ns.merge(&of_volume.latency_ns);
    }
    OperationMetrics {
        operation,
        completed: sum.latency_ns.count() - sum.errors,
        failed: sum.errors,
        bytes: sum.bytes,
        latency: histogram(&sum.latency_ns),
    }
}

/// Bucket `i` counts what took less than 2^i ns; the last one what took longer, too.
fn histogram<const BUCKETS: usize>(counts: &Counts<BUCKETS>) -> Histogram {
    let (short, rest) = counts.buckets.split_at(FIRST_BUCKET.min(BUCKETS));
    let Some((last, rest)) = rest.split_last() else { return Histogram::default() };
    let buckets = (FIRST_BUCKET..).zip(rest).map(|(power, count)| {
        let more = if power == FIRST_BUCKET { short.iter().sum() } else { 0 };
        Bucket { up_to: Duration::from_nanos(1 << power), count: count + more }
    });
    Histogram { buckets: buckets.collect(), above: *last, sum: Duration::from_nanos(counts.sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_is_in_the_bucket_that_bounds_it() {
        let counts = Counts { buckets: [1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16], sum: 77 };
        let shown = histogram(&counts);
        let buckets: Vec<_> = shown.buckets.iter().map(|b| (b.up_to.as_nanos(), b.count)).collect();
        assert_eq!(buckets, [(1024, 5), (2048, 4), (4096, 8)]);
        assert_eq!((shown.above, shown.sum), (16, Duration::from_nanos(77)));
    }
}
