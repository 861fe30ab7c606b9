//! Writing map pages back: pages, live counts and how far the map is complete, in one atomic step.
//!
//! The live count of a segment is the number of blocks that stored pages map to it. It is kept exactly: each stored page
//! is compared with the one that takes its place.

use super::index::{Index, io};
use super::rows::{self, LIVE_UNKNOWN};
use super::{VolumeRow, index::Entry};
use crate::error::DiskFault;
use crate::io::PageIndex;
use crate::map::{Found, PAGE_BLOCKS, Page, PageWrite};
use crate::store::{Durability, Store, StoreWrite};
use std::collections::BTreeMap;
use std::ops::Bound;
use units::{Lsn, SegmentId, VolumeId};

/// Most stored pages that are dropped in one commit.
const DROPPED_PAGES_MAX: u32 = 256;

/// Changes of one commit as they gather.
#[derive(Debug, Default)]
struct Changes {
    /// Pages as they are to be; `None` when there is to be none.
    pages: BTreeMap<PageIndex, Option<Page>>,
    /// Blocks that segments gain or lose.
    live: BTreeMap<SegmentId, i64>,
}

impl Changes {
    fn count(&mut self, page: &Page, step: i64) {
        page.visit(0, PAGE_BLOCKS, |_, len, found| {
            if let Found::Data { location, .. } = found {
                *self.live.entry(location.segment).or_default() += step * i64::from(len);
            }
        });
    }
}

impl<S: Store> Index<S> {
    /// Writes `pages` of the map of `volume`, in order, and notes that the stored map is complete to `folded_to`.
    ///
    /// A drop of very many pages is carried out in several steps before the one that counts. What they apply early is in
    /// the log, which is replayed from the earlier `folded_to` should the last one not come.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or holds a page that is none: the stored map is not complete to
    /// `folded_to`, and all of `pages` has to be written again.
    pub fn write_back(
        &mut self,
        volume: VolumeId,
        pages: &[PageWrite],
        folded_to: Lsn,
        size_bytes: u64,
    ) -> Result<(), DiskFault> {
        let mut changes = Changes::default();
        for write in pages {
            match write {
                PageWrite::Put { page, encoded } => self.put_page(volume, *page, encoded, &mut changes)?,
                PageWrite::Drop { first, end } => self.drop_pages(volume, *first, *end, &mut changes)?,
            }
        }
        let before = self.volume_row(volume).map_or(Lsn::ZERO, |row| row.folded_to);
        let row = VolumeRow { volume, size_bytes, folded_to: folded_to.max(before), epoch: self.epoch(volume) };
        let mut writes = Self::page_writes(volume, &changes);
        writes.push(StoreWrite::Put(rows::volume_key(volume), rows::encode_volume(&row)));
        self.commit_changes(writes, &changes)?;
        self.volumes.insert(volume, row);
        Ok(())
    }

    fn put_page(
        &self,
        volume: VolumeId,
        page: PageIndex,
        encoded: &[u8],
        changes: &mut Changes,
    ) -> Result<(), DiskFault> {
        let new = Page::decode(encoded).map_err(|_| DiskFault::Io)?;
        let old = match changes.pages.remove(&page) {
            Some(pending) => pending,
            None => self.stored_page(volume, page)?,
        }
        .unwrap_or(Page::empty(false));
        let merged = new.over(&old);
        changes.count(&old, -1);
        changes.count(&merged, 1);
        changes.pages.insert(page, (!merged.is_empty()).then_some(merged));
        Ok(())
    }

    fn stored_page(&self, volume: VolumeId, page: PageIndex) -> Result<Option<Page>, DiskFault> {
        let encoded = self.store.read(&rows::page_key(volume, page)).map_err(io)?;
        encoded.map(|encoded| Page::decode(&encoded).map_err(|_| DiskFault::Io)).transpose()
    }

    fn drop_pages(
        &mut self,
        volume: VolumeId,
        first: PageIndex,
        end: PageIndex,
        changes: &mut Changes,
    ) -> Result<(), DiskFault> {
        let pending: Vec<PageIndex> = changes.pages.range(first..end).map(|(page, _)| *page).collect();
        for page in pending {
            let dropped = changes.pages.insert(page, None).flatten();
            changes.count(&dropped.unwrap_or(Page::empty(false)), -1);
        }
        let mut from = first;
        let mut step = Changes::default();
        while from < end
            && let Some((page, encoded)) = self.next_page(volume, from)?.filter(|(page, _)| *page < end)
        {
            from = PageIndex(page.0 + 1);
            if changes.pages.contains_key(&page) {
                continue;
            }
            step.count(&Page::decode(&encoded).map_err(|_| DiskFault::Io)?, -1);
            step.pages.insert(page, None);
            if step.pages.len() >= DROPPED_PAGES_MAX as usize {
                let writes = Self::page_writes(volume, &step);
                self.commit_changes(writes, &step)?;
                step = Changes::default();
            }
        }
        changes.pages.append(&mut step.pages);
        for (segment, by) in step.live {
            *changes.live.entry(segment).or_default() += by;
        }
        Ok(())
    }

    /// The store's writes for pages. Neighbouring pages that go are taken away as a range.
    fn page_writes(volume: VolumeId, changes: &Changes) -> Vec<StoreWrite> {
        let mut writes = Vec::with_capacity(changes.pages.len() + 1);
        let mut at = Bound::Unbounded;
        while let Some((first, page)) = changes.pages.range((at, Bound::Unbounded)).next() {
            at = Bound::Excluded(*first);
            if let Some(page) = page {
                writes.push(StoreWrite::Put(rows::page_key(volume, *first), page.encode()));
                continue;
            }
            let gone = changes.pages.range(first..).zip(first.0..);
            let last = gone.take_while(|((page, new), index)| new.is_none() && page.0 == *index).last();
            let last = last.map_or(*first, |((page, _), _)| *page);
            at = Bound::Excluded(last);
            writes.push(if last == *first {
                StoreWrite::Delete(rows::page_key(volume, *first))
            } else {
                StoreWrite::DeleteRange(
                    rows::page_start(volume, *first),
                    rows::page_start(volume, PageIndex(last.0 + 1)),
                )
            });
        }
        writes
    }

    /// Commits `writes` with the live counts that follow from `changes`.
    fn commit_changes(&mut self, mut writes: Vec<StoreWrite>, changes: &Changes) -> Result<(), DiskFault> {
        let mut after: Vec<Entry> = Vec::new();
        for (segment, by) in changes.live.iter().filter(|(_, by)| **by != 0) {
            let Some(entry) = self.entry(*segment) else {
                // A page may name no segment without a row: the volume notes each before it appends to it.
                if *by > 0 {
                    return Err(DiskFault::Io);
                }
                continue;
            };
            let live = match entry.live {
                LIVE_UNKNOWN => LIVE_UNKNOWN,
                // A count that has gone wrong keeps the segment for ever rather than lose a block.
                live => live.checked_add_signed(*by).unwrap_or(LIVE_UNKNOWN),
            };
            after.push(Entry { live, ..*entry });
        }
        // Rows that wait to be written go first, so these must come with the same words.
        writes.extend(after.iter().map(|entry| {
            StoreWrite::Put(rows::segment_key(entry.row.segment), rows::encode_segment(&entry.row, entry.live))
        }));
        self.commit(writes, Durability::Lazy)?;
        after.into_iter().for_each(|entry| self.put_entry(entry));
        Ok(())
    }
}
