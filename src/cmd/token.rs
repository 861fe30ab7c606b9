//! `aljibe token`.

use crate::address::Address;
use crate::cli::{Target, TokenCommand, TokenVerb, read_token};
use crate::client::Client;
use crate::data_dir::{TOKEN_FILE, write_token};
use crate::failure::Failure;
use crate::output::{Output, fields, table};
use control::{CreateToken, MadeToken, Role, Token, TokenList};
use jiff::Timestamp;
use serde_json::json;

/// What a token is called that takes the place of the one in the data directory.
const ROTATED: &str = "rotated";

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
            let list: TokenList = client.list("/v1/tokens")?;
            output.show(&list, || {
                let rows: Vec<_> = list.tokens.iter().map(row).collect();
                table(&["ID", "NAME", "ROLE", "TENANT", "EXPIRES", "USED"], &rows)
            })
        }
        TokenVerb::Rotate => rotate(&command.target, output),
        TokenVerb::Revoke { id } => {
            client.delete(&format!("/v1/tokens/{id}"))?;
            output.show(&json!({ "revoked": id }), || format!("revoked {id}"))
        }
    }
}

/// Whatever a crash leaves, a token that is good is in the data directory: the new one is there before the old one ends.
fn rotate(target: &Target, output: Output) -> Result<(), Failure> {
    let folder = target.data_dir(|name| std::env::var_os(name))?;
    let old = read_token(&folder.join(TOKEN_FILE))?;
    let unknown = || Failure::usage(format!("{} holds no token", folder.join(TOKEN_FILE).display()));
    let id: u64 = old.split('_').nth(1).and_then(|id| id.parse().ok()).ok_or_else(unknown)?;
    let api = Address::Unix(folder.join("api.sock"));
    let (name, role) = (ROTATED.to_owned(), Role::ProviderAdmin);
    let wanted = CreateToken { name, role, tenant: None, expires_in_seconds: Some(0) };
    let made: MadeToken = Client::new(api.clone(), Some(&old))?.post("/v1/tokens", &wanted)?;
    write_token(&folder, &made.text)?;
    Client::new(api, Some(&made.text))?.delete(&format!("/v1/tokens/{id}"))?;
    output.show(&json!({ "token": made.token, "revoked": id }), || {
        format!("{}revoked  {id}\nfile     {}\n", described(&made.token), folder.join(TOKEN_FILE).display())
    })
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
