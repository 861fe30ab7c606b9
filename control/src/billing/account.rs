//! A tenant's account: the cards that its invoices were made by, their lines, the invoices themselves, and what is to be put right.
//!
//! An invoice is its lines and then itself, in one append. An entry is at most 64 KiB, so that a line of very many volumes
//! goes on in further entries. Before the lines of each are the cards that they were made by, so that whoever has one month of the
//! account has them.

use super::model::OrderedCorrection;
use super::settings::card_of_invoice;
use super::{broken, internal, note_in};
use crate::books::NewAccountEntry;
use crate::error::ServiceError;
use jiff::Timestamp;
use metering::ledger::{AccountEntry, Kind};
use metering::{CorrectionKind, Format, Invoice, Line, RateCards};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use units::TenantId;

/// Most bytes of what is put into one entry: with what stands around it, it is a payload.
const PART_BYTES_MAX: usize = 60_000;

/// What an account says.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Invoices, the oldest first.
    pub(super) invoices: Vec<Invoice>,
    /// What the next invoice is to put right.
    pub(super) ordered: Vec<OrderedCorrection>,
}

/// A line, or what it goes on with.
#[derive(Debug, Serialize, Deserialize)]
struct LinePayload {
    invoice: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    line: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    more: Option<More>,
}

/// What line `number` goes on with.
#[derive(Debug, Default, Serialize, Deserialize)]
struct More {
    number: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    resources: Vec<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<Value>,
}

/// An invoice, without its lines.
#[derive(Debug, Serialize, Deserialize)]
struct InvoicePayload {
    invoice: Value,
}

/// What an account has as notes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AccountNote {
    CorrectionOrdered(OrderedCorrection),
    InvoiceNotes { invoice: String, notes: Vec<Value> },
}

impl AccountNote {
    const MEMBERS: [&str; 2] = ["correction_ordered", "invoice_notes"];
}

/// What came of an invoice before the invoice itself.
#[derive(Debug, Default)]
struct Gathered {
    lines: Vec<Value>,
    notes: Vec<Value>,
}

impl Account {
    /// Reads it from its first entry on.
    pub(super) fn read(entries: &[AccountEntry]) -> Result<Self, ServiceError> {
        let mut account = Self::default();
        let mut gathered: BTreeMap<String, Gathered> = BTreeMap::new();
        for entry in entries {
            match entry.kind {
                Kind::InvoiceLine | Kind::Reversal => take_line(entry, &mut gathered)?,
                Kind::Invoice => {
                    let invoice = read_invoice(entry, &mut gathered)?;
                    // What was ordered of months before it is on it. Months sort as they are written.
                    account.ordered.retain(|ordered| ordered.month.as_str() >= invoice.period().month());
                    account.invoices.push(invoice);
                }
                Kind::Note => match note_in(entry, &AccountNote::MEMBERS)? {
                    Some(AccountNote::CorrectionOrdered(ordered)) => account.ordered.push(ordered),
                    Some(AccountNote::InvoiceNotes { invoice, notes }) => {
                        gathered.entry(invoice).or_default().notes.extend(notes);
                    }
                    None => {}
                },
                Kind::RateCard | Kind::Readings | Kind::ClockStep => {}
            }
        }
        Ok(account)
    }

    /// The invoice of a month.
    pub(super) fn invoice_of(&self, month: &str) -> Option<&Invoice> {
        self.invoices.iter().find(|invoice| invoice.period().month() == month)
    }

    /// Until when its use has been billed.
    pub(super) fn billed_until(&self) -> Option<Timestamp> {
        self.invoices.iter().map(|invoice| invoice.period().span().to).max()
    }

    /// The number of its next invoice.
    pub(super) fn next_number(&self, prefix: &str) -> String {
        format!("{prefix}{:04}", self.invoices.len() + 1)
    }

