//! A pack: a slot of compaction output. After its slot header ([`SlotUse::Pack`](super::SlotUse)) parcels follow one
//! behind the other, each with what is left of one segment or of a part of one ([`Cut`]). A block keeps the location and the
//! check value that it was written with, so a parcel says which blocks of the segment's slot its payload was. In the last blocks of the slot is the
//! pack's directory: all headers once more, byte for byte. It ends with the slot header; before it is the header of the
//! first parcel, before that the second one's, and so on.
//!
//! A parcel: a header of whole blocks, then the payload, in ascending order of the blocks that it was.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `ALJPARC\0` |
//! | 8 | 2 | format version, 2 at least |
//! | 10 | 1 | use: 1 counts, 2 void |
//! | 11 | 1 | bytes of check data per block |
//! | 12 | 4 | block of the slot where this header begins |
//! | 16 | 16 | pool id |
//! | 32 | 8 | pack id, as in the slot header |
//! | 40 | 8 | segment id: whose blocks these are |
//! | 48 | 8 | volume id |
//! | 56 | 8 | epoch of the segment's last batch |
//! | 64 | 8 | first LSN of the segment as it was written |
//! | 72 | 8 | last LSN of the segment as it was written |
//! | 80 | 8 | bytes of the volume before the first operation |
//! | 88 | 8 | key id: 0, not encrypted |
//! | 96 | 4 | block of the slot where this header begins once more, in the directory |
//! | 100 | 4 | parcels of the pack |
//! | 104 | 1 | which part of the segment this is (since version 3, before that 0) |
//! | 105 | 1 | into how many parts the segment is cut, as a power of two: 0 to 3 (since version 3, before that 0) |
//! | 106 | 1 | a bit for each part that was written with this one, for the same commit (since version 3, before that 0) |
//! | 107 | 5 | zero |
//! | 112 | 8 | clean LSN: what is here is what the map named when it was complete up to here |
//! | 120 | 4 | chain before the segment's first batch |
//! | 124 | 4 | CRC of the header of the segment's last batch |
//! | 128 | 4 | move: 1 where the part was copied from the segment's own slot, one more with each copy of a copy |
//! | 132 | 4 | number of entries |
//! | 136 | 4 | blocks of payload |
//! | 140 | 4 | blocks of this header |
//! | 144 | 4 | CRC-32C of the index: all of the header from 152 on |
//! | 148 | 4 | CRC-32C of the bytes before |
//! | 152 | 40 each | entries: descriptor 32, LSN less the first 4, block where its payload was 4 (0 without payload) |
//! | | 4 each | check data of the payload blocks in order |
//! | | | zeros to the next block, then the payload |
//!
//! What a parcel is, and how long, is in its first sector with a CRC of its own: making it void changes that sector only,
//! in both places, so that a power cut leaves each as it was or void, and a walk over the pack goes on behind it.

use super::bytes::{Reader, Writer, expect_crc};
use super::checksum::crc32c;
use super::operation::DESCRIPTOR_BYTES;
use super::{CHECK_BYTES, Cut, FormatError, Operation, PartSet};
use units::{BLOCK_LEN, Epoch, Lsn, PoolId, SECTOR_BYTES, SegmentId, VolumeId};

const MAGIC: [u8; 8] = *b"ALJPARC\0";
const VERSION_FIRST: u16 = 2;
const USE_COUNTS: u8 = 1;
const USE_VOID: u8 = 2;

/// Where the CRC of the start is.
const CRC_AT: usize = 148;
/// Where the index begins.
const INDEX_AT: usize = CRC_AT + 4;
const ENTRY_BYTES: usize = DESCRIPTOR_BYTES + 8;

/// Blocks of the largest slot.
const SLOT_BLOCKS_MAX: u64 = 1 << 16;

const _: () = assert!(INDEX_AT <= SECTOR_BYTES as usize, "making a parcel void is the write of one sector");

