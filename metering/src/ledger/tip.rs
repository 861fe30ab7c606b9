//! The tip of a chain: how many entries a book has, and the hash of the newest. It is what the next entry follows, and a leaf
//! of the tree that a head signs.

use super::digest::Digest;
use super::entry::{Book, Entry, Kind, PayloadError, check_payload};
use super::text::{NotCanonical, Text};
use std::fmt;
use units::TenantId;

/// No line of a tip is longer, its line feed with it.
pub(super) const TIP_BYTES_MAX: u64 = 160;

/// Where a tenant's book ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which of the two.
    pub book: Book,
    /// The number of its newest entry; 0 when there is none.
    pub count: u64,
    /// The hash of its newest entry; [`Digest::NONE`] when there is none.
    pub hash: Digest,
}

impl Tip {
    /// Of an empty book.
    #[must_use]
    pub const fn empty(tenant: TenantId, book: Book) -> Self {
        Self { tenant, book, count: 0, hash: Digest::NONE }
    }

    /// Makes the next entry's line, and is the tip behind it.
    pub(super) fn append(&mut self, kind: Kind, time_ms: u64, payload: &str) -> Result<String, PayloadError> {
        check_payload(payload)?;
        let number = self.count + 1;
        let line = Entry { number, tenant: self.tenant, kind, time_ms, before: self.hash, payload }.line();
        self.advance(line.as_bytes());
        Ok(line)
    }

    /// Takes the next entry, which is `line`, and is the tip behind it.
    pub(super) fn follow(&mut self, entry: &Entry<'_>, line: &[u8]) -> Result<(), ChainFault> {
        if entry.tenant != self.tenant {
            return Err(ChainFault::Tenant { expected: self.tenant, found: entry.tenant });
        }
        let expected = self.count + 1;
        if entry.number != expected {
            return Err(ChainFault::Number { book: self.book, expected, found: entry.number });
        }
        if entry.before != self.hash {
            return Err(ChainFault::Before { book: self.book, number: entry.number });
        }
        self.advance(line);
        Ok(())
    }

    fn advance(&mut self, line: &[u8]) {
        self.count += 1;
        self.hash = Digest::of_line(line);
    }

    /// Its line, of which the hash is a leaf.
    pub(super) fn line(&self) -> String {
        format!(
            "{{\"tip\":\"{}\",\"tenant\":{},\"count\":{},\"hash\":\"{}\"}}",
            self.book, self.tenant, self.count, self.hash
        )
    }

    /// Which leaf of a head's tree it is, counted from 0: the tenant tells, so that no head has two of one book.
    pub(super) const fn place(&self) -> u64 {
        self.tenant.0.saturating_mul(2).saturating_add(self.book as u64)
    }

    pub(super) fn leaf(&self) -> Digest {
        Digest::of_line(self.line().as_bytes())
    }

    pub(super) fn parse(line: &[u8]) -> Result<Self, NotCanonical> {
        let mut text = Text::new(line);
        text.literal("{\"tip\":\"")?;
        let book = Book::take(&mut text)?;
        text.literal("\",\"tenant\":")?;
        let tenant = TenantId(text.number()?);
        text.literal(",\"count\":")?;
        let count = text.number()?;
        text.literal(",\"hash\":\"")?;
        let hash = text.digest()?;
        text.literal("\"}")?;
        text.end()?;
        Ok(Self { tenant, book, count, hash })
    }
}

/// Why an entry is not the next one of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainFault {
    /// It is another tenant's.
    Tenant {
        /// Whose the chain is.
        expected: TenantId,
        /// Whose the entry is.
        found: TenantId,
    },
    /// It has another number than the next: entries are missing, came twice or in another order.
    Number {
        /// The book.
        book: Book,
        /// The next number.
        expected: u64,
        /// The entry's.
        found: u64,
    },
    /// It does not name the hash of the one before: one of the two was changed.
    Before {
        /// The book.
        book: Book,
        /// The entry's number.
        number: u64,
    },
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant { expected, found } => {
                write!(f, "an entry of tenant {found} among those of tenant {expected}")
            }
            Self::Number { book, expected, found } => {
                write!(f, "entry {found} of the {book} book where entry {expected} belongs")
            }
            Self::Before { book, number } => {
                write!(
                    f,
                    "entry {number} of the {book} book does not follow the one before it: one of the two was changed"
                )
            }
        }
    }
}

impl std::error::Error for ChainFault {}
