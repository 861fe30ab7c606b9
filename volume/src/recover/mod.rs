//! Recovery: what a volume's log says after a stop or a crash.
//!
//! Reads the segments that the stored map does not have all of, decides where the log ends, and says what is to be
//! written before the volume may be served: footers of segments that lack one, void headers of those that hold nothing.
//! The log then goes on in a new segment. It ends at the first batch that is not whole, unless something tells that the
//! batch was on stable storage: then the volume is [`Damage`]d, and never silently cut (P1).
//!
//! Changes nothing itself, and gives the same again after a crash during what it asked for.

mod damage;
mod pack;
mod probe;
mod segment;
mod source;

pub use damage::{Damage, DamageKind, Place};
pub(crate) use pack::{
    HeaderAt, Listed, Walked, header_at, is_pack_header, pack_headers, place_of, read_block, row_of_parcel,
    survivors_of, void_parcel, walk_pack,
};
pub(crate) use probe::{Probed, probe, tell_apart};
pub(crate) use segment::{SegmentLog, Wanted, read_segment};
pub(crate) use source::SlotSource;

use crate::engine::Mark;
use crate::format::{Footer, Geometry, Operation, OperationKind, SlotHeader, SlotUse, Superblock, encode_footer};
use crate::map::{Location, Map};
use crate::pool::{Boundary, Loan, Loans, Parent, SegmentRow, Survivors, VolumeRow};
use crate::store::PoolReader;
use std::collections::BTreeMap;
use std::sync::Arc;
use units::{
    ADDRESS_SPACE_BYTES, BLOCK_BYTES, BLOCK_LEN, BlockIndex, BlockRange, Epoch, Lsn, MeterTime, SegmentId, SlotIndex,
    VolumeId,
};

/// What the index knows of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Which.
    pub volume: VolumeId,
    /// Its size when it was made; counts while neither `row` nor the log tells one.
    pub created_bytes: u64,
    /// How far the stored map goes; `None` when it holds nothing.
    pub row: Option<VolumeRow>,
    /// Its segments.
    pub segments: Vec<SegmentRow>,
    /// Which blocks are left of those that were moved.
    pub survivors: BTreeMap<SegmentId, Arc<Survivors>>,
    /// What each of them borrows.
    pub loans: BTreeMap<SegmentId, Loans>,
    /// What it inherits.
    pub parent: Option<Parent>,
    /// Its log was joined up to here, and the stored map does not have all of that: it is to be folded first
    /// ([`crate::resync::fold`]).
    pub joined_to: Option<Lsn>,
}

/// A volume at the end of its log.
#[derive(Debug)]
pub struct Recovered {
    /// Which.
    pub volume: VolumeId,
    /// Its size.
    pub size_bytes: u64,
    /// The highest epoch in its log.
    pub epoch: Epoch,
    /// The LSN of the next operation.
    pub next_lsn: Lsn,
    /// CRC of the header of the last batch.
    pub chain: u32,
    /// The stored map holds everything up to here; `map` has all that came later.
    pub folded_to: Lsn,
    /// Its segments, oldest first, all sealed.
    pub segments: Vec<SegmentRow>,
    /// Which blocks are left of those that were moved.
    pub survivors: BTreeMap<SegmentId, Arc<Survivors>>,
    /// What each of them borrows.
    pub loans: BTreeMap<SegmentId, Loans>,
    /// Its map.
    pub map: Map,
    /// Bytes to be written to the pool, by offset, before anything else is; then synced, before the volume is served.
    pub writes: Vec<(u64, Vec<u8>)>,
    /// For [`crate::pool::Index::note_segment`] once `writes` are durable.
    pub sealed: Vec<SegmentRow>,
    /// For [`crate::pool::Index::release`] once `writes` are durable.
    pub voided: Vec<SegmentId>,
    /// What those borrow that were read, for [`crate::pool::Index::note_loans`] before any volume is served.
    pub borrowed: Vec<(SegmentId, Vec<Loan>)>,
    /// The generations that ended after `folded_to`, for [`crate::pool::Index::note_recovered_boundaries`] before the volume is
    /// served.
    pub boundaries: Vec<Boundary>,
    /// The last of them, or zero: the stored map is wanted to there soon, since a snapshot is read from it.
    pub wanted_lsn: Lsn,
    /// The last time that is told in what was read of its log; zero where none is.
    pub(crate) last_mark: Mark,
    /// Whether it inherits from another volume.
    pub is_heir: bool,
    /// Whether it takes no changes.
    pub is_read_only: bool,
    /// The segment that a secondary's log goes on in.
    pub(crate) tail: Option<Tail>,
}

