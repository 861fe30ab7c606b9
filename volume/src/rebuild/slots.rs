//! What the slots hold: segments in slots of their own, and what is left of others in packs.
//!
//! A segment may be in several places, where a stop came before the older one was void. The one that was moved least often
//! counts, when it is whole: it holds all that the others do, and is void only after a later one was durable. Else the next
//! one that is whole counts. The others are made void, so that none comes back when the one that counts is gone. Where none is
//! whole the first parcel counts, which nobody takes for the torn end of a log: its volume is damaged, and is not served.
//!
//! A later place is as good as an older one. It lacks blocks that no page of any version named when it was written, with the
//! map complete to its clean LSN, and holds everything else, what makes holes and ends generations too. What made those
//! blocks dead is an overwrite, a trim or the deletion of a snapshot: the first two are in the log up to the clean LSN, which
//! was durable before the map had them; the record of the third is durable before a page goes. A replay of the log comes
//! to the same, whether it meets the dead blocks on its way or not, and this is how it is after every round: had the stop
//! come later, the older place would be void. Where the catalogue's records cannot be read, and snapshots come back that were
//! deleted, they lack such blocks, and would with any segment that was ever moved. That the round was given up, and may be
//! because the pack does not give back what was written, changes nothing: header and payload are checked where they are read.

use super::RebuildReport;
use crate::format::{SlotHeader, Superblock, decode_batch, decode_parcel_start};
use crate::pool::{Found, SegmentRow, Survivors};
use crate::recover::{
    HeaderAt, Listed, Probed, SlotSource, Walked, Wanted, header_at, is_pack_header, pack_headers, probe, read_block,
    read_segment, row_of_parcel, survivors_of, tell_apart, void_parcel, walk_pack,
};
use crate::store::PoolReader;
use std::collections::{BTreeMap, BTreeSet};
use units::{BLOCK_LEN, Lsn, SegmentId, SlotIndex};

/// The slot of each pack, and its parcels, void ones too.
type Packs = BTreeMap<SegmentId, (SlotIndex, Walked)>;

/// Looks into every slot.
pub(super) fn look_into_slots(superblock: &Superblock, reader: &dyn PoolReader, report: &mut RebuildReport) -> Found {
    let mut found = Found::default();
    let mut packs = Packs::new();
    for slot in (0..superblock.geometry.slot_count).map(SlotIndex) {
        match probe(reader, superblock, slot) {
            Probed::Segment(row) => {
                found.used_up = found.used_up.max(Some(row.segment));
                let row = match found.segments.get(&row.segment) {
                    Some((other, _)) => {
                        let (row, wrong) = tell_apart(reader, superblock, *other, row);
                        let detail = format!("the disk wrote something of it to slot {wrong} too");
                        report.notes.push(format!("segment {} is in slot {}, and {detail}", row.segment, row.slot));
                        found.kept.insert(wrong);
                        row
                    }
                    None => row,
                };
                found.segments.insert(row.segment, (row, None));
            }
            Probed::Pack(pack) => {
                found.used_up = found.used_up.max(Some(pack));
                let walked = walk_pack(reader, superblock, (slot, pack));
                take_pack(&mut packs, (pack, slot), walked, (&mut found, report));
            }
            Probed::Void(segment) => {
                found.used_up = found.used_up.max(Some(segment));
                report.free_slots += 1;
                void_headers(superblock, reader, (segment, slot), report);
            }
            Probed::Nothing => report.free_slots += 1,
            Probed::Damaged => {
                report.notes.push(format!("slot {slot}: a damaged header over nothing that tells whose it was"));
                found.kept.insert(slot);
            }
            Probed::Unreadable => {
                report.notes.push(format!("slot {slot} cannot be read; look at the disk"));
                found.kept.insert(slot);
            }
        }
    }
    let used = choose_places(superblock, reader, &packs, (&mut found, report));
    for (pack, (slot, walked)) in packs {
        take_or_leave(superblock, reader, (pack, slot, &walked), used.contains(&pack), (&mut found, report));
    }
    found
}

