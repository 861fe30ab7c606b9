//! What clients ask next.

use crate::oracle::{Area, BLOCK_SECTORS};
use crate::plan::{Plan, Profile};
use crate::random::Random;
use std::ops::Range;
use units::{SECTOR_BYTES, VolumeId};
use volume::request::COMPARE_BYTES_MAX;

/// A client's wish. Ranges are of sectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Read.
    Read(Range<u64>),
    /// Write.
    Write {
        /// Where.
        sectors: Range<u64>,
        /// Whether to wait for stable storage.
        is_fua: bool,
    },
    /// Compare and write.
    CompareAndWrite {
        /// Where.
        sectors: Range<u64>,
        /// Whether to wait for stable storage.
        is_fua: bool,
        /// The byte of the range that is expected to be what it is not.
        wrong_at: Option<u64>,
    },
    /// Set bits.
    OrWrite {
        /// Where.
        sectors: Range<u64>,
        /// Whether to wait for stable storage.
        is_fua: bool,
        /// Whether to set any.
        sets: bool,
    },
    /// Copy whole blocks within the volume.
    Copy {
        /// From where.
        source: Range<u64>,
        /// To where.
        target: Range<u64>,
        /// Whether to wait for stable storage.
        is_fua: bool,
    },
    /// Tell where whole blocks are, for another volume to borrow.
    Lend {
        /// What.
        source: Range<u64>,
        /// How far behind, or before, they are to be there.
        by: i64,
    },
    /// Borrow what another volume has lent.
    Borrow {
        /// To where.
        target: Range<u64>,
    },
    /// Trim, or write zeroes.
    Zero {
        /// Where.
        sectors: Range<u64>,
        /// Whether to wait for stable storage.
        is_fua: bool,
        /// Trim if not set.
        is_write_zeroes: bool,
    },
    /// Flush.
    Flush,
    /// Bring near.
    Cache(Range<u64>),
    /// Tell the extents.
    Extents(Range<u64>, usize),
    /// Resize to so many bytes.
    Resize {
        /// The new size.
        size_bytes: u64,
        /// Whether data beyond it may go.
        discard_tail: bool,
    },
    /// Checkpoint.
    Checkpoint,
    /// Tell up to when what was used is known.
    Meter,
    /// Take a snapshot of this id.
    Snapshot(VolumeId),
    /// Flush, so that the snapshot of this id can be recorded.
    FlushFor(VolumeId),
    /// Be still, for the snapshots of a group.
    Hold,
    /// Go on.
    Release,
}

impl Wish {
    /// What it may change.
    #[must_use]
    pub fn changed(&self) -> Option<Range<u64>> {
        match self {
            Self::Write { sectors, .. }
            | Self::CompareAndWrite { sectors, .. }
            | Self::OrWrite { sectors, .. }
            | Self::Zero { sectors, .. } => Some(sectors.clone()),
            Self::Copy { target, .. } | Self::Borrow { target } => Some(target.clone()),
            Self::Resize { size_bytes, .. } => Some(size_bytes / SECTOR_BYTES..u64::MAX),
            Self::Read(_)
            | Self::Lend { .. }
            | Self::Flush
            | Self::Cache(_)
            | Self::Extents(..)
            | Self::Checkpoint
            | Self::Meter
            | Self::Snapshot(_)
            | Self::FlushFor(_)
            | Self::Hold
            | Self::Release => None,
        }
    }
}

/// Draws the next wish of a client of a volume of `size_bytes`.
pub fn next_wish(plan: &Plan, volume: usize, size_bytes: u64, random: &mut Random) -> Wish {
    let area = *random.pick(&plan.volumes[volume].areas);
    if plan.profile == Profile::Chain {
        return chain_wish(area, random);
    }
    let is_fua = random.chance(80);
    if random.chance(plan.trims) {
        let sectors = any_zero_range(plan, volume, area, size_bytes, random);
        return Wish::Zero { sectors, is_fua, is_write_zeroes: random.chance(400) };
    }
    if random.chance(plan.flushes) {
        return Wish::Flush;
    }
    match random.below(1000) {
        0..280 => Wish::Read(any_range(plan, area, random)),
        280..300 => {
            Wish::Extents(any_zero_range(plan, volume, area, size_bytes, random), random.within(1, 20) as usize)
        }
        300..310 => Wish::Cache(any_range(plan, area, random)),
        310..320 => Wish::Checkpoint,
        320..330 => any_resize(plan, volume, size_bytes, random),
        330..335 => {
            let end = size_bytes / SECTOR_BYTES;
            Wish::Read(end.saturating_sub(3)..end + random.within(1, 8))
        }
        335..400 => any_compare(plan, area, is_fua, random),
        400..430 => Wish::OrWrite { sectors: any_range(plan, area, random), is_fua, sets: random.chance(500) },
        430..500 => any_copy(plan, volume, is_fua, random),
        _ => Wish::Write { sectors: any_range(plan, area, random), is_fua },
    }
}

