//! Frames as they come in: whole ones off the front of what was received, payloads straight into buffers of their own.

use super::bytes::Fields;
use super::enrolment::Enrolment;
use super::error::WireError;
use super::frame::{
    BATCH_BYTES_MAX, BUFFERS_MAX, Bye, ByeCode, FELL_OUTS, Frame, HEADER_BYTES, Kind, SMALL_BYTES_MAX, STRETCH_BYTES,
    fell_out_code,
};
use super::outgoing::{is_log, is_stretch};
use super::passing::{ANSWER_BYTES, ASK_BYTES, AnswerHead, PASSED_BUFFERS_MAX, decode_ask};
use super::say::decode_message;
use super::text::Text;
use crate::passing::Ask;
use units::{BLOCK_LEN, Epoch, GroupId, Lsn};
use volume::buffer::Buffer;
use volume::engine::PeerLog;
use volume::parting::{Parting, Stretch};

/// A header, its length within the bounds of its kind.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: Kind,
    body_bytes: usize,
    group: GroupId,
    epoch: Epoch,
}

impl Header {
    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields(bytes);
        let (kind, reserved, body_bytes) = (fields.u16()?, fields.u16()?, fields.u32()?);
        let (group, epoch) = (GroupId(fields.u64()?), Epoch(fields.u64()?));
        let kind = Kind::from_wire(kind).ok_or(WireError::UnknownKind { kind })?;
        let length = WireError::Length { kind, body_bytes };
        let body_bytes = usize::try_from(body_bytes).map_err(|_| length)?;
        if reserved != 0 {
            return Err(WireError::Reserved);
        }
        if !kind.is_of_group() && group != GroupId(0) || !kind.is_of_epoch() && epoch != Epoch(0) {
            return Err(WireError::OfGroup { kind });
        }
        if kind.body_bytes().contains(&body_bytes) { Ok(Self { kind, body_bytes, group, epoch }) } else { Err(length) }
    }
}

/// What stands before a frame's buffers.
#[derive(Debug)]
enum Head {
    Batch,
    Ask(Box<Ask>),
    Answer(AnswerHead),
}

/// A frame with buffers of which part has come. These are made one by one, as what came before them is there.
#[derive(Debug)]
struct Arriving {
    group: GroupId,
    epoch: Epoch,
    head: Head,
    /// Bytes of the buffers that are still to be made, the last one first.
    missing: Vec<usize>,
    /// Whole, but for the last one.
    buffers: Vec<Buffer>,
    /// Bytes of the last one that are there.
    filled: usize,
}

impl Arriving {
    fn space(&mut self) -> &mut [u8] {
        if self.buffers.last().is_none_or(|last| self.filled == last.len())
            && let Some(bytes) = self.missing.pop()
        {
            self.buffers.push(Buffer::zeroed(bytes));
            self.filled = 0;
        }
        self.buffers.last_mut().and_then(|last| last.as_mut_slice().get_mut(self.filled..)).unwrap_or_default()
    }

    fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.buffers.last().is_none_or(|last| self.filled == last.len())
    }

    fn into_frame(self) -> Result<Frame, WireError> {
        let Self { group, epoch, head, buffers, .. } = self;
        Ok(match head {
            Head::Batch => Frame::Batch { group, epoch, buffers },
            Head::Ask(mut ask) => {
                ask.payload = buffers;
                Frame::Ask { group, epoch, ask }
            }
            Head::Answer(head) => Frame::Answer { group, epoch, answer: Box::new(head.with(buffers)?) },
        })
    }
}

/// The receiving side of a connection, behind its opening.
#[derive(Debug, Default)]
pub struct Incoming {
    arriving: Option<Arriving>,
}

impl Incoming {
    /// Bytes that `input` must be able to hold: the longest frame without buffers, or all of one before its buffers.
    pub const INPUT_BYTES: usize = HEADER_BYTES + SMALL_BYTES_MAX + 4 * BUFFERS_MAX;

