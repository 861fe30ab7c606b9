//! Room for the data of writes: counted for all of a write before any of it is asked for.
//!
//! A write that finds none waits at its connection, behind those that wait there. The connection waits in turn for the shard's
//! room, and gets it for one write at a time; or it has what it may, and is looked at when it gives some back. So what an
//! initiator announces costs the others nothing, and one that is always served does not keep them from being so.

use crate::iscsi::{Connection, Session, Stage, Task};
use crate::nbd::Phase;
use crate::shard::Shard;
use crate::unit::SessionKey;

/// Whether a write may have the room that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    There,
    /// Its connection has what it may.
    NotOwn,
    /// The shard has none.
    NotHere,
}

impl Shard {
    /// Counts all of a write, if there is room for it; else it waits.
    pub(super) fn grant(&mut self, key: SessionKey, itt: u32) -> bool {
        let Some(task) = self.task_mut(key, itt) else { return false };
        if task.is_granted || task.is_waiting {
            return task.is_granted;
        }
        let (connection, missing) = (task.connection, missing_bytes(task));
        let Some(slot) = self.iscsi.get(connection) else { return false };
        let is_first = !self.has_granted(connection);
        // Behind others that wait for their connection; past those that wait for the shard it may have what is always there.
        let (has_others, is_queued) = (!slot.ungranted.is_empty(), slot.is_queued);
        let is_behind = has_others && !(is_queued && is_first && self.is_little(missing));
        let room = if is_behind { Room::NotOwn } else { self.room_for(connection, missing, is_first) };
        if room == Room::There {
            self.count(key, itt, is_first);
            return true;
        }
        if let Some(task) = self.task_mut(key, itt) {
            task.is_waiting = true;
        }
        if let Some(slot) = self.iscsi.get_mut(connection) {
            slot.ungranted.push_back(itt);
        }
        if room == Room::NotHere {
            self.queue_ungranted(connection);
        }
        false
    }

    /// Counts all of a write; of its connection it may be the first.
    fn count(&mut self, key: SessionKey, itt: u32, is_first: bool) {
        let now = self.now;
        let Some(task) = self.task_mut(key, itt) else { return };
        let (connection, missing) = (task.connection, missing_bytes(task));
        (task.is_granted, task.is_waiting) = (true, false);
        task.held_bytes += missing;
        self.hold_iscsi(connection, missing);
        if let Some(connection) = self.iscsi.get_mut(connection).filter(|_| is_first) {
            connection.fed_at = now;
        }
    }

    /// Whether data of a write is asked for that a connection has announced.
    fn has_granted(&self, connection: usize) -> bool {
        let is_granted =
            |task: &Task| task.connection == connection && task.is_granted && task.stage == Stage::Gathering;
        let session = self.iscsi.get(connection).and_then(|connection| self.sessions.get(&connection.session));
        session.is_some_and(|session| session.tasks.values().any(is_granted))
    }

    /// Whether a write may have so much more. The first one of a connection may go beyond what that may have: what came unasked of
    /// the others does not go before they do. And a little is always there for it.
    fn room_for(&self, connection: usize, bytes: u64, is_first: bool) -> Room {
        let held_bytes = self.iscsi.get(connection).map_or(0, |connection| connection.held_bytes);
        if is_first && self.is_little(bytes) {
            Room::There
        } else if !is_first && held_bytes >= self.limits.connection_bytes_max {
            Room::NotOwn
        } else if self.held_as_seen() < self.limits.shard_bytes_max {
            Room::There
        } else {
            Room::NotHere
        }
    }

    /// Whether the first write of a connection may have so much more in any case: as long as the shard does not hold twice what it
    /// may.
    fn is_little(&self, bytes: u64) -> bool {
        let limits = &self.limits;
        bytes <= limits.guaranteed_bytes && self.held_bytes < limits.shard_bytes_max.saturating_mul(2)
    }

