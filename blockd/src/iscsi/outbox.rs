//! PDUs on their way out of a connection: numbered, digested, gathered into one message. RFC 7143 11.2, 4.2.2.2.

use crate::memory::{buffer_of, region_of};
use proto::iscsi::{DataIn, Framing, Numbers, Residual, data_in, digest, encode_pdu, padded};
use std::ops::Range;
use uring::Message;
use volume::buffer::{Buffer, BufferPool};

/// What waits to be sent.
#[derive(Debug)]
pub(crate) struct Outbox {
    framing: Framing,
    /// Of the next response.
    stat_sn: u32,
    next: Message,
    /// Emptied messages, to be filled again.
    spare: Vec<Message>,
    held_bytes: u64,
    scratch: Vec<u8>,
}

/// The data of a command, as it is cut into PDUs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) itt: u32,
    /// Most bytes of a data segment, and of a sequence.
    pub(crate) segment_max: u32,
    pub(crate) burst_max: u32,
    /// What the last PDU tells of the command's end.
    pub(crate) status: u8,
    pub(crate) residual: Residual,
    pub(crate) window: (u32, u32),
}

impl Outbox {
    /// `greeting` is sent first, as it is.
    pub(crate) fn new(framing: Framing, stat_sn: u32, greeting: &[u8]) -> Self {
        let mut next = Message::new();
        next.push_bytes(greeting);
        Self { framing, stat_sn, next, spare: Vec::new(), held_bytes: 0, scratch: Vec::new() }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// Bytes that wait.
    pub(crate) const fn len(&self) -> usize {
        self.next.len()
    }

    /// Adds a response, which takes the next StatSN.
    pub(crate) fn push_response(&mut self, window: (u32, u32), pdu: impl FnOnce(Numbers) -> [u8; 48], data: &[u8]) {
        let numbers = self.numbers(window);
        self.stat_sn = self.stat_sn.wrapping_add(1);
        self.push(pdu(numbers), data);
    }

    /// Adds what tells the next StatSN and takes none: R2T, and a NOP-In that asks.
    pub(crate) fn push_unnumbered(&mut self, window: (u32, u32), pdu: impl FnOnce(Numbers) -> [u8; 48]) {
        let numbers = self.numbers(window);
        self.push(pdu(numbers), &[]);
    }

    const fn numbers(&self, (exp_cmd_sn, max_cmd_sn): (u32, u32)) -> Numbers {
        Numbers { stat_sn: self.stat_sn, exp_cmd_sn, max_cmd_sn }
    }

    fn push(&mut self, bhs: [u8; 48], data: &[u8]) {
        self.scratch.clear();
        encode_pdu(self.framing, bhs, data, &mut self.scratch);
        self.next.push_bytes(&self.scratch);
    }

    /// Adds data that is copied, and the command's end with the last of it.
    pub(crate) fn push_copied(&mut self, cut: Cut, data: &[u8]) {
        for (place, piece) in pieces(data.len(), cut).enumerate() {
            let (bhs, range) = self.data_in(cut, place, &piece);
            let bytes = data.get(range).unwrap_or_default();
            self.push(bhs, bytes);
        }
    }

    /// Adds `range` of a buffer, which is not copied, and the command's end with the last of it.
    pub(crate) fn push_buffer(&mut self, cut: Cut, buffer: Buffer, range: Range<usize>) {
        self.held_bytes += buffer.len() as u64;
        self.next.push_region(region_of(buffer), 0..0);
        for (place, piece) in pieces(range.len(), cut).enumerate() {
            let (bhs, within) = self.data_in(cut, place, &piece);
            let (start, end) = (range.start + within.start, range.start + within.end);
            self.scratch.clear();
            encode_pdu(Framing { data_digest: false, ..self.framing }, bhs, &[], &mut self.scratch);
            let len = u32::try_from(within.len()).unwrap_or(u32::MAX);
            set_data_bytes(&mut self.scratch, len, self.framing);
            self.next.push_bytes(&self.scratch);
            let padding = [0; 3].get(..padded(within.len()) - within.len()).unwrap_or_default();
            let sum = self.framing.data_digest.then(|| {
                let bytes = self.next.last_region().get(start..end).unwrap_or_default();
                digest(&[bytes, padding])
            });
            self.next.push_more(start..end);
            self.next.push_bytes(padding);
            if let Some(sum) = sum {
                self.next.push_bytes(&sum);
            }
        }
    }

    /// The header of a piece, and which part of the data that is.
    fn data_in(&mut self, cut: Cut, place: usize, piece: &Piece) -> ([u8; 48], Range<usize>) {
        let numbers = self.numbers(cut.window);
        let status = piece.is_last.then(|| {
            self.stat_sn = self.stat_sn.wrapping_add(1);
            (cut.status, cut.residual)
        });
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let data = DataIn {
            itt: cut.itt,
            offset: number(piece.start),
            data_sn: number(place),
            data_bytes: number(piece.len),
            is_final: piece.ends_burst,
            status,
        };
        (data_in(&data, numbers), piece.start..piece.start + piece.len)
    }

    /// Takes what waits, to be sent, and the bytes that it holds.
    pub(crate) fn take(&mut self) -> (Message, u64) {
        let message = std::mem::replace(&mut self.next, self.spare.pop().unwrap_or_default());
        (message, std::mem::take(&mut self.held_bytes))
    }

    /// Takes a sent message back: its buffers go to the pool, and it will be filled again.
    pub(crate) fn recycle(&mut self, mut message: Message, buffers: &mut BufferPool) {
        buffers.put_all(message.take_regions().map(buffer_of));
        self.spare.push(message);
    }
}

/// A part of the data of a command that is one PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    start: usize,
    len: usize,
    /// Whether it ends a sequence.
    ends_burst: bool,
    is_last: bool,
}

