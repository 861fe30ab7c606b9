//! What a scrub tells.

use serde::{Deserialize, Serialize};
use volume::scrub::{BadBlock, Badness};

/// Most findings that are kept one by one.
const FINDINGS_MAX: usize = 1000;

/// How far a pass of the scrub is, and what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Whether a pass is under way.
    pub is_running: bool,
    /// Whether it was told to end before its end.
    #[serde(default)]
    pub is_cancelled: bool,
    /// Whether it keeps the pace.
    pub is_paced: bool,
    /// When the pass began, milliseconds since 1970; none where there never was one.
    pub begun_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// How long it has worked, without the time that the daemon was stopped.
    pub active_ms: u64,
    /// Slots that held segments when it began, or went on after a restart.
    pub slots_total: u64,
    /// Those that have been read.
    pub slots_done: u64,
    /// The next slot that is to be read.
    pub next_slot: u32,
    /// Segments that have been read.
    pub segments: u64,
    /// Payload blocks that have been checked.
    pub blocks: u64,
    /// Blocks that are not what was written, of any use.
    pub rotten_count: u64,
    /// Blocks that the disk does not give.
    pub unreadable_count: u64,
    /// The first of them.
    pub findings: Vec<ScrubFinding>,
}

/// A bad block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubFinding {
    /// Whose.
    pub volume: u64,
    /// Of which segment, or pack.
    pub segment: u64,
    /// The slot where it is.
    pub slot: u32,
    /// The block of the slot.
    pub block: u32,
    /// What it is for: `header`, `batch`, `footer`, `parcel` or `payload`.
    pub part: String,
    /// Whether the disk does not give it; if it does, it is not what was written.
    pub is_unreadable: bool,
    /// Of payload: the volume's block that it was written for.
    pub volume_block: Option<u64>,
    /// Of payload: whether the volume or a snapshot of it still has it. Not known where the index cannot be read.
    pub is_live: Option<bool>,
}

impl ScrubReport {
    /// One of a pass that begins.
    pub(super) fn begun(now_ms: u64) -> Self {
        Self { is_running: true, begun_ms: Some(now_ms), ..Self::default() }
    }

    pub(super) fn add(&mut self, found: &BadBlock, is_live: Option<bool>) {
        let is_unreadable = found.badness == Badness::Unreadable;
        if is_unreadable {
            self.unreadable_count += 1;
        } else {
            self.rotten_count += 1;
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(ScrubFinding {
                volume: found.volume.0,
                segment: found.segment.0,
                slot: found.slot.0,
                block: found.block,
                part: found.part.to_string(),
                is_unreadable,
                volume_block: found.written_as.map(|(block, _)| block.0),
                is_live,
            });
        }
    }
}
