//! Where the blocks of a segment are: in its own slot, or since it was moved in packs, each part of it in a parcel where
//! they are behind each other in the order in which they were.

use super::{Loans, SegmentRow, Survivors};
use crate::format::{Cut, PartSet};
use std::sync::Arc;
use units::{Lsn, SegmentId, SlotIndex};

/// All that is needed to read a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whose it is, and where it is now.
    pub row: SegmentRow,
    /// Which of its blocks are left, when it was moved.
    pub survivors: Option<Arc<Survivors>>,
    /// What it borrows, while it is in its own slot.
    pub loans: Option<Arc<Loans>>,
}

/// Where a segment is.
#[expect(clippy::large_enum_variant, reason = "rows are copied; most segments of a pool in use were moved")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Home {
    /// In the slot that it was written to.
    Own(SlotIndex),
    /// In packs.
    Parcels(Parcels),
}

/// The parcels of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Parcels {
    /// Into how many parts the segment is cut.
    pub cut: Cut,
    /// Where each part is; `None` where nothing is left of it.
    places: [Option<ParcelPlace>; Cut::PARTS_MAX],
}

/// Where a part of a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParcelPlace {
    /// The pack.
    pub pack: SegmentId,
    /// Its slot.
    pub slot: SlotIndex,
    /// The block of the pack's slot where the parcel begins.
    pub block: u32,
    /// The block of the pack's slot where its header is once more.
    pub copy: u32,
    /// Blocks of its header; the payload is behind them.
    pub header_blocks: u32,
    /// How often the part was moved.
    pub moves: u32,
    /// What is here is what the stored map named when it was complete up to here.
    pub clean_lsn: Lsn,
}

/// Neighbouring blocks of a segment where they are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The slot.
    pub slot: SlotIndex,
    /// The first block in it.
    pub block: u32,
    /// How many there are.
    pub count: u32,
}

impl Home {
    /// The segment's own slot, while it is there.
    #[must_use]
    pub const fn own(&self) -> Option<SlotIndex> {
        match self {
            Self::Own(slot) => Some(*slot),
            Self::Parcels(_) => None,
        }
    }

    /// Its parcels, when it was moved.
    #[must_use]
    pub const fn parcels(&self) -> Option<&Parcels> {
        match self {
            Self::Own(_) => None,
            Self::Parcels(parcels) => Some(parcels),
        }
    }

    /// Every parcel; none while it is in its own slot.
    pub fn each_parcel(&self) -> impl Iterator<Item = ParcelPlace> {
        self.parcels().into_iter().flat_map(Parcels::places)
    }

    /// The slots that something of it is in; one of several parts more than once.
    pub fn slots(&self) -> impl Iterator<Item = SlotIndex> {
        self.own().into_iter().chain(self.each_parcel().map(|place| place.slot))
    }

    /// What of it is in a slot; `None` when nothing is.
    #[must_use]
    pub fn within(&self, slot: SlotIndex) -> Option<Self> {
        match self {
            Self::Own(own) => (*own == slot).then_some(*self),
            Self::Parcels(parcels) => {
                let parts = parcels.each().filter(|(_, place)| place.slot == slot).map(|(part, _)| part).collect();
                let within = parcels.only(parts);
                (!within.is_empty()).then_some(Self::Parcels(within))
            }
        }
    }
}

impl Parcels {
    /// None of a segment that is cut so.
    #[must_use]
    pub const fn none(cut: Cut) -> Self {
        Self { cut, places: [None; Cut::PARTS_MAX] }
    }

    /// Where a part is.
    #[must_use]
    pub fn of(&self, part: usize) -> Option<ParcelPlace> {
        self.places.get(part).copied().flatten()
    }

    /// The same with a part at a place; one that the cut does not have is left out.
    #[must_use]
    pub fn with(mut self, part: usize, at: ParcelPlace) -> Self {
        if let Some(place) = self.places.get_mut(part).filter(|_| part < self.cut.parts()) {
            *place = Some(at);
        }
        self
    }

