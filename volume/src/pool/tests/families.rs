//! Clones of clones under write-backs by chance: what each shows, and every count against a recount over all of them.

use super::versions::{Mapped, add_content};
use crate::error::DiskFault;
use crate::format::Operation;
use crate::io::{LoadedPage, PageIndex};
use crate::map::{Location, Page};
use crate::pool::{Index, Inheritance, LineageError, Parent, Version, Waiting};
use crate::recover::tests::world::{MemoryStore, OTHER_VOLUME, VOLUME, World, snapshot_op, trim_op, write_op};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use units::{Lsn, VolumeId};

const PAGES: u64 = 6;
const SEGMENTS_MAX: usize = 90;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Segment(usize, Vec<Operation>),
    Snapshot(usize),
    /// Clones one of the boundaries.
    Clone(usize),
    /// Writes back at most so many pages, and the store fails when told so.
    Fold(usize, usize, bool),
    /// Forgets what the cache holds of the map, so that pages come to be partial.
    Shrink(usize),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let at = (0..PAGES, 0_u64..2048).prop_map(|(page, block)| page * 2048 + block);
    let operation = prop_oneof![
        4 => (at.clone(), 1_u64..4).prop_map(|(first, count)| write_op(first, count)),
        1 => (at.clone(), 1_u64..9).prop_map(|(first, count)| trim_op(first, count)),
        1 => (at, 1_u64..9000).prop_map(|(first, count)| trim_op(first, count)),
    ];
    prop_oneof![
        5 => (0_usize..9, proptest::collection::vec(operation, 1..6)).prop_map(|(who, all)| Step::Segment(who, all)),
        3 => (0_usize..9).prop_map(Step::Snapshot),
        3 => (0_usize..99).prop_map(Step::Clone),
        8 => (0_usize..9, 1_usize..5, prop::bool::weighted(0.1)).prop_map(|(who, n, fails)| Step::Fold(who, n, fails)),
        1 => (0_usize..9).prop_map(Step::Shrink),
    ]
}

/// Volumes, and what each of their boundaries is to show.
pub(super) struct Family {
    pub(super) world: World,
    pub(super) volumes: Vec<VolumeId>,
    pub(super) ends: Vec<(Parent, Lsn)>,
}

impl Family {
    pub(super) fn new() -> Self {
        Self { world: World::new(100), volumes: vec![VOLUME], ends: Vec::new() }
    }

    fn who(&self, number: usize) -> VolumeId {
        self.volumes[number % self.volumes.len()]
    }

