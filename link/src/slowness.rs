//! Whether the other site answers too slowly: a judgement of pings, with time as an argument.
//!
//! The worst answer of each second counts, as a 99th percentile would, and a question that is not answered yet counts as long as it is
//! waited for. A second is bad when that is more than 50 ms and more than ten times the fastest answer of this life. Five bad seconds in
//! a row make the link slow, five good ones well again.

use std::collections::VecDeque;
use std::time::Duration;
use units::Monotonic;

/// An answer that takes no longer is never slow.
const SLOW_MIN: Duration = Duration::from_millis(50);

/// How many times as long as the fastest answer a slow one takes.
const SLOW_FACTOR: u32 = 10;

/// What is judged as one.
const SPAN: Duration = Duration::from_secs(1);

/// How many spans in a row change the judgement.
const SPANS: u32 = 5;

/// Most questions that wait for answers; no more are asked then.
const ASKED_MAX: usize = 64;

/// The pings of a life.
#[derive(Debug)]
pub(crate) struct Slowness {
    asked: VecDeque<(u64, Monotonic)>,
    next: u64,
    fastest: Option<Duration>,
    span_began: Monotonic,
    worst: Duration,
    /// Spans in a row that are of the other judgement.
    others: u32,
    is_slow: bool,
}

impl Slowness {
    pub(crate) const fn new(now: Monotonic) -> Self {
        Self {
            asked: VecDeque::new(),
            next: 0,
            fastest: None,
            span_began: now,
            worst: Duration::ZERO,
            others: 0,
            is_slow: false,
        }
    }

    /// A question is asked: its number. Nothing while too many wait for their answers.
    pub(crate) fn ask(&mut self, now: Monotonic) -> Option<u64> {
        if self.asked.len() >= ASKED_MAX {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.asked.push_back((number, now));
        Some(number)
    }

    /// An answer has come: how long it took. Nothing where it answers no question.
    pub(crate) fn answer(&mut self, now: Monotonic, number: u64) -> Option<Duration> {
        let at = self.asked.iter().position(|(asked, _)| *asked == number)?;
        let (_, asked) = self.asked.remove(at)?;
        // What is in order comes in order: those before it will not be answered any more.
        self.asked.drain(..at);
        let took = now.since(asked);
        self.fastest = Some(self.fastest.map_or(took, |fastest| fastest.min(took)));
        self.worst = self.worst.max(took);
        Some(took)
    }

    /// Time has passed: the new judgement, where it changes.
    pub(crate) fn tick(&mut self, now: Monotonic) -> Option<bool> {
        if now.since(self.span_began) < SPAN {
            return None;
        }
        let waited = self.asked.front().map_or(Duration::ZERO, |(_, asked)| now.since(*asked));
        let limit = self.fastest.map_or(SLOW_MIN, |fastest| SLOW_MIN.max(fastest * SLOW_FACTOR));
        let is_bad = self.worst.max(waited) > limit;
        self.span_began = now;
        self.worst = Duration::ZERO;
        self.others = if is_bad == self.is_slow { 0 } else { self.others + 1 };
        if self.others < SPANS {
            return None;
        }
        self.others = 0;
        self.is_slow = is_bad;
        Some(is_bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: Duration = Duration::from_millis(250);

    /// Asks every 250 ms, and is answered after `took_ms`; tells what changes in so many seconds.
    fn live(slowness: &mut Slowness, now: &mut Monotonic, seconds: u32, took_ms: impl Fn(u32) -> u64) -> Vec<bool> {
        let mut changes = Vec::new();
        for ping in 0..seconds * 4 {
            let number = slowness.ask(*now).unwrap();
            let took = Duration::from_millis(took_ms(ping));
            assert!(took < PING);
            assert_eq!(slowness.answer(now.plus(took), number), Some(took));
            *now = now.plus(PING);
            changes.extend(slowness.tick(*now));
        }
        changes
    }

    #[test]
    fn five_slow_seconds_are_slow_and_five_good_ones_are_well() {
        let mut now = Monotonic(0);
        let mut slowness = Slowness::new(now);
        assert_eq!(live(&mut slowness, &mut now, 10, |_| 1), []);
        assert_eq!(live(&mut slowness, &mut now, 4, |_| 60), []);
        assert_eq!(live(&mut slowness, &mut now, 1, |_| 60), [true]);
        assert_eq!(live(&mut slowness, &mut now, 60, |_| 60), []);
        assert_eq!(live(&mut slowness, &mut now, 4, |_| 1), []);
        assert_eq!(live(&mut slowness, &mut now, 1, |_| 1), [false]);
    }

    #[test]
    fn a_good_second_begins_the_count_anew() {
        let mut now = Monotonic(0);
        let mut slowness = Slowness::new(now);
        for _ in 0..10 {
            assert_eq!(live(&mut slowness, &mut now, 4, |_| 60), []);
            assert_eq!(live(&mut slowness, &mut now, 1, |_| 1), []);
        }
    }

    #[test]
    fn the_worst_answer_of_a_second_counts() {
        let mut now = Monotonic(0);
        let mut slowness = Slowness::new(now);
        let one_of_four = |ping| if ping % 4 == 2 { 60 } else { 1 };
        assert_eq!(live(&mut slowness, &mut now, 5, one_of_four), [true]);
    }

    #[test]
    fn a_long_way_is_not_slow_before_it_takes_ten_times_as_long() {
        let mut now = Monotonic(0);
        let mut slowness = Slowness::new(now);
        assert_eq!(live(&mut slowness, &mut now, 5, |_| 20), []);
        assert_eq!(live(&mut slowness, &mut now, 20, |_| 200), []);
        assert_eq!(live(&mut slowness, &mut now, 5, |_| 201), [true]);
    }

    #[test]
    fn what_is_never_answered_is_slow_and_bounded() {
        let mut now = Monotonic(0);
        let mut slowness = Slowness::new(now);
        live(&mut slowness, &mut now, 5, |_| 1);
        let mut changes = Vec::new();
        for _ in 0..200 {
            slowness.ask(now);
            now = now.plus(PING);
            changes.extend(slowness.tick(now));
        }
        assert_eq!(changes, [true]);
        assert_eq!(slowness.asked.len(), ASKED_MAX);
        assert_eq!(slowness.answer(now, u64::MAX), None);
        // One late answer tells that those before it are lost.
        let last = slowness.asked.back().unwrap().0;
        assert!(slowness.answer(now, last).is_some() && slowness.asked.is_empty());
    }
}
