//! Versions of a map page: one for each generation that changed it, while a snapshot needs the one before.
//!
//! A version is what its generation left, whole, and the visible one of a generation is the newest that is not later. Live
//! counts go by runs: a block counts once for all neighbouring versions of its page that name it. A block that has been
//! overwritten never comes back, so that this is the number of different blocks that are named.

use super::index::{Index, io};
use super::rows;
use super::{Boundary, BoundaryRow, LiveChange};
use crate::error::DiskFault;
use crate::io::{LoadedPage, PageIndex};
use crate::map::{Found, PAGE_BLOCKS, Page};
use crate::store::{Durability, Store, StoreWrite};
use std::ops::Range;
use units::{Lsn, SegmentId, VolumeId};

/// A stored version of a page.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) page: PageIndex,
    pub(crate) generation: u64,
    /// The last change in it.
    pub(crate) lsn: Lsn,
    pub(crate) encoded: Vec<u8>,
}

impl Version {
    pub(crate) fn content(&self) -> Result<Page, DiskFault> {
        Page::decode(&self.encoded).map_err(|_| DiskFault::Io)
    }
}

impl<S: Store> Index<S> {
    /// Notes that a generation has ended and that its end is needed. Given before any page of a later generation.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: the index knows it all the same, and writes it with its next commit. Also
    /// when pages of a later generation are stored already, which may have taken the place of what it needs.
    pub fn note_boundary(&mut self, volume: VolumeId, boundary: Boundary) -> Result<(), DiskFault> {
        let row = self.volume_row(volume);
        let key = (volume, boundary.generation);
        if self.boundaries.get(&key).is_some_and(|known| known.boundary == boundary) {
            return Ok(());
        }
        if row.is_some_and(|row| row.generation > boundary.generation) {
            return Err(DiskFault::Io);
        }
        let mapped = self.mapped_blocks(volume);
        self.boundaries.insert(key, BoundaryRow { boundary, mapped, is_leaving: false });
        self.unsaved_boundaries.insert(key);
        self.commit(Vec::new(), Durability::Lazy)
    }

    /// Notes what recovery has found: the log goes on with `next_lsn`, so that a boundary from there on is none, and those
    /// in `found` are.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or for a boundary as in [`Index::note_boundary`].
    pub fn note_recovered_boundaries(
        &mut self,
        volume: VolumeId,
        next_lsn: Lsn,
        found: &[Boundary],
    ) -> Result<(), DiskFault> {
        self.found_ends.insert(volume, Lsn(next_lsn.0.saturating_sub(1)));
        let lost = self.boundaries(volume).map(|row| row.boundary).filter(|boundary| boundary.lsn >= next_lsn);
        let lost: Vec<u64> = lost.map(|boundary| boundary.generation).collect();
        for generation in lost {
            // Nothing of a later generation is stored: the stored map has no more than the log.
            self.unsaved_boundaries.remove(&(volume, generation));
            self.commit(vec![StoreWrite::Delete(rows::boundary_key(volume, generation))], Durability::Lazy)?;
            self.boundaries.remove(&(volume, generation));
        }
        found.iter().try_for_each(|boundary| self.note_boundary(volume, *boundary))
    }

    /// The generations of `volume` whose ends are needed, oldest first, those that are being deleted among them.
    pub fn boundaries(&self, volume: VolumeId) -> impl Iterator<Item = &BoundaryRow> {
        self.boundaries.range((volume, 0)..=(volume, u64::MAX)).map(|(_, row)| row)
    }

    /// Whether the end of one of `generations` is needed; one that is being deleted is not.
    pub(super) fn has_boundary(&self, volume: VolumeId, generations: Range<u64>) -> bool {
        self.boundaries_in(volume, generations).any(|row| !row.is_leaving)
    }

    /// Whether the end of one of `generations` is known, so that there may be versions that it needed.
    pub(super) fn knows_boundary(&self, volume: VolumeId, generations: Range<u64>) -> bool {
        self.boundaries_in(volume, generations).next().is_some()
    }

    fn boundaries_in(&self, volume: VolumeId, generations: Range<u64>) -> impl Iterator<Item = &BoundaryRow> {
        let end = generations.end.max(generations.start);
        self.boundaries.range((volume, generations.start)..(volume, end)).map(|(_, row)| row)
    }

