//! From use to lines: tiers, what is free, minimums, and the one rounding.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use units::{ClassId, VolumeId};

use super::card::{CardId, Price, RateCard, Tiering};
use super::exact::{Decimal, Exact};
use super::money::{Amount, Currency};
use super::note::{Note, NoteKind};
use super::period::{Period, Span};
use super::quantity::PriceUnit;
use super::usage::Usage;
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
    /// By which card: the first of those that say the same, of a minimum the last.
    pub card: Option<CardId>,
    /// When that was: the part of the month in which the price held; of a minimum all of it.
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
        /// The minimum of the month.
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

/// The part of the period in which one price held: under one card, or several that say the same of it.
struct Run<'a> {
    parts: Range<usize>,
    span: Span,
    /// The first of them.
    card: &'a RateCard,
    class: ClassId,
    class_name: &'a str,
    price: &'a Price,
}

/// What resources used in a run.
type Sums<'a> = BTreeMap<VolumeId, (Exact, Vec<&'a Note>)>;

/// The lines of a period.
pub(crate) struct Lines<'a> {
    pub(crate) period: &'a Period,
    pub(crate) account: &'a Account,
    pub(crate) usage: &'a Usage,
    pub(crate) parts: &'a [(Span, Option<&'a RateCard>)],
    pub(crate) lines: Vec<Line>,
}

impl<'a> Lines<'a> {
    /// Adds all of them.
    pub(crate) fn add_all(&mut self) -> Result<(), RatingError> {
        for class in self.classes()? {
            let first = self.lines.len();
            for dimension in Dimension::ALL {
                for run in self.runs(class, dimension) {
                    self.add_run(&run)?;
                }
            }
            self.add_minimum(Some(class), first)?;
        }
        self.add_minimum(None, 0)
    }

    /// The classes that were used, each of which has prices when it was.
    fn classes(&self) -> Result<BTreeSet<ClassId>, RatingError> {
        let mut classes = BTreeSet::new();
        for ((part, class, _), used) in &self.usage.used {
            let Some((span, card)) = self.parts.get(*part) else { continue };
            if Dimension::ALL.into_iter().all(|dimension| used.of(dimension).is_none()) {
                continue;
            }
            let class = *class;
            let card = card.ok_or(RatingError::NoCard { class, from: span.from, to: span.to })?;
            if card.class(class).is_none() {
                return Err(RatingError::NoClass { card: card.id().clone(), class });
            }
            classes.insert(class);
        }
        Ok(classes)
    }

