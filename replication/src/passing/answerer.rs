//! The site that leads: what the other one passes on to it.

use super::{Answer, Ask, LATE_AFTER, OPEN_BYTES_MAX, OPEN_MAX, Outcome, weight};
use crate::controls::{Safeguard, is_missing};
use units::Monotonic;
use volume::error::Error;
use volume::request::{Completion, Request};

/// What is under way for the other site.
#[derive(Debug, Default)]
pub struct Answerer {
    open: usize,
    open_bytes: u64,
}

/// A request of the other site that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    number: u64,
    weight: u64,
}

impl Answerer {
    /// Takes a question, when this site leads in the epoch that it is asked in, or is about to: the request is begun in its order with
    /// others, and answered in any case.
    ///
    /// # Errors
    /// The answer, when nothing is to be begun.
    pub fn take(&mut self, now: Monotonic, is_led: bool, ask: Ask) -> Result<(Guest, Request), Answer> {
        let number = ask.number;
        let refuse = |outcome| Err(Answer { number, tick: tick_of(now), outcome });
        if !is_led || self.open > 2 * OPEN_MAX {
            return refuse(Outcome::NotHere);
        }
        if !is_in_time(now, &ask) {
            return refuse(Outcome::Stale);
        }
        let invalid = || Error::new(volume::error::ErrorKind::InvalidRequest, "a request that nobody can make");
        let Some(request) = ask.into_request() else { return refuse(Outcome::Failed(invalid())) };
        let guest = Guest { number, weight: weight(&request) };
        // Twice what the other site keeps to: what was answered may still be on its way there.
        if self.open > 0 && self.open_bytes.saturating_add(guest.weight) > 2 * OPEN_BYTES_MAX {
            return refuse(Outcome::NotHere);
        }
        self.open += 1;
        self.open_bytes += guest.weight;
        Ok((guest, request))
    }

    /// The answer to a request that was never begun: the other site finds out who leads by now.
    #[must_use]
    pub fn give_back(now: Monotonic, guest: Guest) -> Answer {
        Answer { number: guest.number, tick: tick_of(now), outcome: Outcome::NotHere }
    }

    /// The answer to a request that was begun and has ended, however: a [`volume::error::ErrorKind::Fenced`] one is for the other site to try again.
    #[must_use]
    pub fn answer(now: Monotonic, guest: Guest, result: Result<Completion, Error>) -> Answer {
        Answer { number: guest.number, tick: tick_of(now), outcome: Outcome::of(result) }
    }

    /// The answer is on its way, or nobody's any more: others may come.
    pub const fn close(&mut self, guest: Guest) {
        self.open = self.open.saturating_sub(1);
        self.open_bytes = self.open_bytes.saturating_sub(guest.weight);
    }
}

/// S7. Whether its client surely waits for it still. A tick of a later moment is one of another life.
fn is_in_time(now: Monotonic, ask: &Ask) -> bool {
    if is_missing(Safeguard::InTime) {
        return true;
    }
    let ago = tick_of(now).checked_sub(ask.tick).filter(|_| ask.tick > 0);
    ago.is_some_and(|ago| u128::from(ago) + u128::from(ask.waited_ms) <= LATE_AFTER.as_millis())
}

/// The tick at a moment: whole milliseconds, never zero.
fn tick_of(now: Monotonic) -> u64 {
    now.0 / 1_000_000 + 1
}
