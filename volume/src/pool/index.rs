//! The index: opening it, what it knows, leases, and the rows of segments and volumes.

use super::rows::{self, LIVE_UNKNOWN, PoolRow};
use super::slots::{Slots, WINDOW_SEGMENTS};
use super::{Lease, LeaseClass, OpenError, PoolFigures, SegmentRow, VolumeRow};
use crate::error::DiskFault;
use crate::format::Superblock;
use crate::io::{LoadedPage, PageIndex};
use crate::recover::{Known, Probed, probe};
use crate::store::{Durability, PoolReader, Store, StoreFault, StoreWrite};
use std::collections::{BTreeMap, BTreeSet};
use units::{Epoch, SegmentId, SlotIndex, VolumeId};

/// The index of a pool. Owns its store.
#[derive(Debug)]
pub struct Index<S> {
    pub(super) store: S,
    superblock: Superblock,
    generation: u64,
    slots: Slots,
    pub(super) segments: BTreeMap<SegmentId, Entry>,
    pub(super) volumes: BTreeMap<VolumeId, VolumeRow>,
    kept: BTreeSet<SlotIndex>,
    /// Segments that were found in the pool and not in the store when it was opened.
    adopted: Vec<SegmentId>,
    /// Rows that a failed commit left unwritten: part of the next one.
    pub(super) unsaved: BTreeSet<SegmentId>,
    /// Segments that are dead for certain after a power cut too.
    pub(super) dead: BTreeSet<SegmentId>,
}

/// A segment and how many of its blocks the stored maps name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) row: SegmentRow,
    pub(super) live: u64,
}

impl<S: Store> Index<S> {
    /// Makes the index of a new, empty pool.
    ///
    /// The first segment id follows from the pool's id: what an older pool left on the same device bears other ids, so its
    /// batches and blocks are never taken for this one's.
    ///
    /// # Errors
    /// [`OpenError::NotEmpty`] when the store holds something, or the store's fault.
    pub fn create(store: S, superblock: &Superblock) -> Result<Self, OpenError> {
        Self::create_from(store, superblock, first_segment(superblock), Vec::new())
    }

    /// Makes an index of open `segments`, with slots that are kept out of use, and ids above those that were used.
    pub(crate) fn create_with(
        store: S,
        superblock: &Superblock,
        used_up: Option<SegmentId>,
        segments: &[SegmentRow],
        kept: &BTreeSet<SlotIndex>,
    ) -> Result<Self, OpenError> {
        let rows = segments.iter();
        let rows = rows.map(|row| StoreWrite::Put(rows::segment_key(row.segment), rows::encode_segment(row, 0)));
        let rows = rows.chain(kept.iter().map(|slot| StoreWrite::Put(rows::kept_key(*slot), Vec::new())));
        let used = used_up.unwrap_or_else(|| first_segment(superblock));
        let next = SegmentId(used.0 + 1 + 2 * WINDOW_SEGMENTS + ids_before(superblock.generation));
        Self::create_from(store, superblock, next, rows.collect())
    }

    fn create_from(
        mut store: S,
        superblock: &Superblock,
        next_segment: SegmentId,
        rows: Vec<StoreWrite>,
    ) -> Result<Self, OpenError> {
        if store.seek(&[], &[0xff])?.is_some() {
            return Err(OpenError::NotEmpty);
        }
        let row = PoolRow {
            pool: superblock.pool,
            generation: superblock.generation,
            window_first: next_segment,
            next_segment,
            window: Vec::new(),
        };
        let mut writes = vec![StoreWrite::Put(rows::POOL_KEY.to_vec(), row.encode())];
        writes.extend(rows);
        store.commit(writes, Durability::Durable)?;
        Self::load(store, superblock, &row)
    }

