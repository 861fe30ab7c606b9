//! A head: the signed root over the tips of all tenants' books at the end of a day.
//!
//! Each names the hash of the one before, and the root of the tree over all before it, so that whoever keeps one head can
//! check any older one, and that a newer one continues it ([`Head::continues`]).

use super::digest::Digest;
use super::key::{PublicKey, SigningKey};
use super::merkle::{self, Tree};
use super::text::{Hex, NotCanonical, Text};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt;

/// No line of a head is longer, its line feed with it.
pub(super) const HEAD_BYTES_MAX: u64 = 1024;

/// A day of the calendar, as 2026-11-30.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// Makes one of a year from 1970 to 9999, a month from 1 and a day from 1 to 31; `None` of anything else.
    #[must_use]
    pub const fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let is_day = 1970 <= year && year <= 9999 && 1 <= month && month <= 12 && 1 <= day && day <= 31;
        if is_day { Some(Self { year, month, day }) } else { None }
    }

    /// The day, UTC, that a moment is in, milliseconds since 1970; `None` beyond the year 9999.
    #[must_use]
    pub fn of_ms(wall_ms: u64) -> Option<Self> {
        let moment = Timestamp::from_millisecond(i64::try_from(wall_ms).ok()?).ok()?;
        let date = TimeZone::UTC.to_datetime(moment).date();
        Self::new(u16::try_from(date.year()).ok()?, u8::try_from(date.month()).ok()?, u8::try_from(date.day()).ok()?)
    }

    fn take(text: &mut Text<'_>) -> Result<Self, NotCanonical> {
        let refusal = text.refusal();
        let written = text.chars("2026-11-30".len())?;
        let number =
            |range| written.get(range).filter(|digits: &&str| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let year = number(0..4).and_then(|digits| digits.parse().ok());
        let month = number(5..7).and_then(|digits| digits.parse().ok());
        let day = number(8..10).and_then(|digits| digits.parse().ok());
        let date = year.zip(month).zip(day).and_then(|((year, month), day)| Self::new(year, month, day));
        date.filter(|date| date.to_string() == written).ok_or(refusal)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// What tells a ledger from all others, signed by the same key or not: random bytes, given to it when it is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerId(pub [u8; 16]);

impl fmt::Display for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LedgerId({self})")
    }
}

/// What a head says, but for who signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) ledger: LedgerId,
    pub(super) number: u64,
    pub(super) date: Date,
    pub(super) tips: Tree,
    pub(super) before: Digest,
    pub(super) log: Digest,
    pub(super) next_key: Option<PublicKey>,
}

/// The proof that a head continues an older one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// That the older head is among those before the newer (RFC 6962 2.1.1).
    pub inclusion: Vec<Digest>,
    /// That those before the older are the first of them (RFC 6962 2.1.2).
    pub consistency: Vec<Digest>,
}

impl Continuation {
    /// That the head after `hashes`, which are those of all heads before it, continues head number `older` of them; `None` when
    /// there is none of that number.
    pub(super) fn prove(hashes: &[Digest], older: u64) -> Option<Self> {
        let before = usize::try_from(older.checked_sub(1)?).ok()?;
        let inclusion = merkle::inclusion(hashes, before)?;
        Some(Self { inclusion, consistency: merkle::consistency(hashes, before).unwrap_or_default() })
    }
}

/// A signed head.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head {
    says: Statement,
    key: PublicKey,
    signature: [u8; 64],
}

impl Head {
    pub(super) fn sign(says: Statement, key: &SigningKey) -> Self {
        let mut head = Self { says, key: key.public(), signature: [0; 64] };
        head.signature = key.sign(&head.text());
        head
    }

