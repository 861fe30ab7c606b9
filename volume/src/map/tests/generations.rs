//! The map across generations: one plain map of blocks for each, over a store that keeps the versions that a snapshot needs.

use super::{BLOCKS, clip};
use crate::io::{LoadedPage, PageIndex};
use crate::map::{Found, Location, Map, PAGE_BLOCKS, Page, PageWrite, ResolvedRun};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use units::{BlockIndex, BlockRange, Lsn, SegmentId};

type Model = Vec<Option<(Location, u32)>>;

/// A store that has a page once for each generation that needs it so.
#[derive(Clone, Default)]
struct Versions {
    /// By page and generation.
    pages: BTreeMap<(u64, u64), Page>,
    /// The ended generations that a snapshot needs.
    boundaries: BTreeSet<u64>,
    folded_to: Lsn,
    folded_generation: u64,
}

impl Versions {
    fn visible(&self, page: u64, generation: u64) -> Option<(u64, &Page)> {
        self.pages.range((page, 0)..=(page, generation)).next_back().map(|((_, of), stored)| (*of, stored))
    }

    fn load(&self, page: PageIndex) -> LoadedPage {
        match self.visible(page.0, u64::MAX) {
            Some((_, stored)) => LoadedPage::Present(stored.encode()),
            None => {
                let next = self.pages.range((page.0, 0)..).next();
                LoadedPage::Absent { next: next.map(|((index, _), _)| PageIndex(*index)) }
            }
        }
    }

    fn put(&mut self, page: u64, generation: u64, new: &Page) {
        let latest = self.visible(page, u64::MAX).map_or(0, |(of, _)| of);
        assert!(latest <= generation, "page {page} of generation {generation} comes after that of {latest}");
        let empty = Page::empty(false);
        let (below, merged) = match self.visible(page, generation) {
            Some((of, stored)) => (Some(of), new.over(stored)),
            None => (None, new.over(&empty)),
        };
        if let Some(of) = below.filter(|of| self.boundaries.range(*of..generation).next().is_none()) {
            self.pages.remove(&(page, of));
        }
        if !merged.is_empty() || self.visible(page, generation).is_some() {
            self.pages.insert((page, generation), merged);
        }
    }

    fn write(&mut self, generation: u64, writes: &[PageWrite]) {
        for write in writes {
            match write {
                PageWrite::Put { page, encoded, .. } => {
                    self.put(page.0, generation, &Page::decode(encoded).unwrap());
                }
                PageWrite::Resize { .. } => {}
                PageWrite::Drop { first, end, .. } => {
                    let keys = self.pages.range((first.0, 0)..(end.0, 0)).map(|((page, _), _)| *page);
                    for page in keys.collect::<BTreeSet<u64>>() {
                        self.put(page, generation, &Page::empty(false));
                    }
                }
            }
        }
    }

    /// Nobody needs the state at the end of `generation` any more.
    fn forget(&mut self, generation: u64) {
        self.boundaries.remove(&generation);
        let keys: Vec<(u64, u64)> = self.pages.keys().copied().collect();
        for ((page, of), later) in keys.iter().zip(keys.iter().skip(1)) {
            if later.0 == *page && self.boundaries.range(*of..later.1).next().is_none() {
                self.pages.remove(&(*page, *of));
            }
        }
    }

    fn content(&self, generation: u64) -> Model {
        let mut model = vec![None; BLOCKS as usize];
        for page in 0..BLOCKS / u64::from(PAGE_BLOCKS) {
            let Some((_, stored)) = self.visible(page, generation) else { continue };
            stored.visit(0, PAGE_BLOCKS, |first, _, found| {
                let Found::Data { location, checks } = found else { return };
                for (check, by) in checks.as_chunks::<4>().0.iter().zip(0..) {
                    let block = page * u64::from(PAGE_BLOCKS) + u64::from(first + by);
                    model[block as usize] = Some((location.plus(by), u32::from_le_bytes(*check)));
                }
            });
        }
        model
    }
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Write(BlockRange),
    Trim(BlockRange),
    Snapshot,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Write { first: u64, count: u64 },
    Trim { first: u64, count: u64 },
    Snapshot,
    Forget { which: usize },
    Capture { pages_max: usize, is_written: bool },
    Ask { page: u64 },
    Answer,
    Read { first: u64, count: u64 },
    Shrink,
    Look,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..BLOCKS, 1..300_u64).prop_map(|(first, count)| Step::Write { first, count }),
        4 => (0..BLOCKS, 1..9000_u64).prop_map(|(first, count)| Step::Trim { first, count }),
        3 => Just(Step::Snapshot),
        1 => (0..9_usize).prop_map(|which| Step::Forget { which }),
        5 => (1..4_usize, any::<bool>()).prop_map(|(pages_max, is_written)| Step::Capture { pages_max, is_written }),
        2 => (0..BLOCKS / u64::from(PAGE_BLOCKS)).prop_map(|page| Step::Ask { page }),
        6 => Just(Step::Answer),
        2 => (0..BLOCKS, 1..600_u64).prop_map(|(first, count)| Step::Read { first, count }),
        2 => Just(Step::Shrink),
        3 => Just(Step::Look),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..120)
}

