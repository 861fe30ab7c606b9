//! Where the blocks of a segment are that has been moved: behind each other in a pack, in the order in which they were.

use super::{SegmentRow, Survivors};
use std::sync::Arc;
use units::{Lsn, SegmentId};

/// All that is needed to read a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whose it is, and where it is now.
    pub row: SegmentRow,
    /// Which of its blocks are left, when it was moved.
    pub survivors: Option<Arc<Survivors>>,
}

impl Place {
    /// The block of the slot where `count` neighbouring blocks from `block` on are, wherever they are together.
    #[must_use]
    pub fn block_of(&self, block: u16, count: u32) -> Option<u32> {
        self.row.block_of(self.survivors.as_deref(), u32::from(block), count)
    }
}

impl SegmentRow {
    /// The same where the row and the survivors, which only a segment has that was moved, are known apart.
    #[must_use]
    pub fn block_of(&self, survivors: Option<&Survivors>, block: u32, count: u32) -> Option<u32> {
        let Some(parcel) = self.parcel else { return Some(block) };
        Some(parcel.payload() + survivors?.rank_of_run(block, count)?)
    }
}

/// Where a segment is that has been moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParcelPlace {
    /// The pack.
    pub pack: SegmentId,
    /// The block of the pack's slot where the parcel begins.
    pub block: u32,
    /// The block of the pack's slot where its header is once more.
    pub copy: u32,
    /// Blocks of its header; the payload is behind them.
    pub header_blocks: u32,
    /// How often the segment was moved.
    pub moves: u32,
    /// What is here is what the stored map named when it was complete up to here.
    pub clean_lsn: Lsn,
}

impl ParcelPlace {
    /// The two blocks of the slot where its header begins: before its payload, and in the pack's directory.
    #[must_use]
    pub const fn headers(&self) -> [u32; 2] {
        [self.block, self.copy]
    }

    /// The block of the slot where the payload begins.
    #[must_use]
    pub const fn payload(&self) -> u32 {
        self.block + self.header_blocks
    }
}
