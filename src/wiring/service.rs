//! The API's service over a pool that is being served.

use super::metrics;
use blockd::Serving;
use blockd::catalogue::{Catalogue, CatalogueError, Entry};
use blockd::shard::{ShardStats, VolumeStats};
use control::metrics::Snapshot;
use control::{
    Answer, Compaction, ErrorCode, Pool, PoolState, Service, ServiceError, Slots, Volume, VolumeName, VolumeSize,
    VolumeState,
};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use units::{BLOCK_BYTES, VolumeId};
use volume::compact::CompactionFigures;
use volume::error::ErrorKind;
use volume::pool::PoolFigures;

/// A pool's volumes as the API sees them.
pub(super) struct PoolService {
    serving: Arc<Serving>,
    catalogue: Arc<Catalogue>,
    /// Where a volume is found, with `{name}` for its name.
    uris: Vec<String>,
}

/// What is known of all volumes at about one moment.
struct Moment {
    stats: Vec<ShardStats>,
    figures: PoolFigures,
}

impl PoolService {
    pub(super) fn new(serving: Arc<Serving>, uris: Vec<String>) -> Self {
        Self { catalogue: serving.catalogue(), serving, uris }
    }

    async fn moment(&self) -> Result<Moment, ServiceError> {
        let stats = self.catalogue.stats().await.map_err(service_error)?;
        let figures = self.catalogue.figures().await.map_err(service_error)?;
        Ok(Moment { stats, figures })
    }

    async fn shown(&self, entry: Entry) -> Result<Volume, ServiceError> {
        let moment = self.moment().await?;
        Ok(self.show(entry, &moment, &moment.by_volume()))
    }

    fn show(&self, entry: Entry, moment: &Moment, stats: &BTreeMap<VolumeId, &VolumeStats>) -> Volume {
        let stats = stats.get(&entry.volume);
        let is_poisoned = stats.is_some_and(|stats| stats.status.is_poisoned);
        let (state, state_reason) = match (entry.damage, is_poisoned) {
            (Some(reason), _) => (VolumeState::Quarantined, Some(reason)),
            (None, true) => (VolumeState::Poisoned, Some(POISONED.to_owned())),
            (None, false) => (VolumeState::Online, None),
        };
        let uris = if state == VolumeState::Quarantined { &[] } else { self.uris.as_slice() };
        Volume {
            id: entry.volume.0,
            size_bytes: entry.size_bytes,
            written_bytes: moment.figures.live_blocks.get(&entry.volume).map(|blocks| blocks * BLOCK_BYTES),
            state,
            state_reason,
            connections: stats.map_or(0, |stats| stats.connections),
            shard: u32::try_from(entry.shard).unwrap_or(u32::MAX),
            created_at: timestamp(entry.created_ms),
            nbd_uris: uris.iter().map(|uri| uri.replace("{name}", &entry.name)).collect(),
            name: entry.name,
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

impl Moment {
    fn by_volume(&self) -> BTreeMap<VolumeId, &VolumeStats> {
        self.stats.iter().flat_map(|shard| &shard.volumes).map(|(volume, stats)| (*volume, stats)).collect()
    }
}

impl Service for PoolService {
    fn create_volume(&self, name: VolumeName, size: VolumeSize) -> Answer<'_, Volume> {
        Box::pin(async move {
            let entry = self.catalogue.create(name.as_str(), size.bytes()).await.map_err(service_error)?;
            self.shown(entry).await
        })
    }

    fn list_volumes(&self) -> Answer<'_, Vec<Volume>> {
        Box::pin(async move {
            let moment = self.moment().await?;
            let stats = moment.by_volume();
            Ok(self.catalogue.list().into_iter().map(|entry| self.show(entry, &moment, &stats)).collect())
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

    fn show_pool(&self) -> Answer<'_, Pool> {
        Box::pin(async move { Ok(self.pool(&self.catalogue.figures().await.map_err(service_error)?)) })
    }

    fn check_ready(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            if self.catalogue.is_stopping() {
                return Err(service_error(CatalogueError::Stopping));
            }
            self.moment().await.map(drop)
        })
    }

    fn metrics(&self) -> Answer<'_, Snapshot> {
        Box::pin(async move {
            let moment = self.moment().await?;
            let stats = moment.by_volume();
            let volumes = self.catalogue.list().into_iter().map(|entry| {
                let operations = stats.get(&entry.volume).map(|stats| metrics::volume_operations(stats));
                metrics::of_volume(self.show(entry, &moment, &stats), operations.unwrap_or_default())
            });
            Ok(Snapshot {
                shards: (0..).zip(&moment.stats).map(|(number, stats)| metrics::of_shard(number, stats)).collect(),
                volumes: volumes.collect(),
                pool: Some(self.pool(&moment.figures)),
            })
        })
    }
}

/// Why a poisoned volume takes no writes, and what to do.
const POISONED: &str = "the disk failed to make writes durable: look at the disk, then restart the daemon";

fn timestamp(ms: u64) -> Timestamp {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

/// A failure in the API's words.
#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err's argument")]
fn service_error(error: CatalogueError) -> ServiceError {
    let text = error.to_string();
    let (code, advice) = match &error {
        CatalogueError::Exists { .. } => (ErrorCode::VolumeExists, "choose another name"),
        CatalogueError::NotFound { .. } => (ErrorCode::VolumeNotFound, "list the volumes to see which there are"),
        CatalogueError::InUse { .. } => {
            (ErrorCode::VolumeInUse, "detach its clients, or delete it by force, which cuts them off")
        }
        CatalogueError::Quarantined { .. } => {
            (ErrorCode::VolumeQuarantined, "check the pool while the daemon is stopped")
        }
        CatalogueError::ShrinkRefused { .. } => {
            (ErrorCode::ShrinkRefused, "trim it first, or have the tail discarded, which throws it away")
        }
        CatalogueError::Stopping => (ErrorCode::ShuttingDown, "try again when it has started anew"),
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
