//! The records in the system volume: read at the start, written durably with each change.

use super::ask::submit;
use super::record::{CATALOGUE_FORMAT, CATALOGUE_FORMATS, Head, Record, decode, encode};
use super::trial::refuse_in_trial;
use super::{CatalogueError, SYSTEM_BYTES};
use crate::shard::ShardHandle;
use serde::de::DeserializeOwned;
use smallvec::smallvec;
use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use units::{BLOCK_BYTES, BLOCK_LEN, ByteRange, VolumeId};
use volume::buffer::Buffer;
use volume::error::ErrorKind;
use volume::request::{Completion, Request};

/// Bytes read at a time.
const READ_BYTES: u64 = 1 << 20;

/// Blocks of the system volume, of which most were never written.
pub(super) const RECORDS_MAX: u64 = SYSTEM_BYTES / BLOCK_BYTES;

/// Most extents asked for at a time.
const EXTENTS_MAX: usize = 1024;

/// The records, behind the shard that serves the system volume.
#[derive(Debug)]
pub(super) struct Book {
    pen: Pen,
    next_id: u64,
    /// What block 0 says: ids below it are given out without a word.
    reserved_to: u64,
    /// Ids from here on are not this site's.
    ids_end: u64,
}

/// So many ids are reserved at a time; those that are left at a stop are never used.
const RESERVED_IDS: u64 = 64;

/// Writes records that are there, and takes them away.
#[derive(Debug, Clone)]
pub(super) struct Pen {
    shard: ShardHandle,
}

impl Deref for Book {
    type Target = Pen;

    fn deref(&self) -> &Pen {
        &self.pen
    }
}

/// What was read at the start.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) read: Vec<Record>,
    /// Ids whose records have rotted, and how.
    pub(super) rotten: BTreeMap<u64, String>,
}

impl Book {
    /// Reads every record; one that has rotted hides no other. New ids are of `ids`, as far as none behind them was given out.
    pub(super) async fn load(shard: ShardHandle, ids: Range<u64>) -> Result<(Self, Records), CatalogueError> {
        let mut book = Self { pen: Pen { shard }, next_id: ids.start, reserved_to: ids.start, ids_end: ids.end };
        let blocks = book.read(0, 1).await?;
        match parse::<Head>(0, &blocks)? {
            Some(head) if !CATALOGUE_FORMATS.contains(&head.format) => {
                let (found, known) = (head.format, CATALOGUE_FORMAT);
                let detail = format!("the catalogue has format {found}, this program reads up to format {known}");
                return Err(CatalogueError::Damaged(detail));
            }
            Some(head) => {
                let next_id = head.next_id.max(ids.start);
                (book.next_id, book.reserved_to) = (next_id, next_id);
            }
            None => return Ok((book, Records::default())),
        }
        let mut records = Records::default();
        let mut at = 1;
        while at < RECORDS_MAX {
            at = book.load_from(at, &mut records).await?;
        }
        Ok((book, records))
    }

    /// Reads the records of one answer's extents; returns the block where the next ones begin.
    async fn load_from(&self, first: u64, records: &mut Records) -> Result<u64, CatalogueError> {
        let range = blocks(first, RECORDS_MAX - first)?;
        let request = Request::Extents { range, extents_max: EXTENTS_MAX };
        let Completion::Extents(extents) = submit(&self.shard, VolumeId::SYSTEM, request).await? else {
            return Err(CatalogueError::Damaged("the system volume gave no extents".to_owned()));
        };
        let mut at = first;
        for extent in extents {
            let end = at + extent.len.div_ceil(BLOCK_BYTES);
            if extent.is_data {
                self.load_run(at, end, records).await?;
            }
            at = end;
        }
        if at == first { Err(CatalogueError::Damaged("the system volume gave no extents".to_owned())) } else { Ok(at) }
    }

    async fn load_run(&self, mut at: u64, end: u64, records: &mut Records) -> Result<(), CatalogueError> {
        while at < end {
            let count = (end - at).min(READ_BYTES / BLOCK_BYTES);
            match self.read(at, count).await {
                Err(error) if is_rot(&error) => {
                    for id in at..at + count {
                        self.load_one(id, records).await?;
                    }
                }
                bytes => (at..).zip(bytes?.chunks(BLOCK_LEN)).for_each(|(id, block)| records.take(id, block)),
            }
            at += count;
        }
        Ok(())
    }

    async fn load_one(&self, id: u64, records: &mut Records) -> Result<(), CatalogueError> {
        match self.read(id, 1).await {
            Err(error) if is_rot(&error) => drop(records.rotten.insert(id, error.to_string())),
            block => records.take(id, &block?),
        }
        Ok(())
    }

