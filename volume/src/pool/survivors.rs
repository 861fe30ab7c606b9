//! What is left of a segment: which of the blocks that it wrote some stored page names.
//!
//! A pure computation: it is told what segments wrote, asks for the stored versions of the pages that this touched, one
//! page after the other and each once for all segments, and never reads a block. A block survives when any version names
//! it, of the volume itself or of one that inherits from it. What cannot be right makes a segment suspect, not dead: a page
//! that names a block of the segment that it did not write, or wrote for another block of the volume.

use crate::error::DiskFault;
use crate::format::{OperationKind, ParcelEntry};
use crate::io::PageIndex;
use crate::map::{Found, PAGE_BLOCKS, Page};
use std::collections::{BTreeMap, BTreeSet};
use units::{BlockIndex, BlockRange, SegmentId, VolumeId};

const WORD_BITS: u32 = u64::BITS;

/// A set of blocks of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survivors {
    words: Vec<u64>,
}

impl Survivors {
    /// None of a slot of so many blocks.
    #[must_use]
    pub fn none(slot_blocks: u32) -> Self {
        Self { words: vec![0; slot_blocks.div_ceil(WORD_BITS) as usize] }
    }

    /// Whether `block` is one of them.
    #[must_use]
    pub fn contains(&self, block: u32) -> bool {
        self.words.get((block / WORD_BITS) as usize).is_some_and(|word| word >> (block % WORD_BITS) & 1 == 1)
    }

    /// How many of them come before `block`: where in a parcel's payload it is. `None` when it is not one of them.
    #[must_use]
    pub fn rank(&self, block: u32) -> Option<u32> {
        let (at, bit) = ((block / WORD_BITS) as usize, block % WORD_BITS);
        let (before, word) = (self.words.get(..at)?, self.words.get(at)?);
        let within = word & ((1 << bit) - 1);
        self.contains(block).then(|| before.iter().chain([&within]).map(|word| word.count_ones()).sum())
    }

    /// Where `count` neighbouring blocks from `first` on are in a parcel's payload. `None` when one of them is not among them.
    #[must_use]
    pub fn rank_of_run(&self, first: u32, count: u32) -> Option<u32> {
        let between = count.checked_sub(1)?;
        let (rank, last) = (self.rank(first)?, self.rank(first.checked_add(between)?)?);
        (last - rank == between).then_some(rank)
    }

    /// A bit a block, the lowest bit of a word first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The set that [`Survivors::words`] tells.
    #[must_use]
    pub const fn of_words(words: Vec<u64>) -> Self {
        Self { words }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether all of them are in `other` too.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter().zip(others).all(|(word, other)| word & !other == 0)
    }

    /// Adds one; one beyond the slot is left out.
    pub(crate) fn insert(&mut self, block: u32) {
        if let Some(word) = self.words.get_mut((block / WORD_BITS) as usize) {
            *word |= 1 << (block % WORD_BITS);
        }
    }
}

/// What a search found of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The blocks of its slot that a stored page names.
    pub survivors: Survivors,
    /// Whether a page names what the segment cannot hold for it. Nothing of such a segment may be moved or given back.
    pub is_suspect: bool,
}

/// What one segment wrote.
#[derive(Debug)]
struct Written {
    /// In the order of the blocks of its slot: the first block, how many, and the block of the volume that it is of.
    runs: Vec<(u32, u32, BlockIndex)>,
    outcome: Outcome,
}

impl Written {
    /// The block of the volume that a block of the slot was written for.
    fn target(&self, block: u32) -> Option<BlockIndex> {
        let after = self.runs.partition_point(|(first, _, _)| *first <= block);
        let (first, count, target) = self.runs.get(after.checked_sub(1)?)?;
        (block - first < *count).then(|| BlockIndex(target.0 + u64::from(block - first)))
    }
}

/// A search for the survivors of some segments, in steps.
#[derive(Debug)]
pub struct Search {
    slot_blocks: u32,
    segments: BTreeMap<SegmentId, Written>,
    /// Pages that are still to be looked at.
    pages: BTreeSet<(VolumeId, PageIndex)>,
}

impl Search {
    /// One in a pool with slots of so many blocks.
    #[must_use]
    pub const fn new(slot_blocks: u32) -> Self {
        Self { slot_blocks, segments: BTreeMap::new(), pages: BTreeSet::new() }
    }

