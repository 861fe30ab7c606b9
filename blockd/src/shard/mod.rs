//! A shard: one thread with its own io_uring, its own volumes, and their connections.
//!
//! Each turn of its loop takes all completions and messages there are, hands the volumes what came of them, carries out
//! what they want (`actions`), sends the replies that gathered (`clients`), and enters the kernel once. No locks and, in
//! the steady state, no allocation per request. Pieces: `disk` the pool file, `mailbox` and `port` the other threads,
//! `pace` how to wait, `qos` who may pass, `closing` how volumes and the shard end.

mod actions;
mod clients;
mod closing;
mod disk;
mod iscsi;
mod mailbox;
mod mirror;
mod pace;
mod port;
mod qos;
mod requests;
mod start;
mod stats;
mod status;
mod tasks;

pub(crate) use mailbox::SessionMessage;
pub use mailbox::{Callback, IscsiMessage, Message, NewConnection, ShardEnded, ShardHandle, ShardQos, UnitSettings};
pub use mirror::{MirrorMessage, Retiring, SeatSettings, SharedLog};
pub use port::{StoreAsk, StorePort};
pub use start::{ShardConfig, ShardThread, StartError};
pub use stats::{Histogram, ShardStats, Verb, VerbStats, VolumeStats};

use crate::iscsi as iscsi_session;
use crate::limits::Limits;
use crate::metering::MeterTimes;
use crate::nbd::Connection;
use crate::qos::{Gate, Standing, VolumeQos};
use crate::throttle::Throttle;
use crate::unit::{LogicalUnit, Registrar, Reserving, SessionKey};
use closing::Closing;
use disk::{Disk, DiskToken, Fetch, Io};
use mailbox::IscsiNews;
use mirror::Mirrored;
use pace::Pace;
use requests::Pending;
use slab::Slab;
use status::Gathering;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use units::{MeterTime, Monotonic, VolumeId};
use uring::{Ring, Want};
use volume::buffer::BufferPool;
use volume::engine::{Context, Volume};
use volume::error::Error;
use volume::io::{Action, Event};
use volume::request::Completion;

/// How often volumes that are not quiet are told that time passes.
const TICK: Duration = Duration::from_secs(1);

/// How long a shard waits at most for the next look at whether writes may go on: the pace changes meanwhile.
const THROTTLED_MAX: Duration = Duration::from_millis(5);

/// Bytes of fetches started in one turn, beyond the first.
const FETCH_BYTES_PER_TURN: usize = 512 << 10;

/// What an operation of the ring was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// A receive of the connection at this place.
    Receive(usize),
    /// A send of the connection at this place.
    Send(usize),
    /// A receive of the iSCSI connection at this place.
    IscsiReceive(usize),
    /// A send of the iSCSI connection at this place.
    IscsiSend(usize),
    /// An append at this byte of the pool.
    Append { token: DiskToken, pool_offset: u64, since: Monotonic },
    /// A fetch.
    Fetch(DiskToken),
    /// The sync in flight.
    Sync,
    /// Dirty bytes handed to the device.
    WriteBack { offset: u64, len: u32 },
    /// Nobody waits for it.
    Ignored,
}

/// A volume of a shard.
#[derive(Debug)]
struct VolumeSlot {
    volume: Box<Volume>,
    stats: VolumeStats,
    /// Its place in the gate.
    standing: Standing,
    /// What the volume wants, until it is carried out.
    actions: Vec<Action>,
    is_touched: bool,
    closing: Option<Closing>,
    /// It, as iSCSI initiators see it.
    unit: Box<LogicalUnit>,
    /// Operations of the disk under way.
    under_way: u32,
    /// Its part in a mirror, when it is mirrored.
    mirror: Option<Box<Mirrored>>,
}

