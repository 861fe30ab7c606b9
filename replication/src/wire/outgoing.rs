//! A frame as it goes out: its head in one piece, and its buffers as they are.

use super::bytes::put_segment;
use super::frame::{BATCH_BYTES_MAX, Frame, HEADER_BYTES, STRETCHES_MAX, fell_out_code};
use super::passing::{encode_answer, encode_ask, is_answer, is_ask};
use super::say::encode_message;
use units::{BLOCK_LEN, GroupId, Lsn, SegmentId};
use volume::buffer::{Buffer, total_len};
use volume::engine::PeerLog;
use volume::parting::{Parting, Stretch};

/// A frame's bytes, of which the payload was not copied.
#[derive(Debug)]
pub struct Outgoing {
    head: Vec<u8>,
    buffers: Vec<Buffer>,
}

impl Outgoing {
    /// Whether a frame says what its receiver takes: of a batch whole blocks in each buffer, none empty, and not more than
    /// [`BATCH_BYTES_MAX`] together; of an alignment [`STRETCHES_MAX`] segments at most.
    #[must_use]
    pub fn is_sound(frame: &Frame) -> bool {
        match frame {
            Frame::Batch { buffers, .. } => is_batch(buffers),
            Frame::Has { log, .. } | Frame::Committed { log, .. } => is_log(*log),
            Frame::Credit { bytes } => *bytes > 0,
            Frame::Align { stretches, .. } => {
                stretches.len() <= STRETCHES_MAX && stretches.iter().all(|stretch| is_stretch(*stretch))
            }
            Frame::Want { segment, .. } => is_segment(*segment),
            Frame::Enrol { volume, .. } => volume.is_sound(),
            Frame::Ask { ask, .. } => is_ask(ask) && frame.payload_bytes() <= BATCH_BYTES_MAX as u64,
            Frame::Answer { answer, .. } => is_answer(answer) && frame.payload_bytes() <= BATCH_BYTES_MAX as u64,
            Frame::Say { .. }
            | Frame::Aligned { .. }
            | Frame::Begins { .. }
            | Frame::MakeDurable { .. }
            | Frame::FellOut { .. }
            | Frame::Enrolled { .. }
            | Frame::Ping { .. }
            | Frame::Pong { .. }
            | Frame::Bye(_) => true,
        }
    }

    /// Encodes a frame.
    ///
    /// # Panics
    /// When it is not sound ([`Outgoing::is_sound`]).
    #[must_use]
    pub fn new(frame: Frame) -> Self {
        assert!(Self::is_sound(&frame), "a frame that would be refused: {frame:?}");
        let (kind, epoch) = (frame.kind(), frame.epoch());
        let group = frame.group().unwrap_or(GroupId(0));
        let payload_bytes = usize::try_from(frame.payload_bytes()).expect("buffers are in memory");
        let mut head = Vec::with_capacity(HEADER_BYTES + 40);
        head.extend_from_slice(&[0; HEADER_BYTES]);
        let buffers = encode_body(frame, &mut head);
        let body_bytes = head.len() - HEADER_BYTES + payload_bytes;
        assert!(kind.body_bytes().contains(&body_bytes), "a frame {kind:?} of {body_bytes} bytes");
        let body_bytes = u32::try_from(body_bytes).expect("bounds of bodies are in 32 bits");
        let fields = (kind as u16).to_le_bytes().into_iter().chain([0; 2]).chain(body_bytes.to_le_bytes());
        let fields = fields.chain(group.0.to_le_bytes()).chain(epoch.0.to_le_bytes());
        head.iter_mut().zip(fields).for_each(|(at, byte)| *at = byte);
        Self { head, buffers }
    }

    /// Its bytes, in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.head.as_slice()).chain(self.buffers.iter().map(Buffer::as_slice))
    }

    /// How many these are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slices().map(<[u8]>::len).sum()
    }

    /// Bytes of its buffers.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        total_len(&self.buffers)
    }

    /// Never: every frame has a header.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head.is_empty()
    }
}

fn is_batch(buffers: &[Buffer]) -> bool {
    let is_cut_right = buffers.iter().all(|buffer| !buffer.is_empty() && buffer.len().is_multiple_of(BLOCK_LEN));
    !buffers.is_empty() && is_cut_right && total_len(buffers) <= BATCH_BYTES_MAX as u64
}

