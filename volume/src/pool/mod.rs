//! The pool's index: which slot holds which segment of whom, how many of its blocks are live, and the pages of the maps.
//!
//! All of it is kept in a [`Store`](crate::store::Store), as a cache: the pool itself is the truth, and
//! [`crate::rebuild`] makes the index anew from it. Synchronous and without I/O of its own but the store's; slot headers
//! are read once, when the index is opened.

mod aside;
mod changes;
mod credits;
mod deletion;
mod erasing;
mod figures;
mod history;
mod index;
mod lease;
mod leaving;
mod lineage;
mod live;
mod load;
mod loans;
mod meter;
mod owed;
mod place;
mod presence;
mod relocate;
mod requests;
mod rows;
mod scrubbing;
mod slots;
mod survivors;
mod versions;
mod waiting;
mod walk;
mod write_back;

pub use aside::{Aside, JoinError, Joined, Listing, Resync, Whole};
pub use changes::{Change, ChangedRun, Changes, ChangesError};
pub use deletion::{Deletion, DeletionError};
pub use figures::VolumeSpace;
pub use index::Index;
pub use leaving::{PeerBehind, Settled};
pub use lineage::{Inheritance, LineageError, Parent};
pub use live::Live;
pub(crate) use live::LiveChange;
pub use loans::{Loan, Loans, Pledge};
pub use meter::{Gauge, Gauged, Measured, MeterReading, MeterStart};
pub use place::{Home, ParcelPlace, Parcels, Place, Stretch};
pub use relocate::Move;
pub use requests::RequestCounts;
pub use rows::{Boundary, BoundaryRow, SegmentRow, VolumeRow};
pub use scrubbing::ScrubTarget;
pub use slots::{SITES_MAX, WINDOW_SLOTS};
pub use survivors::{Outcome as SurvivorOutcome, Search as SurvivorSearch, Survivors, left_of};
pub(crate) use versions::{Version, count_change};
pub use waiting::Waiting;
pub use walk::Reclaim;
pub use write_back::Folded;

pub(crate) use load::Found;

use crate::compact::CompactionFigures;
use crate::error::DiskFault;
use crate::store::StoreFault;
use std::collections::BTreeMap;
use std::fmt;
use units::{PoolId, SegmentId, SlotIndex, VolumeId};

/// Which slots a lease may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaseClass {
    /// For data: the slots kept back are not for it.
    Data,
    /// For trims and metadata: any free slot but what compaction needs to go on.
    Reserve,
    /// For a pack: any free slot.
    Compaction,
}

/// A slot to be filled and the id that its segment bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Where.
    pub slot: SlotIndex,
    /// Never used before.
    pub segment: SegmentId,
}

/// How a pool's slots are used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolFigures {
    /// Slots of the pool.
    pub slots_total: u32,
    /// Slots that a lease may have: of class compaction all of them, of the others those beyond what is kept back.
    pub slots_free: u32,
    /// Slots kept back from data.
    pub slots_reserved: u32,
    /// Of these, slots kept back from trims and metadata too.
    pub slots_for_compaction: u32,
    /// Slots that hold a segment or are leased for one.
    pub slots_used: u32,
    /// Slots that nobody may have, since what they hold cannot be told.
    pub slots_kept: u32,
    /// Segments.
    pub segments: u64,
    /// Blocks that the stored map of each volume names. Counts that are not known are left out.
    pub live_blocks: BTreeMap<VolumeId, u64>,
    /// What the compactor has done, where one runs: the index leaves it empty.
    pub compaction: CompactionFigures,
}

/// Why an index cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// The store failed.
    Store(StoreFault),
    /// The pool failed.
    Disk(DiskFault),
    /// The store holds no index, that of another pool, or one of another time than the pool.
    Stale {
        /// The pool's id and generation.
        pool: (PoolId, u64),
        /// The store's, when it has an index.
        store: Option<(PoolId, u64)>,
    },
    /// A value in the store is not what the index writes.
    Corrupt(&'static str),
    /// The index was written by a program that keeps it in another form: it can be made anew.
    OtherVersion(u16),
    /// The store is to be filled anew but holds something.
    NotEmpty,
}

impl From<StoreFault> for OpenError {
    fn from(fault: StoreFault) -> Self {
        Self::Store(fault)
    }
}

impl From<DiskFault> for OpenError {
    fn from(fault: DiskFault) -> Self {
        Self::Disk(fault)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(fault) => write!(f, "{fault}"),
            Self::Disk(fault) => write!(f, "pool: {fault}"),
            Self::Stale { pool: (pool, generation), store: None } => {
                write!(f, "no index of pool {pool} (generation {generation}): run `aljibe pool rebuild`")
            }
            Self::Stale { pool: (pool, generation), store: Some((other, other_generation)) } => write!(
                f,
                "the index is of pool {other}, generation {other_generation}, and the pool is {pool}, generation \
                 {generation}: run `aljibe pool rebuild`"
            ),
            Self::Corrupt(what) => write!(f, "index: {what} is damaged: run `aljibe pool rebuild`"),
            Self::OtherVersion(version) => {
                write!(
                    f,
                    "the index is of version {version}, which this program does not read: run `aljibe pool rebuild`"
                )
            }
            Self::NotEmpty => f.write_str("the store of a new index holds something already: give it an empty folder"),
        }
    }
}

impl std::error::Error for OpenError {}

#[cfg(test)]
pub(crate) mod tests;
