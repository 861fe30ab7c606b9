//! What has changed since a snapshot, against a comparison of all that both show.

use super::families::{self, Family, shown};
use super::versions::{Mapped, stored_at, versions};
use super::walk::{History, deed, finish};
use crate::io::PageIndex;
use crate::map::PAGE_BLOCKS;
use crate::pool::{Change, ChangesError, Index, Parent};
use crate::recover::tests::world::{MemoryStore, VOLUME, World, snapshot_op, trim_op, write_op};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use units::VolumeId;

/// Blocks with what has become of them.
type Changed = BTreeMap<u64, Change>;

/// Blocks of the first pages that have changed, by the index.
fn changed(index: &Index<MemoryStore>, volume: VolumeId, since: Parent, pages: u64, runs_max: usize) -> Changed {
    let blocks = pages * u64::from(PAGE_BLOCKS);
    let (mut out, mut at) = (Changed::new(), 0);
    while at < blocks {
        let first = PageIndex(at / u64::from(PAGE_BLOCKS));
        let found = index.changes(volume, since, first..PageIndex(pages), runs_max).unwrap();
        for run in found.runs {
            if run.change != Change::None {
                out.extend((at..at + run.blocks).map(|block| (block, run.change)));
            }
            at += run.blocks;
        }
        assert_eq!(at % u64::from(PAGE_BLOCKS), 0);
    }
    out
}

fn differing(before: &Mapped, now: &Mapped) -> Changed {
    let blocks: BTreeSet<u64> = before.keys().chain(now.keys()).copied().collect();
    let place = |of: &Mapped, block: &u64| of.get(block).map(|(location, _)| *location);
    let become_of = |block: &u64| if now.contains_key(block) { Change::Data } else { Change::Hole };
    let differing = blocks.into_iter().filter(|block| place(before, block) != place(now, block));
    differing.map(|block| (block, become_of(&block))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// P2.
    #[test]
    fn exactly_what_is_somewhere_else_has_changed(
        deeds in proptest::collection::vec(deed(), 1..60),
        runs_max in 1_usize..9,
    ) {
        let mut world = World::new(60);
        let mut history = History::default();
        for deed in deeds {
            history.carry_out(&mut world, deed);
        }
        world.fold(VOLUME);
        for round in 0..2 {
            let all = versions(&world.index);
            let ends: Vec<(u64, _)> = history.ends.iter().map(|(generation, lsn)| (*generation, *lsn)).collect();
            let author = &world.authors[&VOLUME];
            let now = stored_at(&all, u64::MAX);
            for (generation, lsn) in &ends {
                let since = Parent { volume: VOLUME, generation: *generation };
                let expected = differing(&author.mapped_at(*lsn), &now);
                prop_assert_eq!(changed(&world.index, VOLUME, since, 12, runs_max), expected, "round {}", round);
            }
            // Views of later ones, and a clone.
            for (n, (generation, lsn)) in ends.iter().enumerate() {
                let view = VolumeId(1000 + n as u64 + 100 * round);
                world.index.note_parent(view, Parent { volume: VOLUME, generation: *generation }).unwrap();
                for (earlier, before) in ends.iter().take(n + 1) {
                    let since = Parent { volume: VOLUME, generation: *earlier };
                    let author = &world.authors[&VOLUME];
                    let expected = differing(&author.mapped_at(*before), &author.mapped_at(*lsn));
                    prop_assert_eq!(changed(&world.index, view, since, 12, runs_max), expected);
                }
                world.index.forget_parent(view).unwrap();
            }
            finish(&mut world, &mut history.begun);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// P2. A clone tells what has changed since a snapshot of any volume that it inherits from.
    #[test]
    fn clones_tell_what_has_changed_since_any_snapshot_above_them(
        steps in proptest::collection::vec(families::step(), 1..60),
    ) {
        let mut family = Family::new();
        steps.into_iter().for_each(|step| family.take(step));
        family.fold();
        let index = &family.world.index;
        for volume in family.volumes.clone() {
            let now = shown(|page| index.load_page(volume, page));
            for (since, _) in &family.ends {
                let told = index.changes(volume, *since, PageIndex(0)..PageIndex(1), 1);
                let is_above = {
                    let mut layer = Some(Parent { volume, generation: u64::MAX });
                    while let Some(at) = layer.filter(|at| at.volume != since.volume) {
                        layer = index.parent(at.volume);
                    }
                    layer.is_some_and(|layer| since.generation <= layer.generation)
                };
                prop_assert_eq!(told.is_ok(), is_above);
                if is_above {
                    let before = shown(|page| index.load_page_at(since.volume, page, since.generation));
                    prop_assert_eq!(changed(index, volume, *since, 12, 50), differing(&before, &now));
                }
            }
        }
    }
}

#[test]
fn a_snapshot_that_is_gone_or_of_another_or_later_tells_nothing() {
    let mut world = World::new(20);
    world.segment(VOLUME, &[&[write_op(0, 4)], &[snapshot_op(0)], &[write_op(0, 2)], &[snapshot_op(1)]]);
    world.fold(VOLUME);
    let parent = |volume, generation| Parent { volume, generation };
    let view = VolumeId(50);
    world.index.note_parent(view, parent(VOLUME, 0)).unwrap();
    let asked = |world: &World, volume, since| world.index.changes(volume, since, PageIndex(0)..PageIndex(1), 9);
    assert!(asked(&world, view, parent(VOLUME, 0)).unwrap().runs.iter().all(|run| run.change == Change::None));
    assert_eq!(asked(&world, view, parent(VOLUME, 1)), Err(ChangesError::Gone), "it is later than what is shown");
    assert_eq!(asked(&world, VolumeId(60), parent(VOLUME, 1)), Err(ChangesError::Gone));
    assert_eq!(asked(&world, VOLUME, parent(VOLUME, 7)), Err(ChangesError::Gone));
    assert!(asked(&world, VOLUME, parent(VOLUME, 1)).is_ok());
    world.index.begin_deletion(VOLUME, 1).unwrap();
    assert_eq!(asked(&world, VOLUME, parent(VOLUME, 1)), Err(ChangesError::Gone), "it is being deleted");
}

/// Many generations lie between: every page is looked at, and nothing is missed.
#[test]
fn changes_over_many_snapshots_are_all_told() {
    let mut world = World::new(80);
    world.segment(VOLUME, &[&[write_op(0, 1), write_op(5000, 2), write_op(9000, 3)]]);
    for generation in 0..30 {
        world.segment(VOLUME, &[&[snapshot_op(generation)], &[write_op(2048 * (generation % 3), 1)]]);
    }
    world.segment(VOLUME, &[&[trim_op(9000, 1)]]);
    world.fold(VOLUME);
    let since = |generation| Parent { volume: VOLUME, generation };
    let all = Changed::from([(0, Change::Data), (2048, Change::Data), (4096, Change::Data), (9000, Change::Hole)]);
    assert_eq!(changed(&world.index, VOLUME, since(0), 6, 100), all);
    assert_eq!(changed(&world.index, VOLUME, since(29), 6, 100), all.into_iter().skip(2).collect::<Changed>());
}
