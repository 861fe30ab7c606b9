//! Connections: bytes in, requests to volumes, replies out, limits kept.

use super::mailbox::NewConnection;
use super::qos::operation_bytes;
use super::requests::Origin;
use super::{Shard, Token, VolumeSlot};
use crate::nbd::{
    Arrival, Arriving, Asked, Connection, Outgoing, Phase, Progress, Room, Sending, StreamEnd, bytes_held,
};
use crate::qos::{Ask, work_of};
use proto::nbd::{Errno, ReplyTo, Request as NbdRequest, Span, UnwantedPayload};
use proto::scsi::Access;
use std::io;
use units::ByteRange;
use uring::{Message, Region};
use volume::request::{Payload, Request};

/// Most requests of a connection taken in one turn, so that the first of many are answered while the others are worked
/// on, and nobody waits for a neighbour's backlog.
const REQUESTS_PER_TURN: u64 = 16;

impl Shard {
    pub(super) fn add_connection(&mut self, new: NewConnection) {
        let place = self.by_id.get(&new.volume).copied();
        let slot = place.and_then(|place| Some((place, self.volumes.get_mut(place)?)));
        let is_welcome = |slot: &VolumeSlot| slot.closing.is_none() && !new.attachment.is_expelled();
        let Some((place, slot)) = slot.filter(|(_, slot)| is_welcome(slot)) else {
            tracing::info!(volume = %new.volume, "a connection came for a volume that is not there for it any more");
            return;
        };
        slot.stats.connections += 1;
        self.stats.connections_total += 1;
        let key = self.connections.insert(Connection::new(new, place));
        self.take_requests(key);
    }

    /// Takes every request that has arrived, as far as the limits allow, and receives on.
    pub(super) fn take_requests(&mut self, key: usize) {
        let mut taken = 0;
        loop {
            let held_bytes = self.held_as_seen();
            let Some(connection) = self.connections.get_mut(key) else { return };
            let is_held = connection.is_stalled || connection.held_in.is_some();
            if connection.phase != Phase::Open || connection.receiving.is_some() || is_held {
                break;
            }
            let Some(standing) = self.volumes.get(connection.volume).map(|slot| slot.standing) else { break };
            let Room::Bytes(room) = connection.room(&self.limits, held_bytes) else {
                self.stall(key);
                break;
            };
            let (gate, now) = (&mut self.gate, self.now);
            let mut held_in = None;
            let arrival = connection.next_arrival(room, &mut self.buffers, |request| {
                let Some(bytes) = operation_bytes(request) else { return true };
                held_in = gate.ask(now, standing, Ask { key, bytes }).err();
                held_in.is_none()
            });
            match arrival {
                Ok(Arrival::Request { to, request, payload }) => {
                    taken += 1;
                    self.on_request(key, to, request, payload);
                    if taken == REQUESTS_PER_TURN {
                        self.unfinished.push(key);
                        break;
                    }
                }
                Ok(Arrival::Rejected { to, rejection }) => {
                    connection.replies.push_error(to, rejection.errno, rejection.message);
                    if rejection.payload == UnwantedPayload::TooLong {
                        connection.phase = Phase::Draining;
                    }
                    self.note_news(key);
                }
                Ok(Arrival::NoRoom) => {
                    self.stall(key);
                    break;
                }
                Ok(Arrival::Held) => {
                    connection.held_in = held_in;
                    break;
                }
                Ok(Arrival::Incomplete) => {
                    self.reserve_arriving(key);
                    self.receive(key);
                    break;
                }
                Err(end) => self.on_stream_end(key, &end),
            }
        }
        self.stats.requests_per_receive.record(taken);
    }

    /// Counts a payload that has begun to arrive as held, though most of it may be the client's still: what is reserved
    /// can be taken without asking again.
    fn reserve_arriving(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let held_bytes = connection.receiver.arriving_bytes();
        if held_bytes == 0 || connection.arriving.is_some() {
            return;
        }
        let (volume, work) = (connection.volume, work_of(held_bytes));
        connection.arriving =
            Some(Arriving { progress: Progress::begin(self.now), received_bytes: 0, held_bytes, work });
        connection.held_bytes += held_bytes;
        self.held_bytes += held_bytes;
        self.begin_work(volume, work);
    }

