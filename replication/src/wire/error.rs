//! What can be wrong with bytes of the link. Each ends the connection: nothing tells where the next frame starts.

use super::frame::Kind;
use thiserror::Error;

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// No frame of this version.
    #[error("a frame of the unknown kind {kind}")]
    UnknownKind {
        /// What it says.
        kind: u16,
    },
    /// No frame of its kind is so short or so long.
    #[error("a frame {kind:?} of {body_bytes} bytes")]
    Length {
        /// Its kind.
        kind: Kind,
        /// What it says.
        body_bytes: u32,
    },
    /// What must be zero is not.
    #[error("a header has bytes where there are none")]
    Reserved,
    /// It names a group or an epoch, which its kind has not.
    #[error("a frame {kind:?} of a group or epoch")]
    OfGroup {
        /// Its kind.
        kind: Kind,
    },
    /// The body ends before what it is to hold.
    #[error("a body is too short for what it says")]
    Cut,
    /// The body goes on behind what it holds.
    #[error("a body is too long for what it says")]
    Tail,
    /// A field says what cannot be.
    #[error("a frame says of its {field} what cannot be")]
    Value {
        /// Which.
        field: &'static str,
    },
    /// A batch is longer than the receiver has said that it takes now.
    #[error("a batch of {bytes} bytes, where the credit is {credit}")]
    OverCredit {
        /// Bytes of its buffers.
        bytes: u64,
        /// What was left.
        credit: u64,
    },
}

/// What is wrong with the begin of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpeningError {
    /// Who is there does not speak this protocol.
    #[error("the other side does not speak the mirror's protocol")]
    Magic,
    /// Neither a hello nor a refusal.
    #[error("an opening of the unknown kind {kind}")]
    UnknownKind {
        /// What it says.
        kind: u16,
    },
    /// No opening is so short or so long.
    #[error("an opening of {body_bytes} bytes")]
    Length {
        /// What it says.
        body_bytes: u16,
    },
    /// A field says what cannot be.
    #[error("an opening says of its {field} what cannot be")]
    Value {
        /// Which.
        field: &'static str,
    },
}
