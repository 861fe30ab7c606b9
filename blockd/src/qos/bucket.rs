//! A bucket of credits: how much may pass at a ceiling. Time is an argument; integers only.
//!
//! Credits are counted in billionths, of which each nanosecond brings exactly `rate`: nothing is rounded, so that nothing
//! drifts. What costs more than the bucket holds passes when that is full, and is paid for afterwards. Over any time no more
//! passes than the burst (or the largest single cost, where that is more) and what the rate brings; and no less while there is
//! demand, but for what the next one still lacks.

use super::limits::Ceiling;
use units::Monotonic;

/// A credit.
const CREDIT: i128 = 1_000_000_000;

/// Credits that come by time and go by use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bucket {
    ceiling: Ceiling,
    /// What is left at `at`, in billionths; below 0 what is owed.
    left: i128,
    at: Monotonic,
    /// Credits spent so far.
    spent: u64,
}

impl Bucket {
    /// A bucket that holds so many credits, as far as they find room.
    pub(crate) fn new(ceiling: Ceiling, now: Monotonic, credits: i64) -> Self {
        let left = (i128::from(credits) * CREDIT).min(i128::from(ceiling.burst) * CREDIT);
        Self { ceiling, left, at: now, spent: 0 }
    }

    /// A full one.
    pub(crate) fn full(ceiling: Ceiling, now: Monotonic) -> Self {
        Self::new(ceiling, now, i64::MAX)
    }

    /// Takes in what time has brought. A clock that stands still, or goes back, brings nothing.
    pub(crate) fn advance(&mut self, now: Monotonic) {
        let Some(passed) = now.0.checked_sub(self.at.0).filter(|passed| *passed > 0) else { return };
        self.at = now;
        let brought = i128::from(self.ceiling.rate) * i128::from(passed);
        self.left = (self.left + brought).min(self.size());
    }

    /// Whether what costs so much may pass now.
    pub(crate) fn admits(&self, cost: u64) -> bool {
        self.left >= self.wanted(cost)
    }

