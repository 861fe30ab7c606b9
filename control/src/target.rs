//! What the API shows and takes of iSCSI targets. Members are only ever added within v1. No secret is ever shown.

use crate::error::{ErrorCode, ServiceError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Most bytes of an iSCSI name. RFC 3720 3.2.6.1.
const ISCSI_NAME_BYTES_MAX: usize = 223;

/// An iSCSI target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// Its name, with `TENANT/` in front where it is not the default tenant's.
    pub name: String,
    /// The name of the tenant whose it is.
    pub tenant: String,
    /// Its iSCSI name, by which initiators know it.
    #[schema(example = "iqn.2026-11.io.aljibe:db")]
    pub iqn: String,
    /// Its number; 0 of the default one before it has shown a volume.
    pub id: u64,
    /// Its relative target port.
    pub port: u16,
    /// Whether it is the one that shows the provider's volumes to initiators on the daemon's machine while there is no other.
    pub is_default: bool,
    /// Its volumes, by LUN.
    pub luns: Vec<TargetLun>,
    /// Who may enter it; nobody else does, but for the default one.
    pub initiators: Vec<TargetInitiator>,
    /// How many sessions it has.
    pub sessions: u64,
    /// When it was made, RFC 3339; absent of the default one before it has shown a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
}

/// A volume of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetLun {
    /// Its number, 0 to 255.
    #[schema(maximum = 255)]
    pub lun: u16,
    /// The volume's name.
    pub volume: String,
    /// The volume's size; absent where its record cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

/// An initiator that may enter a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetInitiator {
    /// Its iSCSI name, or `*` for any.
    pub name: String,
    /// As whom it must say who it is, by CHAP; absent where it need not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap_user: Option<String>,
    /// As whom the target says who it is; absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutual_user: Option<String>,
}

/// Targets, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetList {
    /// In that order.
    pub targets: Vec<Target>,
    /// What gives the next part, as `?cursor=`; absent in the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A target to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTarget {
    /// `NAME` or `TENANT/NAME`, both of `a-z 0-9 . -`, beginning with a letter or digit: they are part of its iSCSI name.
    #[schema(example = "db")]
    pub name: String,
}

/// A volume that a target is to show.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MapVolume {
    /// Its name: one of the target's tenant.
    pub volume: String,
    /// As which LUN, 0 to 255; the next one where nothing is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 255)]
    pub lun: Option<u16>,
}

/// The volume that a LUN is to be.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MapLun {
    /// Its name: one of the target's tenant.
    pub volume: String,
}

/// How an initiator may enter a target, in place of what was said before.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowInitiator {
    /// What it must say who it is by; it need not where nothing is told.
    #[serde(default, deserialize_with = "crate::object::optional", skip_serializing_if = "Option::is_none")]
    pub chap: Option<Chap>,
}

/// What an initiator says who it is by: CHAP, RFC 7143 9.2.1.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Chap {
    /// As whom.
    #[schema(max_length = 255)]
    pub user: String,
    /// By this; never shown again.
    #[schema(min_length = 12, max_length = 255, write_only)]
    pub secret: String,
    /// How the target says who it is; it does not where nothing is told.
    #[serde(default, deserialize_with = "crate::object::optional", skip_serializing_if = "Option::is_none")]
    pub mutual: Option<MutualChap>,
}

/// What a target says who it is by.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MutualChap {
    /// As whom.
    #[schema(max_length = 255)]
    pub user: String,
    /// By this, which is not the initiator's; never shown again.
    #[schema(min_length = 12, max_length = 255, write_only)]
    pub secret: String,
}

/// Names alone: no secret is in a log.
impl fmt::Debug for Chap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chap").field("user", &self.user).field("mutual", &self.mutual).finish_non_exhaustive()
    }
}

impl fmt::Debug for MutualChap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutualChap").field("user", &self.user).finish_non_exhaustive()
    }
}

/// An initiator's name as it stands in a request; whether it is an iSCSI name, the service knows.
///
/// # Errors
/// `invalid_request` for what none can be, which would be in the audit log.
pub(crate) fn initiator_name(text: &str) -> Result<String, ServiceError> {
    let is_name = (1..=ISCSI_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_name {
        return Ok(text.to_owned());
    }
    let detail = format!("an initiator's name has 1 to {ISCSI_NAME_BYTES_MAX} printable characters without spaces");
    Err(ServiceError::new(ErrorCode::InvalidRequest, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P8. What is sent of secrets is not in what is logged.
    #[test]
    fn no_secret_is_shown() {
        let mutual = Some(MutualChap { user: "target".to_owned(), secret: "secret-of-target".to_owned() });
        let chap = Chap { user: "host".to_owned(), secret: "secret-of-host".to_owned(), mutual };
        let shown = format!("{:?}", AllowInitiator { chap: Some(chap) });
        assert!(shown.contains("host") && shown.contains("target") && !shown.contains("secret-of"), "{shown}");
        assert!(initiator_name("iqn.2004-10.com.example:host").is_ok());
        for text in ["", "a b", "a\n", &"x".repeat(224)] {
            assert!(initiator_name(text).is_err(), "{text}");
        }
    }
}
