//! Tokens: who speaks to the API, and what they may.
//!
//! A token is `alj_ID_SECRET`. The secret is 256 random bits in hexadecimal digits, shown once and kept nowhere: of it a
//! SHA-256 is stored. A slow hash would add nothing, since nobody can try 2^256 secrets. The id finds the hash, and the two
//! hashes are compared in constant time, that of an id which is not there with one that nothing has.

use crate::name::Name;
use aws_lc_rs::{constant_time, digest, rand};
use jiff::Timestamp;
use serde::de::{self, IntoDeserializer};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// What all tokens begin with.
const PREFIX: &str = "alj_";

/// Bytes of a secret.
const SECRET_BYTES: usize = 32;

/// Seconds for which a token is good unless it is said otherwise: 90 days.
pub(crate) const EXPIRES_SECONDS_DEFAULT: u64 = 90 * 86400;

/// What a token's holder is. What each may is told by the table of `api/access.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// May everything.
    ProviderAdmin,
    /// Runs the service: all but tenants' limits, tokens and the audit log.
    Operator,
    /// Reads what there is, to bill it.
    Billing,
    /// May everything with what its tenant has, and gives tokens to it.
    TenantAdmin,
    /// Works with the volumes, snapshots and images of its tenant.
    TenantUser,
    /// Reads all, of its tenant where it has one, and the audit log.
    Auditor,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its number, never used again.
    pub id: u64,
    /// What it is called, for people.
    pub name: String,
    /// What its holder is.
    pub role: Role,
    /// The tenant that it is for; absent where it is for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// When it was made. RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it ends; absent where it does not. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When it was used last, to about an hour; absent where it never was. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub used_at: Option<Timestamp>,
}

/// Every token, by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// In the order of their numbers.
    pub tokens: Vec<Token>,
    /// What gives the next part, as `?cursor=`; absent in the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A token to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What it is called, for people: 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
    #[schema(example = "backup-host", max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    pub name: String,
    /// What its holder is.
    pub role: Role,
    /// The tenant that it is for: of a tenant's role always, of an auditor perhaps, of others never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// After how many seconds it ends: 90 days unless it is given, never with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
}

/// A token that was made, with its text, which is not shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MadeToken {
    /// It, without its secret.
    pub token: Token,
    /// What its holder sends as `Authorization: Bearer TEXT`.
    pub text: String,
}

impl fmt::Debug for MadeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeToken").field("token", &self.token).finish_non_exhaustive()
    }
}

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What it is called.
    pub name: Name,
    /// What its holder is.
    pub role: Role,
    /// The tenant that it is for.
    pub tenant: Option<Name>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// The hash of its secret.
    pub hash: [u8; 32],
}

/// What is known of a token by which somebody may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownToken {
    /// What its holder is.
    pub role: Role,
    /// The tenant that it is for.
    pub tenant: Option<Name>,
    /// Whether that is suspended.
    pub is_suspended: bool,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// The hash of its secret.
    pub hash: [u8; 32],
}

/// The secret of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A token's text, taken apart.
pub(crate) struct Presented {
    pub(crate) id: u64,
    secret: Secret,
}

impl Role {
    /// Whether a token of this role is for one tenant; nothing where it may be or not.
    pub(crate) const fn is_of_tenant(self) -> Option<bool> {
        match self {
            Self::ProviderAdmin | Self::Operator => Some(false),
            Self::TenantAdmin | Self::TenantUser => Some(true),
            Self::Auditor | Self::Billing => None,
        }
    }
}

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<Self, std::io::Error> {
        let mut bytes = [0; SECRET_BYTES];
        rand::fill(&mut bytes).map_err(|_| std::io::Error::other("the system gives no random bytes"))?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, self.0.as_bytes()).as_ref());
        hash
    }

    /// The text of the token of that id that has it.
    #[must_use]
    pub fn text(&self, id: u64) -> String {
        format!("{PREFIX}{id}_{}", self.0)
    }
}

/// Reads its digits.
impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_secret = text.len() == 2 * SECRET_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_secret { Ok(Self(text.to_owned())) } else { Err("a secret has 64 hexadecimal digits".to_owned()) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Presented {
    /// Takes a text apart; whatever it holds is looked at for no longer than its length.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        Some(Self { id: id.parse().ok()?, secret: secret.parse().ok()? })
    }

    /// The token, if it is the one that is known by that id.
    pub(crate) fn check(&self, known: Option<KnownToken>) -> Option<KnownToken> {
        // No secret has this hash.
        let hash = known.as_ref().map_or([0; 32], |known| known.hash);
        let is_same = constant_time::verify_slices_are_equal(&self.secret.hash(), &hash).is_ok();
        known.filter(|_| is_same)
    }
}

/// As in JSON.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// As in JSON.
impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role: Result<Self, de::value::Error> = Self::deserialize(text.into_deserializer());
        role.map_err(|error| format!("{text:?} is no role: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(secret: &Secret) -> KnownToken {
        let (role, tenant, is_suspended, expires_at) = (Role::Operator, None, false, None);
        KnownToken { role, tenant, is_suspended, expires_at, hash: secret.hash() }
    }

    /// P8. A token is known by all of its secret, and by nothing that could be stored or guessed of it.
    #[test]
    fn a_token_is_known_by_its_secret_alone() {
        let secret = Secret::generate().unwrap();
        let text = secret.text(7);
        assert_eq!(text.len(), "alj_7_".len() + 2 * SECRET_BYTES);
        let presented = Presented::parse(&text).unwrap();
        assert_eq!(presented.id, 7);
        assert!(presented.check(Some(known(&secret))).is_some());
        assert!(presented.check(Some(known(&Secret::generate().unwrap()))).is_none());
        assert!(presented.check(None).is_none());
        let hash: String = secret.hash().iter().map(|byte| format!("{byte:02x}")).collect();
        let stolen = Presented::parse(&format!("alj_7_{hash}")).unwrap();
        assert!(stolen.check(Some(known(&secret))).is_none(), "what is stored is no secret");
        for cut in 0..text.len() {
            let part = text.get(..cut).and_then(Presented::parse);
            assert!(part.and_then(|part| part.check(Some(known(&secret)))).is_none(), "{cut}");
        }
        assert!(!format!("{secret:?}").contains(&secret.0));
    }

    #[test]
    fn a_role_is_written_as_in_json() {
        let roles = [
            (Role::ProviderAdmin, "provider-admin"),
            (Role::Operator, "operator"),
            (Role::Billing, "billing"),
            (Role::TenantAdmin, "tenant-admin"),
            (Role::TenantUser, "tenant-user"),
            (Role::Auditor, "auditor"),
        ];
        for (role, name) in roles {
            assert_eq!(serde_json::to_value(role).unwrap(), name);
            assert_eq!((name.parse(), role.to_string().as_str()), (Ok(role), name));
        }
        assert!("root".parse::<Role>().unwrap_err().contains("provider-admin"));
    }
}
