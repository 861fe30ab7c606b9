//! What the slots hold: segments in slots of their own, and what is left of others in packs.
//!
//! A segment, or a part of one, may be in several places, where a stop came before the older one was void. The one that was
//! moved least often counts, when it is whole: it holds all that the others do, and is void only after a later one was
//! durable. Else the next one that is whole counts. The others are made void, so that none comes back when the one that counts
//! is gone. Where none is whole the first parcel counts, which nobody takes for the torn end of a log: its volume is damaged,
//! and is not served. A segment's own slot counts for all parts, and these for it where they are whole and none is missing.
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
use crate::format::{Cut, PartSet, SlotHeader, Superblock, decode_batch, decode_parcel_start};
use crate::pool::{Found, Home, Parcels, SegmentRow, Survivors};
use crate::recover::{
    HeaderAt, Listed, Probed, SlotSource, Walked, Wanted, header_at, is_pack_header, pack_headers, place_of, probe,
    read_block, read_segment, row_of_parcel, survivors_of, tell_apart, void_parcel, walk_pack,
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
                        report.notes.push(format!("segment {} is in slot {}, and {detail}", row.segment, row.a_slot()));
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
    if walked.lost > 0 {
        // Of a pack that was not written to its end nothing is used, or void.
        let has_counted = is_used || walked.parcels.iter().any(Listed::is_void);
        let detail =
            if has_counted { "volumes may lack what they held" } else { "taken for a pack that never counted" };
        report
            .notes
            .push(format!("pack {pack} in slot {slot}: of {} parcels no header is left: {detail}", walked.lost));
        if has_counted && !is_used {
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

/// A parcel of a segment.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    slot: SlotIndex,
    listed: &'a Listed,
}

impl Candidate<'_> {
    fn part(&self) -> usize {
        usize::from(self.listed.start.header.part)
    }

    const fn moves(&self) -> u32 {
        self.listed.start.header.moves
    }
}

/// What was chosen of a segment's parcels.
struct Chosen {
    row: SegmentRow,
    survivors: Survivors,
    /// Whether every part is whole that was written with one of them.
    is_whole: bool,
}

/// Gives each segment its places, and makes the others void. Returns the packs that are used.
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
            let segment = listed.start.header.segment;
            candidates.entry(segment).or_default().push(Candidate { slot: *slot, listed });
        }
    }
    let mut used = BTreeSet::new();
    for (segment, mut parcels) in candidates {
        found.used_up = found.used_up.max(Some(segment));
        parcels.sort_by_key(Candidate::moves);
        // What the parcels tell of the segment's end is the same in all of them.
        let last_lsn = parcels.first().map_or(Lsn::ZERO, |first| first.listed.start.header.last_lsn);
        let own = found.segments.get(&segment).map(|(row, _)| *row);
        if own.is_some_and(|row| is_whole_segment(superblock, reader, row, last_lsn)) {
            let left = parcels.iter().flat_map(|parcel| void_parcel(reader, superblock, (parcel.slot, parcel.listed)));
            report.mends.extend(left);
            continue;
        }
        let chosen = choose_parcels(superblock, reader, (&parcels, own.is_some()), report);
        let Some(chosen) = chosen else { continue };
        if let Some(slot) = own.and_then(|row| row.own_slot()) {
            if chosen.is_whole {
                let detail = "is damaged, and a later place is taken";
                report.notes.push(format!("segment {segment} in slot {slot} {detail}"));
                report.mends.push(void_segment(superblock, (slot, &chosen.row)));
                report.free_slots += 1;
            } else {
                report
                    .notes
                    .push(format!("slot {slot} holds segment {segment}, damaged here and where it was moved to"));
                found.kept.insert(slot);
            }
        }
        used.extend(chosen.row.home.each_parcel().map(|place| place.pack));
        found.segments.insert(segment, (chosen.row, Some(chosen.survivors)));
    }
    used
}

