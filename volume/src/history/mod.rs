//! A volume as it was at a moment: what its log says from the end of a generation on, up to the first mark that tells that
//! moment or a later one, as changes to be made to a clone of that generation's end.
//!
//! The segments are read as recovery reads them, and are gathered in a map, so that of each block only the newest content
//! is copied; when enough has gathered the changes are given out, and the rest follows. Each block is checked as it is
//! read. What is missing between two operations is told, never passed over.

use crate::buffer::Buffer;
use crate::error::DiskFault;
use crate::format::{Operation, OperationKind, Superblock, block_check};
use crate::map::{Found, Location, Map, PAGE_BLOCKS, Page, PageWrite};
use crate::pool::{Boundary, ScrubTarget};
use crate::recover::{Damage, Wanted, read_segment, replay_operation};
use crate::request::PIECE_BYTES_MAX;
use crate::store::PoolReader;
use std::collections::BTreeMap;
use std::fmt;
use units::{BLOCK_BYTES, BLOCK_LEN, ByteRange, Lsn, SegmentId, SlotIndex};

/// Bytes of changed pages of a map that are gathered before the changes are given out.
const GATHERED_BYTES_MAX: usize = 32 << 20;

/// Why the past cannot be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryError {
    /// The log from this operation on is not there any more.
    Gone(Lsn),
    /// A segment cannot be read.
    Damage(Damage),
    /// A block is not what was written.
    Rotten(SegmentId, u32),
    /// The disk does not give a block.
    Disk(DiskFault),
    /// Whoever takes the changes wants no more.
    Stopped,
}