/// A segment that is not sealed, and takes what the primary's has beyond it.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) segment: SegmentId,
    pub(crate) slot: SlotIndex,
    pub(crate) first_lsn: Lsn,
    pub(crate) chain_before: u32,
    pub(crate) filled_blocks: u32,
    pub(crate) entries: Vec<(Operation, u32)>,
    pub(crate) checks: Vec<u32>,
}

impl Recovered {
    /// The latest time of the meter that its log tells.
    #[must_use]
    pub const fn metered_to(&self) -> MeterTime {
        self.last_mark.meter
    }
}

/// A new volume, whose id was never used before.
#[must_use]
pub fn fresh(volume: VolumeId, size_bytes: u64) -> Recovered {
    Recovered {
        volume,
        size_bytes,
        epoch: Epoch(0),
        next_lsn: Lsn(1),
        chain: 0,
        folded_to: Lsn::ZERO,
        segments: Vec::new(),
        survivors: BTreeMap::new(),
        loans: BTreeMap::new(),
        map: metered(volume, Map::new(true)),
        writes: Vec::new(),
        sealed: Vec::new(),
        voided: Vec::new(),
        borrowed: Vec::new(),
        boundaries: Vec::new(),
        wanted_lsn: Lsn::ZERO,
        last_mark: Mark::default(),
        is_heir: false,
        is_read_only: false,
        tail: None,
    }
}

/// A map that keeps what a volume uses, but for the system's, which nobody pays for.
fn metered(volume: VolumeId, mut map: Map) -> Map {
    if volume != VolumeId::SYSTEM {
        map.begin_metering();
    }
    map
}

/// A new clone, whose id was never used before, of a volume that had `size_bytes` at the boundary. The index has been told
/// of its parent.
#[must_use]
pub fn fresh_clone(volume: VolumeId, size_bytes: u64) -> Recovered {
    Recovered { map: metered(volume, Map::new(false)), is_heir: true, ..fresh(volume, size_bytes) }
}

/// A view of a snapshot: a clone that takes no changes, so that its log has nothing and is never opened again.
#[must_use]
pub fn fresh_view(volume: VolumeId, size_bytes: u64) -> Recovered {
    Recovered { is_read_only: true, ..fresh_clone(volume, size_bytes) }
}

/// Finds the end of a volume's log, and its map up to there.
///
/// # Errors
/// [`Damage`] when something that was on stable storage cannot be told any more, or the disk does not give a block that
/// recovery needs. Nothing has been changed.
pub fn recover(reader: &dyn PoolReader, superblock: &Superblock, known: &Known) -> Result<Recovered, Damage> {
    recover_by(reader, superblock, known, Terms::default())
}

/// How the end of the log of a volume that is mirrored is found.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// What lies behind it was never acknowledged, and does not count any more: where the log parts from the primary's.
    pub limit: Lsn,
    /// Whether the log may go on in the segment that it ends in, since the primary may have what follows in the same place.
    pub goes_on: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { limit: Lsn(u64::MAX), goes_on: false }
    }
}

/// The same by terms.
///
/// # Errors
/// As [`recover`]; [`DamageKind::Missing`] where more than the limit is known to count.
pub fn recover_by(
    reader: &dyn PoolReader,
    superblock: &Superblock,
    known: &Known,
    terms: Terms,
) -> Result<Recovered, Damage> {
    let mut recovered = find_end(reader, superblock, known, terms)?;
    if terms.goes_on {
        recovered.leave_tail_open(reader, superblock, known);
    }
    Ok(recovered)
}

