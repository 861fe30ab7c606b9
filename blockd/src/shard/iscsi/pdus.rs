//! PDUs that initiators send: judged, put in their order, answered where the session alone answers. RFC 7143 11.

use crate::iscsi::{Item, Pending, Sink, Task, go_on};
use crate::nbd::Phase;
use crate::payload::ArrivingPayload;
use crate::shard::Shard;
use crate::unit::{Outcome, SessionKey};
use proto::iscsi::{
    DataOut, Head, LongText, NopIn, NopOut, Placed, R2t, RejectReason, Request, ScsiCommand, TargetListing, TextQuery,
    TextRequest, Transfer, TransferError, TransferLimits, constants, decode, nop_in, r2t, reject, text_response,
};
use proto::scsi::{Command, Sense};
use volume::request::REQUEST_BYTES_MAX;

/// What a command fails with whose data does not come as it must. RFC 7143 11.4.7.2.
const fn sense_of(error: TransferError) -> Sense {
    match error {
        TransferError::UnexpectedUnsolicited => Sense::UNEXPECTED_UNSOLICITED,
        TransferError::IncorrectAmount => Sense::NOT_ENOUGH_UNSOLICITED,
        TransferError::UnknownTag | TransferError::DataSn | TransferError::Offset => Sense::CRC_ERROR,
    }
}

/// Most bytes of a ping or a text that waits for its turn.
const HELD_BYTES_MAX: usize = 4 << 10;

/// Most bytes of the keys of a text request that comes in parts.
const TEXT_BYTES_MAX: usize = 64 << 10;

impl Shard {
    pub(super) fn on_head(&mut self, key: usize, head: &Head) {
        let Some(connection) = self.iscsi.get_mut(key) else { return };
        connection.bhs = head.bhs;
        let (pending, sink) = match decode(head) {
            Ok(Request::Command(command)) => self.on_command(key, &command),
            Ok(Request::DataOut(data)) => self.on_data_out(key, &data),
            Ok(Request::NopOut(nop)) => (Pending::Nop(nop), Sink::Bytes(Vec::new())),
            Ok(Request::Text(text)) => (Pending::Text(text), Sink::Bytes(Vec::new())),
            Ok(Request::Task(function)) => {
                self.place(key, (function.cmd_sn, function.immediate), Item::Management(key, function));
                (Pending::Nothing, Sink::Skip)
            }
            Ok(Request::Logout(logout)) => {
                self.place(key, (logout.cmd_sn, logout.immediate), Item::Logout(key, logout));
                (Pending::Nothing, Sink::Skip)
            }
            // Nothing is recovered within a connection at error recovery level 0. RFC 7143 11.16.
            Ok(Request::Snack) => {
                self.reject(key, RejectReason::SnackRejected);
                (Pending::Nothing, Sink::Skip)
            }
            Ok(Request::Login(_)) => {
                self.reject(key, RejectReason::ProtocolError);
                self.drain_iscsi(key);
                (Pending::Nothing, Sink::Skip)
            }
            Err(reason) => {
                self.reject(key, reason);
                (Pending::Nothing, Sink::Skip)
            }
        };
        let Some(connection) = self.iscsi.get_mut(key) else { return };
        connection.pending = Some(pending);
        if head.data_bytes > 0 {
            connection.receiver.begin(sink);
        } else {
            self.on_segment(key, sink, true);
        }
    }

    /// The data of a PDU is there.
    pub(super) fn on_segment(&mut self, key: usize, mut sink: Sink, is_intact: bool) {
        let Some(connection) = self.iscsi.get_mut(key) else { return };
        let Some(pending) = connection.pending.take() else { return };
        if !is_intact {
            sink.abandon(&mut self.buffers);
            // Without recovery of its own the session is begun anew. RFC 7143 7.8, 7.2.
            self.reject(key, RejectReason::DataDigest);
            self.drain_iscsi(key);
            return;
        }
        match (pending, sink) {
            (Pending::Command(itt) | Pending::DataOut(itt), sink) => self.on_data(key, itt, sink),
            (
                Pending::Nop(NopOut { cmd_sn, immediate, .. }) | Pending::Text(TextRequest { cmd_sn, immediate, .. }),
                Sink::Bytes(data),
            ) if data.len() > HELD_BYTES_MAX && !immediate && !self.is_next(key, cmd_sn) => {
                // So much is not kept for commands that may never come.
                self.reject(key, RejectReason::ProtocolError);
                self.drain_iscsi(key);
            }
            (Pending::Nop(nop), Sink::Bytes(data)) => {
                self.place(key, (nop.cmd_sn, nop.immediate), Item::Nop(key, nop, data));
            }
            (Pending::Text(text), Sink::Bytes(data)) => {
                self.place(key, (text.cmd_sn, text.immediate), Item::Text(key, text, data));
            }
            (Pending::Nop(_) | Pending::Text(_) | Pending::Nothing, _) => {}
        }
    }

