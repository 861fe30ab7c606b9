//! `/v1/snapshots`.

use super::Context;
use super::answer::{Body, Made, Named, Parameters, is_set, made};
use super::caller::{Caller, Meant};
use super::paging::{Asked, PageParameters};
use crate::diff::SnapshotDiff;
use crate::error::{Problem, ServiceError};
use crate::model::{CloneSnapshot, CreateSnapshots, ReclaimSnapshots, Reclaimed, Snapshot, SnapshotList, Volume};
use crate::name::{ExportName, Name, SnapshotName, VolumeName};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;

/// Lists every snapshot, or those of one volume: of the caller's tenant, where it has one.
#[utoipa::path(get, path = "/v1/snapshots",
    params(
        ("volume" = Option<String>, Query, description = "The volume"),
        ("tenant" = Option<String>, Query, description = "Those of this tenant"),
        ("space" = Option<bool>, Query, description = "Tell what each alone holds, too: the longer, the more has changed"),
        PageParameters,
    ), responses(
    (status = 200, body = SnapshotList),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found"),
))]
pub(super) async fn list(
    State(context): State<Context>,
    caller: Caller,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<SnapshotList>, ServiceError> {
    let tenant = caller.listed(parameters.tenant.as_deref())?;
    let volume = parameters.volume.map(|name| VolumeName::meant(&caller, &name)).transpose()?;
    let with_space = is_set("space", parameters.space.as_deref())?;
    let asked = Asked::by(parameters.limit, parameters.cursor)?;
    let mut snapshots = context.service.list_snapshots((volume, tenant), with_space, asked.page()).await?;
    let next_cursor = asked.cut(&mut snapshots, Snapshot::place);
    Ok(Json(SnapshotList { snapshots, next_cursor }))
}

/// Takes snapshots of one or more volumes at one point, while they are served: all of them or none.
#[utoipa::path(post, path = "/v1/snapshots", request_body = CreateSnapshots, responses(
    (status = 201, body = SnapshotList, description = "Taken, in the order asked for"),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found"),
    (status = 409, body = Problem, description = "snapshot_exists, volume_quarantined, tenant_suspended, quota_exceeded"),
    (status = 507, body = Problem, description = "no_space"),
))]
pub(super) async fn create(
    State(context): State<Context>,
    caller: Caller,
    Body(wanted): Body<CreateSnapshots>,
) -> Result<(StatusCode, Json<SnapshotList>), ServiceError> {
    let names = meant(&caller, &wanted.snapshots)?;
    let group: Option<Name> = wanted.group.map(|name| name.parse()).transpose()?;
    let (service, target) = (Arc::clone(&context.service), joined(&names));
    let change = async move { service.create_snapshots(names, group).await };
    let snapshots = context.change(&caller, ("snapshot.create", target), change).await?;
    Ok((StatusCode::CREATED, Json(SnapshotList { snapshots, next_cursor: None })))
}

/// Shows a snapshot. What it alone holds is counted first: this request has no limit of time.
#[utoipa::path(get, path = "/v1/snapshots/{name}",
    params(("name" = String, Path, description = "The snapshot, VOLUME@NAME")), responses(
    (status = 200, body = Snapshot),
    (status = 404, body = Problem, description = "volume_not_found, snapshot_not_found"),
))]
pub(super) async fn show(
    State(context): State<Context>,
    Named(name): Named<SnapshotName>,
) -> Result<Json<Snapshot>, ServiceError> {
    Ok(Json(context.service.show_snapshot(name).await?))
}

