//! What the API shows and takes. Members are only ever added within v1.

use crate::error::{ErrorCode, ServiceError};
use crate::page::Place;
use crate::size::{InvalidSize, VolumeSize};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// Its name, which is also its NBD export's: `TENANT/NAME`, or `NAME` alone of the default tenant.
    pub name: String,
    /// Whose it is.
    #[serde(default)]
    pub tenant: String,
    /// Its number in the pool, never used again.
    pub id: u64,
    /// Its size as asked for.
    pub size_bytes: u64,
    /// The snapshot that it began as, `VOLUME@NAME`; absent when it began empty, or that has no name any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// How many snapshots it has.
    #[serde(default)]
    pub snapshots: u64,
    /// Bytes that hold data in the volume as it is now, written here or before it was cloned: mapped blocks times 4096.
    /// Absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
    /// Bytes of it that it has overwritten or trimmed, and that are kept for its snapshots and clones. Absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_bytes: Option<u64>,
    /// Bytes of the pool that it takes, with its snapshots; what it shares with what it was cloned from is counted there.
    /// Absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_bytes: Option<u64>,
    /// For how long its past is kept, and what there is of that; absent when it is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<VolumeHistory>,
    /// Its storage class.
    #[serde(default)]
    pub class: String,
    /// What may be asked of it in a second; absent when it has no ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<VolumeQos>,
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

/// The past of a volume, of which clones can be made as it was at any second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeHistory {
    /// For so many seconds it is kept.
    pub seconds: u64,
    /// Most bytes that it may hold before the oldest goes; absent where that is the volume's size, or eight slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Bytes that it holds and nothing else does, as they were counted some seconds ago.
    pub bytes: u64,
    /// The first second that it reaches back to; absent when there is none yet, or space ran short. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
}

/// For how long the past of a volume is to be kept. What is absent stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepHistory {
    /// For so many seconds; 0 ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 86400)]
    pub seconds: Option<u64>,
    /// Most bytes that it may hold before the oldest goes; 0 for as many as the volume has, or eight slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
}

/// What may be asked of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeQos {
    /// Of operations; absent without such a ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<CeilingStatus>,
    /// Of bytes read and written; absent without such a ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<CeilingStatus>,
    /// An operation counts once for each so many bytes that it reads or writes; absent where it always counts once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_bytes: Option<u64>,
    /// Requests that waited for a ceiling since the start, the volume's or its tenant's.
    pub throttled_requests: u64,
    /// Milliseconds that they did, added up.
    pub throttled_ms: u64,
}

/// A ceiling, and what is left of its credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CeilingStatus {
    /// What may pass in a second, for as long as one likes.
    pub rate: u64,
    /// Credits that are saved at most while less passes: what may pass at once then.
    pub burst: u64,
    /// Credits that are left; below 0, what is owed for a request that was larger. Absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<i64>,
    /// Seconds until they are used up, if twice the rate is asked for from now on. Absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts_seconds: Option<u64>,
}

/// What may be asked of a volume from now on. What is absent stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetQos {
    /// Operations a second, 10 at least; 0 for no ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 3000)]
    pub iops: Option<u64>,
    /// Operations that are saved at most while fewer are asked for; where none is told with a new `iops`, those of a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 540_000)]
    pub iops_burst: Option<u64>,
    /// Bytes a second, read and written, 1 MiB at least; 0 for no ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 131_072_000)]
    pub bandwidth_bytes: Option<u64>,
    /// Bytes that are saved at most; where none is told with a new `bandwidth_bytes`, those of a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_burst_bytes: Option<u64>,
    /// Has an operation count once for each so many bytes, 16 KiB at least; 0 for once, whatever its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_bytes: Option<u64>,
}

/// A volume to be made that begins as another one was at a second of its history.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneMoment {
    /// The new volume's name.
    #[schema(
        example = "vm-101-disk-0",
        max_length = 257,
        pattern = "^([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$"
    )]
    pub name: String,
    /// The second, in UTC, RFC 3339.
    #[schema(example = "2026-11-24T03:15:07Z")]
    pub at: String,
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
    /// What gives the next part, as `?cursor=`; absent in the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A snapshot: a volume as it was at one moment, never to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// `VOLUME@NAME`, which is also its NBD export's name.
    pub name: String,
    /// The volume's name.
    pub volume: String,
    /// Whose it is.
    #[serde(default)]
    pub tenant: String,
    /// Its number in the pool, never used again.
    pub id: u64,
    /// The volume's size at that moment.
    pub size_bytes: u64,
    /// The moment. RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub taken_at: Timestamp,
    /// What the group is called that it was taken with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Bytes that nothing but this snapshot holds: what deleting it gives back. Absent when it was not asked for, or is not
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_bytes: Option<u64>,
    /// The volumes that began as it, and keep it from being deleted.
    pub clones: Vec<String>,
    /// Why it cannot be read; absent when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    /// Where NBD clients find it.
    pub nbd_uris: Vec<String>,
}

