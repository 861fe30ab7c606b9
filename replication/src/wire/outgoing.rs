//! A frame as it goes out: its head in one piece, and the buffers of a batch as they are.

use super::bytes::put_position;
use super::frame::{BATCH_BYTES_MAX, ENDS_MAX, Frame, HEADER_BYTES, fell_out_code};
use super::say::encode_message;
use crate::position::Position;
use units::{BLOCK_LEN, GroupId, SegmentId};
use volume::buffer::{Buffer, total_len};
use volume::engine::PeerLog;
use volume::feed::BatchEnd;

/// A frame's bytes, of which a batch's payload was not copied.
#[derive(Debug)]
pub struct Outgoing {
    head: Vec<u8>,
    buffers: Vec<Buffer>,
}

impl Outgoing {
    /// Whether a frame says what its receiver takes: of a batch whole blocks in each buffer, none empty, and not more than
    /// [`BATCH_BYTES_MAX`] together; of an alignment [`ENDS_MAX`] ends at most.
    #[must_use]
    pub fn is_sound(frame: &Frame) -> bool {
        match frame {
            Frame::Batch { buffers, .. } => is_batch(buffers),
            Frame::Has { log, .. } => is_log(*log),
            Frame::Credit { bytes } => *bytes > 0,
            Frame::Align { ends, .. } => ends.len() <= ENDS_MAX,
            Frame::Say { .. }
            | Frame::Aligned { .. }
            | Frame::Want { .. }
            | Frame::Committed { .. }
            | Frame::MakeDurable { .. }
            | Frame::FellOut { .. }
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
        let payload_bytes = usize::try_from(frame.batch_bytes()).expect("a batch is in memory");
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

    /// Bytes of a batch's buffers; none in other frames.
    #[must_use]
    pub fn batch_bytes(&self) -> u64 {
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
    log.durable <= log.appended && log.segment.is_none_or(|segment| segment <= SegmentId::MAX)
}

/// Appends what stands before a batch's buffers, or all of another body; returns the buffers.
fn encode_body(frame: Frame, out: &mut Vec<u8>) -> Vec<Buffer> {
    match frame {
        Frame::Batch { buffers, .. } => {
            encode_sizes(&buffers, out);
            return buffers;
        }
        Frame::Say { message, .. } => encode_message(&message, out),
        Frame::Align { number, ends, .. } => {
            out.extend_from_slice(&number.to_le_bytes());
            ends.iter().for_each(|end| encode_end(*end, out));
        }
        Frame::Aligned { number, common, .. } => {
            out.extend_from_slice(&number.to_le_bytes());
            encode_end(common, out);
        }
        Frame::Want { after, .. } => encode_end(after, out),
        Frame::Committed { lsn, .. } | Frame::MakeDurable { lsn, .. } => out.extend_from_slice(&lsn.0.to_le_bytes()),
        Frame::Has { log, .. } => encode_log(log, out),
        Frame::FellOut { why, .. } => out.push(fell_out_code(why)),
        Frame::Credit { bytes: number } | Frame::Ping { number } | Frame::Pong { number } => {
            out.extend_from_slice(&number.to_le_bytes());
        }
        Frame::Bye(bye) => {
            out.extend_from_slice(&bye.code.to_wire().to_le_bytes());
            out.extend_from_slice(bye.text.as_str().as_bytes());
        }
    }
    Vec::new()
}

fn encode_end(end: BatchEnd, out: &mut Vec<u8>) {
    put_position(out, Position { epoch: end.epoch, lsn: end.lsn });
    out.extend_from_slice(&end.chain.to_le_bytes());
}

/// How many buffers there are, and of how many blocks each is.
fn encode_sizes(buffers: &[Buffer], out: &mut Vec<u8>) {
    let word = |number: usize| u32::try_from(number).expect("a batch is bounded").to_le_bytes();
    out.reserve(4 + 4 * buffers.len());
    out.extend_from_slice(&word(buffers.len()));
    buffers.iter().for_each(|buffer| out.extend_from_slice(&word(buffer.len() / BLOCK_LEN)));
}

fn encode_log(log: PeerLog, out: &mut Vec<u8>) {
    let PeerLog { segment, appended, durable } = log;
    out.extend_from_slice(&segment.map_or(u64::MAX, |segment| segment.0).to_le_bytes());
    out.extend_from_slice(&appended.0.to_le_bytes());
    out.extend_from_slice(&durable.0.to_le_bytes());
}
