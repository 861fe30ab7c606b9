//! Versions of pages under write-backs by chance: what each boundary shows, and every count against a recount.

use crate::format::Operation;
use crate::io::PageIndex;
use crate::map::{Change, Found, Location, PAGE_BLOCKS, Page};
use crate::pool::{Boundary, Index, LiveChange, Version, count_change};
use crate::recover::tests::world::{MemoryStore, VOLUME, World, snapshot_op, trim_op, write_op};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use units::{Lsn, SegmentId};

#[derive(Debug, Clone)]
pub(super) enum Step {
    Segment(Vec<Operation>),
    Snapshot,
    /// Writes back at most so many pages, and the store fails when told so.
    Fold(usize, bool),
    /// Forgets what the cache holds of the map, so that pages come to be partial.
    Shrink,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    // Six pages.
    let at = (0_u64..6, 0_u64..2048).prop_map(|(page, block)| page * 2048 + block);
    let operation = prop_oneof![
        4 => (at.clone(), 1_u64..4).prop_map(|(first, count)| write_op(first, count)),
        1 => (at.clone(), 1_u64..9).prop_map(|(first, count)| trim_op(first, count)),
        1 => (at, 1_u64..9000).prop_map(|(first, count)| trim_op(first, count)),
    ];
    prop_oneof![
        4 => proptest::collection::vec(operation, 1..6).prop_map(Step::Segment),
        2 => Just(Step::Snapshot),
        4 => (1_usize..5, prop::bool::weighted(0.2)).prop_map(|(pages, fails)| Step::Fold(pages, fails)),
        1 => Just(Step::Shrink),
    ]
}

pub(super) type Mapped = BTreeMap<u64, (Location, u32)>;

pub(super) fn versions(index: &Index<MemoryStore>) -> Vec<Version> {
    let (mut out, mut at) = (Vec::new(), PageIndex(0));
    while let Some(newest) = index.newest_from(VOLUME, at).unwrap() {
        at = PageIndex(newest.page.0 + 1);
        out.extend(index.versions_of(VOLUME, newest.page).unwrap());
    }
    out
}

pub(super) fn add_content(page: PageIndex, content: &Page, out: &mut Mapped) {
    content.visit(0, PAGE_BLOCKS, |first, _, found| {
        let Found::Data { location, checks } = found else { return };
        for (check, by) in checks.as_chunks::<4>().0.iter().zip(0..) {
            let block = page.0 * u64::from(PAGE_BLOCKS) + u64::from(first + by);
            out.insert(block, (location.plus(by), u32::from_le_bytes(*check)));
        }
    });
}

/// What the store shows at the end of `generation`.
pub(super) fn stored_at(all: &[Version], generation: u64) -> Mapped {
    let mut visible: BTreeMap<PageIndex, &Version> = BTreeMap::new();
    for version in all.iter().filter(|version| version.generation <= generation) {
        let newest = visible.entry(version.page).or_insert(version);
        if newest.generation < version.generation {
            *newest = version;
        }
    }
    let mut out = Mapped::new();
    visible.values().for_each(|version| add_content(version.page, &version.content().unwrap(), &mut out));
    out
}

pub(super) fn check_counts(index: &Index<MemoryStore>) {
    let all = versions(index);
    let mut named: BTreeSet<Location> = BTreeSet::new();
    for version in &all {
        let mut content = Mapped::new();
        add_content(version.page, &version.content().unwrap(), &mut content);
        named.extend(content.values().map(|(location, _)| *location));
    }
    for row in index.segments(VOLUME) {
        let counted = named.iter().filter(|location| location.segment == row.segment).count() as u64;
        assert_eq!(index.live_blocks(row.segment), Some(counted));
    }
    let mapped = index.volume_row(VOLUME).map_or(0, |row| row.mapped);
    assert_eq!(mapped, stored_at(&all, u64::MAX).len() as u64);
    for row in index.boundaries(VOLUME).filter(|row| !row.is_leaving) {
        assert_eq!(row.mapped, stored_at(&all, row.boundary.generation).len() as u64);
    }
    let births: BTreeSet<(u64, u64)> = all.iter().map(|version| (version.generation, version.page.0)).collect();
    let kept = index.store().keys.keys().filter(|key| key[0] == 6).map(|key| {
        let number = |at: usize| u64::from_be_bytes(key[at..at + 8].try_into().unwrap());
        (number(9), number(17))
    });
    assert_eq!(kept.collect::<BTreeSet<_>>(), births);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// P2.
    #[test]
    fn every_boundary_shows_what_it_was_and_counts_are_exact(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new(60);
        let mut ends: BTreeMap<u64, Lsn> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Segment(operations) if world.index.segments(VOLUME).len() < 50 => {
                    world.segment(VOLUME, &[&operations]);
                }
                Step::Snapshot if world.index.segments(VOLUME).len() < 50 => {
                    let generation = world.author(VOLUME).map.generation();
                    world.segment(VOLUME, &[&[snapshot_op(generation)]]);
                    ends.insert(generation, Lsn(world.author(VOLUME).next_lsn.0 - 1));
                }
                Step::Fold(pages, fails) => {
                    world.index.store.fails = fails;
                    prop_assert_eq!(world.fold_once(VOLUME, pages).is_err(), fails);
                    world.index.store.fails = false;
                }
                Step::Segment(_) | Step::Snapshot => {}
                Step::Shrink => world.author(VOLUME).map.shrink_to(0),
            }
            check_counts(&world.index);
        }
        world.fold(VOLUME);
        world.index = Index::open(world.index.store().clone(), &world.superblock, &world.pool).unwrap();
        check_counts(&world.index);
        let all = versions(&world.index);
        let told = |(generation, lsn): (&u64, &Lsn)| (*generation, *lsn);
        let kept: Vec<(u64, Lsn)> =
            world.index.boundaries(VOLUME).map(|row| (row.boundary.generation, row.boundary.lsn)).collect();
        prop_assert_eq!(kept, ends.iter().map(told).collect::<Vec<_>>());
        let author = &world.authors[&VOLUME];
        prop_assert_eq!(stored_at(&all, u64::MAX), author.mapped_at(Lsn(author.next_lsn.0 - 1)));
        for (generation, lsn) in ends {
            prop_assert_eq!(stored_at(&all, generation), author.mapped_at(lsn));
        }
    }
}