    /// Opens the index that `store` holds of the pool, and adds the segments that only the pool knows.
    ///
    /// # Errors
    /// [`OpenError`]; all but a fault of store or disk are mended by a rebuild.
    pub fn open(store: S, superblock: &Superblock, reader: &dyn PoolReader) -> Result<Self, OpenError> {
        let pool = (superblock.pool, superblock.generation);
        let Some(value) = store.read(rows::POOL_KEY)? else {
            return Err(OpenError::Stale { pool, store: None });
        };
        let row = PoolRow::decode(&value)?;
        let ahead = row.generation.checked_sub(superblock.generation);
        if row.pool != superblock.pool || ahead.is_none_or(|ahead| ahead > 1) {
            return Err(OpenError::Stale { pool, store: Some((row.pool, row.generation)) });
        }
        let window = (row.window.clone(), row.window_first, row.next_segment);
        let mut index = Self::load(store, superblock, &row)?;
        index.adopt(window, reader)?;
        Ok(index)
    }

    fn load(store: S, superblock: &Superblock, row: &PoolRow) -> Result<Self, OpenError> {
        let mut segments = BTreeMap::new();
        let mut used = BTreeSet::new();
        let slot_count = superblock.geometry.slot_count;
        each(&store, rows::SEGMENT_KEYS, |key, value| {
            let (row, live) = rows::decode_segment(key, value)?;
            if row.slot.0 >= slot_count || !used.insert(row.slot) {
                return Err(OpenError::Corrupt("the slot of a segment's row"));
            }
            segments.insert(row.segment, Entry { row, live });
            Ok(())
        })?;
        if segments.last_key_value().is_some_and(|(newest, _)| *newest >= row.next_segment) {
            return Err(OpenError::Corrupt("the next segment id"));
        }
        let mut volumes = BTreeMap::new();
        each(&store, rows::VOLUME_KEYS, |key, value| {
            let row = rows::decode_volume(key, value)?;
            volumes.insert(row.volume, row);
            Ok(())
        })?;
        let mut kept = BTreeSet::new();
        each(&store, rows::KEPT_KEYS, |key, _| {
            kept.insert(rows::decode_kept(key)?);
            Ok(())
        })?;
        let is_free = |slot: &SlotIndex| !used.contains(slot) && !kept.contains(slot);
        let free = (0..slot_count).map(SlotIndex).filter(is_free).collect();
        Ok(Self {
            store,
            superblock: *superblock,
            generation: row.generation,
            slots: Slots::new(slot_count, free, row.next_segment),
            segments,
            volumes,
            kept,
            adopted: Vec::new(),
            unsaved: BTreeSet::new(),
            dead: BTreeSet::new(),
        })
    }

    /// Looks into the slots of the window for segments that the store does not know.
    fn adopt(
        &mut self,
        (window, first, end): (Vec<SlotIndex>, SegmentId, SegmentId),
        reader: &dyn PoolReader,
    ) -> Result<(), OpenError> {
        let used = self.used_slots();
        let mut writes = Vec::new();
        for slot in window {
            if used.contains(&slot) || self.kept.contains(&slot) || slot.0 >= self.slots.total() {
                continue;
            }
            match probe(reader, &self.superblock, slot) {
                Probed::Segment(row) if (first..end).contains(&row.segment) => {
                    if self.segments.contains_key(&row.segment) {
                        continue;
                    }
                    writes.push(StoreWrite::Put(rows::segment_key(row.segment), rows::encode_segment(&row, 0)));
                    self.segments.insert(row.segment, Entry { row, live: 0 });
                    self.adopted.push(row.segment);
                    self.slots.take_out(slot);
                }
                // It may hold a segment: out of use until a rebuild can read it.
                Probed::Unreadable => {
                    writes.push(StoreWrite::Put(rows::kept_key(slot), Vec::new()));
                    self.kept.insert(slot);
                    self.slots.take_out(slot);
                }
                Probed::Segment(_) | Probed::Void(_) | Probed::Damaged | Probed::Nothing => {}
            }
        }
        if !writes.is_empty() {
            self.store.commit(writes, Durability::Lazy)?;
        }
        Ok(())
    }

