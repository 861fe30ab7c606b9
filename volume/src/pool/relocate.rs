//! Moving segments into packs, as the index sees it: one durable commit gives all of them their new places.
//!
//! Packs are written whole before any row names them, and all of them are named by that commit: a pack without a row, and a
//! parcel that no row names, count for nothing. The places before stay taken until they are void, durably: a row tells
//! them, so that a start goes on where a stop came between.
//!
//! A segment leaves its own slot at once, with all its parts; after that each part of it goes its own way. Only the trunk
//! stays as long as there is anything of the segment.

use super::index::{Entry, Index, io};
use super::rows;
use super::{Home, Lease, Parcels, SegmentRow, Survivors};
use crate::error::DiskFault;
use crate::format::PartSet;
use crate::io::PageIndex;
use crate::map::Page;
use crate::store::{Durability, Store, StoreWrite};
use std::collections::BTreeSet;
use std::sync::Arc;
use units::{SegmentId, SlotIndex, VolumeId};

/// The new places of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The segment.
    pub segment: SegmentId,
    /// The parts that leave where they are; of one in its own slot all.
    pub parts: PartSet,
    /// Where these go. One that goes nowhere is dead.
    pub parcels: Parcels,
    /// Which blocks of these are left.
    pub survivors: Survivors,
    /// Whether trims or zeroes are among what is left of the segment.
    pub has_holes: bool,
}

impl<S: Store> Index<S> {
    /// Gives `moves` their places in the packs that `leases` were filled as; durable when it returns.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or one of the segments is not there, would lose its trunk, or has not been
    /// void where it was before: nothing is changed.
    pub fn relocate(&mut self, leases: &[Lease], moves: Vec<Move>) -> Result<(), DiskFault> {
        self.relocate_as(leases, moves, Durability::Durable)
    }

    fn relocate_as(&mut self, leases: &[Lease], moves: Vec<Move>, durability: Durability) -> Result<(), DiskFault> {
        let packs = leases.iter().map(|lease| (rows::pack_key(lease.segment), rows::encode_pack(lease.slot)));
        let mut writes: Vec<StoreWrite> = packs.map(|(key, value)| StoreWrite::Put(key, value)).collect();
        let mut after = Vec::with_capacity(moves.len());
        for moved in moves {
            let segment = moved.segment;
            let old = *self.entry(segment).ok_or(DiskFault::Io)?;
            if self.left.contains_key(&segment) {
                return Err(DiskFault::Io);
            }
            let (home, left, survivors) = match old.row.home {
                Home::Own(_) => (moved.parcels, old.row.home, moved.survivors),
                Home::Parcels(before) => {
                    let survivors = self.survivors(segment).ok_or(DiskFault::Io)?;
                    let slot_blocks = self.superblock().geometry.slot_blocks();
                    let parts = (0..before.cut.parts()).filter(|part| moved.parts.contains(*part));
                    let spans = parts.map(|part| before.cut.span(part, slot_blocks));
                    let start = survivors.as_ref().clone();
                    let survivors = spans.fold(start, |all, span| all.replaced(span, &moved.survivors));
                    let home = before.replaced(moved.parts, &moved.parcels);
                    (home, Home::Parcels(before.only(moved.parts)), survivors)
                }
            };
            if home.of(0).is_none() {
                return Err(DiskFault::Io);
            }
            let row = SegmentRow { home: Home::Parcels(home), has_holes: moved.has_holes, ..old.row };
            let value = rows::encode_segment(&row, old.live, Some(&survivors));
            writes.push(StoreWrite::Put(rows::segment_key(segment), value));
            writes.push(StoreWrite::Put(rows::left_key(segment), rows::encode_left(&left)));
            after.push((Entry { row, live: old.live }, left, survivors));
        }
        self.commit(writes, durability)?;
        self.note_packs(leases);
        for (entry, left, survivors) in after {
            self.left.insert(entry.row.segment, left);
            self.survivors.insert(entry.row.segment, Arc::new(survivors));
            self.put_entry(entry);
        }
        Ok(())
    }

