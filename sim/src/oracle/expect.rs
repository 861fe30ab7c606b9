//! What compare-and-writes and or-writes are asked with, and what their answers may be.
//!
//! A compare-and-write that wrote is a read of what it expected, at a moment between request and answer, and a write; and
//! what it replaced is gone, so that no other may have replaced the same. One that did not write never happened.

use super::{History, OpId, Oracle, Step};
use crate::pattern::{SECTOR_LEN, Stamp, Value};
use std::ops::Range;

/// What sectors hold as far as answers tell.
#[derive(Debug, Clone)]
pub struct Expectation {
    first_sector: u64,
    /// Of each sector.
    pub(crate) values: Vec<Value>,
    /// Whether nothing else can be there, unless something under way changes it.
    pub(crate) is_sure: bool,
}

impl Expectation {
    pub(crate) fn sectors(&self) -> Range<u64> {
        self.first_sector..self.first_sector + self.values.len() as u64
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.values.len() * SECTOR_LEN];
        for ((sector, value), place) in self.sectors().zip(&self.values).zip(bytes.chunks_exact_mut(SECTOR_LEN)) {
            value.put(sector, place);
        }
        bytes
    }
}

impl Oracle {
    /// What `sectors` hold, seen from now. Where several things may be there, the last that was answered.
    #[must_use]
    pub fn expected(&self, sectors: &Range<u64>, now: Step) -> Expectation {
        let mut is_sure = true;
        let mut values = Vec::new();
        for sector in sectors.clone() {
            let Some(history) = self.history(sector) else {
                values.push(Value::Zero);
                continue;
            };
            let may_be = |op: &&OpId| !self.is_overwritten(history, **op, now);
            let possible: Vec<OpId> = history.candidates.iter().filter(may_be).copied().collect();
            let last = possible.iter().max_by_key(|op| self.operation(**op).acked());
            let value = last.map_or(Value::Zero, |op| self.value_at(*op, sector));
            is_sure &= possible.iter().all(|op| self.value_at(*op, sector) == value);
            values.push(value);
        }
        Expectation { first_sector: sectors.start, values, is_sure }
    }

    /// An or-write of `expected` sectors is asked that puts a pattern where zeros are and changes nothing elsewhere.
    pub fn begin_or(&mut self, expected: &Expectation, is_fua: bool, step: Step) -> (OpId, Stamp) {
        let (op, stamp) = self.begin_write(expected.sectors(), is_fua, step);
        for (sector, value) in expected.sectors().zip(&expected.values) {
            if *value != Value::Zero
                && let Some(history) = self.history_mut(sector)
            {
                history.candidates.retain(|candidate| *candidate != op);
            }
        }
        (op, stamp)
    }

    /// Compare-and-write `op`, asked at `started`, found what it expected.
    ///
    /// # Errors
    /// When it cannot have.
    pub fn check_compared(&mut self, op: OpId, expected: &Expectation, started: Step, now: Step) -> Result<(), String> {
        self.check_values(expected.first_sector, &expected.values, started, now)?;
        for (sector, value) in expected.sectors().zip(&expected.values) {
            let Some(source) = self.op_of(*value) else { continue };
            if let Some(other) = self.replaced.insert((sector, source), op) {
                let story = self.story(sector);
                return Err(format!("P3: {:x} and {:x} both replaced {:x}; {story}", other.0, op.0, source.0));
            }
        }
        Ok(())
    }

    /// Whether no change of these sectors but `own` was under way at any time since `started`.
    #[must_use]
    pub fn was_quiet(&self, sectors: Range<u64>, own: Option<OpId>, started: Step) -> bool {
        let is_over = |op: &OpId| self.operations[op.0 as usize].ended.is_some_and(|ended| ended < started);
        let is_quiet = |history: &History| history.candidates.iter().all(|op| Some(*op) == own || is_over(op));
        sectors.into_iter().filter_map(|sector| self.history(sector)).all(is_quiet)
    }
}
