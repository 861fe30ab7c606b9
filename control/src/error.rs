//! What can go wrong, in the API's words: a stable code for programs, a sentence for people.

use crate::name::InvalidName;
use crate::size::InvalidSize;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// What failed. Its text form, status and meaning never change; new ones may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The text cannot name a volume.
    InvalidName,
    /// The value is no size that a volume can have.
    InvalidSize,
    /// The request's body or query is not what the route takes.
    InvalidRequest,
    /// The request's `Host` is a name that the daemon does not answer to.
    HostRefused,
    /// No such path in the API.
    RouteNotFound,
    /// No volume of that name.
    VolumeNotFound,
    /// No image of that name.
    ImageNotFound,
    /// No snapshot of that name.
    SnapshotNotFound,
    /// The volume's history does not reach to that second.
    HistoryNotFound,
    /// The path exists, but not with that method.
    MethodNotAllowed,
    /// A volume of that name is there already.
    VolumeExists,
    /// The image is not copied whole, or is being copied from another source.
    ImageImporting,
    /// The import that is meant is over: another one has begun since.
    ImportSuperseded,
    /// A snapshot of that name is there already.
    SnapshotExists,
    /// Volumes began as the snapshot and need it, or clients read it.
    SnapshotInUse,
    /// The snapshot is no earlier state of what it is compared with.
    SnapshotsUnrelated,
    /// Clients are attached to the volume.
    VolumeInUse,
    /// Data lies beyond the smaller size.
    ShrinkRefused,
    /// The volume was found damaged and is set aside.
    VolumeQuarantined,
    /// What may be needed by something that cannot be read is not deleted.
    MayBeNeeded,
    /// The volume is not mirrored.
    VolumeNotMirrored,
    /// What is asked of a mirror cannot be done now, or with this volume.
    MirrorRefused,
    /// No tenant of that name.
    TenantNotFound,
    /// A tenant of that name is there already.
    TenantExists,
    /// The tenant has volumes or images.
    TenantInUse,
    /// What the tenant used is on no invoice yet.
    TenantUnbilled,
    /// The tenant is suspended: nothing that it has is changed.
    TenantSuspended,
    /// The tenant would have more than it may.
    QuotaExceeded,
    /// The request has no valid token.
    Unauthenticated,
    /// The token's role may not do this.
    Forbidden,
    /// Requests by the token, or without a good one from the address, come too often.
    RateLimited,
    /// No token of that number.
    TokenNotFound,
    /// No operation of that id.
    OperationNotFound,
    /// The operation has ended, or what it does is decided.
    OperationNotCancellable,
    /// Another request has borne the `Idempotency-Key`.
    IdempotencyKeyReused,
    /// The request that bears the `Idempotency-Key` is being carried out: another try will be told what came of it.
    RequestInProgress,
    /// The request that bears the `Idempotency-Key` was carried out, but its answer is not kept.
    AnswerNotKept,
    /// No class of that name.
    ClassNotFound,
    /// A class of that name is there already.
    ClassExists,
    /// Volumes are of the class.
    ClassInUse,
    /// No target of that name.
    TargetNotFound,
    /// A target of that name is there already.
    TargetExists,
    /// The target has sessions.
    TargetInUse,
    /// The LUN is another volume's, or the volume has another LUN.
    LunInUse,
    /// The target has no such LUN.
    LunNotFound,
    /// Nothing is said of an initiator of that name.
    InitiatorNotFound,
    /// No rate card of that id and scope.
    RateCardNotFound,
    /// The rate card would change what is billed, or does not fit the others.
    RateCardConflict,
    /// What was used has no price, or a sum no place.
    NotRated,
    /// No invoice of that month is issued.
    InvoiceNotFound,
    /// The month is not over.
    MonthOpen,
    /// A reading of the month's end is to come.
    ReadingsMissing,
    /// Readings of that time are kept no more.
    ReadingsGone,
    /// Rated anew, the month is as it was issued.
    NothingToCorrect,
    /// No day of the time is signed yet, or it has nothing of the tenant.
    NotSigned,
    /// The request's body is longer than any route takes.
    BodyTooLarge,
    /// The request's body is not declared as JSON.
    UnsupportedMediaType,
    /// The daemon is at fault.
    Internal,
    /// It cannot be done now; another try may succeed.
    Unavailable,
    /// The daemon is stopping.
    ShuttingDown,
    /// It took longer than a request may; a change that was asked for may still be made.
    Timeout,
    /// The pool has no room.
    NoSpace,
}

