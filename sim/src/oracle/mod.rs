//! The oracle: knows of every sector of a volume what may be read, from what clients asked and were answered.
//!
//! It does not know in which order the engine took requests that overlapped in time. It knows that one came before another
//! when it was answered before the other was asked, and holds the engine to that: in reads ([`Oracle::check_read`]), within
//! a block (P3), and over the whole volume after a crash ([`Oracle::begin_readback`]).

mod expect;
mod fork;
mod history;
mod readback;

pub use expect::Expectation;
pub use fork::Moment;
pub use history::{Area, OpId, Step};
pub use readback::{Loss, Readback};

use crate::pattern::{self, SECTOR_LEN, Stamp, Value};
use history::{History, INITIAL, Operation};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use units::{BLOCK_BYTES, SECTOR_BYTES};
use volume::request::Extent;

/// Sectors of a block.
pub(crate) const BLOCK_SECTORS: u64 = BLOCK_BYTES / SECTOR_BYTES;

/// What a copy puts into sectors, from the first one on.
#[derive(Debug, Clone)]
struct Copied {
    first_sector: u64,
    values: Vec<Value>,
}

impl Copied {
    fn value_at(&self, sector: u64) -> Value {
        let at = sector.checked_sub(self.first_sector).and_then(|at| self.values.get(at as usize));
        at.copied().unwrap_or(Value::Foreign)
    }
}

/// What may be read of one volume. Sectors outside of its areas are never written.
#[derive(Debug, Clone)]
pub struct Oracle {
    /// The first operation of each tag that writes bear: what a clone inherits bears those of its parents.
    tags: Vec<(u32, u64)>,
    operations: Vec<Operation>,
    areas: Vec<(Area, Vec<History>)>,
    /// The size that counts.
    size_bytes: u64,
    /// Sizes of resizes that are not answered, or failed.
    sizes_possible: Vec<u64>,
    sizes_ever: Vec<u64>,
    /// What was answered before is durable.
    durable_before: Step,
    /// What was asked before has one known outcome, or is at one place unknown.
    settled_at: Step,
    /// What copies put there.
    copies: BTreeMap<OpId, Copied>,
    /// The compare-and-write that replaced what a write had put into a sector.
    replaced: BTreeMap<(u64, OpId), OpId>,
}

impl Oracle {
    /// Knows a new volume. `tag` tells its writes from those of others.
    #[must_use]
    pub fn new(tag: u64, size_bytes: u64, areas: &[Area]) -> Self {
        Self {
            tags: vec![(0, tag)],
            operations: vec![Operation::initial()],
            areas: areas.iter().map(|area| (*area, vec![History::settled(INITIAL); area.sectors as usize])).collect(),
            size_bytes,
            sizes_possible: Vec::new(),
            sizes_ever: vec![size_bytes],
            durable_before: Step(0),
            settled_at: Step(0),
            copies: BTreeMap::new(),
            replaced: BTreeMap::new(),
        }
    }

    /// The size that counts when no resize is under way.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether a request that ends at byte `end` may be refused for it, and may be served.
    #[must_use]
    pub fn judge_end(&self, end: u64) -> (bool, bool) {
        let sizes = || self.sizes_possible.iter().copied().chain([self.size_bytes]);
        (sizes().any(|size| end > size), sizes().any(|size| end <= size))
    }

    /// A write of `sectors` is asked.
    pub fn begin_write(&mut self, sectors: Range<u64>, is_fua: bool, step: Step) -> (OpId, Stamp) {
        let op = self.begin(Operation { is_zero: false, is_fua, ..Operation::asked(step, &sectors) }, sectors);
        (op, self.stamp_of(op))
    }

    /// A trim, write-zeroes or discard of `sectors` is asked.
    pub fn begin_zero(&mut self, sectors: Range<u64>, is_fua: bool, step: Step) -> OpId {
        self.begin(Operation { is_zero: true, is_fua, ..Operation::asked(step, &sectors) }, sectors)
    }

    fn begin(&mut self, operation: Operation, sectors: Range<u64>) -> OpId {
        let op = OpId(self.operations.len() as u32);
        self.operations.push(operation);
        for (area, histories) in &mut self.areas {
            for at in area.indices(&sectors) {
                histories[at].candidates.push(op);
            }
        }
        op
    }

