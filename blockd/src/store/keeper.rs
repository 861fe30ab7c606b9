//! What the store's thread knows: the index, and the slots that are leased ahead.
//!
//! A few slots are leased and made ready before a volume asks, when there has been time for it: a lease is then answered
//! at once, with a slot whose every block has been written before. Under pressure slots are given out as they are.

use super::disk::Work;
use super::jobs::Jobs;
use super::pacing::Pacing;
use super::rocks::RocksStore;
use super::sealing::Sealing;
use super::thread::{Histories, Question, Starved};
use crate::open::{PoolFile, Space, fault_of};
use crate::shard::{Callback, StoreAsk};
use crate::throttle::Throttle;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use units::{SegmentId, SlotIndex, VolumeId};
use volume::compact::{Compactor, Context, EraseError, News, Urgency};
use volume::error::DiskFault;
use volume::io::{Action, Event};
use volume::io::{IoId, PageIndex};
use volume::map::PageWrite;
use volume::pool::{ChangesError, DeletionError, Folded, Index, Lease, LeaseClass, Parent, PoolFigures, Waiting};

/// Slots that are kept ready.
const AHEAD_COUNT: usize = 2;

/// Most of the slots kept back from data that have their space on the host before they are needed.
const RESERVE_WITH_SPACE_MAX: u32 = 64;

/// How long nobody must have asked for a slot before more are made ready: under a stream of writes that fills a slot in
/// less, filling slots ahead would only double what the disk has to write.
const QUIET: Duration = Duration::from_millis(150);

/// How long the compactor waits before it tries again what failed.
const TICK: Duration = Duration::from_secs(1);

/// How long commands may keep the compactor from a turn.
const TURN_DELAY: Duration = Duration::from_millis(5);

/// A slot to be filled with zeros.
#[derive(Debug)]
pub(super) struct Wanted(pub(super) Lease);

/// A question about a volume's map.
#[derive(Debug)]
enum MapAsk {
    Load { volume: VolumeId, page: PageIndex },
    Changes { volume: VolumeId, id: IoId, since: Parent, pages: Range<PageIndex>, runs_max: usize },
    WriteBack { volume: VolumeId, id: IoId, generation: u64, pages: Vec<PageWrite>, folded: Folded },
}

/// The threads that work for the store's.
#[derive(Debug)]
pub(super) struct Helpers {
    /// Fills slots with zeros.
    pub(super) preparer: mpsc::Sender<Wanted>,
    /// Carries out what the compactor wants done on the disk.
    pub(super) disk: mpsc::Sender<Work>,
    /// Holds writers back.
    pub(super) throttle: Arc<Throttle>,
}

/// A slot that a volume asks for.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// With an id of this site.
    Own(LeaseClass),
    /// For a segment of the other site's.
    For(SegmentId),
}

/// The index and what is leased ahead of it.
pub(super) struct Keeper {
    index: Index<RocksStore>,
    jobs: Jobs,
    space: Arc<Space>,
    pool: Arc<PoolFile>,
    helpers: Helpers,
    compactor: Compactor,
    pacing: Pacing,
    sealing: Sealing,
    next_tick: Instant,
    last_turn: Instant,
    /// Why the last round of compaction that was told of was given up.
    told_error: Option<String>,
    ready: VecDeque<Lease>,
    preparing_count: usize,
    last_lease: Instant,
    /// Whether the last try found no slot to lease ahead; until one is given back.
    is_full: bool,
    /// What volumes have leased and not begun to fill.
    spare: BTreeMap<VolumeId, Vec<Lease>>,
    /// Slots that have their space on the host for certain.
    with_space: BTreeSet<SlotIndex>,
    /// Whether the host's file system had no space for a slot at the last try.
    is_host_full: bool,
    /// Leases that found no slot while some were being freed.
    parked: VecDeque<(VolumeId, Asked)>,
    /// Questions of clones that wait for what these inherit.
    waiting: Waiting<MapAsk>,
    /// Called when a volume waits for a slot that only history can give up.
    on_starving: Option<Starved>,
    /// Volumes that are being erased, and who waits for it.
    erasing: BTreeMap<VolumeId, Callback<Result<(), EraseError>>>,
    /// What volumes are to be told.
    events: Vec<(VolumeId, Event)>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("compactor", &self.compactor).finish_non_exhaustive()
    }
}