/// What a parcel tells of its segment as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParcelHeader {
    /// The block of the slot where the parcel begins; never 0, which is the slot's header.
    pub block: u32,
    /// The block of the slot where its header begins once more, behind all parcels.
    pub copy: u32,
    /// How many parcels the pack has.
    pub parcels: u32,
    /// The pool's id.
    pub pool: PoolId,
    /// The pack that it was written into: a parcel of what the slot held before names another.
    pub pack: SegmentId,
    /// Whose blocks these are: locations name it, and check values are made with it.
    pub segment: SegmentId,
    /// Which part of it, below `cut.parts()`.
    pub part: u8,
    /// Into how many parts it is cut.
    pub cut: Cut,
    /// The parts that were written with this one, it among them, and that come to count with it.
    pub parts: PartSet,
    /// Whose segment that is.
    pub volume: VolumeId,
    /// Of the segment's last batch.
    pub epoch: Epoch,
    /// The segment's first operation.
    pub first_lsn: Lsn,
    /// The segment's last operation; the one before `first_lsn` where it had none. Not the last that is left.
    pub last_lsn: Lsn,
    /// The volume's size before the first operation.
    pub size_bytes: u64,
    /// What is here is what the map named when it was complete up to here. `last_lsn <= clean_lsn`.
    pub clean_lsn: Lsn,
    /// CRC of the header of the batch before the segment's first.
    pub chain_before: u32,
    /// CRC of the header of the segment's last batch.
    pub chain_after: u32,
    /// How often the part was moved; at least once.
    pub moves: u32,
}

/// An operation of the segment that is kept, or a run of the blocks that one wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParcelEntry {
    /// The operation. Runs of one write are entries of the same LSN.
    pub lsn: Lsn,
    /// What it did, to the blocks that are left.
    pub operation: Operation,
    /// The block of the segment's own slot where its payload began: its location. 0 without payload.
    pub block: u32,
}

/// The survivors of a segment, or of a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// The segment as a whole.
    pub header: ParcelHeader,
    /// In ascending order of LSN, and of block where they have payload. May be empty.
    pub entries: Vec<ParcelEntry>,
    /// One per payload block, as they were made when the blocks were written.
    pub checks: Vec<u32>,
}

/// Blocks of a pack's slot that are for its parcels: all but the slot header and its copy.
#[must_use]
pub const fn pack_room_blocks(slot_blocks: u32) -> u32 {
    slot_blocks.saturating_sub(2)
}

/// Blocks of the header of a parcel with so many entries and payload blocks.
#[must_use]
pub const fn parcel_header_blocks(entries: usize, payload_blocks: usize) -> u32 {
    (INDEX_AT + entries * ENTRY_BYTES + payload_blocks * CHECK_BYTES).div_ceil(BLOCK_LEN) as u32
}

/// Encodes the header of a parcel; its payload goes behind it.
///
/// # Panics
/// When an entry's LSN is before the segment's first, or more than 2^32 after it.
#[must_use]
pub fn encode_parcel(parcel: &Parcel) -> Vec<u8> {
    let blocks = parcel_header_blocks(parcel.entries.len(), parcel.checks.len());
    let mut out = vec![0; blocks as usize * BLOCK_LEN];
    let (start, index) = out.split_at_mut(INDEX_AT);
    let mut w = Writer::new(index);
    for entry in &parcel.entries {
        let after_first = entry.lsn.0.checked_sub(parcel.header.first_lsn.0).and_then(|n| u32::try_from(n).ok());
        entry.operation.encode(&mut w);
        w.u32(after_first.expect("an entry is an operation of the segment"));
        w.u32(entry.block);
    }
    for check in &parcel.checks {
        w.u32(*check);
    }
    let start_fields = ParcelStart {
        header: parcel.header,
        is_void: false,
        entry_count: parcel.entries.len() as u32,
        payload_blocks: parcel.checks.len() as u32,
        index_crc: crc32c(index),
    };
    start_fields.encode(start);
    out
}

/// What the first sector of a parcel says: a parcel whose index is still to be read, or a void one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParcelStart {
    /// The segment as a whole.
    pub header: ParcelHeader,
    /// Whether the segment has moved on or is dead: nothing here counts, but its length.
    pub is_void: bool,
    entry_count: u32,
    /// Blocks of payload behind the header.
    pub payload_blocks: u32,
    index_crc: u32,
}

