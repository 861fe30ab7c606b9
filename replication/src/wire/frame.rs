//! The frames: what they are, and the bounds of their bodies.

use super::enrolment::{ENROLMENT_BYTES_MAX, ENROLMENT_BYTES_MIN, Enrolment};
use super::passing::{ANSWER_BYTES, ASK_BYTES, PASSED_BUFFERS_MAX, answer_bytes};
use super::say::{SAY_BYTES_MAX, SAY_BYTES_MIN};
use super::text::{TEXT_BYTES_MAX, Text};
use crate::message::Message;
use crate::passing::{Answer, Ask};
use std::ops::RangeInclusive;
use units::{BLOCK_LEN, Epoch, GroupId, Lsn, SegmentId};
use volume::buffer::{Buffer, total_len};
use volume::engine::PeerLog;
use volume::io::FellOut;
use volume::parting::{Parting, Stretch};

/// Length of a frame's header.
pub const HEADER_BYTES: usize = 24;

/// Most bytes that the buffers of a frame hold together: the longest request, and the blocks of a batch's header.
pub const BATCH_BYTES_MAX: usize = 33 << 20;

/// Most buffers of a batch: each holds a block at least.
pub const BUFFERS_MAX: usize = BATCH_BYTES_MAX / BLOCK_LEN;

/// Most segments of its log that a site tells of.
pub const STRETCHES_MAX: usize = 1024;

/// Bytes of what a log has in a segment: the segment, the first and the last operation.
pub(super) const STRETCH_BYTES: usize = 24;

/// The longest body of a frame without buffers: all segments that a site tells of.
pub(super) const SMALL_BYTES_MAX: usize = 8 + STRETCH_BYTES * STRETCHES_MAX;

const _: () = assert!(SMALL_BYTES_MAX >= SAY_BYTES_MAX && SMALL_BYTES_MAX >= 2 + TEXT_BYTES_MAX);

/// What the daemons of two sites send each other.
#[derive(Debug)]
pub enum Frame {
    /// What the role machine says. The header bears the message's epoch.
    Say {
        /// Of which group.
        group: GroupId,
        /// What it says.
        message: Box<Message>,
    },
    /// A secondary asks where its log parts from the primary's.
    Align {
        /// Of which group.
        group: GroupId,
        /// The epoch in which the other one leads.
        epoch: Epoch,
        /// Comes back in the answer.
        number: u64,
        /// What its log has in its newest segments, newest first: [`STRETCHES_MAX`] at most.
        stretches: Vec<Stretch>,
    },
    /// There.
    Aligned {
        /// Of which group.
        group: GroupId,
        /// The epoch in which the sender leads.
        epoch: Epoch,
        /// Of the question.
        number: u64,
        /// Where.
        parting: Parting,
    },
    /// A secondary, of which nothing is being appended, asks for the log behind the end of its own.
    Want {
        /// Of which group.
        group: GroupId,
        /// The epoch that it follows.
        epoch: Epoch,
        /// Greater each time, in all lives of the site: the newest counts.
        number: u64,
        /// The segment in which its log ends; none where it has none.
        segment: Option<SegmentId>,
        /// Its last operation.
        lsn: Lsn,
    },
    /// The batches that come now are what was asked for by the newest [`Frame::Want`]; what came before is not.
    Begins {
        /// Of which group.
        group: GroupId,
        /// The epoch in which the sender leads.
        epoch: Epoch,
        /// Of the question.
        number: u64,
    },
    /// A batch of the primary's log, as it is.
    Batch {
        /// Of which group.
        group: GroupId,
        /// The epoch under which it is sent. The batch itself bears the one under which it was written.
        epoch: Epoch,
        /// Its header and its payload: whole blocks each, [`BATCH_BYTES_MAX`] together.
        buffers: Vec<Buffer>,
    },
    /// What counts, and what of that is on stable storage at both sites.
    Committed {
        /// Of which group.
        group: GroupId,
        /// The primary's.
        epoch: Epoch,
        /// Up to `appended`, which is in `segment`.
        log: PeerLog,
    },
    /// The primary waits until this is durable.
    MakeDurable {
        /// Of which group.
        group: GroupId,
        /// The primary's.
        epoch: Epoch,
        /// Everything up to here.
        lsn: Lsn,
    },
    /// How far the secondary's log is.
    Has {
        /// Of which group.
        group: GroupId,
        /// The epoch that it follows.
        epoch: Epoch,
        /// How far. `durable <= appended`.
        log: PeerLog,
    },
    /// The secondary appends nothing any more.
    FellOut {
        /// Of which group.
        group: GroupId,
        /// The epoch that it followed.
        epoch: Epoch,
        /// Why.
        why: FellOut,
    },
    /// The other site is to hold a copy of a volume, whose group this is.
    Enrol {
        /// The group.
        group: GroupId,
        /// Comes back in the answer.
        number: u64,
        /// What is to be known of the volume.
        volume: Box<Enrolment>,
    },
    /// It does, or will not.
    Enrolled {
        /// The group.
        group: GroupId,
        /// Of the question.
        number: u64,
        /// Why not, when it will not.
        result: Result<(), Text>,
    },
    /// What a client of the sender wants of a volume that the other site leads.
    Ask {
        /// Of which group.
        group: GroupId,
        /// The epoch in which the other one leads, as the sender knows.
        epoch: Epoch,
        /// What.
        ask: Box<Ask>,
    },
    /// What became of that.
    Answer {
        /// Of which group.
        group: GroupId,
        /// The epoch that the sender has promised.
        epoch: Epoch,
        /// What.
        answer: Box<Answer>,
    },
    /// So many more bytes of buffers may be sent on this connection.
    Credit {
        /// Bytes; not zero.
        bytes: u64,
    },
    /// Are you there?
    Ping {
        /// Comes back in the answer.
        number: u64,
    },
    /// I am.
    Pong {
        /// Of the question.
        number: u64,
    },
    /// The last frame of a connection that is closed on purpose.
    Bye(Bye),
}

