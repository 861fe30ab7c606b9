//! A rate card: what use costs. A JSON document, read strictly; what it says is found in `docs/metering.md`.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use units::ClassId;

use super::exact::Decimal;
use super::money::{Currency, DIGITS_MAX, RoundingRule};
use super::quantity::PriceUnit;
use crate::ledger::Digest;
use crate::reading::Dimension;

const DOCUMENT_BYTES_MAX: usize = 1 << 20;
const CLASSES_MAX: usize = 1_000;
const TIERS_MAX: usize = 50;
const NAME_CHARS_MAX: usize = 64;

/// What a card is known by for ever: a hash of what it says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CardId(String);

impl fmt::Display for CardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a document is no card: which field, and what to write there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("rate card, {field}: {problem}")]
pub struct CardError {
    /// Where in the document, such as `classes[0].prices[1].unit`.
    pub field: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// A rate card. It never changes: another price is another card, with another id and a later moment from which it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateCard {
    document: Document,
    id: CardId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: String,
    currency: Currency,
    effective_from: Timestamp,
    rounding: Rounding,
    /// What a tenant pays at least for a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    minimum: Option<Decimal>,
    classes: Vec<ClassPrices>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rounding {
    rule: RoundingRule,
    /// Decimals of a line; those of the currency's minor unit when it is not told.
    #[serde(default)]
    digits: Option<u8>,
}

/// The prices of a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassPrices {
    class: u64,
    pub(crate) name: String,
    /// What a tenant that used the class pays at least for it and a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) minimum: Option<Decimal>,
    prices: Vec<Price>,
}

/// The price of a dimension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Price {
    pub(crate) dimension: Dimension,
    pub(crate) unit: PriceUnit,
    /// How much of it is free in a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) free: Option<Decimal>,
    #[serde(default)]
    pub(crate) tiering: Tiering,
    pub(crate) tiers: Vec<Tier>,
}

/// What a tier's price is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tiering {
    /// For what lies in the tier.
    #[default]
    Graduated,
    /// For all of it, when all of it ends in the tier.
    Volume,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tier {
    /// Where it ends, which is part of it; the last one has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) up_to: Option<Decimal>,
    pub(crate) price: Decimal,
}

impl RateCard {
    /// Reads a card.
    ///
    /// # Errors
    /// [`CardError`] names the first field that is missing, unknown or wrong.
    pub fn parse(json: &str) -> Result<Self, CardError> {
        if json.len() > DOCUMENT_BYTES_MAX {
            return Err(wrong("document", format!("it has {} bytes: at most {DOCUMENT_BYTES_MAX}", json.len())));
        }
        let mut reader = serde_json::Deserializer::from_str(json);
        let mut document: Document = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| wrong(error.path().to_string(), error.inner().to_string()))?;
        reader.end().map_err(|error| wrong("document", error.to_string()))?;
        document.check()?;
        document.rounding.digits.get_or_insert_with(|| document.currency.digits());
        document.classes.sort_by_key(|class| class.class);
        for class in &mut document.classes {
            class.prices.sort_by_key(|price| price.dimension);
        }
        let bytes = document.canonical().map_err(|error| wrong("document", error.to_string()))?;
        let id = format!("sha256:{}", Digest::of(&[&bytes]));
        Ok(Self { document, id: CardId(id) })
    }

    /// Its id: the SHA-256 of [`Self::canonical`].
    #[must_use]
    pub const fn id(&self) -> &CardId {
        &self.id
    }

    /// What it says, written in the one way: fields in their order, classes and prices in theirs, numbers in their one text.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        self.document.canonical().unwrap_or_default()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.document.name
    }

    /// The currency of its prices.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        self.document.currency
    }

    /// From when on it holds.
    #[must_use]
    pub const fn effective_from(&self) -> Timestamp {
        self.document.effective_from
    }

    /// The rule by which it rounds a line.
    #[must_use]
    pub const fn rule(&self) -> RoundingRule {
        self.document.rounding.rule
    }

    /// How many decimals it leaves a line.
    #[must_use]
    pub fn digits(&self) -> u8 {
        self.document.rounding.digits.unwrap_or_else(|| self.currency().digits())
    }

    /// How it rounds: what has another rounding is not added up before it is rounded.
    pub(crate) fn rounding(&self) -> (RoundingRule, u8) {
        (self.rule(), self.digits())
    }

    pub(crate) const fn minimum(&self) -> Option<&Decimal> {
        self.document.minimum.as_ref()
    }

    pub(crate) fn class(&self, class: ClassId) -> Option<&ClassPrices> {
        self.document.classes.iter().find(|prices| prices.class == class.0)
    }
}

