//! What was read of the ledger for bills: a month that goes on is looked at again and again, every ten seconds where there is a
//! budget, and each look reads what has come since the one before.

use metering::Reading;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use units::{TenantId, VolumeId};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// For so long before the newest reading one of each hour is given: a forecast goes by the last day.
const HOURLY_MS: u64 = DAY_MS + HOUR_MS;

/// How far two clocks may differ from one reading to the next without a word.
const STEP_MS: u64 = metering::STEP_TOLERANCE_MS;

/// The last look at each tenant's month.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<BTreeMap<TenantId, Arc<tokio::sync::Mutex<Look>>>>);

impl Looks {
    pub(super) fn of(&self, tenant: TenantId) -> Arc<tokio::sync::Mutex<Look>> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(tenant).or_default())
    }

    /// Forgets those of tenants that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&TenantId) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|tenant, _| is_there(tenant));
    }
}

/// What the ledger says of a tenant's volumes in a span of the wall clock, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Look {
    span_ms: Range<u64>,
    borders_ms: Vec<u64>,
    /// The block behind that, once something was read.
    pub(super) read_to: Option<u64>,
    volumes: BTreeMap<VolumeId, Thinned>,
}

impl Look {
    pub(super) fn new(span_ms: Range<u64>, borders_ms: &[u64]) -> Self {
        Self { span_ms, borders_ms: borders_ms.to_vec(), ..Self::default() }
    }

    pub(super) fn is_of(&self, span_ms: &Range<u64>, borders_ms: &[u64]) -> bool {
        self.span_ms == *span_ms && self.borders_ms == borders_ms
    }

    /// Takes the next reading of a volume.
    pub(super) fn take(&mut self, reading: Reading) {
        let volume = self.volumes.entry(reading.resource).or_default();
        volume.take(reading, &self.span_ms, &self.borders_ms);
    }

    /// The readings that bills need.
    pub(super) fn readings(&self) -> Vec<Reading> {
        self.volumes.values().flat_map(|volume| volume.needed(&self.span_ms)).cloned().collect()
    }
}

/// How long a reading between others is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Until the next one is there.
    Next,
    /// While it is of the last day.
    Day,
    Always,
}

/// The readings of a volume of which those that a bill needs are kept, the last one in any case.
#[derive(Debug, Default)]
struct Thinned {
    kept: Vec<(Reading, Need)>,
}

impl Thinned {
    fn take(&mut self, reading: Reading, span_ms: &Range<u64>, borders_ms: &[u64]) {
        let Some((last, need_of_last)) = self.kept.last_mut() else {
            self.kept.push((reading, Need::Always));
            return;
        };
        let is_beside = |border: &u64| last.wall_ms <= *border && *border <= reading.wall_ms;
        let is_border = borders_ms.iter().chain([&span_ms.start, &span_ms.end]).any(is_beside);
        // The wall clock may come back from behind the span.
        let is_step = is_step(last, &reading);
        let is_behind = last.wall_ms >= span_ms.end && reading.wall_ms >= span_ms.end && !is_step;
        let need = if is_behind {
            Need::Next
        } else if is_border || is_step || !goes_on(last, &reading) {
            *need_of_last = Need::Always;
            Need::Always
        } else {
            need_by_time(last, &reading)
        };
        if *need_of_last == Need::Next {
            self.kept.pop();
        }
        if need == Need::Day {
            let hourly_from = reading.wall_ms.saturating_sub(HOURLY_MS);
            self.kept.retain(|(kept, need)| *need == Need::Always || kept.wall_ms >= hourly_from);
        }
        self.kept.push((reading, need));
    }

    /// Those that are kept but the newest, where it is as far behind the span as the one before it.
    fn needed(&self, span_ms: &Range<u64>) -> impl Iterator<Item = &Reading> {
        let is_behind = |place: usize| self.kept.get(place).is_some_and(|(reading, _)| reading.wall_ms >= span_ms.end);
        let last = self.kept.len().saturating_sub(1);
        let is_spare = last > 0 && is_behind(last) && is_behind(last - 1);
        let count = if is_spare { last } else { self.kept.len() };
        self.kept.iter().take(count).map(|(reading, _)| reading)
    }
}

