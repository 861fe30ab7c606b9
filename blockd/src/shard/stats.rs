//! What a shard counts: plain integers that it alone changes, copied out on request.

use crate::qos::QosStatus;
use std::time::Duration;
use units::VolumeId;
use volume::engine::Status;
use volume::pool::RequestCounts;

/// What is asked of volumes, as far as it is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Trim.
    Trim,
    /// Write-zeroes.
    WriteZeroes,
    /// Flush.
    Flush,
    /// Cache.
    Cache,
    /// Block status.
    BlockStatus,
    /// Resize, checkpoint and their like.
    Control,
}

impl Verb {
    /// Every verb, in the order of [`VolumeStats::verbs`].
    pub const ALL: [Self; 8] = [
        Self::Read,
        Self::Write,
        Self::Trim,
        Self::WriteZeroes,
        Self::Flush,
        Self::Cache,
        Self::BlockStatus,
        Self::Control,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Trim => "trim",
            Self::WriteZeroes => "write_zeroes",
            Self::Flush => "flush",
            Self::Cache => "cache",
            Self::BlockStatus => "block_status",
            Self::Control => "control",
        }
    }
}

/// Counts by powers of two: bucket `i` counts what is at least `2^(i-1)` and less than `2^i`; the last also what is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Histogram<const BUCKETS: usize> {
    /// How many in each bucket.
    pub buckets: [u64; BUCKETS],
    /// Sum of all that was counted.
    pub sum: u64,
}

impl<const BUCKETS: usize> Default for Histogram<BUCKETS> {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum: 0 }
    }
}

impl<const BUCKETS: usize> Histogram<BUCKETS> {
    /// Counts `value`.
    pub(crate) fn record(&mut self, value: u64) {
        let bits = usize::try_from(u64::BITS - value.leading_zeros()).unwrap_or(usize::MAX);
        if let Some(bucket) = self.buckets.get_mut(bits.min(BUCKETS - 1)) {
            *bucket += 1;
        }
        self.sum = self.sum.wrapping_add(value);
    }

    /// Counts `time` in nanoseconds.
    pub(crate) fn record_time(&mut self, time: Duration) {
        self.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(bucket, more)| *bucket += more);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// What is counted of one verb on one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerbStats {
    /// Requests answered with an error.
    pub errors: u64,
    /// Bytes that requests concerned; for trim and write-zeroes the length of their ranges.
    pub bytes: u64,
    /// Time from parsing to answering, in nanoseconds; it also counts the requests.
    pub latency_ns: Histogram<36>,
}

/// What is counted of one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VolumeStats {
    /// By verb, in the order of [`Verb::ALL`].
    pub verbs: [VerbStats; Verb::ALL.len()],
    /// Requests under way now.
    pub in_flight: u64,
    /// Connections now.
    pub connections: u64,
    /// What the engine tells of the volume.
    pub status: Status,
    /// Its ceilings, and what they have held back.
    pub qos: QosStatus,
    /// What clients asked of it and was carried out: what is billed.
    pub carried_out: RequestCounts,
}

impl VolumeStats {
    pub(crate) fn begin(&mut self) {
        self.in_flight += 1;
    }

    pub(crate) fn end(&mut self, verb: Verb, bytes: u64, took: Duration, is_ok: bool) {
        self.in_flight -= 1;
        if let Some(stats) = self.verbs.get_mut(verb as usize) {
            stats.errors += u64::from(!is_ok);
            stats.bytes += bytes;
            stats.latency_ns.record_time(took);
        }
    }

    /// A client was told that what it asked for is done.
    pub(crate) fn count_carried_out(&mut self, verb: Verb, bytes: u64) {
        let none = RequestCounts::default();
        self.carried_out = self.carried_out.plus(match verb {
            Verb::Read => RequestCounts { reads: 1, read_bytes: bytes, ..none },
            Verb::Write => RequestCounts { writes: 1, write_bytes: bytes, ..none },
            Verb::Trim | Verb::WriteZeroes => RequestCounts { writes: 1, ..none },
            Verb::Flush | Verb::Cache | Verb::BlockStatus | Verb::Control => none,
        });
    }