fn find_end(
    reader: &dyn PoolReader,
    superblock: &Superblock,
    known: &Known,
    terms: Terms,
) -> Result<Recovered, Damage> {
    let limit = terms.limit;
    let folded_to = known.row.map_or(Lsn::ZERO, |row| row.folded_to);
    if let Some(to) = known.joined_to {
        return Err(Damage { volume: known.volume, kind: DamageKind::Unfolded { to } });
    }
    if folded_to > limit {
        let kind = DamageKind::Missing { lsn: limit.next(), durable_lsn: folded_to };
        return Err(Damage { volume: known.volume, kind });
    }
    let (logs, durable_lsn) = read_logs(reader, superblock, known, (folded_to, terms))?;
    let base = read_base(reader, superblock, known, folded_to);
    let mut end = End::new(known, base.as_ref());
    end.durable_lsn = durable_lsn;
    let mut size_bytes = end.size_bytes;
    let mut kept = Vec::new();
    let mut voided = Vec::new();
    for log in logs {
        if end.takes(&log)? { kept.push(log) } else { voided.push(log) }
    }
    end.check()?;
    let folded = known.segments.iter().copied().filter(|row| is_folded(row, folded_to));
    let marks = base.iter().chain(&kept).filter_map(SegmentLog::last_mark);
    let last_mark = marks.fold(Mark::default(), Mark::max);
    let mut recovered = Recovered {
        size_bytes: end.size_bytes,
        epoch: end.epoch,
        next_lsn: end.next_lsn,
        chain: end.chain.unwrap_or(0),
        folded_to,
        segments: folded.collect(),
        survivors: known.survivors.clone(),
        loans: known.loans.clone(),
        map: metered(known.volume, Map::new(false)),
        last_mark,
        is_heir: known.parent.is_some(),
        ..fresh(known.volume, 0)
    };
    recovered.map.begin_generation(known.row.map_or(0, |row| row.generation));
    if let Some(base) = base.filter(|base| !base.is_empty()) {
        // All of it is folded, and its footer may have been lost all the same.
        recovered.mend(superblock, &base, size_bytes);
    }
    for log in kept {
        recovered.keep(superblock, &log, size_bytes);
        size_bytes = log.size_after().unwrap_or(size_bytes);
    }
    for log in voided {
        recovered.void(superblock, &log);
    }
    recovered.segments.sort_by_key(|row| (row.first_lsn, row.segment));
    recovered.wanted_lsn = recovered.boundaries.last().map_or(Lsn::ZERO, |boundary| boundary.lsn);
    Ok(recovered)
}

fn is_folded(row: &SegmentRow, folded_to: Lsn) -> bool {
    row.last_lsn.is_some_and(|last| last <= folded_to)
}

/// Where the operations of each segment of a volume end at the latest: where the first of a newer segment begins.
pub(crate) fn cuts_of(segments: &[SegmentRow]) -> BTreeMap<SegmentId, Lsn> {
    let by_id: BTreeMap<SegmentId, Lsn> = segments.iter().map(|row| (row.segment, row.first_lsn)).collect();
    let mut cut = Lsn(u64::MAX);
    let mut cuts = BTreeMap::new();
    for (segment, first_lsn) in by_id.into_iter().rev() {
        cuts.insert(segment, cut);
        cut = cut.min(first_lsn);
    }
    cuts
}

pub(crate) fn cut_at(cuts: &BTreeMap<SegmentId, Lsn>, row: &SegmentRow) -> Lsn {
    cuts.get(&row.segment).copied().unwrap_or(Lsn(u64::MAX))
}

/// Reads the segments that are not folded. The newest come first, since they tell what was durable of those before; the
/// result is oldest first, with what was durable for certain.
fn read_logs(
    reader: &dyn PoolReader,
    superblock: &Superblock,
    known: &Known,
    (folded_to, terms): (Lsn, Terms),
) -> Result<(Vec<SegmentLog>, Lsn), Damage> {
    let mut rows: Vec<SegmentRow> = known.segments.iter().copied().filter(|row| !is_folded(row, folded_to)).collect();
    rows.sort_by_key(|row| row.segment);
    let cuts = cuts_of(&known.segments);
    let mut durable_lsn = folded_to;
    let mut logs = Vec::with_capacity(rows.len());
    for row in rows.iter().rev() {
        let cut = cut_at(&cuts, row).min(Lsn(terms.limit.0.saturating_add(1)));
        let known_to = row.last_lsn.map_or(folded_to, |last| last.min(folded_to));
        let log = read_segment(&Wanted {
            reader,
            superblock,
            row: *row,
            cut,
            durable_lsn,
            known_to,
            distrusts_footer: false,
        })?;
        durable_lsn = durable_lsn.max(log.durable_seen);
        logs.push(log);
    }
    logs.reverse();
    Ok((logs, durable_lsn))
}

