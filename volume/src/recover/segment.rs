//! What one segment says: by its footer where that can be trusted, else batch by batch.
//!
//! A footer is written without waiting for the batches to be durable, so it is believed only up to an operation that is
//! known to have been on stable storage. Beyond that the batches are read and every payload block is checked; the first
//! bad one ends the segment. Within what was durable a bad payload block is rot, which a read of it will find, and a bad
//! header is damage.

use super::damage::{Damage, DamageKind, Place};
use super::pack::{HeaderAt, header_at};
use super::source::SlotSource;
use crate::engine::Mark;
use crate::error::DiskFault;
use crate::format::{
    BatchHeader, Footer, Operation, OperationKind, Parcel, ParcelEntry, SlotHeader, SlotUse, Superblock, block_check,
    decode_batch, decode_footer_trailer, footer_blocks, names_batch_of,
};
use crate::pool::{Boundary, Home, Loan, ParcelPlace, Parcels, ScrubTarget, SegmentRow};
use crate::store::PoolReader;
use units::{BLOCK_LEN, Epoch, Lsn, PoolId};

/// LSNs from here on are no LSNs: 2^62 operations are never reached.
const LSN_END: Lsn = Lsn(1 << 62);

/// Blocks without a batch of the segment after which it is taken to have none any more: more than the largest batch, so
/// that one rotten header between two batches hides nothing.
const SEARCH_BLOCKS: u32 = 2304;

/// Payload blocks read at a time.
const PAYLOAD_BLOCKS: u32 = 64;

/// Batches in order, each with the CRC of its header.
type Batches = Vec<(BatchHeader, u32)>;

/// What is asked of a segment.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) reader: &'a dyn PoolReader,
    pub(crate) superblock: &'a Superblock,
    pub(crate) row: SegmentRow,
    /// Operations from here on are in a newer segment: what this one has of them was given up.
    pub(crate) cut: Lsn,
    /// Everything up to here was on stable storage.
    pub(crate) durable_lsn: Lsn,
    /// The stored map has what this segment holds up to here; 0 where that is not known.
    pub(crate) known_to: Lsn,
    /// Reads the batches even where the footer would do.
    pub(crate) distrusts_footer: bool,
}

/// What a segment says.
#[derive(Debug, Clone)]
pub(crate) struct SegmentLog {
    pub(crate) row: SegmentRow,
    /// As it is on the disk, when it is this segment's.
    pub(crate) header: Option<SlotHeader>,
    pub(crate) chain_before: u32,
    pub(crate) chain_after: u32,
    pub(crate) epoch: Epoch,
    /// The volume's size before the first operation, when that is told.
    pub(crate) size_at_open: Option<u64>,
    pub(crate) filled_blocks: u32,
    /// The last operation as it was written; the one before the first where there is none.
    pub(crate) last_lsn: Lsn,
    /// Every operation, or where it was moved every one that is left, with the block where its payload was written.
    pub(crate) entries: Vec<ParcelEntry>,
    pub(crate) checks: Vec<u32>,
    /// Whether its footer on the disk says just this.
    pub(crate) has_footer: bool,
    /// The highest durable LSN that one of its batches tells; not known where the footer was believed. Of one that was moved
    /// its last operation: nothing is moved before it is durable.
    pub(crate) durable_seen: Lsn,
}

impl SegmentLog {
    /// The operation after the last one.
    pub(crate) const fn end(&self) -> Lsn {
        self.last_lsn.next()
    }

    /// Whether no operation was ever in it, as far as counts.
    pub(crate) const fn is_empty(&self) -> bool {
        self.last_lsn.0 < self.row.first_lsn.0
    }

    /// The entries as a footer has them.
    pub(crate) fn footer_entries(&self) -> impl Iterator<Item = (Operation, u32)> {
        self.entries.iter().map(|entry| (entry.operation, entry.block))
    }

    pub(crate) fn has_holes(&self) -> bool {
        self.entries.iter().any(|entry| entry.operation.makes_holes())
    }