    /// What is to be appended for an invoice: the cards that it was made by, lines, the invoice.
    pub(super) fn entries_of(
        tenant: TenantId,
        invoice: &Invoice,
        cards: &RateCards,
        time_ms: u64,
    ) -> Result<Vec<NewAccountEntry>, ServiceError> {
        let entry = |kind, payload| NewAccountEntry { tenant, kind, time_ms, payload };
        let used: BTreeSet<_> = invoice.lines().iter().filter_map(|line| line.card.as_ref()).collect();
        let used = cards.iter().filter(|card| used.contains(card.id()));
        let id = invoice.id().unwrap_or_default();
        let mut entries: Vec<_> = used.map(|card| entry(Kind::RateCard, card_of_invoice(card, id))).collect();
        let text = invoice.render(Format::Json).map_err(|error| internal(&error))?;
        let mut document: Value = serde_json::from_str(&text).map_err(|error| internal(&error))?;
        let lines = taken(&mut document, "lines");
        for (line, value) in invoice.lines().iter().zip(lines) {
            let kind = kind_of(line);
            entries.extend(parts_of(id, line.number, value).into_iter().map(|part| entry(kind, part)));
        }
        for notes in chunks(taken(&mut document, "notes")) {
            let note = json!(AccountNote::InvoiceNotes { invoice: id.to_owned(), notes });
            entries.push(entry(Kind::Note, note.to_string()));
        }
        entries.push(entry(Kind::Invoice, json!(InvoicePayload { invoice: document }).to_string()));
        Ok(entries)
    }
}

/// What takes a line back is one of the entries that do.
fn kind_of(line: &Line) -> Kind {
    match line.correction.as_ref().map(|correction| correction.kind) {
        Some(CorrectionKind::Reversal) => Kind::Reversal,
        Some(CorrectionKind::Corrected) | None => Kind::InvoiceLine,
    }
}

/// A line as one payload, or as many as are needed.
fn parts_of(invoice: &str, number: u32, mut line: Value) -> Vec<String> {
    let payload = |line, more| json!(LinePayload { invoice: invoice.to_owned(), line, more }).to_string();
    if line.to_string().len() <= PART_BYTES_MAX {
        return vec![payload(Some(line), None)];
    }
    let resources = line.get_mut("charge").map(|charge| taken(charge, "resources")).unwrap_or_default();
    let notes = taken(&mut line, "notes");
    let mut parts = vec![payload(Some(line), None)];
    let of_resources = chunks(resources).into_iter().map(|resources| More { number, resources, ..More::default() });
    let of_notes = chunks(notes).into_iter().map(|notes| More { number, notes, ..More::default() });
    parts.extend(of_resources.chain(of_notes).map(|more| payload(None, Some(more))));
    parts
}

/// What a member has, of which nothing is left there.
fn taken(document: &mut Value, member: &str) -> Vec<Value> {
    match document.get_mut(member).map(|found| std::mem::replace(found, json!([]))) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// Items in runs, each of which fits into an entry.
fn chunks(items: Vec<Value>) -> Vec<Vec<Value>> {
    let mut chunks: Vec<Vec<Value>> = Vec::new();
    let mut bytes = usize::MAX;
    for item in items {
        let len = item.to_string().len() + 1;
        if bytes.saturating_add(len) > PART_BYTES_MAX {
            chunks.push(Vec::new());
            bytes = 0;
        }
        bytes += len;
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(item);
        }
    }
    chunks
}

fn take_line(entry: &AccountEntry, gathered: &mut BTreeMap<String, Gathered>) -> Result<(), ServiceError> {
    let LinePayload { invoice, line, more } =
        serde_json::from_str(&entry.payload).map_err(|error| broken(entry, &error))?;
    let lines = &mut gathered.entry(invoice).or_default().lines;
    lines.extend(line);
    let Some(More { number, resources, notes }) = more else { return Ok(()) };
    let line = lines.iter_mut().find(|line| line.get("number") == Some(&json!(number)));
    let line = line.ok_or_else(|| broken(entry, &"there is no such line"))?;
    let charge = line.get_mut("charge").and_then(|charge| charge.get_mut("resources")).and_then(Value::as_array_mut);
    charge.into_iter().for_each(|all| all.extend_from_slice(&resources));
    let all = line.get_mut("notes").and_then(Value::as_array_mut);
    all.into_iter().for_each(|all| all.extend_from_slice(&notes));
    Ok(())
}

fn read_invoice(entry: &AccountEntry, gathered: &mut BTreeMap<String, Gathered>) -> Result<Invoice, ServiceError> {
    let InvoicePayload { invoice: mut document } =
        serde_json::from_str(&entry.payload).map_err(|error| broken(entry, &error))?;
    let id = document.pointer("/state/issued/id").and_then(Value::as_str).unwrap_or_default();
    let Gathered { lines, notes } = gathered.remove(id).unwrap_or_default();
    if let Some(members) = document.as_object_mut() {
        members.insert("lines".to_owned(), Value::Array(lines));
        members.insert("notes".to_owned(), Value::Array(notes));
    }
    Invoice::parse(&document.to_string()).map_err(|error| broken(entry, &error))
}
