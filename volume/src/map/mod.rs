//! The map from a volume's blocks to where they are: a bounded cache of pages over those that the store has.
//!
//! A change goes to the cached page at once; where the page is not cached, a partial one takes it, so that nothing waits
//! for the store. Changed pages are captured, oldest change first, and written back; [`Capture::folded_to`] is how far the
//! stored map is complete once they are.
//!
//! A snapshot ends a generation, and takes no more than noting it. The cache shows the present generation alone; what an
//! ended one has that the store lacks is kept beside it (`frozen`) and written back before anything later.
//!
//! Relies on the driver to answer page loads and write-backs of one volume in the order in which they were given.

#![expect(
    clippy::cast_possible_truncation,
    reason = "blocks within a page: fewer than 2,048, and places within a slot: 16 bits"
)]

mod frozen;
mod page;
mod range_set;
mod touches;
mod write_back;

pub use page::{Change, Found, Location, PAGE_BLOCKS, Page, Replaced};
pub(crate) use touches::Held;
pub use touches::Touches;
pub use write_back::{Capture, PageWrite};

use crate::format::{Operation, OperationKind};
use crate::io::{LoadedPage, PageIndex};
use crate::request::Extent;
use range_set::RangeSet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use units::{BLOCK_BYTES, BlockIndex, BlockRange, Lsn, MeterTime};
use write_back::{DroppedPages, InWriteBack};

/// What a cached page costs beside its bytes: its node in the tree, its allocation's slack.
const PAGE_OVERHEAD_BYTES: usize = 152;

/// Most pages that one walk over extents looks into before it answers with what it has.
const EXTENT_PAGES_MAX: u32 = 512;

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Cached {
    page: Page,
    /// The first change that no capture has taken.
    first_dirty: Option<Lsn>,
    is_in_write_back: bool,
    /// Used since the hand last passed.
    is_recent: bool,
    /// Of its last change.
    generation: u64,
    /// The last change.
    last_lsn: Lsn,
    /// What the changes since the last capture made of its blocks.
    touches: Touches,
}

impl Cached {
    fn bytes(&self) -> usize {
        self.page.heap_bytes() + self.touches.heap_bytes() + PAGE_OVERHEAD_BYTES
    }
}

/// The times that operations count from: each from that of the mark before it.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
struct Times {
    /// That of the last mark.
    now: MeterTime,
    /// That of the last mark which the stored map is complete to.
    folded: MeterTime,
    /// Later marks, in order.
    marks: VecDeque<(Lsn, MeterTime)>,
}

impl Times {
    fn note(&mut self, lsn: Lsn, at: MeterTime) {
        self.now = self.now.max(at);
        self.marks.push_back((lsn, self.now));
    }

    /// The time that the operation after `lsn` counts from, or a later one if that tells it.
    fn at(&self, lsn: Lsn) -> MeterTime {
        let after = self.marks.partition_point(|(mark, _)| *mark <= lsn);
        after.checked_sub(1).and_then(|last| self.marks.get(last)).map_or(self.folded, |(_, at)| *at)
    }

    fn fold_to(&mut self, lsn: Lsn) {
        while let Some((_, at)) = self.marks.pop_front_if(|(mark, _)| *mark <= lsn) {
            self.folded = at;
        }
    }
}

/// A run of a resolved range: `count` blocks from block `at` of the range on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolvedRun {
    /// Blocks from the start of the range.
    pub at: u32,
    /// Number of blocks.
    pub count: u32,
    /// Of the first block; `None` for a hole.
    pub location: Option<Location>,
}

