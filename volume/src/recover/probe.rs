//! What is in a slot, told from the slot alone.

use super::segment::read_footer;
use super::source::SlotSource;
use crate::format::{FormatError, SlotHeader, SlotUse, Superblock, block_check, decode_batch, decode_parcel_start};
use crate::pool::{Home, SegmentRow};
use crate::store::PoolReader;
use std::collections::BTreeMap;
use units::{Lsn, SegmentId, SlotIndex, VolumeId};

/// What a slot holds.
#[expect(clippy::large_enum_variant, reason = "made once for each slot, and not kept")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probed {
    /// A segment of this pool. Open, as far as the row says.
    Segment(SegmentRow),
    /// A segment of this pool that does not count any more.
    Void(SegmentId),
    /// A pack of this pool.
    Pack(SegmentId),
    /// A header that has rotted, or was torn, over nothing that is known to be its segment's.
    Damaged,
    /// Nothing of this pool.
    Nothing,
    /// The disk does not give it.
    Unreadable,
}

/// Looks at the header of `slot`; where that has rotted, at the first batch, then at the footer. The header of a pack is in
/// the last block too.
pub(crate) fn probe(reader: &dyn PoolReader, superblock: &Superblock, slot: SlotIndex) -> Probed {
    let mut source = SlotSource::new(reader, superblock.geometry, slot);
    let (otherwise, rest) = match source.block(0) {
        Err(_) => (Probed::Unreadable, Remains::default()),
        Ok(block) => match SlotHeader::decode(block) {
            Ok(header) if header.pool != superblock.pool => return by_copy(&mut source, superblock, Probed::Nothing),
            Ok(header) if header.slot_use == SlotUse::Void => {
                return by_copy(&mut source, superblock, Probed::Void(header.segment));
            }
            // A pack is no segment, and what it holds may count: it is kept as it is.
            Ok(header) if header.slot_use == SlotUse::Pack => {
                return by_copy(&mut source, superblock, Probed::Pack(header.segment));
            }
            Ok(header) => {
                let row = open_row(slot, header.segment, header.volume, header.first_lsn);
                return Probed::Segment(row);
            }
            Err(FormatError::Magic) => (Probed::Nothing, Remains::of(block)),
            Err(_) => (Probed::Damaged, Remains::of(block)),
        },
    };
    if let found @ Probed::Pack(_) = by_copy(&mut source, superblock, otherwise) {
        return found;
    }
    if let Some(pack) = rest.segment.filter(|_| !rest.is_void)
        && names_parcel_of(&mut source, superblock, pack)
        && by_copy(&mut source, superblock, Probed::Pack(pack)) == Probed::Pack(pack)
    {
        return Probed::Pack(pack);
    }
    let found = beyond_header(&mut source, superblock, slot).find(|row| rest.may_be(row.segment));
    // A footer alone may be one that the disk wrote to a wrong slot.
    let found = found.filter(|row| own_blocks(reader, superblock, row) > 0);
    match found {
        Some(row) if rest.is_void => Probed::Void(row.segment),
        Some(row) => Probed::Segment(row),
        // A power cut tore the header and the first batch of a segment, or a header over a void one.
        None if otherwise == Probed::Damaged && (rest.is_void || !rest.was_durable(&mut source)) => Probed::Nothing,
        None => otherwise,
    }
}

/// What a header that fails its check still tells. What lies behind it may be left from the slot's segment before, where
/// a power cut tore the header of a new one: only a segment that the header names is taken.
#[derive(Debug, Default)]
struct Remains {
    segment: Option<SegmentId>,
    first_lsn: Lsn,
    is_void: bool,
}

impl Remains {
    fn of(block: &[u8]) -> Self {
        let number_at = |at: usize| block.get(at..at + 8).and_then(|id| id.try_into().ok()).map(u64::from_le_bytes);
        let (id, first_lsn) = (number_at(32), Lsn(number_at(56).unwrap_or(0)));
        let says_void = block.get(10) == Some(&2);
        // Of a segment's void header epoch, size and time are zeros, which they are in no other: any one of the four may have
        // rotted. A pack's has them always; of that there is another one.
        let zeros = [48, 64, 96].into_iter().filter(|at| number_at(*at) == Some(0)).count();
        let is_pack = number_at(40) == Some(u64::MAX);
        let segment = id.filter(|id| *id != 0).map(SegmentId);
        // A block of zeros says nothing.
        let is_void = if is_pack || segment.is_none() { says_void } else { usize::from(says_void) + zeros >= 3 };
        Self { segment, first_lsn, is_void }
    }

    /// Whether a batch of the segment that the header names tells that its first operation was on stable storage, or a
    /// block that cannot be read may be one.
    fn was_durable(&self, source: &mut SlotSource<'_>) -> bool {
        (1..source.slot_blocks()).any(|block| match source.with_header_at(block, decode_batch) {
            Ok(Ok((batch, _))) => {
                batch.block == block && self.may_be(batch.segment) && batch.durable_lsn >= self.first_lsn
            }
            Ok(Err(_)) => false,
            Err(_) => true,
        })
    }

