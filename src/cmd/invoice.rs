//! `aljibe invoice`.

use crate::cli::{InvoiceCommand, InvoiceFormat, InvoiceVerb};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, table, written};
use control::{CorrectInvoice, CorrectionPreview, InvoiceList, InvoiceSummary, IssueInvoice, Name};
use serde_json::Value;
use std::io::{self, Write};

pub(crate) fn run(command: InvoiceCommand, output: Output) -> Result<(), Failure> {
    let client = Client::of(&command.target)?;
    let tenant = command.target.tenant.clone().unwrap_or_else(Name::default_tenant);
    let path = format!("/v1/tenants/{tenant}");
    match command.verb {
        None => {
            let month = command.month.unwrap_or_default();
            // One flag says JSON for all commands.
            let format = if output.is_json { InvoiceFormat::Json } else { command.format };
            print_bytes(&client.fetch_bytes(&format!("{path}/invoice?month={month}&format={}", format.name()))?)
        }
        Some(InvoiceVerb::List) => {
            let list: InvoiceList = client.get(&format!("{path}/invoices"))?;
            output.show(&list, || listed(&list))
        }
        Some(InvoiceVerb::Issue { month }) => {
            let invoice: Value =
                client.post(&format!("{path}/invoice/issue"), &IssueInvoice { month: month.clone() })?;
            if output.is_json {
                return output.show(&invoice, String::new);
            }
            print_bytes(&client.fetch_bytes(&format!("{path}/invoice?month={month}&format=text"))?)
        }
        Some(InvoiceVerb::Correct { month, reason }) => {
            let wanted = CorrectInvoice { month, reason };
            let preview: CorrectionPreview = client.post(&format!("{path}/invoice/correct"), &wanted)?;
            output.show(&preview, || {
                let CorrectionPreview { month, amount, currency, lines, .. } = &preview;
                let count = lines.len();
                format!("the next invoice puts {month} right: {count} lines, {amount} {currency} together")
            })
        }
    }
}

fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    written(io::stdout().lock().write_all(bytes))
}

fn listed(list: &InvoiceList) -> String {
    let rows: Vec<_> = list.invoices.iter().map(row).collect();
    let mut shown = table(&["NUMBER", "MONTH", "TOTAL", "CURRENCY", "LINES", "ISSUED"], &rows);
    for ordered in &list.corrections {
        shown.push_str(&format!("with the next: {} is put right, {}\n", ordered.month, ordered.reason));
    }
    shown
}

fn row(invoice: &InvoiceSummary) -> Vec<String> {
    let InvoiceSummary { id, month, issued_at, total, currency, lines } = invoice;
    vec![id.clone(), month.clone(), total.clone(), currency.clone(), lines.to_string(), issued_at.to_string()]
}
