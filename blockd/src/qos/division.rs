//! How a tenant's ceiling is divided among shards: by demand, looked at a few times a second.
//!
//! A shard that has to hold nobody back gets what it uses and a quarter more; what is left is divided among those that do, by
//! how many connections wait. Each has a little at any time, so that a first request does not wait for the division. The parts
//! together are never more than the whole, but for one operation and one byte a second of a shard; and since parts are taken
//! before they are given, with the credits in them, no moment has more either.

use super::gate::CreditStatus;
use super::limits::QosLimits;

/// A whole ceiling, in parts.
const WHOLE: u64 = 1 << 16;

/// Of the whole, so much is divided evenly whatever anybody uses.
const EVEN: u64 = WHOLE / 8;

/// Changes that are smaller are not worth their messages.
const STEP_MIN: u64 = WHOLE / 64;

/// What a tenant uses of a shard's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantUse {
    /// Of operations, where there is a ceiling.
    pub operations: Option<CreditStatus>,
    /// Of bytes, where there is a ceiling.
    pub bytes: Option<CreditStatus>,
    /// Connections that wait for it now.
    pub waiting: u64,
    /// Requests that have waited for it since the start.
    pub waited: u64,
}

/// A shard's part, and what was known of its use when it was looked at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Part {
    pub(crate) share: u64,
    last: TenantUse,
}

/// A ceiling among shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Division {
    pub(crate) limits: QosLimits,
    pub(crate) parts: Vec<Part>,
}

impl Division {
    /// The same for each of so many shards.
    pub(crate) fn new(limits: QosLimits, shards: usize) -> Self {
        let share = WHOLE / u64::try_from(shards).unwrap_or(u64::MAX).max(1);
        Self { limits, parts: vec![Part { share, last: TenantUse::default() }; shards] }
    }

    /// The limits that a share of it is.
    pub(crate) fn limits_of(&self, share: u64) -> QosLimits {
        let of = |ceiling: super::Ceiling| ceiling.part(share, WHOLE);
        QosLimits { iops: self.limits.iops.map(of), bandwidth: self.limits.bandwidth.map(of), ..self.limits }
    }

    /// A part of so many credits that is a shard's share.
    pub(crate) fn credits_of(share: u64, credits: i64) -> i64 {
        let part = i128::from(credits) * i128::from(share) / i128::from(WHOLE);
        i64::try_from(part).unwrap_or(0)
    }

    /// What each shard's share is to be, given what was used in `elapsed_ms` since the last look; `None` when all can stay.
    pub(crate) fn look(&mut self, uses: &[TenantUse], elapsed_ms: u64) -> Option<Vec<u64>> {
        let limits = self.limits;
        let demands: Vec<Demand> = self
            .parts
            .iter_mut()
            .zip(uses)
            .map(|(part, now)| {
                let last = std::mem::replace(&mut part.last, *now);
                Demand::between(&limits, &last, now, elapsed_ms)
            })
            .collect();
        let shares = divide(&demands);
        let is_worth_it = self.parts.iter().zip(&shares).any(|(part, share)| part.share.abs_diff(*share) >= STEP_MIN);
        (is_worth_it && shares.len() == self.parts.len()).then_some(shares)
    }
}

/// What a shard wants of a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Demand {
    /// What it used, in parts of the whole.
    used: u64,
    /// How many wait; 0 where nobody had to.
    waiting: u64,
}

impl Demand {
    fn between(limits: &QosLimits, last: &TenantUse, now: &TenantUse, elapsed_ms: u64) -> Self {
        let used = |ceiling: Option<super::Ceiling>, last: Option<CreditStatus>, now: Option<CreditStatus>| {
            let spent = now.unwrap_or_default().spent.saturating_sub(last.unwrap_or_default().spent);
            let whole = u128::from(ceiling.map_or(1, |ceiling| ceiling.rate).max(1)) * u128::from(elapsed_ms.max(1));
            u64::try_from(u128::from(spent) * 1000 * u128::from(WHOLE) / whole).unwrap_or(u64::MAX).min(WHOLE)
        };
        let operations = used(limits.iops, last.operations, now.operations);
        let bytes = used(limits.bandwidth, last.bytes, now.bytes);
        let waiting = if now.waited > last.waited { now.waiting.max(1) } else { now.waiting };
        Self { used: operations.max(bytes), waiting }
    }
}

fn divide(demands: &[Demand]) -> Vec<u64> {
    let count = u64::try_from(demands.len()).unwrap_or(u64::MAX).max(1);
    let even = EVEN / count;
    let free = WHOLE - EVEN;
    // Those who hold nobody back first, but no more than an even part of all where others do.
    let waiting: u64 = demands.iter().map(|demand| demand.waiting).sum();
    let wanted = |demand: &Demand| {
        let wanted = demand.used + demand.used / 4;
        if demand.waiting > 0 { 0 } else { wanted.saturating_sub(even).min(free / count) }
    };
    let left = free - demands.iter().map(wanted).sum::<u64>();
    let share = |demand: &Demand| {
        let more = (left * demand.waiting).checked_div(waiting).unwrap_or(left / count);
        even + wanted(demand) + more
    };
    demands.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Ceiling;
    use super::*;
    use proptest::prelude::*;

    fn shares(demands: &[(u64, u64)]) -> Vec<u64> {
        let demands: Vec<Demand> =
            demands.iter().map(|(used, waiting)| Demand { used: *used, waiting: *waiting }).collect();
        divide(&demands)
    }

    proptest! {
        /// P8. Whatever is asked for, the parts are never more than the whole, and none is nothing.
        #[test]
        fn the_parts_are_never_more_than_the_whole(demands in prop::collection::vec((0..=WHOLE, 0_u64..10_000), 1..65)) {
            let shares = shares(&demands);
            prop_assert!(shares.iter().sum::<u64>() <= WHOLE);
            prop_assert!(shares.iter().all(|share| *share > 0));
        }
    }

    #[test]
    fn who_waits_gets_what_others_do_not_use() {
        let percent = |demands| shares(demands).iter().map(|share| share * 100 / WHOLE).collect::<Vec<_>>();
        assert_eq!(percent(&[(0, 0), (0, 0)]), [50, 50]);
        assert_eq!(percent(&[(WHOLE / 2, 3), (0, 0)]), [93, 6]);
        assert_eq!(percent(&[(WHOLE / 2, 3), (WHOLE / 5, 0)]), [75, 24]);
        assert_eq!(percent(&[(WHOLE, 1), (0, 3)]), [28, 71]);
    }

    #[test]
    fn a_division_follows_the_demand_and_then_stays() {
        let limits = QosLimits { iops: Some(Ceiling::new(1000, None)), ..QosLimits::default() };
        let mut division = Division::new(limits, 2);
        assert_eq!(division.limits_of(division.parts[0].share).iops, Some(Ceiling::new(500, None)));
        let spent = |spent, waited| TenantUse {
            operations: Some(CreditStatus { left: 0, spent }),
            waited,
            ..TenantUse::default()
        };
        let shares = division.look(&[spent(125, 9), spent(0, 0)], 250).unwrap();
        assert_eq!(shares, [WHOLE - EVEN / 2, EVEN / 2]);
        division.parts.iter_mut().zip(shares).for_each(|(part, share)| part.share = share);
        assert_eq!(division.look(&[spent(250, 19), spent(0, 0)], 250), None);
    }
}
