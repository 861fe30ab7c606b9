//! An entry: one line of one tenant's book, chained to the one before.
//!
//! The line is what is hashed, kept and exported, byte for byte; nothing is written anew to be checked.

use super::digest::Digest;
use super::text::{NotCanonical, Text};
use serde::de::IgnoredAny;
use std::fmt;
use units::TenantId;

/// Most bytes of an entry's payload.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Most arrays and objects within each other of an entry's payload: some readers of JSON go no deeper.
const PAYLOAD_DEPTH_MAX: u32 = 100;

/// Most bytes of a line, without its line feed: an entry's members beside the payload, or a proof, take less than the rest.
pub const LINE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 8192;

/// A tenant's chains. They are two, because what was measured is dropped once nobody can dispute it any more, and what was
/// charged is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Book {
    /// What was measured.
    Meter,
    /// What was charged for it, and by what.
    Account,
}

impl Book {
    /// Both, in the order of leaves and bundles.
    pub const ALL: [Self; 2] = [Self::Meter, Self::Account];

    /// Its name in lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meter => "meter",
            Self::Account => "account",
        }
    }

    pub(super) fn take(text: &mut Text<'_>) -> Result<Self, NotCanonical> {
        let refusal = text.refusal();
        let word = text.word()?;
        Self::ALL.into_iter().find(|book| book.name() == word).ok_or(refusal)
    }
}

impl fmt::Display for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What registers said. Of the book of the meter, like the next.
    Readings,
    /// The wall clock was set.
    ClockStep,
    /// A rate card holds from now on. Of the account, like all that follow.
    RateCard,
    /// A line of an invoice.
    InvoiceLine,
    /// An invoice was issued.
    Invoice,
    /// What an earlier entry charged is taken back.
    Reversal,
    /// Anything else that is to be kept.
    Note,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Readings, Self::ClockStep, Self::RateCard, Self::InvoiceLine, Self::Invoice, Self::Reversal, Self::Note];

    /// Its name in lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Readings => "readings",
            Self::ClockStep => "clock_step",
            Self::RateCard => "rate_card",
            Self::InvoiceLine => "invoice_line",
            Self::Invoice => "invoice",
            Self::Reversal => "reversal",
            Self::Note => "note",
        }
    }

    /// The book that its entries are in.
    #[must_use]
    pub const fn book(self) -> Book {
        match self {
            Self::Readings | Self::ClockStep => Book::Meter,
            Self::RateCard | Self::InvoiceLine | Self::Invoice | Self::Reversal | Self::Note => Book::Account,
        }
    }
}

/// An entry, as its line says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The first of a book is 1, the next 2.
    pub number: u64,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it is.
    pub kind: Kind,
    /// When it was made, milliseconds since 1970 by the wall clock of then: it may go back.
    pub time_ms: u64,
    /// The hash of the entry before; [`Digest::NONE`] in the first.
    pub before: Digest,
    /// JSON, of at most [`PAYLOAD_BYTES_MAX`].
    pub payload: &'a str,
}

/// What an entry of a tenant's account says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEntry {
    /// Its number; the first is 1.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// When it was made, milliseconds since 1970.
    pub time_ms: u64,
    /// JSON on one line.
    pub payload: String,
}

impl<'a> Entry<'a> {
    /// Reads a line, without its line feed.
    ///
    /// # Errors
    /// [`NotCanonical`] when it is no line of an entry.
    pub fn parse(line: &'a [u8]) -> Result<Self, NotCanonical> {
        let mut text = Text::new(line);
        text.literal("{\"entry\":")?;
        let number = text.number()?;
        text.literal(",\"tenant\":")?;
        let tenant = TenantId(text.number()?);
        text.literal(",\"kind\":\"")?;
        let refusal = text.refusal();
        let word = text.word()?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == word).ok_or(refusal)?;
        text.literal("\",\"time\":")?;
        let time_ms = text.number()?;
        text.literal(",\"before\":\"")?;
        let before = text.digest()?;
        text.literal("\",\"payload\":")?;
        let payload = text.rest().strip_suffix(b"}").and_then(|payload| std::str::from_utf8(payload).ok());
        let payload = payload.filter(|payload| check_payload(payload).is_ok()).ok_or_else(|| text.refusal())?;
        Ok(Self { number, tenant, kind, time_ms, before, payload })
    }

    /// Whose entry `line` is.
    pub(super) fn tenant_of(line: &[u8]) -> Result<TenantId, NotCanonical> {
        let mut text = Text::new(line);
        text.literal("{\"entry\":")?;
        text.number()?;
        text.literal(",\"tenant\":")?;
        text.number().map(TenantId)
    }

    /// Its line.
    pub(super) fn line(&self) -> String {
        format!(
            "{{\"entry\":{},\"tenant\":{},\"kind\":\"{}\",\"time\":{},\"before\":\"{}\",\"payload\":{}}}",
            self.number,
            self.tenant,
            self.kind.name(),
            self.time_ms,
            self.before,
            self.payload
        )
    }
}

