//! Survivors against every block of every stored version of every volume.

use super::*;
use crate::format::{Cut, PartSet};
use crate::format::{Operation, Parcel, ParcelHeader, decode_parcel_start, encode_parcel};
use crate::map::{Change, Location};
use proptest::prelude::*;
use units::{Epoch, Lsn, PoolId};

const SLOT_BLOCKS: u32 = 96;
const PARENT: VolumeId = VolumeId(3);
const CLONE: VolumeId = VolumeId(9);
const VOLUMES: [VolumeId; 2] = [PARENT, CLONE];

/// Where each block of a volume is, at one point of its log.
type Blocks = BTreeMap<u64, (SegmentId, u32)>;

fn check_of(segment: SegmentId, block: u32) -> u32 {
    u32::try_from(segment.0).unwrap() << 16 | block
}

fn page_of(blocks: &Blocks, page: PageIndex) -> Page {
    let mut stored = Page::empty(false);
    let start = page.0 * u64::from(PAGE_BLOCKS);
    for (target, (segment, block)) in blocks.range(start..start + u64::from(PAGE_BLOCKS)) {
        let location = Location { segment: *segment, block: u16::try_from(*block).unwrap() };
        let checks = check_of(*segment, *block).to_le_bytes();
        stored.change(u32::try_from(target - start).unwrap(), 1, Change::Data { location, checks: &checks });
    }
    stored
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Write {
        clone: bool,
        first: u64,
        count: u64,
    },
    Trim {
        clone: bool,
        first: u64,
        count: u64,
    },
    /// What is there now stays as a version.
    Snapshot {
        clone: bool,
    },
    /// The oldest version goes; of the parent also what the clone was made of, so that the clone's pages alone name it.
    Delete {
        clone: bool,
    },
    /// The clone becomes what the parent is now.
    Clone,
}

#[derive(Debug, Clone, Default)]
struct Log {
    entries: Vec<ParcelEntry>,
    checks: Vec<u32>,
}

#[derive(Debug, Default)]
struct Volume {
    now: Blocks,
    versions: Vec<Blocks>,
    /// What the clone was made of.
    cloned: Option<Blocks>,
    open: Option<(SegmentId, u32)>,
    next_lsn: u64,
}

#[derive(Debug, Default)]
struct World {
    volumes: [Volume; 2],
    logs: BTreeMap<SegmentId, (VolumeId, Log)>,
}

impl World {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Write { clone, first, count } => self.append(usize::from(clone), OperationKind::Write, first, count),
            Step::Trim { clone, first, count } => self.append(usize::from(clone), OperationKind::Trim, first, count),
            Step::Snapshot { clone } => {
                let volume = &mut self.volumes[usize::from(clone)];
                volume.versions.push(volume.now.clone());
            }
            Step::Delete { clone } => {
                let volume = &mut self.volumes[usize::from(clone)];
                volume.versions.drain(..volume.versions.len().min(1));
                volume.cloned = None;
            }
            Step::Clone => {
                let [parent, clone] = &mut self.volumes;
                parent.cloned = Some(parent.now.clone());
                clone.versions.clear();
                clone.now.clone_from(&parent.now);
            }
        }
    }

    fn append(&mut self, who: usize, kind: OperationKind, first: u64, count: u64) {
        let new_id = SegmentId(self.logs.len() as u64 + 1);
        let volume = &mut self.volumes[who];
        // A header of a block before each payload, as batches have.
        let (segment, at) = volume.open.filter(|(_, at)| at + 21 <= SLOT_BLOCKS).unwrap_or((new_id, 1));
        let (_, log) = self.logs.entry(segment).or_insert_with(|| (VOLUMES[who], Log::default()));
        volume.next_lsn += 1;
        let operation = Operation { kind, range: BlockRange::new(BlockIndex(first), count) };
        let is_write = kind == OperationKind::Write;
        let block = if is_write { at + 1 } else { 0 };
        log.entries.push(ParcelEntry { lsn: Lsn(volume.next_lsn), operation, block });
        for (target, block) in operation.range.blocks().zip(block..) {
            volume.now.remove(&target.0);
            if is_write {
                volume.now.insert(target.0, (segment, block));
                log.checks.push(check_of(segment, block));
            }
        }
        volume.open = Some((segment, at + 1 + operation.payload_blocks()));
    }

    fn stored(&self, who: usize) -> impl Iterator<Item = &Blocks> {
        let volume = &self.volumes[who];
        volume.versions.iter().chain(&volume.cloned).chain([&volume.now])
    }

    fn survivors_of(&self, segment: SegmentId) -> BTreeSet<u32> {
        let named = (0..2).flat_map(|who| self.stored(who)).flat_map(BTreeMap::values);
        named.filter(|(named, _)| *named == segment).map(|(_, block)| *block).collect()
    }

    /// A search for the survivors of those segments whose ids are multiples of `step`.
    fn search(&self, step: u64) -> Search {
        let mut search = Search::new(SLOT_BLOCKS);
        for (segment, (volume, log)) in self.logs.iter().filter(|(segment, _)| segment.0.is_multiple_of(step)) {
            search.add((*volume, *segment), (Cut::WHOLE, PartSet::ALL), &log.entries);
        }
        search
    }

    /// Every stored version of a page that `volume` may be asked for. The clone may name segments of its parent, not the
    /// other way round.
    fn visit(&self, volume: VolumeId, page: PageIndex, visit: &mut dyn FnMut(&Page)) {
        let who = if volume == PARENT { 0..2 } else { 1..2 };
        who.flat_map(|who| self.stored(who)).for_each(|blocks| visit(&page_of(blocks, page)));
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // About the borders of pages, close together, so that much is overwritten.
    let first = (prop::sample::select(vec![0_u64, 2030, 4080]), 0_u64..40).prop_map(|(near, by)| near + by);
    let step = (0_u8..20, any::<bool>(), first, 1_u64..21).prop_map(|(kind, clone, first, count)| match kind {
        0 => Step::Snapshot { clone },
        1 => Step::Delete { clone },
        2 => Step::Clone,
        3..6 => Step::Trim { clone, first, count },
        _ => Step::Write { clone, first, count },
    });
    prop::collection::vec(step, 1..120)
}

