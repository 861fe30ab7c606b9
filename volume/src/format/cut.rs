//! How a segment that is moved is cut into parts, so that packs can be filled whatever is left of it.

#![expect(clippy::cast_possible_truncation, reason = "at most 8 parts of 65,536 blocks")]

use std::ops::Range;

/// Into how many parts a segment was cut when it was first moved: 1, 2, 4 or 8. Each part is of as many blocks of the
/// segment's slot as the others, in their order, and lies in a parcel of its own. Part 0, the **trunk**, has what has no
/// payload too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cut(u8);

/// Some of the parts of a segment, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartSet(u8);

impl Cut {
    /// Most parts of a segment.
    pub const PARTS_MAX: usize = 8;
    /// All of the segment is one part.
    pub const WHOLE: Self = Self(0);
    /// As many parts as there may be.
    pub const FINEST: Self = Self(Self::PARTS_MAX.trailing_zeros() as u8);

    /// The cut into two to the power of `log2` parts.
    #[must_use]
    pub const fn of_log2(log2: u8) -> Option<Self> {
        if log2 <= Self::FINEST.0 { Some(Self(log2)) } else { None }
    }

    /// The power of two that the number of parts is.
    #[must_use]
    pub const fn log2(self) -> u8 {
        self.0
    }

    /// How many parts there are.
    #[must_use]
    pub const fn parts(self) -> usize {
        1 << self.0
    }

    /// The part that a block of a slot of `slot_blocks` is in.
    #[must_use]
    pub const fn part_of(self, block: u32, slot_blocks: u32) -> usize {
        let width = slot_blocks >> self.0;
        if width == 0 || block / width >= self.parts() as u32 { self.parts() - 1 } else { (block / width) as usize }
    }

    /// The blocks of a slot of `slot_blocks` that are of a part.
    #[must_use]
    pub const fn span(self, part: usize, slot_blocks: u32) -> Range<u32> {
        let width = slot_blocks >> self.0;
        part as u32 * width..(part as u32 + 1) * width
    }
}

impl PartSet {
    /// Every part that there may be.
    pub const ALL: Self = Self(u8::MAX);

    /// Part 0, alone: what has no payload is there.
    pub const TRUNK: Self = Self(1);

    /// A part alone.
    #[must_use]
    pub const fn of_part(part: usize) -> Self {
        Self(if part < Cut::PARTS_MAX { 1 << part } else { 0 })
    }

    /// Whether a part is among them.
    #[must_use]
    pub const fn contains(self, part: usize) -> bool {
        part < Cut::PARTS_MAX && self.0 >> part & 1 == 1
    }

    /// Whether they are parts of a segment that is cut so, `part` among them.
    #[must_use]
    pub const fn may_be_of(self, cut: Cut, part: usize) -> bool {
        self.contains(part) && (self.0 as u16) >> cut.parts() == 0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All but some.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// These and others.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// A bit a part, the lowest one first.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The parts that [`PartSet::bits`] tells.
    #[must_use]
    pub const fn of_bits(bits: u8) -> Self {
        Self(bits)
    }
}

impl FromIterator<usize> for PartSet {
    fn from_iter<I: IntoIterator<Item = usize>>(parts: I) -> Self {
        parts.into_iter().fold(Self::default(), |set, part| set.and(Self::of_part(part)))
    }
}