/// The newest segment that is folded: it tells what the first one that is not must follow on. The volume can do without.
fn read_base(reader: &dyn PoolReader, superblock: &Superblock, known: &Known, folded_to: Lsn) -> Option<SegmentLog> {
    let row = known.segments.iter().filter(|row| is_folded(row, folded_to)).max_by_key(|row| row.segment)?;
    let cut = cut_at(&cuts_of(&known.segments), row);
    let known_to = row.last_lsn.unwrap_or(folded_to);
    let wanted =
        Wanted { reader, superblock, row: *row, cut, durable_lsn: folded_to, known_to, distrusts_footer: false };
    read_segment(&wanted).ok()
}

/// The end of the log, as segment after segment is taken in.
#[derive(Debug)]
struct End {
    volume: VolumeId,
    size_bytes: u64,
    epoch: Epoch,
    next_lsn: Lsn,
    /// CRC of the last batch's header; `None` where no segment tells it.
    chain: Option<u32>,
    durable_lsn: Lsn,
    /// The first segments may begin anywhere up to here.
    folded_to: Lsn,
    /// A segment was torn off: what comes after it does not count.
    has_ended: bool,
}

impl End {
    fn new(known: &Known, base: Option<&SegmentLog>) -> Self {
        let row = known.row.as_ref();
        let folded_to = row.map_or(Lsn::ZERO, |row| row.folded_to);
        let next_lsn = folded_to.next();
        let mut end = Self {
            volume: known.volume,
            // A rebuild that found no header, since none was durable, says 0: the size is what it was from the start.
            size_bytes: row.map(|row| row.size_bytes).filter(|size| *size > 0).unwrap_or(known.created_bytes),
            epoch: row.map_or(Epoch(0), |row| row.epoch),
            next_lsn,
            chain: (folded_to == Lsn::ZERO).then_some(0),
            durable_lsn: folded_to,
            folded_to,
            has_ended: false,
        };
        if let Some(base) = base.filter(|base| base.end() == next_lsn) {
            end.chain = Some(base.chain_after);
            end.epoch = end.epoch.max(base.epoch);
            end.size_bytes = base.size_after().unwrap_or(end.size_bytes);
        }
        end
    }

    /// Takes in the next segment; `false` when it does not count.
    fn takes(&mut self, log: &SegmentLog) -> Result<bool, Damage> {
        let first_lsn = log.row.first_lsn;
        if log.is_empty() || self.has_ended {
            return Ok(false);
        }
        if first_lsn > self.next_lsn {
            // What lies between was lost with the page cache, or is lost altogether.
            self.check()?;
            self.has_ended = true;
            return Ok(false);
        }
        let place = Place { segment: log.row.segment, slot: log.row.a_slot(), block: 0 };
        let is_first = first_lsn <= self.folded_to;
        if !is_first && (first_lsn < self.next_lsn || self.chain.is_some_and(|chain| chain != log.chain_before)) {
            if first_lsn <= self.durable_lsn {
                return Err(Damage { volume: self.volume, kind: DamageKind::Chain { place, lsn: first_lsn } });
            }
            // What it follows on was lost with the page cache, and what was given up before that is in its place.
            self.check()?;
            self.has_ended = true;
            return Ok(false);
        }
        if log.end() < self.next_lsn {
            // Folded, though the index does not know it for sealed: newer segments tell the rest.
            return Ok(true);
        }
        self.next_lsn = log.end();
        self.chain = Some(log.chain_after);
        self.epoch = self.epoch.max(log.epoch);
        self.size_bytes = log.size_after().unwrap_or(self.size_bytes);
        Ok(true)
    }

    /// Nothing that was durable may be missing.
    fn check(&self) -> Result<(), Damage> {
        if self.next_lsn > self.durable_lsn {
            return Ok(());
        }
        let kind = DamageKind::Missing { lsn: self.next_lsn, durable_lsn: self.durable_lsn };
        Err(Damage { volume: self.volume, kind })
    }
}

impl Recovered {
    /// Takes a segment into the map of a volume that was `size_bytes` long before it, and sees to its row, header and footer.
    fn keep(&mut self, superblock: &Superblock, log: &SegmentLog, size_bytes: u64) {
        let folded_to = self.folded_to;
        replay(&mut self.map, log, size_bytes, (folded_to, &[]));
        let mut boundaries = Vec::new();
        log.each_boundary(size_bytes, |boundary| boundaries.push(boundary));
        self.boundaries.extend(boundaries.into_iter().filter(|boundary| boundary.lsn > folded_to));
        let borrowed = log.loans();
        if !borrowed.is_empty() {
            let loans = self.loans.entry(log.row.segment).or_default();
            borrowed.iter().for_each(|loan| loans.add(*loan));
            self.borrowed.push((log.row.segment, borrowed));
        }
        let row = SegmentRow { last_lsn: Some(log.last_lsn), has_holes: log.has_holes(), ..log.row };
        self.segments.push(row);
        if row != log.row {
            self.sealed.push(row);
        }
        self.mend(superblock, log, size_bytes);
    }

