//! `/v1/targets`: iSCSI targets, their volumes, and who may enter them.

use super::Context;
use super::answer::{Body, ListParameters, Named, Parameters, is_set};
use super::caller::{Caller, InitiatorOf, LunOf, Meant, TargetName};
use super::paging::{Asked, PageParameters};
use crate::error::{Problem, ServiceError};
use crate::name::VolumeName;
use crate::page::Place;
use crate::target::{AllowInitiator, CreateTarget, MapLun, MapVolume, Target, TargetList, TargetLun};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde::Deserialize;
use std::sync::Arc;

/// Lists every target: of the caller's tenant, where it has one.
#[utoipa::path(get, path = "/v1/targets",
    params(("tenant" = Option<String>, Query, description = "Those of this tenant"), PageParameters), responses(
    (status = 200, body = TargetList),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn list(
    State(context): State<Context>,
    caller: Caller,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<TargetList>, ServiceError> {
    let asked = Asked::by(parameters.limit, parameters.cursor)?;
    let tenant = caller.listed(parameters.tenant.as_deref())?;
    let mut targets = context.service.list_targets(tenant, asked.page()).await?;
    let next_cursor = asked.cut(&mut targets, |target| Place::named(&target.name));
    Ok(Json(TargetList { targets, next_cursor }))
}

/// Makes a target, without volumes and for nobody yet. The default target is not there any more once the
/// default tenant has one.
#[utoipa::path(post, path = "/v1/targets", request_body = CreateTarget, responses(
    (status = 201, body = Target, description = "Made", headers(("location" = String, description = "Its path"))),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
    (status = 409, body = Problem, description = "target_exists, tenant_suspended, quota_exceeded"),
))]
pub(super) async fn create(
    State(context): State<Context>,
    caller: Caller,
    Body(wanted): Body<CreateTarget>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Target>), ServiceError> {
    let name = caller.new_name(&wanted.name)?;
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.create_target(name).await };
    let location = format!("/v1/targets/{}", target.in_path());
    let made = context.change(&caller, ("target.create", target), change).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(made)))
}

/// Shows a target, with its volumes and who may enter it.
#[utoipa::path(get, path = "/v1/targets/{name}", params(("name" = String, Path, description = "The target")), responses(
    (status = 200, body = Target),
    (status = 404, body = Problem, description = "target_not_found"),
))]
pub(super) async fn show(
    State(context): State<Context>,
    Named(TargetName(name)): Named<TargetName>,
) -> Result<Json<Target>, ServiceError> {
    Ok(Json(context.service.show_target(name).await?))
}

/// Deletes a target. Its volumes stay. Refused while it has sessions, unless `force`, which ends them.
#[utoipa::path(delete, path = "/v1/targets/{name}",
    params(
        ("name" = String, Path, description = "The target"),
        ("force" = Option<bool>, Query, description = "End its sessions"),
    ), responses(
    (status = 204, description = "Gone"),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "target_not_found"),
    (status = 409, body = Problem, description = "target_in_use"),
))]
pub(super) async fn delete(
    State(context): State<Context>,
    caller: Caller,
    Named(TargetName(name)): Named<TargetName>,
    Parameters(parameters): Parameters<DeleteParameters>,
) -> Result<StatusCode, ServiceError> {
    let is_forced = is_set("force", parameters.force.as_deref())?;
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.delete_target(name, is_forced).await };
    context.change(&caller, ("target.delete", target), change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has a target show a volume, as the LUN that is told or the next one.
#[utoipa::path(post, path = "/v1/targets/{name}/luns", request_body = MapVolume,
    params(("name" = String, Path, description = "The target")), responses(
    (status = 201, body = TargetLun, description = "Shown", headers(("location" = String, description = "Its path"))),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "target_not_found, volume_not_found"),
    (status = 409, body = Problem, description = "lun_in_use, tenant_suspended"),
))]
pub(super) async fn map(
    State(context): State<Context>,
    caller: Caller,
    Named(TargetName(name)): Named<TargetName>,
    Body(wanted): Body<MapVolume>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<TargetLun>), ServiceError> {
    let volume = VolumeName::meant(&caller, &wanted.volume)?;
    let mapped = mapped(&context, &caller, name.clone(), (volume, wanted.lun)).await?;
    let location = format!("/v1/targets/{}/luns/{}", name.in_path(), mapped.lun);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(mapped)))
}

