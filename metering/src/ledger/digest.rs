//! The ledger's one hash, SHA-256: of a line with a byte 0 before it, of two hashes with a byte 1 before them, as in RFC 6962.
//!
//! What a line is of is told by its first member, so no line of one kind is taken for one of another.

use super::text::{Hex, NotCanonical, Text};
use aws_lc_rs::digest::{Context, SHA256};
use std::fmt;

/// A SHA-256 value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; Self::BYTES]);

impl Digest {
    /// Bytes of one.
    pub const BYTES: usize = 32;

    /// What stands for the hash of the line before the first.
    pub const NONE: Self = Self([0; Self::BYTES]);

    /// Hashes a line of the ledger, without its line feed. RFC 6962 2.1: the hash of a leaf.
    #[must_use]
    pub fn of_line(line: &[u8]) -> Self {
        Self::of(&[&[0], line])
    }

    /// RFC 6962 2.1: the hash of a node above two.
    pub(super) fn of_node(left: Self, right: Self) -> Self {
        Self::of(&[&[1], &left.0, &right.0])
    }

    /// Hashes what is no line.
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        let mut value = [0; Self::BYTES];
        value.copy_from_slice(context.finish().as_ref());
        Self(value)
    }

    /// Reads one from 64 small hexadecimal digits.
    ///
    /// # Errors
    /// [`NotCanonical`] when `text` is anything else.
    pub fn parse(text: &str) -> Result<Self, NotCanonical> {
        let mut text = Text::new(text.as_bytes());
        let digest = text.digest()?;
        text.end()?;
        Ok(digest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}
