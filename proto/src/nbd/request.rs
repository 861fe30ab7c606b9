//! Requests as they come off the wire. Knows bytes, not volumes: what a request means is judged by `Session::parse`.
//! Spec: NBD proto.md, "Request message". Big-endian throughout.

use super::constants::{EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC};
use super::reply::ReplyTo;
use crate::wire::{take_u16, take_u32, take_u64};
use std::fmt;

/// A client's name for a request; its reply bears the same. The server reads nothing into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u64);

/// A request's header, compact or extended, as the client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestHeader {
    /// Command flags.
    pub flags: u16,
    /// Command.
    pub command: u16,
    /// Names the request.
    pub cookie: Cookie,
    /// First byte it concerns.
    pub offset: u64,
    /// Number of bytes it concerns, or of the payload; at most `u32::MAX` in a compact header.
    pub length_bytes: u64,
}

impl RequestHeader {
    /// What replies to it repeat.
    #[must_use]
    pub const fn reply_to(&self) -> ReplyTo {
        ReplyTo { cookie: self.cookie, offset: self.offset }
    }
}

/// A request began with another number than its magic. It ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadMagic {
    /// The number.
    pub found: u32,
}

impl fmt::Display for BadMagic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request begins with {:#010x}, which is no request magic", self.found)
    }
}

impl std::error::Error for BadMagic {}

/// Takes one compact header (28 bytes) off the front of `input`; `Ok(None)` takes nothing and means more bytes are needed.
///
/// Flags, command and range stay raw: a wrong one is answered with an errno by `Session::parse` and the connection lives.
///
/// # Errors
/// [`BadMagic`] ends the connection, since nothing tells where the next header starts.
pub fn decode_compact_header(input: &mut &[u8]) -> Result<Option<RequestHeader>, BadMagic> {
    decode(input, REQUEST_MAGIC, |rest| take_u32(rest).map(u64::from))
}

/// Takes one extended header (32 bytes) off the front of `input`, as [`decode_compact_header`] does.
///
/// # Errors
/// [`BadMagic`] ends the connection.
pub fn decode_extended_header(input: &mut &[u8]) -> Result<Option<RequestHeader>, BadMagic> {
    decode(input, EXTENDED_REQUEST_MAGIC, take_u64)
}

#[inline]
fn decode(
    input: &mut &[u8],
    magic: u32,
    take_length: impl FnOnce(&mut &[u8]) -> Option<u64>,
) -> Result<Option<RequestHeader>, BadMagic> {
    let mut rest = *input;
    // The magic is judged as soon as it is there, so that a stream that has lost its place ends at once.
    match take_u32(&mut rest) {
        None => return Ok(None),
        Some(found) if found != magic => return Err(BadMagic { found }),
        Some(_) => {}
    }
    let header = take_fields(&mut rest, take_length);
    if header.is_some() {
        *input = rest;
    }
    Ok(header)
}

fn take_fields(rest: &mut &[u8], take_length: impl FnOnce(&mut &[u8]) -> Option<u64>) -> Option<RequestHeader> {
    Some(RequestHeader {
        flags: take_u16(rest)?,
        command: take_u16(rest)?,
        cookie: Cookie(take_u64(rest)?),
        offset: take_u64(rest)?,
        length_bytes: take_length(rest)?,
    })
}

/// Bytes of an export: `offset..offset + len_bytes`, within its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len_bytes: u64,
}

/// A request that keeps every rule. A span may be empty, except of a block status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// Read; the span is at most the payload limit long, so it can always be answered in one content chunk (DF).
    Read {
        /// What to read.
        span: Span,
        /// Whether the answer must be one content chunk.
        dont_fragment: bool,
    },
    /// Write the payload that follows the header, as long as the span.
    Write {
        /// Where to write.
        span: Span,
        /// Whether to wait for stable storage.
        fua: bool,
    },
    /// Say farewell: answer what is under way, then close. Has no reply.
    Disconnect,
    /// Make every write answered so far durable.
    Flush,
    /// Forget the span.
    Trim {
        /// What to forget.
        span: Span,
        /// Whether to wait for stable storage.
        fua: bool,
    },
    /// Bring the span near.
    Cache {
        /// What will be read soon.
        span: Span,
    },
    /// Make the span read as zeros.
    WriteZeroes {
        /// What to zero.
        span: Span,
        /// Whether to wait for stable storage.
        fua: bool,
        /// Whether space must stay allocated.
        no_hole: bool,
        /// Whether the client wants it fast or not at all; those that cannot be were refused.
        fast_zero: bool,
    },
    /// Tell the state of the span in each selected metadata context.
    BlockStatus {
        /// What to look at; not empty.
        span: Span,
        /// Whether one extent per context is wanted, no longer than the span.
        one_extent: bool,
    },
}

impl Request {
    /// Bytes of payload that follow the header.
    #[must_use]
    pub const fn payload_bytes(&self) -> u64 {
        match self {
            Self::Write { span, .. } => span.len_bytes,
            Self::Read { .. }
            | Self::Disconnect
            | Self::Flush
            | Self::Trim { .. }
            | Self::Cache { .. }
            | Self::WriteZeroes { .. }
            | Self::BlockStatus { .. } => 0,
        }
    }
}
