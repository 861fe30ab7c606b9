//! What the link counts, for metrics to read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters and gauges of a link since it was started.
#[derive(Debug, Default)]
pub struct Statistics {
    /// How often the link was up.
    pub lives: AtomicU64,
    /// Tries of this site, or of others, that did not lead to a life.
    pub failures: AtomicU64,
    /// Frames that have left for the other site.
    pub frames_sent: AtomicU64,
    /// Bytes of these, without those of TLS.
    pub bytes_sent: AtomicU64,
    /// Frames that came.
    pub frames_received: AtomicU64,
    /// Bytes of what came, without those of TLS.
    pub bytes_received: AtomicU64,
    /// Frames that [`crate::LinkHandle::send`] gave back.
    pub rejected: AtomicU64,
    /// The last answer to a ping took so many nanoseconds.
    pub rtt_ns: AtomicU64,
    /// 1 while the link is up.
    pub is_up: AtomicU64,
    /// 1 while the other site answers too slowly.
    pub is_slow: AtomicU64,
}

impl Statistics {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn set(gauge: &AtomicU64, value: u64) {
        gauge.store(value, Ordering::Relaxed);
    }

    pub(crate) fn set_rtt(&self, took: Duration) {
        Self::set(&self.rtt_ns, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}