/// Decodes the start of the parcel that begins `bytes`, of which its first sector is enough.
///
/// # Errors
/// [`FormatError`] when no parcel begins here.
pub fn decode_parcel_start(bytes: &[u8]) -> Result<ParcelStart, FormatError> {
    let mut r = Reader::new(bytes);
    r.expect_since(MAGIC, VERSION_FIRST)?;
    let sealed = bytes.get(..CRC_AT).ok_or(FormatError::Short)?;
    let is_void = match r.u8()? {
        USE_COUNTS => false,
        USE_VOID => true,
        _ => return Err(FormatError::Field("use")),
    };
    if usize::from(r.u8()?) != CHECK_BYTES {
        return Err(FormatError::Field("check data width"));
    }
    let header = decode_header(&mut r)?;
    let entry_count = r.u32()?;
    let payload_blocks = r.u32()?;
    let header_blocks = r.u32()?;
    let index_crc = r.u32()?;
    expect_crc(crc32c(sealed), r.u32()?)?;
    let start = ParcelStart { header, is_void, entry_count, payload_blocks, index_crc };
    let end = u64::from(header.block) + u64::from(header_blocks) + u64::from(payload_blocks);
    if end > SLOT_BLOCKS_MAX || start.index_bytes().div_ceil(BLOCK_LEN as u64) != u64::from(header_blocks) {
        return Err(FormatError::Field("counts"));
    }
    let copy = u64::from(header.copy);
    if copy < end || copy + u64::from(header_blocks) > SLOT_BLOCKS_MAX {
        return Err(FormatError::Field("block of the copy"));
    }
    start.header.check()?;
    Ok(start)
}

fn decode_header(r: &mut Reader<'_>) -> Result<ParcelHeader, FormatError> {
    Ok(ParcelHeader {
        block: r.u32()?,
        pool: PoolId(r.take()?),
        pack: SegmentId(r.u64()?),
        segment: SegmentId(r.u64()?),
        volume: VolumeId(r.u64()?),
        epoch: Epoch(r.u64()?),
        first_lsn: Lsn(r.u64()?),
        last_lsn: Lsn(r.u64()?),
        size_bytes: r.u64()?,
        copy: {
            let _key = r.u64()?;
            r.u32()?
        },
        parcels: r.u32()?,
        part: r.u8()?,
        cut: Cut::of_log2(r.u8()?).ok_or(FormatError::Field("number of parts"))?,
        parts: PartSet::of_bits(r.u8()?),
        clean_lsn: {
            let _zeros: [u8; 5] = r.take()?;
            Lsn(r.u64()?)
        },
        chain_before: r.u32()?,
        chain_after: r.u32()?,
        moves: r.u32()?,
    })
}

impl ParcelHeader {
    /// Refuses what no writer gives.
    fn check(&self) -> Result<(), FormatError> {
        // The LSN after the last operation must be one too.
        let next_lsn = self.last_lsn.0.checked_add(1).filter(|next| *next >= self.first_lsn.0);
        let wrong = if self.block == 0 {
            "block"
        } else if self.pack > SegmentId::MAX || self.segment > SegmentId::MAX || self.pack == self.segment {
            "segment id"
        } else if self.first_lsn == Lsn::ZERO || next_lsn.is_none() {
            "last LSN"
        } else if self.clean_lsn < self.last_lsn {
            "clean LSN"
        } else if self.moves == 0 {
            "move"
        } else if self.parcels == 0 {
            "parcels"
        } else if usize::from(self.part) >= self.cut.parts() {
            "part"
        } else if !self.parts.is_empty() && !self.parts.may_be_of(self.cut, usize::from(self.part)) {
            "parts of the commit"
        } else {
            return Ok(());
        };
        Err(FormatError::Field(wrong))
    }
}

impl ParcelStart {
    /// Blocks of header.
    #[must_use]
    pub const fn header_blocks(&self) -> u32 {
        parcel_header_blocks(self.entry_count as usize, self.payload_blocks as usize)
    }

    /// Blocks of header and payload: the next parcel begins behind them.
    #[must_use]
    pub const fn total_blocks(&self) -> u32 {
        self.header_blocks() + self.payload_blocks
    }

    /// Bytes of the header up to the end of its check data.
    const fn index_bytes(&self) -> u64 {
        INDEX_AT as u64 + self.entry_count as u64 * ENTRY_BYTES as u64 + self.payload_blocks as u64 * CHECK_BYTES as u64
    }

