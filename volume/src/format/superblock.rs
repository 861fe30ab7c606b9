//! The superblock: what a pool is. Two copies, written in turn, so that one is always whole.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `ALJPOOL\0` |
//! | 8 | 2 | format version |
//! | 10 | 6 | zero |
//! | 16 | 16 | pool id |
//! | 32 | 8 | bytes of a slot |
//! | 40 | 4 | number of slots |
//! | 44 | 4 | zero |
//! | 48 | 8 | generation: the copy with the higher one counts |
//! | 56 | 8 | made at, milliseconds since 1970 |
//! | 4092 | 4 | CRC-32C of the bytes before |

use super::FormatError;
use super::bytes::{Reader, Writer, check_block, seal_block};
use units::{BLOCK_BYTES, BLOCK_LEN, PoolId, SlotIndex};

const MAGIC: [u8; 8] = *b"ALJPOOL\0";

/// Where the two copies are.
pub const SUPERBLOCK_OFFSETS: [u64; 2] = [0, BLOCK_BYTES];

/// Where slot 0 begins.
pub const POOL_DATA_OFFSET: u64 = 1 << 20;

/// How a pool is cut into slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Bytes of a slot, a power of two from 64 KiB to 256 MiB.
    pub slot_bytes: u64,
    /// Number of slots.
    pub slot_count: u32,
}

impl Geometry {
    /// The smallest slot, used by the simulator.
    pub const SLOT_BYTES_MIN: u64 = 64 << 10;
    /// The largest slot: a block index within it has 16 bits.
    pub const SLOT_BYTES_MAX: u64 = 256 << 20;

    /// Where a slot begins in the pool.
    #[must_use]
    pub const fn slot_offset(&self, slot: SlotIndex) -> u64 {
        POOL_DATA_OFFSET + slot.0 as u64 * self.slot_bytes
    }

    /// Where a block of a slot is in the pool.
    #[must_use]
    pub const fn block_offset(&self, slot: SlotIndex, block: u32) -> u64 {
        self.slot_offset(slot) + block as u64 * BLOCK_BYTES
    }

    /// Blocks of a slot; at most 65,536.
    #[must_use]
    pub const fn slot_blocks(&self) -> u32 {
        (self.slot_bytes / BLOCK_BYTES) as u32
    }

    /// Bytes of the whole pool.
    #[must_use]
    pub const fn pool_bytes(&self) -> u64 {
        POOL_DATA_OFFSET + self.slot_count as u64 * self.slot_bytes
    }

    /// Whether a pool can be cut so.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.slot_bytes.is_power_of_two()
            && self.slot_bytes >= Self::SLOT_BYTES_MIN
            && self.slot_bytes <= Self::SLOT_BYTES_MAX
            && self.slot_count > 0
    }
}

/// A pool's superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Whose it is.
    pub pool: PoolId,
    /// How the pool is cut.
    pub geometry: Geometry,
    /// Grows with each write of the superblock; one is written at every start.
    pub generation: u64,
    /// When the pool was made, milliseconds since 1970.
    pub created_ms: u64,
}

