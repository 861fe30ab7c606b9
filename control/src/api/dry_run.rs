//! `dry_run=true`: a change is checked as for real, answered as it would be, and not made.

use super::answer::is_set;
use super::{Context, once};
use crate::billing::Desk;
use crate::error::{ErrorCode, ServiceError};
use crate::model::Volume;
use crate::trial::DryRun;
use axum::Json;
use axum::extract::Request;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};

/// The parameter.
const PARAMETER: &str = "dry_run";

/// Takes the parameter off a request that changes something, and tells what it says.
pub(super) fn take(request: &mut Request) -> Result<bool, ServiceError> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(false);
    }
    let Some(query) = request.uri().query() else { return Ok(false) };
    let mut said = None;
    let others = query.split('&').filter(|pair| match pair.split_once('=').unwrap_or((pair, "")) {
        (PARAMETER, value) => {
            said = Some(value);
            false
        }
        _ => true,
    });
    let others = others.collect::<Vec<_>>().join("&");
    let is_trial = is_set(PARAMETER, said)?;
    if said.is_some() {
        let path = request.uri().path();
        let target = if others.is_empty() { path.to_owned() } else { format!("{path}?{others}") };
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = target.parse().ok();
        let refused = |_| ServiceError::new(ErrorCode::InvalidRequest, "the query cannot be read");
        *request.uri_mut() = Uri::from_parts(parts).map_err(refused)?;
    }
    Ok(is_trial)
}

/// What a change was answered that was not made, and what the volume costs that it is about.
pub(super) async fn shown(context: &Context, response: Response) -> Response {
    if !response.status().is_success() {
        return response;
    }
    let (head, body) = response.into_parts();
    let body = match once::read(body, usize::MAX).await {
        Ok(body) => body,
        Err(refusal) => return refusal.into_response(),
    };
    let answer = serde_json::from_slice(&body).ok();
    let price = match serde_json::from_slice::<Volume>(&body) {
        Ok(volume) => Desk::of(&context.service).price_of_change(&volume).await,
        Err(_) => Ok(None),
    };
    let price = price.unwrap_or_else(|error| {
        tracing::debug!(detail = error.detail, "a dry run does not tell a price");
        None
    });
    Json(DryRun { dry_run: true, status: head.status.as_u16(), answer, price }).into_response()
}

impl Context {
    /// Tells what would come of a change.
    pub(super) async fn try_out<T: Send>(
        &self,
        change: impl Future<Output = Result<T, ServiceError>> + Send,
    ) -> Result<T, ServiceError> {
        let mut result = None;
        self.service.in_trial(Box::pin(async { result = Some(change.await) })).await;
        result.unwrap_or_else(|| Err(ServiceError::new(ErrorCode::Internal, "the trial was not run: report this")))
    }
}
