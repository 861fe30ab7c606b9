//! A snapshot as Prometheus text. One function per subject; [`Families`] keeps each name's samples together.

use super::snapshot::{Histogram, MeterMetrics, OperationMetrics, ShardMetrics, Snapshot, VolumeMetrics};
use crate::model::{Pool, PoolState, VolumeState};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use std::collections::BTreeMap;
use std::time::Duration;

/// The media type of what [`render`] makes.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Shows `snapshot` and `more` as Prometheus text.
///
/// # Errors
/// As of the encoder: when a family holds no sample or no name.
///
/// `hidden` is how many volumes there are that the snapshot does not show.
pub(crate) fn render(snapshot: &Snapshot, hidden: usize, more: &[MetricFamily]) -> Result<String, prometheus::Error> {
    let mut families = Families::default();
    families.gauge("aljibe_build_info", "Always 1; the labels tell the program.", &BUILD, 1.0);
    let help = "Volumes whose figures are not shown here, since there are too many: see each tenant's own.";
    families.gauge("aljibe_volumes_not_shown", help, &[], hidden as f64);
    for shard in &snapshot.shards {
        add_shard(&mut families, shard);
    }
    for volume in &snapshot.volumes {
        add_volume(&mut families, volume);
    }
    if let Some(pool) = &snapshot.pool {
        add_pool(&mut families, pool);
    }
    if let Some(meter) = &snapshot.meter {
        add_meter(&mut families, meter);
    }
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    encoder.encode(&families.into_vec(), &mut text)?;
    encoder.encode(more, &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn add_meter(families: &mut Families, meter: &MeterMetrics) {
    let help =
        "Times that registers did not say what the map has: a bill may be wrong. Always 0, unless something is broken.";
    families.counter("aljibe_meter_differences_total", help, &[], meter.differences_total);
    if let Some(read) = meter.read_seconds {
        let help = "When the meters of all volumes were read last, in seconds since 1970: every five minutes.";
        families.gauge("aljibe_meter_read_seconds", help, &[], read as f64);
    }
}

fn add_shard(families: &mut Families, shard: &ShardMetrics) {
    let number = shard.shard.to_string();
    let labels = [("shard", number.as_str())];
    families.gauge("aljibe_connections", "Client connections now.", &labels, shard.connections as f64);
    families.counter("aljibe_connections_total", "Client connections taken.", &labels, shard.connections_total);
    families.gauge("aljibe_requests_in_flight", "Requests under way.", &labels, shard.requests_in_flight as f64);
    families.gauge(
        "aljibe_request_buffer_bytes",
        "Memory that requests under way hold.",
        &labels,
        shard.buffer_bytes as f64,
    );
    families.counter("aljibe_ring_enters_total", "Calls of io_uring_enter.", &labels, shard.ring_enters_total);
    for operation in &shard.operations {
        add_operation(families, &number, operation);
    }
    add_log(families, &labels, shard);
    add_map_cache(families, &labels, shard);
}

fn add_operation(families: &mut Families, shard: &str, figures: &OperationMetrics) {
    let operation = figures.operation.as_str();
    let labels = [("shard", shard), ("operation", operation)];
    for (result, count) in [("ok", figures.completed), ("error", figures.failed)] {
        let labels = [("shard", shard), ("operation", operation), ("result", result)];
        families.counter("aljibe_requests_total", "Requests answered.", &labels, count);
    }
    families.counter("aljibe_request_bytes_total", "Bytes of requests that succeeded.", &labels, figures.bytes);
    families.histogram(
        "aljibe_request_duration_seconds",
        "Time from a request parsed to its answer.",
        &labels,
        &figures.latency,
    );
}

fn add_log(families: &mut Families, labels: &[(&str, &str)], shard: &ShardMetrics) {
    let log = &shard.log;
    families.counter("aljibe_log_batches_total", "Batches appended to logs.", labels, log.batches_total);
    families.counter(
        "aljibe_log_appended_bytes_total",
        "Bytes appended to logs, with headers and padding.",
        labels,
        log.appended_bytes_total,
    );
    families.histogram("aljibe_log_append_duration_seconds", "Time of one append.", labels, &log.append_latency);
    families.histogram("aljibe_log_sync_duration_seconds", "Time of one fdatasync.", labels, &log.sync_latency);
    families.counter(
        "aljibe_corrupt_blocks_total",
        "Blocks read whose bytes were not those written.",
        labels,
        log.corrupt_blocks_total,
    );
}

fn add_map_cache(families: &mut Families, labels: &[(&str, &str)], shard: &ShardMetrics) {
    let cache = shard.map_cache;
    families.gauge("aljibe_map_cache_bytes", "Memory of map pages.", labels, cache.bytes as f64);
    families.gauge(
        "aljibe_map_cache_limit_bytes",
        "Most memory that map pages may take.",
        labels,
        cache.limit_bytes as f64,
    );
    families.counter("aljibe_map_lookups_total", "Reads looked up in the map.", labels, cache.lookups_total);
    families.counter("aljibe_map_page_loads_total", "Map pages loaded for requests.", labels, cache.page_loads_total);
}

fn add_volume(families: &mut Families, volume: &VolumeMetrics) {
    let labels = [("volume", volume.name.as_str())];
    families.gauge("aljibe_volume_size_bytes", "Size of the volume.", &labels, volume.size_bytes as f64);
    if let Some(written) = volume.written_bytes {
        families.gauge("aljibe_volume_written_bytes", "Bytes of the volume that hold data.", &labels, written as f64);
    }
    if let Some(held) = volume.history_bytes {
        families.gauge("aljibe_volume_history_bytes", "Bytes that only its history holds.", &labels, held as f64);
    }
    if let Some(since) = volume.history_since_seconds {
        let help = "The first second that its history reaches back to, since 1970.";
        families.gauge("aljibe_volume_history_since_seconds", help, &labels, since as f64);
    }
    families.gauge("aljibe_volume_connections", "Clients attached now.", &labels, volume.connections as f64);
    for state in [VolumeState::Online, VolumeState::Poisoned, VolumeState::Quarantined] {
        let state_name = state.to_string();
        let labels = [("volume", volume.name.as_str()), ("state", state_name.as_str())];
        let is_in_it = f64::from(u8::from(volume.state == state));
        families.gauge("aljibe_volume_state", "1 for the state that the volume is in.", &labels, is_in_it);
    }
    add_waits(families, volume);
    for figures in &volume.operations {
        let operation = figures.operation.as_str();
        for (result, count) in [("ok", figures.completed), ("error", figures.failed)] {
            let labels = [("volume", volume.name.as_str()), ("operation", operation), ("result", result)];
            families.counter("aljibe_volume_requests_total", "Requests answered on the volume.", &labels, count);
        }
        let labels = [("volume", volume.name.as_str()), ("operation", operation)];
        let help = "Bytes of requests on the volume that succeeded.";
        families.counter("aljibe_volume_request_bytes_total", help, &labels, figures.bytes);
    }
}

fn add_waits(families: &mut Families, volume: &VolumeMetrics) {
    let waits = volume.waits;
    for (reason, count, time) in
        [("ceiling", waits.throttled, waits.throttled_for), ("share", waits.shared, waits.shared_for)]
    {
        let labels = [("volume", volume.name.as_str()), ("reason", reason)];
        let help = "Requests that waited before they were taken.";
        families.counter("aljibe_volume_waits_total", help, &labels, count);
        let help = "Time that requests waited before they were taken, added up.";
        families.seconds("aljibe_volume_wait_seconds_total", help, &labels, time);
    }
    for (unit, credits) in [("operations", waits.operation_credits), ("bytes", waits.byte_credits)] {
        let labels = [("volume", volume.name.as_str()), ("unit", unit)];
        if let Some(credits) = credits {
            let help = "Credits that are left of a ceiling; below 0 what is owed.";
            families.gauge("aljibe_volume_credits", help, &labels, credits as f64);
        }
    }
}

fn add_pool(families: &mut Families, pool: &Pool) {
    families.gauge("aljibe_pool_size_bytes", "Size of the pool.", &[], pool.size_bytes as f64);
    families.gauge("aljibe_pool_slot_bytes", "Size of a slot.", &[], pool.slot_bytes as f64);
    let slots = pool.slots;
    for (state, count) in [("free", slots.free), ("reserved", slots.reserved), ("used", slots.used)] {
        families.gauge("aljibe_pool_slots", "Slots of the pool by use.", &[("state", state)], count as f64);
    }
    families.gauge("aljibe_pool_capacity_slots", "Slots of the pool.", &[], slots.total as f64);
    families.gauge("aljibe_pool_segments", "Segments that hold data.", &[], pool.segments as f64);
    families.gauge("aljibe_pool_volumes", "Volumes in the pool.", &[], pool.volumes as f64);
    let compaction = &pool.compaction;
    let help = "Slots filled by compaction.";
    families.counter("aljibe_compaction_packs_total", help, &[], compaction.packs_written);
    let help = "Segments moved by compaction.";
    families.counter("aljibe_compaction_segments_total", help, &[], compaction.segments_moved);
    let help = "Bytes of data moved by compaction.";
    families.counter("aljibe_compaction_moved_bytes_total", help, &[], compaction.bytes_moved);
    let help = "Rounds of compaction given up.";
    families.counter("aljibe_compaction_given_up_total", help, &[], compaction.rounds_given_up);
    let help = "Segments that compaction does not move, since the disk does not give what was written.";
    families.gauge("aljibe_compaction_suspect_segments", help, &[], compaction.suspects as f64);
    for state in [PoolState::Online, PoolState::Full, PoolState::Failed] {
        let is_in_it = f64::from(u8::from(pool.state == state));
        let name = state.to_string();
        families.gauge("aljibe_pool_state", "1 for the state that the pool is in.", &[("state", &name)], is_in_it);
    }
}

/// Families by name.
#[derive(Default)]
struct Families(BTreeMap<&'static str, MetricFamily>);

impl Families {
    fn gauge(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_gauge(gauge);
        metric.set_label(pairs(labels));
        self.family(name, help, MetricType::GAUGE).push(metric);
    }

    fn counter(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.count(name, help, labels, value as f64);
    }

    fn seconds(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: Duration) {
        self.count(name, help, labels, value.as_secs_f64());
    }

    fn count(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_counter(counter);
        self.family(name, help, MetricType::COUNTER).push(metric);
    }

    fn histogram(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: &Histogram) {
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(cumulative(value));
        self.family(name, help, MetricType::HISTOGRAM).push(metric);
    }

    fn family(&mut self, name: &'static str, help: &str, kind: MetricType) -> &mut Vec<Metric> {
        let family = self.0.entry(name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        family.mut_metric()
    }

    fn into_vec(self) -> Vec<MetricFamily> {
        self.0.into_values().collect()
    }
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

/// The format counts in each bucket what is in those before it, too; the encoder adds the one for infinity.
fn cumulative(histogram: &Histogram) -> proto::Histogram {
    let mut count = 0_u64;
    let buckets = histogram.buckets.iter().map(|bucket| {
        count = count.saturating_add(bucket.count);
        let mut shown = proto::Bucket::default();
        shown.set_upper_bound(bucket.up_to.as_secs_f64());
        shown.set_cumulative_count(count);
        shown
    });
    let mut shown = proto::Histogram::default();
    shown.set_bucket(buckets.collect());
    shown.set_sample_count(count.saturating_add(histogram.above));
    shown.set_sample_sum(histogram.sum.as_secs_f64());
    shown
}

const BUILD: [(&str, &str); 1] = [("version", env!("CARGO_PKG_VERSION"))];

#[cfg(test)]
mod tests {
    use super::super::snapshot::{Bucket, Operation, VolumeOperationMetrics, WaitMetrics};
    use super::*;

    fn snapshot() -> Snapshot {
        let latency = Histogram {
            buckets: vec![
                Bucket { up_to: Duration::from_micros(50), count: 3 },
                Bucket { up_to: Duration::from_micros(100), count: 2 },
            ],
            above: 1,
            sum: Duration::from_micros(500),
        };
        let read = OperationMetrics { operation: Operation::Read, completed: 6, failed: 1, bytes: 24576, latency };
        let shard = |number| ShardMetrics { shard: number, operations: vec![read.clone()], ..Default::default() };
        let of_volume = VolumeOperationMetrics { operation: Operation::Read, completed: 6, failed: 1, bytes: 24576 };
        Snapshot {
            shards: vec![shard(0), shard(1)],
            volumes: vec![VolumeMetrics {
                name: "vm-1".into(),
                size_bytes: 1 << 30,
                written_bytes: Some(4096),
                history_bytes: Some(8192),
                history_since_seconds: Some(1_795_490_107),
                connections: 1,
                state: VolumeState::Online,
                operations: vec![of_volume],
                waits: WaitMetrics {
                    throttled: 3,
                    throttled_for: Duration::from_millis(1500),
                    byte_credits: Some(-7),
                    ..WaitMetrics::default()
                },
            }],
            pool: None,
            meter: Some(MeterMetrics { differences_total: 2, read_seconds: Some(1_795_490_100) }),
        }
    }

    /// P7. That a bill may be wrong can be watched.
    #[test]
    fn the_meters_differences_are_shown() {
        let text = render(&snapshot(), 0, &[]).unwrap();
        assert!(text.contains("\naljibe_meter_differences_total 2\n"), "{text}");
        assert!(text.contains("\naljibe_meter_read_seconds 1795490100\n"), "{text}");
    }

    #[test]
    fn histograms_are_cumulative_and_end_at_infinity() {
        let text = render(&snapshot(), 0, &[]).unwrap();
        let of = |bound: &str| {
            format!("aljibe_request_duration_seconds_bucket{{shard=\"1\",operation=\"read\",le=\"{bound}\"}}")
        };
        for (bound, count) in [("0.00005", 3), ("0.0001", 5), ("+Inf", 6)] {
            assert!(text.contains(&format!("{} {count}\n", of(bound))), "{text}");
        }
        assert!(text.contains("aljibe_request_duration_seconds_count{shard=\"1\",operation=\"read\"} 6\n"));
        assert!(text.contains("aljibe_request_duration_seconds_sum{shard=\"1\",operation=\"read\"} 0.0005\n"));
    }

    #[test]
    fn every_family_is_described_once_and_named_for_us() {
        let text = render(&snapshot(), 0, &[]).unwrap();
        let named = |prefix: &str| -> Vec<&str> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
            lines.filter_map(|rest| rest.split(' ').next()).collect()
        };
        let helped = named("# HELP ");
        assert_eq!(helped, named("# TYPE "));
        assert!(helped.is_sorted());
        assert!(helped.iter().all(|name| name.starts_with("aljibe_")), "{helped:?}");
        assert!(text.contains("aljibe_volume_requests_total{volume=\"vm-1\",operation=\"read\",result=\"error\"} 1\n"));
        assert!(text.contains("aljibe_volume_state{volume=\"vm-1\",state=\"online\"} 1\n"));
        assert!(text.contains("aljibe_volume_wait_seconds_total{volume=\"vm-1\",reason=\"ceiling\"} 1.5\n"));
        assert!(text.contains("aljibe_volume_credits{volume=\"vm-1\",unit=\"bytes\"} -7\n"));
    }
}
