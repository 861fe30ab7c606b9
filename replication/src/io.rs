//! What goes into a [`crate::Member`] and what comes out.

use crate::evidence::Evidence;
use crate::message::Message;
use crate::position::Position;
use crate::promise::Promise;
use crate::record::{Record, Revision};
use std::fmt;
use units::{Epoch, Lsn, Monotonic, SiteId};

/// A question to the witness; never used again in one life of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// A committed record and its revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The revision, which a change names.
    pub revision: Revision,
    /// The record.
    pub record: Record,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Time has passed. Due every [`crate::times::TICK`].
    Tick,
    /// The witness answered a read.
    Read {
        /// Which.
        id: AskId,
        /// What it says.
        answer: ReadAnswer,
    },
    /// The witness answered a compare-and-swap.
    Swapped {
        /// Which.
        id: AskId,
        /// What became of it.
        answer: SwapAnswer,
    },
    /// The other site said something.
    Heard(Message),
    /// The connection to the other site came or went.
    Link {
        /// Which of the two.
        is_up: bool,
    },
    /// How the log is. Told when it changes, and when it has taken on a role.
    Log(LogState),
    /// Where the logs part: the answer to [`Action::Align`], of the primary in the epoch that is promised.
    Aligned {
        /// Of the question.
        number: u64,
        /// The last operation that both logs have.
        common: Lsn,
    },
    /// The log was opened anew, or its end is not what the primary has: where it parts from that one's is not known any more.
    Reopened,
    /// A promise of [`Action::Promise`] is on stable storage; promises become so in their order.
    Promised,
    /// An operator wants something.
    Command(Command),
    /// How the own disk is.
    Disk(DiskState),
    /// The link or the other site answers too slowly, or well again, as the driver measures.
    PeerSlow(bool),
    /// Which site is to be primary when both could: where most sessions are.
    Preferred(bool),
    /// A read waits for the other site's word (`reads=confirm`, or a lease that has run out).
    ReadWaits,
}

/// The witness's answer to a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAnswer {
    /// There is a record. The witness is frail while the loss of the link, or of one site, would leave it without a quorum.
    Found {
        /// The record.
        seen: Seen,
        /// Whether one more loss ends it.
        is_frail: bool,
    },
    /// There is none.
    Nothing,
    /// It did not answer, or what it has is no record.
    Unreachable,
}

/// The witness's answer to a compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapAnswer {
    /// The record is in force.
    Won {
        /// Its revision.
        revision: Revision,
    },
    /// It is not and never will be; this is there instead.
    Lost {
        /// What is there.
        found: Option<Seen>,
    },
    /// Nobody knows, and it may yet come into force.
    Unknown,
}

/// An operator's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Make the group: this site is its first primary, alone.
    Found,
    /// Planned switch: the other site is to be primary.
    Switch,
    /// Make this site primary, whatever the other one may hold that this one does not.
    Force,
    /// S8. Write the witness's record anew after it has gone back. Without the other site the operator answers for it.
    Rebuild {
        /// Whether the other site need not be heard.
        without_peer: bool,
    },
    /// How reads are guarded.
    Reads(Reads),
}

/// How the primary knows that a read is not stale, while the other site is in sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reads {
    /// By a word that the other site gave for a while: no round trip. Needs clocks of which the rates are 10 % off at most.
    #[default]
    Lease,
    /// By asking after the read came: one round trip, whatever clocks do.
    Confirm,
}

/// How a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskState {
    /// As it should be.
    #[default]
    Good,
    /// Too slow for the mirror.
    Slow,
    /// Its log is nearly full.
    Full,
    /// Failing.
    Failing,
}

/// How the local log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogState {
    /// The number of the last role that the log has taken on; what follows was so after that.
    pub role: u64,
    /// The last operation that is appended.
    pub end: Position,
    /// On stable storage up to here.
    pub durable: Lsn,
    /// How far the other site has it, when it follows this one's.
    pub peer: Option<PeerAck>,
    /// What is waited for to be on stable storage there, too.
    pub awaited: Lsn,
    /// The end that was handed over ([`crate::Member::hand_over`]), when the log has that.
    pub handed: Option<Position>,
}

/// How far the other site has a log, by what that site says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerAck {
    /// The epoch in which it said so.
    pub epoch: Epoch,
    /// It has everything up to here.
    pub appended: Lsn,
    /// And this on stable storage.
    pub durable: Lsn,
}