enum Answer {
    Loaded(PageIndex, LoadedPage),
    WroteBack(bool),
}

struct World {
    map: Map,
    store: Versions,
    /// What the store has done and the map has not been told.
    answers: VecDeque<Answer>,
    log: Vec<Operation>,
    now: Model,
    /// Of every ended generation that is still needed.
    ended: BTreeMap<u64, Model>,
}

impl World {
    fn new(is_empty: bool) -> Self {
        Self {
            map: Map::new(is_empty),
            store: Versions::default(),
            answers: VecDeque::new(),
            log: Vec::new(),
            now: vec![None; BLOCKS as usize],
            ended: BTreeMap::new(),
        }
    }

    fn applied(&self) -> Lsn {
        Lsn(self.log.len() as u64)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write { first, count } => self.append(Operation::Write(clip(first, count))),
            Step::Trim { first, count } => self.append(Operation::Trim(clip(first, count))),
            Step::Snapshot => {
                let generation = self.map.generation();
                self.append(Operation::Snapshot);
                self.store.boundaries.insert(generation);
                self.ended.insert(generation, self.now.clone());
            }
            Step::Forget { which } => {
                if let Some(generation) = self.ended.keys().nth(which).copied() {
                    self.ended.remove(&generation);
                    self.store.forget(generation);
                }
            }
            Step::Capture { pages_max, is_written } => self.capture(pages_max, is_written),
            Step::Ask { page } => {
                let page = PageIndex(page);
                self.answers.push_back(Answer::Loaded(page, self.store.load(page)));
            }
            Step::Answer => self.answer(),
            Step::Read { first, count } => self.read(clip(first, count)),
            Step::Shrink => self.map.shrink_to(0),
            Step::Look => self.look(),
            Step::Restart => self.restart(),
        }
    }

    fn append(&mut self, operation: Operation) {
        self.log.push(operation);
        let lsn = self.applied();
        replay(&mut self.map, lsn, operation);
        match operation {
            Operation::Write(range) => {
                for block in range.blocks() {
                    self.now[block.0 as usize] = Some(content_of(self.applied(), range, block));
                }
            }
            Operation::Trim(range) => range.blocks().for_each(|block| self.now[block.0 as usize] = None),
            Operation::Snapshot => {}
        }
    }

    fn capture(&mut self, pages_max: usize, is_written: bool) {
        if self.map.is_in_write_back() {
            return;
        }
        let capture = self.map.capture(self.applied(), pages_max);
        if is_written {
            self.store.write(capture.generation, &capture.writes);
            self.store.folded_to = capture.folded_to;
            self.store.folded_generation = capture.folded_generation;
        } else {
            // A drop of many pages is carried out in several steps, of which the first may have come.
            let drops = capture.writes.iter().take_while(|write| matches!(write, PageWrite::Drop { .. }));
            self.store.write(capture.generation, &drops.cloned().collect::<Vec<_>>());
        }
        self.answers.push_back(Answer::WroteBack(is_written));
    }

    fn answer(&mut self) {
        match self.answers.pop_front() {
            Some(Answer::Loaded(page, loaded)) => self.map.loaded(page, &loaded).unwrap(),
            Some(Answer::WroteBack(is_written)) => self.map.write_back_ended(is_written),
            None => {}
        }
    }

    fn read(&mut self, range: BlockRange) {
        let (mut runs, mut checks) = (Vec::new(), Vec::new());
        while let Err(page) = self.map.resolve(range, &mut runs, &mut checks) {
            self.answers.push_back(Answer::Loaded(page, self.store.load(page)));
            while !self.answers.is_empty() {
                self.answer();
            }
            (runs, checks) = (Vec::new(), Vec::new());
        }
        let mut checks = checks.into_iter();
        let mut expand = |run: ResolvedRun| -> Model {
            (0..run.count).map(|by| run.location.map(|at| (at.plus(by), checks.next().unwrap()))).collect()
        };
        let found: Model = runs.into_iter().flat_map(&mut expand).collect();
        assert_eq!(found, self.now[range.first.0 as usize..range.end().0 as usize]);
    }

    /// The store and what the map has still to write make every generation, whether a write under way is known to have come
    /// or is written again.
    fn look(&self) {
        let (mut map, mut store) = (self.map.clone(), self.store.clone());
        map.write_back_ended(false);
        self.drain(&mut map, &mut store);
    }

    fn drain(&self, map: &mut Map, store: &mut Versions) {
        let mut at = 0;
        while map.is_dirty() {
            let capture = map.capture(self.applied(), 2);
            assert!(capture.generation >= at, "an earlier generation comes after a later one");
            at = capture.generation;
            store.write(capture.generation, &capture.writes);
            map.write_back_ended(true);
            assert!(map.is_dirty() || capture.folded_to == self.applied());
        }
        assert_eq!(store.content(u64::MAX), self.now);
        for (generation, model) in &self.ended {
            assert!(store.content(*generation) == *model, "generation {generation} is not what it was");
        }
    }

    /// Nothing stays in memory once the store has everything.
    fn close(mut self) {
        while !self.answers.is_empty() {
            self.answer();
        }
        let (mut map, mut store) = (std::mem::replace(&mut self.map, Map::new(true)), self.store.clone());
        self.drain(&mut map, &mut store);
        map.shrink_to(0);
        assert_eq!((map.dirty_bytes(), map.cached_bytes()), (0, 0));
    }

    /// Replays what the stored map lacks into a new one.
    fn restart(&mut self) {
        self.answers.clear();
        self.map = Map::new(false);
        self.map.begin_generation(self.store.folded_generation);
        for (operation, lsn) in self.log.iter().zip((1..).map(Lsn)).filter(|(_, lsn)| *lsn > self.store.folded_to) {
            replay(&mut self.map, lsn, *operation);
        }
        let snapshots = self.log.iter().filter(|operation| matches!(operation, Operation::Snapshot)).count();
        assert_eq!(self.map.generation(), snapshots as u64);
        self.look();
    }
}