/// Whether two readings, one after the other, say no more than how use went on.
fn goes_on(one: &Reading, next: &Reading) -> bool {
    let of = |reading: &Reading| (reading.tenant, reading.class, reading.epoch, reading.changes, reading.estimated_ms);
    of(one) == of(next) && one.sequence + 1 == next.sequence && one.mark == next.mark
}

/// Whether the wall clock was set between two readings.
fn is_step(one: &Reading, next: &Reading) -> bool {
    let behind = |reading: &Reading| i128::from(reading.wall_ms) - i128::from(reading.at.0);
    (behind(one) - behind(next)).unsigned_abs() > STEP_MS.into()
}

/// How long the second of two such is needed: the first of a day always, that of an hour for a day.
const fn need_by_time(one: &Reading, next: &Reading) -> Need {
    if one.wall_ms / DAY_MS != next.wall_ms / DAY_MS {
        Need::Always
    } else if one.wall_ms / HOUR_MS != next.wall_ms / HOUR_MS {
        Need::Day
    } else {
        Need::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metering::{Dimension, Mark, Registers};
    use units::{ClassId, Epoch, MeterTime};

    const PERIOD_MS: u64 = 300_000;

    fn reading(number: u64) -> Reading {
        let at = number * PERIOD_MS;
        Reading {
            resource: VolumeId(1),
            tenant: TenantId(2),
            class: ClassId(u64::from(number >= 3000)),
            epoch: Epoch(1),
            sequence: number,
            mark: if number == 0 { Mark::Begins } else { Mark::Usual },
            changes: u64::from(number >= 3000),
            at: MeterTime(at),
            estimated_ms: 0,
            wall_ms: at,
            registers: Registers::default().with(Dimension::Written, at.into()),
        }
    }

    /// P7. Of a month what a bill needs is kept: the ends, what lies beside borders and changes, one of each day, and of each hour of
    /// the last one; read in parts as read at once.
    #[test]
    fn a_month_is_some_dozen_readings() {
        let (begin, border, end) = (10 * DAY_MS, 15 * DAY_MS + 1, 40 * DAY_MS);
        let (mut whole, mut until) = (Look::new(begin..end, &[border]), 0);
        for number in 0..12_000 {
            whole.take(reading(number));
            let given: Vec<u64> = whole.readings().into_iter().map(|reading| reading.sequence).collect();
            assert_eq!((given.first(), given.last().copied()), (Some(&0), Some(number.min(until))));
            assert!(given.len() < 90, "{given:?}");
            until = if reading(number).wall_ms >= end { until } else { number + 1 };
        }
        let given: Vec<u64> = whole.readings().into_iter().map(|reading| reading.sequence).collect();
        for needed in [2880, 2999, 3000, 4320, 4321, until - 1, until] {
            assert!(given.contains(&needed), "{needed} of {given:?}");
        }
        // Somebody sets the clock past the end, and back: what comes then is of the month all the same.
        let set = |number: u64, by: u64| Reading { wall_ms: reading(number).wall_ms + by, ..reading(number) };
        let mut stepped = Look::new(begin..end, &[border]);
        (0..6000).for_each(|number| stepped.take(reading(number)));
        (6000..6100).for_each(|number| stepped.take(set(number, 60 * DAY_MS)));
        (6100..7000).for_each(|number| stepped.take(reading(number)));
        let around: Vec<u64> = stepped.readings().iter().map(|reading| reading.sequence).collect();
        for needed in [5999, 6000, 6099, 6100, 6999] {
            assert!(around.contains(&needed), "{needed} of {around:?}");
        }
        assert!(!around.contains(&6050), "{around:?}");
        let last_day = given.iter().filter(|number| until - **number <= 288).count();
        assert!((24..=30).contains(&last_day), "{given:?}");
        assert!(!given.contains(&6012), "an hour of a day that is over: {given:?}");
    }
}
