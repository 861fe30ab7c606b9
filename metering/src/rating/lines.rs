//! From use to lines: tiers, what is free, minimums, and the one rounding.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use units::{ClassId, VolumeId};

use super::card::{CardId, ClassPrices, Price, RateCard, Tiering};
use super::exact::{Decimal, Exact};
use super::money::{Amount, Currency};
use super::note::Note;
use super::period::{Period, Span};
use super::quantity::PriceUnit;
use super::usage::{Usage, Used};
use super::{Account, RatingError};
use crate::reading::{Dimension, number};

/// A line of a bill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Its place on the invoice, from 1; 0 before it is on one.
    pub number: u32,
    /// What it is for.
    pub charge: Charge,
    /// By which card.
    pub card: Option<CardId>,
    /// When that was: the part of the month for which the card held.
    pub span: Span,
    /// What it comes to.
    pub exact: Exact,
    /// That, rounded once by the card's rule.
    pub amount: Amount,
    /// What to know about it.
    pub notes: Vec<Note>,
    /// What it takes back or puts right.
    pub correction: Option<Correction>,
}

/// What a line is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Charge {
    /// What was used.
    Usage(Box<UsageCharge>),
    /// What is missing to a minimum.
    Minimum {
        /// Of which class; none when it is the tenant's.
        #[serde(with = "optional_number")]
        class: Option<ClassId>,
        /// The class's name.
        class_name: Option<String>,
        /// The minimum, for the part of the month.
        minimum: Exact,
    },
    /// What makes the sum one that can be paid, when lines have more decimals than the currency.
    Rounding,
}

/// What was used of one class and dimension, in one tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageCharge {
    /// The class.
    #[serde(with = "number")]
    pub class: ClassId,
    /// Its name on the card.
    pub class_name: String,
    /// What was counted.
    pub dimension: Dimension,
    /// In which tier.
    pub tier: Tier,
    /// How much.
    pub quantity: Exact,
    /// Of what.
    pub unit: PriceUnit,
    /// What one costs.
    pub price: Decimal,
    /// Who used it.
    pub resources: Vec<Share>,
}

/// A tier of a price.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// What is free.
    Free,
    /// One of the card's, from 1.
    Step(u32),
}

/// A resource's part of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The resource.
    #[serde(with = "number")]
    pub resource: VolumeId,
    /// Its name, when it is known.
    pub name: Option<String>,
    /// How far its register went on: in all tiers, in units of the register.
    pub used: Exact,
    /// What of the line's quantity is its own.
    pub quantity: Exact,
    /// What of the line's amount: all of them are the line's amount.
    pub amount: Amount,
}

/// Why a line is on an invoice of another month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// What it does.
    pub kind: CorrectionKind,
    /// The invoice with the line that was wrong; of a line that was missing, the last one of its month.
    pub invoice: String,
    /// The number of that line; none when it was missing.
    pub line: Option<u32>,
    /// In which currency that was; on an invoice in another one it cannot be put right.
    pub currency: Currency,
    /// Why.
    pub reason: String,
}

/// What a correction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CorrectionKind {
    /// Takes a line back.
    Reversal,
    /// Is what it should have been.
    Corrected,
}

/// What a line is about: two lines of one month never have the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    from: Timestamp,
    card: Option<CardId>,
    class: Option<ClassId>,
    usage: Option<(Dimension, Tier)>,
}

impl Line {
    /// What it is about; none of a rounding, which is about its invoice alone.
    pub(crate) fn key(&self) -> Option<Key> {
        let (class, usage) = match &self.charge {
            Charge::Usage(usage) => (Some(usage.class), Some((usage.dimension, usage.tier.clone()))),
            Charge::Minimum { class, .. } => (*class, None),
            Charge::Rounding => return None,
        };
        Some(Key { from: self.span.from, card: self.card.clone(), class, usage })
    }

    /// What it is for, in words.
    #[must_use]
    pub fn description(&self) -> String {
        let text = match &self.charge {
            Charge::Usage(usage) => {
                let tier = match usage.tier {
                    Tier::Free => "free".to_owned(),
                    Tier::Step(step) => format!("tier {step}"),
                };
                format!("{}, {}, {tier}", usage.class_name, usage.dimension.name())
            }
            Charge::Minimum { class_name: Some(name), .. } => format!("{name}, up to the class's minimum"),
            Charge::Minimum { class_name: None, .. } => "up to the minimum".to_owned(),
            Charge::Rounding => "rounding to what can be paid".to_owned(),
        };
        match &self.correction {
            None => text,
            Some(Correction { kind: CorrectionKind::Reversal, invoice, line, .. }) => {
                format!("{text}: taken back, invoice {invoice} line {}", line.unwrap_or(0))
            }
            Some(Correction { kind: CorrectionKind::Corrected, invoice, .. }) => {
                format!("{text}: as it should have been on invoice {invoice}")
            }
        }
    }
}

/// A part of the period under one card.
struct Part<'a> {
    span: Span,
    card: &'a RateCard,
    /// Which share of the month it is.
    share: Exact,
}

/// The lines of a period.
pub(crate) struct Lines<'a> {
    pub(crate) period: &'a Period,
    pub(crate) account: &'a Account,
    pub(crate) usage: &'a Usage,
    pub(crate) lines: Vec<Line>,
}

