//! Deleting boundaries, in steps: versions that only they needed go, and the row of the boundary goes last.
//!
//! A boundary that is being deleted says so in its row, so that a start goes on where a stop came between, by walking
//! anew. From then on write-backs keep nothing for it, so that what the walk has passed stays in order. The boundaries of
//! a volume are deleted one after the other: until its row goes, a boundary counts as a neighbour of the others.

use super::index::Index;
use super::rows;
use super::walk::{Unneeded, Walk};
use super::{LiveChange, Parent};
use crate::controls::{Safeguard, is_missing};
use crate::error::DiskFault;
use crate::io::PageIndex;
use crate::store::{Durability, Store, StoreWrite};
use std::collections::BTreeSet;
use std::fmt;
use units::{Lsn, VolumeId};

/// Most steps in one commit: bounds the versions that it deletes.
const STEPS_MAX: usize = 256;

/// The deletion of a boundary under way.
#[derive(Debug)]
pub struct Deletion {
    walk: Walk,
    generation: u64,
}

impl Deletion {
    /// Whose boundary.
    #[must_use]
    pub const fn volume(&self) -> VolumeId {
        self.walk.volume
    }

    /// Which.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Births and versions that were looked at.
    #[must_use]
    pub const fn visits(&self) -> u64 {
        self.walk.visits()
    }
}

/// Why a boundary is not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletionError {
    /// Something hangs on it: a clone, or a view.
    Pinned,
    /// The store failed. What was begun goes on at the next start, or when it is asked for again.
    Store(DiskFault),
}

impl fmt::Display for DeletionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("something hangs on the snapshot"),
            Self::Store(fault) => write!(f, "the index: {fault}"),
        }
    }
}

impl std::error::Error for DeletionError {}

/// What one commit takes away.
#[derive(Debug)]
struct Gone {
    writes: Vec<StoreWrite>,
    live: LiveChange,
    /// Pages of which the newest version goes, with the last change that it had.
    emptied: Vec<(PageIndex, Lsn)>,
}

impl Gone {
    fn add(&mut self, volume: VolumeId, unneeded: &Unneeded<'_>) {
        if is_missing(Safeguard::EveryUnneeded) {
            return;
        }
        unneeded.count(&mut self.live);
        let Unneeded { version, above, .. } = unneeded;
        let mut delete = |generation| {
            self.writes.push(StoreWrite::Delete(rows::page_key(volume, version.page, generation)));
            self.writes.push(StoreWrite::Delete(rows::birth_key(volume, generation, version.page)));
        };
        delete(version.generation);
        // One without data that was there to hide it, and has nothing to hide any more.
        if unneeded.above_content.is_empty() && unneeded.below.is_none_or(|below| below.is_empty()) {
            delete(above.generation);
            self.emptied.push((version.page, above.lsn));
        }
    }
}

impl<S: Store> Index<S> {
    /// Whether something hangs on a boundary, which is then not deleted: a clone, or a view.
    #[must_use]
    pub fn is_pinned(&self, volume: VolumeId, generation: u64) -> bool {
        self.heirs(Parent { volume, generation }).next().is_some() && !is_missing(Safeguard::HeirsBoundary)
    }

    /// Begins to delete a boundary, which is then needed no more; `None` when it is not there.
    ///
    /// # Errors
    /// [`DeletionError`]; nothing is changed.
    pub fn begin_deletion(&mut self, volume: VolumeId, generation: u64) -> Result<Option<Deletion>, DeletionError> {
        let key = (volume, generation);
        if self.is_pinned(volume, generation) {
            return Err(DeletionError::Pinned);
        }
        let Some(row) = self.boundaries.get_mut(&key) else { return Ok(None) };
        if !std::mem::replace(&mut row.is_leaving, true) {
            self.unsaved_boundaries.insert(key);
            if let Err(fault) = self.commit(Vec::new(), Durability::Lazy) {
                if let Some(row) = self.boundaries.get_mut(&key) {
                    row.is_leaving = false;
                }
                return Err(DeletionError::Store(fault));
            }
        }
        Ok(Some(Deletion { walk: Walk::new(volume, vec![(generation, generation)]), generation }))
    }

    /// The boundaries whose deletion has been begun and has not ended.
    pub fn leaving_boundaries(&self) -> impl Iterator<Item = (VolumeId, u64)> {
        self.boundaries.iter().filter(|(_, row)| row.is_leaving).map(|(key, _)| *key)
    }

    /// Goes on with a deletion by about so many steps of a few dozen microseconds each, in one commit; returns whether it
    /// has ended, and the boundary is gone. Those of one volume are carried out one after the other.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or holds a page that is none: nothing of these steps is done.
    pub fn delete_some(&mut self, deletion: &mut Deletion, steps_max: usize) -> Result<bool, DiskFault> {
        let (volume, generation) = (deletion.volume(), deletion.generation);
        if !self.boundaries.contains_key(&(volume, generation)) {
            // The volume has been forgotten, or its log does not reach the boundary.
            return Ok(true);
        }
        let mut walk = deletion.walk.clone();
        let live = LiveChange::none(self.superblock().geometry.slot_blocks());
        let (mut gone, mut seen) = (Gone { writes: Vec::new(), live, emptied: Vec::new() }, BTreeSet::new());
        let mut steps = 0;
        let mut is_over = false;
        while !is_over && (steps < steps_max.min(STEPS_MAX) || !walk.is_between_pages()) {
            steps += 1;
            // A page is met twice, by both births: the store shows what this commit deletes until it is done.
            is_over = self.walk(&mut walk, |page| seen.insert(page), |unneeded| gone.add(volume, unneeded))?;
        }
        self.commit_deletion((volume, generation), gone, is_over)?;
        deletion.walk = walk;
        Ok(is_over)
    }

    fn commit_deletion(&mut self, key: (VolumeId, u64), gone: Gone, is_over: bool) -> Result<(), DiskFault> {
        let Gone { mut writes, live, emptied } = gone;
        let meter = self.meter_after_emptying(key.0, &emptied);
        writes.extend(meter.iter().map(|meter| StoreWrite::Put(rows::meter_key(key.0), meter.encode())));
        let entries = self.entries_after(&live)?;
        // Rows that wait to be written go first, so these must come with the same words.
        writes.extend(entries.iter().map(|entry| self.row_write(entry)));
        if is_over {
            writes.push(StoreWrite::Delete(rows::boundary_key(key.0, key.1)));
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.commit(writes, Durability::Lazy)?;
        entries.into_iter().for_each(|entry| self.put_entry(entry));
        self.note_live_change(&live);
        self.meters.extend(meter.map(|meter| (key.0, meter)));
        if is_over {
            self.boundaries.remove(&key);
        }
        Ok(())
    }
}
