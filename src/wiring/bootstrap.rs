//! The first token: a pool without a live token of a provider-admin gets one, which is written to `DIR/token` and shown once.

use crate::data_dir::DataDir;
use crate::failure::Failure;
use anyhow::Context;
use control::api::BOOTSTRAP;
use control::{NewToken, Role, Secret, Service, Token};
use jiff::Timestamp;

/// Makes a token for whoever may read the data directory, unless there is one for a provider-admin; returns its text.
pub(crate) async fn bootstrap(service: &dyn Service, data: &DataDir) -> Result<Option<String>, Failure> {
    let refused = |error: control::ServiceError| anyhow::anyhow!("cannot make the first token: {error}");
    let tokens = service.list_tokens(None).await.map_err(refused)?;
    // What a crash left: a token whose text nobody has.
    let is_lost = |token: &&Token| token.name == BOOTSTRAP && token.used_at.is_none() && !data.has_token();
    let is_live = |token: &&Token| {
        let is_over = token.expires_at.is_some_and(|end| end <= Timestamp::now());
        token.role == Role::ProviderAdmin && !is_over
    };
    if tokens.iter().filter(|token| !is_lost(token)).any(|token| is_live(&token)) {
        return Ok(None);
    }
    for lost in tokens.iter().filter(is_lost) {
        service.revoke_token(lost.id, None).await.map_err(refused)?;
    }
    let secret = Secret::generate().context("cannot make the first token")?;
    let name = BOOTSTRAP.parse().context("cannot name the first token")?;
    let hash = secret.hash();
    let new = NewToken { name, role: Role::ProviderAdmin, tenant: None, expires_at: None, hash };
    let made = service.create_token(new).await.map_err(refused)?;
    let text = secret.text(made.id);
    data.write_token(&text)?;
    Ok(Some(text))
}
