//! Space for the slots of a pool file: allocated before a slot is used, and where there is time, written.
//!
//! A slot's space is allocated when it is leased, so that a full host file system is told to the volume that wants a slot
//! and never in the middle of an append. Space that is allocated but was never written costs the host's journal a commit
//! at every sync of a small append; so slots are filled with zeros before they are needed, when nobody is in a hurry.
//! A block device has all its space from the start.

use super::error::OpenError;
use super::pool_file::PoolFile;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use units::{BLOCK_LEN, SlotIndex};
use volume::buffer::Buffer;
use volume::format::Geometry;

/// Zeros written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The page cache keeps a file in aligned pieces of at most so many bytes where a page has 4 KiB.
const CACHED_PIECE_BYTES: u64 = 2 << 20;

/// The space of a pool's slots.
#[derive(Debug)]
pub(crate) struct Space {
    file: File,
    /// Writes zeros past the page cache; `None` where the file system cannot, or a device needs none.
    direct: Option<File>,
    path: PathBuf,
    geometry: Geometry,
    is_device: bool,
}

impl Space {
    pub(crate) fn of(pool: &PoolFile) -> Result<Self, OpenError> {
        let file = pool.file().try_clone().map_err(OpenError::system("open", pool.path()))?;
        let is_possible = !pool.is_device() && rustix::param::page_size() == BLOCK_LEN;
        let direct = if is_possible { uring::file::open(pool.path(), true).ok() } else { None };
        Ok(Self {
            file,
            direct,
            path: pool.path().to_owned(),
            geometry: pool.superblock().geometry,
            is_device: pool.is_device(),
        })
    }

    /// Makes sure that a slot has its space.
    pub(crate) fn allocate(&self, slot: SlotIndex) -> io::Result<()> {
        if self.is_device {
            return Ok(());
        }
        match uring::file::allocate(&self.file, self.geometry.slot_offset(slot), self.geometry.slot_bytes) {
            Ok(()) => Ok(()),
            // The file system allocates as it is written to, and says so when it is full.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    /// Whether a slot may have its space already, from having been used. Cheaper to ask than a full file system is.
    pub(crate) fn may_be_allocated(&self, slot: SlotIndex) -> bool {
        let start = self.geometry.slot_offset(slot);
        match rustix::fs::seek(&self.file, SeekFrom::Data(start)) {
            Ok(data) => data < start + self.geometry.slot_bytes,
            // Nothing but a hole up to the file's end.
            Err(Errno::NXIO) => false,
            Err(_) => true,
        }
    }

    /// Whether filling a slot with zeros would spare its first syncs something.
    pub(crate) fn wants_writing(&self, slot: SlotIndex) -> bool {
        let inner = self.inner_range(slot);
        self.direct.is_some()
            && rustix::fs::seek(&self.file, SeekFrom::Hole(inner.start)).is_ok_and(|hole| hole < inner.end)
    }

    /// Fills a slot that nobody uses with zeros.
    pub(crate) fn write_zeros(&self, slot: SlotIndex) -> io::Result<()> {
        let Some(direct) = &self.direct else { return Ok(()) };
        let zeros = Buffer::zeroed(CHUNK_BYTES);
        let mut left = self.inner_range(slot);
        while left.start < left.end {
            let len = (left.end - left.start).min(CHUNK_BYTES as u64);
            let chunk = zeros.as_slice().get(..usize::try_from(len).unwrap_or(0)).unwrap_or_default();
            direct.write_all_at(chunk, left.start)?;
            left.start += len;
        }
        Ok(())
    }

    /// The part of a slot that shares no piece of the page cache with its neighbours. To write beside what others hold
    /// dirty in the same piece would have the kernel call their bytes lost.
    fn inner_range(&self, slot: SlotIndex) -> Range<u64> {
        let start = self.geometry.slot_offset(slot);
        let end = start + self.geometry.slot_bytes;
        start.next_multiple_of(CACHED_PIECE_BYTES)..end - end % CACHED_PIECE_BYTES
    }

    /// Allocates and fills every slot of a pool that was just made.
    pub(crate) fn prepare_all(&self) -> Result<(), OpenError> {
        for slot in (0..self.geometry.slot_count).map(SlotIndex) {
            self.allocate(slot).map_err(OpenError::system("allocate the slots of", &self.path))?;
            if self.wants_writing(slot) {
                self.write_zeros(slot).map_err(OpenError::system("fill", &self.path))?;
            }
        }
        self.file.sync_all().map_err(OpenError::system("sync", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::pool_file::PoolShape;
    use std::os::unix::fs::MetadataExt;

    fn pool(folder: &tempfile::TempDir) -> PoolFile {
        let shape = PoolShape { pool_bytes: Some(33 << 20), slot_bytes: 4 << 20 };
        PoolFile::open_or_make(&folder.path().join("pool"), shape).unwrap().0
    }

    #[test]
    fn a_slot_has_its_space_before_it_is_used_and_keeps_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let pool = pool(&folder);
        let space = Space::of(&pool).unwrap();
        let before = pool.file().metadata().unwrap().blocks();
        space.allocate(SlotIndex(3)).unwrap();
        let after = pool.file().metadata().unwrap().blocks();
        assert!((after - before) * 512 >= 2 << 20);
        let at = pool.superblock().geometry.slot_offset(SlotIndex(3));
        pool.write_at(at, &[7; 4096]).unwrap();
        space.allocate(SlotIndex(3)).unwrap();
        assert_eq!(pool.file().metadata().unwrap().blocks(), after);
        let mut read = [0; 4096];
        pool.file().read_exact_at(&mut read, at).unwrap();
        assert_eq!(read, [7; 4096]);
    }

    #[test]
    fn a_slot_that_was_used_is_told_from_one_that_never_was() {
        let folder = tempfile::tempdir().unwrap();
        let pool = pool(&folder);
        let space = Space::of(&pool).unwrap();
        pool.write_at(pool.superblock().geometry.slot_offset(SlotIndex(3)), &[7; 4096]).unwrap();
        assert_eq!(
            [0, 2, 3, 4, 7].map(|slot| space.may_be_allocated(SlotIndex(slot))),
            [false, false, true, false, false]
        );
    }

    #[test]
    fn a_slot_filled_with_zeros_wants_no_more_writing() {
        let folder = tempfile::tempdir().unwrap();
        let pool = pool(&folder);
        let space = Space::of(&pool).unwrap();
        space.allocate(SlotIndex(0)).unwrap();
        space.allocate(SlotIndex(1)).unwrap();
        space.write_zeros(SlotIndex(0)).unwrap();
        assert!(!space.wants_writing(SlotIndex(0)));
        // A file system without direct I/O has no use for the zeros.
        assert_eq!(space.wants_writing(SlotIndex(1)), space.direct.is_some());
        space.prepare_all().unwrap();
        assert!((0..8).all(|slot| !space.wants_writing(SlotIndex(slot))));
    }
}
