//! What an open month will come to, if all goes on as in the last day.

use jiff::Timestamp;
use units::MeterTime;

use super::exact::Exact;
use super::period::{Period, milliseconds};
use crate::reading::{Dimension, Mark, Reading, Registers};

const DAY_MS: u64 = 86_400_000;
/// A resource that was last read so long ago is taken to be gone.
const GONE_MS: u64 = 3_600_000;

/// `readings`, and for each resource that is still there one more, of the period's end: its registers went on until then
/// as they did in the last day before its last reading, or as much of that as its epoch has. Rated, that is the forecast.
///
/// `as_of` is now, by the wall clock: a resource that has not been read for an hour is gone, as is one whose last reading says
/// so. The class and tenant of the last reading hold until the end. Nothing is made up for a resource with one reading only.
#[must_use]
pub fn forecast(readings: &[Reading], period: &Period, as_of: Timestamp) -> Vec<Reading> {
    let end = milliseconds(period.span().to);
    let mut sorted: Vec<&Reading> = readings.iter().collect();
    sorted.sort_by_key(|reading| (reading.resource, reading.epoch, reading.sequence));
    let mut all: Vec<Reading> = readings.to_vec();
    for of_resource in sorted.chunk_by(|one, next| one.resource == next.resource) {
        let Some(last) = of_resource.last() else { continue };
        let of_epoch = of_resource.iter().filter(|reading| reading.epoch == last.epoch);
        let since = of_epoch
            .filter(|reading| reading.tenant == last.tenant && last.at.since(reading.at) <= DAY_MS)
            .min_by_key(|reading| reading.at);
        let is_there = last.mark != Mark::Ends
            && milliseconds(as_of).saturating_sub(last.wall_ms) <= GONE_MS
            && last.wall_ms < end;
        if let Some(since) = since.filter(|since| is_there && since.at < last.at) {
            all.extend(at_the_end(since, last, end));
        }
    }
    all
}

fn at_the_end(since: &Reading, last: &Reading, end: u64) -> Option<Reading> {
    let ahead = end.checked_sub(last.wall_ms)?;
    let factor = Exact::ratio(ahead, last.at.since(since.at))?;
    let mut registers = Registers::default();
    for dimension in Dimension::ALL {
        let value = last.registers.value(dimension);
        let went_on = Exact::from(value.checked_sub(since.registers.value(dimension))?) * factor.clone();
        registers = registers.with(dimension, value.checked_add(went_on.floor_u128()?)?);
    }
    let at = MeterTime(last.at.0.checked_add(ahead)?);
    Some(Reading {
        sequence: last.sequence.checked_add(1)?,
        mark: Mark::Usual,
        at,
        wall_ms: end,
        registers,
        ..last.clone()
    })
}
