//! The host of this site's seats: the link, the witness, promises, and what is read of logs.

use super::feeder::{Asked, Feeder, write_branch};
use super::port::{MirrorPort, Wish};
use super::routes::{Errand, Routes};
use super::{KeepError, MirrorConfig, Promises, boot_id};
use crate::catalogue::{known, recover_noted, segments};
use crate::open::{OpenError, PoolFile};
use crate::shard::{Message, MirrorMessage, SeatSettings, ShardHandle};
use crate::store::StoreHandle;
use link::{Link, LinkConfig, LinkHandle, Times};
use replication::seat::Event;
use replication::wire::{Enrolment, Frame, Text, VERSIONS};
use replication::{Config, KeptPromise, Policy, Position, Promise, ReadAnswer, Reads};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use units::{GroupId, Lsn, SiteId, VolumeId};
use volume::engine::{Volume, VolumeConfig};
use volume::recover::{Recovered, Terms};
use witness::Witness;

/// Connections that carry logs.
const DATA_CONNECTIONS: u16 = 2;

/// Bytes of batches on their way on each of them, and that wait here for that.
const WINDOW_BYTES: u64 = 16 << 20;
const QUEUE_BYTES: u64 = 16 << 20;

/// How long the other site has for saying whether it holds a copy of a volume.
const ENROL_WITHIN: Duration = Duration::from_secs(10);

/// When a promise is tried again that could not be kept.
const KEEP_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Whether this site holds a copy, and why not.
type Enrolling = oneshot::Sender<Result<(), String>>;

/// The host, and what the other site wants copies of.
pub(crate) type Hosted = (Arc<MirrorHost>, mpsc::UnboundedReceiver<Wanted>);

/// A copy of a volume that the other site wants this one to hold.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) group: GroupId,
    pub(crate) volume: Enrolment,
    pub(crate) done: Enrolling,
}

/// The host of this site's seats.
#[derive(Debug)]
pub struct MirrorHost {
    config: MirrorConfig,
    link: tokio::sync::Mutex<Option<Link>>,
    handle: LinkHandle,
    routes: Arc<Routes>,
    witness: Arc<Witness>,
    promises: Arc<Mutex<Promises>>,
    boot: String,
    pool: Arc<PoolFile>,
    store: StoreHandle,
    volumes: VolumeConfig,
    /// Questions to the other site that are not answered.
    asked: Arc<Mutex<BTreeMap<u64, Enrolling>>>,
    next_number: AtomicU64,
}

impl MirrorHost {
    /// Starts the link and begins to ask the witness.
    ///
    /// # Errors
    /// [`OpenError::Setting`]: what of the configuration is of no use.
    pub(crate) fn start(
        config: MirrorConfig,
        (pool, store): (Arc<PoolFile>, StoreHandle),
        volumes: VolumeConfig,
    ) -> Result<Hosted, OpenError> {
        let (wanted, to_hold) = mpsc::unbounded_channel();
        let setting = |what: &str, error: &dyn std::fmt::Display| OpenError::Setting(format!("{what}: {error}"));
        let promises = Promises::open(&config.promises).map_err(|error| setting("the site's promises", &error))?;
        promises.be_of(config.site).map_err(|error| setting("the site's promises", &error))?;
        let boot = boot_id().map_err(|error| setting("the machine's boot id", &error))?;
        let witness = Witness::open(config.witness.clone(), None).map_err(|error| setting("the witness", &error))?;
        let (errands, to_do) = mpsc::unbounded_channel();
        let routes = Arc::new(Routes::new(errands));
        let link = Link::start(link_config(&config, volumes), Arc::<Routes>::clone(&routes));
        let link = link.map_err(|error| setting("the link to the other site", &error))?;
        let host = Arc::new(Self {
            handle: link.handle(),
            link: tokio::sync::Mutex::new(Some(link)),
            routes,
            witness: Arc::new(witness),
            promises: Arc::new(Mutex::new(promises)),
            boot,
            pool,
            store,
            volumes,
            asked: Arc::default(),
            next_number: AtomicU64::new(1),
            config,
        });
        tokio::spawn(Errands { handle: host.handle.clone(), asked: Arc::clone(&host.asked), wanted }.run(to_do));
        Ok((host, to_hold))
    }

