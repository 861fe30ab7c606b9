//! Registers against a model that knows every operation and when it counts from: through write-backs that fail, kills, a store
//! that loses its end, snapshots and clones.

use super::super::{Boundary, Folded, Gauge, Home, LeaseClass, MeterReading, MeterStart, Parent, SegmentRow};
use super::*;
use crate::format::{Operation, OperationKind};
use crate::map::{Location, Map, PAGE_BLOCKS};
use crate::recover::replay_operation;
use proptest::prelude::*;
use units::{BLOCK_BYTES, BlockIndex, BlockRange, VolumeId};

const BLOCKS: u64 = 5 * PAGE_BLOCKS as u64;
const BORN: MeterTime = MeterTime(1000);
const SIZE: u64 = BLOCKS * BLOCK_BYTES;
const PERIOD_MS: u64 = 300_000;
const CLONE: VolumeId = VolumeId(VOLUME.0 + 50);

#[derive(Debug, Clone)]
enum Step {
    Write { first: u64, count: u64 },
    Trim { first: u64, count: u64 },
    Resize { bytes: u64 },
    Pass { ms: u64 },
    Snapshot,
    WriteBack { pages_max: usize, ends: bool },
    Drop { end: usize },
    Forget { end: usize },
    Crash { kept: usize },
    Read,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let first = prop_oneof![0..BLOCKS, 0..40_u64, (0..5_u64).prop_map(|page| page * u64::from(PAGE_BLOCKS))];
    let trimmed = prop_oneof![2 => 1..300_u64, 3 => (1..4_u64).prop_map(|pages| pages * u64::from(PAGE_BLOCKS))];
    let step = prop_oneof![
        8 => (first.clone(), 1..200_u64).prop_map(|(first, count)| Step::Write { first, count }),
        5 => (first, trimmed).prop_map(|(first, count)| Step::Trim { first, count }),
        1 => (1..99_u64).prop_map(|bytes| Step::Resize { bytes: bytes << 20 }),
        6 => (1..200_000_u64).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Snapshot),
        5 => (1..4_usize, any::<bool>()).prop_map(|(pages_max, ends)| Step::WriteBack { pages_max, ends }),
        1 => (0..3_usize).prop_map(|end| Step::Drop { end }),
        1 => (0..3_usize).prop_map(|end| Step::Forget { end }),
        2 => (0..9_usize).prop_map(|kept| Step::Crash { kept }),
        2 => Just(Step::Read),
    ];
    proptest::collection::vec(step, 1..90)
}

/// A volume, and every operation of its log.
struct Metered {
    volume: VolumeId,
    map: Map,
    log: Vec<Operation>,
    location: Location,
    size_bytes: u64,
    /// What it began with.
    inherited: Vec<bool>,
    born: MeterTime,
    now: MeterTime,
}

impl Metered {
    fn new(index: &mut Index<MemoryStore>, volume: VolumeId, (born, inherited): (MeterTime, Vec<bool>)) -> Self {
        let lease = index.lease(LeaseClass::Data).unwrap();
        let (segment, home) = (lease.segment, Home::Own(lease.slot));
        let row = SegmentRow { segment, volume, home, first_lsn: Lsn(1), last_lsn: None, has_holes: true };
        index.note_segment(row).unwrap();
        index.begin_meters(&[(volume, MeterStart { at: born, size_bytes: SIZE, last: None })]).unwrap();
        let location = Location { segment, block: 1 };
        let mut map = Map::new(inherited.is_empty());
        map.begin_metering();
        let mut new = Self { volume, map, log: Vec::new(), location, size_bytes: SIZE, inherited, born, now: born };
        new.pass(0);
        new
    }

    fn append(&mut self, kind: OperationKind, first: u64, count: u64) {
        let range = BlockRange::new(BlockIndex(first), count);
        self.log.push(Operation { kind, range });
        self.take(self.log.len());
    }

