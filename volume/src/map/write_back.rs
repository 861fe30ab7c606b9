//! Taking what the store lacks, and taking it back when the store failed.
//!
//! A capture is of one generation, the oldest of which the store lacks anything: a drop of a later one must not run before
//! the pages of an earlier one are stored, and a stored page must never hold a change of a later generation than its own.

use super::Map;
use crate::controls::{Safeguard, is_missing};
use crate::io::PageIndex;
use crate::pool::Folded;
use std::ops::Range;
use units::Lsn;

/// One change of the store's pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageWrite {
    /// Lay this page over the stored one, or put it in its place when it is not partial.
    Put {
        /// The page.
        page: PageIndex,
        /// Its encoded form.
        encoded: Vec<u8>,
    },
    /// Drop every stored page of `first..end`.
    Drop {
        /// First page.
        first: PageIndex,
        /// The page after the end.
        end: PageIndex,
    },
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
}

impl Capture {
    /// How far the stored map goes with these written; `size_bytes` is the volume's size.
    #[must_use]
    pub const fn folded(&self, size_bytes: u64) -> Folded {
        Folded { to: self.folded_to, generation: self.folded_generation, size_bytes }
    }
}

/// Pages that the store must drop.
#[derive(Debug, Clone)]
pub(super) struct DroppedPages {
    pub(super) generation: u64,
    /// Of the trim.
    pub(super) lsn: Lsn,
    pub(super) pages: Range<u64>,
}

/// What a captured write-back restores when it fails.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct InWriteBack {
    generation: u64,
    /// With the first change of each.
    pub(super) pages: Vec<(u64, Lsn)>,
    drops: Vec<DroppedPages>,
}

impl Map {
    /// Whether the store may lack something of `pages`.
    #[must_use]
    pub fn lacks_in_store(&self, pages: &Range<u64>) -> bool {
        let overlaps = |drop: &DroppedPages| drop.pages.start < pages.end && pages.start < drop.pages.end;
        let in_write_back = self.write_back.as_ref().is_some_and(|under_way| {
            under_way.pages.iter().any(|(page, _)| pages.contains(page)) || under_way.drops.iter().any(overlaps)
        });
        in_write_back || self.dirty.iter().any(|(.., page)| pages.contains(page)) || self.drops.iter().any(overlaps)
    }

    /// Takes the pages whose first change is oldest, at most `pages_max`, and all drops, to be written back: those of the
    /// oldest generation that has any. `applied` is the last operation that the map has taken in.
    ///
    /// # Panics
    /// When the capture before has not ended.
    pub fn capture(&mut self, applied: Lsn, pages_max: usize) -> Capture {
        assert!(self.write_back.is_none(), "one write-back at a time");
        let dirty = self.dirty.first().map(|(generation, ..)| *generation);
        let dropped = self.drops.first().map(|drop| drop.generation);
        let first = dirty.into_iter().chain(dropped).min().unwrap_or(self.generation);
        let generation = if is_missing(Safeguard::OldestFirst) { self.last_dirty_generation(first) } else { first };
        let later_drops = self.drops.split_off(self.drops.partition_point(|drop| drop.generation <= generation));
        let drops = std::mem::replace(&mut self.drops, later_drops);
        let mut writes: Vec<PageWrite> = drops
            .iter()
            .map(|drop| PageWrite::Drop { first: PageIndex(drop.pages.start), end: PageIndex(drop.pages.end) })
            .collect();
        let mut pages = Vec::new();
        while pages.len() < pages_max
            && let Some((_, lsn, index)) = self.dirty.first().copied().filter(|(of, ..)| *of == generation)
        {
            self.dirty.pop_first();
            pages.push((index, lsn));
            writes.push(self.capture_page(index, generation));
        }
        let dirty = self.dirty.first().map(|(generation, lsn, _)| (*lsn, *generation));
        let next = dirty.into_iter().chain(self.drops.first().map(|drop| (drop.lsn, drop.generation))).min();
        // The operation before the first change of a generation is of that generation, or is the one that begins it.
        let folded = next.map_or((applied, self.generation), |(lsn, generation)| (Lsn(lsn.0 - 1), generation));
        let (folded_to, folded_generation) = folded;
        self.write_back = Some(InWriteBack { generation, pages, drops });
        Capture { generation, writes, folded_to, folded_generation, complete_at: applied }
    }

    /// The latest generation with changed pages; `first` when there is none.
    fn last_dirty_generation(&self, first: u64) -> u64 {
        self.dirty.last().map_or(first, |(generation, ..)| *generation)
    }

    fn capture_page(&mut self, index: u64, generation: u64) -> PageWrite {
        if !self.frozen.contains_key(&(index, generation)) {
            // The store may or may not come to have it, should the write fail.
            self.absent.remove(&(index..index + 1));
        }
        let captured = self.unstored_mut(index, generation).expect("a dirty page is in memory");
        captured.first_dirty = None;
        captured.is_in_write_back = true;
        let (page, bytes) = (PageIndex(index), captured.bytes());
        let write = if !captured.page.is_partial() && captured.page.is_empty() {
            PageWrite::Drop { first: page, end: PageIndex(index + 1) }
        } else {
            PageWrite::Put { page, encoded: captured.page.encode() }
        };
        self.dirty_bytes -= bytes;
        write
    }

    /// Ends the write-back. When it failed, its pages and drops are to be written again.
    pub fn write_back_ended(&mut self, is_written: bool) {
        let Some(ended) = self.write_back.take() else { return };
        let generation = ended.generation;
        for (index, lsn) in ended.pages {
            let captured = self.unstored_mut(index, generation).filter(|captured| captured.is_in_write_back);
            let Some(captured) = captured else { continue };
            captured.is_in_write_back = false;
            if is_written {
                if captured.first_dirty.is_none()
                    && let Some(stored) = self.frozen.remove(&(index, generation))
                {
                    self.cached_bytes -= stored.bytes();
                }
                continue;
            }
            let bytes = captured.bytes();
            match captured.first_dirty.replace(lsn) {
                Some(later) => {
                    self.dirty.remove(&(generation, later, index));
                }
                None => self.dirty_bytes += bytes,
            }
            self.dirty.insert((generation, lsn, index));
        }
        if !is_written {
            self.drops.splice(0..0, ended.drops);
        }
    }
}
