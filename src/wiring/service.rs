//! The API's service over a pool that is being served.

mod class;
mod diff;
mod image;
mod mirror;
mod operation;
mod qos;
mod scrub;
mod target;
mod tenant;

use super::books::PoolBooks;
use super::metrics;
use blockd::Serving;
use blockd::catalogue::{
    Catalogue, CatalogueError, DEFAULT_TENANT, Entry, History, HistoryFigures, NewVolume, SnapshotEntry,
    SnapshotName as NameInCatalogue, Space, is_trial, trial,
};
use blockd::shard::{ShardStats, VolumeStats};
use control::{
    Answer, Books, Chap, Class, Compaction, ErrorCode, ExportName, Image, ImageSharing, KeepHistory, KnownToken,
    Mirror, MomentName, Name, NewToken, Operation, Page, Place, Pool, PoolState, Quota, RolledBack, Scrub, Service,
    ServiceError, SetAccess, SetClass, SetQos, SetTenantQos, Slots, Snapshot, SnapshotDiff, SnapshotName, Target,
    TargetLun, Tenant, Token, Trial, Volume, VolumeHistory, VolumeName, VolumeSize, VolumeState,
};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use tenant::kept_quota;
use units::{BLOCK_BYTES, VolumeId};
use volume::compact::CompactionFigures;
use volume::error::ErrorKind;
use volume::pool::PoolFigures;

/// A pool's volumes as the API sees them.
pub(super) struct PoolService {
    serving: Arc<Serving>,
    catalogue: Arc<Catalogue>,
    books: Arc<PoolBooks>,
    /// Where a volume is found, with `{name}` for its name.
    uris: Vec<String>,
}

impl PoolService {
    pub(super) fn new(serving: Arc<Serving>, uris: Vec<String>) -> Self {
        let books = Arc::new(PoolBooks::new(serving.catalogue()));
        Self { catalogue: serving.catalogue(), serving, books, uris }
    }

    /// What every thread of the engine counts, at about one moment.
    async fn counted(&self) -> Result<(Vec<ShardStats>, PoolFigures), ServiceError> {
        let stats = self.catalogue.stats().await.map_err(service_error)?;
        let figures = self.catalogue.figures().await.map_err(service_error)?;
        Ok((stats, figures))
    }

    async fn shown(&self, entry: Entry) -> Result<Volume, ServiceError> {
        let (stats, space) = self.counted_of(&entry).await?;
        Ok(self.show(entry, stats.as_ref(), &space))
    }

    /// What is counted of a volume; nothing of one that is not made.
    async fn counted_of(&self, entry: &Entry) -> Result<(Option<VolumeStats>, Space), ServiceError> {
        if entry.volume == VolumeId(0) {
            return Ok((None, Space::default()));
        }
        let stats = self.catalogue.volume_stats(entry.volume).await.map_err(service_error)?;
        Ok((stats, self.catalogue.space(&entry.name).await.map_err(service_error)?))
    }

    fn show(&self, entry: Entry, stats: Option<&VolumeStats>, space: &Space) -> Volume {
        let is_poisoned = stats.is_some_and(|stats| stats.status.is_poisoned);
        let history = self.show_history(&entry);
        let (state, state_reason) = match (entry.damage, is_poisoned) {
            (Some(reason), _) => (VolumeState::Quarantined, Some(reason)),
            (None, true) => (VolumeState::Poisoned, Some(POISONED.to_owned())),
            (None, false) => (VolumeState::Online, None),
        };
        let uris = if state == VolumeState::Quarantined { &[] } else { self.uris.as_slice() };
        Volume {
            tenant: tenant_of(&entry.name),
            id: entry.volume.0,
            size_bytes: entry.size_bytes,
            parent: self.catalogue.parent_of(entry.volume).map(|name| name.to_string()),
            snapshots: space.snapshots,
            written_bytes: Some(space.written_bytes),
            snapshot_bytes: space.snapshot_bytes,
            pool_bytes: Some(space.pool_bytes),
            history,
            class: self.catalogue.class_name(entry.class),
            qos: qos::shown(entry.qos, stats),
            state,
            state_reason,
            connections: stats.map_or(0, |stats| stats.connections),
            shard: u32::try_from(entry.shard).unwrap_or(u32::MAX),
            created_at: timestamp(entry.created_ms),
            nbd_uris: uris.iter().map(|uri| uri.replace("{name}", &entry.name)).collect(),
            name: entry.name,
        }
    }

