//! A pool in memory, an index in memory, and the writing of logs as a volume would write them.

use crate::compact::parcel::{Target, parcel_of};
use crate::error::DiskFault;
use crate::format::{
    BatchHeader, Footer, Geometry, Operation, OperationKind, SlotHeader, SlotUse, Superblock, batch_header_blocks,
    block_check, decode_parcel_start, encode_batch, encode_footer, encode_parcel,
};
use crate::format::{Cut, PartSet};
use crate::io::LoadedPage;
use crate::map::{Location, Map, ResolvedRun};
use crate::pool::{
    Boundary, Home, Index, Lease, LeaseClass, Loan, Move, ParcelPlace, Parcels, Parent, SegmentRow, Settled,
    SurvivorOutcome, SurvivorSearch, Survivors,
};
use crate::recover::{Recovered, SegmentLog, Wanted, read_segment, recover, replay_operation};
use crate::store::{Durability, PoolReader, Store, StoreFault, StoreWrite};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use units::{BLOCK_LEN, BlockIndex, BlockRange, Epoch, Lsn, PoolId, SegmentId, SlotIndex, SnapshotId, VolumeId};

pub(crate) const VOLUME: VolumeId = VolumeId(7);
pub(crate) const OTHER_VOLUME: VolumeId = VolumeId(8);
pub(crate) const SIZE_BYTES: u64 = 1 << 40;

type Keys = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store that remembers what a power cut may take.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryStore {
    pub(crate) keys: Keys,
    /// The states since the last durable commit, that one first.
    states: Vec<Keys>,
    pub(crate) durable_commits: u64,
    pub(crate) commits: u64,
    pub(crate) fails: bool,
    /// Tells that it failed when it did not.
    pub(crate) fails_late: bool,
    pub(crate) seeks: Cell<u64>,
}

impl MemoryStore {
    /// Loses all but `kept` of the lazy commits.
    pub(crate) fn cut_power(&mut self, kept: usize) {
        if let Some(state) = self.states.get(kept.min(self.states.len() - 1)) {
            self.keys = state.clone();
        }
        self.states = vec![self.keys.clone()];
    }

    pub(crate) fn lazy_commits(&self) -> usize {
        self.states.len().saturating_sub(1)
    }
}

