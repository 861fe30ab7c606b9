//! iSCSI on a shard: bytes between sockets and sessions. What PDUs mean is in `pdus`, what becomes of commands in `tasks`,
//! how they are aborted in `management`, how sessions begin and end in `sessions`.

mod copies;
mod management;
mod pdus;
mod room;
mod sessions;
mod tasks;

use super::{Shard, Token};
use crate::iscsi::{Arrival, Connection, NewConnection, Sending, Session, Task};
use crate::nbd::Phase;
use crate::unit::SessionKey;
use proto::iscsi::{NopIn, constants, nop_in};
use std::io;
use std::time::Duration;
use uring::{Message, Region};

/// Most PDUs of a connection taken in one turn: see `shard::clients`.
const PDUS_PER_TURN: usize = 16;

/// Bytes that wait to be sent from which on a connection that does not take them gets no more: answers that hold no buffer too.
const UNSENT_BYTES_MAX: usize = 4 << 20;

/// After how long without a word an initiator is asked whether it is there, and after how long more it is given up.
/// RFC 7143 11.19.
const PING_AFTER: Duration = Duration::from_secs(15);
const PING_WAIT: Duration = Duration::from_secs(15);

impl Shard {
    pub(in crate::shard) fn add_iscsi_connection(&mut self, mut new: NewConnection) {
        let (key, begins) = (new.session, new.begins.take());
        if let Some(begins) = begins {
            self.begin_session(key, &new.parameters, *begins);
        }
        let Some(session) = self.sessions.get(&key) else {
            tracing::info!(?key, "a connection came for a session that is not there any more");
            return;
        };
        new.parameters = new.parameters.within(session.parameters);
        // One of the same number takes the place of that one. RFC 7143 6.3.4.
        let is_same = |place: &&usize| self.iscsi.get(**place).is_some_and(|other| other.cid == new.cid);
        let replaced: Vec<usize> = session.connections.iter().filter(is_same).copied().collect();
        for other in replaced {
            self.drop_tasks_of(key, other);
            self.kill_iscsi(other);
        }
        self.stats.connections_total += 1;
        let place = self.iscsi.insert(Connection::new(new, self.now));
        if let Some(session) = self.sessions.get_mut(&key) {
            session.connections.push(place);
        }
        self.is_ticking = true;
        self.note_iscsi_news(place);
        self.take_pdus(place);
    }

    /// Takes every PDU that has arrived, and receives on.
    pub(in crate::shard) fn take_pdus(&mut self, key: usize) {
        for _ in 0..PDUS_PER_TURN {
            let Some(connection) = self.iscsi.get_mut(key) else { return };
            if connection.phase != Phase::Open || connection.receiving.is_some() {
                return;
            }
            // Who does not take answers asks for no more.
            if connection.outbox.len() > UNSENT_BYTES_MAX {
                connection.is_full = true;
                return;
            }
            match connection.receiver.next(&mut self.buffers) {
                Ok(Arrival::Head(head)) => self.on_head(key, &head),
                Ok(Arrival::Segment { sink, is_intact }) => self.on_segment(key, sink, is_intact),
                Ok(Arrival::Incomplete) => {
                    self.receive_iscsi(key);
                    return;
                }
                Err(error) => {
                    tracing::info!(connection = key, ?error, "an initiator broke the protocol");
                    self.drain_iscsi(key);
                    return;
                }
            }
        }
        self.unfinished_iscsi.push(key);
    }

    pub(in crate::shard) fn resume_unfinished_iscsi(&mut self) {
        for key in std::mem::take(&mut self.unfinished_iscsi) {
            self.take_pdus(key);
        }
    }

    fn receive_iscsi(&mut self, key: usize) {
        let Some(connection) = self.iscsi.get_mut(key) else { return };
        let Some(loan) = connection.receiver.lend() else { return };
        let token = Token::IscsiReceive(key);
        connection.receiving = Some(if loan.is_whole {
            self.ring.receive_whole(token, &connection.socket, loan.region, loan.range)
        } else {
            self.ring.receive(token, &connection.socket, loan.region, loan.range)
        });
    }

