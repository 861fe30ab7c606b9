//! An invoice as a page of its own: no script, nothing to load, every text escaped.

use std::fmt::{self, Write};

use super::Document;
use crate::rating::{Charge, Line};

const PLACES: u32 = 6;

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem; border-bottom: 1px solid #8888; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tfoot th, tfoot td { border-bottom: 0; font-weight: bold; }
details table { font-size: .9rem; }
@media print { body { margin: 0; max-width: none; } }
</style>
"#;

pub(super) fn render(document: &Document) -> Result<String, fmt::Error> {
    let mut out = String::from(HEAD);
    let period = &document.period;
    let title = escaped(&document.title());
    writeln!(out, "<title>{title}</title>\n</head>\n<body>\n<h1>{title}</h1>")?;
    writeln!(out, "<p>From {}<br>", escaped(&document.issuer.name))?;
    writeln!(out, "For {} (tenant {})<br>", escaped(&document.tenant_name), document.tenant)?;
    let (from, to) = (period.local(period.span().from), period.local(period.span().to));
    writeln!(out, "{}: {from} to {to}</p>\n<p>{}</p>", escaped(period.zone()), document.standing())?;
    let currency = document.currency.code();
    writeln!(out, "<table>\n<caption>What is to be paid, in {currency}</caption>\n<thead><tr>")?;
    writeln!(out, "<th scope=\"col\" class=\"n\">Line</th><th scope=\"col\">What</th>")?;
    writeln!(out, "<th scope=\"col\" class=\"n\">Quantity</th><th scope=\"col\">Unit</th>")?;
    writeln!(out, "<th scope=\"col\" class=\"n\">Price</th><th scope=\"col\" class=\"n\">{currency}</th>")?;
    writeln!(out, "</tr></thead>\n<tbody>")?;
    document.lines.iter().try_for_each(|line| row(&mut out, line))?;
    writeln!(out, "</tbody>\n<tfoot>")?;
    sum(&mut out, "To pay", &document.total.to_string())?;
    if let Some(forecast) = document.forecast() {
        sum(&mut out, "Forecast of the month, if all goes on as in the last day", &forecast.to_string())?;
    }
    writeln!(out, "</tfoot>\n</table>")?;
    let notes = document.notes_shown();
    if !notes.is_empty() {
        writeln!(out, "<h2>About the readings</h2>\n<ul>")?;
        notes.iter().try_for_each(|note| writeln!(out, "<li>{}</li>", escaped(note)))?;
        writeln!(out, "</ul>")?;
    }
    writeln!(out, "</body>\n</html>")?;
    Ok(out)
}

fn row(out: &mut String, line: &Line) -> fmt::Result {
    let what = escaped(&line.description());
    write!(out, "<tr><td class=\"n\">{}</td><td>", line.number)?;
    match &line.charge {
        Charge::Usage(usage) => {
            writeln!(out, "<details><summary>{what}</summary>\n<table>")?;
            for share in &usage.resources {
                let name = share.name.clone().unwrap_or_else(|| format!("volume {}", share.resource));
                let quantity = share.quantity.decimal(PLACES);
                write!(out, "<tr><td>{}</td><td class=\"n\">{quantity}</td>", escaped(&name))?;
                writeln!(out, "<td class=\"n\">{}</td></tr>", share.amount)?;
            }
            write!(out, "</table></details>{}</td>", reason(line))?;
            write!(out, "<td class=\"n\">{}</td>", usage.quantity.decimal(PLACES))?;
            write!(out, "<td>{}</td><td class=\"n\">{}</td>", escaped(usage.unit.label()), usage.price)?;
        }
        Charge::Minimum { .. } | Charge::Rounding => {
            write!(out, "{what}{}</td><td></td><td></td><td></td>", reason(line))?;
        }
    }
    writeln!(out, "<td class=\"n\">{}</td></tr>", line.amount)
}

fn reason(line: &Line) -> String {
    line.correction.as_ref().map(|correction| format!("<br>{}", escaped(&correction.reason))).unwrap_or_default()
}

fn sum(out: &mut String, what: &str, amount: &str) -> fmt::Result {
    writeln!(out, "<tr><td></td><th scope=\"row\" colspan=\"4\">{what}</th><td class=\"n\">{amount}</td></tr>")
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ if c.is_control() => out.push('?'),
            _ => out.push(c),
        }
    }
    out
}
