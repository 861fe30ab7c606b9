//! Segments of which so much is left that two do not fit into a pack: they are cut into parts.

use super::*;
use crate::format::Cut;
use crate::pool::LeaseClass;

/// Slots of 256 blocks.
const SLOT_BYTES: u64 = 1 << 20;

/// A segment of random writes, in the stored map.
fn overwrite(world: &mut World, chance: &mut Chance, blocks: u64) {
    random_segment(world, || write_op(chance.below(blocks), 1));
}

/// A volume of so many percent of the pool, filled in order; and its blocks.
pub(super) fn filled(slots: u32, percent: u64) -> (World, u64) {
    let mut world = World::with_slots(SLOT_BYTES, slots);
    let blocks = u64::from(slots) * 256 * percent / 100;
    let mut first = 0;
    while first < blocks {
        let count = (blocks - first).min(220);
        world.segment(VOLUME, &[&[write_op(first, count)]]);
        first += count;
    }
    world.fold(VOLUME);
    (world, blocks)
}

/// A volume that was filled in order and then overwritten here and there, until few slots are free.
fn overwritten(slots: u32) -> Disk {
    let (mut world, blocks) = filled(slots, 45);
    let mut chance = Chance(7);
    while world.index.figures().slots_free > 5 {
        overwrite(&mut world, &mut chance, blocks);
    }
    world.index.make_durable().unwrap();
    Disk::of(world)
}

/// P6. A pool of which over half is live takes overwrites without end, though no two of its segments fit into one pack.
#[test]
fn a_pool_that_is_mostly_live_takes_overwrites_without_end() {
    let (world, blocks) = filled(60, 52);
    let mut disk = Disk::of(world);
    let mut chance = Chance(1);
    for round in 0..80 {
        assert!(disk.world.index.figures().slots_free > 4, "after {round} segments: {:?}", disk.compactor.figures());
        overwrite(&mut disk.world, &mut chance, blocks);
        disk.settle();
        disk.run();
    }
    let parcels = disk.world.index.segments(VOLUME).into_iter().filter_map(|row| row.home.parcels().copied());
    let is_apart =
        |parcels: &crate::pool::Parcels| parcels.places().map(|place| place.pack).collect::<BTreeSet<_>>().len() > 1;
    assert!(parcels.filter(is_apart).count() > 5, "parts of one are in several packs");
    assert_eq!((disk.compactor.figures().rounds_given_up, disk.compactor.figures().suspects), (0, 0));
    disk.is_clean();
}

/// P1, P2. Wherever a stop comes while parts of segments go to several packs, all is there, by the index and without it, and
/// the next start goes on.
#[test]
fn wherever_a_stop_comes_every_part_is_there_once() {
    let mut stops = 0;
    for steps in (0..).step_by(3) {
        let mut disk = overwritten(24);
        let free = disk.world.index.figures().slots_free;
        disk.act(Compactor::tick);
        let goes_on = (0..steps).all(|_| disk.step());
        disk.world.crash(0);
        let options = CheckOptions { verify_data: true };
        let report = check(&disk.world.index, &disk.world.pool, options);
        assert!(report.is_clean(), "after {steps} steps: {:#?}", report.problems);
        let World { superblock, pool, .. } = &mut disk.world;
        let sound = pool.bytes.clone();
        let (rebuilt, report) = rebuild(MemoryStore::default(), superblock, pool).unwrap();
        assert!(report.damaged.is_empty() && report.notes.is_empty(), "after {steps} steps: {report:#?}");
        report.mends.iter().for_each(|(offset, bytes)| pool.write(*offset, bytes));
        let index = std::mem::replace(&mut disk.world.index, rebuilt);
        disk.is_clean();
        (disk.world.index, disk.world.pool.bytes) = (index, sound);
        let mut disk = Disk::of(disk.world);
        disk.run();
        assert!(disk.world.index.figures().slots_free > free, "after {steps} steps: {:?}", disk.compactor.figures());
        assert!(disk.world.index.left_places().next().is_none());
        disk.is_clean();
        stops += 1;
        if !goes_on {
            break;
        }
    }
    assert!(stops > 20, "{stops} stops");
}

/// A pool whose volume has segments of which each is in several parcels, and nothing is under way.
fn moved_in_parts() -> Disk {
    let mut disk = overwritten(24);
    disk.run();
    disk.world.index.make_durable().unwrap();
    disk
}

/// Takes what a rebuild makes of the pool, and goes on with that as a start does.
fn rebuilt(mut world: World) -> (Disk, crate::rebuild::RebuildReport) {
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    report.mends.iter().for_each(|(offset, bytes)| world.pool.write(*offset, bytes));
    world.index = index;
    if report.damaged.is_empty() {
        let recovered = world.recover(VOLUME).unwrap();
        world.mend(&recovered);
        world.author(VOLUME).map = recovered.map;
        world.fold(VOLUME);
    }
    (Disk::of(world), report)
}

