//! The stored map of one volume against a replay of its log, its live counts, and the content of its blocks.

use super::{CheckOptions, CheckReport, ProblemKind, lineage};
use crate::error::DiskFault;
use crate::format::{Operation, OperationKind, block_check};
use crate::io::PageIndex;
use crate::map::{Change, Found, Location, PAGE_BLOCKS, Page};
use crate::pool::{Index, Live, LiveChange, SegmentRow, Stretch, Version, count_change};
use crate::recover::{SegmentLog, beyond};
use crate::store::{PoolReader, Store};
use std::collections::{BTreeMap, BTreeSet};
use units::{BLOCK_LEN, BlockIndex, BlockRange, Lsn, SegmentId, VolumeId};

/// What the log says: the map at the point to which the stored one is complete, and what came later.
#[derive(Debug)]
pub(super) struct Replayed {
    folded_to: Lsn,
    pages: BTreeMap<u64, Page>,
    /// Writes after `folded_to`: segment and first payload block, then the blocks of the volume.
    later_writes: BTreeMap<(SegmentId, u32), BlockRange>,
    later_holes: Vec<BlockRange>,
    /// The volume's size where the replay is; 0 before the first segment.
    size_bytes: u64,
    /// Every segment could be read.
    pub(super) is_whole: bool,
}

impl Replayed {
    /// Begins with what the volume inherits.
    pub(super) const fn new(folded_to: Lsn, inherited: BTreeMap<u64, Page>) -> Self {
        Self {
            folded_to,
            pages: inherited,
            later_writes: BTreeMap::new(),
            later_holes: Vec::new(),
            size_bytes: 0,
            is_whole: true,
        }
    }

    pub(super) fn take(&mut self, log: &SegmentLog) {
        if let Some(size_bytes) = log.shrinks_from(self.size_bytes) {
            if log.row.first_lsn > self.folded_to {
                self.later_holes.push(beyond(size_bytes));
            } else {
                self.punch(beyond(size_bytes));
            }
        }
        self.size_bytes = log.size_after().unwrap_or(self.size_bytes);
        log.each(|lsn, operation, block, checks| {
            if lsn > self.folded_to {
                self.note_later(log.row.segment, operation, block);
            } else {
                self.apply(log.row.segment, operation, block, checks);
            }
        });
    }

    fn note_later(&mut self, segment: SegmentId, operation: &Operation, block: u32) {
        match operation.kind {
            OperationKind::Write | OperationKind::Copy { .. } => {
                self.later_writes.insert((segment, block), operation.range);
            }
            OperationKind::Trim | OperationKind::WriteZeroes => self.later_holes.push(operation.range),
            OperationKind::Resize(size_bytes) => self.later_holes.push(beyond(size_bytes)),
            OperationKind::Snapshot { .. } | OperationKind::TimeMark { .. } | OperationKind::Lent => {}
        }
    }

    fn apply(&mut self, segment: SegmentId, operation: &Operation, block: u32, checks: &[u32]) {
        let range = operation.range;
        match operation.kind {
            OperationKind::Write | OperationKind::Copy { .. } => {
                let bytes: Vec<u8> = checks.iter().flat_map(|check| check.to_le_bytes()).collect();
                let mut rest = bytes.as_slice();
                let first = Location { segment, block: u16::try_from(block).unwrap_or(u16::MAX) };
                let mut by = 0;
                for (page, at, count) in parts(range) {
                    let (checks, others) = rest.split_at_checked(count as usize * 4).unwrap_or((rest, &[]));
                    rest = others;
                    let change = Change::Data { location: first.plus(by), checks };
                    self.pages.entry(page).or_insert(Page::empty(false)).change(at, count, change);
                    by += count;
                }
            }
            OperationKind::Trim | OperationKind::WriteZeroes => self.punch(range),
            OperationKind::Resize(size_bytes) => self.punch(beyond(size_bytes)),
            OperationKind::Snapshot { .. } | OperationKind::TimeMark { .. } | OperationKind::Lent => {}
        }
    }

