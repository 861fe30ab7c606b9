//! The pool's slots and segments (stub of the words; the state machine follows).
use units::{Lsn, SegmentId, SlotIndex, VolumeId};

/// Which slots a lease may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaseClass {
    /// For data: the slots kept back are not for it.
    Data,
    /// For trims and metadata: any free slot.
    Reserve,
}

/// A slot to be filled and the id that its segment bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Where.
    pub slot: SlotIndex,
    /// Never used before.
    pub segment: SegmentId,
}

/// What the store notes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentRow {
    /// Its id.
    pub segment: SegmentId,
    /// Whose blocks it holds.
    pub volume: VolumeId,
    /// Where it is.
    pub slot: SlotIndex,
    /// The first operation in it.
    pub first_lsn: Lsn,
    /// The last operation in it; `None` while it is open.
    pub last_lsn: Option<Lsn>,
}