    fn has_room(&self) -> bool {
        self.volumes.iter().map(|volume| self.world.index.segments(*volume).len()).sum::<usize>() < SEGMENTS_MAX
    }

    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Segment(who, operations) if self.has_room() => {
                self.world.segment(self.who(who), &[&operations]);
            }
            Step::Snapshot(who) if self.has_room() => self.snapshot(self.who(who)),
            Step::Clone(which) if !self.ends.is_empty() && self.volumes.len() < 8 => {
                let (parent, lsn) = self.ends[which % self.ends.len()];
                self.clone_volume(parent, lsn);
            }
            Step::Fold(who, pages, fails) => {
                let volume = self.who(who);
                let waits = self.world.index.inheritance(volume) == Inheritance::Waits;
                self.world.index.store.fails = fails;
                assert_eq!(self.world.fold_once(volume, pages).is_err(), fails || waits);
                self.world.index.store.fails = false;
            }
            Step::Shrink(who) => self.world.author(self.who(who)).map.shrink_to(0),
            Step::Segment(..) | Step::Snapshot(_) | Step::Clone(_) => {}
        }
    }

    fn snapshot(&mut self, volume: VolumeId) {
        let generation = self.world.author(volume).map.generation();
        self.world.segment(volume, &[&[snapshot_op(generation)]]);
        let lsn = Lsn(self.world.author(volume).next_lsn.0 - 1);
        self.ends.push((Parent { volume, generation }, lsn));
    }

    fn clone_volume(&mut self, parent: Parent, lsn: Lsn) -> VolumeId {
        let clone = VolumeId(20 + self.volumes.len() as u64);
        self.world.clone_volume(clone, parent, lsn);
        self.volumes.push(clone);
        clone
    }

    /// Whatever is changed is written back, of parents first.
    pub(super) fn fold(&mut self) {
        self.volumes.clone().into_iter().for_each(|volume| drop(self.world.fold(volume)));
    }

    pub(super) fn reopen(&mut self) {
        let World { index, superblock, pool, .. } = &self.world;
        self.world.index = Index::open(index.store().clone(), superblock, pool).unwrap();
    }

    fn index(&self) -> &Index<MemoryStore> {
        &self.world.index
    }

    fn locations(&self, volume: VolumeId) -> BTreeSet<Location> {
        let mut named = BTreeSet::new();
        for page in (0..=PAGES).map(PageIndex) {
            for version in self.index().versions_of(volume, page).unwrap() {
                let mut content = Mapped::new();
                add_content(page, &version.content().unwrap(), &mut content);
                named.extend(content.values().map(|(location, _)| *location));
            }
        }
        named
    }

    /// Live counts, mapped counts, and that a parent names what its heirs name of it.
    pub(super) fn check_counts(&self) {
        let index = self.index();
        let named: BTreeMap<VolumeId, BTreeSet<Location>> =
            self.volumes.iter().map(|volume| (*volume, self.locations(*volume))).collect();
        for volume in &self.volumes {
            for row in index.segments(*volume) {
                let of_segment = |location: &&Location| location.segment == row.segment;
                let all: BTreeSet<&Location> = named.values().flatten().filter(of_segment).collect();
                assert_eq!(index.live_blocks(row.segment), Some(all.len() as u64));
                assert_eq!(named[volume].iter().filter(of_segment).count(), all.len(), "an heir names more of it");
            }
        }
    }

    fn check_shown(&self) {
        let index = self.index();
        for volume in &self.volumes {
            let author = &self.world.authors[volume];
            let expected = author.mapped_at(Lsn(author.next_lsn.0 - 1));
            assert_eq!(shown(|page| index.load_page(*volume, page)), expected);
            assert_eq!(index.mapped_blocks(*volume), expected.len() as u64);
        }
        for (Parent { volume, generation }, lsn) in &self.ends {
            let expected = self.world.authors[volume].mapped_at(*lsn);
            assert_eq!(shown(|page| index.load_page_at(*volume, page, *generation)), expected);
            if index.volume_row(*volume).is_some() {
                let row = index.boundaries(*volume).find(|row| row.boundary.generation == *generation).unwrap();
                assert_eq!(row.mapped, expected.len() as u64);
            }
        }
    }

    pub(super) fn check(&self) {
        self.check_counts();
        self.check_shown();
    }
}