/// Tells what a later snapshot, or the volume now, has that a snapshot has not: a part of it, by offset. What was written
/// meanwhile with the same content differs, too.
#[utoipa::path(get, path = "/v1/snapshots/{name}/diff",
    params(
        ("name" = String, Path, description = "The snapshot, VOLUME@NAME"),
        ("to" = Option<String>, Query, description = "The later snapshot, VOLUME@NAME; or a volume as it is now: that of \
            the snapshot unless it is given"),
        ("from" = Option<u64>, Query, description = "Where to begin: the next_offset of the part before"),
    ), responses(
    (status = 200, body = SnapshotDiff),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found, snapshot_not_found"),
    (status = 409, body = Problem, description = "snapshots_unrelated, volume_quarantined"),
))]
pub(super) async fn diff(
    State(context): State<Context>,
    caller: Caller,
    Named(since): Named<SnapshotName>,
    Parameters(parameters): Parameters<DiffParameters>,
) -> Result<Json<SnapshotDiff>, ServiceError> {
    let to = match parameters.to {
        Some(to) => caller.export(&to)?,
        None => ExportName::Volume(since.volume().clone()),
    };
    Ok(Json(context.service.diff_snapshot(since, to, parameters.from.unwrap_or(0)).await?))
}

/// Deletes a snapshot: it is gone when this is answered, what it alone held is given back behind that. Refused while a
/// volume that began as it is there.
#[utoipa::path(delete, path = "/v1/snapshots/{name}",
    params(("name" = String, Path, description = "The snapshot, VOLUME@NAME")), responses(
    (status = 204, description = "Gone"),
    (status = 404, body = Problem, description = "volume_not_found, snapshot_not_found"),
    (status = 409, body = Problem, description = "snapshot_in_use, may_be_needed"),
))]
pub(super) async fn delete(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<SnapshotName>,
) -> Result<StatusCode, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.delete_snapshot(name).await };
    context.change(&caller, ("snapshot.delete", target), change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a volume that begins as a snapshot. Nothing is copied: it takes room as it is written.
#[utoipa::path(post, path = "/v1/snapshots/{name}/clone", request_body = CloneSnapshot,
    params(("name" = String, Path, description = "The snapshot, VOLUME@NAME")), responses(
    (status = 201, body = Volume, description = "Made", headers(("location" = String, description = "Its path"))),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found, snapshot_not_found"),
    (status = 409, body = Problem, description = "volume_exists, volume_quarantined, tenant_suspended, quota_exceeded"),
))]
pub(super) async fn clone(
    State(context): State<Context>,
    caller: Caller,
    Named(snapshot): Named<SnapshotName>,
    Body(wanted): Body<CloneSnapshot>,
) -> Result<Made, ServiceError> {
    let name = caller.new_name(&wanted.name)?;
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.clone_snapshot(snapshot, name).await };
    let volume = context.change(&caller, ("volume.clone", target), change).await?;
    Ok(made(volume))
}

/// Tells what the deletion of snapshots would give back. Deletes nothing. The answer comes when all of it is counted: this
/// request has no limit of time.
#[utoipa::path(post, path = "/v1/snapshots/reclaim", request_body = ReclaimSnapshots, responses(
    (status = 200, body = Reclaimed),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found, snapshot_not_found"),
))]
pub(super) async fn reclaim(
    State(context): State<Context>,
    caller: Caller,
    Body(wanted): Body<ReclaimSnapshots>,
) -> Result<Json<Reclaimed>, ServiceError> {
    let names = meant(&caller, &wanted.snapshots)?;
    let reclaim_bytes = context.service.reclaim_snapshots(names).await?;
    Ok(Json(Reclaimed { snapshots: wanted.snapshots, reclaim_bytes }))
}

/// The names of snapshots that are taken at once.
fn joined(names: &[SnapshotName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn meant(caller: &Caller, names: &[String]) -> Result<Vec<SnapshotName>, ServiceError> {
    names.iter().map(|name| SnapshotName::meant(caller, name)).collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffParameters {
    /// What the snapshot is compared with.
    to: Option<String>,
    /// Where to begin.
    from: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParameters {
    /// The volume whose snapshots are meant.
    volume: Option<String>,
    /// The tenant whose snapshots are meant.
    tenant: Option<String>,
    /// Whether to tell what each alone holds: `?space` or `?space=true`.
    space: Option<String>,
    /// At most so many.
    limit: Option<String>,
    /// The part before.
    cursor: Option<String>,
}
