//! A part of a segment as it travels, and whether it can be what it says: anybody may have sent it.

use crate::buffer::Buffer;
use crate::format::{OperationKind, Parcel, Superblock, block_check, decode_parcel_start, pack_room_blocks};
use crate::pool::{Aside, Index, Whole};
use crate::store::Store;
use std::fmt;
use units::{BLOCK_LEN, Lsn, SegmentId, VolumeId};

/// LSNs from here on are none.
const LSN_END: Lsn = Lsn(1 << 62);

/// No pool comes to higher ids: they would use up those of this one.
const SEGMENT_MAX: SegmentId = SegmentId(SegmentId::MAX.0 / 4 * 3);

/// A part of a segment.
#[derive(Debug)]
pub struct Part {
    /// The header of a parcel, as [`crate::format::encode_parcel`] makes it; of where it is only the order of its fields counts.
    pub header: Buffer,
    /// The payload in its order, in whole blocks.
    pub payload: Vec<Buffer>,
}

/// Why a part is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its header is no header of a parcel, or longer than it.
    Header,
    /// It is not of the volume, or there is no resync of that.
    Volume,
    /// The segment is not newer than the log, is one that is here, or none that a pool comes to.
    Segment,
    /// Its operations are not behind the log, or not between those of the segments around it.
    Lsns,
    /// It says something else of the segment than what is here of it.
    Differs,
    /// The trunk of its segment has to come first.
    Trunk,
    /// It has what is not of this part.
    Span,
    /// It shares blocks with other segments.
    Shared,
    /// It fits into no pack.
    TooLarge,
    /// Its payload is not as long as its header says.
    Length,
    /// A block is not what was written.
    Check,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "its header is no header of a parcel",
            Self::Volume => "it is not of a volume that is in resync",
            Self::Segment => "its segment has an id that it cannot have",
            Self::Lsns => "its operations are not where they could be",
            Self::Differs => "it is of another segment than what is here of it",
            Self::Trunk => "the first part of its segment is not here",
            Self::Span => "it has what is not of this part",
            Self::Shared => "it shares blocks with other segments",
            Self::TooLarge => "it fits into no pack",
            Self::Length => "its payload is not as long as its header says",
            Self::Check => "a block is not what was written",
        })
    }
}

impl std::error::Error for Refusal {}

/// Looks at a part of a segment of `volume`; `pending` are those that are being written.
pub(super) fn judge<S: Store>(
    index: &Index<S>,
    volume: VolumeId,
    part: &Part,
    pending: &[&Parcel],
) -> Result<Parcel, Refusal> {
    let bytes = part.header.as_slice();
    let start = decode_parcel_start(bytes).map_err(|_| Refusal::Header)?;
    if bytes.len() != start.header_blocks() as usize * BLOCK_LEN {
        return Err(Refusal::Header);
    }
    let parcel = start.with_index(bytes).map_err(|_| Refusal::Header)?;
    judge_segment(index, volume, &parcel, pending)?;
    judge_entries(index.superblock(), &parcel)?;
    judge_payload(&parcel, &part.payload)?;
    judge_trunk(index, &parcel, pending)?;
    Ok(parcel)
}

/// What a parcel says of its segment as a whole.
pub(super) const fn whole_of(parcel: &Parcel) -> Whole {
    let header = &parcel.header;
    Whole {
        volume: header.volume,
        first_lsn: header.first_lsn,
        last_lsn: header.last_lsn,
        epoch: header.epoch,
        size_bytes: header.size_bytes,
        chain_before: header.chain_before,
        chain_after: header.chain_after,
    }
}

