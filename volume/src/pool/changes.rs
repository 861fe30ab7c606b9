//! What has changed in a volume since a snapshot of it, or of one that it inherits from.
//!
//! A block has changed when it is somewhere else, or is a hole in one of the two: a location is an identity for ever. Only
//! pages are compared that have a version in between, which births tell: so that few changes in a large volume are few
//! steps. Where versions of very many generations lie between, every page is looked at instead.

use super::index::{Index, io};
use super::lineage::Parent;
use super::rows;
use super::versions::{NOWHERE, Version, places};
use crate::error::DiskFault;
use crate::io::PageIndex;
use crate::map::PAGE_BLOCKS;
use crate::store::Store;
use std::ops::Range;
use units::VolumeId;

/// Most pages that one step compares: about two milliseconds.
const PAGES_MAX: usize = 32;

/// Most generations whose births are looked up one by one.
const GENERATIONS_MAX: usize = 16;

/// What has become of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it is where it was.
    None,
    /// It has been written, with the same content too.
    Data,
    /// It has been zeroed or trimmed.
    Hole,
}

/// Neighbouring blocks of which the same has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangedRun {
    /// How many.
    pub blocks: u64,
    /// What has become of them.
    pub change: Change,
}

/// What one step has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Runs from the first block of the range on, of which neighbours differ in what has become of them.
    pub runs: Vec<ChangedRun>,
}

/// Why it cannot be told what has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangesError {
    /// There is no such snapshot, or the volume does not descend from it.
    Gone,
    /// The store failed.
    Store(DiskFault),
}

impl From<DiskFault> for ChangesError {
    fn from(fault: DiskFault) -> Self {
        Self::Store(fault)
    }
}

impl Changes {
    fn push(&mut self, blocks: u64, change: Change) {
        match self.runs.last_mut() {
            Some(last) if last.change == change => last.blocks += blocks,
            _ if blocks > 0 => self.runs.push(ChangedRun { blocks, change }),
            _ => {}
        }
    }
}

/// Generations of a volume, the last one too.
type Births = (VolumeId, u64, u64);

impl<S: Store> Index<S> {
    /// Compares pages of `volume` as the stored map has it now with what `since` shows, from the start of `pages` on: until
    /// the end, or `runs_max` runs, or enough has been looked at. At least one page is told of.
    ///
    /// # Errors
    /// [`ChangesError`].
    pub fn changes(
        &self,
        volume: VolumeId,
        since: Parent,
        pages: Range<PageIndex>,
        runs_max: usize,
    ) -> Result<Changes, ChangesError> {
        let boundary = self.boundaries.get(&(since.volume, since.generation));
        if boundary.is_none_or(|row| row.is_leaving) {
            return Err(ChangesError::Gone);
        }
        let births = self.births_since(volume, since).ok_or(ChangesError::Gone)?;
        let mut changes = Changes::default();
        let mut at = pages.start;
        for _ in 0..PAGES_MAX {
            let next = self.next_changed(volume, &births, at)?.filter(|next| *next < pages.end).unwrap_or(pages.end);
            changes.push((next.0 - at.0) * u64::from(PAGE_BLOCKS), Change::None);
            at = next;
            if at >= pages.end || changes.runs.len() > runs_max {
                break;
            }
            self.compare(volume, since, at, &mut changes)?;
            at = PageIndex(at.0 + 1);
        }
        Ok(changes)
    }

    /// Where versions may be that one of the two shows and the other does not; `None` when they are not related.
    fn births_since(&self, volume: VolumeId, since: Parent) -> Option<Vec<Births>> {
        let mut all = Vec::new();
        let mut layer = Parent { volume, generation: u64::MAX };
        while layer.volume != since.volume {
            all.push((layer.volume, 0, layer.generation));
            layer = self.parent(layer.volume)?;
        }
        if let Some(first) = since.generation.checked_add(1).filter(|first| *first <= layer.generation) {
            all.push((layer.volume, first, layer.generation));
        }
        (since.generation <= layer.generation).then_some(all)
    }

    /// The first page from `from` on that may differ.
    fn next_changed(
        &self,
        volume: VolumeId,
        births: &[Births],
        from: PageIndex,
    ) -> Result<Option<PageIndex>, DiskFault> {
        let mut least: Option<PageIndex> = None;
        let mut generations = 0;
        for (of, first, last) in births {
            let end = rows::births_end(*of, *last);
            let mut generation = *first;
            // A birth of this generation from the page on, or the first one of a later generation.
            while let Some((key, _)) = self.store.seek(&rows::birth_key(*of, generation, from), &end).map_err(io)? {
                let (found, page) =
                    rows::generation_of_birth(&key).zip(rows::page_of_birth(&key)).ok_or(DiskFault::Io)?;
                generations += 1;
                if generations > GENERATIONS_MAX {
                    return self.next_page(volume, from);
                }
                generation = found;
                if page >= from {
                    least = Some(least.map_or(page, |least| least.min(page)));
                    let Some(next) = found.checked_add(1) else { break };
                    generation = next;
                }
            }
        }
        Ok(least)
    }

    fn shown_at(&self, layer: Parent, page: PageIndex) -> Result<Option<Version>, DiskFault> {
        match self.version_at(layer.volume, page, layer.generation)? {
            Some(own) => Ok(Some(own)),
            None => self.inherited(layer.volume, page),
        }
    }

    fn compare(
        &self,
        volume: VolumeId,
        since: Parent,
        page: PageIndex,
        changes: &mut Changes,
    ) -> Result<(), DiskFault> {
        let content = |version: Option<Version>| version.map(|version| version.content()).transpose();
        let (now, before) =
            (self.shown_at(Parent { volume, generation: u64::MAX }, page)?, self.shown_at(since, page)?);
        if now.as_ref().map(|version| &version.encoded) == before.as_ref().map(|version| &version.encoded) {
            changes.push(u64::from(PAGE_BLOCKS), Change::None);
            return Ok(());
        }
        let (now, before) = (content(now)?, content(before)?);
        let (now, before) = (places(now.as_ref()), places(before.as_ref()));
        for (now, before) in now.into_iter().zip(before) {
            let change = match now {
                same if same == before => Change::None,
                NOWHERE => Change::Hole,
                _ => Change::Data,
            };
            changes.push(1, change);
        }
        Ok(())
    }
}
