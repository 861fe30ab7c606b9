//! How many blocks of a segment stored pages name, by eighths of its slot: where it is cut into parts, each has its own count.

use crate::format::Cut;
use std::collections::BTreeMap;
use units::SegmentId;

/// Live blocks of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Live([u32; Cut::PARTS_MAX]);

/// What segments gain and lose in live blocks.
#[derive(Debug, Clone)]
pub(crate) struct LiveChange {
    slot_blocks: u32,
    by: BTreeMap<SegmentId, [i64; Cut::PARTS_MAX]>,
}

impl Live {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().copied().map(u64::from).sum()
    }

    /// Those of a part.
    #[must_use]
    pub fn of_part(&self, cut: Cut, part: usize) -> u32 {
        let width = Cut::PARTS_MAX / cut.parts();
        self.0.iter().skip(part * width).take(width).sum()
    }

    /// Those that a segment has after a change; `None` when there can be no such.
    pub(crate) fn after(&self, change: &[i64; Cut::PARTS_MAX]) -> Option<Self> {
        let mut after = *self;
        for (live, by) in after.0.iter_mut().zip(change) {
            *live = u32::try_from(i64::from(*live).checked_add(*by)?).ok()?;
        }
        Some(after)
    }

    /// The count of each eighth.
    #[must_use]
    pub const fn eighths(&self) -> [u32; Cut::PARTS_MAX] {
        self.0
    }

    /// What [`Live::eighths`] tells.
    #[must_use]
    pub const fn of_eighths(eighths: [u32; Cut::PARTS_MAX]) -> Self {
        Self(eighths)
    }
}

impl LiveChange {
    /// None, in a pool with slots of so many blocks.
    pub(crate) const fn none(slot_blocks: u32) -> Self {
        Self { slot_blocks, by: BTreeMap::new() }
    }

    /// A block is named by so many more versions, or fewer.
    pub(super) fn add(&mut self, segment: SegmentId, block: u32, by: i64) {
        let eighth = Cut::FINEST.part_of(block, self.slot_blocks);
        if let Some(change) = self.by.entry(segment).or_default().get_mut(eighth) {
            *change += by;
        }
    }

    /// Segments whose counts change, and by how much in each eighth.
    pub(crate) fn each(&self) -> impl Iterator<Item = (SegmentId, &[i64; Cut::PARTS_MAX])> {
        self.by.iter().filter(|(_, by)| **by != [0; Cut::PARTS_MAX]).map(|(segment, by)| (*segment, by))
    }

    /// The same in all.
    pub(crate) fn totals(&self) -> impl Iterator<Item = (SegmentId, i64)> {
        self.each().map(|(segment, by)| (segment, by.iter().sum()))
    }
}