    fn may_be(&self, segment: SegmentId) -> bool {
        self.segment.is_none_or(|named| named == segment)
    }
}

/// What the copy of a pack's header in the last block makes of a slot whose first block says `first`. A pack is there when
/// one of the two says so, since both are void, durably, before the slot is used again; unless the other one is its void
/// header, which is written only once nothing in it is needed, or of something later: the disk wrote the copy to a wrong slot.
fn by_copy(source: &mut SlotSource<'_>, superblock: &Superblock, first: Probed) -> Probed {
    let last = source.slot_blocks() - 1;
    let copy = source.block(last).ok().and_then(|block| SlotHeader::decode(block).ok());
    let Some(copy) = copy.filter(|copy| copy.pool == superblock.pool) else { return first };
    match (copy.slot_use, first) {
        (SlotUse::Void, Probed::Pack(pack)) if copy.segment == pack => Probed::Void(pack),
        (SlotUse::Void | SlotUse::Segment, _) | (SlotUse::Pack, Probed::Pack(_)) => first,
        (SlotUse::Pack, Probed::Void(segment)) if copy.segment <= segment => first,
        (SlotUse::Pack, _) => Probed::Pack(copy.segment),
    }
}

/// Whether the first parcel of a pack is behind a header that names it and has rotted, as the one in the last block has.
fn names_parcel_of(source: &mut SlotSource<'_>, superblock: &Superblock, pack: SegmentId) -> bool {
    let start = source.block(1).ok().and_then(|block| decode_parcel_start(block).ok());
    start.is_some_and(|start| {
        start.header.block == 1 && start.header.pool == superblock.pool && start.header.pack == pack
    })
}

fn beyond_header(
    source: &mut SlotSource<'_>,
    superblock: &Superblock,
    slot: SlotIndex,
) -> impl Iterator<Item = SegmentRow> {
    let batch = source.with_header_at(1, decode_batch).ok().and_then(Result::ok).map(|(batch, _)| batch);
    let batch = batch.filter(|batch| batch.block == 1 && batch.first_lsn > Lsn::ZERO);
    let batch = batch.map(|batch| open_row(slot, batch.segment, batch.volume, batch.first_lsn));
    let footer = read_footer(source, superblock.pool);
    let footer = footer.map(|footer| open_row(slot, footer.segment, footer.volume, footer.first_lsn));
    batch.into_iter().chain(footer)
}

const fn open_row(slot: SlotIndex, segment: SegmentId, volume: VolumeId, first_lsn: Lsn) -> SegmentRow {
    SegmentRow { segment, volume, home: Home::Own(slot), first_lsn, last_lsn: None, has_holes: false }
}

/// Of two slots that seem to hold the same segment, the one that does, and then the other: there the disk wrote something
/// that belongs in the first.
pub(crate) fn tell_apart(
    reader: &dyn PoolReader,
    superblock: &Superblock,
    one: SegmentRow,
    other: SegmentRow,
) -> (SegmentRow, SlotIndex) {
    if own_blocks(reader, superblock, &one) >= own_blocks(reader, superblock, &other) {
        (one, other.a_slot())
    } else {
        (other, one.a_slot())
    }
}

/// How many blocks of a slot are for certain what was written to it for its segment: header, batch headers, and payload
/// that passes the check that one of those or the footer names.
fn own_blocks(reader: &dyn PoolReader, superblock: &Superblock, row: &SegmentRow) -> usize {
    let mut source = SlotSource::new(reader, superblock.geometry, row.a_slot());
    let header = source.block(0).ok().and_then(|block| SlotHeader::decode(block).ok());
    let mut count = usize::from(header.is_some_and(|header| header.segment == row.segment));
    let mut checks: BTreeMap<u32, u32> = BTreeMap::new();
    for at in 1..source.slot_blocks() {
        let Ok(Ok((batch, _))) = source.with_header_at(at, decode_batch) else { continue };
        if batch.block == at && batch.segment == row.segment {
            count += 1;
            checks.extend((at + batch.header_blocks()..).zip(batch.checks));
        }
    }
    let footer = read_footer(&mut source, superblock.pool).filter(|footer| footer.segment == row.segment);
    if let Some(footer) = footer {
        let payload = footer
            .entries
            .iter()
            .flat_map(|(operation, block)| *block..block.saturating_add(operation.payload_blocks()));
        checks.extend(payload.zip(footer.checks));
    }
    let slot_blocks = source.slot_blocks();
    let mut is_own = |(at, check): &(u32, u32)| {
        *at < slot_blocks && source.block(*at).is_ok_and(|block| block_check(row.segment, *at, block) == *check)
    };
    count + checks.into_iter().filter(|place| is_own(place)).count()
}