    /// The parts that are somewhere, and where, in their order.
    pub fn each(&self) -> impl Iterator<Item = (usize, ParcelPlace)> {
        self.places.iter().enumerate().filter_map(|(part, place)| Some((part, (*place)?)))
    }

    /// Where they are.
    pub fn places(&self) -> impl Iterator<Item = ParcelPlace> {
        self.places.iter().filter_map(|place| *place)
    }

    /// The parts that are somewhere.
    #[must_use]
    pub fn parts(&self) -> PartSet {
        self.each().map(|(part, _)| part).collect()
    }

    /// Whether nothing is anywhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places().next().is_none()
    }

    /// Those of some parts.
    #[must_use]
    pub fn only(mut self, parts: PartSet) -> Self {
        for (part, place) in self.places.iter_mut().enumerate() {
            *place = place.filter(|_| parts.contains(part));
        }
        self
    }

    /// Those of all other parts, and what `others` has.
    #[must_use]
    pub fn replaced(&self, parts: PartSet, others: &Self) -> Self {
        let rest = self.only(self.parts().without(parts));
        others.each().fold(rest, |all, (part, place)| all.with(part, place))
    }
}

impl SegmentRow {
    /// Where `count` neighbouring blocks from `block` on are: in one stretch, but where the segment is cut into parts. `None`
    /// ends it where the segment does not have them all. Which blocks are left must be known of a segment that was moved.
    pub fn stretches(
        &self,
        survivors: Option<&Survivors>,
        block: u32,
        count: u32,
    ) -> impl Iterator<Item = Option<Stretch>> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let rest = count.checked_sub(done).filter(|rest| *rest > 0)?;
            let stretch = self.locate(survivors, block + done, rest);
            done = stretch.map_or(count, |stretch| done + stretch.count);
            Some(stretch)
        })
    }

    /// Where the first of `count` neighbouring blocks from `block` on are, as many as are together. `None` when the segment does
    /// not have them all.
    #[must_use]
    pub fn locate(&self, survivors: Option<&Survivors>, block: u32, count: u32) -> Option<Stretch> {
        let parcels = match &self.home {
            Home::Own(slot) => return Some(Stretch { slot: *slot, block, count }),
            Home::Parcels(parcels) => parcels,
        };
        let survivors = survivors?;
        let slot_blocks = survivors.slot_blocks();
        let part = parcels.cut.part_of(block, slot_blocks);
        let (place, span) = (parcels.of(part)?, parcels.cut.span(part, slot_blocks));
        let count = count.min(span.end.checked_sub(block)?);
        let rank = survivors.rank_of_run(span, (block, count))?;
        Some(Stretch { slot: place.slot, block: place.payload() + rank, count })
    }

    /// The segment's own slot, while it is there.
    #[must_use]
    pub const fn own_slot(&self) -> Option<SlotIndex> {
        self.home.own()
    }

    /// Whether it was moved.
    #[must_use]
    pub const fn is_moved(&self) -> bool {
        self.home.parcels().is_some()
    }

    /// A slot that something of it is in, to be told to people.
    #[must_use]
    pub fn a_slot(&self) -> SlotIndex {
        self.home.slots().next().unwrap_or(SlotIndex(0))
    }
}

impl ParcelPlace {
    /// The two blocks of the slot where its header begins: before its payload, and in the pack's directory.
    #[must_use]
    pub const fn headers(&self) -> [u32; 2] {
        [self.block, self.copy]
    }

    /// Stands for a part that ought to be in some pack and was not found: it cannot be read, and there is nothing to be made
    /// void of it.
    #[must_use]
    pub const fn nowhere(self) -> Self {
        Self { block: 0, copy: 0, header_blocks: 1, ..self }
    }

    /// Whether it is such a part. Block 0 of a pack is its own header.
    #[must_use]
    pub const fn is_nowhere(&self) -> bool {
        self.block == 0
    }

    /// The block of the slot where the payload begins.
    #[must_use]
    pub const fn payload(&self) -> u32 {
        self.block + self.header_blocks
    }
}