    /// Takes one frame off the front of `input`. `Ok(None)` means more bytes are needed, behind those that are left of `input`;
    /// once buffers have begun, they can be put where they belong ([`Incoming::space`]).
    ///
    /// `credit` is how many bytes the buffers of a frame may have now.
    ///
    /// # Errors
    /// [`WireError`] ends the connection.
    pub fn take(&mut self, input: &mut &[u8], credit: u64) -> Result<Option<Frame>, WireError> {
        if self.arriving.is_none() {
            let Some((header, rest)) = input.split_at_checked(HEADER_BYTES) else { return Ok(None) };
            let header = Header::decode(header)?;
            if !header.kind.has_buffers() {
                let Some((body, rest)) = rest.split_at_checked(header.body_bytes) else { return Ok(None) };
                *input = rest;
                return decode_body(header, body).map(Some);
            }
            let mut rest = rest;
            let Some((head, missing)) = decode_start(header, &mut rest, credit)? else { return Ok(None) };
            *input = rest;
            let Header { group, epoch, .. } = header;
            self.arriving = Some(Arriving { group, epoch, head, missing, buffers: Vec::new(), filled: 0 });
        }
        self.fill(input);
        self.arriving.take_if(|arriving| arriving.is_whole()).map(Arriving::into_frame).transpose()
    }

    /// Where the next bytes belong, while a frame with buffers is under way; not empty. What is put there is told by [`Incoming::advance`],
    /// and the frame is taken by [`Incoming::take`] once it is whole.
    pub fn space(&mut self) -> Option<&mut [u8]> {
        self.arriving.as_mut().map(Arriving::space).filter(|space| !space.is_empty())
    }

    /// Says that the first `bytes` of [`Incoming::space`] are there.
    ///
    /// # Panics
    /// When there is less space.
    pub fn advance(&mut self, bytes: usize) {
        let Some(arriving) = &mut self.arriving else {
            assert!(bytes == 0, "no frame with buffers is under way");
            return;
        };
        arriving.filled += bytes;
        let last = arriving.buffers.last().map_or(0, Buffer::len);
        assert!(arriving.filled <= last, "{} bytes in a buffer of {last}", arriving.filled);
    }

    /// Copies what `input` has of the frame under way.
    fn fill(&mut self, input: &mut &[u8]) {
        while let Some(space) = self.space() {
            let bytes = space.len().min(input.len());
            let Some((here, rest)) = input.split_at_checked(bytes).filter(|_| bytes > 0) else { return };
            space.iter_mut().zip(here).for_each(|(to, from)| *to = *from);
            *input = rest;
            self.advance(bytes);
        }
    }
}

/// Takes what stands before a frame's buffers off the front of `input`, and the bytes of each, the last one first.
fn decode_start(header: Header, input: &mut &[u8], credit: u64) -> Result<Option<(Head, Vec<usize>)>, WireError> {
    let (is_ask, is_answer) = (header.kind == Kind::Ask, header.kind == Kind::Answer);
    let (head_bytes, unit, counts) = if is_ask {
        (ASK_BYTES, 1, 0..=PASSED_BUFFERS_MAX)
    } else if is_answer {
        (ANSWER_BYTES, 1, 0..=1)
    } else {
        (0, BLOCK_LEN, 1..=BUFFERS_MAX)
    };
    let Some((head, rest)) = input.split_at_checked(head_bytes) else { return Ok(None) };
    let mut fields = Fields(rest);
    let Ok(count) = fields.u32() else { return Ok(None) };
    let wrong = WireError::Value { field: "buffers" };
    let count = usize::try_from(count).ok().filter(|count| counts.contains(count)).ok_or(wrong)?;
    let payload_bytes = header.body_bytes.checked_sub(head_bytes + 4 + 4 * count).ok_or(wrong)?;
    if payload_bytes > BATCH_BYTES_MAX {
        return Err(wrong);
    }
    if payload_bytes as u64 > credit {
        return Err(WireError::OverCredit { bytes: payload_bytes as u64, credit });
    }
    if fields.0.len() < 4 * count {
        return Ok(None);
    }
    let mut sizes = Vec::with_capacity(count);
    for _ in 0..count {
        let units = usize::try_from(fields.u32()?).map_err(|_| wrong)?;
        sizes.push(units.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or(wrong)?);
    }
    let sum = sizes.iter().try_fold(0_usize, |sum, bytes| sum.checked_add(*bytes));
    if sum != Some(payload_bytes) {
        return Err(wrong);
    }
    let head = if is_ask {
        Head::Ask(Box::new(decode_ask(&mut Fields(head))?))
    } else if is_answer {
        Head::Answer(AnswerHead::decode(&mut Fields(head))?)
    } else {
        Head::Batch
    };
    *input = fields.rest();
    sizes.reverse();
    Ok(Some((head, sizes)))
}

