//! What a volume has used, by a model that knows every operation of its log and when it counts from: each counted block by
//! block, from the beginning, whenever it is asked.
//!
//! It sees what the engine gives to the disk, and learns from a recovery how much of that is the log.

use std::collections::{BTreeMap, BTreeSet};
use units::{BLOCK_BYTES, Lsn, MeterTime, SegmentId};
use volume::format::{BatchHeader, Operation, OperationKind};
use volume::pool::{Gauge, MeterReading, SegmentRow};

/// Blocks that hold data.
pub type Held = BTreeSet<u64>;

/// What the registers of `provisioned` and `written` begin with.
#[derive(Debug, Clone)]
struct Start {
    /// Operations up to here are in it.
    lsn: Lsn,
    at: MeterTime,
    size_bytes: u64,
    held: Held,
    sums: [u128; 2],
}

/// A volume as it was at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Bytes of its size, and of its data.
    pub bytes: [u64; 2],
    /// The same by milliseconds.
    pub byte_ms: [u128; 2],
}

impl Used {
    /// What a reading says of the same.
    #[must_use]
    pub fn of(reading: &MeterReading) -> Self {
        let gauges = [Gauge::Provisioned, Gauge::Written].map(|gauge| reading.of(gauge));
        Self { bytes: gauges.map(|gauged| gauged.bytes), byte_ms: gauges.map(|gauged| gauged.byte_ms) }
    }
}

/// The model of a volume's meter.
#[derive(Debug, Clone)]
pub struct Model {
    start: Start,
    /// Every operation that was ever given to the disk.
    given: BTreeMap<(Lsn, SegmentId), Operation>,
    log: BTreeMap<Lsn, Operation>,
    /// What the ends of generations showed before the model began anew.
    forks: BTreeMap<u64, Held>,
    /// The index was made anew: the meter goes on from a reading, or from nothing, at this time.
    anew: Option<(MeterTime, Option<MeterReading>)>,
    /// Readings that were taken.
    pub readings: Vec<MeterReading>,
}

impl Model {
    /// Knows a volume that is made now, with so many bytes and what it inherits.
    #[must_use]
    pub const fn new(at: MeterTime, size_bytes: u64, held: Held) -> Self {
        let start = Start { lsn: Lsn::ZERO, at, size_bytes, held, sums: [0; 2] };
        Self {
            start,
            given: BTreeMap::new(),
            log: BTreeMap::new(),
            forks: BTreeMap::new(),
            anew: None,
            readings: Vec::new(),
        }
    }

    /// When the meter began.
    #[must_use]
    pub const fn began(&self) -> MeterTime {
        self.start.at
    }

    /// The latest time that was given to the disk.
    #[must_use]
    pub fn latest_mark(&self) -> MeterTime {
        let marks = self.given.values().filter_map(|operation| match operation.kind {
            OperationKind::TimeMark { meter, .. } => meter,
            OperationKind::Write
            | OperationKind::Copy { .. }
            | OperationKind::Lent
            | OperationKind::Trim
            | OperationKind::WriteZeroes
            | OperationKind::Resize(_)
            | OperationKind::Snapshot { .. } => None,
        });
        marks.max().unwrap_or_default()
    }

    /// A batch is given to the disk.
    pub fn note_batch(&mut self, batch: &BatchHeader) {
        let numbered = (batch.first_lsn.0..).map(|lsn| (Lsn(lsn), batch.segment)).zip(&batch.operations);
        self.given.extend(numbered.map(|(key, operation)| (key, *operation)));
    }

    /// The engine has taken in everything up to `applied`: of what was given to the disk the newest.
    pub fn note_applied(&mut self, applied: Lsn) {
        let last = self.log.last_key_value().map_or(self.start.lsn, |(lsn, _)| *lsn);
        for lsn in (last.0 + 1..=applied.0).map(Lsn) {
            let newest = self.given.range((lsn, SegmentId(0))..=(lsn, SegmentId::MAX)).next_back();
            self.log.extend(newest.map(|(_, operation)| (lsn, *operation)));
        }
    }

    /// A recovery has found the log: `segments`, of which the stored map has all up to `folded_to`.
    pub fn note_found(&mut self, segments: &[SegmentRow], folded_to: Lsn, next_lsn: Lsn) {
        self.log.retain(|lsn, _| *lsn <= folded_to && *lsn < next_lsn);
        for lsn in (folded_to.0 + 1..next_lsn.0).map(Lsn) {
            let has = |row: &&SegmentRow| row.first_lsn <= lsn && row.last_lsn.is_some_and(|last| lsn <= last);
            let found = segments.iter().filter(has).max_by_key(|row| row.segment);
            let operation = found.and_then(|row| self.given.get(&(lsn, row.segment)));
            self.log.extend(operation.map(|operation| (lsn, *operation)));
        }
    }

