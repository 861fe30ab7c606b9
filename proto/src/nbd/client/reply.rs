//! Requests sent and their replies read.

use super::super::constants::{
    EXTENDED_REPLY_MAGIC, EXTENDED_REQUEST_MAGIC, PAYLOAD_BYTES_MAX, REPLY_FLAG_DONE, REQUEST_MAGIC,
    SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk,
};
use super::super::reply::{ReplyStyle, StatusExtent};
use super::super::request::{Cookie, RequestHeader};
use super::Malformed;
use crate::wire::{take_bytes, take_u16, take_u32, take_u64};

/// A simple reply, or one chunk of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The request it answers.
    pub cookie: Cookie,
    /// The offset of that request; in extended chunks only.
    pub offset: Option<u64>,
    /// Whether the reply ends with it.
    pub is_last: bool,
    /// What it says.
    pub body: Body,
}

/// What a reply or chunk says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A simple reply: error number, and data if it answers a read.
    Simple {
        /// 0 for success.
        error: u32,
        /// Empty after an error.
        data: Vec<u8>,
    },
    /// Nothing but the end.
    None,
    /// Data and where it is.
    Data {
        /// First byte in the export.
        at: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// A range of zeros.
    Hole {
        /// First byte in the export.
        at: u64,
        /// Number of bytes.
        len_bytes: u32,
    },
    /// Extents of a metadata context.
    Status {
        /// The context.
        context_id: u32,
        /// Extents from the request's offset on.
        extents: Vec<StatusExtent>,
    },
    /// An error.
    Error {
        /// Its number.
        error: u32,
        /// Its reason.
        message: Vec<u8>,
        /// Where it happened.
        at: Option<u64>,
    },
}

/// Appends a request's header; the payload of a write is to follow.
pub fn encode_request(style: ReplyStyle, header: &RequestHeader, out: &mut Vec<u8>) {
    let is_extended = style == ReplyStyle::Extended;
    let magic = if is_extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
    out.extend_from_slice(&magic.to_be_bytes());
    out.extend_from_slice(&header.flags.to_be_bytes());
    out.extend_from_slice(&header.command.to_be_bytes());
    out.extend_from_slice(&header.cookie.0.to_be_bytes());
    out.extend_from_slice(&header.offset.to_be_bytes());
    if is_extended {
        out.extend_from_slice(&header.length_bytes.to_be_bytes());
    } else {
        out.extend_from_slice(&u32::try_from(header.length_bytes).unwrap_or(u32::MAX).to_be_bytes());
    }
}

/// Takes one reply or chunk; `Ok(None)` means more bytes are needed. A simple reply does not tell how much data it brings:
/// `data_len` does, by the cookie, for one without an error.
///
/// # Errors
/// [`Malformed`] when it is none, or of a form that `style` excludes.
pub fn decode_reply(
    style: ReplyStyle,
    data_len: impl FnOnce(Cookie) -> usize,
    input: &mut &[u8],
) -> Result<Option<Reply>, Malformed> {
    let mut rest = *input;
    let reply = match take_u32(&mut rest) {
        None => None,
        Some(SIMPLE_REPLY_MAGIC) if style != ReplyStyle::Extended => decode_simple(data_len, &mut rest),
        Some(STRUCTURED_REPLY_MAGIC) if style == ReplyStyle::Structured => decode_chunk(style, &mut rest)?,
        Some(EXTENDED_REPLY_MAGIC) if style == ReplyStyle::Extended => decode_chunk(style, &mut rest)?,
        Some(_) => return Err(Malformed::Magic),
    };
    if reply.is_some() {
        *input = rest;
    }
    Ok(reply)
}

fn decode_simple(data_len: impl FnOnce(Cookie) -> usize, rest: &mut &[u8]) -> Option<Reply> {
    let error = take_u32(rest)?;
    let cookie = Cookie(take_u64(rest)?);
    let len = if error == 0 { data_len(cookie) } else { 0 };
    let data = take_bytes(rest, len)?.to_vec();
    Some(Reply { cookie, offset: None, is_last: true, body: Body::Simple { error, data } })
}

