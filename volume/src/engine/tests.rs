//! The state machine, driven by hand over a pool in memory. Faults in quantity are the simulator's work.

mod changes;
mod compare;
mod copy;
mod idle;
mod mirror;
mod places;

use super::*;
use crate::buffer::Buffer;
use crate::format::Cut;
use crate::format::{POOL_DATA_OFFSET, SlotHeader, SlotUse, decode_batch};
use crate::io::{FellOut, FetchPiece, LoadedPage, ToPeer};
use crate::map::Location;
use crate::pool::{Boundary, Folded, Lease, LeaseClass, Loan, Pledge};
use crate::pool::{Home, ParcelPlace, Parcels, Parent, Settled};
use crate::recover;
use crate::request::Extent;
use units::{ByteRange, MeterTime, SlotIndex, SnapshotId};

mod hold;
mod time;

const SLOT_BYTES: u64 = 64 << 10;
const MIB: u64 = 1 << 20;

/// What the store hears of generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Boundary(Boundary),
    Pages { generation: u64, count: usize, folded: Folded },
}

/// A question of what has changed.
type AskedChanges = (IoId, Parent, std::ops::Range<PageIndex>, usize);

/// A driver that carries actions out when it is told to.
struct Driver {
    volume: Volume,
    pool: Vec<u8>,
    buffers: BufferPool,
    queue: Vec<Action>,
    slots_left: u32,
    next_segment: u64,
    replies: BTreeMap<u64, Result<Completion, Error>>,
    next_request: u64,
    synced: u32,
    /// Boundaries and the generations of pages, as the store was told them.
    told: Vec<Told>,
    /// The blocks that the pages of generation 0 name.
    first_generation: std::collections::BTreeSet<u64>,
    append_faults: Vec<DiskFault>,
    is_sync_failing: bool,
    is_store_failing: bool,
    refuses_voids: bool,
    released: Vec<SegmentId>,
    /// What segments borrow, as the store was told.
    loans: Vec<(SegmentId, Vec<Loan>)>,
    /// What it has pledged.
    pledged: Vec<(Pledge, Vec<(Location, u32)>)>,
    asked_changes: Vec<AskedChanges>,
    unpinned: u32,
    settled: Vec<Settled>,
    /// Pages of the map that the store has.
    pages: BTreeMap<PageIndex, Vec<u8>>,
    /// Segments whose places it wants to know.
    asked_places: Vec<SegmentId>,
    /// Batches for the peer.
    sent: std::collections::VecDeque<Vec<Buffer>>,
    /// What the peer is to make durable.
    asked_syncs: Vec<Lsn>,
    /// How far the primary was told that the log is.
    told_primary: Option<PeerLog>,
    fell_out: Vec<FellOut>,
    /// While set, fetches stay in the queue.
    holds_fetches: bool,
    /// While set, appends stay in the queue.
    holds_appends: bool,
    now: u64,
    wall_ms: u64,
    meter: MeterTime,
}

impl Driver {
    fn new(slots: u32) -> Self {
        Self::with_slots(slots, SLOT_BYTES)
    }

    fn with_slots(slots: u32, slot_bytes: u64) -> Self {
        let geometry = Geometry { slot_bytes, slot_count: slots };
        let config = VolumeConfig {
            pool: PoolId([1; 16]),
            geometry,
            appends_in_flight_max: 4,
            map_limit_bytes: MIB as usize,
            unfolded_segments_max: 4,
            write_back_pages_max: 256,
            shared_piece_blocks_min: 1,
            is_metered: false,
        };
        Self {
            volume: Volume::open(config, recover::fresh(VolumeId(7), 4 * MIB)),
            pool: vec![0; (POOL_DATA_OFFSET + slot_bytes * u64::from(slots)) as usize],
            buffers: BufferPool::new(1 << 20),
            queue: Vec::new(),
            slots_left: slots,
            next_segment: 1,
            replies: BTreeMap::new(),
            next_request: 1,
            synced: 0,
            told: Vec::new(),
            first_generation: std::collections::BTreeSet::new(),
            append_faults: Vec::new(),
            is_sync_failing: false,
            is_store_failing: false,
            refuses_voids: false,
            released: Vec::new(),
            loans: Vec::new(),
            pledged: Vec::new(),
            asked_changes: Vec::new(),
            unpinned: 0,
            settled: Vec::new(),
            pages: BTreeMap::new(),
            asked_places: Vec::new(),
            sent: std::collections::VecDeque::new(),
            asked_syncs: Vec::new(),
            told_primary: None,
            fell_out: Vec::new(),
            holds_fetches: false,
            holds_appends: false,
            now: 0,
            wall_ms: 0,
            meter: MeterTime(0),
        }
    }