    /// The first is 1, the next 2.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.says.number
    }

    /// Of which ledger it is.
    #[must_use]
    pub const fn ledger(&self) -> LedgerId {
        self.says.ledger
    }

    /// The day that it ends.
    #[must_use]
    pub const fn date(&self) -> Date {
        self.says.date
    }

    /// The tree over the tips.
    #[must_use]
    pub const fn tips(&self) -> Tree {
        self.says.tips
    }

    /// The hash of the head before; [`Digest::NONE`] in the first.
    #[must_use]
    pub const fn before(&self) -> Digest {
        self.says.before
    }

    /// The tree over the hashes of all heads before it.
    #[must_use]
    pub const fn log(&self) -> Tree {
        Tree { size: self.says.number.saturating_sub(1), root: self.says.log }
    }

    /// Whose signature it bears.
    #[must_use]
    pub const fn key(&self) -> PublicKey {
        self.key
    }

    /// Who signs the next head: the key that this one announces, or its own.
    #[must_use]
    pub const fn key_of_next(&self) -> PublicKey {
        match self.says.next_key {
            Some(key) => key,
            None => self.key,
        }
    }

    /// The hash of what it says, which the next one names. It does not depend on the signature.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of_line(self.text().as_bytes())
    }

    /// Whether the signature is that of the key it names, over what it says.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.key.has_signed(self.text().as_bytes(), &self.signature)
    }

    /// Whether `before` is the head before this one. Signatures are not looked at.
    #[must_use]
    pub fn follows(&self, before: &Self) -> bool {
        before.number().checked_add(1) == Some(self.number())
            && self.ledger() == before.ledger()
            && self.before() == before.hash()
    }

    /// Whether `proof` proves that `older` and all heads before it are behind this one, as they were. Signatures are not looked
    /// at.
    #[must_use]
    pub fn continues(&self, older: &Self, proof: &Continuation) -> bool {
        let log = self.log();
        let is_behind = older.number() > 0
            && merkle::is_included(older.hash(), (older.number() - 1, log.size), &proof.inclusion, log.root);
        let has_begun = older.log().size == 0 || merkle::is_continued(older.log(), log, &proof.consistency);
        self.ledger() == older.ledger() && is_behind && has_begun
    }

    /// What is signed: the line without the signature.
    fn text(&self) -> String {
        let says = &self.says;
        let next_key = says.next_key.map(|key| format!(",\"next_key\":\"{key}\"")).unwrap_or_default();
        format!(
            "{{\"head\":{},\"format\":\"aljibe-ledger-1\",\"ledger\":\"{}\",\"date\":\"{}\",\"leaves\":{},\"root\":\"{}\",\
             \"before\":\"{}\",\"log\":\"{}\",\"key\":\"{}\"{next_key}}}",
            says.number, says.ledger, says.date, says.tips.size, says.tips.root, says.before, says.log, self.key
        )
    }

    /// Its line, without a line feed.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = self.text();
        line.pop();
        line + &format!(",\"signature\":\"{}\"}}", Hex(&self.signature))
    }

    /// Reads a line, without its line feed. Whether it is signed is another question.
    ///
    /// # Errors
    /// [`NotCanonical`] when it is no line of a head.
    pub fn parse(line: &[u8]) -> Result<Self, NotCanonical> {
        let mut text = Text::new(line);
        text.literal("{\"head\":")?;
        let number = text.number()?;
        text.literal(",\"format\":\"aljibe-ledger-1\",\"ledger\":\"")?;
        let ledger = LedgerId(text.hex()?);
        text.literal("\",\"date\":\"")?;
        let date = Date::take(&mut text)?;
        text.literal("\",\"leaves\":")?;
        let size = text.number()?;
        text.literal(",\"root\":\"")?;
        let root = text.digest()?;
        text.literal("\",\"before\":\"")?;
        let before = text.digest()?;
        text.literal("\",\"log\":\"")?;
        let log = text.digest()?;
        text.literal("\",\"key\":\"")?;
        let key = PublicKey::take(&mut text)?;
        let next_key = if text.takes("\",\"next_key\":\"") { Some(PublicKey::take(&mut text)?) } else { None };
        text.literal("\",\"signature\":\"")?;
        let signature = text.hex()?;
        text.literal("\"}")?;
        text.end()?;
        let tips = Tree { size, root };
        Ok(Self { says: Statement { ledger, number, date, tips, before, log, next_key }, key, signature })
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Head({})", self.line())
    }
}
