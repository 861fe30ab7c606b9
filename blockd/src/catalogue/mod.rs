//! The catalogue: which volumes and snapshots there are, by name; it makes, resizes, clones and deletes them.
//!
//! What it knows is kept in the pool itself, in the system volume, so that nothing but the pool is needed to find it again.
//! A change is durable when it is answered, one change at a time; a deletion that a crash interrupts is finished at the
//! next start. Ids are never used again. Lookups answer from memory.

mod access;
mod ask;
mod book;
mod changes;
mod chores;
mod classes;
mod cleaner;
mod clones;
mod diff;
mod erasures;
mod error;
mod families;
mod floors;
mod group;
mod history;
mod images;
mod load;
mod meter;
mod mirrors;
mod moment;
mod qos;
mod reconcile;
mod record;
mod shelf;
mod snapshots;
mod space;
mod targets;
mod tenants;
mod tokens;
mod trial;
mod views;

pub use access::{ACCESS_RULES_MAX, Access, Fingerprint, InvalidRule, Network, SocketAccess, TenantSockets};
pub(crate) use ask::{known, segments};
pub use changes::NewVolume;
pub use classes::{Class, ClassPolicy, DEFAULT_CLASS};
pub use diff::{Diff, DiffExtent, DiffTo};
pub use erasures::Erasure;
pub use error::CatalogueError;
pub(crate) use families::families;
pub use history::{History, HistoryFigures};
pub use images::{IMAGE_SOURCE_BYTES_MAX, IMAGE_TENANTS_MAX, Image, Sharing};
pub(crate) use load::{Beginning, recover_noted};
pub use meter::{MeterConfig, MeterFigures};
pub use qos::TenantQos;
pub use record::MeterChange;
pub use snapshots::{SnapshotEntry, SnapshotName};
pub use space::Space;
pub use targets::{
    ANY_INITIATOR, CHAP_SECRET_BYTES, CHAP_USER_BYTES_MAX, ChapSecrets, DEFAULT_TARGET, INITIATORS_MAX,
    ISCSI_NAME_BYTES_MAX, Initiator, KeptNexus, KeptReservations, LUN_MAX, Lun, MappedLun, REGISTRATIONS_MAX,
    SessionCount, TARGETS_MAX, Target, TargetAccess, TargetRefusal,
};
pub use tenants::{DEFAULT_TENANT, Quota, Tenant, Usage};
pub use tokens::{NewToken, Token};
pub use trial::{is_trial, trial};
pub use views::ViewLease;

use crate::listener::{Attachment, Client, Exports, Found, Listing, Opening, describe};
use crate::mirror::MirrorHost;
use crate::open::PoolFile;
use crate::qos::{Credits, QosLimits};
use crate::shard::{Message, SeatSettings, ShardHandle, ShardStats, VolumeStats};
use crate::store::StoreHandle;
use book::{Book, Pen};
use cleaner::Cleaner;
use history::HistoryKeeper;
use meter::MeterKeeper;
use proto::nbd::{Export, Purpose, Refusal};
use qos::{Limited, QosKeeper, volume_qos};
use record::VolumeRecord;
use shelf::{Kept, Shelf, boundary_of};
use snapshots::missing;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use targets::TargetKeeper;
use tenants::tenant_of;
use tokio::sync::{Mutex, watch};
use units::{ClassId, PoolId, TenantId, VolumeId};
use views::Views;
use volume::engine::{Volume, VolumeConfig};
use volume::pool::PoolFigures;
use volume::recover::Recovered;

/// Bytes of the system volume: room for 2^28 records, none of which costs anything until it is written.
pub(crate) const SYSTEM_BYTES: u64 = 1 << 40;

/// A volume, as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub volume: VolumeId,
    /// Its name, with `TENANT/` in front where it is not the default tenant's.
    pub name: String,
    /// Whose it is.
    pub tenant: TenantId,
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
    /// For how long its history is kept, when it is.
    pub history: Option<History>,
    /// Its ceilings, when it has some.
    pub qos: Option<QosLimits>,
    /// Its class's number.
    pub class: ClassId,
}

impl Entry {
    /// What a record tells, of a volume that is served by a shard.
    fn of(record: &VolumeRecord, shard: usize) -> Self {
        let VolumeRecord { size_bytes, created_ms, history, qos, .. } = *record;
        Self {
            volume: VolumeId(record.id),
            name: record.name.clone(),
            tenant: TenantId(record.tenant),
            size_bytes,
            created_ms,
            shard,
            damage: None,
            image: record.image.clone(),
            history,
            qos,
            class: ClassId(record.class),
        }
    }
}