fn content_of(lsn: Lsn, range: BlockRange, block: BlockIndex) -> (Location, u32) {
    let by = (block.0 - range.first.0) as u32;
    (Location { segment: SegmentId(lsn.0), block: 1 }.plus(by), block.0 as u32 ^ (lsn.0 as u32) << 16)
}

fn replay(map: &mut Map, lsn: Lsn, operation: Operation) {
    match operation {
        Operation::Write(range) => {
            let checks = range.blocks().flat_map(|block| content_of(lsn, range, block).1.to_le_bytes());
            map.write(lsn, range, content_of(lsn, range, range.first).0, &checks.collect::<Vec<u8>>());
        }
        Operation::Trim(range) => map.trim(lsn, range),
        Operation::Snapshot => map.begin_generation(map.generation() + 1),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// P2.
    #[test]
    fn every_generation_is_what_it_was_whatever_is_written_back_fails_or_is_dropped(steps in steps(), is_empty: bool) {
        let mut world = World::new(is_empty);
        steps.into_iter().for_each(|step| world.step(step));
        world.look();
        world.close();
    }
}

fn one_block(block: u64) -> BlockRange {
    BlockRange::new(BlockIndex(block), 1)
}

/// P2. What a write-back carries is not stored yet: should it fail, the snapshot still needs it.
#[test]
fn a_page_in_write_back_is_kept_for_the_snapshot() {
    let mut world = World::new(true);
    world.step(Step::Write { first: 0, count: 1 });
    world.step(Step::Capture { pages_max: 1, is_written: false });
    world.step(Step::Snapshot);
    world.step(Step::Write { first: 0, count: 1 });
    world.step(Step::Answer);
    world.look();
}

/// P5. The page of the snapshot is stored after the trim was taken in, and must not show what was trimmed.
#[test]
fn a_trim_of_pages_that_only_a_snapshot_needs_reaches_the_store() {
    let mut world = World::new(true);
    world.step(Step::Write { first: 7, count: 1 });
    world.step(Step::Snapshot);
    world.step(Step::Trim { first: 0, count: 3 * u64::from(PAGE_BLOCKS) });
    world.step(Step::Capture { pages_max: 9, is_written: true });
    assert!(world.map.is_dirty());
    world.look();
    world.step(Step::Answer);
    assert_eq!((world.store.folded_to, world.store.folded_generation), (Lsn(2), 1));
    world.restart();
}

#[test]
fn a_snapshot_takes_no_memory_and_the_first_change_after_it_one_page() {
    let mut map = Map::new(true);
    let write = |map: &mut Map, lsn, block| {
        map.write(Lsn(lsn), one_block(block), Location { segment: SegmentId(1), block: 1 }, &[0; 4]);
    };
    (1..1000).for_each(|lsn| write(&mut map, lsn, lsn * 2));
    let before = (map.cached_bytes(), map.dirty_bytes());
    map.begin_generation(1);
    assert_eq!((map.cached_bytes(), map.dirty_bytes()), before);
    (1000..1010).for_each(|lsn| write(&mut map, lsn, 1));
    let added = map.dirty_bytes() - before.1;
    assert!(added > 900 * 10 && added < 1100 * 10 + 300, "{added}");
    let capture = map.capture(Lsn(1009), 9);
    assert_eq!((capture.generation, capture.folded_to, capture.writes.len()), (0, Lsn(999), 1));
    map.write_back_ended(true);
    let capture = map.capture(Lsn(1009), 9);
    assert_eq!((capture.generation, capture.folded_to, capture.writes.len()), (1, Lsn(1009), 1));
}
