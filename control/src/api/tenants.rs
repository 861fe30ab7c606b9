//! `/v1/tenants`.

use super::Context;
use super::answer::{Body, Named, Parameters, is_set};
use super::caller::Caller;
use super::paging::{Asked, PageParameters, PartParameters};
use super::status::{Text, metrics_text};
use crate::billing::Desk;
use crate::error::{Problem, ServiceError};
use crate::metrics::VolumeMetrics;
use crate::name::{Name, VolumeName};
use crate::page::Place;
use crate::tenant::{CreateTenant, Quota, SetAccess, SetTenantQos, Tenant, TenantList};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde::Deserialize;
use std::sync::Arc;

/// Lists every tenant.
#[utoipa::path(get, path = "/v1/tenants", params(PageParameters), responses(
    (status = 200, body = TenantList),
    (status = 400, body = Problem, description = "invalid_request"),
))]
pub(super) async fn list(
    State(context): State<Context>,
    Parameters(parameters): Parameters<PartParameters>,
) -> Result<Json<TenantList>, ServiceError> {
    let asked = Asked::by(parameters.limit, parameters.cursor)?;
    let place = |tenant: &Tenant| Place::named(&tenant.name);
    let mut tenants = asked.page().of(context.service.list_tenants().await?, place);
    let next_cursor = asked.cut(&mut tenants, place);
    Ok(Json(TenantList { tenants, next_cursor }))
}

/// Makes a tenant.
#[utoipa::path(post, path = "/v1/tenants", request_body = CreateTenant, responses(
    (status = 201, body = Tenant, description = "Made", headers(("location" = String, description = "Its path"))),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 409, body = Problem, description = "tenant_exists"),
))]
pub(super) async fn create(
    State(context): State<Context>,
    caller: Caller,
    Body(wanted): Body<CreateTenant>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Tenant>), ServiceError> {
    let name: Name = wanted.name.parse()?;
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.create_tenant(name, wanted.quota).await };
    let tenant = context.change(&caller, ("tenant.create", target), change).await?;
    let location = format!("/v1/tenants/{}", tenant.name);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(tenant)))
}

/// Shows a tenant, with what it may have and what it has.
#[utoipa::path(get, path = "/v1/tenants/{name}", params(("name" = String, Path, description = "The tenant")), responses(
    (status = 200, body = Tenant),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn show(
    State(context): State<Context>,
    Named(name): Named<Name>,
) -> Result<Json<Tenant>, ServiceError> {
    Ok(Json(context.service.show_tenant(name).await?))
}

/// Shows the figures of a tenant's volumes in the Prometheus text format.
#[utoipa::path(get, path = "/v1/tenants/{name}/metrics", params(("name" = String, Path, description = "The tenant")),
    responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn metrics(State(context): State<Context>, Named(name): Named<Name>) -> Result<Text, ServiceError> {
    context.service.show_tenant(name.clone()).await?;
    let mut snapshot = context.service.metrics().await?;
    let is_its = |volume: &VolumeMetrics| volume.name.parse().is_ok_and(|of: VolumeName| *of.tenant() == name);
    snapshot.volumes.retain(is_its);
    (snapshot.shards, snapshot.pool, snapshot.meter) = (Vec::new(), None, None);
    metrics_text(&mut snapshot, &[])
}

/// Says what a tenant may have, in place of what was said before. What it has above that it keeps.
#[utoipa::path(post, path = "/v1/tenants/{name}/quota", request_body = Quota,
    params(("name" = String, Path, description = "The tenant")), responses(
    (status = 200, body = Tenant),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn quota(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<Name>,
    Body(wanted): Body<Quota>,
) -> Result<Json<Tenant>, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.set_quota(name, wanted).await };
    Ok(Json(context.change(&caller, ("tenant.quota", target), change).await?))
}

/// Says what may be asked of all volumes of a tenant together in a second, while they serve, and how large its share of a busy
/// shard is. What its volumes have ceilings of their own for holds beside that.
#[utoipa::path(post, path = "/v1/tenants/{name}/qos", request_body = SetTenantQos,
    params(("name" = String, Path, description = "The tenant")), responses(
    (status = 200, body = Tenant),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn qos(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<Name>,
    Body(wanted): Body<SetTenantQos>,
) -> Result<Json<Tenant>, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.set_tenant_qos(name, wanted).await };
    Ok(Json(context.change(&caller, ("tenant.qos", target), change).await?))
}

/// Says who may enter a tenant's exports, in place of what was said before: who has a certificate, who may open the tenant's own
/// socket, who comes from an address. Any one is enough; nobody else sees that the exports are there.
#[utoipa::path(put, path = "/v1/tenants/{name}/access", request_body = SetAccess,
    params(("name" = String, Path, description = "The tenant")), responses(
    (status = 200, body = Tenant),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn access(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<Name>,
    Body(wanted): Body<SetAccess>,
) -> Result<Json<Tenant>, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.set_access(name, wanted).await };
    Ok(Json(context.change(&caller, ("tenant.access", target), change).await?))
}

/// Suspends a tenant: its clients are cut off, its exports let nobody in, and nothing that it has is changed but by the
/// provider's deletion. Nothing is lost.
#[utoipa::path(post, path = "/v1/tenants/{name}/suspend", params(("name" = String, Path, description = "The tenant")),
    responses(
    (status = 200, body = Tenant),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn suspend(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<Name>,
) -> Result<Json<Tenant>, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.suspend_tenant(name).await };
    Ok(Json(context.change(&caller, ("tenant.suspend", target), change).await?))
}

/// Lets a suspended tenant go on.
#[utoipa::path(post, path = "/v1/tenants/{name}/resume", params(("name" = String, Path, description = "The tenant")),
    responses(
    (status = 200, body = Tenant),
    (status = 404, body = Problem, description = "tenant_not_found"),
))]
pub(super) async fn resume(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<Name>,
) -> Result<Json<Tenant>, ServiceError> {
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.resume_tenant(name).await };
    Ok(Json(context.change(&caller, ("tenant.resume", target), change).await?))
}

/// Deletes a tenant that has nothing any more, and its tokens. Refused while it used something that is on no invoice, unless `force`:
/// a tenant that is gone cannot be billed.
#[utoipa::path(delete, path = "/v1/tenants/{name}", params(
        ("name" = String, Path, description = "The tenant"),
        ("force" = Option<bool>, Query, description = "Bill no more"),
    ), responses(
    (status = 204, description = "Gone"),
    (status = 404, body = Problem, description = "tenant_not_found"),
    (status = 409, body = Problem, description = "tenant_in_use, tenant_unbilled"),
))]
pub(super) async fn delete(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<Name>,
    Parameters(parameters): Parameters<DeleteParameters>,
) -> Result<StatusCode, ServiceError> {
    let is_forced = is_set("force", parameters.force.as_deref())?;
    let (desk, service, target) = (Desk::of(&context.service), Arc::clone(&context.service), name.clone());
    let change = async move {
        if !is_forced {
            desk.refuse_unbilled(&name).await?;
        }
        service.delete_tenant(name).await
    };
    context.change(&caller, ("tenant.delete", target), change).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteParameters {
    /// Bill no more: `?force` or `?force=true`.
    force: Option<String>,
}
