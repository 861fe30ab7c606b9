//! Commands of sessions: handed to units in their order, and answered.

use crate::iscsi::{Cut, OWN_TAG, Route, Stage, Task};
use crate::nbd::Phase;
use crate::shard::Shard;
use crate::shard::mailbox::{SessionMessage, UnitMessage};
use crate::unit::{DataIn, Home, Outcome, SessionKey, UnitTask};
use proto::iscsi::{Attribute, Residual, ScsiResponse, scsi_response};
use proto::scsi::{Command, Lun, Sense, Status, inquiry, parameters};
use smallvec::SmallVec;

/// Response code: the command completed at the target. RFC 7143 11.4.3.
const COMPLETED: u8 = 0;

impl Shard {
    /// Hands on the commands that have all that they need, in their order: an ordered one neither overtakes nor is overtaken.
    pub(super) fn submit_ready(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let mut ready: SmallVec<[u32; 4]> = SmallVec::new();
        let (mut has_earlier, mut has_ordered) = (false, false);
        for itt in &session.gathering {
            let Some(task) = session.tasks.get(itt) else { continue };
            let is_ordered = task.attribute == Attribute::Ordered;
            let is_barred = has_ordered || (is_ordered && has_earlier);
            if task.is_in_order && task.has_its_data() && !is_barred {
                ready.push(*itt);
            } else {
                has_earlier = true;
                has_ordered |= is_ordered;
            }
        }
        if ready.is_empty() {
            return;
        }
        session.gathering.retain(|itt| !ready.contains(itt));
        for itt in ready {
            self.submit_task(key, itt);
        }
    }

    fn submit_task(&mut self, key: SessionKey, itt: u32) {
        self.leave_ungranted(key, itt);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(task) = session.tasks.get_mut(&itt) else { return };
        task.stage = Stage::Submitted;
        let (tag, command, lun) = (task.tag, task.as_announced(), task.lun);
        let payload = task.payload.finish();
        let (connection, held_bytes) = (task.connection, std::mem::take(&mut task.held_bytes));
        let (attribute, expected_bytes) =
            (task.attribute, if task.writes { u64::from(task.expected_bytes) } else { 0 });
        let (is_refused, failed) = (task.is_refused, task.failed);
        let route = session.route(lun).cloned();
        self.release_iscsi(connection, held_bytes);
        if is_refused {
            self.buffers.put_all(payload);
            self.finish_task(key, itt, failed.map_or_else(|| Outcome::status(Status::Busy), Outcome::fixed));
            return;
        }
        match (&command, route) {
            (Ok(Command::ReportLuns { select, allocation }), _) => {
                let outcome = self.report_luns(key, *select, *allocation);
                self.buffers.put_all(payload);
                self.finish_task(key, itt, outcome);
            }
            (_, None) => {
                let outcome = absent(&command);
                self.buffers.put_all(payload);
                self.finish_task(key, itt, outcome);
            }
            (Ok(Command::ExtendedCopy { .. } | Command::ReceiveCopyResults { .. }), Some(_)) => {
                self.begin_copy_command(key, itt, &payload);
                self.buffers.put_all(payload);
            }
            // What another shard reads for this one is held by this one in the end.
            (Ok(Command::Read { .. }), Some(Route { shard: Some(_), .. }))
                if self.held_bytes >= self.limits.shard_bytes_max =>
            {
                self.finish_task(key, itt, Outcome::status(Status::Busy));
            }
            (_, Some(route)) => {
                let lent = None;
                let task = UnitTask { session: key, tag, attribute, command, payload, expected_bytes, lent };
                self.ask_unit(&route, task);
            }
        }
    }

    /// Hands a task to the unit that a route leads to.
    pub(super) fn ask_unit(&mut self, route: &Route, task: UnitTask) {
        let from = self.home_for(route);
        self.tell_unit(route, UnitMessage::Task { task: Box::new(task), from });
    }

    /// How the unit of a route finds this session.
    pub(super) fn home_for(&self, route: &Route) -> Home {
        if route.shard.is_some() { Home::Elsewhere(self.handle.clone()) } else { Home::Here }
    }

    pub(super) fn tell_unit(&mut self, route: &Route, message: UnitMessage) {
        match &route.shard {
            None => self.on_unit_message(route.volume, message),
            Some(shard) => {
                // One that has ended takes the daemon with it.
                let _ = shard.send_unit(route.volume, message);
            }
        }
    }

    /// Takes what units have said to sessions of this shard.
    pub(super) fn take_session_news(&mut self) {
        while !self.session_news.is_empty() {
            let news = std::mem::take(&mut self.session_news);
            for (session, message) in news {
                self.on_session_message(session, message);
            }
        }
    }

    pub(in crate::shard) fn on_session_message(&mut self, key: SessionKey, message: SessionMessage) {
        match message {
            SessionMessage::Done { tag, outcome } if tag & OWN_TAG != 0 => self.on_copy_step(key, tag, outcome),
            SessionMessage::Done { tag, outcome } => {
                match self.sessions.get(&key).and_then(|session| session.itt_of(tag)) {
                    Some(itt) => self.finish_task(key, itt, outcome),
                    // It has been answered otherwise.
                    None => outcome.discard(&mut self.buffers),
                }
            }
            SessionMessage::Aborted { tag } => self.on_aborted(key, tag),
            SessionMessage::UnitGone { volume } => self.on_unit_gone(key, volume),
            SessionMessage::UnitReset { volume } => self.on_unit_reset(key, volume),
            SessionMessage::Remap { luns } => self.remap(key, luns),
            SessionMessage::End => self.end_session(key),
        }
    }