/// A request that a [`crate::Service`] could not fulfil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    /// What failed.
    pub code: ErrorCode,
    /// What failed on what, and what to do about it: a sentence without a full stop.
    pub detail: String,
}

/// The body of every answer that is not a success. RFC 9457 3.1, with the members `code` and `request_id` added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI that names the kind of problem: `urn:aljibe:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What failed on what, and what to do about it.
    pub detail: String,
    /// What failed, for programs.
    #[schema(example = "volume_not_found")]
    pub code: String,
    /// The request's id, as in the `x-request-id` header and in the daemon's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: &[Self] = &[
        Self::InvalidName,
        Self::InvalidSize,
        Self::InvalidRequest,
        Self::HostRefused,
        Self::RouteNotFound,
        Self::VolumeNotFound,
        Self::ImageNotFound,
        Self::SnapshotNotFound,
        Self::HistoryNotFound,
        Self::SnapshotExists,
        Self::SnapshotInUse,
        Self::SnapshotsUnrelated,
        Self::MayBeNeeded,
        Self::MethodNotAllowed,
        Self::VolumeExists,
        Self::ImageImporting,
        Self::ImportSuperseded,
        Self::VolumeInUse,
        Self::ShrinkRefused,
        Self::VolumeQuarantined,
        Self::VolumeNotMirrored,
        Self::MirrorRefused,
        Self::TenantNotFound,
        Self::TenantExists,
        Self::TenantInUse,
        Self::TenantUnbilled,
        Self::TenantSuspended,
        Self::QuotaExceeded,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::RateLimited,
        Self::TokenNotFound,
        Self::OperationNotFound,
        Self::OperationNotCancellable,
        Self::IdempotencyKeyReused,
        Self::RequestInProgress,
        Self::AnswerNotKept,
        Self::ClassNotFound,
        Self::ClassExists,
        Self::ClassInUse,
        Self::TargetNotFound,
        Self::TargetExists,
        Self::TargetInUse,
        Self::LunInUse,
        Self::LunNotFound,
        Self::InitiatorNotFound,
        Self::RateCardNotFound,
        Self::RateCardConflict,
        Self::NotRated,
        Self::InvoiceNotFound,
        Self::MonthOpen,
        Self::ReadingsMissing,
        Self::ReadingsGone,
        Self::NothingToCorrect,
        Self::NotSigned,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::Internal,
        Self::Unavailable,
        Self::ShuttingDown,
        Self::Timeout,
        Self::NoSpace,
    ];

    /// Its name in a problem document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.words().0
    }

    /// The kind of problem in words.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.words().1
    }

    /// The HTTP status it is answered with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidName | Self::InvalidSize | Self::InvalidRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::RouteNotFound
            | Self::VolumeNotFound
            | Self::VolumeNotMirrored
            | Self::SnapshotNotFound
            | Self::HistoryNotFound
            | Self::TenantNotFound
            | Self::TokenNotFound
            | Self::OperationNotFound
            | Self::ClassNotFound
            | Self::TargetNotFound
            | Self::LunNotFound
            | Self::InitiatorNotFound
            | Self::RateCardNotFound
            | Self::InvoiceNotFound
            | Self::NotSigned
            | Self::ImageNotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::VolumeExists
            | Self::VolumeInUse
            | Self::MirrorRefused
            | Self::ImageImporting
            | Self::ImportSuperseded
            | Self::SnapshotExists
            | Self::SnapshotInUse
            | Self::SnapshotsUnrelated
            | Self::MayBeNeeded
            | Self::ShrinkRefused
            | Self::TenantExists
            | Self::TenantInUse
            | Self::TenantUnbilled
            | Self::TenantSuspended
            | Self::QuotaExceeded
            | Self::OperationNotCancellable
            | Self::IdempotencyKeyReused
            | Self::RequestInProgress
            | Self::AnswerNotKept
            | Self::ClassExists
            | Self::ClassInUse
            | Self::TargetExists
            | Self::TargetInUse
            | Self::LunInUse
            | Self::RateCardConflict
            | Self::NotRated
            | Self::MonthOpen
            | Self::ReadingsMissing
            | Self::ReadingsGone
            | Self::NothingToCorrect
            | Self::VolumeQuarantined => 409,
            Self::BodyTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::HostRefused => 421,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unavailable | Self::ShuttingDown => 503,
            Self::Timeout => 504,
            Self::NoSpace => 507,
        }
    }

    /// The code of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::InvalidName => ("invalid_name", "The name is not valid"),
            Self::InvalidSize => ("invalid_size", "The size is not valid"),
            Self::InvalidRequest => ("invalid_request", "The request is not valid"),
            Self::HostRefused => ("host_refused", "The host name is not answered to"),
            Self::RouteNotFound => ("route_not_found", "There is no such path"),
            Self::VolumeNotFound => ("volume_not_found", "There is no such volume"),
            Self::ImageNotFound => ("image_not_found", "There is no such image"),
            Self::ImageImporting => ("image_importing", "The image is not ready"),
            Self::ImportSuperseded => ("import_superseded", "Another import has begun"),
            Self::SnapshotNotFound => ("snapshot_not_found", "There is no such snapshot"),
            Self::HistoryNotFound => ("history_not_found", "The history does not reach so far"),
            Self::SnapshotExists => ("snapshot_exists", "The snapshot exists"),
            Self::SnapshotInUse => ("snapshot_in_use", "The snapshot is in use"),
            Self::SnapshotsUnrelated => ("snapshots_unrelated", "The snapshot does not come before"),
            Self::MayBeNeeded => ("may_be_needed", "It may be needed"),
            Self::MethodNotAllowed => ("method_not_allowed", "The path has no such method"),
            Self::VolumeExists => ("volume_exists", "The volume exists"),
            Self::VolumeInUse => ("volume_in_use", "The volume is in use"),
            Self::ShrinkRefused => ("shrink_refused", "Data lies beyond the new size"),
            Self::VolumeQuarantined => ("volume_quarantined", "The volume is quarantined"),
            Self::VolumeNotMirrored => ("volume_not_mirrored", "The volume is not mirrored"),
            Self::MirrorRefused => ("mirror_refused", "The mirror does not allow it"),
            Self::TenantNotFound => ("tenant_not_found", "There is no such tenant"),
            Self::TenantExists => ("tenant_exists", "The tenant exists"),
            Self::TenantInUse => ("tenant_in_use", "The tenant is not empty"),
            Self::TenantUnbilled => ("tenant_unbilled", "The tenant's use is not billed"),
            Self::TenantSuspended => ("tenant_suspended", "The tenant is suspended"),
            Self::QuotaExceeded => ("quota_exceeded", "The quota is used up"),
            Self::Unauthenticated => ("unauthenticated", "There is no valid token"),
            Self::Forbidden => ("forbidden", "The token may not do this"),
            Self::RateLimited => ("rate_limited", "The requests come too often"),
            Self::TokenNotFound => ("token_not_found", "There is no such token"),
            Self::OperationNotFound => ("operation_not_found", "There is no such operation"),
            Self::OperationNotCancellable => ("operation_not_cancellable", "The operation cannot be cancelled"),
            Self::IdempotencyKeyReused => ("idempotency_key_reused", "The key was another request's"),
            Self::RequestInProgress => ("request_in_progress", "The request is being carried out"),
            Self::AnswerNotKept => ("answer_not_kept", "The answer is not kept"),
            Self::ClassNotFound => ("class_not_found", "There is no such class"),
            Self::ClassExists => ("class_exists", "The class exists"),
            Self::ClassInUse => ("class_in_use", "The class is in use"),
            Self::TargetNotFound => ("target_not_found", "There is no such target"),
            Self::TargetExists => ("target_exists", "The target exists"),
            Self::TargetInUse => ("target_in_use", "The target is in use"),
            Self::LunInUse => ("lun_in_use", "The LUN is in use"),
            Self::LunNotFound => ("lun_not_found", "There is no such LUN"),
            Self::InitiatorNotFound => ("initiator_not_found", "Nothing is said of that initiator"),
            Self::RateCardNotFound => ("rate_card_not_found", "There is no such rate card"),
            Self::RateCardConflict => ("rate_card_conflict", "The rate card does not fit"),
            Self::NotRated => ("not_rated", "It cannot be rated"),
            Self::InvoiceNotFound => ("invoice_not_found", "There is no such invoice"),
            Self::MonthOpen => ("month_open", "The month is not over"),
            Self::ReadingsMissing => ("readings_missing", "Readings are to come"),
            Self::ReadingsGone => ("readings_gone", "Readings are kept no more"),
            Self::NothingToCorrect => ("nothing_to_correct", "There is nothing to put right"),
            Self::NotSigned => ("not_signed", "Nothing of it is signed"),
            Self::BodyTooLarge => ("body_too_large", "The request is too large"),
            Self::UnsupportedMediaType => ("unsupported_media_type", "The request is not JSON"),
            Self::Internal => ("internal", "The daemon failed"),
            Self::Unavailable => ("unavailable", "Not possible now"),
            Self::ShuttingDown => ("shutting_down", "The daemon is stopping"),
            Self::Timeout => ("timeout", "The request took too long"),
            Self::NoSpace => ("no_space", "The pool is full"),
        }
    }
}