    /// Whether a number is the one whose turn it is.
    fn is_next(&mut self, key: usize, cmd_sn: u32) -> bool {
        self.session_and(key).is_none_or(|(session, _)| session.window.exp_cmd_sn() == cmd_sn)
    }

    /// Refuses a PDU, which is sent back with the reason. RFC 7143 11.17.
    pub(super) fn reject(&mut self, key: usize, reason: RejectReason) {
        let Some((session, connection)) = self.session_and(key) else { return };
        tracing::debug!(connection = key, ?reason, "rejected a PDU");
        let (window, bhs) = (session.numbers(), connection.bhs);
        connection.outbox.push_response(window, |numbers| reject(reason, numbers), &bhs);
        self.note_iscsi_news(key);
    }

    /// Has something take its turn by CmdSN, and whatever waited for it.
    pub(super) fn place(&mut self, key: usize, (cmd_sn, immediate): (u32, bool), item: Item) {
        let Some((session, connection)) = self.session_and(key) else { return };
        let session_key = connection.session;
        let itt = if let Item::Task(itt) = &item { Some(*itt) } else { None };
        match session.window.place(cmd_sn, immediate, item) {
            Placed::Ready(item) => self.on_item(session_key, item, !immediate),
            Placed::Held => return,
            // Outside of the window, or a second time: RFC 7143 4.2.2.1 has it ignored.
            Placed::Dropped => {
                tracing::debug!(connection = key, cmd_sn, "ignored what is outside of the command window");
                if let Some(itt) = itt {
                    self.forget_task(session_key, itt);
                }
                return;
            }
        }
        while let Some(item) = self.sessions.get_mut(&session_key).and_then(|session| session.window.pop_ready()) {
            self.on_item(session_key, item, true);
        }
    }

    /// `is_numbered`: it has a place of its own in the command window, which a task gives back when it ends, others at once.
    fn on_item(&mut self, session: SessionKey, item: Item, is_numbered: bool) {
        let is_task = matches!(item, Item::Task(_));
        if is_numbered
            && !is_task
            && let Some(session) = self.sessions.get_mut(&session)
        {
            session.window.release();
        }
        match item {
            Item::Task(itt) => {
                let Some(found) = self.sessions.get_mut(&session) else { return };
                match found.tasks.get_mut(&itt) {
                    Some(task) => task.is_in_order = true,
                    // It has ended before its turn.
                    None if is_numbered => found.window.release(),
                    None => {}
                }
                self.submit_ready(session);
            }
            // Of a connection that has ended meanwhile nothing is answered.
            Item::Management(key, function) if self.is_of(key, session) => self.on_management(key, &function),
            Item::Nop(key, nop, data) if self.is_of(key, session) => self.on_nop(key, &nop, &data),
            Item::Text(key, text, data) if self.is_of(key, session) => self.on_text(key, &text, &data),
            Item::Logout(key, logout) if self.is_of(key, session) => self.on_logout(key, &logout),
            Item::Management(..) | Item::Nop(..) | Item::Text(..) | Item::Logout(..) => {}
        }
    }

    fn is_of(&self, key: usize, session: SessionKey) -> bool {
        self.iscsi.get(key).is_some_and(|connection| connection.session == session)
    }

