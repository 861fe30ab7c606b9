//! Sizes as people write them: `10G`, `512M`, `1PiB`, plain bytes. Units are powers of 1024 throughout.
//!
//! A unit that means powers of 1000 elsewhere (`GB`) is refused, since nobody should get 7 % less than was asked for.

use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::fmt;
use std::str::FromStr;
use units::{ADDRESS_SPACE_BYTES, BLOCK_BYTES, SECTOR_BYTES};

/// Bytes of the largest volume: one block less than the address space, since clients count sizes in signed 64 bits.
const VOLUME_BYTES_MAX: u64 = ADDRESS_SPACE_BYTES - BLOCK_BYTES;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

/// A size that a volume can have: a multiple of 512 from 512 to 2^63 - 4096 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeSize(u64);

/// Why a text or number is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    /// Not digits with a unit behind.
    #[error("size {0:?} is not a number with an optional unit: write bytes (10737418240) or 512M, 10G, 1T, 1PiB")]
    NotANumber(String),
    /// A fraction of a unit.
    #[error("size {0:?} has a fraction: write it in the next smaller unit, such as 1536M for 1.5G")]
    Fraction(String),
    /// A decimal unit.
    #[error("size {0:?} has a decimal unit: units are powers of 1024 here, write {1} or {1}iB")]
    DecimalUnit(String, String),
    /// Does not fit in 64 bits.
    #[error("size {0:?} is too large: it has more than 64 bits")]
    TooLarge(String),
    /// A volume of no bytes.
    #[error("a volume cannot be empty: give at least 512 bytes")]
    Zero,
    /// Not whole sectors.
    #[error("{0} bytes is not a multiple of 512: the nearest sizes are {1} and {2}")]
    NotSectors(u64, u64, u64),
    /// Wider than a volume's address space.
    #[error("{0} bytes is too large: the greatest volume has 9223372036854771712 (2^63 - 4096)")]
    BeyondAddressSpace(u64),
}

impl Size {
    /// Makes a size of `bytes`.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Its number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// It in the unit a person would choose, rounded to one decimal: `1.5G`.
    #[must_use]
    pub fn rounded(self) -> String {
        let Some((unit, letter)) = largest_unit(self.0) else {
            return self.0.to_string();
        };
        let tenths = (u128::from(self.0) * 10 + u128::from(unit) / 2) / u128::from(unit);
        match (tenths / 10, tenths % 10) {
            (whole, 0) => format!("{whole}{letter}"),
            (whole, tenth) => format!("{whole}.{tenth}{letter}"),
        }
    }
}

impl VolumeSize {
    /// Makes a volume's size of `bytes`.
    ///
    /// # Errors
    /// [`InvalidSize`] when it is zero, not whole sectors, or beyond 2^63 - 4096.
    pub const fn from_bytes(bytes: u64) -> Result<Self, InvalidSize> {
        if bytes == 0 {
            return Err(InvalidSize::Zero);
        }
        if bytes > VOLUME_BYTES_MAX {
            return Err(InvalidSize::BeyondAddressSpace(bytes));
        }
        if !bytes.is_multiple_of(SECTOR_BYTES) {
            let below = bytes - bytes % SECTOR_BYTES;
            return Err(InvalidSize::NotSectors(bytes, below, below + SECTOR_BYTES));
        }
        Ok(Self(bytes))
    }

    /// Its number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let trimmed = text.trim();
        let unit_at = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (digits, unit) = trimmed.split_at(unit_at);
        if unit.starts_with(['.', ',']) {
            return Err(InvalidSize::Fraction(text.to_owned()));
        }
        if digits.is_empty() {
            return Err(InvalidSize::NotANumber(text.to_owned()));
        }
        let multiplier = multiplier_of(unit, text)?;
        let count: u64 = digits.parse().map_err(|_| InvalidSize::TooLarge(text.to_owned()))?;
        count.checked_mul(multiplier).map(Self).ok_or_else(|| InvalidSize::TooLarge(text.to_owned()))
    }
}

impl FromStr for VolumeSize {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        Self::from_bytes(text.parse::<Size>()?.bytes())
    }
}

/// Reads a text with a unit or a number of bytes, as a configuration file may give it.
impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"10G\", or a number of bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
        Ok(Size(bytes))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
        u64::try_from(bytes).map(Size).map_err(|_| E::custom("a size cannot be negative"))
    }
}

/// Bytes that `unit`, as written behind a number, stands for.
fn multiplier_of(unit: &str, whole_text: &str) -> Result<u64, InvalidSize> {
    let unit = unit.trim().to_ascii_uppercase();
    let mut letters = unit.chars();
    let Some(first) = letters.next() else { return Ok(1) };
    let rest = letters.as_str();
    if first == 'B' && rest.is_empty() {
        return Ok(1);
    }
    let known = UNITS.iter().find(|(_, letter)| *letter == first);
    match (known, rest) {
        (Some((multiplier, _)), "" | "IB") => Ok(*multiplier),
        (Some((_, letter)), "B") => Err(InvalidSize::DecimalUnit(whole_text.to_owned(), letter.to_string())),
        _ => Err(InvalidSize::NotANumber(whole_text.to_owned())),
    }
}

