//! A site: a disk, a store, an index, a volume, a compactor and, while it is sent segments, a receiver. What they want is carried out
//! one by one, in an order of chance.

use crate::disk::{SimDisk, WriteNumber};
use crate::fuse::Fuse;
use crate::random::Random;
use crate::store::SimStore;
use crate::trace::Finding;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use units::{BLOCK_LEN, Lsn, MeterTime, Monotonic, PoolId, VolumeId};
use volume::buffer::{Buffer, BufferPool};
use volume::check::{CheckOptions, Problem, ProblemKind, check};
use volume::compact::{self, Compactor, News};
use volume::engine::{Context, Volume, VolumeConfig};
use volume::error::DiskFault;
use volume::format::{Geometry, Superblock};
use volume::io::{Action, Event, FetchPiece, IoId};
use volume::pool::{Boundary, Index, LeaseClass, PeerBehind};
use volume::rebuild::{Families, rebuild_with};
use volume::recover::{self, Recovered, Terms};
use volume::request::{Completion, Request, RequestId};
use volume::resync::{Part, Receiver, Refusal, Taken};

/// The volume that both sites have.
pub(super) const VOLUME: VolumeId = VolumeId(3);

/// Its size when it is made.
pub(super) const SIZE_BYTES: u64 = 1 << 30;

const GEOMETRY: Geometry = Geometry { slot_bytes: 128 << 10, slot_count: 160 };

/// Who wants something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Volume,
    Compactor,
    Receiver,
}

#[derive(Debug)]
enum Transfer {
    Append { buffers: Vec<Buffer>, number: Option<WriteNumber>, result: Result<(), DiskFault> },
    Fetch { buffer: Buffer, pieces: Vec<FetchPiece> },
    Sync { covered: BTreeSet<WriteNumber>, result: Result<(), DiskFault> },
}

/// What the catalogue of a site says, durably.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    /// A resync is under way, and the log ends here.
    pub(super) resync: Option<Lsn>,
    /// The ends of generations that snapshots need.
    pub(super) boundaries: Vec<Boundary>,
}

pub(super) struct Station {
    pub(super) disk: SimDisk,
    store: SimStore,
    pub(super) superblock: Superblock,
    number: u8,
    pub(super) index: Option<Index<SimStore>>,
    pub(super) volume: Option<Volume>,
    compactor: Compactor,
    pub(super) receiver: Option<Receiver>,
    transfers: BTreeMap<(Owner, IoId), Transfer>,
    asked: VecDeque<(Owner, Action)>,
    replies: BTreeMap<RequestId, Result<Completion, String>>,
    buffers: BufferPool,
    now: u64,
    next_request: u64,
    pub(super) records: Records,
    /// What a peer that is behind needs.
    pub(super) peer: Option<PeerBehind>,
    /// Its log is kept whole behind this.
    pub(super) floor: Option<Lsn>,
    /// Of a thousand appends of the receiver so many fail; and of its syncs.
    pub(super) receiver_faults: (u32, u32),
    pub(super) fell_out: bool,
}

type Checked<T = ()> = Result<T, Finding>;

fn unexplained(why: impl std::fmt::Display) -> Finding {
    Finding(format!("P6: nothing explains: {why}"))
}

