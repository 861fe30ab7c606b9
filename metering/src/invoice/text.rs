//! An invoice for a terminal.

use std::fmt::{self, Write};

use super::{Document, clean};
use crate::rating::{Charge, Line};

/// Decimals of a quantity, for the eye.
const PLACES: u32 = 6;

pub(super) fn render(document: &Document) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let period = &document.period;
    writeln!(out, "{}", clean(&document.title()))?;
    writeln!(out, "From {}", clean(&document.issuer.name))?;
    writeln!(out, "For {} (tenant {})", clean(&document.tenant_name), document.tenant)?;
    writeln!(
        out,
        "{}: {} to {}",
        clean(period.zone()),
        period.local(period.span().from),
        period.local(period.span().to)
    )?;
    writeln!(out, "{}\n", document.standing())?;
    let mut rows = vec![["", "what", "quantity", "unit", "price", document.currency.code()].map(str::to_owned)];
    for line in &document.lines {
        rows.push(row(line));
        if let Charge::Usage(usage) = &line.charge {
            rows.extend(usage.resources.iter().map(|share| {
                let name = share.name.clone().unwrap_or_else(|| format!("volume {}", share.resource));
                let amount = format!("({})", share.amount);
                let quantity = format!("({})", share.quantity.decimal(PLACES));
                [String::new(), format!("  {}", clean(&name)), quantity, String::new(), String::new(), amount]
            }));
        }
    }
    rows.push(["", "to pay", "", "", "", &document.total.to_string()].map(str::to_owned));
    if let Some(forecast) = document.forecast() {
        let what = "forecast of the month, if all goes on as in the last day";
        rows.push(["", what, "", "", "", &forecast.to_string()].map(str::to_owned));
    }
    table(&mut out, &rows)?;
    for line in &document.lines {
        if let Some(correction) = &line.correction {
            writeln!(out, "\nLine {}: {}", line.number, clean(&correction.reason))?;
        }
    }
    let notes = document.notes_shown();
    if !notes.is_empty() {
        writeln!(out, "\nAbout the readings:")?;
        notes.iter().try_for_each(|note| writeln!(out, "  {note}"))?;
    }
    Ok(out)
}

fn row(line: &Line) -> [String; 6] {
    let (quantity, unit, price) = match &line.charge {
        Charge::Usage(usage) => {
            (usage.quantity.decimal(PLACES), usage.unit.label().to_owned(), usage.price.to_string())
        }
        Charge::Minimum { .. } | Charge::Rounding => (String::new(), String::new(), String::new()),
    };
    [line.number.to_string(), clean(&line.description()), quantity, unit, price, line.amount.to_string()]
}

/// Columns as wide as what is in them; numbers to the right.
fn table(out: &mut String, rows: &[[String; 6]]) -> fmt::Result {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths = [0, 1, 2, 3, 4, 5].map(|column| width(column).unwrap_or(0));
    for row in rows {
        let mut text = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            if column == 1 || column == 3 {
                write!(text, "{cell:<width$}  ")?;
            } else {
                write!(text, "{cell:>width$}  ")?;
            }
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}
