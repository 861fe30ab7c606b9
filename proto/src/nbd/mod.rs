//! NBD, server side: the handshake as a state machine, requests judged, replies encoded.
//!
//! Spec: NBD proto.md, and its `extension-ext-header` branch for extended headers. A connection is a [`Handshake`] until
//! it yields [`Negotiated`]; from there on its [`Session`] decodes and judges requests, and its [`ReplyStyle`] makes
//! replies. Left out: oldstyle, `NBD_CMD_RESIZE`, and the filter payload of block status (never advertised).

pub mod client;
pub mod constants;
mod errno;
mod export;
mod handshake;
mod meta_context;
mod option;
mod reply;
mod request;
mod session;

pub use errno::Errno;
pub use export::{BlockSizes, Export, FastZero, TransmissionFlags};
pub use handshake::{CloseReason, Handshake, Negotiated, Purpose, Refusal, Step, TlsPolicy, limit};
pub use meta_context::MetaContext;
pub use reply::{
    ErrorReply, REPLY_HEADER_BYTES_MAX, ReplyHeader, ReplyStyle, ReplyTo, STATUS_DESCRIPTORS_MAX, StatusChunk,
    StatusExtent,
};
pub use request::{BadMagic, Cookie, Request, RequestHeader, Span, decode_compact_header, decode_extended_header};
pub use session::{Rejection, Session, UnwantedPayload};