fn parcel_of(segment: SegmentId, volume: VolumeId, log: &Log, left: (Vec<ParcelEntry>, Vec<u32>)) -> Parcel {
    let last_lsn = log.entries.last().unwrap().lsn;
    let header = ParcelHeader {
        part: 0,
        cut: Cut::WHOLE,
        parts: PartSet::TRUNK,
        block: 1,
        copy: 60_000,
        parcels: 1,
        pool: PoolId([1; 16]),
        pack: SegmentId(1 << 30),
        segment,
        volume,
        epoch: Epoch(0),
        first_lsn: log.entries[0].lsn,
        last_lsn,
        size_bytes: 1 << 30,
        clean_lsn: last_lsn,
        chain_before: 0,
        chain_after: 0,
        moves: 1,
    };
    Parcel { header, entries: left.0, checks: left.1 }
}

/// The blocks of the slot that entries hold, with the blocks of the volume that they were written for.
fn held(entries: &[ParcelEntry]) -> BTreeMap<u32, u64> {
    let writes = entries.iter().filter(|entry| entry.operation.kind == OperationKind::Write);
    writes.flat_map(|e| (e.block..).zip(e.operation.range.blocks().map(|target| target.0))).collect()
}

proptest! {
    /// P2.
    #[test]
    fn what_any_stored_version_names_survives_and_nothing_else(
        steps in steps(),
        pages_max in 1_usize..9,
        step in 1_u64..5,
    ) {
        let mut world = World::default();
        steps.into_iter().for_each(|step| world.apply(step));
        let mut search = world.search(step);
        let mut looked_at = BTreeSet::new();
        while !search
            .step(pages_max, |volume, page, visit| {
                assert!(looked_at.insert((volume, page)), "each page once");
                world.visit(volume, page, visit);
                Ok(())
            })
            .unwrap()
        {}
        for (segment, outcome) in search.finish() {
            let (volume, log) = &world.logs[&segment];
            let expected = world.survivors_of(segment);
            let Outcome { survivors, is_suspect } = outcome;
            prop_assert!(!is_suspect);
            let found: BTreeSet<u32> = (0..SLOT_BLOCKS + 70).filter(|block| survivors.contains(*block)).collect();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(survivors.count() as usize, expected.len());
            let rank = |block| survivors.rank_of_run(0..SLOT_BLOCKS, (block, 1));
            let ranks = (0..SLOT_BLOCKS + 70).filter_map(rank);
            prop_assert!(ranks.eq(0..survivors.count()));
            prop_assert_eq!(&Survivors::of_words(SLOT_BLOCKS, survivors.words().to_vec()), &survivors);
            for (first, count) in (0..SLOT_BLOCKS).flat_map(|first| (0..5).map(move |count| (first, count))) {
                let is_run = count > 0 && (first..first + count).all(|block| expected.contains(&block));
                let rank = rank(first).filter(|_| is_run);
                prop_assert_eq!(survivors.rank_of_run(0..SLOT_BLOCKS, (first, count)), rank);
            }

            let lent = Survivors::none(SLOT_BLOCKS);
            let (left, checks) = left_of(&log.entries, &log.checks, (&survivors, &lent), |entry| entry.lsn.0 % 2 == 0);
            let mut all = held(&log.entries);
            all.retain(|block, _| expected.contains(block));
            prop_assert_eq!(held(&left), all);
            let right_checks: Vec<u32> = expected.iter().map(|block| check_of(segment, *block)).collect();
            prop_assert_eq!(&checks, &right_checks);
            let is_kept = |entry: &&ParcelEntry| entry.operation.kind == OperationKind::Trim;
            let kept: Vec<_> = left.iter().filter(is_kept).collect();
            let trims = log.entries.iter().filter(is_kept).filter(|entry| entry.lsn.0 % 2 == 0);
            prop_assert!(kept.into_iter().eq(trims));
            // What is left of what is left, with one survivor less, is of the same making.
            let mut fewer = Survivors::none(SLOT_BLOCKS);
            expected.iter().skip(1).for_each(|block| fewer.insert(*block));
            prop_assert!(fewer.is_within(&survivors));
            prop_assert_eq!(survivors.is_within(&fewer), expected.is_empty());
            let again = left_of(&left, &checks, (&fewer, &lent), |_| true);
            prop_assert_eq!(&again, &left_of(&log.entries, &log.checks, (&fewer, &lent), |entry| entry.lsn.0 % 2 == 0));
            for left in [(left, checks), again] {
                let parcel = parcel_of(segment, *volume, log, left);
                let bytes = encode_parcel(&parcel);
                prop_assert_eq!(decode_parcel_start(&bytes).unwrap().with_index(&bytes), Ok(parcel));
            }
        }
    }
}

