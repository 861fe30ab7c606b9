//! A world: a daemon's worth of volumes on one simulated disk, in lives that end with a stop or a crash.
//!
//! Every event is a happening with a virtual time; the next one in time is carried out, and so on. All chance comes from
//! the seed. A world stops at its first finding.

mod answers;
mod clients;
mod compaction;
mod compare;
mod driver;
mod ending;
mod families;
mod leases;
mod life;
mod metering;
mod months;
mod rot;
mod sealing;
mod start;
mod store_thread;

use crate::census::{Census, Fault};
use crate::disk::SimDisk;
use crate::fuse::Fuse;
use crate::meter::{Held, Model};
use crate::oracle::{Expectation, Loss, Oracle, Step};
use crate::plan::{FaultRates, Plan, Profile, crash_of};
use crate::random::Random;
use crate::store::SimStore;
use crate::trace::{Finding, Trace};
use clients::Asked;
use compaction::Compaction;
use driver::{Owner, Transfers};
use families::VolumeState;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use units::{Lsn, MeterTime, Monotonic, PoolId, VolumeId};
use volume::buffer::BufferPool;
use volume::engine::{Context, Volume, VolumeConfig};
use volume::format::Superblock;
use volume::io::{Action, Event, IoId};
use volume::pool::{Index, Parent};
use volume::request::{Lent, Reply, RequestId};

/// What a negative control switches off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    Nothing,
    /// A sync is answered and nothing is made durable.
    FlushBarrier,
    /// The store is told of a boundary after the pages that come after it.
    BoundaryOrder,
    /// A snapshot is deleted though a volume began as it.
    SnapshotPin,
    /// What a volume without a name has beyond its snapshots is kept.
    FullGhosts,
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Of everything that happened.
    pub trace: u64,
    /// Requests answered.
    pub answers: u64,
    /// Of those, with an error.
    pub errors: u64,
    /// Starts that ended with the volumes served.
    pub starts: u64,
    /// Volumes that were found damaged.
    pub quarantined: u64,
    /// Whether the step came after which the seed has the first life crash.
    pub was_cut: bool,
    /// Runs that ended with the slots kept back for trims used up.
    pub exhausted: u64,
    /// Bills of months for which something was to be paid.
    pub bills: u64,
    /// What went wrong.
    pub census: Census,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, answers, errors, starts, quarantined, was_cut: _, exhausted, bills, census } = self;
        write!(f, "{starts} starts, {answers} answers, {errors} of them errors, ")?;
        write!(
            f,
            "{quarantined} volumes quarantined, {exhausted} pools exhausted, {bills} bills; {census}; trace {trace:x}"
        )
    }
}

/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;

/// Between two ticks of a volume.
const TICK: u64 = 100 * MS;

type Checked<T = ()> = Result<T, Finding>;

#[derive(Debug)]
enum Happening {
    Client(usize),
    Poll(usize),
    Tick(usize),
    CompactorTick,
    CompactorTurn,
    AppendLands(Owner, IoId),
    AppendEnds(Owner, IoId),
    FetchReads(Owner, IoId),
    FetchEnds(Owner, IoId),
    SyncLands(Owner, IoId),
    SyncEnds(Owner, IoId),
    StoreTurn,
    StoreAnswers(usize, Event),
    Record(usize, VolumeId),
    Recorded,
    DeletionTurn,
    OutageEnds,
}

/// A volume and all that is under way for it.
#[derive(Debug)]
struct Site {
    id: VolumeId,
    created_bytes: u64,
    /// Of a clone or a view.
    parent: Option<Parent>,
    is_view: bool,
    /// The first of the volumes that had its name one after the other.
    line: VolumeId,
    /// What its record says.
    state: VolumeState,
    /// Something is done with its name: no client asks it.
    is_leaving: bool,
    /// Without a name, and holds ends of generations only.
    is_emptied: bool,
    /// Its record has been taken away.
    is_gone: bool,
    /// None while the daemon is down, and when the volume is damaged.
    volume: Option<Volume>,
    is_damaged: bool,
    /// The last operation that the start found, and the one of the last start whose volume was read back.
    last_lsn: Lsn,
    last_lsn_seen: Lsn,
    oracle: Oracle,
    model: Model,
    asked: BTreeMap<RequestId, Asked>,
    answered: BTreeMap<RequestId, Reply>,
    transfers: Transfers,
    next_request: u64,
    is_poll_due: bool,
    /// When the store's last answer to it arrives: each volume gets its answers in order.
    store_answer_at: u64,
}

impl Site {
    fn new(id: VolumeId, created_bytes: u64, oracle: Oracle) -> Self {
        let model = Model::new(MeterTime(0), created_bytes, Held::new());
        Self {
            id,
            created_bytes,
            parent: None,
            is_view: false,
            line: id,
            state: VolumeState::Live,
            is_leaving: false,
            is_emptied: false,
            is_gone: false,
            volume: None,
            is_damaged: false,
            last_lsn: Lsn::ZERO,
            last_lsn_seen: Lsn::ZERO,
            oracle,
            model,
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
            transfers: Transfers::default(),
            next_request: 1,
            is_poll_due: false,
            store_answer_at: 0,
        }
    }
}

