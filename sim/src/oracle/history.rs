//! What was asked of a sector, and when.

use std::fmt;
use std::ops::Range;

/// A moment: every event of a world has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(pub u64);

/// A change that a client asked, counted within its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(pub u32);

/// The zeros that a volume begins with.
pub(super) const INITIAL: OpId = OpId(0);

/// Sectors that clients write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// The first one; begins a block.
    pub first_sector: u64,
    /// Number of sectors; whole blocks.
    pub sectors: u64,
}

impl Area {
    pub(super) fn index(&self, sector: u64) -> Option<usize> {
        sector.checked_sub(self.first_sector).filter(|at| *at < self.sectors).map(|at| at as usize)
    }

    /// Those of `sectors` that lie in it, counted from its start.
    pub(super) fn indices(&self, sectors: &Range<u64>) -> Range<usize> {
        let clamp = |sector: u64| (sector.max(self.first_sector) - self.first_sector).min(self.sectors) as usize;
        clamp(sectors.start)..clamp(sectors.end)
    }
}

/// A change of some sectors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    /// The first sector of its range, and the one after.
    pub(super) sectors: (u64, u64),
    pub(super) is_zero: bool,
    pub(super) is_fua: bool,
    pub(super) asked: Step,
    /// When it was answered.
    pub(super) ended: Option<Step>,
    /// Whether the answer was a good one.
    pub(super) is_acked: bool,
}

impl Operation {
    pub(super) const fn initial() -> Self {
        Self {
            sectors: (0, u64::MAX),
            is_zero: true,
            is_fua: false,
            asked: Step(0),
            ended: Some(Step(0)),
            is_acked: true,
        }
    }

    pub(super) const fn asked(step: Step, sectors: &Range<u64>) -> Self {
        Self {
            sectors: (sectors.start, sectors.end),
            is_zero: false,
            is_fua: false,
            asked: step,
            ended: None,
            is_acked: false,
        }
    }

    /// It as it counts now: what was asked before `settled_at` is as old as the volume.
    pub(super) fn settled(self, settled_at: Step) -> Self {
        if self.asked < settled_at {
            Self { is_zero: self.is_zero, sectors: self.sectors, ..Self::initial() }
        } else {
            self
        }
    }

    /// Whether it was over before `other` was asked.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.ended.is_some_and(|ended| ended < other.asked)
    }

    /// When it was answered well.
    pub(super) fn acked(&self) -> Option<Step> {
        self.ended.filter(|_| self.is_acked)
    }
}

/// What may be in a sector.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    /// Those from before all was last settled come first: one, or several where the sector could not be read then.
    pub(super) candidates: Vec<OpId>,
    /// Those that reads have shown, with when the first was answered: parts of one request need not happen together.
    pub(super) seen: Vec<(OpId, Step)>,
}

impl History {
    pub(super) fn settled(op: OpId) -> Self {
        Self { candidates: vec![op], seen: Vec::new() }
    }

    pub(super) fn note_seen(&mut self, op: OpId, now: Step) {
        if self.candidates.len() > 1 && self.seen_at(op).is_none() {
            self.seen.push((op, now));
        }
    }

    pub(super) fn seen_at(&self, op: OpId) -> Option<Step> {
        self.seen.iter().find(|(seen, _)| *seen == op).map(|(_, step)| *step)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asked {}", self.asked)?;
        match (self.ended, self.is_acked) {
            (Some(ended), true) => write!(f, ", done {ended}")?,
            (Some(ended), false) => write!(f, ", failed {ended}")?,
            (None, _) => f.write_str(", unanswered")?,
        }
        if self.is_fua { f.write_str(", FUA") } else { Ok(()) }
    }
}
