//! What the store's thread knows: the index, and the slots that are leased ahead.
//!
//! A few slots are leased and made ready before a volume asks, when there has been time for it: a lease is then answered
//! at once, with a slot whose every block has been written before. Under pressure slots are given out as they are.

use super::rocks::RocksStore;
use crate::open::{PoolFile, Space, fault_of};
use crate::shard::{Message, StoreAnswer, StoreAsk};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use units::{BLOCK_LEN, SegmentId, SlotIndex, VolumeId};
use volume::error::DiskFault;
use volume::format::SlotHeader;
use volume::pool::{Index, Lease, LeaseClass, PoolFigures, SegmentRow};

/// Slots that are kept ready.
const AHEAD_COUNT: usize = 2;

/// Most of the slots kept back from data that have their space on the host before they are needed.
const RESERVE_WITH_SPACE_MAX: u32 = 64;

/// How long nobody must have asked for a slot before more are made ready: under a stream of writes that fills a slot in
/// less, filling slots ahead would only double what the disk has to write.
const QUIET: Duration = Duration::from_millis(150);

/// A slot to be filled with zeros.
#[derive(Debug)]
pub(super) struct Wanted(pub(super) Lease);

/// The index and what is leased ahead of it.
#[derive(Debug)]
pub(super) struct Keeper {
    index: Index<RocksStore>,
    space: Arc<Space>,
    pool: Arc<PoolFile>,
    preparer: mpsc::Sender<Wanted>,
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
    pub(super) fn new(
        index: Index<RocksStore>,
        space: Arc<Space>,
        pool: Arc<PoolFile>,
        preparer: mpsc::Sender<Wanted>,
    ) -> Self {
        let last_lease = Instant::now();
        let ready = VecDeque::new();
        Self {
            index,
            space,
            pool,
            preparer,
            ready,
            preparing_count: 0,
            last_lease,
            is_full: false,
            spare: BTreeMap::new(),
            with_space: BTreeSet::new(),
            is_host_full: false,
        }
    }

    /// When there is something to prepare, if nothing else happens.
    pub(super) fn idle_until(&self) -> Option<Instant> {
        (self.ahead_count() < AHEAD_COUNT && !self.is_full).then(|| self.last_lease + QUIET)
    }

    /// Carries out a question; the answer, when it has one.
    pub(super) fn answer(&mut self, ask: StoreAsk) -> Option<Message> {
        let (volume, answer) = match ask {
            StoreAsk::LoadPage { volume, page } => {
                (volume, StoreAnswer::PageLoaded { page, result: self.index.load_page(volume, page) })
            }
            StoreAsk::WriteBack { volume, id, pages, folded_to, size_bytes } => {
                let result = self.index.write_back(volume, &pages, folded_to, size_bytes);
                (volume, StoreAnswer::WroteBack { id, result })
            }
            StoreAsk::Lease { volume, class } => {
                let result = self.lease(class);
                if let Ok(lease) = result {
                    self.spare.entry(volume).or_default().push(lease);
                }
                (volume, StoreAnswer::Leased { result })
            }
            StoreAsk::NoteSegment(row) => {
                self.not_spare(row.volume, row.segment);
                // Nothing is lost when it is not noted: the next start finds the segment by its header.
                let _ = self.index.note_segment(row);
                return None;
            }
            StoreAsk::Release { segment, .. } => {
                // Its slot stays taken then, until the next start finds its header void.
                let _ = self.index.release(segment);
                self.is_full = false;
                return None;
            }
        };
        Some(Message::Store { volume, answer })
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
        let kept_back = self.index.reserved_slots().min(RESERVE_WITH_SPACE_MAX) as usize;
        // Data leaves slots with space to trims, which must go on when the host is full.
        let has_room = class == LeaseClass::Reserve
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
    pub(super) fn prepare_ahead(&mut self) {
        while self.ahead_count() < AHEAD_COUNT {
            let Ok(lease) = self.lease_with_space(LeaseClass::Data) else {
                self.is_full = true;
                return;
            };
            if self.space.wants_writing(lease.slot) && self.preparer.send(Wanted(lease)).is_ok() {
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
        figures
    }

    /// Notes what recovery found, once what it wrote is durable.
    pub(super) fn note_recovered(&mut self, sealed: Vec<SegmentRow>, voided: Vec<SegmentId>) -> Result<(), DiskFault> {
        sealed.into_iter().try_for_each(|row| self.index.note_segment(row))?;
        voided.into_iter().try_for_each(|segment| self.index.release(segment))
    }

    /// Makes every segment of a volume void, durably, and only then forgets it: a slot that is given out again must not
    /// show the old volume's segment to a later rebuild.
    pub(super) fn erase(&mut self, volume: VolumeId) -> Result<(), DiskFault> {
        let segments = self.index.segments(volume);
        for segment in &segments {
            self.pool
                .write_at(self.pool.superblock().geometry.slot_offset(segment.slot), &self.void_header(segment))?;
        }
        if !segments.is_empty() {
            self.pool.sync()?;
        }
        self.index.forget_volume(volume)?;
        // The volume's engine is gone, and nothing was written to these.
        for lease in self.spare.remove(&volume).unwrap_or_default() {
            self.index.give_back(lease);
        }
        self.is_full = false;
        Ok(())
    }

    fn void_header(&self, row: &SegmentRow) -> Vec<u8> {
        let mut block = vec![0; BLOCK_LEN];
        let pool = self.pool.superblock().pool;
        SlotHeader::void(pool, row.segment, row.volume, row.first_lsn).encode(&mut block);
        block
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