/// A volume's map.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Map {
    /// The present generation: what the next change goes to.
    generation: u64,
    /// The pages as they are now.
    pages: BTreeMap<u64, Cached>,
    /// Pages as an ended generation left them, of which the store lacks something, by page and generation. Since
    /// then the page has been changed, or dropped.
    frozen: BTreeMap<(u64, u64), Cached>,
    /// Pages with changes that no capture has taken, by generation and the first such change: in `frozen` when they are
    /// there, otherwise in `pages`.
    dirty: BTreeSet<(u64, Lsn, u64)>,
    dirty_bytes: usize,
    cached_bytes: usize,
    /// Pages of which the store is known to have none, or an empty one, once what is frozen and `drops` are written.
    absent: RangeSet,
    /// What the store must drop, oldest first.
    drops: Vec<DroppedPages>,
    drop_bytes: usize,
    /// The times that changes count from, where the volume is metered.
    times: Option<Times>,
    /// Sizes that the volume was given and no capture has taken: the operation, when, and how many bytes.
    sizes: Vec<(Lsn, MeterTime, u64)>,
    write_back: Option<InWriteBack>,
    hand: u64,
}

impl Map {
    /// A map over a store of which nothing is known; `is_store_empty` when it is known to have no page.
    #[must_use]
    pub fn new(is_store_empty: bool) -> Self {
        Self {
            generation: 0,
            pages: BTreeMap::new(),
            frozen: BTreeMap::new(),
            dirty: BTreeSet::new(),
            dirty_bytes: 0,
            cached_bytes: 0,
            absent: if is_store_empty { RangeSet::all() } else { RangeSet::default() },
            drops: Vec::new(),
            drop_bytes: 0,
            times: None,
            sizes: Vec::new(),
            write_back: None,
            hand: 0,
        }
    }

    /// Ends the present generation: what changes from here on is of `generation`, which is a later one.
    ///
    /// An earlier one, which only a log that was tampered with can tell of, changes nothing.
    pub fn begin_generation(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
    }

