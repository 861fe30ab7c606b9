//! The pool, health and metrics.

use super::Context;
use crate::error::{ErrorCode, Problem, ServiceError};
use crate::metrics;
use crate::model::{Pool, Status};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};
use prometheus::proto::MetricFamily;

/// Figures as text.
pub(super) type Text = ([(HeaderName, &'static str); 1], String);

/// Most volumes of which figures are shown at once.
const METRICS_VOLUMES_MAX: usize = 1000;

/// Shows the pool.
#[utoipa::path(get, path = "/v1/pool", responses((status = 200, body = Pool)))]
pub(super) async fn pool(State(context): State<Context>) -> Result<Json<Pool>, ServiceError> {
    Ok(Json(context.service.show_pool().await?))
}

/// Tells that the daemon lives. Asks no shard.
#[utoipa::path(get, path = "/v1/health", responses((status = 200, body = Status)))]
pub(super) async fn health() -> Json<Status> {
    Json(ok())
}

/// Tells whether every shard answers.
#[utoipa::path(get, path = "/v1/ready", responses(
    (status = 200, body = Status),
    (status = 503, body = Problem, description = "unavailable, shutting_down"),
))]
pub(super) async fn ready(State(context): State<Context>) -> Result<Json<Status>, ServiceError> {
    context.service.check_ready().await?;
    Ok(Json(ok()))
}

/// Shows every figure in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(context): State<Context>) -> Result<Text, ServiceError> {
    metrics_text(&mut context.service.metrics().await?, &context.requests.gather())
}

/// Figures, of so many volumes at most, by name: how many more there are is one of them.
pub(super) fn metrics_text(snapshot: &mut metrics::Snapshot, more: &[MetricFamily]) -> Result<Text, ServiceError> {
    snapshot.volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let hidden = snapshot.volumes.len().saturating_sub(METRICS_VOLUMES_MAX);
    snapshot.volumes.truncate(METRICS_VOLUMES_MAX);
    let text = metrics::render(snapshot, hidden, more)
        .map_err(|error| ServiceError::new(ErrorCode::Internal, format!("the metrics cannot be shown: {error}")))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

fn ok() -> Status {
    Status { status: "ok".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}
