//! The first block of a slot: whose segment is in it, that it is a pack, or that nothing in it counts.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `ALJSLOT\0` |
//! | 8 | 2 | format version |
//! | 10 | 1 | use: 1 segment, 2 void, 3 pack (since version 2) |
//! | 11 | 1 | stream: 1 in a pack, compaction output; else 0, user writes |
//! | 12 | 4 | zero |
//! | 16 | 16 | pool id |
//! | 32 | 8 | segment id; of a pack, its own id out of the same space |
//! | 40 | 8 | volume id; of a pack, 2^64 - 1 |
//! | 48 | 8 | epoch at open |
//! | 56 | 8 | LSN of its first operation |
//! | 64 | 8 | bytes of the volume at open |
//! | 72 | 8 | snapshot generation at open: 0 |
//! | 80 | 8 | key id: 0, not encrypted |
//! | 88 | 4 | chain: CRC of the header of the volume's batch before its first |
//! | 92 | 4 | zero |
//! | 96 | 8 | opened at, milliseconds since 1970, advisory |
//! | 4092 | 4 | CRC-32C of the bytes before |
//!
//! A pack holds parcels of many volumes; of 48 to 96 it has zeros, and each of its parcels tells these of its segment. Its
//! header is in the last block of the slot once more.

use super::FormatError;
use super::bytes::{Reader, Writer, check_block, seal_block};
use units::{BLOCK_LEN, Epoch, Lsn, PoolId, SegmentId, VolumeId};

const MAGIC: [u8; 8] = *b"ALJSLOT\0";

/// The volume field of a pack, which is no volume's own.
const NO_VOLUME: VolumeId = VolumeId(u64::MAX);

/// The version that packs came with.
const PACK_VERSION_FIRST: u16 = 2;

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlotUse {
    /// A segment begins here.
    Segment,
    /// The segment or pack that was here is dead: nothing in this slot counts.
    Void,
    /// Compaction output: parcels of many segments begin in the next block.
    Pack,
}

