//! `/v1/tokens`.

use super::Context;
use super::access::may_give;
use super::answer::{Body, Named, Parameters};
use super::caller::Caller;
use super::paging::{Asked, PageParameters, PartParameters};
use crate::error::{ErrorCode, Problem, ServiceError};
use crate::name::Name;
use crate::page::Place;
use crate::token::{CreateToken, EXPIRES_SECONDS_DEFAULT, MadeToken, NewToken, Secret, Token, TokenList};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// What the token that a fresh daemon makes is called; no other may be.
pub const BOOTSTRAP: &str = "bootstrap";

/// Lists tokens, without their secrets: of the caller's tenant, where it has one.
#[utoipa::path(get, path = "/v1/tokens", params(PageParameters), responses(
    (status = 200, body = TokenList),
    (status = 400, body = Problem, description = "invalid_request"),
))]
pub(super) async fn list(
    State(context): State<Context>,
    caller: Caller,
    Parameters(parameters): Parameters<PartParameters>,
) -> Result<Json<TokenList>, ServiceError> {
    let asked = Asked::by(parameters.limit, parameters.cursor)?;
    let place = |token: &Token| Place::numbered(token.id);
    let mut tokens = asked.page().of(context.service.list_tokens(caller.tenant).await?, place);
    let next_cursor = asked.cut(&mut tokens, place);
    Ok(Json(TokenList { tokens, next_cursor }))
}

/// Makes a token. Its text is told in this answer and never again.
#[utoipa::path(post, path = "/v1/tokens", request_body = CreateToken, responses(
    (status = 201, body = MadeToken, description = "Made", headers(("location" = String, description = "Its path"))),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 403, body = Problem, description = "forbidden"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn create(
    State(context): State<Context>,
    caller: Caller,
    Body(wanted): Body<CreateToken>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<MadeToken>), ServiceError> {
    let refused = |detail: String| Err(ServiceError::new(ErrorCode::InvalidRequest, detail));
    let name: Name = wanted.name.parse()?;
    let role = wanted.role;
    if !may_give(caller.role, role) {
        let detail = format!("a {} gives no tokens to a {role}: ask the provider", caller.role);
        return Err(ServiceError::new(ErrorCode::Forbidden, detail));
    }
    if name.as_str() == BOOTSTRAP {
        return refused(format!("only the token that a fresh daemon makes is called {BOOTSTRAP}: choose another name"));
    }
    let tenant = caller.listed(wanted.tenant.as_deref())?;
    match (role.is_of_tenant(), &tenant) {
        (Some(true), None) => return refused(format!("a token of a {role} is for one tenant: name it")),
        (Some(false), Some(_)) => return refused(format!("a token of a {role} is for all tenants: name none")),
        _ => {}
    }
    let secret = Secret::generate().map_err(|error| ServiceError::new(ErrorCode::Internal, error.to_string()))?;
    let expires_at = end_of(wanted.expires_in_seconds.unwrap_or(EXPIRES_SECONDS_DEFAULT))?;
    let new = NewToken { name, role, tenant, expires_at, hash: secret.hash() };
    let (service, target) = (Arc::clone(&context.service), new.name.clone());
    let change = async move { service.create_token(new).await };
    let token = context.change(&caller, ("token.create", target), change).await?;
    let location = format!("/v1/tokens/{}", token.id);
    let text = if caller.is_trial { String::new() } else { secret.text(token.id) };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(MadeToken { token, text })))
}

/// Revokes a token: from then on nobody asks by it.
#[utoipa::path(delete, path = "/v1/tokens/{id}", params(("id" = u64, Path, description = "The token's number")), responses(
    (status = 204, description = "Gone"),
    (status = 404, body = Problem, description = "token_not_found"),
))]
pub(super) async fn revoke(
    State(context): State<Context>,
    caller: Caller,
    Named(id): Named<String>,
) -> Result<StatusCode, ServiceError> {
    let id = id.parse().map_err(|_| ServiceError::no_token(&id))?;
    let (service, tenant) = (Arc::clone(&context.service), caller.tenant.clone());
    let change = async move { service.revoke_token(id, tenant).await };
    context.change(&caller, ("token.revoke", id), change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// When a token ends that is good for so many seconds; never for 0.
fn end_of(seconds: u64) -> Result<Option<Timestamp>, ServiceError> {
    if seconds == 0 {
        return Ok(None);
    }
    let length = i64::try_from(seconds).ok().map(SignedDuration::from_secs);
    let end = length.and_then(|length| Timestamp::now().checked_add(length).ok());
    let refused = || ServiceError::new(ErrorCode::InvalidRequest, "expires_in_seconds is too long: give 0 for never");
    end.map(Some).ok_or_else(refused)
}