/// Cuts data into PDUs: none is longer than a data segment, none crosses the end of a sequence. RFC 7143 13.12, 13.13.
fn pieces(len: usize, cut: Cut) -> impl Iterator<Item = Piece> {
    let limit = |value: u32| usize::try_from(value.max(1)).unwrap_or(usize::MAX);
    let (segment, burst) = (limit(cut.segment_max), limit(cut.burst_max));
    let mut start = 0;
    std::iter::from_fn(move || {
        let left_of_burst = burst - start % burst;
        let taken = (len - start).min(segment).min(left_of_burst);
        if taken == 0 {
            return None;
        }
        let is_last = start + taken == len;
        let piece = Piece { start, len: taken, ends_burst: is_last || taken == left_of_burst, is_last };
        start += taken;
        Some(piece)
    })
}

/// Puts the length of a data segment into a header that was encoded without one, and its digest anew.
fn set_data_bytes(encoded: &mut Vec<u8>, data_bytes: u32, framing: Framing) {
    let Some(bhs) = encoded.first_chunk_mut::<48>() else { return };
    let [_, length @ ..] = data_bytes.to_be_bytes();
    for (place, byte) in bhs.iter_mut().skip(5).zip(length) {
        *place = byte;
    }
    if framing.header_digest {
        let sum = digest(&[bhs.as_slice()]);
        encoded.truncate(48);
        encoded.extend_from_slice(&sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(segment_max: u32, burst_max: u32) -> Cut {
        Cut { itt: 7, segment_max, burst_max, status: 0, residual: Residual::None, window: (5, 9) }
    }

    fn sent(outbox: &mut Outbox) -> Vec<u8> {
        let (message, _) = outbox.take();
        let bytes = message.slices().flatten().copied().collect();
        outbox.recycle(message, &mut BufferPool::new(1 << 20));
        bytes
    }

    #[test]
    fn data_is_cut_at_segments_and_at_sequences() {
        let told = |len, segment, burst| {
            let all = pieces(len, cut(segment, burst));
            all.map(|piece| (piece.start, piece.len, piece.ends_burst, piece.is_last)).collect::<Vec<_>>()
        };
        assert_eq!(told(0, 4, 8), []);
        assert_eq!(told(3, 4, 8), [(0, 3, true, true)]);
        assert_eq!(told(9, 4, 6), [(0, 4, false, false), (4, 2, true, false), (6, 3, true, true)]);
        assert_eq!(told(8, 8, 8), [(0, 8, true, true)]);
    }

    /// P2. What is sent by ownership is what would be sent by copy, digests and padding too.
    #[test]
    fn data_that_is_not_copied_is_the_same_on_the_wire() {
        for (header_digest, data_digest) in [(false, false), (true, false), (false, true), (true, true)] {
            let framing = Framing { header_digest, data_digest };
            let (mut one, mut other) = (Outbox::new(framing, 3, &[]), Outbox::new(framing, 3, &[]));
            let mut buffer = Buffer::zeroed(64);
            for (number, byte) in (0..).zip(buffer.as_mut_slice()) {
                *byte = number;
            }
            let bytes = buffer.as_slice()[5..42].to_vec();
            one.push_copied(cut(10, 25), &bytes);
            other.push_buffer(cut(10, 25), buffer, 5..42);
            assert_eq!(sent(&mut one), sent(&mut other));
            assert_eq!(one.stat_sn, 4);
        }
    }
}