/// What a site does with its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Take writes in this epoch, and answer them as far as [`crate::Member::committed`] says.
    Lead {
        /// The epoch that new batches bear.
        epoch: Epoch,
        /// Whether an acknowledgement needs the other site, too.
        with_peer: bool,
    },
    /// Take batches of this epoch from its primary, and tell how far they are.
    Follow {
        /// The epoch.
        epoch: Epoch,
        /// Its author.
        primary: SiteId,
    },
    /// Append nothing. Requests wait, or end with an error when [`Why::ends_requests`] says so.
    Freeze {
        /// What for.
        why: Why,
    },
    /// Cut the log behind `to`, which is a branch now, and go on in a new segment. Appends nothing.
    SealAndCut {
        /// The last operation that stays.
        to: Lsn,
    },
}

impl Role {
    /// S2. Whether a batch of `epoch` that `from` sent may be appended.
    #[must_use]
    pub fn accepts(&self, from: SiteId, epoch: Epoch) -> bool {
        let Self::Follow { epoch: promised, primary } = *self else { return false };
        let is_promised = epoch == promised || crate::controls::is_missing(crate::controls::Safeguard::PromisedEpoch);
        from == primary && is_promised
    }
}

/// Why a log is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The site has started, and does not know its role yet.
    Starting,
    /// A promise is on its way to stable storage.
    Promising,
    /// Primary by the record, and not before it holds all that was acknowledged and has an epoch of its own.
    Preparing,
    /// Primary by the record, and may lack what the other site has; that one is not heard.
    Uncertain,
    /// Secondary, and does not know yet where its log parts from the primary's.
    Aligning,
    /// The other site is lost; the witness is being asked.
    TakingOver,
    /// A planned switch is under way.
    Switching,
    /// Neither the other site nor the witness was heard for [`crate::times::HOLD`].
    Alone,
    /// S8. The witness knows less than this site has promised.
    RolledBack,
}

impl Why {
    /// Whether requests that wait end with an error.
    #[must_use]
    pub const fn ends_requests(self) -> bool {
        match self {
            Self::Alone | Self::Uncertain | Self::RolledBack => true,
            Self::Starting
            | Self::Promising
            | Self::Preparing
            | Self::Aligning
            | Self::TakingOver
            | Self::Switching => false,
        }
    }
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read the record, linearizably; answer with [`Event::Read`].
    ReadWitness {
        /// Names the answer.
        id: AskId,
    },
    /// Put `record` in place of what has revision `expected`, or of nothing; answer with [`Event::Swapped`].
    Swap {
        /// Names the answer.
        id: AskId,
        /// What is replaced.
        expected: Option<Revision>,
        /// What is to be there.
        record: Record,
    },
    /// Send this to the other site, if there is a connection.
    Send(Message),
    /// Make this durable in place of the promise before; answer with [`Event::Promised`].
    Promise(Promise),
    /// Give the log a role, at once; answer with [`Event::Log`].
    SetRole {
        /// Counts the roles of this life.
        number: u64,
        /// The role.
        role: Role,
    },
    /// Ask the primary where this log parts from its own; answer with [`Event::Aligned`]. Asked again when that does not come.
    Align {
        /// Of the role that the log has: an answer to an earlier one does not count.
        number: u64,
        /// That of the primary: whoever leads in another one does not answer.
        epoch: Epoch,
    },
    /// Keep what lies behind `from` up to `to` as a named branch, before anything is cut.
    KeepBranch {
        /// The last operation that stays in the log.
        from: Lsn,
        /// The end of the branch.
        to: Position,
    },
    /// Keep this for `aljibe why`.
    Tell(Evidence),
}

/// What was asked of the witness, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) id: AskId,
    pub(crate) at: Monotonic,
    /// The promise of then: S8 compares with it, since an answer may be late.
    pub(crate) promised: Epoch,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lead { epoch, with_peer: true } => write!(f, "leads epoch {epoch} with the other site"),
            Self::Lead { epoch, with_peer: false } => write!(f, "leads epoch {epoch} alone"),
            Self::Follow { epoch, primary } => write!(f, "follows site {primary} in epoch {epoch}"),
            Self::Freeze { why } => write!(f, "is frozen: {why}"),
            Self::SealAndCut { to } => write!(f, "cuts its log behind {to}"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "started, and the witness has not told its role",
            Self::Promising => "a promise is being made durable",
            Self::Preparing => "primary, and needs an epoch of its own first",
            Self::Uncertain => "primary, and the other site may hold what it has lost",
            Self::Aligning => "secondary, and compares its log with the primary's",
            Self::TakingOver => "the primary is silent, and the witness is being asked",
            Self::Switching => "the role is being handed over",
            Self::Alone => "neither the other site nor the witness answers",
            Self::RolledBack => "the witness has gone back",
        })
    }
}
