//! Taking what the store lacks, and taking it back when the store failed.
//!
//! A capture is of one generation, the oldest of which the store lacks anything: a drop of a later one must not run before
//! the pages of an earlier one are stored, and a stored page must never hold a change of a later generation than its own.
//!
//! A drop is taken once no older change is left, so that the stored map is complete to it when it is carried out: what is
//! dropped has no page left that could tell which operations it had seen.

use super::{Map, Touches};
use crate::controls::{Safeguard, is_missing};
use crate::io::PageIndex;
use crate::pool::Folded;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use units::{Lsn, MeterTime};

/// One change of the store's pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageWrite {
    /// Lay this page over the stored one, or put it in its place when it is not partial.
    Put {
        /// The page.
        page: PageIndex,
        /// Its encoded form.
        encoded: Vec<u8>,
        /// The last change in it.
        lsn: Lsn,
        /// What its changes made of its blocks, and when.
        touches: Arc<Touches>,
    },
    /// Drop every stored page of `first..end`.
    Drop {
        /// First page.
        first: PageIndex,
        /// The page after the end.
        end: PageIndex,
        /// The operation that dropped them.
        lsn: Lsn,
        /// When.
        at: MeterTime,
        /// What changes before it made of blocks of these pages, and when.
        touched: Arc<BTreeMap<PageIndex, Touches>>,
    },
    /// The volume was given a size.
    Resize {
        /// The operation.
        lsn: Lsn,
        /// When.
        at: MeterTime,
        /// The size.
        size_bytes: u64,
    },
}

impl PageWrite {
    /// A page with all changes up to `lsn`, of which nobody wants to know when they came.
    #[must_use]
    pub fn put(page: PageIndex, encoded: Vec<u8>, lsn: Lsn) -> Self {
        Self::Put { page, encoded, lsn, touches: Arc::default() }
    }
}

/// Pages taken for a write-back.
#[derive(Debug)]
pub struct Capture {
    /// Whose they are: the store's pages of earlier generations stay what they are.
    pub generation: u64,
    /// What to write, in order.
    pub writes: Vec<PageWrite>,
    /// With these written, the stored map holds everything up to here.
    pub folded_to: Lsn,
    /// The generation at `folded_to`.
    pub folded_generation: u64,
    /// Everything in these pages happened up to here.
    pub complete_at: Lsn,
    /// What comes behind `folded_to` counts from here, or from later.
    pub folded_at: MeterTime,
}

impl Capture {
    /// How far the stored map goes with these written; `size_bytes` is the volume's size.
    #[must_use]
    pub const fn folded(&self, size_bytes: u64) -> Folded {
        Folded { to: self.folded_to, generation: self.folded_generation, size_bytes, at: self.folded_at }
    }
}

/// What a drop takes in memory, and what a page costs in it.
const DROP_BYTES: usize = 96;

/// Pages that the store must drop.
#[derive(Debug, Clone)]
pub(super) struct DroppedPages {
    pub(super) generation: u64,
    /// Of the first change that is counted with it.
    pub(super) first_lsn: Lsn,
    /// Of the trim.
    pub(super) lsn: Lsn,
    /// When that counts from.
    pub(super) at: MeterTime,
    pub(super) pages: Range<u64>,
    /// What changes before it had made of blocks of these pages.
    pub(super) touched: Arc<BTreeMap<PageIndex, Touches>>,
}

impl DroppedPages {
    fn to_write(&self) -> PageWrite {
        let (first, end) = (PageIndex(self.pages.start), PageIndex(self.pages.end));
        PageWrite::Drop { first, end, lsn: self.lsn, at: self.at, touched: Arc::clone(&self.touched) }
    }

    pub(super) fn bytes(&self) -> usize {
        let touched: usize = self.touched.values().map(|touches| touches.heap_bytes() + DROP_BYTES).sum();
        touched + DROP_BYTES
    }
}

/// What a captured write-back restores when it fails.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct InWriteBack {
    generation: u64,
    folded_to: Lsn,
    /// With the first change of each, and what was taken with it.
    pub(super) pages: Vec<(u64, Lsn, Arc<Touches>)>,
    drops: Vec<DroppedPages>,
    sizes: Vec<(Lsn, MeterTime, u64)>,
}

impl Map {
    /// Whether the store may lack something of `pages`.
    #[must_use]
    pub fn lacks_in_store(&self, pages: &Range<u64>) -> bool {
        let overlaps = |drop: &DroppedPages| drop.pages.start < pages.end && pages.start < drop.pages.end;
        let in_write_back = self.write_back.as_ref().is_some_and(|under_way| {
            under_way.pages.iter().any(|(page, ..)| pages.contains(page)) || under_way.drops.iter().any(overlaps)
        });
        in_write_back || self.dirty.iter().any(|(.., page)| pages.contains(page)) || self.drops.iter().any(overlaps)
    }