    /// Gives up what was reserved for a payload.
    fn release_arriving(&mut self, key: usize) {
        let arriving =
            self.connections.get_mut(key).and_then(|connection| Some((connection.volume, connection.arriving.take()?)));
        if let Some((volume, arriving)) = arriving {
            self.release(key, arriving.held_bytes);
            self.end_work(volume, arriving.work);
        }
    }

    /// Hands a request to the volume, or answers it where the volume has no part in it.
    fn on_request(&mut self, key: usize, to: ReplyTo, request: NbdRequest, payload: Payload) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let place = connection.volume;
        if access_of(&request).is_some_and(|access| self.is_fenced(place, access)) {
            self.refuse_fenced(key, to, payload);
            return;
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let NbdRequest::BlockStatus { span, one_extent } = request
            && let Some(range) = range_of(span).filter(|range| !range.is_empty())
        {
            let held_bytes = bytes_held(&request);
            connection.requests += 1;
            connection.held_bytes += held_bytes;
            self.held_bytes += held_bytes;
            let asked = Asked { to, len_bytes: range.len(), one_extent };
            self.begin_status((key, held_bytes), asked, range);
            return;
        }
        let Some(Translated { request: translated, len_bytes }) = translate(&request, payload) else {
            if request == NbdRequest::Disconnect {
                connection.phase = Phase::Draining;
            } else {
                connection.replies.push_done(to);
            }
            self.note_news(key);
            return;
        };
        let held_bytes = bytes_held(&request);
        let arriving = connection.arriving.take();
        let reserved_bytes = arriving.map_or(0, |arriving| arriving.held_bytes);
        assert!(reserved_bytes == 0 || reserved_bytes == held_bytes, "reserved for another request");
        connection.requests += 1;
        connection.held_bytes += held_bytes - reserved_bytes;
        self.held_bytes += held_bytes - reserved_bytes;
        let place = connection.volume;
        let asked = Asked { to, len_bytes, one_extent: false };
        // The work of one whose payload came in parts is counted already.
        let work = work_of(operation_bytes(&request).unwrap_or(0));
        if arriving.is_none_or(|arriving| arriving.work == 0) {
            self.begin_work(place, work);
        }
        self.begin(place, translated, Origin::Connection { key, asked, held_bytes, work });
    }