impl ClassPrices {
    pub(crate) fn price(&self, dimension: Dimension) -> Option<&Price> {
        self.prices.iter().find(|price| price.dimension == dimension)
    }

    fn check(&self, at: &str) -> Result<(), CardError> {
        check_name(&self.name, &format!("{at}.name"))?;
        let mut seen = BTreeSet::new();
        for (index, price) in self.prices.iter().enumerate() {
            let at = format!("{at}.prices[{index}]");
            if !seen.insert(price.dimension) {
                let name = price.dimension.name();
                return Err(wrong(format!("{at}.dimension"), format!("`{name}` has a price above: keep one of them")));
            }
            price.check(&at)?;
        }
        Ok(())
    }
}

impl Price {
    fn check(&self, at: &str) -> Result<(), CardError> {
        if self.unit.measures() != self.dimension.unit() {
            let fit = PriceUnit::ALL.into_iter().filter(|unit| unit.measures() == self.dimension.unit());
            let fit = fit.map(PriceUnit::name).collect::<Vec<_>>().join(", ");
            let problem =
                format!("`{}` does not measure `{}`: use one of {fit}", self.unit.name(), self.dimension.name());
            return Err(wrong(format!("{at}.unit"), problem));
        }
        let Some((last, before)) = self.tiers.split_last() else {
            return Err(wrong(format!("{at}.tiers"), "there is none: write one tier with a `price` for a flat one"));
        };
        if self.tiers.len() > TIERS_MAX {
            return Err(wrong(format!("{at}.tiers"), format!("there are {}: at most {TIERS_MAX}", self.tiers.len())));
        }
        if last.up_to.is_some() {
            let at = format!("{at}.tiers[{}].up_to", before.len());
            return Err(wrong(at, "the last tier has no end: leave it out, or add a tier for what is beyond"));
        }
        let mut below = Decimal::default();
        for (index, tier) in before.iter().enumerate() {
            let at = format!("{at}.tiers[{index}].up_to");
            match &tier.up_to {
                None => return Err(wrong(at, "only the last tier has no end: say where this one ends")),
                Some(up_to) if up_to.exact() <= below.exact() => {
                    return Err(wrong(at, format!("{up_to} is not above {below}: sort the tiers, lowest first")));
                }
                Some(up_to) => below = *up_to,
            }
        }
        Ok(())
    }
}

