//! The index: opening it, what it knows, and the rows of segments and volumes.

use super::aside::Asides;
use super::leaving::Settled;
use super::lineage::Lineage;
use super::load::Rows;
use super::loans::Lending;
use super::meter::Meter;
use super::owed::Owed;
use super::rows::{self, PoolRow};
use super::slots::{Slots, WINDOW_SEGMENTS};
use super::{
    BoundaryRow, Found, Home, LeaseClass, Live, OpenError, PeerBehind, Place, PoolFigures, SegmentRow, Survivors,
    VolumeRow,
};
use crate::compact::CompactionFigures;
use crate::error::DiskFault;
use crate::format::Superblock;
use crate::io::{LoadedPage, PageIndex};
use crate::recover::{Known, Probed, probe};
use crate::store::{Durability, PoolReader, Store, StoreFault, StoreWrite};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use units::{Epoch, Lsn, SegmentId, SlotIndex, VolumeId};

/// The index of a pool. Owns its store.
#[derive(Debug)]
pub struct Index<S> {
    pub(super) store: S,
    superblock: Superblock,
    generation: u64,
    /// No rebuild made it: it has seen every snapshot that there ever was.
    pub(super) is_first: bool,
    pub(super) slots: Slots,
    pub(super) owed: Owed,
    segments: BTreeMap<SegmentId, Entry>,
    /// The same by volume, oldest first.
    pub(super) owned: BTreeSet<(VolumeId, SegmentId)>,
    /// Those that are sealed, without trims, and named by no stored page.
    pub(super) unnamed: BTreeSet<(VolumeId, SegmentId)>,
    /// Which blocks are left of the segments that were moved.
    pub(super) survivors: BTreeMap<SegmentId, Arc<Survivors>>,
    /// The slots of packs.
    pub(super) packs: BTreeMap<SegmentId, SlotIndex>,
    /// Which segments have a parcel in each pack, by their rows.
    pub(super) parcels: BTreeSet<(SegmentId, SegmentId)>,
    /// Places that segments have left and that are not void yet.
    pub(super) left: BTreeMap<SegmentId, Home>,
    /// What copies share.
    pub(super) lending: Lending,
    /// What each open volume has no more use for.
    pub(super) settled: BTreeMap<VolumeId, Settled>,
    /// Of each volume with history, the operation behind which its log is kept whole.
    pub(super) history: BTreeMap<VolumeId, Lsn>,
    /// The same of a volume whose history is being begun.
    pub(super) beginning: Option<(VolumeId, Lsn)>,
    /// Of each volume whose peer is behind, how far that is.
    pub(super) peers: BTreeMap<VolumeId, PeerBehind>,
    /// What is kept aside.
    pub(super) asides: Asides,
    pub(super) volumes: BTreeMap<VolumeId, VolumeRow>,
    /// The ends of generations that somebody needs.
    pub(super) boundaries: BTreeMap<(VolumeId, u64), BoundaryRow>,
    /// Who inherits from whom.
    pub(super) lineage: Lineage,
    /// Volumes of which a part may be gone.
    pub(super) erasing: BTreeSet<VolumeId>,
    /// What volumes have used.
    pub(super) meters: BTreeMap<VolumeId, Meter>,
    /// How often that and the map did not agree.
    pub(super) meter_differences: u64,
    /// Where the log of each volume ended that was recovered since the index was opened.
    pub(super) found_ends: BTreeMap<VolumeId, Lsn>,
    kept: BTreeSet<SlotIndex>,
    /// Segments that were found in the pool and not in the store when it was opened.
    adopted: Vec<SegmentId>,
    /// Rows that a failed commit left unwritten: part of the next one.
    unsaved: BTreeSet<SegmentId>,
    /// The same of boundaries.
    pub(super) unsaved_boundaries: BTreeSet<(VolumeId, u64)>,
}