    /// The index is made anew: what the last reading said holds until now, and what is found then is known from
    /// [`Self::begin_anew`] on.
    pub fn goes_on(&mut self, at: MeterTime) -> Option<MeterReading> {
        let last = self.readings.last().copied();
        self.anew = Some((at, last));
        last
    }

    /// Whether what is there has to be told to it.
    #[must_use]
    pub const fn is_to_begin_anew(&self) -> bool {
        self.anew.is_some()
    }

    /// Takes what the stored map holds, and what the log has beyond that, for what there is.
    pub fn begin_anew(&mut self, stored: Held, folded_to: Lsn, (next_lsn, size_bytes): (Lsn, u64)) {
        let Some((at, last)) = self.anew.take() else { return };
        let whole = self.run(MeterTime(u64::MAX));
        self.forks = whole.forks;
        let last = last.map(|last| Used::of(&last.carried_to(at)).byte_ms);
        let start = Start { lsn: folded_to, at, size_bytes, held: stored, sums: [0; 2] };
        let behind = Self { start, ..self.clone() };
        let held = behind.run(MeterTime(u64::MAX)).held;
        let lsn = Lsn(next_lsn.0 - 1);
        self.start = Start { lsn, at, size_bytes, held, sums: last.unwrap_or_default() };
        self.log.clear();
    }

    /// What the end of a generation showed.
    #[must_use]
    pub fn fork(&self, generation: u64) -> Option<Held> {
        self.run(MeterTime(u64::MAX)).forks.remove(&generation)
    }

    /// What was used before a moment.
    #[must_use]
    pub fn used(&self, at: MeterTime) -> Used {
        let run = self.run(at);
        Used { bytes: run.bytes, byte_ms: run.sums }
    }

    /// Bytes by milliseconds that were used before each of some moments, in order: the log is gone through once.
    #[must_use]
    pub fn used_before(&self, moments: &[MeterTime]) -> Vec<[u128; 2]> {
        let mut run = self.begin(MeterTime(u64::MAX));
        let mut left = moments.iter().peekable();
        let mut used = Vec::new();
        for (_, operation) in self.log.range(self.start.lsn.next()..) {
            if let OperationKind::TimeMark { meter: Some(mark), .. } = operation.kind {
                while let Some(at) = left.next_if(|at| **at <= mark) {
                    run.pass_to(*at);
                    used.push(run.sums);
                }
            }
            run.take(operation);
        }
        for at in left {
            run.pass_to(*at);
            used.push(run.sums);
        }
        used
    }

    fn run(&self, end: MeterTime) -> Run {
        let mut run = self.begin(end);
        for (_, operation) in self.log.range(self.start.lsn.next()..) {
            run.take(operation);
        }
        run.pass();
        run
    }

    fn begin(&self, end: MeterTime) -> Run {
        let Start { at, size_bytes, held, sums, .. } = self.start.clone();
        let bytes = [size_bytes, held.len() as u64 * BLOCK_BYTES];
        Run { now: at, from: at, end, size_bytes, held, bytes, sums, forks: self.forks.clone() }
    }
}

/// A log as it is gone through.
#[derive(Debug)]
struct Run {
    /// Of the last mark.
    now: MeterTime,
    /// Up to where it is counted.
    from: MeterTime,
    end: MeterTime,
    size_bytes: u64,
    held: Held,
    /// What there was before the end.
    bytes: [u64; 2],
    sums: [u128; 2],
    forks: BTreeMap<u64, Held>,
}

impl Run {
    /// What there is counts until the end.
    fn pass(&mut self) {
        self.pass_to(self.end);
    }

    fn pass_to(&mut self, to: MeterTime) {
        let to = to.min(self.end);
        if to > self.from {
            self.bytes = [self.size_bytes, self.held.len() as u64 * BLOCK_BYTES];
            let ms = u128::from(to.since(self.from));
            for (sum, bytes) in self.sums.iter_mut().zip(self.bytes) {
                *sum = sum.saturating_add(u128::from(bytes).saturating_mul(ms));
            }
            self.from = to;
        }
    }

    fn take(&mut self, operation: &Operation) {
        let blocks = operation.range.first.0..operation.range.end().0;
        match operation.kind {
            OperationKind::TimeMark { meter, .. } => {
                self.now = self.now.max(meter.unwrap_or_default());
                self.pass_to(self.now);
            }
            OperationKind::Write | OperationKind::Copy { .. } => self.held.extend(blocks),
            OperationKind::Lent => {}
            OperationKind::Trim | OperationKind::WriteZeroes => {
                let mut beyond = self.held.split_off(&blocks.start);
                self.held.append(&mut beyond.split_off(&blocks.end));
            }
            OperationKind::Resize(size_bytes) => self.size_bytes = size_bytes,
            OperationKind::Snapshot { generation, .. } => {
                self.forks.insert(generation, self.held.clone());
            }
        }
    }
}