    /// When what costs so much may pass, if nothing else does.
    pub(crate) fn opens_at(&self, cost: u64) -> Monotonic {
        let missing = self.wanted(cost) - self.left;
        if missing <= 0 {
            return self.at;
        }
        let rate = i128::from(self.ceiling.rate.max(1));
        let wait = (missing + rate - 1) / rate;
        Monotonic(self.at.0.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    /// Pays for what passes.
    pub(crate) fn take(&mut self, cost: u64) {
        self.left -= i128::from(cost) * CREDIT;
        self.spent = self.spent.saturating_add(cost);
    }

    /// Puts credits in that were taken out of another one; returns what finds no room.
    pub(crate) fn deposit(&mut self, credits: u64) -> u64 {
        let room = ((self.size() - self.left) / CREDIT).max(0);
        let taken = credits.min(u64::try_from(room).unwrap_or(u64::MAX));
        self.left += i128::from(taken) * CREDIT;
        credits - taken
    }

    /// Changes the ceiling. Returns the credits that find no room any more; what is owed stays owed.
    pub(crate) fn set_ceiling(&mut self, now: Monotonic, ceiling: Ceiling) -> u64 {
        self.advance(now);
        self.ceiling = ceiling;
        let surplus = (self.left - self.size()).max(0) / CREDIT;
        self.left = self.left.min(self.size());
        u64::try_from(surplus).unwrap_or(u64::MAX)
    }

    /// Whole credits that are left; below 0 what is owed.
    pub(crate) fn credits(&self) -> i64 {
        i64::try_from(self.left.div_euclid(CREDIT)).unwrap_or(i64::MAX)
    }

    /// Credits spent so far.
    pub(crate) const fn spent(&self) -> u64 {
        self.spent
    }

    fn size(&self) -> i128 {
        i128::from(self.ceiling.burst) * CREDIT
    }

    fn wanted(&self, cost: u64) -> i128 {
        i128::from(cost.min(self.ceiling.burst)) * CREDIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn ceiling() -> impl Strategy<Value = Ceiling> {
        (1_u64..10_000_000, 1_u64..10_000_000).prop_map(|(rate, burst)| Ceiling { rate, burst })
    }

    /// Lets as many through as may be, one behind the other, whenever somebody looks; returns when each passed.
    fn passed(bucket: &mut Bucket, costs: &[u64], pauses: &[u64]) -> Vec<(u64, u64)> {
        let mut costs = costs.iter().copied().cycle();
        let mut next = costs.next().unwrap();
        let mut passed = Vec::new();
        let mut now = 0;
        for pause in pauses {
            now += pause;
            bucket.advance(Monotonic(now));
            // A look lets a bounded number pass, as a turn does.
            for _ in 0..64 {
                if !bucket.admits(next) {
                    break;
                }
                bucket.take(next);
                passed.push((now, next));
                next = costs.next().unwrap();
            }
        }
        passed
    }

    proptest! {
        /// P8. Over any window no more passes than the burst, or the largest cost, and what the rate brings.
        #[test]
        fn no_window_has_more_than_the_burst_and_what_the_rate_brings(
            ceiling in ceiling(),
            costs in prop::collection::vec(1_u64..20_000_000, 1..8),
            pauses in prop::collection::vec(0_u64..SECOND, 1..60),
        ) {
            let mut bucket = Bucket::full(ceiling, Monotonic(0));
            let passed = passed(&mut bucket, &costs, &pauses);
            let largest = costs.iter().copied().max().unwrap();
            let most = i128::from(ceiling.burst.max(largest)) * CREDIT;
            for (first, (begin, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (at, cost) in &passed[first..] {
                    sum += i128::from(*cost) * CREDIT;
                    prop_assert!(sum <= most + i128::from(ceiling.rate) * i128::from(at - begin));
                }
            }
        }

        /// P8. While there is demand nothing is withheld: what has not passed is what the next one lacks.
        #[test]
        fn demand_gets_all_that_the_rate_brings(
            ceiling in ceiling(),
            costs in prop::collection::vec(1_u64..20_000_000, 1..8),
            count in 1_usize..200,
        ) {
            let mut bucket = Bucket::full(ceiling, Monotonic(0));
            let mut costs = costs.into_iter().cycle();
            let (mut now, mut sum, mut waits) = (Monotonic(0), 0, 0);
            for cost in (0..count).map_while(|_| costs.next()) {
                now = bucket.opens_at(cost).max(now);
                bucket.advance(now);
                prop_assert!(bucket.admits(cost), "it opens when it says");
                // Not a nanosecond later than what came in pays for it; of that one a full bucket may lose a part.
                let brought = i128::from(ceiling.burst) * CREDIT + i128::from(ceiling.rate) * i128::from(now.0);
                let rest = brought - sum - bucket.wanted(cost);
                waits += i128::from(now.0 > 0);
                prop_assert!(now.0 == 0 || (0..i128::from(ceiling.rate) * waits).contains(&rest), "{rest} were withheld");
                bucket.take(cost);
                sum += i128::from(cost) * CREDIT;
            }
        }

        /// No step of the clock, however small, brings a billionth too much or too little.
        #[test]
        fn many_small_steps_bring_what_one_large_one_does(rate in 1_u64..1 << 40, steps in prop::collection::vec(0_u64..5, 1..500)) {
            let ceiling = Ceiling { rate, burst: u64::MAX };
            let (mut small, mut large) = (Bucket::new(ceiling, Monotonic(7), 0), Bucket::new(ceiling, Monotonic(7), 0));
            let mut now = 7;
            for step in steps {
                now += step;
                small.advance(Monotonic(now));
            }
            large.advance(Monotonic(now));
            prop_assert_eq!(small, large);
        }

        /// P8. What is taken from one bucket and put into another is never more.
        #[test]
        fn credits_that_move_are_neither_made_nor_lost(
            sizes in (1_u64..1_000_000, 1_u64..1_000_000, 1_u64..1_000_000),
            credits in (0_i64..1_000_000, 0_i64..1_000_000),
        ) {
            let of = |burst| Ceiling { rate: 1, burst };
            let mut one = Bucket::new(of(sizes.0), Monotonic(0), credits.0);
            let mut other = Bucket::new(of(sizes.1), Monotonic(0), credits.1);
            let before = one.credits() + other.credits();
            let surplus = one.set_ceiling(Monotonic(0), of(sizes.2));
            let rest = other.deposit(surplus);
            prop_assert_eq!(one.credits() + other.credits() + i64::try_from(rest).unwrap(), before);
        }
    }

    /// P8. A credit that was saved before a restart is there after it, and no more than the bucket holds.
    #[test]
    fn credits_are_taken_out_and_put_in_again() {
        let ceiling = Ceiling { rate: 10, burst: 500 };
        let mut bucket = Bucket::full(ceiling, Monotonic(5));
        bucket.take(300);
        assert_eq!(bucket.credits(), 200);
        assert_eq!(Bucket::new(ceiling, Monotonic(99), bucket.credits()).credits(), 200);
        assert_eq!(Bucket::new(ceiling, Monotonic(99), 100_000).credits(), 500);
        bucket.take(700);
        assert_eq!(Bucket::new(ceiling, Monotonic(99), bucket.credits()).credits(), -500, "what is owed too");
    }

    #[test]
    fn a_clock_that_goes_back_brings_nothing() {
        let mut bucket = Bucket::new(Ceiling { rate: SECOND, burst: 100 }, Monotonic(50), 0);
        bucket.advance(Monotonic(40));
        assert_eq!(bucket.credits(), 0);
        bucket.advance(Monotonic(60));
        assert_eq!(bucket.credits(), 10);
    }
}
