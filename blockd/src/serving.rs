//! A pool being served: its shards, its store and its catalogue, started and stopped in order.

use crate::catalogue::{Beginning, Catalogue, MeterConfig};
use crate::limits::Limits;
use crate::metering::MeterTimes;
use crate::mirror::{Hosted, MirrorConfig, MirrorHost};
use crate::open::{OpenError, OpenPool, PoolFile, Space};
use crate::qos::decode;
use crate::scrub::{ScrubHandle, ScrubThread};
use crate::shard::{Message, ShardConfig, ShardThread};
use crate::store::{StoreHandle, StoreThread};
use crate::throttle::Throttle;
use crate::unit::{KeepReservations, Registrar};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedReceiver;
use volume::engine::VolumeConfig;

/// How a pool is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingConfig {
    /// Number of shards; at least 1.
    pub shard_count: usize,
    /// Whether to go past the page cache.
    pub is_direct: bool,
    /// Bytes that the cached map pages of all volumes may take.
    pub map_cache_bytes: usize,
    /// Bytes of the pool that a scrub reads a second.
    pub scrub_bytes_per_second: u64,
    /// Limits of each shard.
    pub limits: Limits,
    /// How readings of the meter are taken.
    pub meter: MeterConfig,
    /// What this site is in a mirror, when it is in one.
    pub mirror: Option<MirrorConfig>,
}

/// Appends of a volume under way at once: those that the ring writes keep the device busy.
const APPENDS_IN_FLIGHT_MAX: usize = 4;

/// Most map pages of one write-back: at most 5 MiB.
const WRITE_BACK_PAGES_MAX: usize = 256;

/// Sealed segments of a volume that a restart may have to replay.
const UNFOLDED_SEGMENTS_MAX: usize = 32;

/// The same in a pool of `slots`: a small one must checkpoint before it is full of segments that cannot be compacted before
/// they are in the stored map.
fn unfolded_segments_max(slots: u32) -> usize {
    usize::try_from(slots / 32).unwrap_or(UNFOLDED_SEGMENTS_MAX).clamp(2, UNFOLDED_SEGMENTS_MAX)
}

/// How volumes of a pool work.
fn volume_config(pool: &PoolFile, config: &ServingConfig) -> VolumeConfig {
    VolumeConfig {
        pool: pool.superblock().pool,
        geometry: pool.superblock().geometry,
        appends_in_flight_max: APPENDS_IN_FLIGHT_MAX,
        map_limit_bytes: config.map_cache_bytes,
        unfolded_segments_max: unfolded_segments_max(pool.superblock().geometry.slot_count),
        write_back_pages_max: WRITE_BACK_PAGES_MAX,
        shared_piece_blocks_min: 16,
        is_metered: true,
    }
}

/// Starts what reaches the other site, when there is one; and what that wants copies of.
fn start_mirror(
    config: &ServingConfig,
    at: (&Arc<PoolFile>, StoreHandle),
    volumes: VolumeConfig,
) -> Result<Option<Hosted>, OpenError> {
    let mirror = config.mirror.clone();
    mirror.map(|mirror| MirrorHost::start(mirror, (Arc::clone(at.0), at.1), volumes)).transpose()
}

/// A pool being served.
#[derive(Debug)]
pub struct Serving {
    pool: Arc<PoolFile>,
    catalogue: Arc<Catalogue>,
    scrub: ScrubHandle,
    mirror: Option<Arc<MirrorHost>>,
    threads: Mutex<Option<Threads>>,
}

/// The threads behind a pool.
#[derive(Debug)]
struct Threads {
    shards: Vec<ShardThread>,
    /// Started last, when the volumes are served.
    scrub: Option<ScrubThread>,
    store: StoreThread,
}

