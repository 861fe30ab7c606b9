//! Tokens of the API, as the catalogue keeps them: what a role means is not known here. Of a secret there is a hash alone.

use super::record::{Record, TokenRecord};
use super::tenants::DEFAULT_TENANT;
use super::trial::is_trial;
use super::{Catalogue, CatalogueError};
use crate::open::wall_ms;
use std::sync::Arc;
use units::TenantId;

/// Use is written down when it is so much later than what is written.
const USE_PRECISION_MS: u64 = 3_600_000;

/// Most tokens of a tenant, and of those that are for all.
const TOKENS_MAX: u64 = 1000;

/// A token to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What it is called, for people.
    pub name: String,
    /// What its holder is.
    pub role: String,
    /// The tenant that it is for, when it is for one.
    pub tenant: Option<String>,
    /// When it ends, milliseconds since 1970, when it does.
    pub expires_ms: Option<u64>,
    /// The hash of its secret.
    pub hash: [u8; 32],
}

/// A token that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: u64,
    /// It, as it was given.
    pub token: NewToken,
    /// Whether its tenant is suspended.
    pub is_suspended: bool,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// When it was used last, to about an hour, milliseconds since 1970.
    pub used_ms: Option<u64>,
}

impl Catalogue {
    /// Keeps a token.
    ///
    /// # Errors
    /// [`CatalogueError::NoTenant`]; [`CatalogueError::QuotaExceeded`] beyond 1000 of a tenant; or the system volume's, when the record cannot be written.
    pub async fn create_token(&self, token: NewToken) -> Result<Token, CatalogueError> {
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let tenant = token.tenant.as_deref().map(|name| self.show_tenant(name)).transpose()?;
        let number = tenant.as_ref().map(|tenant| tenant.id.0);
        let used = self.read().tokens.values().filter(|token| token.tenant == number).count() as u64;
        if used >= TOKENS_MAX {
            let tenant = token.tenant.unwrap_or_else(|| DEFAULT_TENANT.to_owned());
            return Err(CatalogueError::QuotaExceeded { tenant, what: "tokens", used, asked: 1, limit: TOKENS_MAX });
        }
        if is_trial() {
            return Ok(Token { id: 0, token, is_suspended: false, created_ms: wall_ms(), used_ms: None });
        }
        let (id, created_ms) = (book.take_ids(1).await?, wall_ms());
        let NewToken { name, role, expires_ms, hash, .. } = token;
        let (tenant, hash) = (tenant.map(|tenant| tenant.id.0), hash.map(|byte| format!("{byte:02x}")).concat());
        let record = TokenRecord { id, name, role, tenant, hash, created_ms, expires_ms, used_ms: None };
        if let Err(error) = book.put(&Record::Token(record.clone())).await {
            if let Err(error) = book.remove(id, 1).await {
                tracing::warn!(id, %error, "a token that was refused may be there after a restart: revoke it then");
            }
            return Err(error);
        }
        tracing::info!(id, name = record.name, role = record.role, "made a token");
        self.write().tokens.insert(id, record);
        self.find_token(id).ok_or_else(|| no_token(id))
    }

    /// Every token, by id.
    #[must_use]
    pub fn list_tokens(&self) -> Vec<Token> {
        let ids: Vec<u64> = self.read().tokens.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.find_token(id)).collect()
    }

    /// The token of that id. One whose tenant is gone is none.
    #[must_use]
    pub fn find_token(&self, id: u64) -> Option<Token> {
        let shelf = self.read();
        let record = shelf.tokens.get(&id)?.clone();
        let (tenant, is_suspended) = match record.tenant {
            None => (None, false),
            Some(id) if id == TenantId::DEFAULT.0 => (Some(DEFAULT_TENANT.to_owned()), false),
            Some(id) => {
                let tenant = shelf.tenants.values().find(|tenant| tenant.number == id)?;
                (Some(tenant.name.clone()), tenant.is_suspended)
            }
        };
        let TokenRecord { name, role, expires_ms, created_ms, used_ms, .. } = record;
        let token = NewToken { name, role, tenant, expires_ms, hash: unhex(&record.hash)? };
        Some(Token { id, token, is_suspended, created_ms, used_ms })
    }

    /// Revokes a token: when this is answered nobody asks by it, after a crash neither.
    ///
    /// # Errors
    /// [`CatalogueError::NoToken`]; or the system volume's: it may be back after a restart then.
    pub async fn revoke_token(&self, id: u64) -> Result<(), CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        if is_trial() {
            let is_known = self.read().tokens.contains_key(&id);
            return if is_known { Ok(()) } else { Err(no_token(id)) };
        }
        let known = self.write().tokens.remove(&id).ok_or_else(|| no_token(id))?;
        if let Err(error) = book.remove(id, 1).await {
            self.write().tokens.insert(id, known);
            return Err(error);
        }
        tracing::info!(id, name = known.name, "revoked a token");
        Ok(())
    }

    /// Notes that somebody asked by a token: written when what is written is an hour old, behind this.
    pub fn note_token_used(self: &Arc<Self>, id: u64) {
        let now = wall_ms();
        let is_noted =
            |record: &TokenRecord| record.used_ms.is_some_and(|used| now < used.saturating_add(USE_PRECISION_MS));
        if self.read().tokens.get(&id).is_none_or(is_noted) {
            return;
        }
        if let Some(record) = self.write().tokens.get_mut(&id) {
            record.used_ms = Some(now);
        }
        let catalogue = Arc::clone(self);
        tokio::spawn(async move {
            let book = catalogue.book.lock().await;
            // It may have been revoked meanwhile.
            let record = catalogue.read().tokens.get(&id).cloned();
            if let Some(record) = record.filter(|_| !catalogue.is_stopping())
                && let Err(error) = book.put(&Record::Token(record)).await
            {
                tracing::debug!(id, %error, "it is not written that a token was used");
            }
        });
    }

    /// Takes away the tokens of a tenant that is being deleted.
    pub(super) async fn revoke_all_of(&self, book: &super::Book, tenant: TenantId) -> Result<(), CatalogueError> {
        let ids: Vec<u64> = {
            let shelf = self.read();
            shelf.tokens.values().filter(|token| token.tenant == Some(tenant.0)).map(|token| token.id).collect()
        };
        for id in ids {
            book.remove(id, 1).await?;
            self.write().tokens.remove(&id);
        }
        Ok(())
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn no_token(id: u64) -> CatalogueError {
    CatalogueError::NoToken { id }
}