    /// The volume's size before the first operation, when that is less than the `size_bytes` that the log before it tells:
    /// what shrank it is in no segment any more.
    pub(crate) fn shrinks_from(&self, size_bytes: u64) -> Option<u64> {
        self.size_at_open.filter(|size| *size > 0 && *size < size_bytes)
    }

    /// Whether the volume was resized in it.
    pub(crate) fn is_resized(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.operation.kind, OperationKind::Resize(_)))
    }

    /// The volume's size after the last operation, when the segment tells it.
    pub(crate) fn size_after(&self) -> Option<u64> {
        let resized = self.entries.iter().rev().find_map(|entry| match entry.operation.kind {
            OperationKind::Resize(size_bytes) => Some(size_bytes),
            OperationKind::Write
            | OperationKind::Copy { .. }
            | OperationKind::Lent
            | OperationKind::Trim
            | OperationKind::WriteZeroes
            | OperationKind::Snapshot { .. }
            | OperationKind::TimeMark { .. } => None,
        });
        // 0 is of a header that was made anew without knowing the size.
        resized.or_else(|| self.size_at_open.filter(|size| *size > 0))
    }

    /// The last time that is told in it.
    pub(crate) fn last_mark(&self) -> Option<Mark> {
        self.entries.iter().rev().find_map(|entry| match entry.operation.kind {
            OperationKind::TimeMark { wall_ms, meter } => Some(Mark { wall_ms, meter: meter.unwrap_or_default() }),
            OperationKind::Write
            | OperationKind::Copy { .. }
            | OperationKind::Lent
            | OperationKind::Trim
            | OperationKind::WriteZeroes
            | OperationKind::Resize(_)
            | OperationKind::Snapshot { .. } => None,
        })
    }

    /// Calls `visit` for every operation: its LSN, where its payload begins, and the check values of that.
    pub(crate) fn each(&self, mut visit: impl FnMut(Lsn, &Operation, u32, &[u32])) {
        let mut rest = self.checks.as_slice();
        for ParcelEntry { lsn, operation, block } in &self.entries {
            let (checks, others) = rest.split_at_checked(operation.payload_blocks() as usize).unwrap_or((rest, &[]));
            rest = others;
            visit(*lsn, operation, *block, checks);
        }
    }

    /// What its copies borrow.
    pub(crate) fn loans(&self) -> Vec<Loan> {
        let loan = |entry: &ParcelEntry| {
            let (block, count) = (entry.block, entry.operation.payload_blocks());
            entry.operation.source().map(|source| Loan { block, count, source })
        };
        self.entries.iter().filter_map(loan).collect()
    }

    /// Calls `visit` for the end of every generation in it. The volume's size was `size_before`, unless the segment tells.
    pub(crate) fn each_boundary(&self, size_before: u64, mut visit: impl FnMut(Boundary)) {
        let mut size_bytes = self.size_at_open.filter(|size| *size > 0).unwrap_or(size_before);
        self.each(|lsn, operation, _, _| {
            if let OperationKind::Resize(to) = operation.kind {
                size_bytes = to;
            }
            if let OperationKind::Snapshot { generation, wall_ms, .. } = operation.kind {
                visit(Boundary { generation, lsn, size_bytes, wall_ms });
            }
        });
    }

    fn empty(row: SegmentRow, header: Option<SlotHeader>) -> Self {
        Self {
            row,
            header,
            chain_before: header.map_or(0, |header| header.chain),
            chain_after: header.map_or(0, |header| header.chain),
            epoch: header.map_or(Epoch(0), |header| header.epoch),
            size_at_open: header.map(|header| header.size_bytes),
            filled_blocks: 1,
            last_lsn: Lsn(row.first_lsn.0 - 1),
            entries: Vec::new(),
            checks: Vec::new(),
            has_footer: false,
            durable_seen: Lsn::ZERO,
        }
    }

    fn of_footer(row: SegmentRow, header: Option<SlotHeader>, footer: Footer) -> Self {
        // The footer tells the size at its own time.
        let is_resized = footer.entries.iter().any(|(operation, _)| matches!(operation.kind, OperationKind::Resize(_)));
        let size_at_open =
            header.map(|header| header.size_bytes).or_else(|| (!is_resized).then_some(footer.size_bytes));
        Self {
            chain_before: footer.chain_before,
            chain_after: footer.chain_after,
            epoch: footer.epoch,
            size_at_open,
            filled_blocks: footer.filled_blocks,
            last_lsn: footer.last_lsn(),
            entries: (footer.first_lsn.0..).map(Lsn).zip(footer.entries).map(entry_of).collect(),
            checks: footer.checks,
            has_footer: true,
            ..Self::empty(row, header)
        }
    }

    fn of_parcel(row: SegmentRow, parcel: Parcel) -> Self {
        Self {
            chain_before: parcel.header.chain_before,
            chain_after: parcel.header.chain_after,
            epoch: parcel.header.epoch,
            size_at_open: Some(parcel.header.size_bytes),
            last_lsn: parcel.header.last_lsn,
            entries: parcel.entries,
            checks: parcel.checks,
            has_footer: true,
            durable_seen: parcel.header.last_lsn,
            ..Self::empty(row, None)
        }
    }

    fn of_batches(row: SegmentRow, header: Option<SlotHeader>, batches: Batches) -> Self {
        let mut log = Self::empty(row, header);
        if let Some((first, _)) = batches.first() {
            log.chain_before = first.chain;
        }
        for (batch, crc) in batches {
            let mut at = batch.block + batch.header_blocks();
            for operation in &batch.operations {
                let blocks = operation.payload_blocks();
                log.last_lsn = log.last_lsn.next();
                log.entries.push(entry_of((log.last_lsn, (*operation, if blocks > 0 { at } else { 0 }))));
                at += blocks;
            }
            log.filled_blocks = at;
            log.chain_after = crc;
            log.epoch = log.epoch.max(batch.epoch);
            log.checks.extend(batch.checks);
        }
        log
    }
}

