//! Starting a shard's thread.

use super::disk::Disk;
use super::mailbox::ShardHandle;
use super::pace::Pace;
use super::{Shard, ShardStats, StorePort};
use crate::limits::Limits;
use crate::metering::MeterTimes;
use crate::qos::Gate;
use crate::throttle::Throttle;
use crate::unit::Registrar;
use slab::Slab;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use std::{fmt, io};
use units::{MeterTime, Monotonic};
use uring::{Ring, SetupError};
use volume::buffer::BufferPool;

/// What a shard needs to begin.
pub struct ShardConfig {
    /// Its thread's name.
    pub name: String,
    /// The pool's file or device; each shard opens it for itself.
    pub pool: PathBuf,
    /// Whether to go past the page cache.
    pub is_direct: bool,
    /// The core to stay on, if any.
    pub core: Option<usize>,
    /// Where its clock begins; the same for all shards.
    pub origin: Instant,
    /// Bytes that the map caches of its volumes may take together.
    pub map_cache_bytes: usize,
    /// Its limits.
    pub limits: Limits,
    /// Takes its volumes' questions to the store.
    pub store: Box<dyn StorePort>,
    /// How fast logs may grow; the same for all shards.
    pub throttle: Arc<Throttle>,
    /// The meter's time.
    pub meter_times: MeterTimes,
    /// Makes reservations durable.
    pub registrar: Registrar,
}

impl fmt::Debug for ShardConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pool, is_direct, core, limits, .. } = self;
        write!(f, "ShardConfig({name}, {pool:?}, direct {is_direct}, core {core:?}, {limits:?})")
    }
}

/// Why a shard did not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no io_uring to be had.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// The pool cannot be opened.
    #[error("cannot open the pool {}", path.display())]
    Pool {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no thread to be had.
    #[error("cannot start a shard's thread")]
    Thread(#[source] io::Error),
    /// The thread ended before it had begun.
    #[error("the shard's thread ended at once")]
    Ended,
}

/// A running shard.
#[derive(Debug)]
pub struct ShardThread {
    handle: ShardHandle,
    thread: JoinHandle<io::Result<()>>,
}

impl ShardThread {
    /// Starts a shard; returns when it is ready to be sent messages.
    ///
    /// # Errors
    /// [`StartError`] says what this machine lacks.
    pub fn start(config: ShardConfig) -> Result<Self, StartError> {
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::Builder::new()
            .name(config.name.clone())
            .spawn(move || {
                // The ring belongs to the thread that makes it.
                match Shard::new(config) {
                    Ok((shard, handle)) => {
                        let _ = ready.send(Ok(handle));
                        shard.run()
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        Ok(())
                    }
                }
            })
            .map_err(StartError::Thread)?;
        let handle = is_ready.recv().map_err(|_| StartError::Ended)??;
        Ok(Self { handle, thread })
    }

    /// Talks to the shard.
    #[must_use]
    pub fn handle(&self) -> ShardHandle {
        self.handle.clone()
    }

    /// Whether its thread has ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the shard to end, after [`super::Message::Stop`].
    ///
    /// # Errors
    /// What made it end otherwise: an error of the ring, or a panic.
    pub fn join(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the shard panicked")))
    }
}

impl Shard {
    fn new(config: ShardConfig) -> Result<(Self, ShardHandle), StartError> {
        let ring = Ring::new(uring::Config::default())?;
        let disk = Disk::open(&config.pool, config.is_direct)
            .map_err(|source| StartError::Pool { path: config.pool.clone(), source })?;
        if let Some(core) = config.core
            && let Err(error) = uring::cpu::pin_current_thread(core)
        {
            tracing::warn!(core, %error, "the shard runs on any core");
        }
        tracing::debug!(features = ?ring.features(), "made a ring");
        let (sender, mailbox) = mpsc::channel();
        let handle = ShardHandle::new(sender, ring.waker());
        let shard = Self {
            ring,
            disk,
            store: config.store,
            mailbox,
            limits: config.limits,
            gate: Gate::new(config.limits.fair_shares),
            origin: config.origin,
            now: Monotonic::default(),
            wall_ms: 0,
            meter: MeterTime::default(),
            meter_times: config.meter_times,
            map_cache_bytes: config.map_cache_bytes,
            buffers: BufferPool::new(config.limits.pooled_bytes_max),
            volumes: Slab::new(),
            by_id: HashMap::new(),
            connections: Slab::new(),
            requests: Slab::new(),
            handle: handle.clone(),
            iscsi: Slab::new(),
            sessions: BTreeMap::new(),
            iscsi_news: Vec::new(),
            unfinished_iscsi: Vec::new(),
            ungranted: VecDeque::new(),
            released: Vec::new(),
            is_short: false,
            is_resuming: false,
            turn: 0,
            session_news: Vec::new(),
            executing: Slab::new(),
            unit_replies: Vec::new(),
            stalled_units: Vec::new(),
            reserving: BTreeMap::new(),
            registrar: config.registrar,
            statuses: Slab::new(),
            touched: Vec::new(),
            throttle: config.throttle,
            throttled: Vec::new(),
            news: Vec::new(),
            unfinished: Vec::new(),
            stalled: Vec::new(),
            has_released: false,
            resuming: Vec::new(),
            fetches: Vec::new(),
            finished: Vec::new(),
            held_bytes: 0,
            next_tick: Monotonic::default(),
            mirrored: Vec::new(),
            next_mirror_tick: Monotonic::default(),
            turned_at: Monotonic::default(),
            is_ticking: true,
            closing_count: 0,
            begun: 0,
            pace: Pace::new(config.limits.spin_max),
            stats: ShardStats::default(),
            stop_by: None,
        };
        Ok((shard, handle))
    }
}
