//! Rating: what was used, by what it costs, as lines.
//!
//! [`rate`] is a pure function of readings, cards, a period and an account: whoever has them finds the same bill, to the last
//! unit. Nothing is carried over from another bill.
//!
//! A **line** is what a tenant used, in the part of the month in which one price held, of one class and dimension, in one tier; all
//! resources together, since what is free and where tiers end is told for them together. Each line is an exact rational
//! number, rounded once, by the card's rule. Below it is who used it, resource by resource: their quantities are exact, and their
//! amounts are the line's, shared out so that they add up (what one has less than its due is carried to the next).
//!
//! What a card tells for a month (what is free, where tiers end) holds in full for a tenant that came in the middle of it, and by
//! its share of the month for a price that held for a part of it. A price holds for as long as one card after the other says the
//! same. Minimums are those of the month, of each card by its share, for as long as there was an account. A dimension without a
//! price on a card costs nothing; a class that is used and is not on the card is an error.

mod card;
mod cards;
mod exact;
mod forecast;
mod lines;
mod money;
mod note;
mod period;
mod preview;
mod quantity;
mod usage;

use std::collections::BTreeMap;

use jiff::Timestamp;
use thiserror::Error;
use units::{ClassId, Epoch, TenantId, VolumeId};

use crate::reading::{Dimension, Reading};

pub use card::{CardError, CardId, RateCard};
pub use cards::{CardsError, RateCards};
pub use exact::{Decimal, Exact};
pub use forecast::forecast;
pub(crate) use lines::Key;
pub use lines::{Charge, Correction, CorrectionKind, Line, Share, Tier, UsageCharge};
pub use money::{Amount, Currency, RoundingRule};
pub use note::{Note, NoteKind};
pub use period::{Period, PeriodError, Span};
pub use preview::preview;
pub use quantity::PriceUnit;

/// Who pays, and what its things are called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// The tenant.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// The names of its resources; those that are gone too, where they are known.
    pub resources: BTreeMap<VolumeId, String>,
    /// From when on it has an account; none when that is before any period. Minimums are due for this time alone.
    pub since: Option<Timestamp>,
    /// Until when; none when it has one still.
    pub until: Option<Timestamp>,
}

impl Account {
    /// The part of `span` in which it had one.
    pub(crate) fn lived(&self, span: Span) -> Span {
        let from = self.since.map_or(span.from, |since| since.clamp(span.from, span.to));
        Span { from, to: self.until.map_or(span.to, |until| until.clamp(from, span.to)) }
    }
}

/// What a tenant has to pay for a period, before it is an invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// The tenant's number.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// The period.
    pub period: Period,
    /// The currency.
    pub currency: Currency,
    /// The rule by which its sum is rounded, when that is needed: that of the last card.
    pub rule: RoundingRule,
    /// The lines: by class, dimension, part of the month and tier.
    pub lines: Vec<Line>,
    /// What to know about the readings.
    pub notes: Vec<Note>,
}

/// Why there is no bill.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RatingError {
    /// A reading contradicts the others.
    #[error(transparent)]
    Reading(#[from] ReadingError),
    /// No card holds where something was used.
    #[error("no rate card holds from {from} to {to}, and class {class} was used then: add a card that begins before")]
    NoCard {
        /// The class.
        class: ClassId,
        /// From when.
        from: Timestamp,
        /// To when.
        to: Timestamp,
    },
    /// No card holds at any time of the period.
    #[error("no rate card holds in {0}: add one that begins before its end")]
    NoCards(String),
    /// A class is not on the card.
    #[error("class {class} was used, and rate card {card} has no prices for it: correct the class, or have it priced")]
    NoClass {
        /// The card.
        card: CardId,
        /// The class.
        class: ClassId,
    },
    /// A sum has no place in 127 bits.
    #[error("an amount is too large for a bill")]
    TooMuch,
}

/// A reading that contradicts another one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("reading {sequence} of volume {resource} in epoch {epoch}: {wrong}")]
pub struct ReadingError {
    /// Of which resource.
    pub resource: VolumeId,
    /// In which epoch.
    pub epoch: Epoch,
    /// Its number.
    pub sequence: u64,
    /// What is wrong.
    pub wrong: Wrong,
}

/// How a reading contradicts another one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Wrong {
    /// Another one has its number, and says something else.
    #[error("another one of that number says something else")]
    Conflict,
    /// It was read before the one before it, or less of the meter's time was an estimate then.
    #[error("it is older than the one before it")]
    TimeBack,
    /// It counts fewer changes.
    #[error("it counts fewer changes than the one before it")]
    Changes,
    /// A register went back.
    #[error("the register `{}` is less than in the one before it", dimension.name())]
    RegisterBack {
        /// Which one.
        dimension: Dimension,
    },
    /// It was read before an older epoch ended.
    #[error("it is older than the last one of epoch {other}: two meters counted at once")]
    Overlap {
        /// The older epoch.
        other: Epoch,
    },
    /// The sum has no place in 128 bits.
    #[error("what `{}` comes to with it is too much for 128 bits", dimension.name())]
    TooMuch {
        /// Which register.
        dimension: Dimension,
    },
}

/// What `account` has to pay for `period`.
///
/// `readings` are those of all resources that were the tenant's at some time of the period, from the last one before it to the first
/// one after it, in whatever order and however often they come; those of other tenants do not matter. Of an epoch only those
/// matter that are next to a border of the month or between two cards, that begin or end, and, where the class changes, the one that
/// says so and the one before it.
///
/// # Errors
/// [`RatingError`] when readings contradict one another, or something was used that has no price. Gaps are no errors: [`Bill::notes`].
pub fn rate(readings: &[Reading], cards: &RateCards, period: &Period, account: &Account) -> Result<Bill, RatingError> {
    let parts = cards.parts(period.span());
    let last = parts.iter().rev().find_map(|(_, card)| *card);
    let last = last.ok_or_else(|| RatingError::NoCards(period.month().to_owned()))?;
    let spans = parts.iter().map(|(span, _)| *span).collect();
    let usage = usage::Usage::of(readings, account.tenant, spans)?;
    let mut lines = lines::Lines { period, account, usage: &usage, parts: &parts, lines: Vec::new() };
    lines.add_all()?;
    Ok(Bill {
        tenant: account.tenant,
        name: account.name.clone(),
        period: period.clone(),
        currency: last.currency(),
        rule: last.rule(),
        lines: lines.lines,
        notes: usage.notes,
    })
}

#[cfg(test)]
pub(crate) use card::tests::CARD as SAMPLE_CARD;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
