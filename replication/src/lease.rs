//! S5. The word of the secondary that it will not take over, as the primary counts it.

use crate::times::{LEASE_USED, SILENCE};
use std::collections::VecDeque;
use units::Monotonic;

/// When each question was asked, and how long the last answer is worth something.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    asked: VecDeque<(u64, Monotonic)>,
    answered: Option<Monotonic>,
}

impl Lease {
    /// Question `number` is asked.
    pub(crate) fn ask(&mut self, number: u64, now: Monotonic) {
        // An answer that comes later than this is worth nothing.
        self.asked.retain(|(_, at)| now.since(*at) < SILENCE);
        self.asked.push_back((number, now));
    }

    /// The secondary has given its word in answer to question `number`. Tells when the last one was asked that is answered.
    pub(crate) fn answer(&mut self, number: u64) -> Option<Monotonic> {
        let asked = self.asked.iter().find(|(asked, _)| *asked == number).map(|(_, at)| *at);
        self.answered = self.answered.max(asked);
        self.answered
    }

    /// Forgets every question and answer: the primary has told that it reads no more.
    pub(crate) fn end(&mut self) {
        self.asked.clear();
        self.answered = None;
    }

    /// Whether the word still holds.
    pub(crate) fn holds(&self, now: Monotonic) -> bool {
        self.answered.is_some_and(|asked| now.since(asked) < LEASE_USED)
    }

    /// Whether a question that was asked at `moment` or later has been answered.
    pub(crate) fn is_answered_since(&self, moment: Monotonic) -> bool {
        self.answered.is_some_and(|asked| asked >= moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// P2. The primary counts from its question, however late the answer comes.
    #[test]
    fn a_lease_is_counted_from_the_question() {
        let at = |ms| Monotonic::default().plus(Duration::from_millis(ms));
        let mut lease = Lease::default();
        lease.ask(1, at(0));
        assert!(!lease.holds(at(10)), "no answer");
        lease.answer(1);
        assert!(lease.holds(at(1199)) && !lease.holds(at(1200)));
        lease.ask(2, at(1000));
        lease.end();
        lease.answer(2);
        assert!(!lease.holds(at(1001)), "answers to what was asked before the end");
    }
}
