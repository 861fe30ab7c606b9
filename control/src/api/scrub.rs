//! `/v1/pool/scrub`.

use super::Context;
use super::answer::Body;
use super::caller::Caller;
use crate::error::{Problem, ServiceError};
use crate::scrub::{BeginScrub, Scrub};
use axum::Json;
use axum::extract::State;
use std::sync::Arc;

/// Shows how far the scrub of the pool is, and what it found.
#[utoipa::path(get, path = "/v1/pool/scrub", responses((status = 200, body = Scrub)))]
pub(super) async fn show(State(context): State<Context>) -> Result<Json<Scrub>, ServiceError> {
    Ok(Json(context.service.show_scrub().await?))
}

/// Begins to read everything in the pool against its check data, unless that is under way.
#[utoipa::path(post, path = "/v1/pool/scrub", request_body = BeginScrub, responses(
    (status = 200, body = Scrub),
    (status = 400, body = Problem, description = "invalid_request"),
))]
pub(super) async fn begin(
    State(context): State<Context>,
    caller: Caller,
    Body(wanted): Body<BeginScrub>,
) -> Result<Json<Scrub>, ServiceError> {
    let service = Arc::clone(&context.service);
    let change = async move { service.begin_scrub(!wanted.now).await };
    Ok(Json(context.change(&caller, ("pool.scrub", "pool"), change).await?))
}