/// What has gone wrong so far, which explains errors.
#[derive(Debug, Clone, Copy, Default)]
struct Injected {
    /// Disk requests failed.
    disk: u64,
    /// For want of room below.
    no_space: u64,
    /// Syncs failed, in this life.
    syncs: u64,
    /// Leases that found no slot.
    full: u64,
    /// Of those, with the reserve at their disposal.
    full_reserve: u64,
    /// Bytes that are not what was written.
    lies: u64,
    /// Void headers that did not come where they ought to be.
    lost_voids: u64,
    /// Whether a rebuild has met such slots since: it brings their segments back, whose blocks may be others' by then.
    may_revive: bool,
    /// Whether a rebuild has met bytes that are not what was written: segments that copies borrow from may be missing since.
    may_lack: bool,
    /// Fetches that met such bytes.
    tainted: u64,
    /// Pages of the stored map that are none, since the index was last made anew.
    map_pages: u64,
}

/// A simulated world.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    /// What goes wrong now.
    rates: FaultRates,
    broken: Broken,
    random: Random,
    now: u64,
    step: u64,
    clocks: metering::Clocks,
    /// Where months pass.
    months: Option<months::Months>,
    queue: BTreeMap<(u64, u64), Happening>,
    next_happening: u64,
    disk: SimDisk,
    store: SimStore,
    fuse: Fuse,
    index: Option<Index<SimStore>>,
    superblock: Superblock,
    sites: Vec<Site>,
    compaction: Compaction,
    sealing: sealing::Sealing,
    families: families::Families,
    jobs: VecDeque<store_thread::Job>,
    store_turn_at: u64,
    leases: leases::Leases,
    outage: Option<driver::Outage>,
    requests_left: u64,
    /// Whether the clients ask.
    is_open: bool,
    /// What crashes since the last full readback may have taken away.
    loss: Loss,
    /// The index was made anew after a power cut: what no flush covered may be there or not, in any order.
    is_order_lost: bool,
    /// The step after which the first life crashes.
    crash_after: Option<u64>,
    /// Writes, syncs and commits begun or ended.
    steps: u64,
    injected: Injected,
    excuse: answers::Excuse,
    /// What a volume has lent last, and what it showed.
    lent: Option<(Expectation, Lent)>,
    is_store_deleted: bool,
    /// Reads are judged together, as what a crash left.
    is_reading_back: bool,
    buffers: BufferPool,
    outcome: Outcome,
    trace: Trace,
}

