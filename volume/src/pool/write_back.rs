//! Writing map pages back: versions of pages, live counts and how far the map is complete, in one atomic step.
//!
//! A write of a generation takes the place of the newest version of its page, unless the end of a generation between the
//! two is needed: then that version stays below. Live counts are kept exactly: each version is compared with the one that
//! it replaces and with the one below ([`super::versions`]). Below the lowest version of an heir is what it inherits
//! ([`super::lineage`]); its first version of a page is written full.

use super::index::{Entry, Index};
use super::meter::Meter;
use super::rows;
use super::versions::{Version, count_change};
use super::{BoundaryRow, Inheritance, LiveChange, VolumeRow};
use crate::controls::{Safeguard, is_missing};
use crate::error::DiskFault;
use crate::io::PageIndex;
use crate::map::{Held, Page, PageWrite, Touches};
use crate::store::{Durability, Store, StoreWrite};
use std::collections::BTreeMap;
use std::ops::Range;
use units::{Lsn, MeterTime, VolumeId};

/// Most stored pages that are dropped in one commit.
const DROPPED_PAGES_MAX: usize = 256;

/// How far a stored map goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Folded {
    /// It holds everything up to here.
    pub to: Lsn,
    /// The generation there.
    pub generation: u64,
    /// The volume's size there or later.
    pub size_bytes: u64,
    /// What comes behind counts from here, or from later.
    pub at: MeterTime,
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
    /// The last change in it.
    lsn: Lsn,
}

type PageChanges = BTreeMap<PageIndex, PageChange>;

/// Whose pages are written: the volume's, of a generation.
type Target = (VolumeId, u64);

/// A write-back under way.
#[derive(Debug)]
struct Work {
    target: Target,
    changes: PageChanges,
    metering: Option<Metering>,
    /// What was dropped so far, and by which operation.
    dropped: Vec<(Range<u64>, Lsn)>,
}

/// What a write-back makes of the volume's meter.
#[derive(Debug)]
struct Metering {
    meter: Meter,
    /// Blocks that hold data more since the last commit.
    more: i64,
}

impl Metering {
    fn add(&mut self, at: MeterTime, blocks: i64) {
        self.meter.add_written(at, blocks);
        self.more += blocks;
    }
}

