//! The map against a plain map of blocks, over a store that is a map of pages.

mod generations;

use super::*;
use proptest::prelude::*;
use units::SegmentId;

/// A store that answers in order, and what it was asked.
#[derive(Default)]
struct Pages(BTreeMap<u64, Page>);

impl Pages {
    fn load(&self, page: PageIndex) -> LoadedPage {
        match self.0.range(page.0..).next() {
            Some((index, stored)) if *index == page.0 => LoadedPage::Present(stored.encode()),
            next => LoadedPage::Absent { next: next.map(|(index, _)| PageIndex(*index)) },
        }
    }

    fn write(&mut self, writes: &[PageWrite]) {
        for write in writes {
            match write {
                PageWrite::Put { page, encoded, .. } => {
                    let stored = self.0.remove(&page.0).unwrap_or_else(|| Page::empty(false));
                    self.0.insert(page.0, Page::decode(encoded).unwrap().over(&stored));
                }
                PageWrite::Drop { first, end, .. } => self.0.retain(|index, _| !(first.0..end.0).contains(index)),
                PageWrite::Resize { .. } => {}
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write { first: u64, count: u64 },
    Trim { first: u64, count: u64 },
    WriteBack { pages_max: usize, is_written: bool },
    Read { first: u64, count: u64 },
    Shrink,
}

const BLOCKS: u64 = 6 * PAGE_BLOCKS as u64;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..BLOCKS, 1..300_u64).prop_map(|(first, count)| Step::Write { first, count }),
        2 => (0..BLOCKS, 1..9000_u64).prop_map(|(first, count)| Step::Trim { first, count }),
        2 => (1..4_usize, any::<bool>()).prop_map(|(pages_max, is_written)| Step::WriteBack { pages_max, is_written }),
        3 => (0..BLOCKS, 1..600_u64).prop_map(|(first, count)| Step::Read { first, count }),
        1 => Just(Step::Shrink),
    ];
    proptest::collection::vec(step, 1..80)
}

fn clip(first: u64, count: u64) -> BlockRange {
    BlockRange::new(BlockIndex(first), count.min(BLOCKS - first))
}

fn read(map: &mut Map, store: &Pages, range: BlockRange) -> Vec<Option<(Location, u32)>> {
    loop {
        let (mut runs, mut checks) = (Vec::new(), Vec::new());
        match map.resolve(range, &mut runs, &mut checks) {
            Err(page) => map.loaded(page, &store.load(page)).unwrap(),
            Ok(()) => {
                let mut checks = checks.into_iter();
                let mut expand = |run: ResolvedRun| -> Vec<_> {
                    (0..run.count).map(|by| run.location.map(|at| (at.plus(by), checks.next().unwrap()))).collect()
                };
                return runs.into_iter().flat_map(&mut expand).collect();
            }
        }
    }
}

fn extents(map: &mut Map, store: &Pages, range: BlockRange) -> Vec<bool> {
    let (mut out, mut at) = (Vec::new(), range.first.0);
    while at < range.end().0 {
        let rest = BlockRange::new(BlockIndex(at), range.end().0 - at);
        match map.extents(rest, usize::MAX, &mut out) {
            Ok(walked) => at += walked / BLOCK_BYTES,
            Err((walked, page)) => {
                at += walked / BLOCK_BYTES;
                map.loaded(page, &store.load(page)).unwrap();
            }
        }
    }
    out.into_iter()
        .flat_map(|extent| std::iter::repeat_n(extent.is_data, (extent.len / BLOCK_BYTES) as usize))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn equals_a_plain_map_whatever_is_loaded_written_back_and_forgotten(steps in steps(), is_empty: bool) {
        let mut map = Map::new(is_empty);
        let mut store = Pages::default();
        let mut model: Vec<Option<(Location, u32)>> = vec![None; BLOCKS as usize];
        for (n, step) in steps.into_iter().enumerate() {
            let lsn = Lsn(n as u64 + 1);
            match step {
                Step::Write { first, count } => {
                    let range = clip(first, count);
                    let location = Location { segment: SegmentId(lsn.0), block: 1 };
                    let checks: Vec<u8> = range.blocks().flat_map(|b| (b.0 as u32).to_le_bytes()).collect();
                    map.write(lsn, range, location, &checks);
                    for block in range.blocks() {
                        let by = (block.0 - range.first.0) as u32;
                        model[block.0 as usize] = Some((location.plus(by), block.0 as u32));
                    }
                }
                Step::Trim { first, count } => {
                    let range = clip(first, count);
                    map.trim(lsn, range);
                    range.blocks().for_each(|block| model[block.0 as usize] = None);
                }
                Step::WriteBack { pages_max, is_written } => {
                    let capture = map.capture(lsn, pages_max);
                    if is_written {
                        store.write(&capture.writes);
                    }
                    map.write_back_ended(is_written);
                }
                Step::Read { first, count } => {
                    let range = clip(first, count);
                    let expected = &model[range.first.0 as usize..range.end().0 as usize];
                    prop_assert_eq!(read(&mut map, &store, range), expected);
                    let data: Vec<bool> = expected.iter().map(Option::is_some).collect();
                    prop_assert_eq!(extents(&mut map, &store, range), data);
                }
                Step::Shrink => map.shrink_to(0),
            }
        }
        while map.is_dirty() {
            let capture = map.capture(Lsn(1000), 2);
            store.write(&capture.writes);
            map.write_back_ended(true);
        }
        map.shrink_to(0);
        prop_assert_eq!(map.cached_bytes(), 0);
        prop_assert_eq!(map.dirty_bytes(), 0);
        prop_assert_eq!(read(&mut map, &store, clip(0, BLOCKS)), model.clone());
        let stored: u64 = store.0.values().map(Page::mapped_blocks).sum();
        prop_assert_eq!(stored, model.iter().flatten().count() as u64);
    }
}

#[test]
fn a_huge_trim_of_an_empty_volume_costs_nothing() {
    let mut map = Map::new(true);
    map.trim(Lsn(1), BlockRange::new(BlockIndex(3), 1 << 50));
    assert!(!map.is_dirty());
    assert_eq!(map.cached_bytes(), 0);
}

#[test]
fn a_write_back_says_how_far_the_stored_map_is_complete() {
    let mut map = Map::new(true);
    let at = Location { segment: SegmentId(1), block: 1 };
    for (lsn, block) in [(5, 0), (6, 5000), (7, 0), (8, 9000)] {
        map.write(Lsn(lsn), BlockRange::new(BlockIndex(block), 1), at, &[0; 4]);
    }
    let capture = map.capture(Lsn(8), 1);
    assert_eq!((capture.folded_to, capture.complete_at), (Lsn(5), Lsn(8)));
    map.write(Lsn(9), BlockRange::new(BlockIndex(0), 1), at, &[0; 4]);
    map.write_back_ended(true);
    let capture = map.capture(Lsn(9), 8);
    assert_eq!(capture.folded_to, Lsn(9));
    assert_eq!(capture.writes.len(), 3);
}
