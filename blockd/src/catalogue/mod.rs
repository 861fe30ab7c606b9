//! The catalogue: which volumes there are, by name; it makes, resizes and deletes them.
//!
//! What it knows is kept in the pool itself, in the system volume, so that nothing but the pool is needed to find it again.
//! A change is durable when it is answered, one change at a time; a deletion that a crash interrupts is finished at the
//! next start. Ids are never used again. Lookups answer from memory.

mod ask;
mod book;
mod changes;
mod error;
mod images;
mod load;
mod record;

pub use error::CatalogueError;
pub use images::{IMAGE_SOURCE_BYTES_MAX, Image};
pub(crate) use load::Beginning;

use crate::listener::{Client, Exports, Found, Listing, describe};
use crate::shard::{ShardHandle, ShardStats};
use crate::store::StoreHandle;
use book::Book;
use proto::nbd::Refusal;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::Mutex;
use units::VolumeId;
use volume::engine::VolumeConfig;
use volume::pool::PoolFigures;

/// Bytes of the system volume: room for 2^28 records, none of which costs anything until it is written.
pub(crate) const SYSTEM_BYTES: u64 = 1 << 40;

/// A volume, as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub volume: VolumeId,
    /// Its name.
    pub name: String,
    /// Its size now.
    pub size_bytes: u64,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// The shard that serves it.
    pub shard: usize,
    /// Why it is not served, when it is not.
    pub damage: Option<String>,
    /// What makes it an image, when it is one.
    pub image: Option<Image>,
}

/// An entry and whether it is on its way out.
#[derive(Debug)]
struct Kept {
    entry: Entry,
    /// Its deletion is under way: nobody finds it any more.
    is_leaving: bool,
}

/// Every volume of a pool.
pub struct Catalogue {
    shards: Vec<ShardHandle>,
    store: StoreHandle,
    config: VolumeConfig,
    /// Held through a change, so that there is one at a time.
    book: Mutex<Book>,
    volumes: RwLock<BTreeMap<String, Kept>>,
    is_stopping: AtomicBool,
}

impl Catalogue {
    /// Every volume that is no image, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Entry> {
        let volumes = self.read();
        volumes.values().map(|kept| &kept.entry).filter(|entry| entry.image.is_none()).cloned().collect()
    }

    /// The volume of that name; an image is none.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`].
    pub fn show(&self, name: &str) -> Result<Entry, CatalogueError> {
        let volumes = self.read();
        let missing = || CatalogueError::NotFound { name: name.to_owned() };
        let entry = volumes.get(name).map(|kept| &kept.entry).filter(|entry| entry.image.is_none());
        entry.cloned().ok_or_else(missing)
    }

    /// The pool's figures.
    ///
    /// # Errors
    /// [`CatalogueError::Ended`].
    pub async fn figures(&self) -> Result<PoolFigures, CatalogueError> {
        ask::figures(&self.store).await
    }

    /// The counters of every shard.
    ///
    /// # Errors
    /// [`CatalogueError::Ended`].
    pub async fn stats(&self) -> Result<Vec<ShardStats>, CatalogueError> {
        let mut all = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            all.push(ask::stats(shard).await?);
        }
        Ok(all)
    }

    /// The counters of the shard of that number.
    ///
    /// # Errors
    /// [`CatalogueError::Ended`].
    pub async fn shard_stats(&self, shard: usize) -> Result<ShardStats, CatalogueError> {
        let shard = self.shards.get(shard).ok_or(CatalogueError::Ended("a shard"))?;
        ask::stats(shard).await
    }

    /// Gives no more volumes to clients and takes no more changes.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Whether it was stopped.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    fn shard_of(&self, volume: VolumeId) -> (usize, &ShardHandle) {
        let number = shard_of(volume, self.shards.len());
        (number, self.shards.get(number).expect("there are as many shards as were counted"))
    }

    // A panic while the lock is held leaves the map whole: every change of it is one call.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Kept>> {
        self.volumes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Kept>> {
        self.volumes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exports for Catalogue {
    fn find(&self, name: &str, _client: &Client) -> Result<Found, Refusal> {
        if self.is_stopping() {
            return Err(Refusal::Shutdown);
        }
        let volumes = self.read();
        let kept = volumes.get(name).filter(|kept| !kept.is_leaving && kept.entry.damage.is_none());
        let Kept { entry, .. } = kept.ok_or(Refusal::Unknown)?;
        let is_read_only = entry.image.as_ref().is_some_and(Image::is_sealed);
        let export = describe(name, entry.size_bytes, is_read_only);
        Ok(Found { export, volume: entry.volume, shard: self.shard_of(entry.volume).1.clone() })
    }

    fn list(&self, _client: &Client) -> Result<Vec<Listing>, Refusal> {
        let volumes = self.read();
        let served = volumes.values().filter(|kept| !kept.is_leaving && kept.entry.damage.is_none());
        Ok(served.map(|kept| Listing { name: kept.entry.name.clone(), description: String::new() }).collect())
    }
}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Catalogue({} volumes on {} shards)", self.read().len(), self.shards.len())
    }
}

/// Spreads volumes over shards by their ids; the system volume is on shard 0.
fn shard_of(volume: VolumeId, shard_count: usize) -> usize {
    let count = u64::try_from(shard_count).unwrap_or(1).max(1);
    usize::try_from(volume.0 % count).unwrap_or(0)
}
