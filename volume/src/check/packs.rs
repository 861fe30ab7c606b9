//! Packs: their headers, and that every parcel that counts is one that a row names.

use super::{CheckReport, ProblemKind};
use crate::pool::{Index, ParcelPlace};
use crate::recover::{Probed, probe, walk_pack};
use crate::store::{PoolReader, Store};
use std::collections::BTreeSet;
use units::SegmentId;

pub(super) fn check<S: Store>(index: &Index<S>, reader: &dyn PoolReader, report: &mut CheckReport) {
    let volumes = index.volumes();
    let rows = volumes.iter().flat_map(|volume| index.segments(*volume));
    let of_rows = rows.filter_map(|row| Some((row.segment, row.parcel?)));
    let of_left = index.left_places().filter_map(|(segment, place)| Some((segment, place.parcel?)));
    let named: BTreeSet<(SegmentId, SegmentId, u32)> =
        of_rows.chain(of_left).map(|(segment, ParcelPlace { pack, block, .. })| (segment, pack, block)).collect();
    let empty: BTreeSet<SegmentId> = index.empty_packs().into_iter().map(|(pack, _)| pack).collect();
    for (pack, slot) in index.packs() {
        let superblock = index.superblock();
        // A stop came before it was void: the compactor goes on with the next start.
        if empty.contains(&pack) {
            continue;
        }
        let mut add = |volume, detail: String| {
            let detail = format!("pack {pack} in slot {slot}: {detail}: run `aljibe pool rebuild`");
            report.add(ProblemKind::Slot, volume, detail);
        };
        if probe(reader, superblock, slot) != Probed::Pack(pack) {
            add(None, "its header is not there".to_owned());
            continue;
        }
        match walk_pack(reader, superblock, (slot, pack)) {
            Ok(walked) => {
                let of_damage = walked.damaged.iter().map(|block| (None, format!("block {block} is damaged")));
                of_damage.for_each(|(volume, detail)| add(volume, detail));
                for header in walked.parcels.iter().filter(|start| !start.is_void).map(|start| &start.header) {
                    if !named.contains(&(header.segment, pack, header.block)) {
                        let detail = format!("segment {} at block {} is named by no row", header.segment, header.block);
                        add(Some(header.volume), detail);
                    }
                }
            }
            Err(fault) => add(None, format!("it cannot be read ({fault})")),
        }
    }
}
