//! PDUs out of a connection's byte stream. RFC 7143 11.1, 11.2.
//!
//! Headers and small data segments are parsed in the receive buffer, many from one receive; data of a write is copied once, into
//! the buffer that goes to the engine, and what is missing of much of it is received straight into that. Where a data segment
//! goes is said by whoever knows the session, between its header and itself.

use crate::payload::ArrivingPayload;
use crate::stream::{Loan, Stream};
use proto::iscsi::{FrameError, Framing, Head, RunningDigest, decode_header, padded};
use uring::Region;
use volume::buffer::BufferPool;

/// Bytes of a digest. RFC 7143 11.2.3.
const DIGEST_BYTES: usize = 4;

/// What came out of the stream.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A PDU's header. Where it announces data, [`Receiver::begin`] says where that goes.
    Head(Head),
    /// The data of the PDU whose header came before, and whether it is what its digest says.
    Segment { sink: Sink, is_intact: bool },
    /// More bytes are needed.
    Incomplete,
}

/// Where a data segment goes.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Nowhere.
    Skip,
    /// Into memory of its own: text, or what is to be sent back.
    Bytes(Vec<u8>),
    /// Into a write's payload.
    Payload(ArrivingPayload),
}

impl Sink {
    /// Gives back what was taken for data that nobody has use for.
    pub(crate) fn abandon(&mut self, buffers: &mut BufferPool) {
        if let Self::Payload(payload) = self {
            payload.abandon(buffers);
        }
    }
}

/// Takes PDUs off a connection's stream.
#[derive(Debug)]
pub(crate) struct Receiver {
    framing: Framing,
    data_bytes_max: u32,
    stream: Stream,
    state: State,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each connection, and nothing is to be allocated for a segment")]
enum State {
    Header,
    /// A header has announced so many bytes, and it is not said where they go.
    Announced(usize),
    Segment(Segment),
}

/// A data segment that is arriving.
#[derive(Debug)]
struct Segment {
    sink: Sink,
    /// Bytes of it that are not there.
    left: usize,
    /// Bytes of padding and digest behind it that are not there.
    tail_left: usize,
    /// Those that are.
    tail: Vec<u8>,
    digest: Option<RunningDigest>,
}

impl Receiver {
    /// Makes a receiver that begins with `leftover`, which was received during the login.
    pub(crate) fn new(framing: Framing, data_bytes_max: u32, leftover: &[u8]) -> Self {
        Self { framing, data_bytes_max, stream: Stream::new(leftover), state: State::Header }
    }

    /// Takes the next header, or the rest of a data segment, if it is there.
    ///
    /// # Errors
    /// [`FrameError`] ends the connection: nothing tells where the next header starts.
    pub(crate) fn next(&mut self, buffers: &mut BufferPool) -> Result<Arrival, FrameError> {
        let bytes = self.stream.unread();
        match &mut self.state {
            State::Header => {
                let mut rest = bytes;
                let Some(head) = decode_header(&mut rest, self.framing, self.data_bytes_max)? else {
                    return Ok(Arrival::Incomplete);
                };
                let header_len = bytes.len() - rest.len();
                self.stream.consume(header_len);
                if let Some(announced) = usize::try_from(head.data_bytes).ok().filter(|announced| *announced > 0) {
                    self.state = State::Announced(announced);
                }
                Ok(Arrival::Head(head))
            }
            State::Announced(_) => Ok(Arrival::Incomplete),
            State::Segment(segment) => {
                let taken = segment.take(bytes, buffers);
                self.stream.consume(taken);
                if segment.left > 0 || segment.tail_left > 0 {
                    return Ok(Arrival::Incomplete);
                }
                let is_intact = segment.is_intact();
                let sink = std::mem::replace(&mut segment.sink, Sink::Skip);
                self.state = State::Header;
                Ok(Arrival::Segment { sink, is_intact })
            }
        }
    }

    /// Whether data of a write is arriving.
    pub(crate) const fn takes_payload(&self) -> bool {
        matches!(self.state, State::Segment(Segment { sink: Sink::Payload(_), .. }))
    }

    /// Says where the announced data goes.
    pub(crate) fn begin(&mut self, sink: Sink) {
        if let State::Announced(left) = self.state {
            self.stream.expect_data(left);
            let digest = self.framing.data_digest.then(RunningDigest::new);
            let tail_left = (padded(left) - left) + if digest.is_some() { DIGEST_BYTES } else { 0 };
            self.state = State::Segment(Segment { sink, left, tail_left, tail: Vec::new(), digest });
        }
    }

    /// Lends the memory for the next receive, or nothing when it is lent already. To be called when [`Receiver::next`]
    /// has answered [`Arrival::Incomplete`].
    pub(crate) fn lend(&mut self) -> Option<Loan> {
        let payload = match &mut self.state {
            State::Segment(Segment { sink: Sink::Payload(payload), left, .. }) => Some((payload, *left)),
            State::Segment(_) | State::Header | State::Announced(_) => None,
        };
        self.stream.lend(payload)
    }

