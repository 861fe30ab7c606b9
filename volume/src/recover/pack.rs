//! What is in a pack, told from the pack alone.

use super::source::SlotSource;
use crate::error::DiskFault;
use crate::format::{Parcel, ParcelEntry, ParcelStart, SlotHeader, SlotUse, Superblock, decode_parcel_start};
use crate::pool::{Home, ParcelPlace, Parcels, SegmentRow, Survivors};
use crate::store::PoolReader;
use std::collections::BTreeMap;
use units::{BLOCK_LEN, SegmentId, SlotIndex};

/// A parcel of a pack, as its header tells in one of its two places at least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed {
    pub(crate) start: ParcelStart,
    /// Whether it is void where it begins, and in the directory; `None` where its start is not there.
    void: [Option<bool>; 2],
}

impl Listed {
    /// Whether nothing in it counts. One place is enough: it is made void in both, once nothing there is needed, and a stop
    /// may come in between.
    pub(crate) fn is_void(&self) -> bool {
        self.void.contains(&Some(true))
    }

    /// Whether its start is in both places, and says the same.
    #[cfg(test)]
    pub(crate) fn is_whole(&self) -> bool {
        self.void.iter().all(|void| *void == Some(self.is_void()))
    }
}

/// The parcels of a pack.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Void ones too, in their order.
    pub(crate) parcels: Vec<Listed>,
    /// How many more it had: of these no header is left. They have rotted, or the pack was never written to its end.
    pub(crate) lost: u32,
}

/// Walks over the headers of a pack: those before the parcels, and those of the directory, which are the same. Where none
/// begins whole, the next one that does is looked for. A block that the disk does not give is like one that has rotted.
pub(crate) fn walk_pack(
    reader: &dyn PoolReader,
    superblock: &Superblock,
    (slot, pack): (SlotIndex, SegmentId),
) -> Walked {
    let mut source = SlotSource::new(reader, superblock.geometry, slot);
    let (end, mut at) = (source.slot_blocks() - 1, 1);
    let mut found: BTreeMap<u32, Listed> = BTreeMap::new();
    let mut count = 0;
    while at < end {
        let Some(start) = start_at(&mut source, superblock, (pack, at)) else {
            at += 1;
            continue;
        };
        let header = &start.header;
        count = header.parcels;
        let listed = found.entry(header.block).or_insert(Listed { start, void: [None; 2] });
        let [first, copy] = &mut listed.void;
        if header.block == at {
            *first = Some(start.is_void);
            at += start.total_blocks();
        } else {
            *copy = Some(start.is_void);
            at += start.header_blocks();
        }
        // Between the last parcel and the directory is what the slot held before.
        if found.len() == count as usize
            && let Some(directory) = found.values().map(|listed| listed.start.header.copy).min()
        {
            at = at.max(directory);
        }
    }
    let lost = count.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
    Walked { parcels: found.into_values().collect(), lost }
}

/// The start of a header of a pack's parcel, when one is at `block`.
fn start_at(
    source: &mut SlotSource<'_>,
    superblock: &Superblock,
    (pack, block): (SegmentId, u32),
) -> Option<ParcelStart> {
    let last = source.slot_blocks() - 1;
    let start = decode_parcel_start(source.block(block).ok()?).ok()?;
    let header = &start.header;
    let is_of_pack = header.pool == superblock.pool && header.pack == pack && start.is_at(block);
    (is_of_pack && header.copy + start.header_blocks() <= last).then_some(start)
}

/// The place of a parcel that begins with `start`.
pub(crate) const fn place_of(slot: SlotIndex, start: &ParcelStart) -> ParcelPlace {
    let header = &start.header;
    let (pack, block, copy, moves) = (header.pack, header.block, header.copy, header.moves);
    let (header_blocks, clean_lsn) = (start.header_blocks(), header.clean_lsn);
    ParcelPlace { pack, slot, block, copy, header_blocks, moves, clean_lsn }
}

/// The row of a segment that has a parcel which begins with `start`, as far as that tells: with this parcel alone.
pub(crate) fn row_of_parcel(slot: SlotIndex, start: &ParcelStart) -> SegmentRow {
    let header = &start.header;
    let parcels = Parcels::none(header.cut).with(usize::from(header.part), place_of(slot, start));
    SegmentRow {
        segment: header.segment,
        volume: header.volume,
        home: Home::Parcels(parcels),
        first_lsn: header.first_lsn,
        last_lsn: Some(header.last_lsn),
        has_holes: false,
    }
}

