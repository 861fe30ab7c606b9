//! An invoice for a spreadsheet: a row per line.

use std::fmt;

use super::Document;
use crate::rating::{Charge, CorrectionKind, Line, Tier};

/// Decimals of a quantity; what has more is in the column `exact_quantity`.
const PLACES: u32 = 12;

const COLUMNS: [&str; 22] = [
    "invoice",
    "tenant",
    "tenant_name",
    "month",
    "line",
    "kind",
    "class",
    "dimension",
    "tier",
    "from",
    "to",
    "quantity",
    "unit",
    "price",
    "currency",
    "amount",
    "exact_quantity",
    "exact_amount",
    "rate_card",
    "correction",
    "corrects",
    "reason",
];

pub(super) fn render(document: &Document) -> Result<String, fmt::Error> {
    let rows = document.lines.iter().map(|line| row(document, line).map(|cell| harmless(&cell)));
    table(&COLUMNS, rows)
}

/// A CSV of RFC 4180 with a header.
pub(super) fn table<const N: usize>(
    columns: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> Result<String, fmt::Error> {
    let mut writer = ::csv::WriterBuilder::new().terminator(::csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(columns).map_err(|_| fmt::Error)?;
    for row in rows {
        writer.write_record(&row).map_err(|_| fmt::Error)?;
    }
    String::from_utf8(writer.into_inner().map_err(|_| fmt::Error)?).map_err(|_| fmt::Error)
}

fn row(document: &Document, line: &Line) -> [String; 22] {
    let invoice = match &document.state {
        super::State::Issued { id, .. } => id.clone(),
        super::State::Open { .. } => String::new(),
    };
    let [kind, class, dimension, tier, quantity, unit, price, exact] = charge(line);
    let [correction, corrects, reason] = correction(line);
    [
        invoice,
        document.tenant.to_string(),
        document.tenant_name.clone(),
        document.period.month().to_owned(),
        line.number.to_string(),
        kind,
        class,
        dimension,
        tier,
        line.span.from.to_string(),
        line.span.to.to_string(),
        quantity,
        unit,
        price,
        document.currency.code().to_owned(),
        line.amount.to_string(),
        exact,
        line.exact.to_string(),
        line.card.as_ref().map(ToString::to_string).unwrap_or_default(),
        correction,
        corrects,
        reason,
    ]
}

fn charge(line: &Line) -> [String; 8] {
    match &line.charge {
        Charge::Usage(usage) => [
            "usage".to_owned(),
            usage.class_name.clone(),
            usage.dimension.name().to_owned(),
            tier(&usage.tier),
            usage.quantity.decimal(PLACES),
            usage.unit.label().to_owned(),
            usage.price.to_string(),
            usage.quantity.to_string(),
        ],
        Charge::Minimum { class_name, .. } => {
            let class = class_name.as_deref().unwrap_or_default();
            ["minimum", class, "", "", "", "", "", ""].map(str::to_owned)
        }
        Charge::Rounding => ["rounding", "", "", "", "", "", "", ""].map(str::to_owned),
    }
}

fn correction(line: &Line) -> [String; 3] {
    line.correction.as_ref().map_or_else(Default::default, |correction| {
        let kind = match correction.kind {
            CorrectionKind::Reversal => "reversal",
            CorrectionKind::Corrected => "corrected",
        };
        let line = correction.line.map(|line| format!(" line {line}")).unwrap_or_default();
        [kind.to_owned(), format!("{}{line}", correction.invoice), correction.reason.clone()]
    })
}

pub(super) fn tier(tier: &Tier) -> String {
    match tier {
        Tier::Free => "free".to_owned(),
        Tier::Step(step) => step.to_string(),
    }
}

/// A spreadsheet takes a cell that begins with certain signs for a formula; numbers keep theirs.
fn harmless(cell: &str) -> String {
    let is_number = cell.strip_prefix('-').unwrap_or(cell).chars().all(|c| c.is_ascii_digit() || c == '.' || c == '/');
    if !is_number && cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell.to_owned() }
}