    fn runs(&self, class: ClassId, dimension: Dimension) -> Vec<Run<'a>> {
        let mut runs: Vec<Run<'a>> = Vec::new();
        for (index, (span, card)) in self.parts.iter().enumerate() {
            let Some(card) = *card else { continue };
            let Some(prices) = card.class(class) else { continue };
            let Some(price) = prices.price(dimension) else { continue };
            let goes_on = |run: &&mut Run<'_>| {
                run.parts.end == index && run.price == price && run.card.rounding() == card.rounding()
            };
            match runs.last_mut().filter(goes_on) {
                Some(run) => (run.parts.end, run.span.to) = (index + 1, span.to),
                None => {
                    let parts = index..index + 1;
                    runs.push(Run { parts, span: *span, card, class, class_name: &prices.name, price });
                }
            }
        }
        runs
    }

    /// The lines of a run: what all resources used of its dimension together, tier by tier.
    fn add_run(&mut self, run: &Run<'_>) -> Result<(), RatingError> {
        let sums = self.sums(run);
        let quantities: Vec<Exact> =
            sums.values().map(|(used, _)| run.price.unit.quantity(used.clone(), self.period)).collect();
        let total = quantities.iter().fold(Exact::zero(), |total, quantity| total + quantity.clone());
        for (tier, quantity, unit_price) in tiers_of(run.price, &total, &self.share(run.span)) {
            let (exact, amount) = run.cost(&quantity, unit_price)?;
            let amounts = amount.shared(&quantities).ok_or(RatingError::TooMuch)?;
            let shares = sums.iter().zip(&quantities).zip(amounts);
            let resources = shares.map(|(((resource, (used, _)), own), amount)| Share {
                resource: *resource,
                name: self.account.resources.get(resource).cloned(),
                used: used.clone(),
                quantity: (own.clone() * quantity.clone()).over(&total).unwrap_or_else(Exact::zero),
                amount,
            });
            let charge = UsageCharge { resources: resources.collect(), ..run.charge(tier, quantity, unit_price) };
            let notes = sums.values().flat_map(|(_, notes)| notes.iter().map(|note| (*note).clone())).collect();
            let charge = Charge::Usage(Box::new(charge));
            self.lines.push(Line { notes, ..line(run.card, run.span, charge, (exact, amount)) });
        }
        Ok(())
    }

    fn sums(&self, run: &Run<'_>) -> Sums<'a> {
        let mut sums = Sums::new();
        for ((part, class, resource), used) in &self.usage.used {
            let sum = used.of(run.price.dimension).filter(|_| *class == run.class && run.parts.contains(part));
            let Some(sum) = sum else { continue };
            let (used, notes) = sums.entry(*resource).or_insert_with(|| (Exact::zero(), Vec::new()));
            *used = used.clone() + Exact::from(sum.total);
            // Both sides of a border within the run are on the same line.
            let is_within =
                |note: &&Note| matches!(note.kind, NoteKind::Split { at } if run.span.from < at && at < run.span.to);
            notes.extend(sum.notes.iter().filter(|note| !is_within(note)));
        }
        sums
    }

    /// Adds what is missing to the month's minimum, a class's or the tenant's, when the lines from `first` on come to less.
    fn add_minimum(&mut self, class: Option<ClassId>, first: usize) -> Result<(), RatingError> {
        let (mut minimum, mut last) = (Exact::zero(), None);
        for (span, card) in self.parts {
            let Some(card) = *card else { continue };
            let prices = class.and_then(|class| card.class(class));
            let told = if class.is_some() { prices.and_then(|prices| prices.minimum.as_ref()) } else { card.minimum() };
            if let Some(told) = told {
                minimum = minimum + told.exact() * self.share(self.account.lived(*span));
                last = Some((card, prices));
            }
        }
        let Some((card, prices)) = last else { return Ok(()) };
        let charged = self.lines.iter().skip(first).fold(Exact::zero(), |sum, line| sum + line.amount.exact());
        let missing = minimum.clone() - charged;
        let amount = round(card, &missing)?;
        if !missing.is_negative() && amount.units() != 0 {
            let class_name = prices.map(|prices| prices.name.clone());
            let charge = Charge::Minimum { class, class_name, minimum };
            self.lines.push(line(card, self.period.span(), charge, (missing, amount)));
        }
        Ok(())
    }

    /// Which share of the month a part of it is.
    fn share(&self, span: Span) -> Exact {
        let share = Exact::from(Period::length(span)).over(&Exact::from(self.period.milliseconds()));
        share.unwrap_or_else(Exact::zero)
    }
}

impl Run<'_> {
    /// What so much comes to, and that rounded.
    fn cost(&self, quantity: &Exact, price: Decimal) -> Result<(Exact, Amount), RatingError> {
        let exact = quantity.clone() * price.exact();
        let amount = round(self.card, &exact)?;
        Ok((exact, amount))
    }

    /// Without those who used it.
    fn charge(&self, tier: Tier, quantity: Exact, price: Decimal) -> UsageCharge {
        let Self { class, class_name, price: Price { dimension, unit, .. }, .. } = self;
        let (class_name, resources) = ((*class_name).to_owned(), Vec::new());
        UsageCharge { class: *class, class_name, dimension: *dimension, tier, quantity, unit: *unit, price, resources }
    }
}

/// The lines of `quantities` of one class, all month long under one card, nothing of it free.
pub(crate) fn lines_without_free(
    card: &RateCard,
    class: ClassId,
    period: &Period,
    held: &[(Dimension, u128)],
) -> Result<Vec<Line>, RatingError> {
    let prices = card.class(class).ok_or_else(|| RatingError::NoClass { card: card.id().clone(), class })?;
    let (span, class_name) = (period.span(), prices.name.as_str());
    let mut lines = Vec::new();
    for (dimension, register) in held {
        let Some(price) = prices.price(*dimension) else { continue };
        let run = Run { parts: 0..1, span, card, class, class_name, price };
        let total = price.unit.quantity(Exact::from(*register), period);
        let price = Price { free: None, ..price.clone() };
        for (tier, quantity, unit_price) in tiers_of(&price, &total, &Exact::one()) {
            let cost = run.cost(&quantity, unit_price)?;
            let charge = Charge::Usage(Box::new(run.charge(tier, quantity, unit_price)));
            lines.push(line(card, span, charge, cost));
        }
    }
    Ok(lines)
}

fn round(card: &RateCard, exact: &Exact) -> Result<Amount, RatingError> {
    card.rule().round(exact, card.digits()).ok_or(RatingError::TooMuch)
}

fn line(card: &RateCard, span: Span, charge: Charge, (exact, amount): (Exact, Amount)) -> Line {
    let card = Some(card.id().clone());
    Line { number: 0, charge, card, span, exact, amount, notes: Vec::new(), correction: None }
}

/// `total` by tiers: how much is in each, and what one costs there. What is free, and where a tier ends, is told for a month;
/// a price that holds for a share of it gives that share.
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