/// A compare-and-write of no more than a slot and the rules allow, now and then of what is not there.
fn any_compare(plan: &Plan, area: Area, is_fua: bool, random: &mut Random) -> Wish {
    let Range { start, end } = any_range(plan, area, random);
    let blocks_max = plan.geometry.slot_bytes / (SECTOR_BYTES * BLOCK_SECTORS) - 4;
    let fits = (start / BLOCK_SECTORS + blocks_max) * BLOCK_SECTORS;
    let sectors = start..end.min(fits).min(start + COMPARE_BYTES_MAX / SECTOR_BYTES);
    let wrong_at = random.chance(250).then(|| random.below((sectors.end - start) * SECTOR_BYTES));
    Wish::CompareAndWrite { sectors, is_fua, wrong_at }
}

/// A copy from one place that clients write to another; a flush where there is no such.
fn any_copy(plan: &Plan, volume: usize, is_fua: bool, random: &mut Random) -> Wish {
    let areas = &plan.volumes[volume].areas;
    let (from, to) = (*random.pick(areas), *random.pick(areas));
    let most = if random.chance(100) { 300 } else { 8 };
    let blocks = random.within(1, most).min(from.sectors / BLOCK_SECTORS);
    let blocks = blocks.min(to.sectors / BLOCK_SECTORS);
    let any = |area: Area, random: &mut Random| {
        let first = random.below(area.sectors / BLOCK_SECTORS - blocks + 1);
        let first = area.first_sector + first * BLOCK_SECTORS;
        first..first + blocks * BLOCK_SECTORS
    };
    let (source, target) = (any(from, random), any(to, random));
    let overlaps = source.start < target.end && target.start < source.end;
    if plan.volumes.len() > 1 && random.chance(400) {
        let by = target.start.cast_signed() - source.start.cast_signed();
        return Wish::Lend { source, by };
    }
    if overlaps { Wish::Flush } else { Wish::Copy { source, target, is_fua } }
}

/// Draws the next wish of a client that only looks.
pub fn next_look(plan: &Plan, volume: usize, random: &mut Random) -> Wish {
    let area = *random.pick(&plan.volumes[volume].areas);
    let range = any_range(plan, area, random);
    match random.below(10) {
        0 => Wish::Extents(range, random.within(1, 20) as usize),
        1 => Wish::Cache(range),
        _ => Wish::Read(range),
    }
}

/// A write of a block or two, or one that fills a segment; seldom a flush.
fn chain_wish(area: Area, random: &mut Random) -> Wish {
    if random.chance(20) {
        return Wish::Flush;
    }
    let blocks = *random.pick(&[1, 2, 11, 12]);
    let first = area.first_sector + random.below(area.sectors / BLOCK_SECTORS - blocks) * BLOCK_SECTORS;
    Wish::Write { sectors: first..first + blocks * BLOCK_SECTORS, is_fua: false }
}

/// A range of an area: whole blocks, single sectors, or across blocks; now and then long.
fn any_range(plan: &Plan, area: Area, random: &mut Random) -> Range<u64> {
    let blocks = area.sectors / BLOCK_SECTORS;
    let unaligned = if plan.profile == Profile::Atomicity { 600 } else { 300 };
    // A few hot blocks, so that requests meet.
    let first_block = if random.chance(400) { random.below(blocks.min(4)) } else { random.below(blocks) };
    let (first, len) = if random.chance(60) {
        (first_block * BLOCK_SECTORS, random.within(8, 320) * BLOCK_SECTORS + random.below(2) * random.below(9))
    } else if random.chance(unaligned) {
        (first_block * BLOCK_SECTORS + random.below(BLOCK_SECTORS), random.within(1, 30))
    } else {
        (first_block * BLOCK_SECTORS, random.within(1, 6) * BLOCK_SECTORS)
    };
    let end = (first + len).min(area.sectors);
    area.first_sector + first..area.first_sector + end.max(first + 1)
}

/// A range to zero or look at: part of an area, all of it, or as much of the volume as there is.
fn any_zero_range(plan: &Plan, volume: usize, area: Area, size_bytes: u64, random: &mut Random) -> Range<u64> {
    let end = size_bytes / SECTOR_BYTES;
    match random.below(100) {
        0..60 => any_range(plan, area, random),
        60..80 => area.first_sector..area.first_sector + area.sectors,
        80..90 => 0..end.max(1),
        _ => {
            let other = *random.pick(&plan.volumes[volume].areas);
            let from = area.first_sector + random.below(area.sectors);
            let to = other.first_sector + random.below(other.sectors);
            from.min(to)..from.max(to) + 1
        }
    }
}

fn any_resize(plan: &Plan, volume: usize, size_bytes: u64, random: &mut Random) -> Wish {
    let block = SECTOR_BYTES * BLOCK_SECTORS;
    let planned = plan.volumes[volume].size_bytes;
    let area = *random.pick(&plan.volumes[volume].areas);
    let inside = (area.first_sector + random.below(area.sectors)) / BLOCK_SECTORS * block;
    let size_bytes = match random.below(4) {
        0 => inside.max(block),
        1 => size_bytes + block * random.within(1, 100),
        _ => planned,
    };
    Wish::Resize { size_bytes, discard_tail: random.chance(500) }
}
