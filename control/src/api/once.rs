//! `Idempotency-Key`: a POST that is asked for again by the same key is answered what it was, and not carried out again.
//!
//! A success alone is kept: what was refused changed nothing, and is tried anew. The request runs to its end whatever becomes of
//! its client, and what it is answered is on stable storage before its client has it. A crash in between leaves a change without
//! a kept answer; asked again, it is carried out again, and finds what it had made by its name.

use super::BODY_BYTES_MAX;
use super::caller::Caller;
use crate::error::{ErrorCode, ServiceError};
use crate::kept::{ANSWER_BYTES_MAX, KeptAnswer, KeptAnswers, Known, Owner, UnderWay};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use std::sync::Arc;
use tracing::Instrument;

/// The header that bears the key.
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Says that an answer is one that was kept.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Most characters of a key.
const KEY_LEN_MAX: usize = 255;

/// Routes whose answers bear secrets, which are not written anywhere.
const SECRET_ROUTES: [&str; 1] = ["/v1/tokens"];

/// The key of a request that is to be carried out once.
pub(super) fn key_of(request: &Request) -> Result<Option<String>, ServiceError> {
    let Some(value) = request.headers().get(KEY).filter(|_| request.method() == Method::POST) else { return Ok(None) };
    let key = value
        .to_str()
        .ok()
        .filter(|key| (1..=KEY_LEN_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
    let refused = || {
        let detail = format!(
            "Idempotency-Key wants 1 to {KEY_LEN_MAX} printable ASCII characters without spaces, such as a UUID"
        );
        ServiceError::new(ErrorCode::InvalidRequest, detail)
    };
    key.map(|key| Some(key.to_owned())).ok_or_else(refused)
}

/// Carries a request out, or tells what became of it.
pub(super) async fn once(
    answers: &Arc<KeptAnswers>,
    caller: &Caller,
    key: String,
    request: Request,
    next: Next,
) -> Response {
    let (head, body) = request.into_parts();
    let body = match read(body, BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(refusal) => return refusal.into_response(),
    };
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let owner = Owner { token: caller.token, tenant: caller.tenant.as_ref().map(ToString::to_string) };
    let route = head.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let is_secret = SECRET_ROUTES.contains(&route);
    let under_way = match answers.begin(owner, key, &[target.as_bytes(), &body]) {
        Known::New(under_way) => under_way,
        Known::Answered(answer) => return again(answer),
        Known::UnderWay => {
            let detail = "the same request is being carried out: ask again, by the same key, until it is answered";
            return ServiceError::new(ErrorCode::RequestInProgress, detail).into_response();
        }
        Known::Other => {
            let detail = "another request has borne this Idempotency-Key: give each request one of its own";
            return ServiceError::new(ErrorCode::IdempotencyKeyReused, detail).into_response();
        }
    };
    let request = Request::from_parts(head, Body::from(body));
    let running = async move { keep(under_way, is_secret, next.run(request).await).await };
    tokio::spawn(running.in_current_span()).await.unwrap_or_else(|failure| {
        tracing::error!(%failure, "a request ended early");
        let detail = "the daemon failed on the way: see its log, and look what became of it";
        ServiceError::new(ErrorCode::Internal, detail).into_response()
    })
}

/// Keeps an answer where it is a success.
async fn keep(under_way: UnderWay, is_secret: bool, response: Response) -> Response {
    if !response.status().is_success() {
        return response;
    }
    let (head, body) = response.into_parts();
    let body = match read(body, usize::MAX).await {
        Ok(body) => body,
        Err(refusal) => return refusal.into_response(),
    };
    let text = std::str::from_utf8(&body).ok().filter(|text| !is_secret && text.len() <= ANSWER_BYTES_MAX);
    let (status, location) = (head.status.as_u16(), location_of(&head.headers));
    under_way.answered(KeptAnswer { status, location, body: text.map(str::to_owned) }).await;
    Response::from_parts(head, Body::from(body))
}

fn again(answer: KeptAnswer) -> Response {
    let Some(body) = answer.body else {
        let made = answer.location.map(|location| format!(" and is at {location}")).unwrap_or_default();
        let detail =
            format!("it was done{made}, but its answer is not kept: look at it, or undo it and ask by a new key");
        return ServiceError::new(ErrorCode::AnswerNotKept, detail).into_response();
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if let Some(location) = answer.location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        headers.insert(header::LOCATION, location);
    }
    response
}

fn location_of(headers: &HeaderMap) -> Option<String> {
    headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

pub(super) async fn read(body: Body, bytes_max: usize) -> Result<Bytes, ServiceError> {
    to_bytes(body, bytes_max).await.map_err(|error| {
        let is_long = error.into_inner().is::<LengthLimitError>();
        let code = if is_long { ErrorCode::BodyTooLarge } else { ErrorCode::InvalidRequest };
        ServiceError::new(code, format!("the body cannot be read whole: send it, of at most {BODY_BYTES_MAX} bytes"))
    })
}