    fn show_history(&self, entry: &Entry) -> Option<VolumeHistory> {
        let History { seconds, limit_bytes } = entry.history?;
        // It may have been deleted meanwhile.
        let HistoryFigures { since_ms, bytes } = self.catalogue.history_figures(&entry.name).unwrap_or_default();
        Some(VolumeHistory { seconds, limit_bytes, bytes, since: since_ms.map(timestamp) })
    }

    fn show_snapshot_entry(&self, entry: SnapshotEntry) -> Snapshot {
        let name = entry.name.to_string();
        let uris = if entry.damage.is_some() { &[] } else { self.uris.as_slice() };
        Snapshot {
            id: entry.id,
            tenant: tenant_of(&entry.name.volume),
            volume: entry.name.volume,
            size_bytes: entry.size_bytes,
            taken_at: timestamp(entry.taken_ms),
            group: entry.group,
            unique_bytes: None,
            clones: entry.clones,
            state_reason: entry.damage,
            nbd_uris: uris.iter().map(|uri| uri.replace("{name}", &name)).collect(),
            name,
        }
    }

    fn pool(&self, figures: &PoolFigures) -> Pool {
        let file = self.serving.pool();
        let superblock = file.superblock();
        let free = figures.slots_free.saturating_sub(figures.slots_reserved);
        let (state, state_reason) = match (self.serving.ended_thread(), free) {
            (Some(thread), _) => (PoolState::Failed, Some(format!("{thread} has ended by itself"))),
            (None, 0) => (PoolState::Full, Some("no slot is free for data: delete or trim some".to_owned())),
            (None, _) => (PoolState::Online, None),
        };
        Pool {
            path: file.path().display().to_string(),
            size_bytes: superblock.geometry.pool_bytes(),
            slot_bytes: superblock.geometry.slot_bytes,
            slots: Slots {
                total: figures.slots_total.into(),
                free: free.into(),
                reserved: figures.slots_free.min(figures.slots_reserved).into(),
                used: figures.slots_used.into(),
            },
            segments: figures.segments,
            compaction: compaction(&figures.compaction),
            volumes: self.catalogue.list().len() as u64,
            state,
            state_reason,
            index_generation: superblock.generation,
        }
    }
}

fn compaction(figures: &CompactionFigures) -> Compaction {
    Compaction {
        packs_written: figures.packs_written,
        segments_moved: figures.segments_moved,
        bytes_moved: figures.blocks_moved.saturating_mul(BLOCK_BYTES),
        rounds_given_up: figures.rounds_given_up,
        suspects: figures.suspects,
        last_error: figures.last_error.clone(),
    }
}

fn by_volume(stats: &[ShardStats]) -> BTreeMap<VolumeId, &VolumeStats> {
    stats.iter().flat_map(|shard| &shard.volumes).map(|(volume, stats)| (*volume, stats)).collect()
}