/// The state of a shard's thread.
struct Shard {
    ring: Ring<Token>,
    disk: Disk,
    store: Box<dyn StorePort>,
    mailbox: mpsc::Receiver<Message>,
    limits: Limits,
    origin: Instant,
    now: Monotonic,
    /// Milliseconds since 1970: what batches are labelled with.
    wall_ms: u64,
    /// What use is measured by.
    meter: MeterTime,
    meter_times: MeterTimes,
    /// Bytes that the map caches of all volumes may take together.
    map_cache_bytes: usize,
    buffers: BufferPool,
    volumes: Slab<VolumeSlot>,
    by_id: HashMap<VolumeId, usize>,
    connections: Slab<Connection>,
    requests: Slab<Pending>,
    /// How other threads reach the shard.
    handle: ShardHandle,
    iscsi: Slab<iscsi_session::Connection>,
    sessions: BTreeMap<SessionKey, iscsi_session::Session>,
    /// iSCSI connections that have something to be sent, or may be over; and those that have more PDUs than one turn takes.
    iscsi_news: Vec<usize>,
    unfinished_iscsi: Vec<usize>,
    /// Connections with writes that wait for room which the shard has not, those first that wait longest; and those with
    /// waiting writes that have given some back.
    ungranted: VecDeque<usize>,
    released: Vec<usize>,
    /// Somebody was refused room since those who wait were last looked at.
    is_short: bool,
    /// They are being looked at.
    is_resuming: bool,
    /// Counts how often they were: units, iSCSI and NBD take turns at being first.
    turn: u8,
    /// What units have said to sessions of this shard.
    session_news: Vec<(SessionKey, SessionMessage)>,
    /// Commands that units have under way, and answers of volumes to requests for these.
    executing: Slab<tasks::Executing>,
    unit_replies: Vec<(usize, Result<Completion, Error>)>,
    /// Volumes whose units wait for memory.
    stalled_units: Vec<usize>,
    /// Changes of reservations that are being made durable, by the place of the volume.
    reserving: BTreeMap<usize, Reserving>,
    /// Makes them durable.
    registrar: Registrar,
    /// Block status requests of which some contexts are not answered.
    statuses: Slab<Gathering>,
    /// Volumes that were handed events since they were last settled.
    touched: Vec<usize>,
    /// Which requests may pass.
    gate: Gate,
    throttle: Arc<Throttle>,
    /// Volumes whose next write waits for the throttle, those that have waited longest first.
    throttled: Vec<usize>,
    /// Connections that have replies, or may be over.
    news: Vec<usize>,
    /// Connections that have more requests than one turn takes.
    unfinished: Vec<usize>,
    /// Connections that wait for room under the limits, and whether some was made.
    stalled: Vec<usize>,
    has_released: bool,
    /// One of the two lists above while it is worked off.
    resuming: Vec<usize>,
    /// Fetches to be given to the ring behind the replies of the same turn: those read from the page cache are carried
    /// out as they are submitted, and the client should not wait for them.
    fetches: Vec<Fetch>,
    /// Events of actions that were done at once.
    finished: Vec<(usize, Event)>,
    held_bytes: u64,
    next_tick: Monotonic,
    /// The places of mirrored volumes, and when their seats are to be told the time.
    mirrored: Vec<usize>,
    next_mirror_tick: Monotonic,
    /// When the last turn began.
    turned_at: Monotonic,
    /// Whether some volume may have something to do by time alone.
    is_ticking: bool,
    /// Number of volumes that are being closed.
    closing_count: usize,
    /// Requests begun since the last wait.
    begun: u32,
    pace: Pace,
    stats: ShardStats,
    /// When a stop was asked for, until when it may take.
    stop_by: Option<Monotonic>,
}

