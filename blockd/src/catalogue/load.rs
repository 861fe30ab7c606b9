//! The catalogue at the start: records read, volumes recovered, records held against their logs, volumes opened.

use super::cleaner::Cleaner;
use super::history::HistoryKeeper;
use super::meter::{self, MeterConfig};
use super::mirrors::{hold_copies, ids_of};
use super::qos::{Limited, QosKeeper, volume_qos};
use super::reconcile::{Evidence, reconcile};
use super::record::{GroupRecord, MeterRecord, ParentRecord, Record, SnapshotRecord, VolumeRecord, VolumeState};
use super::shelf::{Kept, Shelf};
use super::targets::{TargetKeeper, TargetRecords};
use super::views::{Views, close_left};
use super::{Book, Catalogue, CatalogueError, Entry, SYSTEM_BYTES, ask, shard_of};
use crate::metering::MeterTimes;
use crate::mirror::{Hosted, KeepError, MirrorHost, Wanted};
use crate::open::{OpenError, PoolFile, Recovery, recover_all};
use crate::qos::{Credits, KeptCredits};
use crate::shard::{Message, SeatSettings, ShardHandle, UnitSettings};
use crate::store::StoreHandle;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Mutex, watch};
use units::{ClassId, GroupId, PoolId, SiteId, TenantId, VolumeId};
use volume::engine::{Volume, VolumeConfig};
use volume::pool::{Boundary, Parent};
use volume::recover::{Known, Recovered, Terms, fresh, fresh_clone};

/// What the catalogue begins with.
pub(crate) struct Beginning {
    pub(crate) pool: Arc<PoolFile>,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) store: StoreHandle,
    pub(crate) config: VolumeConfig,
    /// What the index knows, by volume.
    pub(crate) known: BTreeMap<VolumeId, Known>,
    /// Volumes of which a part may be gone, since they were being erased. Their records say so too, but for one that was to
    /// give a clone of a moment its name: written in spite of an error, it says that the clone is there.
    pub(crate) erasing: BTreeSet<VolumeId>,
    /// What was left of credits.
    pub(crate) credits: KeptCredits,
    /// The meter's time, which its clock sets; and how readings are taken.
    pub(crate) meter: (MeterTimes, MeterConfig),
    /// The other site, and what it wants copies of.
    pub(crate) mirror: Option<Hosted>,
}

