//! What is being erased: volumes that are deleted, and of which something is left to be given back.

use super::chores::erasing;
use super::{Catalogue, CatalogueError, DEFAULT_TENANT, ask};
use units::{TenantId, VolumeId};

/// A volume that is being erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Its id.
    pub volume: VolumeId,
    /// The name that it had.
    pub name: String,
    /// The name of the tenant whose it was; nothing where that is gone.
    pub tenant: Option<String>,
    /// Bytes of the pool that are still to be given back.
    pub left_bytes: u64,
}

impl Catalogue {
    /// What is being erased now, or waits for it.
    ///
    /// # Errors
    /// [`CatalogueError::Ended`].
    pub async fn erasures(&self) -> Result<Vec<Erasure>, CatalogueError> {
        let mut found: Vec<Erasure> = {
            let shelf = self.read();
            let erased = shelf.volumes().filter(|record| erasing(&shelf, record.id).is_some());
            let of = |id: u64| match TenantId(id) {
                TenantId::DEFAULT => Some(DEFAULT_TENANT.to_owned()),
                TenantId(id) => shelf.tenants.values().find(|tenant| tenant.id == id).map(|tenant| tenant.name.clone()),
            };
            let erasure = |record: &super::record::VolumeRecord| Erasure {
                volume: VolumeId(record.id),
                name: record.name.clone(),
                tenant: of(record.tenant),
                left_bytes: 0,
            };
            erased.map(erasure).collect()
        };
        for erasure in &mut found {
            erasure.left_bytes = ask::begin_volume_space(&self.store, erasure.volume)?.end().await?.pool_bytes;
        }
        Ok(found)
    }
}
