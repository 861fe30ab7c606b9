//! How requests are taken apart and errors answered, so that every refusal is a problem document.

use super::caller::{Caller, Meant};
use crate::error::{ErrorCode, ServiceError};
use crate::model::Volume;
use crate::object::Object;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Json, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::Instrument;

/// The error travels beside an empty body; `super::guard::watch` writes the body, since it knows the request's id.
impl IntoResponse for ServiceError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// A request's body, read as a JSON object.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ServiceError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ServiceError> {
        let Json(Object(body)) = Json::from_request(request, state)
            .await
            .map_err(|rejection: JsonRejection| refused_body(rejection.status(), rejection.body_text()))?;
        Ok(Self(body))
    }
}

/// A request's query.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServiceError> {
        let refused = |rejection: QueryRejection| ServiceError::new(ErrorCode::InvalidRequest, rejection.body_text());
        let Query(query) = Query::from_request_parts(parts, state).await.map_err(refused)?;
        Ok(Self(query))
    }
}

/// What a list is to be of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParameters {
    /// The tenant whose things are meant.
    pub(super) tenant: Option<String>,
    /// At most so many.
    pub(super) limit: Option<String>,
    /// The part before.
    pub(super) cursor: Option<String>,
}

/// What a request's path names, as who asks means it.
pub(super) struct Named<N>(pub(super) N);

impl<N: Meant, S: Send + Sync> FromRequestParts<S> for Named<N> {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServiceError> {
        let refused = |rejection: PathRejection| ServiceError::new(ErrorCode::InvalidName, rejection.body_text());
        let Path(name): Path<String> = Path::from_request_parts(parts, state).await.map_err(refused)?;
        let caller = Caller::from_request_parts(parts, state).await?;
        Ok(Self(N::meant(&caller, &name)?))
    }
}

/// A volume that was made, and where it is.
pub(super) type Made = (StatusCode, [(HeaderName, String); 1], Json<Volume>);

/// Answers with a volume that was made.
pub(super) fn made(volume: Volume) -> Made {
    let location = format!("/v1/volumes/{}", volume.name.replace('/', "%2F"));
    (StatusCode::CREATED, [(header::LOCATION, location)], Json(volume))
}

/// Whether a parameter that is true or false is: `?name` alone says yes.
pub(super) fn is_set(name: &str, value: Option<&str>) -> Result<bool, ServiceError> {
    match value {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(other) => {
            let detail = format!("{name}={other:?} is neither true nor false");
            Err(ServiceError::new(ErrorCode::InvalidRequest, detail))
        }
    }
}

/// Runs a change to its end, whatever becomes of the client or of the request's time.
pub(super) async fn run_to_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
) -> Result<T, ServiceError> {
    tokio::spawn(change.in_current_span()).await.unwrap_or_else(|failure| {
        tracing::error!(%failure, "change ended early");
        Err(ServiceError::new(
            ErrorCode::Internal,
            "the daemon failed on the way: see its log, and look what became of it",
        ))
    })
}

/// A body that cannot be read.
pub(super) fn refused_body(status: StatusCode, reason: String) -> ServiceError {
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType,
        _ => ErrorCode::InvalidRequest,
    };
    if code == ErrorCode::UnsupportedMediaType {
        return ServiceError::new(code, "send the body with \"Content-Type: application/json\"");
    }
    ServiceError::new(code, reason)
}
