//! How a command fails: an exit code for scripts, a stable code and a sentence for both.

use control::{ErrorCode, Problem};
use serde::Serialize;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// What a command's exit code says. The numbers never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It failed for a reason that has no code of its own.
    Failure = 1,
    /// The command line, configuration or a value in them is wrong.
    Usage = 2,
    /// What it names is not there.
    NotFound = 3,
    /// It is there already, or in use.
    Conflict = 4,
    /// No daemon answers.
    Unreachable = 5,
    /// The pool or its file system is full.
    NoSpace = 6,
    /// Damage was found.
    Damage = 7,
    /// Not possible now; try again.
    TryLater = 8,
    /// No valid token, or one that may not do it.
    NotAllowed = 9,
}

/// The exit codes as `aljibe help` shows them.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong command line, configuration or value
  3  what it names is not there
  4  conflict: it exists, is in use, or holds data
  5  the daemon does not answer
  6  no space
  7  damage found
  8  not possible now, try again
  9  no valid token, or one that may not do this";

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    /// What scripts see.
    #[serde(serialize_with = "as_number", rename = "exit_code")]
    pub(crate) exit: Exit,
    /// What failed, for programs.
    pub(crate) code: String,
    /// What failed on what, and what to do about it.
    pub(crate) detail: String,
    /// The API request's id, to be found in the daemon's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, code: &str, detail: impl Into<String>) -> Self {
        Self { exit, code: code.to_owned(), detail: detail.into(), request_id: None }
    }

    /// A wrong value on the command line or in the configuration.
    pub(crate) fn usage(detail: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", detail)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = ErrorCode::from_name(&problem.code).map_or_else(|| exit_of_status(problem.status), exit_of);
        Self { exit, code: problem.code, detail: problem.detail, request_id: problem.request_id }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let is_full = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded));
        let (exit, code) = if is_full { (Exit::NoSpace, "no_space") } else { (Exit::Failure, "failed") };
        Self::new(exit, code, format!("{error:#}"))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(number_of(exit))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Failure {}

const fn number_of(exit: Exit) -> u8 {
    exit as u8
}

const fn exit_of(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::InvalidName | ErrorCode::InvalidSize | ErrorCode::InvalidRequest => Exit::Usage,
        ErrorCode::VolumeNotFound
        | ErrorCode::VolumeNotMirrored
        | ErrorCode::SnapshotNotFound
        | ErrorCode::HistoryNotFound
        | ErrorCode::TenantNotFound
        | ErrorCode::TokenNotFound
        | ErrorCode::OperationNotFound
        | ErrorCode::ClassNotFound
        | ErrorCode::TargetNotFound
        | ErrorCode::LunNotFound
        | ErrorCode::InitiatorNotFound
        | ErrorCode::RateCardNotFound
        | ErrorCode::InvoiceNotFound
        | ErrorCode::NotSigned
        | ErrorCode::ImageNotFound => Exit::NotFound,
        ErrorCode::VolumeExists
        | ErrorCode::MirrorRefused
        | ErrorCode::VolumeInUse
        | ErrorCode::SnapshotExists
        | ErrorCode::SnapshotInUse
        | ErrorCode::SnapshotsUnrelated
        | ErrorCode::ImageImporting
        | ErrorCode::ImportSuperseded
        | ErrorCode::TenantExists
        | ErrorCode::TenantInUse
        | ErrorCode::TenantUnbilled
        | ErrorCode::TenantSuspended
        | ErrorCode::QuotaExceeded
        | ErrorCode::OperationNotCancellable
        | ErrorCode::IdempotencyKeyReused
        | ErrorCode::AnswerNotKept
        | ErrorCode::ClassExists
        | ErrorCode::ClassInUse
        | ErrorCode::TargetExists
        | ErrorCode::TargetInUse
        | ErrorCode::LunInUse
        | ErrorCode::RateCardConflict
        | ErrorCode::NotRated
        | ErrorCode::NothingToCorrect
        | ErrorCode::ShrinkRefused => Exit::Conflict,
        ErrorCode::VolumeQuarantined | ErrorCode::MayBeNeeded => Exit::Damage,
        ErrorCode::NoSpace => Exit::NoSpace,
        ErrorCode::Unauthenticated | ErrorCode::Forbidden => Exit::NotAllowed,
        ErrorCode::Unavailable
        | ErrorCode::ShuttingDown
        | ErrorCode::Timeout
        | ErrorCode::RequestInProgress
        | ErrorCode::MonthOpen
        | ErrorCode::ReadingsMissing
        | ErrorCode::ReadingsGone
        | ErrorCode::RateLimited => Exit::TryLater,
        ErrorCode::HostRefused
        | ErrorCode::RouteNotFound
        | ErrorCode::MethodNotAllowed
        | ErrorCode::BodyTooLarge
        | ErrorCode::UnsupportedMediaType
        | ErrorCode::Internal => Exit::Failure,
    }
}

