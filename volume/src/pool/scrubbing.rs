//! What a scrub asks of the index: where segments are, how much of them is to be judged, and whether a block is live.

use super::index::{Entry, Index, io};
use super::rows;
use super::{SegmentRow, Version};
use crate::error::DiskFault;
use crate::io::PageIndex;
use crate::map::{Found, Location, PAGE_BLOCKS};
use crate::store::{Durability, Store, StoreWrite};
use std::collections::{BTreeMap, BTreeSet};
use units::{BlockIndex, Lsn, SegmentId, SlotIndex, VolumeId};

/// A segment, or what of it is in one slot, as a scrub is to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubTarget {
    /// The segment, where it is now.
    pub row: SegmentRow,
    /// Its operations up to here are on stable storage, for certain; what comes later is not judged.
    pub durable_lsn: Lsn,
    /// Whether its footer is on stable storage, for certain.
    pub is_settled: bool,
}

impl ScrubTarget {
    /// What of it is in a slot; `None` when nothing is.
    #[must_use]
    pub fn within(self, slot: SlotIndex) -> Option<Self> {
        let home = self.row.home.within(slot)?;
        Some(Self { row: SegmentRow { home, ..self.row }, ..self })
    }
}

impl<S: Store> Index<S> {
    /// The slots that hold segments, from `first` on, with those segments in the order in which they are there.
    #[must_use]
    pub fn scrub_order(&self, first: SlotIndex) -> Vec<(SlotIndex, Vec<SegmentId>)> {
        let mut slots: BTreeMap<SlotIndex, Vec<(u32, SegmentId)>> = BTreeMap::new();
        for row in self.owned.iter().filter_map(|(_, segment)| self.entry(*segment)).map(|entry| &entry.row) {
            let own = row.own_slot().map(|slot| (slot, 0));
            let places = row.home.each_parcel().map(|place| (place.slot, place.block));
            for (slot, block) in own.into_iter().chain(places).filter(|(slot, _)| *slot >= first) {
                slots.entry(slot).or_default().push((block, row.segment));
            }
        }
        let in_order = |(slot, mut segments): (SlotIndex, Vec<(u32, SegmentId)>)| {
            segments.sort_unstable();
            let mut seen = BTreeSet::new();
            let once = segments.into_iter().map(|(_, segment)| segment).filter(|segment| seen.insert(*segment));
            (slot, once.collect())
        };
        slots.into_iter().map(in_order).collect()
    }

    /// A segment to be scrubbed; `None` when it is there no more, or nothing of it is on stable storage for certain.
    #[must_use]
    pub fn scrub_target(&self, segment: SegmentId) -> Option<ScrubTarget> {
        let Entry { row, .. } = *self.entry(segment)?;
        let folded_to = self.volume_row(row.volume)?.folded_to;
        // An open one that is not the newest was given up: what it holds may be in a newer one, otherwise.
        let newest = self.owned.range((row.volume, SegmentId(0))..=(row.volume, SegmentId::MAX)).next_back();
        let is_log = row.last_lsn.is_some() || newest.is_some_and(|(_, newest)| *newest == segment);
        let durable_lsn = row.last_lsn.map_or(folded_to, |last| last.min(folded_to));
        if !is_log || durable_lsn < row.first_lsn {
            return None;
        }
        let settled = self.settled.get(&row.volume);
        let is_settled = row.last_lsn == Some(durable_lsn) && settled.is_some_and(|settled| segment <= settled.up_to);
        Some(ScrubTarget { row, durable_lsn, is_settled })
    }

    /// Whether a stored version of the volume's map says that `block` is at `location`, or a copy has its content from there.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed.
    pub fn names(&self, volume: VolumeId, block: BlockIndex, location: Location) -> Result<bool, DiskFault> {
        let page_blocks = u64::from(PAGE_BLOCKS);
        let page = PageIndex(block.0 / page_blocks);
        let at = u32::try_from(block.0 % page_blocks).map_err(|_| DiskFault::Io)?;
        let mut is_named = false;
        for content in self.versions_of(volume, page)?.iter().map(Version::content) {
            content?.visit(at, 1, |_, _, found| {
                is_named |= matches!(found, Found::Data { location: found, .. } if found == location);
            });
        }
        Ok(is_named || self.lent_blocks(location.segment).contains(u32::from(location.block)))
    }

    /// What a scrub had noted, for when it goes on.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed.
    pub fn scrub_note(&self) -> Result<Option<Vec<u8>>, DiskFault> {
        self.store.read(rows::SCRUB_KEY).map_err(io)
    }

    /// Notes how far a scrub is. A power cut may take that, and a rebuild does.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed.
    pub fn note_scrub(&mut self, note: Vec<u8>) -> Result<(), DiskFault> {
        self.commit(vec![StoreWrite::Put(rows::SCRUB_KEY.to_vec(), note)], Durability::Lazy)
    }
}