/// Pages that are dropped.
#[derive(Debug, Clone, Copy)]
struct Dropping<'a> {
    first: PageIndex,
    end: PageIndex,
    lsn: Lsn,
    at: MeterTime,
    touched: &'a BTreeMap<PageIndex, Touches>,
}

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
        let metering = self.meter_to_change(volume).map(|meter| Metering { meter, more: 0 });
        let target = (volume, generation);
        let mut work = Work { target, changes: PageChanges::new(), metering, dropped: Vec::new() };
        for write in pages {
            match write {
                PageWrite::Put { page, encoded, lsn, touches } => {
                    let new = Page::decode(encoded).map_err(|_| DiskFault::Io)?;
                    let mut change = self.begin_change(&mut work, *page)?;
                    if let Some(metering) = &mut work.metering {
                        change.count_touches(Some(touches), metering);
                    }
                    change.new = new.over(&change.new);
                    change.lsn = change.lsn.max(*lsn);
                    work.changes.insert(*page, change);
                }
                PageWrite::Drop { first, end, lsn, at, touched } => {
                    let dropping = Dropping { first: *first, end: *end, lsn: *lsn, at: *at, touched };
                    self.drop_pages(&mut work, dropping)?;
                }
                PageWrite::Resize { lsn, at, size_bytes } => {
                    if let Some(metering) = &mut work.metering {
                        metering.meter.add_resize(*lsn, *at, *size_bytes);
                    }
                }
            }
        }
        if let Some(metering) = &mut work.metering {
            metering.meter.end_resizes(folded.at, folded.size_bytes);
            // Those that the map is complete to are forgotten at once.
            work.dropped.drain(..).for_each(|(pages, lsn)| metering.meter.note_emptied(pages, lsn));
        }
        let row = self.row_or_new(volume);
        let row = VolumeRow {
            size_bytes: folded.size_bytes,
            folded_to: folded.to.max(row.folded_to),
            generation: folded.generation.max(row.generation),
            ..row
        };
        self.commit_changes(&mut work, row, folded.at)
    }

    fn row_or_new(&self, volume: VolumeId) -> VolumeRow {
        let (size_bytes, folded_to, epoch) = (0, Lsn::ZERO, self.epoch(volume));
        let mapped = self.inherited_mapped(volume);
        let new = VolumeRow { volume, size_bytes, folded_to, epoch, generation: 0, mapped };
        self.volume_row(volume).unwrap_or(new)
    }

    /// The page as this write-back has left it so far, or as it is.
    fn begin_change(&self, work: &mut Work, page: PageIndex) -> Result<PageChange, DiskFault> {
        if let Some(change) = work.changes.remove(&page) {
            return Ok(change);
        }
        let mut change = self.page_change(work.target, page)?;
        if is_missing(Safeguard::CountedOnce) {
            change.lsn = Lsn::ZERO;
        } else if let Some(metering) = &work.metering {
            change.lsn = change.lsn.max(metering.meter.emptied_at(page));
        }
        Ok(change)
    }

    /// What a change of a page begins with: the page as it is.
    fn page_change(&self, target: Target, page: PageIndex) -> Result<PageChange, DiskFault> {
        match self.version_at(target.0, page, u64::MAX)? {
            Some(newest) => self.change_of(target, &newest),
            None => {
                let below = self.inherited_page(target.0, page)?;
                let new = below.clone().unwrap_or(Page::empty(false));
                // What is inherited tells operations of another log.
                Ok(PageChange { replaced: None, below, new, lsn: Lsn::ZERO })
            }
        }
    }

    fn change_of(&self, (volume, generation): Target, newest: &Version) -> Result<PageChange, DiskFault> {
        if newest.generation > generation {
            return Err(DiskFault::Io);
        }
        let (content, lsn) = (newest.content()?, newest.lsn);
        if self.has_boundary(volume, newest.generation..generation) {
            return Ok(PageChange { replaced: None, new: content.clone(), below: Some(content), lsn });
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
        Ok(PageChange { replaced: Some((newest.generation, content.clone())), new: content, below, lsn })
    }

    fn drop_pages(&mut self, work: &mut Work, dropping: Dropping<'_>) -> Result<(), DiskFault> {
        let Dropping { first, end, lsn, at, touched } = dropping;
        let volume = work.target.0;
        let found_end = self.found_ends.get(&volume).copied().unwrap_or(Lsn::ZERO);
        let mut from = first;
        while from < end {
            let changed = work.changes.range(from..).next().map(|(page, _)| *page);
            let touches = touched.range(from..).next();
            let stored = self.next_page(volume, from)?;
            let next = changed.into_iter().chain(touches.map(|(page, _)| *page)).chain(stored).min();
            let Some(page) = next.filter(|page| *page < end) else { break };
            from = PageIndex(page.0 + 1);
            let change = self.begin_change(work, page)?;
            let touches = touches.filter(|(of, _)| **of == page).map(|(_, touches)| touches);
            if lsn <= change.lsn && change.lsn <= found_end {
                // The log is being replayed, and the page has this and what came later.
                if changed == Some(page) {
                    work.changes.insert(page, change);
                }
                continue;
            }
            if let Some(metering) = &mut work.metering {
                let held = change.count_touches(touches, metering);
                metering.add(at, -held.count());
            }
            if change.new.is_empty() && changed != Some(page) {
                // It shows nothing: what is stored of it hides what it inherits, or is of a generation before.
                continue;
            }
            work.changes.insert(page, PageChange { new: Page::empty(false), lsn, ..change });
            if work.changes.len() >= DROPPED_PAGES_MAX {
                self.commit_early(work, (first.0..from.0, lsn))?;
            }
        }
        work.dropped.push((first.0..end.0, lsn));
        Ok(())
    }

    /// Commits what a drop of very many pages has come to. The stored map is not complete to it: what is dropped so far is
    /// noted, so that it is not counted again.
    fn commit_early(&mut self, work: &mut Work, dropped: (Range<u64>, Lsn)) -> Result<(), DiskFault> {
        let row = self.row_or_new(work.target.0);
        if let Some(metering) = &mut work.metering {
            let all = work.dropped.iter().cloned().chain([dropped]).filter(|(_, lsn)| *lsn > row.folded_to);
            all.for_each(|(pages, lsn)| metering.meter.note_emptied(pages, lsn));
        }
        self.commit_changes(work, row, MeterTime(0))
    }

    /// Commits the changes so far with the counts that follow from them; `row` is the volume's but for these. What comes
    /// behind where that is complete to counts from `at` or later.
    fn commit_changes(&mut self, work: &mut Work, row: VolumeRow, at: MeterTime) -> Result<(), DiskFault> {
        let (volume, generation) = work.target;
        let changes = std::mem::take(&mut work.changes);
        let live = LiveChange::none(self.superblock().geometry.slot_blocks());
        let (mut writes, mut live, mut mapped) = (Vec::new(), live, 0_i64);
        for (page, change) in &changes {
            change.add_writes((volume, generation), *page, &mut writes);
            mapped += change.count(&mut live);
        }
        let row = VolumeRow { mapped: row.mapped.saturating_add_signed(mapped), ..row };
        writes.push(StoreWrite::Put(rows::volume_key(volume), rows::encode_volume(&row)));
        let is_different = work.metering.as_mut().is_some_and(|metering| metering.end(&changes, (mapped, &row), at));
        let meter = work.metering.as_ref().map(|metering| &metering.meter);
        writes.extend(meter.map(|meter| StoreWrite::Put(rows::meter_key(volume), meter.encode())));
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
        self.meters.extend(work.metering.as_ref().map(|metering| (volume, metering.meter.clone())));
        self.meter_differences += u64::from(is_different);
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

impl Metering {
    /// Ends a commit which makes so many more blocks hold data, by the map. Returns whether the registers said otherwise:
    /// they go on with what the map says.
    fn end(&mut self, changes: &PageChanges, (mapped, row): (i64, &VolumeRow), at: MeterTime) -> bool {
        let different = mapped - std::mem::take(&mut self.more);
        self.meter.add_written(at, different);
        for (page, change) in changes.iter().filter(|(_, change)| !change.is_stored() && change.lsn > row.folded_to) {
            if self.meter.emptied_at(*page) >= change.lsn {
                continue;
            }
            self.meter.note_emptied(page.0..page.0 + 1, change.lsn);
        }
        self.meter.fold_to(row.folded_to, at);
        different != 0
    }
}

impl PageChange {
    /// Counts what changes made of the page that it does not have yet; returns which of its blocks hold data since.
    fn count_touches(&self, touches: Option<&Touches>, metering: &mut Metering) -> Held {
        let mut held = Held::of(&self.new);
        if let Some(touches) = touches {
            touches.apply(self.lsn, &mut held, |at, more| metering.add(at, more));
        }
        held
    }

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
            writes.push(StoreWrite::Put(
                rows::page_key(volume, page, generation),
                rows::encode_page(&self.new, self.lsn),
            ));
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