    /// A command has come. Its data may be with it, may follow, or is asked for.
    fn on_command(&mut self, key: usize, command: &ScsiCommand) -> (Pending, Sink) {
        let is_short = self.held_bytes >= self.limits.shard_bytes_max.saturating_mul(2);
        let Some((session, _)) = self.session_and(key) else { return (Pending::Nothing, Sink::Skip) };
        let itt = command.itt;
        let refused = if !command.immediate && !session.window.takes(command.cmd_sn) {
            // It has come before, perhaps, and is ignored. RFC 7143 4.2.2.1.
            return (Pending::Nothing, Sink::Skip);
        } else if session.tasks.contains_key(&itt) {
            Some(RejectReason::TaskInProgress)
        } else if command.immediate && session.has_many_immediate() {
            Some(RejectReason::TooManyImmediate)
        } else {
            None
        };
        if let Some(reason) = refused {
            self.reject(key, reason);
            return (Pending::Nothing, Sink::Skip);
        }
        let decoded = Command::decode(&command.cdb);
        let mut task = Task::new(key, command, decoded);
        if command.writes && command.expected_bytes > 0 {
            let limits = TransferLimits::from(&session.parameters);
            let wanted = u32::try_from(task.wanted_bytes).unwrap_or(u32::MAX);
            match Transfer::new(command.expected_bytes, limits, command.data_bytes, command.is_final) {
                Ok(transfer) => task.transfer = Some(transfer.wanting(wanted)),
                Err(error) => {
                    tracing::info!(connection = key, ?error, "an initiator sends data as it must not");
                    task.failed = Some(sense_of(error));
                }
            }
        }
        if task.wanted_bytes > REQUEST_BYTES_MAX {
            task.failed = Some(Sense::INVALID_FIELD_IN_CDB);
        }
        task.is_refused = task.failed.is_some() || (is_short && task.wanted_bytes > 0);
        task.is_arriving = command.data_bytes > 0;
        let wanted = if task.is_refused { 0 } else { usize::try_from(task.wanted_bytes).unwrap_or(usize::MAX) };
        let mut payload = ArrivingPayload::new(wanted);
        let sink = if command.data_bytes > 0 { Sink::Payload(std::mem::take(&mut payload)) } else { Sink::Skip };
        task.payload = payload;
        // What comes unasked counts at once, the rest when it is asked for.
        let first_burst = session.parameters.first_burst;
        let is_open = task.transfer.as_ref().is_some_and(Transfer::is_unsolicited_open);
        let unasked = u64::from(if is_open { first_burst } else { command.data_bytes });
        task.held_bytes = if task.is_refused { 0 } else { unasked.min(task.wanted_bytes) };
        let held_bytes = task.held_bytes;
        session.gather(task);
        self.hold_iscsi(key, held_bytes);
        self.place(key, (command.cmd_sn, command.immediate), Item::Task(itt));
        (Pending::Command(itt), sink)
    }

    fn on_data_out(&mut self, key: usize, data: &DataOut) -> (Pending, Sink) {
        let Some((session, _)) = self.session_and(key) else { return (Pending::Nothing, Sink::Skip) };
        // What is left of a command that was aborted.
        let Some(task) = session.task_of(data, key) else { return (Pending::Nothing, Sink::Skip) };
        let progress = task.transfer.as_mut().map(|transfer| transfer.data(data));
        match progress {
            Some(Ok(_)) => {
                task.is_arriving = data.data_bytes > 0;
                let sink =
                    if data.data_bytes > 0 { Sink::Payload(std::mem::take(&mut task.payload)) } else { Sink::Skip };
                (Pending::DataOut(data.itt), sink)
            }
            // The command fails, and what else comes of its data is thrown away: RFC 7143 7.9 without recovery.
            Some(Err(error)) => {
                tracing::info!(connection = key, ?error, "an initiator sends data as it must not");
                let (mut payload, session_key) = (std::mem::take(&mut task.payload), session.key);
                payload.abandon(&mut self.buffers);
                self.finish_task(session_key, data.itt, Outcome::fixed(sense_of(error)));
                (Pending::Nothing, Sink::Skip)
            }
            None => (Pending::Nothing, Sink::Skip),
        }
    }

