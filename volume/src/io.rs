//! What a volume wants done and what it is told: the whole of its contact with the world.
//!
//! The driver carries out [`Action`]s in any order and any number at a time; each but a reply comes back as one
//! [`Event`] with the same id and, where it took buffers, with them.

use crate::buffer::Buffer;
use crate::engine::{PeerLog, Role};
use crate::error::DiskFault;
use crate::map::{Location, PageWrite};
use crate::pool::{
    Boundary, Changes, ChangesError, Folded, Lease, LeaseClass, Loan, Parent, Place, Pledge, SegmentRow, Settled,
    Survivors,
};
use crate::request::{Reply, Request, RequestId};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;
use units::{Lsn, SegmentId};

/// Names an append, fetch, sync, page load or write-back under way within one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoId(pub u64);

/// A page of the map, counted in spans of [`crate::map::PAGE_BLOCKS`] blocks from the volume's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIndex(pub u64);

/// Part of a scattered read: `len` bytes of the pool from `pool_offset` go to the buffer from `buffer_offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPiece {
    /// Byte in the pool, a multiple of 4096.
    pub pool_offset: u64,
    /// Byte in the buffer, a multiple of 4096.
    pub buffer_offset: usize,
    /// Bytes, a multiple of 4096.
    pub len: usize,
}

/// What of an append goes to the peer: from one of its buffers on, to come there as [`Event::Replicated`]. In the order in which
/// appends are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToPeer {
    /// The buffer that holds the header of the batch; what is before it is this pool's own.
    pub first_buffer: usize,
    /// Its first and its last operation.
    pub lsns: (Lsn, Lsn),
    /// Where it ends: the segment, and the block behind it.
    pub end: (SegmentId, u32),
}

/// Why a secondary cannot follow, or a volume cannot take a role, until it has been opened anew and both logs were compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FellOut {
    /// What came is no batch of the volume, or its payload is not what its checks say.
    BadBatch,
    /// It does not follow on the log, or takes back what counts.
    NotNext,
    /// The disk failed an append.
    Disk,
    /// The pool has no slot for it.
    NoSlot,
    /// It names content elsewhere, whose place may not be the same here.
    Shared,
    /// More was sent than is taken at a time.
    TooMuch,
    /// Something is under way that the role would not know of.
    NotAtRest,
}

/// What a volume wants the driver to do.
#[derive(Debug)]
pub enum Action {
    /// Write `buffers`, whole blocks each, one after the other to the pool from `pool_offset` on.
    Append {
        /// Comes back in [`Event::Appended`].
        id: IoId,
        /// Byte in the pool, a multiple of 4096.
        pool_offset: u64,
        /// The bytes.
        buffers: Vec<Buffer>,
        /// Where they are a batch that the peer is to have too.
        to_peer: Option<ToPeer>,
    },
    /// Read `pieces` of the pool into `buffer`.
    Fetch {
        /// Comes back in [`Event::Fetched`].
        id: IoId,
        /// Where the bytes go.
        buffer: Buffer,
        /// What to read; at least one.
        pieces: SmallVec<[FetchPiece; 2]>,
        /// Whether it went wrong before: now the device is to be asked for these bytes alone, past every cache.
        is_second_try: bool,
    },
    /// Make everything durable whose [`Event::Appended`] came before this action was given.
    Sync {
        /// Comes back in [`Event::Synced`].
        id: IoId,
    },
    /// Answer a request.
    Reply(Reply),
    /// Load a map page from the store; when there is none, tell which one comes next.
    LoadPage {
        /// The page; comes back in [`Event::PageLoaded`].
        page: PageIndex,
    },
    /// Tell where a segment of another volume is, which this one inherits blocks of, and tell whenever it is moved or leaves
    /// from then on.
    LoadPlace {
        /// The segment; comes back in [`Event::Place`].
        segment: SegmentId,
    },
    /// Compare pages as the store has them now with what a snapshot shows.
    LoadChanges {
        /// Comes back in [`Event::ChangesLoaded`].
        id: IoId,
        /// The snapshot: one of the volume, or of one that it inherits from.
        since: Parent,
        /// The pages, of which the first ones are looked at.
        pages: Range<PageIndex>,
        /// Most runs wanted.
        runs_max: usize,
    },
    /// Write map pages to the store in one atomic step, and note how far the map there is complete. Pages of one
    /// generation come before all of the next.
    WriteBack {
        /// Comes back in [`Event::WroteBack`].
        id: IoId,
        /// Whose pages they are.
        generation: u64,
        /// Pages and ranges of pages, in the order they apply.
        pages: Vec<PageWrite>,
        /// How far the map in the store goes with these pages.
        folded: Folded,
    },
    /// Note in the store that a generation has ended and that its end is needed; before any page of a later one is
    /// written. No answer.
    NoteBoundary(Boundary),
    /// Note in the store what a segment borrows; before any page is written that comes after the copy. No answer.
    NoteLoans {
        /// The borrower.
        segment: SegmentId,
        /// What it borrows.
        loans: Vec<Loan>,
        /// What has kept it so far: dropped once it is noted.
        pledges: Vec<Pledge>,
    },
    /// Keep blocks that another volume is about to borrow; before any page is written that comes after this. No answer.
    Pledge {
        /// For as long as anybody else has it.
        pledge: Pledge,
        /// Neighbouring blocks: the first, and how many.
        runs: Vec<(Location, u32)>,
    },
    /// Obtain a slot for a new segment. Answered by [`Event::Leased`]; one at a time.
    Lease {
        /// Whether the slots kept back for trims and metadata may be used.
        class: LeaseClass,
    },
    /// Obtain a slot for a segment whose id the primary has given. Answered by [`Event::LeasedFor`]; one at a time.
    LeaseFor {
        /// The segment.
        segment: SegmentId,
    },
    /// Have the peer make durable what it was sent. No answer but that it tells so.
    SyncPeer {
        /// Everything up to here.
        lsn: Lsn,
    },
    /// Tell the primary how far the log is. Of several the last one will do. No answer.
    TellPrimary(PeerLog),
    /// It cannot go on as it was told. No answer.
    FellOut {
        /// Why.
        why: FellOut,
    },
    /// Note in the store that a segment has been opened or sealed. No answer.
    NoteSegment(Box<SegmentRow>),
    /// Note how far the volume has no more use for its segments as a tail of its log. Each is given back, or moved, when
    /// no stored page names it. No answer.
    Settle(Settled),
    /// No read uses a segment any more that was told to leave, or the place of one that was moved. No answer.
    Unpinned {
        /// The segment.
        segment: SegmentId,
    },
    /// Give back the slot of a segment that no operation is in. Its header has been made void, durably. No answer.
    Release {
        /// The segment.
        segment: SegmentId,
    },
}

