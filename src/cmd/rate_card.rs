//! `aljibe rate-card`.

use crate::cli::{RateCardCommand, RateCardVerb};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, table};
use anyhow::Context;
use control::{RateCardEntry, RateCardList};
use serde_json::json;

/// Characters of an id that a table shows: enough to tell cards apart.
const ID_SHOWN: usize = "sha256:".len() + 12;

pub(crate) fn run(command: RateCardCommand, output: Output) -> Result<(), Failure> {
    let client = Client::of(&command.target)?;
    let query = command.target.query();
    match command.verb {
        RateCardVerb::Add { file } => {
            let card = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let entry: RateCardEntry = client.post_raw(&format!("/v1/rate-cards{query}"), card)?;
            output.show(&entry, || table(&HEADER, &[row(&entry, usize::MAX)]))
        }
        RateCardVerb::List => {
            let list: RateCardList = client.get("/v1/rate-cards")?;
            output.show(&list, || {
                let rows: Vec<_> = list.rate_cards.iter().map(|entry| row(entry, ID_SHOWN)).collect();
                table(&HEADER, &rows)
            })
        }
        RateCardVerb::Show { id } => {
            let entry = find(&client, &id)?;
            output.show(&entry, || serde_json::to_string_pretty(&entry.card).unwrap_or_default())
        }
        RateCardVerb::Withdraw { id } => {
            let id = find(&client, &id)?.id;
            client.delete(&format!("/v1/rate-cards/{id}{query}"))?;
            output.show(&json!({ "withdrawn": id }), || format!("withdrew {id}"))
        }
    }
}

const HEADER: [&str; 5] = ["ID", "NAME", "FOR", "FROM", "ADDED"];

/// The card of an id, or of the beginning of one.
fn find(client: &Client, id: &str) -> Result<RateCardEntry, Failure> {
    let list: RateCardList = client.get("/v1/rate-cards")?;
    let is_meant = |entry: &RateCardEntry| entry.id.starts_with(id) || entry.id.starts_with(&format!("sha256:{id}"));
    let mut found = list.rate_cards.into_iter().filter(is_meant);
    let first = found.next();
    let missing = || Failure::new(Exit::NotFound, "rate_card_not_found", format!("there is no rate card {id}"));
    let first = first.ok_or_else(missing)?;
    if found.any(|entry| entry.id != first.id) {
        return Err(Failure::usage(format!("more than one rate card begins with {id}: write more of its id")));
    }
    Ok(first)
}

fn row(entry: &RateCardEntry, id_chars: usize) -> Vec<String> {
    vec![
        entry.id.chars().take(id_chars).collect(),
        entry.name.clone(),
        entry.tenant.clone().unwrap_or_else(|| "all".to_owned()),
        entry.effective_from.to_string(),
        entry.added_at.to_string(),
    ]
}
