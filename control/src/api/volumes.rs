//! `/v1/volumes`.

use super::Context;
use super::answer::{Body, Made, Named, Parameters, is_set, made, run_to_end};
use crate::error::{Problem, ServiceError};
use crate::model::{CreateVolume, ResizeVolume, RollbackVolume, RolledBack, Volume, VolumeList};
use crate::name::{SnapshotName, VolumeName};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

/// Lists every volume.
#[utoipa::path(get, path = "/v1/volumes", responses((status = 200, body = VolumeList)))]
pub(super) async fn list(State(context): State<Context>) -> Result<Json<VolumeList>, ServiceError> {
    let mut volumes = context.service.list_volumes().await?;
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(VolumeList { volumes }))
}

/// Makes a volume, empty or as an image. It is thin: it takes room as it is written.
#[utoipa::path(post, path = "/v1/volumes", request_body = CreateVolume, responses(
    (status = 201, body = Volume, description = "Made", headers(("location" = String, description = "Its path"))),
    (status = 400, body = Problem, description = "invalid_name, invalid_size, invalid_request"),
    (status = 404, body = Problem, description = "image_not_found"),
    (status = 409, body = Problem, description = "volume_exists, image_importing"),
    (status = 507, body = Problem, description = "no_space"),
))]
pub(super) async fn create(
    State(context): State<Context>,
    Body(wanted): Body<CreateVolume>,
) -> Result<Made, ServiceError> {
    let name: VolumeName = wanted.name.parse()?;
    let volume = if let Some(image) = &wanted.image {
        let (image, size): (VolumeName, _) = (image.parse()?, wanted.requested_image_size()?);
        run_to_end(async move { context.service.clone_image(image, name, size).await }).await?
    } else {
        let size = wanted.requested_size()?;
        run_to_end(async move { context.service.create_volume(name, size).await }).await?
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
    (status = 409, body = Problem, description = "shrink_refused, volume_quarantined"),
))]
pub(super) async fn resize(
    State(context): State<Context>,
    Named(name): Named<VolumeName>,
    Body(wanted): Body<ResizeVolume>,
) -> Result<Json<Volume>, ServiceError> {
    let size = wanted.requested_size()?;
    let change = async move { context.service.resize_volume(name, size, wanted.discard_tail).await };
    Ok(Json(run_to_end(change).await?))
}

/// Makes a volume what it was at one of its snapshots, after a snapshot of what it is now. Refused while clients are
/// attached, unless `force`.
#[utoipa::path(post, path = "/v1/volumes/{name}/rollback", request_body = RollbackVolume,
    params(("name" = String, Path, description = "The volume")), responses(
    (status = 200, body = RolledBack),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found, snapshot_not_found"),
    (status = 409, body = Problem, description = "volume_in_use, volume_quarantined"),
))]
pub(super) async fn rollback(
    State(context): State<Context>,
    Named(name): Named<VolumeName>,
    Body(wanted): Body<RollbackVolume>,
) -> Result<Json<RolledBack>, ServiceError> {
    let snapshot = SnapshotName::new(name, wanted.snapshot.parse()?);
    let change = async move { context.service.rollback_volume(snapshot, wanted.force).await };
    Ok(Json(run_to_end(change).await?))
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
    Named(name): Named<VolumeName>,
    Parameters(parameters): Parameters<DeleteParameters>,
) -> Result<StatusCode, ServiceError> {
    let is_forced = is_set("force", parameters.force.as_deref())?;
    run_to_end(async move { context.service.delete_volume(name, is_forced).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteParameters {
    /// Cut attached clients off first: `?force` or `?force=true`.
    pub(super) force: Option<String>,
}
