//! Volumes that are being erased. The index says so, durably, before the first of a volume's segments is made void: from
//! then on what is left of it is nobody's, a check passes it over and a start does not open it, until all of it is gone.

use super::index::Index;
use super::rows;
use crate::error::DiskFault;
use crate::store::{Durability, Store, StoreWrite};
use units::VolumeId;

impl<S: Store> Index<S> {
    /// Notes, durably, that all of a volume is to go. There is no way back but a rebuild, which shows what is left.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, somebody inherits from the volume, or something is kept aside for it, which is to be
    /// dropped first ([`Index::drop_asides`]): nothing may be made void.
    pub fn note_erasing(&mut self, volume: VolumeId) -> Result<(), DiskFault> {
        if self.has_heirs(volume) || self.is_receiving(volume) {
            return Err(DiskFault::Io);
        }
        if !self.erasing.contains(&volume) {
            let row = StoreWrite::Put(rows::erasing_key(volume), Vec::new());
            self.commit(vec![row], Durability::Durable)?;
            self.erasing.insert(volume);
        }
        Ok(())
    }

    /// Whether a part of a volume may be gone already.
    #[must_use]
    pub fn is_being_erased(&self, volume: VolumeId) -> bool {
        self.erasing.contains(&volume)
    }
}