    /// A copy of what is `expected`, and sure, to `sectors` is asked; `None` where some of it was once written just there, so that
    /// nobody could tell.
    pub fn begin_copy(
        &mut self,
        expected: &Expectation,
        sectors: Range<u64>,
        is_fua: bool,
        step: Step,
    ) -> Option<OpId> {
        let places = expected.sectors().zip(sectors.clone());
        let values = places.zip(&expected.values).map(|((from, to), value)| value.moved(from, to));
        let values: Vec<Value> = values.collect();
        if values.iter().any(|value| matches!(value, Value::Written(_))) {
            return None;
        }
        let is_zero = values.iter().all(|value| *value == Value::Zero);
        let first_sector = sectors.start;
        let op = self.begin(Operation { is_zero, is_fua, ..Operation::asked(step, &sectors) }, sectors);
        self.copies.insert(op, Copied { first_sector, values });
        Some(op)
    }

    /// A change was answered, well or not.
    pub fn end(&mut self, op: OpId, step: Step, is_acked: bool) {
        let operation = &mut self.operations[op.0 as usize];
        operation.ended = Some(step);
        operation.is_acked = is_acked;
    }

    /// A change was refused before anything was done: it never happens.
    pub fn refuse(&mut self, op: OpId) {
        for (_, histories) in &mut self.areas {
            for history in histories {
                history.candidates.retain(|candidate| *candidate != op);
            }
        }
    }

    /// A flush asked at `started` was answered well.
    pub fn flushed(&mut self, started: Step) {
        self.durable_before = self.durable_before.max(started);
    }

    /// A resize is asked. Shrinking is a zeroing of the tail too, which the caller begins.
    pub fn begin_resize(&mut self, size_bytes: u64) {
        self.sizes_possible.push(size_bytes);
        self.sizes_ever.push(size_bytes);
    }

    /// A resize was answered.
    pub fn end_resize(&mut self, size_bytes: u64, is_done: bool, is_refused: bool) {
        if is_done {
            self.size_bytes = size_bytes;
        }
        let at = self.sizes_possible.iter().position(|possible| *possible == size_bytes);
        if let Some(at) = at.filter(|_| is_done || is_refused) {
            self.sizes_possible.remove(at);
        }
    }

