//! What clients ask of a site that does not lead is passed on to the one that does, sans-io: [`Asker`] at the one, [`Answerer`] at the
//! other.
//!
//! Whose request it is waits at the site that it came to, which keeps the request until it is answered: one of which the link loses the
//! answer is asked for again, or begun there when that site has come to lead. It may then have been done twice, one right behind the
//! other, before it is answered: as with any driver that tries again. A compare-and-write is not tried again, since it would find its own bytes.
//!
//! **S7.** A request must not come to the leading site late, when its client may have asked for it there itself and written something newer
//! since. So it bears the newest time that this site has told (its **tick**), and how long the client had waited when that was heard; it is taken only while
//! both together are not more than [`LATE_AFTER`]. What has come is begun in its order with all others. Who has heard nothing of it may tell its client that it
//! failed only when all that is over ([`Held::may_fail`]); a client that is told nothing, or whose connection is lost, has to wait for five
//! seconds before it tries elsewhere. No clock is compared with another, but for how fast it goes.

mod answerer;
mod asker;
mod turn;

pub use answerer::{Answerer, Guest};
pub use asker::{Asker, Came, Held};
pub use turn::{Turn, Whose};

use std::time::Duration;
use units::ByteRange;
use volume::buffer::Buffer;
use volume::error::{Error, ErrorKind};
use volume::request::{Completion, Extent, Payload, Request};

/// How long ago a client may have asked for what comes to the site that leads.
pub const LATE_AFTER: Duration = Duration::from_secs(3);

/// How long after it was asked for a request of which nothing was heard may be told to have failed: clocks may each be 10 % off.
pub const FAILS_AFTER: Duration = Duration::from_millis(3750);

/// Requests, and bytes of them, that a group has under way at the other site; one alone may have more.
pub const OPEN_MAX: usize = 256;
/// See [`OPEN_MAX`].
pub const OPEN_BYTES_MAX: u64 = 32 << 20;

/// A request that is passed on.
#[derive(Debug)]
pub struct Ask {
    /// Comes back in the answer. Unique in a life of the link.
    pub number: u64,
    /// The newest that the site which is asked has told; zero while it has told none.
    pub tick: u64,
    /// For how many milliseconds the client had waited when that was heard.
    pub waited_ms: u16,
    /// What is to be done.
    pub what: What,
    /// Where.
    pub range: ByteRange,
    /// Whether to wait for stable storage.
    pub fua: bool,
    /// The bytes that it brings: of a compare-and-write those that must be there, then those to be written.
    pub payload: Vec<Buffer>,
}

/// What is asked: [`Request`], as far as it can be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// [`Request::Read`].
    Read,
    /// [`Request::Write`].
    Write,
    /// [`Request::CompareAndWrite`].
    CompareAndWrite,
    /// [`Request::OrWrite`].
    OrWrite,
    /// [`Request::Copy`] to the range.
    Copy {
        /// From this byte on.
        source: u64,
    },
    /// [`Request::Trim`].
    Trim,
    /// [`Request::WriteZeroes`].
    WriteZeroes,
    /// [`Request::Flush`].
    Flush,
    /// [`Request::Cache`].
    Cache,
    /// [`Request::Extents`].
    Extents {
        /// Most extents to return.
        extents_max: u32,
    },
}

/// What became of a request that was passed on.
#[derive(Debug)]
pub struct Answer {
    /// Of the question.
    pub number: u64,
    /// When it was sent, by the clock of the site that answers: milliseconds from no moment in particular, never zero.
    pub tick: u64,
    /// What.
    pub outcome: Outcome,
}

/// What became of a request that was passed on.
#[derive(Debug)]
pub enum Outcome {
    /// [`Completion::Done`].
    Done,
    /// [`Completion::Read`]: `buffer[skip..skip + len]`.
    Read {
        /// Holds the bytes.
        buffer: Buffer,
        /// Where they begin in it.
        skip: u32,
        /// How many they are.
        len: u32,
    },
    /// [`Completion::Miscompare`].
    Miscompare {
        /// The first byte that differs.
        at: u64,
    },
    /// [`Completion::Extents`].
    Extents(Vec<Extent>),
    /// It failed.
    Failed(Error),
    /// Nothing of it was begun: that site does not lead, or not in that epoch, or takes no more now.
    NotHere,
    /// It was begun, and that site came to lead no more: nobody knows what becomes of it.
    Lost,
    /// Nothing of it was begun, since it may have come late: a newer tick comes with this.
    Stale,
}

/// Whether the site that leads can be asked for a request.
#[must_use]
pub fn may_be_passed(request: &Request) -> bool {
    What::of(request).is_some()
}