    /// Notes, durably, that the pool's superblock is about to have `generation`. Called before that is written: the store
    /// may be one ahead of the pool, never behind.
    ///
    /// # Errors
    /// The store's fault: the superblock must then not be written.
    pub fn note_generation(&mut self, generation: u64) -> Result<(), DiskFault> {
        let before = std::mem::replace(&mut self.generation, generation);
        let noted = self.commit(vec![self.pool_row(&self.slots)], Durability::Durable);
        if noted.is_err() {
            self.generation = before;
        }
        noted
    }

    fn pool_row(&self, slots: &Slots) -> StoreWrite {
        let (window, window_first, next_segment) = slots.window();
        let row =
            PoolRow { pool: self.superblock.pool, generation: self.generation, window_first, next_segment, window };
        StoreWrite::Put(rows::POOL_KEY.to_vec(), row.encode())
    }

    /// The pool's superblock as it was when the index was opened.
    #[must_use]
    pub const fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Every volume that has a row or a segment.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeId> {
        let of_segments = self.segments.values().map(|entry| entry.row.volume);
        let all: BTreeSet<VolumeId> = self.volumes.keys().copied().chain(of_segments).collect();
        all.into_iter().collect()
    }

    /// The segments of `volume`, oldest first.
    #[must_use]
    pub fn segments(&self, volume: VolumeId) -> Vec<SegmentRow> {
        let mut rows: Vec<SegmentRow> =
            self.segments.values().map(|entry| entry.row).filter(|row| row.volume == volume).collect();
        rows.sort_by_key(|row| (row.first_lsn, row.segment));
        rows
    }

    /// How far the stored map of `volume` goes; `None` when it holds nothing.
    #[must_use]
    pub fn volume_row(&self, volume: VolumeId) -> Option<VolumeRow> {
        self.volumes.get(&volume).copied()
    }

    /// All that [`crate::recover::recover`] needs to know of a volume that was `created_bytes` long when it was made.
    #[must_use]
    pub fn known(&self, volume: VolumeId, created_bytes: u64) -> Known {
        Known { volume, created_bytes, row: self.volume_row(volume), segments: self.segments(volume) }
    }

    /// Blocks of `segment` that stored pages name; `None` when there is no such segment or the count has been lost.
    #[must_use]
    pub fn live_blocks(&self, segment: SegmentId) -> Option<u64> {
        self.segments.get(&segment).map(|entry| entry.live).filter(|live| *live != LIVE_UNKNOWN)
    }

    /// Segments that the store did not know when it was opened.
    #[must_use]
    pub fn adopted(&self) -> &[SegmentId] {
        &self.adopted
    }

    /// Slots that are kept out of use because what they hold cannot be told.
    pub fn kept_slots(&self) -> impl Iterator<Item = SlotIndex> {
        self.kept.iter().copied()
    }

    /// The store itself.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// Ends the index and gives its store back.
    #[must_use]
    pub fn into_store(self) -> S {
        self.store
    }

    /// No segment bears this id or a higher one.
    pub(crate) fn next_segment(&self) -> SegmentId {
        self.slots.window().2
    }

    /// Reads a page of the map, or the index of the next one.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed.
    pub fn load_page(&self, volume: VolumeId, page: PageIndex) -> Result<LoadedPage, DiskFault> {
        let next = self.next_page(volume, page)?;
        Ok(match next {
            Some((found, encoded)) if found == page => LoadedPage::Present(encoded),
            Some((found, _)) => LoadedPage::Absent { next: Some(found) },
            None => LoadedPage::Absent { next: None },
        })
    }

    /// The slots that hold a segment.
    pub(crate) fn used_slots(&self) -> BTreeSet<SlotIndex> {
        self.segments.values().map(|entry| entry.row.slot).collect()
    }

    /// The first stored page from `page` on, with its encoded form.
    pub(crate) fn next_page(
        &self,
        volume: VolumeId,
        page: PageIndex,
    ) -> Result<Option<(PageIndex, Vec<u8>)>, DiskFault> {
        let found = self.store.seek(&rows::page_start(volume, page), &rows::pages_end(volume)).map_err(io)?;
        found.map(|(key, value)| Ok((rows::page_of_key(&key).map_err(|_| DiskFault::Io)?, value))).transpose()
    }