/// P5, P6. A trunk that has rotted is never missing in silence: what it trimmed would come back.
#[test]
fn a_segment_that_lost_its_trunk_is_damaged() {
    let mut disk = moved_in_parts();
    let rows = disk.world.index.segments(VOLUME);
    let is_apart = |row: &&SegmentRow| row.home.parcels().is_some_and(|parcels| parcels.places().count() > 1);
    let trunk = rows.iter().find(is_apart).unwrap().home.parcels().unwrap().of(0).unwrap();
    for block in trunk.headers() {
        disk.world.zero(trunk.slot, block..block + trunk.header_blocks);
    }
    let (disk, report) = rebuilt(disk.world);
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    is_erased(disk);
}

fn is_erased(mut disk: Disk) {
    disk.act(|compactor, context| compactor.erase(context, VOLUME));
    disk.run();
    assert_eq!(disk.world.index.segments(VOLUME), []);
}

/// P6. A volume of which a part is nowhere is damaged, and can be erased all the same.
#[test]
fn a_volume_of_which_a_part_is_nowhere_can_be_erased() {
    let (mut world, row) = World::cut_in_two();
    let (leases, _) = world.write_packs(&[row.segment], 2);
    // The stop came before the second pack, and the segment's own slot has rotted.
    world.zero(leases[1].slot, 0..32);
    [1, 30, 31].iter().for_each(|block| world.rot(row.a_slot(), *block));
    let (disk, report) = rebuilt(world);
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    is_erased(disk);
}

/// P6. The store's thread does not wait for the disk once for each segment that dies.
#[test]
fn segments_that_die_together_cost_few_durable_commits() {
    let mut disk = moved_in_parts();
    disk.world.segment(VOLUME, &[&[trim_op(0, 1 << 20)]]);
    disk.world.fold(VOLUME);
    disk.settle();
    let dead = disk.world.index.dead_segments(VOLUME);
    let in_parts = dead.iter().filter(|row| row.home.each_parcel().count() > 1).count();
    assert!(in_parts > 5, "{in_parts}");
    let before = disk.world.index.store().durable_commits;
    disk.act(|compactor, context| compactor.look_at(context, VOLUME));
    let commits = disk.world.index.store().durable_commits - before;
    assert!(commits <= 2, "{commits} durable commits for {in_parts} segments");
}

/// P6. A trim that finds no slot while a round has them all waits for them, when the round is given up, too.
#[test]
fn slots_of_a_round_that_is_given_up_are_worth_waiting_for() {
    let mut disk = overwritten(40);
    let free = disk.world.index.figures().slots_free;
    disk.act(Compactor::tick);
    while !disk.actions.iter().any(|action| matches!(action, Action::Sync { .. })) && disk.step() {}
    assert!(disk.compactor.packs_under_way() > 0);
    disk.act(|compactor, context| compactor.closed(context, VOLUME));
    while disk.compactor.packs_under_way() > 0 {
        assert!(disk.compactor.is_freeing(&disk.world.index), "{} packs", disk.compactor.packs_under_way());
        assert!(disk.step());
    }
    assert_eq!((disk.world.index.figures().slots_free, disk.compactor.figures().rounds_given_up), (free, 1));
}

/// P1. A commit that fails, and came through all the same, is taken back when a round ends that wrote no pack.
#[test]
fn a_round_without_packs_takes_its_commit_back() {
    let (mut world, row) = World::cut_in_two();
    world.pack_apart(&[row.segment]);
    world.void_left();
    // All but the first block: the second part is dead.
    world.segment(VOLUME, &[&[write_op(1, 19)]]);
    world.segment(VOLUME, &[&[write_op(100, 1)]]);
    world.fold(VOLUME);
    let mut disk = Disk::of(world);
    disk.world.index.store_mut().fails_late = true;
    disk.act(Compactor::tick);
    while disk.step() {}
    disk.world.index.store_mut().fails_late = false;
    assert!(disk.compactor.is_moving(), "the commit is asked for again");
    disk.act(|compactor, context| compactor.closed(context, VOLUME));
    disk.act(Compactor::tick);
    while disk.step() {}
    assert!(!disk.compactor.is_moving());
    let World { index, superblock, pool, .. } = &disk.world;
    let again = Index::open(index.store().clone(), superblock, pool).unwrap();
    assert_eq!(again.segments(VOLUME), index.segments(VOLUME));
    assert!(again.left_places().eq(index.left_places()));
}

impl Disk {
    /// Compacts as a driver may: a turn is taken as soon as one is wanted, whatever is under way on the disk.
    fn run_eagerly(&mut self) {
        for _ in 0..8 {
            self.act(Compactor::tick);
            loop {
                if self.compactor.wants_turn(&self.world.index) {
                    self.act(Compactor::turn);
                } else if self.actions.is_empty() || !self.step() {
                    break;
                }
            }
        }
    }

