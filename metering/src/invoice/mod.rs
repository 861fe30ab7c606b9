//! Invoices: a bill that is issued, or a look at one that is still open.
//!
//! An issued invoice never changes. What turns out to be wrong later is put right on the next one: [`correct`].

mod correct;
mod csv;
mod focus;
mod html;
mod text;

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use units::{TenantId, VolumeId};

use crate::rating::{Amount, Bill, Charge, Currency, Exact, Line, Note, NoteKind, Period, RoundingRule};
use crate::reading::number;

pub use correct::correct;

/// What stands in an invoice as its form, for whoever reads it years later.
const FORM: &str = "aljibe invoice 1";
/// Notes that are shown to people.
const NOTES_SHOWN_MAX: usize = 20;
/// By when a resource that is still there is read again.
const NEXT_READING: SignedDuration = SignedDuration::from_hours(1);
const ID_CHARS_MAX: usize = 64;

/// An invoice, issued or open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    document: Document,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    form: String,
    state: State,
    issuer: Issuer,
    #[serde(with = "number")]
    tenant: TenantId,
    tenant_name: String,
    period: Period,
    currency: Currency,
    lines: Vec<Line>,
    notes: Vec<Note>,
    total: Amount,
}

/// What an invoice is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum State {
    /// It is final.
    Issued {
        /// Its number.
        id: String,
        /// When.
        at: Timestamp,
    },
    /// The month goes on, or nobody has issued it: it may change.
    Open {
        /// What was used until then is on it.
        as_of: Timestamp,
        /// What the month will come to, if all goes on as in the last day: [`crate::forecast`].
        forecast: Option<Amount>,
    },
}

/// Who sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Its name.
    pub name: String,
    /// Where the service runs.
    pub region: Option<Region>,
}

/// Where a service runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    Text,
    /// All there is; numbers are texts, `7/3` where they have no end.
    Json,
    /// A row per line.
    Csv,
    /// A page of its own: no script, nothing to load.
    Html,
    /// FOCUS 1.2, dataset Cost and Usage: a row per line and resource.
    Focus,
}

/// Why there is no invoice.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvoiceError {
    /// The month is not over.
    #[error("{month} ends at {end}: it can be issued then")]
    NotOver {
        /// Which one.
        month: String,
        /// Its end.
        end: Timestamp,
    },
    /// A volume's reading after the month's end may be to come: what it used since its last one would be on no invoice.
    #[error("volume {resource} was last read at {last}: issue {month} an hour later, or when it has been read")]
    NotRead {
        /// Which month.
        month: String,
        /// Which volume.
        resource: VolumeId,
        /// Its last reading.
        last: Timestamp,
    },
    /// The number is none.
    #[error("`{0}` is no invoice number: 1 to {ID_CHARS_MAX} letters, digits, and any of -_./")]
    BadId(String),
    /// A correction is not of an earlier month, or names the invoice that it is on.
    #[error("line {0} of the corrections is none of an earlier invoice")]
    BadCorrection(usize),
    /// The reason is missing or too long.
    #[error("a correction needs a reason of 1 to 500 characters")]
    NoReason,
    /// There is nothing issued to correct.
    #[error("no invoice of {0} is issued: there is nothing to correct, rate it anew")]
    NothingIssued(String),
    /// A correction is in another currency than the invoice.
    #[error("a correction in {} has no place on an invoice in {}", found.code(), expected.code())]
    OtherCurrency {
        /// That of the invoice.
        expected: Currency,
        /// That of the correction.
        found: Currency,
    },
    /// A sum has no place in 127 bits.
    #[error("an amount is too large for an invoice")]
    TooMuch,
    /// A text is no invoice.
    #[error("no invoice: {0}")]
    Unreadable(String),
}

