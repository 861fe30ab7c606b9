//! Requests that are passed on, and their answers, as bytes. The buffers follow as those of a batch do, but of any length.

use super::bytes::Fields;
use super::error::WireError;
use super::text::{TEXT_BYTES_MAX, Text};
use crate::passing::{Answer, Ask, EXTENTS_MAX, Outcome, What};
use units::ByteRange;
use volume::buffer::Buffer;
use volume::error::{Error, ErrorKind};
use volume::request::Extent;

/// Bytes before the buffers of a question, and of an answer.
pub(super) const ASK_BYTES: usize = 48;
pub(super) const ANSWER_BYTES: usize = 32;

/// Most buffers that follow: the pieces of the longest request, and some.
pub(super) const PASSED_BUFFERS_MAX: usize = 64;

const EXTENT_BYTES: usize = 8;
const IS_DATA: u64 = 1 << 63;

/// What stands before the buffers of a question.
pub(super) fn encode_ask(ask: &Ask, out: &mut Vec<u8>) {
    let (code, extra, source) = match ask.what {
        What::Read => (1_u8, 0, 0),
        What::Write => (2, 0, 0),
        What::CompareAndWrite => (3, 0, 0),
        What::OrWrite => (4, 0, 0),
        What::Copy { source } => (5, 0, source),
        What::Trim => (6, 0, 0),
        What::WriteZeroes => (7, 0, 0),
        What::Flush => (8, 0, 0),
        What::Cache => (9, 0, 0),
        What::Extents { extents_max } => (10, extents_max, 0),
    };
    out.extend_from_slice(&ask.number.to_le_bytes());
    out.extend_from_slice(&ask.tick.to_le_bytes());
    out.extend_from_slice(&[code, u8::from(ask.fua)]);
    out.extend_from_slice(&ask.waited_ms.to_le_bytes());
    out.extend_from_slice(&extra.to_le_bytes());
    for field in [ask.range.offset(), ask.range.len(), source] {
        out.extend_from_slice(&field.to_le_bytes());
    }
}

/// The question, without its buffers.
pub(super) fn decode_ask(fields: &mut Fields<'_>) -> Result<Ask, WireError> {
    let wrong = |field| WireError::Value { field };
    let (number, tick) = (fields.u64()?, fields.u64()?);
    let (code, fua, waited_ms, extra) = (fields.u8()?, fields.u8()?, fields.u16()?, fields.u32()?);
    let (offset, len, source) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let what = match code {
        1 => What::Read,
        2 => What::Write,
        3 => What::CompareAndWrite,
        4 => What::OrWrite,
        5 => What::Copy { source },
        6 => What::Trim,
        7 => What::WriteZeroes,
        8 => What::Flush,
        9 => What::Cache,
        10 => What::Extents { extents_max: extra },
        _ => return Err(wrong("request")),
    };
    let has_extra = extra == 0 || code == 10;
    let has_source = source == 0 || code == 5;
    if fua > 1 || !has_extra || !has_source {
        return Err(wrong("request"));
    }
    let range = ByteRange::new(offset, len).map_err(|_| wrong("range"))?;
    Ok(Ask { number, tick, waited_ms, what, range, fua: fua == 1, payload: Vec::new() })
}

/// What is known of an answer before its buffers are there.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerHead {
    number: u64,
    tick: u64,
    code: u8,
    kind: u8,
    skip: u32,
    value: u64,
}

/// What stands before the buffers of an answer; returns these.
pub(super) fn encode_answer(answer: Answer, out: &mut Vec<u8>) -> Vec<Buffer> {
    let (mut kind, mut skip, mut value, mut buffers) = (0_u8, 0_u32, 0_u64, Vec::new());
    let code: u8 = match answer.outcome {
        Outcome::Done => 1,
        Outcome::Read { buffer, skip: at, len } => {
            (skip, value) = (at, u64::from(len));
            buffers.extend(Some(buffer).filter(|buffer| !buffer.is_empty()));
            2
        }
        Outcome::Miscompare { at } => {
            value = at;
            3
        }
        Outcome::Extents(extents) => {
            let bytes =
                extents.iter().flat_map(|extent| (extent.len | if extent.is_data { IS_DATA } else { 0 }).to_le_bytes());
            buffers.push(Buffer::copy_of(&bytes.collect::<Vec<u8>>()));
            4
        }
        Outcome::Failed(error) => {
            kind = kind_to_wire(error.kind);
            let text = Text::new(&error.detail);
            buffers.extend((!text.as_str().is_empty()).then(|| Buffer::copy_of(text.as_str().as_bytes())));
            5
        }
        Outcome::NotHere => 6,
        Outcome::Stale => 7,
        Outcome::Lost => 8,
    };
    out.extend_from_slice(&answer.number.to_le_bytes());
    out.extend_from_slice(&answer.tick.to_le_bytes());
    out.extend_from_slice(&[code, kind, 0, 0]);
    out.extend_from_slice(&skip.to_le_bytes());
    out.extend_from_slice(&value.to_le_bytes());
    buffers
}