    fn give(&mut self, event: Event) {
        let mut context = Context {
            now: Monotonic(self.now),
            wall_ms: self.wall_ms,
            meter: self.meter,
            buffers: &mut self.buffers,
            actions: &mut self.queue,
        };
        self.volume.handle(&mut context, event);
    }

    fn ask(&mut self, request: Request) -> u64 {
        let id = self.next_request;
        self.next_request += 1;
        self.give(Event::Request { id: RequestId(id), request });
        id
    }

    fn poll(&mut self) {
        self.poll_up_to(false);
    }

    fn poll_up_to(&mut self, is_one: bool) {
        let mut context = Context {
            now: Monotonic(self.now),
            wall_ms: self.wall_ms,
            meter: self.meter,
            buffers: &mut self.buffers,
            actions: &mut self.queue,
        };
        if is_one { self.volume.poll_one_append(&mut context) } else { self.volume.poll_append(&mut context) }
    }

    /// Carries out all that can be, until nothing is left.
    fn run(&mut self) {
        loop {
            self.poll();
            let is_held = |action: &Action| {
                (self.holds_appends && matches!(action, Action::Append { .. }))
                    || (self.holds_fetches && matches!(action, Action::Fetch { .. }))
            };
            let ready = self.queue.iter().position(|action| !is_held(action));
            let Some(at) = ready else { return };
            let action = self.queue.remove(at);
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Append { id, pool_offset, buffers, to_peer } => {
                if let Some(ToPeer { first_buffer, .. }) = to_peer {
                    let batch = buffers.iter().skip(first_buffer);
                    self.sent.push_back(batch.map(|buffer| Buffer::copy_of(buffer.as_slice())).collect());
                }
                let header = SlotHeader::decode(buffers[0].as_slice());
                let is_void = header.is_ok_and(|header| header.slot_use == SlotUse::Void);
                let fault =
                    if is_void && self.refuses_voids { Some(DiskFault::NoSpace) } else { self.append_faults.pop() };
                let result = fault.map_or(Ok(()), Err);
                if result.is_ok() {
                    let mut at = pool_offset as usize;
                    for buffer in &buffers {
                        self.pool[at..at + buffer.len()].copy_from_slice(buffer.as_slice());
                        at += buffer.len();
                    }
                }
                self.give(Event::Appended { id, buffers, result });
            }
            Action::Fetch { id, mut buffer, pieces, .. } => {
                for FetchPiece { pool_offset, buffer_offset, len } in pieces {
                    let from = &self.pool[pool_offset as usize..pool_offset as usize + len];
                    buffer.as_mut_slice()[buffer_offset..buffer_offset + len].copy_from_slice(from);
                }
                self.give(Event::Fetched { id, buffer, result: Ok(()) });
            }
            Action::Sync { id } => {
                self.synced += 1;
                let result = if self.is_sync_failing { Err(DiskFault::Io) } else { Ok(()) };
                self.give(Event::Synced { id, result });
            }
            Action::Reply(reply) => {
                self.replies.insert(reply.id.0, reply.result);
            }
            Action::LoadPage { page } => {
                let stored = self.pages.get(&page).cloned();
                let loaded = stored.map_or(LoadedPage::Absent { next: None }, LoadedPage::Present);
                self.give(Event::PageLoaded { page, result: Ok(loaded) });
            }
            Action::WriteBack { id, generation, pages, folded } => {
                if generation == 0 {
                    self.first_generation.extend(hold::mapped(&pages));
                }
                self.told.push(Told::Pages { generation, count: pages.len(), folded });
                let result = if self.is_store_failing { Err(DiskFault::Io) } else { Ok(()) };
                self.give(Event::WroteBack { id, result });
            }
            Action::LoadPlace { segment } => self.asked_places.push(segment),
            Action::LoadChanges { id, since, pages, runs_max } => self.asked_changes.push((id, since, pages, runs_max)),
            Action::NoteBoundary(boundary) => self.told.push(Told::Boundary(boundary)),
            Action::Lease { class } => self.lease(class),
            Action::LeaseFor { segment } => {
                let result = self.slots_left.checked_sub(1).ok_or(DiskFault::NoSpace);
                self.slots_left = result.unwrap_or(0);
                self.next_segment = self.next_segment.max(segment.0);
                let result = result.map(|slot| Lease { slot: SlotIndex(slot), segment });
                self.give(Event::LeasedFor { segment, result });
            }
            Action::SyncPeer { lsn } => self.asked_syncs.push(lsn),
            Action::TellPrimary(log) => self.told_primary = Some(log),
            Action::FellOut { why } => self.fell_out.push(why),
            Action::Unpinned { .. } => self.unpinned += 1,
            Action::Settle(settled) => self.settled.push(settled),
            Action::Pledge { pledge, runs } => self.pledged.push((pledge, runs)),
            Action::NoteLoans { segment, loans, .. } => self.loans.push((segment, loans)),
            Action::NoteSegment(_) => {}
            Action::Release { segment } => self.released.push(segment),
        }
    }

