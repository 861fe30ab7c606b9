//! Slows writers down when slots become few, to what compaction gives back: a little below that when almost none is left,
//! above it while there are some.

use crate::throttle::Throttle;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use volume::compact::Shortage;

/// For how long back it is counted what compaction gave back: longer than a round takes. Where it began only then, since
/// when, and at least so long.
const WINDOW_MAX: Duration = Duration::from_secs(8);
const WINDOW_MIN: Duration = Duration::from_secs(2);

/// Writers get so many bytes a second at least while there are slots.
const RATE_MIN: u64 = 8 << 20;

/// Sets the throttle.
#[derive(Debug)]
pub(super) struct Pacing {
    throttle: Arc<Throttle>,
    slot_bytes: u64,
    /// Slots that became free, less those that were taken for packs.
    gains: VecDeque<(Instant, i64)>,
}

impl Pacing {
    pub(super) const fn new(throttle: Arc<Throttle>, slot_bytes: u64) -> Self {
        Self { throttle, slot_bytes, gains: VecDeque::new() }
    }

    /// Notes by how many slots compaction has made the free ones more, or fewer.
    pub(super) fn note(&mut self, now: Instant, slots: i64) {
        while self.gains.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW_MAX) {
            self.gains.pop_front();
        }
        if slots != 0 {
            self.gains.push_back((now, slots));
        }
    }

    /// Sets the pace; `shortage` is `None` while slots are plenty, and when nothing is to be gained by waiting.
    pub(super) fn set(&self, now: Instant, shortage: Option<Shortage>) {
        self.throttle.set(shortage.map(|shortage| self.rate(now, shortage)));
    }

    /// Half of what compaction gives back when no slot is left, twice of it at the bound at which the throttle ends.
    fn rate(&self, now: Instant, shortage: Shortage) -> u64 {
        let slots: i64 = self.gains.iter().map(|(_, slots)| slots).sum();
        let since = self.gains.front().map_or(Duration::ZERO, |(at, _)| now.duration_since(*at));
        let milliseconds = u64::try_from(since.clamp(WINDOW_MIN, WINDOW_MAX).as_millis()).unwrap_or(u64::MAX);
        let gained =
            u64::try_from(slots).unwrap_or(0).saturating_mul(self.slot_bytes).saturating_mul(1000) / milliseconds;
        let (left, bound) = (u64::from(shortage.left), u64::from(shortage.bound.max(1)));
        let rate = gained.saturating_mul(bound + 3 * left.min(bound)) / (2 * bound);
        rate.max(RATE_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn pacing(gains: &[(u64, i64)]) -> (Pacing, Instant) {
        let mut pacing = Pacing::new(Arc::default(), 32 * MIB);
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        gains.iter().for_each(|(seconds, slots)| pacing.note(at(*seconds), *slots));
        (pacing, begin)
    }

    /// P6. Near full, writers get what compaction gives back: the fewer slots are left, the less.
    #[test]
    fn writers_get_what_compaction_gives_back() {
        let (pacing, begin) = pacing(&[(1, -1), (2, 5), (3, -1), (4, 5)]);
        let rates_at = |seconds| {
            let now = begin + Duration::from_secs(seconds);
            [0, 2, 4, 6].map(|left| pacing.rate(now, Shortage { left, bound: 6 }) / MIB)
        };
        assert_eq!(rates_at(9), [16, 32, 48, 64]);
        assert_eq!(rates_at(5), [32, 64, 96, 128], "it began only four seconds ago");
    }

    #[test]
    fn what_was_gained_long_ago_does_not_count_and_writers_never_stand_still() {
        let (mut pacing, begin) = pacing(&[(1, 50)]);
        pacing.note(begin + Duration::from_secs(20), 0);
        let now = begin + Duration::from_secs(21);
        assert_eq!(pacing.rate(now, Shortage { left: 6, bound: 6 }), RATE_MIN);
        pacing.note(now, -5);
        assert_eq!(pacing.rate(now, Shortage { left: 0, bound: 6 }), RATE_MIN);
    }
}
