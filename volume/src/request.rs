//! What front ends ask of a volume, and what it answers.

use crate::buffer::Buffer;
use crate::error::Error;
use crate::map::Location;
use crate::pool::{Boundary, Change, Parent, Pledge};
use smallvec::SmallVec;
use units::{BLOCK_BYTES, ByteRange, MeterTime, SnapshotId};

/// Most bytes of one payload piece of a write; a longer write brings several, all but the last of this length.
pub const PIECE_BYTES_MAX: usize = 1 << 20;

/// Most bytes of one read or write request.
pub const REQUEST_BYTES_MAX: u64 = 32 << 20;

/// Most bytes of one compare-and-write.
pub const COMPARE_BYTES_MAX: u64 = 256 << 10;

/// Most bytes of one or-write.
pub const OR_BYTES_MAX: u64 = 16 << 20;

/// Most bytes of one copy.
pub const COPY_BYTES_MAX: u64 = 16 << 20;

/// The driver's name for a request; it comes back in the reply. Unique among a volume's requests under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The pieces of a write's payload in order.
///
/// Every piece but the last holds [`PIECE_BYTES_MAX`] bytes; together they hold the bytes of the range.
pub type Payload = SmallVec<[Buffer; 1]>;

/// One request of a front end.
#[derive(Debug)]
pub enum Request {
    /// Read the bytes of `range`, at most [`REQUEST_BYTES_MAX`]. Answered by [`Completion::Read`].
    Read {
        /// What to read.
        range: ByteRange,
    },
    /// Write `payload` to `range`. Answered when it survives the process, with `fua` when it survives power loss.
    Write {
        /// Where to write.
        range: ByteRange,
        /// The bytes.
        payload: Payload,
        /// Whether to wait for stable storage.
        fua: bool,
    },
    /// Write `payload` to `range` if what is there equals `expected`, and nothing else between the two: SBC-3 COMPARE AND WRITE.
    /// Whole sectors, at most [`COMPARE_BYTES_MAX`]. Answered like a write, or by [`Completion::Miscompare`] when nothing was
    /// written.
    CompareAndWrite {
        /// Where to compare and write.
        range: ByteRange,
        /// The bytes that must be there.
        expected: Payload,
        /// The bytes to write.
        payload: Payload,
        /// Whether to wait for stable storage.
        fua: bool,
    },
    /// Set the bits of `payload` in `range`, at most [`OR_BYTES_MAX`], and leave the others: SBC-3 ORWRITE. No change of a block
    /// comes between the look at it and its change; blocks may change one after the other.
    OrWrite {
        /// Where.
        range: ByteRange,
        /// The bits to set.
        payload: Payload,
        /// Whether to wait for stable storage.
        fua: bool,
    },
    /// Give `target` the content that `source`, which is as long, has at one moment; nothing else comes between for any block.
    /// Whole blocks, which do not overlap, at most [`COPY_BYTES_MAX`]; blocks may change one after the other. No data is moved:
    /// refused while history is kept, and where what is copied lies in little pieces; then data must be copied.
    Copy {
        /// From where.
        source: ByteRange,
        /// To where.
        target: ByteRange,
        /// Whether to wait for stable storage.
        fua: bool,
    },
    /// Tell where the content of `range` is, so that another volume of the pool can borrow it: whole blocks, at most
    /// [`COPY_BYTES_MAX`]. Answered by [`Completion::Lent`], which shows the range as it is at one moment.
    Lend {
        /// What.
        range: ByteRange,
    },
    /// Give `target` what another volume has lent, which is as long. Refused while history is kept: then data must be copied.
    Borrow {
        /// To where.
        target: ByteRange,
        /// What.
        lent: Lent,
        /// Whether to wait for stable storage.
        fua: bool,
    },
    /// Forget `range`, of any length: it reads as zeros afterwards, and its space is given back.
    Trim {
        /// What to forget.
        range: ByteRange,
        /// Whether to wait for stable storage.
        fua: bool,
    },
    /// Make `range`, of any length, read as zeros.
    WriteZeroes {
        /// What to zero.
        range: ByteRange,
        /// Whether to wait for stable storage.
        fua: bool,
    },
    /// Make every write answered so far durable.
    Flush,
    /// Bring `range` near, as a hint. Answered when the map of it is in memory.
    Cache {
        /// What will be read soon.
        range: ByteRange,
    },
    /// Tell which parts of `range` hold data. Answered by [`Completion::Extents`].
    Extents {
        /// What to look at; not empty.
        range: ByteRange,
        /// Most extents to return; at least 1.
        extents_max: usize,
    },
    /// Tell which parts of `range` have changed since a snapshot of the volume, or of one that it inherits from. Answered by
    /// [`Completion::Changed`]. What was written and has not been answered yet may be in it or not.
    Changed {
        /// The snapshot.
        since: Parent,
        /// What to look at; not empty.
        range: ByteRange,
        /// Most extents to return; at least 1.
        extents_max: usize,
    },
    /// Change the volume's size. A smaller one is refused when data lies beyond it, unless `discard_tail`. Durable when answered.
    Resize {
        /// The new size in bytes, a multiple of 512, at most 2^63.
        size_bytes: u64,
        /// Whether data beyond the new size may be thrown away.
        discard_tail: bool,
    },
    /// End the present generation: a snapshot shows the volume as it is at one moment between this request and its answer,
    /// which is [`Completion::Snapshot`]. Like a write it survives the process when answered, and power loss once flushed.
    Snapshot {
        /// What the log calls it.
        id: SnapshotId,
    },
    /// Begin no batch but of snapshots until [`Request::Release`], and no longer than
    /// [`HOLD_DURATION_MAX`](crate::engine::HOLD_DURATION_MAX). Answered when no batch is in flight.
    Hold,
    /// Let a held volume go on. Fails when it had not been held to now.
    Release,
    /// Write back what the store lacks and make all of it durable, so that the next start has nothing to replay.
    Checkpoint,
    /// Write back what the store lacks, so that what the volume has used is known to a moment of now. Answered by
    /// [`Completion::Metered`].
    Meter,
    /// Tell the time in the log from now on, or no more: whoever reads it can then tell what was there at a moment.
    KeepTime {
        /// Whether to.
        is_kept: bool,
    },
}

