//! What the index needs of its store: an ordered map of byte strings whose commits are atomic.
//!
//! The store is a cache of what the pool says: it may be thrown away and is then made anew from the pool.

use std::fmt;

/// The store failed a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFault(pub String);

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index store: {}", self.0)
    }
}

impl std::error::Error for StoreFault {}

/// Whether a commit survives power loss when it returns; it survives the process either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// It may be lost in a power cut, with all commits after it, never without them.
    Lazy,
    /// It is on stable storage, with all commits before it.
    Durable,
}

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreWrite {
    /// Gives a key its value.
    Put(Vec<u8>, Vec<u8>),
    /// Takes a key away.
    Delete(Vec<u8>),
    /// Takes every key of `from..end` away.
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// An ordered map of byte strings.
pub trait Store {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`StoreFault`] when the store cannot be read.
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault>;

    /// The first key of `from..end`, with its value.
    ///
    /// # Errors
    /// [`StoreFault`] when the store cannot be read.
    fn seek(&self, from: &[u8], end: &[u8]) -> Result<Option<Entry>, StoreFault>;

    /// Calls `visit` with every key of `from..end` in order, and its value.
    ///
    /// # Errors
    /// [`StoreFault`] when the store cannot be read; some keys may have been visited.
    fn each(&self, from: &[u8], end: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreFault> {
        let mut from = from.to_vec();
        while let Some((key, value)) = self.seek(&from, end)? {
            visit(&key, &value);
            from = key;
            from.push(0);
        }
        Ok(())
    }

    /// Carries out all of `writes` in order, or none.
    ///
    /// # Errors
    /// [`StoreFault`] when nothing was written.
    fn commit(&mut self, writes: Vec<StoreWrite>, durability: Durability) -> Result<(), StoreFault>;
}

/// Reads the pool at rest, before its volumes are served.
pub trait PoolReader {
    /// Fills `buffer` from `offset`, both multiples of 4096.
    ///
    /// # Errors
    /// [`crate::error::DiskFault`] when any of it cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), crate::error::DiskFault>;
}
