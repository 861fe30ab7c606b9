//! The compactor, driven by hand. The order of what it does under faults in quantity is the simulator's work.

mod copies;
mod former_life;
mod parts;
mod stops;

use super::*;
use crate::check::{CheckOptions, check};
use crate::format::Operation;
use crate::pool::{Home, ParcelPlace, Parent, SegmentRow, Settled};
use crate::rebuild::rebuild;
use crate::recover::tests::world::{MemoryStore, OTHER_VOLUME, VOLUME, World, snapshot_op, trim_op, write_op};
use crate::recover::walk_pack;
use crate::store::PoolReader;

/// Chance, from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most.max(1)
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

/// A segment of operations as they are drawn, 200 of them in five batches, in the stored map.
fn random_segment(world: &mut World, mut draw: impl FnMut() -> Operation) {
    let batches: Vec<Vec<Operation>> = (0..5).map(|_| (0..40).map(|_| draw()).collect()).collect();
    let batches: Vec<&[Operation]> = batches.iter().map(Vec::as_slice).collect();
    world.segment(VOLUME, &batches);
    world.fold(VOLUME);
}

/// A compactor, and a disk that answers when it is told to.
struct Driver {
    world: World,
    compactor: Compactor,
    actions: Vec<Action>,
    freed: u32,
}

impl Driver {
    /// A volume with so many dead segments, which no read uses, and the newest.
    fn with_dead(count: usize) -> Self {
        let mut world = World::new(16);
        for _ in 0..=count {
            world.segment(VOLUME, &[&[write_op(0, 1)]]);
        }
        let dead = world.fold(VOLUME);
        assert_eq!(dead.len(), count);
        let mut driver = Self { world, compactor: Compactor::default(), actions: Vec::new(), freed: 0 };
        driver.act(|compactor, context| compactor.look_at(context, VOLUME));
        assert!(driver.is_freeing(), "it waits for reads");
        for segment in dead {
            driver.act(|compactor, context| compactor.unpinned(context, VOLUME, segment));
        }
        driver
    }

    fn act(&mut self, act: impl FnOnce(&mut Compactor, &mut Context<'_, MemoryStore>)) {
        let mut news = Vec::new();
        let index = &mut self.world.index;
        act(&mut self.compactor, &mut Context { index, actions: &mut self.actions, news: &mut news });
        self.freed += news.iter().map(|news| u32::from(matches!(news, News::Freed))).sum::<u32>();
    }

    /// Ends what is under way, and not what follows from that.
    fn end(&mut self, result: Result<(), DiskFault>) {
        for action in std::mem::take(&mut self.actions) {
            let event = if let Action::Append { id, buffers, .. } = action {
                Event::Appended { id, buffers, result }
            } else if let Action::Sync { id } = action {
                Event::Synced { id, result }
            } else {
                panic!("the compactor wants {action:?}")
            };
            self.act(|compactor, context| compactor.handle(context, event));
        }
        self.take_turns();
    }

    fn is_freeing(&self) -> bool {
        self.compactor.is_freeing(&self.world.index)
    }

    fn is_idle(&self) -> bool {
        self.compactor.is_idle(&self.world.index)
    }

    fn tick(&mut self) {
        self.act(Compactor::tick);
        self.take_turns();
    }

    fn take_turns(&mut self) {
        while self.compactor.wants_turn(&self.world.index) {
            self.act(Compactor::turn);
        }
    }

    fn segments(&self) -> usize {
        self.world.index.segments(VOLUME).len()
    }
}

#[test]
fn dead_segments_leave_once_their_void_headers_are_durable() {
    let mut driver = Driver::with_dead(3);
    while driver.is_freeing() {
        driver.end(Ok(()));
    }
    assert!(driver.is_idle() && !driver.compactor.giving.waits_for_tick);
    assert_eq!((driver.segments(), driver.world.index.figures().slots_free), (1, 15));
}

/// P6. Headers that the disk refuses are tried again, and are no space that a full pool could wait for.
#[test]
fn headers_that_the_disk_refuses_are_nothing_to_wait_for() {
    let mut driver = Driver::with_dead(2);
    driver.end(Err(DiskFault::Io));
    assert_eq!(driver.compactor.giving.refused.len(), 1);
    driver.end(Ok(()));
    assert!(!driver.is_freeing() && driver.compactor.giving.waits_for_tick, "the next try comes with a tick");
    driver.tick();
    assert!(driver.is_freeing(), "of the two, one was not tried before");
    driver.end(Err(DiskFault::NoSpace));
    assert!(!driver.is_freeing() && !driver.is_idle());
    driver.end(Ok(()));
    driver.tick();
    assert!(!driver.is_freeing() && !driver.is_idle());
    driver.end(Ok(()));
    assert!(driver.is_freeing(), "the disk took the headers");
    driver.end(Ok(()));
    assert_eq!(driver.segments(), 1);
    assert!(driver.freed > 0 && driver.is_idle());
}

/// P1, P6. After a failed sync nothing is given back, and nothing is waited for.
#[test]
fn a_failed_sync_ends_all_giving_back() {
    let mut driver = Driver::with_dead(2);
    driver.end(Ok(()));
    driver.end(Err(DiskFault::Io));
    assert!(!driver.is_freeing());
    driver.tick();
    driver.end(Ok(()));
    assert_eq!((driver.segments(), driver.actions.len()), (3, 0));
}

type Act<'a> = Box<dyn FnOnce(&mut Compactor, &mut Context<'_, MemoryStore>) + 'a>;

