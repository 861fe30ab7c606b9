//! `/v1/volumes`.

use super::Context;
use super::answer::{Body, ListParameters, Made, Named, Parameters, is_set, made};
use super::caller::Caller;
use super::paging::{Asked, PageParameters};
use crate::error::{Problem, ServiceError};
use crate::model::{
    CloneMoment, CreateVolume, KeepHistory, ResizeVolume, RollbackVolume, RolledBack, SetQos, Volume, VolumeList,
};
use crate::name::{MomentName, Name, SnapshotName, VolumeName};
use crate::page::Place;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;

/// Lists every volume: of the caller's tenant, where it has one.
#[utoipa::path(get, path = "/v1/volumes",
    params(("tenant" = Option<String>, Query, description = "Those of this tenant"), PageParameters), responses(
    (status = 200, body = VolumeList),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn list(
    State(context): State<Context>,
    caller: Caller,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<VolumeList>, ServiceError> {
    let asked = Asked::by(parameters.limit, parameters.cursor)?;
    let tenant = caller.listed(parameters.tenant.as_deref())?;
    let mut volumes = context.service.list_volumes(tenant, asked.page()).await?;
    let next_cursor = asked.cut(&mut volumes, |volume| Place::named(&volume.name));
    Ok(Json(VolumeList { volumes, next_cursor }))
}

/// Makes a volume, empty or as an image. It is thin: it takes room as it is written.
#[utoipa::path(post, path = "/v1/volumes", request_body = CreateVolume, responses(
    (status = 201, body = Volume, description = "Made", headers(("location" = String, description = "Its path"))),
    (status = 400, body = Problem, description = "invalid_name, invalid_size, invalid_request"),
    (status = 404, body = Problem, description = "image_not_found, tenant_not_found, class_not_found"),
    (status = 409, body = Problem, description = "volume_exists, image_importing, tenant_suspended, quota_exceeded"),
    (status = 507, body = Problem, description = "no_space"),
))]
pub(super) async fn create(
    State(context): State<Context>,
    caller: Caller,
    Body(wanted): Body<CreateVolume>,
) -> Result<Made, ServiceError> {
    let name = caller.new_name(&wanted.name)?;
    let history = wanted.history.unwrap_or_default();
    let class: Option<Name> = wanted.class.as_deref().map(str::parse).transpose()?;
    let volume = if let Some(image) = &wanted.image {
        let (images, size) = (Caller::images(&name, image)?, wanted.requested_image_size()?);
        let (service, made_name) = (Arc::clone(&context.service), name.clone());
        let is_trial = caller.is_trial;
        let making = async move {
            let volume = service.clone_image(images, name.clone(), size, class).await?;
            // What is not made cannot be asked to keep its past.
            if history == KeepHistory::default() || is_trial {
                return Ok(volume);
            }
            service.keep_history(name, history).await
        };
        context.change(&caller, ("volume.create", made_name), making).await?
    } else {
        let size = wanted.requested_size()?;
        let (service, target) = (Arc::clone(&context.service), name.clone());
        let making = async move { service.create_volume(name, size, history, class).await };
        context.change(&caller, ("volume.create", target), making).await?
    };
    Ok(made(volume))
}

/// Shows a volume.
#[utoipa::path(get, path = "/v1/volumes/{name}", params(("name" = String, Path, description = "The volume")), responses(
    (status = 200, body = Volume),
    (status = 404, body = Problem, description = "volume_not_found"),
))]
pub(super) async fn show(
    State(context): State<Context>,
    Named(name): Named<VolumeName>,
) -> Result<Json<Volume>, ServiceError> {
    Ok(Json(context.service.show_volume(name).await?))
}

/// Changes a volume's size while it serves. A smaller one is refused when data lies beyond it, unless `discard_tail`.
#[utoipa::path(post, path = "/v1/volumes/{name}/resize", request_body = ResizeVolume,
    params(("name" = String, Path, description = "The volume")), responses(
    (status = 200, body = Volume),
    (status = 400, body = Problem, description = "invalid_size, invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found"),
    (status = 409, body = Problem, description = "shrink_refused, volume_quarantined, tenant_suspended, quota_exceeded"),
))]
pub(super) async fn resize(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<VolumeName>,
    Body(wanted): Body<ResizeVolume>,
) -> Result<Json<Volume>, ServiceError> {
    let size = wanted.requested_size()?;
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.resize_volume(name, size, wanted.discard_tail).await };
    Ok(Json(context.change(&caller, ("volume.resize", target), change).await?))
}

