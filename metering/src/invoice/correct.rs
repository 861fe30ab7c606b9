//! Corrections: what was wrong on an issued invoice is taken back and put right on a later one.

use std::collections::BTreeMap;

use super::{Invoice, InvoiceError};
use crate::rating::{Bill, Charge, Correction, CorrectionKind, Key, Line, Share};

const REASON_CHARS_MAX: usize = 500;

/// The lines by which the month of `rerated` becomes what that says it should have been: for each line that differs one that
/// takes it back, and one as it should be. They go onto the next invoice, with the month's own time and the reason.
///
/// `issued` are the tenant's invoices, oldest first: that of the month, and later ones, whose corrections of it count.
/// Nothing is returned when nothing differs.
///
/// # Errors
/// [`InvoiceError`] when the month was never issued, or `reason` is missing.
pub fn correct(issued: &[Invoice], rerated: &Bill, reason: &str) -> Result<Vec<Line>, InvoiceError> {
    if reason.trim().is_empty() || reason.chars().count() > REASON_CHARS_MAX {
        return Err(InvoiceError::NoReason);
    }
    let mut in_force: BTreeMap<Key, (&str, &Line)> = BTreeMap::new();
    let mut last = None;
    for invoice in issued.iter().filter(|invoice| invoice.tenant() == rerated.tenant) {
        let Some(id) = invoice.id() else { continue };
        let expected = invoice.currency();
        for line in invoice.lines().iter().filter(|line| is_of(line, rerated)) {
            let Some(key) = line.key() else { continue };
            if expected != rerated.currency {
                return Err(InvoiceError::OtherCurrency { expected, found: rerated.currency });
            }
            match line.correction.as_ref().map(|correction| correction.kind) {
                Some(CorrectionKind::Reversal) => in_force.remove(&key),
                Some(CorrectionKind::Corrected) | None => in_force.insert(key, (id, line)),
            };
            last = Some(id);
        }
        if invoice.period() == &rerated.period {
            last = Some(id);
        }
    }
    let last = last.ok_or_else(|| InvoiceError::NothingIssued(rerated.period.month().to_owned()))?;
    let mut should: BTreeMap<Key, &Line> = rerated.lines.iter().filter_map(|line| Some((line.key()?, line))).collect();
    let mut lines = Vec::new();
    let mut add = |line: Line, kind, invoice: &str, number| {
        let (invoice, reason, currency) = (invoice.to_owned(), reason.to_owned(), rerated.currency);
        let correction = Correction { kind, invoice, line: number, currency, reason };
        lines.push(Line { number: 0, correction: Some(correction), ..line });
    };
    for (key, (invoice, line)) in &in_force {
        let right = should.remove(key);
        if right.is_some_and(|right| is_same(right, line)) {
            continue;
        }
        add(reversed(line)?, CorrectionKind::Reversal, invoice, Some(line.number));
        if let Some(right) = right {
            add(right.clone(), CorrectionKind::Corrected, invoice, Some(line.number));
        }
    }
    for line in should.into_values() {
        add(line.clone(), CorrectionKind::Corrected, last, None);
    }
    Ok(lines)
}

/// Whether a line is about the time of a bill.
fn is_of(line: &Line, bill: &Bill) -> bool {
    let span = bill.period.span();
    span.from <= line.span.from && line.span.to <= span.to
}

/// Whether two lines say the same, wherever they stand, and whatever its resources are called now.
fn is_same(one: &Line, other: &Line) -> bool {
    (unnamed(one), &one.exact, one.amount) == (unnamed(other), &other.exact, other.amount)
}

fn unnamed(line: &Line) -> Charge {
    let mut charge = line.charge.clone();
    if let Charge::Usage(usage) = &mut charge {
        usage.resources.iter_mut().for_each(|share| share.name = None);
    }
    charge
}

/// What takes a line back.
fn reversed(line: &Line) -> Result<Line, InvoiceError> {
    let amount = line.amount.negated().ok_or(InvoiceError::TooMuch)?;
    let mut charge = line.charge.clone();
    match &mut charge {
        Charge::Usage(usage) => {
            usage.quantity = -usage.quantity.clone();
            for share in &mut usage.resources {
                let amount = share.amount.negated().ok_or(InvoiceError::TooMuch)?;
                *share =
                    Share { quantity: -share.quantity.clone(), used: -share.used.clone(), amount, ..share.clone() };
            }
        }
        Charge::Minimum { .. } | Charge::Rounding => {}
    }
    Ok(Line { charge, exact: -line.exact.clone(), amount, ..line.clone() })
}
