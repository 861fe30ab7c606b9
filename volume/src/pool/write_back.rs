//! Writing map pages back: versions of pages, live counts and how far the map is complete, in one atomic step.
//!
//! A write of a generation takes the place of the newest version of its page, unless the end of a generation between the
//! two is needed: then that version stays below. Live counts are kept exactly: each version is compared with the one that
//! it replaces and with the one below ([`super::versions`]). Below the lowest version of an heir is what it inherits
//! ([`super::lineage`]); its first version of a page is written full.

use super::index::{Entry, Index};
use super::rows;
use super::versions::{Version, count_change};
use super::{BoundaryRow, Inheritance, LiveChange, VolumeRow};
use crate::error::DiskFault;
use crate::io::PageIndex;
use crate::map::{Page, PageWrite};
use crate::store::{Durability, Store, StoreWrite};
use std::collections::BTreeMap;
use units::{Lsn, VolumeId};

/// Most stored pages that are dropped in one commit.
const DROPPED_PAGES_MAX: usize = 256;

/// How far a stored map goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Folded {
    /// It holds everything up to here.
    pub to: Lsn,
    /// The generation there.
    pub generation: u64,
    /// The volume's size there or later.
    pub size_bytes: u64,
}

/// What one commit makes of a page.
#[derive(Debug)]
struct PageChange {
    /// The version whose place is taken, since nobody needs it any more.
    replaced: Option<(u64, Page)>,
    /// The newest version that stays below, own or inherited.
    below: Option<Page>,
    /// The page as it is to be.
    new: Page,
}

type PageChanges = BTreeMap<PageIndex, PageChange>;

/// Whose pages are written: the volume's, of a generation.
type Target = (VolumeId, u64);

impl<S: Store> Index<S> {
    /// Writes `pages` of the map that `generation` of `volume` has, in order, and notes how far the stored map is
    /// complete. No page of a later generation has been written before.
    ///
    /// A drop of very many pages is carried out in several steps before the one that counts. What they apply early is in
    /// the log, which is replayed from where the map was complete before should the last one not come.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, holds a page that is none or is of a later generation, or does not have yet
    /// what the volume inherits: the stored map is not complete to `folded`, and all of `pages` has to be written again.
    pub fn write_back(
        &mut self,
        volume: VolumeId,
        generation: u64,
        pages: &[PageWrite],
        folded: Folded,
    ) -> Result<(), DiskFault> {
        if self.inheritance(volume) != Inheritance::Ready {
            return Err(DiskFault::Io);
        }
        let target = (volume, generation);
        let mut changes = PageChanges::new();
        for write in pages {
            match write {
                PageWrite::Put { page, encoded } => {
                    let new = Page::decode(encoded).map_err(|_| DiskFault::Io)?;
                    let change = match changes.remove(page) {
                        Some(change) => change,
                        None => self.page_change(target, *page)?,
                    };
                    changes.insert(*page, PageChange { new: new.over(&change.new), ..change });
                }
                PageWrite::Drop { first, end } => self.drop_pages(target, (*first, *end), &mut changes)?,
            }
        }
        let row = self.row_or_new(volume);
        let row = VolumeRow {
            size_bytes: folded.size_bytes,
            folded_to: folded.to.max(row.folded_to),
            generation: folded.generation.max(row.generation),
            ..row
        };
        self.commit_changes(target, &changes, row)
    }

    fn row_or_new(&self, volume: VolumeId) -> VolumeRow {
        let (size_bytes, folded_to, epoch) = (0, Lsn::ZERO, self.epoch(volume));
        let mapped = self.inherited_mapped(volume);
        let new = VolumeRow { volume, size_bytes, folded_to, epoch, generation: 0, mapped };
        self.volume_row(volume).unwrap_or(new)
    }

    /// What a change of a page begins with: the page as it is.
    fn page_change(&self, target: Target, page: PageIndex) -> Result<PageChange, DiskFault> {
        match self.version_at(target.0, page, u64::MAX)? {
            Some(newest) => self.change_of(target, &newest),
            None => {
                let below = self.inherited_page(target.0, page)?;
                let new = below.clone().unwrap_or(Page::empty(false));
                Ok(PageChange { replaced: None, below, new })
            }
        }
    }

    fn change_of(&self, (volume, generation): Target, newest: &Version) -> Result<PageChange, DiskFault> {
        if newest.generation > generation {
            return Err(DiskFault::Io);
        }
        let content = newest.content()?;
        if self.has_boundary(volume, newest.generation..generation) {
            return Ok(PageChange { replaced: None, new: content.clone(), below: Some(content) });
        }
        // Without a boundary before it, nobody needed an older one.
        let older = if self.knows_boundary(volume, 0..newest.generation) {
            self.version_below(volume, newest.page, newest.generation)?
        } else {
            None
        };
        let below = match older {
            Some(version) => Some(version.content()?),
            None => self.inherited_page(volume, newest.page)?,
        };
        Ok(PageChange { replaced: Some((newest.generation, content.clone())), new: content, below })
    }