/// Gives slots their space on the host, until that refuses one.
struct Allocation<'a> {
    space: &'a Space,
    with_space: &'a mut BTreeSet<SlotIndex>,
    refusal: Option<io::Error>,
}

impl Allocation<'_> {
    fn of(&mut self, slot: SlotIndex) -> Result<(), DiskFault> {
        if self.with_space.contains(&slot) {
            return Ok(());
        }
        // A full file system may take long to say so: once it has, only slots that were used before are tried.
        if self.refusal.is_some() && !self.space.may_be_allocated(slot) {
            return Err(DiskFault::NoSpace);
        }
        self.space.allocate(slot).map_err(|error| fault_of(self.refusal.insert(error)))?;
        self.with_space.insert(slot);
        Ok(())
    }
}

impl Keeper {
    pub(super) fn new(mut index: Index<RocksStore>, space: Arc<Space>, pool: Arc<PoolFile>, helpers: Helpers) -> Self {
        let now = Instant::now();
        let pacing = Pacing::new(Arc::clone(&helpers.throttle), index.superblock().geometry.slot_bytes);
        let jobs = Jobs::resume(&mut index);
        let mut keeper = Self {
            index,
            jobs,
            space,
            pool,
            helpers,
            compactor: Compactor::default(),
            pacing,
            sealing: Sealing::default(),
            next_tick: now,
            last_turn: now,
            told_error: None,
            ready: VecDeque::new(),
            preparing_count: 0,
            last_lease: now,
            is_full: false,
            spare: BTreeMap::new(),
            with_space: BTreeSet::new(),
            is_host_full: false,
            parked: VecDeque::new(),
            waiting: Waiting::default(),
            on_starving: None,
            erasing: BTreeMap::new(),
            events: Vec::new(),
        };
        keeper.with_compactor(Compactor::open);
        keeper
    }