    /// Puts a connection behind those that wait for the shard's room.
    fn queue_ungranted(&mut self, key: usize) {
        self.is_short = true;
        if let Some(connection) = self.iscsi.get_mut(key)
            && !std::mem::replace(&mut connection.is_queued, true)
        {
            self.ungranted.push_back(key);
        }
    }

    /// A connection has given room back, and has writes that may go on with it.
    pub(super) fn note_released(&mut self, key: usize) {
        let waits = self.iscsi.get(key).is_some_and(|connection| !connection.ungranted.is_empty());
        if waits && self.released.last() != Some(&key) {
            self.released.push(key);
        }
    }

    /// Goes on with writes that waited for room.
    pub(in crate::shard) fn resume_ungranted(&mut self) {
        for key in std::mem::take(&mut self.released) {
            self.resume_guaranteed(key);
            if self.iscsi.get(key).is_some_and(|connection| !connection.ungranted.is_empty()) {
                self.queue_ungranted(key);
            }
        }
        while self.held_bytes < self.limits.shard_bytes_max
            && let Some(key) = self.ungranted.pop_front()
        {
            if let Some(connection) = self.iscsi.get_mut(key) {
                connection.is_queued = false;
            }
            self.resume_first(key);
        }
        self.is_short |= !self.ungranted.is_empty();
    }

    /// What is always there goes to the first write that needs no more, though larger ones wait before it.
    fn resume_guaranteed(&mut self, key: usize) {
        let Some((connection, session)) = self.open_with_session(key) else { return };
        let is_little = |itt: &&u32| session.tasks.get(itt).is_some_and(|task| self.is_little(missing_bytes(task)));
        if let Some(itt) = connection.ungranted.iter().find(is_little).copied()
            && !self.has_granted(key)
        {
            self.resume(key, itt, true);
        }
    }

    /// The write that waits longest at a connection goes on; if there are others, they wait for the next turn.
    fn resume_first(&mut self, key: usize) {
        let Some((connection, session)) = self.open_with_session(key) else { return };
        let Some(itt) = connection.ungranted.front().copied() else { return };
        let is_first = !self.has_granted(key);
        match session.tasks.get(&itt).map(missing_bytes).map(|bytes| self.room_for(key, bytes, is_first)) {
            // It waits for what its connection gives back.
            Some(Room::NotOwn) => return,
            Some(Room::There) | None => self.resume(key, itt, is_first),
            Some(Room::NotHere) => {}
        }
        if self.iscsi.get(key).is_some_and(|connection| !connection.ungranted.is_empty()) {
            self.queue_ungranted(key);
        }
    }

    /// A write waits no more: all of it is counted, and it is asked for.
    fn resume(&mut self, key: usize, itt: u32, is_first: bool) {
        let Some(connection) = self.iscsi.get_mut(key) else { return };
        connection.ungranted.retain(|waiting| *waiting != itt);
        let session = connection.session;
        self.count(session, itt, is_first);
        self.ask_for_data(session, itt);
    }

    fn open_with_session(&self, key: usize) -> Option<(&Connection, &Session)> {
        let connection = self.iscsi.get(key).filter(|connection| connection.phase == Phase::Open)?;
        Some((connection, self.sessions.get(&connection.session)?))
    }

    /// A write waits no more: it is submitted or over.
    pub(super) fn leave_ungranted(&mut self, key: SessionKey, itt: u32) {
        let Some(task) = self.task_mut(key, itt) else { return };
        let connection = task.connection;
        if std::mem::take(&mut task.is_waiting)
            && let Some(connection) = self.iscsi.get_mut(connection)
        {
            connection.ungranted.retain(|waiting| *waiting != itt);
        }
    }
}

/// Bytes of a write that are not counted yet.
const fn missing_bytes(task: &Task) -> u64 {
    task.wanted_bytes.saturating_sub(task.held_bytes)
}