    /// This site.
    pub(crate) const fn site(&self) -> SiteId {
        self.config.site
    }

    /// The other one.
    pub(crate) const fn peer(&self) -> SiteId {
        self.config.peer
    }

    /// Whether the link to the other site is up.
    pub(crate) fn is_up(&self) -> bool {
        self.routes.life().is_some()
    }

    /// Begins to serve a group of one volume; the seat begins with what is returned, and frames come with [`MirrorHost::route`].
    ///
    /// # Errors
    /// [`KeepError`]: what this site has promised is not known.
    pub(crate) fn attach(
        self: &Arc<Self>,
        (group, volume): (GroupId, VolumeId),
        created_bytes: u64,
        shard: ShardHandle,
    ) -> Result<SeatSettings, KeepError> {
        let kept = {
            let promises = self.promises.lock().unwrap_or_else(PoisonError::into_inner);
            promises.refuse_after_failed_sync(group, &self.boot)?;
            promises.load(group)?
        };
        let (wishes, to_do) = mpsc::unbounded_channel();
        let served = Served { host: Arc::clone(self), group, volume, created_bytes, shard, branch: None };
        tokio::spawn(served.run(to_do));
        let config = Config {
            group,
            me: self.config.site,
            peer: self.config.peer,
            policy: Policy::Available,
            reads: Reads::default(),
        };
        let is_log_whole = kept.as_ref().is_none_or(|kept| kept.boot == self.boot);
        let promise = kept.map_or_else(Promise::default, |kept| kept.promise);
        let port = MirrorPort::new(group, wishes, (self.handle.clone(), self.config.passes_on));
        Ok(SeatSettings { config, promise, is_log_whole, port })
    }

    /// Has the frames of a group go to its shard from now on.
    pub(crate) fn route(&self, (group, volume): (GroupId, VolumeId), shard: ShardHandle) {
        self.routes.add(group, shard, volume);
    }

    /// Whether the witness answers, and knows nothing of a group.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn is_new(&self, group: GroupId) -> Result<(), String> {
        match self.witness.read(group).await {
            ReadAnswer::Nothing => Ok(()),
            ReadAnswer::Found { .. } => {
                Err(format!("the witness knows a group {group} already: was this pool put in the place of another?"))
            }
            ReadAnswer::Unreachable => Err("the witness does not answer: see the log".to_owned()),
        }
    }

    /// Forgets what was promised in a group that has ended.
    pub(crate) fn forget(&self, group: GroupId) {
        if let Err(error) = self.promises.lock().unwrap_or_else(PoisonError::into_inner).forget(group) {
            tracing::warn!(%group, %error, "what was promised in a mirror that has ended is still there, and counts for nothing");
        }
    }

    /// Asks the other site to hold a copy of a volume.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) async fn enrol(&self, group: GroupId, volume: Enrolment) -> Result<(), String> {
        let Some(life) = self.routes.life() else {
            return Err("there is no link to the other site: see the log for what keeps it down".to_owned());
        };
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let (done, answer) = oneshot::channel();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(number, done);
        let sent = self.handle.send(life, Frame::Enrol { group, number, volume: Box::new(volume) });
        let answered = match sent {
            Ok(()) => tokio::time::timeout(ENROL_WITHIN, answer).await,
            Err(refused) => return Err(format!("the other site cannot be asked: {refused}; try again")),
        };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        match answered {
            Ok(Ok(result)) => result.map_err(|why| format!("the other site does not hold a copy: {why}")),
            Ok(Err(_)) | Err(_) => Err("the other site did not answer in time: try again".to_owned()),
        }
    }

    /// Opens a volume that is mirrored no more: all of its log counts.
    pub(crate) async fn open_plain(&self, volume: VolumeId, created_bytes: u64) -> Result<Volume, String> {
        Ok(Volume::open(self.volumes, self.recover((volume, created_bytes), Terms::default()).await?))
    }

    /// Closes the link.
    pub(crate) async fn close(&self) {
        let link = self.link.lock().await.take();
        if let Some(link) = link {
            link.close().await;
        }
    }

    /// Opens a volume anew, frozen, whose log ends at `limit`, or where it ends.
    async fn open_anew(&self, ids: (VolumeId, u64), limit: Option<Lsn>) -> Result<Volume, String> {
        let terms = Terms { limit: limit.unwrap_or(Lsn(u64::MAX)), goes_on: true };
        let mut volume = Volume::open(self.volumes, self.recover(ids, terms).await?);
        volume.freeze();
        Ok(volume)
    }

    async fn recover(&self, (volume, created_bytes): (VolumeId, u64), terms: Terms) -> Result<Recovered, String> {
        let known = known(&self.store, volume, created_bytes).await.map_err(|error| error.to_string())?;
        let recovery = recover_noted(&self.store, &self.pool, vec![(known, terms)]).await;
        let mut recovery = recovery.map_err(|error| error.to_string())?;
        let damage = recovery.damaged.remove(&volume);
        recovery.volumes.pop().ok_or_else(|| damage.unwrap_or_else(|| "it is not there".to_owned()))
    }
}