impl Serving {
    /// Starts threads, recovers every volume and serves those that are whole.
    ///
    /// # Errors
    /// [`OpenError`]; what was started is stopped again.
    pub async fn start(pool: OpenPool, config: ServingConfig) -> Result<Self, OpenError> {
        let OpenPool { file, mut index } = pool;
        if let Some(mirror) = &config.mirror {
            index.set_site(mirror.site.0);
        }
        let known: BTreeMap<_, _> = index.volumes().into_iter().map(|id| (id, index.known(id, 0))).collect();
        let erasing = known.keys().copied().filter(|volume| index.is_being_erased(*volume)).collect();
        let scrub_note = index.scrub_note().map_err(OpenError::Disk)?;
        let credits = index.credits_note().map_err(OpenError::Disk)?;
        // In words that are not known here nothing is known: every bucket is full.
        let credits = credits.and_then(|note| decode(&note)).unwrap_or_default();
        let pool = Arc::new(file);
        let space = Arc::new(Space::of(&pool)?);
        let throttle = Arc::new(Throttle::default());
        let store = StoreThread::start(index, space, Arc::clone(&pool), (config.is_direct, Arc::clone(&throttle)));
        let store = store.map_err(OpenError::system("start the store's thread of", pool.path()))?;
        let times = MeterTimes::default();
        let (registrar, to_keep) = Registrar::new();
        let volume_config = volume_config(&pool, &config);
        let mirror = match start_mirror(&config, (&pool, store.handle()), volume_config) {
            Ok(mirror) => mirror,
            Err(error) => {
                let stopped = tokio::task::spawn_blocking(move || store.stop()).await;
                tracing::debug!(?stopped, "stopped what was started");
                return Err(error);
            }
        };
        let host = mirror.as_ref().map(|(host, _)| Arc::clone(host));
        let mut threads = Threads::start((store, throttle), (&pool, &times, &registrar), &config).await?;
        let beginning = Beginning {
            shards: threads.shards.iter().map(ShardThread::handle).collect(),
            store: threads.store.handle(),
            config: volume_config,
            known,
            erasing,
            credits,
            meter: (times, config.meter),
            pool: Arc::clone(&pool),
            mirror,
        };
        let started = match Catalogue::load(beginning).await {
            Ok(catalogue) => {
                let pace = (config.scrub_bytes_per_second, scrub_note);
                let scrub = ScrubThread::start(Arc::clone(&pool), threads.store.handle(), pace);
                scrub.map(|scrub| (catalogue, scrub)).map_err(OpenError::system("start the scrub of", pool.path()))
            }
            Err(error) => Err(error),
        };
        match started {
            Ok((catalogue, scrub)) => {
                tokio::spawn(keep_reservations(Arc::downgrade(&catalogue), to_keep));
                let handle = scrub.handle();
                threads.scrub = Some(scrub);
                Ok(Self { pool, catalogue, scrub: handle, mirror: host, threads: Mutex::new(Some(threads)) })
            }
            Err(error) => {
                if let Err(error) = threads.stop().await {
                    tracing::error!(%error, "not stopped in order");
                }
                Err(error)
            }
        }
    }

    /// The pool's file.
    #[must_use]
    pub fn pool(&self) -> &PoolFile {
        &self.pool
    }

    /// Its volumes.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue)
    }

    /// Its scrub.
    #[must_use]
    pub const fn scrub(&self) -> &ScrubHandle {
        &self.scrub
    }

    /// Which thread has ended by itself, if one has: nothing is served rightly any more.
    #[must_use]
    pub fn ended_thread(&self) -> Option<String> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = threads.as_ref()?;
        if let Some(thread) = threads.store.ended_thread() {
            return Some(thread.to_owned());
        }
        if threads.scrub.as_ref().is_some_and(ScrubThread::is_ended) {
            return Some("the scrub's thread".to_owned());
        }
        threads.shards.iter().position(ShardThread::is_ended).map(|number| format!("shard {number}"))
    }

    /// Answers what is under way, checkpoints every volume and ends every thread. Does nothing the second time.
    ///
    /// # Errors
    /// Why a thread did not end well; the others did what they could.
    pub async fn stop(&self) -> io::Result<()> {
        self.catalogue.stop();
        self.catalogue.settle().await;
        self.catalogue.hand_over().await;
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        match threads {
            Some(threads) => {
                threads.stop().await?;
                if let Some(mirror) = &self.mirror {
                    mirror.close().await;
                }
                self.pool.unlock()
            }
            None => Ok(()),
        }
    }
}