impl Store for MemoryStore {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        Ok(self.keys.get(key).cloned())
    }

    fn seek(&self, from: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, StoreFault> {
        self.seeks.set(self.seeks.get() + 1);
        let found = self.keys.range(from.to_vec()..).next().filter(|(key, _)| key.as_slice() < end);
        Ok(found.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn commit(&mut self, writes: Vec<StoreWrite>, durability: Durability) -> Result<(), StoreFault> {
        if self.fails {
            return Err(StoreFault("told to fail".to_owned()));
        }
        for write in writes {
            match write {
                StoreWrite::Put(key, value) => {
                    self.keys.insert(key, value);
                }
                StoreWrite::Delete(key) => {
                    self.keys.remove(&key);
                }
                StoreWrite::DeleteRange(from, end) => self.keys.retain(|key, _| *key < from || *key >= end),
            }
        }
        if durability == Durability::Durable {
            self.states.clear();
            self.durable_commits += 1;
        }
        self.commits += 1;
        self.states.push(self.keys.clone());
        if self.fails_late { Err(StoreFault("told to fail".to_owned())) } else { Ok(()) }
    }
}

/// A pool's bytes.
#[derive(Debug, Clone)]
pub(crate) struct MemoryPool {
    pub(crate) bytes: Vec<u8>,
    /// Blocks of the pool that the disk does not give.
    pub(crate) unreadable: BTreeSet<u64>,
}

impl MemoryPool {
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let at = usize::try_from(offset).unwrap();
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl PoolReader for MemoryPool {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskFault> {
        let first = offset / 4096;
        if self.unreadable.range(first..first + (buffer.len() / BLOCK_LEN) as u64).next().is_some() {
            return Err(DiskFault::Io);
        }
        let at = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.bytes[at..at + buffer.len()]);
        Ok(())
    }
}

pub(crate) fn write_op(first: u64, count: u64) -> Operation {
    Operation { kind: OperationKind::Write, range: BlockRange::new(BlockIndex(first), count) }
}

pub(crate) fn trim_op(first: u64, count: u64) -> Operation {
    Operation { kind: OperationKind::Trim, range: BlockRange::new(BlockIndex(first), count) }
}

/// A copy of neighbouring blocks from `source` on.
pub(crate) fn copy_op(first: u64, count: u64, source: Location) -> Operation {
    Operation { kind: OperationKind::Copy { source }, range: BlockRange::new(BlockIndex(first), count) }
}

pub(crate) fn resize_op(size_bytes: u64) -> Operation {
    Operation { kind: OperationKind::Resize(size_bytes), range: BlockRange::new(BlockIndex(0), 0) }
}

pub(crate) fn snapshot_op(generation: u64) -> Operation {
    Operation::without_range(OperationKind::Snapshot { generation, id: SnapshotId(90 + generation), wall_ms: 5 })
}

/// Where a batch is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchPlace {
    pub(crate) slot: SlotIndex,
    pub(crate) block: u32,
    pub(crate) total_blocks: u32,
}

#[derive(Debug, Clone)]
struct OpenSegment {
    row: SegmentRow,
    chain_before: u32,
    filled_blocks: u32,
    entries: Vec<(Operation, u32)>,
    checks: Vec<u32>,
}

/// A volume's state as its owner would have it.
#[derive(Debug)]
pub(crate) struct Author {
    pub(crate) next_lsn: Lsn,
    pub(crate) chain: u32,
    /// What the batches say was durable.
    pub(crate) durable_lsn: Lsn,
    pub(crate) size_bytes: u64,
    pub(crate) map: Map,
    open: Option<OpenSegment>,
    /// What it inherits.
    base: BTreeMap<u64, (Location, u32)>,
    /// Every operation ever written, with the location of its first block and its check values.
    pub(crate) history: Vec<(Operation, Option<Location>, Vec<u32>)>,
}

impl Author {
    fn new() -> Self {
        Self {
            next_lsn: Lsn(1),
            chain: 0,
            durable_lsn: Lsn::ZERO,
            size_bytes: SIZE_BYTES,
            map: Map::new(true),
            open: None,
            base: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    /// Where each block is after the operations up to `lsn`.
    pub(crate) fn mapped_at(&self, lsn: Lsn) -> BTreeMap<u64, (Location, u32)> {
        let mut mapped = self.base.clone();
        for (operation, location, checks) in self.history.iter().take(usize::try_from(lsn.0).unwrap()) {
            let range = operation.range;
            match location {
                Some(first) => {
                    for (by, block) in (0_u32..).zip(range.blocks()) {
                        mapped.insert(block.0, (first.plus(by), checks[by as usize]));
                    }
                }
                None => mapped.retain(|block, _| !range.contains(BlockIndex(*block))),
            }
        }
        mapped
    }
}

/// A pool with volumes that write to it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) superblock: Superblock,
    pub(crate) pool: MemoryPool,
    pub(crate) index: Index<MemoryStore>,
    pub(crate) authors: BTreeMap<VolumeId, Author>,
    /// Into how many parts segments are cut when they are moved.
    pub(crate) cut: Cut,
    /// Which parts are moved of those that were moved before.
    pub(crate) parts: PartSet,
}

impl World {
    /// Slots of 32 blocks.
    pub(crate) fn new(slot_count: u32) -> Self {
        Self::with_slots(128 << 10, slot_count)
    }

    pub(crate) fn with_slots(slot_bytes: u64, slot_count: u32) -> Self {
        let geometry = Geometry { slot_bytes, slot_count };
        let superblock = Superblock { pool: PoolId([3; 16]), geometry, generation: 1, created_ms: 0 };
        let bytes = vec![0; usize::try_from(geometry.pool_bytes()).unwrap()];
        let mut pool = MemoryPool { bytes, unreadable: BTreeSet::new() };
        pool.write(superblock.offset(), &superblock.encode());
        let index = Index::create(MemoryStore::default(), &superblock).unwrap();
        let authors = [VOLUME, OTHER_VOLUME].map(|volume| (volume, Author::new()));
        Self { superblock, pool, index, authors: BTreeMap::from(authors), cut: Cut::WHOLE, parts: PartSet::ALL }
    }

    /// Makes a clone of a volume as it was after `lsn`, the boundary's.
    pub(crate) fn clone_volume(&mut self, clone: VolumeId, parent: Parent, lsn: Lsn) {
        self.index.note_parent(clone, parent).unwrap();
        let base = self.authors[&parent.volume].mapped_at(lsn);
        self.authors.insert(clone, Author { base, map: Map::new(false), ..Author::new() });
    }

    pub(crate) fn author(&mut self, volume: VolumeId) -> &mut Author {
        self.authors.get_mut(&volume).unwrap()
    }

    /// Opens a segment; its header goes out with the first batch.
    pub(crate) fn open(&mut self, volume: VolumeId) -> SegmentRow {
        let lease = self.index.lease(LeaseClass::Compaction).unwrap();
        self.open_at(volume, lease)
    }

    pub(crate) fn open_at(&mut self, volume: VolumeId, lease: Lease) -> SegmentRow {
        let author = self.author(volume);
        let row = SegmentRow {
            segment: lease.segment,
            volume,
            home: Home::Own(lease.slot),
            first_lsn: author.next_lsn,
            last_lsn: None,
            has_holes: false,
        };
        let chain_before = author.chain;
        author.open =
            Some(OpenSegment { row, chain_before, filled_blocks: 0, entries: Vec::new(), checks: Vec::new() });
        self.index.note_segment(row).unwrap();
        row
    }

    /// Appends a batch to the open segment.
    pub(crate) fn append(&mut self, volume: VolumeId, operations: &[Operation]) -> BatchPlace {
        let author = self.authors.get_mut(&volume).unwrap();
        let mut open = author.open.take().expect("a segment is open");
        let (row, geometry) = (open.row, self.superblock.geometry);
        if open.filled_blocks == 0 {
            let header =
                SlotHeader { chain: open.chain_before, ..header_of(&row, self.superblock.pool, author.size_bytes) };
            self.pool.write(geometry.slot_offset(row.a_slot()), &encoded_header(&header));
            open.filled_blocks = 1;
        }
        let payload: usize = operations.iter().map(|operation| operation.payload_blocks() as usize).sum();
        let header_blocks = batch_header_blocks(operations.len(), payload);
        let block = open.filled_blocks;
        let mut at = block + header_blocks;
        let mut checks = Vec::new();
        for operation in operations {
            let lsn = Lsn(author.history.len() as u64 + 1);
            let first = at;
            let first_check = checks.len();
            if let Some(source) = operation.source() {
                let loan = Loan { block: first, count: operation.payload_blocks(), source };
                self.index.note_loans(row.segment, &[loan]).unwrap();
            }
            for by in 0..operation.payload_blocks() {
                let content = match operation.source() {
                    Some(source) => read_from(&self.index, &self.pool, source.plus(by)),
                    None => content_of(lsn, by),
                };
                checks.push(block_check(row.segment, at, &content));
                if operation.source().is_none() {
                    self.pool.write(geometry.block_offset(row.a_slot(), at), &content);
                }
                at += 1;
            }
            let mine = checks[first_check..].to_vec();
            replay_operation(&mut author.map, lsn, operation, row.segment, (first, &mine));
            let location = Location { segment: row.segment, block: u16::try_from(first).unwrap() };
            author.history.push((*operation, (!mine.is_empty()).then_some(location), mine));
            open.entries.push((*operation, if operation.payload_blocks() > 0 { first } else { 0 }));
            open.row.has_holes |= operation.makes_holes();
            if let OperationKind::Resize(size_bytes) = operation.kind {
                author.size_bytes = size_bytes;
            }
            if let OperationKind::Snapshot { generation, wall_ms, .. } = operation.kind {
                let boundary = Boundary { generation, lsn, size_bytes: author.size_bytes, wall_ms };
                self.index.note_boundary(volume, boundary).unwrap();
            }
        }
        assert!(at < geometry.slot_blocks(), "a test batch fits");
        open.checks.extend(&checks);
        open.filled_blocks = at;
        let header = BatchHeader {
            block,
            volume,
            segment: row.segment,
            epoch: Epoch(0),
            first_lsn: author.next_lsn,
            durable_lsn: author.durable_lsn,
            wall_ms: 0,
            chain: author.chain,
            operations: operations.to_vec(),
            checks,
        };
        let mut encoded = vec![0; header_blocks as usize * BLOCK_LEN];
        author.chain = encode_batch(&header, &mut encoded);
        author.next_lsn = header.last_lsn().next();
        author.open = Some(open);
        self.pool.write(geometry.block_offset(row.a_slot(), block), &encoded);
        BatchPlace { slot: row.a_slot(), block, total_blocks: at - block }
    }

    /// Takes back the operations from `lsn` on, as after a failed append; the bytes stay.
    pub(crate) fn give_up_from(&mut self, volume: VolumeId, lsn: Lsn, chain: u32) {
        let author = self.author(volume);
        author.next_lsn = lsn;
        author.chain = chain;
        author.history.truncate(usize::try_from(lsn.0 - 1).unwrap());
        if let Some(open) = &mut author.open {
            open.entries.truncate(usize::try_from(lsn.0 - open.row.first_lsn.0).unwrap());
            let payload: u32 = open.entries.iter().map(|(operation, _)| operation.payload_blocks()).sum();
            open.checks.truncate(payload as usize);
        }
    }

    /// Seals the open segment: notes it, and writes its footer.
    pub(crate) fn seal(&mut self, volume: VolumeId) -> SegmentRow {
        let author = self.authors.get_mut(&volume).unwrap();
        let open = author.open.take().expect("a segment is open");
        let row = SegmentRow { last_lsn: Some(Lsn(author.next_lsn.0 - 1)), ..open.row };
        let bytes = encode_footer(&Footer {
            pool: self.superblock.pool,
            segment: row.segment,
            volume,
            epoch: Epoch(0),
            first_lsn: row.first_lsn,
            size_bytes: author.size_bytes,
            filled_blocks: open.filled_blocks,
            chain_before: open.chain_before,
            chain_after: author.chain,
            entries: open.entries,
            checks: open.checks,
        });
        let end = self.superblock.geometry.slot_offset(SlotIndex(row.a_slot().0 + 1));
        self.pool.write(end - bytes.len() as u64, &bytes);
        self.index.note_segment(row).unwrap();
        row
    }

    /// Everything written so far is on stable storage, and later batches say so.
    pub(crate) fn sync(&mut self, volume: VolumeId) {
        let author = self.author(volume);
        author.durable_lsn = Lsn(author.next_lsn.0 - 1);
    }

    /// Opens a segment, appends each of `batches` and seals it.
    pub(crate) fn segment(&mut self, volume: VolumeId, batches: &[&[Operation]]) -> SegmentRow {
        self.open(volume);
        for batch in batches {
            self.append(volume, batch);
        }
        self.seal(volume)
    }

    /// Writes back the map as it is; returns the segments that may leave.
    pub(crate) fn fold(&mut self, volume: VolumeId) -> Vec<SegmentId> {
        self.sync(volume);
        loop {
            self.fold_once(volume, usize::MAX).unwrap();
            if !self.author(volume).map.is_dirty() {
                return self.dead(volume);
            }
        }
    }

    /// Writes back at most so many pages of the map as it is.
    pub(crate) fn fold_once(&mut self, volume: VolumeId, pages_max: usize) -> Result<(), DiskFault> {
        let author = self.authors.get_mut(&volume).unwrap();
        let capture = author.map.capture(Lsn(author.next_lsn.0 - 1), pages_max);
        let folded = capture.folded(author.size_bytes);
        let result = self.index.write_back(volume, capture.generation, &capture.writes, folded);
        author.map.write_back_ended(result.is_ok());
        result
    }

    /// The segments that may leave as far as the index knows, where all of the log is on stable storage.
    pub(crate) fn dead(&mut self, volume: VolumeId) -> Vec<SegmentId> {
        let newest = self.index.segments(volume).iter().map(|row| row.segment).max();
        let newest_durable = newest.unwrap_or(SegmentId(0));
        self.index.settle(volume, Settled { up_to: newest_durable, newest_durable });
        self.index.dead_segments(volume).iter().map(|row| row.segment).collect()
    }

    /// Writes a pack with what is left of segments, by the stored map; what the index is to be told of it.
    pub(crate) fn write_pack(&mut self, segments: &[SegmentId]) -> (Lease, Vec<Move>) {
        let (leases, moves) = self.write_packs(segments, 1);
        (leases[0], moves)
    }

    /// The same with their parts in turn in so many packs.
    pub(crate) fn write_packs(&mut self, segments: &[SegmentId], packs: usize) -> (Vec<Lease>, Vec<Move>) {
        let (superblock, geometry) = (self.superblock, self.superblock.geometry);
        let slot_blocks = geometry.slot_blocks();
        let logs: Vec<SegmentLog> = segments.iter().map(|segment| self.folded_log(*segment)).collect();
        let mut search = SurvivorSearch::new(geometry.slot_blocks());
        let cut_of = |log: &SegmentLog| log.row.home.parcels().map_or(self.cut, |parcels| parcels.cut);
        let wanted = self.parts;
        let parts_of = |log: &SegmentLog| match log.row.home.parcels() {
            None => PartSet::ALL,
            Some(parcels) => parcels.only(wanted).parts(),
        };
        logs.iter().for_each(|log| {
            search.add((log.row.volume, log.row.segment), (cut_of(log), parts_of(log)), &log.entries);
        });
        let index = &self.index;
        assert!(search.step(usize::MAX, |volume, page, visit| index.each_version(volume, page, visit)).unwrap());
        let mut found = search.finish();
        let lents = self.take_lent(&mut found);
        let (mut moves, mut cuts) = (Vec::new(), Vec::new());
        let mut pieces: Vec<Vec<(usize, usize)>> = vec![Vec::new(); packs];
        for (at, log) in logs.iter().enumerate() {
            let outcome = &found[&log.row.segment];
            assert!(!outcome.is_suspect);
            let cut = cut_of(log);
            let leaving = parts_of(log);
            let has = |part: &usize| {
                leaving.contains(*part)
                    && (*part == 0 || outcome.survivors.within(cut.span(*part, slot_blocks)).count() > 0)
            };
            (0..cut.parts()).filter(has).for_each(|part| pieces[(at + part) % packs].push((at, part)));
            let (segment, survivors, parcels) = (log.row.segment, outcome.survivors.clone(), Parcels::none(cut));
            moves.push(Move { segment, parts: leaving, parcels, survivors, has_holes: log.row.has_holes });
            cuts.push((cut, (0..cut.parts()).filter(has).collect::<PartSet>()));
        }
        let mut leases = Vec::new();
        for pieces in pieces.into_iter().filter(|pieces| !pieces.is_empty()) {
            let lease = self.index.lease(LeaseClass::Compaction).unwrap();
            let (mut at, mut copy_end) = (1, slot_blocks - 1);
            let (pack, parcels) = (lease.segment, u32::try_from(pieces.len()).unwrap());
            for (which, part) in pieces {
                let (log, moved, (cut, parts)) = (&logs[which], &mut moves[which], cuts[which]);
                let clean_lsn = self.index.volume_row(log.row.volume).unwrap().folded_to;
                let drops_trims = log.row.has_holes && self.index.has_spent_trims(&log.row);
                let target = Target { pack, parcels, block: at, copy_end, clean_lsn, drops_trims, cut, parts };
                let parcel = parcel_of(&superblock, (log, part), (&moved.survivors, &lents[&log.row.segment]), target);
                if part == 0 {
                    moved.has_holes = parcel.entries.iter().any(|entry| entry.operation.makes_holes());
                }
                let bytes = encode_parcel(&parcel);
                let copy = parcel.header.copy;
                self.pool.write(geometry.block_offset(lease.slot, at), &bytes);
                self.pool.write(geometry.block_offset(lease.slot, copy), &bytes);
                let mut to = at + parcel.header_blocks();
                for block in cut.span(part, slot_blocks).filter(|block| moved.survivors.contains(*block)) {
                    let location = Location { segment: log.row.segment, block: u16::try_from(block).unwrap() };
                    let content = read_from(&self.index, &self.pool, location);
                    self.pool.write(geometry.block_offset(lease.slot, to), &content);
                    to += 1;
                }
                let (slot, block, header_blocks) = (lease.slot, at, parcel.header_blocks());
                let moves = parcel.header.moves;
                let place = ParcelPlace { pack, slot, block, copy, header_blocks, moves, clean_lsn };
                moved.parcels = moved.parcels.with(part, place);
                (at, copy_end) = (to, copy);
                assert!(at <= copy, "a test pack fits");
            }
            self.write_pack_header(lease.slot, &SlotHeader::pack(superblock.pool, pack, 0));
            leases.push(lease);
        }
        (leases, moves)
    }

    /// Adds what is lent to the survivors; returns what is left for that alone.
    fn take_lent(&self, found: &mut BTreeMap<SegmentId, SurvivorOutcome>) -> BTreeMap<SegmentId, Survivors> {
        let lents = found.iter_mut().map(|(segment, outcome)| {
            let lent = self.index.lent_blocks(*segment).without(&outcome.survivors);
            outcome.survivors.add(&lent);
            (*segment, lent)
        });
        lents.collect()
    }

    fn write_pack_header(&mut self, slot: SlotIndex, header: &SlotHeader) {
        let geometry = self.superblock.geometry;
        for block in [0, geometry.slot_blocks() - 1] {
            self.pool.write(geometry.block_offset(slot, block), &encoded_header(header));
        }
    }

    /// Makes the packs void in which nothing is, and frees their slots.
    pub(crate) fn void_empty_packs(&mut self) {
        for (pack, slot) in self.index.empty_packs() {
            self.write_pack_header(slot, &SlotHeader::void_pack(self.superblock.pool, pack));
            self.index.release_pack(pack).unwrap();
        }
    }

    /// A segment of 20 blocks, which is cut into two parts when it is moved, and the newest.
    pub(crate) fn cut_in_two() -> (Self, SegmentRow) {
        let mut world = Self::new(40);
        let row = world.segment(VOLUME, &[&[write_op(0, 20)]]);
        world.segment(VOLUME, &[&[write_op(100, 1)]]);
        world.fold(VOLUME);
        world.cut = Cut::of_log2(1).unwrap();
        (world, row)
    }

    /// Moves segments into a pack; the places before are not void yet.
    pub(crate) fn pack(&mut self, segments: &[SegmentId]) -> Lease {
        let (lease, moves) = self.write_pack(segments);
        self.index.relocate(&[lease], moves).unwrap();
        lease
    }

    /// The same with their parts in turn in two packs.
    pub(crate) fn pack_apart(&mut self, segments: &[SegmentId]) {
        let (leases, moves) = self.write_packs(segments, 2);
        self.index.relocate(&leases, moves).unwrap();
    }

    /// Makes the places void that segments have left.
    pub(crate) fn void_left(&mut self) {
        let left: Vec<_> = self.index.left_places().collect();
        for (segment, places) in left {
            if let Some(slot) = places.own() {
                let row = self.index.segment(segment).unwrap();
                let header = SlotHeader::void(self.superblock.pool, segment, row.volume, row.first_lsn);
                self.pool.write(self.superblock.geometry.slot_offset(slot), &encoded_header(&header));
            }
            places.each_parcel().for_each(|parcel| self.void_parcel_at(parcel.slot, parcel.block));
            self.index.release_left(segment).unwrap();
        }
    }

    pub(crate) fn void_parcel_at(&mut self, slot: SlotIndex, block: u32) {
        let at = self.at(slot, block);
        let start = decode_parcel_start(&self.pool.bytes[at..at + BLOCK_LEN]).unwrap();
        for block in [block, start.header.copy] {
            let at = self.at(slot, block);
            start.make_void(&mut self.pool.bytes[at..at + BLOCK_LEN]);
        }
    }

    fn folded_log(&self, segment: SegmentId) -> SegmentLog {
        let row = self.index.segment(segment).unwrap();
        let last = row.last_lsn.unwrap();
        let (reader, superblock, cut) = (&self.pool, &self.superblock, Lsn(u64::MAX));
        read_segment(&Wanted {
            reader,
            superblock,
            row,
            cut,
            durable_lsn: last,
            known_to: last,
            distrusts_footer: false,
        })
        .unwrap()
    }

    /// Makes a dead segment's header void and gives its slot back.
    pub(crate) fn release(&mut self, row: &SegmentRow) {
        let header = SlotHeader::void(self.superblock.pool, row.segment, row.volume, row.first_lsn);
        self.pool.write(self.superblock.geometry.slot_offset(row.a_slot()), &encoded_header(&header));
        self.index.release(row.segment).unwrap();
    }

    /// Loses the process, and of the store's lazy commits all but `kept`.
    pub(crate) fn crash(&mut self, kept: usize) {
        let mut store = self.index.store().clone();
        store.cut_power(kept);
        self.index = Index::open(store, &self.superblock, &self.pool).unwrap();
    }

    pub(crate) fn recover(&self, volume: VolumeId) -> Result<Recovered, crate::recover::Damage> {
        recover(&self.pool, &self.superblock, &self.index.known(volume, SIZE_BYTES))
    }

    /// Carries out what recovery asked for.
    pub(crate) fn mend(&mut self, recovered: &Recovered) {
        for (offset, bytes) in &recovered.writes {
            self.pool.write(*offset, bytes);
        }
        for row in &recovered.sealed {
            self.index.note_segment(*row).unwrap();
        }
        for segment in &recovered.voided {
            self.index.release(*segment).unwrap();
        }
        let Recovered { volume, next_lsn, boundaries, borrowed, .. } = recovered;
        borrowed.iter().for_each(|(segment, loans)| self.index.note_loans(*segment, loans).unwrap());
        self.index.note_recovered_boundaries(*volume, *next_lsn, boundaries).unwrap();
    }

    /// Recovers, mends, and lets the volume's author go on from there.
    pub(crate) fn restart(&mut self, volume: VolumeId) -> Recovered {
        let recovered = self.recover(volume).unwrap();
        self.mend(&recovered);
        let author = self.author(volume);
        author.next_lsn = recovered.next_lsn;
        author.chain = recovered.chain;
        author.size_bytes = recovered.size_bytes;
        author.durable_lsn = Lsn(recovered.next_lsn.0 - 1);
        author.history.truncate(usize::try_from(recovered.next_lsn.0 - 1).unwrap());
        author.open = None;
        recovered
    }

    /// The copy of a block of a volume to another, by where it is now; of a hole a trim.
    pub(crate) fn copy_of(&self, volume: VolumeId, block: u64, target: u64) -> Operation {
        let author = &self.authors[&volume];
        let Some((location, _)) = author.mapped_at(author.next_lsn).remove(&block) else { return trim_op(target, 1) };
        let source = self.index.loans(location.segment).map_or(location, |loans| loans.resolve(location, 1).0);
        copy_op(target, 1, source)
    }

    /// Where each block of `blocks` is by a recovered map over the stored one.
    pub(crate) fn resolve(&self, map: &mut Map, volume: VolumeId, blocks: u64) -> BTreeMap<u64, (Location, u32)> {
        let mut mapped = BTreeMap::new();
        let range = BlockRange::new(BlockIndex(0), blocks);
        loop {
            let (mut runs, mut checks): (Vec<ResolvedRun>, Vec<u32>) = (Vec::new(), Vec::new());
            match map.resolve(range, &mut runs, &mut checks) {
                Ok(()) => {
                    let mut checks = checks.into_iter();
                    for run in runs {
                        let Some(location) = run.location else { continue };
                        for by in 0..run.count {
                            mapped.insert(u64::from(run.at + by), (location.plus(by), checks.next().unwrap()));
                        }
                    }
                    return mapped;
                }
                Err(page) => {
                    let loaded: LoadedPage = self.index.load_page(volume, page).unwrap();
                    map.loaded(page, &loaded).unwrap();
                }
            }
        }
    }

    /// Where a block of a slot is in the pool's bytes.
    pub(crate) fn at(&self, slot: SlotIndex, block: u32) -> usize {
        usize::try_from(self.superblock.geometry.block_offset(slot, block)).unwrap()
    }

    /// Flips a bit of a block, within the bytes that every structure uses.
    pub(crate) fn rot(&mut self, slot: SlotIndex, block: u32) {
        let at = self.at(slot, block);
        self.pool.bytes[at + 60] ^= 4;
    }

    pub(crate) fn zero(&mut self, slot: SlotIndex, blocks: std::ops::Range<u32>) {
        for block in blocks {
            let at = self.at(slot, block);
            self.pool.bytes[at..at + BLOCK_LEN].fill(0);
        }
    }
}

/// The content of a block.
pub(crate) fn read_from(index: &Index<MemoryStore>, pool: &MemoryPool, location: Location) -> Vec<u8> {
    let there = index.locate(location, 1)[0].expect("the block is there");
    let at = usize::try_from(index.superblock().geometry.block_offset(there.slot, there.block)).unwrap();
    pool.bytes[at..at + BLOCK_LEN].to_vec()
}

const fn header_of(row: &SegmentRow, pool: PoolId, size_bytes: u64) -> SlotHeader {
    SlotHeader {
        slot_use: SlotUse::Segment,
        pool,
        segment: row.segment,
        volume: row.volume,
        epoch: Epoch(0),
        first_lsn: row.first_lsn,
        size_bytes,
        chain: 0,
        opened_ms: 0,
    }
}

fn encoded_header(header: &SlotHeader) -> Vec<u8> {
    let mut block = vec![0; BLOCK_LEN];
    header.encode(&mut block);
    block
}

/// What operation `lsn` writes as its block number `by`.
pub(crate) fn content_of(lsn: Lsn, by: u32) -> Vec<u8> {
    let mut content = vec![u8::try_from(lsn.0 % 251).unwrap(); BLOCK_LEN];
    content[..8].copy_from_slice(&lsn.0.to_le_bytes());
    content[8..12].copy_from_slice(&by.to_le_bytes());
    content
}