impl Catalogue {
    /// The snapshot that a volume began as, when it has one and that still has a name.
    #[must_use]
    pub fn parent_of(&self, volume: VolumeId) -> Option<SnapshotName> {
        self.read().parent_of(volume.0)
    }
}

/// Every volume of a pool.
pub struct Catalogue {
    shards: Vec<ShardHandle>,
    store: StoreHandle,
    config: VolumeConfig,
    /// Held through a change, so that there is one at a time.
    book: Mutex<Book>,
    pen: Pen,
    shelf: RwLock<Shelf>,
    cleaner: Cleaner,
    history: HistoryKeeper,
    qos: QosKeeper,
    meter: MeterKeeper,
    /// Where segments of the past are read.
    pool: Arc<PoolFile>,
    views: Mutex<Views>,
    /// Tenants that have a socket of their own.
    sockets: watch::Sender<TenantSockets>,
    targets: TargetKeeper,
    /// Held while a volume is erased.
    erasing: Mutex<()>,
    /// The other site, when there is one.
    mirror: Option<Arc<MirrorHost>>,
    is_stopping: AtomicBool,
}

impl Catalogue {
    /// Every volume that is no image, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Entry> {
        let shelf = self.read();
        shelf.names.values().map(|kept| &kept.entry).filter(|entry| entry.image.is_none()).cloned().collect()
    }

    /// The volume of that name; an image is none.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`].
    pub fn show(&self, name: &str) -> Result<Entry, CatalogueError> {
        let shelf = self.read();
        let entry = shelf.names.get(name).map(|kept| &kept.entry).filter(|entry| entry.image.is_none());
        entry.cloned().ok_or_else(|| missing(name))
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

    /// The counters of a volume; nothing of one that is not open.
    ///
    /// # Errors
    /// [`CatalogueError::Ended`].
    pub async fn volume_stats(&self, volume: VolumeId) -> Result<Option<VolumeStats>, CatalogueError> {
        ask::volume_stats(self.shard_of(volume).1, volume).await
    }

    /// Gives no more volumes to clients and takes no more changes.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.tell_targets();
    }

    /// Whether it was stopped.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Hands a volume that was not open before to its shard; returns which that is.
    fn serve(&self, volume: Recovered, limits: Limited) -> Result<usize, CatalogueError> {
        self.serve_volume(Volume::open(self.config, volume), limits, None)
    }

    /// The same of one that has been opened, and is frozen when it is mirrored.
    fn serve_volume(
        &self,
        volume: Volume,
        limits: Limited,
        mirror: Option<Box<SeatSettings>>,
    ) -> Result<usize, CatalogueError> {
        let (shard, handle) = self.shard_of(volume.id());
        let volume = Box::new(volume);
        let qos = volume_qos(limits, Credits::default());
        let unit = Box::new(self.read().unit_of(&self.config.pool, volume.id()));
        handle.send(Message::OpenVolume { volume, qos, unit, mirror }).map_err(|_| CatalogueError::Ended("a shard"))?;
        Ok(shard)
    }

    /// The pool's id.
    pub(crate) const fn pool_id(&self) -> &PoolId {
        &self.config.pool
    }

    /// A shard, for whom it does not matter which.
    pub(crate) fn first_shard(&self) -> ShardHandle {
        self.shard_of(VolumeId::SYSTEM).1.clone()
    }

    fn shard_of(&self, volume: VolumeId) -> (usize, &ShardHandle) {
        let number = shard_of(volume, self.shards.len());
        (number, self.shards.get(number).expect("there are as many shards as were counted"))
    }

    // A panic while the lock is held leaves the shelf whole: every change of it is one call.
    fn read(&self) -> RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exports for Catalogue {
    fn find(&self, name: &str, client: &Client) -> Result<Found, Refusal> {
        self.look_up(name, (client, Purpose::Enter))
    }

    fn describe(&self, name: &str, client: &Client) -> Result<Export, Refusal> {
        self.look_up(name, (client, Purpose::Describe)).map(|found| found.export)
    }

    fn open(&self, found: Found) -> Opening<'_> {
        Box::pin(async move {
            let Some(snapshot) = found.snapshot else { return Ok(found) };
            match self.open_view(snapshot).await {
                Ok(lease) => Ok(Found { view: Some(lease), ..found }),
                Err(CatalogueError::Stopping) => Err(Refusal::Shutdown),
                Err(error) => {
                    tracing::warn!(export = found.export.name, %error, "a snapshot cannot be opened");
                    Err(Refusal::Unknown)
                }
            }
        })
    }

    fn list(&self, client: &Client) -> Result<Vec<Listing>, Refusal> {
        let shelf = self.read();
        let mut listings = Vec::new();
        let is_listed = |kept: &&Kept| {
            !kept.is_leaving
                && shelf.admits(tenant_of(&kept.entry.name), client)
                && !shelf.is_suspended(&kept.entry.name)
        };
        for kept in shelf.names.values().filter(|kept| kept.entry.damage.is_none()).filter(is_listed) {
            let volume = &kept.entry.name;
            listings.push(Listing { name: volume.clone(), description: String::new() });
            let snapshots = shelf.snapshots_of(shelf.line_of(kept.entry.volume.0));
            let readable = snapshots.filter(|kept| shelf.damage_of_snapshot(kept).is_none());
            listings.extend(readable.map(|kept| Listing {
                name: format!("{volume}@{}", kept.record.name),
                description: "snapshot".to_owned(),
            }));
        }
        Ok(listings)
    }
}

