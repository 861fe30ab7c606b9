//! What is left of a segment: which of the blocks that it wrote some stored page names.
//!
//! A pure computation: it is told what segments wrote, asks for the stored versions of the pages that this touched, one
//! page after the other and each once for all segments, and never reads a block. A block survives when any version names
//! it, of the volume itself or of one that inherits from it. What cannot be right makes a segment suspect, not dead: a page
//! that names a block of the segment that it did not write, or wrote for another block of the volume.

use crate::error::DiskFault;
use crate::format::{Cut, Operation, OperationKind, ParcelEntry, PartSet};
use crate::io::PageIndex;
use crate::map::{Found, PAGE_BLOCKS, Page};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use units::{BlockIndex, BlockRange, SegmentId, VolumeId};

const WORD_BITS: u32 = u64::BITS;

/// A set of blocks of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survivors {
    slot_blocks: u32,
    words: Vec<u64>,
}

impl Survivors {
    /// None of a slot of so many blocks.
    #[must_use]
    pub fn none(slot_blocks: u32) -> Self {
        Self { slot_blocks, words: vec![0; slot_blocks.div_ceil(WORD_BITS) as usize] }
    }

    /// Whether `block` is one of them.
    #[must_use]
    pub fn contains(&self, block: u32) -> bool {
        self.words.get((block / WORD_BITS) as usize).is_some_and(|word| word >> (block % WORD_BITS) & 1 == 1)
    }

    /// Blocks of the slot.
    #[must_use]
    pub const fn slot_blocks(&self) -> u32 {
        self.slot_blocks
    }

    /// How many of them are in `span`.
    #[must_use]
    pub fn count_in(&self, span: Range<u32>) -> u32 {
        let words = (span.start / WORD_BITS)..span.end.div_ceil(WORD_BITS);
        let count = |at: u32| {
            let word = self.words.get(at as usize).copied().unwrap_or(0);
            let first = span.start.saturating_sub(at * WORD_BITS).min(WORD_BITS);
            let end = span.end.saturating_sub(at * WORD_BITS).min(WORD_BITS);
            let up_to = |bit: u32| 1_u64.checked_shl(bit).map_or(u64::MAX, |above| above - 1);
            (word & up_to(end) & !up_to(first)).count_ones()
        };
        words.map(count).sum()
    }

    /// Where in a parcel's payload `count` neighbouring blocks from `first` on are: how many of the survivors come before in
    /// `span`, the blocks that the parcel is of. `None` when one of them is not among them.
    #[must_use]
    pub fn rank_of_run(&self, span: Range<u32>, (first, count): (u32, u32)) -> Option<u32> {
        let last = first.checked_add(count.checked_sub(1)?)?;
        let is_all = self.contains(first) && self.contains(last) && self.count_in(first..last) == last - first;
        is_all.then(|| self.count_in(span.start..first))
    }

    /// Those in `span` alone.
    #[must_use]
    pub fn within(&self, span: Range<u32>) -> Self {
        let mut within = Self::none(self.slot_blocks);
        span.filter(|block| self.contains(*block)).for_each(|block| within.insert(block));
        within
    }

    /// Those in `span` taken from `other`, all else as it is.
    #[must_use]
    pub fn replaced(&self, span: Range<u32>, other: &Self) -> Self {
        let mut all = self.within(0..span.start);
        all.add(&other.within(span.clone()));
        all.add(&self.within(span.end..self.slot_blocks));
        all
    }

    /// Those that are not in `other`.
    #[must_use]
    pub(crate) fn without(&self, other: &Self) -> Self {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        let words = self.words.iter().zip(others).map(|(word, other)| word & !other).collect();
        Self { slot_blocks: self.slot_blocks, words }
    }

    /// Adds those of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    /// A bit a block, the lowest bit of a word first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The set that [`Survivors::words`] tells.
    #[must_use]
    pub const fn of_words(slot_blocks: u32, words: Vec<u64>) -> Self {
        Self { slot_blocks, words }
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
    /// The blocks of its slot that it is about: those of the parts that are to be moved.
    about: Survivors,
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

    /// Adds a segment of `volume`, or those `parts` of it, with what it wrote or what is left of it, by the index of the places
    /// where it is. Before the first step.
    pub fn add(
        &mut self,
        (volume, segment): (VolumeId, SegmentId),
        (cut, parts): (Cut, PartSet),
        entries: &[ParcelEntry],
    ) {
        let outcome = Outcome { survivors: Survivors::none(self.slot_blocks), is_suspect: false };
        let mut about = Survivors::none(self.slot_blocks);
        let spans = (0..cut.parts()).filter(|part| parts.contains(*part)).map(|part| cut.span(part, self.slot_blocks));
        spans.flatten().for_each(|block| about.insert(block));
        let mut written = Written { about, runs: Vec::new(), outcome };
        let mut end = 0;
        for entry in entries.iter().filter(|entry| entry.operation.payload_blocks() > 0) {
            let count = entry.operation.payload_blocks();
            let after = entry.block.checked_add(count).filter(|after| *after <= self.slot_blocks);
            // Beyond the slot, or two operations in one block: no index that was checked says so.
            written.outcome.is_suspect |= after.is_none() || entry.block < end;
            end = after.unwrap_or(self.slot_blocks);
            if entry.operation.gives_content() {
                written.runs.push((entry.block, count, entry.operation.range.first));
                self.pages.extend(pages_of(entry.operation.range).map(|page| (volume, page)));
            }
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
            let named = (start..start + u64::from(len)).zip(u32::from(location.block)..);
            for (target, block) in
                named.filter(|(_, block)| written.about.contains(*block) || *block >= self.slot_blocks)
            {
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
/// others those that `keeps` says. A copy becomes a write, since its payload comes with it; what is left only since it is
/// `lent` says nothing of the volume any more. Returns them with the check values of the survivors, both in the order that a
/// parcel has.
#[must_use]
pub fn left_of(
    entries: &[ParcelEntry],
    checks: &[u32],
    (survivors, lent): (&Survivors, &Survivors),
    mut keeps: impl FnMut(&ParcelEntry) -> bool,
) -> (Vec<ParcelEntry>, Vec<u32>) {
    let (mut left, mut left_checks) = (Vec::new(), Vec::new());
    let mut checks = checks.iter();
    for entry in entries {
        if entry.operation.payload_blocks() == 0 {
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
            let is_lent = lent.contains(block) || !entry.operation.gives_content();
            let kind = if is_lent { OperationKind::Lent } else { OperationKind::Write };
            match run.as_mut().filter(|run| run.operation.kind == kind) {
                Some(run) => run.operation.range.count += 1,
                None => {
                    let operation = Operation { kind, range: BlockRange::new(target, 1) };
                    left.extend(run.replace(ParcelEntry { block, operation, ..*entry }));
                }
            }
        }
        left.extend(run);
    }
    (left, left_checks)
}

#[cfg(test)]
mod tests;
