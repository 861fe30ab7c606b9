//! `/v1/images`.

use super::Context;
use super::answer::{Body, ListParameters, Named, Parameters, is_set, run_to_end};
use super::caller::{Caller, ImageName};
use super::paging::{Asked, PageParameters};
use crate::error::{ErrorCode, Problem, ServiceError};
use crate::image::{Image, ImageList, ImageSharing, ImportImage, MarkImage};
use crate::page::Place;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;

/// Lists every image, those that are being imported, too: of the caller's tenant and those that are shared with it, where it has one.
#[utoipa::path(get, path = "/v1/images",
    params(("tenant" = Option<String>, Query, description = "Those that this tenant has or may use"), PageParameters),
    responses(
    (status = 200, body = ImageList),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn list(
    State(context): State<Context>,
    caller: Caller,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<ImageList>, ServiceError> {
    let asked = Asked::by(parameters.limit, parameters.cursor)?;
    let tenant = caller.listed(parameters.tenant.as_deref())?;
    let mut images = context.service.list_images(tenant, asked.page()).await?;
    let next_cursor = asked.cut(&mut images, |image| Place::named(&image.name));
    let is_foreign = |image: &&mut Image| caller.tenant.as_ref().is_some_and(|own| own.as_str() != image.tenant);
    for image in images.iter_mut().filter(is_foreign) {
        // What it may make volumes of, and no more.
        (image.source, image.sharing, image.nbd_uris) = (String::new(), ImageSharing::default(), Vec::new());
    }
    Ok(Json(ImageList { images, next_cursor }))
}

/// Begins the import of an image, or goes on with one from the same source.
#[utoipa::path(post, path = "/v1/images", request_body = ImportImage, responses(
    (status = 200, body = Image, description = "To be written from copied_bytes on"),
    (status = 400, body = Problem, description = "invalid_name, invalid_size, invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
    (status = 409, body = Problem,
        description = "volume_exists, image_importing, volume_in_use, tenant_suspended, quota_exceeded"),
    (status = 507, body = Problem, description = "no_space"),
))]
pub(super) async fn import(
    State(context): State<Context>,
    caller: Caller,
    Body(wanted): Body<ImportImage>,
) -> Result<Json<Image>, ServiceError> {
    let name = caller.new_name(&wanted.name)?;
    let size = wanted.checked_size()?;
    let source = (wanted.source, wanted.source_state);
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.import_image(name, size, source).await };
    Ok(Json(context.change(&caller, ("image.import", target), change).await?))
}

/// Shows an image.
#[utoipa::path(get, path = "/v1/images/{name}", params(("name" = String, Path, description = "The image")), responses(
    (status = 200, body = Image),
    (status = 404, body = Problem, description = "image_not_found"),
))]
pub(super) async fn show(
    State(context): State<Context>,
    Named(ImageName(name)): Named<ImageName>,
) -> Result<Json<Image>, ServiceError> {
    Ok(Json(context.service.show_image(name).await?))
}

/// Notes how far an import is, so that it can go on from there.
#[utoipa::path(post, path = "/v1/images/{name}/mark", request_body = MarkImage,
    params(
        ("name" = String, Path, description = "The image"),
        ("claim" = Option<u64>, Query, description = "The import that is meant: refused when another one has begun since"),
    ), responses(
    (status = 200, body = Image),
    (status = 404, body = Problem, description = "image_not_found"),
    (status = 409, body = Problem, description = "volume_exists, image_importing, import_superseded"),
))]
pub(super) async fn mark(
    State(context): State<Context>,
    caller: Caller,
    Named(ImageName(name)): Named<ImageName>,
    Parameters(parameters): Parameters<ClaimParameters>,
    Body(wanted): Body<MarkImage>,
) -> Result<Json<Image>, ServiceError> {
    let copied_bytes = wanted.copied_bytes;
    let service = Arc::clone(&context.service);
    let change = async move { service.mark_image(name, parameters.claim, copied_bytes).await };
    Ok(Json(if caller.is_trial { context.try_out(change).await? } else { run_to_end(change).await? }))
}

/// Seals an image that is copied whole: from then on it is only read and cloned.
#[utoipa::path(post, path = "/v1/images/{name}/seal",
    params(
        ("name" = String, Path, description = "The image"),
        ("claim" = Option<u64>, Query, description = "The import that is meant: refused when another one has begun since"),
    ), responses(
    (status = 200, body = Image),
    (status = 404, body = Problem, description = "image_not_found"),
    (status = 409, body = Problem, description = "image_importing, import_superseded, volume_in_use"),
))]
pub(super) async fn seal(
    State(context): State<Context>,
    caller: Caller,
    Named(ImageName(name)): Named<ImageName>,
    Parameters(parameters): Parameters<ClaimParameters>,
) -> Result<Json<Image>, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.seal_image(name, parameters.claim).await };
    Ok(Json(context.change(&caller, ("image.seal", target), change).await?))
}

/// Says which tenants may make volumes of an image of the default one, in place of what was said before. Volumes that were made
/// of it stay.
#[utoipa::path(post, path = "/v1/images/{name}/share", request_body = ImageSharing,
    params(("name" = String, Path, description = "The image")), responses(
    (status = 200, body = Image),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "image_not_found, tenant_not_found"),
))]
pub(super) async fn share(
    State(context): State<Context>,
    caller: Caller,
    Named(ImageName(name)): Named<ImageName>,
    Body(wanted): Body<ImageSharing>,
) -> Result<Json<Image>, ServiceError> {
    if wanted.all && !wanted.tenants.is_empty() {
        let detail = "give \"all\" or \"tenants\", not both";
        return Err(ServiceError::new(ErrorCode::InvalidRequest, detail));
    }
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.share_image(name, wanted).await };
    Ok(Json(context.change(&caller, ("image.share", target), change).await?))
}

/// Deletes an image and its data. Refused while clients are attached, unless `force`.
#[utoipa::path(delete, path = "/v1/images/{name}",
    params(
        ("name" = String, Path, description = "The image"),
        ("force" = Option<bool>, Query, description = "Cut attached clients off first"),
        ("claim" = Option<u64>, Query, description = "The import that is meant: refused when another one has begun since"),
    ), responses(
    (status = 204, description = "Gone"),
    (status = 404, body = Problem, description = "image_not_found"),
    (status = 409, body = Problem, description = "volume_in_use, import_superseded"),
))]
pub(super) async fn delete(
    State(context): State<Context>,
    caller: Caller,
    Named(ImageName(name)): Named<ImageName>,
    Parameters(parameters): Parameters<DeleteParameters>,
) -> Result<StatusCode, ServiceError> {
    let is_forced = is_set("force", parameters.force.as_deref())?;
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.delete_image(name, parameters.claim, is_forced).await };
    context.change(&caller, ("image.delete", target), change).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimParameters {
    /// The import that is meant; whichever it is, without.
    claim: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteParameters {
    /// Cut attached clients off first: `?force` or `?force=true`.
    force: Option<String>,
    /// The import that is meant; whichever it is, without.
    claim: Option<u64>,
}