/// What is in one of the two places of a parcel's header.
#[derive(Debug)]
pub(crate) enum HeaderAt {
    /// The header, whole.
    Whole(Parcel),
    /// It, void.
    Void,
    /// Something else: it has rotted.
    Rotten,
    /// The disk does not give it.
    Unreadable(DiskFault),
}

/// Looks at `block` of a slot, where the header of a parcel ought to be, that of a part of the segment of `row`.
pub(crate) fn header_at(
    source: &mut SlotSource<'_>,
    superblock: &Superblock,
    (row, (part, place), block): (&SegmentRow, (usize, ParcelPlace), u32),
) -> HeaderAt {
    let start = match source.block(block) {
        Ok(bytes) => decode_parcel_start(bytes).ok(),
        Err(fault) => return HeaderAt::Unreadable(fault),
    };
    let slot_blocks = source.slot_blocks();
    let is_it = |start: &ParcelStart| {
        let header = &start.header;
        header.pool == superblock.pool
            && (header.pack, header.block, header.copy, header.moves)
                == (place.pack, place.block, place.copy, place.moves)
            && (header.segment, header.volume, header.first_lsn) == (row.segment, row.volume, row.first_lsn)
            && usize::from(header.part) == part
            && row.home.parcels().is_some_and(|parcels| parcels.cut == header.cut)
            && start.header_blocks() == place.header_blocks
            && place.copy + place.header_blocks < slot_blocks
    };
    let Some(start) = start.filter(is_it) else { return HeaderAt::Rotten };
    if start.is_void {
        return HeaderAt::Void;
    }
    match source.blocks(block, place.header_blocks) {
        Ok(bytes) => start.with_index(bytes).map_or(HeaderAt::Rotten, HeaderAt::Whole),
        Err(fault) => HeaderAt::Unreadable(fault),
    }
}

/// The blocks of a segment's own slot that what is left of it holds.
pub(crate) fn survivors_of(entries: &[ParcelEntry], slot_blocks: u32) -> Survivors {
    let mut survivors = Survivors::none(slot_blocks);
    for entry in entries {
        (entry.block..).take(entry.operation.payload_blocks() as usize).for_each(|block| survivors.insert(block));
    }
    survivors
}

/// What makes a parcel void in both places of its header, where it is not: first blocks, with their offsets in the pool. What
/// the disk does not give stays: the other place says enough.
pub(crate) fn void_parcel(
    reader: &dyn PoolReader,
    superblock: &Superblock,
    (slot, listed): (SlotIndex, &Listed),
) -> Vec<(u64, Vec<u8>)> {
    let start = &listed.start;
    let places = [start.header.block, start.header.copy].into_iter().zip(listed.void);
    let blocks = places.filter(|(_, void)| *void != Some(true)).filter_map(|(at, _)| {
        let mut block = read_block(reader, superblock, (slot, at)).ok()?;
        start.make_void(&mut block);
        Some((superblock.geometry.block_offset(slot, at), block))
    });
    blocks.collect()
}

/// The blocks of a pack's slot that have its header, first and last.
pub(crate) const fn pack_headers(superblock: &Superblock) -> [u32; 2] {
    [0, superblock.geometry.slot_blocks() - 1]
}

/// Reads a block of a slot.
pub(crate) fn read_block(
    reader: &dyn PoolReader,
    superblock: &Superblock,
    (slot, at): (SlotIndex, u32),
) -> Result<Vec<u8>, DiskFault> {
    let mut block = vec![0; BLOCK_LEN];
    reader.read_at(superblock.geometry.block_offset(slot, at), &mut block)?;
    Ok(block)
}

/// Whether a block has the header of a pack.
pub(crate) fn is_pack_header(superblock: &Superblock, pack: SegmentId, block: &[u8]) -> bool {
    SlotHeader::decode(block).is_ok_and(|header| {
        header.pool == superblock.pool && header.segment == pack && header.slot_use == SlotUse::Pack
    })
}
