//! The catalogue at the start: records read, volumes recovered, records held against their logs, volumes opened.

use super::cleaner::Cleaner;
use super::reconcile::{Evidence, reconcile};
use super::record::{GroupRecord, Record, SnapshotRecord, VolumeRecord, VolumeState};
use super::shelf::{Kept, Shelf};
use super::{Book, Catalogue, CatalogueError, Entry, SYSTEM_BYTES, ask, shard_of};
use crate::open::{OpenError, PoolFile, Recovery, recover_all};
use crate::shard::{Message, ShardHandle};
use crate::store::StoreHandle;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};
use tokio::sync::Mutex;
use units::VolumeId;
use volume::engine::{Volume, VolumeConfig};
use volume::recover::{Known, Recovered, fresh};

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
    pub(crate) async fn load(beginning: Beginning) -> Result<Arc<Self>, OpenError> {
        let Beginning { pool, shards, store, config, mut known } = beginning;
        let system = known.remove(&VolumeId::SYSTEM);
        let system = Known { created_bytes: SYSTEM_BYTES, ..system.unwrap_or_else(|| unknown(VolumeId::SYSTEM)) };
        let opening = Opening { pool, shards: &shards, store: &store, config };
        let recovered = opening.recover(vec![system]).await?;
        if let Some(reason) = recovered.damaged.get(&VolumeId::SYSTEM) {
            let detail = format!("the system volume, which holds the names of all others, is damaged: {reason}");
            return Err(OpenError::Damaged(detail));
        }
        opening.serve(recovered.volumes)?;
        let first = shards.first().ok_or_else(|| OpenError::Setting("there is no shard".to_owned()))?.clone();
        let (book, records) = Book::load(first).await.map_err(|error| unreadable(&error))?;
        let sorted = Sorted::of(records.read);
        let (deleting, kept): (Vec<_>, Vec<_>) =
            sorted.volumes.iter().partition(|record| record.state == VolumeState::Deleting);
        let to_recover = kept.into_iter().map(|record| known_of(record, &mut known)).collect();
        let Recovery { volumes, damaged, .. } = opening.recover(to_recover).await?;
        deleting.into_iter().for_each(|record| drop(known.remove(&VolumeId(record.id))));
        let opened = Opened { sizes: volumes.iter().map(|found| (found.volume, found.size_bytes)).collect(), damaged };
        let next_lsns = volumes.iter().map(|found| (found.volume, found.next_lsn)).collect();
        let boundaries = ask::boundaries(&store).await.map_err(|error| unreadable(&error))?;

        let mut shelf = Shelf::default();
        sorted.volumes.into_iter().for_each(|record| shelf.put_volume(record));
        name_volumes(&mut shelf, &opened, shards.len());
        for (id, reason) in records.rotten {
            known.remove(&VolumeId(id));
            set_aside(&mut shelf, id, reason, shards.len());
        }
        let evidence = Evidence { next_lsns, boundaries };
        let lost = reconcile(&mut shelf, sorted.snapshots, sorted.groups, &evidence);
        if !lost.is_empty() {
            tracing::info!(records = ?lost, "snapshots that a power cut took before they were answered");
            book.drop_all(&lost).await.map_err(|error| unreadable(&error))?;
        }
        let (served, ghosts): (Vec<_>, Vec<_>) =
            volumes.into_iter().partition(|found| shelf.name_of(found.volume.0).is_some());
        opening.serve(served)?;
        opening.fold(ghosts).await?;
        report_unrecorded(&known);
        let catalogue = Arc::new(Self {
            shards,
            store,
            config,
            book: Mutex::new(book),
            shelf: RwLock::new(shelf),
            cleaner: Cleaner::default(),
            erasing: Mutex::new(()),
            is_stopping: AtomicBool::new(false),
        });
        catalogue.cleaner.start(&catalogue);
        Ok(catalogue)
    }
}

/// Records by what they are of.
#[derive(Debug, Default)]
struct Sorted {
    volumes: Vec<VolumeRecord>,
    snapshots: Vec<SnapshotRecord>,
    groups: Vec<GroupRecord>,
}