/// Gives each part of a segment one of its parcels, those that were moved least often first, and makes the others void. A
/// trunk that is nowhere is given a place where it is not, and so is a part that was written with one of them while the segment's
/// own slot may still have it: their volume is damaged, and is not served.
fn choose_parcels(
    superblock: &Superblock,
    reader: &dyn PoolReader,
    (parcels, has_own): (&[Candidate<'_>], bool),
    report: &mut RebuildReport,
) -> Option<Chosen> {
    let first = parcels.first()?;
    let cut = cut_of(parcels).unwrap_or(first.listed.start.header.cut);
    let mut chosen: BTreeMap<usize, (Candidate<'_>, Option<Survivors>)> = BTreeMap::new();
    let mut others = Vec::new();
    for parcel in parcels {
        let before = chosen.get(&parcel.part());
        if parcel.listed.start.header.cut != cut || before.is_some_and(|(_, survivors)| survivors.is_some()) {
            others.push(*parcel);
            continue;
        }
        let survivors = read_parcel(superblock, reader, parcel, report);
        if let Some((damaged, _)) = before {
            if survivors.is_none() {
                others.push(*parcel);
                continue;
            }
            let (segment, detail) = (parcel.listed.start.header.segment, "is damaged, and a later place is taken");
            report.notes.push(format!("segment {segment} in slot {} {detail}", damaged.slot));
            others.push(*damaged);
        }
        chosen.insert(parcel.part(), (*parcel, survivors));
    }
    for parcel in others {
        report.mends.extend(void_parcel(reader, superblock, (parcel.slot, parcel.listed)));
    }
    let mut survivors = Survivors::none(superblock.geometry.slot_blocks());
    let mut places = Parcels::none(cut);
    let mut written = PartSet::default();
    for (part, (parcel, left)) in &chosen {
        places = places.with(*part, place_of(parcel.slot, &parcel.listed.start));
        left.iter().for_each(|left| survivors.add(left));
        written = written.and(parcel.listed.start.header.parts);
    }
    let missing = written.without(places.parts());
    let is_whole = missing.is_empty() && chosen.values().all(|(_, left)| left.is_some());
    // What the trunk trimmed may be in the other parts: without it these are not to be served either.
    let lost = if has_own { missing } else { PartSet::default() }.and(PartSet::TRUNK.without(places.parts()));
    let any = places.places().next();
    if let Some(any) = any {
        let parts = (0..cut.parts()).filter(|part| lost.contains(*part));
        places = parts.fold(places, |places, part| places.with(part, any.nowhere()));
    }
    let row = SegmentRow { home: Home::Parcels(places), ..row_of_parcel(first.slot, &first.listed.start) };
    Some(Chosen { row, survivors, is_whole })
}

/// The cut of which all parts are there that were written together: another one may be of a round that was given up.
fn cut_of(parcels: &[Candidate<'_>]) -> Option<Cut> {
    let cuts = parcels.iter().map(|parcel| parcel.listed.start.header.cut);
    cuts.into_iter().find(|cut| {
        let of_cut = || parcels.iter().filter(|parcel| parcel.listed.start.header.cut == *cut);
        let there: PartSet = of_cut().map(Candidate::part).collect();
        of_cut().all(|parcel| parcel.listed.start.header.parts.without(there).is_empty())
    })
}

/// Whether a segment's own slot tells all that its parcels say it had.
fn is_whole_segment(superblock: &Superblock, reader: &dyn PoolReader, row: SegmentRow, last_lsn: Lsn) -> bool {
    // The parcels tell that all of it was on stable storage, and where it ended.
    let (cut, durable_lsn, known_to) = (last_lsn.next(), last_lsn, last_lsn);
    let wanted = Wanted { reader, superblock, row, cut, durable_lsn, known_to, distrusts_footer: false };
    read_segment(&wanted).is_ok_and(|log| log.last_lsn == last_lsn)
}

/// Reads what a parcel says is left of its segment; `None` when that is not whole. Where one of its two headers has rotted, it
/// is mended by the other.
fn read_parcel(
    superblock: &Superblock,
    reader: &dyn PoolReader,
    parcel: &Candidate<'_>,
    report: &mut RebuildReport,
) -> Option<Survivors> {
    let geometry = superblock.geometry;
    let (row, at) = (row_of_parcel(parcel.slot, &parcel.listed.start), place_of(parcel.slot, &parcel.listed.start));
    let mut source = SlotSource::new(reader, geometry, parcel.slot);
    let headers =
        at.headers().map(|block| (block, header_at(&mut source, superblock, (&row, (parcel.part(), at), block))));
    let whole = headers.iter().find_map(|(block, header)| match header {
        HeaderAt::Whole(parcel) => Some((*block, parcel)),
        HeaderAt::Void | HeaderAt::Rotten | HeaderAt::Unreadable(_) => None,
    });
    let (block, content) = whole?;
    let bytes = source.blocks(block, at.header_blocks).ok()?.to_vec();
    let rotten = headers.iter().filter(|(_, header)| matches!(header, HeaderAt::Rotten));
    report.mends.extend(rotten.map(|(block, _)| (geometry.block_offset(parcel.slot, *block), bytes.clone())));
    Some(survivors_of(&content.entries, geometry.slot_blocks()))
}

/// What makes a segment void in its own slot.
pub(super) fn void_segment(superblock: &Superblock, (slot, row): (SlotIndex, &SegmentRow)) -> (u64, Vec<u8>) {
    let mut block = vec![0; BLOCK_LEN];
    SlotHeader::void(superblock.pool, row.segment, row.volume, row.first_lsn).encode(&mut block);
    (superblock.geometry.slot_offset(slot), block)
}
