//! Bringing the stored map to where a log was joined to.
//!
//! What is left of the segments that the map does not have is replayed, oldest first, some of them at a time, so that memory is
//! bounded whatever was sent. Gaps between them are what was dead. A stop in between loses nothing: it goes on where the stored map is
//! complete to.

use crate::error::DiskFault;
use crate::folding::Folding;
use crate::map::Map;
use crate::pool::{Index, SegmentRow};
use crate::recover::{Damage, DamageKind, SegmentLog, Wanted, cut_at, cuts_of, read_segment};
use crate::store::{PoolReader, Store};
use std::fmt;
use units::{Lsn, VolumeId};

/// Why the stored map was not brought further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoldError {
    /// A segment is not what it ought to be.
    Damage(Damage),
    /// The store failed: to be tried again.
    Store(DiskFault),
}

impl From<DiskFault> for FoldError {
    fn from(fault: DiskFault) -> Self {
        Self::Store(fault)
    }
}

impl fmt::Display for FoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damage(damage) => write!(f, "{damage}"),
            Self::Store(fault) => write!(f, "{fault}"),
        }
    }
}

impl std::error::Error for FoldError {}

/// Brings the stored map of a volume that was joined, and is not open, over its next segments, at most so many; whether it has all now.
///
/// # Errors
/// [`FoldError`].
pub fn fold<S: Store>(
    index: &mut Index<S>,
    reader: &dyn PoolReader,
    volume: VolumeId,
    segments_max: usize,
) -> Result<bool, FoldError> {
    let Some(joined) = index.joined(volume).cloned() else { return Ok(true) };
    index.begin_fold(volume, joined.to);
    let row = index.volume_row(volume);
    let folded_to = row.map_or(Lsn::ZERO, |row| row.folded_to);
    let mut map = Map::new(false);
    map.begin_metering();
    map.begin_generation(row.map_or(0, |row| row.generation));
    let ahead = joined.boundaries.iter().copied().filter(|boundary| boundary.lsn > folded_to).collect();
    let mut folding = Folding::new(volume, map, ahead, (folded_to, row.map_or(0, |row| row.size_bytes)));
    let mut rows: Vec<SegmentRow> = index.segments(volume);
    rows.sort_by_key(|row| row.segment);
    let cuts = cuts_of(&rows);
    rows.retain(|row| row.last_lsn.is_none_or(|last| last > folded_to));
    let is_all = rows.len() <= segments_max.max(1);
    for row in rows.iter().take(segments_max.max(1)) {
        let log = read(index, reader, (row, cut_at(&cuts, row))).map_err(FoldError::Damage)?;
        folding.take(index, &log)?;
        folding.write_back_if_full(index)?;
    }
    if is_all {
        folding.applied = joined.to;
        folding.pass_to(index, joined.to)?;
    }
    folding.write_back(index)?;
    folding.end(index, (folding.applied, folding.map.meter_time()))?;
    if is_all {
        index.end_resync(volume)?;
    }
    Ok(is_all)
}

/// Reads what is left of a segment, which is all on stable storage.
fn read<S: Store>(
    index: &Index<S>,
    reader: &dyn PoolReader,
    (row, cut): (&SegmentRow, Lsn),
) -> Result<SegmentLog, Damage> {
    let missing = |lsn, durable_lsn| Damage { volume: row.volume, kind: DamageKind::Missing { lsn, durable_lsn } };
    let last = row.last_lsn.ok_or_else(|| missing(row.first_lsn, row.first_lsn))?;
    let superblock = index.superblock();
    let (durable_lsn, known_to) = (last, last);
    let wanted = Wanted { reader, superblock, row: *row, cut, durable_lsn, known_to, distrusts_footer: false };
    let log = read_segment(&wanted)?;
    if log.is_empty() || log.last_lsn != last { Err(missing(log.end(), last)) } else { Ok(log) }
}
