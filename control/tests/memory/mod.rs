//! A service that keeps volumes in memory: names, sizes and conflicts behave as over an engine, without its data.

pub(crate) mod books;
mod classes;
mod images;
mod mirrors;
mod targets;
mod tenants;

pub(crate) use books::MemoryBooks;
use images::check_claim;

use control::metrics::{self, VolumeMetrics};
use control::{
    Answer, Books, CeilingStatus, Chap, Class, Compaction, DiffExtent, DiffKind, ErrorCode, ExportName, Image,
    ImageSharing, ImageState, KeepHistory, KnownToken, Mirror, MomentName, Name, NewToken, Operation, OperationState,
    Page, Place, Pool, PoolState, Quota, RolledBack, Scrub, Service, ServiceError, SetAccess, SetClass, SetQos,
    SetTenantQos, Slots, Snapshot, SnapshotDiff, SnapshotName, Target, TargetLun, Tenant, TenantQos, Token, Trial,
    Volume, VolumeHistory, VolumeName, VolumeQos, VolumeSize, VolumeState,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, oneshot};
use units::TenantId;

/// The text of the token of a provider-admin that there is from the beginning.
pub(crate) const ADMIN: &str = "alj_0_0000000000000000000000000000000000000000000000000000000000000000";

pub(crate) struct MemoryService {
    state: Mutex<State>,
    /// The ledger.
    pub(crate) books: Arc<MemoryBooks>,
    held: Mutex<Option<oneshot::Receiver<()>>>,
    /// Notified when a change begins to wait.
    pub(crate) change_waits: Notify,
    /// Notified after each change.
    pub(crate) change_made: Notify,
}

#[derive(Default, Clone)]
struct State {
    volumes: BTreeMap<String, Volume>,
    images: BTreeMap<String, (Image, (String, String))>,
    data_end: BTreeMap<String, u64>,
    scrub: Option<Scrub>,
    snapshots: BTreeMap<SnapshotName, Snapshot>,
    tenants: BTreeMap<String, Tenant>,
    tokens: BTreeMap<u64, (Token, [u8; 32])>,
    classes: BTreeMap<String, Class>,
    mirrors: BTreeMap<String, Mirror>,
    targets: BTreeMap<String, Target>,
    last_id: u64,
    is_stopping: bool,
}

impl MemoryService {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State { tokens: [(0, tenants::admin())].into(), ..State::default() }),
            books: Arc::new(MemoryBooks::new()),
            held: Mutex::new(None),
            change_waits: Notify::new(),
            change_made: Notify::new(),
        }
    }

    /// Makes the next change wait until something is sent.
    pub(crate) fn hold_changes(&self) -> oneshot::Sender<()> {
        let (release, held) = oneshot::channel();
        *self.held.lock().unwrap() = Some(held);
        release
    }

    pub(crate) fn attach(&self, name: &str, connections: u64) {
        self.state.lock().unwrap().volumes.get_mut(name).unwrap().connections = connections;
    }

    pub(crate) fn write_to(&self, name: &str, data_end: u64) {
        self.state.lock().unwrap().data_end.insert(name.to_owned(), data_end);
    }

    pub(crate) fn stop(&self) {
        self.state.lock().unwrap().is_stopping = true;
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.state.lock().unwrap().volumes.contains_key(name)
    }

    async fn wait_if_held(&self) {
        let held = self.held.lock().unwrap().take();
        if let Some(held) = held {
            self.change_waits.notify_one();
            held.await.unwrap();
        }
    }
}