/// Changes some blocks of a page, each to a location that was never used before, or to a hole.
fn changed(page: &Page, blocks: &[(u32, bool)], next: &mut u64) -> Page {
    let mut page = page.clone();
    for (block, is_data) in blocks {
        *next += 1;
        let location = Location { segment: SegmentId(*next % 7), block: u16::try_from(*next % 60_000 + 1).unwrap() };
        let change = if *is_data { Change::Data { location, checks: &[0; 4] } } else { Change::Hole };
        page.change(*block, 1, change);
    }
    page
}

/// Blocks of each segment, once for every version that names one which the version below it does not.
fn runs(tree: &[(Option<usize>, &Page)]) -> BTreeMap<SegmentId, i64> {
    let places = |page: &Page| {
        let mut out = Mapped::new();
        add_content(PageIndex(0), page, &mut out);
        out.into_values().map(|(location, _)| location).collect::<BTreeSet<Location>>()
    };
    let mut counts = BTreeMap::new();
    for (below, page) in tree {
        let below = below.map(|below| places(tree[below].1)).unwrap_or_default();
        places(page).difference(&below).for_each(|location| *counts.entry(location.segment).or_default() += 1);
    }
    counts
}

proptest! {
    #[test]
    fn a_version_with_heirs_is_counted_as_a_recount_does(
        changes in proptest::collection::vec(proptest::collection::vec((0_u32..12, prop::bool::weighted(0.8)), 0..9), 3..6),
        has_below: bool,
    ) {
        let mut next = 0;
        let empty = Page::empty(false);
        let below = if has_below { changed(&empty, &changes[0], &mut next) } else { empty };
        let node = changed(&below, &changes[1], &mut next);
        let heirs: Vec<Page> = changes[2..].iter().map(|blocks| changed(&node, blocks, &mut next)).collect();
        let above: Vec<&Page> = heirs.iter().collect();
        let root = has_below.then_some(&below);
        let mut with: Vec<(Option<usize>, &Page)> = root.map(|below| (None, below)).into_iter().collect();
        let mut without = with.clone();
        let under = has_below.then_some(0);
        with.push((under, &node));
        let at = with.len() - 1;
        above.iter().for_each(|heir| with.push((Some(at), heir)));
        above.iter().for_each(|heir| without.push((under, heir)));
        for (change, before, after) in [((None, Some(&node)), &without, &with), ((Some(&node), None), &with, &without)] {
            let mut change_of = LiveChange::none(1 << 16);
            count_change(change, root, &above, &mut change_of);
            let mut live = runs(before);
            change_of.totals().for_each(|(segment, by)| *live.entry(segment).or_default() += by);
            live.retain(|_, count| *count != 0);
            let expected: BTreeMap<SegmentId, i64> = runs(after).into_iter().filter(|(_, count)| *count != 0).collect();
            prop_assert_eq!(live, expected);
        }
    }
}

/// P2. What a later generation has written may have taken the place of what the boundary would need.
#[test]
fn a_boundary_that_comes_too_late_is_refused_and_one_that_is_known_stays_as_it_is() {
    let mut world = World::new(20);
    world.segment(VOLUME, &[&[write_op(0, 4)], &[snapshot_op(0)], &[write_op(0, 2)], &[snapshot_op(1)]]);
    world.fold(VOLUME);
    let boundary = |generation, lsn| Boundary { generation, lsn: Lsn(lsn), size_bytes: 1, wall_ms: 0 };
    let before: Vec<_> = world.index.boundaries(VOLUME).copied().collect();
    let known = before[0].boundary;
    assert_eq!(world.index.note_boundary(VOLUME, known), Ok(()));
    assert!(world.index.note_boundary(VOLUME, boundary(0, 3)).is_err());
    assert_eq!(world.index.boundaries(VOLUME).copied().collect::<Vec<_>>(), before);
    world.segment(VOLUME, &[&[snapshot_op(7)]]);
    world.fold(VOLUME);
    assert!(world.index.note_boundary(VOLUME, boundary(3, 2)).is_err());
}

/// P8.
#[test]
fn forgetting_a_volume_forgets_its_versions_and_boundaries() {
    let mut world = World::new(20);
    world.segment(VOLUME, &[&[write_op(0, 4)], &[snapshot_op(0)], &[write_op(0, 2)]]);
    world.fold(VOLUME);
    assert_eq!(versions(&world.index).len(), 2);
    world.index.forget_volume(VOLUME).unwrap();
    assert_eq!(world.index.boundaries(VOLUME).count(), 0);
    let left: Vec<u8> = world.index.store().keys.keys().map(|key| key[0]).collect();
    assert_eq!(left, [0, 16], "what is of the pool");
}
