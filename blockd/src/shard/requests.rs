//! Requests under way: handed to a volume, and answered to whom they came from.

use super::Shard;
use super::mailbox::Callback;
use super::stats::Verb;
use crate::nbd::{Asked, Phase};
use link::LifeNumber;
use replication::passing::Guest;
use units::{ByteRange, Monotonic, VolumeId};
use volume::engine::HOLD_DURATION_MAX;
use volume::error::{Error, ErrorKind};
use volume::io::Event;
use volume::request::{Completion, Reply, Request, RequestId};

/// A request that a volume has.
pub(super) struct Pending {
    pub(super) volume: usize,
    verb: Verb,
    bytes: u64,
    pub(super) since: Monotonic,
    /// Of a mirrored volume: what asks for the same once more, where that changes nothing.
    pub(super) again: Option<Again>,
    pub(super) origin: Origin,
}

/// A request that changes nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Again {
    Read(ByteRange),
    Flush,
    Cache(ByteRange),
    Extents(ByteRange, usize),
}

/// Where a request came from.
pub(super) enum Origin {
    /// The connection at this place.
    Connection {
        key: usize,
        asked: Asked,
        /// Bytes that it holds under the limits.
        held_bytes: u64,
        /// Work that it counts as under way with.
        work: u64,
    },
    /// The block status that is gathered at this place, of which it tells one context.
    Status { key: usize, context_id: u32 },
    /// The command of a logical unit that is under way at this place.
    Unit { key: usize },
    /// A client of the other site, which passed it on in a life of the link.
    Guest { guest: Guest, life: LifeNumber },
    /// Another thread.
    Caller(Callback<Result<Completion, Error>>),
    /// The shard, which is closing the volume.
    Closing,
    /// Whoever it was has been told that it ended: what the volume still answers is thrown away.
    Ended,
}

impl Pending {
    /// Has it be one that ended, unless it is; returns it as it was.
    pub(super) fn end(&mut self) -> Option<Self> {
        let Self { volume, verb, bytes, since, again, ref mut origin } = *self;
        let origin = std::mem::replace(origin, Origin::Ended);
        let is_ended = matches!(origin, Origin::Ended);
        (!is_ended).then_some(Self { volume, verb, bytes, since, again, origin })
    }
}

impl Again {
    const fn of(request: &Request) -> Option<Self> {
        match request {
            Request::Read { range } => Some(Self::Read(*range)),
            Request::Flush => Some(Self::Flush),
            Request::Cache { range } => Some(Self::Cache(*range)),
            Request::Extents { range, extents_max } => Some(Self::Extents(*range, *extents_max)),
            Request::Write { .. }
            | Request::CompareAndWrite { .. }
            | Request::OrWrite { .. }
            | Request::Copy { .. }
            | Request::Lend { .. }
            | Request::Borrow { .. }
            | Request::Trim { .. }
            | Request::WriteZeroes { .. }
            | Request::Changed { .. }
            | Request::Resize { .. }
            | Request::Snapshot { .. }
            | Request::Hold
            | Request::Release
            | Request::Checkpoint
            | Request::Meter
            | Request::KeepTime { .. } => None,
        }
    }

    pub(super) const fn request(self) -> Request {
        match self {
            Self::Read(range) => Request::Read { range },
            Self::Flush => Request::Flush,
            Self::Cache(range) => Request::Cache { range },
            Self::Extents(range, extents_max) => Request::Extents { range, extents_max },
        }
    }
}

impl Shard {
    /// Hands a request to the volume at `place`.
    pub(super) fn begin(&mut self, place: usize, request: Request, origin: Origin) {
        let Some(slot) = self.volumes.get_mut(place) else { return };
        slot.stats.begin();
        self.begun += 1;
        let (verb, bytes) = measure(&request);
        if matches!(request, Request::Hold) {
            // The volume ends it by itself, when it is told the time.
            self.next_tick = self.next_tick.min(self.now.plus(HOLD_DURATION_MAX));
        }
        let is_mirrored = slot.mirror.is_some();
        // What is read there must not be older than the request: whether it is, is asked by this time.
        let since = if is_mirrored { self.clock() } else { self.now };
        let again = Again::of(&request).filter(|_| is_mirrored);
        let id = self.requests.insert(Pending { volume: place, verb, bytes, since, again, origin });
        if is_mirrored {
            return self.begin_mirrored(place, id, request);
        }
        self.tell(place, Event::Request { id: RequestId(id as u64), request });
    }

    /// Hands in a request of another thread.
    pub(super) fn submit(&mut self, volume: VolumeId, request: Request, done: Callback<Result<Completion, Error>>) {
        let place = self.by_id.get(&volume).copied();
        let is_open = |place: &usize| self.volumes.get(*place).is_some_and(|slot| slot.closing.is_none());
        match place.filter(is_open) {
            Some(place) => self.begin(place, request, Origin::Caller(done)),
            None => done(Err(Error::new(ErrorKind::Closing, format!("volume {volume} is not open")))),
        }
    }

