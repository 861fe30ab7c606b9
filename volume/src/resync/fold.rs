//! Bringing the stored map to where a log was joined to.
//!
//! What is left of the segments that the map does not have is replayed, oldest first, some of them at a time, so that memory is
//! bounded whatever was sent. Gaps between them are what was dead. A stop in between loses nothing: it goes on where the stored map is
//! complete to.

use crate::error::DiskFault;
use crate::map::Map;
use crate::pool::{Boundary, Folded, Index, Joined, SegmentRow};
use crate::recover::{Damage, DamageKind, SegmentLog, Wanted, cut_at, cuts_of, read_segment, replay};
use crate::store::{PoolReader, Store};
use std::collections::VecDeque;
use std::fmt;
use units::{Lsn, VolumeId};

/// Bytes of changed pages that are gathered before they are written.
const DIRTY_BYTES_MAX: usize = 64 << 20;

/// Pages of one write-back.
const PAGES_MAX: usize = 1024;

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
    let mut folding = Folding::new(index, volume, &joined);
    let mut rows: Vec<SegmentRow> = index.segments(volume);
    rows.sort_by_key(|row| row.segment);
    let cuts = cuts_of(&rows);
    let folded_to = folding.folded_to;
    rows.retain(|row| row.last_lsn.is_none_or(|last| last > folded_to));
    let is_all = rows.len() <= segments_max.max(1);
    for row in rows.iter().take(segments_max.max(1)) {
        let log = read(index, reader, (row, cut_at(&cuts, row))).map_err(FoldError::Damage)?;
        folding.take(index, &log)?;
    }
    if is_all {
        folding.applied = joined.to;
        folding.pass(index, joined.to)?.iter().for_each(|passed| folding.map.begin_generation(passed.generation + 1));
    }
    folding.write_back(index)?;
    folding.end(index)?;
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

/// The state of it.
struct Folding {
    volume: VolumeId,
    /// The stored map had all up to here when it began.
    folded_to: Lsn,
    map: Map,
    /// Ends of generations that the replay has not come to.
    ahead: VecDeque<Boundary>,
    applied: Lsn,
    size_bytes: u64,
}

impl Folding {
    fn new<S: Store>(index: &Index<S>, volume: VolumeId, joined: &Joined) -> Self {
        let row = index.volume_row(volume);
        let folded_to = row.map_or(Lsn::ZERO, |row| row.folded_to);
        let mut map = Map::new(false);
        map.begin_metering();
        map.begin_generation(row.map_or(0, |row| row.generation));
        let ahead = joined.boundaries.iter().copied().filter(|boundary| boundary.lsn > folded_to).collect();
        let size_bytes = row.map_or(0, |row| row.size_bytes);
        Self { volume, folded_to, map, ahead, applied: folded_to, size_bytes }
    }

    fn take<S: Store>(&mut self, index: &mut Index<S>, log: &SegmentLog) -> Result<(), DiskFault> {
        let passed = self.pass(index, log.last_lsn)?;
        replay(&mut self.map, log, self.size_bytes, (self.folded_to, &passed));
        self.applied = log.last_lsn;
        self.size_bytes = log.size_after().unwrap_or(self.size_bytes);
        if self.map.dirty_bytes() > DIRTY_BYTES_MAX {
            self.write_back(index)?;
        }
        Ok(())
    }

    /// Notes the ends of generations up to `lsn`.
    fn pass<S: Store>(&mut self, index: &mut Index<S>, lsn: Lsn) -> Result<Vec<Boundary>, DiskFault> {
        let mut passed = Vec::new();
        while let Some(boundary) = self.ahead.pop_front_if(|boundary| boundary.lsn <= lsn) {
            index.note_boundary(self.volume, boundary)?;
            passed.push(boundary);
        }
        Ok(passed)
    }

    fn write_back<S: Store>(&mut self, index: &mut Index<S>) -> Result<(), DiskFault> {
        while self.map.is_dirty() {
            let capture = self.map.capture(self.applied, PAGES_MAX);
            let folded = capture.folded(self.size_bytes);
            let written = index.write_back(self.volume, capture.generation, &capture.writes, folded);
            self.map.write_back_ended(written.is_ok());
            written?;
        }
        self.map.shrink_to(0);
        Ok(())
    }

    /// Notes that the stored map is complete to what was replayed, though nothing of that may be left in it.
    fn end<S: Store>(&self, index: &mut Index<S>) -> Result<(), DiskFault> {
        let (to, generation, size_bytes) = (self.applied, self.map.generation(), self.size_bytes);
        let folded = Folded { to, generation, size_bytes, at: self.map.meter_time() };
        index.write_back(self.volume, generation, &[], folded)
    }
}