/// What a map shows that is loaded page by page.
pub(super) fn shown(load: impl Fn(PageIndex) -> Result<LoadedPage, DiskFault>) -> Mapped {
    let mut out = Mapped::new();
    let mut at = PageIndex(0);
    loop {
        match load(at).unwrap() {
            LoadedPage::Present(encoded) => {
                add_content(at, &Page::decode(&encoded).unwrap(), &mut out);
                at.0 += 1;
            }
            LoadedPage::Absent { next: Some(next) } => {
                assert!(next > at);
                at = next;
            }
            LoadedPage::Absent { next: None } => return out,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// P2.
    #[test]
    fn every_clone_shows_what_it_inherits_and_what_it_wrote(steps in proptest::collection::vec(step(), 1..60)) {
        let mut family = Family::new();
        for step in steps {
            family.take(step);
            family.check_counts();
        }
        family.fold();
        family.check();
        family.reopen();
        family.check();
        // Youngest first, since none that has heirs is forgotten.
        while let Some(volume) = family.volumes.pop() {
            family.ends.retain(|(parent, _)| parent.volume != volume);
            for row in family.index().segments(volume) {
                family.world.release(&row);
            }
            family.world.index.forget_volume(volume).unwrap();
            family.check();
        }
    }
}

/// P2. A page that an heir loads before its parent has written it back would be an older one.
#[test]
fn an_heir_waits_until_its_parent_is_folded_to_the_boundary() {
    let mut family = Family::new();
    family.world.segment(VOLUME, &[&[write_op(0, 4)]]);
    family.fold();
    family.world.segment(VOLUME, &[&[write_op(2, 4)]]);
    family.snapshot(VOLUME);
    let (parent, lsn) = family.ends[0];
    let clone = family.clone_volume(parent, lsn);
    let load = |family: &Family| family.index().load_page(clone, PageIndex(0));
    assert_eq!(family.index().inheritance(clone), Inheritance::Waits);
    assert_eq!(load(&family), Err(DiskFault::Io));
    let mut waiting = Waiting::default();
    assert_eq!(waiting.ask(family.index(), VOLUME, 1), Some(1));
    assert_eq!(waiting.ask(family.index(), clone, 2), None);
    assert_eq!(waiting.take_ready(family.index()), []);
    family.fold();
    assert_eq!(family.index().inheritance(clone), Inheritance::Ready);
    assert_eq!(waiting.ask(family.index(), clone, 3), None, "behind the one that waits");
    assert_eq!(waiting.take_ready(family.index()), [2, 3]);
    assert_eq!(waiting.ask(family.index(), clone, 4), Some(4));
    family.check();
}

#[test]
fn what_waits_is_answered_when_its_parent_fails_or_takes_too_long() {
    let mut family = Family::new();
    family.snapshot(VOLUME);
    let (parent, lsn) = family.ends[0];
    let clones = [(); 2].map(|()| family.clone_volume(parent, lsn));
    let mut waiting = Waiting::default();
    for (clone, question) in clones.iter().zip([1, 2]) {
        assert_eq!(waiting.ask(family.index(), *clone, question), None);
    }
    assert_eq!(waiting.take_failed(family.index(), OTHER_VOLUME), []);
    assert_eq!(waiting.take_failed(family.index(), VOLUME), [1, 2]);
    assert_eq!(waiting.ask(family.index(), clones[0], 3), None);
    let rounds = (0..100).take_while(|_| waiting.take_overdue().is_empty()).count();
    assert!((1..100).contains(&rounds) && waiting.is_empty());
}

#[test]
fn a_family_is_what_the_catalogue_says() {
    let mut family = Family::new();
    family.snapshot(VOLUME);
    let (parent, lsn) = family.ends[0];
    let note = |family: &mut Family, heir, parent| family.world.index.note_parent(VolumeId(heir), parent);
    assert_eq!(note(&mut family, 3, parent), Err(LineageError::Order));
    let other = Parent { generation: 9, ..parent };
    assert_eq!(note(&mut family, 90, other), Err(LineageError::NoBoundary));
    let clone = family.clone_volume(parent, lsn);
    assert_eq!(note(&mut family, clone.0, other), Err(LineageError::Order));
    assert_eq!(note(&mut family, clone.0, parent), Ok(()), "it is known");
    assert!(family.index().has_heirs(VOLUME) && family.world.index.forget_volume(VOLUME).is_err());
    // A view that was open when the process ended is no heir any more, and a clone whose row was lost is one.
    let view = VolumeId(91);
    note(&mut family, view.0, parent).unwrap();
    assert_eq!(family.index().heirs(parent).collect::<Vec<_>>(), [clone, view]);
    let told = BTreeMap::from([(clone, parent), (VolumeId(95), other), (VolumeId(2), parent)]);
    family.world.index.note_families(&told).unwrap();
    family.reopen();
    let known: Vec<_> = family.index().families().collect();
    assert_eq!(known, [(clone, parent), (VolumeId(95), other)]);
    assert_eq!(family.index().inheritance(VolumeId(95)), Inheritance::Lost);
    family.world.index.forget_parent(clone).unwrap();
    assert_eq!(family.index().parent(clone), None);
}

/// A look-up goes by one seek whatever the depth.
#[test]
fn a_chain_of_clones_is_looked_up_by_as_many_seeks_as_one_clone() {
    let mut family = Family::new();
    family.world.segment(VOLUME, &[&[write_op(0, 1), write_op(2048 * 5, 1)]]);
    let mut tip = VOLUME;
    for depth in 0..50 {
        family.snapshot(tip);
        let (parent, lsn) = *family.ends.last().unwrap();
        tip = family.clone_volume(parent, lsn);
        if depth == 25 {
            family.world.segment(tip, &[&[write_op(2048 * 3, 1)]]);
        }
    }
    family.fold();
    family.check();
    let seeks = |volume, page| {
        let before = family.index().store().seeks.get();
        family.index().load_page(volume, PageIndex(page)).unwrap();
        family.index().store().seeks.get() - before
    };
    let first = family.volumes[1];
    for page in [0, 1, 3, 4, 5] {
        seeks(tip, page);
        assert!(seeks(tip, page) <= 2 && seeks(first, page) <= 2);
    }
}

/// What is counted of versions that no look-up shows any more is what `versions` tells.
#[test]
fn versions_of_an_heir_are_its_own() {
    let mut family = Family::new();
    family.world.segment(VOLUME, &[&[write_op(0, 1)]]);
    family.snapshot(VOLUME);
    let (parent, lsn) = family.ends[0];
    let clone = family.clone_volume(parent, lsn);
    family.fold();
    let own = |family: &Family| -> Vec<Version> { family.index().versions_of(clone, PageIndex(0)).unwrap() };
    assert!(own(&family).is_empty());
    family.world.segment(clone, &[&[trim_op(0, 1)]]);
    family.fold();
    assert!(own(&family)[0].content().unwrap().is_empty(), "it hides what is inherited");
    family.check();
}