fn decode_body(header: Header, body: &[u8]) -> Result<Frame, WireError> {
    let Header { kind, group, epoch, .. } = header;
    let mut fields = Fields(body);
    let frame = match kind {
        Kind::Say => Frame::Say { group, message: Box::new(decode_message(epoch, &mut fields)?) },
        Kind::Align => {
            let number = fields.u64()?;
            // What the header allows bounds their number.
            let mut stretches = Vec::with_capacity(fields.0.len() / STRETCH_BYTES);
            while !fields.0.is_empty() {
                stretches.push(decode_stretch(&mut fields)?);
            }
            Frame::Align { group, epoch, number, stretches }
        }
        Kind::Aligned => Frame::Aligned { group, epoch, number: fields.u64()?, parting: decode_parting(&mut fields)? },
        Kind::Want => {
            let (number, segment, lsn) = (fields.u64()?, fields.segment()?, fields.lsn()?);
            Frame::Want { group, epoch, number, segment, lsn }
        }
        Kind::Begins => Frame::Begins { group, epoch, number: fields.u64()? },
        Kind::Batch | Kind::Ask | Kind::Answer => return Err(WireError::Cut),
        Kind::Committed => Frame::Committed { group, epoch, log: decode_log(&mut fields)? },
        Kind::MakeDurable => Frame::MakeDurable { group, epoch, lsn: fields.lsn()? },
        Kind::Has => Frame::Has { group, epoch, log: decode_log(&mut fields)? },
        Kind::FellOut => {
            let code = fields.u8()?;
            let known = FELL_OUTS.into_iter().find(|why| fell_out_code(*why) == code);
            let why = known.ok_or(WireError::Value { field: "reason" })?;
            Frame::FellOut { group, epoch, why }
        }
        Kind::Enrol => {
            let (number, volume) = Enrolment::decode(&mut fields)?;
            Frame::Enrol { group, number, volume: Box::new(volume) }
        }
        Kind::Enrolled => Frame::Enrolled { group, number: fields.u64()?, result: decode_enrolled(&mut fields)? },
        Kind::Credit => {
            let bytes = Some(fields.u64()?).filter(|bytes| *bytes > 0).ok_or(WireError::Value { field: "credit" })?;
            Frame::Credit { bytes }
        }
        Kind::Ping => Frame::Ping { number: fields.u64()? },
        Kind::Pong => Frame::Pong { number: fields.u64()? },
        Kind::Bye => {
            let code = ByeCode::from_wire(fields.u16()?).ok_or(WireError::Value { field: "reason" })?;
            Frame::Bye(Bye { code, text: Text::decode(fields.rest())? })
        }
    };
    fields.end()?;
    Ok(frame)
}

fn decode_enrolled(fields: &mut Fields<'_>) -> Result<Result<(), Text>, WireError> {
    match fields.u8()? {
        1 => Ok(Ok(())),
        0 => Text::decode(fields.rest()).map(Err),
        _ => Err(WireError::Value { field: "answer" }),
    }
}

fn decode_stretch(fields: &mut Fields<'_>) -> Result<Stretch, WireError> {
    let wrong = WireError::Value { field: "segment" };
    let (segment, first_lsn, last_lsn) = (fields.segment()?.ok_or(wrong)?, fields.lsn()?, fields.lsn()?);
    Some(Stretch { segment, first_lsn, last_lsn }).filter(|stretch| is_stretch(*stretch)).ok_or(wrong)
}

fn decode_parting(fields: &mut Fields<'_>) -> Result<Parting, WireError> {
    match (fields.u8()?, fields.lsn()?) {
        (1, lsn) => Ok(Parting::Behind(lsn)),
        (0, Lsn::ZERO) => Ok(Parting::Untold),
        _ => Err(WireError::Value { field: "parting" }),
    }
}

fn decode_log(fields: &mut Fields<'_>) -> Result<PeerLog, WireError> {
    let (segment, appended, durable) = (fields.segment()?, fields.lsn()?, fields.lsn()?);
    let log = PeerLog { segment, appended, durable };
    if is_log(log) { Ok(log) } else { Err(WireError::Value { field: "log" }) }
}
