//! `aljibe operation`.

use crate::cli::{OperationCommand, OperationVerb};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, fields, table};
use control::{Operation, OperationList};
use serde_json::json;

pub(crate) fn run(command: OperationCommand, output: Output) -> Result<(), Failure> {
    let client = Client::of(&command.target)?;
    let path_of = |id: &str| format!("/v1/operations/{id}");
    match command.verb {
        OperationVerb::List => {
            let list: OperationList = client.list("/v1/operations")?;
            output.show(&list, || {
                let rows: Vec<_> = list.operations.iter().map(row).collect();
                table(&["ID", "TARGET", "STATE", "LEFT", "CANCEL", "BEGUN"], &rows)
            })
        }
        OperationVerb::Show { id } => {
            let operation: Operation = client.get(&path_of(&id))?;
            output.show(&operation, || described(&operation))
        }
        OperationVerb::Cancel { id } => {
            let operation: Operation = client.post(&format!("{}/cancel", path_of(&id)), &json!({}))?;
            output.show(&operation, || described(&operation))
        }
    }
}

fn left(operation: &Operation) -> String {
    let Operation { left, total, unit, .. } = operation;
    total.map_or_else(|| format!("{left} {unit}"), |total| format!("{left} of {total} {unit}"))
}

fn row(operation: &Operation) -> Vec<String> {
    vec![
        operation.id.clone(),
        operation.target.clone(),
        operation.state.as_str().to_owned(),
        left(operation),
        if operation.is_cancellable { "yes" } else { "no" }.to_owned(),
        operation.begun_at.map_or_else(|| "-".to_owned(), |at| at.to_string()),
    ]
}

fn described(operation: &Operation) -> String {
    fields(&[
        ("operation", Some(operation.id.clone())),
        ("target", Some(operation.target.clone())),
        ("tenant", operation.tenant.clone()),
        ("state", Some(operation.state.as_str().to_owned())),
        ("left", Some(left(operation))),
        ("begun", operation.begun_at.map(|at| at.to_string())),
        ("ended", operation.ended_at.map(|at| at.to_string())),
    ])
}