/// For a code that a newer daemon knows and this program does not.
const fn exit_of_status(status: u16) -> Exit {
    match status {
        400 | 422 => Exit::Usage,
        401 | 403 => Exit::NotAllowed,
        404 => Exit::NotFound,
        409 => Exit::Conflict,
        503 | 504 => Exit::TryLater,
        507 => Exit::NoSpace,
        _ => Exit::Failure,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn as_number<S: serde::Serializer>(exit: &Exit, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(number_of(*exit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_system_is_told_wherever_it_is_met() {
        let full = anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull)).context("cannot listen");
        assert_eq!(Failure::from(full).exit, Exit::NoSpace);
        assert_eq!(Failure::from(anyhow::anyhow!("something else")).exit, Exit::Failure);
    }

    #[test]
    fn every_api_code_has_the_exit_that_help_promises() {
        let expected = |code| match code {
            ErrorCode::VolumeNotFound
            | ErrorCode::VolumeNotMirrored
            | ErrorCode::SnapshotNotFound
            | ErrorCode::HistoryNotFound
            | ErrorCode::TenantNotFound
            | ErrorCode::TokenNotFound
            | ErrorCode::OperationNotFound
            | ErrorCode::ClassNotFound
            | ErrorCode::TargetNotFound
            | ErrorCode::LunNotFound
            | ErrorCode::InitiatorNotFound
            | ErrorCode::RateCardNotFound
            | ErrorCode::InvoiceNotFound
            | ErrorCode::NotSigned
            | ErrorCode::ImageNotFound => 3,
            ErrorCode::VolumeExists
            | ErrorCode::MirrorRefused
            | ErrorCode::VolumeInUse
            | ErrorCode::SnapshotExists
            | ErrorCode::SnapshotInUse
            | ErrorCode::SnapshotsUnrelated
            | ErrorCode::ImageImporting
            | ErrorCode::ImportSuperseded
            | ErrorCode::TenantExists
            | ErrorCode::TenantInUse
            | ErrorCode::TenantUnbilled
            | ErrorCode::TenantSuspended
            | ErrorCode::QuotaExceeded
            | ErrorCode::ClassExists
            | ErrorCode::ClassInUse
            | ErrorCode::TargetExists
            | ErrorCode::TargetInUse
            | ErrorCode::LunInUse
            | ErrorCode::RateCardConflict
            | ErrorCode::NotRated
            | ErrorCode::NothingToCorrect
            | ErrorCode::OperationNotCancellable
            | ErrorCode::IdempotencyKeyReused
            | ErrorCode::AnswerNotKept
            | ErrorCode::ShrinkRefused => 4,
            ErrorCode::NoSpace => 6,
            ErrorCode::Unauthenticated | ErrorCode::Forbidden => 9,
            ErrorCode::VolumeQuarantined | ErrorCode::MayBeNeeded => 7,
            ErrorCode::Unavailable
            | ErrorCode::ShuttingDown
            | ErrorCode::Timeout
            | ErrorCode::MonthOpen
            | ErrorCode::ReadingsMissing
            | ErrorCode::ReadingsGone
            | ErrorCode::RequestInProgress
            | ErrorCode::RateLimited => 8,
            ErrorCode::InvalidName | ErrorCode::InvalidSize | ErrorCode::InvalidRequest => 2,
            ErrorCode::HostRefused
            | ErrorCode::RouteNotFound
            | ErrorCode::MethodNotAllowed
            | ErrorCode::BodyTooLarge
            | ErrorCode::UnsupportedMediaType
            | ErrorCode::Internal => 1,
        };
        for code in ErrorCode::ALL.iter().copied() {
            assert_eq!(number_of(exit_of(code)), expected(code), "{code:?}");
        }
        for number in 0..=9 {
            assert!(EXIT_CODES_HELP.contains(&format!("\n  {number}  ")));
        }
    }

    #[test]
    fn a_code_of_a_newer_daemon_exits_by_its_status() {
        let problem = control::ServiceError::new(ErrorCode::VolumeInUse, "x").into_problem(None);
        let unknown = Problem { code: "volume_mirrored".into(), ..problem };
        assert_eq!(Failure::from(unknown).exit, Exit::Conflict);
    }
}