/// Has a target show a volume as this LUN; that of another volume is not taken from it.
#[utoipa::path(put, path = "/v1/targets/{name}/luns/{lun}", request_body = MapLun,
    params(
        ("name" = String, Path, description = "The target"),
        ("lun" = u16, Path, description = "The LUN"),
    ), responses(
    (status = 200, body = TargetLun),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "target_not_found, volume_not_found"),
    (status = 409, body = Problem, description = "lun_in_use, tenant_suspended"),
))]
pub(super) async fn map_as(
    State(context): State<Context>,
    caller: Caller,
    LunOf(name, lun): LunOf,
    Body(wanted): Body<MapLun>,
) -> Result<Json<TargetLun>, ServiceError> {
    let volume = VolumeName::meant(&caller, &wanted.volume)?;
    Ok(Json(mapped(&context, &caller, name, (volume, Some(lun))).await?))
}

async fn mapped(
    context: &Context,
    caller: &Caller,
    name: VolumeName,
    (volume, lun): (VolumeName, Option<u16>),
) -> Result<TargetLun, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), format!("{name} {volume}"));
    let change = async move { service.map_lun(name, volume, lun).await };
    context.change(caller, ("target.map", target), change).await
}

/// Has a target show this LUN no more. Its volume stays.
#[utoipa::path(delete, path = "/v1/targets/{name}/luns/{lun}",
    params(
        ("name" = String, Path, description = "The target"),
        ("lun" = u16, Path, description = "The LUN"),
    ), responses(
    (status = 204, description = "Gone"),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "target_not_found, lun_not_found"),
    (status = 409, body = Problem, description = "tenant_suspended"),
))]
pub(super) async fn unmap(
    State(context): State<Context>,
    caller: Caller,
    LunOf(name, lun): LunOf,
) -> Result<StatusCode, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), format!("{name} {lun}"));
    let change = async move { service.unmap_lun(name, lun).await };
    context.change(&caller, ("target.unmap", target), change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets an initiator enter a target, or any by `*`, in place of what was said of it before. Secrets are never shown again.
#[utoipa::path(put, path = "/v1/targets/{name}/initiators/{initiator}", request_body = AllowInitiator,
    params(
        ("name" = String, Path, description = "The target"),
        ("initiator" = String, Path, description = "The initiator's iSCSI name, or `*`"),
    ), responses(
    (status = 200, body = Target),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "target_not_found"),
    (status = 409, body = Problem, description = "tenant_suspended"),
))]
pub(super) async fn allow(
    State(context): State<Context>,
    caller: Caller,
    InitiatorOf(name, initiator): InitiatorOf,
    Body(wanted): Body<AllowInitiator>,
) -> Result<Json<Target>, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), format!("{name} {initiator}"));
    let change = async move { service.allow_initiator(name, initiator, wanted.chap).await };
    Ok(Json(context.change(&caller, ("target.allow", target), change).await?))
}

/// Takes back what was said of an initiator. It enters no more, unless any may.
#[utoipa::path(delete, path = "/v1/targets/{name}/initiators/{initiator}",
    params(
        ("name" = String, Path, description = "The target"),
        ("initiator" = String, Path, description = "The initiator's iSCSI name, or `*`"),
    ), responses(
    (status = 204, description = "Gone"),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "target_not_found, initiator_not_found"),
    (status = 409, body = Problem, description = "tenant_suspended"),
))]
pub(super) async fn deny(
    State(context): State<Context>,
    caller: Caller,
    InitiatorOf(name, initiator): InitiatorOf,
) -> Result<StatusCode, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), format!("{name} {initiator}"));
    let change = async move { service.deny_initiator(name, initiator).await };
    context.change(&caller, ("target.deny", target), change).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteParameters {
    /// End its sessions: `?force` or `?force=true`.
    force: Option<String>,
}