impl World {
    /// Makes the world of a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self::with(seed, Broken::Nothing, false)
    }

    /// Makes the world of a seed with something switched off; `is_told` when it is to keep what happens as text.
    #[must_use]
    pub fn with(seed: u64, broken: Broken, is_told: bool) -> Self {
        let (crash_after, seed_of_chance) = crash_of(seed);
        let mut random = Random::new(seed_of_chance);
        let plan = Plan::new(Profile::of(seed), &mut random);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.bits().to_le_bytes());
        let superblock =
            Superblock { pool: PoolId(id), geometry: plan.geometry, generation: 1, created_ms: 1_700_000_000_000 };
        let (months, clocks) = months::begin(plan.profile, seed);
        let fuse = Fuse::default();
        let sites = plan.volumes.iter().zip(1..).map(|(volume, number)| {
            let oracle = Oracle::new(number * 3, volume.size_bytes, &volume.areas);
            Site::new(VolumeId(number * 3), volume.size_bytes, oracle)
        });
        Self {
            sites: sites.collect(),
            rates: FaultRates::default(),
            broken,
            now: 0,
            clocks,
            months,
            step: 1,
            queue: BTreeMap::new(),
            next_happening: 0,
            disk: SimDisk::new(plan.geometry.pool_bytes(), random.fork()),
            store: SimStore::new(random.fork(), fuse.clone()),
            fuse,
            index: None,
            superblock,
            compaction: Compaction::default(),
            sealing: sealing::Sealing::default(),
            families: families::Families::default(),
            jobs: VecDeque::new(),
            store_turn_at: 0,
            leases: leases::Leases::default(),
            outage: None,
            requests_left: 0,
            is_open: false,
            loss: Loss::Nothing,
            is_order_lost: false,
            crash_after,
            steps: 0,
            injected: Injected::default(),
            excuse: answers::Excuse::default(),
            lent: None,
            is_store_deleted: false,
            is_reading_back: false,
            buffers: BufferPool::new(64 << 20),
            outcome: Outcome::default(),
            trace: Trace::new(is_told),
            random,
            plan,
        }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// The first finding.
    pub fn run(&mut self) -> Checked<Outcome> {
        self.make_pool()?;
        for life in 0..self.plan.lives {
            self.trace.tell(|| format!("--- life {life}"));
            self.live()?;
            self.crash_after = None;
        }
        self.end()?;
        self.outcome.trace = self.trace.hash();
        self.note_store_faults();
        self.outcome.census.note_many(Fault::StartReadIo, self.disk.faults());
        Ok(self.outcome.clone())
    }

    /// What happened, as text.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.trace.lines()
    }

    fn note(&mut self, fault: Fault) {
        self.outcome.census.note(fault);
    }

    fn note_store_faults(&mut self) {
        self.outcome.census.note_many(Fault::StoreIo, self.store.faults());
    }

    /// A moment of its own.
    const fn next_step(&mut self) -> Step {
        self.step += 1;
        Step(self.step)
    }

    fn config(&self) -> VolumeConfig {
        VolumeConfig {
            pool: self.superblock.pool,
            geometry: self.plan.geometry,
            appends_in_flight_max: self.plan.appends_in_flight_max,
            map_limit_bytes: self.plan.map_limit_bytes,
            unfolded_segments_max: self.plan.unfolded_segments_max,
            write_back_pages_max: self.plan.write_back_pages_max,
            shared_piece_blocks_min: 1,
            is_metered: true,
        }
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.next_happening += 1;
        self.queue.insert((time, self.next_happening), happening);
    }

    fn after(&mut self, delay: u64, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    /// How long a request of the disk or the store takes.
    fn delay(&mut self) -> u64 {
        if self.random.chance(self.rates.slow) {
            self.note(Fault::Slow);
            return self.random.within(1000 * MS, 5000 * MS);
        }
        let most = *self.random.pick(&[MS / 20, MS / 5, MS / 5, MS, 5 * MS, 50 * MS]);
        self.random.below(most)
    }

    /// How long it is until a volume's read of the disk gets what is there.
    fn delay_of_read(&mut self) -> u64 {
        if self.rates.slow_fetch > 0 && self.random.chance(self.rates.slow_fetch) {
            self.note(Fault::SlowFetch);
            return self.random.within(100 * MS, 1000 * MS);
        }
        self.delay()
    }

    /// Carries out the next happening; `false` when there is none.
    fn advance(&mut self) -> Checked<bool> {
        let Some(((time, _), happening)) = self.queue.pop_first() else { return Ok(false) };
        self.now = self.now.max(time);
        let is_no_step = matches!(
            happening,
            Happening::Client(_) | Happening::Tick(_) | Happening::CompactorTick | Happening::OutageEnds
        );
        self.steps += u64::from(!is_no_step);
        match happening {
            Happening::Client(site) => self.ask_next(site)?,
            Happening::Poll(site) => self.poll(site)?,
            Happening::Tick(site) => {
                self.after(TICK, Happening::Tick(site));
                self.tell_volume(site, Event::Tick)?;
            }
            Happening::AppendLands(owner, id) => self.land_append(owner, id),
            Happening::AppendEnds(owner, id) => self.end_append(owner, id)?,
            Happening::FetchReads(owner, id) => self.read_fetch(owner, id),
            Happening::FetchEnds(owner, id) => self.end_fetch(owner, id)?,
            Happening::SyncLands(owner, id) => self.land_sync(owner, id),
            Happening::SyncEnds(owner, id) => self.end_sync(owner, id)?,
            Happening::StoreTurn => self.take_store_turn()?,
            Happening::StoreAnswers(site, event) => self.take_store_answer(site, event)?,
            Happening::CompactorTick => {
                self.after(TICK, Happening::CompactorTick);
                let is_set = self.clocks.step(self.now);
                self.outcome.census.note_many(Fault::WallClockSet, is_set.into());
                self.tick_sealing();
                self.tick_compactor()?;
                self.tick_waiting()?;
                self.tick_cleaner();
            }
            Happening::Record(site, id) => self.record(site, id)?,
            Happening::Recorded => self.end_record()?,
            Happening::DeletionTurn => self.turn_deletions()?,
            Happening::CompactorTurn => self.turn_compactor()?,
            Happening::OutageEnds => self.end_outage(),
        }
        self.go_on_with_catalogue()?;
        Ok(true)
    }

    /// Hands an event to a volume and carries out what it wants.
    fn tell_volume(&mut self, site: usize, event: Event) -> Checked {
        let Some(mut volume) = self.sites[site].volume.take() else { return Ok(()) };
        let mut actions = Vec::new();
        volume.handle(&mut self.context(&mut actions), event);
        self.sites[site].volume = Some(volume);
        if !self.sites[site].is_poll_due {
            self.sites[site].is_poll_due = true;
            let wait = if self.random.chance(500) { 0 } else { self.random.below(MS) };
            self.after(wait, Happening::Poll(site));
        }
        self.carry_out(Owner::Site(site), actions)
    }

    fn poll(&mut self, site: usize) -> Checked {
        self.sites[site].is_poll_due = false;
        let Some(mut volume) = self.sites[site].volume.take() else { return Ok(()) };
        let mut actions = Vec::new();
        volume.poll_append(&mut self.context(&mut actions));
        self.sites[site].volume = Some(volume);
        self.carry_out(Owner::Site(site), actions)
    }

    fn context<'a>(&'a mut self, actions: &'a mut Vec<Action>) -> Context<'a> {
        let (now, wall_ms, meter) = (Monotonic(self.now), self.clocks.wall_ms(self.now), self.meter_now());
        Context { now, wall_ms, meter, buffers: &mut self.buffers, actions }
    }
}
