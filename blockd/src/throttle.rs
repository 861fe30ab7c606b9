//! How fast the logs of all volumes may grow together while slots are few.
//!
//! The store's thread sets the pace, the shards keep to it: a batch that begins with a write waits until what was appended
//! before it has been paid for by time, and goes alone. So each write waits a little, and none for a whole slot. Reads, trims, snapshots and
//! the system volume do not wait, though what they append is counted too.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use units::Monotonic;

/// What may be appended at once after a pause, as the time that it takes at the pace.
const BURST: Duration = Duration::from_millis(10);

/// The most that is owed, whatever does not wait has appended: no write waits longer for its turn. At the slowest pace the
/// largest batch takes half a second, and several shards may have let one go at the same moment.
const DEBT_MAX: Duration = Duration::from_secs(4);

/// The pace of appends. The shards' clocks begin at the same moment.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Bytes a second; 0 is no limit.
    rate: AtomicU64,
    /// When all that was appended is paid for.
    paid_at: AtomicU64,
}

impl Throttle {
    /// Sets the pace, in bytes a second; `None` is no limit, and nothing is owed any more.
    pub(crate) fn set(&self, rate: Option<u64>) {
        self.rate.store(rate.map_or(0, |rate| rate.max(1)), Relaxed);
        if rate.is_none() {
            self.paid_at.store(0, Relaxed);
        }
    }

    /// Whether there is a pace to be kept.
    pub(crate) fn is_on(&self) -> bool {
        self.rate.load(Relaxed) > 0
    }

    /// When the next write may be appended; `None` is now.
    pub(crate) fn opens_at(&self, now: Monotonic) -> Option<Monotonic> {
        let paid_at = Monotonic(self.paid_at.load(Relaxed));
        (self.is_on() && paid_at > now).then_some(paid_at)
    }

    /// Counts what is appended.
    pub(crate) fn charge(&self, now: Monotonic, bytes: u64) {
        let rate = self.rate.load(Relaxed);
        if rate == 0 {
            return;
        }
        let price = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        let earliest = Monotonic(now.0.saturating_sub(Monotonic::default().plus(BURST).0));
        let latest = now.plus(DEBT_MAX);
        // Of two shards at the same moment each pays: none overwrites what the other has counted.
        let _ = self
            .paid_at
            .fetch_update(Relaxed, Relaxed, |paid_at| Some(Monotonic(paid_at).max(earliest).plus(price).min(latest).0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// What is appended in `duration` by one who has always more, in batches of `batch` bytes.
    fn appended_in(throttle: &Throttle, duration: Duration, batch: u64) -> (u64, Duration) {
        let (mut now, mut bytes, mut longest) = (Monotonic(1 << 40), 0, Duration::ZERO);
        let end = now.plus(duration);
        while now < end {
            throttle.charge(now, batch);
            bytes += batch;
            let next = throttle.opens_at(now).unwrap_or_else(|| now.plus(Duration::from_micros(10)));
            longest = longest.max(next.since(now));
            now = next;
        }
        (bytes, longest)
    }

    /// P6. While slots are few writes go on at the pace that was set, and each waits a little instead of one for long.
    #[test]
    fn appends_keep_to_the_pace_in_small_steps() {
        let throttle = Throttle::default();
        throttle.set(Some(20 * MIB));
        let (bytes, longest) = appended_in(&throttle, Duration::from_secs(2), 64 << 10);
        assert!((38 * MIB..=42 * MIB).contains(&bytes), "{bytes}");
        assert!(longest < Duration::from_millis(15), "{longest:?}");
    }

    /// P6. The largest batches keep to the slowest pace, too, though several shards let one go at the same moment.
    #[test]
    fn large_batches_of_several_shards_keep_to_a_slow_pace() {
        let throttle = Throttle::default();
        throttle.set(Some(8 * MIB));
        let (mut now, mut bytes) = (Monotonic(1 << 40), 0);
        let end = now.plus(Duration::from_secs(60));
        while now < end {
            // Each has looked before any was counted.
            for _ in 0..6 {
                throttle.charge(now, 4 * MIB);
                bytes += 4 * MIB;
            }
            let next = throttle.opens_at(now).unwrap();
            assert!(next.since(now) <= DEBT_MAX);
            now = next;
        }
        assert!((480 * MIB..=504 * MIB).contains(&bytes), "{bytes} bytes in a minute");
    }

    #[test]
    fn without_a_pace_nothing_waits_and_one_that_ends_lets_all_go() {
        let throttle = Throttle::default();
        let now = Monotonic(1 << 40);
        throttle.charge(now, 1 << 40);
        assert_eq!(throttle.opens_at(now), None);
        throttle.set(Some(MIB));
        throttle.charge(now, 1 << 40);
        assert_eq!(throttle.opens_at(now), Some(now.plus(DEBT_MAX)));
        throttle.set(None);
        assert_eq!(throttle.opens_at(now), None);
        throttle.set(Some(MIB));
        assert_eq!(throttle.opens_at(now), None, "what was owed is forgiven");
    }

    #[test]
    fn a_pause_saves_no_more_than_a_burst() {
        let throttle = Throttle::default();
        throttle.set(Some(100 * MIB));
        let now = Monotonic(1 << 40);
        throttle.charge(now, MIB / 2);
        assert_eq!(throttle.opens_at(now), None, "5 of 10 ms");
        throttle.charge(now, MIB);
        assert_eq!(throttle.opens_at(now), Some(now.plus(Duration::from_millis(5))));
    }
}
