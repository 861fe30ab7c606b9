//! Reading a volume that nobody has open: what tools need of the system volume. Nothing is written.

use crate::error::DiskFault;
use crate::format::{Superblock, block_check};
use crate::map::{Location, Map, PAGE_BLOCKS, ResolvedRun};
use crate::pool::{Index, Loans, Stretch};
use crate::recover::{Damage, Known, recover};
use crate::store::{PoolReader, Store};
use std::collections::BTreeMap;
use std::fmt;
use units::{BLOCK_BYTES, BLOCK_LEN, BlockIndex, BlockRange, SegmentId, VolumeId};

/// Why a block cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestError {
    /// The disk or the store failed.
    Disk(DiskFault),
    /// The block is not what was written, or the map names what is not there.
    Corrupt,
}

impl From<DiskFault> for RestError {
    fn from(fault: DiskFault) -> Self {
        Self::Disk(fault)
    }
}

impl fmt::Display for RestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(fault) => write!(f, "{fault}"),
            Self::Corrupt => f.write_str("the disk returned other bytes than were written"),
        }
    }
}

impl std::error::Error for RestError {}

/// A volume at rest, as a start would find it.
pub struct AtRest<'a, S> {
    index: &'a Index<S>,
    reader: &'a dyn PoolReader,
    superblock: Superblock,
    volume: VolumeId,
    map: Map,
    size_bytes: u64,
    loans: BTreeMap<SegmentId, Loans>,
}

impl<S> fmt::Debug for AtRest<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtRest").field("volume", &self.volume).finish_non_exhaustive()
    }
}

impl<'a, S: Store> AtRest<'a, S> {
    /// Finds a volume's end, as recovery does.
    ///
    /// # Errors
    /// [`Damage`], as recovery.
    pub fn find(index: &'a Index<S>, reader: &'a dyn PoolReader, known: &Known) -> Result<Self, Damage> {
        let superblock = *index.superblock();
        let recovered = recover(reader, &superblock, known)?;
        let (map, size_bytes, loans) = (recovered.map, recovered.size_bytes, recovered.loans);
        Ok(Self { index, reader, superblock, volume: known.volume, map, size_bytes, loans })
    }

    /// Its size in bytes.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The content of a block; zeros where nothing was written.
    ///
    /// # Errors
    /// [`RestError`].
    pub fn read(&mut self, block: BlockIndex) -> Result<Vec<u8>, RestError> {
        let mut content = vec![0; BLOCK_LEN];
        let Some((location, check)) = self.locate(block)? else { return Ok(content) };
        let at = self.at(location).ok_or(RestError::Corrupt)?;
        self.reader.read_at(self.superblock.geometry.block_offset(at.slot, at.block), &mut content)?;
        let is_whole = block_check(location.segment, u32::from(location.block), &content) == check;
        is_whole.then_some(content).ok_or(RestError::Corrupt)
    }

    /// The first block from one on that is not a hole; none where all are up to the volume's end.
    ///
    /// # Errors
    /// [`RestError`].
    pub fn next_written(&mut self, from: BlockIndex) -> Result<Option<BlockIndex>, RestError> {
        let end = self.size_bytes / BLOCK_BYTES;
        let mut at = from.0;
        while at < end {
            // To the end of its page.
            let next = (at / u64::from(PAGE_BLOCKS) + 1) * u64::from(PAGE_BLOCKS);
            let count = next.min(end) - at;
            let runs = self.runs_of(BlockRange::new(BlockIndex(at), count))?.0;
            if let Some(run) = runs.iter().find(|run| run.location.is_some()) {
                return Ok(Some(BlockIndex(at + u64::from(run.at))));
            }
            at += count;
        }
        Ok(None)
    }

    /// Where a block is, by the index or, where a copy is not folded, by the log.
    fn at(&self, location: Location) -> Option<Stretch> {
        let loans = self.loans.get(&location.segment);
        let source = loans.map_or(location, |loans| loans.resolve(location, 1).0);
        self.index.locate_one(source)
    }

    fn locate(&mut self, block: BlockIndex) -> Result<Option<(Location, u32)>, RestError> {
        let (runs, checks) = self.runs_of(BlockRange::new(block, 1))?;
        Ok(runs.first().and_then(|run| run.location).zip(checks.first().copied()))
    }

    fn runs_of(&mut self, range: BlockRange) -> Result<(Vec<ResolvedRun>, Vec<u32>), RestError> {
        let (mut runs, mut checks): (Vec<ResolvedRun>, Vec<u32>) = (Vec::new(), Vec::new());
        while let Err(page) = self.map.resolve(range, &mut runs, &mut checks) {
            (runs, checks) = (Vec::new(), Vec::new());
            let loaded = self.index.load_page(self.volume, page)?;
            self.map.loaded(page, &loaded).map_err(|_| RestError::Corrupt)?;
        }
        Ok((runs, checks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recover::tests::world::{VOLUME, World, content_of, trim_op, write_op};
    use units::Lsn;

    /// P2.
    #[test]
    fn a_volume_at_rest_is_read_from_its_stored_map_and_its_tail() {
        let mut world = World::new(16);
        let folded = world.segment(VOLUME, &[&[write_op(0, 3)]]);
        world.fold(VOLUME);
        world.open(VOLUME);
        world.append(VOLUME, &[write_op(1, 1), trim_op(2, 1)]);
        let known = world.index.known(VOLUME, 1 << 40);
        let mut volume = AtRest::find(&world.index, &world.pool, &known).unwrap();
        let blocks: Vec<_> = (0..3).map(|block| volume.read(BlockIndex(block)).unwrap()).collect();
        assert_eq!(blocks, [content_of(Lsn(1), 0), content_of(Lsn(2), 0), vec![0; BLOCK_LEN]]);
        assert_eq!(volume.read(BlockIndex(1 << 20)).unwrap(), vec![0; BLOCK_LEN]);
        let next = [0, 1, 2].map(|from| volume.next_written(BlockIndex(from)).unwrap());
        assert_eq!(next, [Some(BlockIndex(0)), Some(BlockIndex(1)), None]);
        world.rot(folded.a_slot(), 2);
        let mut volume = AtRest::find(&world.index, &world.pool, &known).unwrap();
        assert_eq!(volume.read(BlockIndex(0)), Err(RestError::Corrupt));
    }
}
