//! Checks a pool and its index at rest: everything that ought to hold, and nothing is changed.
//!
//! Superblocks; each slot's header against the index; each segment's batches, chain and footer; the end of each log as
//! recovery would find it; the stored maps against a replay of the log; live counts against a recount; and, where asked
//! for, every mapped block against its check value. Takes memory for the map of the largest volume.

mod lineage;
mod map;
mod packs;
mod segments;

use crate::format::{SUPERBLOCK_OFFSETS, Superblock};
use crate::pool::Index;
use crate::recover::{Probed, probe};
use crate::store::{PoolReader, Store};
use std::fmt;
use units::{BLOCK_LEN, SegmentId, SlotIndex, VolumeId};

/// Most problems that are told one by one.
const PROBLEMS_MAX: usize = 1000;

/// What to check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Reads every mapped block, too.
    pub verify_data: bool,
}

/// What a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// A superblock.
    Superblock,
    /// A slot: whose it is, or what its header says.
    Slot,
    /// A segment's batches or footer, or the order of segments.
    Log,
    /// A stored page of the map.
    Map,
    /// What a volume inherits.
    Lineage,
    /// A segment's live count.
    LiveCount,
    /// The content of a mapped block.
    Data,
}

/// Something that ought not to be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is about.
    pub kind: ProblemKind,
    /// Whose volume it harms.
    pub volume: Option<VolumeId>,
    /// What is wrong and where, and what to do.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.volume {
            Some(volume) => write!(f, "volume {volume}: {}", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// The first problems.
    pub problems: Vec<Problem>,
    /// How many there are.
    pub problem_count: u64,
    /// Volumes looked at.
    pub volumes: u64,
    /// Segments looked at.
    pub segments: u64,
    /// Operations in them.
    pub operations: u64,
    /// Stored pages looked at.
    pub pages: u64,
    /// Blocks that the stored maps name.
    pub mapped_blocks: u64,
    /// Blocks whose content was checked.
    pub verified_blocks: u64,
}

impl CheckReport {
    /// Whether all is as it ought to be.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    fn add(&mut self, kind: ProblemKind, volume: Option<VolumeId>, detail: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { kind, volume, detail: detail.into() });
        }
    }
}

/// Checks all of a pool.
pub fn check<S: Store>(index: &Index<S>, reader: &dyn PoolReader, options: CheckOptions) -> CheckReport {
    let mut report = CheckReport::default();
    check_superblocks(index.superblock(), reader, &mut report);
    check_slots(index, reader, &mut report);
    packs::check(index, reader, &mut report);
    lineage::check(index, &mut report);
    // Of one that is being erased a part may be gone.
    for volume in index.volumes().into_iter().filter(|volume| !index.is_being_erased(*volume)) {
        report.volumes += 1;
        let replayed = segments::check(index, reader, volume, &mut report);
        if lineage::has_map(index, volume) {
            map::check(index, reader, (volume, options), replayed, &mut report);
        }
    }
    report
}

fn check_superblocks(superblock: &Superblock, reader: &dyn PoolReader, report: &mut CheckReport) {
    for offset in SUPERBLOCK_OFFSETS {
        let mut block = vec![0; BLOCK_LEN];
        if let Err(fault) = reader.read_at(offset, &mut block) {
            report.add(ProblemKind::Superblock, None, format!("superblock at {offset}: {fault}: look at the disk"));
            continue;
        }
        // The second copy is written with the second start.
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        match Superblock::decode(&block) {
            Ok(found) if found.pool == superblock.pool && found.geometry == superblock.geometry => {}
            Ok(found) => {
                let detail = format!("superblock at {offset} is of pool {}: the next start writes it anew", found.pool);
                report.add(ProblemKind::Superblock, None, detail);
            }
            Err(fault) => {
                let detail = format!("superblock at {offset}: {fault}: the next start but one writes it anew");
                report.add(ProblemKind::Superblock, None, detail);
            }
        }
    }
}

/// A free slot must hold no segment that counts: a rebuild would take it for one. Headers of used slots are looked at
/// with their segments.
fn check_slots<S: Store>(index: &Index<S>, reader: &dyn PoolReader, report: &mut CheckReport) {
    let used = index.used_slots();
    for slot in index.kept_slots() {
        let detail = format!(
            "slot {slot} is kept out of use, since it cannot be told what it holds: look at the \
             disk, then run `aljibe pool rebuild`"
        );
        report.add(ProblemKind::Slot, None, detail);
    }
    let is_kept = |slot: SlotIndex| index.kept_slots().any(|kept| kept == slot);
    for slot in (0..index.superblock().geometry.slot_count).map(SlotIndex) {
        if used.contains(&slot) || is_kept(slot) {
            continue;
        }
        let (volume, what) = match probe(reader, index.superblock(), slot) {
            Probed::Segment(row) => (Some(row.volume), format!("holds segment {}, which the index lacks", row.segment)),
            Probed::Pack(pack) => (None, format!("holds pack {pack}, which the index lacks")),
            Probed::Unreadable => (None, "cannot be read: look at the disk".to_owned()),
            Probed::Void(segment) if segment >= index.next_segment() => {
                (None, format!("held segment {segment}, an id that is to come: run `aljibe pool rebuild`"))
            }
            Probed::Void(_) | Probed::Damaged | Probed::Nothing => continue,
        };
        report.add(ProblemKind::Slot, volume, format!("free slot {slot} {what}"));
    }
}

fn segment_of_slot(segment: SegmentId, slot: SlotIndex) -> String {
    format!("segment {segment} in slot {slot}")
}

#[cfg(test)]
mod tests;
