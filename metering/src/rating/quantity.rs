//! What a price is for: units of quantity, and how much of a register one is.

use std::num::NonZeroU128;

use serde::{Deserialize, Serialize};

use super::exact::Exact;
use super::period::Period;
use crate::reading::Unit;

const GIB: u128 = 1 << 30;
const GB: u128 = 1_000_000_000;
const TIB: u128 = 1 << 40;
const TB: u128 = 1_000_000_000_000;
const HOUR_MS: u128 = 3_600_000;

/// The unit of a price. A month is as long as the billing month is in its time zone: a GiB held from its beginning to its
/// end is 1 GiB-month, in February as in a month whose clocks change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriceUnit {
    /// 2^30 bytes for the billing month.
    GibMonth,
    /// 10^9 bytes for the billing month.
    GbMonth,
    /// 2^40 bytes for the billing month.
    TibMonth,
    /// 10^12 bytes for the billing month.
    TbMonth,
    /// 2^30 bytes for 3,600 seconds.
    GibHour,
    /// 10^9 bytes for 3,600 seconds.
    GbHour,
    /// 1,000 requests.
    ThousandRequests,
    /// 1,000,000 requests.
    MillionRequests,
    /// 2^30 bytes.
    Gib,
    /// 10^9 bytes.
    Gb,
    /// 2^40 bytes.
    Tib,
    /// 10^12 bytes.
    Tb,
}

impl PriceUnit {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::GibMonth,
        Self::GbMonth,
        Self::TibMonth,
        Self::TbMonth,
        Self::GibHour,
        Self::GbHour,
        Self::ThousandRequests,
        Self::MillionRequests,
        Self::Gib,
        Self::Gb,
        Self::Tib,
        Self::Tb,
    ];

    /// Its name, as on a card.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GibMonth => "gib_month",
            Self::GbMonth => "gb_month",
            Self::TibMonth => "tib_month",
            Self::TbMonth => "tb_month",
            Self::GibHour => "gib_hour",
            Self::GbHour => "gb_hour",
            Self::ThousandRequests => "thousand_requests",
            Self::MillionRequests => "million_requests",
            Self::Gib => "gib",
            Self::Gb => "gb",
            Self::Tib => "tib",
            Self::Tb => "tb",
        }
    }

    /// Its name for people, which is that of FOCUS too ("UnitFormat").
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::GibMonth => "GiB-Months",
            Self::GbMonth => "GB-Months",
            Self::TibMonth => "TiB-Months",
            Self::TbMonth => "TB-Months",
            Self::GibHour => "GiB-Hours",
            Self::GbHour => "GB-Hours",
            Self::ThousandRequests => "1000 Requests",
            Self::MillionRequests => "1000000 Requests",
            Self::Gib => "GiB",
            Self::Gb => "GB",
            Self::Tib => "TiB",
            Self::Tb => "TB",
        }
    }

    /// Which registers it can be a price for.
    #[must_use]
    pub const fn measures(self) -> Unit {
        match self {
            Self::GibMonth | Self::GbMonth | Self::TibMonth | Self::TbMonth | Self::GibHour | Self::GbHour => {
                Unit::ByteMilliseconds
            }
            Self::ThousandRequests | Self::MillionRequests => Unit::Requests,
            Self::Gib | Self::Gb | Self::Tib | Self::Tb => Unit::Bytes,
        }
    }

    /// `register` units of a register, in this unit.
    pub(crate) fn quantity(self, register: Exact, period: &Period) -> Exact {
        register / self.size(period)
    }

    /// How many units of a register one is.
    fn size(self, period: &Period) -> NonZeroU128 {
        let month = u128::from(period.milliseconds());
        let size = match self {
            Self::GibMonth => GIB * month,
            Self::GbMonth => GB * month,
            Self::TibMonth => TIB * month,
            Self::TbMonth => TB * month,
            Self::GibHour => GIB * HOUR_MS,
            Self::GbHour => GB * HOUR_MS,
            Self::ThousandRequests => 1_000,
            Self::MillionRequests => 1_000_000,
            Self::Gib => GIB,
            Self::Gb => GB,
            Self::Tib => TIB,
            Self::Tb => TB,
        };
        // A period ends after it begins, so that no size is 0.
        NonZeroU128::new(size).unwrap_or(NonZeroU128::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P7. 1 GiB from a month's beginning to its end is 1 GiB-month, however long the month is.
    #[test]
    fn a_month_is_as_long_as_it_is() {
        let months = [
            ("2026-02", "UTC", 28 * 24),
            ("2028-02", "UTC", 29 * 24),
            ("2026-03", "Europe/Berlin", 31 * 24 - 1),
            ("2026-10", "Europe/Berlin", 31 * 24 + 1),
            ("2026-11", "America/New_York", 30 * 24 + 1),
            ("2026-03", "America/New_York", 31 * 24 - 1),
            ("2026-04", "Australia/Lord_Howe", 30 * 24), // Half an hour more, see below.
        ];
        for (month, zone, hours) in months {
            let period = Period::of_month(month, zone).expect(month);
            let half = if zone == "Australia/Lord_Howe" { 1_800_000 } else { 0 };
            assert_eq!(period.milliseconds(), hours * 3_600_000 + half, "{month} {zone}");
            let register = Exact::from((1_u128 << 30) * u128::from(period.milliseconds()));
            assert_eq!(PriceUnit::GibMonth.quantity(register, &period), Exact::one(), "{month} {zone}");
        }
    }

    /// P7. A unit is told on a card by the name that it says.
    #[test]
    fn names_are_those_of_json() {
        for unit in PriceUnit::ALL {
            assert_eq!(serde_json::to_string(&unit).expect("JSON"), format!("\"{}\"", unit.name()));
        }
    }
}