    /// Slots that would be compacted now.
    fn worth_moving(&self) -> usize {
        let index = &self.world.index;
        let is_out = |segment| self.compactor.resting.contains(&segment) || self.compactor.giving.has(segment);
        let victims = choose::victims(index, is_out, &self.compactor.found);
        choose::pick(victims, Need::of(index), 256).len()
    }
}

/// P6. Slots that come back let a round begin for which there were too few: compaction ends where nothing can be gained.
#[test]
fn it_does_not_rest_while_there_is_something_to_gain() {
    for (slots, percent) in [(24, 48), (40, 60), (60, 56)] {
        let (world, blocks) = filled(slots, percent);
        let mut disk = Disk::of(world);
        let mut chance = Chance(1);
        for round in 0..12 {
            while disk.world.index.figures().slots_free > 4 {
                overwrite(&mut disk.world, &mut chance, blocks);
            }
            disk.settle();
            disk.run_eagerly();
            let (need, count) = (Need::of(&disk.world.index), disk.worth_moving());
            assert!(count == 0 || !need.is_short(), "{slots} slots, {percent} %, round {round}: {count} of {need:?}");
        }
    }
}

/// P6. What trims take while a round reads is not missed later: it has all its slots before it writes, or becomes smaller.
#[test]
fn trims_take_no_slot_that_a_round_has_begun_to_fill() {
    for thefts in 0..=2 {
        let (world, blocks) = filled(40, 60);
        let mut disk = Disk::of(world);
        let mut chance = Chance(1);
        while disk.world.index.figures().slots_free > 4 {
            overwrite(&mut disk.world, &mut chance, blocks);
        }
        disk.settle();
        disk.act(Compactor::tick);
        while disk.compactor.packs_under_way() == 0 && disk.step() {}
        let stolen: Vec<_> = (0..thefts).map(|_| disk.world.index.lease(LeaseClass::Reserve)).collect();
        assert!(stolen.iter().all(Result::is_ok));
        disk.run_eagerly();
        let free = disk.world.index.figures().slots_free;
        let figures = disk.compactor.figures();
        assert!(free > 4 && figures.packs_written > 0, "{thefts} taken, {free} free: {figures:?}");
        disk.is_clean();
    }
}

/// P1. What a stop left of a round that cut a segment in another way is no place of it, even where it is there to be found.
#[test]
fn parcels_of_an_older_cut_are_not_taken_for_a_segment() {
    let (mut world, row) = World::cut_in_two();
    // A power cut ended the round: of its two packs only the one with the trunk is there.
    world.cut = Cut::of_log2(2).unwrap();
    let (leases, _) = world.write_packs(&[row.segment], 2);
    world.zero(leases[1].slot, 0..32);
    world.segment(VOLUME, &[&[write_op(0, 8)]]);
    world.segment(VOLUME, &[&[write_op(100, 1)]]);
    world.fold(VOLUME);
    world.cut = Cut::of_log2(1).unwrap();
    world.pack_apart(&[row.segment]);
    world.void_left();
    let (disk, report) = rebuilt(world);
    assert_eq!((report.damaged.len(), report.notes.len()), (0, 0), "{report:?}");
    assert_eq!(disk.world.index.segment(row.segment).unwrap().home.parcels().unwrap().cut, Cut::of_log2(1).unwrap());
    disk.is_clean();
}

/// P1. While the disk refuses to make a pack void that a stop left behind, nothing moves that it may tell of.
#[test]
fn nothing_moves_before_packs_of_a_former_life_are_void() {
    let mut disk = overwritten(24);
    disk.act(Compactor::tick);
    while !disk.actions.iter().any(|action| matches!(action, Action::Sync { .. })) && disk.step() {}
    disk.world.crash(usize::MAX);
    let World { index, superblock, pool, .. } = &disk.world;
    disk.world.index = Index::open(index.store().clone(), superblock, pool).unwrap();
    let slots: Vec<_> = disk.world.index.empty_packs().iter().map(|(_, slot)| *slot).collect();
    assert!(!slots.is_empty());
    let geometry = disk.world.superblock.geometry;
    let headers: Vec<u64> =
        slots.iter().flat_map(|slot| [0, 255].map(|block| geometry.block_offset(*slot, block))).collect();
    (disk.compactor, disk.actions) = (Compactor::default(), Vec::new());
    disk.settle();
    disk.act(Compactor::open);
    for is_refused in [true, false] {
        for _ in 0..4 {
            disk.act(Compactor::tick);
            loop {
                let refused = disk.actions.iter().position(
                    |action| matches!(action, Action::Append { pool_offset, .. } if headers.contains(pool_offset)),
                );
                match refused.filter(|_| is_refused).map(|at| disk.actions.remove(at)) {
                    Some(Action::Append { id, buffers, .. }) => {
                        let event = Event::Appended { id, buffers, result: Err(DiskFault::Io) };
                        disk.act(|compactor, context| compactor.handle(context, event));
                    }
                    _ if disk.step() => {}
                    _ => break,
                }
            }
        }
        assert_eq!(disk.compactor.figures().segments_moved == 0, is_refused);
    }
    disk.is_clean();
}