    /// Completes the parcel with its whole header, the [`Self::header_blocks`] that begin with this start.
    ///
    /// # Errors
    /// [`FormatError`] when it is void, or the index is not what the start's CRC was made of.
    pub fn with_index(self, header: &[u8]) -> Result<Parcel, FormatError> {
        if self.is_void {
            return Err(FormatError::Field("use"));
        }
        let index = header.get(INDEX_AT..self.header_blocks() as usize * BLOCK_LEN).ok_or(FormatError::Short)?;
        expect_crc(crc32c(index), self.index_crc)?;
        let mut r = Reader::new(index);
        let first_lsn = self.header.first_lsn.0;
        let entry = |r: &mut Reader<'_>| {
            let operation = Operation::decode(r)?;
            let lsn = first_lsn.checked_add(u64::from(r.u32()?)).map(Lsn).ok_or(FormatError::Field("LSN"))?;
            Ok(ParcelEntry { lsn, operation, block: r.u32()? })
        };
        let entries = (0..self.entry_count).map(|_| entry(&mut r)).collect::<Result<Vec<_>, FormatError>>()?;
        let checks = (0..self.payload_blocks).map(|_| r.u32()).collect::<Result<Vec<_>, _>>()?;
        let parcel = Parcel { header: self.header, entries, checks };
        parcel.check_order()?;
        Ok(parcel)
    }

    /// Whether the header that begins with this is to be found at `block` of the pack's slot: there the parcel begins, or
    /// its header is once more.
    #[must_use]
    pub const fn is_at(&self, block: u32) -> bool {
        self.header.block == block || self.header.copy == block
    }

    /// Makes the parcel void in `block`, the first block of its header as it is on the disk. Only the first sector changes.
    ///
    /// # Panics
    /// When `block` has less than a sector.
    pub fn make_void(&self, block: &mut [u8]) {
        let start = block.get_mut(..INDEX_AT).expect("a parcel begins with a whole block");
        Self { is_void: true, ..*self }.encode(start);
    }

    fn encode(&self, start: &mut [u8]) {
        let header = &self.header;
        let mut w = Writer::new(start);
        w.start(MAGIC);
        w.u8(if self.is_void { USE_VOID } else { USE_COUNTS });
        w.u8(CHECK_BYTES as u8);
        w.u32(header.block);
        w.put(&header.pool.0);
        let long_fields = [header.pack.0, header.segment.0, header.volume.0, header.epoch.0, header.first_lsn.0];
        long_fields.into_iter().for_each(|field| w.u64(field));
        [header.last_lsn.0, header.size_bytes, 0].into_iter().for_each(|field| w.u64(field));
        w.u32(header.copy);
        w.u32(header.parcels);
        w.u8(header.part);
        w.u8(header.cut.log2());
        w.u8(header.parts.bits());
        w.put(&[0; 5]);
        w.u64(header.clean_lsn.0);
        w.u32(header.chain_before);
        w.u32(header.chain_after);
        w.u32(header.moves);
        w.u32(self.entry_count);
        w.u32(self.payload_blocks);
        w.u32(self.header_blocks());
        w.u32(self.index_crc);
        let crc = start.get(..CRC_AT).map_or(0, crc32c);
        if let Some(field) = start.get_mut(CRC_AT..INDEX_AT) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
    }
}

impl Parcel {
    /// Blocks of header.
    #[must_use]
    pub const fn header_blocks(&self) -> u32 {
        parcel_header_blocks(self.entries.len(), self.checks.len())
    }

    /// Blocks that it takes of a pack: header and payload, and the header once more.
    #[must_use]
    pub const fn pack_blocks(&self) -> u32 {
        2 * self.header_blocks() + self.checks.len() as u32
    }

    /// Refuses entries that are not of the segment, or not in order: payload that no block of the slot held, or twice.
    fn check_order(&self) -> Result<(), FormatError> {
        let mut payload_blocks = 0;
        let mut end = 1;
        let mut before: Option<&ParcelEntry> = None;
        for entry in &self.entries {
            let blocks = entry.operation.payload_blocks();
            let is_run_of = |other: &ParcelEntry| other.lsn == entry.lsn && other.block > 0 && blocks > 0;
            if entry.lsn > self.header.last_lsn || before.is_some_and(|b| b.lsn >= entry.lsn && !is_run_of(b)) {
                return Err(FormatError::Field("LSN"));
            }
            if blocks == 0 && entry.block != 0 {
                return Err(FormatError::Field("block without payload"));
            }
            if blocks > 0 {
                let entry_end = u64::from(entry.block) + u64::from(blocks);
                if entry.block < end || entry_end > SLOT_BLOCKS_MAX {
                    return Err(FormatError::Field("block of the payload"));
                }
                end = entry.block + blocks;
                payload_blocks += u64::from(blocks);
            }
            before = Some(entry);
        }
        if payload_blocks == self.checks.len() as u64 { Ok(()) } else { Err(FormatError::Field("payload blocks")) }
    }
}

#[cfg(test)]
mod tests;
