//! Moving segments into a pack, as the index sees it: one durable commit gives all of them their new places.
//!
//! A pack is written whole before any row names it, and all of it is named by that commit: a pack without a row, and a
//! parcel that no row names, count for nothing. The places before stay taken until they are void, durably: a row tells
//! them, so that a start goes on where a stop came between.

use super::index::{Entry, Index, io};
use super::rows;
use super::{Lease, ParcelPlace, SegmentRow, Survivors};
use crate::error::DiskFault;
use crate::io::PageIndex;
use crate::map::Page;
use crate::store::{Durability, Store, StoreWrite};
use std::collections::BTreeSet;
use std::sync::Arc;
use units::{SegmentId, SlotIndex, VolumeId};

/// The new place of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The segment.
    pub segment: SegmentId,
    /// Where in the pack.
    pub parcel: ParcelPlace,
    /// Which of its blocks are left.
    pub survivors: Survivors,
    /// Whether trims or zeroes are among what is left.
    pub has_holes: bool,
}

/// A place that a segment has left, and that is not void yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftPlace {
    /// The slot: the segment's own, or that of a pack.
    pub slot: SlotIndex,
    /// Where in the pack.
    pub parcel: Option<ParcelPlace>,
}

impl<S: Store> Index<S> {
    /// Gives `moves` their places in the pack that `lease` was filled as; durable when it returns.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or one of the segments is not there or has not been void where it was
    /// before: nothing is changed.
    pub fn relocate(&mut self, lease: Lease, moves: Vec<Move>) -> Result<(), DiskFault> {
        let mut writes = vec![StoreWrite::Put(rows::pack_key(lease.segment), rows::encode_pack(lease.slot))];
        let mut after = Vec::with_capacity(moves.len());
        for moved in moves {
            let old = *self.entry(moved.segment).ok_or(DiskFault::Io)?;
            if self.left.contains_key(&moved.segment) {
                return Err(DiskFault::Io);
            }
            let place = LeftPlace { slot: old.row.slot, parcel: old.row.parcel };
            let row =
                SegmentRow { slot: lease.slot, parcel: Some(moved.parcel), has_holes: moved.has_holes, ..old.row };
            let value = rows::encode_segment(&row, old.live, Some(&moved.survivors));
            writes.push(StoreWrite::Put(rows::segment_key(row.segment), value));
            writes.push(StoreWrite::Put(rows::left_key(row.segment), rows::encode_left(&place)));
            after.push((Entry { row, live: old.live }, place, moved.survivors));
        }
        self.commit(writes, Durability::Durable)?;
        self.slots.noted(lease.segment);
        self.put_pack(lease.segment, lease.slot);
        for (entry, place, survivors) in after {
            self.left.insert(entry.row.segment, place);
            self.survivors.insert(entry.row.segment, Arc::new(survivors));
            self.put_entry(entry);
        }
        Ok(())
    }

    /// The places that segments have left and that are not void yet.
    pub fn left_places(&self) -> impl Iterator<Item = (SegmentId, LeftPlace)> {
        self.left.iter().map(|(segment, place)| (*segment, *place))
    }

    /// The place that a segment has left is void, durably: the slot is free when it was its own.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: the place stays taken.
    pub fn release_left(&mut self, segment: SegmentId) -> Result<(), DiskFault> {
        let Some(place) = self.left.get(&segment).copied() else { return Ok(()) };
        self.commit(vec![StoreWrite::Delete(rows::left_key(segment))], Durability::Lazy)?;
        self.left.remove(&segment);
        if place.parcel.is_none() {
            self.free_slot(place.slot);
        }
        Ok(())
    }

    /// The packs and their slots.
    pub fn packs(&self) -> impl Iterator<Item = (SegmentId, SlotIndex)> {
        self.packs.iter().map(|(pack, slot)| (*pack, *slot))
    }

