//! The catalogue at the start: records read, deletions finished, volumes recovered and opened.

use super::book::Records;
use super::record::{Record, RecordState};
use super::{Book, Catalogue, CatalogueError, Entry, Kept, SYSTEM_BYTES, ask, shard_of};
use crate::open::{OpenError, PoolFile, Recovery, recover_all};
use crate::shard::{Message, ShardHandle};
use crate::store::StoreHandle;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};
use tokio::sync::Mutex;
use units::VolumeId;
use volume::engine::{Volume, VolumeConfig};
use volume::recover::{Known, fresh};

/// What the catalogue begins with.
pub(crate) struct Beginning {
    pub(crate) pool: Arc<PoolFile>,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) store: StoreHandle,
    pub(crate) config: VolumeConfig,
    /// What the index knows, by volume.
    pub(crate) known: BTreeMap<VolumeId, Known>,
}

impl Catalogue {
    /// Opens every volume that has a record, the system volume first.
    pub(crate) async fn load(beginning: Beginning) -> Result<Self, OpenError> {
        let Beginning { pool, shards, store, config, mut known } = beginning;
        let system = known.remove(&VolumeId::SYSTEM);
        let system = Known { created_bytes: SYSTEM_BYTES, ..system.unwrap_or_else(|| unknown(VolumeId::SYSTEM)) };
        let opening = Opening { pool, shards: &shards, store: &store, config };
        let damaged = opening.open(vec![system]).await?.damaged;
        if let Some(reason) = damaged.get(&VolumeId::SYSTEM) {
            let detail = format!("the system volume, which holds the names of all others, is damaged: {reason}");
            return Err(OpenError::Damaged(detail));
        }
        let first = shards.first().ok_or_else(|| OpenError::Setting("there is no shard".to_owned()))?.clone();
        let (book, records) = Book::load(first).await.map_err(|error| unreadable(&error))?;
        let Records { read, rotten } = records;
        let (live, deleting): (Vec<_>, Vec<_>) = read.into_iter().partition(|r| r.state == RecordState::Live);
        let to_open = live.iter().map(|record| known_of(record, &mut known)).collect();
        let opened = opening.open(to_open).await?;
        for record in &deleting {
            known.remove(&VolumeId(record.id));
        }
        let mut volumes: BTreeMap<_, _> = live.into_iter().map(|record| keep(record, &opened, shards.len())).collect();
        for (id, reason) in rotten {
            known.remove(&VolumeId(id));
            let (name, kept) = set_aside(id, reason, &volumes, shards.len());
            volumes.insert(name, kept);
        }
        report_unrecorded(&known);
        let catalogue = Self {
            shards,
            store,
            config,
            book: Mutex::new(book),
            volumes: RwLock::new(volumes),
            is_stopping: AtomicBool::new(false),
        };
        catalogue.finish_deletions(deleting).await;
        Ok(catalogue)
    }

    async fn finish_deletions(&self, deleting: Vec<Record>) {
        let book = self.book.lock().await;
        for Record { id, name, .. } in deleting {
            tracing::info!(name, id, "finishing the deletion of a volume");
            if let Err(error) = self.finish_deletion(&book, VolumeId(id)).await {
                tracing::warn!(name, id, %error, "a deleted volume still has its space");
            }
        }
    }
}

/// What opening volumes needs.
struct Opening<'a> {
    pool: Arc<PoolFile>,
    shards: &'a [ShardHandle],
    store: &'a StoreHandle,
    config: VolumeConfig,
}

/// What came of it.
struct Opened {
    sizes: BTreeMap<VolumeId, u64>,
    damaged: BTreeMap<VolumeId, String>,
}

impl Opening<'_> {
    /// Recovers volumes and hands them to their shards.
    async fn open(&self, known: Vec<Known>) -> Result<Opened, OpenError> {
        let (written, unwritten): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|known| known.row.is_some() || !known.segments.is_empty());
        let pool = Arc::clone(&self.pool);
        let recovery = tokio::task::spawn_blocking(move || recover_all(&pool, written)).await;
        let Recovery { mut volumes, damaged, notes } = recovery.map_err(|_| ended("recovery"))??;
        let noted = ask::note_recovered(self.store, notes).await.map_err(|error| unreadable(&error))?;
        noted.map_err(OpenError::Disk)?;
        volumes.extend(unwritten.iter().map(|known| fresh(known.volume, known.created_bytes)));
        let mut sizes = BTreeMap::new();
        for recovered in volumes {
            let (volume, size_bytes) = (recovered.volume, recovered.size_bytes);
            sizes.insert(volume, size_bytes);
            let engine = Box::new(Volume::open(self.config, recovered));
            let shard = self.shards.get(shard_of(volume, self.shards.len()));
            let sent = shard.map(|shard| shard.send(Message::OpenVolume(engine)));
            sent.and_then(Result::ok).ok_or_else(|| ended("a shard"))?;
        }
        Ok(Opened { sizes, damaged })
    }
}

fn keep(record: Record, opened: &Opened, shard_count: usize) -> (String, Kept) {
    let volume = VolumeId(record.id);
    let entry = Entry {
        volume,
        name: record.name.clone(),
        size_bytes: opened.sizes.get(&volume).copied().unwrap_or(record.size_bytes),
        created_ms: record.created_ms,
        shard: shard_of(volume, shard_count),
        damage: opened.damaged.get(&volume).cloned(),
        image: record.image,
    };
    (record.name, Kept { entry, is_leaving: false })
}

/// A volume whose record has rotted, and with it its name: it can be seen, and deleted.
fn set_aside(id: u64, reason: String, others: &BTreeMap<String, Kept>, shard_count: usize) -> (String, Kept) {
    let mut name = format!("volume-{id}");
    while others.contains_key(&name) {
        name.push_str("-x");
    }
    tracing::error!(name, id, reason, "a volume's record is damaged: it is not served");
    let volume = VolumeId(id);
    let shard = shard_of(volume, shard_count);
    let damage = Some(reason);
    let entry = Entry { volume, name: name.clone(), size_bytes: 0, created_ms: 0, shard, damage, image: None };
    (name, Kept { entry, is_leaving: false })
}

/// What the index knows of a volume that has a record.
fn known_of(record: &Record, known: &mut BTreeMap<VolumeId, Known>) -> Known {
    let volume = VolumeId(record.id);
    let known = known.remove(&volume).unwrap_or_else(|| unknown(volume));
    Known { created_bytes: record.size_bytes, ..known }
}

/// What the index knows of a volume that was never written.
const fn unknown(volume: VolumeId) -> Known {
    Known { volume, created_bytes: 0, row: None, segments: Vec::new(), survivors: BTreeMap::new() }
}

fn report_unrecorded(known: &BTreeMap<VolumeId, Known>) {
    for (volume, known) in known {
        let segments = known.segments.len();
        tracing::warn!(%volume, segments, "segments of a volume that has no record are kept and not served");
    }
}

fn ended(who: &'static str) -> OpenError {
    OpenError::Damaged(format!("{who} ended while volumes were being opened"))
}

fn unreadable(error: &CatalogueError) -> OpenError {
    OpenError::Damaged(format!("the catalogue cannot be read: {error}"))
}
