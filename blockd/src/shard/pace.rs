//! Whether to look for news before sleeping.
//!
//! Waking a sleeping thread costs more than a short look, so that a client which answers quickly is best awaited awake.
//! A look that would not have found anything is not repeated until a wait was short again, so that idle costs nothing. Nor
//! does anyone look who was just handed many requests at once: their clients have others under way and wait for none.

use std::time::Duration;

/// Requests that came together from which on nobody looks.
const BEGUN_MAX: u32 = 3;

/// Decides from how long the last wait took.
#[derive(Debug)]
pub(crate) struct Pace {
    spin_max: Duration,
    is_quick: bool,
}

impl Pace {
    pub(crate) const fn new(spin_max: Duration) -> Self {
        Self { spin_max, is_quick: false }
    }

    /// How long to look before sleeping; `None` to sleep at once. `begun` is the number of requests since the last wait.
    pub(crate) fn spin(&self, begun: u32) -> Option<Duration> {
        (self.is_quick && begun <= BEGUN_MAX && !self.spin_max.is_zero()).then_some(self.spin_max)
    }

    /// Learns how long a wait took until there was news.
    pub(crate) fn note_wait(&mut self, waited: Duration) {
        self.is_quick = waited <= self.spin_max;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_wait_is_followed_by_a_look() {
        let mut pace = Pace::new(Duration::from_micros(50));
        assert_eq!(pace.spin(1), None);
        pace.note_wait(Duration::from_micros(20));
        assert_eq!(pace.spin(1), Some(Duration::from_micros(50)));
        pace.note_wait(Duration::from_millis(3));
        assert_eq!(pace.spin(1), None);
    }

    #[test]
    fn many_requests_at_once_are_followed_by_sleep() {
        let mut pace = Pace::new(Duration::from_micros(50));
        pace.note_wait(Duration::ZERO);
        assert_eq!(pace.spin(BEGUN_MAX + 1), None);
    }

    #[test]
    fn a_limit_of_nothing_never_looks() {
        let mut pace = Pace::new(Duration::ZERO);
        pace.note_wait(Duration::ZERO);
        assert_eq!(pace.spin(1), None);
    }
}
