//! iSCSI, target side: framing, the login, what requests mean for a session's order, replies.
//!
//! Spec: RFC 7143, error recovery level 0. A connection is a [`Login`] until it yields [`Admitted`]; from there on
//! [`decode_header`] and [`decode`] read its requests, the session's [`Window`] puts them in order, a write's data goes
//! through a [`Transfer`], and [`reply`](scsi_response) functions make headers. SCSI is next door, in `scsi`.

mod chap;
pub mod constants;
mod frame;
mod login;
mod parameters;
mod reply;
mod request;
mod send_targets;
mod text;
mod transfer;
mod window;

pub use chap::{CHALLENGE_BYTES, ChapSecrets};
pub use frame::{FrameError, Framing, Head, RunningDigest, decode_header, digest, encode_header, encode_pdu, padded};
pub use login::{
    Admitted, Config, Door, Entry, LOGIN_DATA_BYTES_MAX, LOGIN_REQUESTS_MAX, Login, LoginFailure, SessionKind, Step,
};
pub use parameters::{Parameters, TARGET_DATA_BYTES_MAX};
pub use reply::{
    AsyncMessage, DataIn, LoginResponse, LoginStatus, NopIn, Numbers, R2t, Residual, ScsiResponse, TextResponse,
    async_message, data_in, login_response, logout_response, nop_in, r2t, reject, scsi_response, task_response,
    text_response,
};
pub use request::{
    Attribute, DataOut, LoginRequest, LogoutRequest, NopOut, RejectReason, Request, ScsiCommand, TaskManagement,
    TextRequest, decode,
};
pub use send_targets::{LongText, TargetListing, TargetsWanted, TextQuery};
pub use text::{BINARY_BYTES_MAX, GatheredText, KEY_BYTES_MAX, PAIRS_MAX, TEXT_BYTES_MAX, TextError};
pub use transfer::{Progress, R2tWanted, Transfer, TransferError, TransferLimits};
pub use window::{Placed, WINDOW_SIZE_MAX, Window};
