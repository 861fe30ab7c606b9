//! Heap memory that can be lent to the kernel.

use std::fmt;
use std::ptr::NonNull;
use std::slice;

/// A view of owned heap bytes: `storage[start..start + len]`.
///
/// It is made of a boxed slice and turns back into one, without copying. Inside, the memory is held as a raw pointer, so
/// that moving a region (into an operation, out of a completion) asserts nothing about who else looks at the bytes:
/// while an operation owns the region, that is the kernel.
pub struct Region {
    /// From `Box::leak`, given back by `Drop` or `into_parts`; never null, never shared.
    storage: NonNull<[u8]>,
    start: usize,
    len: usize,
}

// SAFETY: a region owns its bytes alone, as `Box<[u8]>` does, which is `Send`.
unsafe impl Send for Region {}

// SAFETY: a shared region gives out nothing but `&[u8]`, as `Box<[u8]>` does, which is `Sync`.
unsafe impl Sync for Region {}

impl Region {
    /// Makes the view `storage[start..start + len]`.
    ///
    /// # Panics
    /// When the view leaves the storage.
    #[must_use]
    pub fn new(storage: Box<[u8]>, start: usize, len: usize) -> Self {
        assert!(
            start.checked_add(len).is_some_and(|end| end <= storage.len()),
            "view {start}+{len} leaves a storage of {} bytes",
            storage.len()
        );
        Self { storage: NonNull::from(Box::leak(storage)), start, len }
    }

    /// Makes a region of `len` zero bytes.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self::new(vec![0; len].into_boxed_slice(), 0, len)
    }

    /// The storage, the view's start and its length, as [`Region::new`] takes them.
    #[must_use]
    pub fn into_parts(self) -> (Box<[u8]>, usize, usize) {
        let whole = std::mem::ManuallyDrop::new(self);
        // SAFETY: `storage` came from `Box::leak`, and `whole` is never dropped, so that this is the only box of it.
        let storage = unsafe { Box::from_raw(whole.storage.as_ptr()) };
        (storage, whole.start, whole.len)
    }

    /// Number of bytes in view.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is in view.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes in view.
    #[must_use]
    pub const fn as_slice(&self) -> &[u8] {
        // SAFETY: the view lies in the storage (`new`), whose bytes are initialized and owned by `self`; the kernel has
        // no access to it here, since a region in flight is inside the ring and out of reach.
        unsafe { slice::from_raw_parts(self.first_byte(), self.len) }
    }

    /// The bytes in view, to be changed.
    pub const fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; `&mut self` makes the access unique.
        unsafe { slice::from_raw_parts_mut(self.first_byte(), self.len) }
    }

    /// Where the view begins. Valid for `len` bytes as long as the region, wherever it moves, is neither dropped nor
    /// taken apart.
    pub(crate) const fn first_byte(&self) -> *mut u8 {
        let storage = self.storage.as_ptr().cast::<u8>();
        // SAFETY: `start` is within the storage or one past its end (`new`).
        unsafe { storage.add(self.start) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `storage` came from `Box::leak`, and `into_parts`, the only other taker, prevents this drop.
        drop(unsafe { Box::from_raw(self.storage.as_ptr()) });
    }
}

/// Memory for what nobody wants: the kernel may write it for any number of operations at once, and nobody reads it.
pub(crate) struct Scratch(Region);

impl Scratch {
    pub(crate) fn new(len: usize) -> Self {
        Self(Region::zeroed(len))
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Where it begins. Valid for its length as long as it is not dropped.
    pub(crate) const fn first_byte(&self) -> *mut u8 {
        self.0.first_byte()
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_shows_its_view_only_and_gives_the_same_memory_back() {
        let storage: Box<[u8]> = (0..16).collect();
        let at = storage.as_ptr();
        let mut region = Region::new(storage, 4, 8);
        assert_eq!(region.as_slice(), &[4, 5, 6, 7, 8, 9, 10, 11]);
        region.as_mut_slice()[0] = 99;
        let mut moved = vec![region];
        let (storage, start, len) = moved.pop().unwrap().into_parts();
        assert_eq!((storage.as_ptr(), storage[4], start, len), (at, 99, 4, 8));
    }

    #[test]
    fn empty_regions_are_allowed_anywhere() {
        assert!(Region::zeroed(0).as_slice().is_empty());
        assert!(Region::new(vec![1, 2].into_boxed_slice(), 2, 0).is_empty());
    }

    #[test]
    #[should_panic(expected = "leaves a storage")]
    fn a_view_outside_the_storage_is_refused() {
        let _ = Region::new(vec![0; 8].into_boxed_slice(), usize::MAX, 2);
    }
}
