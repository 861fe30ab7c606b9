//! Who asks, and what their words mean: a name without a tenant's is one of their own tenant's, and what is another tenant's is
//! not there for them, whether it exists or not.

use super::Context;
use super::access::{Rule, Scope, is_known, rule_of};
use crate::error::{ErrorCode, ServiceError};
use crate::name::{ExportName, Name, SnapshotName, VolumeName};
use crate::rate::Asker;
use crate::target::initiator_name;
use crate::token::{KnownToken, Presented, Role};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, MatchedPath, Path, Request};
use axum::http::request::Parts;
use axum::http::{Method, header};
use jiff::Timestamp;
use std::time::Instant;

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Of its token; nothing of who asks without one.
    pub(super) token: Option<u64>,
    pub(super) role: Role,
    /// The tenant that its token is for.
    pub(super) tenant: Option<Name>,
    pub(super) request_id: String,
    /// Whether what it asks for is tried out only.
    pub(super) is_trial: bool,
}

/// The name of an image, to who may know it.
pub(super) struct ImageName(pub(super) VolumeName);

/// The name of an iSCSI target, to who may know it.
pub(super) struct TargetName(pub(super) VolumeName);

/// A target's name and a LUN of it.
pub(super) struct LunOf(pub(super) VolumeName, pub(super) u16);

/// A target's name and that of an initiator.
pub(super) struct InitiatorOf(pub(super) VolumeName, pub(super) String);

/// What a text means to who asks.
pub(super) trait Meant: Sized {
    fn meant(caller: &Caller, text: &str) -> Result<Self, ServiceError>;
}

impl Caller {
    /// Whoever asks where no token is asked for.
    fn anyone(request_id: &str) -> Self {
        Self {
            token: None,
            role: Role::ProviderAdmin,
            tenant: None,
            request_id: request_id.to_owned(),
            is_trial: false,
        }
    }

    /// The tenant that names without one are of.
    pub(super) fn home(&self) -> Name {
        self.tenant.clone().unwrap_or_else(Name::default_tenant)
    }

    /// Whether a tenant is there for who asks.
    pub(super) fn sees(&self, tenant: &Name) -> bool {
        self.tenant.as_ref().is_none_or(|own| own == tenant)
    }

    /// The tenant that a list is to be of: that which is asked for, or the caller's own; every one's without either.
    pub(super) fn listed(&self, asked: Option<&str>) -> Result<Option<Name>, ServiceError> {
        let Some(asked) = asked else { return Ok(self.tenant.clone()) };
        self.tenant_named(asked).map(Some)
    }

    /// The tenant of that name.
    pub(super) fn tenant_named(&self, text: &str) -> Result<Name, ServiceError> {
        let name: Name = text.parse()?;
        if self.sees(&name) { Ok(name) } else { Err(ServiceError::no_tenant(name.as_str())) }
    }

    /// The name of a volume that is to be made.
    pub(super) fn new_name(&self, text: &str) -> Result<VolumeName, ServiceError> {
        let name = VolumeName::parse_in(&self.home(), text)?;
        if self.sees(name.tenant()) { Ok(name) } else { Err(ServiceError::no_tenant(name.tenant().as_str())) }
    }

    /// What can be read of that name.
    pub(super) fn export(&self, text: &str) -> Result<ExportName, ServiceError> {
        let name = ExportName::parse_in(&self.home(), text)?;
        self.check(name.volume())?;
        Ok(name)
    }

    /// The images that a name may mean of which a volume of a tenant is to be made, the first one first.
    pub(super) fn images(volume: &VolumeName, text: &str) -> Result<Vec<VolumeName>, ServiceError> {
        let mut found = vec![VolumeName::parse_in(volume.tenant(), text)?];
        if !text.contains('/') && !volume.tenant().is_default_tenant() {
            found.push(text.parse()?);
        }
        Ok(found)
    }

    fn check(&self, name: &VolumeName) -> Result<(), ServiceError> {
        if self.sees(name.tenant()) { Ok(()) } else { Err(ServiceError::no_volume(name.as_str())) }
    }
}

impl Meant for VolumeName {
    fn meant(caller: &Caller, text: &str) -> Result<Self, ServiceError> {
        let name = Self::parse_in(&caller.home(), text)?;
        caller.check(&name)?;
        Ok(name)
    }
}

impl Meant for SnapshotName {
    fn meant(caller: &Caller, text: &str) -> Result<Self, ServiceError> {
        let name = Self::parse_in(&caller.home(), text)?;
        caller.check(name.volume())?;
        Ok(name)
    }
}

impl Meant for ImageName {
    fn meant(caller: &Caller, text: &str) -> Result<Self, ServiceError> {
        let name = VolumeName::parse_in(&caller.home(), text)?;
        if caller.sees(name.tenant()) { Ok(Self(name)) } else { Err(ServiceError::no_image(name.as_str())) }
    }
}

impl Meant for TargetName {
    fn meant(caller: &Caller, text: &str) -> Result<Self, ServiceError> {
        let name = VolumeName::parse_in(&caller.home(), text)?;
        if caller.sees(name.tenant()) { Ok(Self(name)) } else { Err(ServiceError::no_target(name.as_str())) }
    }
}