/// What a volume is told.
#[derive(Debug)]
pub enum Event {
    /// A front end asks.
    Request {
        /// Comes back in the reply.
        id: RequestId,
        /// What it asks.
        request: Request,
    },
    /// An append ended. The buffers come back either way.
    Appended {
        /// Of the action.
        id: IoId,
        /// Of the action.
        buffers: Vec<Buffer>,
        /// Whether all of it has left the process.
        result: Result<(), DiskFault>,
    },
    /// A fetch ended; on success every piece is filled.
    Fetched {
        /// Of the action.
        id: IoId,
        /// Of the action.
        buffer: Buffer,
        /// Whether every piece was read.
        result: Result<(), DiskFault>,
    },
    /// A sync ended. A failed one is final: what it covered may be lost.
    Synced {
        /// Of the action.
        id: IoId,
        /// Whether everything is durable.
        result: Result<(), DiskFault>,
    },
    /// A map page came from the store.
    PageLoaded {
        /// Of the action.
        page: PageIndex,
        /// What the store has.
        result: Result<LoadedPage, DiskFault>,
    },
    /// Where a segment of another volume is.
    Place {
        /// Of the action.
        segment: SegmentId,
        /// `None` when there is no such segment.
        place: Option<Box<Place>>,
    },
    /// Some pages, from the first that were asked for on, have been compared.
    ChangesLoaded {
        /// Of the action.
        id: IoId,
        /// What was found.
        result: Result<Changes, ChangesError>,
    },
    /// A write-back ended.
    WroteBack {
        /// Of the action.
        id: IoId,
        /// Whether all of it is in the store.
        result: Result<(), DiskFault>,
    },
    /// A settled segment, of the volume itself or one that it was told the place of, has been moved: what begins from now on reads it where it is now. Answered by
    /// [`Action::Unpinned`] once nothing reads it where it was.
    Moved {
        /// Its row now.
        row: Box<SegmentRow>,
        /// Which of its blocks are left.
        survivors: Arc<Survivors>,
    },
    /// Nothing maps a settled segment any more, of the volume itself or one that it was told the place of, and its slot is to
    /// be given back. Answered by [`Action::Unpinned`].
    Leaves {
        /// The segment.
        segment: SegmentId,
    },
    /// A slot was leased, or there is none.
    Leased {
        /// The slot, or none when the pool is full.
        result: Result<Lease, DiskFault>,
    },
    /// The slot that a segment of the primary's needs, or there is none.
    LeasedFor {
        /// The segment.
        segment: SegmentId,
        /// With the id that was asked for.
        result: Result<Lease, DiskFault>,
    },
    /// What the volume is to do from now on.
    Role(Role),
    /// The secondary has told how far its log is.
    PeerHas(PeerLog),
    /// The primary has sent a batch.
    Replicated {
        /// Its header in the first one, and its payload in whole blocks.
        buffers: Vec<Buffer>,
    },
    /// The primary has told what counts of its log, and what of that is on stable storage at both sites.
    Committed(PeerLog),
    /// The primary waits until what it has sent is durable.
    MakeDurable {
        /// Everything up to here.
        lsn: Lsn,
    },
    /// The pool's free slots have become few: one that is not needed now should not be kept.
    SlotsFew,
    /// A deleted volume waits for what a segment borrows of it, which is not sealed, or not folded. No answer.
    Awaited {
        /// The borrower.
        segment: SegmentId,
    },
    /// Time has passed; given about once a second.
    Tick,
}

/// A page as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadedPage {
    /// Its encoded form.
    Present(Vec<u8>),
    /// No such page, nor any before `next`; no page at all from it on when that is `None`.
    Absent {
        /// The next page that the store has.
        next: Option<PageIndex>,
    },
}