    /// When there is something to do, if nothing else happens.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let tick = self.wants_ticks().then_some(self.next_tick);
        let turn = self.compactor.wants_turn(&self.index).then_some(self.last_turn);
        self.prepares_at().into_iter().chain(tick).chain(turn).min()
    }

    fn prepares_at(&self) -> Option<Instant> {
        (self.ahead_count() < AHEAD_COUNT && !self.is_full).then(|| self.last_lease + QUIET)
    }

    fn wants_ticks(&self) -> bool {
        self.compactor.wants_ticks(&self.index) || !self.waiting.is_empty() || !self.parked.is_empty()
    }

    /// Does what is due.
    pub(super) fn on_time(&mut self) {
        let now = Instant::now();
        if self.wants_ticks() && self.next_tick <= now {
            self.next_tick = now + TICK;
            if self.compactor.urgency(&self.index) == Urgency::Short {
                self.ask_to_seal(None);
            }
            self.with_compactor(Compactor::tick);
            let overdue = self.waiting.take_overdue();
            self.fail(overdue);
        }
        if self.prepares_at().is_some_and(|at| at <= now) {
            self.prepare_ahead();
        }
        self.turn();
        if self.has_work() {
            self.work();
        }
    }

    fn turn(&mut self) {
        if self.compactor.wants_turn(&self.index) {
            self.last_turn = Instant::now();
            self.with_compactor(Compactor::turn);
        }
    }

    /// Gives the compactor a turn when commands have kept it from one for long.
    pub(super) fn turn_if_late(&mut self) {
        if self.last_turn.elapsed() >= TURN_DELAY {
            self.turn();
        }
    }

    /// Has writers go as fast as slots allow.
    pub(super) fn set_pace(&self) {
        self.pacing.set(Instant::now(), self.compactor.shortage(&self.index));
    }

    /// Whether there is work to do now, unless a command waits.
    pub(super) fn has_work(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Whether there is work that commands have kept waiting for long enough.
    pub(super) fn is_work_due(&self) -> bool {
        self.jobs.is_due()
    }

    fn work(&mut self) {
        for volume in self.jobs.work(&mut self.index) {
            self.with_compactor(|compactor, context| compactor.look_at(context, volume));
        }
    }

    /// Begins to delete a snapshot; `done` is told when it is gone.
    pub(super) fn delete_snapshot(
        &mut self,
        volume: VolumeId,
        generation: u64,
        done: Callback<Result<(), DeletionError>>,
    ) {
        self.jobs.delete(&mut self.index, (volume, generation), done);
    }

    /// Begins a search for what the deletion of each of some sets of snapshots gives back, in blocks.
    pub(super) fn search(
        &mut self,
        volume: VolumeId,
        sets: Vec<BTreeSet<u64>>,
        done: Callback<Result<Vec<u64>, DiskFault>>,
    ) {
        self.jobs.search(volume, sets, done);
    }

    /// What volumes are to be told, in order.
    pub(super) fn take_events(&mut self) -> Vec<(VolumeId, Event)> {
        std::mem::take(&mut self.events)
    }

    fn with_compactor(&mut self, act: impl FnOnce(&mut Compactor, &mut Context<'_, RocksStore>)) {
        let (mut actions, mut news) = (Vec::new(), Vec::new());
        let free_before = self.index.slot_counts().1;
        act(&mut self.compactor, &mut Context { index: &mut self.index, actions: &mut actions, news: &mut news });
        self.pacing.note(Instant::now(), i64::from(self.index.slot_counts().1) - i64::from(free_before));
        self.tell_of_compaction();
        let urgency = self.compactor.urgency(&self.index);
        for action in actions {
            if matches!(action, Action::Lease { .. }) {
                self.lease_for_compactor();
            } else if self.helpers.disk.send(Work { action, urgency }).is_err() {
                tracing::error!("the compactor's thread has ended: no more slots are given back");
            }
        }
        for news in news {
            match news {
                News::Tell(volume, event) => self.events.push((volume, event)),
                News::Erased(volume, result) => self.on_erased(volume, result),
                News::Freed => self.is_full = false,
            }
        }
        let parked = std::mem::take(&mut self.parked);
        parked.into_iter().for_each(|(volume, asked)| self.answer_lease(volume, asked));
    }

    fn lease_for_compactor(&mut self) {
        let result = self.lease(LeaseClass::Compaction);
        self.pacing.note(Instant::now(), -i64::from(result.is_ok()));
        self.with_compactor(|compactor, context| compactor.handle(context, Event::Leased { result }));
    }

    /// Logs why a round of compaction was given up, once each time that the reason changes.
    fn tell_of_compaction(&mut self) {
        let error = &self.compactor.figures().last_error;
        if *error != self.told_error {
            self.told_error.clone_from(error);
            let reason = error.as_deref().unwrap_or_default();
            tracing::warn!(reason, "compaction gave up a round; nothing is lost by that");
        }
    }

    /// Takes the end of one of the compactor's actions.
    pub(super) fn on_disk(&mut self, event: Event) {
        self.with_compactor(|compactor, context| compactor.handle(context, event));
    }

    /// Carries out a question; its answer, when it has one, is among the events.
    pub(super) fn take(&mut self, ask: StoreAsk) {
        match ask {
            StoreAsk::LoadPage { volume, page } => self.take_map(volume, MapAsk::Load { volume, page }),
            StoreAsk::LoadChanges { volume, id, since, pages, runs_max } => {
                self.take_map(volume, MapAsk::Changes { volume, id, since, pages, runs_max });
            }
            StoreAsk::WriteBack { volume, id, generation, pages, folded } => {
                self.take_map(volume, MapAsk::WriteBack { volume, id, generation, pages, folded });
            }
            StoreAsk::LoadPlace { volume, segment } => {
                let place = self.compactor.hold(&self.index, volume, segment);
                self.events.push((volume, Event::Place { segment, place: place.map(Box::new) }));
            }
            StoreAsk::NoteBoundary { volume, boundary } => {
                // The index knows it all the same, and writes it before anything that it must come before.
                let _ = self.index.note_boundary(volume, boundary);
            }
            StoreAsk::NoteLoans { segment, loans, pledges, .. } => {
                // As with a boundary.
                let _ = self.index.note_loans(segment, &loans);
                drop(pledges);
            }
            StoreAsk::Pledge { pledge, runs, .. } => self.index.pledge(pledge, runs),
            StoreAsk::Lease { volume, class } => self.answer_lease(volume, Asked::Own(class)),
            StoreAsk::LeaseFor { volume, segment } => self.answer_lease(volume, Asked::For(segment)),
            StoreAsk::NoteSegment(row) => {
                self.not_spare(row.volume, row.segment);
                // Nothing is lost when it is not noted: the next start finds the segment by its header.
                let _ = self.index.note_segment(*row);
            }
            StoreAsk::Settle { volume, settled } => {
                self.index.settle(volume, settled);
                self.with_compactor(|compactor, context| compactor.look_at(context, volume));
            }
            StoreAsk::Unpinned { volume, segment } => {
                self.with_compactor(|compactor, context| compactor.unpinned(context, volume, segment));
            }
            StoreAsk::Closed { volume } => {
                self.waiting.forget(volume);
                let failed = self.waiting.take_failed(&self.index, volume);
                self.fail(failed);
                self.parked.retain(|(asker, _)| *asker != volume);
                self.give_back_spare(volume);
                self.with_compactor(|compactor, context| compactor.closed(context, volume));
            }
            StoreAsk::Release { segment, .. } => {
                // Its slot stays taken then, until the next start finds its header void.
                let _ = self.index.release(segment);
                self.is_full = false;
            }
        }
    }

    /// Carries out a question about a map, now or when the store has what the volume inherits.
    fn take_map(&mut self, volume: VolumeId, ask: MapAsk) {
        if let Some(ask) = self.waiting.ask(&self.index, volume, ask) {
            self.carry_out(ask);
        } else if self.waiting.len() == 1 {
            // What began to wait now has a whole round before it.
            self.next_tick = Instant::now() + TICK;
        }
    }

    fn carry_out(&mut self, ask: MapAsk) {
        match ask {
            MapAsk::Load { volume, page } => {
                let result = self.index.load_page(volume, page);
                self.events.push((volume, Event::PageLoaded { page, result }));
            }
            MapAsk::Changes { volume, id, since, pages, runs_max } => {
                let result = self.index.changes(volume, since, pages, runs_max);
                self.events.push((volume, Event::ChangesLoaded { id, result }));
            }
            MapAsk::WriteBack { volume, id, generation, pages, folded } => {
                let result = self.index.write_back(volume, generation, &pages, folded);
                self.events.push((volume, Event::WroteBack { id, result }));
                let next = match result {
                    Ok(()) => self.waiting.take_ready(&self.index),
                    Err(_) => {
                        let failed = self.waiting.take_failed(&self.index, volume);
                        self.fail(failed);
                        Vec::new()
                    }
                };
                next.into_iter().for_each(|ask| self.carry_out(ask));
                self.with_compactor(|compactor, context| compactor.look_at(context, volume));
            }
        }
    }

    /// Answers questions whose volumes' parents cannot write back.
    fn fail(&mut self, asks: Vec<MapAsk>) {
        let fault = DiskFault::Io;
        self.events.extend(asks.into_iter().map(|ask| match ask {
            MapAsk::Load { volume, page } => (volume, Event::PageLoaded { page, result: Err(fault) }),
            MapAsk::Changes { volume, id, .. } => {
                (volume, Event::ChangesLoaded { id, result: Err(ChangesError::Store(fault)) })
            }
            MapAsk::WriteBack { volume, id, .. } => (volume, Event::WroteBack { id, result: Err(fault) }),
        }));
    }

    /// Leases a slot, now or when one has been freed.
    fn answer_lease(&mut self, volume: VolumeId, asked: Asked) {
        let result = match asked {
            Asked::Own(class) => self.lease(class),
            Asked::For(segment) => {
                self.lease(LeaseClass::Data).and_then(|lease| self.index.rename_lease(lease, segment))
            }
        };
        match result {
            // What bears another site's id is had again under that id, if it is not used.
            Ok(lease) if matches!(asked, Asked::Own(_)) => self.spare.entry(volume).or_default().push(lease),
            Ok(_) => {}
            Err(DiskFault::NoSpace) if self.may_gain_slots(volume) || self.jobs.is_deleting() => {
                self.parked.push_back((volume, asked));
                return;
            }
            // No write fails for history's sake. The system volume does not wait: what gives history up is written there.
            Err(DiskFault::NoSpace)
                if volume != VolumeId::SYSTEM && self.index.has_history() && self.on_starving.is_some() =>
            {
                self.parked.push_back((volume, asked));
                self.on_starving.iter().for_each(|call| call());
                return;
            }
            Err(_) => {}
        }
        let event = match asked {
            Asked::Own(_) => Event::Leased { result },
            Asked::For(segment) => Event::LeasedFor { segment, result },
        };
        self.events.push((volume, event));
    }

    /// What a volume that is closed has leased and not begun to fill.
    fn give_back_spare(&mut self, volume: VolumeId) {
        for lease in self.spare.remove(&volume).unwrap_or_default() {
            self.index.give_back(lease);
        }
    }

    /// Whether slots may become free soon.
    fn may_gain_slots(&mut self, asker: VolumeId) -> bool {
        if !self.compactor.is_freeing(&self.index) {
            self.ask_to_seal(Some(asker));
        }
        self.compactor.is_freeing(&self.index) || self.sealing.may_give(Instant::now())
    }

    /// Asks volumes that rest to seal their open segments.
    fn ask_to_seal(&mut self, asker: Option<VolumeId>) {
        let open = self.index.open_segments().filter(|(volume, _)| Some(*volume) != asker).collect();
        let asked = self.sealing.ask(Instant::now(), open);
        self.events.extend(asked.into_iter().map(|volume| (volume, Event::SlotsFew)));
    }

    fn lease(&mut self, class: LeaseClass) -> Result<Lease, DiskFault> {
        self.last_lease = Instant::now();
        if let Some(lease) = self.ready.pop_front() {
            // Others were given out while it was made ready, and recovery takes the higher of a volume's ids for the newer.
            return self.index.renew(lease);
        }
        self.lease_with_space(class)
    }

    fn lease_with_space(&mut self, class: LeaseClass) -> Result<Lease, DiskFault> {
        let mut allocation = Allocation { space: &self.space, with_space: &mut self.with_space, refusal: None };
        let kept_back = self.index.kept_back(LeaseClass::Data).min(RESERVE_WITH_SPACE_MAX) as usize;
        // Data leaves slots with space to trims, which must go on when the host is full.
        let has_room = class != LeaseClass::Data
            || self.index.free_slots().filter(|slot| allocation.of(*slot).is_ok()).nth(kept_back).is_some();
        let leased = if has_room {
            self.index.lease_where(class, |slot| allocation.of(slot))
        } else {
            // Where the index has no more free slots than these, that is the reason.
            Err(allocation.refusal.as_ref().map_or(DiskFault::NoSpace, fault_of))
        };
        let refusal = allocation.refusal;
        if leased.is_ok() || refusal.is_some() {
            self.tell_of_space(refusal.as_ref());
        }
        leased
    }

    /// Logs it when the host's file system begins to refuse slots, and when it ends.
    fn tell_of_space(&mut self, refusal: Option<&io::Error>) {
        let pool = self.pool.path().display();
        match refusal {
            Some(error) if !self.is_host_full => {
                tracing::warn!(%pool, %error, "cannot allocate new slots: those that have their space are used");
            }
            None if self.is_host_full => tracing::info!(%pool, "every slot that was asked for has its space again"),
            _ => {}
        }
        self.is_host_full = refusal.is_some();
    }

    /// A volume has begun to fill what it had leased.
    fn not_spare(&mut self, volume: VolumeId, segment: SegmentId) {
        if let Some(leases) = self.spare.get_mut(&volume) {
            leases.retain(|lease| lease.segment != segment);
            if leases.is_empty() {
                self.spare.remove(&volume);
            }
        }
    }

    /// Leases a slot ahead, and has it filled when that spares its user something.
    fn prepare_ahead(&mut self) {
        while self.ahead_count() < AHEAD_COUNT {
            let Ok(lease) = self.lease_with_space(LeaseClass::Data) else {
                self.is_full = true;
                return;
            };
            if self.space.wants_writing(lease.slot) && self.helpers.preparer.send(Wanted(lease)).is_ok() {
                self.preparing_count += 1;
            } else {
                self.ready.push_back(lease);
            }
        }
    }

    pub(super) fn on_prepared(&mut self, lease: Lease) {
        self.preparing_count -= 1;
        self.ready.push_back(lease);
    }

    fn ahead_count(&self) -> usize {
        self.ready.len() + self.preparing_count
    }

    /// The pool's figures; what is leased ahead counts as free.
    pub(super) fn figures(&self) -> PoolFigures {
        let mut figures = self.index.figures();
        let ahead = u32::try_from(self.ahead_count()).unwrap_or(0);
        figures.slots_free += ahead;
        figures.slots_used = figures.slots_used.saturating_sub(ahead);
        figures.compaction = self.compactor.figures().clone();
        figures
    }

    /// Keeps the logs of volumes whole behind these operations, and of no other.
    pub(super) fn keep_history(&mut self, (history, ends_beginning): &Histories) {
        if *ends_beginning {
            self.index.end_beginning();
        }
        let mut less = self.index.keep_history(history);
        // Those who wait for a slot are told of it either way.
        less.extend(self.parked.front().map(|(volume, _)| *volume));
        less.into_iter()
            .for_each(|volume| self.with_compactor(|compactor, context| compactor.look_at(context, volume)));
    }

    pub(super) fn on_starving(&mut self, call: Option<Starved>) {
        self.on_starving = call;
        // Answers those who wait.
        self.with_compactor(|_, _| {});
    }

    /// Has the index answer what no volume asks.
    pub(super) fn answer(&mut self, question: Question) {
        question(&mut self.index);
    }

    /// Gives every segment of a volume back and forgets it; `done` is told when that is durable.
    pub(super) fn erase(&mut self, volume: VolumeId, done: Callback<Result<(), EraseError>>) {
        self.erasing.insert(volume, done);
        self.with_compactor(|compactor, context| compactor.erase(context, volume));
    }

    fn on_erased(&mut self, volume: VolumeId, result: Result<(), EraseError>) {
        if result.is_ok() {
            // The volume's engine is gone, and nothing was written to these.
            self.give_back_spare(volume);
        }
        if let Some(done) = self.erasing.remove(&volume) {
            done(result);
        }
    }

    /// Gives back what was leased ahead and makes everything durable.
    pub(super) fn close(mut self) {
        for lease in std::mem::take(&mut self.ready) {
            self.index.give_back(lease);
        }
        if let Err(fault) = self.index.into_store().close() {
            tracing::error!(%fault, "the index was not closed in order");
        }
    }
}
