//! What the slots hold: segments in slots of their own, and what is left of others in packs.
//!
//! A segment may be in several places, where a stop came before the older one was void. The one that was moved least often
//! counts: it holds all that the others do, and is void only after a later one was durable. The others are made void, so that
//! none comes back when the one that counts is gone.

use super::RebuildReport;
use crate::error::DiskFault;
use crate::format::{ParcelStart, SlotHeader, Superblock};
use crate::pool::Found;
use crate::recover::{
    Probed, Walked, probe, read_parcel_header, row_of_parcel, survivors_of, tell_apart, void_parcel, walk_pack,
};
use crate::store::PoolReader;
use std::collections::BTreeMap;
use units::{BLOCK_LEN, SegmentId, SlotIndex};

/// A parcel and the slot of its pack.
type Parcels = Vec<(SlotIndex, ParcelStart)>;

/// The slot of each pack, and its parcels, void ones too.
type Packs = BTreeMap<SegmentId, (SlotIndex, Vec<ParcelStart>)>;

/// Looks into every slot.
///
/// # Errors
/// [`DiskFault`] when a pack can be read in part only.
pub(super) fn look_into_slots(
    superblock: &Superblock,
    reader: &dyn PoolReader,
    report: &mut RebuildReport,
) -> Result<Found, DiskFault> {
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
                match walk_pack(reader, superblock, (slot, pack)) {
                    Ok(walked) => take_pack(&mut packs, (pack, slot), walked, (&mut found, report)),
                    Err(_) => keep_unreadable(&mut found, slot, report),
                }
            }
            Probed::Void(segment) => {
                found.used_up = found.used_up.max(Some(segment));
                report.free_slots += 1;
            }
            Probed::Nothing => report.free_slots += 1,
            Probed::Damaged => {
                report.notes.push(format!("slot {slot}: a damaged header over nothing that tells whose it was"));
                found.kept.insert(slot);
            }
            Probed::Unreadable => keep_unreadable(&mut found, slot, report),
        }
    }
    let mut parcels = Parcels::new();
    for (pack, (slot, starts)) in packs {
        found.packs.insert(pack, slot);
        parcels.extend(starts.into_iter().filter(|start| !start.is_void).map(|start| (slot, start)));
    }
    choose_places(superblock, reader, parcels, (&mut found, report))?;
    Ok(found)
}

/// Notes what is in a pack. Where the disk has written it to a second slot too, the one that has more of it counts.
fn take_pack(
    packs: &mut Packs,
    (pack, slot): (SegmentId, SlotIndex),
    walked: Walked,
    (found, report): (&mut Found, &mut RebuildReport),
) {
    let damaged = walked.damaged.iter();
    report.notes.extend(damaged.map(|block| format!("slot {slot}: what was moved to block {block} is damaged")));
    let mut one = (slot, walked.parcels);
    if let Some(mut other) = packs.remove(&pack) {
        if other.1.len() >= one.1.len() {
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

fn keep_unreadable(found: &mut Found, slot: SlotIndex, report: &mut RebuildReport) {
    report.notes.push(format!("slot {slot} cannot be read; look at the disk"));
    found.kept.insert(slot);
}

/// Gives each segment that has no slot of its own the parcel that was moved least often, and makes the others void.
fn choose_places(
    superblock: &Superblock,
    reader: &dyn PoolReader,
    mut parcels: Parcels,
    (found, report): (&mut Found, &mut RebuildReport),
) -> Result<(), DiskFault> {
    parcels.sort_by_key(|(_, start)| (start.header.segment, start.header.moves));
    let mut used: BTreeMap<SegmentId, u32> = BTreeMap::new();
    for (slot, start) in parcels {
        found.used_up = found.used_up.max(Some(start.header.segment));
        if found.segments.contains_key(&start.header.segment) {
            report.mends.push(void_parcel(reader, superblock, (slot, &start))?);
            continue;
        }
        *used.entry(start.header.pack).or_default() += 1;
        let parcel = read_parcel_header(reader, superblock, (slot, &start))?;
        let survivors = parcel.map(|parcel| survivors_of(&parcel.entries, superblock.geometry.slot_blocks()));
        let row = row_of_parcel(slot, &start);
        found.segments.insert(row.segment, (row, Some(survivors.unwrap_or_default())));
    }
    for (pack, slot) in found.packs.extract_if(.., |pack, _| !used.contains_key(pack)) {
        let mut block = vec![0; BLOCK_LEN];
        let header = SlotHeader::void_pack(superblock.pool, pack);
        header.encode(&mut block);
        report.mends.push((superblock.geometry.slot_offset(slot), block));
        report.free_slots += 1;
    }
    Ok(())
}
