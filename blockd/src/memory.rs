//! Buffers of the engine as regions of the ring and back. Nothing is copied.

use uring::Region;
use volume::buffer::Buffer;

/// Lends a buffer's memory.
pub(crate) fn region_of(buffer: Buffer) -> Region {
    let (storage, start, len) = buffer.into_parts();
    Region::new(storage, start, len)
}

/// The buffer whose memory was lent.
pub(crate) fn buffer_of(region: Region) -> Buffer {
    let (storage, start, len) = region.into_parts();
    Buffer::from_parts(storage, start, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lent_buffer_comes_back_the_same() {
        let mut buffer = Buffer::zeroed(10_000);
        buffer.set_len(5000);
        let at = buffer.as_slice().as_ptr();
        let region = region_of(buffer);
        assert_eq!((region.as_slice().as_ptr(), region.len()), (at, 5000));
        let back = buffer_of(region);
        assert_eq!((back.as_slice().as_ptr(), back.len(), back.capacity()), (at, 5000, 12_288));
    }
}