    fn lease(&mut self, class: LeaseClass) {
        let kept = if class == LeaseClass::Data { 1 } else { 0 };
        let result = if self.slots_left > kept {
            self.slots_left -= 1;
            self.next_segment += 1;
            Ok(Lease { slot: SlotIndex(self.slots_left), segment: SegmentId(self.next_segment) })
        } else {
            Err(DiskFault::NoSpace)
        };
        self.give(Event::Leased { result });
    }

    fn done(&mut self, request: Request) -> Result<(), ErrorKind> {
        let id = self.ask(request);
        self.run();
        self.replies.remove(&id).expect("answered").map(|_| ()).map_err(|error| error.kind)
    }

    fn snapshot(&mut self, id: u64) -> u64 {
        self.ask(Request::Snapshot { id: SnapshotId(id) })
    }

    fn boundary_of(&mut self, id: u64) -> Boundary {
        match self.replies.remove(&id).expect("answered") {
            Ok(Completion::Snapshot(boundary)) => boundary,
            other => panic!("a snapshot was answered by {other:?}"),
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ErrorKind> {
        self.done(write(offset, bytes, false))
    }

    fn read(&mut self, offset: u64, len: u64) -> Result<Vec<u8>, ErrorKind> {
        let id = self.ask(Request::Read { range: range(offset, len) });
        self.run();
        match self.replies.remove(&id).expect("answered") {
            Ok(Completion::Read { buffer, skip, len }) => Ok(buffer.as_slice()[skip..skip + len].to_vec()),
            Ok(other) => panic!("a read was answered by {other:?}"),
            Err(error) => Err(error.kind),
        }
    }
}

fn range(offset: u64, len: u64) -> ByteRange {
    ByteRange::new(offset, len).unwrap()
}

fn write(offset: u64, bytes: &[u8], fua: bool) -> Request {
    let payload = bytes.chunks(crate::request::PIECE_BYTES_MAX).map(Buffer::copy_of).collect();
    Request::Write { range: range(offset, bytes.len() as u64), payload, fua }
}

/// P2.
#[test]
fn what_is_written_is_read_and_what_is_not_is_zero() {
    let mut driver = Driver::new(64);
    driver.write(8192, &[5; 12288]).unwrap();
    assert_eq!(driver.read(4096, 20480).unwrap(), [vec![0; 4096], vec![5; 12288], vec![0; 4096]].concat());
    assert!(driver.volume.is_idle());
}

/// P5. What is trimmed is in the stored map soon, though writes never pause: nobody else knows what was given up.
#[test]
fn trims_are_folded_though_writes_go_on() {
    let folds = |is_trimmed: bool| {
        let mut driver = Driver::new(64);
        for second in 0..15 {
            driver.write(second * 4096, &[1; 4096]).unwrap();
            if is_trimmed && second == 1 {
                driver.done(Request::Trim { range: range(0, 4096), fua: false }).unwrap();
            }
            driver.give(Event::Tick);
            driver.run();
        }
        !driver.told.is_empty()
    };
    assert!(folds(true));
    assert!(!folds(false));
}

/// P2. Neighbouring sectors of one block, written at once, both stay.
#[test]
fn partial_writes_of_one_block_do_not_undo_each_other() {
    let mut driver = Driver::new(64);
    let ids: Vec<u64> = (0..8).map(|n| driver.ask(write(n * 512, &[n as u8 + 1; 512], false))).collect();
    let whole = driver.ask(write(4096, &[9; 4096], false));
    driver.run();
    for id in ids.into_iter().chain([whole]) {
        assert!(driver.replies[&id].is_ok());
    }
    let expected: Vec<u8> = (0..8_u8).flat_map(|n| [n + 1; 512]).collect();
    assert_eq!(driver.read(0, 4096).unwrap(), expected);
    assert_eq!(driver.read(4000, 200).unwrap(), [vec![8; 96], vec![9; 104]].concat());
}

/// P1.
#[test]
fn a_flush_is_answered_after_a_sync_that_began_after_it_and_not_before() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    assert_eq!(driver.synced, 0);
    driver.done(Request::Flush).unwrap();
    assert_eq!(driver.synced, 1);
    driver.done(Request::Flush).unwrap();
    assert_eq!(driver.synced, 1, "nothing new, no sync");
    driver.done(write(0, &[2; 4096], true)).unwrap();
    assert_eq!(driver.synced, 2);
}

/// P1.
#[test]
fn flushes_that_wait_share_one_sync() {
    let mut driver = Driver::new(64);
    let ids: Vec<u64> = (0..8).map(|n| driver.ask(write(n * 4096, &[1; 4096], true))).collect();
    driver.run();
    assert!(ids.iter().all(|id| driver.replies[id].is_ok()));
    assert_eq!(driver.synced, 1);
}

/// P1. A failed sync is never tried again: the pages may be gone and the next sync succeed over the loss.
#[test]
fn a_failed_sync_ends_writing_and_leaves_reading() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    driver.is_sync_failing = true;
    assert_eq!(driver.done(Request::Flush), Err(ErrorKind::Poisoned));
    driver.is_sync_failing = false;
    assert_eq!(driver.done(Request::Flush), Err(ErrorKind::Poisoned));
    assert_eq!(driver.write(0, &[2; 4096]), Err(ErrorKind::Poisoned));
    assert_eq!(driver.read(0, 4096).unwrap(), [1; 4096]);
    assert_eq!(driver.done(Request::Checkpoint), Err(ErrorKind::Poisoned));
    assert!(driver.volume.is_idle());
}

