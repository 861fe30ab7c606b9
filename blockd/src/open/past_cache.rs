//! Reading the pool past the page cache: what is read so comes from the device, and is not what clients read.

use super::PoolFile;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use uring::file::Advice;

/// A way past the page cache.
#[derive(Debug)]
pub(crate) struct PastCache {
    /// `None` where the file system cannot: then it is the page cache, emptied of what is read.
    direct: Option<File>,
}

impl PastCache {
    /// A way to the file of `pool`.
    pub(crate) fn new(pool: &PoolFile) -> Self {
        Self { direct: uring::file::open(pool.path(), true).ok() }
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
