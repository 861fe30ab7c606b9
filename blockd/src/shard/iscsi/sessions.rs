//! How sessions begin, change and end.
//!
//! A session that ends takes its nexuses with it, at every unit; what units carry out for it is not broken off, but nothing of it
//! begins any more. Its guard is dropped when the last unit has heard of it: only then may another session of the same
//! initiator port begin, so that no command of the old one comes behind one of the new.

use crate::iscsi::{NewLun, NewSession, Route, Session, Stage};
use crate::nbd::Phase;
use crate::shard::Shard;
use crate::shard::mailbox::UnitMessage;
use crate::unit::{NewNexus, Outcome, SessionKey};
use proto::iscsi::{AsyncMessage, Parameters, async_message, constants};
use proto::scsi::{Lun, Sense, Status};
use units::VolumeId;

impl Shard {
    pub(super) fn begin_session(&mut self, key: SessionKey, parameters: &Parameters, mut new: NewSession) {
        let luns = std::mem::take(&mut new.luns);
        tracing::debug!(?key, session = ?new, "an iSCSI session begins");
        self.sessions.insert(key, Session::new(key, *parameters, new));
        for lun in luns {
            self.add_lun(key, lun);
        }
    }

    fn add_lun(&mut self, key: SessionKey, new: NewLun) {
        let NewLun { lun, volume, shard, naa, attachment } = new;
        let route = Route { volume, shard, naa };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let (nexus, target) = (session.nexus.clone(), session.target.clone());
        session.luns.insert(lun, route.clone());
        let home = self.home_for(&route);
        let nexus = Box::new(NewNexus { session: key, nexus, target, home, attachment });
        self.tell_unit(&route, UnitMessage::Attach(nexus));
    }

    /// The session has other LUNs than before, perhaps. What it has already stays as it is.
    pub(super) fn remap(&mut self, key: SessionKey, luns: Vec<NewLun>) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let is_same = |lun: u16, route: &Route| luns.iter().any(|new| new.lun == lun && new.volume == route.volume);
        let all = session.luns.iter();
        let gone: Vec<(u16, Route)> =
            all.filter(|(lun, route)| !is_same(**lun, route)).map(|(lun, route)| (*lun, route.clone())).collect();
        let mut is_changed = !gone.is_empty();
        for (lun, route) in gone {
            let Some(session) = self.sessions.get_mut(&key) else { return };
            session.luns.remove(&lun);
            let guard = session.guard.clone();
            self.tell_unit(&route, UnitMessage::Detach { session: key, guard });
            self.end_tasks_of(key, Lun(lun));
        }
        for new in luns {
            let known = self.sessions.get(&key).is_some_and(|session| session.luns.contains_key(&new.lun));
            if !known {
                is_changed = true;
                self.add_lun(key, new);
            }
        }
        if is_changed {
            self.attend_all(key, Sense::LUNS_CHANGED);
        }
    }

    /// Has the initiator told at each of its LUNs.
    fn attend_all(&mut self, key: SessionKey, sense: Sense) {
        let Some(session) = self.sessions.get(&key) else { return };
        let routes: Vec<Route> = session.luns.values().cloned().collect();
        for route in routes {
            self.tell_unit(&route, UnitMessage::Attend { session: key, sense });
        }
    }

    /// A unit has ended: its LUN is not there any more.
    pub(super) fn on_unit_gone(&mut self, key: SessionKey, volume: VolumeId) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let all = session.luns.iter();
        let gone: Vec<u16> = all.filter(|(_, route)| route.volume == volume).map(|(lun, _)| *lun).collect();
        for lun in gone {
            if let Some(session) = self.sessions.get_mut(&key) {
                session.luns.remove(&lun);
            }
            self.end_tasks_of(key, Lun(lun));
        }
        self.attend_all(key, Sense::LUNS_CHANGED);
    }

    /// The unit of a LUN answers nothing any more: its commands are over.
    fn end_tasks_of(&mut self, key: SessionKey, lun: Lun) {
        let tasks = self.sessions.get(&key).into_iter().flat_map(|session| session.tasks.values());
        let of = tasks.filter(|task| task.stage == Stage::Submitted && Lun::decode(task.lun) == Some(lun));
        let of: Vec<u32> = of.map(|task| task.itt).collect();
        for itt in of {
            self.finish_task(key, itt, Outcome::status(Status::TaskAborted));
        }
    }

    /// A connection is over. With the last one the session is.
    pub(super) fn leave_session(&mut self, key: SessionKey, connection: usize) {
        self.drop_tasks_of(key, connection);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.connections.retain(|other| *other != connection);
        if session.connections.is_empty() {
            self.forget_session(key);
        }
    }

    fn forget_session(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.remove(&key) else { return };
        tracing::debug!(?key, "an iSCSI session has ended");
        for mut task in session.tasks.into_values() {
            task.payload.abandon(&mut self.buffers);
        }
        let mut volumes: Vec<&Route> = session.luns.values().collect();
        volumes.dedup_by_key(|route| route.volume);
        for route in volumes {
            let message = UnitMessage::Detach { session: key, guard: session.guard.clone() };
            self.tell_unit(route, message);
        }
    }

    /// Ends a session at once: another takes its place, or its initiator may not be here any more.
    pub(super) fn end_session(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(&key) else { return };
        for connection in session.connections.clone() {
            self.drop_tasks_of(key, connection);
            self.kill_iscsi(connection);
        }
    }

    /// Ends a session when what its connections are owed is sent.
    pub(super) fn drain_session(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(&key) else { return };
        for connection in session.connections.clone() {
            self.drop_tasks_of(key, connection);
            self.drain_iscsi(connection);
        }
    }

    /// Tells every initiator that its session ends, and ends them. RFC 7143 11.9.1.
    pub(in crate::shard) fn drain_all_sessions(&mut self) {
        let keys: Vec<SessionKey> = self.sessions.keys().copied().collect();
        for key in keys {
            let Some(session) = self.sessions.get(&key) else { continue };
            let (window, connections) = (session.numbers(), session.connections.clone());
            let parameters = [0, session.parameters.time2wait, session.parameters.time2retain];
            let message =
                AsyncMessage { lun: [0; 8], event: constants::async_event::SESSION_DROPPED, parameters, data_bytes: 0 };
            for connection in connections {
                if let Some(told) = self.iscsi.get_mut(connection).filter(|told| told.phase == Phase::Open) {
                    told.outbox.push_response(window, |numbers| async_message(&message, numbers), &[]);
                }
                self.note_iscsi_news(connection);
            }
            self.drain_session(key);
        }
    }
}