impl State {
    fn create(&mut self, name: &VolumeName, size: VolumeSize) -> Result<Volume, ServiceError> {
        if let Some(existing) = self.volumes.get(name.as_str()) {
            let detail = format!("volume {name:?} exists with {} bytes: choose another name", existing.size_bytes);
            return Err(ServiceError::new(ErrorCode::VolumeExists, detail));
        }
        self.check_tenant(name.tenant())?;
        self.last_id += 1;
        let volume = Volume {
            name: name.to_string(),
            tenant: name.tenant().to_string(),
            id: self.last_id,
            size_bytes: size.bytes(),
            parent: None,
            snapshots: 0,
            written_bytes: Some(0),
            snapshot_bytes: None,
            pool_bytes: None,
            history: None,
            class: "default".to_owned(),
            qos: None,
            state: VolumeState::Online,
            state_reason: None,
            connections: 0,
            shard: 0,
            created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            nbd_uris: vec![format!("nbd://127.0.0.1:10809/{name}")],
        };
        self.volumes.insert(name.to_string(), volume.clone());
        Ok(volume)
    }

    fn create_of(&mut self, name: &VolumeName, size: VolumeSize, class: Option<&Name>) -> Result<Volume, ServiceError> {
        if let Some(class) = class {
            self.class(class)?;
        }
        self.create(name, size)?;
        let volume = self.find(name)?;
        volume.class = class.map_or("default", Name::as_str).to_owned();
        Ok(volume.clone())
    }

    fn find(&mut self, name: &VolumeName) -> Result<&mut Volume, ServiceError> {
        self.volumes.get_mut(name.as_str()).ok_or_else(|| ServiceError::no_volume(name.as_str()))
    }

    fn resize(&mut self, name: &VolumeName, size: VolumeSize, discard: bool) -> Result<Volume, ServiceError> {
        let data_end = self.data_end.get(name.as_str()).copied().unwrap_or(0);
        let volume = self.find(name)?;
        if data_end > size.bytes() && !discard {
            return Err(ServiceError::new(ErrorCode::ShrinkRefused, format!("data reaches to {data_end}")));
        }
        volume.size_bytes = size.bytes();
        Ok(volume.clone())
    }

    fn delete(&mut self, name: &VolumeName, force: bool) -> Result<(), ServiceError> {
        let connections = self.find(name)?.connections;
        if connections > 0 && !force {
            return Err(ServiceError::new(ErrorCode::VolumeInUse, format!("{connections} clients are attached")));
        }
        self.volumes.remove(name.as_str());
        self.mirrors.remove(name.as_str());
        Ok(())
    }
}

const fn no_scrub() -> Scrub {
    Scrub {
        is_running: false,
        is_paced: false,
        begun_at: None,
        ended_at: None,
        seconds: 0.0,
        slots_total: 0,
        slots_done: 0,
        segments: 0,
        blocks: 0,
        rotten_blocks: 0,
        unreadable_blocks: 0,
        findings: Vec::new(),
    }
}

impl State {
    fn snapshot(&mut self, name: &SnapshotName, group: Option<&Name>) -> Result<Snapshot, ServiceError> {
        let size_bytes = self.find(name.volume())?.size_bytes;
        if self.snapshots.contains_key(name) {
            return Err(ServiceError::new(ErrorCode::SnapshotExists, format!("snapshot {name} exists")));
        }
        self.last_id += 1;
        let snapshot = Snapshot {
            name: name.to_string(),
            volume: name.volume().to_string(),
            tenant: name.volume().tenant().to_string(),
            id: self.last_id,
            size_bytes,
            taken_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            group: group.map(ToString::to_string),
            unique_bytes: None,
            clones: Vec::new(),
            state_reason: None,
            nbd_uris: vec![format!("nbd://127.0.0.1:10809/{name}")],
        };
        self.snapshots.insert(name.clone(), snapshot.clone());
        Ok(snapshot)
    }

    fn find_snapshot(&self, name: &SnapshotName) -> Result<Snapshot, ServiceError> {
        if !self.volumes.contains_key(name.volume().as_str()) {
            return Err(ServiceError::no_volume(name.volume().as_str()));
        }
        let missing = || ServiceError::new(ErrorCode::SnapshotNotFound, format!("there is no snapshot {name}"));
        self.snapshots.get(name).cloned().ok_or_else(missing)
    }
}

