//! The first block of a slot: whose segment is in it, or that none is.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `ALJSLOT\0` |
//! | 8 | 2 | format version |
//! | 10 | 1 | use: 1 segment, 2 void |
//! | 11 | 1 | stream: 0 user writes (1 compaction output) |
//! | 12 | 4 | zero |
//! | 16 | 16 | pool id |
//! | 32 | 8 | segment id |
//! | 40 | 8 | volume id |
//! | 48 | 8 | epoch at open |
//! | 56 | 8 | LSN of its first operation |
//! | 64 | 8 | bytes of the volume at open |
//! | 72 | 8 | snapshot generation at open: 0 |
//! | 80 | 8 | key id: 0, not encrypted |
//! | 88 | 4 | chain: CRC of the header of the volume's batch before its first |
//! | 92 | 4 | zero |
//! | 96 | 8 | opened at, milliseconds since 1970, advisory |
//! | 4092 | 4 | CRC-32C of the bytes before |

use super::FormatError;
use super::bytes::{Reader, Writer, check_block, seal_block};
use units::{BLOCK_LEN, Epoch, Lsn, PoolId, SegmentId, VolumeId};

const MAGIC: [u8; 8] = *b"ALJSLOT\0";

/// Whether a slot's segment counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlotUse {
    /// A segment begins here.
    Segment,
    /// The segment that was here is dead: nothing in this slot counts.
    Void,
}

/// The header of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotHeader {
    /// Whether the segment counts.
    pub slot_use: SlotUse,
    /// The pool's id: a slot copied from another pool is not taken for this one's.
    pub pool: PoolId,
    /// Never used twice.
    pub segment: SegmentId,
    /// Whose.
    pub volume: VolumeId,
    /// The volume's epoch when the segment was opened.
    pub epoch: Epoch,
    /// The first operation in it.
    pub first_lsn: Lsn,
    /// The volume's size when the segment was opened.
    pub size_bytes: u64,
    /// CRC of the header of the batch that precedes its first one; 0 for the volume's first.
    pub chain: u32,
    /// Advisory: when it was opened, milliseconds since 1970.
    pub opened_ms: u64,
}

impl SlotHeader {
    /// The void header of a segment. It says nothing that may be different another time: a header that is void on the disk may
    /// be made void again, and a power cut must not mix two of them into one that fails its check.
    #[must_use]
    pub const fn void(pool: PoolId, segment: SegmentId, volume: VolumeId, first_lsn: Lsn) -> Self {
        Self {
            slot_use: SlotUse::Void,
            pool,
            segment,
            volume,
            epoch: Epoch(0),
            first_lsn,
            size_bytes: 0,
            chain: 0,
            opened_ms: 0,
        }
    }

    /// Encodes into one block.
    pub fn encode(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK_LEN, "a slot header fills a block");
        let mut w = Writer::new(block);
        w.start(MAGIC);
        w.u8(match self.slot_use {
            SlotUse::Segment => 1,
            SlotUse::Void => 2,
        });
        w.pad_to(16);
        w.put(&self.pool.0);
        w.u64(self.segment.0);
        w.u64(self.volume.0);
        w.u64(self.epoch.0);
        w.u64(self.first_lsn.0);
        w.u64(self.size_bytes);
        w.u64(0);
        w.u64(0);
        w.u32(self.chain);
        w.u32(0);
        w.u64(self.opened_ms);
        w.pad_to(BLOCK_LEN);
        seal_block(block);
    }

    /// Decodes one block.
    ///
    /// # Errors
    /// [`FormatError`] when it is no slot header of this version.
    pub fn decode(block: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(block);
        r.expect(MAGIC)?;
        check_block(block)?;
        let slot_use = match r.u8()? {
            1 => SlotUse::Segment,
            2 => SlotUse::Void,
            _ => return Err(FormatError::Field("use")),
        };
        r.bytes(5)?;
        let pool = PoolId(r.take()?);
        let segment = SegmentId(r.u64()?);
        if segment > SegmentId::MAX {
            return Err(FormatError::Field("segment id"));
        }
        let volume = VolumeId(r.u64()?);
        let epoch = Epoch(r.u64()?);
        let first_lsn = Lsn(r.u64()?);
        let size_bytes = r.u64()?;
        r.bytes(16)?;
        let chain = r.u32()?;
        r.u32()?;
        let opened_ms = r.u64()?;
        Ok(Self { slot_use, pool, segment, volume, epoch, first_lsn, size_bytes, chain, opened_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_it_encodes_and_no_flipped_byte() {
        let header = SlotHeader {
            slot_use: SlotUse::Segment,
            pool: PoolId([9; 16]),
            segment: SegmentId(77),
            volume: VolumeId(3),
            epoch: Epoch(2),
            first_lsn: Lsn(1000),
            size_bytes: 1 << 40,
            chain: 0xdead_beef,
            opened_ms: 5,
        };
        let mut block = vec![0xff; BLOCK_LEN];
        header.encode(&mut block);
        assert_eq!(SlotHeader::decode(&block), Ok(header));
        block[90] ^= 4;
        assert_eq!(SlotHeader::decode(&block), Err(FormatError::Checksum));
        assert_eq!(SlotHeader::decode(&[0; BLOCK_LEN]), Err(FormatError::Magic));
    }
}
