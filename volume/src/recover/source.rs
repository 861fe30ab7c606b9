//! Reading a slot block by block, with a window read ahead.

use crate::error::DiskFault;
use crate::format::{FormatError, Geometry};
use crate::store::PoolReader;
use std::fmt;
use units::{BLOCK_LEN, SlotIndex};

/// Blocks read at a time where one is asked for.
const AHEAD_BLOCKS: u32 = 16;

/// Most blocks of a batch's header: 2048 operations and a slot's worth of check values.
const HEADER_BLOCKS_MAX: u32 = 96;

/// A slot of the pool.
pub(crate) struct SlotSource<'a> {
    reader: &'a dyn PoolReader,
    geometry: Geometry,
    slot: SlotIndex,
    window: Vec<u8>,
    window_first: u32,
}

impl fmt::Debug for SlotSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotSource").field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl<'a> SlotSource<'a> {
    pub(crate) const fn new(reader: &'a dyn PoolReader, geometry: Geometry, slot: SlotIndex) -> Self {
        Self { reader, geometry, slot, window: Vec::new(), window_first: 0 }
    }

    pub(crate) const fn slot_blocks(&self) -> u32 {
        self.geometry.slot_blocks()
    }

    /// One block.
    pub(crate) fn block(&mut self, block: u32) -> Result<&[u8], DiskFault> {
        self.blocks(block, 1)
    }

    /// `count` blocks from `first` on, which lie in the slot.
    pub(crate) fn blocks(&mut self, first: u32, count: u32) -> Result<&[u8], DiskFault> {
        let held = first.checked_sub(self.window_first).map(|skip| skip as usize * BLOCK_LEN);
        let len = count as usize * BLOCK_LEN;
        if held.is_none_or(|at| at + len > self.window.len()) {
            self.fill(first, count)?;
        }
        let at = (first - self.window_first) as usize * BLOCK_LEN;
        self.window.get(at..at + len).ok_or(DiskFault::Io)
    }

    fn fill(&mut self, first: u32, count: u32) -> Result<(), DiskFault> {
        let ahead = count.max(AHEAD_BLOCKS).min(self.slot_blocks().saturating_sub(first));
        if ahead < count {
            return Err(DiskFault::Io);
        }
        if self.read(first, ahead).is_err() {
            // A block that was only read ahead may be the one that cannot be read.
            self.read(first, count)?;
        }
        Ok(())
    }

    fn read(&mut self, first: u32, count: u32) -> Result<(), DiskFault> {
        self.window.resize(count as usize * BLOCK_LEN, 0);
        self.window_first = first;
        let read = self.reader.read_at(self.geometry.block_offset(self.slot, first), &mut self.window);
        if read.is_err() {
            self.window.clear();
        }
        read
    }

    /// Decodes a structure of one block or more, as many as `decode` asks for.
    pub(crate) fn with_header_at<T>(
        &mut self,
        block: u32,
        decode: impl Fn(&[u8]) -> Result<T, FormatError>,
    ) -> Result<Result<T, FormatError>, DiskFault> {
        let left = self.slot_blocks().saturating_sub(block);
        let mut count = 1;
        loop {
            let found = decode(self.blocks(block, count)?);
            let most = HEADER_BLOCKS_MAX.min(left);
            match found {
                Err(FormatError::Short) if count < most => count = (count * 4).min(most),
                found => return Ok(found),
            }
        }
    }
}
