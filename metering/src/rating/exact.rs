//! Numbers without rounding: rationals for what is reckoned, decimals for what a card says.

use std::fmt;
use std::ops::{Add, Div, Mul, Neg, Sub};

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::money::RoundingRule;

/// Digits of a text that is taken for a number.
const TEXT_BYTES_MAX: usize = 100_000;
/// Digits of a [`Decimal`] on each side of its point.
const DECIMAL_DIGITS_MAX: usize = 18;

/// A rational number of any size. Its text is `7`, or `7/3` in lowest terms.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exact(BigRational);

impl Exact {
    /// Nothing.
    #[must_use]
    pub fn zero() -> Self {
        Self(BigRational::zero())
    }

    /// One.
    #[must_use]
    pub fn one() -> Self {
        Self(BigRational::one())
    }

    /// `numerator / denominator`; `None` when that is 0.
    pub(crate) fn ratio(numerator: impl Into<BigInt>, denominator: impl Into<BigInt>) -> Option<Self> {
        let denominator = denominator.into();
        (!denominator.is_zero()).then(|| Self(BigRational::new(numerator.into(), denominator)))
    }

    /// 10 to the power of `digits`.
    pub(crate) fn power_of_ten(digits: u32) -> Self {
        Self(BigRational::from_integer(BigInt::from(10).pow(digits)))
    }

    /// Whether it is 0.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }

    /// Whether it is less than 0.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.0.is_negative()
    }

    /// `self / other`; `None` when that is 0.
    #[must_use]
    pub fn over(&self, other: &Self) -> Option<Self> {
        (!other.is_zero()).then(|| Self(&self.0 / &other.0))
    }

    pub(crate) fn abs(&self) -> Self {
        Self(self.0.abs())
    }

    /// The greatest whole number that is not above it, and what is left, which is less than 1.
    pub(crate) fn split(&self) -> (BigInt, Self) {
        let floor = self.0.floor();
        (floor.to_integer(), Self(&self.0 - &floor))
    }

    /// The greatest whole number that is not above it; `None` when it has no place in 128 bits.
    pub(crate) fn floor_u128(&self) -> Option<u128> {
        self.0.floor().to_integer().to_u128()
    }

    /// For the eye: at most `places` decimals, the last one to the nearest, ties to even; no zeros at the end.
    #[must_use]
    pub fn decimal(&self, places: u32) -> String {
        let whole = RoundingRule::HalfEven.last_decimals(self, places);
        let digits = whole.to_string();
        let places = usize::try_from(places).unwrap_or(0);
        let padded = format!("{digits:0>width$}", width = places + 1);
        let (before, after) = padded.split_at(padded.len() - places);
        let after = after.trim_end_matches('0');
        let sign = if self.is_negative() && !whole.is_zero() { "-" } else { "" };
        if after.is_empty() { format!("{sign}{before}") } else { format!("{sign}{before}.{after}") }
    }

    /// Reads what [`fmt::Display`] wrote, and nothing else.
    fn parse(text: &str) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
        let number = Self::ratio(numerator.parse::<BigInt>().ok()?, denominator.parse::<BigInt>().ok()?)?;
        (number.to_string() == text).then_some(number)
    }
}

impl From<u128> for Exact {
    fn from(value: u128) -> Self {
        Self(BigRational::from_integer(BigInt::from(value)))
    }
}

impl From<u64> for Exact {
    fn from(value: u64) -> Self {
        Self::from(u128::from(value))
    }
}

impl From<i128> for Exact {
    fn from(value: i128) -> Self {
        Self(BigRational::from_integer(BigInt::from(value)))
    }
}

impl Add for Exact {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Exact {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Mul for Exact {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0)
    }
}

impl Neg for Exact {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

/// By a number that is not 0 by its type.
impl Div<std::num::NonZeroU128> for Exact {
    type Output = Self;
    fn div(self, other: std::num::NonZeroU128) -> Self {
        Self(self.0 / BigInt::from(other.get()))
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("no number like `7` or `7/3` in lowest terms"))
    }
}

/// A number that is not negative, as a card tells it: at most 18 digits before the point and 18 behind. One number has
/// one text: `0.10` is read as `0.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Decimal {
    mantissa: u128,
    places: u32,
}

impl Decimal {
    /// Reads `12`, `0.0125`; no sign, no exponent, a digit on both sides of a point.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |part: &str| {
            !part.is_empty() && part.len() <= DECIMAL_DIGITS_MAX && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !is_number(whole) || !is_number(fraction) {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let mantissa = format!("{whole}{fraction}").parse().ok()?;
        Some(Self { mantissa, places: u32::try_from(fraction.len()).ok()? })
    }

    /// The number.
    #[must_use]
    pub fn exact(&self) -> Exact {
        let denominator = BigInt::from(10).pow(self.places);
        Exact(BigRational::new(BigInt::from(self.mantissa), denominator))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.exact().decimal(self.places))
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "`{}` is no price or quantity: write digits as text, such as \"0.0125\", at most {DECIMAL_DIGITS_MAX} on each side",
                text.chars().take(40).collect::<String>().escape_debug()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P7. A price is read as it is written, and what could be read in two ways is refused.
    #[test]
    fn a_decimal_is_digits_and_a_point() {
        for (text, same) in
            [("0", "0"), ("0.10", "0.1"), ("007.50", "7.5"), ("999999999999999999", "999999999999999999")]
        {
            assert_eq!(Decimal::parse(text).expect(text).to_string(), same);
        }
        let smallest = Decimal::parse("0.000000000000000001").expect("18 places");
        assert_eq!(smallest.to_string(), "0.000000000000000001");
        for wrong in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "1_000", "1,5", "0x1", "1.2.3", "NaN", "1234567890123456789"]
        {
            assert_eq!(Decimal::parse(wrong), None, "{wrong}");
        }
    }

    /// P7. A rational has one text, which is read back whole.
    #[test]
    fn a_rational_goes_through_its_text() {
        for (n, d) in [(7, 3), (-7, 3), (0, 5), (12, 4)] {
            let number = Exact::ratio(n, d).expect("no 0 below");
            assert_eq!(Exact::parse(&number.to_string()), Some(number));
        }
        for wrong in ["", "6/4", "1/0", "1/-2", "+1", "1/1", "0.5"] {
            assert_eq!(Exact::parse(wrong), None, "{wrong}");
        }
    }

    /// P7. For the eye the last decimal is the nearest one, and a tie goes to the even.
    #[test]
    fn decimals_for_the_eye() {
        let text = |n: i64, d: i64, places| Exact::ratio(n, d).expect("no 0 below").decimal(places);
        assert_eq!(text(1, 3, 4), "0.3333");
        assert_eq!(text(2, 3, 4), "0.6667");
        assert_eq!(text(1, 8, 2), "0.12");
        assert_eq!(text(3, 8, 2), "0.38");
        assert_eq!(text(-3, 2, 0), "-2");
        assert_eq!(text(-1, 1000, 2), "0");
        assert_eq!(text(1200, 1, 2), "1200");
    }
}
