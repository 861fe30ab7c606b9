//! Tasks: what comes to a unit, and how it ends.

use super::SessionKey;
use proto::iscsi::Attribute;
use proto::scsi::{Command, Sense, Status};
use volume::buffer::{Buffer, BufferPool, total_len};
use volume::error::ErrorKind;
use volume::request::{Lent, Payload};

/// A command that is to be carried out.
#[derive(Debug)]
pub(crate) struct UnitTask {
    pub(crate) session: SessionKey,
    /// The session's name for it: the initiator task tag, or one of the session's own.
    pub(crate) tag: u64,
    pub(crate) attribute: Attribute,
    /// What it asks for; or why it asks for nothing.
    pub(crate) command: Result<Command, Sense>,
    /// What the initiator has sent with it.
    pub(crate) payload: Payload,
    /// What it has said that it will move.
    pub(crate) expected_bytes: u64,
    /// Of a step of a copy, what another unit has lent for it.
    pub(crate) lent: Option<Box<Lent>>,
}

/// How a task ends.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Its initiator is told nothing.
    Aborted,
    Ended {
        status: Status,
        /// Encoded; empty without.
        sense: Vec<u8>,
        data: DataIn,
    },
}

/// What a command returns.
#[derive(Debug)]
pub(crate) enum DataIn {
    None,
    Bytes(Vec<u8>),
    /// `buffer[skip..skip + len]`.
    Buffer {
        buffer: Buffer,
        skip: usize,
        len: usize,
    },
    /// What the unit lends to another one, for a copy that its session makes.
    Lent(Box<Lent>),
}

/// Tasks to be aborted, and who is told when they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abort {
    pub(crate) session: SessionKey,
    /// Comes back when none of them can have an effect any more.
    pub(crate) tag: u64,
    pub(crate) scope: AbortScope,
}

/// Which tasks. SAM-5 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AbortScope {
    /// The session's one of that tag.
    Task(u64),
    /// All of the session.
    Session,
    /// All of every session: CLEAR TASK SET.
    Set,
    /// All, and the unit's state with them.
    Reset,
    /// The same, and the sessions of the same target end.
    ColdReset,
}

impl UnitTask {
    /// Bytes that the initiator has sent with it.
    pub(crate) fn payload_bytes(&self) -> u64 {
        total_len(&self.payload)
    }
}

impl Outcome {
    pub(crate) const fn good() -> Self {
        Self::with_data(DataIn::None)
    }

    pub(crate) const fn with_data(data: DataIn) -> Self {
        Self::Ended { status: Status::Good, sense: Vec::new(), data }
    }

    /// Parameter data, of which the initiator takes so many bytes.
    pub(crate) fn parameters(mut bytes: Vec<u8>, allocation: impl TryInto<usize>) -> Self {
        bytes.truncate(allocation.try_into().unwrap_or(usize::MAX));
        Self::with_data(DataIn::Bytes(bytes))
    }

    pub(crate) const fn status(status: Status) -> Self {
        Self::Ended { status, sense: Vec::new(), data: DataIn::None }
    }

    /// An error that the initiator is to look at, encoded.
    pub(crate) const fn checked(sense: Vec<u8>) -> Self {
        Self::Ended { status: Status::CheckCondition, sense, data: DataIn::None }
    }

    /// The same in the fixed format, of whoever does not know which one the initiator has asked the unit for.
    pub(crate) fn fixed(sense: Sense) -> Self {
        Self::checked(sense.encode(false))
    }

    /// Gives its buffer back, of which nobody has use.
    pub(crate) fn discard(self, buffers: &mut BufferPool) {
        if let Self::Ended { data: DataIn::Buffer { buffer, .. }, .. } = self {
            buffers.put(buffer);
        }
    }
}

/// What an initiator is told of an error of the engine; `None` for the status BUSY, after which it tries again.
pub(crate) const fn sense_of(kind: ErrorKind) -> Option<Sense> {
    match kind {
        ErrorKind::InvalidRequest => Some(Sense::LBA_OUT_OF_RANGE),
        // What hypervisors pause a machine on, and go on when there is space again. SBC-3 4.7.3.6.
        ErrorKind::NoSpace => Some(Sense::SPACE_ALLOCATION_FAILED),
        ErrorKind::Fenced => Some(Sense::NOT_READY_CAUSE),
        ErrorKind::Closing => None,
        ErrorKind::Corrupt => Some(Sense::UNRECOVERED_READ),
        ErrorKind::Unavailable => Some(Sense::INTERNAL_FAILURE),
        ErrorKind::Poisoned => Some(Sense::WRITE_ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_its_sense() {
        let pairs = [
            (ErrorKind::InvalidRequest, Some((5, 0x21, 0x00))),
            (ErrorKind::NoSpace, Some((7, 0x27, 0x07))),
            (ErrorKind::Fenced, Some((2, 0x04, 0x00))),
            (ErrorKind::Closing, None),
            (ErrorKind::Corrupt, Some((3, 0x11, 0x00))),
            (ErrorKind::Unavailable, Some((4, 0x44, 0x00))),
            (ErrorKind::Poisoned, Some((3, 0x0c, 0x00))),
        ];
        for (kind, expected) in pairs {
            let told = sense_of(kind).map(|sense| (sense.key as u8, sense.asc, sense.ascq));
            assert_eq!(told, expected, "{kind}");
        }
    }
}