    /// Calls `visit` with every stored version of a page.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or holds a page that is none.
    pub fn each_version(
        &self,
        volume: VolumeId,
        page: PageIndex,
        visit: &mut dyn FnMut(&Page),
    ) -> Result<(), DiskFault> {
        let mut is_whole = true;
        let (from, end) = (rows::page_start(volume, page), rows::page_end(volume, page));
        let read = self.store.each(&from, &end, &mut |_, encoded| match Page::decode(encoded) {
            Ok(content) => visit(&content),
            Err(_) => is_whole = false,
        });
        read.map_err(io)?;
        if is_whole { Ok(()) } else { Err(DiskFault::Io) }
    }

    /// The packs in which nothing is that counts.
    #[must_use]
    pub fn empty_packs(&self) -> Vec<(SegmentId, SlotIndex)> {
        let of_left: BTreeSet<SegmentId> = self.packs_left();
        let is_empty = |pack: &SegmentId| !of_left.contains(pack) && self.parcels_of(*pack).next().is_none();
        self.packs.iter().filter(|(pack, _)| is_empty(pack)).map(|(pack, slot)| (*pack, *slot)).collect()
    }

    /// Whether nothing is in a pack that counts.
    pub(crate) fn is_empty_pack(&self, pack: SegmentId) -> bool {
        let mut left = self.left.values().filter_map(|place| place.parcel);
        self.packs.contains_key(&pack) && self.parcels_of(pack).next().is_none() && left.all(|place| place.pack != pack)
    }

    /// The slot of a pack.
    pub(crate) fn pack_slot(&self, pack: SegmentId) -> Option<SlotIndex> {
        self.packs.get(&pack).copied()
    }

    /// The packs with places that segments have left and that are not void yet.
    pub(crate) fn packs_left(&self) -> BTreeSet<SegmentId> {
        self.left.values().filter_map(|place| Some(place.parcel?.pack)).collect()
    }

    /// The segments that are in a pack.
    pub(crate) fn parcels_of(&self, pack: SegmentId) -> impl Iterator<Item = SegmentId> {
        self.parcels.range((pack, SegmentId(0))..=(pack, SegmentId(u64::MAX))).map(|(_, segment)| *segment)
    }

    /// The place that a segment has left and that is not void yet.
    pub(crate) fn left_place(&self, segment: SegmentId) -> Option<LeftPlace> {
        self.left.get(&segment).copied()
    }

    /// A segment is no longer where its row says.
    pub(super) fn forget_parcel(&mut self, segment: SegmentId) {
        if let Some(parcel) = self.entry(segment).and_then(|entry| entry.row.parcel) {
            self.parcels.remove(&(parcel.pack, segment));
        }
    }

    /// Notes a pack that was written and to which nothing was moved, nor will be: durable when it returns. It is empty, and
    /// its slot is free once it is void. Where it cannot be told whether [`Index::relocate`] came through before it failed,
    /// this takes it back.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: to be called again.
    pub fn give_up_pack(&mut self, lease: Lease, segments: &[SegmentId]) -> Result<(), DiskFault> {
        let mut writes = vec![StoreWrite::Put(rows::pack_key(lease.segment), rows::encode_pack(lease.slot))];
        for entry in segments.iter().filter_map(|segment| self.entry(*segment)) {
            writes.push(self.row_write(entry));
            writes.push(match self.left_place(entry.row.segment) {
                Some(place) => StoreWrite::Put(rows::left_key(entry.row.segment), rows::encode_left(&place)),
                None => StoreWrite::Delete(rows::left_key(entry.row.segment)),
            });
        }
        self.commit(writes, Durability::Durable)?;
        self.slots.noted(lease.segment);
        self.put_pack(lease.segment, lease.slot);
        Ok(())
    }

    /// Forgets a pack, whose header has been made void durably, and frees its slot.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: the pack stays.
    pub fn release_pack(&mut self, pack: SegmentId) -> Result<(), DiskFault> {
        let Some(slot) = self.packs.get(&pack).copied() else { return Ok(()) };
        self.commit(vec![StoreWrite::Delete(rows::pack_key(pack))], Durability::Lazy)?;
        self.packs.remove(&pack);
        self.free_slot(slot);
        Ok(())
    }
}