    /// Refuses what a SCSI reservation keeps those out of who are no nexus.
    fn refuse_fenced(&mut self, key: usize, to: ReplyTo, payload: Payload) {
        self.buffers.put_all(payload);
        self.release_arriving(key);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.replies.push_error(to, Errno::Perm, "an iSCSI initiator has reserved the volume");
        }
        self.note_news(key);
    }

    /// Takes more requests from connections that have had their share of the last turn.
    pub(super) fn resume_unfinished(&mut self) {
        std::mem::swap(&mut self.unfinished, &mut self.resuming);
        while let Some(key) = self.resuming.pop() {
            self.take_requests(key);
        }
    }

    fn on_stream_end(&mut self, key: usize, end: &StreamEnd) {
        match end {
            StreamEnd::Closed => tracing::debug!(connection = key, "closed by its client"),
            StreamEnd::BadMagic(_) | StreamEnd::Tls(_) => {
                tracing::info!(connection = key, %end, "a client broke the protocol");
            }
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.phase = connection.phase.max(Phase::Draining);
        }
        self.note_news(key);
    }

    fn stall(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !std::mem::replace(&mut connection.is_stalled, true)
        {
            self.stats.stalls += 1;
            self.is_short |= !connection.is_at_its_limit(&self.limits);
            self.stalled.push(key);
        }
    }

    /// What the shard holds, as who asks has to see it: others that were refused have their turn first, where there is one.
    pub(super) fn held_as_seen(&self) -> u64 {
        let is_out_of_turn = self.is_short && self.has_released && !self.is_resuming;
        if is_out_of_turn { self.held_bytes.max(self.limits.shard_bytes_max) } else { self.held_bytes }
    }

    /// Whether a connection that waits for room may have got some.
    pub(super) fn can_resume(&self) -> bool {
        let has_clients = !(self.stalled.is_empty() && self.stalled_units.is_empty());
        let has_writes = !(self.ungranted.is_empty() && self.released.is_empty());
        self.has_released && (has_clients || has_writes)
    }

    pub(super) fn resume_stalled(&mut self) {
        if !self.can_resume() {
            self.has_released = false;
            return;
        }
        self.has_released = false;
        (self.is_resuming, self.is_short) = (true, false);
        // What each kind gets by one release may be all there is: the next time another one comes first.
        self.turn = self.turn.wrapping_add(1);
        for kind in 0..3 {
            match (self.turn.wrapping_add(kind)) % 3 {
                0 => self.resume_stalled_units(),
                1 => self.resume_ungranted(),
                _ => self.resume_stalled_connections(),
            }
        }
        self.is_resuming = false;
    }

    fn resume_stalled_connections(&mut self) {
        // Who waits longest comes first.
        std::mem::swap(&mut self.stalled, &mut self.resuming);
        self.resuming.reverse();
        while let Some(key) = self.resuming.pop() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.is_stalled = false;
                self.take_requests(key);
            }
        }
    }

    fn receive(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
            self.note_news(key);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let loan = match &mut connection.tls {
            Some(tls) => tls.lend(),
            None => connection.receiver.lend(),
        };
        let Some(loan) = loan else { return };
        let token = Token::Receive(key);
        connection.receiving = Some(if loan.is_whole {
            self.ring.receive_whole(token, &connection.socket, loan.region, loan.range)
        } else {
            self.ring.receive(token, &connection.socket, loan.region, loan.range)
        });
    }

    pub(super) fn on_received(&mut self, key: usize, region: Region, result: &io::Result<usize>) {
        self.stats.receives += 1;
        let connection = self.connections.get_mut(key).expect("a connection outlives its receive");
        connection.receiving = None;
        let received = *result.as_ref().unwrap_or(&0);
        match &mut connection.tls {
            Some(tls) => tls.take_back(region, received),
            None => connection.receiver.take_back(region, received),
        }
        if let Some(arriving) = &mut connection.arriving {
            arriving.received_bytes += received;
        }
        match result {
            Ok(0) => self.on_stream_end(key, &StreamEnd::Closed),
            Ok(_) if connection.phase == Phase::Open => self.take_requests(key),
            Ok(_) => self.note_news(key),
            Err(_) if connection.phase == Phase::Draining => self.note_news(key),
            Err(_) => self.kill_connection(key),
        }
    }

    /// Puts a connection on the list of those to be looked at before the next wait.
    pub(super) fn note_news(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !std::mem::replace(&mut connection.has_news, true)
        {
            self.news.push(key);
        }
    }

    /// Sends what gathered, and forgets connections that are over.
    pub(super) fn send_replies(&mut self) {
        let mut news = std::mem::take(&mut self.news);
        for key in news.drain(..) {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.has_news = false;
            if connection.phase != Phase::Dead && connection.sending.is_none() {
                self.send(key);
            }
            if self.connections.get(key).is_some_and(Connection::is_over) {
                self.forget_connection(key);
            }
        }
        self.news = news;
    }

    fn send(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(Outgoing { message, held_bytes, count }) = connection.take_outgoing(&mut self.buffers) else { return };
        let id = self.ring.send(Token::Send(key), &connection.socket, message);
        connection.sending = Some(Sending { id, progress: Progress::begin(self.now), held_bytes, count });
    }

    pub(super) fn on_sent(&mut self, key: usize, message: Message, result: &io::Result<()>) {
        self.stats.sends += 1;
        let connection = self.connections.get_mut(key).expect("a connection outlives its send");
        let held_bytes = connection.sending.take().map_or(0, |sending| sending.held_bytes);
        connection.replies.recycle(message, &mut self.buffers);
        self.release(key, held_bytes);
        if result.is_err() {
            self.kill_connection(key);
        }
        self.note_news(key);
    }

    /// Gives a connection up: what it is owed is thrown away.
    pub(super) fn kill_connection(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.phase == Phase::Dead {
            return;
        }
        connection.phase = Phase::Dead;
        let Outgoing { message, held_bytes, .. } = connection.replies.take();
        connection.replies.recycle(message, &mut self.buffers);
        if connection.receiving.is_some() || connection.sending.is_some() {
            self.ring.shut_down(Token::Ignored, &connection.socket);
        }
        self.release(key, held_bytes);
        self.note_news(key);
    }

    /// While requests wait for memory: closes connections that hold some and whose clients do not go on with what they
    /// asked for. Slow is not standing still: any progress is as good as another.
    pub(super) fn close_stalling_connections(&mut self) {
        if !self.is_short_of_room() {
            return;
        }
        let Self { connections, ring, limits, now, .. } = self;
        let is_late = |(key, connection): (usize, &mut Connection)| {
            (connection.client_stall(ring, *now) >= limits.client_stall_max).then_some(key)
        };
        let late: Vec<usize> = connections.iter_mut().filter_map(is_late).collect();
        for key in late {
            tracing::warn!(connection = key, "closed a connection whose client neither reads its replies nor sends on");
            self.stats.stall_closes += 1;
            self.kill_connection(key);
        }
    }

    /// Whether somebody waits for what others hold.
    fn is_short_of_room(&self) -> bool {
        let waits =
            |connection: &Connection| connection.phase == Phase::Open && !connection.is_at_its_limit(&self.limits);
        self.held_bytes >= self.limits.shard_bytes_max
            && self.stalled.iter().any(|key| self.connections.get(*key).is_some_and(waits))
    }

    fn forget_connection(&mut self, key: usize) {
        self.release_arriving(key);
        let mut connection = self.connections.remove(key);
        assert_eq!(connection.held_bytes, 0, "what is over holds nothing");
        connection.receiver.abandon(&mut self.buffers);
        self.stalled.retain(|stalled| *stalled != key);
        self.leave_queue(connection.held_in, key);
        self.unfinished.retain(|unfinished| *unfinished != key);
        if let Some(slot) = self.volumes.get_mut(connection.volume) {
            slot.stats.connections -= 1;
        }
        self.touch(connection.volume);
    }
}

