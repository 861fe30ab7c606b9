//! What is in a pack, told from the pack alone.

use super::source::SlotSource;
use crate::error::DiskFault;
use crate::format::{OperationKind, Parcel, ParcelEntry, ParcelStart, Superblock, decode_parcel_start};
use crate::pool::{ParcelPlace, SegmentRow, Survivors};
use crate::store::PoolReader;
use units::{BLOCK_LEN, SegmentId, SlotIndex};

/// The parcels of a pack.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Those that begin whole, void ones too, in their order.
    pub(crate) parcels: Vec<ParcelStart>,
    /// Blocks where a parcel ought to begin and none does, with another behind it. What is behind the last one is left from
    /// the slot's use before.
    pub(crate) damaged: Vec<u32>,
}

/// Walks over the parcels of a pack. Where one does not begin whole, the next one that does is looked for: what is between
/// is a parcel that has rotted, or was torn with all behind it.
pub(crate) fn walk_pack(
    reader: &dyn PoolReader,
    superblock: &Superblock,
    (slot, pack): (SlotIndex, SegmentId),
) -> Result<Walked, DiskFault> {
    let mut source = SlotSource::new(reader, superblock.geometry, slot);
    let mut walked = Walked::default();
    let (mut at, mut lost) = (1, None);
    while at < source.slot_blocks() {
        let block = source.block(at)?;
        let start = decode_parcel_start(block).ok().filter(|start| {
            let header = &start.header;
            (header.pool, header.pack, header.block) == (superblock.pool, pack, at)
        });
        if let Some(start) = start {
            walked.parcels.push(start);
            walked.damaged.extend(lost.take());
            at += start.total_blocks();
            continue;
        }
        lost.get_or_insert(at);
        at += 1;
    }
    Ok(walked)
}

/// The row of a segment whose parcel begins with `start`, as far as that tells.
pub(crate) const fn row_of_parcel(slot: SlotIndex, start: &ParcelStart) -> SegmentRow {
    let header = &start.header;
    let (pack, block, moves, clean_lsn) = (header.pack, header.block, header.moves, header.clean_lsn);
    SegmentRow {
        segment: header.segment,
        volume: header.volume,
        slot,
        parcel: Some(ParcelPlace { pack, block, header_blocks: start.header_blocks(), moves, clean_lsn }),
        first_lsn: header.first_lsn,
        last_lsn: Some(header.last_lsn),
        has_holes: false,
    }
}

/// Reads the whole header of a parcel; `None` when its index has rotted.
pub(crate) fn read_parcel_header(
    reader: &dyn PoolReader,
    superblock: &Superblock,
    (slot, start): (SlotIndex, &ParcelStart),
) -> Result<Option<Parcel>, DiskFault> {
    let mut source = SlotSource::new(reader, superblock.geometry, slot);
    if start.header.block + start.header_blocks() > source.slot_blocks() {
        return Ok(None);
    }
    Ok(start.with_index(source.blocks(start.header.block, start.header_blocks())?).ok())
}

/// The blocks of a segment's own slot that what is left of it holds.
pub(crate) fn survivors_of(entries: &[ParcelEntry], slot_blocks: u32) -> Survivors {
    let mut survivors = Survivors::none(slot_blocks);
    for entry in entries.iter().filter(|entry| entry.operation.kind == OperationKind::Write) {
        (entry.block..).take(entry.operation.payload_blocks() as usize).for_each(|block| survivors.insert(block));
    }
    survivors
}

/// The first block of a parcel made void, with its offset in the pool.
pub(crate) fn void_parcel(
    reader: &dyn PoolReader,
    superblock: &Superblock,
    (slot, start): (SlotIndex, &ParcelStart),
) -> Result<(u64, Vec<u8>), DiskFault> {
    let offset = superblock.geometry.block_offset(slot, start.header.block);
    let mut block = vec![0; BLOCK_LEN];
    reader.read_at(offset, &mut block)?;
    start.make_void(&mut block);
    Ok((offset, block))
}
