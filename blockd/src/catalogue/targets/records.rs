//! The records of iSCSI targets, of the initiators that may enter them, and of reservations that outlive a restart.
//!
//! A target knows volumes by their lines, so that a rollback changes nothing for those who use it. Spec: `docs/format.md`, "The system
//! volume".

use super::{ChapSecrets, LUN_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use units::TenantId;

/// The record of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalogue) struct TargetRecord {
    /// Its id, which is also the block's number.
    pub(in crate::catalogue) id: u64,
    /// Its name, with `TENANT/` in front where it is not the default tenant's.
    pub(in crate::catalogue) name: String,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "is_default_tenant")]
    pub(in crate::catalogue) tenant: u64,
    /// Its relative target port, which no other target has.
    pub(in crate::catalogue) port: u16,
    /// The lines of its volumes, by LUN. On disk a list, where 0 is a LUN without volume.
    #[serde(with = "by_place")]
    pub(in crate::catalogue) luns: BTreeMap<u16, u64>,
    /// When it was made, milliseconds since 1970.
    pub(in crate::catalogue) created_ms: u64,
    /// Whether it is the one that is there while there is no other.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::catalogue) is_default: bool,
}

/// The record of an initiator that may enter a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalogue) struct InitiatorRecord {
    /// Its id, which is also the block's number.
    pub(in crate::catalogue) id: u64,
    /// The target's.
    pub(in crate::catalogue) target: u64,
    /// Its iSCSI name, or `*` for any.
    pub(in crate::catalogue) name: String,
    /// How it says who it is, when it must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::catalogue) chap: Option<ChapRecord>,
}

/// What CHAP is done with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalogue) struct ChapRecord {
    pub(in crate::catalogue) user: String,
    pub(in crate::catalogue) secret: SecretBytes,
    /// How the target says who it is, when it must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::catalogue) mutual: Option<CredentialRecord>,
}

/// A user and a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalogue) struct CredentialRecord {
    pub(in crate::catalogue) user: String,
    pub(in crate::catalogue) secret: SecretBytes,
}

/// A secret, in hexadecimal digits on disk, and nothing at all in a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(in crate::catalogue) struct SecretBytes(Vec<u8>);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

impl TryFrom<String> for SecretBytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digit = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes = text.as_bytes().chunks(2).map(|pair| if pair.len() == 2 { digit(pair) } else { None });
        bytes.collect::<Option<_>>().map(Self).ok_or_else(|| "a secret is in hexadecimal digits".to_owned())
    }
}

impl From<SecretBytes> for String {
    fn from(secret: SecretBytes) -> Self {
        secret.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl From<ChapSecrets> for ChapRecord {
    fn from(chap: ChapSecrets) -> Self {
        let mutual = chap.mutual.map(|(user, secret)| CredentialRecord { user, secret: SecretBytes(secret) });
        Self { user: chap.user, secret: SecretBytes(chap.secret), mutual }
    }
}

impl From<ChapRecord> for ChapSecrets {
    fn from(record: ChapRecord) -> Self {
        let mutual = record.mutual.map(|mutual| (mutual.user, mutual.secret.0));
        Self { user: record.user, secret: record.secret.0, mutual }
    }
}

/// A part of the record of a volume's reservations. The parts of one have ids one behind the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::catalogue) struct ReservationRecord {
    /// Its id, which is also the block's number.
    pub(in crate::catalogue) id: u64,
    /// The volume's line.
    pub(in crate::catalogue) volume: u64,
    /// `PRGENERATION`, SPC-4 5.12.
    pub(in crate::catalogue) generation: u32,
    /// Which part this is, from 0.
    pub(in crate::catalogue) part: u16,
    /// How many there are.
    pub(in crate::catalogue) parts: u16,
    /// Who is registered.
    pub(in crate::catalogue) registrations: Vec<KeptNexus>,
    /// The type of the reservation, when there is one.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub(in crate::catalogue) reservation: Option<u8>,
}

/// An initiator that is registered with a volume by a port of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptNexus {
    /// The initiator's iSCSI name.
    pub initiator: String,
    /// The initiator's part of its session's id, in hexadecimal digits.
    pub isid: String,
    /// The relative target port.
    pub port: u16,
    /// The key that it has registered.
    #[serde(with = "as_digits")]
    pub key: u64,
    /// Whether it holds the reservation.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_holder: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde wants")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde wants")]
const fn is_default_tenant(number: &u64) -> bool {
    *number == TenantId::DEFAULT.0
}

/// LUNs as a list of lines: half as long as pairs are, so that 256 fit in a block.
mod by_place {
    use super::{BTreeMap, LUN_MAX};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(luns: &BTreeMap<u16, u64>, serializer: S) -> Result<S::Ok, S::Error> {
        let end = luns.last_key_value().map_or(0, |(lun, _)| *lun + 1);
        let lines: Vec<u64> = (0..end).map(|lun| luns.get(&lun).copied().unwrap_or(0)).collect();
        lines.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<u16, u64>, D::Error> {
        let lines = Vec::<u64>::deserialize(deserializer)?;
        Ok((0..=LUN_MAX).zip(lines).filter(|(_, line)| *line != 0).collect())
    }
}

/// A number in hexadecimal digits: those who read JSON elsewhere keep 53 bits of one.
mod as_digits {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde wants")]
    pub(super) fn serialize<S: Serializer>(key: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{key:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let digits = String::deserialize(deserializer)?;
        u64::from_str_radix(&digits, 16).map_err(D::Error::custom)
    }
}