fn link_config(config: &MirrorConfig, volumes: VolumeConfig) -> LinkConfig {
    LinkConfig {
        site: config.site,
        peer: config.peer,
        pool: volumes.pool,
        versions: VERSIONS,
        listen: config.listen,
        peer_address: config.peer_address.clone(),
        tls: config.tls.clone(),
        data_connections: DATA_CONNECTIONS,
        window_bytes: WINDOW_BYTES,
        queue_bytes: QUEUE_BYTES,
        times: Times::default(),
    }
}

/// What the link tells that is no seat's.
struct Errands {
    handle: LinkHandle,
    asked: Arc<Mutex<BTreeMap<u64, Enrolling>>>,
    wanted: mpsc::UnboundedSender<Wanted>,
}

impl Errands {
    async fn run(self, mut to_do: mpsc::UnboundedReceiver<Errand>) {
        while let Some(errand) = to_do.recv().await {
            match errand {
                Errand::Unwanted { life, group, bytes } => self.handle.consumed(life, group, bytes),
                Errand::Enrolled { number, result } => {
                    let asker = self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
                    // It may have given up.
                    let _ = asker.map(|asker| asker.send(result.map_err(|text| text.to_string())));
                }
                Errand::Enrol { life, group, number, volume } => {
                    let (done, answer) = oneshot::channel();
                    // Without anybody to take it, the answer comes at once.
                    let _ = self.wanted.send(Wanted { group, volume: *volume, done });
                    let handle = self.handle.clone();
                    tokio::spawn(async move {
                        let unheard = |_| Err("the daemon there is being started or stopped".to_owned());
                        let result = answer.await.unwrap_or_else(unheard).map_err(|why| Text::new(&why));
                        // The other site asks again when it hears nothing.
                        let _ = handle.send(life, Frame::Enrolled { group, number, result });
                    });
                }
            }
        }
    }
}

/// A group that is served.
struct Served {
    host: Arc<MirrorHost>,
    group: GroupId,
    volume: VolumeId,
    created_bytes: u64,
    shard: ShardHandle,
    /// What is to be kept before anything is cut.
    branch: Option<(Lsn, Position)>,
}