impl Superblock {
    /// Encodes one block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK_LEN];
        let mut w = Writer::new(&mut block);
        w.start(MAGIC);
        w.pad_to(16);
        w.put(&self.pool.0);
        w.u64(self.geometry.slot_bytes);
        w.u32(self.geometry.slot_count);
        w.u32(0);
        w.u64(self.generation);
        w.u64(self.created_ms);
        seal_block(&mut block);
        block
    }

    /// The format version that a block bears which is a whole superblock.
    ///
    /// A program that knows an older version only is kept from a pool by both copies: before anything of a newer version is
    /// written, both must bear it.
    #[must_use]
    pub fn version_of(block: &[u8]) -> Option<u16> {
        Self::decode(block).ok()?;
        Reader::new(block).expect(MAGIC).ok()
    }

    /// Decodes one block.
    ///
    /// # Errors
    /// [`FormatError`] when it is not a superblock of a version that this program reads.
    pub fn decode(block: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(block);
        r.expect(MAGIC)?;
        check_block(block)?;
        r.bytes(6)?;
        let pool = PoolId(r.take()?);
        let geometry = Geometry { slot_bytes: r.u64()?, slot_count: r.u32()? };
        r.u32()?;
        if !geometry.is_valid() {
            return Err(FormatError::Field("slot size"));
        }
        Ok(Self { pool, geometry, generation: r.u64()?, created_ms: r.u64()? })
    }

    /// Chooses the copy that counts.
    ///
    /// # Errors
    /// The first copy's fault when neither is whole.
    pub fn newest(copies: [Result<Self, FormatError>; 2]) -> Result<Self, FormatError> {
        match copies {
            [Ok(a), Ok(b)] => Ok(if a.generation >= b.generation { a } else { b }),
            [Ok(one), Err(_)] | [Err(_), Ok(one)] => Ok(one),
            [Err(fault), Err(_)] => Err(fault),
        }
    }

    /// Where the copy of this generation goes: the other one than that of the generation before.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        if self.generation.is_multiple_of(2) { SUPERBLOCK_OFFSETS[0] } else { SUPERBLOCK_OFFSETS[1] }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FORMAT_VERSION, vectors};
    use super::*;

    fn sample(generation: u64) -> Superblock {
        let geometry = Geometry { slot_bytes: 32 << 20, slot_count: 1000 };
        Superblock { pool: PoolId([3; 16]), geometry, generation, created_ms: 12 }
    }

    #[test]
    fn decodes_what_it_encodes_and_no_flipped_byte() {
        let block = sample(4).encode();
        assert_eq!(Superblock::decode(&block), Ok(sample(4)));
        for at in [0, 9, 20, 50, 4000, 4095] {
            let mut bad = block.clone();
            bad[at] ^= 1;
            assert!(Superblock::decode(&bad).is_err(), "flip at {at}");
        }
        assert_eq!(Superblock::decode(&block[..100]), Err(FormatError::Checksum));
    }

    #[test]
    fn the_newer_whole_copy_counts() {
        let newest = |a, b| Superblock::newest([a, b]);
        assert_eq!(newest(Ok(sample(4)), Ok(sample(5))), Ok(sample(5)));
        assert_eq!(newest(Ok(sample(4)), Err(FormatError::Checksum)), Ok(sample(4)));
        assert_eq!(newest(Err(FormatError::Magic), Err(FormatError::Short)), Err(FormatError::Magic));
        assert_ne!(sample(4).offset(), sample(5).offset());
    }

    #[test]
    fn superblocks_of_each_version_are_read() {
        let first = vectors::block(include_str!("../../vectors/superblock-v1.hex"));
        assert_eq!(Superblock::decode(&first), Ok(sample(4)));
        assert_eq!(Superblock::version_of(&first), Some(1));
        let second = vectors::block(include_str!("../../vectors/superblock-v2.hex"));
        assert_eq!(Superblock::decode(&second), Ok(sample(4)));
        assert_eq!(Superblock::version_of(&second), Some(2));
        let third = vectors::block(include_str!("../../vectors/superblock-v3.hex"));
        assert_eq!(Superblock::decode(&third), Ok(sample(4)));
        assert_eq!(Superblock::version_of(&third), Some(3));
        let fourth = vectors::block(include_str!("../../vectors/superblock-v4.hex"));
        assert_eq!(Superblock::decode(&fourth), Ok(sample(4)));
        assert_eq!(Superblock::version_of(&fourth), Some(4));
        let fifth = vectors::block(include_str!("../../vectors/superblock-v5.hex"));
        assert_eq!(sample(4).encode(), fifth);
        assert_eq!(Superblock::version_of(&fifth), Some(5));
        for version in [0, FORMAT_VERSION + 1] {
            let mut other = fifth.clone();
            other[8..10].copy_from_slice(&version.to_le_bytes());
            seal_block(&mut other);
            assert_eq!(Superblock::decode(&other), Err(FormatError::Version(version)));
            assert_eq!(Superblock::version_of(&other), None);
        }
    }
}
