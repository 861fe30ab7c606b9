//! What the API shows and takes of scrubs. Members are only ever added within v1.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far a scrub of the pool is, and what it found: of the last one where none is under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Scrub {
    /// Whether one is under way.
    pub is_running: bool,
    /// Whether it keeps to the daemon's scrub rate.
    pub is_paced: bool,
    /// When it began. RFC 3339. Absent where there never was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub begun_at: Option<Timestamp>,
    /// When it ended. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// How long it has worked, as of a few seconds ago.
    pub seconds: f64,
    /// Slots that it reads.
    pub slots_total: u64,
    /// Those that it has read.
    pub slots_done: u64,
    /// Segments that it has read.
    pub segments: u64,
    /// Blocks of data that it has checked, live or not.
    pub blocks: u64,
    /// Blocks, of data or of what tells of it, that do not hold what was written.
    pub rotten_blocks: u64,
    /// Blocks that the disk does not give.
    pub unreadable_blocks: u64,
    /// The first 1,000 of both.
    pub findings: Vec<ScrubFinding>,
}

/// A bad block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubFinding {
    /// The volume whose it is; absent when it has been deleted, or is the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// That volume's number.
    pub volume_id: u64,
    /// The segment, or of a pack's header the pack.
    pub segment: u64,
    /// The slot that it is in.
    pub slot: u32,
    /// The block of the slot.
    pub block: u32,
    /// What it is for: `header`, `batch`, `footer`, `parcel` or `payload`.
    #[schema(example = "payload")]
    pub part: String,
    /// Whether the disk does not give it; if it does, it is not what was written.
    pub is_unreadable: bool,
    /// Of payload: where in the volume it was written, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset_bytes: Option<u64>,
    /// Of payload: whether the volume or a snapshot of it still has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_live: Option<bool>,
}

/// How a scrub is to be begun.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginScrub {
    /// As fast as the disk gives, also where one is under way.
    #[serde(default)]
    pub now: bool,
}
