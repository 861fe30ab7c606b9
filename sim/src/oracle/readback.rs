//! A whole volume read after a crash: it must be the state after some prefix of its log, with everything in it that must
//! not be lost.
//!
//! Each sector tells which operation it shows, and so which later ones it lacks. One that is lacked must not have been
//! promised; and nothing that was asked after a lacked one had been answered may show anywhere.

use super::history::{History, INITIAL, OpId, Step};
use super::{BLOCK_SECTORS, Oracle};
use crate::pattern::{self, SECTOR_LEN, Value};

/// What a crash may have taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Nothing that was answered: the process was killed, or stopped.
    Nothing,
    /// What no flush had covered: the power was cut, or a sync failed.
    Unflushed,
    /// Anything from some place in the log on: the disk lied.
    Anything,
}

/// What the sectors read so far show.
#[derive(Debug, Default)]
pub struct Readback {
    shown: Vec<(OpId, u64)>,
    missing: Vec<(OpId, u64)>,
    values: Vec<(u64, Option<Value>)>,
    /// Sectors may hold anything that they ever held: the disk lied, and the index that knew is gone.
    may_be_old: bool,
}

impl Readback {
    pub(super) fn of_block() -> Self {
        Self::default()
    }
}

impl Oracle {
    /// Begins to read a volume after a crash. Where it `may_be_old`, sectors may hold anything that they ever held.
    #[must_use]
    pub fn begin_readback(&self, may_be_old: bool) -> Readback {
        Readback { may_be_old, ..Readback::default() }
    }

    /// Takes in sectors that were read; `None` where they could not be.
    ///
    /// # Errors
    /// A value that was never written there, or a block that is torn.
    pub fn take_readback(
        &self,
        readback: &mut Readback,
        sectors: std::ops::Range<u64>,
        bytes: Option<&[u8]>,
    ) -> Result<(), String> {
        let Some(bytes) = bytes else {
            readback.values.extend(sectors.map(|sector| (sector, None)));
            return Ok(());
        };
        let mut block = Readback::of_block();
        for (sector, bytes) in sectors.zip(bytes.chunks_exact(SECTOR_LEN)) {
            let value = pattern::read(sector, bytes);
            if readback.may_be_old && self.was_ever(sector, value) {
                readback.values.push((sector, Some(value)));
                continue;
            }
            self.gather(&mut block, sector, value)?;
            if sector % BLOCK_SECTORS == BLOCK_SECTORS - 1 {
                self.judge_block(&block)?;
                block = Readback::of_block();
            }
            self.gather(readback, sector, value)?;
            readback.values.push((sector, Some(value)));
        }
        Ok(())
    }

    /// Ends it: judges the whole, and holds the volume to what was read from now on. When it `is_ordered`, nothing is there
    /// that came after something lost.
    ///
    /// # Errors
    /// What is lost that must not be, or there that must not be.
    pub fn end_readback(
        &mut self,
        readback: Readback,
        size_bytes: u64,
        (loss, is_ordered): (Loss, bool),
        now: Step,
    ) -> Result<(), String> {
        self.judge_losses(&readback, loss)?;
        if is_ordered {
            self.judge_prefix(&readback.shown, &readback.missing)?;
        }
        self.judge_size(size_bytes, loss)?;
        self.settle(readback.values, size_bytes, now);
        Ok(())
    }

    /// Adds what one sector tells.
    pub(super) fn gather(&self, readback: &mut Readback, sector: u64, value: Value) -> Result<(), String> {
        let Some(history) = self.history(sector) else {
            let is_zero = value == Value::Zero;
            return if is_zero { Ok(()) } else { Err(format!("sector {sector}, never written, reads as {value:?}")) };
        };
        if let [only] = history.candidates.as_slice()
            && self.value_at(*only, sector) == value
        {
            readback.shown.push((*only, sector));
            return Ok(());
        }
        let sources: Vec<OpId> = self.sources(history, (sector, value)).collect();
        if sources.is_empty() {
            return Err(format!("sector {sector} reads as {value:?}; {}", self.story(sector)));
        }
        if let [only] = sources.as_slice() {
            readback.shown.push((*only, sector));
        }
        readback.missing.extend(self.missing(history, (sector, value), &sources).map(|op| (op, sector)));
        Ok(())
    }