const fn entry_of((lsn, (operation, block)): (Lsn, (Operation, u32))) -> ParcelEntry {
    ParcelEntry { lsn, operation, block }
}

/// Reads a segment.
///
/// # Errors
/// [`Damage`] when it held something durable that cannot be told any more, or cannot be read.
pub(crate) fn read_segment(wanted: &Wanted<'_>) -> Result<SegmentLog, Damage> {
    let row = wanted.row;
    let slot = match &row.home {
        Home::Own(slot) => *slot,
        Home::Parcels(parcels) => return read_parcels(wanted, parcels),
    };
    let mut source = SlotSource::new(wanted.reader, wanted.superblock.geometry, slot);
    let header = match read_header(wanted, &mut source)? {
        // Given up by a recovery. Had it been durable, what is missing is found out by the segments around it.
        Some(header) if header.slot_use == SlotUse::Void => return Ok(SegmentLog::empty(row, Some(header))),
        header => header,
    };
    let footer = read_footer(&mut source, wanted.superblock.pool).filter(|footer| is_footer_of(wanted, header, footer));
    if let Some(footer) = footer.as_ref()
        && footer.last_lsn() <= wanted.durable_lsn
        && footer.last_lsn() < wanted.cut
        && !wanted.distrusts_footer
    {
        return Ok(SegmentLog::of_footer(row, header, footer.clone()));
    }
    // A seal that comes before the end of the batches was set when the rest had been given up.
    let sealed = footer.as_ref().map(Footer::last_lsn).into_iter().chain(row.last_lsn);
    let cut = sealed.map(Lsn::next).fold(wanted.cut, Lsn::min);
    let (batches, durable_seen) = scan(&Wanted { cut, ..*wanted }, &mut source, header)?;
    let mut log = SegmentLog::of_batches(row, header, batches);
    log.durable_seen = durable_seen;
    if let Some(footer) =
        footer.filter(|footer| log.footer_entries().eq(footer.entries.iter().copied()) && footer.checks == log.checks)
    {
        log.has_footer = true;
        if !wanted.distrusts_footer {
            // It counts what was given up behind the batches, too, which a log that goes on here does not.
            log.filled_blocks = footer.filled_blocks;
        }
    }
    Ok(log)
}

