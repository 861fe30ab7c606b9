//! Places in the log of a group.

use std::fmt;
use units::{Epoch, Lsn, SegmentId};
use volume::feed::BatchEnd;

/// An operation of a group's log: its LSN, the segment that it is in, and the epoch in which its author wrote it.
///
/// An epoch has one author, who goes on in newer segments only and writes each LSN of a segment once; so two logs that both have a
/// position are equal up to it, and of two positions the greater one is the newer. Without the segment that is not so: what a disk
/// fails is written again with the same LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The epoch of the operation.
    pub epoch: Epoch,
    /// The segment; none before everything.
    pub segment: Option<SegmentId>,
    /// Its place.
    pub lsn: Lsn,
}

impl From<BatchEnd> for Position {
    fn from(BatchEnd { epoch, segment, lsn, .. }: BatchEnd) -> Self {
        Self { epoch, segment, lsn }
    }
}

impl Position {
    /// Before everything.
    pub const ZERO: Self = Self { epoch: Epoch(0), segment: None, lsn: Lsn::ZERO };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.lsn)
    }
}
