//! `/v1/pool/scrub`.

use super::Context;
use super::answer::{Body, run_to_end};
use crate::error::{Problem, ServiceError};
use crate::scrub::{BeginScrub, Scrub};
use axum::Json;
use axum::extract::State;

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
    Body(wanted): Body<BeginScrub>,
) -> Result<Json<Scrub>, ServiceError> {
    Ok(Json(run_to_end(async move { context.service.begin_scrub(!wanted.now).await }).await?))
}