/// Why a side closes the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bye {
    /// For programs.
    pub code: ByeCode,
    /// For people.
    pub text: Text,
}

/// Why a side closes the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByeCode {
    /// The daemon is being stopped, or the mirror was switched off.
    Closing,
    /// What was received is against the protocol.
    Protocol,
    /// Nothing was heard for too long.
    Silence,
    /// More small frames waited than are kept.
    Backlog,
    /// Another life of the link has begun.
    Replaced,
    /// Another connection of the link was lost.
    Lost,
}

impl ByeCode {
    const ALL: [Self; 6] = [Self::Closing, Self::Protocol, Self::Silence, Self::Backlog, Self::Replaced, Self::Lost];

    /// The code on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::Closing => 1,
            Self::Protocol => 2,
            Self::Silence => 3,
            Self::Backlog => 4,
            Self::Replaced => 5,
            Self::Lost => 6,
        }
    }

    pub(super) fn from_wire(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.to_wire() == code)
    }
}

/// Which frame. The numbers are those on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Kind {
    /// [`Frame::Say`].
    Say = 1,
    /// [`Frame::Want`].
    Want = 2,
    /// [`Frame::Batch`].
    Batch = 3,
    /// [`Frame::Committed`].
    Committed = 4,
    /// [`Frame::MakeDurable`].
    MakeDurable = 5,
    /// [`Frame::Has`].
    Has = 6,
    /// [`Frame::FellOut`].
    FellOut = 7,
    /// [`Frame::Credit`].
    Credit = 8,
    /// [`Frame::Ping`].
    Ping = 9,
    /// [`Frame::Pong`].
    Pong = 10,
    /// [`Frame::Bye`].
    Bye = 11,
    /// [`Frame::Align`].
    Align = 12,
    /// [`Frame::Aligned`].
    Aligned = 13,
    /// [`Frame::Begins`].
    Begins = 14,
    /// [`Frame::Enrol`].
    Enrol = 15,
    /// [`Frame::Enrolled`].
    Enrolled = 16,
    /// [`Frame::Ask`].
    Ask = 17,
    /// [`Frame::Answer`].
    Answer = 18,
}

impl Kind {
    const ALL: [Self; 18] = [
        Self::Ask,
        Self::Answer,
        Self::Enrol,
        Self::Enrolled,
        Self::Align,
        Self::Aligned,
        Self::Begins,
        Self::Say,
        Self::Want,
        Self::Batch,
        Self::Committed,
        Self::MakeDurable,
        Self::Has,
        Self::FellOut,
        Self::Credit,
        Self::Ping,
        Self::Pong,
        Self::Bye,
    ];

    pub(super) fn from_wire(kind: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u16 == kind)
    }

    /// Whether it is of a group; the others are of a connection.
    #[must_use]
    pub const fn is_of_group(self) -> bool {
        match self {
            Self::Say
            | Self::Align
            | Self::Aligned
            | Self::Want
            | Self::Begins
            | Self::Batch
            | Self::Committed
            | Self::MakeDurable
            | Self::Has
            | Self::FellOut
            | Self::Enrol
            | Self::Enrolled
            | Self::Ask
            | Self::Answer => true,
            Self::Credit | Self::Ping | Self::Pong | Self::Bye => false,
        }
    }

    /// Whether buffers follow its body.
    pub(super) const fn has_buffers(self) -> bool {
        matches!(self, Self::Batch | Self::Ask | Self::Answer)
    }

    /// Whether it is of an epoch.
    pub(super) const fn is_of_epoch(self) -> bool {
        self.is_of_group() && !matches!(self, Self::Enrol | Self::Enrolled)
    }

    /// Bytes that a body has.
    pub(super) const fn body_bytes(self) -> RangeInclusive<usize> {
        match self {
            Self::Say => SAY_BYTES_MIN..=SAY_BYTES_MAX,
            Self::Align => 8..=SMALL_BYTES_MAX,
            Self::Aligned => 17..=17,
            Self::Batch => 8 + BLOCK_LEN..=4 + 4 * BUFFERS_MAX + BATCH_BYTES_MAX,
            Self::Ask => ASK_BYTES + 4..=ASK_BYTES + 4 + 4 * PASSED_BUFFERS_MAX + BATCH_BYTES_MAX,
            Self::Answer => ANSWER_BYTES + 4..=ANSWER_BYTES + 4 + 4 * PASSED_BUFFERS_MAX + BATCH_BYTES_MAX,
            Self::Begins | Self::MakeDurable | Self::Credit | Self::Ping | Self::Pong => 8..=8,
            Self::Want | Self::Committed | Self::Has => 24..=24,
            Self::FellOut => 1..=1,
            Self::Enrol => ENROLMENT_BYTES_MIN..=ENROLMENT_BYTES_MAX,
            Self::Enrolled => 9..=9 + TEXT_BYTES_MAX,
            Self::Bye => 2..=2 + TEXT_BYTES_MAX,
        }
    }
}