/// P6.
#[test]
fn a_failed_append_goes_on_in_another_segment() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    driver.append_faults = vec![DiskFault::Io];
    let ids: Vec<u64> = (0..4).map(|n| driver.ask(write(n * 4096, &[n as u8 + 2; 4096], false))).collect();
    driver.run();
    assert!(ids.iter().all(|id| driver.replies[id].is_ok()));
    let expected: Vec<u8> = (0..4_u8).flat_map(|n| [n + 2; 4096]).collect();
    assert_eq!(driver.read(0, 16384).unwrap(), expected);
}

/// P6. Where a driver slows writers down, what has gathered goes batch by batch.
#[test]
fn one_batch_goes_at_a_time_when_no_more_is_asked_for() {
    let appended = |is_one: bool| {
        let mut driver = Driver::with_slots(3, 16 * MIB);
        driver.write(0, &[1; 4096]).unwrap();
        // No two of them fit into one batch.
        let len = 3 * MIB;
        let ids = [2, 3].map(|n| driver.ask(write(0, &vec![n; len as usize], false)));
        driver.poll_up_to(is_one);
        let count = driver.queue.iter().filter(|action| matches!(action, Action::Append { .. })).count();
        driver.run();
        assert!(ids.iter().all(|id| driver.replies[id].is_ok()));
        assert!(driver.read(0, len).unwrap().iter().all(|byte| *byte == 3));
        count
    };
    assert_eq!((appended(true), appended(false)), (1, 2));
}

/// P6. The write that failed was not acknowledged, so what was stays.
#[test]
fn a_write_that_the_host_has_no_space_for_leaves_the_old_content() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    driver.append_faults = vec![DiskFault::NoSpace];
    assert_eq!(driver.write(0, &[2; 4096]), Err(ErrorKind::NoSpace));
    assert_eq!(driver.read(0, 4096).unwrap(), [1; 4096]);
    driver.write(0, &[3; 4096]).unwrap();
    assert_eq!(driver.read(0, 4096).unwrap(), [3; 4096]);
}