impl Threads {
    async fn start(
        (store, throttle): (StoreThread, Arc<Throttle>),
        (pool, times, registrar): (&PoolFile, &MeterTimes, &Registrar),
        config: &ServingConfig,
    ) -> Result<Self, OpenError> {
        let cores = uring::cpu::allowed().unwrap_or_default();
        let origin = Instant::now();
        let mut threads = Self { shards: Vec::new(), scrub: None, store };
        for number in 0..config.shard_count.max(1) {
            let started = ShardThread::start(ShardConfig {
                name: format!("shard-{number}"),
                pool: pool.path().to_owned(),
                is_direct: config.is_direct,
                // More shards than cores may use stay where the scheduler puts them.
                core: cores.get(number).copied().filter(|_| config.shard_count <= cores.len()),
                origin,
                limits: config.limits,
                map_cache_bytes: config.map_cache_bytes / config.shard_count.max(1),
                store: threads.store.handle().port(number),
                throttle: Arc::clone(&throttle),
                meter_times: times.clone(),
                registrar: registrar.clone(),
            });
            match started {
                Ok(shard) => threads.shards.push(shard),
                Err(error) => {
                    threads.stop().await.map_err(OpenError::system("stop serving", pool.path()))?;
                    return Err(error.into());
                }
            }
        }
        let handles = threads.shards.iter().map(ShardThread::handle).collect();
        // Had it ended, the first question would tell.
        let _ = threads.store.handle().attach(handles);
        Ok(threads)
    }

    /// The scrub first, which asks the store; then the shards: their last checkpoints need the store.
    async fn stop(self) -> io::Result<()> {
        let stopped = tokio::task::spawn_blocking(move || {
            let scrub = self.scrub.map_or(Ok(()), ScrubThread::stop);
            for shard in &self.shards {
                // One that has ended is told of by joining it.
                let _ = shard.handle().send(Message::Stop);
            }
            let shards: Vec<_> = self.shards.into_iter().map(ShardThread::join).collect();
            let store = self.store.stop();
            [scrub].into_iter().chain(shards).chain([store]).collect::<io::Result<()>>()
        });
        stopped.await.map_err(io::Error::other)?
    }
}

/// Makes what initiators reserve durable, one change after the other.
async fn keep_reservations(catalogue: Weak<Catalogue>, mut to_keep: UnboundedReceiver<KeepReservations>) {
    while let Some(KeepReservations { volume, kept, done }) = to_keep.recv().await {
        let Some(catalogue) = catalogue.upgrade() else { return };
        let result = catalogue.keep_reservations(volume, kept).await;
        if let Err(error) = &result {
            tracing::warn!(%volume, %error, "reservations cannot be kept");
        }
        done(result.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{PoolConfig, PoolShape};
    use std::path::Path;
    use std::time::Duration;

    #[test]
    fn a_small_pool_checkpoints_before_it_is_full() {
        assert_eq!([1, 8, 24, 64, 256, 4000].map(unfolded_segments_max), [2, 2, 2, 2, 8, 32]);
    }

    async fn start(folder: &Path) -> Serving {
        let pool = PoolConfig {
            pool: folder.join("pool"),
            index: folder.join("index"),
            shape: PoolShape { pool_bytes: Some(64 << 20), slot_bytes: 1 << 20 },
            is_written_whole: false,
        };
        let how = ServingConfig {
            shard_count: 1,
            is_direct: false,
            map_cache_bytes: 16 << 20,
            scrub_bytes_per_second: 1 << 30,
            limits: Limits::default(),
            meter: MeterConfig::default(),
            mirror: None,
        };
        Serving::start(OpenPool::open_or_make(&pool).unwrap(), how).await.unwrap()
    }

    /// P6. A pool that nobody scrubs any more says so.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_scrub_that_has_ended_is_told_of() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ended = start(one.path()).await;
        let store = ended.threads.lock().unwrap().as_ref().unwrap().store.handle();
        ended.stop().await.unwrap();
        let serving = start(other.path()).await;
        assert_eq!(serving.ended_thread(), None);
        // One that asks a store that has gone.
        let scrub = ScrubThread::start(Arc::clone(&serving.pool), store, (1 << 30, None)).unwrap();
        scrub.handle().begin(false);
        let first = serving.threads.lock().unwrap().as_mut().unwrap().scrub.replace(scrub);
        while serving.ended_thread().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(serving.ended_thread().as_deref(), Some("the scrub's thread"));
        first.unwrap().stop().unwrap();
        serving.stop().await.unwrap();
    }
}
