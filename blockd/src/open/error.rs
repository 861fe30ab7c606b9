//! Why a pool is not served.

use crate::shard::StartError;
use std::io;
use std::path::PathBuf;
use volume::error::DiskFault;

/// A pool cannot be made, opened or served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refuses something.
    #[error("cannot {doing} {}", path.display())]
    System {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A setting cannot be.
    #[error("{0}")]
    Setting(String),
    /// Another process has the pool open.
    #[error("pool {} is in use by another process: stop it first", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// There is no pool.
    #[error("there is no pool {}", path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// The pool does not fit on its file system or device.
    #[error("{0}")]
    NoSpace(String),
    /// What is there is no whole pool.
    #[error("{0}")]
    Damaged(String),
    /// The index is not that of the pool as it is now, or cannot be read; nothing is lost.
    #[error("the index {} is of no use: {reason}", path.display())]
    Index {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A shard cannot begin.
    #[error(transparent)]
    Shard(#[from] StartError),
    /// The pool failed while it was being opened.
    #[error("the pool failed while it was being opened: {0}")]
    Disk(DiskFault),
}

impl OpenError {
    /// A refusal by the system, to be used with `map_err`.
    pub(crate) fn system(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::System { doing, path, source }
    }
}