    /// Leaves nothing but its trunk to a dead segment; `false` when that is all there is of it, or it is in its own slot. The
    /// trunk is to go last: what it trimmed may be in the other parts, and a rebuild must not find these without it. To be
    /// durable before any of them is made void ([`Index::make_durable`]).
    ///
    /// # Errors
    /// As [`Index::relocate`].
    pub fn leave_trunk(&mut self, segment: SegmentId) -> Result<bool, DiskFault> {
        let Some(row) = self.segment(segment) else { return Ok(false) };
        let Home::Parcels(parcels) = row.home else { return Ok(false) };
        let parts = parcels.parts().without(PartSet::TRUNK);
        if parts.is_empty() {
            return Ok(false);
        }
        let survivors = Survivors::none(self.superblock().geometry.slot_blocks());
        let parcels = Parcels::none(parcels.cut);
        let moved = Move { segment, parts, parcels, survivors, has_holes: row.has_holes };
        self.relocate_as(&[], vec![moved], Durability::Lazy)?;
        Ok(true)
    }

    /// The places that segments have left and that are not void yet.
    pub fn left_places(&self) -> impl Iterator<Item = (SegmentId, Home)> {
        self.left.iter().map(|(segment, places)| (*segment, *places))
    }

    /// The places that a segment has left are void, durably: the slot is free when it was its own.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: the places stay taken.
    pub fn release_left(&mut self, segment: SegmentId) -> Result<(), DiskFault> {
        let Some(places) = self.left.get(&segment).copied() else { return Ok(()) };
        let row = StoreWrite::Delete(rows::left_key(segment));
        // What it borrowed is its own since it was moved; now no rebuild finds it where it was not.
        let loans = places.own().and_then(|_| self.loans_end(segment));
        self.commit(loans.into_iter().chain([row]).collect(), Durability::Lazy)?;
        self.left.remove(&segment);
        if places.own().is_some() {
            self.end_loans(segment);
        }
        places.own().into_iter().for_each(|slot| self.free_slot(slot));
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
        let read = self.store.each(&from, &end, &mut |_, value| {
            let content = rows::split_page(value).and_then(|(page, _)| Page::decode(page).ok());
            is_whole &= content.is_some();
            content.iter().for_each(&mut *visit);
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
        let mut left = self.left.values().flat_map(Home::each_parcel);
        self.packs.contains_key(&pack) && self.parcels_of(pack).next().is_none() && left.all(|place| place.pack != pack)
    }

    /// The slot of a pack.
    pub(crate) fn pack_slot(&self, pack: SegmentId) -> Option<SlotIndex> {
        self.packs.get(&pack).copied()
    }

    /// The packs with places that segments have left and that are not void yet.
    pub(crate) fn packs_left(&self) -> BTreeSet<SegmentId> {
        self.left.values().flat_map(Home::each_parcel).map(|place| place.pack).collect()
    }

    /// The segments of which a part is in a pack.
    pub(crate) fn parcels_of(&self, pack: SegmentId) -> impl Iterator<Item = SegmentId> {
        self.parcels.range((pack, SegmentId(0))..=(pack, SegmentId(u64::MAX))).map(|(_, segment)| *segment)
    }

    /// The places that a segment has left and that are not void yet.
    pub(crate) fn left_of(&self, segment: SegmentId) -> Option<&Home> {
        self.left.get(&segment)
    }

    /// A segment is no longer where its row says.
    pub(super) fn forget_parcels(&mut self, segment: SegmentId) {
        if let Some(home) = self.entry(segment).map(|entry| entry.row.home) {
            home.each_parcel().for_each(|place| {
                self.parcels.remove(&(place.pack, segment));
            });
        }
    }

    pub(super) fn note_packs(&mut self, leases: &[Lease]) {
        for lease in leases {
            self.slots.noted(lease.segment);
            self.put_pack(lease.segment, lease.slot);
        }
    }

    /// Notes packs that were written and to which nothing was moved, nor will be: durable when it returns. They are empty, and
    /// their slots are free once they are void. Where it cannot be told whether [`Index::relocate`] came through before it
    /// failed, this takes it back.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: to be called again.
    pub fn give_up_packs(&mut self, leases: &[Lease], segments: &BTreeSet<SegmentId>) -> Result<(), DiskFault> {
        let packs = leases.iter().map(|lease| (rows::pack_key(lease.segment), rows::encode_pack(lease.slot)));
        let mut writes: Vec<StoreWrite> = packs.map(|(key, value)| StoreWrite::Put(key, value)).collect();
        for entry in segments.iter().filter_map(|segment| self.entry(*segment)) {
            writes.push(self.row_write(entry));
            writes.push(match self.left_of(entry.row.segment) {
                Some(places) => StoreWrite::Put(rows::left_key(entry.row.segment), rows::encode_left(places)),
                None => StoreWrite::Delete(rows::left_key(entry.row.segment)),
            });
        }
        self.commit(writes, Durability::Durable)?;
        self.note_packs(leases);
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