/// Reads what is left of a segment that was moved, part after part.
fn read_parcels(wanted: &Wanted<'_>, parcels: &Parcels) -> Result<SegmentLog, Damage> {
    let mut log: Option<SegmentLog> = None;
    for (part, place) in parcels.each() {
        // Void is what is dead. Of a dead segment the trunk goes last: a stop came before its row went.
        let Some(parcel) = read_parcel(wanted, (part, place))? else {
            if part == 0 {
                return Ok(SegmentLog::empty(wanted.row, None));
            }
            continue;
        };
        match &mut log {
            Some(log) => {
                log.entries.extend(parcel.entries);
                log.checks.extend(parcel.checks);
            }
            None => log = Some(SegmentLog::of_parcel(wanted.row, parcel)),
        }
    }
    let mut log = log.unwrap_or_else(|| SegmentLog::empty(wanted.row, None));
    // Payload is in the order of the log, part after part. What has none is in the first one.
    log.entries.sort_by_key(|entry| entry.lsn);
    Ok(log)
}

/// Reads what the header of a parcel says, or where that has rotted the same header in the directory of the pack; `None`
/// where it is void.
fn read_parcel(wanted: &Wanted<'_>, at: (usize, ParcelPlace)) -> Result<Option<Parcel>, Damage> {
    let (_, place) = at;
    let mut source = SlotSource::new(wanted.reader, wanted.superblock.geometry, place.slot);
    let mut first_damage = None;
    for block in place.headers() {
        let at_block = Place { segment: wanted.row.segment, slot: place.slot, block };
        let kind = match header_at(&mut source, wanted.superblock, (&wanted.row, at, block)) {
            HeaderAt::Whole(parcel) => return Ok(Some(parcel)),
            HeaderAt::Void => return Ok(None),
            HeaderAt::Rotten => DamageKind::Parcel { place: at_block },
            HeaderAt::Unreadable(fault) => DamageKind::Unreadable { place: at_block, fault },
        };
        first_damage.get_or_insert(kind);
    }
    first_damage.map_or(Ok(None), |kind| Err(wanted.damage(kind)))
}

impl<'a> Wanted<'a> {
    /// Only what of a segment is on stable storage for certain.
    pub(crate) const fn of_target(
        reader: &'a dyn PoolReader,
        superblock: &'a Superblock,
        target: &ScrubTarget,
    ) -> Self {
        let durable_lsn = target.durable_lsn;
        let (row, cut) = (target.row, durable_lsn.next());
        Self { reader, superblock, row, cut, durable_lsn, known_to: durable_lsn, distrusts_footer: false }
    }
}

impl Wanted<'_> {
    fn place(&self, block: u32) -> Place {
        Place { segment: self.row.segment, slot: self.row.a_slot(), block }
    }

    fn damage(&self, kind: DamageKind) -> Damage {
        Damage { volume: self.row.volume, kind }
    }

    fn unreadable(&self, block: u32, fault: DiskFault) -> Damage {
        self.damage(DamageKind::Unreadable { place: self.place(block), fault })
    }
}

/// The segment's header; `None` when something else is in its place: it was torn, or has rotted.
fn read_header(wanted: &Wanted<'_>, source: &mut SlotSource<'_>) -> Result<Option<SlotHeader>, Damage> {
    let block = source.block(0).map_err(|fault| wanted.unreadable(0, fault))?;
    let header = SlotHeader::decode(block).ok();
    let header = header.filter(|h| h.pool == wanted.superblock.pool && h.segment == wanted.row.segment);
    let is_wrong = wanted.row.first_lsn == Lsn::ZERO
        || wanted.row.first_lsn >= LSN_END
        || header.is_some_and(|h| h.volume != wanted.row.volume || h.first_lsn != wanted.row.first_lsn);
    if is_wrong { Err(wanted.damage(DamageKind::OtherHeader { place: wanted.place(0) })) } else { Ok(header) }
}