    /// Passes a volume's answer on.
    pub(super) fn on_reply(&mut self, reply: Reply) {
        let id = usize::try_from(reply.id.0).unwrap_or(usize::MAX);
        let pending = self.requests.try_remove(id).expect("a volume answers each request once");
        if matches!(pending.origin, Origin::Ended) {
            // Whoever it was has been told, and it is counted.
            if let Ok(completion) = reply.result {
                self.throw_away(completion);
            }
        } else if let Some((pending, result)) = self.hold_back(pending, reply.result) {
            self.finish(pending, result);
        }
    }

    /// Tells whoever asked.
    pub(super) fn finish(&mut self, pending: Pending, result: Result<Completion, Error>) {
        self.note_ended(&pending, result.is_ok());
        match pending.origin {
            Origin::Connection { key, asked, held_bytes, work } => {
                self.end_work(pending.volume, work);
                self.answer(key, asked, held_bytes, result);
            }
            // Later: what it asks next must not come while the volume's actions are carried out.
            Origin::Unit { key } => self.unit_replies.push((key, result)),
            Origin::Status { key, context_id } => self.take_status(key, context_id, result),
            Origin::Caller(done) => {
                self.note_size(pending.volume);
                done(result);
            }
            Origin::Guest { guest, life } => self.answer_guest(pending.volume, (guest, life), result),
            Origin::Closing => self.on_checkpointed(pending.volume, result),
            Origin::Ended => {}
        }
    }

    /// Counts a request that has ended.
    pub(super) fn note_ended(&mut self, pending: &Pending, is_ok: bool) {
        let Some(slot) = self.volumes.get_mut(pending.volume) else { return };
        slot.stats.end(pending.verb, pending.bytes, self.now.since(pending.since), is_ok);
        let is_of_client =
            matches!(pending.origin, Origin::Connection { .. } | Origin::Unit { .. } | Origin::Guest { .. });
        if is_ok && is_of_client {
            slot.stats.count_carried_out(pending.verb, pending.bytes);
        }
    }

    /// Holds the connections of a volume to the size that it has now.
    pub(super) fn note_size(&mut self, place: usize) {
        let Some(slot) = self.volumes.get_mut(place) else { return };
        let size_bytes = slot.volume.size_bytes();
        slot.unit.note_size(size_bytes);
        for (_, connection) in self.connections.iter_mut().filter(|(_, connection)| connection.volume == place) {
            connection.session.size_bytes = size_bytes;
        }
    }

    fn answer(&mut self, key: usize, asked: Asked, held_bytes: u64, result: Result<Completion, Error>) {
        let connection = self.connections.get_mut(key).expect("a connection outlives its requests");
        connection.requests -= 1;
        // A reply with data holds it until it is sent.
        let is_kept = matches!(result, Ok(Completion::Read { .. } | Completion::Extents(_)));
        if connection.phase == Phase::Dead {
            if let Ok(Completion::Read { buffer, .. }) = result {
                self.buffers.put(buffer);
            }
            self.release(key, held_bytes);
        } else {
            connection.replies.push(asked, if is_kept { held_bytes } else { 0 }, result);
            if !is_kept {
                self.release(key, held_bytes);
            }
        }
        self.note_news(key);
    }

    /// Gives back what a connection's requests or replies held.
    pub(super) fn release(&mut self, key: usize, held_bytes: u64) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.held_bytes -= held_bytes;
            self.held_bytes -= held_bytes;
        }
        self.has_released = true;
    }
}

/// How a request is counted: as what, and with how many bytes.
fn measure(request: &Request) -> (Verb, u64) {
    match request {
        Request::Read { range } => (Verb::Read, range.len()),
        Request::Write { range, .. } | Request::CompareAndWrite { range, .. } | Request::OrWrite { range, .. } => {
            (Verb::Write, range.len())
        }
        // It moves no bytes.
        Request::Copy { .. } | Request::Borrow { .. } => (Verb::Write, 0),
        Request::Lend { .. } => (Verb::Read, 0),
        Request::Trim { range, .. } => (Verb::Trim, range.len()),
        Request::WriteZeroes { range, .. } => (Verb::WriteZeroes, range.len()),
        Request::Flush => (Verb::Flush, 0),
        Request::Cache { range } => (Verb::Cache, range.len()),
        Request::Extents { range, .. } | Request::Changed { range, .. } => (Verb::BlockStatus, range.len()),
        Request::Resize { .. } | Request::Snapshot { .. } | Request::Hold | Request::Release | Request::Checkpoint => {
            (Verb::Control, 0)
        }
        Request::Meter | Request::KeepTime { .. } => (Verb::Control, 0),
    }
}