/// The header of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotHeader {
    /// What the slot holds.
    pub slot_use: SlotUse,
    /// The pool's id: a slot copied from another pool is not taken for this one's.
    pub pool: PoolId,
    /// Never used twice. Of a pack, its own id.
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
    /// The header of a pack.
    #[must_use]
    pub const fn pack(pool: PoolId, pack: SegmentId, opened_ms: u64) -> Self {
        Self {
            slot_use: SlotUse::Pack,
            pool,
            segment: pack,
            volume: NO_VOLUME,
            epoch: Epoch(0),
            first_lsn: Lsn::ZERO,
            size_bytes: 0,
            chain: 0,
            opened_ms,
        }
    }

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

    /// The void header of a pack.
    #[must_use]
    pub const fn void_pack(pool: PoolId, pack: SegmentId) -> Self {
        Self::void(pool, pack, NO_VOLUME, Lsn::ZERO)
    }

    /// Encodes into one block.
    pub fn encode(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK_LEN, "a slot header fills a block");
        let mut w = Writer::new(block);
        w.start(MAGIC);
        w.u8(match self.slot_use {
            SlotUse::Segment => 1,
            SlotUse::Void => 2,
            SlotUse::Pack => 3,
        });
        w.u8(u8::from(self.slot_use == SlotUse::Pack));
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
    /// [`FormatError`] when it is no slot header of a version that this program reads.
    pub fn decode(block: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(block);
        let version = r.expect(MAGIC)?;
        check_block(block)?;
        let slot_use = match r.u8()? {
            1 => SlotUse::Segment,
            2 => SlotUse::Void,
            3 if version >= PACK_VERSION_FIRST => SlotUse::Pack,
            _ => return Err(FormatError::Field("use")),
        };
        if r.u8()? != u8::from(slot_use == SlotUse::Pack) {
            return Err(FormatError::Field("stream"));
        }
        r.bytes(4)?;
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
        let header = Self { slot_use, pool, segment, volume, epoch, first_lsn, size_bytes, chain, opened_ms };
        if slot_use == SlotUse::Pack && header != Self::pack(pool, segment, opened_ms) {
            return Err(FormatError::Field("volume of a pack"));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::super::vectors;
    use super::*;

    fn sample(slot_use: SlotUse) -> SlotHeader {
        SlotHeader {
            slot_use,
            pool: PoolId([9; 16]),
            segment: SegmentId(77),
            volume: VolumeId(3),
            epoch: Epoch(2),
            first_lsn: Lsn(1000),
            size_bytes: 1 << 40,
            chain: 0xdead_beef,
            opened_ms: 5,
        }
    }

    fn encoded(header: &SlotHeader) -> Vec<u8> {
        let mut block = vec![0xff; BLOCK_LEN];
        header.encode(&mut block);
        block
    }

    #[test]
    fn decodes_what_it_encodes_and_no_flipped_byte() {
        let pack = SlotHeader::pack(PoolId([9; 16]), SegmentId(78), 5);
        for header in [sample(SlotUse::Segment), sample(SlotUse::Void), pack] {
            let block = encoded(&header);
            assert_eq!(SlotHeader::decode(&block), Ok(header));
            for at in 0..BLOCK_LEN {
                let mut bad = block.clone();
                bad[at] ^= 4;
                assert!(SlotHeader::decode(&bad).is_err(), "flip at {at}");
            }
        }
        assert_eq!(SlotHeader::decode(&[0; BLOCK_LEN]), Err(FormatError::Magic));
    }

    #[test]
    fn use_and_stream_that_do_not_agree_are_refused() {
        let pack = SlotHeader::pack(PoolId([9; 16]), SegmentId(78), 5);
        let with = |header: &SlotHeader, at: usize, byte: u8| {
            let mut block = encoded(header);
            block[at] = byte;
            seal_block(&mut block);
            SlotHeader::decode(&block)
        };
        for slot_use in [SlotUse::Segment, SlotUse::Void] {
            assert_eq!(with(&sample(slot_use), 11, 1), Err(FormatError::Field("stream")));
            assert_eq!(with(&sample(slot_use), 11, 2), Err(FormatError::Field("stream")));
        }
        assert_eq!(with(&pack, 11, 0), Err(FormatError::Field("stream")));
        assert_eq!(with(&pack, 11, 2), Err(FormatError::Field("stream")));
        assert_eq!(with(&pack, 10, 4), Err(FormatError::Field("use")));
        assert_eq!(with(&pack, 40, 7), Err(FormatError::Field("volume of a pack")));
        assert_eq!(with(&pack, 56, 7), Err(FormatError::Field("volume of a pack")));
        // Packs came with version 2.
        assert_eq!(with(&pack, 8, 1), Err(FormatError::Field("use")));
    }

    #[test]
    fn headers_of_each_version_are_read() {
        let first = vectors::block(include_str!("../../vectors/slot-header-v1.hex"));
        assert_eq!(SlotHeader::decode(&first), Ok(sample(SlotUse::Segment)));
        let pack = vectors::block(include_str!("../../vectors/slot-header-pack-v2.hex"));
        let header = SlotHeader::pack(PoolId([9; 16]), SegmentId(78), 5);
        assert_eq!(SlotHeader::decode(&pack), Ok(header));
        let pack = vectors::block(include_str!("../../vectors/slot-header-pack-v3.hex"));
        assert_eq!(SlotHeader::decode(&pack), Ok(header));
        let pack = vectors::block(include_str!("../../vectors/slot-header-pack-v4.hex"));
        assert_eq!(SlotHeader::decode(&pack), Ok(header));
        let pack = vectors::block(include_str!("../../vectors/slot-header-pack-v5.hex"));
        assert_eq!(SlotHeader::decode(&pack), Ok(header));
        assert_eq!(encoded(&header), pack);
    }
}
