//! Requests out of a connection's byte stream.
//!
//! Small requests and payloads are parsed in the receive buffer, many from one receive; a payload is copied once, into
//! the buffer that goes to the engine. What is missing of a large payload is received straight into that buffer. Memory
//! for a payload is taken as it arrives, a piece at a time, and only when the connection's limits have room for all of it;
//! the shard reserves that room for it from its first byte on.

use crate::payload::ArrivingPayload;
use crate::stream::{Loan, Stream};
use proto::nbd::{BadMagic, Rejection, ReplyTo, Request, Session, UnwantedPayload};
use uring::Region;
use volume::buffer::BufferPool;
use volume::request::Payload;

/// Most extents in a block status reply. There may be more in the range: the client asks on.
pub(crate) const EXTENTS_MAX: usize = 4096;

/// Bytes of the longest block status reply, which lies in memory until it is sent.
const STATUS_BYTES_MAX: u64 = EXTENTS_MAX as u64 * 16;

/// What came out of the stream.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A request that keeps the rules, with its whole payload.
    Request { to: ReplyTo, request: Request, payload: Payload },
    /// A request that breaks a rule; its payload, if it is to be skipped, is.
    Rejected { to: ReplyTo, rejection: Rejection },
    /// The next request does not fit the limits now. It stays in the buffer.
    NoRoom,
    /// The next request may not pass the gate now. It stays in the buffer.
    Held,
    /// More bytes are needed.
    Incomplete,
}

/// Takes requests off a connection's stream.
#[derive(Debug)]
pub(crate) struct Receiver {
    stream: Stream,
    state: State,
}

#[derive(Debug)]
enum State {
    Header,
    Payload(Incoming),
    Skip { left: usize },
}

/// A write whose payload is arriving.
#[derive(Debug)]
struct Incoming {
    to: ReplyTo,
    request: Request,
    payload: ArrivingPayload,
}

impl Receiver {
    /// Makes a receiver that begins with `leftover`, which was received during the handshake.
    pub(crate) fn new(leftover: &[u8]) -> Self {
        Self { stream: Stream::new(leftover), state: State::Header }
    }

    /// Takes the next request, if all of it is there. One that carries or asks for more than `room` bytes waits, and so does
    /// one that `may_pass` says no to, which is asked once of each that is taken.
    ///
    /// # Errors
    /// [`BadMagic`] ends the connection.
    pub(crate) fn next(
        &mut self,
        session: &Session,
        room: u64,
        buffers: &mut BufferPool,
        may_pass: &mut impl FnMut(&Request) -> bool,
    ) -> Result<Arrival, BadMagic> {
        loop {
            match &mut self.state {
                State::Header => {
                    if let Some(arrival) = self.take_header(session, room, may_pass)? {
                        return Ok(arrival);
                    }
                }
                State::Payload(incoming) => {
                    let taken = incoming.payload.take(self.stream.unread(), buffers);
                    self.stream.consume(taken);
                    if !incoming.payload.is_complete() {
                        return Ok(Arrival::Incomplete);
                    }
                    let Incoming { to, request, payload } = incoming;
                    let arrival = Arrival::Request { to: *to, request: *request, payload: payload.finish() };
                    self.state = State::Header;
                    return Ok(arrival);
                }
                State::Skip { left } => {
                    let skipped = self.stream.unread().len().min(*left);
                    self.stream.consume(skipped);
                    *left -= skipped;
                    if *left > 0 {
                        return Ok(Arrival::Incomplete);
                    }
                    self.state = State::Header;
                }
            }
        }
    }

