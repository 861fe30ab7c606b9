//! `/v1/operations`: jobs that take long. What they are is told by what there is, so that there is no list of them to be wrong.

use super::Context;
use super::answer::{Named, Parameters};
use super::caller::Caller;
use super::paging::{Asked, PageParameters, PartParameters};
use crate::error::{ErrorCode, Problem, ServiceError};
use crate::operation::{Operation, OperationKind, OperationList, OperationState};
use crate::page::Place;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;

/// Lists operations: of the caller's tenant, where it has one.
#[utoipa::path(get, path = "/v1/operations", params(PageParameters), responses(
    (status = 200, body = OperationList),
    (status = 400, body = Problem, description = "invalid_request"),
))]
pub(super) async fn list(
    State(context): State<Context>,
    caller: Caller,
    Parameters(parameters): Parameters<PartParameters>,
) -> Result<Json<OperationList>, ServiceError> {
    let asked = Asked::by(parameters.limit, parameters.cursor)?;
    let place = |operation: &Operation| Place::named(&operation.id);
    let mut operations = asked.page().of(seen(&context, &caller).await?, place);
    let next_cursor = asked.cut(&mut operations, place);
    Ok(Json(OperationList { operations, next_cursor }))
}

/// Shows an operation.
#[utoipa::path(get, path = "/v1/operations/{id}", params(("id" = String, Path, description = "The operation")), responses(
    (status = 200, body = Operation),
    (status = 404, body = Problem, description = "operation_not_found"),
))]
pub(super) async fn show(
    State(context): State<Context>,
    caller: Caller,
    Named(id): Named<String>,
) -> Result<Json<Operation>, ServiceError> {
    Ok(Json(find(&context, &caller, &id).await?))
}

/// Cancels an operation: a scrub ends where it is, of an import what there is of the image is deleted. An erasure is decided and
/// goes on.
#[utoipa::path(post, path = "/v1/operations/{id}/cancel", params(("id" = String, Path, description = "The operation")),
    responses(
    (status = 200, body = Operation),
    (status = 404, body = Problem, description = "operation_not_found"),
    (status = 409, body = Problem, description = "operation_not_cancellable"),
))]
pub(super) async fn cancel(
    State(context): State<Context>,
    caller: Caller,
    Named(id): Named<String>,
) -> Result<Json<Operation>, ServiceError> {
    let operation = find(&context, &caller, &id).await?;
    if !operation.is_cancellable {
        return Err(not_cancellable(&operation));
    }
    let (service, target) = (Arc::clone(&context.service), operation.target.clone());
    let change = async move { service.cancel_operation(operation).await };
    Ok(Json(context.change(&caller, ("operation.cancel", target), change).await?))
}

async fn seen(context: &Context, caller: &Caller) -> Result<Vec<Operation>, ServiceError> {
    let mut operations = context.service.list_operations().await?;
    operations
        .retain(|operation| caller.tenant.as_ref().is_none_or(|own| operation.tenant.as_deref() == Some(own.as_str())));
    Ok(operations)
}

async fn find(context: &Context, caller: &Caller, id: &str) -> Result<Operation, ServiceError> {
    let found = seen(context, caller).await?.into_iter().find(|operation| operation.id == id);
    found.ok_or_else(|| ServiceError::no_operation(id))
}

fn not_cancellable(operation: &Operation) -> ServiceError {
    let why = match (operation.state, operation.kind) {
        (OperationState::Cancelling, _) => "it is being cancelled",
        (OperationState::Cancelled | OperationState::Done, _) => "it has ended",
        (OperationState::Running, OperationKind::Erase) => "the deletion is decided, and what is left of it goes on",
        (OperationState::Running, OperationKind::Scrub | OperationKind::Import) => "it cannot be now",
    };
    let detail = format!("operation {} is not cancelled: {why}", operation.id);
    ServiceError::new(ErrorCode::OperationNotCancellable, detail)
}