impl Catalogue {
    /// Opens every volume that has a record, the system volume first.
    pub(crate) async fn load(beginning: Beginning) -> Result<Arc<Self>, OpenError> {
        let Beginning { pool, shards, store, config, mut known, erasing, credits, meter, mirror } = beginning;
        let (host, wanted) = mirror.unzip();
        let site = host.as_deref().map_or(SiteId(0), MirrorHost::site);
        let system = system_known(&mut known);
        let opening = Opening { pool: Arc::clone(&pool), shards: &shards, store: &store, config };
        opening.serve_system(system).await?;
        let first = shards.first().ok_or_else(|| OpenError::Setting("there is no shard".to_owned()))?.clone();
        let (mut book, records) = Book::load(first, ids_of(site)).await.map_err(|error| unreadable(&error))?;
        let mut shelf = Shelf::default();
        let sorted = Sorted::of(records.read, &mut shelf);
        for (id, reason) in records.rotten {
            known.remove(&VolumeId(id));
            set_aside(&mut shelf, id, &reason, shards.len());
        }
        let unsound = opening.note_families(&shelf).await?;
        let is_opened =
            |record: &&VolumeRecord| !erasing.contains(&VolumeId(record.id)) && is_to_be_opened(&shelf, record);
        let (open, gone): (Vec<_>, Vec<_>) = shelf.volumes().partition(is_opened);
        let to_recover = open.into_iter().map(|record| (known_of(record, &mut known), terms_of(record))).collect();
        gone.into_iter().for_each(|record| drop(known.remove(&VolumeId(record.id))));
        let Recovery { volumes, mut damaged, .. } = recover_noted(&store, &pool, to_recover).await?;
        let floor = volumes.iter().map(Recovered::metered_to).max().unwrap_or_default();
        if sorted.meter.is_none() && shelf.is_unsure() {
            tracing::error!("the record of the meter may be among those that cannot be read: a new ledger begins");
        }
        let beginning = meter::Beginning { times: meter.0, config: meter.1, record: sorted.meter, floor };
        let resumed = opening.resume_meter(beginning, (&mut book, &mut known)).await?;
        let evidence = opening.evidence(&volumes).await?;
        let unneeded = sorted.targets.put(&mut shelf);
        let lost = reconcile(&mut shelf, sorted.snapshots, sorted.groups, &evidence);
        drop_unneeded(&book, (&lost, &unneeded)).await.map_err(|error| unreadable(&error))?;
        let reason = "the index was made without what it began as: rebuild it";
        damaged.extend(unsound.into_iter().map(|volume| (volume, reason.to_owned())));
        condemn_heirs(&shelf, &evidence, &mut damaged);
        let (mut seats, mirrored) = opening.take_seats(host.as_ref(), (&shelf, &volumes), &mut damaged);
        let sizes = volumes.iter().map(|found| (found.volume, found.size_bytes)).collect();
        name_volumes(&mut shelf, &Opened { sizes, damaged }, shards.len());
        // Before any volume may tell what it has no more use for.
        let told = ask::begin_keep_history(&store, shelf.kept_logs(), true).map_err(|error| unreadable(&error))?;
        told.end().await.map_err(|error| unreadable(&error))?;
        let meter = resumed.begin((&shards, &store), &shelf).await.map_err(|error| unreadable(&error))?;
        let is_whole = |found: &Recovered| shelf.damage_of(found.volume.0).is_none();
        let of = |volume| service_of(&shelf, &credits, (&config.pool, volume));
        opening.serve(volumes.into_iter().filter(is_whole).collect(), of, &mut seats)?;
        opening.route(host.as_ref(), &mirrored);
        report_unrecorded(&known);
        let (views, left) = Views::new();
        let catalogue = Arc::new(Self {
            shards,
            store,
            config,
            pen: book.pen(),
            book: Mutex::new(book),
            shelf: RwLock::new(shelf),
            cleaner: Cleaner::default(),
            history: HistoryKeeper::default(),
            qos: QosKeeper::new(credits),
            meter,
            pool,
            views: Mutex::new(views),
            sockets: watch::Sender::default(),
            targets: TargetKeeper::default(),
            erasing: Mutex::new(()),
            mirror: host,
            is_stopping: AtomicBool::new(false),
        });
        catalogue.begin_work(left, wanted).await.map_err(|error| unreadable(&error))?;
        Ok(catalogue)
    }

    /// Begins what goes on by itself.
    async fn begin_work(
        self: &Arc<Self>,
        left: UnboundedReceiver<u64>,
        wanted: Option<UnboundedReceiver<Wanted>>,
    ) -> Result<(), CatalogueError> {
        // First, so that what the cleaner does to former volumes is told from what was there before.
        self.start_history().await?;
        self.cleaner.start(self);
        self.hold_tenants().await?;
        self.start_qos();
        self.start_meter();
        tokio::spawn(close_left(Arc::downgrade(self), left));
        if let Some(wanted) = wanted {
            tokio::spawn(hold_copies(Arc::downgrade(self), wanted));
        }
        Ok(())
    }
}

/// Takes away the records of snapshots that were lost, and those that belong to what was deleted.
async fn drop_unneeded(book: &Book, (lost, unneeded): (&[u64], &[u64])) -> Result<(), CatalogueError> {
    if !lost.is_empty() {
        tracing::info!(records = ?lost, "snapshots that were lost before they were answered");
        book.drop_all(lost).await?;
    }
    book.drop_all(unneeded).await
}

/// The records that are not on the shelf yet.
#[derive(Debug, Default)]
struct Sorted {
    snapshots: Vec<SnapshotRecord>,
    groups: Vec<GroupRecord>,
    meter: Option<MeterRecord>,
    targets: TargetRecords,
}