impl Frame {
    /// Which one it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Say { .. } => Kind::Say,
            Self::Align { .. } => Kind::Align,
            Self::Aligned { .. } => Kind::Aligned,
            Self::Want { .. } => Kind::Want,
            Self::Begins { .. } => Kind::Begins,
            Self::Batch { .. } => Kind::Batch,
            Self::Committed { .. } => Kind::Committed,
            Self::MakeDurable { .. } => Kind::MakeDurable,
            Self::Has { .. } => Kind::Has,
            Self::FellOut { .. } => Kind::FellOut,
            Self::Enrol { .. } => Kind::Enrol,
            Self::Enrolled { .. } => Kind::Enrolled,
            Self::Ask { .. } => Kind::Ask,
            Self::Answer { .. } => Kind::Answer,
            Self::Credit { .. } => Kind::Credit,
            Self::Ping { .. } => Kind::Ping,
            Self::Pong { .. } => Kind::Pong,
            Self::Bye(_) => Kind::Bye,
        }
    }

    /// Its group; `None` where it is of the connection alone.
    #[must_use]
    pub const fn group(&self) -> Option<GroupId> {
        match self {
            Self::Say { group, .. }
            | Self::Align { group, .. }
            | Self::Aligned { group, .. }
            | Self::Want { group, .. }
            | Self::Begins { group, .. }
            | Self::Batch { group, .. }
            | Self::Committed { group, .. }
            | Self::MakeDurable { group, .. }
            | Self::Has { group, .. }
            | Self::FellOut { group, .. }
            | Self::Enrol { group, .. }
            | Self::Enrolled { group, .. }
            | Self::Ask { group, .. }
            | Self::Answer { group, .. } => Some(*group),
            Self::Credit { .. } | Self::Ping { .. } | Self::Pong { .. } | Self::Bye(_) => None,
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        match self {
            Self::Say { message, .. } => message.epoch,
            Self::Align { epoch, .. }
            | Self::Aligned { epoch, .. }
            | Self::Want { epoch, .. }
            | Self::Begins { epoch, .. }
            | Self::Batch { epoch, .. }
            | Self::Committed { epoch, .. }
            | Self::MakeDurable { epoch, .. }
            | Self::Has { epoch, .. }
            | Self::FellOut { epoch, .. }
            | Self::Ask { epoch, .. }
            | Self::Answer { epoch, .. } => *epoch,
            Self::Enrol { .. }
            | Self::Enrolled { .. }
            | Self::Credit { .. }
            | Self::Ping { .. }
            | Self::Pong { .. }
            | Self::Bye(_) => Epoch(0),
        }
    }

    /// Bytes of buffers that it carries, which credit is needed for.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        match self {
            Self::Batch { buffers, .. } => total_len(buffers),
            Self::Ask { ask, .. } => total_len(&ask.payload),
            Self::Answer { answer, .. } => answer_bytes(answer),
            Self::Say { .. }
            | Self::Align { .. }
            | Self::Aligned { .. }
            | Self::Want { .. }
            | Self::Begins { .. }
            | Self::Committed { .. }
            | Self::MakeDurable { .. }
            | Self::Has { .. }
            | Self::FellOut { .. }
            | Self::Enrol { .. }
            | Self::Enrolled { .. }
            | Self::Credit { .. }
            | Self::Ping { .. }
            | Self::Pong { .. }
            | Self::Bye(_) => 0,
        }
    }
}

/// Every reason to fall out.
pub(super) const FELL_OUTS: [FellOut; 7] = [
    FellOut::BadBatch,
    FellOut::NotNext,
    FellOut::Disk,
    FellOut::NoSlot,
    FellOut::Shared,
    FellOut::TooMuch,
    FellOut::NotAtRest,
];

pub(super) const fn fell_out_code(why: FellOut) -> u8 {
    match why {
        FellOut::BadBatch => 1,
        FellOut::NotNext => 2,
        FellOut::Disk => 3,
        FellOut::NoSlot => 4,
        FellOut::Shared => 5,
        FellOut::TooMuch => 6,
        FellOut::NotAtRest => 7,
    }
}