    /// The present generation.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes that the pages take, cached and frozen.
    #[must_use]
    pub const fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }

    /// Bytes of those pages that have changes to write back, and of what else has.
    #[must_use]
    pub const fn dirty_bytes(&self) -> usize {
        self.dirty_bytes + self.drop_bytes
    }

    /// Keeps from now on what changes make of blocks, and from when on that counts.
    pub fn begin_metering(&mut self) {
        self.times.get_or_insert_default();
    }

    /// Notes that operation `lsn` tells the time.
    pub fn note_time(&mut self, lsn: Lsn, operation: &Operation) {
        if let (Some(times), OperationKind::TimeMark { meter: Some(at), .. }) = (&mut self.times, operation.kind) {
            times.note(lsn, at);
        }
    }

    /// Notes that operation `lsn` gave the volume a size.
    pub fn note_size(&mut self, lsn: Lsn, size_bytes: u64) {
        if let Some(times) = &self.times {
            self.sizes.push((lsn, times.now, size_bytes));
        }
    }

    /// The time that the next change counts from.
    #[must_use]
    pub fn meter_time(&self) -> MeterTime {
        self.times.as_ref().map_or(MeterTime(0), |times| times.now)
    }

    /// Whether there is anything to write back.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.drops.is_empty()
    }

    /// Whether a capture is being written back.
    #[must_use]
    pub const fn is_in_write_back(&self) -> bool {
        self.write_back.is_some()
    }

    /// Finds where the blocks of `range` are, in runs, with the check values of those that hold data in order.
    ///
    /// # Errors
    /// The page that has to be loaded first; `runs` and `checks` are then not complete.
    pub fn resolve(
        &mut self,
        range: BlockRange,
        runs: &mut impl Extend<ResolvedRun>,
        checks: &mut impl Extend<u32>,
    ) -> Result<(), PageIndex> {
        for (index, first, count) in pages_of(range) {
            let at = page_block(index, first) - range.first.0;
            let Some(cached) = self.pages.get_mut(&index) else {
                if !self.absent.contains(index) {
                    return Err(PageIndex(index));
                }
                runs.extend([ResolvedRun { at: at as u32, count, location: None }]);
                continue;
            };
            cached.is_recent = true;
            let is_partial = cached.page.is_partial();
            let mut is_unknown = false;
            cached.page.visit(first, count, |run_first, len, found| {
                let at = (at + u64::from(run_first - first)) as u32;
                match found {
                    Found::Hole if is_partial => is_unknown = true,
                    Found::Hole | Found::Zero => runs.extend([ResolvedRun { at, count: len, location: None }]),
                    Found::Data { location, checks: bytes } => {
                        runs.extend([ResolvedRun { at, count: len, location: Some(location) }]);
                        checks.extend(bytes.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four)));
                    }
                }
            });
            if is_unknown {
                return Err(PageIndex(index));
            }
        }
        Ok(())
    }

    /// Walks `range` from its start and adds the extents found to `out`, neighbours of different kind, until `out` has
    /// `extents_max` or enough pages have been looked into. Returns the bytes walked.
    ///
    /// # Errors
    /// The bytes walked before, and the page that has to be loaded to go on.
    pub fn extents(
        &mut self,
        range: BlockRange,
        extents_max: usize,
        out: &mut Vec<Extent>,
    ) -> Result<u64, (u64, PageIndex)> {
        let mut at = range.first.0;
        let mut pages_left = EXTENT_PAGES_MAX;
        while at < range.end().0 && pages_left > 0 {
            let walked = (at - range.first.0) * BLOCK_BYTES;
            let (index, first) = (at / u64::from(PAGE_BLOCKS), (at % u64::from(PAGE_BLOCKS)) as u32);
            let count = u64::from(PAGE_BLOCKS - first).min(range.end().0 - at);
            let Some(cached) = self.pages.get(&index) else {
                let absent_end = self.absent.end_of(index).ok_or((walked, PageIndex(index)))?;
                let next_cached = self.pages.range(index..).next().map_or(u64::MAX, |(next, _)| *next);
                let hole_end = absent_end.min(next_cached).saturating_mul(u64::from(PAGE_BLOCKS)).min(range.end().0);
                if !push_extent(out, extents_max, (hole_end - at) * BLOCK_BYTES, false) {
                    return Ok(walked);
                }
                at = hole_end;
                continue;
            };
            let mut is_full = false;
            let mut is_unknown = false;
            let mut walked_here = 0;
            cached.page.visit(first, count as u32, |_, len, found| {
                is_unknown |= matches!(found, Found::Hole) && cached.page.is_partial();
                if is_full || is_unknown {
                    return;
                }
                let is_data = matches!(found, Found::Data { .. });
                is_full = !push_extent(out, extents_max, u64::from(len) * BLOCK_BYTES, is_data);
                walked_here += if is_full { 0 } else { u64::from(len) };
            });
            let walked = walked + walked_here * BLOCK_BYTES;
            if is_full {
                return Ok(walked);
            }
            if is_unknown {
                return Err((walked, PageIndex(index)));
            }
            at += count;
            pages_left -= 1;
        }
        Ok((at - range.first.0) * BLOCK_BYTES)
    }

    /// Notes that operation `lsn` wrote the blocks of `range` to neighbouring locations from `location` on.
    ///
    /// # Panics
    /// When there is not one check value (4 bytes, little-endian) a block.
    pub fn write(&mut self, lsn: Lsn, range: BlockRange, location: Location, checks: &[u8]) {
        assert_eq!(checks.len() as u64, range.count * 4, "one check value a block");
        let mut rest = checks;
        for (index, first, count) in pages_of(range) {
            let by = (page_block(index, first) - range.first.0) as u32;
            let (here, others) = rest.split_at_checked(count as usize * 4).unwrap_or((rest, &[]));
            rest = others;
            self.change(lsn, (index, first, count), Change::Data { location: location.plus(by), checks: here });
        }
    }

    /// Notes that operation `lsn` made the blocks of `range` holes.
    pub fn trim(&mut self, lsn: Lsn, range: BlockRange) {
        let page_blocks = u64::from(PAGE_BLOCKS);
        let whole = range.first.0.div_ceil(page_blocks)..range.end().0 / page_blocks;
        if whole.is_empty() {
            self.trim_parts(lsn, range);
            return;
        }
        let head = BlockRange::new(range.first, whole.start * page_blocks - range.first.0);
        let tail_first = BlockIndex(whole.end * page_blocks);
        self.trim_parts(lsn, head);
        self.drop_pages(lsn, whole);
        self.trim_parts(lsn, BlockRange::new(tail_first, range.end().0 - tail_first.0));
    }

    fn trim_parts(&mut self, lsn: Lsn, range: BlockRange) {
        for (index, first, count) in pages_of(range) {
            if self.pages.contains_key(&index) || !self.absent.contains(index) {
                self.change(lsn, (index, first, count), Change::Hole);
            }
        }
    }

    fn drop_pages(&mut self, lsn: Lsn, whole: Range<u64>) {
        let cached: Vec<u64> = self.pages.range(whole.clone()).map(|(index, _)| *index).collect();
        let (mut touched, mut first_lsn) = (BTreeMap::new(), lsn);
        for index in cached {
            self.freeze_whole(index);
            let Some(Cached { first_dirty, touches, .. }) = self.forget(index) else { continue };
            if !touches.is_empty() {
                // Until the drop is written, what was changed before it is not counted.
                first_lsn = first_dirty.map_or(first_lsn, |first| first.min(first_lsn));
                touched.insert(PageIndex(index), touches);
            }
        }
        let is_absent = self.absent.contains_all(&whole);
        if !is_absent {
            self.absent.insert(whole.clone());
        }
        if !is_absent || !touched.is_empty() {
            let (generation, at) = (self.generation, self.meter_time());
            let dropped = DroppedPages { generation, first_lsn, lsn, at, pages: whole, touched: Arc::new(touched) };
            self.drop_bytes += dropped.bytes();
            self.drops.push(dropped);
        }
    }

    fn change(&mut self, lsn: Lsn, (index, first, count): (u64, u32, u32), change: Change<'_>) {
        let (absent, generation) = (&self.absent, self.generation);
        let at = self.times.as_ref().map(|times| times.now);
        let mut added = 0;
        let cached = self.pages.entry(index).or_insert_with(|| {
            added = PAGE_OVERHEAD_BYTES;
            Cached {
                page: Page::empty(!absent.contains(index)),
                first_dirty: None,
                is_in_write_back: false,
                is_recent: true,
                generation,
                last_lsn: lsn,
                touches: Touches::default(),
            }
        });
        if cached.is_left_behind(generation) {
            let before = cached.bytes();
            let frozen = cached.freeze();
            self.cached_bytes = self.cached_bytes + frozen.bytes() + cached.bytes() - before;
            if frozen.first_dirty.is_some() {
                self.dirty_bytes = self.dirty_bytes + frozen.bytes() - before;
            }
            // The store will come to have it.
            self.absent.remove(&(index..index + 1));
            self.frozen.insert((index, frozen.generation), frozen);
        }
        let before = cached.page.heap_bytes();
        let replaced = cached.page.change(first, count, change);
        let mut touched = 0;
        if let Some(at) = at {
            let (is_data, is_known) = match change {
                Change::Data { .. } => (true, replaced.data == count),
                Change::Hole if cached.page.is_partial() => (false, replaced.zeros == count),
                Change::Hole => (false, replaced.data == 0),
            };
            if !is_known {
                touched = cached.touches.add((lsn, at), (first, count), is_data);
            }
        }
        cached.is_recent = true;
        cached.generation = generation;
        cached.last_lsn = lsn;
        let after = cached.page.heap_bytes() + touched;
        self.cached_bytes = self.cached_bytes + added + after - before;
        if cached.first_dirty.is_some() {
            self.dirty_bytes = self.dirty_bytes + after - before;
        } else {
            cached.first_dirty = Some(lsn);
            self.dirty.insert((generation, lsn, index));
            self.dirty_bytes += cached.bytes();
        }
    }

    /// Forgets a page.
    fn forget(&mut self, index: u64) -> Option<Cached> {
        let cached = self.pages.remove(&index)?;
        self.cached_bytes -= cached.bytes();
        if let Some(lsn) = cached.first_dirty {
            self.dirty.remove(&(cached.generation, lsn, index));
            self.dirty_bytes -= cached.bytes();
        }
        Some(cached)
    }

    /// Takes in what the store has of a page.
    ///
    /// # Errors
    /// [`crate::format::FormatError`] when the stored bytes are no page.
    pub fn loaded(&mut self, page: PageIndex, loaded: &LoadedPage) -> Result<(), crate::format::FormatError> {
        let stored = match loaded {
            // The page was dropped after the load had been asked for.
            LoadedPage::Present(_) if self.absent.contains(page.0) => Page::empty(false),
            LoadedPage::Present(encoded) => Page::decode(encoded)?,
            LoadedPage::Absent { next } => {
                self.note_absent(page.0..next.map_or(u64::MAX, |next| next.0));
                Page::empty(false)
            }
        };
        let before = match self.pages.get(&page.0) {
            Some(cached) if !cached.page.is_partial() => return Ok(()),
            Some(cached) => Some((cached.page.over(&stored), cached.page.heap_bytes())),
            None => None,
        };
        if let Some((merged, before)) = before
            && let Some(cached) = self.pages.get_mut(&page.0)
        {
            let after = merged.heap_bytes();
            cached.page = merged;
            self.cached_bytes = self.cached_bytes + after - before;
            if cached.first_dirty.is_some() {
                self.dirty_bytes = self.dirty_bytes + after - before;
            }
        } else if stored.is_empty() {
            // A stored page without data says the same as none.
            self.absent.insert(page.0..page.0 + 1);
        } else {
            let cached = Cached {
                page: stored,
                first_dirty: None,
                is_in_write_back: false,
                is_recent: true,
                generation: self.generation,
                last_lsn: Lsn::ZERO,
                touches: Touches::default(),
            };
            self.cached_bytes += cached.bytes();
            self.pages.insert(page.0, cached);
        }
        Ok(())
    }

    /// What is frozen or in write-back is on its way to the store, after the answer that told of its absence.
    fn note_absent(&mut self, range: Range<u64>) {
        let frozen = self.frozen.range((range.start, 0)..(range.end, 0)).map(|((index, _), _)| *index);
        let in_write_back = self.write_back.iter().flat_map(|w| w.pages.iter().map(|(index, ..)| *index));
        let on_their_way: Vec<u64> =
            in_write_back.filter(|i| range.contains(i)).chain(frozen).filter(|i| !self.absent.contains(*i)).collect();
        self.absent.insert(range);
        for index in on_their_way {
            self.absent.remove(&(index..index + 1));
        }
    }

    /// Forgets pages that the store has, the least recently used first, until the cache takes at most `limit_bytes`.
    pub fn shrink_to(&mut self, limit_bytes: usize) {
        // Two rounds, since the first may only clear marks, and the hand's way back to the start.
        let mut steps_left = 2 * self.pages.len() + 3;
        while self.cached_bytes > limit_bytes && steps_left > 0 {
            steps_left -= 1;
            let Some((&index, cached)) = self.pages.range_mut(self.hand..).next() else {
                self.hand = 0;
                continue;
            };
            self.hand = index + 1;
            if cached.first_dirty.is_some() || cached.is_in_write_back {
                continue;
            }
            if cached.is_recent {
                cached.is_recent = false;
            } else {
                self.forget(index);
            }
        }
    }
}

/// The pages that `range` touches: index, first block within the page, number of blocks.
fn pages_of(range: BlockRange) -> impl Iterator<Item = (u64, u32, u32)> {
    let page_blocks = u64::from(PAGE_BLOCKS);
    let mut at = range.first.0;
    std::iter::from_fn(move || {
        let (index, first) = (at / page_blocks, at % page_blocks);
        let count = (page_blocks - first).min(range.end().0.checked_sub(at)?);
        at += count;
        (count > 0).then_some((index, first as u32, count as u32))
    })
}

const fn page_block(index: u64, block: u32) -> u64 {
    index * PAGE_BLOCKS as u64 + block as u64
}

/// Adds to the last extent or begins another; `false` when there is no room for another.
fn push_extent(out: &mut Vec<Extent>, extents_max: usize, len: u64, is_data: bool) -> bool {
    if let Some(last) = out.last_mut().filter(|last| last.is_data == is_data) {
        last.len += len;
        return true;
    }
    if out.len() >= extents_max {
        return false;
    }
    out.push(Extent { len, is_data });
    true
}

#[cfg(test)]
mod tests;