impl Sorted {
    /// Puts volumes, tenants and tokens on the shelf, and the rest aside.
    fn of(records: Vec<Record>, shelf: &mut Shelf) -> Self {
        let mut sorted = Self::default();
        for record in records {
            match record {
                Record::Volume(record) => shelf.put_volume(record),
                Record::Snapshot(record) => sorted.snapshots.push(record),
                Record::Group(record) => sorted.groups.push(record),
                Record::Tenant(record) => shelf.put_tenant(record),
                Record::Token(record) => drop(shelf.tokens.insert(record.id, record)),
                Record::Meter(record) => sorted.meter = Some(record),
                Record::Class(record) => drop(shelf.classes.insert(record.name.clone(), record)),
                Record::Target(record) => sorted.targets.targets.push(record),
                Record::Initiator(record) => sorted.targets.initiators.push(record),
                Record::Reservation(record) => sorted.targets.reservations.push(record),
            }
        }
        sorted
    }
}

/// What the index knows of the system volume.
fn system_known(known: &mut BTreeMap<VolumeId, Known>) -> Known {
    let system = known.remove(&VolumeId::SYSTEM);
    Known { created_bytes: SYSTEM_BYTES, ..system.unwrap_or_else(|| unknown(VolumeId::SYSTEM)) }
}

/// How a volume is served.
fn service_of(
    shelf: &Shelf,
    credits: &KeptCredits,
    (pool, volume): (&PoolId, VolumeId),
) -> (Limited, Credits, UnitSettings) {
    let (limits, credits) = qos_of(shelf, credits, volume);
    (limits, credits, shelf.unit_of(pool, volume))
}

/// The ceilings of a volume, and what was left of them.
fn qos_of(shelf: &Shelf, credits: &KeptCredits, volume: VolumeId) -> (Limited, Credits) {
    let limited = shelf.volume(volume.0).map(|record| (TenantId(record.tenant), record.qos));
    (limited.unwrap_or_default(), credits.volumes.get(&volume).copied().unwrap_or_default())
}

/// Whether a volume is opened at the start: also one without a name that others began as.
fn is_to_be_opened(shelf: &Shelf, record: &VolumeRecord) -> bool {
    match record.state {
        VolumeState::Live | VolumeState::Ghost => true,
        VolumeState::Deleting => shelf.is_parent(record.id),
    }
}

