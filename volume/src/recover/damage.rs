//! Why a volume is not served, told so that a person knows what to do.

use crate::error::DiskFault;
use std::fmt;
use units::{Lsn, SegmentId, SlotIndex, VolumeId};

/// A block of a segment and where it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The segment.
    pub segment: SegmentId,
    /// The slot that holds it.
    pub slot: SlotIndex,
    /// The block of the slot.
    pub block: u32,
}

/// Why a volume cannot be served. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which volume.
    pub volume: VolumeId,
    /// What is wrong.
    pub kind: DamageKind,
}

/// What is wrong with a volume's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// The disk does not give a block that tells where the log ends.
    Unreadable {
        /// Which block.
        place: Place,
        /// How the disk failed.
        fault: DiskFault,
    },
    /// A batch's header has rotted: the operations from `lsn` on were on stable storage, up to `durable_lsn`.
    HeaderRot {
        /// Where the batch should be.
        place: Place,
        /// Its first operation.
        lsn: Lsn,
        /// What a later batch says was durable.
        durable_lsn: Lsn,
    },
    /// Operations that were on stable storage are in no segment.
    Missing {
        /// The first of them.
        lsn: Lsn,
        /// What a batch or the stored map says was durable.
        durable_lsn: Lsn,
    },
    /// A segment does not follow on the one before it.
    Chain {
        /// The segment's header.
        place: Place,
        /// Its first operation.
        lsn: Lsn,
    },
    /// The header names another volume or another first operation than the index.
    OtherHeader {
        /// The segment's header.
        place: Place,
    },
    /// Its log was joined to that of another site, and the stored map does not have all of it yet.
    Unfolded {
        /// Where it was joined to.
        to: Lsn,
    },
    /// What is left of a segment that was moved is not where the index says.
    Parcel {
        /// Where it begins.
        place: Place,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {}, slot {}, block {}", self.segment, self.slot, self.block)
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { place, fault } => {
                write!(f, "{place} cannot be read ({fault}): look at the disk, and open the volume again once it reads")
            }
            Self::HeaderRot { place, lsn, durable_lsn } => write!(
                f,
                "{place}: the header of the batch of operation {lsn} is damaged, and operations up to {durable_lsn} were \
                 on stable storage: {RESTORE}"
            ),
            Self::Missing { lsn, durable_lsn } => write!(
                f,
                "operation {lsn} is in no segment, and operations up to {durable_lsn} were on stable storage: {RESTORE}"
            ),
            Self::Chain { place, lsn } => {
                write!(f, "{place}: operation {lsn} does not follow on the log before it: {RESTORE}")
            }
            Self::Unfolded { to } => {
                write!(
                    f,
                    "the log was brought up to operation {to} by a resync that has not ended: open the volume again"
                )
            }
            Self::Parcel { place } => write!(
                f,
                "{place}: the header of what was moved there is damaged, or of another segment: run `aljibe pool rebuild`"
            ),
            Self::OtherHeader { place } => write!(
                f,
                "{place}: the header is of another volume or log position than the index says: run `aljibe pool rebuild`"
            ),
        }
    }
}

const RESTORE: &str = "restore the volume from a copy, or delete it; `aljibe pool check` lists all that is damaged";

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {} is not served: {}", self.volume, self.kind)
    }
}

impl std::error::Error for Damage {}
