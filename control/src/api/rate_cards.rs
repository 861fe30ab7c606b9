//! `/v1/rate-cards`, and how tenants are billed.

use super::Context;
use super::answer::{Body, Named, Parameters, refused_body};
use super::caller::Caller;
use crate::billing::{Desk, RateCardEntry, RateCardList, SetTenantBilling, TenantBilling};
use crate::error::{ErrorCode, Problem, ServiceError};
use crate::name::Name;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::StringRejection;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use serde::Deserialize;

/// Whom a card is for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CardParameters {
    /// The tenant; all that have none of their own where none is named.
    tenant: Option<String>,
}

impl CardParameters {
    fn tenant(&self) -> Result<Option<Name>, ServiceError> {
        Ok(self.tenant.as_deref().map(str::parse).transpose()?)
    }
}

/// Lists the rate cards that hold or will.
#[utoipa::path(get, path = "/v1/rate-cards", responses((status = 200, body = RateCardList)))]
pub(super) async fn list(State(context): State<Context>) -> Result<Json<RateCardList>, ServiceError> {
    Ok(Json(Desk::of(&context.service).rate_cards().await?))
}

/// Adds a rate card, which never changes: another price is another card. It holds from its moment on, until the next one's. The
/// same card again changes nothing.
#[utoipa::path(post, path = "/v1/rate-cards", request_body = Object,
    params(("tenant" = Option<String>, Query, description = "For this tenant alone")), responses(
    (status = 201, body = RateCardEntry, description = "Added", headers(("location" = String, description = "Its path"))),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
    (status = 409, body = Problem, description = "rate_card_conflict"),
))]
pub(super) async fn add(
    State(context): State<Context>,
    caller: Caller,
    Parameters(parameters): Parameters<CardParameters>,
    headers: HeaderMap,
    body: Result<String, StringRejection>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<RateCardEntry>), ServiceError> {
    // Read by its own rules, which know a member that is there twice.
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media_type.to_ascii_lowercase().starts_with("application/json") {
        let detail = "send the card with \"Content-Type: application/json\"";
        return Err(ServiceError::new(ErrorCode::UnsupportedMediaType, detail));
    }
    let body = body.map_err(|rejection| refused_body(rejection.status(), rejection.body_text()))?;
    let tenant = parameters.tenant()?;
    let target = tenant.as_ref().map_or_else(|| "all".to_owned(), ToString::to_string);
    let desk = Desk::of(&context.service);
    let change = async move { desk.add_card(&body, tenant).await };
    let entry = context.change(&caller, ("rate_card.add", target), change).await?;
    let location = format!("/v1/rate-cards/{}", entry.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(entry)))
}

/// Shows a rate card.
#[utoipa::path(get, path = "/v1/rate-cards/{id}", params(("id" = String, Path, description = "The card's id")), responses(
    (status = 200, body = RateCardEntry),
    (status = 404, body = Problem, description = "rate_card_not_found"),
))]
pub(super) async fn show(
    State(context): State<Context>,
    Named(id): Named<String>,
) -> Result<Json<RateCardEntry>, ServiceError> {
    Ok(Json(Desk::of(&context.service).rate_card(&id).await?))
}

/// Withdraws a rate card that has not begun to hold.
#[utoipa::path(delete, path = "/v1/rate-cards/{id}", params(
        ("id" = String, Path, description = "The card's id"),
        ("tenant" = Option<String>, Query, description = "The one that is for this tenant alone"),
    ), responses(
    (status = 204, description = "Gone"),
    (status = 404, body = Problem, description = "rate_card_not_found, tenant_not_found"),
    (status = 409, body = Problem, description = "rate_card_conflict"),
))]
pub(super) async fn withdraw(
    State(context): State<Context>,
    caller: Caller,
    Named(id): Named<String>,
    Parameters(parameters): Parameters<CardParameters>,
) -> Result<StatusCode, ServiceError> {
    let (tenant, desk, target) = (parameters.tenant()?, Desk::of(&context.service), id.clone());
    let change = async move { desk.withdraw_card(&id, tenant).await };
    context.change(&caller, ("rate_card.withdraw", target), change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows how a tenant is billed.
#[utoipa::path(get, path = "/v1/tenants/{name}/billing", params(("name" = String, Path, description = "The tenant")),
    responses(
    (status = 200, body = TenantBilling),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn billing(
    State(context): State<Context>,
    Named(name): Named<Name>,
) -> Result<Json<TenantBilling>, ServiceError> {
    Ok(Json(Desk::of(&context.service).tenant_billing(&name).await?))
}

/// Says how a tenant is billed: its months' time zone, its name and numbers on invoices. What is said of the default tenant is
/// who issues all invoices.
#[utoipa::path(put, path = "/v1/tenants/{name}/billing", request_body = SetTenantBilling,
    params(("name" = String, Path, description = "The tenant")), responses(
    (status = 200, body = TenantBilling),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn set_billing(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<Name>,
    Body(wanted): Body<SetTenantBilling>,
) -> Result<Json<TenantBilling>, ServiceError> {
    let (desk, target) = (Desk::of(&context.service), name.clone());
    let change = async move { desk.set_tenant_billing(&name, wanted).await };
    Ok(Json(context.change(&caller, ("tenant.billing", target), change).await?))
}