    /// `None` when a payload is to be taken first.
    fn take_header(
        &mut self,
        session: &Session,
        room: u64,
        may_pass: &mut impl FnMut(&Request) -> bool,
    ) -> Result<Option<Arrival>, BadMagic> {
        let unread = self.stream.unread();
        let mut rest = unread;
        let Some(header) = session.decode_header(&mut rest)? else {
            return Ok(Some(Arrival::Incomplete));
        };
        let header_len = unread.len() - rest.len();
        let to = header.reply_to();
        let request = match session.parse(&header) {
            Ok(request) => request,
            Err(rejection) => {
                self.stream.consume(header_len);
                if let UnwantedPayload::Skip { bytes } = rejection.payload {
                    self.state = State::Skip { left: usize::try_from(bytes).unwrap_or(usize::MAX) };
                }
                return Ok(Some(Arrival::Rejected { to, rejection }));
            }
        };
        if bytes_held(&request) > room {
            return Ok(Some(Arrival::NoRoom));
        }
        if !may_pass(&request) {
            return Ok(Some(Arrival::Held));
        }
        self.stream.consume(header_len);
        let left = usize::try_from(request.payload_bytes()).expect("the session limits payloads to 32 MiB");
        self.stream.expect_data(left);
        if left == 0 {
            return Ok(Some(Arrival::Request { to, request, payload: Payload::new() }));
        }
        self.state = State::Payload(Incoming { to, request, payload: ArrivingPayload::new(left) });
        Ok(None)
    }

    /// Bytes of the payload that is arriving, whether they are there or not; 0 when none is.
    pub(crate) const fn arriving_bytes(&self) -> u64 {
        match &self.state {
            State::Payload(incoming) => bytes_held(&incoming.request),
            State::Header | State::Skip { .. } => 0,
        }
    }

    /// Lends the memory for the next receive, or nothing when it is lent already. To be called when [`Receiver::next`]
    /// has answered [`Arrival::Incomplete`].
    pub(crate) fn lend(&mut self) -> Option<Loan> {
        let payload = match &mut self.state {
            // A piece is left unfilled only when the buffer has run out, so the stream's next bytes belong into it.
            State::Payload(incoming) => Some((&mut incoming.payload, usize::MAX)),
            State::Header | State::Skip { .. } => None,
        };
        self.stream.lend(payload)
    }

    /// Takes lent memory back, of which the first `received` bytes were filled.
    pub(crate) fn take_back(&mut self, region: Region, received: usize) {
        if let Some(piece) = self.stream.take_back(region, received)
            && let State::Payload(incoming) = &mut self.state
        {
            incoming.payload.take_back(piece, received);
        }
    }

    /// Memory for the stream's next bytes, where they come from a source other than a receive. Not empty when
    /// [`Receiver::next`] has answered [`Arrival::Incomplete`].
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if let State::Payload(incoming) = &mut self.state
            && incoming.payload.has_piece()
        {
            return incoming.payload.space();
        }
        self.stream.space()
    }

    /// Says that the first `len` bytes of [`Receiver::space`] were filled.
    pub(crate) fn advance(&mut self, len: usize) {
        match &mut self.state {
            State::Payload(incoming) if incoming.payload.has_piece() => incoming.payload.advance(len),
            State::Payload(_) | State::Header | State::Skip { .. } => self.stream.advance(len),
        }
    }

    /// Gives back what a request that never became whole has taken.
    pub(crate) fn abandon(&mut self, buffers: &mut BufferPool) {
        if let State::Payload(incoming) = &mut self.state {
            incoming.payload.abandon(buffers);
        }
        self.state = State::Header;
        self.stream.clear();
    }
}

/// Bytes of buffers that a request holds until it is answered and its answer sent.
pub(crate) const fn bytes_held(request: &Request) -> u64 {
    match request {
        Request::Read { span, .. } | Request::Write { span, .. } => span.len_bytes,
        Request::BlockStatus { .. } => STATUS_BYTES_MAX,
        Request::Disconnect
        | Request::Flush
        | Request::Trim { .. }
        | Request::Cache { .. }
        | Request::WriteZeroes { .. } => 0,
    }
}

#[cfg(test)]
mod tests;
