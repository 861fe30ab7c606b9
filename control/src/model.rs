//! What the API shows and takes. Members are only ever added within v1.

use crate::error::{ErrorCode, ServiceError};
use crate::size::{InvalidSize, VolumeSize};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// Its name, which is also its NBD export's.
    pub name: String,
    /// Its number in the pool, never used again.
    pub id: u64,
    /// Its size as asked for.
    pub size_bytes: u64,
    /// Bytes that hold data: mapped blocks times 4096. Absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
    /// Whether it serves.
    pub state: VolumeState,
    /// Why it does not serve fully; absent while it is online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    /// Clients attached now.
    pub connections: u64,
    /// The shard that serves it.
    pub shard: u32,
    /// When it was made. RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Where NBD clients find it.
    pub nbd_uris: Vec<String>,
}

/// Whether a volume serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// It serves.
    Online,
    /// The disk failed to make its writes durable: it is read, and takes no writes until it is opened anew.
    Poisoned,
    /// It was found damaged and does not serve; the others do.
    Quarantined,
}

/// Every volume, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeList {
    /// In the order of their names.
    pub volumes: Vec<Volume>,
}

/// The pool that the volumes' logs are in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// The file or device.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Its slots by use.
    pub slots: Slots,
    /// Segments that hold data.
    pub segments: u64,
    /// What compaction has done since the start.
    #[serde(default)]
    pub compaction: Compaction,
    /// Volumes in it, without the system's own.
    pub volumes: u64,
    /// Whether it takes writes.
    pub state: PoolState,
    /// Why it does not; absent while it is online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    /// The generation of the pool and its index: one more with each start.
    pub index_generation: u64,
}

/// A pool's slots: `free + reserved + used <= total`, the rest holding the pool's own records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Slots {
    /// All of them.
    pub total: u64,
    /// Open to new data.
    pub free: u64,
    /// Free, but kept for trims, metadata and compaction.
    pub reserved: u64,
    /// Holding segments.
    pub used: u64,
}

/// What compaction has done since the start: it moves what little is left of slots, and gives these back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Compaction {
    /// Slots that were filled with what was left of others.
    pub packs_written: u64,
    /// Segments moved.
    pub segments_moved: u64,
    /// Bytes of data copied for that.
    pub bytes_moved: u64,
    /// Times that it was given up; nothing is lost by that.
    pub rounds_given_up: u64,
    /// Segments that are not moved, since the disk does not give what was written.
    pub suspects: u64,
    /// Why it was given up last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Whether a pool takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolState {
    /// It does.
    Online,
    /// No slot is free for data: reads, trims and deletes go on.
    Full,
    /// The disk fails.
    Failed,
}

/// A volume to be made. Exactly one of `size_bytes` and `size` is given.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
    #[schema(example = "vm-100-disk-0", max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    pub name: String,
    /// Its size, a multiple of 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Its size with a unit, powers of 1024: `10G`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10G")]
    pub size: Option<String>,
}

/// A volume's new size. Exactly one of `size_bytes` and `size` is given.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeVolume {
    /// The size, a multiple of 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The size with a unit, powers of 1024: `10G`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "20G")]
    pub size: Option<String>,
    /// Whether data beyond a smaller size is thrown away.
    #[serde(default)]
    pub discard_tail: bool,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// `ok`.
    pub status: String,
    /// The program's version.
    pub version: String,
}

impl CreateVolume {
    /// The size asked for.
    ///
    /// # Errors
    /// `invalid_request` unless exactly one is given, `invalid_size` when it is none that a volume can have.
    pub fn requested_size(&self) -> Result<VolumeSize, ServiceError> {
        one_size(self.size_bytes, self.size.as_deref())
    }
}

impl ResizeVolume {
    /// The size asked for.
    ///
    /// # Errors
    /// As of [`CreateVolume::requested_size`].
    pub fn requested_size(&self) -> Result<VolumeSize, ServiceError> {
        one_size(self.size_bytes, self.size.as_deref())
    }
}

fn one_size(bytes: Option<u64>, text: Option<&str>) -> Result<VolumeSize, ServiceError> {
    let size: Result<VolumeSize, InvalidSize> = match (bytes, text) {
        (Some(bytes), None) => VolumeSize::from_bytes(bytes),
        (None, Some(text)) => text.parse(),
        (None, None) | (Some(_), Some(_)) => {
            let detail = "give exactly one of \"size_bytes\" (a number) and \"size\" (a text such as \"10G\")";
            return Err(ServiceError::new(ErrorCode::InvalidRequest, detail));
        }
    };
    Ok(size?)
}

impl fmt::Display for VolumeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "online",
            Self::Poisoned => "poisoned",
            Self::Quarantined => "quarantined",
        })
    }
}

impl fmt::Display for PoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "online",
            Self::Full => "full",
            Self::Failed => "failed",
        })
    }
}
