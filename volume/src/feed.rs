//! The log as it was written, batch by batch, for a secondary that lacks the end of it: it appends them as it does those that
//! come while they are written.

use crate::buffer::Buffer;
use crate::engine::is_whole;
use crate::error::DiskFault;
use crate::format::{BatchHeader, Superblock, decode_batch};
use crate::io::ToPeer;
use crate::pool::SegmentRow;
use crate::recover::SlotSource;
use crate::store::PoolReader;
use std::fmt;
use units::{Epoch, Lsn, SegmentId};

/// Why the log cannot be told from an operation on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedError {
    /// It is not there any more as it was written: the segment was moved, or is gone.
    Gone(Lsn),
    /// The batch that begins with it is not what was written.
    Rotten(Lsn),
    /// The disk does not give it.
    Disk(DiskFault),
}

impl From<DiskFault> for FeedError {
    fn from(fault: DiskFault) -> Self {
        Self::Disk(fault)
    }
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(lsn) => write!(f, "the log from operation {lsn} on is not kept any more"),
            Self::Rotten(lsn) => write!(f, "the batch of operation {lsn} is not what was written"),
            Self::Disk(fault) => write!(f, "{fault}"),
        }
    }
}

impl std::error::Error for FeedError {}

/// Where a batch ends, and what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchEnd {
    /// Its last operation.
    pub lsn: Lsn,
    /// The right under which it was written.
    pub epoch: Epoch,
    /// The segment that it is in; none where there is no batch.
    pub segment: Option<SegmentId>,
    /// CRC of its header, which covers that of the one before.
    pub chain: u32,
}

/// A place in a log, which goes on batch by batch.
#[derive(Debug, Clone, Copy)]
pub struct Feed {
    next: Lsn,
    /// The segment that `next` is in, and the block where its batch begins.
    place: Option<(SegmentId, u32)>,
}

/// A batch that was found, and where.
struct Found {
    header: BatchHeader,
    chain: u32,
    row: SegmentRow,
}

impl Feed {
    /// A place before the operation `next`, which begins a batch.
    #[must_use]
    pub const fn new(next: Lsn) -> Self {
        Self { next, place: None }
    }

    /// The operation that comes next.
    #[must_use]
    pub const fn next_lsn(&self) -> Lsn {
        self.next
    }

    /// Whether a batch may go to the peer as it is appended; then it is passed. Others have to go before it, else. One that is
    /// appended again, since the disk failed it, takes the place back.
    pub fn passes(&mut self, batch: &ToPeer) -> bool {
        let is_next = batch.lsns.0 <= self.next;
        if is_next {
            self.next = batch.lsns.1.next();
            self.place = Some(batch.end);
        }
        is_next
    }

    /// The next batch of a volume whose segments are `rows`, as [`crate::io::Event::Replicated`] takes it: `None` when it ends
    /// behind `up_to`. What is read has been written: `up_to` is not more than the volume has appended.
    ///
    /// # Errors
    /// [`FeedError`]; the place stays.
    pub fn next_batch(
        &mut self,
        reader: &dyn PoolReader,
        superblock: &Superblock,
        (rows, up_to): (&[SegmentRow], Lsn),
    ) -> Result<Option<Vec<Buffer>>, FeedError> {
        if self.next > up_to {
            return Ok(None);
        }
        let Found { header, row, .. } = self.find(reader, superblock, rows)?;
        if header.last_lsn() > up_to {
            return Ok(None);
        }
        let slot = row.own_slot().ok_or(FeedError::Gone(self.next))?;
        let mut source = SlotSource::new(reader, superblock.geometry, slot);
        let mut buffers = vec![Buffer::copy_of(source.blocks(header.block, header.header_blocks())?)];
        let mut at = header.block + header.header_blocks();
        for operation in header.operations.iter().filter(|operation| operation.source().is_none()) {
            if operation.payload_blocks() > 0 {
                buffers.push(Buffer::copy_of(source.blocks(at, operation.payload_blocks())?));
                at += operation.payload_blocks();
            }
        }
        if !is_whole(&header, &buffers) {
            return Err(FeedError::Rotten(self.next));
        }
        self.pass(&header);
        Ok(Some(buffers))
    }

    /// The ends of all batches from the place on, up to `up_to`.
    ///
    /// # Errors
    /// [`FeedError`].
    pub fn ends(
        mut self,
        reader: &dyn PoolReader,
        superblock: &Superblock,
        (rows, up_to): (&[SegmentRow], Lsn),
    ) -> Result<Vec<BatchEnd>, FeedError> {
        let mut ends = Vec::new();
        while self.next <= up_to {
            let Found { header, chain, .. } = self.find(reader, superblock, rows)?;
            if header.last_lsn() > up_to {
                break;
            }
            let (lsn, epoch, segment) = (header.last_lsn(), header.epoch, Some(header.segment));
            ends.push(BatchEnd { lsn, epoch, segment, chain });
            self.pass(&header);
        }
        Ok(ends)
    }

    const fn pass(&mut self, header: &BatchHeader) {
        self.next = header.last_lsn().next();
        self.place = Some((header.segment, header.block + header.total_blocks()));
    }

    /// Finds the batch of `next`: in the newest segment that begins at it or before, since what an older one has of it was given up.
    fn find(
        &mut self,
        reader: &dyn PoolReader,
        superblock: &Superblock,
        rows: &[SegmentRow],
    ) -> Result<Found, FeedError> {
        let gone = FeedError::Gone(self.next);
        let row = rows.iter().filter(|row| row.first_lsn <= self.next).max_by_key(|row| row.segment).ok_or(gone)?;
        if row.last_lsn.is_some_and(|last| last < self.next) {
            return Err(gone);
        }
        let slot = row.own_slot().ok_or(gone)?;
        if self.place.is_some_and(|(segment, _)| segment < row.segment) && row.first_lsn < self.next {
            // What was passed was given up, and appended again in a newer segment.
            self.next = row.first_lsn;
        }
        let mut source = SlotSource::new(reader, superblock.geometry, slot);
        let mut block = self.place.filter(|(segment, _)| *segment == row.segment).map_or(1, |(_, block)| block);
        loop {
            if block >= source.slot_blocks() {
                return Err(gone);
            }
            let decoded = source.with_header_at(block, decode_batch)?;
            let (header, chain) = decoded.map_err(|_| FeedError::Rotten(self.next))?;
            if header.segment != row.segment || header.block != block || header.first_lsn > self.next {
                return Err(gone);
            }
            if header.first_lsn == self.next {
                return Ok(Found { header, chain, row: *row });
            }
            block += header.total_blocks();
        }
    }
}