    /// Leases a slot and an id for a new segment.
    ///
    /// # Errors
    /// [`DiskFault::NoSpace`] when no slot is free for `class`; [`DiskFault::Io`] when the store failed.
    pub fn lease(&mut self, class: LeaseClass) -> Result<Lease, DiskFault> {
        self.slots.check_room(class)?;
        if let Some(lease) = self.slots.lease() {
            return Ok(lease);
        }
        self.refill()?;
        self.slots.lease().ok_or(DiskFault::NoSpace)
    }

    /// The same, of the first slot that `has_space` accepts. Those that it refuses are leased after all others.
    ///
    /// # Errors
    /// As [`Index::lease`], and what `has_space` says when it refuses every free slot.
    pub fn lease_where(
        &mut self,
        class: LeaseClass,
        mut has_space: impl FnMut(SlotIndex) -> Result<(), DiskFault>,
    ) -> Result<Lease, DiskFault> {
        self.slots.check_room(class)?;
        let mut refusal = DiskFault::NoSpace;
        for _ in 0..self.slots.free_count() {
            let Some(slot) = self.slots.next_slot() else { break };
            match has_space(slot) {
                Ok(()) => return self.lease(class),
                Err(fault) => refusal = fault,
            }
            self.slots.put_off();
        }
        Err(refusal)
    }

    /// Number of slots kept back from data.
    #[must_use]
    pub fn reserved_slots(&self) -> u32 {
        self.slots.reserved()
    }

    /// The free slots, in the order in which they are leased.
    pub fn free_slots(&self) -> impl Iterator<Item = SlotIndex> {
        self.slots.free_slots()
    }

    /// Fills the window up, durably.
    fn refill(&mut self) -> Result<(), DiskFault> {
        let refilled = self.slots.refilled()?;
        self.commit(vec![self.pool_row(&refilled)], Durability::Durable)?;
        self.slots = refilled;
        Ok(())
    }

    /// Gives the slot of a lease that nothing was done with an id above all that were given out.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, [`DiskFault::NoSpace`] when there is no such lease or no id: the lease is
    /// given back.
    pub fn renew(&mut self, lease: Lease) -> Result<Lease, DiskFault> {
        if let Some(renewed) = self.slots.renew(lease) {
            return Ok(renewed);
        }
        let renewed = self.refill().and_then(|()| self.slots.renew(lease).ok_or(DiskFault::NoSpace));
        if renewed.is_err() {
            self.give_back(lease);
        }
        renewed
    }

    /// Takes back a lease of whose slot nothing counts. Its id is not used again.
    pub fn give_back(&mut self, lease: Lease) {
        self.slots.give_back(lease);
    }

    /// Notes that a segment has been opened or sealed. Survives the process; a power cut may take it, and then the
    /// segment is found in the pool.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed. The index knows it all the same, and writes it with its next commit.
    pub fn note_segment(&mut self, row: SegmentRow) -> Result<(), DiskFault> {
        let entry = self.segments.entry(row.segment).or_insert(Entry { row, live: 0 });
        entry.row = row;
        self.unsaved.insert(row.segment);
        self.commit(Vec::new(), Durability::Lazy)
    }

    /// Forgets a segment, whose header has been made void durably, and frees its slot.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: the segment stays until it is released again.
    pub fn release(&mut self, segment: SegmentId) -> Result<(), DiskFault> {
        let Some(entry) = self.segments.get(&segment) else { return Ok(()) };
        let slot = entry.row.slot;
        // The slot is leased again only after a durable commit, of a new window, so that this one may be lazy.
        self.commit(vec![StoreWrite::Delete(rows::segment_key(segment))], Durability::Lazy)?;
        self.forget(segment);
        self.slots.free(slot);
        Ok(())
    }

    fn forget(&mut self, segment: SegmentId) {
        self.segments.remove(&segment);
        self.unsaved.remove(&segment);
        self.dead.remove(&segment);
        self.slots.noted(segment);
    }