/// Snapshots, by the names of their volumes, then in the order in which they were taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    /// In that order.
    pub snapshots: Vec<Snapshot>,
    /// What gives the next part, as `?cursor=`; absent in the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Snapshots to be taken at one point, all or none; of one volume each.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshots {
    /// From 1 to 64, as `VOLUME@NAME`.
    #[schema(example = json!(["vm-100-disk-0@monday", "vm-100-disk-1@monday"]))]
    pub snapshots: Vec<String>,
    /// What the group of them is called: 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "nightly")]
    pub group: Option<String>,
}

/// A volume to be made that begins as a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneSnapshot {
    /// The new volume's name.
    #[schema(
        example = "vm-101-disk-0",
        max_length = 257,
        pattern = "^([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$"
    )]
    pub name: String,
}

/// Where a volume is to go back to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackVolume {
    /// The name of one of its snapshots, without the volume's.
    #[schema(example = "monday")]
    pub snapshot: String,
    /// Whether attached clients are cut off first.
    #[serde(default)]
    pub force: bool,
}

/// A volume that went back to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolledBack {
    /// It, as it is now.
    pub volume: Volume,
    /// The snapshot that shows it as it was before: rolling back to it undoes this.
    pub undo: Snapshot,
}

/// Snapshots whose deletion is thought through.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReclaimSnapshots {
    /// As `VOLUME@NAME`, at least one.
    #[schema(example = json!(["vm-100-disk-0@monday", "vm-100-disk-0@tuesday"]))]
    pub snapshots: Vec<String>,
}

/// What the deletion of snapshots would give back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reclaimed {
    /// The snapshots.
    pub snapshots: Vec<String>,
    /// Bytes that they hold together and nothing else does. What is written meanwhile is counted as it is found.
    pub reclaim_bytes: u64,
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
    /// `NAME` or `TENANT/NAME`, each 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
    #[schema(
        example = "vm-100-disk-0",
        max_length = 257,
        pattern = "^([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$"
    )]
    pub name: String,
    /// Its size, a multiple of 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Its size with a unit, powers of 1024: `10G`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10G")]
    pub size: Option<String>,
    /// The image that it begins as. Without a size it is as large as that. A name without a tenant's is looked for in the
    /// volume's own tenant first, then among the images that are shared with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "debian-12")]
    pub image: Option<String>,
    /// For how long its past is kept; as its class says when it is not told.
    #[serde(default, deserialize_with = "crate::object::optional", skip_serializing_if = "Option::is_none")]
    pub history: Option<KeepHistory>,
    /// Its storage class; the default one when it is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "gold")]
    pub class: Option<String>,
}

/// A volume's new size. Exactly one of `size_bytes` and `size` is given.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeVolume {
    /// The size, a multiple of 4096.
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

/// The versions of the API that the daemon speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Versions {
    /// The program's version.
    pub program: String,
    /// The oldest first.
    pub versions: Vec<ApiVersion>,
}

/// A version of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiVersion {
    /// What it is called.
    #[schema(example = "v1")]
    pub version: String,
    /// What its paths begin with.
    #[schema(example = "/v1")]
    pub path: String,
    /// The path of its OpenAPI document.
    #[schema(example = "/v1/openapi.json")]
    pub document: String,
}

impl Snapshot {
    /// Where it stands in lists.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { name: self.volume.clone(), number: self.id }
    }
}

impl CreateVolume {
    /// The size asked for.
    ///
    /// # Errors
    /// `invalid_request` unless exactly one is given, `invalid_size` when it is none that a volume can have.
    pub fn requested_size(&self) -> Result<VolumeSize, ServiceError> {
        one_size(self.size_bytes, self.size.as_deref())
    }

    /// The size asked for of a volume that begins as an image, when one is.
    ///
    /// # Errors
    /// As of [`CreateVolume::requested_size`].
    pub fn requested_image_size(&self) -> Result<Option<VolumeSize>, ServiceError> {
        if self.size_bytes.is_none() && self.size.is_none() { Ok(None) } else { self.requested_size().map(Some) }
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
