//! The REST API under `/v1`, its OpenAPI document, and `GET /metrics`.
//!
//! Routes and document come from the same annotations, so neither can tell more than the other. A request has an id, a
//! time and a length that it may take; a change is run to its end even when its client has gone.

mod access;
mod answer;
mod audit;
mod caller;
mod classes;
mod document;
mod dry_run;
mod guard;
mod images;
mod invoices;
mod mirrors;
mod once;
mod operations;
mod paging;
mod rate_cards;
mod scrub;
mod snapshots;
mod status;
mod targets;
mod tenants;
mod tokens;
mod usage;
mod versions;
mod volumes;

use crate::error::{ErrorCode, Problem, ServiceError};
use crate::journals::Journals;
use crate::metrics::RequestMetrics;
use crate::rate::Rate;
use crate::service::Service;
use crate::trial::DryRun;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Uri;
use axum::http::header;
use axum::routing::get;
use document::Queries;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
pub use tokens::BOOTSTRAP;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Most bytes of a request's body.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// What an API can be told.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Longest time of a request.
    pub request_duration_max: Duration,
    /// Whether requests may name any host. If not, they must name an address or `localhost`: a web page that rebinds its own
    /// name to this address must not reach it.
    pub is_any_host_answered: bool,
    /// Whether everybody may do everything, without a token.
    pub is_authentication_off: bool,
    /// Requests of a token in a second, ten times as many at once; any number without.
    pub requests_per_second: Option<NonZeroU32>,
    /// Requests without a good token that are answered in a second to an address, ten times as many at once; any number without.
    pub refusals_per_second: Option<NonZeroU32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            request_duration_max: Duration::from_secs(30),
            is_any_host_answered: false,
            is_authentication_off: false,
            requests_per_second: NonZeroU32::new(200),
            refusals_per_second: NonZeroU32::new(10),
        }
    }
}

/// What every handler sees.
#[derive(Clone)]
pub(crate) struct Context {
    service: Arc<dyn Service>,
    journals: Arc<Journals>,
    requests: RequestMetrics,
    request_rate: Arc<Rate>,
    refusal_rate: Arc<Rate>,
    queries: Arc<Queries>,
    options: Options,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Aljibe",
        description = "Thin volumes on a log: create, resize, snapshot, clone and delete them, and look at the pool."
    ),
    components(schemas(DryRun, Problem))
)]
struct Document;

/// Makes the API over `service`; changes leave their trace in `journals`.
///
/// # Errors
/// When a metric or the OpenAPI document cannot be made, which is our own mistake.
pub fn router(
    service: Arc<dyn Service>,
    journals: Arc<Journals>,
    options: Options,
) -> Result<Router, Box<dyn std::error::Error + Send + Sync>> {
    let request_rate = Arc::new(Rate::new(options.requests_per_second));
    let refusal_rate = Arc::new(Rate::new(options.refusals_per_second));
    let requests = RequestMetrics::new()?;
    let (router, document) = documented_routes().split_for_parts();
    let document = document::finished(&document, options.is_authentication_off)?;
    let queries = Arc::new(document::queries(&document)?);
    let context = Context { service, journals, requests, request_rate, refusal_rate, queries, options };
    let document = move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    Ok(router
        .route("/v1/openapi.json", get(document))
        .fallback(route_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(context.clone(), guard::watch))
        .with_state(context))
}

fn documented_routes() -> OpenApiRouter<Context> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(volumes::list, volumes::create))
        .routes(routes!(volumes::show, volumes::delete))
        .routes(routes!(volumes::resize))
        .routes(routes!(images::list, images::import))
        .routes(routes!(images::show, images::delete))
        .routes(routes!(images::mark))
        .routes(routes!(images::seal))
        .routes(routes!(volumes::rollback))
        .routes(routes!(volumes::history))
        .routes(routes!(volumes::qos))
        .routes(routes!(volumes::clone))
        .routes(routes!(snapshots::list, snapshots::create))
        .routes(routes!(snapshots::show, snapshots::delete))
        .routes(routes!(snapshots::clone))
        .routes(routes!(snapshots::diff))
        .routes(routes!(snapshots::reclaim))
        .routes(routes!(images::share))
        .routes(routes!(tenants::list, tenants::create))
        .routes(routes!(tenants::show, tenants::delete))
        .routes(routes!(tenants::quota))
        .routes(routes!(tenants::qos))
        .routes(routes!(tenants::access))
        .routes(routes!(tenants::suspend))
        .routes(routes!(tenants::resume))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(audit::list))
        .routes(routes!(operations::list))
        .routes(routes!(operations::show))
        .routes(routes!(operations::cancel))
        .routes(routes!(classes::list, classes::create))
        .routes(routes!(classes::show, classes::set, classes::delete))
        .routes(routes!(classes::set_of_volume))
        .routes(routes!(mirrors::list))
        .routes(routes!(mirrors::show, mirrors::begin, mirrors::end))
        .routes(routes!(mirrors::move_primary))
        .routes(routes!(mirrors::fail_over))
        .routes(routes!(targets::list, targets::create))
        .routes(routes!(targets::show, targets::delete))
        .routes(routes!(targets::map))
        .routes(routes!(targets::map_as, targets::unmap))
        .routes(routes!(targets::allow, targets::deny))
        .routes(routes!(rate_cards::list, rate_cards::add))
        .routes(routes!(rate_cards::show, rate_cards::withdraw))
        .routes(routes!(rate_cards::billing, rate_cards::set_billing))
        .routes(routes!(invoices::list))
        .routes(routes!(invoices::show))
        .routes(routes!(invoices::issue))
        .routes(routes!(invoices::correct))
        .routes(routes!(invoices::budget, invoices::set_budget, invoices::delete_budget))
        .routes(routes!(usage::show))
        .routes(routes!(usage::readings))
        .routes(routes!(usage::bundle))
        .routes(routes!(usage::key))
        .routes(routes!(usage::heads))
        .routes(routes!(status::pool))
        .routes(routes!(scrub::show, scrub::begin))
        .routes(routes!(status::health))
        .routes(routes!(status::ready))
        .routes(routes!(status::metrics))
        .routes(routes!(tenants::metrics))
        .routes(routes!(versions::list))
}

async fn route_not_found(uri: Uri) -> ServiceError {
    let detail = format!("{:?} is not a path of this API: see /v1/openapi.json", uri.path());
    ServiceError::new(ErrorCode::RouteNotFound, detail)
}

async fn method_not_allowed(uri: Uri) -> ServiceError {
    let detail = format!("{:?} has no such method: see /v1/openapi.json", uri.path());
    ServiceError::new(ErrorCode::MethodNotAllowed, detail)
}