/// Sets aside the volumes of which others, that are damaged or lost, hold a part.
fn condemn_heirs(shelf: &Shelf, evidence: &Evidence, damaged: &mut BTreeMap<VolumeId, String>) {
    // Parents have lower ids than what began as them, so that one pass tells of all generations.
    for record in shelf.volumes() {
        let Some(parent) = record.parent else { continue };
        let reason = match damaged.get(&VolumeId(parent.volume)) {
            Some(reason) => format!("volume {}, which it began as, is damaged: {reason}", parent.volume),
            None if evidence.boundaries.contains_key(&parent) => continue,
            None => format!("the snapshot of volume {} that it began as is lost", parent.volume),
        };
        let volume = VolumeId(record.id);
        tracing::error!(%volume, reason, "a volume is not served");
        damaged.entry(volume).or_insert(reason);
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
    async fn serve_system(&self, known: Known) -> Result<(), OpenError> {
        let recovered = recover_noted(self.store, &self.pool, vec![(known, Terms::default())]).await?;
        if let Some(reason) = recovered.damaged.get(&VolumeId::SYSTEM) {
            let detail = format!("the system volume, which holds the names of all others, is damaged: {reason}");
            return Err(OpenError::Damaged(detail));
        }
        self.serve(recovered.volumes, |_| <_>::default(), &mut BTreeMap::new())
    }

    /// What the logs and the index tell of snapshots.
    async fn evidence(&self, volumes: &[Recovered]) -> Result<Evidence, OpenError> {
        let boundaries = ask::boundaries(self.store).await.map_err(|error| unreadable(&error))?;
        let place = |(volume, boundary): (VolumeId, Boundary)| {
            (ParentRecord { volume: volume.0, generation: boundary.generation }, boundary.lsn)
        };
        let boundaries = boundaries.into_iter().map(place).collect();
        let next_lsns = volumes.iter().map(|found| (found.volume, found.next_lsn)).collect();
        Ok(Evidence { next_lsns, boundaries })
    }

    /// Has the meter's clock go on, and serves the ledger's volume. One that is damaged is not served: then the ledger is out of
    /// order, and all else goes on.
    async fn resume_meter(
        &self,
        beginning: meter::Beginning,
        (book, known): (&mut Book, &mut BTreeMap<VolumeId, Known>),
    ) -> Result<meter::Resumed, OpenError> {
        let resumed = beginning.resume(book).await.map_err(|error| unreadable(&error))?;
        let (volume, created_bytes) = resumed.volume();
        let known = known.remove(&volume).unwrap_or_else(|| unknown(volume));
        let known = Known { created_bytes, ..known };
        let recovered = recover_noted(self.store, &self.pool, vec![(known, Terms::default())]).await?;
        self.serve(recovered.volumes, |_| <_>::default(), &mut BTreeMap::new())?;
        Ok(resumed)
    }

    /// Tells the index which volumes began as what. Returns those that it does not have right.
    async fn note_families(&self, shelf: &Shelf) -> Result<Vec<VolumeId>, OpenError> {
        let heirs = shelf.volumes().filter_map(|record| Some((VolumeId(record.id), record.parent?.into())));
        let heirs: BTreeMap<VolumeId, Parent> = heirs.collect();
        if !shelf.is_unsure() {
            let noted = ask::note_families(self.store, heirs).await.map_err(|error| unreadable(&error))?;
            return noted.map_err(OpenError::Disk);
        }
        // What the records that cannot be read began as, the index may still know: it keeps that.
        let mut unsound = Vec::new();
        for (heir, parent) in heirs {
            if let Err(error) = ask::note_parent(self.store, heir, parent).await.map_err(|error| unreadable(&error))? {
                tracing::warn!(volume = %heir, %error, "the index does not take what a volume began as");
                unsound.push(heir);
            }
        }
        Ok(unsound)
    }

    fn shard_of(&self, volume: VolumeId) -> Option<&ShardHandle> {
        self.shards.get(shard_of(volume, self.shards.len()))
    }

    /// What the seats of mirrored volumes begin with. One whose part in its mirror is not known is not served.
    fn take_seats(
        &self,
        host: Option<&Arc<MirrorHost>>,
        (shelf, volumes): (&Shelf, &[Recovered]),
        damaged: &mut BTreeMap<VolumeId, String>,
    ) -> (BTreeMap<VolumeId, SeatSettings>, Vec<(GroupId, VolumeId)>) {
        let (mut seats, mut ids) = (BTreeMap::new(), Vec::new());
        for volume in volumes.iter().map(|found| found.volume) {
            let Some((record, shard)) = shelf.volume(volume.0).zip(self.shard_of(volume)) else { continue };
            let Some(mirror) = record.mirror.filter(|_| !damaged.contains_key(&volume)) else { continue };
            let attached = match host {
                Some(host) if SiteId(mirror.peer) != host.peer() => {
                    Err(KeepError::OtherPeer { recorded: mirror.peer, told: host.peer() })
                }
                Some(host) => host.attach((GroupId(mirror.group), volume), record.size_bytes, shard.clone()),
                None => Err(KeepError::NoSite),
            };
            match attached {
                Ok(settings) => {
                    ids.push((settings.config.group, volume));
                    seats.insert(volume, settings);
                }
                Err(error) => {
                    tracing::error!(%volume, %error, "a mirrored volume is not served");
                    damaged.insert(volume, error.to_string());
                }
            }
        }
        (seats, ids)
    }

    /// Has frames of the other site go to the seats.
    fn route(&self, host: Option<&Arc<MirrorHost>>, mirrored: &[(GroupId, VolumeId)]) {
        for ids in mirrored {
            if let Some((host, shard)) = host.zip(self.shard_of(ids.1)) {
                host.route(*ids, shard.clone());
            }
        }
    }

    /// Hands volumes to their shards, with their ceilings and what is left of these.
    fn serve(
        &self,
        volumes: Vec<Recovered>,
        of: impl Fn(VolumeId) -> (Limited, Credits, UnitSettings),
        seats: &mut BTreeMap<VolumeId, SeatSettings>,
    ) -> Result<(), OpenError> {
        for recovered in volumes {
            let shard = self.shard_of(recovered.volume);
            let (limits, credits, unit) = of(recovered.volume);
            let mirror = seats.remove(&recovered.volume).map(Box::new);
            let (mut volume, qos) = (Box::new(Volume::open(self.config, recovered)), volume_qos(limits, credits));
            if mirror.is_some() {
                volume.freeze();
            }
            let sent = shard.map(|shard| shard.send(Message::OpenVolume { volume, qos, unit: Box::new(unit), mirror }));
            sent.and_then(Result::ok).ok_or_else(|| ended("a shard"))?;
        }
        Ok(())
    }
}

/// Recovers volumes, each by its terms, and tells the index what was found.
pub(crate) async fn recover_noted(
    store: &StoreHandle,
    pool: &Arc<PoolFile>,
    known: Vec<(Known, Terms)>,
) -> Result<Recovery, OpenError> {
    let (written, unwritten): (Vec<_>, Vec<_>) =
        known.into_iter().partition(|(known, _)| known.row.is_some() || !known.segments.is_empty());
    let pool = Arc::clone(pool);
    let recovery = tokio::task::spawn_blocking(move || recover_all(&pool, written)).await;
    let mut recovery = recovery.map_err(|_| ended("recovery"))??;
    let notes = std::mem::take(&mut recovery.notes);
    let noted = ask::note_recovered(store, notes).await.map_err(|error| unreadable(&error))?;
    noted.map_err(OpenError::Disk)?;
    recovery.volumes.extend(unwritten.iter().map(|(known, _)| match known.parent {
        Some(_) => fresh_clone(known.volume, known.created_bytes),
        None => fresh(known.volume, known.created_bytes),
    }));
    Ok(recovery)
}

/// Puts the volumes that have a name on the shelf under it.
fn name_volumes(shelf: &mut Shelf, opened: &Opened, shard_count: usize) {
    let named: Vec<VolumeRecord> =
        shelf.volumes().filter(|record| shelf.name_of(record.id).is_some()).cloned().collect();
    for (volume, reason) in &opened.damaged {
        shelf.note_damaged(volume.0, reason.clone());
    }
    for record in named {
        let volume = VolumeId(record.id);
        let entry = Entry {
            size_bytes: opened.sizes.get(&volume).copied().unwrap_or(record.size_bytes),
            damage: opened.damaged.get(&volume).cloned(),
            ..Entry::of(&record, shard_of(volume, shard_count))
        };
        shelf.names.insert(record.name, Kept::new(entry));
    }
}

/// A record that has rotted, and with it a name: it can be seen, as a volume, and deleted.
fn set_aside(shelf: &mut Shelf, id: u64, reason: &str, shard_count: usize) {
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
    let entry = Entry {
        volume,
        name: name.clone(),
        tenant: TenantId::DEFAULT,
        size_bytes: 0,
        created_ms: 0,
        shard,
        damage: None,
        image: None,
        history: None,
        qos: None,
        class: ClassId::DEFAULT,
    };
    shelf.note_rotten(id);
    shelf.names.insert(name.clone(), Kept::new(entry));
    shelf.set_aside(&name, reason);
}

/// How the end of a volume's log is found.
fn terms_of(record: &VolumeRecord) -> Terms {
    Terms { goes_on: record.mirror.is_some(), ..Terms::default() }
}

/// What the index knows of a volume that has a record.
fn known_of(record: &VolumeRecord, known: &mut BTreeMap<VolumeId, Known>) -> Known {
    let volume = VolumeId(record.id);
    let known = known.remove(&volume).unwrap_or_else(|| unknown(volume));
    Known { created_bytes: record.size_bytes, parent: record.parent.map(Parent::from), ..known }
}

/// What the index knows of a volume that was never written.
const fn unknown(volume: VolumeId) -> Known {
    Known {
        volume,
        created_bytes: 0,
        row: None,
        segments: Vec::new(),
        survivors: BTreeMap::new(),
        loans: BTreeMap::new(),
        parent: None,
        joined_to: None,
    }
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
