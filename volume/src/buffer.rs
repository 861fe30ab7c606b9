//! Memory that travels: a buffer is owned by whoever works on it, and comes back to its pool when it is done with.
//!
//! Every buffer begins on a 4 KiB boundary, so that the same memory can go to a device with direct I/O.

use units::BLOCK_LEN;

/// Owned bytes that begin on a 4 KiB boundary. The length can be set anywhere up to the capacity.
pub struct Buffer {
    storage: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// Makes a buffer of `len` zero bytes, with a capacity of whole blocks.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let capacity = len.next_multiple_of(BLOCK_LEN).max(BLOCK_LEN);
        // One block more than asked for, so that an aligned start exists wherever the allocator puts it.
        let storage = vec![0_u8; capacity + BLOCK_LEN].into_boxed_slice();
        let start = storage.as_ptr().align_offset(BLOCK_LEN);
        assert!(start < BLOCK_LEN, "an aligned start lies within the spare block");
        Self { storage, start, len }
    }

    /// Copies `bytes` into a buffer of their length.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.as_mut_slice().copy_from_slice(bytes);
        buffer
    }

    /// Its storage, where its bytes begin in it, and their number. Nothing is copied.
    #[must_use]
    pub fn into_parts(self) -> (Box<[u8]>, usize, usize) {
        (self.storage, self.start, self.len)
    }

    /// Puts a buffer together again from what [`Buffer::into_parts`] gave.
    ///
    /// # Panics
    /// When the parts are not those of a buffer.
    #[must_use]
    pub fn from_parts(storage: Box<[u8]>, start: usize, len: usize) -> Self {
        let is_aligned = storage.as_ptr().align_offset(BLOCK_LEN) == start && start < BLOCK_LEN;
        assert!(is_aligned && len + BLOCK_LEN <= storage.len(), "{start}+{len} are no buffer's parts");
        Self { storage, start, len }
    }

    /// The most bytes it can hold: whole blocks.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.storage.len() - BLOCK_LEN
    }

    /// Number of bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets the length; bytes that come into view are whatever was there.
    ///
    /// # Panics
    /// When `len` is above the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "length {len} above the capacity {}", self.capacity());
        self.len = len;
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.storage.get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.storage.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.len, self.capacity())
    }
}

/// Buffers kept for the next user, by power of two from 4 KiB to 1 MiB; others are given back to the allocator.
///
/// A buffer that comes out holds whatever was last in it: its user fills every byte it shows to others.
#[derive(Debug)]
pub struct BufferPool {
    classes: [Vec<Buffer>; CLASS_COUNT],
    kept_bytes: usize,
    kept_bytes_max: usize,
}

const CLASS_COUNT: usize = 9;
const _: () = assert!(BLOCK_LEN << (CLASS_COUNT - 1) == 1 << 20);

/// Bytes of buffers, together.
#[must_use]
pub fn total_len(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|buffer| buffer.len() as u64).sum()
}

impl BufferPool {
    /// Makes a pool that keeps at most `kept_bytes_max` bytes in unused buffers.
    #[must_use]
    pub const fn new(kept_bytes_max: usize) -> Self {
        Self { classes: [const { Vec::new() }; CLASS_COUNT], kept_bytes: 0, kept_bytes_max }
    }

    /// Takes a buffer of `len` bytes whose content is not defined.
    pub fn take(&mut self, len: usize) -> Buffer {
        let capacity = len.max(BLOCK_LEN).next_power_of_two();
        let kept = self.classes.get_mut(Self::class_of(capacity)).and_then(Vec::pop);
        let mut buffer = kept.map_or_else(
            || Buffer::zeroed(if capacity <= BLOCK_LEN << (CLASS_COUNT - 1) { capacity } else { len }),
            |buffer| {
                self.kept_bytes -= buffer.capacity();
                buffer
            },
        );
        buffer.set_len(len);
        buffer
    }

    /// Takes a buffer that holds a copy of `bytes`.
    pub fn take_copy_of(&mut self, bytes: &[u8]) -> Buffer {
        let mut buffer = self.take(bytes.len());
        buffer.as_mut_slice().copy_from_slice(bytes);
        buffer
    }

    /// Gives a buffer back.
    pub fn put(&mut self, buffer: Buffer) {
        let capacity = buffer.capacity();
        if !capacity.is_power_of_two() || self.kept_bytes + capacity > self.kept_bytes_max {
            return;
        }
        if let Some(class) = self.classes.get_mut(Self::class_of(capacity)) {
            self.kept_bytes += capacity;
            class.push(buffer);
        }
    }

    /// Gives buffers back.
    pub fn put_all(&mut self, buffers: impl IntoIterator<Item = Buffer>) {
        buffers.into_iter().for_each(|buffer| self.put(buffer));
    }

    #[cfg(test)]
    pub(crate) const fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    const fn class_of(capacity: usize) -> usize {
        (capacity.trailing_zeros() - BLOCK_LEN.trailing_zeros()) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_buffer_begins_on_a_block_boundary() {
        for len in [1, 511, 4096, 4097, 1 << 20] {
            let buffer = Buffer::zeroed(len);
            assert_eq!(buffer.as_slice().as_ptr().align_offset(BLOCK_LEN), 0);
            assert_eq!(buffer.len(), len);
            assert!(buffer.capacity().is_multiple_of(BLOCK_LEN));
        }
    }

    #[test]
    fn a_pool_gives_a_returned_buffer_again_and_keeps_no_more_than_its_limit() {
        let mut pool = BufferPool::new(8192);
        let first = pool.take(5000);
        let at = first.as_slice().as_ptr();
        pool.put(first);
        pool.put(Buffer::zeroed(4096));
        assert_eq!(pool.kept_bytes, 8192);
        let again = pool.take(8000);
        assert_eq!(again.as_slice().as_ptr(), at);
        assert_eq!(again.len(), 8000);
    }

    #[test]
    fn odd_sizes_are_served_and_not_kept() {
        let mut pool = BufferPool::new(1 << 30);
        let big = pool.take((1 << 20) + 4096);
        assert_eq!(big.len(), (1 << 20) + 4096);
        pool.put(big);
        assert_eq!(pool.kept_bytes, 0);
    }
}