impl What {
    /// What a request asks for, where, and whether it waits for stable storage; `None` when it is none that is passed on.
    fn of(request: &Request) -> Option<(Self, ByteRange, bool)> {
        Some(match request {
            Request::Read { range } => (Self::Read, *range, false),
            Request::Write { range, fua, .. } => (Self::Write, *range, *fua),
            Request::CompareAndWrite { range, fua, .. } => (Self::CompareAndWrite, *range, *fua),
            Request::OrWrite { range, fua, .. } => (Self::OrWrite, *range, *fua),
            Request::Copy { source, target, fua } => (Self::Copy { source: source.offset() }, *target, *fua),
            Request::Trim { range, fua } => (Self::Trim, *range, *fua),
            Request::WriteZeroes { range, fua } => (Self::WriteZeroes, *range, *fua),
            Request::Flush => (Self::Flush, ByteRange::new(0, 0).ok()?, false),
            Request::Cache { range } => (Self::Cache, *range, false),
            Request::Extents { range, extents_max } => {
                let extents_max = u32::try_from(*extents_max).unwrap_or(u32::MAX).min(EXTENTS_MAX);
                (Self::Extents { extents_max }, *range, false)
            }
            Request::Lend { .. }
            | Request::Borrow { .. }
            | Request::Changed { .. }
            | Request::Resize { .. }
            | Request::Snapshot { .. }
            | Request::Hold
            | Request::Release
            | Request::Checkpoint
            | Request::Meter
            | Request::KeepTime { .. } => return None,
        })
    }

    /// Bytes that it brings, or that its answer does.
    const fn weight(self, range: ByteRange) -> u64 {
        match self {
            Self::Read | Self::Write | Self::OrWrite => range.len(),
            Self::CompareAndWrite => 2 * range.len(),
            Self::Copy { .. } | Self::Trim | Self::WriteZeroes | Self::Flush | Self::Cache | Self::Extents { .. } => 0,
        }
    }
}

/// Bytes that a request brings, or that its answer does.
fn weight(request: &Request) -> u64 {
    What::of(request).map_or(0, |(what, range, _)| what.weight(range))
}

impl Ask {
    /// The question that asks for a request, with a copy of its bytes; `None` when it is none that is passed on.
    fn of(request: &Request) -> Option<Self> {
        let (what, range, fua) = What::of(request)?;
        let mut payload = Vec::new();
        let mut copy = |bytes: &Payload| payload.extend(bytes.iter().map(|piece| Buffer::copy_of(piece.as_slice())));
        if let Request::Write { payload, .. } | Request::OrWrite { payload, .. } = request {
            copy(payload);
        } else if let Request::CompareAndWrite { expected, payload, .. } = request {
            copy(expected);
            copy(payload);
        }
        Some(Self { number: 0, tick: 0, waited_ms: 0, what, range, fua, payload })
    }

    /// The request; `None` when nobody can ask for that. What the volume looks at itself, such as lengths, is left to it.
    fn into_request(self) -> Option<Request> {
        let Self { what, range, fua, payload, .. } = self;
        let brings_bytes = matches!(what, What::Write | What::CompareAndWrite | What::OrWrite);
        if !brings_bytes && !payload.is_empty() {
            return None;
        }
        Some(match what {
            What::Read => Request::Read { range },
            What::Write => Request::Write { range, payload: payload.into_iter().collect(), fua },
            What::CompareAndWrite => {
                // Each of the two is one piece: none is longer.
                let [expected, payload] = <[Buffer; 2]>::try_from(payload).ok()?;
                let (expected, payload) = (std::iter::once(expected), std::iter::once(payload));
                Request::CompareAndWrite { range, expected: expected.collect(), payload: payload.collect(), fua }
            }
            What::OrWrite => Request::OrWrite { range, payload: payload.into_iter().collect(), fua },
            What::Copy { source } => {
                Request::Copy { source: ByteRange::new(source, range.len()).ok()?, target: range, fua }
            }
            What::Trim => Request::Trim { range, fua },
            What::WriteZeroes => Request::WriteZeroes { range, fua },
            What::Flush => Request::Flush,
            What::Cache => Request::Cache { range },
            What::Extents { extents_max } => {
                let extents_max = usize::try_from(extents_max.clamp(1, EXTENTS_MAX)).ok()?;
                Some(Request::Extents { range, extents_max }).filter(|_| !range.is_empty())?
            }
        })
    }
}

/// Most extents of an answer.
pub const EXTENTS_MAX: u32 = 4096;

impl Outcome {
    fn of(result: Result<Completion, Error>) -> Self {
        match result {
            Ok(Completion::Done) => Self::Done,
            Ok(Completion::Read { buffer, skip, len }) => match (u32::try_from(skip), u32::try_from(len)) {
                (Ok(skip), Ok(len)) => Self::Read { buffer, skip, len },
                (Ok(_) | Err(_), Ok(_) | Err(_)) => Self::Lost,
            },
            Ok(Completion::Miscompare { at }) => Self::Miscompare { at },
            Ok(Completion::Extents(extents)) => Self::Extents(extents),
            // None of what is passed on is answered so.
            Ok(Completion::Changed(_) | Completion::Metered(_) | Completion::Snapshot(_) | Completion::Lent(_)) => {
                Self::Lost
            }
            Err(error) if error.kind == ErrorKind::Fenced => Self::Lost,
            Err(error) => Self::Failed(error),
        }
    }
}

#[cfg(test)]
mod tests;