/// P6.
#[test]
fn a_full_pool_fails_writes_and_serves_reads_and_trims() {
    let mut driver = Driver::new(3);
    let mut written = 0;
    while driver.write(written * 4096, &[7; 4096]).is_ok() {
        written += 1;
    }
    assert!(written > 10);
    assert_eq!(driver.read(0, written * 4096).unwrap(), vec![7; written as usize * 4096]);
    driver.done(Request::Trim { range: range(0, 8192), fua: true }).unwrap();
    assert_eq!(driver.read(0, 12288).unwrap(), [vec![0; 8192], vec![7; 4096]].concat());
    assert!(driver.volume.is_idle());
}

/// P6. What is kept back for trims, other volumes may have used up: each volume keeps room for some of its own.
#[test]
fn a_full_volume_takes_a_trim_when_no_slot_is_left_at_all() {
    // Writes of one block after some of two fill the last slot to the last block, for one of these numbers at least.
    for count in 0..12 {
        let mut driver = Driver::new(3);
        let mut end = 0;
        for len in std::iter::repeat_n(8192, count).chain(std::iter::repeat_n(4096, 40)) {
            if driver.write(end, &vec![7; len as usize]).is_err() {
                break;
            }
            end += len;
        }
        driver.slots_left = 0;
        driver.done(Request::Trim { range: range(0, 4096), fua: true }).unwrap();
        assert_eq!(driver.read(0, 8192).unwrap(), [vec![0; 4096], vec![7; 4096]].concat());
    }
}

/// P6. Deleting a volume writes a record: a full pool must take it.
#[test]
fn the_system_volume_takes_writes_from_what_is_kept_back_from_data() {
    let mut driver = Driver::new(1);
    assert_eq!(driver.write(0, &[7; 4096]), Err(ErrorKind::NoSpace));
    driver.volume = Volume::open(driver.volume.config, recover::fresh(VolumeId::SYSTEM, 4 * MIB));
    driver.write(0, &[7; 4096]).unwrap();
    assert_eq!(driver.read(0, 4096).unwrap(), [7; 4096]);
}

/// P6. A segment that was given up, and whose header the disk refuses to make void, is no space to wait for.
#[test]
fn a_full_pool_that_cannot_give_slots_back_fails_writes_rather_than_let_them_wait() {
    let mut driver = Driver::new(3);
    driver.append_faults = vec![DiskFault::Io];
    driver.refuses_voids = true;
    let ids: Vec<u64> = (0..40).map(|n| driver.ask(write(n * 4096, &[7; 4096], false))).collect();
    for _ in 0..3 {
        driver.run();
        driver.now += 1_000_000_000;
        driver.give(Event::Tick);
    }
    driver.run();
    let last = ids.last().and_then(|id| driver.replies.get(id)).expect("answered");
    assert_eq!(last.as_ref().err().map(|error| error.kind), Some(ErrorKind::NoSpace));
    driver.refuses_voids = false;
    driver.give(Event::Tick);
    driver.run();
    assert_eq!(driver.released, [SegmentId(2)]);
    // Whenever it is made void, and by whom, the header is the same to the last byte.
    let mut void = vec![0; 4096];
    SlotHeader::void(PoolId([1; 16]), SegmentId(2), VolumeId(7), Lsn(1)).encode(&mut void);
    let at = (POOL_DATA_OFFSET + 2 * SLOT_BYTES) as usize;
    assert_eq!(driver.pool[at..at + 4096], void);
}

/// P6. Writes wait for the store when the map has grown too large, and not for one that fails.
#[test]
fn a_store_that_fails_makes_writes_fail_once_the_map_can_grow_no_more() {
    let mut driver = Driver::new(64);
    driver.volume.set_map_limit(0);
    driver.is_store_failing = true;
    driver.write(0, &[1; 4096]).unwrap();
    assert_eq!(driver.write(4096, &[2; 4096]), Err(ErrorKind::Unavailable));
    assert_eq!(driver.read(0, 4096).unwrap(), [1; 4096]);
    driver.is_store_failing = false;
    driver.now += 2_000_000_000;
    driver.write(4096, &[3; 4096]).unwrap();
}

