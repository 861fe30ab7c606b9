//! `/v1/mirrors`, and the mirror of a volume.

use super::Context;
use super::answer::{Body, ListParameters, Named, Parameters};
use super::caller::Caller;
use super::paging::{Asked, PageParameters};
use crate::error::{Problem, ServiceError};
use crate::mirror::{Mirror, MirrorList, ToSite};
use crate::name::VolumeName;
use crate::page::Place;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;

/// Lists every mirrored volume as it is at this site, without what was decided: of the caller's tenant, where it has one.
#[utoipa::path(get, path = "/v1/mirrors",
    params(("tenant" = Option<String>, Query, description = "Those of this tenant"), PageParameters), responses(
    (status = 200, body = MirrorList),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn list(
    State(context): State<Context>,
    caller: Caller,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<MirrorList>, ServiceError> {
    let asked = Asked::by(parameters.limit, parameters.cursor)?;
    let tenant = caller.listed(parameters.tenant.as_deref())?;
    let mut mirrors = context.service.list_mirrors(tenant, asked.page()).await?;
    mirrors.iter_mut().for_each(|mirror| mirror.evidence.clear());
    let next_cursor = asked.cut(&mut mirrors, |mirror| Place::named(&mirror.volume));
    Ok(Json(MirrorList { mirrors, next_cursor }))
}

/// Shows how a mirrored volume is at this site, and what the site decided lately and why.
#[utoipa::path(get, path = "/v1/volumes/{name}/mirror",
    params(("name" = String, Path, description = "The volume")), responses(
    (status = 200, body = Mirror),
    (status = 404, body = Problem, description = "volume_not_found, volume_not_mirrored"),
))]
pub(super) async fn show(
    State(context): State<Context>,
    Named(name): Named<VolumeName>,
) -> Result<Json<Mirror>, ServiceError> {
    Ok(Json(context.service.show_mirror(name).await?))
}

/// Has a volume mirrored to another site, of which this one is the first primary. It is in sync when all that was acknowledged
/// before is there, too.
#[utoipa::path(post, path = "/v1/volumes/{name}/mirror", request_body = ToSite,
    params(("name" = String, Path, description = "The volume")), responses(
    (status = 200, body = Mirror),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found"),
    (status = 409, body = Problem, description = "mirror_refused, volume_quarantined, tenant_suspended"),
))]
pub(super) async fn begin(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<VolumeName>,
    Body(wanted): Body<ToSite>,
) -> Result<Json<Mirror>, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.begin_mirror(name, wanted.to).await };
    Ok(Json(context.change(&caller, ("volume.mirror", target), change).await?))
}

/// Ends the mirroring of a volume at this site, which has it for itself from then on.
#[utoipa::path(delete, path = "/v1/volumes/{name}/mirror",
    params(("name" = String, Path, description = "The volume")), responses(
    (status = 204, description = "It is mirrored no more"),
    (status = 404, body = Problem, description = "volume_not_found, volume_not_mirrored"),
    (status = 409, body = Problem, description = "mirror_refused"),
))]
pub(super) async fn end(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<VolumeName>,
) -> Result<StatusCode, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.end_mirror(name).await };
    context.change(&caller, ("volume.unmirror", target), change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has a site be the primary of a volume from now on, without a write lost or refused.
#[utoipa::path(post, path = "/v1/volumes/{name}/move", request_body = ToSite,
    params(("name" = String, Path, description = "The volume")), responses(
    (status = 200, body = Mirror),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found, volume_not_mirrored"),
    (status = 409, body = Problem, description = "mirror_refused"),
))]
pub(super) async fn move_primary(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<VolumeName>,
    Body(wanted): Body<ToSite>,
) -> Result<Json<Mirror>, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.move_volume(name, wanted.to).await };
    Ok(Json(context.change(&caller, ("volume.move", target), change).await?))
}

/// Makes this site the primary of a volume by force. What the other site holds that this one does not is lost to the volume,
/// also where it was acknowledged.
#[utoipa::path(post, path = "/v1/volumes/{name}/failover",
    params(("name" = String, Path, description = "The volume")), responses(
    (status = 200, body = Mirror),
    (status = 404, body = Problem, description = "volume_not_found, volume_not_mirrored"),
    (status = 409, body = Problem, description = "mirror_refused"),
))]
pub(super) async fn fail_over(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<VolumeName>,
) -> Result<Json<Mirror>, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.fail_over(name).await };
    Ok(Json(context.change(&caller, ("volume.failover", target), change).await?))
}
