//! Rate cards one after the other: each holds from its moment until the next one's.

use jiff::Timestamp;
use thiserror::Error;

use super::card::{CardId, RateCard};
use super::money::Currency;
use super::period::{Span, milliseconds, moment};

/// The cards of a provider, or of a tenant that has its own, by the moments from which they hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RateCards {
    cards: Vec<RateCard>,
}

/// Why a card cannot be added or taken away.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CardsError {
    /// It would change what a time that is used has cost.
    #[error(
        "this card would hold from {from}, but all until {until} is billed by what held then: let it begin then or later"
    )]
    Used {
        /// From when on the card would hold, or held.
        from: Timestamp,
        /// Until when use is billed.
        until: Timestamp,
    },
    /// Another one begins at the same moment.
    #[error("card {other} holds from {from} on: let this one begin at another moment, or withdraw that one first")]
    SameMoment {
        /// The other's id.
        other: CardId,
        /// The moment.
        from: Timestamp,
    },
    /// Its prices are in another currency.
    #[error("its prices are in {}, those of the cards before in {}: a bill has one currency", found.code(), expected.code())]
    OtherCurrency {
        /// That of the cards that are there.
        expected: Currency,
        /// That of this one.
        found: Currency,
    },
    /// There is none with that id.
    #[error("there is no card {0}")]
    NoSuchCard(CardId),
}

impl RateCards {
    /// Adds a card, which holds from its moment on. One that is there already changes nothing.
    ///
    /// `used_until` is until when use has been billed, or shown as a price that somebody relies on: a card that would begin
    /// before is refused. `None` to load what was added before.
    ///
    /// # Errors
    /// [`CardsError`] when it would change a used time, or does not fit the others.
    pub fn insert(&mut self, card: RateCard, used_until: Option<Timestamp>) -> Result<(), CardsError> {
        if self.cards.iter().any(|other| other.id() == card.id()) {
            return Ok(());
        }
        let from = card.effective_from();
        unused(from, used_until)?;
        if let Some(other) = self.cards.first().filter(|other| other.currency() != card.currency()) {
            return Err(CardsError::OtherCurrency { expected: other.currency(), found: card.currency() });
        }
        let place = self.cards.partition_point(|other| other.effective_from() < from);
        if let Some(other) = self.cards.get(place).filter(|other| other.effective_from() == from) {
            return Err(CardsError::SameMoment { other: other.id().clone(), from });
        }
        self.cards.insert(place, card);
        Ok(())
    }

    /// Takes a card away that has not begun to hold.
    ///
    /// # Errors
    /// [`CardsError`] when it is used, or is not there.
    pub fn withdraw(&mut self, id: &CardId, used_until: Option<Timestamp>) -> Result<RateCard, CardsError> {
        let place = self.cards.iter().position(|card| card.id() == id);
        let place = place.ok_or_else(|| CardsError::NoSuchCard(id.clone()))?;
        if let Some(card) = self.cards.get(place) {
            unused(card.effective_from(), used_until)?;
        }
        Ok(self.cards.remove(place))
    }

    /// All of them, earliest first.
    pub fn iter(&self) -> impl Iterator<Item = &RateCard> {
        self.cards.iter()
    }

    /// The card that holds at `at`.
    #[must_use]
    pub fn at(&self, at: Timestamp) -> Option<&RateCard> {
        let after = self.cards.partition_point(|card| card.effective_from() <= at);
        after.checked_sub(1).and_then(|place| self.cards.get(place))
    }

    /// `span` by the card that holds: each part with its card, without one before the first.
    pub(crate) fn parts(&self, span: Span) -> Vec<(Span, Option<&RateCard>)> {
        let begins = self.cards.iter().map(RateCard::effective_from);
        let inside = begins.filter(|begin| span.from < *begin && *begin < span.to);
        let mut borders: Vec<Timestamp> = std::iter::once(span.from).chain(inside).chain([span.to]).collect();
        // A border is a whole millisecond, as a reading's moment is.
        borders.iter_mut().for_each(|border| *border = moment(milliseconds(*border)));
        let pairs = borders.iter().zip(borders.iter().skip(1));
        pairs.map(|(from, to)| (Span { from: *from, to: *to }, self.at(*from))).collect()
    }
}

fn unused(from: Timestamp, used_until: Option<Timestamp>) -> Result<(), CardsError> {
    match used_until.filter(|until| from < *until) {
        Some(until) => Err(CardsError::Used { from, until }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rating::card::tests::CARD;

    fn card(from: &str) -> RateCard {
        RateCard::parse(&CARD.replace("2026-01-01T00:00:00Z", from)).expect("a card")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    /// P7. A later card never changes what an earlier one covers, and none can be slipped in before what is billed.
    #[test]
    fn a_used_time_keeps_its_card() {
        let mut cards = RateCards::default();
        let first = card("2026-01-01T00:00:00Z");
        cards.insert(first.clone(), None).expect("the first");
        let used = Some(at("2026-11-01T00:00:00Z"));
        let error = cards.insert(card("2026-10-15T00:00:00Z"), used).expect_err("it is used");
        assert!(matches!(error, CardsError::Used { .. }), "{error}");
        let next = card("2026-11-01T00:00:00Z");
        cards.insert(next.clone(), used).expect("from then on");
        cards.insert(next.clone(), used).expect("again, nothing changes");
        cards.insert(card("2026-10-15T00:00:00Z"), None).expect("nothing is billed");
        assert_eq!(cards.at(at("2026-10-14T23:59:59Z")), Some(&first));
        assert_eq!(cards.at(at("2026-11-01T00:00:00Z")), Some(&next));
        assert_eq!(cards.at(at("2025-12-31T23:59:59Z")), None);
        assert!(cards.withdraw(first.id(), used).is_err());
        assert_eq!(cards.withdraw(next.id(), used), Ok(next.clone()));
        assert_eq!(cards.withdraw(next.id(), used), Err(CardsError::NoSuchCard(next.id().clone())));
    }

    /// P7. At one moment one card holds, and a bill has one currency.
    #[test]
    fn cards_fit_one_another() {
        let mut cards = RateCards::default();
        cards.insert(card("2026-01-01T00:00:00Z"), None).expect("the first");
        let twin = RateCard::parse(&CARD.replace("0.40", "0.41")).expect("a card");
        assert!(matches!(cards.insert(twin, None), Err(CardsError::SameMoment { .. })));
        let dollars = CARD.replace("EUR", "USD").replace("2026-01", "2026-02");
        let error = cards.insert(RateCard::parse(&dollars).expect("a card"), None).expect_err("dollars");
        assert!(error.to_string().contains("USD"), "{error}");
    }
}