/// P1. What recovery found has been synced: a flush has nothing to wait for, and the first batch tells it, so that rot in
/// what came before is told from a torn end.
#[test]
fn what_was_recovered_is_durable_and_the_first_batch_tells_so() {
    let mut driver = Driver::new(64);
    let recovered = Recovered { next_lsn: Lsn(11), ..recover::fresh(VolumeId(7), 4 * MIB) };
    driver.volume = Volume::open(driver.volume.config, recovered);
    driver.done(Request::Flush).unwrap();
    assert_eq!(driver.synced, 0);
    driver.write(0, &[1; 4096]).unwrap();
    let slot = POOL_DATA_OFFSET + SLOT_BYTES * u64::from(driver.slots_left);
    let (batch, _) = decode_batch(&driver.pool[slot as usize + 4096..]).unwrap();
    assert_eq!((batch.first_lsn, batch.durable_lsn), (Lsn(11), Lsn(10)));
}

/// P2. A read while the batch is in flight gets what is acknowledged.
#[test]
fn a_read_sees_only_what_has_been_acknowledged() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    driver.holds_appends = true;
    let id = driver.ask(write(0, &[2; 4096], false));
    assert_eq!(driver.read(0, 4096).unwrap(), [1; 4096]);
    assert!(!driver.replies.contains_key(&id));
    driver.holds_appends = false;
    driver.run();
    assert_eq!(driver.read(0, 4096).unwrap(), [2; 4096]);
}

/// P2.
#[test]
fn a_block_that_rotted_is_an_error_and_its_neighbour_is_read() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 8192]).unwrap();
    let at = driver.pool.windows(4096).position(|bytes| bytes == [1; 4096]).unwrap();
    driver.pool[at + 100] ^= 1;
    assert_eq!(driver.read(0, 4096), Err(ErrorKind::Corrupt));
    assert_eq!(driver.read(4096, 4096).unwrap(), [1; 4096]);
    assert_eq!(driver.volume.status().corrupt_blocks, 1);
}

/// P2. What came wrong is asked for once more, and then of the device, not of a cache.
#[test]
fn what_came_wrong_is_asked_of_the_device() {
    let mut driver = Driver::new(64);
    driver.write(0, &[7; 8192]).unwrap();
    for wrong in [Ok(()), Err(DiskFault::Io)] {
        driver.holds_fetches = true;
        let read = driver.ask(Request::Read { range: range(0, 8192) });
        driver.run();
        let Action::Fetch { id, mut buffer, is_second_try, .. } = driver.queue.remove(0) else {
            panic!("it is a fetch")
        };
        assert!(!is_second_try);
        buffer.as_mut_slice().fill(0);
        driver.give(Event::Fetched { id, buffer, result: wrong });
        assert!(matches!(driver.queue[0], Action::Fetch { is_second_try: true, .. }), "{:?}", driver.queue);
        driver.holds_fetches = false;
        driver.run();
        let Ok(Completion::Read { buffer, .. }) = &driver.replies[&read] else { panic!("{:?}", driver.replies[&read]) };
        assert_eq!(buffer.as_slice(), [7; 8192]);
    }
}

/// P5.
#[test]
fn trims_and_zeroes_of_any_length_read_as_zeros() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 65536]).unwrap();
    driver.done(Request::Trim { range: range(1000, 10000), fua: false }).unwrap();
    driver.done(Request::WriteZeroes { range: range(20480, 4 * MIB - 20480), fua: false }).unwrap();
    let expected = [vec![1; 1000], vec![0; 10000], vec![1; 9480], vec![0; 45056]].concat();
    assert_eq!(driver.read(0, 65536).unwrap(), expected);
}