/// A segment and how many of its blocks the stored maps name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) row: SegmentRow,
    /// `None` where the count has been lost: the segment is never taken for dead.
    pub(super) live: Option<Live>,
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
        let first = StoreWrite::Put(rows::FIRST_KEY.to_vec(), Vec::new());
        Self::create_from(store, superblock, first_segment(superblock), vec![first])
    }

    /// Makes an index of what was found in the pool, with ids above those that were used.
    pub(crate) fn create_with(store: S, superblock: &Superblock, found: &Found) -> Result<Self, OpenError> {
        let rows = found.segments.values().map(|(row, survivors)| {
            StoreWrite::Put(
                rows::segment_key(row.segment),
                rows::encode_segment(row, Some(Live::default()), survivors.as_ref()),
            )
        });
        let rows = rows.chain(found.kept.iter().map(|slot| StoreWrite::Put(rows::kept_key(*slot), Vec::new())));
        let packs = found.packs.iter();
        let rows =
            rows.chain(packs.map(|(pack, slot)| StoreWrite::Put(rows::pack_key(*pack), rows::encode_pack(*slot))));
        let used = found.used_up.unwrap_or_else(|| first_segment(superblock));
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
        let slot_count = superblock.geometry.slot_count;
        let rows = Rows::read(&store, slot_count)?;
        let Rows { used, segments, survivors, packs, left, loans, volumes, boundaries, parents, .. } = rows;
        let Rows { erasing, meters, asides, kept, .. } = rows;
        let newest =
            segments.iter().map(|entry| entry.row.segment).chain(packs.keys().copied()).chain(asides.newest()).max();
        if newest.is_some_and(|newest| newest >= row.next_segment) {
            return Err(OpenError::Corrupt("the next segment id"));
        }
        let is_free = |slot: &SlotIndex| !used.contains(slot) && !kept.contains(slot);
        let free = (0..slot_count).map(SlotIndex).filter(is_free).collect();
        let is_first = store.read(rows::FIRST_KEY)?.is_some();
        let mut index = Self {
            store,
            is_first,
            superblock: *superblock,
            generation: row.generation,
            slots: Slots::new(slot_count, free, row.next_segment),
            owed: Owed::default(),
            segments: BTreeMap::new(),
            owned: BTreeSet::new(),
            unnamed: BTreeSet::new(),
            settled: BTreeMap::new(),
            history: BTreeMap::new(),
            beginning: None,
            peers: BTreeMap::new(),
            parcels: asides.in_packs().collect(),
            asides,
            survivors,
            packs,
            left,
            lending: Lending::new(loans),
            volumes,
            boundaries,
            lineage: Lineage::new(parents),
            erasing,
            meters,
            meter_differences: 0,
            found_ends: BTreeMap::new(),
            kept,
            adopted: Vec::new(),
            unsaved: BTreeSet::new(),
            unsaved_boundaries: BTreeSet::new(),
        };
        segments.into_iter().for_each(|entry| index.put_entry(entry));
        Ok(index)
    }

    /// What is known of a segment.
    pub(super) fn entry(&self, segment: SegmentId) -> Option<&Entry> {
        self.segments.get(&segment)
    }

    /// Knows a segment from now on, or knows it otherwise.
    pub(super) fn put_entry(&mut self, entry: Entry) {
        let key = (entry.row.volume, entry.row.segment);
        self.owned.insert(key);
        self.forget_parcels(entry.row.segment);
        self.parcels.extend(entry.row.home.each_parcel().map(|place| (place.pack, entry.row.segment)));
        if entry.live.is_some_and(|live| live.total() == 0) && entry.row.last_lsn.is_some() && !entry.row.has_holes {
            self.unnamed.insert(key);
        } else {
            self.unnamed.remove(&key);
        }
        self.segments.insert(entry.row.segment, entry);
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
                    let entry = Entry { row, live: Some(Live::default()) };
                    writes.push(self.row_write(&entry));
                    self.put_entry(entry);
                    self.adopted.push(row.segment);
                    self.slots.take_out(slot);
                }
                // A stop came before its segments were moved. It is empty: void before any of them is.
                Probed::Pack(pack) if (first..end).contains(&pack) => {
                    writes.push(StoreWrite::Put(rows::pack_key(pack), rows::encode_pack(slot)));
                    self.packs.insert(pack, slot);
                    self.slots.take_out(slot);
                }
                // It may hold a segment: out of use until a rebuild can read it.
                Probed::Unreadable => {
                    writes.push(StoreWrite::Put(rows::kept_key(slot), Vec::new()));
                    self.kept.insert(slot);
                    self.slots.take_out(slot);
                }
                Probed::Segment(_) | Probed::Pack(_) | Probed::Void(_) | Probed::Damaged | Probed::Nothing => {}
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

    pub(super) fn pool_row(&self, slots: &Slots) -> StoreWrite {
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
        let of_segments = self.owned.iter().map(|(volume, _)| *volume);
        let all: BTreeSet<VolumeId> = self.volumes.keys().copied().chain(of_segments).collect();
        all.into_iter().collect()
    }

    /// The segments of `volume`, oldest first.
    #[must_use]
    pub fn segments(&self, volume: VolumeId) -> Vec<SegmentRow> {
        let owned = self.owned.range((volume, SegmentId(0))..=(volume, SegmentId::MAX));
        let mut rows: Vec<SegmentRow> =
            owned.filter_map(|(_, segment)| self.entry(*segment)).map(|entry| entry.row).collect();
        rows.sort_by_key(|row| (row.first_lsn, row.segment));
        rows
    }

    /// What is known of the segments of `volume`.
    pub(super) fn entries_of(&self, volume: VolumeId) -> impl Iterator<Item = &Entry> {
        let owned = self.owned.range((volume, SegmentId(0))..=(volume, SegmentId::MAX));
        owned.filter_map(|(_, segment)| self.entry(*segment))
    }

    /// A segment.
    #[must_use]
    pub fn segment(&self, segment: SegmentId) -> Option<SegmentRow> {
        self.entry(segment).map(|entry| entry.row)
    }

    /// How far the stored map of `volume` goes; `None` when it holds nothing.
    #[must_use]
    pub fn volume_row(&self, volume: VolumeId) -> Option<VolumeRow> {
        self.volumes.get(&volume).copied()
    }

    /// All that [`crate::recover::recover`] needs to know of a volume that was `created_bytes` long when it was made.
    #[must_use]
    pub fn known(&self, volume: VolumeId, created_bytes: u64) -> Known {
        let segments = self.segments(volume);
        let left = segments.iter().filter_map(|row| Some((row.segment, self.survivors(row.segment)?)));
        let survivors = left.map(|(segment, left)| (segment, Arc::clone(left))).collect();
        let (row, parent) = (self.volume_row(volume), self.parent(volume));
        let loans = segments.iter().filter_map(|row| Some((row.segment, self.loans(row.segment)?.as_ref().clone())));
        let loans = loans.collect();
        let joined_to = self.joined(volume).map(|joined| joined.to);
        Known { volume, created_bytes, row, segments, survivors, loans, parent, joined_to }
    }

    /// Whose some segments are, as far as they are there.
    pub(crate) fn volumes_of(&self, segments: impl IntoIterator<Item = SegmentId>) -> BTreeSet<VolumeId> {
        segments.into_iter().filter_map(|segment| Some(self.segment(segment)?.volume)).collect()
    }

    /// Where a segment is, for who reads it and does not own it.
    #[must_use]
    pub fn place(&self, segment: SegmentId) -> Option<Place> {
        let (survivors, loans) = (self.survivors(segment).cloned(), self.loans(segment).cloned());
        Some(Place { row: self.segment(segment)?, survivors, loans })
    }

    /// Which blocks of `segment` are left, when it was moved.
    #[must_use]
    pub fn survivors(&self, segment: SegmentId) -> Option<&Arc<Survivors>> {
        self.survivors.get(&segment)
    }

    /// Blocks of `segment` that stored pages name; `None` when there is no such segment or the count has been lost.
    #[must_use]
    pub fn live_blocks(&self, segment: SegmentId) -> Option<u64> {
        self.live(segment).map(|live| live.total())
    }

    /// The same by eighths of its slot.
    pub(crate) fn live(&self, segment: SegmentId) -> Option<Live> {
        self.segments.get(&segment)?.live
    }

    /// Every segment, with the blocks of it that stored pages name; `None` where the count has been lost.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&SegmentRow, Option<Live>)> {
        self.segments.values().map(|entry| (&entry.row, entry.live))
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

    #[cfg(test)]
    pub(crate) const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The segments that are not sealed, as far as the index knows.
    pub fn open_segments(&self) -> impl Iterator<Item = (VolumeId, SegmentId)> {
        let open = self.segments.values().filter(|entry| entry.row.last_lsn.is_none());
        open.map(|entry| (entry.row.volume, entry.row.segment))
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

    /// Reads a page of the map as it is now, own or inherited, or the index of the next one.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or does not have what the volume inherits ([`Index::inheritance`]).
    pub fn load_page(&self, volume: VolumeId, page: PageIndex) -> Result<LoadedPage, DiskFault> {
        let newest = self.newest_from(volume, page)?;
        Ok(match newest {
            Some(version) if version.page == page => LoadedPage::Present(version.encoded),
            newest => self.load_inherited(volume, page, newest.map(|version| version.page))?,
        })
    }

    /// The slots that hold a segment.
    pub(crate) fn used_slots(&self) -> BTreeSet<SlotIndex> {
        let left = self.left.values().filter_map(Home::own);
        let of_rows = self.segments.values().filter_map(|entry| entry.row.own_slot());
        of_rows.chain(self.packs.values().copied()).chain(left).collect()
    }

    /// Notes that a segment has been opened or sealed. Survives the process; a power cut may take it, and then the
    /// segment is found in the pool.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed. The index knows it all the same, and writes it with its next commit.
    pub fn note_segment(&mut self, row: SegmentRow) -> Result<(), DiskFault> {
        let live = self.entry(row.segment).map_or_else(|| Some(Live::default()), |entry| entry.live);
        self.put_entry(Entry { row, live });
        self.unsaved.insert(row.segment);
        self.commit(Vec::new(), Durability::Lazy)
    }

    /// Forgets a segment, whose header has been made void durably, and frees its slot; that of a pack stays.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: the segment stays until it is released again.
    pub fn release(&mut self, segment: SegmentId) -> Result<(), DiskFault> {
        let Some(entry) = self.segments.get(&segment) else { return Ok(()) };
        let own = entry.row.own_slot();
        // The slot is leased again only after a durable commit, of a new window, so that this one may be lazy.
        let row = StoreWrite::Delete(rows::segment_key(segment));
        let writes = self.loans_end(segment).into_iter().chain([row]).collect();
        self.commit(writes, Durability::Lazy)?;
        self.forget(segment);
        own.into_iter().for_each(|slot| self.free_slot(slot));
        Ok(())
    }

    fn forget(&mut self, segment: SegmentId) {
        self.forget_parcels(segment);
        if let Some(Entry { row, .. }) = self.segments.remove(&segment) {
            self.owned.remove(&(row.volume, segment));
            self.unnamed.remove(&(row.volume, segment));
            self.survivors.remove(&segment);
        }
        self.end_loans(segment);
        self.unsaved.remove(&segment);
        self.slots.noted(segment);
    }

    /// Forgets a volume, whose segments' places have all been made void durably: its map, its rows; frees its slots.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or the volume has heirs, or something kept aside: nothing is forgotten.
    pub fn forget_volume(&mut self, volume: VolumeId) -> Result<(), DiskFault> {
        if self.has_heirs(volume) || self.is_receiving(volume) {
            return Err(DiskFault::Io);
        }
        let rows = self.segments(volume);
        let mut writes: Vec<StoreWrite> =
            rows.iter().map(|row| StoreWrite::Delete(rows::segment_key(row.segment))).collect();
        writes.extend(rows.iter().filter_map(|row| self.loans_end(row.segment)));
        let left = rows.iter().filter(|row| self.left.contains_key(&row.segment));
        writes.extend(left.map(|row| StoreWrite::Delete(rows::left_key(row.segment))));
        writes.push(StoreWrite::DeleteRange(rows::page_start(volume, PageIndex(0)), rows::pages_end(volume)));
        writes.push(StoreWrite::Delete(rows::volume_key(volume)));
        writes.push(StoreWrite::Delete(rows::parent_key(volume)));
        writes.push(StoreWrite::Delete(rows::erasing_key(volume)));
        writes.push(StoreWrite::Delete(rows::meter_key(volume)));
        writes.push(StoreWrite::Delete(rows::request_key(volume)));
        writes.push(StoreWrite::Delete(rows::resync_key(volume)));
        writes.extend(rows::generation_keys(volume).map(|(from, end)| StoreWrite::DeleteRange(from, end)));
        // Durable: the record that the volume is being deleted goes next.
        self.commit(writes, Durability::Durable)?;
        self.volumes.remove(&volume);
        self.boundaries.retain(|(of, _), _| *of != volume);
        self.unsaved_boundaries.retain(|(of, _)| *of != volume);
        self.settled.remove(&volume);
        self.history.remove(&volume);
        self.lineage.remove(volume);
        self.erasing.remove(&volume);
        self.forget_resync(volume);
        self.meters.remove(&volume);
        for row in rows {
            if row.is_moved() {
                // What is beside it in packs stays.
                self.owe(self.live_blocks(row.segment).unwrap_or(0));
            }
            self.forget(row.segment);
            let left = self.left.remove(&row.segment).and_then(|places| places.own());
            left.into_iter().chain(row.own_slot()).for_each(|slot| self.free_slot(slot));
        }
        Ok(())
    }

    /// How the pool's slots are used.
    #[must_use]
    pub fn figures(&self) -> PoolFigures {
        let free = u32::try_from(self.slots.free_count()).unwrap_or(u32::MAX);
        let kept = u32::try_from(self.kept.len()).unwrap_or(u32::MAX);
        let mut live_blocks: BTreeMap<VolumeId, u64> = self.volumes.keys().map(|volume| (*volume, 0)).collect();
        for entry in self.segments.values() {
            *live_blocks.entry(entry.row.volume).or_default() += entry.live.map_or(0, |live| live.total());
        }
        PoolFigures {
            slots_total: self.slots.total(),
            slots_free: free,
            slots_reserved: self.slots.kept_back(LeaseClass::Data),
            slots_for_compaction: self.slots.kept_back(LeaseClass::Reserve),
            slots_used: self.slots.total().saturating_sub(free).saturating_sub(kept),
            slots_kept: kept,
            segments: self.segments.len() as u64,
            live_blocks,
            compaction: CompactionFigures::default(),
        }
    }

    /// Commits `writes`, after the rows that an earlier failure left unwritten.
    pub(super) fn commit(&mut self, mut writes: Vec<StoreWrite>, durability: Durability) -> Result<(), DiskFault> {
        let unsaved = self.unsaved.iter().filter_map(|segment| self.segments.get(segment));
        let rows = unsaved.map(|entry| self.row_write(entry));
        let boundaries = self.unsaved_boundaries.iter().filter_map(|key| Some((key, self.boundaries.get(key)?)));
        let boundaries = boundaries.map(|((volume, generation), row)| {
            StoreWrite::Put(rows::boundary_key(*volume, *generation), rows::encode_boundary(row))
        });
        let rows: Vec<StoreWrite> = rows.chain(boundaries).chain(self.lending.unsaved_rows()).collect();
        writes.splice(0..0, rows);
        self.store.commit(writes, durability).map_err(io)?;
        self.unsaved_boundaries.clear();
        self.lending.note_saved();
        let written: Vec<SegmentId> = std::mem::take(&mut self.unsaved).into_iter().collect();
        written.into_iter().for_each(|segment| self.slots.noted(segment));
        Ok(())
    }

    /// The write of a segment's row.
    pub(super) fn row_write(&self, entry: &Entry) -> StoreWrite {
        let survivors = self.survivors.get(&entry.row.segment).map(Arc::as_ref);
        let value = rows::encode_segment(&entry.row, entry.live, survivors);
        StoreWrite::Put(rows::segment_key(entry.row.segment), value)
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

pub(super) fn io(_: StoreFault) -> DiskFault {
    DiskFault::Io
}
