//! Money: whole units of a decimal place, and the one place where something is rounded.

use std::fmt;

use num_bigint::BigInt;
use num_traits::ToPrimitive;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::exact::Exact;

/// Decimals that an amount may have.
pub(crate) const DIGITS_MAX: u8 = 12;

/// How an exact amount becomes one of so many decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoundingRule {
    /// To the nearest; a tie goes to the even neighbour.
    HalfEven,
    /// To the nearest; a tie goes away from 0.
    HalfUp,
    /// To the nearest; a tie goes towards 0.
    HalfDown,
    /// Away from 0.
    Up,
    /// Towards 0.
    Down,
}

impl RoundingRule {
    /// Its name, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HalfEven => "half_even",
            Self::HalfUp => "half_up",
            Self::HalfDown => "half_down",
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// `exact` with `digits` decimals; `None` when that has no place in 127 bits.
    #[must_use]
    pub fn round(self, exact: &Exact, digits: u8) -> Option<Amount> {
        let units = self.last_decimals(exact, u32::from(digits)).to_i128()?;
        Some(Amount { units: if exact.is_negative() { -units } else { units }, digits })
    }

    /// How many of the last of `places` decimals `exact` is, rounded, without its sign.
    pub(crate) fn last_decimals(self, exact: &Exact, places: u32) -> BigInt {
        let (whole, rest) = (exact.abs() * Exact::power_of_ten(places)).split();
        let twice = rest.clone() + rest.clone();
        let is_up = match self {
            Self::HalfEven => twice > Exact::one() || (twice == Exact::one() && whole.bit(0)),
            Self::HalfUp => twice >= Exact::one(),
            Self::HalfDown => twice > Exact::one(),
            Self::Up => !rest.is_zero(),
            Self::Down => false,
        };
        whole + BigInt::from(u8::from(is_up))
    }
}

/// An amount of money with a fixed number of decimals; its text has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Amount {
    units: i128,
    digits: u8,
}

impl Amount {
    /// Nothing, with `digits` decimals.
    #[must_use]
    pub const fn zero(digits: u8) -> Self {
        Self { units: 0, digits }
    }

    /// How many of its last decimal it is.
    #[must_use]
    pub const fn units(&self) -> i128 {
        self.units
    }

    /// How many decimals it has.
    #[must_use]
    pub const fn digits(&self) -> u8 {
        self.digits
    }

    /// The number.
    #[must_use]
    pub fn exact(&self) -> Exact {
        Exact::from(self.units).over(&Exact::power_of_ten(u32::from(self.digits))).unwrap_or_else(Exact::zero)
    }

    /// Their sum, with the decimals of the one that has more; `None` when it has no place.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let digits = self.digits.max(other.digits);
        let units = self.widened(digits)?.checked_add(other.widened(digits)?)?;
        Some(Self { units, digits })
    }

    /// What takes it back.
    #[must_use]
    pub fn negated(self) -> Option<Self> {
        Some(Self { units: self.units.checked_neg()?, digits: self.digits })
    }

    /// It shared out by `weights`, to the last unit: each gets what the exact sum up to it, cut at the last decimal, is more
    /// than that before it, so that what one has less than its due is carried to the next.
    pub(crate) fn shared(self, weights: &[Exact]) -> Option<Vec<Self>> {
        let total = weights.iter().fold(Exact::zero(), |sum, weight| sum + weight.clone());
        let (mut sum, mut given) = (Exact::zero(), 0_i128);
        let mut shares = Vec::with_capacity(weights.len());
        for weight in weights {
            sum = sum + weight.clone();
            let due = Exact::from(self.units) * sum.over(&total)?;
            let up_to = due.split().0.to_i128()?;
            shares.push(Self { units: up_to.checked_sub(given)?, digits: self.digits });
            given = up_to;
        }
        Some(shares)
    }

    fn widened(self, digits: u8) -> Option<i128> {
        let factor = 10_i128.checked_pow(u32::from(digits.checked_sub(self.digits)?))?;
        self.units.checked_mul(factor)
    }

    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = u8::try_from(fraction.len()).ok().filter(|digits| *digits <= DIGITS_MAX)?;
        let amount = Self { units: format!("{whole}{fraction}").parse().ok()?, digits };
        (amount.to_string() == text).then_some(amount)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = usize::from(self.digits);
        let padded = format!("{:0>width$}", self.units.unsigned_abs(), width = digits + 1);
        let (whole, fraction) = padded.split_at(padded.len() - digits);
        let sign = if self.units < 0 { "-" } else { "" };
        let text = if digits == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
        f.pad(&text)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("no amount like `-12.50`"))
    }
}