/// Says for how long a volume's past is to be kept, so that clones of it can be made as it was at any second. The oldest goes
/// first: when it is too old, holds too much, or space runs short.
#[utoipa::path(post, path = "/v1/volumes/{name}/history", request_body = KeepHistory,
    params(("name" = String, Path, description = "The volume")), responses(
    (status = 200, body = Volume),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found"),
    (status = 409, body = Problem, description = "volume_quarantined"),
))]
pub(super) async fn history(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<VolumeName>,
    Body(wanted): Body<KeepHistory>,
) -> Result<Json<Volume>, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.keep_history(name, wanted).await };
    Ok(Json(context.change(&caller, ("volume.history", target), change).await?))
}

/// Says what may be asked of a volume in a second, while it serves: requests beyond that wait, and none fails for it. Credits
/// for what was not asked for are saved, up to the burst, also over a restart; a change forgives what is owed.
#[utoipa::path(post, path = "/v1/volumes/{name}/qos", request_body = SetQos,
    params(("name" = String, Path, description = "The volume")), responses(
    (status = 200, body = Volume),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found"),
    (status = 409, body = Problem, description = "volume_quarantined"),
))]
pub(super) async fn qos(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<VolumeName>,
    Body(wanted): Body<SetQos>,
) -> Result<Json<Volume>, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.set_qos(name, wanted).await };
    Ok(Json(context.change(&caller, ("volume.qos", target), change).await?))
}

/// Makes a volume that begins as this one was at the beginning of a second: with all that had been answered before, and
/// nothing that was asked for later. What was written since the last base before it is copied, and the answer comes when all
/// of it is there: this request has no limit of time.
#[utoipa::path(post, path = "/v1/volumes/{name}/clone", request_body = CloneMoment,
    params(("name" = String, Path, description = "The volume")), responses(
    (status = 201, body = Volume, description = "Made", headers(("location" = String, description = "Its path"))),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found, history_not_found, tenant_not_found"),
    (status = 409, body = Problem, description = "volume_exists, volume_quarantined, tenant_suspended, quota_exceeded"),
    (status = 507, body = Problem, description = "no_space"),
))]
pub(super) async fn clone(
    State(context): State<Context>,
    caller: Caller,
    Named(volume): Named<VolumeName>,
    Body(wanted): Body<CloneMoment>,
) -> Result<Made, ServiceError> {
    let name = caller.new_name(&wanted.name)?;
    let moment = MomentName::new(volume, wanted.at.parse()?);
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.clone_moment(moment, name).await };
    let volume = context.change(&caller, ("volume.clone", target), change).await?;
    Ok(made(volume))
}

/// Makes a volume what it was at one of its snapshots, after a snapshot of what it is now. Refused while clients are
/// attached, unless `force`. The answer comes when that is done: this request has no limit of time.
#[utoipa::path(post, path = "/v1/volumes/{name}/rollback", request_body = RollbackVolume,
    params(("name" = String, Path, description = "The volume")), responses(
    (status = 200, body = RolledBack),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found, snapshot_not_found"),
    (status = 409, body = Problem, description = "volume_in_use, volume_quarantined, tenant_suspended, quota_exceeded"),
))]
pub(super) async fn rollback(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<VolumeName>,
    Body(wanted): Body<RollbackVolume>,
) -> Result<Json<RolledBack>, ServiceError> {
    let snapshot = SnapshotName::new(name, wanted.snapshot.parse()?);
    let (service, target) = (Arc::clone(&context.service), snapshot.clone());
    let change = async move { service.rollback_volume(snapshot, wanted.force).await };
    Ok(Json(context.change(&caller, ("volume.rollback", target), change).await?))
}

/// Deletes a volume, its snapshots and all its data; what clones of it need is kept for them. Refused while clients are attached, unless `force`.
#[utoipa::path(delete, path = "/v1/volumes/{name}",
    params(
        ("name" = String, Path, description = "The volume"),
        ("force" = Option<bool>, Query, description = "Cut attached clients off first"),
    ), responses(
    (status = 204, description = "Gone"),
    (status = 404, body = Problem, description = "volume_not_found"),
    (status = 409, body = Problem, description = "volume_in_use, snapshot_in_use, may_be_needed"),
))]
pub(super) async fn delete(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<VolumeName>,
    Parameters(parameters): Parameters<DeleteParameters>,
) -> Result<StatusCode, ServiceError> {
    let is_forced = is_set("force", parameters.force.as_deref())?;
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.delete_volume(name, is_forced).await };
    context.change(&caller, ("volume.delete", target), change).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteParameters {
    /// Cut attached clients off first: `?force` or `?force=true`.
    force: Option<String>,
}