    fn punch(&mut self, range: BlockRange) {
        if range.is_empty() {
            return;
        }
        let page_blocks = u64::from(PAGE_BLOCKS);
        let pages = range.first.0 / page_blocks..range.end().0.div_ceil(page_blocks);
        let held: Vec<u64> = self.pages.range(pages).map(|(index, _)| *index).collect();
        for index in held {
            let from = range.first.0.max(index * page_blocks) - index * page_blocks;
            let to = range.end().0.min((index + 1) * page_blocks) - index * page_blocks;
            let (Ok(from), Ok(to)) = (u32::try_from(from), u32::try_from(to)) else { continue };
            if let Some(page) = self.pages.get_mut(&index) {
                page.change(from, to - from, Change::Hole);
            }
        }
    }

    /// Whether what the store says of a block may be so because of an operation after `folded_to`.
    fn is_later(&self, block: u64, entry: Option<(Location, [u8; 4])>) -> bool {
        let block = BlockIndex(block);
        let Some((location, _)) = entry else {
            return self.later_holes.iter().any(|range| range.contains(block));
        };
        let at = (location.segment, u32::from(location.block));
        self.later_writes.range(..=at).next_back().is_some_and(|((segment, first), range)| {
            *segment == at.0 && range.contains(block) && u64::from(at.1 - first) == block.0 - range.first.0
        })
    }
}

/// Checks the stored map of `volume`.
pub(super) fn check<S: Store>(
    index: &Index<S>,
    reader: &dyn PoolReader,
    (volume, options): (VolumeId, CheckOptions),
    mut replayed: Replayed,
    report: &mut CheckReport,
) {
    let rows: BTreeMap<SegmentId, SegmentRow> =
        index.segments(volume).into_iter().map(|row| (row.segment, row)).collect();
    let verifier = Verifier { index, reader, volume };
    let mut counts = LiveChange::none(index.superblock().geometry.slot_blocks());
    let mut next = PageIndex(0);
    loop {
        let versions = match versions_from(index, volume, next) {
            Ok(versions) => versions,
            Err(fault) => {
                let detail = format!("the map from page {} on cannot be read ({fault})", next.0);
                report.add(ProblemKind::Map, Some(volume), format!("{detail}: run `aljibe pool rebuild`"));
                return;
            }
        };
        let Some(page) = versions.first().map(|version| version.page) else { break };
        report.pages += 1;
        next = PageIndex(page.0.saturating_add(1));
        let contents: Result<Vec<Page>, DiskFault> = versions.iter().map(Version::content).collect();
        let contents = contents.ok().filter(|contents| !contents.iter().any(Page::is_partial));
        let Some(contents) = contents else {
            let detail = format!("page {} of the map is damaged: run `aljibe pool rebuild`", page.0);
            report.add(ProblemKind::Map, Some(volume), detail);
            replayed.pages.remove(&page.0);
            continue;
        };
        let inherited = lineage::page(index, volume, page, report);
        let below = contents.iter().skip(1).map(Some).chain([inherited.as_ref()]);
        contents.iter().zip(below).for_each(|(page, below)| count_change((None, Some(page)), below, &[], &mut counts));
        let Some(newest) = contents.first() else { continue };
        report.mapped_blocks += newest.mapped_blocks();
        compare(volume, page.0, newest, &mut replayed, report);
        if options.verify_data {
            let mut verified = BTreeSet::new();
            contents.iter().for_each(|content| verifier.verify(page, content, &mut verified, report));
        }
    }
    for (page, left) in std::mem::take(&mut replayed.pages) {
        replayed.pages.insert(page, left);
        let shown = lineage::page(index, volume, PageIndex(page), report).unwrap_or(Page::empty(false));
        compare(volume, page, &shown, &mut replayed, report);
    }
    check_counts(index, volume, &rows, &counts, report);
}

