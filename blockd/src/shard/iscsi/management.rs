//! Task management and logout. RFC 7143 11.5, 11.6, 11.14; SAM-5 7.

use crate::iscsi::{Management, Route, Stage, is_behind};
use crate::nbd::Phase;
use crate::shard::Shard;
use crate::shard::mailbox::UnitMessage;
use crate::unit::{Abort, AbortScope, Outcome, SessionKey};
use proto::iscsi::{LogoutRequest, TaskManagement, constants, logout_response, task_response};
use proto::scsi::Status;
use units::VolumeId;

/// Seconds that an initiator should wait before it logs in again after an unexpected end. RFC 7143 13.15.
const TIME2WAIT: u16 = 2;

/// Who asks for a management function, by which task tag.
#[derive(Debug, Clone, Copy)]
struct Asker {
    connection: usize,
    session: SessionKey,
    itt: u32,
    ends_session: bool,
}

/// A tag that no abort of an initiator has: nobody waits for its answer.
pub(super) const UNAWAITED: u64 = u64::MAX;

impl Shard {
    pub(super) fn on_management(&mut self, key: usize, function: &TaskManagement) {
        use constants::{task_function, task_response as answer};
        let Some((session, connection)) = self.session_and(key) else { return };
        let session_key = connection.session;
        let route = session.route(function.lun).cloned();
        let itt = function.itt;
        let asker = Asker { connection: key, session: session_key, itt, ends_session: false };
        match function.function {
            task_function::ABORT_TASK => self.abort_task(key, session_key, function),
            task_function::ABORT_TASK_SET => self.abort_unit(asker, function.lun, route, AbortScope::Session),
            task_function::CLEAR_TASK_SET => self.abort_unit(asker, function.lun, route, AbortScope::Set),
            task_function::LOGICAL_UNIT_RESET => self.abort_unit(asker, function.lun, route, AbortScope::Reset),
            task_function::TARGET_WARM_RESET | task_function::TARGET_COLD_RESET => {
                let routes: Vec<Route> = session.luns.values().cloned().collect();
                let is_cold = function.function == task_function::TARGET_COLD_RESET;
                self.drop_gathering(session_key, None);
                // After a cold one everybody logs in anew. RFC 7143 11.5.1.
                let scope = if is_cold { AbortScope::ColdReset } else { AbortScope::Reset };
                self.begin_management(Asker { ends_session: is_cold, ..asker }, &routes, scope);
            }
            // There is no auto contingent allegiance here, and no connection is taken over: error recovery level 0.
            task_function::CLEAR_ACA => self.answer_management(key, itt, answer::UNSUPPORTED),
            task_function::TASK_REASSIGN => self.answer_management(key, itt, answer::REASSIGN_UNSUPPORTED),
            _ => self.answer_management(key, itt, answer::UNSUPPORTED),
        }
    }

    /// RFC 7143 11.5.5: a command that has been answered, or never came, is no error of the initiator's.
    fn abort_task(&mut self, key: usize, session_key: SessionKey, function: &TaskManagement) {
        use constants::task_response as answer;
        let Some(session) = self.sessions.get_mut(&session_key) else { return };
        let route = session.route(function.lun).cloned();
        let named = session.tasks.get_mut(&function.referenced).filter(|task| task.lun == function.lun);
        let Some(task) = named else {
            // One that is still to come must not be carried out: its place in the order is taken.
            let is_before = is_behind(function.ref_cmd_sn, function.cmd_sn);
            let is_to_come = is_before && session.window.count_received(function.ref_cmd_sn);
            self.answer_management(key, function.itt, if is_to_come { answer::COMPLETE } else { answer::NO_TASK });
            return;
        };
        task.is_aborted = true;
        if task.stage == Stage::Gathering {
            self.forget_task(session_key, function.referenced);
            self.answer_management(key, function.itt, answer::COMPLETE);
            return;
        }
        let mut scope = AbortScope::Task(task.tag);
        let mut route = route;
        if let Some(copy) = session.copies.get_mut(&function.referenced) {
            // Its step is waited for, wherever that is.
            copy.is_aborted = true;
            scope = AbortScope::Task(copy.tag);
            route = copy.step_route.clone();
        }
        let Some(route) = route else {
            self.answer_management(key, function.itt, answer::NO_LUN);
            return;
        };
        let asker = Asker { connection: key, session: session_key, itt: function.itt, ends_session: false };
        self.begin_management(asker, &[route], scope);
    }

    fn abort_unit(&mut self, asker: Asker, lun: [u8; 8], route: Option<Route>, scope: AbortScope) {
        let Some(route) = route else {
            self.answer_management(asker.connection, asker.itt, constants::task_response::NO_LUN);
            return;
        };
        self.drop_gathering(asker.session, Some(lun));
        self.begin_management(asker, &[route], scope);
    }

