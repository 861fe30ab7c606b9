//! What surrounds every request: its id, its time, whom it may name, its count and log line, and problem bodies.

use super::Context;
use super::audit::refusal as refusal_entry;
use super::caller::{Caller, Refused, admit};
use super::dry_run;
use super::once::{key_of, once};
use crate::error::{ErrorCode, ServiceError};
use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tracing::Instrument;

/// Carries a request's id both ways.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Most characters of an id that a client may give.
const REQUEST_ID_LEN_MAX: usize = 64;

/// What takes as long as it takes: to copy what a log says, or to write back what a volume holds in memory alone and look
/// through what has changed; to have two sites agree, which has a limit of its own. A limit would leave in doubt what becomes of it.
const UNLIMITED_ROUTES: [&str; 7] = [
    "/v1/volumes/{name}/clone",
    "/v1/volumes/{name}/rollback",
    "/v1/volumes/{name}/mirror",
    "/v1/volumes/{name}/move",
    "/v1/volumes/{name}/failover",
    "/v1/snapshots/{name}",
    "/v1/snapshots/reclaim",
];

/// Watches over one request.
pub(super) async fn watch(State(context): State<Context>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("api", request_id = %id, method, path = request.uri().path());

    let response = answer(&context, request, next, &id).instrument(span.clone()).await;

    let status = response.status().as_u16();
    context.requests.count(method, &route, status, started.elapsed());
    let _entered = span.enter();
    tracing::debug!(status, duration_us = started.elapsed().as_micros(), "answered");
    finish(response, id)
}

async fn answer(context: &Context, mut request: Request, next: Next, id: &str) -> Response {
    if !context.options.is_any_host_answered
        && let Err(refusal) = check_host(&request)
    {
        return refusal.into_response();
    }
    let (caller, key) = match prepare(context, &mut request, id) {
        Ok(prepared) => prepared,
        Err((refusal, who)) => {
            if let Some(entry) = refusal_entry(&request, &refusal, who.as_ref(), id) {
                context.journals.refusals.note(entry).await;
            }
            return refusal.into_response();
        }
    };
    if request.extensions().get::<MatchedPath>().is_some_and(|route| UNLIMITED_ROUTES.contains(&route.as_str())) {
        return run(context, &caller, key, request, next).await;
    }
    let limit = context.options.request_duration_max;
    tokio::time::timeout(limit, run(context, &caller, key, request, next)).await.unwrap_or_else(|_| {
        let detail = format!("no answer within {limit:?}: a change may still be made, look before asking again");
        ServiceError::new(ErrorCode::Timeout, detail).into_response()
    })
}

/// Who asks, and by which key the request is to be carried out once.
fn prepare(context: &Context, request: &mut Request, id: &str) -> Result<(Caller, Option<String>), Refused> {
    let caller = admit(context, request, id)?;
    check_query(context, request).map_err(|error| (error, None))?;
    let caller = Caller { is_trial: dry_run::take(request).map_err(|error| (error, None))?, ..caller };
    request.extensions_mut().insert(caller.clone());
    let key = key_of(request).map_err(|error| (error, None))?;
    Ok((caller, key))
}

/// Refuses what no query of a route has, and what it has twice: one who mistypes `dry_run` does not want it done.
fn check_query(context: &Context, request: &Request) -> Result<(), ServiceError> {
    let Some(route) = request.extensions().get::<MatchedPath>() else { return Ok(()) };
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    let Some(known) = context.queries.get(&(method.to_string(), route.as_str().to_owned())) else { return Ok(()) };
    let refused = |detail: String| ServiceError::new(ErrorCode::InvalidRequest, detail);
    let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    let Query(members) = query.map_err(|rejection| refused(rejection.body_text()))?;
    let mut seen = BTreeSet::new();
    for (name, _) in &members {
        if !known.contains(name) {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            return Err(refused(format!("the query has {name:?}, and may have {known}")));
        }
        if !seen.insert(name) {
            return Err(refused(format!("the query has {name:?} twice")));
        }
    }
    Ok(())
}

async fn run(context: &Context, caller: &Caller, key: Option<String>, request: Request, next: Next) -> Response {
    if caller.is_trial {
        return dry_run::shown(context, next.run(request).await).await;
    }
    match key {
        Some(key) => once(&context.journals.answers, caller, key, request, next).await,
        None => next.run(request).await,
    }
}

/// Gives the answer its id, and an error its body.
fn finish(mut response: Response, id: String) -> Response {
    let id_header = HeaderValue::from_str(&id);
    if let Some(error) = response.extensions_mut().remove::<ServiceError>() {
        if response.status().is_server_error() {
            tracing::warn!(code = error.code.as_str(), detail = error.detail, "request failed");
        }
        response = problem_response(response, error, id);
    }
    if let Ok(value) = id_header {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn problem_response(response: Response, error: ServiceError, id: String) -> Response {
    let code = error.code;
    let body = serde_json::to_string(&error.into_problem(Some(id))).unwrap_or_default();
    let (mut head, _) = response.into_parts();
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    head.headers.remove(header::CONTENT_LENGTH);
    if code == ErrorCode::Unauthenticated {
        head.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if matches!(
        code,
        ErrorCode::Unavailable | ErrorCode::ShuttingDown | ErrorCode::RequestInProgress | ErrorCode::RateLimited
    ) {
        head.headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Response::from_parts(head, body.into())
}

/// The client's id for the request when it is a sane one, else one of ours.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_sane = |id: &&str| {
        (1..=REQUEST_ID_LEN_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    given.filter(is_sane).map_or_else(next_id, str::to_owned)
}

/// Unique within a run, and between runs by the time of the first one.
fn next_id() -> String {
    static RUN: OnceLock<u128> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let run = RUN.get_or_init(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros()));
    format!("{run:x}-{:x}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Any text can be a method, so only those of the API become labels.
pub(super) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn check_host(request: &Request) -> Result<(), ServiceError> {
    let named = request.headers().get(header::HOST).map(|value| value.to_str().unwrap_or("?"));
    let host = request.uri().authority().map(axum::http::uri::Authority::as_str).or(named);
    match host {
        Some(host) if !is_own_host(host) => {
            let detail = format!(
                "the request names host {host:?}: name the daemon by address or as localhost, or start it with \
                 --insecure-no-auth to answer to any name"
            );
            Err(ServiceError::new(ErrorCode::HostRefused, detail))
        }
        _ => Ok(()),
    }
}

/// Whether `host`, with or without a port, is an address or `localhost`.
fn is_own_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_own_hosts() {
        for host in ["127.0.0.1", "127.0.0.1:9440", "[::1]:9440", "[::1]", "localhost", "LOCALHOST:1"] {
            assert!(is_own_host(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:9440", "localhost.evil.example", "127.0.0.1.evil.example"] {
            assert!(!is_own_host(host), "{host}");
        }
    }
}
