//! `aljibe audit`.

use crate::cli::AuditCommand;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, table};
use control::{AuditEntry, AuditList, Outcome};

pub(crate) fn run(command: AuditCommand, output: Output) -> Result<(), Failure> {
    let client = Client::of(&command.target)?;
    let tenant = command.target.tenant.map(|tenant| format!("&tenant={tenant}")).unwrap_or_default();
    let before = command.before.map(|number| format!("&before={number}")).unwrap_or_default();
    let refused = command.refused;
    let list: AuditList =
        client.get(&format!("/v1/audit?limit={}&refused={refused}{before}{tenant}", command.limit))?;
    output.show(&list, || {
        let rows: Vec<_> = list.entries.iter().map(row).collect();
        table(&["NUMBER", "AT", "TOKEN", "ROLE", "TENANT", "ACTION", "TARGET", "OUTCOME", "TIMES"], &rows)
    })
}

fn row(entry: &AuditEntry) -> Vec<String> {
    let outcome = match entry.outcome {
        Outcome::Begun => "begun".to_owned(),
        Outcome::Done => "done".to_owned(),
        Outcome::Failed | Outcome::Refused => entry.code.clone().unwrap_or_else(|| "failed".to_owned()),
    };
    vec![
        entry.number.to_string(),
        entry.at.to_string(),
        entry.token.map_or_else(|| "-".to_owned(), |token| token.to_string()),
        entry.role.map_or_else(|| "-".to_owned(), |role| role.to_string()),
        entry.tenant.clone().unwrap_or_else(|| "all".to_owned()),
        entry.action.clone(),
        entry.target.clone(),
        outcome,
        entry.times.unwrap_or(1).to_string(),
    ]
}