    async fn read(&self, first: u64, count: u64) -> Result<Vec<u8>, CatalogueError> {
        let request = Request::Read { range: blocks(first, count)? };
        match submit(&self.shard, VolumeId::SYSTEM, request).await? {
            Completion::Read { buffer, skip, len } => {
                Ok(buffer.as_slice().get(skip..skip + len).unwrap_or_default().to_vec())
            }
            Completion::Done
            | Completion::Miscompare { .. }
            | Completion::Metered(_)
            | Completion::Lent(_)
            | Completion::Extents(_)
            | Completion::Changed(_)
            | Completion::Snapshot(_) => Err(CatalogueError::Damaged("the system volume gave no bytes".to_owned())),
        }
    }

    /// Takes ids that were never used and never will be again, one behind the other; returns the first.
    ///
    /// They are not reserved durably: what bears one is, once its record is, which lies behind this in the log. Until then
    /// nothing outside of this process may count on the id.
    pub(super) async fn take_ids(&mut self, count: u64) -> Result<u64, CatalogueError> {
        refuse_in_trial()?;
        let first = self.next_id;
        let next_id = first.saturating_add(count);
        if next_id > self.ids_end {
            let detail = "all ids that this site may give out are used: no more volumes, snapshots or tokens can be made in this pool";
            return Err(CatalogueError::Request(detail.to_owned()));
        }
        if next_id > self.reserved_to {
            let reserved_to = first.saturating_add(count.max(RESERVED_IDS));
            self.write(0, encode(&Head { format: CATALOGUE_FORMAT, next_id: reserved_to }), false).await?;
            self.reserved_to = reserved_to;
        }
        self.next_id = next_id;
        Ok(first)
    }

    /// Writes without the book's lock, for who must not wait for those who hold it.
    pub(super) fn pen(&self) -> Pen {
        self.pen.clone()
    }
}

impl Pen {
    /// Writes a record, durably.
    pub(super) async fn put(&self, record: &Record) -> Result<(), CatalogueError> {
        self.write(record.id(), encode(record), true).await
    }

    /// Writes records that have ids one behind the other, durably, in one write. They lie in one batch of the log, so that
    /// after a crash all of them are there or none.
    pub(super) async fn put_all(&self, records: &[Record]) -> Result<(), CatalogueError> {
        let Some(first) = records.first() else { return Ok(()) };
        let mut blocks = Buffer::zeroed(records.len() * BLOCK_LEN);
        for (block, record) in blocks.as_mut_slice().chunks_exact_mut(BLOCK_LEN).zip(records) {
            block.copy_from_slice(encode(record).as_slice());
        }
        self.write(first.id(), blocks, true).await
    }

    /// Takes records away that have ids one behind the other, durably, in one step.
    pub(super) async fn remove(&self, first: u64, count: u64) -> Result<(), CatalogueError> {
        refuse_in_trial()?;
        let request = Request::Trim { range: blocks(first, count)?, fua: true };
        submit(&self.shard, VolumeId::SYSTEM, request).await.map(drop)
    }

    /// Takes records away, the last of them last. Should a power cut bring them back, what they tell is done again.
    pub(super) async fn drop_all(&self, ids: &[u64]) -> Result<(), CatalogueError> {
        for id in ids {
            let request = Request::Trim { range: blocks(*id, 1)?, fua: false };
            submit(&self.shard, VolumeId::SYSTEM, request).await?;
        }
        Ok(())
    }

    async fn write(&self, first: u64, bytes: Buffer, fua: bool) -> Result<(), CatalogueError> {
        refuse_in_trial()?;
        let range = blocks(first, bytes.len() as u64 / BLOCK_BYTES)?;
        let request = Request::Write { range, payload: smallvec![bytes], fua };
        submit(&self.shard, VolumeId::SYSTEM, request).await.map(drop)
    }
}

impl Records {
    fn take(&mut self, id: u64, block: &[u8]) {
        let reason = match parse::<Record>(id, block) {
            Ok(Some(record)) if record.id() == id => return self.read.push(record),
            Ok(None) => return,
            Ok(Some(record)) => format!("record {id} says that it is {}", record.id()),
            Err(error) => error.to_string(),
        };
        self.rotten.insert(id, reason);
    }
}

/// Whether blocks were read that are not what was written.
fn is_rot(error: &CatalogueError) -> bool {
    matches!(error, CatalogueError::Volume(error) if error.kind == ErrorKind::Corrupt)
}

fn blocks(first: u64, count: u64) -> Result<ByteRange, CatalogueError> {
    let range = first.checked_mul(BLOCK_BYTES).zip(count.checked_mul(BLOCK_BYTES));
    let range = range.and_then(|(offset, len)| ByteRange::new(offset, len).ok());
    range.ok_or_else(|| CatalogueError::Damaged(format!("record {first} lies outside of the system volume")))
}

fn parse<T: DeserializeOwned>(id: u64, block: &[u8]) -> Result<Option<T>, CatalogueError> {
    decode(block).map_err(|error| CatalogueError::Damaged(format!("record {id} of the catalogue: {error}")))
}
