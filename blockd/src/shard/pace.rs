//! Whether to look for news before sleeping.
//!
//! Waking a sleeping thread costs more than a short look, so that a client which answers quickly is best awaited awake.
//! A look that would not have found anything is not repeated until a wait was short again, so that idle costs nothing.

use std::time::Duration;

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

    /// How long to look before sleeping; `None` to sleep at once.
    pub(crate) fn spin(&self) -> Option<Duration> {
        (self.is_quick && !self.spin_max.is_zero()).then_some(self.spin_max)
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
        assert_eq!(pace.spin(), None);
        pace.note_wait(Duration::from_micros(20));
        assert_eq!(pace.spin(), Some(Duration::from_micros(50)));
        pace.note_wait(Duration::from_millis(3));
        assert_eq!(pace.spin(), None);
    }

    #[test]
    fn a_limit_of_nothing_never_looks() {
        let mut pace = Pace::new(Duration::ZERO);
        pace.note_wait(Duration::ZERO);
        assert_eq!(pace.spin(), None);
    }
}
