//! Room for the data of writes: counted for all of a write before any of it is asked for.
//!
//! A write that finds none waits at its connection. A connection that has what it may is looked at when it gives some back; one for
//! which the shard has none, when anybody does, but few of those at a time: what one initiator announces costs the others
//! nothing.

use crate::iscsi::{Stage, Task};
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

/// How many connections a shard that has no room looks at for a release, for one among them to which a little is due.
const LOOKS: usize = 4;

impl Shard {
    /// Counts all of a write, if there is room for it; else it waits.
    pub(super) fn grant(&mut self, key: SessionKey, itt: u32) -> bool {
        let Some(task) = self.task_mut(key, itt) else { return false };
        if task.is_granted {
            return true;
        }
        let has_waited = std::mem::take(&mut task.is_waiting);
        let (connection, missing) = (task.connection, task.wanted_bytes.saturating_sub(task.held_bytes));
        let had_none = !self.has_granted(key, connection);
        let has_others = self.iscsi.get(connection).is_some_and(|connection| !connection.ungranted.is_empty());
        // Behind those of its connection that wait.
        let room = if has_others && !has_waited { Room::NotOwn } else { self.room_for(connection, missing, had_none) };
        let now = self.now;
        let Some(task) = self.task_mut(key, itt) else { return false };
        if room == Room::There {
            task.is_granted = true;
            task.held_bytes += missing;
            self.hold_iscsi(connection, missing);
            if let Some(connection) = self.iscsi.get_mut(connection).filter(|_| had_none) {
                connection.fed_at = now;
            }
            return true;
        }
        task.is_waiting = true;
        if let Some(connection) = self.iscsi.get_mut(connection) {
            connection.ungranted.push_back(itt);
        }
        if room == Room::NotHere
            && let Some(slot) = self.iscsi.get_mut(connection)
            && !std::mem::replace(&mut slot.is_queued, true)
        {
            self.ungranted.push_back(connection);
        }
        false
    }

    /// Whether data of a write is asked for that a connection has announced.
    fn has_granted(&self, key: SessionKey, connection: usize) -> bool {
        let is_granted =
            |task: &Task| task.connection == connection && task.is_granted && task.stage == Stage::Gathering;
        self.sessions.get(&key).is_some_and(|session| session.tasks.values().any(is_granted))
    }

    /// Whether a write may have so much more. The first one of a connection may go beyond what that may have: what came unasked of
    /// the others does not go before they do. It may always have a little, as long as the shard does not hold twice what it may.
    fn room_for(&self, connection: usize, bytes: u64, is_first: bool) -> Room {
        let held_bytes = self.iscsi.get(connection).map_or(0, |connection| connection.held_bytes);
        let limits = &self.limits;
        let is_guaranteed = is_first && bytes <= limits.guaranteed_bytes;
        let has_own = is_first || held_bytes + bytes <= limits.connection_bytes_max;
        if !has_own {
            Room::NotOwn
        } else if self.held_bytes < limits.shard_bytes_max
            || (is_guaranteed && self.held_bytes < limits.shard_bytes_max.saturating_mul(2))
        {
            Room::There
        } else {
            Room::NotHere
        }
    }

    /// A connection has given room back, and has writes that may go on with it.
    pub(super) fn note_released(&mut self, key: usize) {
        let waits = self.iscsi.get(key).is_some_and(|connection| !connection.ungranted.is_empty());
        if waits && self.released.last() != Some(&key) {
            self.released.push(key);
        }
    }

    /// Goes on with writes that waited for room: of connections that gave some back, and then of those that wait for the shard's,
    /// the longest first.
    pub(in crate::shard) fn resume_ungranted(&mut self) {
        for key in std::mem::take(&mut self.released) {
            self.resume_ungranted_of(key);
        }
        for look in 0..self.ungranted.len() {
            if look >= LOOKS && self.held_bytes >= self.limits.shard_bytes_max {
                return;
            }
            let Some(key) = self.ungranted.pop_front() else { return };
            if let Some(connection) = self.iscsi.get_mut(key) {
                connection.is_queued = false;
            }
            self.resume_ungranted_of(key);
        }
    }

    /// The same of one connection: those that wait longest first, up to the first that has to wait on.
    fn resume_ungranted_of(&mut self, key: usize) {
        let Some(connection) = self.iscsi.get_mut(key).filter(|connection| connection.phase == Phase::Open) else {
            return;
        };
        let session = connection.session;
        while let Some(itt) = self.iscsi.get_mut(key).and_then(|connection| connection.ungranted.pop_front()) {
            self.ask_for_data(session, itt);
            let Some(connection) = self.iscsi.get_mut(key) else { return };
            if connection.ungranted.back() == Some(&itt) {
                // It waits on, before the others.
                connection.ungranted.rotate_right(1);
                return;
            }
        }
    }

    /// A command is over, or forgotten: it holds nothing, and waits no more.
    pub(super) fn leave_room(&mut self, task: &Task) {
        if let Some(connection) = self.iscsi.get_mut(task.connection).filter(|_| task.is_waiting) {
            connection.ungranted.retain(|waiting| *waiting != task.itt);
        }
        self.release_iscsi(task.connection, task.held_bytes);
    }
}
