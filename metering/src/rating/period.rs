//! Billing periods: months of the tenant's time zone.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A stretch of time; its end is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Its first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub to: Timestamp,
}

/// A billing month. Its ends are kept as moments, so that it stays what it was when a country changes its clocks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    month: String,
    zone: String,
    span: Span,
}

/// Why there is no such period.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeriodError {
    /// The month is none.
    #[error("`{0}` is no month: write a year and a month, such as 2026-11, from 1970-02 to 9998-12")]
    NoMonth(String),
    /// The time zone is none.
    #[error("`{0}` is no time zone: write one of the tz database, such as Europe/Berlin or UTC")]
    NoZone(String),
}

impl Period {
    /// The month `2026-11` in the time zone `Europe/Berlin`, by the rules of the tz database that the program was built with.
    ///
    /// # Errors
    /// [`PeriodError`] when there is no such month or zone.
    pub fn of_month(month: &str, zone: &str) -> Result<Self, PeriodError> {
        let no_month = || PeriodError::NoMonth(month.chars().take(20).collect());
        let no_zone = || PeriodError::NoZone(zone.chars().take(60).collect());
        let first = first_of(month).ok_or_else(no_month)?;
        let next = if first.month() == 12 {
            Date::new(first.year() + 1, 1, 1)
        } else {
            Date::new(first.year(), first.month() + 1, 1)
        };
        let tz = TimeZone::get(zone).map_err(|_| no_zone())?;
        let name = tz.iana_name().ok_or_else(no_zone)?.to_owned();
        let midnight = |date: Date| tz.to_timestamp(date.at(0, 0, 0, 0)).map_err(|_| no_month());
        let (from, to) = (midnight(first)?, midnight(next.map_err(|_| no_month())?)?);
        Ok(Self { month: month.to_owned(), zone: name, span: Span { from, to } })
    }

    /// The month after it, in a time zone that may be another: it begins where this one ends, so that nothing is billed twice or on
    /// no bill, and is as much longer or shorter.
    ///
    /// # Errors
    /// [`PeriodError`] when there is no such month or zone.
    pub fn next(&self, zone: &str) -> Result<Self, PeriodError> {
        let no_month = || PeriodError::NoMonth(self.month.clone());
        let next = first_of(&self.month).and_then(|first| first.checked_add(1.month()).ok()).ok_or_else(no_month)?;
        let mut next = Self::of_month(&next.strftime("%Y-%m").to_string(), zone)?;
        next.span.from = self.span.to;
        Ok(next)
    }

    /// Its month, as `2026-11`.
    #[must_use]
    pub fn month(&self) -> &str {
        &self.month
    }

    /// Its time zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// From when to when.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.span
    }

    /// How long it is.
    #[must_use]
    pub fn milliseconds(&self) -> u64 {
        Self::length(self.span)
    }

    /// How long a stretch is, in milliseconds.
    pub(crate) fn length(span: Span) -> u64 {
        milliseconds(span.to).saturating_sub(milliseconds(span.from))
    }

    /// A moment as people of its zone write it, with the distance from UTC.
    #[must_use]
    pub fn local(&self, moment: Timestamp) -> String {
        match TimeZone::get(&self.zone) {
            Ok(zone) => moment.to_zoned_datetime(zone).strftime("%Y-%m-%d %H:%M:%S%:z").to_string(),
            Err(_) => moment.to_string(),
        }
    }

    /// Whether it ends after it begins, with ends that a reading can have.
    pub(crate) fn is_sound(&self) -> bool {
        self.milliseconds() > 0 && first_of(&self.month).is_some()
    }
}

/// Milliseconds since 1970; 0 before.
pub(crate) fn milliseconds(moment: Timestamp) -> u64 {
    u64::try_from(moment.as_millisecond()).unwrap_or(0)
}

/// The moment so many milliseconds after 1970; the last there is when that is past it.
pub(crate) fn moment(milliseconds: u64) -> Timestamp {
    i64::try_from(milliseconds).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

fn first_of(month: &str) -> Option<Date> {
    let (year, number) = month.split_once('-')?;
    let is_number = |text: &str, len| text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(year, 4) || !is_number(number, 2) {
        return None;
    }
    let date = Date::new(year.parse().ok()?, number.parse().ok()?, 1).ok()?;
    // Wherever on Earth, its ends are after 1970 and before the end of what can be written.
    (date.year() > 1970 || (date.year() == 1970 && date.month() > 1)).then_some(date).filter(|date| date.year() < 9999)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P7. What is no month or no zone is told with what to write instead.
    #[test]
    fn what_is_no_month_is_refused() {
        for month in ["2026-13", "2026-00", "2026-1", "26-01", "2026-11-01", "", "1970-01", "9999-01", "+026-01"] {
            let error = Period::of_month(month, "UTC").expect_err(month).to_string();
            assert!(error.contains("such as 2026-11"), "{error}");
        }
        let error = Period::of_month("2026-11", "Europe/Berlinn").expect_err("no zone").to_string();
        assert!(error.contains("such as Europe/Berlin"), "{error}");
    }

    /// P7. Where a tenant moves to another zone, no moment is in two months, and none between them.
    #[test]
    fn months_of_two_zones_follow_one_another() {
        for (zone, other) in [("Pacific/Kiritimati", "Pacific/Pago_Pago"), ("Europe/Berlin", "Asia/Kathmandu")] {
            for (zone, other) in [(zone, other), (other, zone)] {
                let mut period = Period::of_month("2026-10", zone).expect("a month");
                for month in ["2026-11", "2026-12", "2027-01"] {
                    let next = period.next(other).expect("a month");
                    assert_eq!((next.span.from, next.month(), next.zone()), (period.span.to, month, other));
                    assert_eq!(next.span.to, Period::of_month(month, other).expect("a month").span.to);
                    assert!(next.is_sound());
                    period = next;
                }
                assert_eq!(period, Period::of_month("2027-01", other).expect("a month"), "all of it, two months on");
            }
        }
    }

    /// P7. Neighbouring months share their border, and it is midnight where the tenant lives.
    #[test]
    fn months_follow_one_another() {
        for zone in ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"] {
            let mut before: Option<Period> = None;
            for year in 2024..2030 {
                for month in 1..=12 {
                    let period = Period::of_month(&format!("{year}-{month:02}"), zone).expect("a month");
                    if let Some(before) = before {
                        assert_eq!(before.span.to, period.span.from);
                    }
                    assert!(
                        period.local(period.span.from).contains("-01 00:00:00"),
                        "{}",
                        period.local(period.span.from)
                    );
                    before = Some(period);
                }
            }
        }
    }
}
