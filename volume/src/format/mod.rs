//! Every byte that a pool holds: superblocks, slot headers, batches, footers, parcels. See `docs/format.md`.
//!
//! Pure encoding and decoding, little-endian throughout. Nothing here judges whether a structure is in its right place:
//! decoding checks magic, version and CRC, and hands out what the bytes say.

#![expect(clippy::cast_possible_truncation, reason = "counts within one slot: at most 65,536 blocks")]

mod batch;
mod bytes;
mod checksum;
mod cut;
mod footer;
mod operation;
mod pack;
mod slot_header;
mod superblock;
#[cfg(test)]
mod vectors;

pub use batch::{BATCH_OPERATIONS_MAX, BatchHeader, batch_header_blocks, decode_batch, encode_batch, names_batch_of};
pub use checksum::{block_check, moved_checks};
pub use cut::{Cut, PartSet};
pub use footer::{Footer, FooterTrailer, decode_footer_trailer, encode_footer, footer_blocks};
pub use operation::{Operation, OperationKind};
pub use pack::{
    Parcel, ParcelEntry, ParcelHeader, ParcelStart, decode_parcel_start, encode_parcel, pack_room_blocks,
    parcel_header_blocks,
};
pub use slot_header::{SlotHeader, SlotUse};
pub use superblock::{Geometry, POOL_DATA_OFFSET, SUPERBLOCK_OFFSETS, Superblock};

use std::fmt;

/// The version that this code writes.
pub const FORMAT_VERSION: u16 = 5;

/// The oldest version that it reads, and all up to the one that it writes.
pub const FORMAT_VERSION_OLDEST: u16 = 1;

/// Bytes of check data per block that this version writes: a CRC-32C. Batches and footers name their own width, up to 16,
/// so that an AEAD tag fits where a volume is encrypted.
pub const CHECK_BYTES: usize = 4;

/// Why bytes are not the structure they were taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FormatError {
    /// Fewer bytes than the structure has.
    Short,
    /// Another magic number: something else is here, or nothing.
    Magic,
    /// Written by a version of the format that this program does not read, or that did not have the structure.
    Version(u16),
    /// The CRC does not match.
    Checksum,
    /// A field has a value that no writer gives it.
    Field(&'static str),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("too few bytes"),
            Self::Magic => f.write_str("wrong magic number"),
            Self::Version(found) => {
                write!(f, "format version {found}, this program reads {FORMAT_VERSION_OLDEST} to {FORMAT_VERSION}")
            }
            Self::Checksum => f.write_str("checksum mismatch"),
            Self::Field(name) => write!(f, "field {name} has an impossible value"),
        }
    }
}

impl std::error::Error for FormatError {}
