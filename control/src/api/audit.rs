//! `/v1/audit`, and how changes come into the audit log.

use super::Context;
use super::answer::{Parameters, is_set};
use super::caller::Caller;
use super::guard::method_label;
use super::paging::{Asked, PageParameters};
use crate::audit::{AuditEntry, AuditList, Outcome};
use crate::error::{ErrorCode, Problem, ServiceError};
use crate::page::Place;
use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use jiff::Timestamp;
use serde::Deserialize;
use std::fmt::Display;
use std::sync::Arc;
use tracing::Instrument;

/// Lists changes, the newest first: of the caller's tenant, where it has one.
#[utoipa::path(get, path = "/v1/audit",
    params(
        ("tenant" = Option<String>, Query, description = "Changes by this tenant's tokens, or of what is its"),
        ("refused" = Option<bool>, Query, description = "Requests that were not let in, in place of changes"),
        ("before" = Option<u64>, Query, description = "Those with lower numbers"),
        PageParameters,
    ), responses(
    (status = 200, body = AuditList),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn list(
    State(context): State<Context>,
    caller: Caller,
    Parameters(parameters): Parameters<AuditParameters>,
) -> Result<Json<AuditList>, ServiceError> {
    let tenant = caller.listed(parameters.tenant.as_deref())?;
    let asked = Asked::by(parameters.limit, parameters.cursor)?;
    // The newest is first, so that what comes behind a number is below it.
    let behind = asked.after().map_or(u64::MAX, |place| place.number);
    let (before, count) = (parameters.before.unwrap_or(u64::MAX).min(behind), asked.limit() + 1);
    let audit = if is_set("refused", parameters.refused.as_deref())? {
        context.journals.refusals.flush().await;
        Arc::clone(&context.journals.refusals.log)
    } else {
        Arc::clone(&context.journals.audit)
    };
    // A tenant does not see what another one of its name did.
    let tenant = match tenant {
        Some(name) if caller.tenant.is_some() => {
            Some((name.clone(), context.service.show_tenant(name).await?.created_at))
        }
        name => name.map(|name| (name, None)),
    };
    let read = tokio::task::spawn_blocking(move || audit.read(tenant.as_ref(), before, count)).await;
    let mut entries = read.map_err(std::io::Error::other).and_then(|read| read).map_err(|error| {
        ServiceError::new(ErrorCode::Internal, format!("the audit log cannot be read: {error}: see the data directory"))
    })?;
    let next_cursor = asked.cut(&mut entries, |entry| Place::numbered(entry.number));
    Ok(Json(AuditList { entries, next_cursor }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditParameters {
    /// The tenant that is meant.
    tenant: Option<String>,
    /// Whether refusals are meant.
    refused: Option<String>,
    /// The number before which they are.
    before: Option<u64>,
    /// At most so many.
    limit: Option<String>,
    /// The part before.
    cursor: Option<String>,
}

impl Context {
    /// Runs a change to its end, whatever becomes of the client or of the request's time, with its trace in the audit log. What
    /// cannot be written there is not done.
    pub(super) async fn change<T: Send + Sync + 'static>(
        &self,
        caller: &Caller,
        (action, target): (&str, impl Display),
        change: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
    ) -> Result<T, ServiceError> {
        if caller.is_trial {
            return self.try_out(change).await;
        }
        let entry = AuditEntry {
            number: 0,
            at: Timestamp::now(),
            token: caller.token,
            role: Some(caller.role),
            tenant: caller.tenant.as_ref().map(ToString::to_string),
            action: action.to_owned(),
            target: target.to_string(),
            outcome: Outcome::Begun,
            code: None,
            times: None,
            request_id: caller.request_id.clone(),
        };
        let audit = Arc::clone(&self.journals.audit);
        let audited = async move {
            let begun = audit.begin(entry).await.map_err(|error| {
                let detail = format!("the audit log cannot be written: {error}: make room in the data directory");
                ServiceError::new(ErrorCode::Unavailable, detail)
            })?;
            let result = change.await;
            audit.end(begun, &result).await;
            result
        };
        tokio::spawn(audited.in_current_span()).await.unwrap_or_else(|failure| {
            tracing::error!(%failure, "change ended early");
            let detail = "the daemon failed on the way: see its log, and look what became of it";
            Err(ServiceError::new(ErrorCode::Internal, detail))
        })
    }
}

/// The entry of a request that is not let in; of others nothing.
pub(super) fn refusal(request: &Request, error: &ServiceError, who: Option<&Caller>, id: &str) -> Option<AuditEntry> {
    if !matches!(error.code, ErrorCode::Unauthenticated | ErrorCode::Forbidden) {
        return None;
    }
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let method = method_label(request.method());
    Some(AuditEntry {
        number: 0,
        at: Timestamp::now(),
        token: who.and_then(|caller| caller.token),
        role: who.map(|caller| caller.role),
        tenant: who.and_then(|caller| caller.tenant.as_ref().map(ToString::to_string)),
        action: format!("{method} {route}"),
        target: request.uri().path().chars().take(TARGET_LEN_MAX).collect(),
        outcome: Outcome::Refused,
        code: Some(error.code.as_str().to_owned()),
        times: None,
        request_id: id.to_owned(),
    })
}

/// Most characters that are kept of a path.
const TARGET_LEN_MAX: usize = 256;
