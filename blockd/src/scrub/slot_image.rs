//! A slot's bytes as the disk gives them, read once and at a pace, for all that is in it.

use super::Shared;
use crate::open::{PastCache, PoolFile};
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};
use units::{BLOCK_BYTES, BLOCK_LEN, SlotIndex};
use volume::buffer::Buffer;
use volume::error::DiskFault;
use volume::store::PoolReader;

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// How long it sleeps at most before it looks whether it is to stop.
const NAP: Duration = Duration::from_millis(50);

/// Reads slots.
pub(super) struct SlotImage<'a> {
    pool: &'a PoolFile,
    shared: &'a Shared,
    past_cache: PastCache,
    bytes_per_second: u64,
    /// When the next read may begin.
    next_read: Instant,
    bytes: Buffer,
    /// Where in the pool they are.
    offset: u64,
    /// Blocks of them that the disk does not give.
    unreadable: BTreeSet<u64>,
}

impl<'a> SlotImage<'a> {
    pub(super) fn new(pool: &'a PoolFile, shared: &'a Shared, bytes_per_second: u64) -> Self {
        Self {
            pool,
            shared,
            past_cache: PastCache::new(pool),
            bytes_per_second: bytes_per_second.max(1),
            next_read: Instant::now(),
            bytes: Buffer::zeroed(usize::try_from(pool.superblock().geometry.slot_bytes).unwrap_or(BLOCK_LEN)),
            offset: 0,
            unreadable: BTreeSet::new(),
        }
    }

    /// Reads a slot; `None` when it is told to stop.
    pub(super) fn read(&mut self, slot: SlotIndex) -> Option<()> {
        self.offset = self.pool.superblock().geometry.slot_offset(slot);
        self.unreadable.clear();
        let len = self.bytes.len();
        for at in (0..len).step_by(READ_BYTES) {
            self.wait_for_turn(READ_BYTES.min(len - at))?;
            let end = (at + READ_BYTES).min(len);
            if self.read_part(at, end).is_ok() {
                continue;
            }
            for block in (at..end).step_by(BLOCK_LEN) {
                if let Err(error) = self.read_part(block, block + BLOCK_LEN) {
                    let offset = self.offset + block as u64;
                    tracing::error!(offset, %error, "a scrub cannot read a block of the pool");
                    self.unreadable.insert(offset / BLOCK_BYTES);
                }
            }
        }
        Some(())
    }

    fn read_part(&mut self, from: usize, to: usize) -> std::io::Result<()> {
        let offset = self.offset + from as u64;
        let part = self.bytes.as_mut_slice().get_mut(from..to).unwrap_or_default();
        self.past_cache.read(self.pool, offset, part)
    }

    /// Waits until `len` more bytes are within the pace; `None` when it is told to stop.
    fn wait_for_turn(&mut self, len: usize) -> Option<()> {
        loop {
            if self.shared.is_ending() {
                return None;
            }
            let now = Instant::now();
            let left = self.next_read.saturating_duration_since(now);
            if left.is_zero() || !self.shared.is_paced() {
                let nanos = u128::from(len as u64) * 1_000_000_000 / u128::from(self.bytes_per_second);
                // Time in which nothing was read is not made up for.
                self.next_read = now + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
                return Some(());
            }
            thread::sleep(left.min(NAP));
        }
    }
}

impl PoolReader for SlotImage<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskFault> {
        let blocks = offset / BLOCK_BYTES..(offset + buffer.len() as u64).div_ceil(BLOCK_BYTES);
        if self.unreadable.range(blocks).next().is_some() {
            return Err(DiskFault::Io);
        }
        let from = offset.checked_sub(self.offset).and_then(|from| usize::try_from(from).ok()).ok_or(DiskFault::Io)?;
        let end = from.checked_add(buffer.len()).ok_or(DiskFault::Io)?;
        buffer.copy_from_slice(self.bytes.as_slice().get(from..end).ok_or(DiskFault::Io)?);
        Ok(())
    }
}
