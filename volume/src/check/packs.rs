//! Packs: their headers, and their directories against the rows: every parcel that counts is one that a row names, and every
//! parcel that a row names is there, with its header whole in both places.

use super::{CheckReport, ProblemKind};
use crate::pool::{Index, ParcelPlace, Parcels, SegmentRow};
use crate::recover::{
    HeaderAt, Listed, SlotSource, Walked, header_at, is_pack_header, pack_headers, place_of, read_block, walk_pack,
};
use crate::store::{PoolReader, Store};
use std::collections::BTreeMap;
use units::{SegmentId, SlotIndex, VolumeId};

/// Where rows say that parcels are, those too that segments have left: by pack, segment and part, which is in a pack once.
type Named = BTreeMap<(SegmentId, SegmentId, usize), (SegmentRow, ParcelPlace)>;

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
        let of_pack = named.range((pack, SegmentId(0), 0)..=(pack, SegmentId::MAX, usize::MAX));
        for ((_, _, part), (row, place)) in of_pack {
            of_row(index, reader, (row, (*part, *place), &walked), &mut add);
        }
        if walked.lost > 0 {
            add(None, format!("{} of its parcels have no header that is whole", walked.lost));
        }
        for Listed { start, .. } in walked.parcels.iter().filter(|listed| !listed.is_void()) {
            let header = &start.header;
            let named = named.get(&(pack, header.segment, usize::from(header.part)));
            if named.is_none_or(|(_, named)| *named != place_of(slot, start)) {
                let detail = format!("segment {} at block {} is named by no row", header.segment, header.block);
                add(Some(header.volume), detail);
            }
        }
    }
}

fn named<S: Store>(index: &Index<S>) -> Named {
    let rows = index.rows().map(|(row, _)| *row);
    let left = index.left_places().filter_map(|(segment, home)| Some(SegmentRow { home, ..index.segment(segment)? }));
    let of_row = |row: SegmentRow| {
        let parcels: Vec<_> = row.home.parcels().into_iter().flat_map(Parcels::each).collect();
        parcels.into_iter().map(move |(part, place)| ((place.pack, row.segment, part), (row, place)))
    };
    rows.chain(left).chain(index.aside_rows()).flat_map(of_row).collect()
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
    (row, (part, place), walked): (&SegmentRow, (usize, ParcelPlace), &Walked),
    add: &mut impl FnMut(Option<VolumeId>, String),
) {
    let superblock = index.superblock();
    let is_it = |listed: &Listed| {
        let header = &listed.start.header;
        (header.segment, header.volume, header.first_lsn, Some(header.last_lsn))
            == (row.segment, row.volume, row.first_lsn, row.last_lsn)
            && (usize::from(header.part), place_of(place.slot, &listed.start)) == (part, place)
    };
    if !walked.parcels.iter().any(is_it) {
        let ParcelPlace { block, copy, .. } = place;
        let detail = format!("segment {} is not at block {block}, nor in the directory at {copy}", row.segment);
        add(Some(row.volume), detail);
        return;
    }
    let mut source = SlotSource::new(reader, superblock.geometry, place.slot);
    for block in place.headers() {
        let what = match header_at(&mut source, superblock, (row, (part, place), block)) {
            // Void: a stop came before its row went.
            HeaderAt::Whole(_) | HeaderAt::Void => continue,
            HeaderAt::Rotten => "is damaged".to_owned(),
            HeaderAt::Unreadable(fault) => format!("cannot be read ({fault})"),
        };
        add(Some(row.volume), format!("the header of segment {} at block {block} {what}", row.segment));
    }
}
