//! What is left of credits, kept for whoever counts them.

use super::index::{Index, io};
use super::rows;
use crate::error::DiskFault;
use crate::store::{Durability, Store, StoreWrite};

impl<S: Store> Index<S> {
    /// What was left of credits when that was noted last.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed.
    pub fn credits_note(&self) -> Result<Option<Vec<u8>>, DiskFault> {
        self.store.read(rows::CREDITS_KEY).map_err(io)
    }

    /// Notes what is left of credits. A power cut may take that, and a rebuild does.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed.
    pub fn note_credits(&mut self, note: Vec<u8>) -> Result<(), DiskFault> {
        self.commit(vec![StoreWrite::Put(rows::CREDITS_KEY.to_vec(), note)], Durability::Lazy)
    }
}
