//! How long a peer that was ejected must be well before it joins again: a flapping link or a disk that is slow now and then
//! must not change the in-sync set all the time.

use crate::times::{REJOIN_AFTER_SILENCE, REJOIN_AFTER_SLOWNESS, REJOIN_MAX};
use std::time::Duration;
use units::Monotonic;

/// The pause before the next join.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    length: Duration,
    joined_at: Option<Monotonic>,
}

impl Pause {
    /// The peer was ejected. The pause is twice the one before, unless the peer had been in sync for long.
    pub(crate) fn eject(&mut self, now: Monotonic, for_slowness: bool) {
        let least = if for_slowness { REJOIN_AFTER_SLOWNESS } else { REJOIN_AFTER_SILENCE };
        let was_long_in_sync = self.joined_at.is_some_and(|at| now.since(at) >= REJOIN_MAX);
        let doubled = if was_long_in_sync { Duration::ZERO } else { self.length * 2 };
        self.length = doubled.clamp(least, REJOIN_MAX);
        self.joined_at = None;
    }

    /// The peer has joined.
    pub(crate) const fn join(&mut self, now: Monotonic) {
        self.joined_at = Some(now);
    }

    /// Whether a peer that has been well since `well_since` may join.
    pub(crate) fn is_over(&self, now: Monotonic, well_since: Monotonic) -> bool {
        now.since(well_since) >= self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P6. A peer that is slow again and again joins ever more rarely; one that was in sync for long begins anew.
    #[test]
    fn the_pause_doubles_up_to_its_end() {
        let at = |secs| Monotonic::default().plus(Duration::from_secs(secs));
        let mut pause = Pause::default();
        pause.eject(at(0), true);
        assert!(!pause.is_over(at(9), at(0)) && pause.is_over(at(10), at(0)));
        for _ in 0..10 {
            pause.join(at(100));
            pause.eject(at(101), false);
        }
        assert!(!pause.is_over(at(700), at(101)) && pause.is_over(at(701), at(101)));
        pause.join(at(1000));
        pause.eject(at(2000), false);
        assert!(pause.is_over(at(2001), at(2000)));
    }
}
