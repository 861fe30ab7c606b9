//! Reading the rows of the store when an index is opened.

use super::aside::Asides;
use super::index::Entry;
use super::meter::Meter;
use super::{BoundaryRow, Home, Loan, OpenError, Parent, SegmentRow, Survivors, VolumeRow, rows};
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use units::{SegmentId, SlotIndex, VolumeId};

/// What a rebuild finds in the pool.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Segments, and which of their blocks are left where they were moved.
    pub(crate) segments: BTreeMap<SegmentId, (SegmentRow, Option<Survivors>)>,
    pub(crate) packs: BTreeMap<SegmentId, SlotIndex>,
    pub(crate) kept: BTreeSet<SlotIndex>,
    /// The highest id that was ever seen.
    pub(crate) used_up: Option<SegmentId>,
}

/// What the store holds beside the pool's row and the pages.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Slots that are not free.
    pub(super) used: BTreeSet<SlotIndex>,
    pub(super) segments: Vec<Entry>,
    pub(super) survivors: BTreeMap<SegmentId, Arc<Survivors>>,
    pub(super) packs: BTreeMap<SegmentId, SlotIndex>,
    pub(super) left: BTreeMap<SegmentId, Home>,
    pub(super) loans: Vec<(SegmentId, Loan)>,
    pub(super) volumes: BTreeMap<VolumeId, VolumeRow>,
    pub(super) boundaries: BTreeMap<(VolumeId, u64), BoundaryRow>,
    pub(super) parents: BTreeMap<VolumeId, Parent>,
    pub(super) erasing: BTreeSet<VolumeId>,
    pub(super) meters: BTreeMap<VolumeId, Meter>,
    pub(super) asides: Asides,
    pub(super) kept: BTreeSet<SlotIndex>,
}

impl Rows {
    /// Reads all of them; no slot may be used twice.
    pub(super) fn read<S: Store>(store: &S, slot_count: u32) -> Result<Self, OpenError> {
        let mut all = Self::default();
        each(store, rows::PACK_KEYS, |key, value| {
            let (pack, slot) = rows::decode_pack(key, value)?;
            all.packs.insert(pack, slot);
            all.take(slot, slot_count, "the slot of a pack's row")
        })?;
        each(store, rows::SEGMENT_KEYS, |key, value| {
            let (row, live, survivors) = rows::decode_segment(key, value)?;
            match row.home {
                Home::Own(slot) => all.take(slot, slot_count, "the slot of a segment's row")?,
                Home::Parcels(parcels) => {
                    if parcels.places().any(|place| all.packs.get(&place.pack) != Some(&place.slot)) {
                        return Err(OpenError::Corrupt("the pack of a segment's row"));
                    }
                }
            }
            all.survivors.extend(survivors.map(|survivors| (row.segment, Arc::new(survivors))));
            all.segments.push(Entry { row, live });
            Ok(())
        })?;
        each(store, rows::LEFT_KEYS, |key, value| {
            let (segment, places) = rows::decode_left(key, value)?;
            all.left.insert(segment, places);
            match places.own() {
                Some(slot) => all.take(slot, slot_count, "the slot of a place that was left"),
                None => Ok(()),
            }
        })?;
        each(store, rows::LOAN_KEYS, |key, value| {
            all.loans.push(rows::decode_loan(key, value)?);
            Ok(())
        })?;
        each(store, rows::VOLUME_KEYS, |key, value| {
            let row = rows::decode_volume(key, value)?;
            all.volumes.insert(row.volume, row);
            Ok(())
        })?;
        each(store, rows::BOUNDARY_KEYS, |key, value| {
            let (volume, row) = rows::decode_boundary(key, value)?;
            all.boundaries.insert((volume, row.boundary.generation), row);
            Ok(())
        })?;
        each(store, rows::PARENT_KEYS, |key, value| {
            let (heir, parent) = rows::decode_parent(key, value)?;
            all.parents.insert(heir, parent);
            Ok(())
        })?;
        each(store, rows::ERASING_KEYS, |key, _| {
            all.erasing.insert(rows::decode_erasing(key)?);
            Ok(())
        })?;
        each(store, rows::METER_KEYS, |key, value| {
            let meter = rows::decode_meter_key(key).zip(Meter::decode(value));
            all.meters.extend([meter.ok_or(OpenError::Corrupt("the row of what a volume has used"))?]);
            Ok(())
        })?;
        each(store, rows::RESYNC_KEYS, |key, value| all.asides.add_resync(key, value))?;
        each(store, rows::ASIDE_KEYS, |key, value| {
            let parcels = all.asides.add_segment(key, value)?;
            let is_there = parcels.places().all(|place| all.packs.get(&place.pack) == Some(&place.slot));
            if is_there { Ok(()) } else { Err(OpenError::Corrupt("the pack of a segment that is kept aside")) }
        })?;
        each(store, rows::KEPT_KEYS, |key, _| {
            all.kept.insert(rows::decode_kept(key)?);
            Ok(())
        })?;
        Ok(all)
    }

    fn take(&mut self, slot: SlotIndex, slot_count: u32, what: &'static str) -> Result<(), OpenError> {
        if slot.0 < slot_count && self.used.insert(slot) { Ok(()) } else { Err(OpenError::Corrupt(what)) }
    }
}

/// Calls `visit` for every row of a range of keys.
fn each<S: Store>(
    store: &S,
    (start, end): (&[u8], &[u8]),
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let mut wrong = None;
    store.each(start, end, &mut |key, value| {
        if wrong.is_none() {
            wrong = visit(key, value).err();
        }
    })?;
    wrong.map_or(Ok(()), Err)
}