/// A compactor on a disk that works, but for what a test does to it.
struct Disk {
    world: World,
    compactor: Compactor,
    actions: Vec<Action>,
    /// Volumes that answer at once what they are told.
    is_answering: bool,
    /// Writes so many appends, then loses the others.
    appends_left: usize,
    syncs: usize,
}

impl Disk {
    /// Two volumes, each with six slots in which little is live, a trim among them, and one that is full.
    fn aged() -> Self {
        let mut world = World::new(40);
        for n in 0..6 {
            for volume in [VOLUME, OTHER_VOLUME] {
                world.segment(volume, &[&[write_op(0, 12), write_op(100 + n * 3000, 1)], &[trim_op(20 + n, 1)]]);
            }
        }
        for volume in [VOLUME, OTHER_VOLUME] {
            world.segment(volume, &[&[write_op(0, 20)]]);
            world.fold(volume);
            world.fold(volume);
        }
        Self::of(world)
    }

    fn of(world: World) -> Self {
        let is_answering = true;
        let mut disk = Self {
            world,
            compactor: Compactor::default(),
            actions: Vec::new(),
            is_answering,
            appends_left: usize::MAX,
            syncs: 0,
        };
        disk.settle();
        disk.act(Compactor::open);
        disk
    }

    fn settle(&mut self) {
        for volume in [VOLUME, OTHER_VOLUME] {
            let newest = self.world.index.segments(volume).last().map(|row| row.segment);
            let Some(newest) = newest else { continue };
            self.world.index.settle(volume, Settled { up_to: newest, newest_durable: newest });
        }
    }

