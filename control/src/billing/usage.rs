//! What a tenant used, without prices; and its part of the ledger, by which it checks the bill.

use super::errors::{internal, rating_error};
use super::model::{LedgerHead, LedgerHeadList, LedgerKey, UsageReport, UsedRow};
use super::{Billed, Desk, off_the_threads};
use crate::books::Pieces;
use crate::error::ServiceError;
use crate::name::Name;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use metering::ledger::{Books as WhichBooks, Date, HeadPlace};
use metering::{Bill, Charge, Dimension, Period, RateCard, RateCards, Reading, State, Unit, rate};
use serde_json::json;
use std::collections::BTreeSet;

/// How far a reading at a border may be from it.
const READING_DISTANCE: SignedDuration = SignedDuration::from_hours(1);

impl Desk {
    /// What a tenant used in a month, or has used so far.
    pub(crate) async fn usage(&self, name: &Name, month: &str) -> Result<UsageReport, ServiceError> {
        let of = self.billed(name).await?;
        let (period, now) = (of.period(month)?, Timestamp::now());
        let readings = self.readings_of(&of, &period, now).await?;
        let resources = self.resources(name).await?;
        let account =
            metering::Account { tenant: of.id, name: of.billing.name, resources, since: of.since, until: None };
        let rated_period = period.clone();
        let bill = off_the_threads(move || -> Result<Bill, ServiceError> {
            let cards = free_of_charge(&readings, &rated_period)?;
            rate(&readings, &cards, &rated_period, &account).map_err(rating_error)
        });
        let bill = bill.await??;
        let used = bill.lines.iter().filter_map(|line| match &line.charge {
            Charge::Usage(usage) => Some(usage),
            Charge::Minimum { .. } | Charge::Rounding => None,
        });
        let mut used: Vec<UsedRow> = used
            .flat_map(|usage| {
                usage.resources.iter().map(move |share| UsedRow {
                    volume_id: share.resource.0,
                    volume: share.name.clone(),
                    class_id: usage.class.0,
                    dimension: usage.dimension.name().to_owned(),
                    used: share.used.to_string(),
                    unit: unit_name(usage.dimension.unit()).to_owned(),
                })
            })
            .collect();
        used.sort_by_key(|row| (row.volume_id, row.class_id));
        let notes = bill.notes.iter().map(ToString::to_string).collect();
        let (from, to) = (period.span().from, period.span().to.min(now));
        Ok(UsageReport { tenant: name.to_string(), month: month.to_owned(), from, to, used, notes })
    }

    /// The readings that the bill of a month is made of, or is so far.
    pub(crate) async fn readings(&self, name: &Name, month: &str) -> Result<Vec<Reading>, ServiceError> {
        let of = self.billed(name).await?;
        self.readings_of(&of, &of.period(month)?, Timestamp::now()).await
    }

    /// A tenant's bundle of a month: with the readings at its borders, and its invoice when that is issued.
    pub(crate) async fn bundle(&self, name: &Name, month: &str, books: WhichBooks) -> Result<Pieces, ServiceError> {
        let of = self.billed(name).await?;
        let days = days(&of, month)?;
        self.books.export(of.id, books, days).await
    }

    /// The heads of the ledger.
    pub(crate) async fn heads(&self) -> Result<LedgerHeadList, ServiceError> {
        let shown = |head: HeadPlace| LedgerHead {
            number: head.number,
            date: head.date.to_string(),
            hash: head.hash.to_string(),
        };
        Ok(LedgerHeadList { heads: self.books.heads().await?.into_iter().rev().map(shown).collect() })
    }

    /// Who signs them.
    pub(crate) async fn key(&self) -> Result<LedgerKey, ServiceError> {
        Ok(LedgerKey { key: self.books.key().await?.to_string() })
    }
}

/// The days of which a month's bundle has the heads.
fn days(of: &Billed, month: &str) -> Result<(Date, Date), ServiceError> {
    let span = of.period(month)?.span();
    let issued_at = of.account.invoice_of(month).and_then(|invoice| match invoice.state() {
        State::Issued { at, .. } => Some(*at),
        State::Open { .. } => None,
    });
    let behind = span.to.checked_add(READING_DISTANCE).map_err(|error| internal(&error))?;
    let before = span.from.checked_sub(READING_DISTANCE).map_err(|error| internal(&error))?;
    Ok((day_of(before)?, day_of(issued_at.map_or(behind, |at| at.max(behind)))?))
}

fn day_of(at: Timestamp) -> Result<Date, ServiceError> {
    let date = at.to_zoned_datetime(TimeZone::UTC).date();
    let number = |number: i8| u8::try_from(number).unwrap_or(0);
    let date = Date::new(u16::try_from(date.year()).unwrap_or(0), number(date.month()), number(date.day()));
    date.ok_or_else(|| internal(&"a day before 1970"))
}

/// A card on which every class that was read has every dimension, for nothing: its lines are what was used.
fn free_of_charge(readings: &[Reading], period: &Period) -> Result<RateCards, ServiceError> {
    let mut classes: BTreeSet<u64> = readings.iter().map(|reading| reading.class.0).collect();
    // A card has a class.
    classes.insert(0);
    let unit = |dimension: Dimension| match dimension.unit() {
        Unit::ByteMilliseconds => "gib_hour",
        Unit::Requests => "thousand_requests",
        Unit::Bytes => "gib",
    };
    let price = |dimension: Dimension| json!({ "dimension": dimension.name(), "unit": unit(dimension), "tiers": [{ "price": "0" }] });
    let prices: Vec<_> = Dimension::ALL.into_iter().map(price).collect();
    let class = |id: &u64| json!({ "class": id, "name": id.to_string(), "prices": prices });
    let classes: Vec<_> = classes.iter().map(class).collect();
    // From the second in which the month begins.
    let from = Timestamp::from_second(period.span().from.as_second()).map_err(|error| internal(&error))?;
    let card = json!({ "name": "use", "currency": "EUR", "effective_from": from.to_string(),
        "rounding": { "rule": "down" }, "classes": classes });
    let card = RateCard::parse(&card.to_string()).map_err(|error| internal(&error))?;
    let mut cards = RateCards::default();
    cards.insert(card, None).map_err(|error| internal(&error))?;
    Ok(cards)
}

const fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::ByteMilliseconds => "byte_milliseconds",
        Unit::Requests => "requests",
        Unit::Bytes => "bytes",
    }
}