impl Lines<'_> {
    /// Adds those of one part of the period.
    pub(crate) fn add_part(&mut self, index: usize, span: Span, card: Option<&RateCard>) -> Result<(), RatingError> {
        let mut classes: BTreeMap<ClassId, Vec<(VolumeId, &Used)>> = BTreeMap::new();
        for ((part, class, resource), used) in &self.usage.used {
            if *part == index && Dimension::ALL.into_iter().any(|dimension| used.of(dimension).is_some()) {
                classes.entry(*class).or_default().push((*resource, used));
            }
        }
        let Some(card) = card else {
            return match classes.keys().next() {
                Some(class) => Err(RatingError::NoCard { class: *class, from: span.from, to: span.to }),
                None => Ok(()),
            };
        };
        let share = Exact::from(Period::length(span)).over(&Exact::from(self.period.milliseconds()));
        let part = Part { span, card, share: share.unwrap_or_else(Exact::zero) };
        let first = self.lines.len();
        for (class, used) in classes {
            let prices = card.class(class).ok_or_else(|| RatingError::NoClass { card: card.id().clone(), class })?;
            let first_of_class = self.lines.len();
            for dimension in Dimension::ALL {
                if let Some(price) = prices.price(dimension) {
                    self.add_dimension(&part, (class, prices), price, &used)?;
                }
            }
            if let Some(minimum) = &prices.minimum {
                self.add_minimum(&part, Some((class, prices)), minimum, first_of_class)?;
            }
        }
        if let Some(minimum) = card.minimum() {
            self.add_minimum(&part, None, minimum, first)?;
        }
        Ok(())
    }

    /// The lines of one dimension: what all resources used of it together, tier by tier.
    fn add_dimension(
        &mut self,
        part: &Part<'_>,
        (class, prices): (ClassId, &ClassPrices),
        price: &Price,
        used: &[(VolumeId, &Used)],
    ) -> Result<(), RatingError> {
        let dimension = price.dimension;
        let sums: Vec<_> =
            used.iter().filter_map(|(resource, used)| used.of(dimension).map(|sum| (*resource, sum))).collect();
        let quantities: Vec<Exact> =
            sums.iter().map(|(_, sum)| price.unit.quantity(Exact::from(sum.total), self.period)).collect();
        let total = quantities.iter().fold(Exact::zero(), |total, quantity| total + quantity.clone());
        for (tier, quantity, unit_price) in tiers_of(price, &total, &part.share) {
            let exact = quantity.clone() * unit_price.exact();
            let amount = part.round(&exact)?;
            let amounts = amount.shared(&quantities).ok_or(RatingError::TooMuch)?;
            let shares = sums.iter().zip(&quantities).zip(amounts);
            let resources = shares.map(|(((resource, sum), own), amount)| Share {
                resource: *resource,
                name: self.account.resources.get(resource).cloned(),
                used: Exact::from(sum.total),
                quantity: (own.clone() * quantity.clone()).over(&total).unwrap_or_else(Exact::zero),
                amount,
            });
            let charge = UsageCharge {
                class,
                class_name: prices.name.clone(),
                dimension,
                tier,
                quantity: quantity.clone(),
                unit: price.unit,
                price: unit_price,
                resources: resources.collect(),
            };
            let notes = sums.iter().flat_map(|(_, sum)| sum.notes.iter().cloned()).collect();
            self.lines.push(Line { notes, ..part.line(Charge::Usage(Box::new(charge)), exact, amount) });
        }
        Ok(())
    }

    /// Adds what is missing to a minimum, when the lines from `first` on come to less.
    fn add_minimum(
        &mut self,
        part: &Part<'_>,
        class: Option<(ClassId, &ClassPrices)>,
        minimum: &Decimal,
        first: usize,
    ) -> Result<(), RatingError> {
        let minimum = minimum.exact() * part.share.clone();
        let charged = self.lines.iter().skip(first).fold(Exact::zero(), |sum, line| sum + line.amount.exact());
        let missing = minimum.clone() - charged;
        let amount = part.round(&missing)?;
        if !missing.is_negative() && amount.units() != 0 {
            let class_name = class.map(|(_, prices)| prices.name.clone());
            let charge = Charge::Minimum { class: class.map(|(class, _)| class), class_name, minimum };
            self.lines.push(part.line(charge, missing, amount));
        }
        Ok(())
    }
}

impl Part<'_> {
    fn round(&self, exact: &Exact) -> Result<Amount, RatingError> {
        self.card.rule().round(exact, self.card.digits()).ok_or(RatingError::TooMuch)
    }

    fn line(&self, charge: Charge, exact: Exact, amount: Amount) -> Line {
        let card = Some(self.card.id().clone());
        Line { number: 0, charge, card, span: self.span, exact, amount, notes: Vec::new(), correction: None }
    }
}

/// `total` by tiers: how much is in each, and what one costs there. What is free, and where a tier ends, is told for a month;
/// a card that holds for a share of it gives that share.
fn tiers_of(price: &Price, total: &Exact, share: &Exact) -> Vec<(Tier, Exact, Decimal)> {
    let free = price.free.map_or_else(Exact::zero, |free| free.exact() * share.clone()).min(total.clone());
    let charged = total.clone() - free.clone();
    let mut tiers = vec![(Tier::Free, free, Decimal::default())];
    let mut below = Exact::zero();
    for (step, tier) in (1..).zip(&price.tiers) {
        let end =
            tier.up_to.map_or_else(|| charged.clone(), |up_to| up_to.exact() * share.clone()).min(charged.clone());
        match price.tiering {
            Tiering::Graduated => {
                tiers.push((Tier::Step(step), end.clone() - below, tier.price));
                below = end;
            }
            Tiering::Volume if end == charged => {
                tiers.push((Tier::Step(step), charged, tier.price));
                break;
            }
            Tiering::Volume => {}
        }
    }
    tiers.retain(|(_, quantity, _)| !quantity.is_zero());
    tiers
}

/// The number of a class that may be none.
mod optional_number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use units::ClassId;

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(class: &Option<ClassId>, serializer: S) -> Result<S::Ok, S::Error> {
        class.map(|class| class.0).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ClassId>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(ClassId))
    }
}