    fn drop_pages(
        &mut self,
        target: Target,
        (first, end): (PageIndex, PageIndex),
        changes: &mut PageChanges,
    ) -> Result<(), DiskFault> {
        for (_, change) in changes.range_mut(first..end) {
            change.new = Page::empty(false);
        }
        let mut from = first;
        let mut step = PageChanges::new();
        while from < end
            && let Some(page) = self.next_page(target.0, from)?.filter(|page| *page < end)
        {
            from = PageIndex(page.0 + 1);
            if changes.contains_key(&page) {
                continue;
            }
            let change = self.page_change(target, page)?;
            if change.new.is_empty() {
                // It shows nothing: what is stored of it hides what it inherits, or is of a generation before.
                continue;
            }
            step.insert(page, PageChange { new: Page::empty(false), ..change });
            if step.len() >= DROPPED_PAGES_MAX {
                self.commit_changes(target, &std::mem::take(&mut step), self.row_or_new(target.0))?;
            }
        }
        changes.append(&mut step);
        Ok(())
    }

    /// Commits `changes` with the counts that follow from them; `row` is the volume's but for these.
    fn commit_changes(
        &mut self,
        (volume, generation): Target,
        changes: &PageChanges,
        row: VolumeRow,
    ) -> Result<(), DiskFault> {
        let live = LiveChange::none(self.superblock().geometry.slot_blocks());
        let (mut writes, mut live, mut mapped) = (Vec::new(), live, 0_i64);
        for (page, change) in changes {
            change.add_writes((volume, generation), *page, &mut writes);
            mapped += change.count(&mut live);
        }
        let row = VolumeRow { mapped: row.mapped.saturating_add_signed(mapped), ..row };
        writes.push(StoreWrite::Put(rows::volume_key(volume), rows::encode_volume(&row)));
        let boundaries = self.boundaries_after((volume, generation), mapped);
        writes.extend(boundaries.iter().map(|row| {
            StoreWrite::Put(rows::boundary_key(volume, row.boundary.generation), rows::encode_boundary(row))
        }));
        let entries = self.entries_after(&live)?;
        // Rows that wait to be written go first, so these must come with the same words.
        writes.extend(entries.iter().map(|entry| self.row_write(entry)));
        self.commit(writes, Durability::Lazy)?;
        entries.into_iter().for_each(|entry| self.put_entry(entry));
        self.note_live_change(&live);
        self.boundaries.extend(boundaries.into_iter().map(|row| ((volume, row.boundary.generation), row)));
        self.volumes.insert(volume, row);
        Ok(())
    }

    /// The boundaries that show what changes, as they are to be when the volume gains so many blocks.
    ///
    /// Those of an heir that has no row yet were noted before it was known what it inherits.
    fn boundaries_after(&self, (volume, generation): Target, gained: i64) -> Vec<BoundaryRow> {
        let is_first = self.volume_row(volume).is_none() && self.parent(volume).is_some();
        let inherited = if is_first { self.inherited_mapped(volume) } else { 0 };
        let all = self.boundaries(volume).map(|row| {
            let mapped = if is_first { inherited } else { row.mapped };
            let gained = if row.boundary.generation >= generation { gained } else { 0 };
            (row.mapped, BoundaryRow { mapped: mapped.saturating_add_signed(gained), ..*row })
        });
        all.filter(|(before, row)| *before != row.mapped).map(|(_, row)| row).collect()
    }

    /// Segments whose live counts change, as they are to be.
    pub(super) fn entries_after(&self, live: &LiveChange) -> Result<Vec<Entry>, DiskFault> {
        let mut after = Vec::new();
        for (segment, by) in live.each() {
            let Some(entry) = self.entry(segment) else {
                // A page may name no segment without a row: the volume notes each before it appends to it.
                if by.iter().any(|by| *by > 0) {
                    return Err(DiskFault::Io);
                }
                continue;
            };
            // A count that has gone wrong keeps the segment for ever rather than lose a block.
            let live = entry.live.and_then(|live| live.after(by));
            after.push(Entry { live, ..*entry });
        }
        Ok(after)
    }
}

impl PageChange {
    /// A page without data is stored only where it hides one below.
    fn is_stored(&self) -> bool {
        !self.new.is_empty() || self.below.as_ref().is_some_and(|below| !below.is_empty())
    }

    fn add_writes(&self, (volume, generation): Target, page: PageIndex, writes: &mut Vec<StoreWrite>) {
        let replaced = self.replaced.as_ref().map(|(of, _)| *of);
        if let Some(of) = replaced.filter(|of| *of != generation || !self.is_stored()) {
            writes.push(StoreWrite::Delete(rows::page_key(volume, page, of)));
            writes.push(StoreWrite::Delete(rows::birth_key(volume, of, page)));
        }
        if self.is_stored() {
            writes.push(StoreWrite::Put(rows::page_key(volume, page, generation), self.new.encode()));
            if replaced != Some(generation) {
                writes.push(StoreWrite::Put(rows::birth_key(volume, generation, page), Vec::new()));
            }
        }
    }

    /// Adds what segments gain and lose; returns what the volume as it is now gains in mapped blocks.
    fn count(&self, live: &mut LiveChange) -> i64 {
        let replaced = self.replaced.as_ref().map(|(_, page)| page);
        count_change((replaced, Some(&self.new)), self.below.as_ref(), &[], live);
        let visible = replaced.or(self.below.as_ref());
        let before = visible.map_or(0, Page::mapped_blocks);
        // At most 2,048 each.
        self.new.mapped_blocks().cast_signed() - before.cast_signed()
    }
}