    pub(in crate::shard) fn on_iscsi_received(&mut self, key: usize, region: Region, result: &io::Result<usize>) {
        self.stats.receives += 1;
        let now = self.now;
        let connection = self.iscsi.get_mut(key).expect("a connection outlives its receive");
        connection.receiving = None;
        (connection.heard_at, connection.is_pinged) = (now, false);
        if connection.receiver.takes_payload() {
            connection.fed_at = now;
        }
        connection.receiver.take_back(region, *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => self.kill_iscsi(key),
            Ok(_) if connection.phase == Phase::Open => self.take_pdus(key),
            Ok(_) => self.note_iscsi_news(key),
            Err(_) if connection.phase == Phase::Draining => self.note_iscsi_news(key),
            Err(_) => self.kill_iscsi(key),
        }
    }

    /// Puts a connection on the list of those to be looked at before the next wait.
    pub(super) fn note_iscsi_news(&mut self, key: usize) {
        if let Some(connection) = self.iscsi.get_mut(key)
            && !std::mem::replace(&mut connection.has_news, true)
        {
            self.iscsi_news.push(key);
        }
    }

    /// Sends what gathered, and forgets connections that are over.
    pub(in crate::shard) fn send_pdus(&mut self) {
        self.take_session_news();
        let mut news = std::mem::take(&mut self.iscsi_news);
        for key in news.drain(..) {
            let Some(connection) = self.iscsi.get_mut(key) else { continue };
            connection.has_news = false;
            if connection.phase != Phase::Dead && connection.sending.is_none() && !connection.outbox.is_empty() {
                let (message, held_bytes) = connection.outbox.take();
                let id = self.ring.send(Token::IscsiSend(key), &connection.socket, message);
                connection.sending = Some(Sending { id, held_bytes, since: self.now, moved: 0 });
                if std::mem::take(&mut connection.is_full) {
                    self.unfinished_iscsi.push(key);
                }
            }
            if self.iscsi.get(key).is_some_and(Connection::is_over) {
                self.forget_iscsi(key);
            }
        }
        self.iscsi_news = news;
    }

    pub(in crate::shard) fn on_iscsi_sent(&mut self, key: usize, message: Message, result: &io::Result<()>) {
        self.stats.sends += 1;
        let connection = self.iscsi.get_mut(key).expect("a connection outlives its send");
        let held_bytes = connection.sending.take().map_or(0, |sending| sending.held_bytes);
        connection.outbox.recycle(message, &mut self.buffers);
        self.release_iscsi(key, held_bytes);
        self.note_iscsi_news(key);
        if result.is_err() {
            self.kill_iscsi(key);
        }
    }

    /// Gives back what data of a connection held.
    pub(super) fn release_iscsi(&mut self, key: usize, held_bytes: u64) {
        if let Some(connection) = self.iscsi.get_mut(key) {
            connection.held_bytes -= held_bytes;
            self.held_bytes -= held_bytes;
        }
        self.has_released = true;
        self.note_released(key);
    }

    /// Counts data of a connection.
    pub(super) fn hold_iscsi(&mut self, key: usize, held_bytes: u64) {
        if let Some(connection) = self.iscsi.get_mut(key) {
            connection.held_bytes += held_bytes;
            self.held_bytes += held_bytes;
        }
    }

    /// Takes no more PDUs from a connection; it ends when what it is owed is sent.
    pub(in crate::shard) fn drain_iscsi(&mut self, key: usize) {
        let Some(connection) = self.iscsi.get_mut(key) else { return };
        if connection.phase == Phase::Open {
            connection.phase = Phase::Draining;
            if let Some(receive) = connection.receiving {
                self.ring.cancel(receive);
            }
        }
        self.note_iscsi_news(key);
    }

    /// Gives a connection up: what it is owed is thrown away.
    pub(in crate::shard) fn kill_iscsi(&mut self, key: usize) {
        let Some(connection) = self.iscsi.get_mut(key) else { return };
        if connection.phase == Phase::Dead {
            // What was in flight has ended: it may be over now.
            self.note_iscsi_news(key);
            return;
        }
        connection.phase = Phase::Dead;
        let (message, held_bytes) = connection.outbox.take();
        connection.outbox.recycle(message, &mut self.buffers);
        if connection.receiving.is_some() || connection.sending.is_some() {
            self.ring.shut_down(Token::Ignored, &connection.socket);
        }
        self.release_iscsi(key, held_bytes);
        self.note_iscsi_news(key);
    }

