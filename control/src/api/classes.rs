//! `/v1/classes`, and the class of a volume.

use super::Context;
use super::answer::{Body, Named};
use super::caller::Caller;
use crate::class::{Class, ClassList, CreateClass, SetClass, SetVolumeClass};
use crate::error::{Problem, ServiceError};
use crate::model::Volume;
use crate::name::{Name, VolumeName};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use std::sync::Arc;

/// Lists every storage class.
#[utoipa::path(get, path = "/v1/classes", responses((status = 200, body = ClassList)))]
pub(super) async fn list(State(context): State<Context>, caller: Caller) -> Result<Json<ClassList>, ServiceError> {
    let classes = context.service.list_classes().await?;
    let mut classes: Vec<Class> = classes.into_iter().map(|class| seen(class, &caller)).collect();
    classes.sort_by(|a, b| (a.id != 0, &a.name).cmp(&(b.id != 0, &b.name)));
    Ok(Json(ClassList { classes }))
}

/// Makes a storage class. Its number is what rate cards know it by.
#[utoipa::path(post, path = "/v1/classes", request_body = CreateClass, responses(
    (status = 201, body = Class, description = "Made", headers(("location" = String, description = "Its path"))),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 409, body = Problem, description = "class_exists"),
))]
pub(super) async fn create(
    State(context): State<Context>,
    caller: Caller,
    Body(wanted): Body<CreateClass>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Class>), ServiceError> {
    let name: Name = wanted.name.parse()?;
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.create_class(name, wanted.qos, wanted.history).await };
    let class = context.change(&caller, ("class.create", target), change).await?;
    let location = format!("/v1/classes/{}", class.name);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(class)))
}

/// Shows a storage class.
#[utoipa::path(get, path = "/v1/classes/{name}", params(("name" = String, Path, description = "The class")), responses(
    (status = 200, body = Class),
    (status = 404, body = Problem, description = "class_not_found"),
))]
pub(super) async fn show(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<String>,
) -> Result<Json<Class>, ServiceError> {
    Ok(Json(seen(context.service.show_class(name.parse()?).await?, &caller)))
}

/// How many volumes others have is no tenant's business.
fn seen(class: Class, caller: &Caller) -> Class {
    let volumes = class.volumes.filter(|_| caller.tenant.is_none());
    Class { volumes, ..class }
}

/// Changes what the volumes of a class get, while they serve. Those that were told their own keep that.
#[utoipa::path(put, path = "/v1/classes/{name}", request_body = SetClass,
    params(("name" = String, Path, description = "The class")), responses(
    (status = 200, body = Class),
    (status = 400, body = Problem, description = "invalid_request"),
    (status = 404, body = Problem, description = "class_not_found"),
))]
pub(super) async fn set(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<String>,
    Body(wanted): Body<SetClass>,
) -> Result<Json<Class>, ServiceError> {
    let name: Name = name.parse()?;
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.set_class(name, wanted).await };
    Ok(Json(context.change(&caller, ("class.set", target), change).await?))
}

/// Deletes a class that no volume is of.
#[utoipa::path(delete, path = "/v1/classes/{name}", params(("name" = String, Path, description = "The class")), responses(
    (status = 204, description = "Gone"),
    (status = 404, body = Problem, description = "class_not_found"),
    (status = 409, body = Problem, description = "class_in_use"),
))]
pub(super) async fn delete(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<String>,
) -> Result<StatusCode, ServiceError> {
    let name: Name = name.parse()?;
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.delete_class(name).await };
    context.change(&caller, ("class.delete", target), change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a volume another class while it serves: its ceilings and history follow, unless they are its own, and what it uses
/// from this moment on is billed by the new class's prices.
#[utoipa::path(put, path = "/v1/volumes/{name}/class", request_body = SetVolumeClass,
    params(("name" = String, Path, description = "The volume")), responses(
    (status = 200, body = Volume),
    (status = 400, body = Problem, description = "invalid_name, invalid_request"),
    (status = 404, body = Problem, description = "volume_not_found, class_not_found"),
    (status = 409, body = Problem, description = "volume_quarantined, tenant_suspended"),
))]
pub(super) async fn set_of_volume(
    State(context): State<Context>,
    caller: Caller,
    Named(name): Named<VolumeName>,
    Body(wanted): Body<SetVolumeClass>,
) -> Result<Json<Volume>, ServiceError> {
    let class: Name = wanted.class.parse()?;
    let (service, target) = (Arc::clone(&context.service), name.clone());
    let change = async move { service.set_volume_class(name, class).await };
    Ok(Json(context.change(&caller, ("volume.class", target), change).await?))
}
