//! One NBD connection in the transmission phase: what it has received, what it owes, and how it ends.
//!
//! Knows bytes and limits; the shard moves them. Spec: NBD proto.md, "Transmission".
//!
//! A connection that is replaced by a new one of the same client cannot haunt it: its requests either were handed to
//! the volume, whose log puts them before anything that comes later, or are still in its receive buffer, and those are
//! thrown away as soon as its end is seen, never carried out. Both connections live on the volume's one shard, so that
//! no request of either can be on its way elsewhere.

mod errno;
mod receive;
mod reply;

pub(crate) use receive::{Arrival, EXTENTS_MAX, Receiver, bytes_held};
pub(crate) use reply::{Asked, Outgoing, Replies, StatusPart, status_part};

use crate::limits::Limits;
use crate::listener::{Attachment, ChangesContext};
use crate::qos::Queue;
use crate::shard::NewConnection;
use crate::tls::{Plain, Tls};
use proto::nbd::{BadMagic, MetaContext, Request, Session};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use units::Monotonic;
use uring::{OperationId, Ring};
use volume::buffer::BufferPool;
use volume::pool::Parent;

/// How far a connection is from its end. Only ever goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Requests are taken.
    Open,
    /// No more requests are taken; those under way are answered.
    Draining,
    /// The socket is of no use: answers are thrown away.
    Dead,
}

/// A metadata context that a client has selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatusContext {
    pub(crate) id: u32,
    /// The snapshot since which it tells what has changed; `None` for which parts hold data.
    pub(crate) since: Option<Parent>,
}

fn status_contexts(selected: &[MetaContext], changes: &[ChangesContext]) -> Vec<StatusContext> {
    let since = |name: &str| changes.iter().find(|context| context.name == name).map(|context| context.since);
    selected.iter().map(|context| StatusContext { id: context.id, since: since(&context.name) }).collect()
}

/// A connection of a shard.
#[derive(Debug)]
pub(crate) struct Connection {
    /// First, so that who sees its socket closed is counted no more.
    #[expect(dead_code, reason = "kept for its drop")]
    attachment: Attachment,
    pub(crate) socket: Rc<OwnedFd>,
    /// Place of its volume in the shard.
    pub(crate) volume: usize,
    pub(crate) session: Session,
    pub(crate) receiver: Receiver,
    pub(crate) replies: Replies,
    /// What a block status tells, in the order in which it does.
    pub(crate) contexts: Vec<StatusContext>,
    pub(crate) tls: Option<Box<Tls>>,
    pub(crate) phase: Phase,
    /// The receive in flight.
    pub(crate) receiving: Option<OperationId>,
    /// The send in flight.
    pub(crate) sending: Option<Sending>,
    /// The payload that is arriving, which room is reserved for.
    pub(crate) arriving: Option<Arriving>,
    /// Requests that the volume has and has not answered.
    pub(crate) requests: usize,
    /// Bytes held by those, by replies that are not sent, and reserved for the payload that is arriving.
    pub(crate) held_bytes: u64,
    /// Whether a request waits for room under the limits.
    pub(crate) is_stalled: bool,
    /// Where a request waits that may not pass the gate.
    pub(crate) held_in: Option<Queue>,
    /// Whether the end of TLS was announced.
    has_said_farewell: bool,
    /// Whether the shard's list of connections with replies has it.
    pub(crate) has_news: bool,
    /// Given back when the connection ends.
    #[expect(dead_code, reason = "kept for its drop")]
    permit: Permit,
}

/// A send in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    pub(crate) id: OperationId,
    pub(crate) progress: Progress,
    /// Bytes of buffers that it holds.
    pub(crate) held_bytes: u64,
    /// Number of replies in it.
    pub(crate) count: usize,
}

/// A payload of which the client has sent a part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arriving {
    pub(crate) progress: Progress,
    /// Bytes of it that came with receives that have ended.
    pub(crate) received_bytes: usize,
    /// Bytes reserved for all of it.
    pub(crate) held_bytes: u64,
    /// Work that it counts as under way with.
    pub(crate) work: u64,
}

/// How far a client was with its part when that was last looked at, and since when it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    bytes: usize,
    since: Monotonic,
}

impl Progress {
    pub(crate) const fn begin(now: Monotonic) -> Self {
        Self { bytes: 0, since: now }
    }

    /// Notes how far the client is; returns how long it has been no further.
    pub(crate) fn note(&mut self, now: Monotonic, bytes: usize) -> Duration {
        if bytes != self.bytes {
            *self = Self { bytes, since: now };
        }
        now.since(self.since)
    }
}

/// Why no more requests come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamEnd {
    /// The client has closed its side.
    #[error("closed by the client")]
    Closed,
    /// A request does not begin like one.
    #[error(transparent)]
    BadMagic(#[from] BadMagic),
    /// The client broke a rule of TLS.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Whatever counts the connection elsewhere; dropped with it.
pub struct Permit(Option<Box<dyn Send>>);

impl Permit {
    /// Keeps `counted` until the connection ends.
    #[must_use]
    pub fn new(counted: impl Send + 'static) -> Self {
        Self(Some(Box::new(counted)))
    }

    /// For connections that nobody counts.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permit({})", self.0.is_some())
    }
}