#[test]
fn extents_tell_data_from_holes() {
    let mut driver = Driver::new(64);
    driver.write(8192, &[1; 4096]).unwrap();
    let id = driver.ask(Request::Extents { range: range(512, MIB), extents_max: 8 });
    driver.run();
    let extent = |len, is_data| Extent { len, is_data };
    match driver.replies.remove(&id) {
        Some(Ok(Completion::Extents(found))) => {
            assert_eq!(found, [extent(7680, false), extent(4096, true), extent(MIB - 11776, false)]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_volume_shrinks_only_over_holes_unless_told_to() {
    let mut driver = Driver::new(64);
    driver.write(2 * MIB, &[1; 4096]).unwrap();
    let resize = |size_bytes, discard_tail| Request::Resize { size_bytes, discard_tail };
    assert_eq!(driver.done(resize(MIB, false)), Err(ErrorKind::InvalidRequest));
    driver.write(3 * MIB, &[0; 4096]).unwrap();
    driver.done(resize(8 * MIB, false)).unwrap();
    driver.done(resize(MIB, true)).unwrap();
    assert_eq!(driver.volume.size_bytes(), MIB);
    assert_eq!(driver.write(MIB, &[1; 512]), Err(ErrorKind::InvalidRequest));
    driver.done(resize(4 * MIB, false)).unwrap();
    assert_eq!(driver.read(2 * MIB, 4096).unwrap(), [0; 4096]);
}

#[test]
fn requests_outside_the_volume_are_refused() {
    let mut driver = Driver::new(64);
    assert_eq!(driver.write(4 * MIB - 512, &[1; 1024]), Err(ErrorKind::InvalidRequest));
    assert_eq!(driver.read(4 * MIB, 1), Err(ErrorKind::InvalidRequest));
    assert!(driver.volume.is_idle());
}

/// A snapshot waits for the batches in flight, not for the queue, and the store hears of it before the pages that come after.
#[test]
fn a_snapshot_goes_before_what_waits_and_ends_a_generation() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    driver.holds_appends = true;
    let ids: Vec<u64> = (0..6)
        .map(|n| {
            let id = driver.ask(write(n * 4096, &[2; 4096], false));
            if n < 4 {
                // Each in a batch of its own: all that may be in flight.
                driver.run();
            }
            id
        })
        .collect();
    let snapshot = driver.snapshot(90);
    driver.holds_appends = false;
    driver.run();
    assert!(ids.iter().all(|id| driver.replies[id].is_ok()));
    let boundary = driver.boundary_of(snapshot);
    assert_eq!(boundary, Boundary { generation: 0, lsn: Lsn(6), size_bytes: 4 * MIB, wall_ms: 0 });
    driver.done(Request::Checkpoint).unwrap();
    let folded = |lsn, generation| Folded { to: Lsn(lsn), generation, size_bytes: 4 * MIB, at: MeterTime(0) };
    let expected = [
        Told::Boundary(boundary),
        Told::Pages { generation: 0, count: 1, folded: folded(6, 1) },
        Told::Pages { generation: 1, count: 1, folded: folded(8, 1) },
    ];
    assert_eq!(driver.told, expected);
    assert!(driver.volume.is_idle());
}

/// A snapshot is written back once it is durable, or a while later: no sync for that stands in front of the one that it is
/// answered by.
#[test]
fn a_snapshot_is_written_back_behind_its_sync() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    let is_written = |driver: &Driver| matches!(driver.told.last(), Some(Told::Pages { .. }));
    driver.snapshot(90);
    driver.run();
    assert_eq!((driver.synced, is_written(&driver)), (0, false));
    driver.done(Request::Flush).unwrap();
    assert_eq!((driver.synced, is_written(&driver)), (1, true));
    driver.write(0, &[2; 4096]).unwrap();
    driver.snapshot(91);
    driver.run();
    assert_eq!((driver.synced, is_written(&driver)), (1, false));
    driver.give(Event::Tick);
    driver.run();
    assert_eq!((driver.synced, is_written(&driver)), (2, true));
}

/// Snapshots that wait together, or that a failed append puts back, end one generation after the other.
#[test]
fn snapshots_that_are_appended_again_end_one_generation_each() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    driver.append_faults = vec![DiskFault::Io];
    let ids = [driver.snapshot(90), driver.snapshot(91)];
    driver.run();
    let later = driver.snapshot(92);
    driver.run();
    let mut ended: Vec<(u64, Lsn)> = Vec::new();
    for id in ids.into_iter().chain([later]) {
        let boundary = driver.boundary_of(id);
        ended.push((boundary.generation, boundary.lsn));
    }
    ended.sort_unstable();
    assert_eq!(ended, [(0, Lsn(2)), (1, Lsn(3)), (2, Lsn(4))]);
}

/// P6.
#[test]
fn a_snapshot_that_cannot_be_appended_fails_and_ends_nothing() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    driver.append_faults = vec![DiskFault::Io; 9];
    let failed = driver.snapshot(90);
    driver.run();
    driver.append_faults.clear();
    assert_eq!(driver.replies.remove(&failed).unwrap().unwrap_err().kind, ErrorKind::Unavailable);
    let taken = driver.snapshot(91);
    driver.run();
    assert_eq!(driver.boundary_of(taken).generation, 0);
    driver.is_sync_failing = true;
    driver.done(Request::Flush).unwrap_err();
    assert_eq!(driver.done(Request::Snapshot { id: SnapshotId(92) }), Err(ErrorKind::Poisoned));
}