    /// Adds a segment of `volume`, with what it wrote or what is left of it, by the index of the place where it is. Before
    /// the first step.
    pub fn add(&mut self, volume: VolumeId, segment: SegmentId, entries: &[ParcelEntry]) {
        let outcome = Outcome { survivors: Survivors::none(self.slot_blocks), is_suspect: false };
        let mut written = Written { runs: Vec::new(), outcome };
        let mut end = 0;
        for entry in entries.iter().filter(|entry| entry.operation.kind == OperationKind::Write) {
            let count = entry.operation.payload_blocks();
            let after = entry.block.checked_add(count).filter(|after| *after <= self.slot_blocks);
            // Beyond the slot, or two operations in one block: no index that was checked says so.
            written.outcome.is_suspect |= after.is_none() || entry.block < end;
            end = after.unwrap_or(self.slot_blocks);
            written.runs.push((entry.block, count, entry.operation.range.first));
            self.pages.extend(pages_of(entry.operation.range).map(|page| (volume, page)));
        }
        self.segments.insert(segment, written);
    }

    /// Looks at up to `pages_max` pages; returns whether all have been looked at.
    ///
    /// `versions` calls its last argument with every stored version of a page: those of the volume, and those of volumes
    /// that inherit from it and may name its segments themselves.
    ///
    /// # Errors
    /// What `versions` returns. The page is looked at again by the next step.
    pub fn step(
        &mut self,
        pages_max: usize,
        mut versions: impl FnMut(VolumeId, PageIndex, &mut dyn FnMut(&Page)) -> Result<(), DiskFault>,
    ) -> Result<bool, DiskFault> {
        for _ in 0..pages_max {
            let Some((volume, page)) = self.pages.first().copied() else { break };
            versions(volume, page, &mut |version| self.look_at(page, version))?;
            self.pages.remove(&(volume, page));
        }
        Ok(self.pages.is_empty())
    }

    /// Counts what a version names of any of the segments: a volume that inherits names segments of others too, and for the
    /// same blocks.
    fn look_at(&mut self, page: PageIndex, version: &Page) {
        version.visit(0, PAGE_BLOCKS, |first, len, found| {
            let Found::Data { location, .. } = found else { return };
            let Some(written) = self.segments.get_mut(&location.segment) else { return };
            let start = page.0 * u64::from(PAGE_BLOCKS) + u64::from(first);
            for (target, block) in (start..start + u64::from(len)).zip(u32::from(location.block)..) {
                written.outcome.is_suspect |= written.target(block) != Some(BlockIndex(target));
                written.outcome.survivors.insert(block);
            }
        });
    }

    /// What was found, when no page is left to look at.
    ///
    /// # Panics
    /// When there is: what a search did not look at is not dead.
    #[must_use]
    pub fn finish(self) -> BTreeMap<SegmentId, Outcome> {
        assert!(self.pages.is_empty(), "a search ends with its last page");
        self.segments.into_iter().map(|(segment, written)| (segment, written.outcome)).collect()
    }
}

fn pages_of(range: BlockRange) -> impl Iterator<Item = PageIndex> {
    let blocks = u64::from(PAGE_BLOCKS);
    (range.first.0 / blocks..range.end().0.div_ceil(blocks)).map(PageIndex)
}

/// Cuts what a segment wrote down to what is left: a write to the runs of its survivors, each an entry of its own; of the
/// others those that `keeps` says. Returns them with the check values of the survivors, both in the order that a parcel has.
#[must_use]
pub fn left_of(
    entries: &[ParcelEntry],
    checks: &[u32],
    survivors: &Survivors,
    mut keeps: impl FnMut(&ParcelEntry) -> bool,
) -> (Vec<ParcelEntry>, Vec<u32>) {
    let (mut left, mut left_checks) = (Vec::new(), Vec::new());
    let mut checks = checks.iter();
    for entry in entries {
        if entry.operation.kind != OperationKind::Write {
            left.extend(keeps(entry).then_some(*entry));
            continue;
        }
        let mut run: Option<ParcelEntry> = None;
        // The check values are zipped last: where the blocks of the entry have ended, none is taken.
        for ((target, block), check) in entry.operation.range.blocks().zip(entry.block..).zip(checks.by_ref()) {
            if !survivors.contains(block) {
                left.extend(run.take());
                continue;
            }
            left_checks.push(*check);
            match run.as_mut() {
                Some(run) => run.operation.range.count += 1,
                None => {
                    let mut first = ParcelEntry { block, ..*entry };
                    first.operation.range = BlockRange::new(target, 1);
                    run = Some(first);
                }
            }
        }
        left.extend(run);
    }
    (left, left_checks)
}

#[cfg(test)]
mod tests;