impl Service for PoolService {
    fn create_volume(
        &self,
        name: VolumeName,
        size: VolumeSize,
        history: KeepHistory,
        class: Option<Name>,
    ) -> Answer<'_, Volume> {
        Box::pin(async move {
            let history = (history != KeepHistory::default()).then(|| kept(None, history));
            let class = class.as_ref().map(Name::as_str);
            let new = NewVolume { size_bytes: size.bytes(), class, history };
            let entry = self.catalogue.create_with(name.as_str(), new).await;
            self.shown(entry.map_err(service_error)?).await
        })
    }

    fn list_volumes(&self, tenant: Option<Name>, page: Page) -> Answer<'_, Vec<Volume>> {
        Box::pin(async move {
            let all = self.catalogue.stats().await.map_err(service_error)?;
            let stats = by_volume(&all);
            let entries = self.catalogue.list().into_iter().filter(|entry| is_of(entry, tenant.as_ref()));
            let entries = page.of(entries, |entry| Place::named(&entry.name));
            let entries = self.catalogue.with_space(entries).await.map_err(service_error)?;
            let show = |(entry, space): (Entry, Space)| {
                let stats = stats.get(&entry.volume).copied();
                self.show(entry, stats, &space)
            };
            Ok(entries.into_iter().map(show).collect())
        })
    }

    fn show_volume(&self, name: VolumeName) -> Answer<'_, Volume> {
        Box::pin(async move { self.shown(self.catalogue.show(name.as_str()).map_err(service_error)?).await })
    }

    fn resize_volume(&self, name: VolumeName, size: VolumeSize, discard_tail: bool) -> Answer<'_, Volume> {
        Box::pin(async move {
            let resized = self.catalogue.resize(name.as_str(), size.bytes(), discard_tail).await;
            self.shown(resized.map_err(service_error)?).await
        })
    }

    fn delete_volume(&self, name: VolumeName, force: bool) -> Answer<'_, ()> {
        Box::pin(async move { self.catalogue.delete(name.as_str(), force).await.map_err(service_error) })
    }

    fn import_image(&self, name: VolumeName, size: VolumeSize, source: (String, String)) -> Answer<'_, Image> {
        Box::pin(async move {
            let entry = self.catalogue.import_image(name.as_str(), size.bytes(), source).await;
            self.shown_image(entry.map_err(service_error)?).await
        })
    }

    fn mark_image(&self, name: VolumeName, claim: Option<u64>, copied_bytes: u64) -> Answer<'_, Image> {
        Box::pin(async move {
            let entry = self.catalogue.mark_image(name.as_str(), claim, copied_bytes).await;
            self.shown_image(entry.map_err(service_error)?).await
        })
    }

    fn seal_image(&self, name: VolumeName, claim: Option<u64>) -> Answer<'_, Image> {
        Box::pin(async move {
            let entry = self.catalogue.seal_image(name.as_str(), claim).await;
            self.shown_image(entry.map_err(service_error)?).await
        })
    }

    fn list_images(&self, tenant: Option<Name>, page: Page) -> Answer<'_, Vec<Image>> {
        Box::pin(async move {
            let all = self.catalogue.stats().await.map_err(service_error)?;
            let stats = by_volume(&all);
            let entries = self.catalogue.list_images_for(tenant.as_ref().map(Name::as_str)).map_err(service_error)?;
            let entries = page.of(entries, |entry| Place::named(&entry.name));
            let entries = self.catalogue.with_space(entries).await.map_err(service_error)?;
            let show = |(entry, space): (Entry, Space)| {
                let stats = stats.get(&entry.volume).copied();
                self.image(entry, stats, &space)
            };
            Ok(entries.into_iter().map(show).collect())
        })
    }

    fn show_image(&self, name: VolumeName) -> Answer<'_, Image> {
        Box::pin(
            async move { self.shown_image(self.catalogue.show_image(name.as_str()).map_err(service_error)?).await },
        )
    }

    fn delete_image(&self, name: VolumeName, claim: Option<u64>, force: bool) -> Answer<'_, ()> {
        Box::pin(async move { self.catalogue.delete_image(name.as_str(), claim, force).await.map_err(service_error) })
    }

    fn share_image(&self, name: VolumeName, sharing: ImageSharing) -> Answer<'_, Image> {
        Box::pin(async move {
            let with = (!sharing.all).then_some(sharing.tenants.as_slice());
            let entry = self.catalogue.share_image(name.as_str(), with).await.map_err(service_error)?;
            self.shown_image(entry).await
        })
    }

    fn set_volume_class(&self, name: VolumeName, class: Name) -> Answer<'_, Volume> {
        Box::pin(async move {
            let entry = self.catalogue.set_volume_class(name.as_str(), class.as_str()).await;
            self.shown(entry.map_err(service_error)?).await
        })
    }

    fn list_mirrors(&self, tenant: Option<Name>, page: Page) -> Answer<'_, Vec<Mirror>> {
        Box::pin(self.mirrors(tenant, page))
    }

    fn show_mirror(&self, name: VolumeName) -> Answer<'_, Mirror> {
        Box::pin(self.mirror_of(name))
    }

    fn begin_mirror(&self, name: VolumeName, to: u8) -> Answer<'_, Mirror> {
        Box::pin(self.mirror_to(name, to))
    }

    fn end_mirror(&self, name: VolumeName) -> Answer<'_, ()> {
        Box::pin(self.unmirror(name))
    }

    fn move_volume(&self, name: VolumeName, to: u8) -> Answer<'_, Mirror> {
        Box::pin(self.move_to(name, to))
    }

    fn fail_over(&self, name: VolumeName) -> Answer<'_, Mirror> {
        Box::pin(self.force(name))
    }

    fn list_classes(&self) -> Answer<'_, Vec<Class>> {
        Box::pin(async move { Ok(self.catalogue.list_classes().into_iter().map(class::shown).collect()) })
    }

    fn show_class(&self, name: Name) -> Answer<'_, Class> {
        Box::pin(async move { class::answer(self.catalogue.show_class(name.as_str())) })
    }

    fn create_class(&self, name: Name, qos: SetQos, history: KeepHistory) -> Answer<'_, Class> {
        Box::pin(async move {
            let policy = class::policy(qos, history)?;
            class::answer(self.catalogue.create_class(name.as_str(), policy).await)
        })
    }

    fn set_class(&self, name: Name, wanted: SetClass) -> Answer<'_, Class> {
        Box::pin(async move {
            let known = self.catalogue.show_class(name.as_str()).map_err(service_error)?;
            let policy = class::changed(known.policy, wanted)?;
            class::answer(self.catalogue.set_class(name.as_str(), policy).await)
        })
    }

    fn delete_class(&self, name: Name) -> Answer<'_, ()> {
        Box::pin(async move { self.catalogue.delete_class(name.as_str()).await.map_err(service_error) })
    }

    fn list_targets(&self, tenant: Option<Name>, page: Page) -> Answer<'_, Vec<Target>> {
        Box::pin(async move { Ok(self.targets(tenant.as_ref(), &page)) })
    }

    fn show_target(&self, name: VolumeName) -> Answer<'_, Target> {
        Box::pin(async move { target::answer(self.catalogue.show_target(name.as_str())) })
    }

    fn create_target(&self, name: VolumeName) -> Answer<'_, Target> {
        Box::pin(async move { target::answer(self.catalogue.create_target(name.as_str()).await) })
    }

    fn delete_target(&self, name: VolumeName, force: bool) -> Answer<'_, ()> {
        Box::pin(async move { self.catalogue.delete_target(name.as_str(), force).await.map_err(service_error) })
    }

    fn map_lun(&self, target: VolumeName, volume: VolumeName, lun: Option<u16>) -> Answer<'_, TargetLun> {
        Box::pin(async move { self.show_volume_as((&target, &volume), lun).await })
    }

    fn unmap_lun(&self, target: VolumeName, lun: u16) -> Answer<'_, Target> {
        Box::pin(async move { target::answer(self.catalogue.unmap_lun(target.as_str(), lun).await) })
    }

    fn allow_initiator(&self, target: VolumeName, initiator: String, chap: Option<Chap>) -> Answer<'_, Target> {
        Box::pin(async move { self.let_in(&target, &initiator, chap).await })
    }

    fn deny_initiator(&self, target: VolumeName, initiator: String) -> Answer<'_, Target> {
        Box::pin(async move { target::answer(self.catalogue.deny_initiator(target.as_str(), &initiator).await) })
    }

    fn books(&self) -> Arc<dyn Books> {
        Arc::clone(&self.books) as Arc<dyn Books>
    }

    fn clone_image(
        &self,
        images: Vec<VolumeName>,
        name: VolumeName,
        size: Option<VolumeSize>,
        class: Option<Name>,
    ) -> Answer<'_, Volume> {
        Box::pin(async move {
            let size_bytes = size.map(VolumeSize::bytes);
            let images: Vec<&str> = images.iter().map(VolumeName::as_str).collect();
            let entry =
                self.catalogue.clone_image(&images, name.as_str(), size_bytes, class.as_ref().map(Name::as_str)).await;
            self.shown(entry.map_err(service_error)?).await
        })
    }

    fn create_snapshots(&self, names: Vec<SnapshotName>, group: Option<Name>) -> Answer<'_, Vec<Snapshot>> {
        Box::pin(async move {
            let names: Vec<NameInCatalogue> = names.iter().map(name_in_catalogue).collect();
            let group = group.as_ref().map(Name::as_str);
            let taken = self.catalogue.create_snapshots(&names, group).await.map_err(service_error)?;
            Ok(taken.into_iter().map(|entry| self.show_snapshot_entry(entry)).collect())
        })
    }

    fn list_snapshots(
        &self,
        (volume, tenant): (Option<VolumeName>, Option<Name>),
        with_space: bool,
        page: Page,
    ) -> Answer<'_, Vec<Snapshot>> {
        Box::pin(async move {
            let volume = volume.as_ref().map(VolumeName::as_str);
            let mut entries = self.catalogue.list_snapshots(volume).map_err(service_error)?;
            entries.retain(|entry| tenant.as_ref().is_none_or(|name| name.as_str() == tenant_of(&entry.name.volume)));
            let place = |entry: &SnapshotEntry| Place { name: entry.name.volume.clone(), number: entry.id };
            let entries = page.of(entries, place);
            let names: Vec<NameInCatalogue> = entries.iter().map(|entry| entry.name.clone()).collect();
            let mut snapshots: Vec<Snapshot> =
                entries.into_iter().map(|entry| self.show_snapshot_entry(entry)).collect();
            if with_space {
                let unique = self.catalogue.unique(&names).await.map_err(service_error)?;
                for (snapshot, unique) in snapshots.iter_mut().zip(unique) {
                    snapshot.unique_bytes = Some(unique);
                }
            }
            Ok(snapshots)
        })
    }

    fn show_snapshot(&self, name: SnapshotName) -> Answer<'_, Snapshot> {
        Box::pin(async move {
            let name = name_in_catalogue(&name);
            let entry = self.catalogue.show_snapshot(&name).map_err(service_error)?;
            let unique = self.catalogue.unique(&[name]).await.map_err(service_error)?;
            Ok(Snapshot { unique_bytes: unique.first().copied(), ..self.show_snapshot_entry(entry) })
        })
    }

    fn delete_snapshot(&self, name: SnapshotName) -> Answer<'_, ()> {
        Box::pin(async move { self.catalogue.delete_snapshot(&name_in_catalogue(&name)).await.map_err(service_error) })
    }

    fn diff_snapshot(&self, since: SnapshotName, to: ExportName, from: u64) -> Answer<'_, SnapshotDiff> {
        Box::pin(self.diff(since, to, from))
    }

    fn reclaim_snapshots(&self, names: Vec<SnapshotName>) -> Answer<'_, u64> {
        Box::pin(async move {
            let names: Vec<NameInCatalogue> = names.iter().map(name_in_catalogue).collect();
            self.catalogue.reclaim(&names).await.map_err(service_error)
        })
    }

    fn clone_snapshot(&self, snapshot: SnapshotName, name: VolumeName) -> Answer<'_, Volume> {
        Box::pin(async move {
            let snapshot = name_in_catalogue(&snapshot);
            let entry = self.catalogue.clone_snapshot(&snapshot, name.as_str()).await.map_err(service_error)?;
            self.shown(entry).await
        })
    }

    fn clone_moment(&self, moment: MomentName, name: VolumeName) -> Answer<'_, Volume> {
        Box::pin(async move {
            let (volume, at_ms) = (moment.volume().as_str(), moment.at().milliseconds());
            let entry = self.catalogue.clone_moment(volume, at_ms, name.as_str()).await.map_err(service_error)?;
            self.shown(entry).await
        })
    }

    fn keep_history(&self, name: VolumeName, wanted: KeepHistory) -> Answer<'_, Volume> {
        Box::pin(async move {
            let entry = self.catalogue.show(name.as_str()).map_err(service_error)?;
            let history = kept(entry.history, wanted);
            if history.is_none() && wanted.seconds.is_none() {
                let detail = "the volume has no history: say for how long it is to be kept";
                return Err(ServiceError::new(ErrorCode::InvalidRequest, detail));
            }
            let entry = self.catalogue.keep_history(name.as_str(), history).await.map_err(service_error)?;
            self.shown(entry).await
        })
    }

    fn set_qos(&self, name: VolumeName, wanted: SetQos) -> Answer<'_, Volume> {
        Box::pin(async move {
            let entry = self.catalogue.show(name.as_str()).map_err(service_error)?;
            let limits = qos::limits(entry.qos.unwrap_or_default(), wanted)?;
            let entry = self.catalogue.set_qos(name.as_str(), limits).await.map_err(service_error)?;
            self.shown(entry).await
        })
    }

    fn rollback_volume(&self, snapshot: SnapshotName, force: bool) -> Answer<'_, RolledBack> {
        Box::pin(async move {
            let undo = format!("before-rollback-{}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
            let rolled = self.catalogue.rollback(&name_in_catalogue(&snapshot), &undo, force).await;
            let (entry, undo) = rolled.map_err(service_error)?;
            Ok(RolledBack { volume: self.shown(entry).await?, undo: self.show_snapshot_entry(undo) })
        })
    }

    fn in_trial<'a>(&'a self, change: Trial<'a>) -> Trial<'a> {
        Box::pin(trial(change))
    }

    fn list_tenants(&self) -> Answer<'_, Vec<Tenant>> {
        Box::pin(self.tenants())
    }

    fn show_tenant(&self, name: Name) -> Answer<'_, Tenant> {
        Box::pin(async move { self.tenant_answer(self.catalogue.show_tenant(name.as_str())).await })
    }

    fn create_tenant(&self, name: Name, quota: Quota) -> Answer<'_, Tenant> {
        Box::pin(async move {
            self.tenant_answer(self.catalogue.create_tenant(name.as_str(), kept_quota(quota)).await).await
        })
    }

    fn set_quota(&self, name: Name, quota: Quota) -> Answer<'_, Tenant> {
        Box::pin(
            async move { self.tenant_answer(self.catalogue.set_quota(name.as_str(), kept_quota(quota)).await).await },
        )
    }

    fn set_tenant_qos(&self, name: Name, wanted: SetTenantQos) -> Answer<'_, Tenant> {
        Box::pin(async move { self.hold_tenant(&name, wanted).await })
    }

    fn set_access(&self, name: Name, wanted: SetAccess) -> Answer<'_, Tenant> {
        Box::pin(async move { self.admit(&name, wanted).await })
    }

    fn suspend_tenant(&self, name: Name) -> Answer<'_, Tenant> {
        Box::pin(async move { self.tenant_answer(self.catalogue.suspend_tenant(name.as_str()).await).await })
    }

    fn resume_tenant(&self, name: Name) -> Answer<'_, Tenant> {
        Box::pin(async move { self.tenant_answer(self.catalogue.resume_tenant(name.as_str()).await).await })
    }

    fn delete_tenant(&self, name: Name) -> Answer<'_, ()> {
        Box::pin(async move { self.catalogue.delete_tenant(name.as_str()).await.map_err(service_error) })
    }

    fn list_tokens(&self, tenant: Option<Name>) -> Answer<'_, Vec<Token>> {
        Box::pin(async move { Ok(self.tokens(tenant.as_ref())) })
    }

    fn create_token(&self, token: NewToken) -> Answer<'_, Token> {
        Box::pin(self.make_token(token))
    }

    fn revoke_token(&self, id: u64, tenant: Option<Name>) -> Answer<'_, ()> {
        Box::pin(self.take_token(id, tenant))
    }

    fn find_token(&self, id: u64) -> Option<KnownToken> {
        self.known_token(id)
    }

    fn note_token_used(&self, id: u64) {
        self.catalogue.note_token_used(id);
    }

    fn list_operations(&self) -> Answer<'_, Vec<Operation>> {
        Box::pin(self.operations())
    }

    fn cancel_operation(&self, operation: Operation) -> Answer<'_, Operation> {
        Box::pin(self.cancel(operation))
    }

    fn show_pool(&self) -> Answer<'_, Pool> {
        Box::pin(async move { Ok(self.pool(&self.catalogue.figures().await.map_err(service_error)?)) })
    }

    fn begin_scrub(&self, is_paced: bool) -> Answer<'_, Scrub> {
        Box::pin(async move {
            let scrub = self.serving.scrub();
            let report = if is_trial() { scrub.would_begin(is_paced) } else { scrub.begin(is_paced) };
            Ok(self.scrub(report))
        })
    }

    fn show_scrub(&self) -> Answer<'_, Scrub> {
        Box::pin(async move { Ok(self.scrub(self.serving.scrub().report())) })
    }

    fn check_ready(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            if self.catalogue.is_stopping() {
                return Err(service_error(CatalogueError::Stopping));
            }
            self.counted().await.map(drop)
        })
    }

    fn metrics(&self) -> Answer<'_, control::metrics::Snapshot> {
        Box::pin(async move {
            let (all, figures) = self.counted().await?;
            let stats = by_volume(&all);
            // An image takes space and serves reads like any volume.
            let entries = self.catalogue.list().into_iter().chain(self.catalogue.list_images());
            let entries = self.catalogue.with_space(entries.collect()).await.map_err(service_error)?;
            let of_volume = |(entry, space): (Entry, Space)| {
                let stats = stats.get(&entry.volume).copied();
                metrics::of_volume(self.show(entry, stats, &space), stats)
            };
            let volumes = entries.into_iter().map(of_volume).collect();
            Ok(control::metrics::Snapshot {
                shards: (0..).zip(&all).map(|(number, stats)| metrics::of_shard(number, stats)).collect(),
                volumes,
                pool: Some(self.pool(&figures)),
                meter: Some(metrics::of_meter(self.catalogue.meter_figures())),
            })
        })
    }
}

