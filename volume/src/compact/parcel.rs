//! What is left of a segment, as the parcel that it becomes.

use crate::format::{OperationKind, Parcel, ParcelEntry, ParcelHeader, Superblock, parcel_header_blocks};
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
}

/// Cuts a segment down to its survivors. What makes holes stays where an older segment may still hold what it took.
pub(crate) fn parcel_of(superblock: &Superblock, log: &SegmentLog, survivors: &Survivors, target: Target) -> Parcel {
    let (entries, checks) = left_of(&log.entries, &log.checks, survivors, |entry| stays(entry, target.drops_trims));
    let header = ParcelHeader {
        block: target.block,
        copy: target.copy_end.saturating_sub(parcel_header_blocks(entries.len(), checks.len())),
        parcels: target.parcels,
        pool: superblock.pool,
        pack: target.pack,
        segment: log.row.segment,
        volume: log.row.volume,
        epoch: log.epoch,
        first_lsn: log.row.first_lsn,
        last_lsn: log.last_lsn,
        size_bytes: log.size_at_open.unwrap_or(0),
        clean_lsn: target.clean_lsn,
        chain_before: log.chain_before,
        chain_after: log.chain_after,
        moves: log.row.parcel.map_or(0, |parcel| parcel.moves) + 1,
    };
    Parcel { header, entries, checks }
}

/// Whether an operation without payload is kept.
const fn stays(entry: &ParcelEntry, drops_trims: bool) -> bool {
    match entry.operation.kind {
        OperationKind::Trim | OperationKind::WriteZeroes => !drops_trims,
        OperationKind::Resize(_) | OperationKind::Snapshot { .. } => true,
        OperationKind::Write | OperationKind::TimeMark { .. } => false,
    }
}