    /// Checks what a read asked at `started` returned: `bytes` from `first_sector` on.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_read(&mut self, first_sector: u64, bytes: &[u8], started: Step, now: Step) -> Result<(), String> {
        let sectors = (first_sector..).zip(bytes.chunks_exact(SECTOR_LEN));
        let values: Vec<Value> = sectors.map(|(sector, bytes)| pattern::read(sector, bytes)).collect();
        self.check_values(first_sector, &values, started, now)
    }

    fn check_values(&mut self, first_sector: u64, values: &[Value], started: Step, now: Step) -> Result<(), String> {
        let mut block = Readback::of_block();
        let end = first_sector + values.len() as u64;
        for (sector, value) in (first_sector..).zip(values.iter().copied()) {
            let Some(history) = self.history(sector) else {
                if value != Value::Zero {
                    return Err(format!("sector {sector}, never written, reads as {value:?}"));
                }
                continue;
            };
            if !self.is_allowed(history, (sector, value), started) {
                return Err(format!(
                    "sector {sector} read as {value:?}, asked at {started}, answered at {now}; {}",
                    self.story(sector)
                ));
            }
            self.gather(&mut block, sector, value)?;
            if sector % BLOCK_SECTORS == BLOCK_SECTORS - 1 || sector + 1 == end {
                self.judge_block(&block)?;
                block = Readback::of_block();
            }
            self.note_seen(sector, value, now);
        }
        Ok(())
    }

    /// Checks the extents of `sectors`, asked at `started`: a hole must be able to read as zeros.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_extents(&self, sectors: Range<u64>, extents: &[Extent], started: Step) -> Result<(), String> {
        let mut at = sectors.start;
        let mut before = None;
        for extent in extents {
            if extent.len == 0 || !extent.len.is_multiple_of(SECTOR_BYTES) || before == Some(extent.is_data) {
                return Err(format!(
                    "extents from sector {} are empty, uneven or not joined: {extents:?}",
                    sectors.start
                ));
            }
            before = Some(extent.is_data);
            let end = at + extent.len / SECTOR_BYTES;
            if !extent.is_data {
                self.check_hole(at..end, started)?;
            }
            at = end;
        }
        if extents.is_empty() || at > sectors.end {
            return Err(format!("extents of sectors {sectors:?} end at {at}"));
        }
        Ok(())
    }

    fn check_hole(&self, sectors: Range<u64>, started: Step) -> Result<(), String> {
        for (area, histories) in &self.areas {
            for at in area.indices(&sectors) {
                let sector = area.first_sector + at as u64;
                if !self.is_allowed(&histories[at], (sector, Value::Zero), started) {
                    return Err(format!("sector {sector} is told as a hole; {}", self.story(sector)));
                }
            }
        }
        Ok(())
    }

    /// Whether, seen from now, a sector of `sectors` cannot be zeros.
    #[must_use]
    pub fn has_data(&self, sectors: Range<u64>, now: Step) -> bool {
        self.check_hole(sectors, now).is_err()
    }

    fn history(&self, sector: u64) -> Option<&History> {
        self.areas.iter().find_map(|(area, histories)| Some(&histories[area.index(sector)?]))
    }

    fn history_mut(&mut self, sector: u64) -> Option<&mut History> {
        self.areas.iter_mut().find_map(|(area, histories)| Some(&mut histories[area.index(sector)?]))
    }

    fn operation(&self, op: OpId) -> Operation {
        self.operations[op.0 as usize].settled(self.settled_at)
    }

    /// Whether `sector` ever held `value`.
    fn was_ever(&self, sector: u64, value: Value) -> bool {
        let write = self.op_of(value).and_then(|op| self.operations.get(op.0 as usize));
        let is_copied = || self.copies.values().any(|copied| copied.value_at(sector) == value);
        value == Value::Zero || write.is_some_and(|op| (op.sectors.0..op.sectors.1).contains(&sector)) || is_copied()
    }

    /// The write of this volume that `value` is of.
    fn op_of(&self, value: Value) -> Option<OpId> {
        match value {
            Value::Written(Stamp(stamp)) => Some(OpId(stamp as u32)).filter(|op| stamp >> 32 == self.tag_of(*op)),
            Value::Copied(..) | Value::Zero | Value::Foreign => None,
        }
    }

    /// The tag that the writes of this operation bear.
    fn tag_of(&self, op: OpId) -> u64 {
        self.tags.iter().rev().find(|(first, _)| *first <= op.0).map_or(0, |(_, tag)| *tag)
    }

    /// What the sectors bear that it writes.
    fn stamp_of(&self, op: OpId) -> Stamp {
        Stamp(self.tag_of(op) << 32 | u64::from(op.0))
    }

    /// What an operation puts into a sector.
    fn value_at(&self, op: OpId, sector: u64) -> Value {
        match self.copies.get(&op) {
            Some(copied) => copied.value_at(sector),
            None if self.operation(op).is_zero => Value::Zero,
            None => Value::Written(self.stamp_of(op)),
        }
    }

    fn is_allowed(&self, history: &History, (sector, value): (u64, Value), started: Step) -> bool {
        self.sources(history, (sector, value)).any(|source| !self.is_overwritten(history, source, started))
    }

    /// The operations that may have given a sector this value.
    fn sources<'a>(&'a self, history: &'a History, (sector, value): (u64, Value)) -> impl Iterator<Item = OpId> + 'a {
        history.candidates.iter().copied().filter(move |candidate| self.value_at(*candidate, sector) == value)
    }

    /// Whether another operation, whose effect was there before `started`, came after `op`.
    fn is_overwritten(&self, history: &History, op: OpId, started: Step) -> bool {
        let op = self.operation(op);
        history.candidates.iter().any(|other| {
            let is_there = self.effective(history, *other).is_some_and(|effective| effective < started);
            is_there && op.is_before(&self.operation(*other))
        })
    }

    /// From when on the effect of `op` on this sector must be seen.
    fn effective(&self, history: &History, op: OpId) -> Option<Step> {
        let acked = self.operation(op).acked();
        [acked, history.seen_at(op)].into_iter().flatten().min()
    }

    fn note_seen(&mut self, sector: u64, value: Value, now: Step) {
        let Some(history) = self.history(sector).filter(|_| value != Value::Zero) else { return };
        let sources: Vec<OpId> = self.sources(history, (sector, value)).collect();
        let [op] = sources[..] else { return };
        if let Some(history) = self.history_mut(sector) {
            history.note_seen(op, now);
        }
    }

    /// What happened to a sector, for a person.
    fn story(&self, sector: u64) -> String {
        let mut story = format!("sector {sector} of volume {:?} (settled at {}):", self.tags, self.settled_at);
        let Some(history) = self.history(sector) else { return story };
        for candidate in &history.candidates {
            let operation = self.operation(*candidate);
            let what = if operation.is_zero { "zeroed" } else { "written" };
            let _ = write!(story, " [{what} by {:x}: {operation}]", candidate.0);
            if let Some(seen) = history.seen_at(*candidate) {
                let _ = write!(story, " (seen {seen})");
            }
        }
        story
    }
}