/// Why a payload is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadError {
    /// More than [`PAYLOAD_BYTES_MAX`].
    TooLong,
    /// Not one JSON value on one line.
    NotJson,
    /// Nested deeper than any reader goes.
    TooDeep,
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the payload has more than {PAYLOAD_BYTES_MAX} bytes"),
            Self::NotJson => f.write_str("the payload is not one JSON value on one line"),
            Self::TooDeep => write!(f, "the payload is nested more than {PAYLOAD_DEPTH_MAX} deep"),
        }
    }
}

impl std::error::Error for PayloadError {}

pub(super) fn check_payload(payload: &str) -> Result<(), PayloadError> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(PayloadError::TooLong);
    }
    // Within texts JSON has no bytes like that; around them they would break the line.
    if payload.bytes().any(|byte| byte < b' ') || serde_json::from_str::<IgnoredAny>(payload).is_err() {
        return Err(PayloadError::NotJson);
    }
    if depth(payload) > PAYLOAD_DEPTH_MAX {
        return Err(PayloadError::TooDeep);
    }
    Ok(())
}

/// How many arrays and objects of `json` are within each other.
fn depth(json: &str) -> u32 {
    let (mut depth, mut deepest, mut is_text, mut is_escaped) = (0_u32, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => depth += 1,
            b']' | b'}' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = depth.max(deepest);
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(payload: &str) -> Entry<'_> {
        Entry {
            number: 17,
            tenant: TenantId(2),
            kind: Kind::Note,
            time_ms: 1_795_824_000_000,
            before: Digest([0xa5; 32]),
            payload,
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        for kind in Kind::ALL {
            for payload in ["{}", "null", "[1,\"}\",{\"a\":\"\\n\"}]", "\"\u{e9}\""] {
                let entry = Entry { kind, ..entry(payload) };
                assert_eq!(Entry::parse(entry.line().as_bytes()), Ok(entry));
                assert!(serde_json::from_str::<serde_json::Value>(&entry.line()).is_ok());
            }
        }
    }

    /// P7. There is one way to write an entry: what means the same to a reader of JSON is refused all the same.
    #[test]
    fn another_spelling_of_an_entry_is_refused() {
        let line = entry("{}").line();
        for (from, to) in [
            (":17,", ":017,"),
            (":17,", ": 17,"),
            (":17,", ":1.7e1,"),
            (":17,", ":,"),
            (":17,", ":9223372036854775808,"),
            ("a5a5", "A5A5"),
            ("\"note\"", "\"NOTE\""),
            ("\"note\"", "\"notes\""),
            ("{}}", "{}} "),
            ("{}}", "{}},\"more\":1}"),
            ("{}}", "{},\"payload\":{}}"),
            ("{}}", "{\n}}"),
            ("{}}", "}"),
        ] {
            let wrong = line.replacen(from, to, 1);
            assert_ne!(wrong, line);
            assert!(Entry::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        for (depth, is_right) in [(100, true), (101, false), (PAYLOAD_BYTES_MAX / 2, false)] {
            let deep = ["[".repeat(depth), "]".repeat(depth)].concat();
            assert_eq!(Entry::parse(entry(&deep).line().as_bytes()).is_ok(), is_right, "{depth}");
        }
        let long = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX - 2));
        assert!(Entry::parse(entry(&long).line().as_bytes()).is_ok());
        let long = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX - 1));
        assert!(Entry::parse(entry(&long).line().as_bytes()).is_err());
    }
}