impl AnswerHead {
    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Self, WireError> {
        let (number, tick, code, kind) = (fields.u64()?, fields.u64()?, fields.u8()?, fields.u8()?);
        let (zero, skip, value) = (fields.u16()?, fields.u32()?, fields.u64()?);
        let is_known = match code {
            1 | 6..=8 => kind == 0 && skip == 0 && value == 0,
            2 => kind == 0 && value <= u64::from(u32::MAX),
            3 => kind == 0 && skip == 0,
            4 => kind == 0 && skip == 0 && value == 0,
            5 => kind_from_wire(kind).is_some() && skip == 0 && value == 0,
            _ => false,
        };
        if !is_known || zero != 0 || tick == 0 {
            return Err(WireError::Value { field: "answer" });
        }
        Ok(Self { number, tick, code, kind, skip, value })
    }

    /// The answer, once its buffers are there.
    pub(super) fn with(self, buffers: Vec<Buffer>) -> Result<Answer, WireError> {
        let wrong = WireError::Value { field: "answer" };
        let Self { number, tick, code, kind, skip, value } = self;
        let mut buffers = buffers.into_iter();
        let first = buffers.next();
        let is_none = first.is_none();
        let outcome = match (code, first) {
            (2, buffer) => {
                let buffer = buffer.unwrap_or_else(|| Buffer::zeroed(0));
                Outcome::Read { buffer, skip, len: u32::try_from(value).map_err(|_| wrong)? }
            }
            (4, Some(buffer)) => Outcome::Extents(decode_extents(buffer.as_slice()).ok_or(wrong)?),
            (5, buffer) => {
                let text = buffer.map_or_else(|| Ok(Text::default()), |buffer| Text::decode(buffer.as_slice()))?;
                let kind = kind_from_wire(kind).ok_or(wrong)?;
                Outcome::Failed(Error::new(kind, text.as_str()))
            }
            (1, None) => Outcome::Done,
            (3, None) => Outcome::Miscompare { at: value },
            (6, None) => Outcome::NotHere,
            (7, None) => Outcome::Stale,
            (8, None) => Outcome::Lost,
            (_, Some(_) | None) => return Err(wrong),
        };
        if buffers.next().is_some() || is_none && code == 4 {
            return Err(wrong);
        }
        Ok(Answer { number, tick, outcome })
    }
}

fn decode_extents(bytes: &[u8]) -> Option<Vec<Extent>> {
    let (words, rest) = bytes.as_chunks::<EXTENT_BYTES>();
    let is_bounded = rest.is_empty() && words.len() <= EXTENTS_MAX as usize;
    let extent = |word: &[u8; EXTENT_BYTES]| {
        let word = u64::from_le_bytes(*word);
        Extent { len: word & !IS_DATA, is_data: word & IS_DATA != 0 }
    };
    is_bounded.then(|| words.iter().map(extent).collect())
}

/// Whether an answer is one that its receiver takes.
pub(super) fn is_answer(answer: &Answer) -> bool {
    let fits = match &answer.outcome {
        Outcome::Extents(extents) => {
            let is_short = extents.iter().all(|extent| extent.len & IS_DATA == 0);
            !extents.is_empty() && extents.len() <= EXTENTS_MAX as usize && is_short
        }
        Outcome::Done
        | Outcome::Read { .. }
        | Outcome::Miscompare { .. }
        | Outcome::Failed(_)
        | Outcome::NotHere
        | Outcome::Stale
        | Outcome::Lost => true,
    };
    answer.tick > 0 && fits
}

/// Whether a question is one that its receiver takes.
pub(super) fn is_ask(ask: &Ask) -> bool {
    ask.payload.len() <= PASSED_BUFFERS_MAX && ask.payload.iter().all(|buffer| !buffer.is_empty())
}

/// Bytes of the buffers of an answer.
#[must_use]
pub fn answer_bytes(answer: &Answer) -> u64 {
    match &answer.outcome {
        Outcome::Read { buffer, .. } => buffer.len() as u64,
        Outcome::Extents(extents) => (extents.len() * EXTENT_BYTES) as u64,
        Outcome::Failed(error) => error.detail.chars().take(TEXT_BYTES_MAX).count() as u64,
        Outcome::Done | Outcome::Miscompare { .. } | Outcome::NotHere | Outcome::Stale | Outcome::Lost => 0,
    }
}

const KINDS: [ErrorKind; 7] = [
    ErrorKind::InvalidRequest,
    ErrorKind::NoSpace,
    ErrorKind::Fenced,
    ErrorKind::Closing,
    ErrorKind::Corrupt,
    ErrorKind::Unavailable,
    ErrorKind::Poisoned,
];

const fn kind_to_wire(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::InvalidRequest => 1,
        ErrorKind::NoSpace => 2,
        ErrorKind::Fenced => 3,
        ErrorKind::Closing => 4,
        ErrorKind::Corrupt => 5,
        ErrorKind::Unavailable => 6,
        ErrorKind::Poisoned => 7,
    }
}

fn kind_from_wire(code: u8) -> Option<ErrorKind> {
    KINDS.into_iter().find(|kind| kind_to_wire(*kind) == code)
}
