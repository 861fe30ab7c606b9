//! Ranges of bytes and of blocks, half-open.

use crate::{ADDRESS_SPACE_BYTES, BLOCK_BYTES};
use std::fmt;

/// A range that leaves the address space of 2^63 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange;

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the range ends beyond the address space of 2^63 bytes")
    }
}

impl std::error::Error for OutOfRange {}

/// A range of a volume's bytes: `offset..offset + len`, within 2^63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRange {
    offset: u64,
    len: u64,
}

impl ByteRange {
    /// Makes the range of `len` bytes from `offset`.
    ///
    /// # Errors
    /// [`OutOfRange`] when it ends beyond 2^63.
    pub const fn new(offset: u64, len: u64) -> Result<Self, OutOfRange> {
        match offset.checked_add(len) {
            Some(end) if end <= ADDRESS_SPACE_BYTES => Ok(Self { offset, len }),
            _ => Err(OutOfRange),
        }
    }

    /// First byte.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// Number of bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Whether it holds no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The byte after its end.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.offset + self.len
    }

    /// Whether both ends lie on block boundaries.
    #[must_use]
    pub const fn is_block_aligned(self) -> bool {
        self.offset.is_multiple_of(BLOCK_BYTES) && self.len.is_multiple_of(BLOCK_BYTES)
    }

    /// The blocks it touches, whole or in part.
    #[must_use]
    pub const fn blocks_touched(self) -> BlockRange {
        if self.len == 0 {
            return BlockRange::new(BlockIndex(self.offset / BLOCK_BYTES), 0);
        }
        let first = self.offset / BLOCK_BYTES;
        BlockRange::new(BlockIndex(first), self.end().div_ceil(BLOCK_BYTES) - first)
    }

    /// The blocks that lie wholly in it.
    #[must_use]
    pub const fn blocks_covered(self) -> BlockRange {
        let first = self.offset.div_ceil(BLOCK_BYTES);
        let end = self.end() / BLOCK_BYTES;
        BlockRange::new(BlockIndex(first), end.saturating_sub(first))
    }
}

/// A volume's block, counted from 0. Below 2^51.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(pub u64);

impl BlockIndex {
    /// The block `count` further on.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }

    /// Its first byte in the volume.
    #[must_use]
    pub const fn byte_offset(self) -> u64 {
        self.0 * BLOCK_BYTES
    }
}

impl fmt::Display for BlockIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A run of a volume's blocks: `first..first + count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRange {
    /// First block.
    pub first: BlockIndex,
    /// Number of blocks.
    pub count: u64,
}

impl BlockRange {
    /// Makes the run of `count` blocks from `first`.
    #[must_use]
    pub const fn new(first: BlockIndex, count: u64) -> Self {
        Self { first, count }
    }

    /// The block after its end.
    #[must_use]
    pub const fn end(self) -> BlockIndex {
        BlockIndex(self.first.0 + self.count)
    }

    /// Whether it holds no block.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.count == 0
    }

    /// Whether both hold some block.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first.0 < other.end().0 && other.first.0 < self.end().0
    }

    /// Whether `block` is in it.
    #[must_use]
    pub const fn contains(self, block: BlockIndex) -> bool {
        self.first.0 <= block.0 && block.0 < self.end().0
    }

    /// Its blocks in order.
    pub fn blocks(self) -> impl Iterator<Item = BlockIndex> {
        (self.first.0..self.end().0).map(BlockIndex)
    }

    /// Its bytes in the volume.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.count * BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(offset: u64, len: u64) -> ByteRange {
        ByteRange::new(offset, len).unwrap()
    }

    #[test]
    fn touched_blocks_include_partial_ones_and_covered_blocks_do_not() {
        let r = range(512, 8192);
        assert_eq!(r.blocks_touched(), BlockRange::new(BlockIndex(0), 3));
        assert_eq!(r.blocks_covered(), BlockRange::new(BlockIndex(1), 1));
        assert_eq!(range(4096, 4096).blocks_touched(), range(4096, 4096).blocks_covered());
        assert!(range(512, 1024).blocks_covered().is_empty());
        assert!(range(4096, 0).blocks_touched().is_empty());
    }

    #[test]
    fn a_range_beyond_the_address_space_is_refused() {
        assert_eq!(ByteRange::new(1 << 63, 1), Err(OutOfRange));
        assert_eq!(ByteRange::new(u64::MAX, 2), Err(OutOfRange));
        assert!(ByteRange::new((1 << 63) - 1, 1).is_ok());
    }

    #[test]
    fn runs_that_only_touch_do_not_overlap() {
        let run = |first, count| BlockRange::new(BlockIndex(first), count);
        assert!(!run(0, 4).overlaps(run(4, 1)));
        assert!(run(0, 5).overlaps(run(4, 1)));
        assert!(!run(0, 0).overlaps(run(0, 1)));
    }
}