fn judge_segment<S: Store>(
    index: &Index<S>,
    volume: VolumeId,
    parcel: &Parcel,
    pending: &[&Parcel],
) -> Result<(), Refusal> {
    let header = &parcel.header;
    let resync = index.resync(volume).filter(|resync| resync.joined.is_none()).ok_or(Refusal::Volume)?;
    if header.volume != volume {
        return Err(Refusal::Volume);
    }
    let newest = index.newest_segment(volume).unwrap_or(SegmentId(0));
    if header.segment <= newest || header.segment > SEGMENT_MAX || index.is_id_taken(header.segment) {
        return Err(Refusal::Segment);
    }
    let is_behind = header.first_lsn > resync.from && header.first_lsn <= header.last_lsn;
    if !is_behind || header.last_lsn >= LSN_END {
        return Err(Refusal::Lsns);
    }
    let whole = whole_of(parcel);
    match index.aside(header.segment) {
        Some(here) if here.whole != whole || here.parcels.cut != header.cut => return Err(Refusal::Differs),
        Some(_) => {}
        None => judge_order(&whole, index.asides_around(volume, header.segment))?,
    }
    for other in pending {
        let (one, two) = (&other.header, whole_of(other));
        let is_same = one.segment == header.segment;
        if is_same && (two != whole || one.cut != header.cut) {
            return Err(Refusal::Differs);
        }
        let is_apart =
            if one.segment < header.segment { two.last_lsn < whole.first_lsn } else { whole.last_lsn < two.first_lsn };
        if !is_same && !is_apart {
            return Err(Refusal::Lsns);
        }
    }
    Ok(())
}

/// The trunk comes first: a segment of which the rest leaves before it is sent is then one that can be told.
fn judge_trunk<S: Store>(index: &Index<S>, parcel: &Parcel, pending: &[&Parcel]) -> Result<(), Refusal> {
    let (segment, part) = (parcel.header.segment, parcel.header.part);
    let is_trunk = |other: &&Parcel| other.header.segment == segment && other.header.part == 0;
    let is_kept = index.aside(segment).is_some_and(|aside| aside.parcels.of(0).is_some());
    if part == 0 || is_kept || pending.iter().any(is_trunk) { Ok(()) } else { Err(Refusal::Trunk) }
}

/// Operations go on with segments.
fn judge_order(whole: &Whole, [before, after]: [Option<&Aside>; 2]) -> Result<(), Refusal> {
    let is_behind = before.is_none_or(|before| before.whole.last_lsn < whole.first_lsn);
    let is_before = after.is_none_or(|after| whole.last_lsn < after.whole.first_lsn);
    if is_behind && is_before { Ok(()) } else { Err(Refusal::Lsns) }
}

/// Whether all entries are of the part, and stand for themselves.
fn judge_entries(superblock: &Superblock, parcel: &Parcel) -> Result<(), Refusal> {
    let header = &parcel.header;
    let slot_blocks = superblock.geometry.slot_blocks();
    let span = header.cut.span(usize::from(header.part), slot_blocks);
    let is_trunk = header.part == 0;
    // Where there are any, this one is among them: that decoding has seen to.
    if !header.parts.contains(0) {
        return Err(Refusal::Span);
    }
    for entry in &parcel.entries {
        let blocks = entry.operation.payload_blocks();
        match entry.operation.kind {
            OperationKind::Copy { .. } | OperationKind::Lent => return Err(Refusal::Shared),
            OperationKind::Write
            | OperationKind::Trim
            | OperationKind::WriteZeroes
            | OperationKind::Resize(_)
            | OperationKind::Snapshot { .. }
            | OperationKind::TimeMark { .. } => {}
        }
        let is_within = blocks > 0 && span.contains(&entry.block) && span.contains(&(entry.block + blocks - 1));
        if !(is_within || blocks == 0 && is_trunk) {
            return Err(Refusal::Span);
        }
    }
    if parcel.pack_blocks() > pack_room_blocks(slot_blocks) { Err(Refusal::TooLarge) } else { Ok(()) }
}

fn judge_payload(parcel: &Parcel, payload: &[Buffer]) -> Result<(), Refusal> {
    let is_whole = |buffer: &Buffer| buffer.as_slice().len().is_multiple_of(BLOCK_LEN);
    let blocks: usize = payload.iter().map(|buffer| buffer.as_slice().len() / BLOCK_LEN).sum();
    if !payload.iter().all(is_whole) || blocks != parcel.checks.len() {
        return Err(Refusal::Length);
    }
    let own = parcel.entries.iter().flat_map(|entry| (entry.block..).take(entry.operation.payload_blocks() as usize));
    let content = payload.iter().flat_map(|buffer| buffer.as_slice().chunks_exact(BLOCK_LEN));
    let mut blocks = own.zip(content).zip(&parcel.checks);
    let segment = parcel.header.segment;
    if blocks.all(|((block, bytes), check)| block_check(segment, block, bytes) == *check) {
        Ok(())
    } else {
        Err(Refusal::Check)
    }
}
