//! One operation of the log as its 32-byte descriptor.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 1 | kind: 1 write, 2 trim, 3 write zeroes, 4 resize (5 snapshot, 6 compacted write: later versions) |
//! | 1 | 7 | zero |
//! | 8 | 8 | first block; of a resize, 0 |
//! | 16 | 8 | number of blocks; of a resize, the new size in bytes |
//! | 24 | 8 | zero |

use super::FormatError;
use super::bytes::{Reader, Writer};
use units::{ADDRESS_SPACE_BYTES, BLOCK_BYTES, BlockIndex, BlockRange};

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR_BYTES: usize = 32;

/// Most blocks that one write operation carries: 1 MiB.
pub(super) const WRITE_BLOCKS_MAX: u64 = 256;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Gives the blocks of `range` content, which is in the payload.
    Write,
    /// Forgets the blocks of `range`.
    Trim,
    /// Makes the blocks of `range` zeros.
    WriteZeroes,
    /// Makes the volume this many bytes long.
    Resize(u64),
}

/// One operation. Every one takes one LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operation {
    /// What it does.
    pub kind: OperationKind,
    /// To which blocks; empty for a resize.
    pub range: BlockRange,
}

impl Operation {
    /// Blocks of payload it carries.
    #[must_use]
    pub const fn payload_blocks(&self) -> u32 {
        match self.kind {
            OperationKind::Write => self.range.count as u32,
            OperationKind::Trim | OperationKind::WriteZeroes | OperationKind::Resize(_) => 0,
        }
    }

    /// Whether it may take away what older segments hold: a trim, zeroes, or a resize, beyond which nothing lies.
    #[must_use]
    pub const fn makes_holes(&self) -> bool {
        !matches!(self.kind, OperationKind::Write)
    }

    pub(super) fn encode(&self, w: &mut Writer<'_>) {
        let (kind, first, count) = match self.kind {
            OperationKind::Write => (1, self.range.first.0, self.range.count),
            OperationKind::Trim => (2, self.range.first.0, self.range.count),
            OperationKind::WriteZeroes => (3, self.range.first.0, self.range.count),
            OperationKind::Resize(size_bytes) => (4, 0, size_bytes),
        };
        w.u64(kind);
        w.u64(first);
        w.u64(count);
        w.u64(0);
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        let kind = r.u8()?;
        r.bytes(7)?;
        let first = r.u64()?;
        let count = r.u64()?;
        r.u64()?;
        if kind == 4 {
            if count > ADDRESS_SPACE_BYTES {
                return Err(FormatError::Field("size"));
            }
            return Ok(Self { kind: OperationKind::Resize(count), range: BlockRange::new(BlockIndex(0), 0) });
        }
        let blocks_max = ADDRESS_SPACE_BYTES / BLOCK_BYTES;
        if count == 0 || first.checked_add(count).is_none_or(|end| end > blocks_max) {
            return Err(FormatError::Field("range"));
        }
        let kind = match kind {
            1 if count <= WRITE_BLOCKS_MAX => OperationKind::Write,
            2 => OperationKind::Trim,
            3 => OperationKind::WriteZeroes,
            _ => return Err(FormatError::Field("operation")),
        };
        Ok(Self { kind, range: BlockRange::new(BlockIndex(first), count) })
    }
}
