//! What a tenant used, its part of the ledger, and what checks that.

use super::Context;
use super::answer::{Named, Parameters};
use crate::billing::{Desk, LedgerHeadList, LedgerKey, UsageReport};
use crate::books::Pieces;
use crate::error::{ErrorCode, Problem, ServiceError};
use crate::name::Name;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use metering::Reading;
use metering::ledger::Books;
use serde::Deserialize;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use tokio::sync::mpsc;

/// JSON values, one a line.
const LINES: &str = "application/x-ndjson";

/// Readings that are written together.
const READINGS_PER_PIECE: usize = 512;

/// Which month.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MonthParameters {
    month: String,
}

/// Which month, and which books of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BundleParameters {
    month: String,
    books: Option<String>,
}

/// Shows what a tenant used in a month, or has used so far, by volume, class and dimension.
#[utoipa::path(get, path = "/v1/tenants/{name}/usage", params(
        ("name" = String, Path, description = "The tenant"),
        ("month" = String, Query, description = "The month, as 2026-11, in the tenant's time zone"),
    ), responses(
    (status = 200, body = UsageReport),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn show(
    State(context): State<Context>,
    Named(name): Named<Name>,
    Parameters(parameters): Parameters<MonthParameters>,
) -> Result<Json<UsageReport>, ServiceError> {
    Ok(Json(Desk::of(&context.service).usage(&name, &parameters.month).await?))
}

/// Gives the readings that a month's bill is made of, one a line: what the ledger has, and, while the month goes on, what the
/// registers say now. Of those within an hour only the ones that the bill needs; all are in the bundle, with their proof.
#[utoipa::path(get, path = "/v1/tenants/{name}/readings", params(
        ("name" = String, Path, description = "The tenant"),
        ("month" = String, Query, description = "The month, as 2026-11, in the tenant's time zone"),
    ), responses(
    (status = 200, content_type = "application/x-ndjson", body = String),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
    (status = 409, body = Problem, description = "not_rated"),
))]
pub(super) async fn readings(
    State(context): State<Context>,
    Named(name): Named<Name>,
    Parameters(parameters): Parameters<MonthParameters>,
) -> Result<Response, ServiceError> {
    let readings = Desk::of(&context.service).readings(&name, &parameters.month).await?;
    let (out, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        for part in readings.chunks(READINGS_PER_PIECE) {
            // Whoever wanted them may have gone.
            if out.send(lines(part)).await.is_err() {
                return;
            }
        }
    });
    streamed(pieces).await
}

fn lines(readings: &[Reading]) -> Result<Vec<u8>, ServiceError> {
    let mut lines = Vec::new();
    for reading in readings {
        let failed = |_| ServiceError::new(ErrorCode::Internal, "a reading cannot be written");
        serde_json::to_writer(&mut lines, reading).map_err(failed)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Gives a tenant its part of the ledger of a month: readings, cards, invoices, and the signed heads by which all of it is checked
/// without this service. Days that are not signed yet are not in it.
#[utoipa::path(get, path = "/v1/tenants/{name}/bundle", params(
        ("name" = String, Path, description = "The tenant"),
        ("month" = String, Query, description = "The month, as 2026-11, in the tenant's time zone"),
        ("books" = Option<String>, Query, description = "both, or account: without readings, for a time of which they were dropped"),
    ), responses(
    (status = 200, content_type = "application/x-ndjson", body = String),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found, not_signed"),
))]
pub(super) async fn bundle(
    State(context): State<Context>,
    Named(name): Named<Name>,
    Parameters(parameters): Parameters<BundleParameters>,
) -> Result<Response, ServiceError> {
    let books = match parameters.books.as_deref() {
        None | Some("both") => Books::Both,
        Some("account") => Books::Account,
        Some(other) => {
            let detail = format!("books {other:?} are neither both nor account");
            return Err(ServiceError::new(ErrorCode::InvalidRequest, detail));
        }
    };
    streamed(Desk::of(&context.service).bundle(&name, &parameters.month, books).await?).await
}

/// Shows who signs the heads of the ledger.
#[utoipa::path(get, path = "/v1/ledger/key", responses((status = 200, body = LedgerKey)))]
pub(super) async fn key(State(context): State<Context>) -> Result<Json<LedgerKey>, ServiceError> {
    Ok(Json(Desk::of(&context.service).key().await?))
}

/// Lists the heads of the ledger, the newest first. Whoever keeps one can hold any bundle against it.
#[utoipa::path(get, path = "/v1/ledger/heads", responses((status = 200, body = LedgerHeadList)))]
pub(super) async fn heads(State(context): State<Context>) -> Result<Json<LedgerHeadList>, ServiceError> {
    Ok(Json(Desk::of(&context.service).heads().await?))
}

/// Lines that come piece by piece. What cannot be given at all is refused as anything else is.
async fn streamed(mut rest: Pieces) -> Result<Response, ServiceError> {
    let first = rest.recv().await.transpose()?;
    Ok(([(header::CONTENT_TYPE, LINES)], Body::new(Streamed { first, rest })).into_response())
}

/// A body that comes piece by piece; an error cuts it off, so that nobody takes it for whole.
struct Streamed {
    first: Option<Vec<u8>>,
    rest: Pieces,
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = ServiceError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ServiceError>>> {
        let piece = match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => self.rest.poll_recv(context),
        };
        piece.map(|piece| piece.map(|piece| piece.map(|bytes| Frame::data(Bytes::from(bytes)))))
    }
}