/// The footer at the end of the slot, whosever it is; `None` when there is none that is whole.
pub(super) fn read_footer(source: &mut SlotSource<'_>, pool: PoolId) -> Option<Footer> {
    let slot_blocks = source.slot_blocks();
    let trailer = decode_footer_trailer(source.block(slot_blocks - 1).ok()?).ok()?;
    let index_blocks = trailer.index_blocks;
    if trailer.identity().0 != pool || index_blocks >= slot_blocks - 1 {
        return None;
    }
    let index = match index_blocks {
        0 => &[],
        blocks => source.blocks(slot_blocks - 1 - blocks, blocks).ok()?,
    };
    trailer.with_index(index).ok().filter(|footer| footer.last_lsn() < LSN_END)
}

/// Whether a whole footer is this segment's, and names blocks that can be its payload.
fn is_footer_of(wanted: &Wanted<'_>, header: Option<SlotHeader>, footer: &Footer) -> bool {
    let row = &wanted.row;
    let index = footer_blocks(footer.entries.len(), footer.checks.len());
    let room = wanted.superblock.geometry.slot_blocks().saturating_sub(index);
    let is_payload = |(operation, block): &(Operation, u32)| {
        let blocks = operation.payload_blocks();
        blocks == 0 || (*block > 1 && block.checked_add(blocks).is_some_and(|end| end <= footer.filled_blocks))
    };
    footer.segment == row.segment
        && footer.volume == row.volume
        && footer.first_lsn == row.first_lsn
        && header.is_none_or(|header| header.chain == footer.chain_before)
        && footer.filled_blocks <= room
        && footer.entries.iter().all(is_payload)
}

/// Reads the batches up to the first that is not whole, and the highest durable LSN that any batch tells.
fn scan(
    wanted: &Wanted<'_>,
    source: &mut SlotSource<'_>,
    header: Option<SlotHeader>,
) -> Result<(Batches, Lsn), Damage> {
    let (mut batches, at, next) = walk_headers(wanted, source, header)?;
    let seen = batches.iter().map(|(batch, _)| batch.durable_lsn).max().unwrap_or(Lsn::ZERO);
    let beyond = if next < wanted.cut { search_beyond(wanted, source, at, next)? } else { None };
    let seen = seen.max(beyond.unwrap_or(Lsn::ZERO));
    let durable_lsn = wanted.durable_lsn.max(seen);
    // Without a sign that the segment went on, it ends here: its footer was lost, and what came next was given back.
    let is_known = next <= wanted.known_to;
    let went_on = next < wanted.cut && (is_known || beyond.is_some() || is_batch_rotten_at(wanted, source, at)?);
    if next <= durable_lsn && went_on {
        return Err(wanted.damage(DamageKind::HeaderRot { place: wanted.place(at), lsn: next, durable_lsn }));
    }
    batches.truncate(batches.partition_point(|(batch, _)| batch.last_lsn() < wanted.cut));
    let first_doubtful = batches.partition_point(|(batch, _)| batch.first_lsn <= durable_lsn);
    for index in first_doubtful..batches.len() {
        let is_torn = match batches.get(index) {
            Some((batch, _)) => !is_payload_whole(wanted, source, batch)?,
            None => false,
        };
        if is_torn {
            batches.truncate(index);
            break;
        }
    }
    Ok((batches, seen))
}

