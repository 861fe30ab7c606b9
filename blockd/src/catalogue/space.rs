//! What volumes and snapshots take, as the index counts it: of a volume with all that a rollback has left behind it.

use super::ask::{self, Asked};
use super::snapshots::{SnapshotName, find, missing};
use super::{Catalogue, CatalogueError, Entry};
use std::collections::{BTreeMap, BTreeSet};
use units::{BLOCK_BYTES, VolumeId};
use volume::error::{Error, ErrorKind};
use volume::pool::VolumeSpace;
use volume::request::Request;

/// What a volume takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Bytes that hold data in the volume as it is now.
    pub written_bytes: u64,
    /// Bytes that it has overwritten or trimmed, and that are kept for its snapshots and clones; nothing where a part of it
    /// lies in what it was cloned from.
    pub snapshot_bytes: Option<u64>,
    /// Bytes of the pool that it takes, with its snapshots.
    pub pool_bytes: u64,
    /// Its snapshots.
    pub snapshots: u64,
}

/// Volumes asked about before the first answer is waited for. What clients wait for comes behind no more than these.
const ASKED_MAX: usize = 64;

/// What is asked of one volume.
struct SpaceAsked {
    volume: VolumeId,
    snapshots: u64,
    /// Of each volume of its line.
    parts: Vec<(VolumeId, Asked<VolumeSpace>)>,
}

impl Catalogue {
    /// What a volume takes.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`], [`CatalogueError::Ended`].
    pub async fn space(&self, name: &str) -> Result<Space, CatalogueError> {
        self.ask_space(name)?.answer().await
    }

    /// What each of some volumes takes, without those that have been deleted meanwhile.
    ///
    /// # Errors
    /// [`CatalogueError::Ended`].
    pub async fn with_space(&self, entries: Vec<Entry>) -> Result<Vec<(Entry, Space)>, CatalogueError> {
        let mut found = Vec::with_capacity(entries.len());
        let mut entries = entries.into_iter();
        while entries.len() > 0 {
            let mut asked = Vec::with_capacity(ASKED_MAX);
            for entry in entries.by_ref().take(ASKED_MAX) {
                match self.ask_space(&entry.name) {
                    Ok(space) => asked.push((entry, space)),
                    Err(CatalogueError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            for (entry, space) in asked {
                found.push((entry, space.answer().await?));
            }
        }
        Ok(found)
    }

    fn ask_space(&self, name: &str) -> Result<SpaceAsked, CatalogueError> {
        let shelf = self.read();
        let volume = shelf.names.get(name).ok_or_else(|| missing(name))?.entry.volume;
        let line = shelf.line_of(volume.0);
        let ask = |id| Ok((VolumeId(id), ask::begin_volume_space(&self.store, VolumeId(id))?));
        let parts = shelf.volumes_of(line).map(ask).collect::<Result<_, CatalogueError>>()?;
        Ok(SpaceAsked { volume, snapshots: shelf.snapshots_of(line).count() as u64, parts })
    }

    /// The bytes that each of some snapshots holds alone.
    ///
    /// # Errors
    /// [`CatalogueError::SnapshotNotFound`]; [`CatalogueError::Volume`] when the index failed.
    pub async fn unique(&self, names: &[SnapshotName]) -> Result<Vec<u64>, CatalogueError> {
        let boundaries = self.boundaries_of(names)?;
        let mut sets: BTreeMap<u64, Vec<BTreeSet<u64>>> = BTreeMap::new();
        for (volume, generation) in &boundaries {
            sets.entry(*volume).or_default().push(BTreeSet::from([*generation]));
        }
        let mut found: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for (volume, sets) in sets {
            let generations: Vec<u64> = sets.iter().flatten().copied().collect();
            let blocks = self.search(volume, sets).await?;
            found.extend(generations.into_iter().map(|generation| (volume, generation)).zip(blocks));
        }
        Ok(boundaries.iter().map(|key| found.get(key).copied().unwrap_or(0) * BLOCK_BYTES).collect())
    }

    /// The bytes that the deletion of all of some snapshots would give back now: what their volumes hold in memory alone is
    /// written back first.
    ///
    /// # Errors
    /// As of [`Catalogue::unique`]; or a volume's, when it cannot write back.
    pub async fn reclaim(&self, names: &[SnapshotName]) -> Result<u64, CatalogueError> {
        let mut sets: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for (volume, generation) in self.boundaries_of(names)? {
            sets.entry(volume).or_default().insert(generation);
        }
        let mut blocks = 0;
        for (volume, set) in sets {
            self.write_back(volume).await?;
            blocks += self.search(volume, vec![set]).await?.into_iter().sum::<u64>();
        }
        Ok(blocks * BLOCK_BYTES)
    }

    /// Sees to it that the index knows a volume as it is now, or without a name: as it is once the cleaner has been there.
    async fn write_back(&self, volume: u64) -> Result<(), CatalogueError> {
        let (is_damaged, is_full) = {
            let shelf = self.read();
            let is_former = shelf.volume(volume).is_some_and(|record| shelf.is_former(record));
            (shelf.damage_of(volume).is_some(), is_former && !shelf.is_emptied(volume) && !shelf.is_unsure())
        };
        if is_full {
            return self.empty(volume).await;
        }
        // One that is damaged is not open: the index says all that can be told.
        if !is_damaged {
            let (_, shard) = self.shard_of(VolumeId(volume));
            ask::submit(shard, VolumeId(volume), Request::Checkpoint).await?;
        }
        Ok(())
    }

    fn boundaries_of(&self, names: &[SnapshotName]) -> Result<Vec<(u64, u64)>, CatalogueError> {
        let shelf = self.read();
        let found = names.iter().map(|name| find(&shelf, name));
        found.map(|kept| kept.map(|kept| (kept.record.of, kept.record.generation))).collect()
    }

    pub(super) async fn search(&self, volume: u64, sets: Vec<BTreeSet<u64>>) -> Result<Vec<u64>, CatalogueError> {
        let found = ask::reclaim(&self.store, VolumeId(volume), sets).await?;
        let failed = |fault| Error::new(ErrorKind::Unavailable, format!("count what snapshots hold: {fault}"));
        found.map_err(|fault| failed(fault).into())
    }
}

impl SpaceAsked {
    async fn answer(self) -> Result<Space, CatalogueError> {
        let mut space = Space { snapshot_bytes: Some(0), snapshots: self.snapshots, ..Space::default() };
        for (id, asked) in self.parts {
            let of_one = asked.end().await?;
            space.pool_bytes += of_one.pool_bytes;
            let held = if id == self.volume {
                space.written_bytes = of_one.mapped_blocks * BLOCK_BYTES;
                of_one.snapshot_blocks
            } else {
                Some(of_one.live_blocks)
            };
            space.snapshot_bytes = space.snapshot_bytes.zip(held).map(|(sum, blocks)| sum + blocks * BLOCK_BYTES);
        }
        Ok(space)
    }
}