impl Service for MemoryService {
    fn create_volume(
        &self,
        name: VolumeName,
        size: VolumeSize,
        _history: KeepHistory,
        class: Option<Name>,
    ) -> Answer<'_, Volume> {
        Box::pin(async move {
            self.wait_if_held().await;
            let made = self.state.lock().unwrap().create_of(&name, size, class.as_ref());
            self.change_made.notify_one();
            made
        })
    }

    fn list_volumes(&self, tenant: Option<Name>, page: Page) -> Answer<'_, Vec<Volume>> {
        let of = move |volume: &&Volume| tenant.as_ref().is_none_or(|name| name.as_str() == volume.tenant);
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            Ok(page.of(state.volumes.values().rev().filter(of).cloned(), |volume| Place::named(&volume.name)))
        })
    }

    fn show_volume(&self, name: VolumeName) -> Answer<'_, Volume> {
        Box::pin(async move { self.state.lock().unwrap().find(&name).cloned() })
    }

    fn resize_volume(&self, name: VolumeName, size: VolumeSize, discard_tail: bool) -> Answer<'_, Volume> {
        Box::pin(async move { self.state.lock().unwrap().resize(&name, size, discard_tail) })
    }

    fn delete_volume(&self, name: VolumeName, force: bool) -> Answer<'_, ()> {
        Box::pin(async move { self.state.lock().unwrap().delete(&name, force) })
    }

    fn import_image(&self, name: VolumeName, size: VolumeSize, source: (String, String)) -> Answer<'_, Image> {
        Box::pin(async move { self.import(&name, size, source) })
    }

    fn mark_image(&self, name: VolumeName, claim: Option<u64>, copied_bytes: u64) -> Answer<'_, Image> {
        Box::pin(async move { self.mark(&name, claim, copied_bytes) })
    }

    fn seal_image(&self, name: VolumeName, claim: Option<u64>) -> Answer<'_, Image> {
        Box::pin(async move { self.seal(&name, claim) })
    }

    fn list_images(&self, tenant: Option<Name>, page: Page) -> Answer<'_, Vec<Image>> {
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            let images = state.images.values().rev().map(|(image, _)| image);
            let of = |image: &&Image| tenant.as_ref().is_none_or(|name| images::is_usable(image, name.as_str()));
            Ok(page.of(images.filter(of).cloned(), |image| Place::named(&image.name)))
        })
    }

    fn show_image(&self, name: VolumeName) -> Answer<'_, Image> {
        Box::pin(async move { self.change_image(&name, |_| Ok(())) })
    }

    fn delete_image(&self, name: VolumeName, claim: Option<u64>, _force: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            self.change_image(&name, |image| check_claim(image, claim))?;
            self.state.lock().unwrap().images.remove(name.as_str());
            Ok(())
        })
    }

    fn share_image(&self, name: VolumeName, sharing: ImageSharing) -> Answer<'_, Image> {
        Box::pin(async move {
            let share = |image: &mut Image| {
                image.sharing = sharing;
                Ok(())
            };
            self.change_image(&name, share)
        })
    }

    fn set_volume_class(&self, name: VolumeName, class: Name) -> Answer<'_, Volume> {
        Box::pin(async move { self.reclass(&name, &class) })
    }

    fn list_mirrors(&self, tenant: Option<Name>, page: Page) -> Answer<'_, Vec<Mirror>> {
        Box::pin(async move { Ok(self.mirrors_of(tenant.as_ref(), &page)) })
    }

    fn show_mirror(&self, name: VolumeName) -> Answer<'_, Mirror> {
        Box::pin(async move { self.change_mirror(&name, |_| ()) })
    }

    fn begin_mirror(&self, name: VolumeName, to: u8) -> Answer<'_, Mirror> {
        Box::pin(async move {
            self.wait_if_held().await;
            self.make_mirror(&name, to)
        })
    }

    fn end_mirror(&self, name: VolumeName) -> Answer<'_, ()> {
        Box::pin(async move { self.take_mirror(&name) })
    }

    fn move_volume(&self, name: VolumeName, to: u8) -> Answer<'_, Mirror> {
        Box::pin(async move {
            self.wait_if_held().await;
            self.switch_mirror(&name, to)
        })
    }

    fn fail_over(&self, name: VolumeName) -> Answer<'_, Mirror> {
        Box::pin(async move {
            self.wait_if_held().await;
            self.force_mirror(&name)
        })
    }

    fn list_classes(&self) -> Answer<'_, Vec<Class>> {
        Box::pin(async move { Ok(self.all_classes()) })
    }

    fn show_class(&self, name: Name) -> Answer<'_, Class> {
        Box::pin(async move { self.state.lock().unwrap().class(&name) })
    }

    fn create_class(&self, name: Name, qos: SetQos, history: KeepHistory) -> Answer<'_, Class> {
        Box::pin(async move { self.make_class(&name, qos, history) })
    }

    fn set_class(&self, name: Name, wanted: SetClass) -> Answer<'_, Class> {
        Box::pin(async move { self.change_class(&name, wanted) })
    }

    fn delete_class(&self, name: Name) -> Answer<'_, ()> {
        Box::pin(async move { self.take_class(&name) })
    }

    fn list_targets(&self, tenant: Option<Name>, page: Page) -> Answer<'_, Vec<Target>> {
        let of = move |target: &&Target| tenant.as_ref().is_none_or(|name| name.as_str() == target.tenant);
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            Ok(page.of(state.targets.values().filter(of).cloned(), |target| Place::named(&target.name)))
        })
    }

    fn show_target(&self, name: VolumeName) -> Answer<'_, Target> {
        Box::pin(async move { self.state.lock().unwrap().target(&name).cloned() })
    }

    fn create_target(&self, name: VolumeName) -> Answer<'_, Target> {
        Box::pin(async move { self.make_target(&name) })
    }

    fn delete_target(&self, name: VolumeName, force: bool) -> Answer<'_, ()> {
        Box::pin(async move { self.take_target(&name, force) })
    }

    fn map_lun(&self, target: VolumeName, volume: VolumeName, lun: Option<u16>) -> Answer<'_, TargetLun> {
        Box::pin(async move { self.map((&target, &volume), lun) })
    }

    fn unmap_lun(&self, target: VolumeName, lun: u16) -> Answer<'_, Target> {
        Box::pin(async move { self.unmap(&target, lun) })
    }

    fn allow_initiator(&self, target: VolumeName, initiator: String, chap: Option<Chap>) -> Answer<'_, Target> {
        Box::pin(async move { self.allow(&target, initiator, chap) })
    }

    fn deny_initiator(&self, target: VolumeName, initiator: String) -> Answer<'_, Target> {
        Box::pin(async move { self.deny(&target, &initiator) })
    }

    fn books(&self) -> Arc<dyn Books> {
        Arc::clone(&self.books) as _
    }

    fn clone_image(
        &self,
        images: Vec<VolumeName>,
        name: VolumeName,
        size: Option<VolumeSize>,
        class: Option<Name>,
    ) -> Answer<'_, Volume> {
        Box::pin(async move {
            let found = images.iter().find_map(|image| self.change_image(image, |_| Ok(())).ok());
            let usable = found.filter(|image| images::is_usable(image, name.tenant().as_str()));
            let image = usable.ok_or_else(|| ServiceError::no_image(images.first().unwrap().as_str()))?;
            if image.state != ImageState::Ready {
                return Err(ServiceError::new(ErrorCode::ImageImporting, "it is not copied whole"));
            }
            let size = size.map_or_else(|| VolumeSize::from_bytes(image.size_bytes), Ok)?;
            self.state.lock().unwrap().create_of(&name, size, class.as_ref())
        })
    }

    fn create_snapshots(&self, names: Vec<SnapshotName>, group: Option<Name>) -> Answer<'_, Vec<Snapshot>> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap();
            names.iter().map(|name| state.snapshot(name, group.as_ref())).collect()
        })
    }

    fn list_snapshots(
        &self,
        (volume, tenant): (Option<VolumeName>, Option<Name>),
        with_space: bool,
        page: Page,
    ) -> Answer<'_, Vec<Snapshot>> {
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            if let Some(volume) = volume.as_ref().filter(|volume| !state.volumes.contains_key(volume.as_str())) {
                return Err(ServiceError::no_volume(volume.as_str()));
            }
            let is_meant = |name: &SnapshotName| {
                volume.as_ref().is_none_or(|volume| name.volume() == volume)
                    && tenant.as_ref().is_none_or(|tenant| name.volume().tenant() == tenant)
            };
            let found = state.snapshots.iter().filter(|(name, _)| is_meant(name)).map(|(_, found)| found.clone());
            let found = found.map(|found| Snapshot { unique_bytes: with_space.then_some(0), ..found });
            Ok(page.of(found, Snapshot::place))
        })
    }

    fn show_snapshot(&self, name: SnapshotName) -> Answer<'_, Snapshot> {
        Box::pin(async move { self.state.lock().unwrap().find_snapshot(&name) })
    }

    fn delete_snapshot(&self, name: SnapshotName) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap();
            state.find_snapshot(&name)?;
            state.snapshots.remove(&name);
            Ok(())
        })
    }

    /// Two blocks differ, one a part.
    fn diff_snapshot(&self, since: SnapshotName, to: ExportName, from: u64) -> Answer<'_, SnapshotDiff> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap();
            let earlier = state.find_snapshot(&since)?;
            let (to_id, size_bytes) = match &to {
                ExportName::Volume(name) => state.find(name).map(|volume| (volume.id, volume.size_bytes))?,
                ExportName::Snapshot(name) => state.find_snapshot(name).map(|found| (found.id, found.size_bytes))?,
            };
            if to_id < earlier.id && matches!(to, ExportName::Snapshot(_)) {
                return Err(ServiceError::new(ErrorCode::SnapshotsUnrelated, format!("{since} is later than {to}")));
            }
            let kind = if from == 0 { DiffKind::Data } else { DiffKind::Zero };
            Ok(SnapshotDiff {
                since: earlier.name,
                since_id: earlier.id,
                to: to.to_string(),
                to_id,
                size_bytes,
                extents: vec![DiffExtent { offset: from, length: 4096, kind }],
                next_offset: (from == 0).then_some(8192),
            })
        })
    }

    fn reclaim_snapshots(&self, names: Vec<SnapshotName>) -> Answer<'_, u64> {
        Box::pin(async move {
            self.wait_if_held().await;
            let state = self.state.lock().unwrap();
            names.iter().map(|name| state.find_snapshot(name).map(|_| 4096)).sum()
        })
    }

    fn clone_snapshot(&self, snapshot: SnapshotName, name: VolumeName) -> Answer<'_, Volume> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap();
            let parent = state.find_snapshot(&snapshot)?;
            let size = VolumeSize::from_bytes(parent.size_bytes)?;
            Ok(Volume { parent: Some(parent.name), ..state.create(&name, size)? })
        })
    }

    fn clone_moment(&self, moment: MomentName, name: VolumeName) -> Answer<'_, Volume> {
        Box::pin(async move {
            self.wait_if_held().await;
            let mut state = self.state.lock().unwrap();
            let volume = state.find(moment.volume())?.clone();
            if volume.history.is_none() {
                return Err(ServiceError::new(ErrorCode::HistoryNotFound, "it has no history"));
            }
            state.create(&name, VolumeSize::from_bytes(volume.size_bytes)?)
        })
    }

    fn keep_history(&self, name: VolumeName, wanted: KeepHistory) -> Answer<'_, Volume> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap();
            let volume = state.find(&name)?;
            let history = |seconds| VolumeHistory { seconds, limit_bytes: wanted.limit_bytes, bytes: 0, since: None };
            volume.history = wanted.seconds.filter(|seconds| *seconds > 0).map(history);
            Ok(volume.clone())
        })
    }

    fn set_qos(&self, name: VolumeName, wanted: SetQos) -> Answer<'_, Volume> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap();
            let volume = state.find(&name)?;
            let iops = wanted.iops.filter(|rate| *rate > 0);
            let ceiling = |rate| CeilingStatus { rate, burst: rate, left: None, lasts_seconds: None };
            volume.qos = iops.map(|rate| VolumeQos {
                iops: Some(ceiling(rate)),
                bandwidth: None,
                operation_bytes: wanted.operation_bytes,
                throttled_requests: 0,
                throttled_ms: 0,
            });
            Ok(volume.clone())
        })
    }

    fn rollback_volume(&self, snapshot: SnapshotName, force: bool) -> Answer<'_, RolledBack> {
        Box::pin(async move {
            self.wait_if_held().await;
            let mut state = self.state.lock().unwrap();
            state.find_snapshot(&snapshot)?;
            let volume = state.find(snapshot.volume())?.clone();
            if volume.connections > 0 && !force {
                return Err(ServiceError::new(ErrorCode::VolumeInUse, "clients are attached"));
            }
            let undo = SnapshotName::new(snapshot.volume().clone(), "before".parse()?);
            Ok(RolledBack { volume, undo: state.snapshot(&undo, None)? })
        })
    }

    fn in_trial<'a>(&'a self, change: Trial<'a>) -> Trial<'a> {
        Box::pin(async move {
            let before = self.state.lock().unwrap().clone();
            self.books.set_trial(true);
            change.await;
            self.books.set_trial(false);
            *self.state.lock().unwrap() = before;
        })
    }

    fn list_tenants(&self) -> Answer<'_, Vec<Tenant>> {
        Box::pin(async move { Ok(self.state.lock().unwrap().tenants.values().rev().cloned().collect()) })
    }

    fn show_tenant(&self, name: Name) -> Answer<'_, Tenant> {
        if name.is_default_tenant() {
            return Box::pin(async move { Ok(tenants::default_tenant()) });
        }
        Box::pin(async move { self.change_tenant(&name, |_| ()) })
    }

    fn create_tenant(&self, name: Name, quota: Quota) -> Answer<'_, Tenant> {
        Box::pin(async move {
            let made = self.state.lock().unwrap().create_tenant(&name, quota)?;
            self.books.admit(TenantId(made.id));
            Ok(made)
        })
    }

    fn set_quota(&self, name: Name, quota: Quota) -> Answer<'_, Tenant> {
        Box::pin(async move { self.change_tenant(&name, |tenant| tenant.quota = quota) })
    }

    fn set_tenant_qos(&self, name: Name, wanted: SetTenantQos) -> Answer<'_, Tenant> {
        Box::pin(async move {
            let ceiling = |rate| CeilingStatus { rate, burst: rate, left: None, lasts_seconds: None };
            let (iops, weight) = (wanted.iops.map(ceiling), wanted.weight.unwrap_or(1));
            let qos = TenantQos { iops, bandwidth: None, operation_bytes: wanted.operation_bytes, weight };
            self.change_tenant(&name, |tenant| tenant.qos = Some(qos))
        })
    }

    fn set_access(&self, name: Name, wanted: SetAccess) -> Answer<'_, Tenant> {
        Box::pin(async move { self.change_tenant(&name, |tenant| tenant.access = wanted.access) })
    }

    fn suspend_tenant(&self, name: Name) -> Answer<'_, Tenant> {
        Box::pin(async move { self.change_tenant(&name, |tenant| tenant.is_suspended = true) })
    }

    fn resume_tenant(&self, name: Name) -> Answer<'_, Tenant> {
        Box::pin(async move { self.change_tenant(&name, |tenant| tenant.is_suspended = false) })
    }

    fn delete_tenant(&self, name: Name) -> Answer<'_, ()> {
        Box::pin(async move { self.state.lock().unwrap().delete_tenant(&name) })
    }

    fn list_tokens(&self, tenant: Option<Name>) -> Answer<'_, Vec<Token>> {
        Box::pin(async move { Ok(self.tokens_of(tenant.as_ref())) })
    }

    fn create_token(&self, token: NewToken) -> Answer<'_, Token> {
        Box::pin(async move { self.state.lock().unwrap().create_token(token) })
    }

    fn revoke_token(&self, id: u64, tenant: Option<Name>) -> Answer<'_, ()> {
        Box::pin(async move {
            if !self.tokens_of(tenant.as_ref()).iter().any(|token| token.id == id) {
                return Err(ServiceError::no_token(&id.to_string()));
            }
            self.state.lock().unwrap().tokens.remove(&id);
            Ok(())
        })
    }

    fn find_token(&self, id: u64) -> Option<KnownToken> {
        self.known_token(id)
    }

    fn note_token_used(&self, id: u64) {
        let mut state = self.state.lock().unwrap();
        let token = state.tokens.get_mut(&id).map(|(token, _)| token);
        token.into_iter().for_each(|token| token.used_at = Some(tenants::now()));
    }

    /// Images that are being imported, and an erasure of `acme`'s that never ends.
    fn list_operations(&self) -> Answer<'_, Vec<Operation>> {
        Box::pin(async move { Ok(self.state.lock().unwrap().operations()) })
    }

    fn cancel_operation(&self, operation: Operation) -> Answer<'_, Operation> {
        Box::pin(async move {
            self.state.lock().unwrap().images.remove(&operation.target);
            Ok(Operation { state: OperationState::Cancelled, is_cancellable: false, ..operation })
        })
    }

    fn show_pool(&self) -> Answer<'_, Pool> {
        Box::pin(async move {
            Ok(Pool {
                path: "memory".into(),
                size_bytes: 1 << 30,
                slot_bytes: 32 << 20,
                slots: Slots { total: 32, free: 30, reserved: 2, used: 0 },
                segments: 0,
                compaction: Compaction::default(),
                volumes: self.state.lock().unwrap().volumes.len() as u64,
                state: PoolState::Online,
                state_reason: None,
                index_generation: 1,
            })
        })
    }

    fn begin_scrub(&self, is_paced: bool) -> Answer<'_, Scrub> {
        let begun_at = "2026-01-02T03:04:05Z".parse().ok();
        let scrub = Scrub { is_running: true, is_paced, begun_at, ..no_scrub() };
        self.state.lock().unwrap().scrub = Some(scrub.clone());
        Box::pin(async move { Ok(scrub) })
    }

    fn show_scrub(&self) -> Answer<'_, Scrub> {
        Box::pin(async move { Ok(self.state.lock().unwrap().scrub.clone().unwrap_or_else(no_scrub)) })
    }

    fn check_ready(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            if self.state.lock().unwrap().is_stopping {
                return Err(ServiceError::new(ErrorCode::ShuttingDown, "the service stops"));
            }
            Ok(())
        })
    }

    fn metrics(&self) -> Answer<'_, metrics::Snapshot> {
        Box::pin(async move {
            let pool = self.show_pool().await?;
            let state = self.state.lock().unwrap();
            let of = |volume: &Volume| VolumeMetrics {
                history_bytes: None,
                history_since_seconds: None,
                waits: metrics::WaitMetrics::default(),
                name: volume.name.clone(),
                size_bytes: volume.size_bytes,
                written_bytes: volume.written_bytes,
                connections: volume.connections,
                state: volume.state,
                operations: Vec::new(),
            };
            Ok(metrics::Snapshot {
                shards: Vec::new(),
                volumes: state.volumes.values().map(of).collect(),
                pool: Some(pool),
                meter: None,
            })
        })
    }
}