/// Follows the batches by their headers. Returns them, the block after them, and the operation that would come next.
fn walk_headers(
    wanted: &Wanted<'_>,
    source: &mut SlotSource<'_>,
    header: Option<SlotHeader>,
) -> Result<(Batches, u32, Lsn), Damage> {
    let mut batches = Batches::new();
    let mut chain = header.map(|header| header.chain);
    let (mut at, mut next) = (1, wanted.row.first_lsn);
    while at < source.slot_blocks() {
        let found = source.with_header_at(at, decode_batch).map_err(|fault| wanted.unreadable(at, fault))?;
        let Ok((batch, crc)) = found else { break };
        let follows = is_batch_of(wanted, &batch, at)
            && batch.first_lsn == next
            && batch.durable_lsn < batch.first_lsn
            && chain.is_none_or(|chain| chain == batch.chain)
            && batch.total_blocks() <= source.slot_blocks() - at;
        if !follows {
            break;
        }
        at += batch.total_blocks();
        next = batch.last_lsn().next();
        chain = Some(crc);
        batches.push((batch, crc));
    }
    Ok((batches, at, next))
}

fn is_batch_of(wanted: &Wanted<'_>, batch: &BatchHeader, at: u32) -> bool {
    batch.block == at && batch.segment == wanted.row.segment && batch.volume == wanted.row.volume
}

/// Whether a block that is no whole batch still names itself one of this segment.
fn is_batch_rotten_at(wanted: &Wanted<'_>, source: &mut SlotSource<'_>, at: u32) -> Result<bool, Damage> {
    if at >= source.slot_blocks() {
        return Ok(false);
    }
    let block = source.block(at).map_err(|fault| wanted.unreadable(at, fault))?;
    Ok(names_batch_of(block, wanted.row.segment))
}

/// Looks, block by block, for batches beyond the end: only they tell whether what is missing was durable. Returns the
/// highest durable LSN that they tell, when there is one.
fn search_beyond(
    wanted: &Wanted<'_>,
    source: &mut SlotSource<'_>,
    from: u32,
    next: Lsn,
) -> Result<Option<Lsn>, Damage> {
    let mut seen = None;
    let (mut at, mut end) = (from, from.saturating_add(SEARCH_BLOCKS));
    while at < end.min(source.slot_blocks()) {
        let found = source.with_header_at(at, decode_batch).map_err(|fault| wanted.unreadable(at, fault))?;
        if let Ok((batch, _)) = found
            && is_batch_of(wanted, &batch, at)
            && batch.first_lsn >= next
            && batch.durable_lsn < batch.first_lsn
        {
            seen = seen.max(Some(batch.durable_lsn));
            end = at.saturating_add(SEARCH_BLOCKS);
        }
        at += 1;
    }
    Ok(seen)
}

/// Whether every payload block of a batch is what was written. Nothing was written for a copy: what it stands for is in the
/// log before it.
fn is_payload_whole(wanted: &Wanted<'_>, source: &mut SlotSource<'_>, batch: &BatchHeader) -> Result<bool, Damage> {
    let mut at = batch.block + batch.header_blocks();
    let mut rest = batch.checks.as_slice();
    for operation in &batch.operations {
        let count = operation.payload_blocks();
        let (checks, others) = rest.split_at_checked(count as usize).unwrap_or((rest, &[]));
        rest = others;
        if operation.source().is_none() && !is_whole_at(wanted, source, (at, checks))? {
            return Ok(false);
        }
        at += count;
    }
    Ok(true)
}

fn is_whole_at(
    wanted: &Wanted<'_>,
    source: &mut SlotSource<'_>,
    (mut at, mut rest): (u32, &[u32]),
) -> Result<bool, Damage> {
    while !rest.is_empty() {
        let (checks, others) = rest.split_at(rest.len().min(PAYLOAD_BLOCKS as usize));
        rest = others;
        let count = u32::try_from(checks.len()).unwrap_or(PAYLOAD_BLOCKS);
        let bytes = source.blocks(at, count).map_err(|fault| wanted.unreadable(at, fault))?;
        let mut blocks = bytes.chunks_exact(BLOCK_LEN).zip(at..).zip(checks);
        if !blocks.all(|((block, index), check)| block_check(wanted.row.segment, index, block) == *check) {
            return Ok(false);
        }
        at += count;
    }
    Ok(true)
}