impl Shard {
    /// Serves until it is stopped.
    fn run(mut self) -> std::io::Result<()> {
        while !self.is_finished() {
            self.turn()?;
            self.wait()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> std::io::Result<()> {
        self.stats.turns += 1;
        self.now = self.clock();
        self.note_pause();
        self.wall_ms = wall_ms();
        self.meter = self.meter_times.now();
        if self.ring.take_woken() {
            self.take_messages();
        }
        while let Some(completion) = self.ring.next_completion() {
            self.on_completion(completion);
        }
        if self.now >= self.next_tick {
            self.tick();
        }
        self.tick_mirrors();
        self.resume_unfinished();
        self.resume_unfinished_iscsi();
        self.resume_stalled();
        self.resume_held();
        if self.gate.is_shared() {
            self.hurry()?;
        }
        self.resume_throttled();
        self.settle();
        self.close_volumes();
        self.send_replies();
        self.send_pdus();
        self.start_fetches();
        self.start_sync();
        Ok(())
    }

    /// Enters the kernel: submits, and waits for news when there is nothing left to do.
    fn wait(&mut self) -> std::io::Result<()> {
        if self.has_work() || self.is_finished() {
            return self.ring.enter(Want::Nothing);
        }
        if self.disk.has_early() {
            self.ring.enter(Want::Nothing)?;
            let (disk, mut io) = self.disk_and_io();
            disk.write_early(&mut io);
        }
        let since = self.clock();
        let begun = std::mem::take(&mut self.begun);
        // A sync takes its time, and says nothing about how quick clients are.
        let is_for_clients = !self.disk.is_syncing();
        if let Some(limit) = self.pace.spin(begun).filter(|_| is_for_clients) {
            self.ring.enter(Want::Nothing)?;
            self.stats.spins += 1;
            if self.ring.spin(limit) {
                self.stats.spin_hits += 1;
                return self.ring.enter(Want::Nothing);
            }
        }
        self.stats.sleeps += 1;
        let tick = self.needs_ticks().then(|| self.next_tick.since(since));
        let held = self.held_for(since).into_iter().chain(self.mirrors_for(since));
        let limit = tick.into_iter().chain(self.throttled_for(since)).chain(held).min();
        self.ring.enter(Want::Completion(limit))?;
        if is_for_clients {
            self.pace.note_wait(self.clock().since(since));
        }
        Ok(())
    }

    /// Whether the next turn has something to do whatever the kernel says.
    fn has_work(&self) -> bool {
        let is_asked = !self.touched.is_empty() || !self.news.is_empty() || !self.fetches.is_empty();
        let has_iscsi =
            !self.iscsi_news.is_empty() || !self.unfinished_iscsi.is_empty() || !self.session_news.is_empty();
        is_asked || has_iscsi || !self.unfinished.is_empty() || self.can_resume() || self.gate.has_callable(self.now)
    }

    fn clock(&self) -> Monotonic {
        Monotonic::default().plus(self.origin.elapsed())
    }

    fn take_messages(&mut self) {
        while let Ok(message) = self.mailbox.try_recv() {
            match message {
                Message::AddConnection(new) => self.add_connection(*new),
                Message::OpenVolume { volume, qos, unit, mirror } => self.open_volume(volume, qos, &unit, mirror),
                Message::Shared(done) => done(self.shared()),
                Message::Mirror { volume, message } => self.on_mirror_message(volume, *message),
                Message::Iscsi(IscsiMessage(news)) => self.on_iscsi_news(news),
                Message::CloseVolume { volume, done } => self.close_volume(volume, done),
                Message::DetachClients { volume, done } => self.detach_clients(volume, done),
                Message::Submit { volume, request, done } => self.submit(volume, request, done),
                Message::Store { volume, event } => {
                    if let Some(place) = self.by_id.get(&volume).copied() {
                        if let (Event::SlotsFew, Some(unit)) = (&event, self.volumes.get_mut(place)) {
                            unit.unit.note_slots_few(self.now);
                        }
                        self.tell(place, event);
                    }
                }
                Message::Stats(done) => done(self.snapshot()),
                Message::VolumeStats { volume, done } => {
                    let slot = self.by_id.get(&volume).and_then(|place| self.volumes.get(*place));
                    done(slot.map(|slot| self.volume_stats(slot)));
                }
                Message::Requests(done) => {
                    let all = self.volumes.iter();
                    done(all.map(|(_, slot)| (slot.volume.id(), slot.stats.carried_out)).collect());
                }
                Message::SetVolumeQos { volume, limits, done } => done(self.set_volume_qos(volume, limits)),
                Message::SetTenantQos { tenant, limits, credits, done } => {
                    done(self.gate.set_tenant(self.now, tenant, (limits, credits)));
                }
                Message::SetTenantWeight { tenant, weight } => self.gate.set_weight(tenant, weight),
                Message::Qos(done) => done(self.qos()),
                Message::Stop => self.stop(),
            }
        }
    }

    fn open_volume(
        &mut self,
        volume: Box<Volume>,
        qos: VolumeQos,
        unit: &UnitSettings,
        mirror: Option<Box<SeatSettings>>,
    ) {
        let id = volume.id();
        let unit = Box::new(LogicalUnit::new(unit, volume.size_bytes()));
        let standing = self.gate.open(self.now, qos);
        self.is_ticking = true;
        let place = self.volumes.insert(VolumeSlot {
            volume,
            stats: VolumeStats::default(),
            standing,
            actions: Vec::new(),
            is_touched: false,
            closing: None,
            unit,
            under_way: 0,
            mirror: None,
        });
        let earlier = self.by_id.insert(id, place);
        assert!(earlier.is_none(), "volume {id} was opened twice");
        if let Some(settings) = mirror {
            self.open_mirrored(place, *settings);
        }
        self.touch(place);
    }

    fn on_iscsi_news(&mut self, news: IscsiNews) {
        match news {
            IscsiNews::Connect(new) => self.add_iscsi_connection(*new),
            IscsiNews::Unit { volume, message } => self.on_unit_message(volume, message),
            IscsiNews::Session { session, message } => self.on_session_message(session, message),
        }
    }

    /// Hands a volume an event. What it wants is carried out by [`Shard::settle`].
    fn tell(&mut self, place: usize, event: Event) {
        let Some(event) = self.sift(place, event) else { return };
        let Some(slot) = self.volumes.get_mut(place) else { return };
        let mut context = Context {
            now: self.now,
            wall_ms: self.wall_ms,
            meter: self.meter,
            buffers: &mut self.buffers,
            actions: &mut slot.actions,
        };
        slot.volume.handle(&mut context, event);
        self.is_ticking = true;
        if !std::mem::replace(&mut slot.is_touched, true) {
            self.touched.push(place);
        }
    }

    fn touch(&mut self, place: usize) {
        if let Some(slot) = self.volumes.get_mut(place)
            && !std::mem::replace(&mut slot.is_touched, true)
        {
            self.touched.push(place);
        }
    }

    /// Whether anything happens by time alone.
    fn needs_ticks(&self) -> bool {
        self.closing_count > 0
            || self.stop_by.is_some()
            || !self.stalled.is_empty()
            || self.disk.dirty_bytes() > 0
            || self.gate.has_share_waiters()
            || self.is_ticking
            || !self.iscsi.is_empty()
    }

    fn tick(&mut self) {
        self.next_tick = self.now.plus(TICK);
        self.share_map_cache();
        for place in 0..self.volumes.capacity() {
            let Some(slot) = self.volumes.get_mut(place) else { continue };
            if slot.wants_ticks() {
                self.tell(place, Event::Tick);
            }
        }
        self.is_ticking = self.volumes.iter().any(|(_, slot)| slot.wants_ticks());
        let (disk, mut io) = self.disk_and_io();
        disk.write_back_remains(&mut io);
        self.close_stalling_connections();
        self.look_after_iscsi();
        self.forget_late_work();
        self.force_closing_if_late();
    }

    /// Gives every volume what the others leave of the map cache, and an equal share at least.
    fn share_map_cache(&mut self) {
        let used: usize = self.volumes.iter().map(|(_, slot)| slot.volume.map_bytes()).sum();
        let share = self.map_cache_bytes / self.volumes.len().max(1);
        for (_, slot) in &mut self.volumes {
            let left = (self.map_cache_bytes + slot.volume.map_bytes()).saturating_sub(used);
            slot.volume.set_map_limit(left.max(share));
        }
    }

    /// Starts fetches in their order, but of long ones only as many as stay in the processor's cache until they have been
    /// checked and sent. The next turn, which does not sleep, goes on.
    fn start_fetches(&mut self) {
        let mut fetches = std::mem::take(&mut self.fetches);
        let (disk, mut io) = self.disk_and_io();
        let mut bytes = 0;
        let mut is_within = |fetch: &Fetch| {
            let is_first = bytes == 0;
            bytes += fetch.buffer.len();
            is_first || bytes <= FETCH_BYTES_PER_TURN
        };
        let count = fetches.iter().take_while(|fetch| is_within(fetch)).count();
        for fetch in fetches.drain(..count) {
            disk.fetch(&mut io, fetch);
        }
        self.fetches = fetches;
    }

    fn start_sync(&mut self) {
        let (disk, mut io) = self.disk_and_io();
        disk.start_sync(&mut io);
    }

    fn disk_and_io(&mut self) -> (&mut Disk, Io<'_>) {
        let Self { disk, ring, stats, limits, now, .. } = self;
        (disk, Io { ring, stats, limits, now: *now })
    }

    fn volume_stats(&self, slot: &VolumeSlot) -> VolumeStats {
        VolumeStats { status: slot.volume.status(), qos: self.gate.status(self.now, slot.standing), ..slot.stats }
    }

    fn snapshot(&self) -> ShardStats {
        let ring = self.ring.counters();
        let volumes = self.volumes.iter().map(|(_, slot)| (slot.volume.id(), self.volume_stats(slot)));
        ShardStats {
            ring_enters: ring.enters,
            ring_submissions: ring.submissions,
            ring_completions: ring.completions,
            dirty_bytes: self.disk.dirty_bytes(),
            connections: (self.connections.len() + self.iscsi.len()) as u64,
            in_flight: self.requests.len() as u64,
            held_bytes: self.held_bytes,
            map_cache_limit_bytes: self.map_cache_bytes as u64,
            volumes: volumes.collect(),
            ..self.stats.clone()
        }
    }
}

fn wall_ms() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl VolumeSlot {
    fn wants_ticks(&self) -> bool {
        self.volume.wants_ticks()
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shard({} volumes, {} connections)", self.volumes.len(), self.connections.len())
    }
}
