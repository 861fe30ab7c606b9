//! Tenants and tokens in the API's words.

use super::{PoolService, qos, service_error, timestamp};
use blockd::catalogue::{self, CatalogueError};
use blockd::qos::Credits;
use control::{
    Access, ErrorCode, ImageSharing, KnownToken, Name, NewToken, Quota, Role, ServiceError, SetAccess, SetTenantQos,
    SocketAccess, Tenant, Token, Usage,
};
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

    /// Every tenant, with what is left of its ceilings.
    pub(super) async fn tenants(&self) -> Result<Vec<Tenant>, ServiceError> {
        let left = self.catalogue.tenant_credits().await.map_err(service_error)?;
        let credits = |tenant: &catalogue::Tenant| left.get(&tenant.id).copied().unwrap_or_default();
        let tenants = self.catalogue.list_tenants().into_iter();
        Ok(tenants.map(|tenant| shown_tenant(credits(&tenant), tenant)).collect())
    }

    /// A catalogue's answer about a tenant, in the API's words.
    pub(super) async fn tenant_answer(
        &self,
        tenant: Result<catalogue::Tenant, CatalogueError>,
    ) -> Result<Tenant, ServiceError> {
        let tenant = tenant.map_err(service_error)?;
        let credits = match tenant.qos {
            Some(_) => self.catalogue.tenant_credits().await.map_err(service_error)?.remove(&tenant.id),
            None => None,
        };
        Ok(shown_tenant(credits.unwrap_or_default(), tenant))
    }

    pub(super) async fn hold_tenant(&self, name: &Name, wanted: SetTenantQos) -> Result<Tenant, ServiceError> {
        let known = self.catalogue.show_tenant(name.as_str()).map_err(service_error)?.qos.unwrap_or_default();
        let limits = qos::limits(known.limits, wanted.ceilings())?;
        let qos = catalogue::TenantQos { limits, weight: wanted.weight.unwrap_or(known.weight) };
        self.tenant_answer(self.catalogue.set_tenant_qos(name.as_str(), qos).await).await
    }

    pub(super) async fn admit(&self, name: &Name, wanted: SetAccess) -> Result<Tenant, ServiceError> {
        let SetAccess { access, cut_off } = wanted;
        let access = kept_access(&access)?;
        self.tenant_answer(self.catalogue.set_access(name.as_str(), access, cut_off).await).await
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

fn shown_tenant(credits: Credits, tenant: catalogue::Tenant) -> Tenant {
    let catalogue::Tenant { id, name, created_ms, is_suspended, quota, usage, qos, access } = tenant;
    let catalogue::Quota { bytes, volumes, snapshots } = quota;
    let quota = Quota { bytes, volumes, snapshots };
    let catalogue::Usage { bytes, volumes, snapshots } = usage;
    let usage = Usage { bytes, volumes, snapshots };
    let (created_at, access) = (created_ms.map(timestamp), shown_access(&access));
    let qos = qos.map(|qos| qos::shown_of_tenant(&qos, credits));
    Tenant { name, id: id.0, created_at, is_suspended, quota, usage, qos, access }
}

fn shown_access(access: &catalogue::Access) -> Access {
    Access {
        certificates: access.certificates.iter().map(ToString::to_string).collect(),
        networks: access.networks.iter().map(ToString::to_string).collect(),
        socket: access.socket.map(|socket| SocketAccess { gid: socket.gid }),
    }
}

fn kept_access(access: &Access) -> Result<catalogue::Access, ServiceError> {
    let refused = |error: catalogue::InvalidRule| ServiceError::new(ErrorCode::InvalidRequest, error.to_string());
    let certificates = access.certificates.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>();
    let networks = access.networks.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>();
    let socket = access.socket.map(|socket| catalogue::SocketAccess::new(socket.gid)).transpose();
    Ok(catalogue::Access {
        certificates: certificates.map_err(refused)?,
        networks: networks.map_err(refused)?,
        socket: socket.map_err(refused)?,
    })
}

pub(super) const fn kept_quota(quota: Quota) -> catalogue::Quota {
    catalogue::Quota { bytes: quota.bytes, volumes: quota.volumes, snapshots: quota.snapshots }
}

fn milliseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}
