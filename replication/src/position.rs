//! Places in the log of a group.

use std::fmt;
use units::{Epoch, Lsn};

/// An operation of a group's log: its LSN, and the epoch in which its author wrote it.
///
/// An epoch has one author, who writes each LSN once; so two logs that both have a position are equal up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The epoch of the operation.
    pub epoch: Epoch,
    /// Its place.
    pub lsn: Lsn,
}

impl Position {
    /// Before everything.
    pub const ZERO: Self = Self { epoch: Epoch(0), lsn: Lsn::ZERO };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.lsn)
    }
}