    /// The operations of a sector that came after whatever it shows.
    fn missing<'a>(
        &'a self,
        history: &'a History,
        (sector, value): (u64, Value),
        sources: &'a [OpId],
    ) -> impl Iterator<Item = OpId> + 'a {
        history.candidates.iter().copied().filter(move |other| {
            let later = self.operation(*other);
            let is_hidden = self.value_at(*other, sector) == value;
            !is_hidden && sources.iter().all(|source| source != other && self.operation(*source).is_before(&later))
        })
    }

    /// P3: no operation shows in one part of a block and is lacked in another.
    pub(super) fn judge_block(&self, block: &Readback) -> Result<(), String> {
        for (op, sector) in &block.shown {
            if let Some((_, other)) = block.missing.iter().find(|(missing, _)| missing == op) {
                return Err(format!(
                    "P3: a block is torn: write {:x} shows in sector {sector} and not in {other}; {}; {}",
                    op.0,
                    self.story(*sector),
                    self.story(*other)
                ));
            }
        }
        self.judge_prefix(&block.shown, &block.missing)
    }

    fn judge_losses(&self, readback: &Readback, loss: Loss) -> Result<(), String> {
        for (op, sector) in &readback.missing {
            let operation = self.operation(*op);
            let is_promised = match loss {
                Loss::Nothing => operation.is_acked || self.history(*sector).is_some_and(|h| h.seen_at(*op).is_some()),
                Loss::Unflushed => {
                    let is_flushed = operation.ended.is_some_and(|ended| ended < self.durable_before);
                    operation.is_acked && (operation.is_fua || is_flushed)
                }
                Loss::Anything => false,
            };
            if is_promised {
                return Err(format!(
                    "P1: {:x} is lost after a crash that may take {loss:?}; flushed before {}; {}",
                    op.0,
                    self.durable_before,
                    self.story(*sector)
                ));
            }
        }
        Ok(())
    }

    fn judge_prefix(&self, shown: &[(OpId, u64)], missing: &[(OpId, u64)]) -> Result<(), String> {
        let latest = shown.iter().max_by_key(|(op, _)| self.operation(*op).asked);
        let acked_end = |op: OpId| self.operation(op).ended.filter(|_| self.operation(op).is_acked);
        let earliest = missing.iter().filter_map(|(op, at)| Some((acked_end(*op)?, *op, *at))).min();
        if let (Some((later, there)), Some((ended, lacked, here))) = (latest, earliest)
            && ended < self.operation(*later).asked
        {
            return Err(format!(
                "no prefix of the log: {:x} is lacked while the later {:x} shows; {}; {}",
                lacked.0,
                later.0,
                self.story(here),
                self.story(*there)
            ));
        }
        Ok(())
    }

    fn judge_size(&self, size_bytes: u64, loss: Loss) -> Result<(), String> {
        let is_possible = size_bytes == self.size_bytes || self.sizes_possible.contains(&size_bytes);
        let is_old = loss == Loss::Anything && self.sizes_ever.contains(&size_bytes);
        if is_possible || is_old {
            return Ok(());
        }
        Err(format!("P1: the volume has {size_bytes} bytes, not {} or {:?}", self.size_bytes, self.sizes_possible))
    }

    /// An operation that put into a sector what it has.
    fn op_showing(&self, sector: u64, value: Value) -> OpId {
        let sources = self.history(sector).into_iter().flat_map(|history| self.sources(history, (sector, value)));
        let copies = self.copies.iter().filter(|(_, copied)| copied.value_at(sector) == value).map(|(op, _)| *op);
        self.op_of(value).or_else(|| sources.chain(copies).last()).unwrap_or(INITIAL)
    }

    fn settle(&mut self, values: Vec<(u64, Option<Value>)>, size_bytes: u64, now: Step) {
        let settled: Vec<(u64, Option<OpId>)> = values
            .into_iter()
            .map(|(sector, value)| (sector, value.map(|value| self.op_showing(sector, value))))
            .collect();
        for (area, histories) in &mut self.areas {
            for (sector, op) in &settled {
                if let (Some(at), Some(op)) = (area.index(*sector), op) {
                    histories[at] = History::settled(*op);
                }
            }
            // Nothing lies beyond the end.
            for at in area.indices(&(size_bytes / units::SECTOR_BYTES..u64::MAX)) {
                histories[at] = History::settled(INITIAL);
            }
        }
        self.size_bytes = size_bytes;
        self.sizes_possible.clear();
        self.settled_at = now;
        // What was lost may have replaced what is there again.
        self.replaced.clear();
    }
}

impl Step {
    /// The moment before which everything lies.
    pub const ZERO: Self = Self(0);
}