impl From<DiskFault> for HistoryError {
    fn from(fault: DiskFault) -> Self {
        Self::Disk(fault)
    }
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(lsn) => write!(f, "the log from operation {lsn} on is not kept any more"),
            Self::Damage(damage) => write!(f, "{damage}"),
            Self::Rotten(segment, block) => write!(f, "block {block} of segment {segment} is not what was written"),
            Self::Disk(fault) => write!(f, "{fault}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl std::error::Error for HistoryError {}

/// A change to be made to the clone, in order.
#[derive(Debug)]
pub enum Change {
    /// It has this size.
    Resize(u64),
    /// These bytes are zeros.
    Zero(ByteRange),
    /// These bytes are those.
    Write(ByteRange, Buffer),
}

/// The replay of a log.
#[derive(Debug)]
pub struct Replay {
    next_lsn: Lsn,
    /// The first mark that tells this or a later time ends it.
    until_ms: u64,
    has_ended: bool,
    size_bytes: u64,
    /// The size that the clone has.
    clone_bytes: u64,
    map: Map,
    slots: BTreeMap<SegmentId, SlotIndex>,
}

/// Where the pool is read, and what with.
type Source<'a> = (&'a dyn PoolReader, &'a Superblock);

impl Replay {
    /// One that begins behind the end of a generation, which the clone shows, and ends at the first mark of `until_ms` or
    /// later.
    #[must_use]
    pub fn new(base: Boundary, until_ms: u64) -> Self {
        Self {
            next_lsn: base.lsn.next(),
            until_ms,
            has_ended: false,
            size_bytes: base.size_bytes,
            clone_bytes: base.size_bytes,
            map: Map::new(false),
            slots: BTreeMap::new(),
        }
    }

    /// Reads `targets`, which are the volume's segments behind the base, oldest first, and gives out what they change.
    ///
    /// # Errors
    /// [`HistoryError`]; what was given out before is of no use.
    pub fn run(
        mut self,
        source: Source<'_>,
        targets: &[ScrubTarget],
        give: &mut dyn FnMut(Change) -> Result<(), HistoryError>,
    ) -> Result<(), HistoryError> {
        for target in targets {
            if self.has_ended {
                break;
            }
            self.take(source, target)?;
            if self.map.dirty_bytes() > GATHERED_BYTES_MAX {
                self.give_out(source, give)?;
            }
        }
        self.give_out(source, give)
    }

    /// Takes in what a segment says.
    fn take(&mut self, (reader, superblock): Source<'_>, target: &ScrubTarget) -> Result<(), HistoryError> {
        let log = read_segment(&Wanted::of_target(reader, superblock, target)).map_err(HistoryError::Damage)?;
        // Its slot is another's by now, or void.
        if log.end() <= target.durable_lsn {
            return Err(HistoryError::Gone(self.next_lsn));
        }
        if log.end() <= self.next_lsn {
            return Ok(());
        }
        // One that was moved has only what pages name.
        let own = log.row.own_slot().filter(|_| log.row.first_lsn <= self.next_lsn);
        let slot = own.ok_or(HistoryError::Gone(self.next_lsn))?;
        self.slots.insert(log.row.segment, slot);
        let mut taken = Ok(());
        log.each(|lsn, operation, block, checks| {
            if taken.is_ok() && !self.has_ended && lsn == self.next_lsn {
                taken = self.take_operation(lsn, operation, log.row.segment, (block, checks));
            }
        });
        taken
    }

    fn take_operation(
        &mut self,
        lsn: Lsn,
        operation: &Operation,
        segment: SegmentId,
        payload: (u32, &[u32]),
    ) -> Result<(), HistoryError> {
        match operation.kind {
            OperationKind::TimeMark { wall_ms, .. } if wall_ms >= self.until_ms => {
                self.has_ended = true;
                return Ok(());
            }
            // The clone has generations of its own.
            OperationKind::TimeMark { .. } | OperationKind::Snapshot { .. } => {}
            OperationKind::Resize(size_bytes) => {
                self.size_bytes = size_bytes;
                replay_operation(&mut self.map, lsn, operation, segment, payload);
            }
            // While history is kept copies are writes; what is lent is in parcels alone.
            OperationKind::Copy { .. } | OperationKind::Lent => return Err(HistoryError::Gone(lsn)),
            OperationKind::Write | OperationKind::Trim | OperationKind::WriteZeroes => {
                replay_operation(&mut self.map, lsn, operation, segment, payload);
            }
        }
        self.next_lsn = lsn.next();
        Ok(())
    }

    /// Gives out what has gathered.
    fn give_out(
        &mut self,
        source: Source<'_>,
        give: &mut dyn FnMut(Change) -> Result<(), HistoryError>,
    ) -> Result<(), HistoryError> {
        let mut map = std::mem::replace(&mut self.map, Map::new(false));
        if self.size_bytes > self.clone_bytes {
            self.clone_bytes = self.size_bytes;
            give(Change::Resize(self.size_bytes))?;
        }
        while map.is_dirty() {
            let capture = map.capture(self.next_lsn, usize::MAX);
            for write in capture.writes {
                match write {
                    PageWrite::Drop { first, end, .. } => {
                        self.zero((first.0 * PAGE_COUNT, (end.0 - first.0) * PAGE_COUNT), give)?;
                    }
                    PageWrite::Put { page, encoded, .. } => {
                        let content = Page::decode(&encoded).map_err(|_| HistoryError::Gone(self.next_lsn))?;
                        self.give_page(source, (page.0 * PAGE_COUNT, &content), give)?;
                    }
                    PageWrite::Resize { .. } => {}
                }
            }
            map.write_back_ended(true);
        }
        if self.size_bytes < self.clone_bytes {
            self.clone_bytes = self.size_bytes;
            give(Change::Resize(self.size_bytes))?;
        }
        Ok(())
    }

    /// What a page does not mention is as it was, or has been dropped just before.
    fn give_page(
        &self,
        source: Source<'_>,
        (page_first, page): (u64, &Page),
        give: &mut dyn FnMut(Change) -> Result<(), HistoryError>,
    ) -> Result<(), HistoryError> {
        let mut run: Option<Run> = None;
        let mut result = Ok(());
        page.visit(0, PAGE_BLOCKS, |first, count, found| {
            if result.is_err() {
                return;
            }
            let first = page_first + u64::from(first);
            result = match found {
                Found::Hole => Ok(()),
                Found::Zero => self.zero((first, u64::from(count)), give),
                Found::Data { location, checks } => {
                    let next = Run::of(first, location, checks);
                    match &mut run {
                        Some(run) if run.takes(&next) => {
                            run.checks.extend(next.checks);
                            Ok(())
                        }
                        _ => run.replace(next).map_or(Ok(()), |run| self.give_run(source, &run, give)),
                    }
                }
            };
        });
        result?;
        run.map_or(Ok(()), |run| self.give_run(source, &run, give))
    }

    fn zero(
        &self,
        (first, count): (u64, u64),
        give: &mut dyn FnMut(Change) -> Result<(), HistoryError>,
    ) -> Result<(), HistoryError> {
        let end = first.saturating_add(count).saturating_mul(BLOCK_BYTES);
        self.within(first, end).map_or(Ok(()), |range| give(Change::Zero(range)))
    }

    /// Reads a run, and checks it.
    fn give_run(
        &self,
        (reader, superblock): Source<'_>,
        run: &Run,
        give: &mut dyn FnMut(Change) -> Result<(), HistoryError>,
    ) -> Result<(), HistoryError> {
        let Location { segment, block } = run.location;
        let slot = self.slots.get(&segment).ok_or(HistoryError::Gone(self.next_lsn))?;
        let mut buffer = Buffer::zeroed(run.checks.len() * BLOCK_LEN);
        reader.read_at(superblock.geometry.block_offset(*slot, u32::from(block)), buffer.as_mut_slice())?;
        for ((content, at), check) in buffer.as_slice().chunks_exact(BLOCK_LEN).zip(u32::from(block)..).zip(&run.checks)
        {
            if block_check(segment, at, content) != *check {
                return Err(HistoryError::Rotten(segment, at));
            }
        }
        let end = run.first.saturating_mul(BLOCK_BYTES).saturating_add(buffer.len() as u64);
        let Some(range) = self.within(run.first, end) else { return Ok(()) };
        buffer.set_len(usize::try_from(range.len()).unwrap_or(0));
        give(Change::Write(range, buffer))
    }

    /// The bytes from a block on to `end` that the clone has.
    fn within(&self, first: u64, end: u64) -> Option<ByteRange> {
        let offset = first.checked_mul(BLOCK_BYTES)?;
        let len = end.min(self.clone_bytes).checked_sub(offset).filter(|len| *len > 0)?;
        ByteRange::new(offset, len).ok()
    }
}

/// Blocks of a page.
const PAGE_COUNT: u64 = PAGE_BLOCKS as u64;

/// Blocks behind each other, in the volume and in a slot.
#[derive(Debug)]
struct Run {
    first: u64,
    location: Location,
    checks: Vec<u32>,
}

impl Run {
    fn of(first: u64, location: Location, checks: &[u8]) -> Self {
        let (checks, _) = checks.as_chunks::<4>();
        Self { first, location, checks: checks.iter().map(|check| u32::from_le_bytes(*check)).collect() }
    }

    /// Whether another run goes on where this one ends.
    fn takes(&self, next: &Self) -> bool {
        let count = self.checks.len();
        let by = u32::try_from(count).unwrap_or(u32::MAX);
        (count + next.checks.len()) * BLOCK_LEN <= PIECE_BYTES_MAX
            && self.first + count as u64 == next.first
            && self.location.plus(by) == next.location
    }
}

#[cfg(test)]
mod tests;