impl Served {
    /// Carries out what the seat wants, until it has ended.
    async fn run(mut self, mut wishes: mpsc::UnboundedReceiver<Wish>) {
        let to_read = self.start_feeder();
        while let Some(wish) = wishes.recv().await {
            match wish {
                Wish::Promise(promise) => self.keep(promise).await,
                Wish::ReadWitness { id } => {
                    let (witness, group, shard) = (Arc::clone(&self.host.witness), self.group, self.seat());
                    tokio::spawn(async move {
                        let answer = witness.read(group).await;
                        shard.tell(Event::Read { id, answer });
                    });
                }
                Wish::Swap { id, expected, record } => {
                    let (witness, group, shard) = (Arc::clone(&self.host.witness), self.group, self.seat());
                    tokio::spawn(async move {
                        let answer = witness.swap(group, expected, &record).await;
                        shard.tell(Event::Swapped { id, answer });
                    });
                }
                Wish::Feed { id, feed, up_to } => {
                    // It ends with this task.
                    let _ = to_read.send(Asked { id, feed, up_to });
                }
                Wish::NoteFailedSync => self.note_failed_sync(),
                Wish::KeepBranch { from, to } => self.branch = Some((from, to)),
                Wish::Reopen { limit } => {
                    let opened = self.reopen(limit).await;
                    self.seat().send(MirrorMessage::Reopened(opened.map(Box::new)));
                }
            }
        }
        self.host.routes.remove(self.group);
    }

    fn start_feeder(&self) -> mpsc::UnboundedSender<Asked> {
        let (to_read, asked) = mpsc::unbounded_channel();
        let (pool, store) = (Arc::clone(&self.host.pool), self.host.store.clone());
        tokio::spawn(Feeder { pool, store, volume: self.volume, seat: self.seat() }.run(asked));
        to_read
    }

    fn seat(&self) -> SeatHandle {
        SeatHandle { shard: self.shard.clone(), volume: self.volume }
    }

    /// Makes a promise durable, however long that takes: until then the site does nothing by it.
    async fn keep(&self, promise: Promise) {
        let kept = KeptPromise { promise, boot: self.host.boot.clone() };
        loop {
            let (promises, group, kept) = (Arc::clone(&self.host.promises), self.group, kept.clone());
            let keep = move || promises.lock().unwrap_or_else(PoisonError::into_inner).keep(group, &kept);
            match tokio::task::spawn_blocking(keep).await {
                Ok(Ok(())) => return self.seat().tell(Event::Promised),
                Ok(Err(error)) => tracing::error!(group = %self.group, %error, "a promise cannot be kept"),
                Err(error) => tracing::error!(group = %self.group, %error, "a promise was not kept"),
            }
            tokio::time::sleep(KEEP_AGAIN_AFTER).await;
        }
    }

    fn note_failed_sync(&self) {
        let promises = self.host.promises.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = promises.note_failed_sync(self.group, &self.host.boot) {
            tracing::error!(group = %self.group, %error, "that a sync failed cannot be noted: do not start the daemon again before the machine");
        }
    }

    async fn reopen(&mut self, limit: Option<Lsn>) -> Result<Volume, String> {
        if let Some((from, to)) = self.branch {
            self.keep_branch(from, to).await.map_err(|why| format!("what is to be cut off cannot be kept: {why}"))?;
            self.branch = None;
        }
        self.host.open_anew((self.volume, self.created_bytes), limit).await
    }

    /// Keeps what lies behind an operation in a file of its own: the batches of the log, one behind the other.
    async fn keep_branch(&self, from: Lsn, to: Position) -> Result<(), String> {
        let rows = segments(&self.host.store, self.volume).await.map_err(|error| error.to_string())?;
        let (pool, path) = (Arc::clone(&self.host.pool), self.branch_path(to));
        let shown = path.display().to_string();
        let write = move || write_branch(&pool, (&rows, from.next(), to.lsn), &path);
        tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())??;
        tracing::warn!(group = %self.group, %from, %to, file = shown, "what the log has there was never part of the mirror, and is kept in a file");
        Ok(())
    }

    fn branch_path(&self, to: Position) -> PathBuf {
        self.host.config.promises.join(format!("branch-{}-{}-{}", self.group, to.epoch, to.lsn))
    }
}

/// A seat, from outside of its shard.
pub(super) struct SeatHandle {
    shard: ShardHandle,
    volume: VolumeId,
}

impl SeatHandle {
    fn tell(&self, event: Event) {
        self.send(MirrorMessage::Seat(Box::new(event)));
    }

    pub(super) fn send(&self, message: MirrorMessage) {
        // A shard that has ended has no seats.
        let _ = self.shard.send(Message::Mirror { volume: self.volume, message: Box::new(message) });
    }
}
