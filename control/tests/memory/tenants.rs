//! Tenants and tokens in memory.

use super::{ADMIN, MemoryService, State};
use control::{Access, ErrorCode, KnownToken, Name, NewToken, Quota, Role, Secret, ServiceError, Tenant, Token, Usage};
use jiff::Timestamp;

/// What is kept of it.
pub(super) fn admin() -> (Token, [u8; 32]) {
    let secret: Secret = ADMIN.trim_start_matches("alj_0_").parse().unwrap();
    let (name, role, created_at) = ("bootstrap".to_owned(), Role::ProviderAdmin, now());
    (Token { id: 0, name, role, tenant: None, created_at, expires_at: None, used_at: None }, secret.hash())
}

pub(super) fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

/// The provider's own.
pub(super) fn default_tenant() -> Tenant {
    let (quota, usage) = (Quota::default(), Usage::default());
    Tenant {
        name: "default".to_owned(),
        id: 0,
        created_at: None,
        is_suspended: false,
        quota,
        usage,
        qos: None,
        access: Access::default(),
    }
}

impl State {
    pub(super) fn check_tenant(&self, name: &Name) -> Result<(), ServiceError> {
        if name.is_default_tenant() {
            return Ok(());
        }
        let tenant = self.tenants.get(name.as_str()).ok_or_else(|| ServiceError::no_tenant(name.as_str()))?;
        if tenant.is_suspended {
            return Err(ServiceError::new(ErrorCode::TenantSuspended, "it is suspended"));
        }
        Ok(())
    }

    pub(super) fn create_tenant(&mut self, name: &Name, quota: Quota) -> Result<Tenant, ServiceError> {
        if self.tenants.contains_key(name.as_str()) || name.is_default_tenant() {
            return Err(ServiceError::new(ErrorCode::TenantExists, format!("tenant {name} exists")));
        }
        self.last_id += 1;
        let (name, id, usage) = (name.to_string(), self.last_id, Usage::default());
        let (created_at, access) = (Some(now()), Access::default());
        let tenant = Tenant { name, id, created_at, is_suspended: false, quota, usage, qos: None, access };
        self.tenants.insert(tenant.name.clone(), tenant.clone());
        Ok(tenant)
    }

    pub(super) fn delete_tenant(&mut self, name: &Name) -> Result<(), ServiceError> {
        if self.volumes.values().any(|volume| volume.tenant == name.as_str()) {
            return Err(ServiceError::new(ErrorCode::TenantInUse, "it has volumes"));
        }
        let gone = self.tenants.remove(name.as_str());
        self.tokens.retain(|_, (token, _)| token.tenant.as_deref() != Some(name.as_str()));
        gone.map(drop).ok_or_else(|| ServiceError::no_tenant(name.as_str()))
    }

    pub(super) fn create_token(&mut self, new: NewToken) -> Result<Token, ServiceError> {
        new.tenant.as_ref().map_or(Ok(()), |name| self.check_tenant(name))?;
        self.last_id += 1;
        let (tenant, id) = (new.tenant.map(|name| name.to_string()), self.last_id);
        let (name, role, expires_at) = (new.name.to_string(), new.role, new.expires_at);
        let token = Token { id, name, role, tenant, created_at: now(), expires_at, used_at: None };
        self.tokens.insert(id, (token.clone(), new.hash));
        Ok(token)
    }
}

impl MemoryService {
    pub(super) fn change_tenant(&self, name: &Name, change: impl FnOnce(&mut Tenant)) -> Result<Tenant, ServiceError> {
        let mut state = self.state.lock().unwrap();
        let tenant = state.tenants.get_mut(name.as_str()).ok_or_else(|| ServiceError::no_tenant(name.as_str()))?;
        change(tenant);
        Ok(tenant.clone())
    }

    pub(super) fn tokens_of(&self, tenant: Option<&Name>) -> Vec<Token> {
        let of = |token: &Token| tenant.is_none_or(|name| token.tenant.as_deref() == Some(name.as_str()));
        self.state.lock().unwrap().tokens.values().map(|(token, _)| token.clone()).filter(of).collect()
    }

    pub(super) fn known_token(&self, id: u64) -> Option<KnownToken> {
        let state = self.state.lock().unwrap();
        let (token, hash) = state.tokens.get(&id)?;
        let tenant: Option<Name> = token.tenant.as_ref().map(|name| name.parse().unwrap());
        let is_suspended = tenant.as_ref().and_then(|name| state.tenants.get(name.as_str()));
        let is_suspended = is_suspended.is_some_and(|tenant| tenant.is_suspended);
        Some(KnownToken { role: token.role, tenant, is_suspended, expires_at: token.expires_at, hash: *hash })
    }
}
