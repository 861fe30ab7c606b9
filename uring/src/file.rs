//! File calls that the standard library lacks. Each returns when the kernel has done it.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Most slices of one `pwritev`.
const IOV_MAX: usize = 1024;

/// Opens a file or block device for reading and writing; with `is_direct`, past the page cache.
///
/// # Errors
/// What `open` says; `InvalidInput` when the file system has no direct I/O.
pub fn open(path: &Path, is_direct: bool) -> io::Result<File> {
    let flags = if is_direct { libc::O_DIRECT } else { 0 };
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

/// Writes all `slices`, one after the other, to `file` from `offset` on. Leaves the slices advanced.
///
/// # Errors
/// What `pwritev` says; `WriteZero` when the file takes no more.
pub fn write_all_vectored_at(file: impl AsFd, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let count = slices.len().min(IOV_MAX);
        let at = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: `IoSlice` has the layout of `iovec`; the first `count` are readable until the call returns.
        let written = unsafe {
            libc::pwritev(file.as_fd().as_raw_fd(), slices.as_ptr().cast(), i32::try_from(count).unwrap_or(0), at)
        };
        match usize::try_from(written) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(_) => ignore_interrupt()?,
        }
    }
    Ok(())
}

/// Begins to write the dirty pages of a range out, without waiting for them. It makes nothing durable.
///
/// # Errors
/// What `sync_file_range` says.
pub fn start_writeback(file: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (signed(offset)?, signed(len)?);
    // SAFETY: the call takes no pointer.
    let result = unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How a range of a file will be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// In no order: no read-ahead.
    Random,
    /// From front to back.
    Sequential,
    /// Soon.
    WillNeed,
    /// Not soon: clean pages leave the page cache.
    DontNeed,
}

/// Tells the kernel how a range will be used; a `len` of 0 is the rest of the file.
///
/// # Errors
/// What `posix_fadvise` says.
pub fn advise(file: impl AsFd, offset: u64, len: u64, advice: Advice) -> io::Result<()> {
    let (offset, len) = (signed(offset)?, signed(len)?);
    let advice = match advice {
        Advice::Random => libc::POSIX_FADV_RANDOM,
        Advice::Sequential => libc::POSIX_FADV_SEQUENTIAL,
        Advice::WillNeed => libc::POSIX_FADV_WILLNEED,
        Advice::DontNeed => libc::POSIX_FADV_DONTNEED,
    };
    // SAFETY: the call takes no pointer.
    let error = unsafe { libc::posix_fadvise(file.as_fd().as_raw_fd(), offset, len, advice) };
    if error != 0 { Err(io::Error::from_raw_os_error(error)) } else { Ok(()) }
}

/// Begins to write the dirty pages of a range out, and does not wait for them. It makes nothing durable.
///
/// # Errors
/// What `sync_file_range` says of the beginning; how it ends is told to a later sync.
pub fn begin_write_back(file: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (signed(offset)?, signed(len)?);
    let flags = libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: the call takes no pointer.
    let result = unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), offset, len, flags) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Allocates a range, extending the file when it ends beyond it; what was not allocated reads as zeros.
///
/// # Errors
/// What `fallocate` says: `StorageFull`, `Unsupported` on file systems without it.
pub fn allocate(file: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    fallocate(file, 0, offset, len)
}

/// Gives a range back to the file system; it reads as zeros then, and the file keeps its length.
///
/// # Errors
/// What `fallocate` says: `Unsupported` on file systems and devices without it.
pub fn punch_hole(file: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    fallocate(file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, len)
}

fn fallocate(file: impl AsFd, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (signed(offset)?, signed(len)?);
    loop {
        // SAFETY: the call takes no pointer.
        let result = unsafe { libc::fallocate(file.as_fd().as_raw_fd(), mode, offset, len) };
        if result == 0 {
            return Ok(());
        }
        ignore_interrupt()?;
    }
}

fn ignore_interrupt() -> io::Result<()> {
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

fn signed(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn many_slices_are_written_one_after_the_other() {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<[u8; 3]> = (0..3000_u32).map(|i| i.to_be_bytes()[1..].try_into().unwrap()).collect();
        let mut slices: Vec<_> = bytes.iter().map(|b| IoSlice::new(b)).collect();
        slices.insert(0, IoSlice::new(&[]));
        write_all_vectored_at(&file, &mut slices, 5).unwrap();
        let mut read = vec![0; 9000];
        file.read_exact_at(&mut read, 5).unwrap();
        assert_eq!(read, bytes.concat());
        write_all_vectored_at(&file, &mut [], 0).unwrap();
    }

    #[test]
    fn a_failed_write_says_why() {
        let file = File::open("/proc/self/exe").unwrap();
        let error = write_all_vectored_at(&file, &mut [IoSlice::new(b"x")], 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        let error = write_all_vectored_at(&file, &mut [IoSlice::new(b"x")], u64::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn space_is_allocated_and_given_back() {
        let file = tempfile::tempfile().unwrap();
        allocate(&file, 0, 1 << 20).unwrap();
        let allocated = file.metadata().unwrap();
        assert_eq!(allocated.len(), 1 << 20);
        assert!(allocated.blocks() * 512 >= 1 << 20);
        start_writeback(&file, 0, 1 << 20).unwrap();
        advise(&file, 0, 0, Advice::DontNeed).unwrap();
        punch_hole(&file, 0, 1 << 20).unwrap();
        let punched = file.metadata().unwrap();
        assert_eq!(punched.len(), 1 << 20);
        assert!(punched.blocks() < allocated.blocks());
    }

    #[test]
    fn a_missing_file_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(open(&folder.path().join("pool"), false).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