/// Fields of a chunk's header: flags, type, cookie, offset, length of the payload.
fn take_chunk_header(style: ReplyStyle, rest: &mut &[u8]) -> Option<(u16, u16, Cookie, Option<u64>, u64)> {
    let (flags, kind, cookie) = (take_u16(rest)?, take_u16(rest)?, Cookie(take_u64(rest)?));
    if style == ReplyStyle::Extended {
        return Some((flags, kind, cookie, Some(take_u64(rest)?), take_u64(rest)?));
    }
    Some((flags, kind, cookie, None, u64::from(take_u32(rest)?)))
}

fn decode_chunk(style: ReplyStyle, rest: &mut &[u8]) -> Result<Option<Reply>, Malformed> {
    let Some((flags, kind, cookie, offset, len)) = take_chunk_header(style, rest) else {
        return Ok(None);
    };
    if len > u64::from(PAYLOAD_BYTES_MAX) + 8 {
        return Err(Malformed::Length);
    }
    let Some(mut payload) = usize::try_from(len).ok().and_then(|len| take_bytes(rest, len)) else {
        return Ok(None);
    };
    let body = decode_body(style, kind, &mut payload)?.ok_or(Malformed::Length)?;
    let is_last = flags & REPLY_FLAG_DONE != 0;
    // Only an error may bring more than it is known to; the rest of it is ignored.
    if !payload.is_empty() && kind & chunk::ERROR_BIT == 0 || (body == Body::None && !is_last) {
        return Err(Malformed::Length);
    }
    Ok(Some(Reply { cookie, offset, is_last, body }))
}

/// The body of a chunk; `Ok(None)` when the payload is too short for its type.
fn decode_body(style: ReplyStyle, kind: u16, payload: &mut &[u8]) -> Result<Option<Body>, Malformed> {
    Ok(match kind {
        chunk::NONE => Some(Body::None),
        chunk::OFFSET_DATA => decode_data(payload),
        chunk::OFFSET_HOLE => decode_hole(payload),
        chunk::BLOCK_STATUS if style == ReplyStyle::Structured => decode_status(payload),
        chunk::BLOCK_STATUS_EXT if style == ReplyStyle::Extended => decode_status_ext(payload),
        kind if kind & chunk::ERROR_BIT != 0 => decode_error(kind, payload),
        _ => return Err(Malformed::Type),
    })
}

fn decode_data(payload: &mut &[u8]) -> Option<Body> {
    let at = take_u64(payload)?;
    let data = std::mem::take(payload).to_vec();
    (!data.is_empty()).then_some(Body::Data { at, data })
}

fn decode_hole(payload: &mut &[u8]) -> Option<Body> {
    let (at, len_bytes) = (take_u64(payload)?, take_u32(payload)?);
    (len_bytes > 0).then_some(Body::Hole { at, len_bytes })
}

fn decode_status(payload: &mut &[u8]) -> Option<Body> {
    let context_id = take_u32(payload)?;
    let mut extents = Vec::new();
    while !payload.is_empty() {
        let (len_bytes, status) = (u64::from(take_u32(payload)?), u64::from(take_u32(payload)?));
        extents.push(StatusExtent { len_bytes, status });
    }
    status(context_id, extents)
}

fn decode_status_ext(payload: &mut &[u8]) -> Option<Body> {
    let (context_id, count) = (take_u32(payload)?, take_u32(payload)?);
    let mut extents = Vec::new();
    while !payload.is_empty() {
        extents.push(StatusExtent { len_bytes: take_u64(payload)?, status: take_u64(payload)? });
    }
    (usize::try_from(count) == Ok(extents.len())).then_some(())?;
    status(context_id, extents)
}

fn status(context_id: u32, extents: Vec<StatusExtent>) -> Option<Body> {
    let is_sane = !extents.is_empty() && extents.iter().all(|extent| extent.len_bytes > 0);
    is_sane.then_some(Body::Status { context_id, extents })
}

fn decode_error(kind: u16, payload: &mut &[u8]) -> Option<Body> {
    let (error, message_len) = (take_u32(payload)?, take_u16(payload)?);
    let message = take_bytes(payload, usize::from(message_len))?.to_vec();
    let at = if kind == chunk::ERROR_OFFSET { Some(take_u64(payload)?) } else { None };
    (error != 0).then_some(Body::Error { error, message, at })
}
