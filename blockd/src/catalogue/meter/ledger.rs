//! The ledger's volume: how the ledger, which reads and writes nothing itself, is found, appended to and read.

use super::super::{CatalogueError, ask};
use crate::shard::ShardHandle;
use metering::ledger::{
    BlockWrite, Date, HeadPlace, Ledger, LedgerId, LineReader, NewEntry, PublicKey, Recovery, SigningKey, is_droppable,
};
use smallvec::smallvec;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use units::{BLOCK_BYTES, BLOCK_LEN, ByteRange, TenantId, VolumeId};
use volume::buffer::Buffer;
use volume::error::{Error, ErrorKind};
use volume::request::{Completion, Request};

/// Bytes of the ledger's volume, none of which costs anything until it is written.
pub(super) const LEDGER_BYTES: u64 = 1 << 40;

/// Blocks that are read or written at a time.
const PIECE_BLOCKS: u64 = 256;

/// Where the ledger lies.
#[derive(Debug, Clone)]
pub(super) struct LedgerVolume {
    pub(super) shard: ShardHandle,
    pub(super) volume: VolumeId,
}

/// The ledger that is there, and the key that signs its heads.
#[derive(Debug)]
pub(super) struct OpenLedger {
    place: LedgerVolume,
    ledger: Ledger,
    key: SigningKey,
}

impl LedgerVolume {
    async fn read(&self, blocks: Range<u64>) -> Result<Vec<u8>, CatalogueError> {
        let mut all = Vec::new();
        let mut at = blocks.start;
        while at < blocks.end {
            let count = (blocks.end - at).min(PIECE_BLOCKS);
            let request = Request::Read { range: range(at, count)? };
            match ask::submit(&self.shard, self.volume, request).await? {
                Completion::Read { buffer, skip, len } => {
                    all.extend_from_slice(buffer.as_slice().get(skip..skip + len).unwrap_or_default());
                }
                Completion::Done
                | Completion::Miscompare { .. }
                | Completion::Metered(_)
                | Completion::Lent(_)
                | Completion::Extents(_)
                | Completion::Changed(_)
                | Completion::Snapshot(_) => return Err(broken("its volume gave no bytes")),
            }
            at += count;
        }
        Ok(all)
    }

    /// Writes, durably: the last piece says so for those before it.
    async fn write(&self, write: BlockWrite) -> Result<(), CatalogueError> {
        let mut at = write.first;
        let mut pieces = write.bytes.chunks(usize::try_from(PIECE_BLOCKS).unwrap_or(1) * BLOCK_LEN).peekable();
        while let Some(piece) = pieces.next() {
            let mut buffer = Buffer::zeroed(piece.len());
            buffer.as_mut_slice().copy_from_slice(piece);
            let count = (piece.len() / BLOCK_LEN) as u64;
            let (range, fua) = (range(at, count)?, pieces.peek().is_none());
            ask::submit(&self.shard, self.volume, Request::Write { range, payload: smallvec![buffer], fua }).await?;
            at += count;
        }
        Ok(())
    }
}

/// The lines of some blocks, in order, without their line feeds.
pub(super) struct Lines {
    reader: LineReader,
    blocks: Range<u64>,
    ready: VecDeque<Vec<u8>>,
}

impl Lines {
    pub(super) fn of(blocks: Range<u64>) -> Self {
        Self { reader: LineReader::default(), blocks, ready: VecDeque::new() }
    }

    /// The next of them.
    ///
    /// # Errors
    /// The volume's; or when a block is none.
    pub(super) async fn next(&mut self, place: &LedgerVolume) -> Result<Option<Vec<u8>>, CatalogueError> {
        while self.ready.is_empty() && !self.blocks.is_empty() {
            let begin = self.blocks.start;
            let end = self.blocks.end.min(begin + PIECE_BLOCKS);
            for (block, bytes) in (begin..).zip(place.read(begin..end).await?.chunks(BLOCK_LEN)) {
                let lines = self.reader.block(block, bytes);
                self.ready.extend(lines.map_err(|error| broken(&format!("block {block}: {error}")))?);
            }
            self.blocks.start = end;
        }
        Ok(self.ready.pop_front())
    }
}

impl OpenLedger {
    /// Finds the ledger in its volume, or makes one where there is none.
    ///
    /// # Errors
    /// The volume's; or when the ledger is there and cannot be gone on with.
    pub(super) async fn open(place: LedgerVolume, (key, id): (SigningKey, [u8; 16])) -> Result<Self, CatalogueError> {
        let mut recovery = Recovery::new(LEDGER_BYTES / BLOCK_BYTES);
        while let Some(blocks) = recovery.wants() {
            let bytes = place.read(blocks).await?;
            recovery.take(&bytes).map_err(|error| broken(&error.to_string()))?;
        }
        let found = recovery.finish().map_err(|error| broken(&error.to_string()))?;
        let Some(mut ledger) = found else {
            let (ledger, write) = Ledger::create(LEDGER_BYTES / BLOCK_BYTES, LedgerId(id));
            let mut made = Self { place, ledger, key };
            made.write(write).await?;
            return Ok(made);
        };
        // What was found may be in the page cache only.
        ask::submit(&place.shard, place.volume, Request::Flush).await?;
        ledger.on_durable();
        Ok(Self { place, ledger, key })
    }