    /// What is counted of a verb.
    #[must_use]
    pub fn verb(&self, verb: Verb) -> VerbStats {
        self.verbs.get(verb as usize).copied().unwrap_or_default()
    }
}

/// What is counted of one shard. Everything but what says "now" only grows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShardStats {
    /// Turns of its loop.
    pub turns: u64,
    /// Calls of io_uring_enter.
    pub ring_enters: u64,
    /// Operations given to the ring.
    pub ring_submissions: u64,
    /// Completions taken from it.
    pub ring_completions: u64,
    /// Waits that began with looking for news without sleeping.
    pub spins: u64,
    /// Those of them that found some.
    pub spin_hits: u64,
    /// Waits that slept.
    pub sleeps: u64,
    /// Receives that ended.
    pub receives: u64,
    /// Sends that ended.
    pub sends: u64,
    /// Requests parsed from one receive.
    pub requests_per_receive: Histogram<12>,
    /// Appends carried out, and those of them by a plain write.
    pub appends: u64,
    /// Appends carried out at once by the shard itself.
    pub appends_inline: u64,
    /// Bytes appended.
    pub append_bytes: u64,
    /// Fetches carried out.
    pub fetches: u64,
    /// Pieces of fetches.
    pub fetch_pieces: u64,
    /// Bytes fetched.
    pub fetch_bytes: u64,
    /// Bytes between them that were read and thrown away, so that the kernel sees one stream.
    pub bridged_bytes: u64,
    /// Syncs of the pool file.
    pub syncs: u64,
    /// Syncs that volumes asked for; several share one.
    pub syncs_asked: u64,
    /// Appends given to the device at once, ahead of the sync that will ask for them.
    pub early_write_backs: u64,
    /// How long syncs took, in nanoseconds.
    pub sync_ns: Histogram<36>,
    /// How long appends took, in nanoseconds.
    pub append_ns: Histogram<36>,
    /// Bytes that the map caches of all volumes may take together.
    pub map_cache_limit_bytes: u64,
    /// Appends, fetches and syncs that failed.
    pub disk_faults: u64,
    /// Bytes appended and not known to be on the disk, now.
    pub dirty_bytes: u64,
    /// Times a connection's socket was not read because of a limit.
    pub stalls: u64,
    /// Connections closed because their client read no replies while others needed the memory.
    pub stall_closes: u64,
    /// Connections now.
    pub connections: u64,
    /// Connections taken so far.
    pub connections_total: u64,
    /// Requests under way now.
    pub in_flight: u64,
    /// Bytes held by requests under way and replies not sent, now.
    pub held_bytes: u64,
    /// Every volume of the shard.
    pub volumes: Vec<(VolumeId, VolumeStats)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_of_their_bit_length() {
        let mut histogram = Histogram::<4>::default();
        for value in [0, 1, 2, 3, 4, u64::MAX] {
            histogram.record(value);
        }
        assert_eq!(histogram.buckets, [1, 1, 2, 2]);
        assert_eq!(histogram.count(), 6);
        let mut sum = histogram;
        sum.merge(&histogram);
        assert_eq!(sum.buckets, [2, 2, 4, 4]);
    }

    #[test]
    fn every_verb_counts_for_itself() {
        for verb in Verb::ALL {
            let mut stats = VolumeStats::default();
            stats.begin();
            stats.end(verb, 512, Duration::from_micros(3), false);
            assert_eq!((stats.verb(verb).bytes, stats.verb(verb).errors, stats.in_flight), (512, 1, 0));
            assert_eq!(Verb::ALL.map(|other| stats.verb(other).latency_ns.count()).iter().sum::<u64>(), 1);
        }
    }
}
