//! Reading the pool past the page cache: what is read so comes from the device, and is not what clients read.

use super::PoolFile;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use units::BLOCK_LEN;
use uring::file::Advice;
use volume::buffer::Buffer;

/// Opens a pool past the page cache. `None` where there is no such way: the file system has no direct I/O, or not of single blocks.
pub(crate) fn open_past_cache(path: &Path) -> Option<File> {
    let direct = uring::file::open(path, true).ok()?;
    let read = direct.read_at(Buffer::zeroed(BLOCK_LEN).as_mut_slice(), 0);
    let is_refused = read.is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput);
    (!is_refused).then_some(direct)
}

/// A way past the page cache.
#[derive(Debug)]
pub(crate) struct PastCache {
    /// `None` where the file system cannot: then it is the page cache, emptied of what is read.
    direct: Option<File>,
}

impl PastCache {
    /// A way to the file of `pool`.
    pub(crate) fn new(pool: &PoolFile) -> Self {
        Self { direct: open_past_cache(pool.path()) }
    }

    /// The file as it is read, for writes that are to go past the page cache too.
    pub(crate) const fn file(&self) -> Option<&File> {
        self.direct.as_ref()
    }

    /// Reads whole blocks of `pool`.
    pub(crate) fn read(&self, pool: &PoolFile, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            return direct.read_exact_at(bytes, offset);
        }
        // What is clean leaves the page cache, before so that the device is asked, and after. It is advice: what the kernel
        // makes of it, nothing depends on.
        let len = bytes.len() as u64;
        let forget = || drop(uring::file::advise(pool.file(), offset, len, Advice::DontNeed));
        forget();
        pool.file().read_exact_at(bytes, offset)?;
        forget();
        Ok(())
    }
}