    /// Forgets the commands that no unit has yet, of one LUN or of all.
    fn drop_gathering(&mut self, key: SessionKey, lun: Option<[u8; 8]>) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let concerned = session.gathering.iter().copied();
        let concerned: Vec<u32> = concerned
            .filter(|itt| session.tasks.get(itt).is_some_and(|task| lun.is_none_or(|lun| task.lun == lun)))
            .collect();
        for (itt, copy) in &mut session.copies {
            let is_concerned = session.tasks.get(itt).is_some_and(|task| lun.is_none_or(|lun| task.lun == lun));
            copy.is_aborted |= is_concerned;
            if is_concerned && let Some(task) = session.tasks.get_mut(itt) {
                task.is_aborted = true;
            }
        }
        for itt in concerned {
            self.forget_task(key, itt);
        }
    }

    /// Another session has reset a unit: commands for it that wait for their data are over.
    pub(super) fn on_unit_reset(&mut self, key: SessionKey, volume: VolumeId) {
        let Some(session) = self.sessions.get(&key) else { return };
        let is_its = |lun: [u8; 8]| session.route(lun).is_some_and(|route| route.volume == volume);
        let gathering = session.gathering.iter().filter_map(|itt| session.tasks.get(itt));
        let concerned: Vec<u32> = gathering.filter(|task| is_its(task.lun)).map(|task| task.itt).collect();
        for itt in concerned {
            self.finish_task(key, itt, Outcome::status(Status::TaskAborted));
        }
    }

    /// Has units abort tasks; answered when all have.
    fn begin_management(&mut self, asker: Asker, routes: &[Route], scope: AbortScope) {
        let Asker { connection: key, session: session_key, itt, ends_session } = asker;
        let Some(session) = self.sessions.get_mut(&session_key) else { return };
        session.management.insert(itt, Management { connection: key, open: routes.len(), ends_session });
        let abort = Abort { session: session_key, tag: u64::from(itt), scope };
        for route in routes {
            let from = self.home_for(route);
            self.tell_unit(route, UnitMessage::Abort { abort, from });
        }
        if routes.is_empty() {
            self.on_aborted(session_key, u64::from(itt));
        }
    }

    /// A unit has aborted what it was to.
    pub(super) fn on_aborted(&mut self, key: SessionKey, tag: u64) {
        let Ok(itt) = u32::try_from(tag) else { return };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(management) = session.management.get_mut(&itt) else { return };
        management.open = management.open.saturating_sub(1);
        if management.open == 0 {
            let (connection, ends_session) = (management.connection, management.ends_session);
            session.management.remove(&itt);
            self.answer_management(connection, itt, constants::task_response::COMPLETE);
            if ends_session {
                self.drain_session(key);
            }
        }
    }

    fn answer_management(&mut self, key: usize, itt: u32, response: u8) {
        let Some((session, connection)) = self.session_and(key) else { return };
        if connection.phase != Phase::Dead {
            connection.outbox.push_response(session.numbers(), |numbers| task_response(itt, response, numbers), &[]);
        }
        self.note_iscsi_news(key);
    }

    /// RFC 7143 11.14: the session ends, or a connection of it.
    pub(super) fn on_logout(&mut self, key: usize, logout: &LogoutRequest) {
        use constants::{logout_reason, logout_response as answer};
        let Some((session, connection)) = self.session_and(key) else { return };
        let session_key = connection.session;
        let named = session.connections.iter().copied();
        let named = named
            .collect::<Vec<_>>()
            .into_iter()
            .find(|other| self.iscsi.get(*other).is_some_and(|connection| connection.cid == logout.cid));
        let (response, closes) = match (logout.reason, named) {
            (logout_reason::CLOSE_SESSION, _) => (answer::CLOSED, None),
            (logout_reason::CLOSE_CONNECTION, Some(named)) => (answer::CLOSED, Some(named)),
            (logout_reason::CLOSE_CONNECTION, None) => (answer::CID_NOT_FOUND, None),
            _ => (answer::RECOVERY_UNSUPPORTED, None),
        };
        let Some((session, connection)) = self.session_and(key) else { return };
        let pdu = |numbers| logout_response(logout.itt, response, TIME2WAIT, 0, numbers);
        connection.outbox.push_response(session.numbers(), pdu, &[]);
        self.note_iscsi_news(key);
        if response == answer::CLOSED {
            match closes {
                None => self.drain_session(session_key),
                Some(named) => {
                    self.drop_tasks_of(session_key, named);
                    self.drain_iscsi(named);
                }
            }
        }
    }

    /// Forgets the commands that came by a connection: nobody is left whom they could be answered to.
    pub(super) fn drop_tasks_of(&mut self, key: SessionKey, connection: usize) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.management.retain(|_, management| management.connection != connection);
        for (itt, copy) in &mut session.copies {
            copy.is_aborted |= session.tasks.get(itt).is_some_and(|task| task.connection == connection);
        }
        let of: Vec<(u32, u64, Stage, [u8; 8])> = session
            .tasks
            .values_mut()
            .filter(|task| task.connection == connection)
            .map(|task| {
                task.is_aborted = true;
                (task.itt, task.tag, task.stage, task.lun)
            })
            .collect();
        for (itt, task_tag, stage, lun) in of {
            if stage == Stage::Gathering {
                self.forget_task(key, itt);
                continue;
            }
            if let Some(route) = self.sessions.get(&key).and_then(|session| session.route(lun)).cloned() {
                let abort = Abort { session: key, tag: UNAWAITED, scope: AbortScope::Task(task_tag) };
                let from = self.home_for(&route);
                self.tell_unit(&route, UnitMessage::Abort { abort, from });
            }
        }
    }
}