    fn forget_iscsi(&mut self, key: usize) {
        let mut connection = self.iscsi.remove(key);
        connection.receiver.abandon(&mut self.buffers);
        self.unfinished_iscsi.retain(|other| *other != key);
        self.leave_session(connection.session, key);
        // What tasks of it held is released with them.
        self.held_bytes -= std::mem::take(&mut connection.held_bytes);
        self.has_released = true;
    }

    /// Asks initiators that have been silent whether they are there, and gives up those that do not answer; and, while others
    /// wait for memory, those that hold some and do not go on.
    pub(in crate::shard) fn look_after_iscsi(&mut self) {
        let keys: Vec<usize> = self.iscsi.iter().map(|(key, _)| key).collect();
        let is_short = self.held_bytes >= self.limits.shard_bytes_max;
        for key in keys {
            let stall_max = if is_short { self.limits.client_stall_max } else { self.limits.drain_max };
            let owes_data = is_short && self.owes_data(key);
            let alive = self.iscsi.get_mut(key).filter(|connection| connection.phase != Phase::Dead);
            let Some(connection) = alive else { continue };
            let silence = self.now.since(connection.heard_at);
            let is_late = connection.sending.as_mut().is_some_and(|sending| {
                let moved = self.ring.moved_bytes(sending.id);
                if moved != sending.moved {
                    (sending.moved, sending.since) = (moved, self.now);
                }
                self.now.since(sending.since) >= stall_max
            });
            let is_draining = connection.phase != Phase::Open;
            if (is_late && (is_short || is_draining)) || owes_data {
                tracing::warn!(
                    connection = key,
                    "closed an iSCSI connection whose initiator neither takes nor sends on"
                );
                self.stats.stall_closes += 1;
                self.kill_iscsi(key);
            } else if !is_draining && silence >= PING_AFTER + PING_WAIT {
                tracing::info!(connection = key, "an initiator does not answer: its connection is closed");
                self.kill_iscsi(key);
            } else if !is_draining && silence >= PING_AFTER && !connection.is_pinged {
                connection.is_pinged = true;
                self.ping(key);
            }
        }
    }

    /// Whether an initiator has not sent on for long: data that it was asked for, or the command before those whose data is here.
    fn owes_data(&self, key: usize) -> bool {
        let Some(connection) = self.iscsi.get(key) else { return false };
        if self.now.since(connection.fed_at) < self.limits.client_stall_max {
            return false;
        }
        let session = self.sessions.get(&connection.session);
        session.is_some_and(|session| {
            let has_gap = session.window.has_gap();
            let owes = |task: &Task| {
                if task.has_its_data() { has_gap && task.held_bytes > 0 } else { task.is_granted }
            };
            session.tasks.values().any(|task| task.connection == key && owes(task))
        })
    }

    fn ping(&mut self, key: usize) {
        let Some(session) = self.iscsi.get(key).and_then(|connection| self.sessions.get_mut(&connection.session))
        else {
            return;
        };
        let (window, ttt) = (session.numbers(), session.take_ttt());
        if let Some(connection) = self.iscsi.get_mut(key) {
            let nop = NopIn { lun: [0; 8], itt: constants::RESERVED_TAG, ttt, data_bytes: 0 };
            connection.outbox.push_unnumbered(window, |numbers| nop_in(&nop, numbers));
        }
        self.note_iscsi_news(key);
    }

    /// A command of a session.
    pub(super) fn task_mut(&mut self, key: SessionKey, itt: u32) -> Option<&mut Task> {
        self.sessions.get_mut(&key)?.tasks.get_mut(&itt)
    }

    /// The session of a connection, and the connection.
    pub(super) fn session_and(&mut self, key: usize) -> Option<(&mut Session, &mut Connection)> {
        let connection = self.iscsi.get_mut(key)?;
        let session = self.sessions.get_mut(&connection.session)?;
        Some((session, connection))
    }
}
