//! Deletion of boundaries and what it gives back, against a count over all stored versions; and what it costs.

use super::families::{self, Family};
use super::versions::{Mapped, Step, add_content, check_counts, step, stored_at, versions};
use crate::format::Superblock;
use crate::io::PageIndex;
use crate::map::{Change, Location, Page, PageWrite};
use crate::pool::{
    Boundary, DeletionError, Folded, Home, Index, LeaseClass, LineageError, Parent, SegmentRow, Version,
};
use crate::recover::tests::world::{MemoryStore, VOLUME, World, snapshot_op, trim_op, write_op};
use crate::store::{Durability, Store, StoreFault, StoreWrite};
use proptest::prelude::*;
use proptest::sample::Index as Pick;
use std::collections::{BTreeMap, BTreeSet};
use units::{Lsn, VolumeId};

#[derive(Debug, Clone)]
pub(super) enum Deed {
    Write(Step),
    /// Begins to delete one of the boundaries.
    Delete(Pick),
    /// Goes on with the oldest deletion, the store failing when told so.
    GoOn(usize, bool),
    /// The process ends; the store keeps what it has.
    Reopen,
    /// What the deletion of some boundaries gives back, each chosen by a bit.
    Reclaim(u32),
}

pub(super) fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        12 => step().prop_map(Deed::Write),
        3 => any::<Pick>().prop_map(Deed::Delete),
        4 => (1_usize..6, prop::bool::weighted(0.2)).prop_map(|(steps, fails)| Deed::GoOn(steps, fails)),
        1 => Just(Deed::Reopen),
        3 => any::<u32>().prop_map(Deed::Reclaim),
    ]
}

/// Locations that the visible versions of `viewers` name.
fn seen_from(all: &[Version], viewers: impl IntoIterator<Item = u64>) -> BTreeSet<Location> {
    let seen = viewers.into_iter().flat_map(|generation| stored_at(all, generation).into_values());
    seen.map(|(location, _)| location).collect()
}

/// All that stored versions name.
fn named(all: &[Version]) -> BTreeSet<Location> {
    let mut out = BTreeSet::new();
    for version in all {
        let mut content = Mapped::new();
        add_content(version.page, &version.content().unwrap(), &mut content);
        out.extend(content.into_values().map(|(location, _)| location));
    }
    out
}

fn searched(index: &Index<MemoryStore>, set: &BTreeSet<u64>) -> u64 {
    let mut search = index.reclaim(VOLUME, set);
    while !index.reclaim_some(&mut search, 3).unwrap() {}
    search.blocks()
}

fn check_reclaim(index: &Index<MemoryStore>, set: &BTreeSet<u64>) {
    let all = versions(index);
    let kept = index.boundaries(VOLUME).map(|row| row.boundary.generation);
    let kept: Vec<u64> = kept.filter(|generation| !set.contains(generation)).chain([u64::MAX]).collect();
    let expected = named(&all).difference(&seen_from(&all, kept)).count() as u64;
    assert_eq!(searched(index, set), expected);
}