/// A target's name, and what a path names of it.
async fn named_of<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<(VolumeName, String), ServiceError> {
    let refused = |rejection: PathRejection| ServiceError::new(ErrorCode::InvalidName, rejection.body_text());
    let Path((target, of)): Path<(String, String)> = Path::from_request_parts(parts, state).await.map_err(refused)?;
    let caller = Caller::from_request_parts(parts, state).await?;
    let TargetName(target) = TargetName::meant(&caller, &target)?;
    Ok((target, of))
}

impl<S: Send + Sync> FromRequestParts<S> for LunOf {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServiceError> {
        let (target, lun) = named_of(parts, state).await?;
        let refused = || ServiceError::new(ErrorCode::InvalidRequest, format!("{lun:?} is no LUN: write 0 to 255"));
        let digits = Some(&lun).filter(|lun| lun.bytes().all(|byte| byte.is_ascii_digit()));
        let lun = digits.and_then(|lun| lun.parse::<u8>().ok()).ok_or_else(refused)?;
        Ok(Self(target, lun.into()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InitiatorOf {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServiceError> {
        let (target, initiator) = named_of(parts, state).await?;
        Ok(Self(target, initiator_name(&initiator)?))
    }
}

/// What is nobody's: an id.
impl Meant for String {
    fn meant(_: &Caller, text: &str) -> Result<Self, ServiceError> {
        Ok(text.to_owned())
    }
}

impl Meant for Name {
    fn meant(caller: &Caller, text: &str) -> Result<Self, ServiceError> {
        caller.tenant_named(text)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ServiceError> {
        let missing = || ServiceError::new(ErrorCode::Internal, "a request has come past the guard: report this");
        parts.extensions.get().cloned().ok_or_else(missing)
    }
}

/// Why somebody is not let in, and who, where that is known.
pub(super) type Refused = (ServiceError, Option<Caller>);

/// Finds out who asks, and whether they may.
///
/// # Errors
/// With who asks, where that is known.
pub(super) fn admit(context: &Context, request: &Request, request_id: &str) -> Result<Caller, Refused> {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let rule = route.and_then(|route| rule_of(request.method().as_str(), route));
    if context.options.is_authentication_off || rule.is_some_and(|rule| rule.scope == Scope::Anyone) {
        return Ok(Caller::anyone(request_id));
    }
    let now = Instant::now();
    let (id, known) = authenticate(context, request).map_err(|error| {
        // Whoever has a good token is let in, whatever others try from the same address.
        let asker = request.extensions().get::<Asker>();
        let is_too_often = asker.is_some_and(|asker| !context.refusal_rate.take(*asker, now));
        let limited = || rate_limited("requests without a good token come too often from there");
        (if is_too_often { limited() } else { error }, None)
    })?;
    if !context.request_rate.take(Asker::Token(id), now) {
        return Err((rate_limited("requests by this token come too often"), None));
    }
    let request_id = request_id.to_owned();
    let caller = Caller { token: Some(id), role: known.role, tenant: known.tenant, request_id, is_trial: false };
    match (route, rule) {
        (_, Some(rule)) => {
            if let Err(error) = check(rule, &caller) {
                return Err((error, Some(caller)));
            }
        }
        // What is not in the table is nobody's; of a path without that method, or none at all, the router tells.
        (Some(route), None) if !is_known(route) => return Err((forbidden(&caller), Some(caller))),
        (_, None) => {}
    }
    if known.is_suspended && !matches!(*request.method(), Method::GET | Method::HEAD) {
        let tenant = caller.home();
        let detail = format!("tenant {tenant} is suspended: have the provider resume it");
        return Err((ServiceError::new(ErrorCode::TenantSuspended, detail), Some(caller)));
    }
    context.service.note_token_used(id);
    tracing::debug!(token = caller.token, role = %caller.role, "admitted");
    Ok(caller)
}

fn rate_limited(what: &str) -> ServiceError {
    ServiceError::new(ErrorCode::RateLimited, format!("{what}: wait as long as Retry-After says"))
}

fn authenticate(context: &Context, request: &Request) -> Result<(u64, KnownToken), ServiceError> {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let refused = || {
        let detail = "send a valid token as \"Authorization: Bearer TOKEN\": see aljibe token create";
        ServiceError::new(ErrorCode::Unauthenticated, detail)
    };
    let presented = header.and_then(|value| {
        let (scheme, text) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Presented::parse(text.trim()))?
    });
    let presented = presented.ok_or_else(refused)?;
    let known = presented.check(context.service.find_token(presented.id)).ok_or_else(refused)?;
    // Whoever has its secret may know.
    if let Some(end) = known.expires_at.filter(|end| *end <= Timestamp::now()) {
        let detail = format!("the token ended at {end}: make a new one by aljibe token create");
        return Err(ServiceError::new(ErrorCode::Unauthenticated, detail));
    }
    Ok((presented.id, known))
}

fn check(rule: &Rule, caller: &Caller) -> Result<(), ServiceError> {
    let is_in_scope = match rule.scope {
        Scope::Anyone | Scope::Tenant => true,
        Scope::Provider => caller.tenant.is_none(),
    };
    if is_in_scope && rule.roles.contains(&caller.role) { Ok(()) } else { Err(forbidden(caller)) }
}

fn forbidden(caller: &Caller) -> ServiceError {
    let of = caller.tenant.as_ref().map(|tenant| format!(" of tenant {tenant}")).unwrap_or_default();
    let detail = format!("the token's role, {}{of}, may not do this: use another token", caller.role);
    ServiceError::new(ErrorCode::Forbidden, detail)
}
