//! `/versions`: which versions of the API there are.

use crate::model::{ApiVersion, Versions};
use axum::Json;

/// Tells which versions of the API the daemon speaks. Needs no token.
#[utoipa::path(get, path = "/versions", responses((status = 200, body = Versions)))]
pub(super) async fn list() -> Json<Versions> {
    let v1 = ApiVersion { version: "v1".to_owned(), path: "/v1".to_owned(), document: "/v1/openapi.json".to_owned() };
    Json(Versions { program: env!("CARGO_PKG_VERSION").to_owned(), versions: vec![v1] })
}