    /// Data of a command is there; what is missing is asked for.
    fn on_data(&mut self, key: usize, itt: u32, mut sink: Sink) {
        let Some((session, connection)) = self.session_and(key) else { return };
        let session_key = connection.session;
        let Some(task) = session.tasks.get_mut(&itt) else {
            sink.abandon(&mut self.buffers);
            return;
        };
        let was_arriving = std::mem::take(&mut task.is_arriving);
        let is_its = task.connection == key && (was_arriving || !matches!(sink, Sink::Payload(_)));
        if !is_its {
            // Of another command, that had this tag before.
            task.is_arriving = was_arriving;
            sink.abandon(&mut self.buffers);
            return;
        }
        if let Sink::Payload(payload) = sink {
            task.payload = payload;
        }
        self.ask_for_data(session_key, itt);
        self.submit_ready(session_key);
    }

    /// Asks for the next burst of a write, once there is room for all of it, so that what is begun can end. RFC 7143 11.8.
    pub(super) fn ask_for_data(&mut self, key: SessionKey, itt: u32) {
        let Some(task) = self.task_mut(key, itt) else { return };
        // While more comes unasked, nothing is asked for.
        let lacks =
            task.transfer.as_ref().is_some_and(|transfer| !transfer.is_complete() && !transfer.is_unsolicited_open());
        if task.is_refused || !lacks {
            return;
        }
        let connection = task.connection;
        let is_open = self.iscsi.get(connection).is_some_and(|connection| connection.phase == Phase::Open);
        if !is_open || !self.grant(key, itt) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let (ttt, window) = (session.take_ttt(), session.numbers());
        let Some(task) = session.tasks.get_mut(&itt) else { return };
        let lun = task.lun;
        let Some(wanted) = task.transfer.as_mut().and_then(|transfer| transfer.next_r2t(ttt)) else { return };
        let request = R2t { lun, itt, ttt, sn: wanted.sn, offset: wanted.offset, bytes: wanted.bytes };
        if let Some(connection) = self.iscsi.get_mut(connection) {
            connection.outbox.push_unnumbered(window, |numbers| r2t(&request, numbers));
        }
        self.note_iscsi_news(connection);
    }
    /// RFC 7143 11.18: what comes with a ping goes back with its answer; an answer to a ping of ours needs none.
    fn on_nop(&mut self, key: usize, nop: &NopOut, data: &[u8]) {
        if nop.itt == constants::RESERVED_TAG {
            return;
        }
        let Some((session, connection)) = self.session_and(key) else { return };
        let limit = usize::try_from(connection.parameters.initiator_data_bytes_max).unwrap_or(usize::MAX);
        let data = data.get(..data.len().min(limit)).unwrap_or_default();
        let answer = NopIn { lun: [0; 8], itt: nop.itt, ttt: constants::RESERVED_TAG, data_bytes: 0 };
        connection.outbox.push_response(session.numbers(), |numbers| nop_in(&answer, numbers), data);
        self.note_iscsi_news(key);
    }

    /// RFC 7143 11.10, 6.3: keys that may be told or asked for in the full feature phase.
    fn on_text(&mut self, key: usize, text: &TextRequest, data: &[u8]) {
        let Some((session, connection)) = self.session_and(key) else { return };
        connection.text.extend_from_slice(data);
        if connection.text.len() > TEXT_BYTES_MAX {
            connection.text.clear();
            self.reject(key, RejectReason::ProtocolError);
            return;
        }
        let limit = connection.parameters.initiator_data_bytes_max;
        let mut answer = if let Some(answer) = connection.text_answer.take_if(|answer| answer.is_asked_by(text)) {
            answer
        } else if text.is_continued {
            let ttt = session.take_ttt();
            connection.outbox.push_response(
                session.numbers(),
                |numbers| text_response(&go_on(text, ttt), numbers),
                &[],
            );
            self.note_iscsi_news(key);
            return;
        } else {
            let keys = std::mem::take(&mut connection.text);
            let own = TargetListing { name: session.target.to_string(), addresses: vec![session.address.clone()] };
            let Ok(query) = TextQuery::parse(&keys, Some(&own.name), &mut connection.parameters) else {
                self.reject(key, RejectReason::ProtocolError);
                return;
            };
            let listed = query.targets.is_some().then_some(&own);
            LongText::new(text, session.take_ttt(), query.answer(listed))
        };
        let (response, data) = answer.respond(limit);
        connection.outbox.push_response(session.numbers(), |numbers| text_response(&response, numbers), &data);
        connection.text_answer = Some(answer).filter(|answer| !answer.is_over());
        self.note_iscsi_news(key);
    }
}