    /// Takes in the operation of an LSN, or takes it in again.
    fn take(&mut self, lsn: usize) {
        let operation = self.log[lsn - 1];
        let checks = vec![7; operation.payload_blocks() as usize];
        self.map.note_time(Lsn(lsn as u64), &operation);
        let at = (u32::from(self.location.block), checks.as_slice());
        replay_operation(&mut self.map, Lsn(lsn as u64), &operation, self.location.segment, at);
        if let OperationKind::Resize(size_bytes) = operation.kind {
            self.size_bytes = size_bytes;
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.0 += ms;
        self.append(OperationKind::TimeMark { wall_ms: 0, meter: Some(self.now) }, 0, 0);
    }

    fn applied(&self) -> Lsn {
        Lsn(self.log.len() as u64)
    }

    fn write_back(&mut self, index: &mut Index<MemoryStore>, pages_max: usize, ends: bool) {
        let capture = self.map.capture(self.applied(), pages_max);
        let folded: Folded = capture.folded(self.size_bytes);
        if ends {
            index.write_back(self.volume, capture.generation, &capture.writes, folded).unwrap();
        }
        self.map.write_back_ended(ends);
    }

    fn fold(&mut self, index: &mut Index<MemoryStore>) {
        loop {
            self.write_back(index, 3, true);
            if !self.map.is_dirty() {
                return;
            }
        }
    }

    /// A new process: what the store lacks is replayed.
    fn recover(&mut self, index: &mut Index<MemoryStore>) {
        let row = index.volume_row(self.volume);
        let folded_to = row.map_or(Lsn::ZERO, |row| row.folded_to);
        self.map = Map::new(false);
        self.map.begin_metering();
        self.map.begin_generation(row.map_or(0, |row| row.generation));
        self.size_bytes = row.map_or(SIZE, |row| row.size_bytes);
        let mut boundaries = Vec::new();
        for lsn in 1..=self.log.len() {
            if Lsn(lsn as u64) > folded_to {
                self.take(lsn);
            } else {
                self.map.note_time(Lsn(lsn as u64), &self.log[lsn - 1]);
            }
            let is_deleted = self.log[lsn - 1].range.count == 1;
            if let OperationKind::Snapshot { generation, .. } = self.log[lsn - 1].kind
                && Lsn(lsn as u64) > folded_to
                && !is_deleted
            {
                boundaries.push(Boundary { generation, lsn: Lsn(lsn as u64), size_bytes: 0, wall_ms: 0 });
            }
        }
        index.note_recovered_boundaries(self.volume, self.applied().next(), &boundaries).unwrap();
    }

    /// Which blocks hold data before an operation, and what the registers said at a moment, each counted block by block.
    fn model(&self, at: MeterTime, end: usize) -> (Vec<bool>, [u128; 2]) {
        let mut held = self.inherited.clone();
        held.resize(index_of(BLOCKS), false);
        let (mut size, mut sums, mut now) = (SIZE, [0; 2], self.born);
        let mut pass = |to: MeterTime, held: &[bool], size: u64| {
            let ms = u128::from(to.min(at).since(now));
            let data = held.iter().filter(|is| **is).count() as u64 * BLOCK_BYTES;
            sums = [sums[0] + u128::from(size) * ms, sums[1] + u128::from(data) * ms];
            now = now.max(to.min(at));
        };
        for operation in &self.log[..end] {
            let range = index_of(operation.range.first.0)..index_of(operation.range.end().0);
            match operation.kind {
                OperationKind::Write | OperationKind::Copy { .. } => held[range].fill(true),
                OperationKind::Trim | OperationKind::WriteZeroes => held[range].fill(false),
                OperationKind::Resize(bytes) => size = bytes,
                OperationKind::Snapshot { .. } | OperationKind::Lent => {}
                OperationKind::TimeMark { meter, .. } => pass(meter.unwrap(), &held, size),
            }
            if let OperationKind::Resize(bytes) = operation.kind {
                held.iter_mut().skip(index_of(bytes / BLOCK_BYTES)).for_each(|is| *is = false);
            }
        }
        pass(MeterTime(u64::MAX), &held, size);
        (held, sums)
    }

    /// Every reading that can be taken is the model's, and what there is is what the map has.
    fn check(&mut self, index: &mut Index<MemoryStore>) -> Result<MeterReading, TestCaseError> {
        self.fold(index);
        prop_assert_eq!(index.meter_differences(), 0);
        let (held, _) = self.model(self.now, self.log.len());
        let data = held.iter().filter(|is| **is).count() as u64;
        prop_assert_eq!(index.mapped_blocks(self.volume), data);
        let later = MeterTime(self.now.0 + 1234);
        let last = index.meter_reading(self.volume, later).unwrap();
        prop_assert_eq!(last.of(Gauge::Written).bytes, data * BLOCK_BYTES);
        let ends: Vec<MeterTime> = (1..=self.now.0 / PERIOD_MS).map(|period| MeterTime(period * PERIOD_MS)).collect();
        let closed = index.meter_readings(self.volume, &ends);
        for reading in closed.into_iter().chain([last]) {
            let (_, sums) = self.model(reading.at, self.log.len());
            prop_assert_eq!(reading.of(Gauge::Provisioned).byte_ms, sums[0], "provisioned to {:?}", reading.at);
            prop_assert_eq!(reading.of(Gauge::Written).byte_ms, sums[1], "written to {:?}", reading.at);
        }
        Ok(last)
    }
}

fn index_of(block: u64) -> usize {
    usize::try_from(block).unwrap()
}

fn clip(first: u64, count: u64) -> (u64, u64) {
    (first, count.min(BLOCKS - first))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// P7. The registers are a pure function of the log: through kills, a store that loses its end or fails, snapshots and
    /// readings that are forgotten, they are the model's to the last unit; and so are those of a clone.
    #[test]
    fn registers_are_what_the_log_says(steps in steps(), clone_steps in steps()) {
        let World { superblock, pool, mut index, .. } = World::new(8);
        let mut owner = Metered::new(&mut index, VOLUME, (BORN, Vec::new()));
        let mut generation = 0;
        let mut heir: Option<Metered> = None;
        let all = steps.into_iter().map(|step| (false, step)).chain(clone_steps.into_iter().map(|step| (true, step)));
        for (is_of_heir, step) in all {
            if is_of_heir && heir.is_none() {
                // The clone is made of the end of the log, which is a snapshot, and is not folded yet.
                owner.append(OperationKind::Snapshot { generation, id: units::SnapshotId(1), wall_ms: 0 }, 0, 0);
                let boundary = Boundary { generation, lsn: owner.applied(), size_bytes: 0, wall_ms: 0 };
                index.note_boundary(VOLUME, boundary).unwrap();
                let parent = Parent { volume: VOLUME, generation };
                index.note_parent(CLONE, parent).unwrap();
                let (held, _) = owner.model(owner.now, owner.log.len());
                let born = MeterTime(owner.now.0 + 77);
                let made = Metered::new(&mut index, CLONE, (born, held));
                prop_assert!(index.meter_reading(CLONE, born).is_none(), "before its parent is folded");
                owner.pass(5000);
                owner.fold(&mut index);
                heir = Some(made);
            }
            let metered = match &mut heir {
                Some(heir) => heir,
                None => &mut owner,
            };
            match step {
                Step::Write { first, count } => {
                    let (first, count) = clip(first, count);
                    metered.append(OperationKind::Write, first, count);
                }
                Step::Trim { first, count } => {
                    let (first, count) = clip(first, count);
                    metered.append(OperationKind::Trim, first, count);
                }
                Step::Resize { bytes } => metered.append(OperationKind::Resize(bytes), 0, 0),
                Step::Pass { ms } => metered.pass(ms),
                Step::Snapshot if !is_of_heir => {
                    metered.append(OperationKind::Snapshot { generation, id: units::SnapshotId(1), wall_ms: 0 }, 0, 0);
                    let boundary = Boundary { generation, lsn: metered.applied(), size_bytes: 0, wall_ms: 0 };
                    index.note_boundary(VOLUME, boundary).unwrap();
                    generation += 1;
                }
                Step::Snapshot => {}
                Step::WriteBack { pages_max, ends } => metered.write_back(&mut index, pages_max, ends),
                Step::Drop { end } => {
                    // The newest version of a page may go with a snapshot, when it only hid what that showed.
                    let oldest = index.boundaries(VOLUME).nth(end).map(|row| row.boundary.generation);
                    if let Some(oldest) = oldest.filter(|_| !is_of_heir)
                        && let Ok(Some(mut deletion)) = index.begin_deletion(VOLUME, oldest)
                    {
                        while !index.delete_some(&mut deletion, 1).unwrap() {}
                        let at = metered.log.iter_mut().find(|operation| {
                            matches!(operation.kind, OperationKind::Snapshot { generation, .. } if generation == oldest)
                        });
                        // Recovery still tells of it, and the records do not.
                        at.into_iter().for_each(|operation| operation.range = BlockRange::new(BlockIndex(0), 1));
                    }
                }
                Step::Forget { end } => {
                    let folded = metered.check(&mut index)?;
                    let to = MeterTime(folded.at.0.saturating_sub(end as u64 * 100_000).min(metered.now.0));
                    index.forget_readings(metered.volume, to);
                }
                Step::Crash { kept } => {
                    let mut store = index.into_store();
                    store.cut_power(kept);
                    index = Index::open(store, &superblock, &pool).unwrap();
                    metered.recover(&mut index);
                    if is_of_heir {
                        // Until its parent is folded again nothing is laid over that.
                        owner.recover(&mut index);
                        owner.fold(&mut index);
                    }
                }
                Step::Read => drop(metered.check(&mut index)?),
            }
        }
        owner.check(&mut index)?;
        heir.iter_mut().try_for_each(|heir| heir.check(&mut index).map(drop))?;
    }
}