impl ServiceError {
    /// Makes an error of `code`; `detail` is a sentence without a full stop that ends in what to do.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// No volume has that name, or none that who asks may know of: both are told by the same words.
    #[must_use]
    pub fn no_volume(name: &str) -> Self {
        let detail = format!("there is no volume {name}: list the volumes to see which there are");
        Self::new(ErrorCode::VolumeNotFound, detail)
    }

    /// The volume of that name is at one site alone.
    #[must_use]
    pub fn not_mirrored(name: &str) -> Self {
        let detail = format!("volume {name} is not mirrored: begin that by aljibe volume mirror");
        Self::new(ErrorCode::VolumeNotMirrored, detail)
    }

    /// No image has that name, or none that who asks may know of.
    #[must_use]
    pub fn no_image(name: &str) -> Self {
        let detail = format!("there is no image {name}: list the images to see which there are");
        Self::new(ErrorCode::ImageNotFound, detail)
    }

    /// No tenant has that name, or none that who asks may know of.
    #[must_use]
    pub fn no_tenant(name: &str) -> Self {
        Self::new(ErrorCode::TenantNotFound, format!("there is no tenant {name}: see which there are, or make it"))
    }

    /// No target has that name, or none that who asks may know of.
    #[must_use]
    pub fn no_target(name: &str) -> Self {
        let detail = format!("there is no target {name}: list the targets to see which there are");
        Self::new(ErrorCode::TargetNotFound, detail)
    }

