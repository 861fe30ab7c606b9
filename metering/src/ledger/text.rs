//! Reads a line of the ledger member by member. There is one way to write each line, so a line that is written in any other
//! way is refused: whitespace, order, leading zeros and the case of digits are not free.

use super::digest::Digest;
use std::fmt;

/// A line that is not written as the ledger writes lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotCanonical {
    /// Bytes of the line that are as they should be, before what is not.
    pub column: usize,
}

impl fmt::Display for NotCanonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not written as the ledger writes it from byte {} of the line on", self.column)
    }
}

impl std::error::Error for NotCanonical {}

/// No number of a line is as great: one more than any of them is still a number.
pub(super) const NUMBER_END: u64 = 1 << 63;

/// Bytes as a line has them: in small hexadecimal digits.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What is left of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Text<'a> {
    pub(super) const fn new(line: &'a [u8]) -> Self {
        Self { line, at: 0 }
    }

    /// Everything that is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.line.get(self.at..).unwrap_or_default()
    }

    /// Takes `count` bytes.
    fn take(&mut self, count: usize) -> Result<&'a [u8], NotCanonical> {
        let taken = self.rest().get(..count).ok_or_else(|| self.refusal())?;
        self.at += count;
        Ok(taken)
    }

    /// That the line is wrong where this is.
    pub(super) const fn refusal(&self) -> NotCanonical {
        NotCanonical { column: self.at }
    }

    /// Takes `literal`.
    pub(super) fn literal(&mut self, literal: &str) -> Result<(), NotCanonical> {
        if !self.takes(literal) {
            return Err(self.refusal());
        }
        Ok(())
    }

    /// Takes `literal` if it comes next.
    pub(super) fn takes(&mut self, literal: &str) -> bool {
        let comes = self.rest().starts_with(literal.as_bytes());
        if comes {
            self.at += literal.len();
        }
        comes
    }

    /// Takes a decimal number below [`NUMBER_END`] without leading zeros.
    pub(super) fn number(&mut self) -> Result<u64, NotCanonical> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        let refusal = self.refusal();
        let digits = std::str::from_utf8(self.take(digits)?).map_err(|_| refusal)?;
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(refusal);
        }
        digits.parse().ok().filter(|number| *number < NUMBER_END).ok_or(refusal)
    }

    /// Takes a word of small letters and underscores.
    pub(super) fn word(&mut self) -> Result<&'a str, NotCanonical> {
        let letters = self.rest().iter().take_while(|byte| byte.is_ascii_lowercase() || **byte == b'_').count();
        let refusal = self.refusal();
        std::str::from_utf8(self.take(letters)?).map_err(|_| refusal)
    }

    /// Takes a text of `count` bytes.
    pub(super) fn chars(&mut self, count: usize) -> Result<&'a str, NotCanonical> {
        let refusal = self.refusal();
        std::str::from_utf8(self.take(count)?).map_err(|_| refusal)
    }

    /// Takes `N` bytes in small hexadecimal digits.
    pub(super) fn hex<const N: usize>(&mut self) -> Result<[u8; N], NotCanonical> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.nibble()? << 4 | self.nibble()?;
        }
        Ok(bytes)
    }

    fn nibble(&mut self) -> Result<u8, NotCanonical> {
        let refusal = self.refusal();
        match self.take(1)? {
            [digit @ b'0'..=b'9'] => Ok(digit - b'0'),
            [digit @ b'a'..=b'f'] => Ok(digit - b'a' + 10),
            _ => Err(refusal),
        }
    }

    pub(super) fn digest(&mut self) -> Result<Digest, NotCanonical> {
        self.hex().map(Digest)
    }

    /// Holds that nothing is left.
    pub(super) fn end(&self) -> Result<(), NotCanonical> {
        if self.at == self.line.len() { Ok(()) } else { Err(self.refusal()) }
    }
}