impl Document {
    fn canonical(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    fn check(&self) -> Result<(), CardError> {
        check_name(&self.name, "name")?;
        if self.effective_from.subsec_nanosecond() != 0 || self.effective_from < Timestamp::UNIX_EPOCH {
            return Err(wrong("effective_from", "write a whole second after 1970, such as 2026-11-01T00:00:00Z"));
        }
        if self.rounding.digits.is_some_and(|digits| digits > DIGITS_MAX) {
            return Err(wrong("rounding.digits", format!("at most {DIGITS_MAX}")));
        }
        if self.classes.is_empty() || self.classes.len() > CLASSES_MAX {
            return Err(wrong("classes", format!("there are {}: 1 to {CLASSES_MAX}", self.classes.len())));
        }
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for (index, class) in self.classes.iter().enumerate() {
            let at = format!("classes[{index}]");
            if !ids.insert(class.class) {
                return Err(wrong(format!("{at}.class"), format!("{} is there above: keep one of them", class.class)));
            }
            if !names.insert(&class.name) {
                return Err(wrong(format!("{at}.name"), "another class is called so: give each a name of its own"));
            }
            class.check(&at)?;
        }
        Ok(())
    }
}

fn check_name(name: &str, field: &str) -> Result<(), CardError> {
    let count = name.chars().count();
    if !(1..=NAME_CHARS_MAX).contains(&count) {
        return Err(wrong(field, format!("it has {count} characters: 1 to {NAME_CHARS_MAX}")));
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return Err(wrong(field, "control characters, and spaces at its ends, are not allowed: leave them out"));
    }
    Ok(())
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> CardError {
    CardError { field: field.into(), problem: problem.into() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const CARD: &str = r#"{
        "name": "List prices 2026",
        "currency": "EUR",
        "effective_from": "2026-01-01T00:00:00Z",
        "rounding": { "rule": "half_even" },
        "minimum": "5.00",
        "classes": [
            { "class": 1, "name": "gold", "minimum": "2", "prices": [
                { "dimension": "reads", "unit": "million_requests", "free": "1", "tiers": [{ "price": "0.40" }] },
                { "dimension": "written", "unit": "gib_month", "free": "10", "tiers": [
                    { "up_to": "100", "price": "0.12" }, { "price": "0.0999" }] },
                { "dimension": "write_bytes", "unit": "gb", "tiers": [{ "price": "0.01" }] }
            ]},
            { "class": 0, "name": "silver", "prices": [
                { "dimension": "provisioned", "unit": "gb_hour", "tiering": "volume", "tiers": [
                    { "up_to": "1000", "price": "0.00005" }, { "price": "0.00004" }] },
                { "dimension": "history", "unit": "tib_month", "tiers": [{ "price": "20" }] }
            ]}
        ]
    }"#;

    /// P7. A card is known by what it says: neither spaces, nor an order without meaning, nor `0.40` for `0.4` make another.
    #[test]
    fn a_card_is_known_by_what_it_says() {
        let card = RateCard::parse(CARD).expect("a card");
        let canonical = String::from_utf8(card.canonical()).expect("text");
        let again = RateCard::parse(&canonical).expect("what it says is a card");
        assert_eq!(again, card);
        assert_eq!(again.canonical(), card.canonical());
        let same = CARD
            .replace("0.40", "0.4")
            .replace("\"2\"", "\"2.000\"")
            .replace("half_even\"", "half_even\", \"digits\": 2");
        assert_eq!(RateCard::parse(&same).expect("a card").id(), card.id());
        let other = CARD.replace("0.40", "0.41");
        assert_ne!(RateCard::parse(&other).expect("a card").id(), card.id());
        assert!(card.id().to_string().starts_with("sha256:") && card.id().to_string().len() == 71);
    }

    /// P7. Each error names the field, and what to write.
    #[test]
    fn each_error_names_its_field() {
        let cases = [
            ("\"EUR\"", "\"EURO\"", "currency", "ISO 4217"),
            ("\"EUR\"", "\"XAU\"", "currency", "ISO 4217"),
            ("\"half_even\"", "\"nearest\"", "rounding.rule", "half_even"),
            ("\"half_even\"", "\"half_even\", \"digits\": 13", "rounding.digits", "at most 12"),
            ("\"0.40\"", "0.40", "classes[0].prices[0].tiers[0].price", "string"),
            ("\"0.40\"", "\"-0.40\"", "classes[0].prices[0].tiers[0].price", "digits as text"),
            ("\"0.40\"", "\"0.40\", \"pirce\": \"1\"", "classes[0].prices[0].tiers[0].pirce", "unknown field"),
            ("\"million_requests\"", "\"gib\"", "classes[0].prices[0].unit", "million_requests"),
            ("\"million_requests\"", "\"dozen\"", "classes[0].prices[0].unit", "gib_month"),
            ("\"reads\"", "\"written\"", "classes[0].prices[0].unit", "gib_month"),
            ("\"gb\"", "\"gb\", \"free\": null, \"free\": null", "classes[0].prices[2]", "duplicate"),
            (
                "{ \"up_to\": \"100\", \"price\": \"0.12\" }, ",
                "{ \"price\": \"0.12\" }, ",
                "classes[0].prices[1].tiers[0].up_to",
                "say where",
            ),
            (
                "{ \"price\": \"0.0999\" }",
                "{ \"up_to\": \"200\", \"price\": \"0.0999\" }",
                "classes[0].prices[1].tiers[1].up_to",
                "leave it out",
            ),
            (
                "{ \"price\": \"0.0999\" }",
                "{ \"up_to\": \"100.0\", \"price\": \"1\" }, { \"price\": \"1\" }",
                "classes[0].prices[1].tiers[1].up_to",
                "lowest first",
            ),
            ("[{ \"price\": \"0.01\" }]", "[]", "classes[0].prices[2].tiers", "one tier"),
            ("\"class\": 0", "\"class\": 1", "classes[1].class", "keep one"),
            ("\"silver\"", "\"gold\"", "classes[1].name", "its own"),
            ("\"silver\"", "\"sil\\nver\"", "classes[1].name", "control characters"),
            ("\"history\"", "\"provisioned\"", "classes[1].prices[1].dimension", "keep one"),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", "effective_from", "whole second"),
            ("2026-01-01T00:00:00Z", "yesterday", "effective_from", ""),
            ("\"List prices 2026\"", "\"\"", "name", "1 to 64"),
        ];
        for (from, to, field, hint) in cases {
            assert!(CARD.contains(from), "{from}");
            let error = RateCard::parse(&CARD.replacen(from, to, 1)).expect_err(to);
            assert_eq!(error.field, field, "{error}");
            assert!(error.problem.contains(hint), "{error}");
        }
        assert_eq!(RateCard::parse(&format!("{CARD} x")).expect_err("more").field, "document");
        assert_eq!(RateCard::parse(&" ".repeat(DOCUMENT_BYTES_MAX + 1)).expect_err("too long").field, "document");
    }
}
