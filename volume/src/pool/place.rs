//! Where the blocks of a segment are that has been moved: behind each other in a pack, in the order in which they were.

use units::{Lsn, SegmentId};

/// Where a segment is that has been moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParcelPlace {
    /// The pack.
    pub pack: SegmentId,
    /// The block of the pack's slot where the parcel begins.
    pub block: u32,
    /// Blocks of its header; the payload is behind them.
    pub header_blocks: u32,
    /// How often the segment was moved.
    pub moves: u32,
    /// What is here is what the stored map named when it was complete up to here.
    pub clean_lsn: Lsn,
}

impl ParcelPlace {
    /// The block of the slot where the payload begins.
    #[must_use]
    pub const fn payload(&self) -> u32 {
        self.block + self.header_blocks
    }
}
