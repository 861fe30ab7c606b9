//! Why there is no bill, in the API's words.

use crate::error::{ErrorCode, ServiceError};
use metering::ledger::AccountEntry;
use metering::{CardsError, InvoiceError, PeriodError, RatingError};
use std::fmt::Display;

/// An entry is not what this program writes.
pub(super) fn broken(entry: &AccountEntry, problem: &dyn Display) -> ServiceError {
    let detail = format!(
        "entry {} of an account, a {}, cannot be read: {problem}: was it written by a newer version?",
        entry.number,
        entry.kind.name()
    );
    ServiceError::new(ErrorCode::Internal, detail)
}

pub(super) fn internal(error: &dyn Display) -> ServiceError {
    ServiceError::new(ErrorCode::Internal, format!("a bill could not be made: {error}: see the daemon's log"))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err's argument")]
pub(super) fn period_error(error: PeriodError) -> ServiceError {
    ServiceError::new(ErrorCode::InvalidRequest, error.to_string())
}

/// The cards do not fit one another.
#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err's argument")]
pub(super) fn not_rated(error: CardsError) -> ServiceError {
    ServiceError::new(ErrorCode::NotRated, error.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err's argument")]
pub(super) fn rating_error(error: RatingError) -> ServiceError {
    let code = match &error {
        RatingError::Reading(_) => ErrorCode::Internal,
        RatingError::NoCard { .. } | RatingError::NoCards(_) | RatingError::NoClass { .. } | RatingError::TooMuch => {
            ErrorCode::NotRated
        }
    };
    ServiceError::new(code, error.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err's argument")]
pub(super) fn invoice_error(error: InvoiceError) -> ServiceError {
    let code = match &error {
        InvoiceError::NotOver { .. } => ErrorCode::MonthOpen,
        InvoiceError::NotRead { .. } => ErrorCode::ReadingsMissing,
        InvoiceError::NothingIssued(_) => ErrorCode::InvoiceNotFound,
        InvoiceError::NoReason | InvoiceError::BadId(_) => ErrorCode::InvalidRequest,
        InvoiceError::BadCorrection(_) | InvoiceError::OtherCurrency { .. } | InvoiceError::TooMuch => {
            ErrorCode::NotRated
        }
        InvoiceError::Unreadable(_) => ErrorCode::Internal,
    };
    ServiceError::new(code, error.to_string())
}
