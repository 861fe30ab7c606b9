//! `aljibe token`.

use crate::cli::{TokenCommand, TokenVerb};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, fields, table};
use control::{CreateToken, MadeToken, Token, TokenList};
use jiff::Timestamp;
use serde_json::json;

pub(crate) fn run(command: TokenCommand, output: Output) -> Result<(), Failure> {
    let client = Client::of(&command.target)?;
    match command.verb {
        TokenVerb::Create { name, role, expires } => {
            let tenant = command.target.tenant.map(|name| name.to_string());
            let expires_in_seconds = expires.map(|period| period.seconds);
            let wanted = CreateToken { name: name.to_string(), role, tenant, expires_in_seconds };
            let made: MadeToken = client.post("/v1/tokens", &wanted)?;
            output.show(&made, || format!("{}token    {}\n", described(&made.token), made.text))
        }
        TokenVerb::List => {
            let list: TokenList = client.get_list("/v1/tokens")?;
            output.show(&list, || {
                let rows: Vec<_> = list.tokens.iter().map(row).collect();
                table(&["ID", "NAME", "ROLE", "TENANT", "EXPIRES", "USED"], &rows)
            })
        }
        TokenVerb::Revoke { id } => {
            client.delete(&format!("/v1/tokens/{id}"))?;
            output.show(&json!({ "revoked": id }), || format!("revoked {id}"))
        }
    }
}

fn shown(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| at.to_string())
}

fn row(token: &Token) -> Vec<String> {
    let tenant = token.tenant.clone().unwrap_or_else(|| "all".to_owned());
    let role = token.role.to_string();
    vec![token.id.to_string(), token.name.clone(), role, tenant, shown(token.expires_at), shown(token.used_at)]
}

fn described(token: &Token) -> String {
    fields(&[
        ("id", Some(token.id.to_string())),
        ("name", Some(token.name.clone())),
        ("role", Some(token.role.to_string())),
        ("tenant", token.tenant.clone()),
        ("expires", Some(shown(token.expires_at))),
    ])
}