    /// Forgets a volume, whose segments' headers have all been made void durably: its map, its rows; frees its slots.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: nothing is forgotten.
    pub fn forget_volume(&mut self, volume: VolumeId) -> Result<(), DiskFault> {
        let rows = self.segments(volume);
        let mut writes: Vec<StoreWrite> =
            rows.iter().map(|row| StoreWrite::Delete(rows::segment_key(row.segment))).collect();
        writes.push(StoreWrite::DeleteRange(rows::page_start(volume, PageIndex(0)), rows::pages_end(volume)));
        writes.push(StoreWrite::Delete(rows::volume_key(volume)));
        // Durable: the record that the volume is being deleted goes next.
        self.commit(writes, Durability::Durable)?;
        self.volumes.remove(&volume);
        for row in rows {
            self.forget(row.segment);
            self.slots.free(row.slot);
        }
        Ok(())
    }

    /// How the pool's slots are used.
    #[must_use]
    pub fn figures(&self) -> PoolFigures {
        let free = u32::try_from(self.slots.free_count()).unwrap_or(u32::MAX);
        let kept = u32::try_from(self.kept.len()).unwrap_or(u32::MAX);
        let mut live_blocks: BTreeMap<VolumeId, u64> = self.volumes.keys().map(|volume| (*volume, 0)).collect();
        for entry in self.segments.values().filter(|entry| entry.live != LIVE_UNKNOWN) {
            *live_blocks.entry(entry.row.volume).or_default() += entry.live;
        }
        PoolFigures {
            slots_total: self.slots.total(),
            slots_free: free,
            slots_reserved: self.slots.reserved(),
            slots_used: self.slots.total().saturating_sub(free).saturating_sub(kept),
            slots_kept: kept,
            segments: self.segments.len() as u64,
            live_blocks,
        }
    }

    /// Commits `writes`, after the rows that an earlier failure left unwritten.
    pub(super) fn commit(&mut self, mut writes: Vec<StoreWrite>, durability: Durability) -> Result<(), DiskFault> {
        let unsaved = self.unsaved.iter().filter_map(|segment| self.segments.get(segment));
        let rows = unsaved.map(|entry| {
            StoreWrite::Put(rows::segment_key(entry.row.segment), rows::encode_segment(&entry.row, entry.live))
        });
        let rows: Vec<StoreWrite> = rows.collect();
        writes.splice(0..0, rows);
        self.store.commit(writes, durability).map_err(io)?;
        let written: Vec<SegmentId> = std::mem::take(&mut self.unsaved).into_iter().collect();
        written.into_iter().for_each(|segment| self.slots.noted(segment));
        Ok(())
    }

    /// The epoch that the row of `volume` tells.
    pub(super) fn epoch(&self, volume: VolumeId) -> Epoch {
        self.volumes.get(&volume).map_or(Epoch(0), |row| row.epoch)
    }
}

/// Ids that a rebuild leaves out, above those that it sees: they may have been used for segments of which a power cut left
/// nothing but later batches, and these must never be taken for those of a new segment. Every start has a generation of
/// its own, so two rebuilds without a durable segment between them leave out different ranges.
const fn ids_before(generation: u64) -> u64 {
    (generation % 1024) << 14
}

/// The first segment id of a new pool: somewhere in the lower half of all of them.
fn first_segment(superblock: &Superblock) -> SegmentId {
    let seed = superblock.pool.0.iter().fold(0_u64, |seed, byte| seed.rotate_left(5) ^ u64::from(*byte));
    SegmentId(1 + (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 25))
}

/// Calls `visit` for every row of a range of keys.
fn each<S: Store>(
    store: &S,
    (start, end): (&[u8], &[u8]),
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let mut from = start.to_vec();
    while let Some((key, value)) = store.seek(&from, end)? {
        visit(&key, &value)?;
        from = key;
        from.push(0);
    }
    Ok(())
}

pub(super) fn io(_: StoreFault) -> DiskFault {
    DiskFault::Io
}