    /// Takes lent memory back, of which the first `received` bytes were filled.
    pub(crate) fn take_back(&mut self, region: Region, received: usize) {
        if let Some(piece) = self.stream.take_back(region, received)
            && let State::Segment(segment) = &mut self.state
            && let Sink::Payload(payload) = &mut segment.sink
        {
            segment.left -= received;
            let filled = payload.filled();
            if let Some(digest) = &mut segment.digest {
                digest.update(piece.as_slice().get(filled..filled + received).unwrap_or_default());
            }
            payload.take_back(piece, received);
        }
    }

    /// Gives back what a write that never became whole has taken.
    pub(crate) fn abandon(&mut self, buffers: &mut BufferPool) {
        if let State::Segment(segment) = &mut self.state {
            segment.sink.abandon(buffers);
        }
        self.state = State::Header;
        self.stream.clear();
    }
}

impl Segment {
    /// Takes from `bytes` what it lacks; returns how much.
    fn take(&mut self, bytes: &[u8], buffers: &mut BufferPool) -> usize {
        let data = bytes.get(..self.left.min(bytes.len())).unwrap_or_default();
        match &mut self.sink {
            Sink::Skip => {}
            Sink::Bytes(own) => own.extend_from_slice(data),
            Sink::Payload(payload) => {
                // One that is complete already has room for no more: the session has judged the length.
                payload.take(data, buffers);
            }
        }
        if let Some(digest) = &mut self.digest {
            digest.update(data);
        }
        self.left -= data.len();
        if self.left > 0 {
            return data.len();
        }
        let behind = bytes.get(data.len()..).unwrap_or_default();
        let tail = behind.get(..self.tail_left.min(behind.len())).unwrap_or_default();
        self.tail.extend_from_slice(tail);
        self.tail_left -= tail.len();
        data.len() + tail.len()
    }

    /// Whether data and padding are what the digest behind them says.
    fn is_intact(&mut self) -> bool {
        let Some(mut digest) = self.digest.take() else { return true };
        let Some((padding, told)) = self.tail.split_last_chunk::<DIGEST_BYTES>() else { return false };
        digest.update(padding);
        digest.finish() == *told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::iscsi::encode_pdu;

    /// A Data-Out that carries `data`.
    fn data_out(framing: Framing, data: &[u8]) -> Vec<u8> {
        let mut bhs = [0; 48];
        bhs[0] = 0x05;
        let mut out = Vec::new();
        encode_pdu(framing, bhs, data, &mut out);
        out
    }

    /// Gives `stream` to a receiver, so many bytes at most with each receive; returns what came into the payload.
    fn received(framing: Framing, stream: &[u8], step: usize) -> (Vec<u8>, Vec<bool>) {
        let mut buffers = BufferPool::new(1 << 20);
        let mut receiver = Receiver::new(framing, 1 << 20, &[]);
        let (mut taken, mut intact, mut at) = (Vec::new(), Vec::new(), 0);
        loop {
            match receiver.next(&mut buffers).unwrap() {
                Arrival::Head(head) if head.data_bytes > 0 => {
                    let len = usize::try_from(head.data_bytes).unwrap();
                    receiver.begin(Sink::Payload(ArrivingPayload::new(len)));
                }
                Arrival::Head(_) => {}
                Arrival::Segment { sink: Sink::Payload(mut payload), is_intact } => {
                    assert!(payload.is_complete());
                    payload.finish().iter().for_each(|piece| taken.extend_from_slice(piece.as_slice()));
                    intact.push(is_intact);
                }
                Arrival::Segment { .. } => panic!("another sink"),
                Arrival::Incomplete if at == stream.len() => return (taken, intact),
                Arrival::Incomplete => {
                    let Loan { mut region, range, is_whole } = receiver.lend().unwrap();
                    let len = if is_whole { range.len() } else { range.len().min(step) }.min(stream.len() - at);
                    region.as_mut_slice()[range.start..range.start + len].copy_from_slice(&stream[at..at + len]);
                    receiver.take_back(region, len);
                    at += len;
                }
            }
        }
    }

    /// P2. However the stream is cut, and with digests or without, what was sent is what comes.
    #[test]
    fn data_comes_whole_however_the_stream_is_cut() {
        let data: Vec<u8> = (0..=255).cycle().take(70_001).collect();
        for (header_digest, data_digest) in [(false, false), (true, true)] {
            let framing = Framing { header_digest, data_digest };
            let stream = [data_out(framing, &data[..5]), data_out(framing, &data)].concat();
            for step in [1000, 1023, 4096, usize::MAX] {
                let (taken, intact) = received(framing, &stream, step);
                assert!(taken == [&data[..5], &data].concat(), "{step}");
                assert_eq!(intact, [true, true]);
            }
        }
    }

    /// P2. A byte that was changed on its way is noticed, wherever it was received to.
    #[test]
    fn a_changed_byte_is_noticed_by_the_digest() {
        let framing = Framing { header_digest: false, data_digest: true };
        let data = vec![3; 50_000];
        for at in [48, 9000, 48 + 50_000] {
            let mut stream = data_out(framing, &data);
            stream[at] ^= 0x10;
            assert_eq!(received(framing, &stream, 1500).1, [false], "{at}");
        }
    }
}
