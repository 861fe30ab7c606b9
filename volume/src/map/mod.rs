//! The map (stub of the words).
use crate::io::PageIndex;
/// Blocks that one page maps.
pub const PAGE_BLOCKS: u64 = 2048;
/// One change of the store's pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageWrite {
    /// Merge these entries over the stored page.
    Merge {
        /// The page.
        page: PageIndex,
        /// Encoded page; holes in a partial page mean "as stored".
        encoded: Vec<u8>,
    },
    /// Drop every stored page of `first..end`.
    Drop {
        /// First page.
        first: PageIndex,
        /// The page after the end.
        end: PageIndex,
    },
}
