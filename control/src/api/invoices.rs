//! Invoices and budgets of a tenant.

use super::Context;
use super::answer::{Body, Named, Parameters};
use super::caller::Caller;
use crate::billing::{Budget, BudgetStatus, CorrectInvoice, CorrectionPreview, Desk, InvoiceList, IssueInvoice};
use crate::error::{ErrorCode, Problem, ServiceError};
use crate::name::Name;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metering::{Format, Invoice};
use serde::Deserialize;

/// Which invoice, and how it is to look.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InvoiceParameters {
    month: String,
    format: Option<String>,
}

/// Lists a tenant's issued invoices, and the corrections that come with the next.
#[utoipa::path(get, path = "/v1/tenants/{name}/invoices", params(("name" = String, Path, description = "The tenant")),
    responses(
    (status = 200, body = InvoiceList),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn list(
    State(context): State<Context>,
    Named(name): Named<Name>,
) -> Result<Json<InvoiceList>, ServiceError> {
    Ok(Json(Desk::of(&context.service).invoices(&name).await?))
}

/// Shows a month's invoice: as it was issued, or, until then, how it looks now, with a forecast while the month goes on. In the
/// format that is asked for by name, or by `Accept`: JSON, plain text, HTML or CSV.
#[utoipa::path(get, path = "/v1/tenants/{name}/invoice", params(
        ("name" = String, Path, description = "The tenant"),
        ("month" = String, Query, description = "The month, as 2026-11, in the tenant's time zone"),
        ("format" = Option<String>, Query, description = "json, text, csv, focus or html"),
    ), responses(
    (status = 200, content((Object = "application/json"), (String = "text/plain"), (String = "text/csv"), (String = "text/html"))),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
    (status = 409, body = Problem, description = "not_rated"),
))]
pub(super) async fn show(
    State(context): State<Context>,
    Named(name): Named<Name>,
    Parameters(parameters): Parameters<InvoiceParameters>,
    headers: HeaderMap,
) -> Result<Response, ServiceError> {
    let format = format_of(parameters.format.as_deref(), &headers)?;
    let invoice = Desk::of(&context.service).invoice(&name, &parameters.month).await?;
    rendered(&invoice, format, StatusCode::OK)
}

/// Issues a month's invoice, once: asked for again, it is answered as it was issued. Refused while the month goes on or readings
/// of its end are to come.
#[utoipa::path(post, path = "/v1/tenants/{name}/invoice/issue", request_body = IssueInvoice,
    params(("name" = String, Path, description = "The tenant")), responses(
    (status = 200, body = Object, description = "It was issued before"),
    (status = 201, body = Object, description = "Issued"),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
    (status = 409, body = Problem, description = "month_open, readings_missing, not_rated"),
))]
pub(super) async fn issue(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<Name>,
    Body(wanted): Body<IssueInvoice>,
) -> Result<Response, ServiceError> {
    let (desk, target) = (Desk::of(&context.service), name.clone());
    let change = async move { desk.issue(&name, &wanted.month).await };
    let (invoice, is_new) = context.change(&caller, ("invoice.issue", target), change).await?;
    rendered(&invoice, Format::Json, if is_new { StatusCode::CREATED } else { StatusCode::OK })
}

/// Has the next invoice put a month right: it is rated anew, and lines that differ from what was issued are taken back and put as
/// they should be, with the reason. No issued invoice changes.
#[utoipa::path(post, path = "/v1/tenants/{name}/invoice/correct", request_body = CorrectInvoice,
    params(("name" = String, Path, description = "The tenant")), responses(
    (status = 200, body = CorrectionPreview),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found, invoice_not_found"),
    (status = 409, body = Problem, description = "nothing_to_correct, not_rated"),
))]
pub(super) async fn correct(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<Name>,
    Body(wanted): Body<CorrectInvoice>,
) -> Result<Json<CorrectionPreview>, ServiceError> {
    let (desk, target) = (Desk::of(&context.service), name.clone());
    let change = async move { desk.correct(&name, &wanted.month, &wanted.reason).await };
    Ok(Json(context.change(&caller, ("invoice.correct", target), change).await?))
}

/// Shows a tenant's budget, and what was told of it in the month that goes on.
#[utoipa::path(get, path = "/v1/tenants/{name}/budget", params(("name" = String, Path, description = "The tenant")),
    responses(
    (status = 200, body = BudgetStatus),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn budget(
    State(context): State<Context>,
    Named(name): Named<Name>,
) -> Result<Json<BudgetStatus>, ServiceError> {
    Ok(Json(Desk::of(&context.service).budget(&name).await?))
}

/// Gives a tenant a budget: at each threshold that its month reaches, somebody is told, once.
#[utoipa::path(put, path = "/v1/tenants/{name}/budget", request_body = Budget,
    params(("name" = String, Path, description = "The tenant")), responses(
    (status = 200, body = BudgetStatus),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn set_budget(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<Name>,
    Body(wanted): Body<Budget>,
) -> Result<Json<BudgetStatus>, ServiceError> {
    let (desk, target) = (Desk::of(&context.service), name.clone());
    let change = async move { desk.set_budget(&name, Some(wanted)).await };
    Ok(Json(context.change(&caller, ("budget.set", target), change).await?))
}

/// Takes a tenant's budget away.
#[utoipa::path(delete, path = "/v1/tenants/{name}/budget", params(("name" = String, Path, description = "The tenant")),
    responses(
    (status = 204, description = "It has none"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn delete_budget(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<Name>,
) -> Result<StatusCode, ServiceError> {
    let (desk, target) = (Desk::of(&context.service), name.clone());
    let change = async move { desk.set_budget(&name, None).await };
    context.change(&caller, ("budget.delete", target), change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The format that is asked for by name, or else the first that `Accept` names.
fn format_of(name: Option<&str>, headers: &HeaderMap) -> Result<Format, ServiceError> {
    if let Some(name) = name {
        let unknown = || {
            let names = Format::ALL.map(Format::name).join(", ");
            ServiceError::new(ErrorCode::InvalidRequest, format!("format {name:?} is none of {names}"))
        };
        return Format::parse(name).ok_or_else(unknown);
    }
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = |media_type: &str| match media_type.split(';').next().unwrap_or_default().trim() {
        "application/json" => Some(Format::Json),
        "text/plain" => Some(Format::Text),
        "text/html" => Some(Format::Html),
        "text/csv" => Some(Format::Csv),
        _ => None,
    };
    Ok(accepted.split(',').find_map(format).unwrap_or(Format::Json))
}

fn rendered(invoice: &Invoice, format: Format, status: StatusCode) -> Result<Response, ServiceError> {
    let refused = |_| ServiceError::new(ErrorCode::Internal, "the invoice cannot be written: is memory short?");
    let text = invoice.render(format).map_err(refused)?;
    let headers = [
        (header::CONTENT_TYPE, format.media_type()),
        // A page that a browser shows has no script and loads nothing; nothing of it may become one.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; sandbox"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((status, headers, text).into_response())
}