    /// No token has that number, or none that who asks may know of.
    #[must_use]
    pub fn no_token(id: &str) -> Self {
        Self::new(ErrorCode::TokenNotFound, format!("there is no token {id}: list the tokens to see which there are"))
    }

    /// No operation has that id, or none that who asks may know of.
    #[must_use]
    pub fn no_operation(id: &str) -> Self {
        let detail =
            format!("there is no operation {id}: it may have ended, list the operations to see which there are");
        Self::new(ErrorCode::OperationNotFound, detail)
    }

    /// It as the body of an answer.
    #[must_use]
    pub fn into_problem(self, request_id: Option<String>) -> Problem {
        Problem {
            kind: format!("urn:aljibe:problem:{}", self.code.as_str()),
            title: self.code.title().to_owned(),
            status: self.code.status(),
            detail: self.detail,
            code: self.code.as_str().to_owned(),
            request_id,
        }
    }
}

impl From<InvalidName> for ServiceError {
    fn from(invalid: InvalidName) -> Self {
        Self::new(ErrorCode::InvalidName, invalid.to_string())
    }
}

impl From<InvalidSize> for ServiceError {
    fn from(invalid: InvalidSize) -> Self {
        Self::new(ErrorCode::InvalidSize, invalid.to_string())
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl std::error::Error for ServiceError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_a_name_of_its_own_and_an_error_status() {
        let names: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL.iter().copied() {
            assert_eq!(ErrorCode::from_name(code.as_str()), Some(code));
            assert!((400..600).contains(&code.status()));
        }
        assert_eq!(ErrorCode::from_name("nonsense"), None);
    }
}
