//! Words for people at the other site: printable ASCII, short.

use super::error::WireError;
use std::fmt;

/// Longest text.
pub const TEXT_BYTES_MAX: usize = 240;

/// A text that can be logged as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text(String);

impl Text {
    /// Makes one: what is not printable ASCII becomes `?`, what is too long is cut.
    #[must_use]
    pub fn new(words: &str) -> Self {
        let kept = words.chars().take(TEXT_BYTES_MAX);
        Self(kept.map(|c| if is_printable(c) { c } else { '?' }).collect())
    }

    /// The words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let wrong = WireError::Value { field: "text" };
        let words = std::str::from_utf8(bytes).map_err(|_| wrong)?;
        if words.len() > TEXT_BYTES_MAX || !words.chars().all(is_printable) {
            return Err(wrong);
        }
        Ok(Self(words.to_owned()))
    }
}

const fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~')
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