fn one_write() -> World {
    let mut world = World::default();
    world.apply(Step::Write { clone: false, first: 5, count: 2 });
    world
}

fn outcome_with(world: &World, page: &Page) -> Outcome {
    let mut search = world.search(1);
    let is_done = search.step(10, |_, _, visit| {
        visit(page);
        Ok(())
    });
    assert_eq!(is_done, Ok(true));
    search.finish().remove(&SegmentId(1)).unwrap()
}

/// P2.
#[test]
fn what_only_a_clone_names_survives() {
    let mut world = one_write();
    world.apply(Step::Clone);
    world.apply(Step::Write { clone: false, first: 5, count: 2 });
    world.apply(Step::Delete { clone: false });
    let mut search = world.search(1);
    let looked = search.step(10, |volume, page, visit| {
        world.visit(volume, page, visit);
        Ok(())
    });
    assert_eq!(looked, Ok(true));
    let survivors = search.finish().remove(&SegmentId(1)).unwrap().survivors;
    assert_eq!((0..SLOT_BLOCKS).filter(|block| survivors.contains(*block)).collect::<Vec<_>>(), [2, 3, 5, 6]);
}

/// P2.
#[test]
fn a_segment_of_which_a_page_names_what_it_cannot_hold_is_suspect() {
    let world = one_write();
    let named = |target: u64, block: u32| {
        outcome_with(&world, &page_of(&Blocks::from([(target, (SegmentId(1), block))]), PageIndex(0)))
    };
    assert!(!named(6, 3).is_suspect);
    assert!(named(6, 2).is_suspect, "written for another block of the volume");
    assert!(named(6, 4).is_suspect, "nothing was written there");
    assert!(named(6, 1000).is_suspect, "beyond the slot");
    let mut twice = world.logs[&SegmentId(1)].1.entries.clone();
    twice.extend(twice.clone());
    let mut search = Search::new(SLOT_BLOCKS);
    search.add((PARENT, SegmentId(1)), (Cut::WHOLE, PartSet::ALL), &twice);
    assert_eq!(search.step(10, |_, _, _| Ok(())), Ok(true));
    assert!(search.finish()[&SegmentId(1)].is_suspect, "two writes in one block");
}

#[test]
fn a_page_that_could_not_be_read_is_asked_for_again() {
    let world = one_write();
    let mut search = world.search(1);
    assert_eq!(search.step(10, |_, _, _| Err(DiskFault::Io)), Err(DiskFault::Io));
    let found = search.step(10, |_, page, visit| {
        visit(&page_of(&world.volumes[0].now, page));
        Ok(())
    });
    assert_eq!(found, Ok(true));
    assert_eq!(search.finish()[&SegmentId(1)].survivors.count(), 2);
}