impl Request {
    /// Whether it changes the volume, or its log.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        match self {
            Self::Write { .. }
            | Self::CompareAndWrite { .. }
            | Self::OrWrite { .. }
            | Self::Copy { .. }
            | Self::Borrow { .. }
            | Self::Trim { .. }
            | Self::WriteZeroes { .. }
            | Self::Resize { .. }
            | Self::Snapshot { .. } => true,
            Self::Read { .. }
            | Self::Lend { .. }
            | Self::Flush
            | Self::Cache { .. }
            | Self::Extents { .. }
            | Self::Hold
            | Self::Release
            | Self::Changed { .. }
            | Self::Checkpoint
            | Self::Meter
            | Self::KeepTime { .. } => false,
        }
    }

    /// The buffers that it brings, for whoever refuses it and gives them back.
    pub fn into_buffers(self) -> impl Iterator<Item = Buffer> {
        let (first, second) = match self {
            Self::Write { payload, .. } | Self::OrWrite { payload, .. } => (payload, Payload::new()),
            Self::CompareAndWrite { expected, payload, .. } => (expected, payload),
            Self::Read { .. }
            | Self::Copy { .. }
            | Self::Lend { .. }
            | Self::Borrow { .. }
            | Self::Trim { .. }
            | Self::WriteZeroes { .. }
            | Self::Resize { .. }
            | Self::Snapshot { .. }
            | Self::Flush
            | Self::Cache { .. }
            | Self::Extents { .. }
            | Self::Hold
            | Self::Release
            | Self::Changed { .. }
            | Self::Checkpoint
            | Self::Meter
            | Self::KeepTime { .. } => (Payload::new(), Payload::new()),
        };
        first.into_iter().chain(second)
    }
}

/// What a volume lends: runs of blocks, one behind the other, and what keeps them.
#[derive(Debug, Clone, Default)]
pub struct Lent {
    pub(crate) runs: Vec<LentRun>,
    pub(crate) pledge: Pledge,
}

/// Neighbouring blocks that are lent, or holes.
#[derive(Debug, Clone)]
pub(crate) struct LentRun {
    pub(crate) count: u32,
    /// Where the first one is, and their check values there; `None` for holes.
    pub(crate) content: Option<(Location, Vec<u32>)>,
}

impl Lent {
    /// Bytes that it is of.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.count) * BLOCK_BYTES).sum()
    }

    /// Whether it is of nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

/// The answer to a request that succeeded.
#[derive(Debug)]
pub enum Completion {
    /// Bytes read: `buffer[skip..skip + len]`. The front end gives the buffer back to the pool when it is sent.
    Read {
        /// Holds whole blocks.
        buffer: Buffer,
        /// Where the range begins in it.
        skip: usize,
        /// Number of bytes.
        len: usize,
    },
    /// A write of whatever kind, copy, borrow, trim, write-zeroes, flush, cache, resize, hold, release, checkpoint or keep-time is done.
    Done,
    /// A compare-and-write found something else and wrote nothing.
    Miscompare {
        /// The first byte that differs, counted from the start of the range.
        at: u64,
    },
    /// Extents from the start of the range on, neighbours of different kind; they may end before the range does.
    Extents(Vec<Extent>),
    /// Extents from the start of the range on, neighbours of different kind; they may end before the range does.
    Changed(Vec<ChangedExtent>),
    /// The store has all that counts from before this time, and nothing will come that does.
    Metered(MeterTime),
    /// A snapshot was taken here.
    Snapshot(Boundary),
    /// What is lent.
    Lent(Lent),
}

/// A run of bytes in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes; block granularity inside the range.
    pub len: u64,
    /// Whether data is there; if not, it is a hole and reads as zeros.
    pub is_data: bool,
}

/// A run of bytes of which the same has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangedExtent {
    /// Bytes; block granularity inside the range.
    pub len: u64,
    /// What has become of their blocks since.
    pub change: Change,
}

/// A request's id and its outcome.
#[derive(Debug)]
pub struct Reply {
    /// The request answered.
    pub id: RequestId,
    /// The outcome.
    pub result: Result<Completion, Error>,
}
