//! Words with units that every other crate speaks: block and byte ranges, log positions, identities, time.
//!
//! Nothing here does I/O or knows a format; a mix-up of two quantities is a type error.

#![forbid(unsafe_code)]

mod id;
mod range;
mod time;

pub use id::{ClassId, Epoch, GroupId, Lsn, PoolId, SegmentId, SiteId, SlotIndex, SnapshotId, TenantId, VolumeId};
pub use range::{BlockIndex, BlockRange, ByteRange, OutOfRange};
pub use time::{MeterTime, Monotonic};

/// Bytes of a block, the unit of mapping, checksum and atomicity.
pub const BLOCK_BYTES: u64 = 4096;

/// [`BLOCK_BYTES`] for indexing memory.
pub const BLOCK_LEN: usize = 4096;

/// Bytes of a sector, the smallest unit a protocol may address and the only write size a disk is trusted to keep whole.
pub const SECTOR_BYTES: u64 = 512;

/// Bytes a volume's address space can span: 2^63.
pub const ADDRESS_SPACE_BYTES: u64 = 1 << 63;