    async fn write(&mut self, write: BlockWrite) -> Result<(), CatalogueError> {
        self.place.write(write).await?;
        self.ledger.on_durable();
        Ok(())
    }

    /// Appends entries, all or none, durably. After an error nobody knows what is in the volume: the ledger is to be opened
    /// again, unless it is [`CatalogueError::Request`], with which nothing was tried.
    ///
    /// # Errors
    /// [`CatalogueError::Request`] for entries that cannot be; the volume's.
    pub(super) async fn append(&mut self, entries: &[NewEntry<'_>]) -> Result<(), CatalogueError> {
        let write = self.ledger.append(entries).map_err(|error| CatalogueError::Request(format!("ledger: {error}")))?;
        self.write(write).await
    }

    /// Makes the books of tenants that have none.
    ///
    /// # Errors
    /// [`CatalogueError::Request`] when there are too many.
    pub(super) fn admit(&mut self, tenants: impl IntoIterator<Item = TenantId>) -> Result<(), CatalogueError> {
        let admitted = tenants.into_iter().try_for_each(|tenant| self.ledger.admit(tenant));
        admitted.map_err(|error| CatalogueError::Request(format!("ledger: {error}")))
    }

    /// Signs what there is as the end of a day, and keeps that durably.
    ///
    /// # Errors
    /// As of [`Self::append`].
    pub(super) async fn sign(&mut self, date: Date) -> Result<(), CatalogueError> {
        let write = self.ledger.sign_head(date, &self.key, None);
        self.write(write.map_err(|error| CatalogueError::Request(format!("ledger: {error}")))?).await
    }

    /// Gives up what was measured before the last head that ends a day before `date`, and is older than those of the newest `days`: a
    /// part of it at a time. By the dates alone a clock that is wrong for a moment would give up all there is.
    ///
    /// # Errors
    /// As of [`Self::append`].
    pub(super) async fn give_up_before(&mut self, date: Date, days: u16) -> Result<(), CatalogueError> {
        if let Some(blocks) = self.ledger.sweep() {
            let part = blocks.start..blocks.end.min(blocks.start + PIECE_BLOCKS);
            for (block, bytes) in (part.start..).zip(self.place.read(part.clone()).await?.chunks(BLOCK_LEN)) {
                if is_droppable(block, bytes).map_err(|error| broken(&format!("block {block}: {error}")))? {
                    let request = Request::Trim { range: range(block, 1)?, fua: false };
                    ask::submit(&self.place.shard, self.place.volume, request).await?;
                }
            }
            let swept = self.ledger.on_swept(part.end).map_err(|error| broken(&error.to_string()))?;
            return self.write(swept).await;
        }
        let is_old = |place: &&HeadPlace| place.date < date && place.block > self.ledger.whole_from_block();
        match older(self.ledger.heads(), days).iter().rfind(is_old).map(|place| place.number) {
            None => Ok(()),
            Some(head) => {
                let write = self.ledger.drop_readings_before(head).map_err(|error| broken(&error.to_string()))?;
                self.write(write).await
            }
        }
    }

    /// Who signs the next head.
    pub(super) fn key(&self) -> PublicKey {
        self.key.public()
    }

    pub(super) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Where it lies.
    pub(super) fn place(&self) -> LedgerVolume {
        self.place.clone()
    }
}

/// The heads before those of the newest days, of which there are so many.
fn older(heads: &[HeadPlace], days: u16) -> &[HeadPlace] {
    let mut dates = BTreeSet::new();
    let is_kept = |place: &&HeadPlace| {
        dates.insert(place.date);
        dates.len() <= usize::from(days)
    };
    let kept = heads.iter().rev().take_while(is_kept).count();
    heads.get(..heads.len() - kept).unwrap_or_default()
}

fn range(first: u64, count: u64) -> Result<ByteRange, CatalogueError> {
    let bytes = first.checked_mul(BLOCK_BYTES).zip(count.checked_mul(BLOCK_BYTES));
    let range = bytes.and_then(|(offset, len)| ByteRange::new(offset, len).ok());
    range.ok_or_else(|| broken("a block beyond every volume"))
}

pub(super) fn broken(reason: &str) -> CatalogueError {
    Error::new(ErrorKind::Unavailable, format!("the ledger: {reason}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use metering::ledger::Digest;

    /// P7. A clock that was wrong for a day, forwards or back, gives nothing up; signing twice a day does not either.
    #[test]
    fn so_many_days_are_kept_whatever_the_clock_says() {
        let head = |number, (year, day)| {
            let date = Date::new(year, 11, day).unwrap();
            HeadPlace { number, date, hash: Digest::NONE, block: number }
        };
        let days = [(2026, 1), (2026, 2), (2026, 2), (2027, 9), (2026, 3), (2020, 3), (2026, 4)];
        let heads: Vec<HeadPlace> = (1..).zip(days).map(|(number, day)| head(number, day)).collect();
        let numbers = |days| older(&heads, days).iter().map(|place| place.number).collect::<Vec<_>>();
        assert_eq!((numbers(9), numbers(6)), (vec![], vec![]));
        assert_eq!((numbers(5), numbers(4), numbers(1)), (vec![1], vec![1, 2, 3], vec![1, 2, 3, 4, 5, 6]));
    }
}