/// A request in the engine's words.
struct Translated {
    request: Request,
    len_bytes: u64,
}

/// `None` for a request that the engine has no part in: a farewell, or one that concerns no bytes.
///
/// A zeroed range takes no space here, and NO_HOLE asks for some to be kept; since a log has no place to keep it in, the
/// flag changes nothing, as the protocol allows. FAST_ZERO holds always: zeroing is one record, whatever the length.
fn translate(request: &NbdRequest, payload: Payload) -> Option<Translated> {
    let span = match *request {
        NbdRequest::Flush => {
            return Some(Translated { request: Request::Flush, len_bytes: 0 });
        }
        // A status is asked of each context by itself; of no bytes there is none.
        NbdRequest::Disconnect | NbdRequest::BlockStatus { .. } => return None,
        NbdRequest::Read { span, .. }
        | NbdRequest::Write { span, .. }
        | NbdRequest::Trim { span, .. }
        | NbdRequest::Cache { span }
        | NbdRequest::WriteZeroes { span, .. } => span,
    };
    let range = range_of(span).filter(|range| !range.is_empty())?;
    let request = match *request {
        NbdRequest::Read { .. } => Request::Read { range },
        NbdRequest::Write { fua, .. } => Request::Write { range, payload, fua },
        NbdRequest::Trim { fua, .. } => Request::Trim { range, fua },
        NbdRequest::Cache { .. } => Request::Cache { range },
        NbdRequest::WriteZeroes { fua, .. } => Request::WriteZeroes { range, fua },
        NbdRequest::Flush | NbdRequest::Disconnect | NbdRequest::BlockStatus { .. } => return None,
    };
    Some(Translated { request, len_bytes: range.len() })
}

/// What a request does to a reserved volume; nothing where a reservation has no say.
const fn access_of(request: &NbdRequest) -> Option<Access> {
    match request {
        NbdRequest::Disconnect => None,
        NbdRequest::Read { .. } | NbdRequest::Cache { .. } | NbdRequest::BlockStatus { .. } => Some(Access::Read),
        NbdRequest::Write { .. } | NbdRequest::Trim { .. } | NbdRequest::WriteZeroes { .. } | NbdRequest::Flush => {
            Some(Access::Write)
        }
    }
}

/// A span lies within the export, and an export within 2^63 bytes.
fn range_of(span: Span) -> Option<ByteRange> {
    ByteRange::new(span.offset, span.len_bytes).ok()
}