/// Notes what is in a pack. Where the disk has written it to a second slot too, the one that has more of it counts.
fn take_pack(
    packs: &mut Packs,
    (pack, slot): (SegmentId, SlotIndex),
    walked: Walked,
    (found, report): (&mut Found, &mut RebuildReport),
) {
    let mut one = (slot, walked);
    if let Some(mut other) = packs.remove(&pack) {
        if other.1.parcels.len() >= one.1.parcels.len() {
            std::mem::swap(&mut one, &mut other);
        }
        let (right, wrong) = (one.0, other.0);
        report
            .notes
            .push(format!("pack {pack} is in slot {right}, and the disk wrote something of it to slot {wrong} too"));
        found.kept.insert(wrong);
    }
    packs.insert(pack, one);
}

/// A pack in which something counts gets what is missing of its headers. One in which nothing does becomes void; but where
/// it once counted, or may have, and some parcel cannot be told any more, its slot is kept.
fn take_or_leave(
    superblock: &Superblock,
    reader: &dyn PoolReader,
    (pack, slot, walked): (SegmentId, SlotIndex, &Walked),
    is_used: bool,
    (found, report): (&mut Found, &mut RebuildReport),
) {
    if walked.parcels.is_empty() && !is_as_before(reader, superblock, slot) {
        let detail = "no header of any parcel is left: volumes may lack what they held";
        report.notes.push(format!("pack {pack} in slot {slot}: {detail}"));
        found.kept.insert(slot);
        return;
    }
    // Of a pack that was not written to its end nothing is used, or void.
    if walked.lost > 0 && (is_used || walked.parcels.iter().any(Listed::is_void)) {
        let detail = format!("of {} parcels no header is left: volumes may lack what they held", walked.lost);
        report.notes.push(format!("pack {pack} in slot {slot}: {detail}"));
        if !is_used {
            found.kept.insert(slot);
            return;
        }
    }
    let header = if is_used {
        found.packs.insert(pack, slot);
        SlotHeader::pack(superblock.pool, pack, 0)
    } else {
        report.free_slots += 1;
        SlotHeader::void_pack(superblock.pool, pack)
    };
    for at in pack_headers(superblock) {
        // One that the disk does not give stays: the other one says enough.
        let Ok(mut block) = read_block(reader, superblock, (slot, at)) else { continue };
        if !(is_used && is_pack_header(superblock, pack, &block)) {
            header.encode(&mut block);
            report.mends.push((superblock.geometry.block_offset(slot, at), block));
        }
    }
}

/// Whether a slot has what it had before where the first parcel of its pack would be: a power cut left nothing of the pack
/// but its own header, and nothing was ever moved to it.
fn is_as_before(reader: &dyn PoolReader, superblock: &Superblock, slot: SlotIndex) -> bool {
    let mut source = SlotSource::new(reader, superblock.geometry, slot);
    let is_batch = matches!(source.with_header_at(1, decode_batch), Ok(Ok(_)));
    is_batch
        || source.block(1).is_ok_and(|block| decode_parcel_start(block).is_ok() || block.iter().all(|byte| *byte == 0))
}

/// A pack of which a stop left one header, when the other one was void, becomes void.
fn void_headers(
    superblock: &Superblock,
    reader: &dyn PoolReader,
    (pack, slot): (SegmentId, SlotIndex),
    report: &mut RebuildReport,
) {
    for at in pack_headers(superblock) {
        let Ok(mut block) = read_block(reader, superblock, (slot, at)) else { continue };
        if is_pack_header(superblock, pack, &block) {
            SlotHeader::void_pack(superblock.pool, pack).encode(&mut block);
            report.mends.push((superblock.geometry.block_offset(slot, at), block));
        }
    }
}

/// A place of a segment: its own slot, or a parcel.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    row: SegmentRow,
    listed: Option<&'a Listed>,
}