    fn act(&mut self, act: impl FnOnce(&mut Compactor, &mut Context<'_, MemoryStore>)) {
        self.act_dyn(Box::new(act));
    }

    fn act_dyn(&mut self, act: Act<'_>) {
        let mut news = Vec::new();
        let index = &mut self.world.index;
        act(&mut self.compactor, &mut Context { index, actions: &mut self.actions, news: &mut news });
        for news in news {
            let (reader, segment) = match news {
                News::Tell(reader, Event::Moved { row, .. }) => (reader, row.segment),
                News::Tell(reader, Event::Leaves { segment }) => (reader, segment),
                News::Tell(..) | News::Erased(..) | News::Freed => continue,
            };
            if self.is_answering {
                self.act(|compactor, context| compactor.unpinned(context, reader, segment));
            }
        }
    }

    /// One step: the end of an action, or else a turn. `false` when there is none.
    fn step(&mut self) -> bool {
        if self.actions.is_empty() {
            let wants_turn = self.compactor.wants_turn(&self.world.index);
            self.act(Compactor::turn);
            return wants_turn;
        }
        let event = match self.actions.remove(0) {
            Action::Append { id, pool_offset, buffers, .. } => {
                if let Some(left) = self.appends_left.checked_sub(1) {
                    self.appends_left = left;
                    self.world.pool.write(pool_offset, buffers[0].as_slice());
                }
                Event::Appended { id, buffers, result: Ok(()) }
            }
            Action::Fetch { id, mut buffer, pieces, .. } => {
                let read = |piece: &crate::io::FetchPiece| {
                    let bytes = &mut buffer.as_mut_slice()[piece.buffer_offset..piece.buffer_offset + piece.len];
                    self.world.pool.read_at(piece.pool_offset, bytes)
                };
                let result = pieces.iter().try_for_each(read);
                Event::Fetched { id, buffer, result }
            }
            Action::Sync { id } => {
                self.syncs += 1;
                Event::Synced { id, result: Ok(()) }
            }
            Action::Lease { class } => Event::Leased { result: self.world.index.lease(class) },
            action @ (Action::Reply(_)
            | Action::LoadPage { .. }
            | Action::LoadPlace { .. }
            | Action::LoadChanges { .. }
            | Action::WriteBack { .. }
            | Action::LeaseFor { .. }
            | Action::SyncPeer { .. }
            | Action::TellPrimary(_)
            | Action::FellOut { .. }
            | Action::NoteBoundary(_)
            | Action::NoteLoans { .. }
            | Action::Pledge { .. }
            | Action::NoteSegment(_)
            | Action::Settle(_)
            | Action::Unpinned { .. }
            | Action::Release { .. }) => panic!("the compactor wants {action:?}"),
        };
        self.act(|compactor, context| compactor.handle(context, event));
        true
    }

    /// Compacts until there is nothing more to do, over some ticks.
    fn run(&mut self) {
        for _ in 0..8 {
            self.act(Compactor::tick);
            while self.step() {}
        }
    }

    fn is_clean(&self) {
        let report = check(&self.world.index, &self.world.pool, CheckOptions { verify_data: true });
        assert!(report.is_clean(), "{:#?}", report.problems);
        for volume in [VOLUME, OTHER_VOLUME] {
            let mut recovered = self.world.recover(volume).unwrap();
            let author = &self.world.authors[&volume];
            let last = units::Lsn(author.next_lsn.0 - 1);
            assert_eq!(self.world.resolve(&mut recovered.map, volume, 20_000), author.mapped_at(last));
        }
    }

    fn parcels(&self) -> Vec<(SegmentId, ParcelPlace)> {
        let rows = [VOLUME, OTHER_VOLUME].into_iter().flat_map(|volume| self.world.index.segments(volume));
        rows.flat_map(|row| row.home.each_parcel().map(move |place| (row.segment, place)).collect::<Vec<_>>()).collect()
    }

    fn used(&self) -> u32 {
        self.world.index.figures().slots_used
    }
}

/// P1. Little that is left in many slots becomes one pack, and is there without the index too.
#[test]
fn slots_of_which_little_is_live_become_fewer() {
    let mut disk = Disk::aged();
    assert_eq!(disk.used(), 14);
    disk.run();
    let (used, figures) = (disk.used(), disk.compactor.figures().clone());
    assert!(used <= 4, "{used} of 14 slots, {figures:?}");
    assert_eq!((figures.rounds_given_up, figures.suspects), (0, 0));
    assert!(figures.segments_moved >= 12 && figures.blocks_moved == figures.segments_moved, "{figures:?}");
    assert!(disk.compactor.is_idle(&disk.world.index) && disk.world.index.left_places().next().is_none());
    disk.is_clean();
    let (index, report) = rebuild(MemoryStore::default(), &disk.world.superblock, &disk.world.pool).unwrap();
    assert!(report.damaged.is_empty() && report.notes.is_empty(), "{report:?}");
    report.mends.iter().for_each(|(offset, bytes)| disk.world.pool.write(*offset, bytes));
    disk.world.index = index;
    for volume in [VOLUME, OTHER_VOLUME] {
        disk.world.restart(volume);
    }
    disk.is_clean();
}

/// P5. What is trimmed gives slots back though many are free and half of each is live; what is overwritten waits until slots
/// are few, since more of it may die.
#[test]
fn trimmed_space_comes_back_from_slots_that_are_half_full() {
    let used_after = |ops: &dyn Fn(u64) -> Operation| {
        let mut world = World::new(64);
        for n in 0..12 {
            world.segment(VOLUME, &[&[write_op(n * 30, 24)]]);
        }
        world.fold(VOLUME);
        for n in 0..12 {
            world.segment(VOLUME, &[&[ops(n * 30)]]);
        }
        world.fold(VOLUME);
        world.fold(VOLUME);
        let mut disk = Disk::of(world);
        let before = disk.used();
        disk.run();
        disk.is_clean();
        (before, disk.used(), disk.world.index.owed_slots())
    };
    let (before, after, owed) = used_after(&|first| trim_op(first, 10));
    assert!(after <= before - 3 && owed == 0, "{before} slots, then {after}, and {owed} are owed");
    let (before, after, owed) = used_after(&|first| write_op(first, 10));
    assert_eq!((after, owed), (before, 0));
}

/// P2, P5. A segment's trims go once no older one holds what they took, and not before; a rebuild says the same.
#[test]
fn trims_are_dropped_once_nothing_older_holds_what_they_took() {
    let mut disk = Disk::aged();
    let has_trims = |disk: &Disk| {
        let rows = disk.world.index.segments(VOLUME);
        rows.iter().map(|row| row.has_holes).collect::<Vec<_>>()
    };
    assert_eq!(has_trims(&disk), [[true; 6].as_slice(), &[false]].concat());
    let oldest_last = disk.world.index.segments(VOLUME)[0].last_lsn.unwrap();
    disk.run();
    let left = has_trims(&disk);
    assert!(!left[0] && !left[6], "{left:?}");
    assert!(left[1..6].contains(&true), "older ones were moved with them: {left:?}");
    let rows = disk.world.index.segments(VOLUME);
    assert!(rows[1..6].iter().all(|row| disk.world.index.has_spent_trims(row)), "by now they say nothing");
    let parcels = *rows[0].home.parcels().unwrap();
    let dirty = parcels.with(0, ParcelPlace { clean_lsn: oldest_last, ..parcels.of(0).unwrap() });
    let dirty = SegmentRow { home: Home::Parcels(dirty), ..rows[0] };
    disk.world.index.note_segment(dirty).unwrap();
    assert!(!disk.world.index.has_spent_trims(&rows[1]), "the oldest may hold what was trimmed after it was moved");
    disk.world.index.note_segment(rows[0]).unwrap();
    disk.is_clean();
    disk.world.segment(VOLUME, &[&[snapshot_op(0)]]);
    disk.world.fold(VOLUME);
    assert!(!disk.world.index.has_spent_trims(&disk.world.index.segments(VOLUME)[1]), "it has a snapshot");
    let rebuilt = rebuild(MemoryStore::default(), &disk.world.superblock, &disk.world.pool).unwrap().0;
    let (row, others) = (rebuilt.segments(OTHER_VOLUME)[1], disk.world.index.segments(OTHER_VOLUME));
    assert!(disk.world.index.has_spent_trims(&others[1]) && !rebuilt.has_spent_trims(&row), "it may have had one");
}

/// P1. Wherever a kill comes, what was written is there, and the next start goes on with what is void or is to be.
#[test]
fn a_kill_at_any_step_of_a_round_loses_nothing_and_leaks_nothing() {
    let mut steps = 0;
    loop {
        let mut disk = Disk::aged();
        disk.act(Compactor::tick);
        let has_ended = !(0..steps).all(|_| disk.step());
        disk.world.crash(if steps % 2 == 0 { 0 } else { usize::MAX });
        disk.is_clean();
        for volume in [VOLUME, OTHER_VOLUME] {
            disk.world.author(volume).map = disk.world.restart(volume).map;
            disk.world.fold(volume);
        }
        (disk.compactor, disk.actions) = (Compactor::default(), Vec::new());
        disk.settle();
        disk.act(Compactor::open);
        disk.run();
        disk.is_clean();
        assert!(disk.used() <= 4, "{} slots after {steps} steps", disk.used());
        if has_ended {
            break;
        }
        steps += 1;
    }
    assert!(steps > 60, "{steps} steps");
}

/// P2. A segment with a block that is not what was written stays where it is, for ever as it was; the others move.
#[test]
fn a_segment_with_a_bad_block_is_not_moved() {
    let mut disk = Disk::aged();
    let row = disk.world.index.segments(VOLUME)[1];
    // Its second write.
    disk.world.rot(row.a_slot(), 14);
    disk.run();
    assert_eq!(disk.world.index.segment(row.segment), Some(row));
    assert_eq!(disk.compactor.figures().suspects, 1);
    assert!(disk.compactor.figures().last_error.as_ref().is_some_and(|told| told.contains(&row.segment.to_string())));
    assert!(disk.parcels().len() >= 10, "as many as a pack holds");
}

/// P6. A segment that cannot be read is left alone for a while, and is moved when it can be.
#[test]
fn a_segment_that_cannot_be_read_is_tried_again_later() {
    let mut disk = Disk::aged();
    let row = disk.world.index.segments(VOLUME)[1];
    let first = disk.world.superblock.geometry.slot_offset(row.a_slot()) / 4096;
    disk.world.pool.unreadable = (first..first + 32).collect();
    disk.run();
    assert_eq!(disk.world.index.segment(row.segment), Some(row));
    assert!(disk.parcels().len() >= 10 && disk.compactor.figures().suspects == 0);
    disk.world.pool.unreadable.clear();
    // Another slot to go with it.
    disk.world.segment(VOLUME, &[&[write_op(90, 1)]]);
    disk.world.fold(VOLUME);
    disk.settle();
    (0..REST_TICKS / 8 + 1).for_each(|_| disk.run());
    assert!(disk.world.index.segment(row.segment).unwrap().is_moved());
    disk.is_clean();
}

/// P1. A pack that does not give back what was written to it gets nothing, and its slot goes back.
#[test]
fn what_the_disk_lost_of_a_pack_is_found_before_anything_is_void() {
    for kept in 0..12 {
        let mut disk = Disk::aged();
        disk.act(Compactor::tick);
        disk.appends_left = kept;
        while disk.compactor.figures().rounds_given_up == 0 && disk.step() {}
        assert_eq!((disk.compactor.figures().rounds_given_up, disk.parcels().len()), (1, 0), "{kept} writes kept");
        disk.appends_left = usize::MAX;
        disk.run();
        assert!(disk.used() <= 4);
        disk.is_clean();
    }
}

/// P1. Where the store fails, nothing is void that it might still name, and nothing is moved twice.
#[test]
fn a_store_that_fails_at_the_switch_is_asked_again() {
    let mut disk = Disk::aged();
    disk.act(Compactor::tick);
    while disk.syncs == 0 && disk.step() {}
    disk.world.index.store_mut().fails = true;
    while disk.step() {}
    assert!(disk.parcels().is_empty() && disk.compactor.is_moving());
    disk.world.index.store_mut().fails = false;
    disk.run();
    assert!(disk.used() <= 4);
    disk.is_clean();
}

/// P1. A volume that is closed keeps its segments where they are, and one that is erased leaves none in a pack.
#[test]
fn a_volume_that_goes_in_the_midst_of_a_round_takes_its_parcels_with_it() {
    let mut disk = Disk::aged();
    disk.act(Compactor::tick);
    let mut steps = 0;
    loop {
        disk.act(|compactor, context| compactor.closed(context, OTHER_VOLUME));
        let before = disk.world.index.segments(OTHER_VOLUME);
        disk.run();
        assert_eq!(disk.world.index.segments(OTHER_VOLUME), before, "after {steps} steps");
        disk.is_clean();
        disk.act(|compactor, context| compactor.erase(context, OTHER_VOLUME));
        disk.run();
        assert!(disk.world.index.segments(OTHER_VOLUME).is_empty());
        let (index, report) = rebuild(MemoryStore::default(), &disk.world.superblock, &disk.world.pool).unwrap();
        assert!(report.damaged.is_empty(), "{report:?}");
        assert_eq!(index.segments(OTHER_VOLUME), [], "after {steps} steps");
        disk = Disk::aged();
        disk.act(Compactor::tick);
        steps += 1;
        if !(0..steps).all(|_| disk.step()) {
            break;
        }
    }
    assert!(steps > 60, "{steps} steps");
}

/// P1. Wherever a stop comes while a volume is erased, and whichever of its headers were void by then: no check finds
/// damage, also of the index as the next start reads it or a rebuild makes it, and what is wrong elsewhere is found.
#[test]
fn a_volume_that_is_half_erased_is_no_damage() {
    let mut halves = 0;
    for (is_reversed, is_compacted) in [(false, false), (true, false), (false, true), (true, true)] {
        for steps in 0.. {
            let mut disk = Disk::aged();
            if is_compacted {
                disk.run();
            }
            disk.act(|compactor, context| compactor.erase(context, OTHER_VOLUME));
            let goes_on = (0..steps).all(|_| {
                if is_reversed {
                    disk.actions.reverse();
                }
                disk.step()
            });
            let World { index, pool, superblock, .. } = &mut disk.world;
            let options = CheckOptions { verify_data: true };
            let report = check(index, pool, options);
            assert!(report.is_clean(), "after {steps} steps: {:#?}", report.problems);
            let reopened = Index::open(index.store().clone(), superblock, pool).unwrap();
            let report = check(&reopened, pool, options);
            assert!(report.is_clean(), "after {steps} steps: {:#?}", report.problems);
            let (rebuilt, report) = rebuild(MemoryStore::default(), superblock, pool).unwrap();
            assert!(report.damaged.is_empty() && report.notes.is_empty(), "after {steps} steps: {report:#?}");
            report.mends.iter().for_each(|(offset, bytes)| pool.write(*offset, bytes));
            let report = check(&rebuilt, pool, options);
            assert!(report.is_clean(), "after {steps} steps: {:#?}", report.problems);
            let left = rebuilt.segments(OTHER_VOLUME).len();
            halves += usize::from(left > 0 && left < Disk::aged().world.index.segments(OTHER_VOLUME).len());
            let other = index.segments(VOLUME)[0];
            disk.world.rot(other.a_slot(), u32::from(other.is_moved()));
            let report = check(&disk.world.index, &disk.world.pool, options);
            let is_of_other = report.problems.iter().any(|found| found.volume == Some(OTHER_VOLUME));
            assert!(!report.is_clean() && !is_of_other, "after {steps} steps: {:#?}", report.problems);
            if !goes_on {
                break;
            }
        }
    }
    assert!(halves > 20, "{halves}");
}

/// P1, P6. What is given back of a pack is void in both its places, and a header that has rotted keeps nothing.
#[test]
fn a_parcel_of_which_one_header_has_rotted_is_given_back_by_the_other() {
    for copy in [0, 1] {
        let mut disk = Disk::aged();
        disk.run();
        let (segment, place) = disk.parcels()[0];
        let slot = place.slot;
        disk.world.rot(slot, place.headers()[copy]);
        disk.act(|compactor, context| compactor.erase(context, VOLUME));
        disk.run();
        assert_eq!(disk.world.index.segment(segment), None);
        let walked = walk_pack(&disk.world.pool, &disk.world.superblock, (slot, place.pack));
        assert_eq!(walked.lost, 0);
        assert!(walked.parcels.iter().all(|listed| listed.is_whole()));
        let mut voids = walked.parcels.iter().filter(|listed| listed.start.header.volume == VOLUME);
        assert!(voids.all(|listed| listed.is_void()));
        disk.act(|compactor, context| compactor.erase(context, OTHER_VOLUME));
        disk.run();
        assert_eq!((disk.used(), disk.compactor.giving.refused.len()), (0, 0));
        let (index, report) = rebuild(MemoryStore::default(), &disk.world.superblock, &disk.world.pool).unwrap();
        assert_eq!((index.figures().slots_used, report.mends.len(), report.notes.len()), (0, 0, 0), "{report:?}");
    }
}

/// P6. A segment of which one header has rotted moves on by the other one.
#[test]
fn a_parcel_of_which_one_header_has_rotted_moves_on() {
    for copy in [0, 1] {
        let mut disk = Disk::aged();
        disk.run();
        let (segment, place) = disk.parcels()[0];
        let slot = place.slot;
        disk.world.rot(slot, place.headers()[copy]);
        let row = disk.world.index.segment(segment).unwrap();
        let (actions, news) = (&mut Vec::new(), &mut Vec::new());
        let context = &mut Context { index: &mut disk.world.index, actions, news };
        let geometry = context.index.superblock().geometry;
        let (mut reading, _) = reading::Reading::begin(context, &mut Ids::default(), (row, geometry));
        let Some(Action::Fetch { mut buffer, pieces, .. }) = context.actions.pop() else { panic!("it reads") };
        for piece in pieces {
            let bytes = &mut buffer.as_mut_slice()[piece.buffer_offset..piece.buffer_offset + piece.len];
            disk.world.pool.read_at(piece.pool_offset, bytes).unwrap();
        }
        let read = reading.on_fetched(context, &mut Ids::default(), (&disk.world.superblock, &buffer));
        assert!(matches!(read, reading::Read::Whole(log) if log.row == row));
    }
}

/// P1. A volume from which another one inherits is not erased, not in part either.
#[test]
fn a_volume_that_has_heirs_is_not_erased() {
    let mut disk = Disk::aged();
    disk.world.segment(VOLUME, &[&[snapshot_op(0)]]);
    disk.world.fold(VOLUME);
    let (heir, parent) = (VolumeId(OTHER_VOLUME.0 + 1), Parent { volume: VOLUME, generation: 0 });
    disk.world.index.note_parent(heir, parent).unwrap();
    disk.act(|compactor, context| compactor.erase(context, VOLUME));
    disk.run();
    disk.is_clean();
    disk.world.index.forget_parent(heir).unwrap();
    disk.act(|compactor, context| compactor.erase(context, VOLUME));
    disk.run();
    assert_eq!(disk.world.index.volumes(), [OTHER_VOLUME]);
}