impl Sorted {
    fn of(records: Vec<Record>) -> Self {
        let mut sorted = Self::default();
        for record in records {
            match record {
                Record::Volume(record) => sorted.volumes.push(record),
                Record::Snapshot(record) => sorted.snapshots.push(record),
                Record::Group(record) => sorted.groups.push(record),
            }
        }
        sorted
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
    /// Recovers volumes, and tells the index what was found.
    async fn recover(&self, known: Vec<Known>) -> Result<Recovery, OpenError> {
        let (written, unwritten): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|known| known.row.is_some() || !known.segments.is_empty());
        let pool = Arc::clone(&self.pool);
        let recovery = tokio::task::spawn_blocking(move || recover_all(&pool, written)).await;
        let mut recovery = recovery.map_err(|_| ended("recovery"))??;
        let notes = std::mem::take(&mut recovery.notes);
        let noted = ask::note_recovered(self.store, notes).await.map_err(|error| unreadable(&error))?;
        noted.map_err(OpenError::Disk)?;
        recovery.volumes.extend(unwritten.iter().map(|known| fresh(known.volume, known.created_bytes)));
        Ok(recovery)
    }

    /// Hands volumes to their shards.
    fn serve(&self, volumes: Vec<Recovered>) -> Result<(), OpenError> {
        for recovered in volumes {
            let shard = self.shards.get(shard_of(recovered.volume, self.shards.len()));
            let engine = Box::new(Volume::open(self.config, recovered));
            let sent = shard.map(|shard| shard.send(Message::OpenVolume(engine)));
            sent.and_then(Result::ok).ok_or_else(|| ended("a shard"))?;
        }
        Ok(())
    }

    /// Brings the stored maps of volumes that nobody opens up to the ends of their logs.
    async fn fold(&self, volumes: Vec<Recovered>) -> Result<(), OpenError> {
        let lags = |found: &Recovered| found.folded_to.next() < found.next_lsn;
        for found in volumes.into_iter().filter(lags) {
            let volume = found.volume;
            self.serve(vec![found])?;
            let shard = self.shards.get(shard_of(volume, self.shards.len())).ok_or_else(|| ended("a shard"))?;
            if let Err(error) = ask::close(shard, volume).await.map_err(|error| unreadable(&error))? {
                tracing::error!(%volume, %error, "what clones see of a deleted volume is not all in the index");
            }
        }
        Ok(())
    }
}

/// Puts the volumes that have a name on the shelf under it.
fn name_volumes(shelf: &mut Shelf, opened: &Opened, shard_count: usize) {
    let named: Vec<VolumeRecord> =
        shelf.volumes().filter(|record| shelf.name_of(record.id).is_some()).cloned().collect();
    for record in named {
        let volume = VolumeId(record.id);
        let entry = Entry {
            volume,
            name: record.name.clone(),
            size_bytes: opened.sizes.get(&volume).copied().unwrap_or(record.size_bytes),
            created_ms: record.created_ms,
            shard: shard_of(volume, shard_count),
            damage: opened.damaged.get(&volume).cloned(),
        };
        shelf.names.insert(record.name, Kept { entry, is_leaving: false });
    }
}

/// A record that has rotted, and with it a name: it can be seen, as a volume, and deleted.
fn set_aside(shelf: &mut Shelf, id: u64, reason: String, shard_count: usize) {
    let mut name = format!("volume-{id}");
    while shelf.names.contains_key(&name) {
        name.push_str("-x");
    }
    tracing::error!(
        name,
        id,
        reason,
        "a record is damaged: what it is of is not served, and nothing that it may need is deleted"
    );
    let volume = VolumeId(id);
    let shard = shard_of(volume, shard_count);
    let entry = Entry { volume, name: name.clone(), size_bytes: 0, created_ms: 0, shard, damage: Some(reason) };
    shelf.note_rotten(id);
    shelf.names.insert(name, Kept { entry, is_leaving: false });
}

/// What the index knows of a volume that has a record.
fn known_of(record: &VolumeRecord, known: &mut BTreeMap<VolumeId, Known>) -> Known {
    let volume = VolumeId(record.id);
    let known = known.remove(&volume).unwrap_or_else(|| unknown(volume));
    Known { created_bytes: record.size_bytes, ..known }
}

/// What the index knows of a volume that was never written.
const fn unknown(volume: VolumeId) -> Known {
    Known { volume, created_bytes: 0, row: None, segments: Vec::new(), survivors: BTreeMap::new(), parent: None }
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
