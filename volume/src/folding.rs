//! Replaying segments into a stored map with bounded memory: what a rebuild does with all of a volume's log, and a resync with what was
//! sent.

use crate::error::DiskFault;
use crate::map::Map;
use crate::pool::{Boundary, Folded, Index};
use crate::recover::{SegmentLog, replay};
use crate::store::Store;
use std::collections::VecDeque;
use units::{Lsn, MeterTime, VolumeId};

/// Bytes of changed pages that are gathered before they are written.
const DIRTY_BYTES_MAX: usize = 64 << 20;

/// Pages of one write-back.
pub(crate) const PAGES_MAX: usize = 1024;

/// A volume's map as its segments are replayed, oldest first.
pub(crate) struct Folding {
    volume: VolumeId,
    /// The stored map had all up to here when it began.
    pub(crate) folded_to: Lsn,
    pub(crate) map: Map,
    /// Ends of generations that records tell and the replay has not come to, oldest first.
    ahead: VecDeque<Boundary>,
    pub(crate) applied: Lsn,
    pub(crate) size_bytes: u64,
}

impl Folding {
    /// Begins with a map that has all up to `folded_to`, and a volume that is so long there.
    pub(crate) const fn new(
        volume: VolumeId,
        map: Map,
        ahead: VecDeque<Boundary>,
        (folded_to, size_bytes): (Lsn, u64),
    ) -> Self {
        Self { volume, folded_to, map, ahead, applied: folded_to, size_bytes }
    }

    /// Replays the next segment.
    pub(crate) fn take<S: Store>(&mut self, index: &mut Index<S>, log: &SegmentLog) -> Result<(), DiskFault> {
        let passed = self.pass(index, log.last_lsn)?;
        replay(&mut self.map, log, self.size_bytes, (self.folded_to, &passed));
        self.applied = log.last_lsn;
        self.size_bytes = log.size_after().unwrap_or(self.size_bytes);
        Ok(())
    }

    /// Writes back what has gathered, when that is much.
    pub(crate) fn write_back_if_full<S: Store>(&mut self, index: &mut Index<S>) -> Result<(), DiskFault> {
        if self.map.dirty_bytes() > DIRTY_BYTES_MAX { self.write_back(index) } else { Ok(()) }
    }

    /// Nothing of the log is left up to `lsn`: notes the ends of generations up to there.
    pub(crate) fn pass_to<S: Store>(&mut self, index: &mut Index<S>, lsn: Lsn) -> Result<(), DiskFault> {
        let passed = self.pass(index, lsn)?;
        passed.iter().for_each(|boundary| self.map.begin_generation(boundary.generation + 1));
        Ok(())
    }

    /// Notes the ends of generations up to `lsn`: the operations may be gone.
    fn pass<S: Store>(&mut self, index: &mut Index<S>, lsn: Lsn) -> Result<Vec<Boundary>, DiskFault> {
        let mut passed = Vec::new();
        while let Some(boundary) = self.ahead.pop_front_if(|boundary| boundary.lsn <= lsn) {
            index.note_boundary(self.volume, boundary)?;
            passed.push(boundary);
        }
        Ok(passed)
    }

    /// Writes back all that has gathered.
    pub(crate) fn write_back<S: Store>(&mut self, index: &mut Index<S>) -> Result<(), DiskFault> {
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

    /// Notes that the stored map is complete to `to`, though nothing of that may be left in it.
    pub(crate) fn end<S: Store>(&self, index: &mut Index<S>, (to, at): (Lsn, MeterTime)) -> Result<(), DiskFault> {
        let (generation, size_bytes) = (self.map.generation(), self.size_bytes);
        index.write_back(self.volume, generation, &[], Folded { to, generation, size_bytes, at })
    }
}
