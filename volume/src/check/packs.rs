//! Packs: their headers, and their directories against the rows: every parcel that counts is one that a row names, and every
//! parcel that a row names is there, with its header whole in both places.

use super::{CheckReport, ProblemKind};
use crate::pool::{Index, ParcelPlace, SegmentRow};
use crate::recover::{
    HeaderAt, Listed, SlotSource, Walked, header_at, is_pack_header, pack_headers, read_block, row_of_parcel, walk_pack,
};
use crate::store::{PoolReader, Store};
use std::collections::BTreeMap;
use units::{SegmentId, SlotIndex, VolumeId};

/// Where rows say that parcels are, by pack and segment. A row's own place comes before the one that it has left: a segment
/// is in a pack once.
type Named = BTreeMap<(SegmentId, SegmentId), SegmentRow>;

pub(super) fn check<S: Store>(index: &Index<S>, reader: &dyn PoolReader, report: &mut CheckReport) {
    let named = named(index);
    let empty: BTreeMap<SegmentId, SlotIndex> = index.empty_packs().into_iter().collect();
    // An empty one: a stop came before it was void, and the compactor goes on with the next start.
    for (pack, slot) in index.packs().filter(|(pack, _)| !empty.contains_key(pack)) {
        let mut add = |volume: Option<VolumeId>, detail: String| {
            let detail = format!("pack {pack} in slot {slot}: {detail}: run `aljibe pool rebuild`");
            report.add(ProblemKind::Slot, volume, detail);
        };
        for block in pack_headers(index.superblock()) {
            if !has_header(index, reader, (pack, slot, block)) {
                add(None, format!("its header is not at block {block}"));
            }
        }
        let walked = walk_pack(reader, index.superblock(), (slot, pack));
        let rows = named.range((pack, SegmentId(0))..=(pack, SegmentId::MAX)).map(|(_, row)| row);
        for row in rows {
            of_row(index, reader, (row, &walked), &mut add);
        }
        if walked.lost > 0 {
            add(None, format!("{} of its parcels have no header that is whole", walked.lost));
        }
        for Listed { start, .. } in walked.parcels.iter().filter(|listed| !listed.is_void()) {
            let row = row_of_parcel(slot, start);
            if named.get(&(pack, row.segment)).is_none_or(|named| named.parcel != row.parcel) {
                let detail = format!("segment {} at block {} is named by no row", row.segment, start.header.block);
                add(Some(row.volume), detail);
            }
        }
    }
}

fn named<S: Store>(index: &Index<S>) -> Named {
    let rows = index.rows().map(|(row, _)| row);
    let left = index.left_places().filter_map(|(segment, left)| {
        Some(SegmentRow { slot: left.slot, parcel: left.parcel, ..index.segment(segment)? })
    });
    rows.chain(left).filter_map(|row| Some(((row.parcel?.pack, row.segment), row))).collect()
}

fn has_header<S: Store>(
    index: &Index<S>,
    reader: &dyn PoolReader,
    (pack, slot, at): (SegmentId, SlotIndex, u32),
) -> bool {
    let superblock = index.superblock();
    read_block(reader, superblock, (slot, at)).is_ok_and(|block| is_pack_header(superblock, pack, &block))
}

/// The parcel that a row names.
fn of_row<S: Store>(
    index: &Index<S>,
    reader: &dyn PoolReader,
    (row, walked): (&SegmentRow, &Walked),
    add: &mut impl FnMut(Option<VolumeId>, String),
) {
    let superblock = index.superblock();
    let Some(place) = row.parcel else { return };
    let is_it = |listed: &Listed| {
        let found = row_of_parcel(row.slot, &listed.start);
        (found.segment, found.volume, found.first_lsn, found.parcel)
            == (row.segment, row.volume, row.first_lsn, row.parcel)
            && row.last_lsn == found.last_lsn
    };
    if !walked.parcels.iter().any(is_it) {
        let ParcelPlace { block, copy, .. } = place;
        let detail = format!("segment {} is not at block {block}, nor in the directory at {copy}", row.segment);
        add(Some(row.volume), detail);
        return;
    }
    let mut source = SlotSource::new(reader, superblock.geometry, row.slot);
    for block in place.headers() {
        let what = match header_at(&mut source, superblock, (row, place, block)) {
            // Void: a stop came before its row went.
            HeaderAt::Whole(_) | HeaderAt::Void => continue,
            HeaderAt::Rotten => "is damaged".to_owned(),
            HeaderAt::Unreadable(fault) => format!("cannot be read ({fault})"),
        };
        add(Some(row.volume), format!("the header of segment {} at block {block} {what}", row.segment));
    }
}