    /// Takes the pages whose first change is oldest, at most `pages_max`, and the drops that are older than what is left, to
    /// be written back: those of the oldest generation that has any. `applied` is the last operation that the map has taken in.
    ///
    /// # Panics
    /// When the capture before has not ended.
    pub fn capture(&mut self, applied: Lsn, pages_max: usize) -> Capture {
        assert!(self.write_back.is_none(), "one write-back at a time");
        let dirty = self.dirty.first().map(|(generation, ..)| *generation);
        let dropped = self.drops.first().map(|drop| drop.generation);
        let first = dirty.into_iter().chain(dropped).min().unwrap_or(self.generation);
        let generation = if is_missing(Safeguard::OldestFirst) { self.last_dirty_generation(first) } else { first };
        let (mut pages, mut puts) = (Vec::new(), Vec::new());
        while pages.len() < pages_max
            && let Some(first) = self.dirty.range((generation, Lsn::ZERO, 0)..).next().copied()
            && let (of, lsn, index) = first
            && of == generation
        {
            self.dirty.remove(&first);
            let (put, touches) = self.capture_page(index, generation);
            pages.push((index, lsn, touches));
            puts.push(put);
        }
        let dirty = self.dirty.first().map(|(generation, lsn, _)| (*lsn, *generation));
        let drops = self.take_drops(generation, dirty.map(|(lsn, _)| lsn));
        let sizes = std::mem::take(&mut self.sizes);
        let dropped = self.drops.iter().map(|drop| (drop.first_lsn, drop.generation));
        let next = dirty.into_iter().chain(dropped).min();
        // The operation before the first change of a generation is of that generation, or is the one that begins it.
        let folded = next.map_or((applied, self.generation), |(lsn, generation)| (Lsn(lsn.0 - 1), generation));
        let (folded_to, folded_generation) = folded;
        let resizes = sizes.iter().map(|(lsn, at, bytes)| PageWrite::Resize { lsn: *lsn, at: *at, size_bytes: *bytes });
        let writes = drops.iter().map(DroppedPages::to_write).chain(resizes).chain(puts).collect();
        let folded_at = self.times.as_ref().map_or(MeterTime(0), |times| times.at(folded_to));
        self.write_back = Some(InWriteBack { generation, folded_to, pages, drops, sizes });
        Capture { generation, writes, folded_to, folded_generation, complete_at: applied, folded_at }
    }

    /// The drops up to a generation before which nothing is left to be written back.
    fn take_drops(&mut self, generation: u64, next: Option<Lsn>) -> Vec<DroppedPages> {
        let is_taken = |drop: &DroppedPages| drop.generation <= generation && next.is_none_or(|next| drop.lsn < next);
        let later = self.drops.split_off(self.drops.partition_point(is_taken));
        let drops = std::mem::replace(&mut self.drops, later);
        self.drop_bytes -= drops.iter().map(DroppedPages::bytes).sum::<usize>();
        drops
    }

    /// The latest generation with changed pages; `first` when there is none.
    fn last_dirty_generation(&self, first: u64) -> u64 {
        self.dirty.last().map_or(first, |(generation, ..)| *generation)
    }

    fn capture_page(&mut self, index: u64, generation: u64) -> (PageWrite, Arc<Touches>) {
        if !self.frozen.contains_key(&(index, generation)) {
            // The store may or may not come to have it, should the write fail.
            self.absent.remove(&(index..index + 1));
        }
        let captured = self.unstored_mut(index, generation).expect("a dirty page is in memory");
        captured.first_dirty = None;
        captured.is_in_write_back = true;
        let bytes = captured.bytes();
        let touches = Arc::new(std::mem::take(&mut captured.touches));
        let (page, encoded, lsn) = (PageIndex(index), captured.page.encode(), captured.last_lsn);
        let left = captured.bytes();
        self.cached_bytes = self.cached_bytes + left - bytes;
        self.dirty_bytes -= bytes;
        (PageWrite::Put { page, encoded, lsn, touches: Arc::clone(&touches) }, touches)
    }

    /// Ends the write-back. When it failed, its pages and drops are to be written again.
    pub fn write_back_ended(&mut self, is_written: bool) {
        let Some(ended) = self.write_back.take() else { return };
        let generation = ended.generation;
        if let Some(times) = self.times.as_mut().filter(|_| is_written) {
            times.fold_to(ended.folded_to);
        }
        for (index, lsn, touches) in ended.pages {
            let captured = self.unstored_mut(index, generation).filter(|captured| captured.is_in_write_back);
            let Some(captured) = captured else {
                if !is_written {
                    self.give_to_drop((index, generation), lsn, &touches);
                }
                continue;
            };
            captured.is_in_write_back = false;
            if is_written {
                if captured.first_dirty.is_none()
                    && let Some(stored) = self.frozen.remove(&(index, generation))
                {
                    self.cached_bytes -= stored.bytes();
                }
                continue;
            }
            let before = captured.bytes();
            captured.touches.put_before(&touches);
            let bytes = captured.bytes();
            match captured.first_dirty.replace(lsn) {
                Some(later) => {
                    self.dirty.remove(&(generation, later, index));
                    self.dirty_bytes = self.dirty_bytes + bytes - before;
                }
                None => self.dirty_bytes += bytes,
            }
            self.cached_bytes = self.cached_bytes + bytes - before;
            self.dirty.insert((generation, lsn, index));
        }
        if !is_written {
            self.drops.splice(0..0, ended.drops);
            self.sizes.splice(0..0, ended.sizes);
            self.drop_bytes = self.drops.iter().map(DroppedPages::bytes).sum();
        }
    }

    /// A page was dropped while it was being written back, and that failed: what was taken with it goes with the drop.
    fn give_to_drop(&mut self, (index, generation): (u64, u64), lsn: Lsn, touches: &Touches) {
        let is_of = |drop: &&mut DroppedPages| drop.generation == generation && drop.pages.contains(&index);
        if let Some(drop) = self.drops.iter_mut().find(is_of).filter(|_| !touches.is_empty()) {
            drop.first_lsn = drop.first_lsn.min(lsn);
            Arc::make_mut(&mut drop.touched).entry(PageIndex(index)).or_default().put_before(touches);
        }
    }
}
