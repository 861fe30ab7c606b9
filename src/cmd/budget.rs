//! `aljibe budget`.

use crate::cli::{BudgetCommand, BudgetVerb};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, fields};
use control::{Basis, Budget, BudgetAlert, BudgetStatus, Name};
use serde_json::json;

pub(crate) fn run(command: BudgetCommand, output: Output) -> Result<(), Failure> {
    let client = Client::of(&command.target)?;
    let tenant = command.target.tenant.clone().unwrap_or_else(Name::default_tenant);
    let path = format!("/v1/tenants/{tenant}/budget");
    match command.verb {
        BudgetVerb::Show => show(&client.get(&path)?, output),
        BudgetVerb::Set { amount, thresholds, forecast_thresholds, webhooks } => {
            let budget = Budget { amount, thresholds, forecast_thresholds, webhooks };
            show(&client.put(&path, &budget)?, output)
        }
        BudgetVerb::Delete => {
            client.delete(&path)?;
            output.show(&json!({ "tenant": tenant.as_str() }), || format!("tenant {tenant} has no budget"))
        }
    }
}

fn show(status: &BudgetStatus, output: Output) -> Result<(), Failure> {
    let percentages =
        |all: &[u32]| (!all.is_empty()).then(|| all.iter().map(|it| format!("{it} %")).collect::<Vec<_>>().join(", "));
    let budget = status.budget.as_ref();
    let told: Vec<String> = status.alerts.iter().map(told).collect();
    output.show(status, || {
        fields(&[
            ("tenant", Some(status.tenant.clone())),
            ("month", Some(status.month.clone())),
            ("budget", Some(budget.map_or_else(|| "none".to_owned(), |budget| budget.amount.clone()))),
            ("at", budget.and_then(|budget| percentages(&budget.thresholds))),
            ("forecast at", budget.and_then(|budget| percentages(&budget.forecast_thresholds))),
            ("webhooks", budget.filter(|budget| !budget.webhooks.is_empty()).map(|budget| budget.webhooks.join("\n"))),
            ("told", (!told.is_empty()).then(|| told.join("\n"))),
        ])
    })
}

fn told(alert: &BudgetAlert) -> String {
    let basis = match alert.basis {
        Basis::Bill => format!("bill {}", alert.bill),
        Basis::Forecast => format!("forecast {}", alert.forecast.as_deref().unwrap_or("-")),
    };
    format!("{} % of {} {}, {basis}, {}", alert.percent, alert.amount, alert.currency, alert.at)
}
