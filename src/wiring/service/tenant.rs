//! Tenants and tokens in the API's words.

use super::{PoolService, service_error, timestamp};
use blockd::catalogue::{self, CatalogueError};
use control::{ErrorCode, ImageSharing, KnownToken, Name, NewToken, Quota, Role, ServiceError, Tenant, Token, Usage};
use jiff::Timestamp;

impl PoolService {
    pub(super) fn known_token(&self, id: u64) -> Option<KnownToken> {
        let catalogue::Token { token, is_suspended, .. } = self.catalogue.find_token(id)?;
        let catalogue::NewToken { role, tenant, expires_ms, hash, .. } = token;
        // A role or a name that this program does not know may nothing.
        let tenant = tenant.map(|name| name.parse()).transpose().ok()?;
        Some(KnownToken { role: role.parse().ok()?, tenant, is_suspended, expires_at: expires_ms.map(timestamp), hash })
    }

    pub(super) fn tokens(&self, tenant: Option<&Name>) -> Vec<Token> {
        let of =
            |token: &catalogue::Token| tenant.is_none_or(|name| token.token.tenant.as_deref() == Some(name.as_str()));
        self.catalogue.list_tokens().into_iter().filter(of).filter_map(shown_token).collect()
    }

    pub(super) async fn make_token(&self, new: NewToken) -> Result<Token, ServiceError> {
        let NewToken { name, role, tenant, expires_at, hash } = new;
        let new = catalogue::NewToken {
            name: name.to_string(),
            role: role.to_string(),
            tenant: tenant.map(|tenant| tenant.to_string()),
            expires_ms: expires_at.map(milliseconds),
            hash,
        };
        let made = self.catalogue.create_token(new).await.map_err(service_error)?;
        shown_token(made).ok_or_else(|| ServiceError::new(ErrorCode::Internal, "the token cannot be shown"))
    }

    pub(super) async fn take_token(&self, id: u64, tenant: Option<Name>) -> Result<(), ServiceError> {
        if !self.tokens(tenant.as_ref()).iter().any(|token| token.id == id) {
            return Err(ServiceError::no_token(&id.to_string()));
        }
        self.catalogue.revoke_token(id).await.map_err(service_error)
    }

    pub(super) fn sharing(&self, image: &catalogue::Image) -> ImageSharing {
        let tenants = self.catalogue.shared_with(image);
        ImageSharing { all: tenants.is_none(), tenants: tenants.unwrap_or_default() }
    }
}

fn shown_token(token: catalogue::Token) -> Option<Token> {
    let catalogue::Token { id, token, created_ms, used_ms, .. } = token;
    Some(Token {
        id,
        name: token.name,
        role: token.role.parse::<Role>().ok()?,
        tenant: token.tenant,
        created_at: timestamp(created_ms),
        expires_at: token.expires_ms.map(timestamp),
        used_at: used_ms.map(timestamp),
    })
}

pub(super) fn shown_tenant(tenant: catalogue::Tenant) -> Tenant {
    let catalogue::Tenant { id, name, created_ms, is_suspended, quota, usage } = tenant;
    let catalogue::Quota { bytes, volumes, snapshots } = quota;
    let quota = Quota { bytes, volumes, snapshots };
    let catalogue::Usage { bytes, volumes, snapshots } = usage;
    let usage = Usage { bytes, volumes, snapshots };
    Tenant { name, id: id.0, created_at: created_ms.map(timestamp), is_suspended, quota, usage }
}

pub(super) const fn kept_quota(quota: Quota) -> catalogue::Quota {
    catalogue::Quota { bytes: quota.bytes, volumes: quota.volumes, snapshots: quota.snapshots }
}

/// A catalogue's answer about a tenant, in the API's words.
pub(super) fn tenant_answer(tenant: Result<catalogue::Tenant, CatalogueError>) -> Result<Tenant, ServiceError> {
    tenant.map(shown_tenant).map_err(service_error)
}

fn milliseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}
