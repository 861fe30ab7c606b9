//! How a request over NBD fails.

use proto::nbd::Errno;
use std::fmt;
use std::time::Duration;

/// Why an NBD server did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NbdError {
    /// It answered with an error.
    Refused {
        /// What it was asked.
        command: &'static str,
        /// Where.
        offset: u64,
        /// The error's number on the wire.
        errno: u32,
    },
    /// It refused the export or the way to speak.
    Handshake(String),
    /// No connection could be made.
    Unreachable(String),
    /// The connection is lost.
    Lost(String),
    /// It says nothing, or too little, while it owes an answer.
    Silent {
        /// What it was asked.
        command: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// What it sent is no answer.
    Protocol(String),
}

impl NbdError {
    /// Whether the server has no room for what it was to write.
    pub(crate) fn is_no_space(&self) -> bool {
        matches!(self, Self::Refused { errno, .. } if *errno == Errno::NoSpc.to_wire())
    }

    /// Whether the server itself says no, so that another try would be refused too.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { errno, .. } => *errno != Errno::Shutdown.to_wire(),
            Self::Protocol(_) => true,
            Self::Handshake(_) | Self::Unreachable(_) | Self::Lost(_) | Self::Silent { .. } => false,
        }
    }
}

impl fmt::Display for NbdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { command, offset, errno } => {
                let number = i32::try_from(*errno).unwrap_or(i32::MAX);
                // The protocol's numbers are Linux's.
                write!(f, "cannot {command} at byte {offset}: {}", std::io::Error::from_raw_os_error(number))
            }
            Self::Handshake(reason) => f.write_str(reason),
            Self::Unreachable(reason) => write!(f, "there is no connection: {reason}"),
            Self::Silent { command, waited } => {
                write!(f, "the server does not answer within {waited:?} when asked to {command}")?;
                f.write_str(": is it overloaded or stuck? --timeout gives it longer")
            }
            Self::Lost(reason) => write!(f, "the connection is lost: {reason}"),
            Self::Protocol(reason) => write!(f, "the server breaks the protocol: {reason}"),
        }
    }
}

impl std::error::Error for NbdError {}