    /// Reads a page as `generation` left it, own or inherited, or the index of the next one that has any version.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or does not have what the volume inherits.
    pub fn load_page_at(&self, volume: VolumeId, page: PageIndex, generation: u64) -> Result<LoadedPage, DiskFault> {
        if let Some(version) = self.version_at(volume, page, generation)? {
            return Ok(LoadedPage::Present(version.encoded));
        }
        let next = match page.0.checked_add(1) {
            Some(next) => self.newest_from(volume, PageIndex(next))?,
            None => None,
        };
        self.load_inherited(volume, page, next.map(|version| version.page))
    }

    /// The version of a page that is visible at the end of `generation`.
    pub(crate) fn version_at(
        &self,
        volume: VolumeId,
        page: PageIndex,
        generation: u64,
    ) -> Result<Option<Version>, DiskFault> {
        // Later generations come first.
        let from = rows::page_key(volume, page, generation);
        self.store.seek(&from, &rows::page_end(volume, page)).map_err(io)?.map(decode).transpose()
    }

    /// The version below that of `generation`: the next older one.
    pub(super) fn version_below(
        &self,
        volume: VolumeId,
        page: PageIndex,
        generation: u64,
    ) -> Result<Option<Version>, DiskFault> {
        generation.checked_sub(1).map_or(Ok(None), |before| self.version_at(volume, page, before))
    }

    /// Every version of a page, newest first.
    pub(crate) fn versions_of(&self, volume: VolumeId, page: PageIndex) -> Result<Vec<Version>, DiskFault> {
        let mut versions = Vec::new();
        let mut at = Some(u64::MAX);
        while let Some(generation) = at
            && let Some(version) = self.version_at(volume, page, generation)?
        {
            at = version.generation.checked_sub(1);
            versions.push(version);
        }
        Ok(versions)
    }

    /// The newest version of the first page from `page` on that has any.
    pub(crate) fn newest_from(&self, volume: VolumeId, page: PageIndex) -> Result<Option<Version>, DiskFault> {
        let found = self.store.seek(&rows::page_start(volume, page), &rows::pages_end(volume)).map_err(io)?;
        found.map(decode).transpose()
    }
}

fn decode((key, mut encoded): (Vec<u8>, Vec<u8>)) -> Result<Version, DiskFault> {
    let (page, generation) = rows::version_of_key(&key).map_err(|_| DiskFault::Io)?;
    let (len, lsn) = rows::split_page(&encoded).map(|(page, lsn)| (page.len(), lsn)).ok_or(DiskFault::Io)?;
    encoded.truncate(len);
    Ok(Version { page, generation, lsn, encoded })
}

/// Adds to `live` what segments gain and lose when the version `old` of a page becomes `new`: `None` where there is none.
/// `below` is the next older version, `above` those that follow directly.
pub(crate) fn count_change(
    (old, new): (Option<&Page>, Option<&Page>),
    below: Option<&Page>,
    above: &[&Page],
    live: &mut LiveChange,
) {
    let (old, new, below) = (places(old), places(new), places(below));
    let above: Vec<Vec<u64>> = above.iter().map(|page| places(Some(*page))).collect();
    let mut add = |place: u64, runs: i64| live.add(SegmentId(place >> 16), block_of(place), runs);
    for (at, ((old, new), below)) in old.into_iter().zip(new).zip(below).enumerate() {
        if old == new {
            continue;
        }
        let runs_above = |place| above.iter().filter(|page| page.get(at) == Some(&place)).map(|_| 1_i64).sum::<i64>();
        // One run with the version in between; without it, each of those above begins one.
        if old != NOWHERE && old != below {
            add(old, runs_above(old) - 1);
        }
        if new != NOWHERE && new != below {
            add(new, 1 - runs_above(new));
        }
    }
}

/// The block of the slot that a place tells.
fn block_of(place: u64) -> u32 {
    let [low, high, ..] = place.to_le_bytes();
    u32::from(u16::from_le_bytes([low, high]))
}

/// Stands for a hole: block 0 of a slot holds its header.
pub(super) const NOWHERE: u64 = 0;

/// Where each block of a page is, as one number: the segment, then 16 bits of the block of its slot.
pub(super) fn places(page: Option<&Page>) -> Vec<u64> {
    let mut out = Vec::with_capacity(PAGE_BLOCKS as usize);
    if let Some(page) = page {
        page.visit(0, PAGE_BLOCKS, |_, len, found| match found {
            Found::Hole | Found::Zero => out.extend((0..len).map(|_| NOWHERE)),
            Found::Data { location, .. } => {
                let number = |by| location.segment.0 << 16 | u64::from(location.plus(by).block);
                out.extend((0..len).map(number));
            }
        });
    }
    out.resize(PAGE_BLOCKS as usize, NOWHERE);
    out
}