impl Invoice {
    /// An issued one, which never changes. `corrections` are those of earlier months that come with it.
    ///
    /// # Errors
    /// [`InvoiceError`] when the month is not over at `at` or a reading of its end is to come, or the number or a correction is none.
    pub fn issue(
        bill: Bill,
        corrections: Vec<Line>,
        issuer: Issuer,
        id: &str,
        at: Timestamp,
    ) -> Result<Self, InvoiceError> {
        let end = bill.period.span().to;
        if at < end {
            return Err(InvoiceError::NotOver { month: bill.period.month().to_owned(), end });
        }
        if let Some(note) = bill.notes.iter().find(|note| is_awaited(note, at)) {
            let month = bill.period.month().to_owned();
            return Err(InvoiceError::NotRead { month, resource: note.resource, last: note.from });
        }
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if id.is_empty() || id.len() > ID_CHARS_MAX || !id.chars().all(is_letter) {
            return Err(InvoiceError::BadId(id.chars().take(ID_CHARS_MAX).collect()));
        }
        Self::build(bill, corrections, issuer, State::Issued { id: id.to_owned(), at })
    }

    /// How it looks `as_of` a moment, with what it will come to when `forecast` is the bill of [`crate::forecast`].
    ///
    /// # Errors
    /// [`InvoiceError`] when a correction is none, or a sum too large.
    pub fn open(
        mut bill: Bill,
        corrections: Vec<Line>,
        issuer: Issuer,
        as_of: Timestamp,
        forecast: Option<Bill>,
    ) -> Result<Self, InvoiceError> {
        // The next reading of a resource is to come.
        bill.notes.retain(|note| !is_awaited(note, as_of));
        let state = State::Open { as_of, forecast: None };
        let forecast = match forecast {
            Some(bill) => Some(Self::build(bill, corrections.clone(), issuer.clone(), state)?.total()),
            None => None,
        };
        Self::build(bill, corrections, issuer, State::Open { as_of, forecast })
    }

    /// Reads one from its JSON, of whatever length: what was written can be read.
    ///
    /// # Errors
    /// [`InvoiceError::Unreadable`] when it is none, or its total is not that of its lines.
    pub fn parse(json: &str) -> Result<Self, InvoiceError> {
        let document: Document =
            serde_json::from_str(json).map_err(|error| InvoiceError::Unreadable(error.to_string()))?;
        let wrong = |problem: &str| Err(InvoiceError::Unreadable(problem.to_owned()));
        if document.form != FORM {
            return wrong("its form is not known here");
        }
        if !document.period.is_sound() {
            return wrong("its period is none");
        }
        if !(1..).zip(&document.lines).all(|(number, line)| line.number == number) {
            return wrong("its lines are not numbered one after the other");
        }
        if !document.lines.iter().all(is_shared_out) {
            return wrong("what its resources pay is not what its lines say");
        }
        if sum(&document.lines, document.currency).map(|sum| sum.exact()) != Some(document.total.exact()) {
            return wrong("its total is not the sum of its lines");
        }
        Ok(Self { document })
    }

    fn build(bill: Bill, corrections: Vec<Line>, issuer: Issuer, state: State) -> Result<Self, InvoiceError> {
        let Bill { tenant, name, period, currency, rule, mut lines, notes } = bill;
        for (index, line) in corrections.iter().enumerate() {
            let of_another = line.correction.as_ref().is_some_and(|correction| match &state {
                State::Issued { id, .. } => correction.invoice != *id,
                State::Open { .. } => true,
            });
            if let Some(found) =
                line.correction.as_ref().map(|correction| correction.currency).filter(|it| *it != currency)
            {
                return Err(InvoiceError::OtherCurrency { expected: currency, found });
            }
            if !of_another || line.span.to > period.span().from {
                return Err(InvoiceError::BadCorrection(index + 1));
            }
        }
        lines.extend(corrections);
        let (total, rounding) = payable(&lines, currency, rule).ok_or(InvoiceError::TooMuch)?;
        lines.extend(rounding.map(|amount| Line {
            number: 0,
            charge: Charge::Rounding,
            card: None,
            span: period.span(),
            exact: amount.exact(),
            amount,
            notes: Vec::new(),
            correction: None,
        }));
        for (number, line) in (1..).zip(&mut lines) {
            line.number = number;
        }
        let form = FORM.to_owned();
        let document =
            Document { form, state, issuer, tenant, tenant_name: name, period, currency, lines, notes, total };
        Ok(Self { document })
    }

