//! What the witness has of all groups, for operators.

use replication::{RecordError, Seen};
use thiserror::Error;
use units::GroupId;

/// A group that the witness has something of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The group.
    pub group: GroupId,
    /// Its record and revision; or why what is there is no record.
    pub seen: Result<Seen, RecordError>,
}

/// Why there is no list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ListError {
    /// The witness did not answer.
    #[error("the witness does not answer: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// There is more than is gathered.
    #[error("the witness has more than {most} groups, which is more than is listed")]
    TooMany {
        /// The most that is.
        most: usize,
    },
}
