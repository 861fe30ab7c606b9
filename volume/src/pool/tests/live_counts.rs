//! Live counts against a recount, under write-backs by chance.

use crate::format::Operation;
use crate::io::PageIndex;
use crate::map::{Found, PAGE_BLOCKS};
use crate::recover::tests::world::{VOLUME, World, trim_op, write_op};
use proptest::prelude::*;
use std::collections::BTreeMap;
use units::{Lsn, SegmentId};

#[derive(Debug, Clone)]
enum Step {
    Segment(Vec<Operation>),
    /// Writes back at most so many pages, and the store fails when told so.
    Fold(usize, bool),
    /// Forgets what the cache holds of the map, so that pages come to be partial.
    Shrink,
}

fn step() -> impl Strategy<Value = Step> {
    // Eight pages.
    let at = (0_u64..8, 0_u64..2048).prop_map(|(page, block)| page * 2048 + block);
    let operation = prop_oneof![
        4 => (at.clone(), 1_u64..4).prop_map(|(first, count)| write_op(first, count)),
        1 => (at.clone(), 1_u64..9).prop_map(|(first, count)| trim_op(first, count)),
        1 => (at, 1_u64..9000).prop_map(|(first, count)| trim_op(first, count)),
    ];
    prop_oneof![
        4 => proptest::collection::vec(operation, 1..6).prop_map(Step::Segment),
        3 => (1_usize..5, prop::bool::weighted(0.2)).prop_map(|(pages, fails)| Step::Fold(pages, fails)),
        1 => Just(Step::Shrink),
    ]
}

fn recount(world: &World) -> BTreeMap<SegmentId, u64> {
    let mut counts = BTreeMap::new();
    let mut at = PageIndex(0);
    while let Some(newest) = world.index.newest_from(VOLUME, at).unwrap() {
        at = PageIndex(newest.page.0 + 1);
        let page = newest.content().unwrap();
        assert!(!page.is_partial() && !page.is_empty());
        page.visit(0, PAGE_BLOCKS, |_, len, found| {
            if let Found::Data { location, .. } = found {
                *counts.entry(location.segment).or_default() += u64::from(len);
            }
        });
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn live_counts_are_exact_and_the_stored_map_is_what_was_written(
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let mut world = World::new(40);
        for step in steps {
            match step {
                Step::Segment(operations) => {
                    if world.index.segments(VOLUME).len() < 40 { world.segment(VOLUME, &[&operations]); }
                }
                Step::Fold(pages, fails) => {
                    world.index.store.fails = fails;
                    prop_assert_eq!(world.fold_once(VOLUME, pages).is_err(), fails);
                    world.index.store.fails = false;
                    let counts = recount(&world);
                    for segment in world.dead(VOLUME) {
                        prop_assert!(!counts.contains_key(&segment));
                    }
                }
                Step::Shrink => world.author(VOLUME).map.shrink_to(0),
            }
            let counts = recount(&world);
            for row in world.index.segments(VOLUME) {
                let counted = counts.get(&row.segment).copied().unwrap_or(0);
                prop_assert_eq!(world.index.live_blocks(row.segment), Some(counted));
            }
        }
        world.fold(VOLUME);
        let mut map = crate::map::Map::new(false);
        let mapped = world.resolve(&mut map, VOLUME, 12 * 2048);
        let last = Lsn(world.authors[&VOLUME].next_lsn.0 - 1);
        prop_assert_eq!(mapped, world.authors[&VOLUME].mapped_at(last));
    }
}
