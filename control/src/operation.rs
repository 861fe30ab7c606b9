//! What the API shows of jobs that take long. Members are only ever added within v1.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A job that takes long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// What it is called, such as `scrub-1795490107000`, `erase-17` or `import-23`.
    pub id: String,
    /// What is done.
    pub kind: OperationKind,
    /// What it is done to: a volume or an image by name, or the pool.
    pub target: String,
    /// The tenant whose that is; absent where it is the pool, or the tenant is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Whether it is under way.
    pub state: OperationState,
    /// What is left to be done.
    pub left: u64,
    /// What there is to be done in all; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// What both count: `bytes` or `slots`.
    #[schema(example = "bytes")]
    pub unit: String,
    /// Whether it can be cancelled.
    pub is_cancellable: bool,
    /// When it began. RFC 3339. Absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub begun_at: Option<Timestamp>,
    /// When it ended. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Reads everything in the pool against its check data. The last one stays listed.
    Scrub,
    /// Gives back what a deleted volume held.
    Erase,
    /// Has an image filled by who copies it.
    Import,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Under way, or to be gone on with.
    Running,
    /// Told to end.
    Cancelling,
    /// Ended before its end.
    Cancelled,
    /// Done.
    Done,
}

/// Operations, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationList {
    /// In that order.
    pub operations: Vec<Operation>,
    /// What gives the next part, as `?cursor=`; absent in the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl OperationState {
    /// Its name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
        }
    }
}

impl OperationKind {
    /// Its name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scrub => "scrub",
            Self::Erase => "erase",
            Self::Import => "import",
        }
    }
}