    /// SPC-4 6.33.
    fn report_luns(&self, key: SessionKey, select: u8, allocation: u32) -> Outcome {
        if allocation < 16 || select > 2 {
            return Outcome::fixed(Sense::INVALID_FIELD_IN_CDB);
        }
        let luns = self.sessions.get(&key).into_iter().flat_map(|session| session.luns.keys());
        // There are no well known ones, which 1 asks for.
        let luns = luns.filter(|_| select != 1).map(|lun| Lun(*lun));
        Outcome::parameters(parameters::report_luns(luns), allocation)
    }

    /// Answers a command, and forgets it.
    pub(super) fn finish_task(&mut self, key: SessionKey, itt: u32, outcome: Outcome) {
        self.leave_ungranted(key, itt);
        let Some(session) = self.sessions.get_mut(&key) else {
            outcome.discard(&mut self.buffers);
            return;
        };
        let Some(task) = session.tasks.remove(&itt) else {
            outcome.discard(&mut self.buffers);
            return;
        };
        session.leave_order(&task);
        let window = session.numbers();
        self.release_iscsi(task.connection, task.held_bytes);
        let connection = self.iscsi.get_mut(task.connection).filter(|connection| connection.phase != Phase::Dead);
        let Some(connection) = connection.filter(|_| !task.is_aborted) else {
            outcome.discard(&mut self.buffers);
            return;
        };
        let Outcome::Ended { status, sense, data } = outcome else { return };
        let key = task.connection;
        let limits = (connection.parameters.initiator_data_bytes_max, connection.parameters.max_burst);
        let answer = Answer::of(&task, (status, data), (window, limits));
        match answer {
            Answer::Copied(cut, bytes) => connection.outbox.push_copied(cut, &bytes),
            Answer::Buffer(cut, buffer, range) => {
                let held_bytes = buffer.len() as u64;
                connection.outbox.push_buffer(cut, buffer, range);
                self.hold_iscsi(key, held_bytes);
            }
            Answer::Response(residual) => {
                let response = ScsiResponse {
                    itt,
                    status: status.to_wire(),
                    response: COMPLETED,
                    residual,
                    exp_data_sn: 0,
                    data_bytes: 0,
                };
                let mut data = Vec::new();
                if !sense.is_empty() {
                    data.extend_from_slice(&u16::try_from(sense.len()).unwrap_or(0).to_be_bytes());
                    data.extend_from_slice(&sense);
                }
                connection.outbox.push_response(window, |numbers| scsi_response(&response, numbers), &data);
            }
        }
        self.note_iscsi_news(key);
    }

    /// Forgets a command without an answer.
    pub(super) fn forget_task(&mut self, key: SessionKey, itt: u32) {
        self.leave_ungranted(key, itt);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        // What of its data is on its way is thrown away when it is there.
        let Some(mut task) = session.tasks.remove(&itt) else { return };
        session.leave_order(&task);
        task.payload.abandon(&mut self.buffers);
        self.release_iscsi(task.connection, task.held_bytes);
    }
}

/// How a command is answered on the wire.
enum Answer {
    Copied(Cut, Vec<u8>),
    Buffer(Cut, volume::buffer::Buffer, std::ops::Range<usize>),
    Response(Residual),
}

impl Answer {
    /// RFC 7143 11.4.5: what was to be moved, and what the initiator has room for.
    fn of(task: &Task, (status, data): (Status, DataIn), (window, limits): ((u32, u32), (u32, u32))) -> Self {
        let asked = task.command.as_ref().map_or(0, Command::data_out_bytes);
        let returned = match &data {
            DataIn::None | DataIn::Lent(_) => 0,
            DataIn::Bytes(bytes) => bytes.len() as u64,
            DataIn::Buffer { len, .. } => *len as u64,
        };
        let moved = if task.writes { asked } else { returned };
        let residual = Residual::of(task.expected_bytes, moved);
        let room = if task.reads { usize::try_from(task.expected_bytes).unwrap_or(usize::MAX) } else { 0 };
        let (segment_max, burst_max) = limits;
        let cut = Cut { itt: task.itt, segment_max, burst_max, status: status.to_wire(), residual, window };
        match data {
            DataIn::Bytes(mut bytes) if room > 0 && !bytes.is_empty() => {
                bytes.truncate(room);
                Self::Copied(cut, bytes)
            }
            DataIn::Buffer { buffer, skip, len } if room > 0 && len > 0 => {
                Self::Buffer(cut, buffer, skip..skip + len.min(room))
            }
            DataIn::None | DataIn::Bytes(_) | DataIn::Buffer { .. } | DataIn::Lent(_) => Self::Response(residual),
        }
    }
}

/// What a LUN answers behind which there is nothing. SPC-4 6.6.1, 6.39; SAM-5 4.12.
fn absent(command: &Result<Command, Sense>) -> Outcome {
    match command {
        Ok(Command::Inquiry { page: None, allocation }) => Outcome::parameters(inquiry::absent(), *allocation),
        Ok(Command::RequestSense { descriptor, allocation }) => {
            Outcome::parameters(Sense::LUN_NOT_SUPPORTED.encode(*descriptor), *allocation)
        }
        _ => Outcome::fixed(Sense::LUN_NOT_SUPPORTED),
    }
}