/// The greatest unit that `bytes` holds at least one of.
fn largest_unit(bytes: u64) -> Option<(u64, char)> {
    UNITS.iter().rev().find(|(multiplier, _)| bytes >= *multiplier).copied()
}

/// Shows it exactly: in the greatest unit that divides it, as the parser reads it back.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().rev().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, letter)) => write!(f, "{}{letter}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for VolumeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Size(self.0).fmt(f)
    }
}

/// Multiplier and letter of each unit, smallest first.
const UNITS: [(u64, char); 6] =
    [(1 << 10, 'K'), (1 << 20, 'M'), (1 << 30, 'G'), (1 << 40, 'T'), (1 << 50, 'P'), (1 << 60, 'E')];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(text: &str) -> u64 {
        text.parse::<Size>().unwrap().bytes()
    }

    #[test]
    fn units_are_powers_of_1024_in_either_case() {
        assert_eq!(bytes("0"), 0);
        assert_eq!(bytes("4096"), 4096);
        assert_eq!(bytes("4096B"), 4096);
        assert_eq!(bytes("3k"), 3 << 10);
        assert_eq!(bytes("512M"), 512 << 20);
        assert_eq!(bytes(" 10 GiB "), 10 << 30);
        assert_eq!(bytes("1T"), 1 << 40);
        assert_eq!(bytes("1pib"), 1 << 50);
        assert_eq!(bytes("8E"), 1 << 63);
    }

    #[test]
    fn a_refused_size_says_what_to_write() {
        let refusal = |text: &str| text.parse::<Size>().unwrap_err().to_string();
        assert!(refusal("10GB").contains("write G or GiB"), "{}", refusal("10GB"));
        assert!(refusal("1.5G").contains("1536M"));
        assert!(refusal("").contains("not a number"));
        assert!(refusal("-1").contains("not a number"));
        assert!(refusal("ten").contains("not a number"));
        assert!(refusal("10X").contains("not a number"));
        assert!(refusal("16E").contains("too large"));
        assert!(refusal("99999999999999999999").contains("too large"));
        assert!(refusal("10G\u{e9}").contains("not a number"));
    }

    #[test]
    fn a_volume_is_whole_sectors_within_the_address_space() {
        assert_eq!(VolumeSize::from_bytes(512).unwrap().bytes(), 512);
        let largest = (1 << 63) - 4096;
        assert_eq!(VolumeSize::from_bytes(largest).unwrap().bytes(), largest);
        assert_eq!(VolumeSize::from_bytes(1 << 63), Err(InvalidSize::BeyondAddressSpace(1 << 63)));
        assert_eq!(VolumeSize::from_bytes(0), Err(InvalidSize::Zero));
        assert_eq!(VolumeSize::from_bytes(1000), Err(InvalidSize::NotSectors(1000, 512, 1024)));
    }

    #[test]
    fn a_file_gives_a_text_or_a_number() {
        let read = |json: &str| serde_json::from_str::<Size>(json).map(Size::bytes).map_err(|e| e.to_string());
        assert_eq!(read("\"10G\""), Ok(10 << 30));
        assert_eq!(read("4096"), Ok(4096));
        assert!(read("-1").unwrap_err().contains("negative"));
        assert!(read("\"10GB\"").unwrap_err().contains("GiB"));
        assert!(read("true").unwrap_err().contains("a size such as"));
    }

    #[test]
    fn rounding_keeps_one_decimal() {
        assert_eq!(Size::from_bytes(0).rounded(), "0");
        assert_eq!(Size::from_bytes(1023).rounded(), "1023");
        assert_eq!(Size::from_bytes(1536).rounded(), "1.5K");
        assert_eq!(Size::from_bytes(10 << 30).rounded(), "10G");
        assert_eq!(Size::from_bytes(u64::MAX).rounded(), "16E");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(count: u64) {
            let size = Size::from_bytes(count);
            prop_assert_eq!(size.to_string().parse::<Size>(), Ok(size));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}") {
            let _ = text.parse::<VolumeSize>();
        }

        #[test]
        fn a_number_with_a_unit_is_their_product(count in 0_u64..1 << 10, power in 0_usize..6, suffix in 0_usize..3) {
            let (multiplier, letter) = UNITS[power];
            let text = format!("{count}{letter}{}", ["", "iB", "ib"][suffix]);
            let expected = count.checked_mul(multiplier);
            prop_assert_eq!(text.parse::<Size>().ok().map(Size::bytes), expected);
        }
    }
}