/// Ends the deletions that are under way, oldest request first.
pub(super) fn finish(world: &mut World, begun: &mut Vec<u64>) {
    for generation in begun.drain(..) {
        let Some(mut deletion) = world.index.begin_deletion(VOLUME, generation).unwrap() else { continue };
        while !world.index.delete_some(&mut deletion, 2).unwrap() {
            check_counts(&world.index);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct History {
    /// Where each boundary is that nobody has begun to delete.
    pub(super) ends: BTreeMap<u64, Lsn>,
    pub(super) begun: Vec<u64>,
    /// The first of those, when it has gone on.
    deletion: Option<crate::pool::Deletion>,
}

impl History {
    fn write(&mut self, world: &mut World, step: Step) {
        let has_room = world.index.segments(VOLUME).len() < 50;
        match step {
            Step::Segment(operations) if has_room => drop(world.segment(VOLUME, &[&operations])),
            Step::Snapshot if has_room => {
                let generation = world.author(VOLUME).map.generation();
                world.segment(VOLUME, &[&[snapshot_op(generation)]]);
                self.ends.insert(generation, Lsn(world.author(VOLUME).next_lsn.0 - 1));
            }
            Step::Segment(_) | Step::Snapshot => {}
            Step::Fold(pages, fails) => {
                world.index.store.fails = fails;
                assert_eq!(world.fold_once(VOLUME, pages).is_err(), fails);
                world.index.store.fails = false;
            }
            Step::Shrink => world.author(VOLUME).map.shrink_to(0),
        }
    }

    fn go_on(&mut self, world: &mut World, steps: usize, fails: bool) {
        if self.deletion.is_none()
            && let Some(first) = self.begun.first()
        {
            self.deletion = world.index.begin_deletion(VOLUME, *first).unwrap();
        }
        let Some(deletion) = &mut self.deletion else { return };
        world.index.store.fails = fails;
        let is_over = world.index.delete_some(deletion, steps);
        world.index.store.fails = false;
        if is_over == Ok(true) {
            let gone = self.begun.remove(0);
            assert!(world.index.boundaries(VOLUME).all(|row| row.boundary.generation != gone));
            self.deletion = None;
        }
    }

    pub(super) fn carry_out(&mut self, world: &mut World, deed: Deed) {
        match deed {
            Deed::Write(step) => self.write(world, step),
            Deed::Delete(pick) if !self.ends.is_empty() => {
                let generation = *self.ends.keys().nth(pick.index(self.ends.len())).unwrap();
                self.ends.remove(&generation);
                assert!(world.index.begin_deletion(VOLUME, generation).unwrap().is_some());
                self.begun.push(generation);
            }
            Deed::Delete(_) => {}
            Deed::GoOn(steps, fails) => self.go_on(world, steps, fails),
            Deed::Reopen => {
                world.index = Index::open(world.index.store().clone(), &world.superblock, &world.pool).unwrap();
                self.deletion = None;
                let leaving: BTreeSet<u64> = world.index.leaving_boundaries().map(|(_, of)| of).collect();
                assert_eq!(leaving, self.begun.iter().copied().collect());
            }
            Deed::Reclaim(bits) => {
                let generations = world.index.boundaries(VOLUME).map(|row| row.boundary.generation);
                let set = generations.filter(|generation| bits >> (generation % 32) & 1 == 1).collect();
                check_reclaim(&world.index, &set);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// P2.
    #[test]
    fn what_a_deletion_gives_back_was_told_and_what_others_need_stays(
        deeds in proptest::collection::vec(deed(), 1..60),
    ) {
        let mut world = World::new(60);
        let mut history = History::default();
        for deed in deeds {
            history.carry_out(&mut world, deed);
            check_counts(&world.index);
        }
        world.fold(VOLUME);
        finish(&mut world, &mut history.begun);
        let all = versions(&world.index);
        let author = &world.authors[&VOLUME];
        for (generation, lsn) in &history.ends {
            prop_assert_eq!(stored_at(&all, *generation), author.mapped_at(*lsn));
        }
        for generation in history.ends.keys() {
            let before: u64 = live(&world.index);
            let told = searched(&world.index, &BTreeSet::from([*generation]));
            finish(&mut world, &mut vec![*generation]);
            prop_assert_eq!(before - live(&world.index), told);
        }
        check_counts(&world.index);
        let all = versions(&world.index);
        prop_assert_eq!(stored_at(&all, u64::MAX), author_now(&world));
        prop_assert_eq!(named(&all).len() as u64, live(&world.index));
        prop_assert!(all.iter().all(|version| !version.content().unwrap().is_empty()), "nothing is left to be hidden");
        prop_assert_eq!(world.index.boundaries(VOLUME).count(), 0);
        let space = world.index.volume_space(VOLUME);
        prop_assert_eq!((space.live_blocks, space.snapshot_blocks), (space.mapped_blocks, Some(0)));
    }
}

fn author_now(world: &World) -> Mapped {
    let author = &world.authors[&VOLUME];
    author.mapped_at(Lsn(author.next_lsn.0 - 1))
}

fn live(index: &Index<MemoryStore>) -> u64 {
    index.segments(VOLUME).iter().map(|row| index.live_blocks(row.segment).unwrap()).sum()
}

/// Begins to delete a boundary of a family on which nobody hangs, and goes on by at most so many steps of it.
fn delete_of_family(family: &mut Family, which: usize, steps: usize, leaving: &mut Vec<Parent>) {
    let Some((boundary, _)) = family.ends.get(which % family.ends.len().max(1)).copied() else { return };
    if family.world.index.is_pinned(boundary.volume, boundary.generation) {
        return;
    }
    let index = &mut family.world.index;
    let mut deletion = index.begin_deletion(boundary.volume, boundary.generation).unwrap().unwrap();
    family.ends.retain(|(other, _)| *other != boundary);
    // Those of a volume are deleted one after the other.
    let is_first = leaving.iter().all(|other| other.volume != boundary.volume);
    if !is_first || !(0..steps).any(|_| index.delete_some(&mut deletion, 1).unwrap()) {
        leaving.push(boundary);
    }
}

fn live_of(index: &Index<MemoryStore>, volume: VolumeId) -> u64 {
    index.segments(volume).iter().map(|row| index.live_blocks(row.segment).unwrap()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// P2. The same of clones of clones, which have what they inherit below their own versions.
    #[test]
    fn deletions_among_clones_leave_what_any_of_them_shows(
        steps in proptest::collection::vec(
            (families::step(), prop::option::weighted(0.2, (0_usize..99, 0_usize..9))), 1..60),
    ) {
        let (mut family, mut leaving) = (Family::new(), Vec::new());
        for (step, deletion) in steps {
            family.take(step);
            if let Some((which, steps)) = deletion {
                delete_of_family(&mut family, which, steps, &mut leaving);
            }
            family.check_counts();
        }
        family.fold();
        family.check();
        family.reopen();
        for Parent { volume, generation } in leaving {
            let Some(mut deletion) = family.world.index.begin_deletion(volume, generation).unwrap() else { continue };
            while !family.world.index.delete_some(&mut deletion, 3).unwrap() {
                family.check_counts();
            }
        }
        family.check();
        while let Some(at) = family.ends.iter().position(|(Parent { volume, generation }, _)| {
            !family.world.index.is_pinned(*volume, *generation)
        }) {
            let (Parent { volume, generation }, _) = family.ends.remove(at);
            let index = &mut family.world.index;
            let mut search = index.unique(volume, generation);
            while !index.reclaim_some(&mut search, 5).unwrap() {}
            let before = live_of(index, volume);
            let mut deletion = index.begin_deletion(volume, generation).unwrap().unwrap();
            while !index.delete_some(&mut deletion, 5).unwrap() {}
            prop_assert_eq!(before - live_of(index, volume), search.blocks());
            family.check();
        }
    }
}

#[test]
fn a_boundary_on_which_something_hangs_is_not_deleted_and_holds_nothing_alone() {
    let mut world = World::new(20);
    world.segment(VOLUME, &[&[write_op(0, 4)], &[snapshot_op(0)], &[write_op(0, 3)], &[snapshot_op(1)]]);
    world.segment(VOLUME, &[&[trim_op(0, 4)]]);
    world.fold(VOLUME);
    let (parent, heirs) = (Parent { volume: VOLUME, generation: 0 }, [VolumeId(70), VolumeId(71)]);
    heirs.iter().for_each(|heir| world.index.note_parent(*heir, parent).unwrap());
    assert_eq!(world.index.begin_deletion(VOLUME, 0).map(|_| ()), Err(DeletionError::Pinned));
    assert_eq!([0, 1].map(|generation| searched(&world.index, &BTreeSet::from([generation]))), [0, 3]);
    assert_eq!(searched(&world.index, &BTreeSet::from([0, 1])), 3);
    world.index.forget_parent(heirs[0]).unwrap();
    assert!(world.index.begin_deletion(VOLUME, 0).is_err());
    world.index.forget_parent(heirs[1]).unwrap();
    assert_eq!([0, 1].map(|generation| searched(&world.index, &BTreeSet::from([generation]))), [3, 3]);
    assert_eq!(searched(&world.index, &BTreeSet::from([0, 1])), 7);
    let space = world.index.volume_space(VOLUME);
    assert_eq!((space.mapped_blocks, space.live_blocks, space.snapshot_blocks, space.boundaries), (0, 7, Some(7), 2));
    let begun = world.index.begin_deletion(VOLUME, 0).unwrap();
    assert!(begun.is_some() && world.index.note_parent(heirs[0], parent) == Err(LineageError::NoBoundary));
    finish(&mut world, &mut vec![0]);
    assert!(world.index.begin_deletion(VOLUME, 0).unwrap().is_none(), "it is gone");
    assert_eq!(live(&world.index), 4);
    finish(&mut world, &mut vec![1]);
    assert_eq!(live(&world.index), 0);
    assert!(versions(&world.index).is_empty());
}

/// P2. A page that hides nothing any more is not needed either; what a later snapshot needs stays.
#[test]
fn a_snapshot_that_is_taken_during_a_deletion_keeps_what_it_needs() {
    let mut world = World::new(40);
    let pages = [0, 1, 2, 3].map(|page| write_op(page * 2048, 1));
    world.segment(VOLUME, &[&pages, &[snapshot_op(0)], &[write_op(0, 1)]]);
    world.fold(VOLUME);
    let mut deletion = world.index.begin_deletion(VOLUME, 0).unwrap().unwrap();
    assert_eq!(world.index.delete_some(&mut deletion, 1), Ok(false));
    world.segment(VOLUME, &[&[snapshot_op(1)]]);
    world.segment(VOLUME, &[&[write_op(2048, 1), write_op(2 * 2048, 1), write_op(3 * 2048, 1)]]);
    world.fold(VOLUME);
    while !world.index.delete_some(&mut deletion, 1).unwrap() {}
    check_counts(&world.index);
    let all = versions(&world.index);
    let author = &world.authors[&VOLUME];
    let at = world.index.boundaries(VOLUME).next().unwrap().boundary;
    assert_eq!(at.generation, 1);
    assert_eq!(stored_at(&all, 1), author.mapped_at(at.lsn));
    assert_eq!(stored_at(&all, u64::MAX), author_now(&world));
}

/// A store that keeps no history of itself.
#[derive(Debug, Default)]
struct PlainStore(BTreeMap<Vec<u8>, Vec<u8>>);

impl Store for PlainStore {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        Ok(self.0.get(key).cloned())
    }

    fn seek(&self, from: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, StoreFault> {
        let found = self.0.range(from.to_vec()..).next().filter(|(key, _)| key.as_slice() < end);
        Ok(found.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn commit(&mut self, writes: Vec<StoreWrite>, _: Durability) -> Result<(), StoreFault> {
        for write in writes {
            match write {
                StoreWrite::Put(key, value) => drop(self.0.insert(key, value)),
                StoreWrite::Delete(key) => drop(self.0.remove(&key)),
                StoreWrite::DeleteRange(from, end) => self.0.retain(|key, _| *key < from || *key >= end),
            }
        }
        Ok(())
    }
}

const SNAPSHOTS: u64 = 1000;
const BASE_PAGES: u64 = 3000;

/// A volume with many snapshots: each changes some pages out of `working_set`, over a base of many.
fn with_snapshots(superblock: &Superblock, working_set: u64, changes: u64) -> Index<PlainStore> {
    let mut index = Index::create(PlainStore::default(), superblock).unwrap();
    let lease = index.lease(LeaseClass::Data).unwrap();
    let row = SegmentRow {
        segment: lease.segment,
        volume: VOLUME,
        home: Home::Own(lease.slot),
        first_lsn: Lsn(1),
        last_lsn: None,
        has_holes: false,
    };
    index.note_segment(row).unwrap();
    let mut block = 0;
    let mut put = |page: u64| {
        block += 1;
        let mut content = Page::empty(false);
        let location = Location { segment: row.segment, block };
        content.change(0, 1, Change::Data { location, checks: &[0; 4] });
        PageWrite::put(PageIndex(page), content.encode(), Lsn(1))
    };
    let mut write = |generation: u64, pages: &mut dyn Iterator<Item = u64>| {
        let writes: Vec<PageWrite> = pages.map(&mut put).collect();
        index
            .write_back(
                VOLUME,
                generation,
                &writes,
                Folded { to: Lsn(generation + 1), generation, ..Folded::default() },
            )
            .unwrap();
        let boundary = Boundary { generation, lsn: Lsn(generation + 1), size_bytes: 0, wall_ms: 0 };
        index.note_boundary(VOLUME, boundary).unwrap();
    };
    write(0, &mut (0..BASE_PAGES));
    for generation in 1..SNAPSHOTS {
        write(generation, &mut (0..changes).map(|n| (generation * 7919 + n * 104_729) % working_set));
    }
    index
}

/// Deletes all in this order; returns the steps that took.
fn delete_all(index: &mut Index<PlainStore>, order: impl IntoIterator<Item = u64>) -> u64 {
    let mut visits = 0;
    for generation in order {
        let mut deletion = index.begin_deletion(VOLUME, generation).unwrap().unwrap();
        while !index.delete_some(&mut deletion, 100).unwrap() {}
        visits += deletion.visits();
    }
    assert_eq!(index.boundaries(VOLUME).count(), 0);
    visits
}

/// A thousand deletions in any order take a few steps for each version that was kept, and not one for each page of the
/// volume each.
#[test]
fn a_thousand_deletions_are_linear_in_what_snapshots_have_changed() {
    let superblock = World::new(8).superblock;
    let shuffled = || {
        let mut order: Vec<u64> = (0..SNAPSHOTS).collect();
        let mut state = 1_u64;
        for at in (1..order.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(at, usize::try_from(state >> 33).unwrap() % (at + 1));
        }
        order
    };
    for (working_set, changes) in [(40, 8), (BASE_PAGES, 8)] {
        let versions = (SNAPSHOTS - 1) * changes;
        let made = || with_snapshots(&superblock, working_set, changes);
        let oldest_first = delete_all(&mut made(), 0..SNAPSHOTS);
        let newest_first = delete_all(&mut made(), (0..SNAPSHOTS).rev());
        let by_chance = delete_all(&mut made(), shuffled());
        // A few births and versions for each that is deleted, and the ends.
        let limit = 4 * versions + 3 * SNAPSHOTS;
        assert!(oldest_first <= limit, "{oldest_first} of {limit}");
        assert!(newest_first <= limit, "{newest_first} of {limit}");
        // Of two neighbours the smaller one is walked, which is less than log2 of the snapshots for each version.
        assert!(by_chance <= 2 * limit, "{by_chance} of {limit}");
        search_and_delete(made());
    }
}

/// Searches for what all boundaries hold, and deletes them, every second one first.
fn search_and_delete(mut index: Index<PlainStore>) {
    let set: BTreeSet<u64> = (0..SNAPSHOTS).collect();
    let mut search = index.reclaim(VOLUME, &set);
    while !index.reclaim_some(&mut search, 1000).unwrap() {}
    let segment = index.segments(VOLUME)[0].segment;
    let before = index.live_blocks(segment).unwrap();
    delete_all(&mut index, (0..SNAPSHOTS).step_by(2).chain((1..SNAPSHOTS).step_by(2)));
    assert_eq!(before - index.live_blocks(segment).unwrap(), search.blocks());
    let keys = |kind: u8| index.store().0.keys().filter(|key| key.first() == Some(&kind)).count() as u64;
    assert_eq!((keys(3), keys(6)), (BASE_PAGES, BASE_PAGES), "a version of each page is left");
}