/// Gives each segment one of its places, and makes the others void. Returns the packs that are used.
fn choose_places(
    superblock: &Superblock,
    reader: &dyn PoolReader,
    packs: &Packs,
    (found, report): (&mut Found, &mut RebuildReport),
) -> BTreeSet<SegmentId> {
    let mut candidates: BTreeMap<SegmentId, Vec<Candidate<'_>>> = BTreeMap::new();
    for (slot, walked) in packs.values() {
        for listed in &walked.parcels {
            if listed.is_void() {
                report.mends.extend(void_parcel(reader, superblock, (*slot, listed)));
                continue;
            }
            let row = row_of_parcel(*slot, &listed.start);
            candidates.entry(row.segment).or_default().push(Candidate { row, listed: Some(listed) });
        }
    }
    let mut used = BTreeSet::new();
    for (segment, mut places) in candidates {
        found.used_up = found.used_up.max(Some(segment));
        let own = found.segments.get(&segment).map(|(row, _)| Candidate { row: *row, listed: None });
        // What the parcels tell of the segment's end is the same in all of them.
        let last_lsn = places.first().and_then(|place| place.row.last_lsn).unwrap_or(Lsn::ZERO);
        places.extend(own);
        places.sort_by_key(|place| place.row.parcel.map_or(0, |parcel| parcel.moves));
        let whole = places.iter().zip(0..).find_map(|(place, at)| {
            let survivors = read_place(superblock, reader, (place, last_lsn), report)?;
            Some((at, survivors))
        });
        let is_whole = whole.is_some();
        let (chosen, survivors) = whole.unwrap_or_else(|| {
            let parcel = places.iter().position(|place| place.listed.is_some());
            (parcel.unwrap_or(0), Survivors::default())
        });
        for (place, at) in places.iter().zip(0_usize..) {
            let slot = place.row.slot;
            if at == chosen {
                used.extend(place.row.parcel.map(|parcel| parcel.pack));
                found.segments.insert(segment, (place.row, place.listed.map(|_| survivors.clone())));
            } else if place.listed.is_none() && !is_whole {
                report
                    .notes
                    .push(format!("slot {slot} holds segment {segment}, damaged here and where it was moved to"));
                found.kept.insert(slot);
            } else {
                if at < chosen {
                    let detail = "is damaged, and a later place is taken";
                    report.notes.push(format!("segment {segment} in slot {slot} {detail}"));
                }
                leave(superblock, reader, place, report);
            }
        }
    }
    used
}

/// Reads what a place says of its segment; `None` when that is not whole. Where one of the two headers of a parcel has
/// rotted, it is mended by the other.
fn read_place(
    superblock: &Superblock,
    reader: &dyn PoolReader,
    (place, last_lsn): (&Candidate<'_>, Lsn),
    report: &mut RebuildReport,
) -> Option<Survivors> {
    let row = place.row;
    let Some(parcel) = row.parcel else {
        // The parcels tell that all of it was on stable storage, and where it ended.
        let (cut, durable_lsn, known_to) = (last_lsn.next(), last_lsn, last_lsn);
        let wanted = Wanted { reader, superblock, row, cut, durable_lsn, known_to, distrusts_footer: false };
        let is_whole = read_segment(&wanted).is_ok_and(|log| log.last_lsn == last_lsn);
        return is_whole.then(Survivors::default);
    };
    let geometry = superblock.geometry;
    let mut source = SlotSource::new(reader, geometry, row.slot);
    let headers = parcel.headers().map(|block| (block, header_at(&mut source, superblock, (&row, parcel, block))));
    let whole = headers.iter().find_map(|(block, header)| match header {
        HeaderAt::Whole(parcel) => Some((*block, parcel)),
        HeaderAt::Void | HeaderAt::Rotten | HeaderAt::Unreadable(_) => None,
    });
    let (block, content) = whole?;
    let bytes = source.blocks(block, parcel.header_blocks).ok()?.to_vec();
    let rotten = headers.iter().filter(|(_, header)| matches!(header, HeaderAt::Rotten));
    report.mends.extend(rotten.map(|(block, _)| (geometry.block_offset(row.slot, *block), bytes.clone())));
    Some(survivors_of(&content.entries, geometry.slot_blocks()))
}

/// Makes a place void that does not count.
fn leave(superblock: &Superblock, reader: &dyn PoolReader, place: &Candidate<'_>, report: &mut RebuildReport) {
    let row = &place.row;
    if let Some(listed) = place.listed {
        report.mends.extend(void_parcel(reader, superblock, (row.slot, listed)));
        return;
    }
    let mut block = vec![0; BLOCK_LEN];
    SlotHeader::void(superblock.pool, row.segment, row.volume, row.first_lsn).encode(&mut block);
    report.mends.push((superblock.geometry.slot_offset(row.slot), block));
    report.free_slots += 1;
}
