//! Why a request failed, and what its sender can do about it.

use std::fmt;

/// What the caller can do; a front end turns each into its protocol's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request breaks a rule (outside the volume, too long): mend it, another try is refused too.
    InvalidRequest,
    /// The pool has no room for more data: free some or add a disk; reads, trims and deletes go on.
    NoSpace,
    /// Another holder of a newer epoch writes the volume now.
    Fenced,
    /// The volume or the daemon is closing; connect again later.
    Closing,
    /// Bytes on the disk are not what was written there; the block is lost here.
    Corrupt,
    /// The disk failed a request; another try may succeed.
    Unavailable,
    /// The disk failed to make writes durable; the volume takes no more of them until it is opened anew.
    Poisoned,
}

/// A failed request: the kind and where.
#[expect(clippy::error_impl_error, reason = "the crate's one error, named volume::error::Error by its users")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What the caller can do.
    pub kind: ErrorKind,
    /// What failed and where, for a person.
    pub detail: String,
}

impl Error {
    /// Makes an error of `kind`; `detail` is a sentence without a full stop.
    #[must_use]
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidRequest => "invalid request",
            Self::NoSpace => "no space",
            Self::Fenced => "fenced",
            Self::Closing => "closing",
            Self::Corrupt => "corrupt",
            Self::Unavailable => "unavailable",
            Self::Poisoned => "poisoned",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}

impl std::error::Error for Error {}

/// How the disk failed a request, as the driver reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskFault {
    /// The device reports an error (EIO and its like), or answered short.
    Io,
    /// The file system below has no room (ENOSPC, EDQUOT).
    NoSpace,
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "I/O error",
            Self::NoSpace => "no space left on the host's file system",
        })
    }
}

impl std::error::Error for DiskFault {}