impl Station {
    pub(super) fn new(number: u8, random: &mut Random) -> Checked<Self> {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.bits().to_le_bytes());
        let superblock = Superblock { pool: PoolId(id), geometry: GEOMETRY, generation: 1, created_ms: 0 };
        let store = SimStore::new(random.fork(), Fuse::default());
        let mut index = Index::create(store.clone(), &superblock).map_err(unexplained)?;
        index.set_site(number);
        Ok(Self {
            disk: SimDisk::new(GEOMETRY.pool_bytes(), random.fork()),
            store,
            superblock,
            number,
            index: Some(index),
            volume: None,
            compactor: Compactor::default(),
            receiver: None,
            transfers: BTreeMap::new(),
            asked: VecDeque::new(),
            replies: BTreeMap::new(),
            buffers: BufferPool::new(8 << 20),
            now: 1_000_000,
            next_request: 1,
            records: Records::default(),
            peer: None,
            floor: None,
            receiver_faults: (0, 0),
            fell_out: false,
        })
    }

    /// Ends its life.
    pub(super) fn die(&mut self, is_power_cut: bool, random: &mut Random) {
        self.volume = None;
        self.index = None;
        self.receiver = None;
        self.compactor = Compactor::default();
        self.transfers.clear();
        self.asked.clear();
        self.fell_out = false;
        if is_power_cut {
            self.disk.power_cut(false, random);
            self.store.power_cut(random);
        }
        // After a failed sync the page cache may show what the medium has not.
        self.disk.drop_cache();
    }

    /// Opens the index, or with `is_store_lost` makes it anew from the pool.
    pub(super) fn start(&mut self, is_store_lost: bool, random: &mut Random) -> Checked {
        self.sync_all();
        if is_store_lost {
            self.store = SimStore::new(random.fork(), Fuse::default());
            let boundaries = self.records.boundaries.iter().map(|boundary| (VOLUME, *boundary));
            let families = Families::new(BTreeMap::new(), boundaries.collect::<Vec<_>>());
            let resyncs = self.records.resync.iter().map(|from| (VOLUME, *from)).collect();
            let families = families.with_resyncs(resyncs);
            let rebuilt = rebuild_with(self.store.clone(), &self.superblock, &self.disk, |_| families);
            let (_, report) = rebuilt.map_err(unexplained)?;
            // Of a pack that was being written when the power was cut a part may be there, of one that was kept all.
            let is_odd = !report.notes.is_empty() && self.records.resync.is_none();
            if !report.damaged.is_empty() || is_odd {
                return Err(Finding(format!("P1: a rebuild tells {:?}, {:?}", report.damaged, report.notes)));
            }
            for (offset, bytes) in report.mends {
                self.disk.write(offset, bytes);
            }
            self.sync_all();
        }
        let opened = Index::open(self.store.clone(), &self.superblock, &self.disk);
        let mut index = opened.map_err(unexplained)?;
        index.set_site(self.number);
        // Durable: an index that was made anew is there to stay.
        index.note_generation(self.superblock.generation + 1).map_err(unexplained)?;
        self.superblock.generation += 1;
        index.keep_for_peer(VOLUME, self.peer);
        let floors = self.floor.iter().map(|floor| (VOLUME, *floor)).collect();
        index.keep_history(&floors);
        self.index = Some(index);
        self.with_compactor(Compactor::open, random);
        Ok(())
    }

    fn sync_all(&mut self) {
        let covered = self.disk.all_unsynced();
        self.disk.end_sync(&covered);
    }

    /// Keeps for a peer, from now on.
    pub(super) fn keep_for(&mut self, peer: Option<PeerBehind>) {
        self.peer = peer;
        self.index.iter_mut().for_each(|index| index.keep_for_peer(VOLUME, peer));
    }

    /// Keeps the log whole behind an operation, from now on.
    pub(super) fn keep_whole(&mut self, floor: Option<Lsn>) {
        self.floor = floor;
        let floors = floor.iter().map(|floor| (VOLUME, *floor)).collect();
        self.index.iter_mut().for_each(|index| drop(index.keep_history(&floors)));
    }

    /// Finds the end of the log, and carries out what that asks for.
    pub(super) fn recover(&mut self, goes_on: bool) -> Checked<Recovered> {
        let index = self.index.as_mut().expect("the site is up");
        let known = index.known(VOLUME, SIZE_BYTES);
        let terms = Terms { limit: Lsn(u64::MAX), goes_on };
        let recovered = recover::recover_by(&self.disk, &self.superblock, &known, terms);
        let mut recovered = recovered.map_err(|damage| Finding(format!("P1: nothing explains {damage} ")))?;
        for (offset, bytes) in std::mem::take(&mut recovered.writes) {
            self.disk.write(offset, bytes);
        }
        self.sync_all();
        let index = self.index.as_mut().expect("the site is up");
        recovered.sealed.iter().try_for_each(|row| index.note_segment(*row)).map_err(unexplained)?;
        recovered.voided.iter().try_for_each(|segment| index.release(*segment)).map_err(unexplained)?;
        let noted = index.note_recovered_boundaries(VOLUME, recovered.next_lsn, &recovered.boundaries);
        noted.map_err(unexplained)?;
        Ok(recovered)
    }

    /// Opens the volume without a role.
    pub(super) fn open(&mut self, recovered: Recovered) {
        let config = VolumeConfig {
            pool: self.superblock.pool,
            geometry: GEOMETRY,
            appends_in_flight_max: 2,
            map_limit_bytes: 1 << 20,
            unfolded_segments_max: 3,
            write_back_pages_max: 4,
            shared_piece_blocks_min: 1,
            is_metered: true,
        };
        let mut volume = Volume::open(config, recovered);
        volume.freeze();
        self.volume = Some(volume);
    }

    pub(super) fn open_fresh(&mut self) {
        self.open(recover::fresh(VOLUME, SIZE_BYTES));
    }

    pub(super) fn index(&self) -> &Index<SimStore> {
        self.index.as_ref().expect("the site is up")
    }

    pub(super) fn tell(&mut self, event: Event, random: &mut Random) {
        self.with_volume(|volume, context| volume.handle(context, event), random);
        self.with_volume(Volume::poll_append, random);
    }

    fn with_volume(&mut self, call: impl FnOnce(&mut Volume, &mut Context<'_>), random: &mut Random) {
        let Some(mut volume) = self.volume.take() else { return };
        let mut actions = Vec::new();
        let (now, wall_ms) = (Monotonic(self.now * 1_000_000), self.now);
        let meter = MeterTime(wall_ms);
        call(&mut volume, &mut Context { now, wall_ms, meter, buffers: &mut self.buffers, actions: &mut actions });
        self.volume = Some(volume);
        actions.into_iter().for_each(|action| self.begin(Owner::Volume, action, random));
    }

    pub(super) fn with_compactor<T>(
        &mut self,
        act: impl FnOnce(&mut Compactor, &mut compact::Context<'_, SimStore>) -> T,
        random: &mut Random,
    ) -> T {
        let (mut actions, mut news) = (Vec::new(), Vec::new());
        let index = self.index.as_mut().expect("the site is up");
        let told = act(&mut self.compactor, &mut compact::Context { index, actions: &mut actions, news: &mut news });
        actions.into_iter().for_each(|action| self.begin(Owner::Compactor, action, random));
        for news in news {
            if let News::Tell(_, event) = news {
                // A volume that is closed has answered.
                self.tell(event, random);
            }
        }
        told
    }

    fn with_receiver<T>(
        &mut self,
        act: impl FnOnce(&mut Receiver, &mut compact::Context<'_, SimStore>) -> T,
        random: &mut Random,
    ) -> Option<T> {
        let mut receiver = self.receiver.take()?;
        let (mut actions, mut news) = (Vec::new(), Vec::new());
        let index = self.index.as_mut().expect("the site is up");
        let told = act(&mut receiver, &mut compact::Context { index, actions: &mut actions, news: &mut news });
        let given_up = receiver.take_given_up();
        self.receiver = Some(receiver);
        actions.into_iter().for_each(|action| self.begin(Owner::Receiver, action, random));
        self.with_compactor(|compactor, context| compactor.void_packs(context, &given_up), random);
        Some(told)
    }

    /// Gives a part to the receiver.
    pub(super) fn take(&mut self, part: Part, random: &mut Random) -> Result<Taken, Refusal> {
        let taken = self.with_receiver(|receiver, context| receiver.take(context, part), random);
        taken.unwrap_or(Ok(Taken::Busy))
    }

    pub(super) fn finish(&mut self, random: &mut Random) {
        self.with_receiver(Receiver::finish, random);
    }

    fn begin(&mut self, owner: Owner, action: Action, random: &mut Random) {
        match action {
            Action::Append { id, pool_offset, buffers, .. } => {
                let mut bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.as_slice()).copied().collect();
                let fails = owner == Owner::Receiver && random.chance(self.receiver_faults.0);
                if fails {
                    bytes.truncate(random.below((bytes.len() / BLOCK_LEN) as u64 + 1) as usize * BLOCK_LEN);
                }
                let number = (!bytes.is_empty()).then(|| self.disk.write(pool_offset, bytes));
                let result = if fails { Err(DiskFault::Io) } else { Ok(()) };
                self.transfers.insert((owner, id), Transfer::Append { buffers, number, result });
            }
            Action::Fetch { id, buffer, pieces, .. } => {
                self.transfers.insert((owner, id), Transfer::Fetch { buffer, pieces: pieces.into_vec() });
            }
            Action::Sync { id } => {
                let covered = self.disk.begin_sync(random);
                let fails = owner == Owner::Receiver && random.chance(self.receiver_faults.1);
                if fails {
                    self.disk.fail_sync(&covered, random);
                }
                let result = if fails { Err(DiskFault::Io) } else { Ok(()) };
                self.transfers.insert((owner, id), Transfer::Sync { covered, result });
            }
            Action::Reply(reply) => {
                self.replies.insert(reply.id, reply.result.map_err(|error| error.to_string()));
            }
            Action::FellOut { .. } => self.fell_out = true,
            Action::SyncPeer { .. } | Action::TellPrimary(_) => {}
            asked @ (Action::LoadPage { .. }
            | Action::LoadPlace { .. }
            | Action::LoadChanges { .. }
            | Action::WriteBack { .. }
            | Action::NoteBoundary(_)
            | Action::NoteLoans { .. }
            | Action::Pledge { .. }
            | Action::Lease { .. }
            | Action::LeaseFor { .. }
            | Action::NoteSegment(_)
            | Action::Settle(_)
            | Action::Unpinned { .. }
            | Action::Release { .. }) => self.asked.push_back((owner, asked)),
        }
    }

    fn give(&mut self, owner: Owner, event: Event, random: &mut Random) {
        match owner {
            Owner::Volume => self.tell(event, random),
            Owner::Compactor => self.with_compactor(|compactor, context| compactor.handle(context, event), random),
            Owner::Receiver => {
                self.with_receiver(|receiver, context| receiver.handle(context, event), random);
            }
        }
    }

    /// Takes one step of what is under way; `false` when nothing is.
    pub(super) fn step(&mut self, random: &mut Random) -> bool {
        if self.index.is_none() {
            return false;
        }
        let wants_turn = self.compactor.wants_turn(self.index());
        let choices = [!self.transfers.is_empty(), !self.asked.is_empty(), wants_turn];
        let choices: Vec<usize> = (0..3).filter(|choice| choices[*choice]).collect();
        if choices.is_empty() {
            return false;
        }
        match random.pick(&choices) {
            0 => {
                let at = random.below(self.transfers.len() as u64) as usize;
                let key = *self.transfers.keys().nth(at).expect("it is one of them");
                let event = self.end(key);
                self.give(key.0, event, random);
            }
            1 => self.take_asked(random),
            _ => self.with_compactor(Compactor::turn, random),
        }
        true
    }

    /// Time passes.
    pub(super) fn tick(&mut self, random: &mut Random) {
        self.now += random.within(1, 700);
        if self.index.is_none() {
            return;
        }
        self.with_compactor(Compactor::tick, random);
        self.with_receiver(Receiver::tick, random);
        if self.volume.is_some() && random.chance(300) {
            self.tell(Event::Tick, random);
        }
    }

    fn end(&mut self, key: (Owner, IoId)) -> Event {
        let id = key.1;
        match self.transfers.remove(&key).expect("it is under way") {
            Transfer::Append { buffers, number, result } => {
                number.into_iter().for_each(|number| self.disk.end_write(number));
                Event::Appended { id, buffers, result }
            }
            Transfer::Fetch { mut buffer, pieces } => {
                for FetchPiece { pool_offset, buffer_offset, len } in pieces {
                    let found = self.disk.bytes(pool_offset, len);
                    buffer.as_mut_slice()[buffer_offset..buffer_offset + len].copy_from_slice(found);
                }
                Event::Fetched { id, buffer, result: Ok(()) }
            }
            Transfer::Sync { covered, result } => {
                if result.is_ok() {
                    self.disk.end_sync(&covered);
                }
                Event::Synced { id, result }
            }
        }
    }

    fn take_asked(&mut self, random: &mut Random) {
        let Some((owner, action)) = self.asked.pop_front() else { return };
        let index = self.index.as_mut().expect("the site is up");
        let sound = |result: Result<(), DiskFault>| result.expect("the store of this world does not fail");
        let event = match action {
            Action::LoadPage { page } => Event::PageLoaded { page, result: index.load_page(VOLUME, page) },
            Action::WriteBack { id, generation, pages, folded } => {
                let result = index.write_back(VOLUME, generation, &pages, folded);
                self.with_compactor(|compactor, context| compactor.look_at(context, VOLUME), random);
                Event::WroteBack { id, result }
            }
            Action::Lease { class } => Event::Leased { result: index.lease(class) },
            Action::LeaseFor { segment } => {
                let lease = index.lease(LeaseClass::Data).and_then(|lease| index.rename_lease(lease, segment));
                Event::LeasedFor { segment, result: lease }
            }
            Action::NoteSegment(row) => return sound(index.note_segment(*row)),
            Action::NoteBoundary(boundary) => return sound(index.note_boundary(VOLUME, boundary)),
            Action::Release { segment } => return sound(index.release(segment)),
            Action::Settle(settled) => {
                index.settle(VOLUME, settled);
                return self.with_compactor(|compactor, context| compactor.look_at(context, VOLUME), random);
            }
            Action::Unpinned { segment } => {
                return self.with_compactor(|compactor, context| compactor.unpinned(context, VOLUME, segment), random);
            }
            Action::Pledge { .. }
            | Action::NoteLoans { .. }
            | Action::LoadPlace { .. }
            | Action::LoadChanges { .. }
            | Action::Append { .. }
            | Action::Fetch { .. }
            | Action::Sync { .. }
            | Action::Reply(_)
            | Action::SyncPeer { .. }
            | Action::TellPrimary(_)
            | Action::FellOut { .. } => return,
        };
        self.give(owner, event, random);
    }

    /// Asks the volume, and waits for the answer.
    pub(super) fn ask(&mut self, request: Request, random: &mut Random) -> Checked<Completion> {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.tell(Event::Request { id, request }, random);
        for _ in 0..200_000 {
            if let Some(answer) = self.replies.remove(&id) {
                return answer.map_err(unexplained);
            }
            if !self.step(random) {
                self.tick(random);
            }
        }
        Err(Finding("P6: a request is never answered".to_owned()))
    }

    /// Lets the volume come to rest.
    pub(super) fn settle(&mut self, random: &mut Random) -> Checked {
        for _ in 0..200_000 {
            let is_idle = self.volume.as_ref().is_none_or(Volume::is_idle);
            let has_own = self.transfers.keys().any(|(owner, _)| *owner == Owner::Volume);
            if is_idle && !has_own && self.asked.is_empty() {
                return Ok(());
            }
            if !self.step(random) {
                self.tick(random);
            }
        }
        Err(Finding("P6: a site never comes to rest".to_owned()))
    }

    /// Drops what is kept aside, and waits until it is void; only then the record of the resync goes.
    pub(super) fn drop_resync(&mut self, random: &mut Random) -> Checked {
        let index = self.index.as_mut().expect("the site is up");
        let packs = index.drop_asides(VOLUME).map_err(unexplained)?;
        self.with_compactor(|compactor, context| compactor.void_packs(context, &packs), random);
        for _ in 0..20_000 {
            if self.index().empty_packs().is_empty() {
                self.records.resync = None;
                return Ok(());
            }
            if !self.step(random) {
                self.tick(random);
            }
        }
        Err(Finding("P6: what was dropped is never void".to_owned()))
    }

    /// Lets everything come to rest.
    pub(super) fn quiesce(&mut self, random: &mut Random) -> Checked {
        for _ in 0..20_000 {
            let is_idle = self.volume.as_ref().is_none_or(Volume::is_idle) && self.compactor.is_idle(self.index());
            if is_idle && self.transfers.is_empty() && self.asked.is_empty() {
                return Ok(());
            }
            if !self.step(random) {
                self.tick(random);
            }
        }
        Err(Finding("P6: a site never comes to rest".to_owned()))
    }

    /// The pool and its index are as they ought to be.
    pub(super) fn check(&self) -> Checked {
        let report = check(self.index(), &self.disk, CheckOptions { verify_data: true });
        // This world has no superblocks.
        let is_it = |problem: &&Problem| problem.kind != ProblemKind::Superblock;
        let problem = report.problems.iter().find(is_it);
        problem.map_or(Ok(()), |problem| Err(Finding(format!("P2: a check finds {problem}"))))
    }

    /// Takes the volume off.
    pub(super) fn close(&mut self, random: &mut Random) {
        self.volume = None;
        self.transfers.retain(|(owner, _), _| *owner != Owner::Volume);
        self.asked.retain(|(owner, _)| *owner != Owner::Volume);
        self.with_compactor(|compactor, context| compactor.closed(context, VOLUME), random);
    }
}