/// A currency of ISO 4217, by its three letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency(iso_currency::Currency);

impl Currency {
    /// By its three capital letters.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        let currency = iso_currency::Currency::from_code(code).filter(|currency| currency.code() == code)?;
        // What has no minor unit at all (gold, test codes) is no money to bill in.
        currency.exponent().map(|_| Self(currency))
    }

    /// Its three letters.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// The decimals of its minor unit: 2 for a cent.
    #[must_use]
    pub fn digits(self) -> u8 {
        self.0.exponent().and_then(|digits| u8::try_from(digits).ok()).unwrap_or(2)
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = String::deserialize(deserializer)?;
        Self::parse(&code).ok_or_else(|| {
            let code: String = code.chars().take(8).collect();
            de::Error::custom(format!(
                "`{}` is no currency of ISO 4217: write three letters, such as EUR",
                code.escape_debug()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P7. Each rule does at a tie, below and above it what its name says, for credits as for charges.
    #[test]
    fn each_rule_rounds_as_its_name_says() {
        let cases = [
            (RoundingRule::HalfEven, ["0.12", "0.13", "0.14", "0.12"]),
            (RoundingRule::HalfUp, ["0.13", "0.13", "0.14", "0.12"]),
            (RoundingRule::HalfDown, ["0.12", "0.13", "0.13", "0.12"]),
            (RoundingRule::Up, ["0.13", "0.13", "0.14", "0.13"]),
            (RoundingRule::Down, ["0.12", "0.12", "0.13", "0.12"]),
        ];
        for (rule, wanted) in cases {
            for (thousandths, text) in [125, 126, 135, 121].into_iter().zip(wanted) {
                let exact = Exact::ratio(thousandths, 1000).expect("no 0 below");
                assert_eq!(rule.round(&exact, 2).expect("it has a place").to_string(), text, "{rule:?} {thousandths}");
                let back = rule.round(&-exact, 2).expect("it has a place").to_string();
                assert_eq!(back, format!("-{text}"), "{rule:?} {thousandths}");
            }
        }
    }

    /// P7. An amount that has no place is told, not wrapped.
    #[test]
    fn what_is_too_much_is_told() {
        let most = Exact::from(u128::MAX);
        assert_eq!(RoundingRule::HalfEven.round(&most, 2), None);
        let near = Amount { units: i128::MAX, digits: 2 };
        assert_eq!(near.plus(Amount { units: 1, digits: 2 }), None);
        assert_eq!(near.plus(Amount::zero(3)), None);
    }

    /// P7. What is shared out is all given, and nobody gets what is not due.
    #[test]
    fn shares_add_up() {
        let weights: Vec<Exact> = [1_u64, 1, 1, 0].into_iter().map(Exact::from).collect();
        let units = |amount: Amount| -> Vec<i128> {
            amount.shared(&weights).expect("weights").iter().map(Amount::units).collect()
        };
        assert_eq!(units(Amount { units: 100, digits: 2 }), [33, 33, 34, 0]);
        assert_eq!(units(Amount { units: -100, digits: 2 }).iter().sum::<i128>(), -100);
        assert_eq!(Amount { units: 5, digits: 0 }.shared(&[Exact::zero()]), None);
    }

    /// P7. Currencies are those of the standard, with its minor units.
    #[test]
    fn currencies_have_their_minor_units() {
        for (code, digits) in [("EUR", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4)] {
            assert_eq!(Currency::parse(code).expect(code).digits(), digits, "{code}");
        }
        for wrong in ["eur", "EU", "XAU", "XTS", "", "ZZZ"] {
            assert_eq!(Currency::parse(wrong), None, "{wrong}");
        }
    }
}