/// The versions, newest first, of the first page from `page` on that has any.
fn versions_from<S: Store>(index: &Index<S>, volume: VolumeId, page: PageIndex) -> Result<Vec<Version>, DiskFault> {
    let newest = index.newest_from(volume, page)?;
    newest.map_or_else(|| Ok(Vec::new()), |newest| index.versions_of(volume, newest.page))
}

fn check_counts<S: Store>(
    index: &Index<S>,
    volume: VolumeId,
    rows: &BTreeMap<SegmentId, SegmentRow>,
    counts: &LiveChange,
    report: &mut CheckReport,
) {
    let counts: BTreeMap<SegmentId, Option<Live>> =
        counts.each().map(|(segment, by)| (segment, Live::default().after(by))).collect();
    let all: BTreeSet<SegmentId> = rows.keys().chain(counts.keys()).copied().collect();
    for segment in all {
        let live = counts.get(&segment).copied().unwrap_or_else(|| Some(Live::default()));
        let counted = live.map_or(u64::MAX, |live| live.total());
        if !rows.contains_key(&segment) {
            let detail = format!("{counted} blocks are mapped to segment {segment}, which the volume does not have");
            report.add(ProblemKind::Map, Some(volume), format!("{detail}: run `aljibe pool rebuild`"));
            continue;
        }
        if index.live(segment) != live {
            let kept = index.live_blocks(segment);
            let kept = kept.map_or_else(|| "is lost".to_owned(), |kept| format!("is {kept}"));
            let detail = format!("the live count of segment {segment} {kept}, and {counted} blocks are mapped to it");
            report.add(ProblemKind::LiveCount, Some(volume), format!("{detail}: run `aljibe pool rebuild`"));
        }
    }
}

/// The stored page must be what the log says at `folded_to`, or in single blocks what it says later.
fn compare(volume: VolumeId, index: u64, stored: &Page, replayed: &mut Replayed, report: &mut CheckReport) {
    let expected = replayed.pages.remove(&index);
    if !replayed.is_whole {
        return;
    }
    let expected = entries(&expected.unwrap_or(Page::empty(false)));
    let mut wrong = entries(stored).into_iter().zip(expected).zip(0_u64..).filter(|((stored, expected), at)| {
        stored != expected && !replayed.is_later(index * u64::from(PAGE_BLOCKS) + at, *stored)
    });
    let Some(((stored, expected), at)) = wrong.next() else { return };
    let more = wrong.count();
    let block = index * u64::from(PAGE_BLOCKS) + at;
    let detail = format!(
        "the stored map has block {block} {}, the log has it {}, and {more} more blocks of the page differ: run `aljibe \
         pool rebuild`",
        place(stored),
        place(expected)
    );
    report.add(ProblemKind::Map, Some(volume), detail);
}

type Mapped = Option<(Location, [u8; 4])>;

fn place(entry: Mapped) -> String {
    entry.map_or_else(
        || "as a hole".to_owned(),
        |(location, _)| format!("in segment {}, block {}", location.segment, location.block),
    )
}

fn entries(page: &Page) -> Vec<Mapped> {
    let mut out = Vec::with_capacity(PAGE_BLOCKS as usize);
    page.visit(0, PAGE_BLOCKS, |_, len, found| match found {
        Found::Hole | Found::Zero => out.extend((0..len).map(|_| None)),
        Found::Data { location, checks } => {
            let checks = checks.as_chunks::<4>().0.iter();
            out.extend(checks.zip(0..).map(|(check, by)| Some((location.plus(by), *check))));
        }
    });
    out
}

/// Reads the blocks of a volume's pages.
struct Verifier<'a, S> {
    index: &'a Index<S>,
    reader: &'a dyn PoolReader,
    volume: VolumeId,
}