/// Why a poisoned volume takes no writes, and what to do.
const POISONED: &str = "the disk failed to make writes durable: look at the disk, then restart the daemon";

/// For how long history is to be kept that is kept as `known` says.
fn kept(known: Option<History>, wanted: KeepHistory) -> Option<History> {
    let seconds = wanted.seconds.or_else(|| known.map(|known| known.seconds)).filter(|seconds| *seconds > 0)?;
    let limit_bytes = wanted.limit_bytes.or_else(|| known.and_then(|known| known.limit_bytes));
    Some(History { seconds, limit_bytes: limit_bytes.filter(|limit| *limit > 0) })
}

fn name_in_catalogue(name: &SnapshotName) -> NameInCatalogue {
    NameInCatalogue { volume: name.volume().to_string(), snapshot: name.name().to_string() }
}

fn tenant_of(name: &str) -> String {
    name.split_once('/').map_or(DEFAULT_TENANT, |(tenant, _)| tenant).to_owned()
}

fn is_of(entry: &Entry, tenant: Option<&Name>) -> bool {
    tenant.is_none_or(|name| name.as_str() == tenant_of(&entry.name))
}

fn timestamp(ms: u64) -> Timestamp {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

/// A failure in the API's words.
#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err's argument")]
pub(super) fn service_error(error: CatalogueError) -> ServiceError {
    let text = error.to_string();
    let (code, advice) = match &error {
        CatalogueError::NotSigned => (ErrorCode::NotSigned, "ask again when the day has ended, or sign now"),
        CatalogueError::Exists { .. } => (ErrorCode::VolumeExists, "choose another name"),
        CatalogueError::NotFound { name } => return ServiceError::no_volume(name),
        CatalogueError::NoImage { name } => return ServiceError::no_image(name),
        CatalogueError::Importing { .. } => {
            (ErrorCode::ImageImporting, "finish its import by the command that began it, or delete it")
        }
        CatalogueError::Superseded { .. } => (ErrorCode::ImportSuperseded, "leave the image to that one"),
        CatalogueError::InUse { .. } => {
            (ErrorCode::VolumeInUse, "detach its clients, or delete it by force, which cuts them off")
        }
        CatalogueError::Quarantined { .. } => {
            (ErrorCode::VolumeQuarantined, "check the pool while the daemon is stopped")
        }
        CatalogueError::ShrinkRefused { .. } => {
            (ErrorCode::ShrinkRefused, "trim it first, or have the tail discarded, which throws it away")
        }
        CatalogueError::SnapshotExists { .. } => (ErrorCode::SnapshotExists, "choose another name"),
        CatalogueError::SnapshotNotFound { .. } => {
            (ErrorCode::SnapshotNotFound, "list the volume's snapshots to see which there are")
        }
        CatalogueError::NoHistory { since_ms: Some(since_ms), .. } => {
            let detail = format!("{text}: it goes back to {}", timestamp(*since_ms));
            return ServiceError::new(ErrorCode::HistoryNotFound, detail);
        }
        CatalogueError::NoHistory { since_ms: None, .. } => {
            (ErrorCode::HistoryNotFound, "there is none of it, or none yet")
        }
        CatalogueError::SnapshotInUse { .. } => (ErrorCode::SnapshotInUse, "detach its clients"),
        CatalogueError::HasClones { .. } => (ErrorCode::SnapshotInUse, "delete them first, or keep it"),
        CatalogueError::Unrelated { .. } => {
            (ErrorCode::SnapshotsUnrelated, "compare an earlier one with a later one, or read all of it")
        }
        CatalogueError::NoTenant { name } => return ServiceError::no_tenant(name),
        CatalogueError::NoClass { .. } => (ErrorCode::ClassNotFound, "list the classes to see which there are"),
        CatalogueError::ClassExists { .. } => (ErrorCode::ClassExists, "choose another name"),
        CatalogueError::ClassInUse { .. } => (ErrorCode::ClassInUse, "give them another class, or delete them first"),
        CatalogueError::NoTarget { name } => return ServiceError::no_target(name),
        CatalogueError::TargetExists { .. } => (ErrorCode::TargetExists, "choose another name"),
        CatalogueError::TargetInUse { .. } => {
            (ErrorCode::TargetInUse, "log its initiators out, or delete it by force, which ends them")
        }
        CatalogueError::LunInUse { .. } => (ErrorCode::LunInUse, "unmap it first, or choose another one"),
        CatalogueError::NoLun { .. } => (ErrorCode::LunNotFound, "show the target to see which there are"),
        CatalogueError::NoInitiator { .. } => (ErrorCode::InitiatorNotFound, "show the target to see who may enter it"),
        CatalogueError::NoToken { id } => return ServiceError::no_token(&id.to_string()),
        CatalogueError::TenantExists { .. } => (ErrorCode::TenantExists, "choose another name"),
        CatalogueError::TenantInUse { .. } => (ErrorCode::TenantInUse, "delete them first"),
        CatalogueError::Suspended { .. } => (ErrorCode::TenantSuspended, "have the provider resume it"),
        CatalogueError::QuotaExceeded { .. } => {
            (ErrorCode::QuotaExceeded, "delete something, or have the provider raise the quota")
        }
        CatalogueError::Unsure => (ErrorCode::MayBeNeeded, "see the log of the start, and check the pool"),
        CatalogueError::Request(_) => (ErrorCode::InvalidRequest, "mend the request"),
        CatalogueError::NotMirrored { name } => return ServiceError::not_mirrored(name),
        CatalogueError::Mirror(reason) => return ServiceError::new(ErrorCode::MirrorRefused, reason.as_str()),
        CatalogueError::Stopping => (ErrorCode::ShuttingDown, "try again when it has started anew"),
        CatalogueError::ReadingsGone => {
            (ErrorCode::ReadingsGone, "ask for the invoice that was issued, or for the bundle with books=account")
        }
        CatalogueError::ManyChanges { .. } => {
            (ErrorCode::Unavailable, "try again in five minutes, and see the log for why readings are not taken")
        }
        CatalogueError::Ended(_) => (ErrorCode::Unavailable, "see the log"),
        CatalogueError::Damaged(_) => (ErrorCode::Internal, "see the log"),
        CatalogueError::Volume(error) => (code_of(error.kind), advice_of(error.kind)),
    };
    ServiceError::new(code, format!("{text}: {advice}"))
}

const fn code_of(kind: ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::InvalidRequest => ErrorCode::InvalidRequest,
        ErrorKind::NoSpace => ErrorCode::NoSpace,
        ErrorKind::Fenced | ErrorKind::Closing | ErrorKind::Unavailable | ErrorKind::Poisoned => ErrorCode::Unavailable,
        ErrorKind::Corrupt => ErrorCode::Internal,
    }
}

const fn advice_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidRequest => "mend the request",
        ErrorKind::NoSpace => "delete or trim volumes, or make the pool larger",
        ErrorKind::Fenced | ErrorKind::Closing | ErrorKind::Unavailable => "try again",
        ErrorKind::Corrupt => "check the pool while the daemon is stopped",
        ErrorKind::Poisoned => "look at the disk, then restart the daemon",
    }
}