    /// Leaves the last segment open, sealed or not: the primary may have what follows in the same place. A footer that it has is
    /// made void, since it would end the segment before what comes.
    fn leave_tail_open(&mut self, reader: &dyn PoolReader, superblock: &Superblock, known: &Known) {
        let Some(last) = self.segments.last().copied() else { return };
        let Some(slot) = last.own_slot() else { return };
        let end = Lsn(self.next_lsn.0 - 1);
        let wanted = Wanted {
            reader,
            superblock,
            row: SegmentRow { last_lsn: None, ..last },
            cut: self.next_lsn,
            durable_lsn: end,
            known_to: Lsn::ZERO,
            distrusts_footer: true,
        };
        let Ok(log) = read_segment(&wanted) else { return };
        if log.last_lsn != end {
            return;
        }
        // Its header is mended where a power cut took that.
        let geometry = superblock.geometry;
        let trailer = geometry.block_offset(slot, geometry.slot_blocks() - 1);
        let behind_header = geometry.block_offset(slot, 1)..trailer + BLOCK_BYTES;
        self.writes.retain(|(offset, _)| !behind_header.contains(offset));
        if log.filled_blocks < geometry.slot_blocks() {
            self.writes.push((trailer, vec![0; BLOCK_LEN]));
        }
        self.sealed.retain(|row| row.segment != last.segment);
        let open = SegmentRow { last_lsn: None, ..last };
        let was_sealed = known.segments.iter().any(|row| row.segment == last.segment && row.last_lsn.is_some());
        self.sealed.extend(was_sealed.then_some(open));
        if let Some(row) = self.segments.last_mut() {
            *row = open;
        }
        self.tail = Some(Tail {
            segment: last.segment,
            slot,
            first_lsn: last.first_lsn,
            chain_before: log.chain_before,
            filled_blocks: log.filled_blocks,
            entries: log.footer_entries().collect(),
            checks: log.checks,
        });
    }

    /// Sees to it that a segment has its header and its footer. The volume was `size_bytes` long before it, or, of one that is folded,
    /// where the stored map ends.
    fn mend(&mut self, superblock: &Superblock, log: &SegmentLog, size_bytes: u64) {
        let is_before = log.row.first_lsn > self.folded_to || !log.is_resized();
        self.writes.extend(mends_of(superblock, log, (is_before.then_some(size_bytes), size_bytes)));
    }

    fn void(&mut self, superblock: &Superblock, log: &SegmentLog) {
        self.writes.extend(void_of(superblock, log));
        self.voided.push(log.row.segment);
    }
}

/// Takes what a segment holds after `folded_to` into the map of a volume that was `size_bytes` long before it. Generations
/// end at `boundaries`, oldest first, whether or not the log still says so.
pub(crate) fn replay(map: &mut Map, log: &SegmentLog, size_bytes: u64, (folded_to, boundaries): (Lsn, &[Boundary])) {
    let mut ahead = boundaries.iter().peekable();
    let mut end_generations = |map: &mut Map, before: Lsn| {
        while let Some(boundary) = ahead.next_if(|boundary| boundary.lsn < before) {
            map.begin_generation(boundary.generation + 1);
        }
    };
    end_generations(map, log.row.first_lsn);
    if let Some(size_bytes) = log.shrinks_from(size_bytes).filter(|_| log.row.first_lsn > folded_to) {
        map.trim(log.row.first_lsn, beyond(size_bytes));
    }
    log.each(|lsn, operation, block, checks| {
        end_generations(map, lsn);
        map.note_time(lsn, operation);
        if lsn > folded_to {
            replay_operation(map, lsn, operation, log.row.segment, (block, checks));
        }
    });
    end_generations(map, Lsn(u64::MAX));
}

/// All that lies beyond a size.
pub(crate) fn beyond(size_bytes: u64) -> BlockRange {
    let (first, end) = (size_bytes.div_ceil(BLOCK_BYTES), ADDRESS_SPACE_BYTES / BLOCK_BYTES);
    BlockRange::new(BlockIndex(first.min(end)), end.saturating_sub(first))
}