impl<S: Store> Verifier<'_, S> {
    /// Reads what a version names, but for what is in `verified` from the versions before.
    fn verify(&self, page: PageIndex, stored: &Page, verified: &mut BTreeSet<Location>, report: &mut CheckReport) {
        stored.visit(0, PAGE_BLOCKS, |first, _, found| {
            let Found::Data { location, checks } = found else { return };
            let block = page.0 * u64::from(PAGE_BLOCKS) + u64::from(first);
            let checks = checks.as_chunks::<4>().0;
            let is_new: Vec<bool> = (0..).zip(checks).map(|(by, _)| verified.insert(location.plus(by))).collect();
            let mut at = 0_u32;
            for run in is_new.chunk_by(|one, next| one == next) {
                let checks = checks.get(at as usize..at as usize + run.len()).unwrap_or_default();
                if run.first() == Some(&true) {
                    self.verify_run(block + u64::from(at), location.plus(at), checks, report);
                }
                at += run.iter().map(|_| 1).sum::<u32>();
            }
        });
    }

    fn verify_run(&self, block: u64, location: Location, checks: &[[u8; 4]], report: &mut CheckReport) {
        // One without a row is told with the counts.
        let row = self.index.segment(location.segment);
        let Some(row) = row.filter(|row| row.volume == self.volume) else { return };
        let count = u32::try_from(checks.len()).unwrap_or(u32::MAX);
        let mut rest = checks;
        let mut at = (block, location);
        for stretch in self.index.locate(location, count) {
            let Some(stretch) = stretch else {
                let place = format!("segment {}, slot {}, block {}", location.segment, row.a_slot(), at.1.block);
                let detail = format!("{} blocks from block {} on are not all left ({place})", rest.len(), at.0);
                report.add(ProblemKind::Map, Some(self.volume), format!("{detail}: run `aljibe pool rebuild`"));
                return;
            };
            let (checks, others) = rest.split_at_checked(stretch.count as usize).unwrap_or((rest, &[]));
            self.verify_stretch(at, stretch, checks, report);
            at = (at.0 + u64::from(stretch.count), at.1.plus(stretch.count));
            rest = others;
        }
    }

    fn verify_stretch(
        &self,
        (block, location): (u64, Location),
        Stretch { slot, block: first, .. }: Stretch,
        checks: &[[u8; 4]],
        report: &mut CheckReport,
    ) {
        let mut bytes = vec![0; checks.len() * BLOCK_LEN];
        let geometry = self.index.superblock().geometry;
        let offset = geometry.block_offset(slot, first);
        let end = first as usize + checks.len();
        if end > geometry.slot_blocks() as usize || self.reader.read_at(offset, &mut bytes).is_err() {
            let detail = format!("{} blocks from block {block} on cannot be read from slot {slot}", checks.len());
            report.add(ProblemKind::Data, Some(self.volume), format!("{detail}: look at the disk"));
            return;
        }
        report.verified_blocks += checks.len() as u64;
        for ((content, check), by) in bytes.chunks_exact(BLOCK_LEN).zip(checks).zip(0_u32..) {
            let at = u32::from(location.block) + by;
            if block_check(location.segment, at, content) != u32::from_le_bytes(*check) {
                let place = format!("segment {}, slot {slot}, block {at}", location.segment);
                let detail = format!("block {} fails its check ({place})", block + u64::from(by));
                report.add(ProblemKind::Data, Some(self.volume), format!("{detail}: write it anew from a copy"));
            }
        }
    }
}

/// The pages that `range` touches: index, first block within the page, number of blocks.
fn parts(range: BlockRange) -> impl Iterator<Item = (u64, u32, u32)> {
    let page_blocks = u64::from(PAGE_BLOCKS);
    let mut at = range.first.0;
    std::iter::from_fn(move || {
        let (index, first) = (at / page_blocks, at % page_blocks);
        let count = (page_blocks - first).min(range.end().0.checked_sub(at)?);
        at += count;
        (count > 0).then(|| Some((index, u32::try_from(first).ok()?, u32::try_from(count).ok()?))).flatten()
    })
}
