//! What the API shows of what two states of a volume differ in. Members are only ever added within v1.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A part of what a later snapshot, or a volume as it is now, has that a snapshot has not.
///
/// A block differs when it has been written, zeroed or trimmed in between, with the same content too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotDiff {
    /// The snapshot, `VOLUME@NAME`.
    pub since: String,
    /// Its number: the same in every part, unless another has its name since.
    pub since_id: u64,
    /// What it is compared with, `VOLUME@NAME` or `VOLUME`.
    pub to: String,
    /// The number of that.
    pub to_id: u64,
    /// The size of that. What the snapshot has beyond is not told.
    pub size_bytes: u64,
    /// What differs, by offset: all of it from where this part begins to where the next one does.
    pub extents: Vec<DiffExtent>,
    /// Where the next part begins; absent when this is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<u64>,
}

/// Bytes that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffExtent {
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub length: u64,
    /// What is there now.
    pub kind: DiffKind,
}

/// What is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiffKind {
    /// Data, to be read.
    Data,
    /// A hole, which reads as zeros.
    Zero,
}