/// Takes one operation, whose payload is in `segment` from `block` on, into a map.
pub(crate) fn replay_operation(
    map: &mut Map,
    lsn: Lsn,
    operation: &Operation,
    segment: SegmentId,
    (block, checks): (u32, &[u32]),
) {
    match operation.kind {
        OperationKind::Write | OperationKind::Copy { .. } => {
            // The block was found to lie in the slot, which has at most 65,536.
            let location = Location { segment, block: u16::try_from(block).unwrap_or(u16::MAX) };
            let checks: Vec<u8> = checks.iter().flat_map(|check| check.to_le_bytes()).collect();
            map.write(lsn, operation.range, location, &checks);
        }
        OperationKind::Trim | OperationKind::WriteZeroes => map.trim(lsn, operation.range),
        OperationKind::Snapshot { generation, .. } => map.begin_generation(generation + 1),
        OperationKind::TimeMark { .. } | OperationKind::Lent => {}
        // A volume shrinks over holes. What made them may be gone: a rebuild goes on behind what a power cut took.
        OperationKind::Resize(size_bytes) => {
            map.note_size(lsn, size_bytes);
            map.trim(lsn, beyond(size_bytes));
        }
    }
}

/// The void header of a segment of which nothing counts, unless it has one, with its offset in the pool.
pub(crate) fn void_of(superblock: &Superblock, log: &SegmentLog) -> Option<(u64, Vec<u8>)> {
    let is_void = log.header.is_some_and(|header| header.slot_use != SlotUse::Segment);
    log.row.own_slot().filter(|_| !is_void).map(|slot| {
        let row = &log.row;
        let header = SlotHeader::void(superblock.pool, row.segment, row.volume, row.first_lsn);
        let mut block = vec![0; BLOCK_LEN];
        header.encode(&mut block);
        (superblock.geometry.slot_offset(slot), block)
    })
}

/// The header and the footer of a segment, where it lacks them, with their offsets in the pool. `size_before` is how long the volume
/// was then, where that is known: a header that told a size after that would have the next recovery or rebuild shrink the
/// volume too early. `size_after` is for a segment that does not resize it.
pub(crate) fn mends_of(
    superblock: &Superblock,
    log: &SegmentLog,
    (size_before, size_after): (Option<u64>, u64),
) -> impl Iterator<Item = (u64, Vec<u8>)> {
    let own = log.row.own_slot();
    let header = own.filter(|_| log.header.is_none());
    let header = header.map(|slot| (superblock.geometry.slot_offset(slot), header_of(superblock, log, size_before)));
    let footer = own.filter(|_| !log.has_footer).and_then(|slot| footer_of(superblock, (log, slot), size_after));
    header.into_iter().chain(footer)
}

fn header_of(superblock: &Superblock, log: &SegmentLog, size_before: Option<u64>) -> Vec<u8> {
    let header = SlotHeader {
        slot_use: SlotUse::Segment,
        pool: superblock.pool,
        segment: log.row.segment,
        volume: log.row.volume,
        epoch: log.epoch,
        first_lsn: log.row.first_lsn,
        // 0 says that it is not known: other segments tell.
        size_bytes: log.size_at_open.or(size_before).unwrap_or(0),
        chain: log.chain_before,
        opened_ms: log.header.map_or(0, |header| header.opened_ms),
    };
    let mut block = vec![0; BLOCK_LEN];
    header.encode(&mut block);
    block
}

/// The footer of what a segment was found to hold, and where it goes. Batches leave room for it.
fn footer_of(
    superblock: &Superblock,
    (log, slot): (&SegmentLog, SlotIndex),
    size_after: u64,
) -> Option<(u64, Vec<u8>)> {
    let geometry: Geometry = superblock.geometry;
    let bytes = encode_footer(&Footer {
        pool: superblock.pool,
        segment: log.row.segment,
        volume: log.row.volume,
        epoch: log.epoch,
        first_lsn: log.row.first_lsn,
        size_bytes: log.size_after().unwrap_or(size_after),
        filled_blocks: log.filled_blocks,
        chain_before: log.chain_before,
        chain_after: log.chain_after,
        entries: log.footer_entries().collect(),
        checks: log.checks.clone(),
    });
    let end = geometry.slot_bytes;
    let at = end.checked_sub(bytes.len() as u64)?;
    let has_room = at >= u64::from(log.filled_blocks) * BLOCK_BYTES;
    has_room.then_some((geometry.slot_offset(slot) + at, bytes))
}

#[cfg(test)]
pub(crate) mod tests;