impl Connection {
    /// Begins the transmission phase on the volume at place `volume` of the shard.
    pub(crate) fn new(new: NewConnection, volume: usize) -> Self {
        let NewConnection { socket, negotiated, leftover, tls, changes, attachment, permit, .. } = new;
        let session = negotiated.session();
        let contexts = status_contexts(&negotiated.contexts, &changes);
        Self {
            attachment,
            socket: Rc::new(socket),
            volume,
            session,
            receiver: Receiver::new(&leftover),
            replies: Replies::new(session.style),
            contexts,
            tls: tls.map(|session| Box::new(Tls::new(session))),
            phase: Phase::Open,
            receiving: None,
            sending: None,
            arriving: None,
            requests: 0,
            held_bytes: 0,
            is_stalled: false,
            held_in: None,
            has_said_farewell: false,
            has_news: false,
            permit,
        }
    }

    /// Bytes that the next request may hold, given what the whole shard holds.
    pub(crate) fn room(&self, limits: &Limits, shard_held_bytes: u64) -> Room {
        if self.arriving.is_some() {
            // What comes next has its room already.
            return Room::Bytes(0);
        }
        if self.is_at_its_limit(limits) {
            return Room::None;
        }
        if shard_held_bytes < limits.shard_bytes_max {
            return Room::Bytes(u64::MAX);
        }
        match limits.guaranteed_bytes.saturating_sub(self.held_bytes) {
            bytes if bytes > 0 && shard_held_bytes < limits.shard_bytes_max.saturating_mul(2) => Room::Bytes(bytes),
            _ => Room::None,
        }
    }

    /// Whether it has so much under way that it gets no more, whatever others have.
    pub(crate) fn is_at_its_limit(&self, limits: &Limits) -> bool {
        // Replies that are not sent count too, or a client that reads none could have any number of them gather.
        let unanswered = self.requests + self.replies.count() + self.sending.map_or(0, |sending| sending.count);
        unanswered >= limits.connection_requests_max || self.held_bytes >= limits.connection_bytes_max
    }

    /// Takes the next request out of what was received.
    ///
    /// # Errors
    /// [`StreamEnd`] when no more can come.
    pub(crate) fn next_arrival(
        &mut self,
        room: u64,
        buffers: &mut BufferPool,
        mut may_pass: impl FnMut(&Request) -> bool,
    ) -> Result<Arrival, StreamEnd> {
        loop {
            let arrival = self.receiver.next(&self.session, room, buffers, &mut may_pass)?;
            let (Arrival::Incomplete, Some(tls)) = (&arrival, &mut self.tls) else { return Ok(arrival) };
            match tls.read_plain(self.receiver.space())? {
                Plain::Bytes(len) => self.receiver.advance(len),
                Plain::NeedBytes => return Ok(Arrival::Incomplete),
                Plain::Closed => return Err(StreamEnd::Closed),
            }
        }
    }

    /// Takes what is to be sent now, sealed where there is TLS.
    pub(crate) fn take_outgoing(&mut self, buffers: &mut BufferPool) -> Option<Outgoing> {
        let is_last = self.phase == Phase::Draining && self.requests == 0;
        let Some(tls) = &mut self.tls else {
            return (!self.replies.is_empty()).then(|| self.replies.take());
        };
        if is_last && !std::mem::replace(&mut self.has_said_farewell, true) {
            tls.close();
        }
        if self.replies.is_empty() && !tls.wants_write() {
            return None;
        }
        let Outgoing { message, held_bytes, count } = self.replies.take();
        let mut sealed = self.replies.spare();
        tls.seal(&message, buffers, &mut sealed);
        self.replies.recycle(message, buffers);
        Some(Outgoing { message: sealed, held_bytes, count })
    }

    /// How long its client has left bytes unread that are being sent, or a payload unfinished.
    pub(crate) fn client_stall<T>(&mut self, ring: &Ring<T>, now: Monotonic) -> Duration {
        let sending = self.sending.as_mut().map(|sending| sending.progress.note(now, ring.moved_bytes(sending.id)));
        sending.max(self.arrival_stall(ring, now)).unwrap_or_default()
    }

    /// How long its client has left a payload unfinished, if one is arriving.
    pub(crate) fn arrival_stall<T>(&mut self, ring: &Ring<T>, now: Monotonic) -> Option<Duration> {
        let received_bytes = self.receiving.map_or(0, |id| ring.moved_bytes(id));
        let arriving = self.arriving.as_mut()?;
        Some(arriving.progress.note(now, arriving.received_bytes + received_bytes))
    }

    /// Whether everything it owed is done with, so that it can be forgotten.
    pub(crate) const fn is_over(&self) -> bool {
        let owes_replies = !self.replies.is_empty() && !matches!(self.phase, Phase::Dead);
        !matches!(self.phase, Phase::Open)
            && self.requests == 0
            && !owes_replies
            && self.sending.is_none()
            && self.receiving.is_none()
    }
}

/// What the limits leave for a connection's next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// It waits.
    None,
    /// It may hold so many bytes.
    Bytes(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_client_that_goes_on_never_counts_as_standing_still() {
        let at = |seconds| Monotonic::default().plus(Duration::from_secs(seconds));
        let mut progress = Progress::begin(at(0));
        for second in 1..100 {
            let bytes = usize::try_from(second).unwrap() << 16;
            assert_eq!(progress.note(at(second), bytes), Duration::ZERO);
        }
        assert_eq!(progress.note(at(102), 99 << 16), Duration::from_secs(3));
        assert_eq!(progress.note(at(103), 100 << 16), Duration::ZERO);
    }
}