/// Whether a site can have such a log.
pub(super) fn is_log(log: PeerLog) -> bool {
    log.durable <= log.appended && is_segment(log.segment)
}

/// Whether a log can have that.
pub(super) fn is_stretch(stretch: Stretch) -> bool {
    is_segment(Some(stretch.segment)) && stretch.first_lsn <= stretch.last_lsn
}

fn is_segment(segment: Option<SegmentId>) -> bool {
    segment.is_none_or(|segment| segment <= SegmentId::MAX)
}

/// Appends what stands before a frame's buffers, or all of a body without them; returns the buffers.
fn encode_body(frame: Frame, out: &mut Vec<u8>) -> Vec<Buffer> {
    match frame {
        Frame::Batch { buffers, .. } => {
            encode_sizes((&buffers, BLOCK_LEN), out);
            return buffers;
        }
        Frame::Ask { ask, .. } => {
            encode_ask(&ask, out);
            encode_sizes((&ask.payload, 1), out);
            return ask.payload;
        }
        Frame::Answer { answer, .. } => {
            let buffers = encode_answer(*answer, out);
            encode_sizes((&buffers, 1), out);
            return buffers;
        }
        Frame::Say { message, .. } => encode_message(&message, out),
        Frame::Align { number, stretches, .. } => {
            out.extend_from_slice(&number.to_le_bytes());
            for Stretch { segment, first_lsn, last_lsn } in stretches {
                put_segment(out, Some(segment));
                out.extend_from_slice(&first_lsn.0.to_le_bytes());
                out.extend_from_slice(&last_lsn.0.to_le_bytes());
            }
        }
        Frame::Aligned { number, parting, .. } => {
            out.extend_from_slice(&number.to_le_bytes());
            let (is_told, lsn) = match parting {
                Parting::Behind(lsn) => (1, lsn),
                Parting::Untold => (0, Lsn::ZERO),
            };
            out.push(is_told);
            out.extend_from_slice(&lsn.0.to_le_bytes());
        }
        Frame::Want { number, segment, lsn, .. } => {
            out.extend_from_slice(&number.to_le_bytes());
            put_segment(out, segment);
            out.extend_from_slice(&lsn.0.to_le_bytes());
        }
        Frame::MakeDurable { lsn, .. } => out.extend_from_slice(&lsn.0.to_le_bytes()),
        Frame::Committed { log, .. } | Frame::Has { log, .. } => encode_log(log, out),
        Frame::FellOut { why, .. } => out.push(fell_out_code(why)),
        Frame::Enrol { number, volume, .. } => volume.encode(number, out),
        Frame::Enrolled { number, result, .. } => {
            out.extend_from_slice(&number.to_le_bytes());
            out.push(u8::from(result.is_ok()));
            result.err().into_iter().for_each(|text| out.extend_from_slice(text.as_str().as_bytes()));
        }
        Frame::Credit { bytes: number }
        | Frame::Ping { number }
        | Frame::Pong { number }
        | Frame::Begins { number, .. } => {
            out.extend_from_slice(&number.to_le_bytes());
        }
        Frame::Bye(bye) => {
            out.extend_from_slice(&bye.code.to_wire().to_le_bytes());
            out.extend_from_slice(bye.text.as_str().as_bytes());
        }
    }
    Vec::new()
}

/// How many buffers there are, and of how many units of so many bytes each is.
fn encode_sizes((buffers, unit): (&[Buffer], usize), out: &mut Vec<u8>) {
    let word = |number: usize| u32::try_from(number).expect("buffers are bounded").to_le_bytes();
    out.reserve(4 + 4 * buffers.len());
    out.extend_from_slice(&word(buffers.len()));
    buffers.iter().for_each(|buffer| out.extend_from_slice(&word(buffer.len() / unit)));
}

fn encode_log(log: PeerLog, out: &mut Vec<u8>) {
    let PeerLog { segment, appended, durable } = log;
    put_segment(out, segment);
    out.extend_from_slice(&appended.0.to_le_bytes());
    out.extend_from_slice(&durable.0.to_le_bytes());
}