/// P2. A read that began before a segment was moved ends where it was, and its place is let go only then; what begins
/// later reads the new place.
#[test]
fn a_place_that_was_left_is_let_go_when_the_reads_of_it_have_ended() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    driver.write(4096, &[2; 4096]).unwrap();
    let row = *driver.volume.segments.values().next().unwrap();
    // The first block goes to the slot that is last, behind a header; the second is not left.
    let slot = SlotIndex(0);
    let geometry = driver.volume.config.geometry;
    let at = driver.pool.windows(4096).position(|bytes| bytes == [1; 4096]).unwrap() as u64;
    let block = ((at - geometry.slot_offset(row.a_slot())) / 4096) as u32;
    let to = geometry.block_offset(slot, 2) as usize;
    driver.pool[to..to + 4096].fill(1);
    let mut survivors = Survivors::none(geometry.slot_blocks());
    survivors.insert(block);
    let pack = SegmentId(900);
    let parcel = ParcelPlace { pack, slot, block: 1, copy: 30, header_blocks: 1, moves: 1, clean_lsn: Lsn(2) };
    let home = Home::Parcels(Parcels::none(Cut::WHOLE).with(0, parcel));
    driver.holds_fetches = true;
    let before = driver.ask(Request::Read { range: range(0, 4096) });
    driver.run();
    driver.give(Event::Moved { row: Box::new(SegmentRow { home, ..row }), survivors: Arc::new(survivors) });
    let after = driver.ask(Request::Read { range: range(0, 4096) });
    driver.run();
    assert_eq!(driver.unpinned, 0);
    driver.holds_fetches = false;
    driver.run();
    assert_eq!(driver.unpinned, 1);
    assert!(driver.replies[&before].is_ok() && driver.replies[&after].is_ok());
    driver.pool[at as usize..at as usize + 4096].fill(9);
    assert_eq!(driver.read(0, 4096).unwrap(), [1; 4096], "from where it is now");
    assert_eq!(driver.read(4096, 4096), Err(ErrorKind::Corrupt), "it is not left");
    assert!(driver.volume.is_idle());
}

/// P2. A read that failed at its first try finds its block anew, when that was overwritten and its segment moved meanwhile.
#[test]
fn a_second_try_goes_where_the_block_is_now() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    let row = *driver.volume.segments.values().next().unwrap();
    driver.holds_fetches = true;
    let read = driver.ask(Request::Read { range: range(0, 4096) });
    driver.run();
    driver.write(0, &[2; 4096]).unwrap();
    // Of both blocks the second one is left.
    let geometry = driver.volume.config.geometry;
    let at = driver.pool.windows(4096).position(|bytes| bytes == [2; 4096]).unwrap() as u64;
    let mut survivors = Survivors::none(geometry.slot_blocks());
    survivors.insert(((at - geometry.slot_offset(row.a_slot())) / 4096) as u32);
    let to = geometry.block_offset(SlotIndex(0), 2) as usize;
    driver.pool[to..to + 4096].fill(2);
    let (pack, slot) = (SegmentId(900), SlotIndex(0));
    let parcel = ParcelPlace { pack, slot, block: 1, copy: 30, header_blocks: 1, moves: 1, clean_lsn: Lsn(2) };
    let home = Home::Parcels(Parcels::none(Cut::WHOLE).with(0, parcel));
    driver.give(Event::Moved { row: Box::new(SegmentRow { home, ..row }), survivors: Arc::new(survivors) });
    let at = driver.queue.iter().position(|action| matches!(action, Action::Fetch { .. })).unwrap();
    let Action::Fetch { id, buffer, .. } = driver.queue.remove(at) else { panic!("it is a fetch") };
    driver.give(Event::Fetched { id, buffer, result: Err(DiskFault::Io) });
    driver.holds_fetches = false;
    driver.run();
    let Ok(Completion::Read { buffer, .. }) = &driver.replies[&read] else { panic!("{:?}", driver.replies[&read]) };
    assert_eq!(buffer.as_slice(), [2; 4096]);
}