impl Catalogue {
    fn look_up(&self, name: &str, (client, purpose): (&Client, Purpose)) -> Result<Found, Refusal> {
        if self.is_stopping() {
            return Err(Refusal::Shutdown);
        }
        let shelf = self.read();
        if !shelf.admits(tenant_of(name), client) {
            return Err(Refusal::Unknown);
        }
        if let Some((volume, snapshot)) = name.split_once('@') {
            return self.find_view(&shelf, name, (volume, snapshot));
        }
        let kept = shelf.names.get(name).filter(|kept| !kept.is_leaving && kept.entry.damage.is_none());
        let Kept { entry, clients, .. } = kept.ok_or(Refusal::Unknown)?;
        if shelf.is_suspended(name) {
            return Err(Refusal::Policy);
        }
        let is_read_only = entry.image.as_ref().is_some_and(|image| image.is_ready);
        let export = describe(name, entry.size_bytes, is_read_only);
        let shard = self.shard_of(entry.volume).1.clone();
        let attachment = match purpose {
            // Counted while the shelf is locked: whoever wants the volume without clients looks then.
            Purpose::Enter => clients.attach(),
            Purpose::Describe => Attachment::default(),
        };
        let found = Found { attachment, ..Found::new(export, entry.volume, shard) };
        Ok(with_changes(found, &shelf, (entry.volume.0, u64::MAX)))
    }

    fn find_view(&self, shelf: &Shelf, name: &str, (volume, snapshot): (&str, &str)) -> Result<Found, Refusal> {
        let is_there = shelf.names.get(volume).is_some_and(|kept| !kept.is_leaving);
        let kept = shelf.find_snapshot(volume, snapshot).filter(|_| is_there);
        let kept = kept.filter(|kept| shelf.damage_of_snapshot(kept).is_none()).ok_or(Refusal::Unknown)?;
        if shelf.is_suspended(volume) {
            return Err(Refusal::Policy);
        }
        let view = VolumeId(kept.record.id);
        let (export, shard) = (describe(name, kept.record.size_bytes, true), self.shard_of(view).1.clone());
        let found = Found { snapshot: Some(kept.record.id), ..Found::new(export, view, shard) };
        Ok(with_changes(found, shelf, (kept.record.of, kept.record.generation)))
    }
}

/// Has clients ask what has changed since the snapshots that come before the end of a generation.
fn with_changes(found: Found, shelf: &Shelf, (volume, generation): (u64, u64)) -> Found {
    let behind = shelf.snapshots_behind(volume, generation).map(|kept| &kept.record);
    behind.fold(found, |found, record| found.with_snapshot(&record.name, boundary_of(record).into()))
}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Catalogue({} volumes on {} shards)", self.read().names.len(), self.shards.len())
    }
}

/// Spreads volumes over shards by their ids; the system volume is on shard 0.
fn shard_of(volume: VolumeId, shard_count: usize) -> usize {
    let count = u64::try_from(shard_count).unwrap_or(1).max(1);
    usize::try_from(volume.0 % count).unwrap_or(0)
}
