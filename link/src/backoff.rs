//! How long to wait before the other site is tried again.

use std::time::Duration;

/// Doubles the pause with each try that failed, and chooses within its upper half, so that two sites that began together part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// Begins anew.
    pub(crate) const fn reset(&mut self) {
        self.next = self.min;
    }

    /// The next pause; `random` is any number.
    pub(crate) fn pause(&mut self, random: u32) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(self.max);
        let half = longest / 2;
        (half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))).clamp(self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_their_bounds_and_begin_anew() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(min, max);
        let longest: Vec<u128> = (0..8).map(|_| backoff.pause(u32::MAX).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.pause(0).as_millis(), 2500);
        backoff.reset();
        assert_eq!(backoff.pause(0), min);
    }
}
