//! What volumes ask of the store, and its answers: plain messages to another thread.

use units::{Lsn, SegmentId, VolumeId};
use volume::error::DiskFault;
use volume::io::{Event, IoId, LoadedPage, PageIndex};
use volume::map::PageWrite;
use volume::pool::{Lease, LeaseClass, SegmentRow};

/// Takes what volumes ask of the store. Must not block: it is called on the shard's thread.
///
/// Each [`StoreAsk`] that has an answer gets exactly one, as [`super::Message::Store`] to the shard that asked.
pub trait StorePort: Send {
    /// Takes a question.
    fn ask(&mut self, ask: StoreAsk);
}

/// A question to the store.
#[derive(Debug)]
pub enum StoreAsk {
    /// Load a map page. Answered by [`StoreAnswer::PageLoaded`].
    LoadPage {
        /// Who asks.
        volume: VolumeId,
        /// Which.
        page: PageIndex,
    },
    /// Write map pages in one atomic step. Answered by [`StoreAnswer::WroteBack`].
    WriteBack {
        /// Who asks.
        volume: VolumeId,
        /// Comes back in the answer.
        id: IoId,
        /// What to write, in the order it applies.
        pages: Vec<PageWrite>,
        /// How far the map in the store is complete then.
        folded_to: Lsn,
        /// The volume's size.
        size_bytes: u64,
    },
    /// Lease a slot. Answered by [`StoreAnswer::Leased`].
    Lease {
        /// Who asks.
        volume: VolumeId,
        /// Which slots may be used.
        class: LeaseClass,
    },
    /// Note a segment. No answer.
    NoteSegment(SegmentRow),
    /// Give a segment's slot back. No answer.
    Release {
        /// Who asks.
        volume: VolumeId,
        /// Which.
        segment: SegmentId,
    },
}

/// An answer of the store.
#[derive(Debug)]
pub enum StoreAnswer {
    /// A map page, or that there is none.
    PageLoaded {
        /// Of the question.
        page: PageIndex,
        /// What the store has.
        result: Result<LoadedPage, DiskFault>,
    },
    /// The pages are written, durably.
    WroteBack {
        /// Of the question.
        id: IoId,
        /// On success, the segments that no page in the store names any more.
        result: Result<Vec<SegmentId>, DiskFault>,
    },
    /// A slot, or none.
    Leased {
        /// What there is.
        result: Result<Lease, DiskFault>,
    },
}

impl From<StoreAnswer> for Event {
    fn from(answer: StoreAnswer) -> Self {
        match answer {
            StoreAnswer::PageLoaded { page, result } => Self::PageLoaded { page, result },
            StoreAnswer::WroteBack { id, result } => Self::WroteBack { id, result },
            StoreAnswer::Leased { result } => Self::Leased { result },
        }
    }
}