    /// Whether it is final.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.document.state
    }

    /// Its number, when it is issued.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match &self.document.state {
            State::Issued { id, .. } => Some(id),
            State::Open { .. } => None,
        }
    }

    /// Whose it is.
    #[must_use]
    pub const fn tenant(&self) -> TenantId {
        self.document.tenant
    }

    /// Of which month.
    #[must_use]
    pub const fn period(&self) -> &Period {
        &self.document.period
    }

    /// In which currency.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        self.document.currency
    }

    /// Its lines, corrections of earlier months after its own.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.document.lines
    }

    /// What to know about the readings behind it.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.document.notes
    }

    /// What is to be paid: the sum of its lines, to the last unit.
    #[must_use]
    pub const fn total(&self) -> Amount {
        self.document.total
    }

    /// It in `format`.
    ///
    /// # Errors
    /// [`fmt::Error`] when it cannot be written, which needs memory to be short.
    pub fn render(&self, format: Format) -> Result<String, fmt::Error> {
        match format {
            Format::Text => text::render(&self.document),
            Format::Json => {
                serde_json::to_string_pretty(&self.document).map(|text| text + "\n").map_err(|_| fmt::Error)
            }
            Format::Csv => csv::render(&self.document),
            Format::Html => html::render(&self.document),
            Format::Focus => focus::render(&self.document),
        }
    }
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Text, Self::Json, Self::Csv, Self::Html, Self::Focus];

    /// Its name, as a flag says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Html => "html",
            Self::Focus => "focus",
        }
    }

    /// By its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// What a web server says that it is.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Json => "application/json",
            Self::Csv | Self::Focus => "text/csv; charset=utf-8; header=present",
            Self::Html => "text/html; charset=utf-8",
        }
    }
}

impl Document {
    /// Its number, or what it is instead.
    fn title(&self) -> String {
        match &self.state {
            State::Issued { id, .. } => format!("Invoice {id}"),
            State::Open { .. } => format!("Open month {}", self.period.month()),
        }
    }

    /// What it is worth, in a sentence.
    fn standing(&self) -> String {
        match &self.state {
            State::Issued { at, .. } => format!("Issued {}.", self.period.local(*at)),
            State::Open { as_of, .. } => {
                format!("As of {}; nothing of it is final.", self.period.local(*as_of))
            }
        }
    }

    /// The notes of the whole and of its lines, each once: first those that say that use may be missing, and not too many.
    fn notes_shown(&self) -> Vec<String> {
        let all = self.notes.iter().chain(self.lines.iter().flat_map(|line| &line.notes));
        let all: BTreeSet<(bool, String)> = all.map(|note| (!note.is_doubt(), note.to_string())).collect();
        let more = all.len().saturating_sub(NOTES_SHOWN_MAX);
        let mut shown: Vec<String> = all.into_iter().take(NOTES_SHOWN_MAX).map(|(_, note)| note).collect();
        if more > 0 {
            shown.push(format!("and {more} more, which are in its JSON"));
        }
        shown
    }

    fn forecast(&self) -> Option<Amount> {
        match self.state {
            State::Issued { .. } => None,
            State::Open { forecast, .. } => forecast,
        }
    }
}

/// Whether a line's resources pay what it says, and used it.
fn is_shared_out(line: &Line) -> bool {
    let Charge::Usage(usage) = &line.charge else { return true };
    let (paid, used) = usage.resources.iter().fold((Exact::zero(), Exact::zero()), |(paid, used), share| {
        (paid + share.amount.exact(), used + share.quantity.clone())
    });
    (paid, &used) == (line.amount.exact(), &usage.quantity)
}

/// Whether a note says that a resource was not read to the end, at a moment when its next reading may still be to come.
fn is_awaited(note: &Note, at: Timestamp) -> bool {
    note.kind == NoteKind::EndsEarly && at.duration_since(note.from) <= NEXT_READING
}

/// What `lines` come to.
fn sum(lines: &[Line], currency: Currency) -> Option<Amount> {
    lines.iter().try_fold(Amount::zero(currency.digits()), |sum, line| sum.plus(line.amount))
}

/// What is to be paid for `lines`, and the amount of the line that makes their sum so, when one is needed.
fn payable(lines: &[Line], currency: Currency, rule: RoundingRule) -> Option<(Amount, Option<Amount>)> {
    let sum = sum(lines, currency)?;
    let total = rule.round(&sum.exact(), currency.digits())?;
    let rounding = total.plus(sum.negated()?)?;
    Some((total, (rounding.units() != 0).then_some(rounding)))
}

/// What can be shown on one line.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests;
