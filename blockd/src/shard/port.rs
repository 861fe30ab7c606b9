//! What volumes ask of the store: plain messages to another thread. The answers are events of the volume.

use std::ops::Range;
use units::{SegmentId, VolumeId};
use volume::io::{IoId, PageIndex};
use volume::map::{Location, PageWrite};
use volume::pool::{Boundary, Folded, LeaseClass, Loan, Parent, Pledge, SegmentRow, Settled};

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
    /// Load a map page. Answered by [`volume::io::Event::PageLoaded`].
    LoadPage {
        /// Who asks.
        volume: VolumeId,
        /// Which.
        page: PageIndex,
    },
    /// Tell where a segment of another volume is, and what becomes of it. Answered by [`volume::io::Event::Place`].
    LoadPlace {
        /// Who asks.
        volume: VolumeId,
        /// Which.
        segment: SegmentId,
    },
    /// Compare map pages with what a snapshot shows. Answered by [`volume::io::Event::ChangesLoaded`].
    LoadChanges {
        /// Who asks.
        volume: VolumeId,
        /// Comes back in the answer.
        id: IoId,
        /// The snapshot.
        since: Parent,
        /// The pages, of which the first ones are looked at.
        pages: Range<PageIndex>,
        /// Most runs wanted.
        runs_max: usize,
    },
    /// Write map pages in one atomic step. Answered by [`volume::io::Event::WroteBack`].
    WriteBack {
        /// Who asks.
        volume: VolumeId,
        /// Comes back in the answer.
        id: IoId,
        /// Whose pages they are.
        generation: u64,
        /// What to write, in the order it applies.
        pages: Vec<PageWrite>,
        /// How far the map in the store goes then.
        folded: Folded,
    },
    /// Note the end of a generation that is needed. No answer.
    NoteBoundary {
        /// Whose.
        volume: VolumeId,
        /// Which.
        boundary: Boundary,
    },
    /// Note what a segment borrows. No answer.
    NoteLoans {
        /// Whose it is.
        volume: VolumeId,
        /// The borrower.
        segment: SegmentId,
        /// What it borrows.
        loans: Vec<Loan>,
        /// What has kept it so far.
        pledges: Vec<Pledge>,
    },
    /// Keep blocks that another volume is about to borrow. No answer.
    Pledge {
        /// Whose they are.
        volume: VolumeId,
        /// For as long as anybody else has it.
        pledge: Pledge,
        /// Neighbouring blocks: the first, and how many.
        runs: Vec<(Location, u32)>,
    },
    /// Lease a slot. Answered by [`volume::io::Event::Leased`].
    Lease {
        /// Who asks.
        volume: VolumeId,
        /// Which slots may be used.
        class: LeaseClass,
    },
    /// Lease a slot for a segment whose id the other site of a mirror has given. Answered by [`volume::io::Event::LeasedFor`].
    LeaseFor {
        /// Who asks.
        volume: VolumeId,
        /// The segment.
        segment: SegmentId,
    },
    /// Note a segment. No answer.
    NoteSegment(Box<SegmentRow>),
    /// Note how far a volume has no more use for its segments as a tail of its log. No answer.
    Settle {
        /// Whose.
        volume: VolumeId,
        /// How far.
        settled: Settled,
    },
    /// No read uses a segment any more that was told to leave. No answer.
    Unpinned {
        /// Who says so.
        volume: VolumeId,
        /// Which.
        segment: SegmentId,
    },
    /// A volume is closed. No answer.
    Closed {
        /// Which.
        volume: VolumeId,
    },
    /// Give a segment's slot back. No answer.
    Release {
        /// Who asks.
        volume: VolumeId,
        /// Which.
        segment: SegmentId,
    },
}

impl StoreAsk {
    /// Who asks.
    #[must_use]
    pub fn volume(&self) -> VolumeId {
        match self {
            Self::NoteSegment(row) => row.volume,
            Self::LoadPage { volume, .. }
            | Self::LoadPlace { volume, .. }
            | Self::LoadChanges { volume, .. }
            | Self::WriteBack { volume, .. }
            | Self::NoteBoundary { volume, .. }
            | Self::NoteLoans { volume, .. }
            | Self::Pledge { volume, .. }
            | Self::Lease { volume, .. }
            | Self::LeaseFor { volume, .. }
            | Self::Settle { volume, .. }
            | Self::Unpinned { volume, .. }
            | Self::Closed { volume }
            | Self::Release { volume, .. } => *volume,
        }
    }
}
