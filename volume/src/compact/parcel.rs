//! What is left of a segment, as the parcels that it becomes.

use crate::format::{Cut, OperationKind, Parcel, ParcelEntry, ParcelHeader, PartSet, Superblock, parcel_header_blocks};
use crate::pool::{Survivors, left_of};
use crate::recover::SegmentLog;
use units::{Lsn, SegmentId};

/// Where a parcel goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) pack: SegmentId,
    /// How many parcels the pack has.
    pub(crate) parcels: u32,
    pub(crate) block: u32,
    /// The block behind the one where its header ends once more.
    pub(crate) copy_end: u32,
    /// The survivors are those of the map that was complete up to here.
    pub(crate) clean_lsn: Lsn,
    /// What the segment's trims took is nowhere in the pool ([`crate::pool::Index::has_spent_trims`]).
    pub(crate) drops_trims: bool,
    /// Into how many parts the segment is cut, and those that go to packs together.
    pub(crate) cut: Cut,
    pub(crate) parts: PartSet,
}

/// Blocks that parts have at least.
const PART_BLOCKS_MIN: u32 = 16;

/// Into how many parts a segment is cut of which `left` blocks are left: so many that none fills more than about a quarter of
/// a pack. Then packs are full whatever they are filled with; a segment of which more than half is left would else leave the
/// rest of its pack empty. More parts would have more headers: each part has two as long as anything of it is left.
pub(crate) const fn cut_of(left: u32, slot_blocks: u32) -> Cut {
    let mut cut = Cut::WHOLE;
    while left >> cut.log2() > slot_blocks / 4 && slot_blocks >> cut.log2() >= 2 * PART_BLOCKS_MIN {
        match Cut::of_log2(cut.log2() + 1) {
            Some(finer) => cut = finer,
            None => break,
        }
    }
    cut
}

/// Cuts a part of a segment down to its survivors, of which those in `lent` are left for copies alone. What makes holes stays,
/// in the trunk, where an older segment may still hold what it took.
pub(crate) fn parcel_of(
    superblock: &Superblock,
    (log, part): (&SegmentLog, usize),
    (survivors, lent): (&Survivors, &Survivors),
    target: Target,
) -> Parcel {
    let span = target.cut.span(part, superblock.geometry.slot_blocks());
    let keeps = |entry: &ParcelEntry| part == 0 && stays(entry, target.drops_trims);
    let (entries, checks) = left_of(&log.entries, &log.checks, (&survivors.within(span), lent), keeps);
    let header = ParcelHeader {
        block: target.block,
        copy: target.copy_end.saturating_sub(parcel_header_blocks(entries.len(), checks.len())),
        parcels: target.parcels,
        pool: superblock.pool,
        pack: target.pack,
        segment: log.row.segment,
        part: u8::try_from(part).unwrap_or(u8::MAX),
        cut: target.cut,
        parts: target.parts,
        volume: log.row.volume,
        epoch: log.epoch,
        first_lsn: log.row.first_lsn,
        last_lsn: log.last_lsn,
        size_bytes: log.size_at_open.unwrap_or(0),
        clean_lsn: target.clean_lsn,
        chain_before: log.chain_before,
        chain_after: log.chain_after,
        moves: log.row.home.parcels().and_then(|parcels| parcels.of(part)).map_or(0, |place| place.moves) + 1,
    };
    Parcel { header, entries, checks }
}

/// Whether an operation without payload is kept.
const fn stays(entry: &ParcelEntry, drops_trims: bool) -> bool {
    match entry.operation.kind {
        OperationKind::Trim | OperationKind::WriteZeroes => !drops_trims,
        OperationKind::Resize(_) | OperationKind::Snapshot { .. } => true,
        OperationKind::Write | OperationKind::Copy { .. } | OperationKind::Lent | OperationKind::TimeMark { .. } => {
            false
        }
    }
}
