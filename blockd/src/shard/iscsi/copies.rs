//! EXTENDED COPY and RECEIVE COPY RESULTS: carried out by the session, which reaches several units. SPC-4 6.4, 6.18.

use crate::iscsi::{CopyJob, CopyStep, Route};
use crate::shard::Shard;
use crate::unit::{DataIn, Outcome, SessionKey, UnitTask};
use proto::iscsi::Attribute;
use proto::scsi::{Command, CopyState, Sense, SenseKey, Status, copy};
use smallvec::smallvec;
use volume::buffer::{Buffer, total_len};
use volume::request::{Lent, Payload};

/// Copies of a session whose results are kept.
const RESULTS_MAX: usize = 16;

/// Service actions of RECEIVE COPY RESULTS.
const COPY_STATUS: u8 = 0;
const OPERATING_PARAMETERS: u8 = 3;
const FAILED_DETAILS: u8 = 4;

impl Shard {
    pub(super) fn begin_copy_command(&mut self, key: SessionKey, itt: u32, payload: &Payload) {
        let command = self.sessions.get(&key).and_then(|session| session.tasks.get(&itt)).map(|task| task.command);
        match command {
            Some(Ok(Command::ExtendedCopy { length })) => {
                let bytes = payload.first().map_or(&[][..], Buffer::as_slice);
                let bytes = usize::try_from(length).ok().and_then(|length| bytes.get(..length));
                self.begin_copy(key, itt, bytes);
            }
            Some(Ok(Command::ReceiveCopyResults { action, list_id, allocation })) => {
                let outcome = self.copy_results(key, action, list_id, allocation);
                self.finish_task(key, itt, outcome);
            }
            _ => self.finish_task(key, itt, Outcome::fixed(Sense::INVALID_OPCODE)),
        }
    }

    fn begin_copy(&mut self, key: SessionKey, itt: u32, list: Option<&[u8]>) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let list = list.ok_or(Sense::PARAMETER_LIST_LENGTH).and_then(copy::parse);
        let routes: Vec<Route> = session.luns.values().cloned().collect();
        match list.and_then(|list| CopyJob::new(list, &routes)) {
            Ok(job) => {
                session.copies.insert(itt, job);
                self.go_on_copying(key, itt);
            }
            Err(sense) => self.finish_task(key, itt, Outcome::fixed(sense)),
        }
    }

    fn copy_results(&self, key: SessionKey, action: u8, list_id: u8, allocation: u32) -> Outcome {
        let result = self.sessions.get(&key).and_then(|session| session.copy_results.get(&list_id));
        let told = match (action, result) {
            (OPERATING_PARAMETERS, _) => copy::operating_parameters(),
            (COPY_STATUS, Some((status, _))) => copy::copy_status(status),
            (FAILED_DETAILS, Some((_, failure))) => {
                copy::failed_details(failure.as_ref().map(|(status, sense)| (*status, sense)))
            }
            _ => return Outcome::fixed(Sense::INVALID_FIELD_IN_CDB),
        };
        Outcome::parameters(told, allocation)
    }

    /// Begins the next step of a copy, or ends it.
    fn go_on_copying(&mut self, key: SessionKey, itt: u32) {
        let Some(job) = self.sessions.get_mut(&key).and_then(|session| session.copies.get_mut(&itt)) else { return };
        let is_aborted = job.is_aborted;
        match job.next_step().filter(|_| !is_aborted) {
            Some(step) => self.begin_copy_step(key, itt, step, (Payload::new(), None)),
            None if is_aborted => self.end_copy(key, itt, Outcome::Aborted, None),
            None => self.end_copy(key, itt, Outcome::good(), None),
        }
    }

    fn begin_copy_step(
        &mut self,
        key: SessionKey,
        itt: u32,
        step: CopyStep,
        (payload, lent): (Payload, Option<Box<Lent>>),
    ) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let tag = session.take_tag();
        if let Some(job) = session.copies.get_mut(&itt) {
            job.tag = tag;
            job.step_route = Some(step.route.clone());
        }
        let CopyStep { route, command } = step;
        let (attribute, expected_bytes) = (Attribute::Simple, total_len(&payload));
        let task = UnitTask { session: key, tag, attribute, command: Ok(command), payload, expected_bytes, lent };
        self.ask_unit(&route, task);
    }

    /// A step of a copy is done.
    pub(super) fn on_copy_step(&mut self, key: SessionKey, tag: u64, outcome: Outcome) {
        let found = self.sessions.get_mut(&key).and_then(|session| {
            session.copies.iter_mut().find(|(_, job)| job.tag == tag).map(|(itt, job)| (*itt, job))
        });
        let Some((itt, job)) = found else {
            outcome.discard(&mut self.buffers);
            return;
        };
        if job.is_aborted {
            outcome.discard(&mut self.buffers);
            self.end_copy(key, itt, Outcome::Aborted, None);
            return;
        }
        match outcome {
            Outcome::Ended { status: Status::Good, data: DataIn::Buffer { buffer, skip, len }, .. }
                if job.is_reading =>
            {
                job.is_retried = false;
                self.write_copied(key, itt, (buffer, skip, len));
            }
            Outcome::Ended { status: Status::Good, data: DataIn::Lent(lent), .. } => {
                job.is_retried = false;
                if let Some(step) = job.next_borrow() {
                    self.begin_copy_step(key, itt, step, (Payload::new(), Some(lent)));
                }
            }
            Outcome::Ended { status: Status::Good, .. } => {
                job.is_retried = false;
                job.note_written();
                self.go_on_copying(key, itt);
            }
            // The unit had something to tell first; what it told is the initiator's to hear of, with its own commands.
            Outcome::Ended { status: Status::CheckCondition, sense, .. } if !job.is_retried && is_attention(&sense) => {
                job.is_retried = true;
                self.go_on_copying(key, itt);
            }
            // It is not shared: it is read and written. Where that fails, too, it tells why.
            Outcome::Ended { status: Status::CheckCondition, .. } if job.is_sharing() => {
                job.share_not();
                self.go_on_copying(key, itt);
            }
            Outcome::Ended { status, sense, data } => {
                Outcome::Ended { status, sense, data }.discard(&mut self.buffers);
                let sense = Sense::COPY_ABORTED;
                self.end_copy(key, itt, Outcome::fixed(sense), Some((status, sense)));
            }
            Outcome::Aborted => self.end_copy(key, itt, Outcome::Aborted, None),
        }
    }

    fn write_copied(&mut self, key: SessionKey, itt: u32, (mut buffer, skip, len): (Buffer, usize, usize)) {
        let bytes = buffer.as_slice().get(skip..skip + len).unwrap_or_default();
        let is_zeros = bytes.iter().all(|byte| *byte == 0);
        let payload: Payload = if is_zeros {
            self.buffers.put(buffer);
            Payload::new()
        } else {
            if skip > 0 {
                buffer.as_mut_slice().copy_within(skip..skip + len, 0);
            }
            buffer.set_len(len);
            smallvec![buffer]
        };
        let job = self.sessions.get_mut(&key).and_then(|session| session.copies.get_mut(&itt));
        match job.and_then(|job| job.next_write(is_zeros)) {
            Some(step) => self.begin_copy_step(key, itt, step, (payload, None)),
            None => self.buffers.put_all(payload),
        }
    }

    fn end_copy(&mut self, key: SessionKey, itt: u32, outcome: Outcome, failure: Option<(Status, Sense)>) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if let Some(job) = session.copies.remove(&itt) {
            let is_good = matches!(outcome, Outcome::Ended { status: Status::Good, .. });
            let (list_id, status) = job.status(if is_good { CopyState::Completed } else { CopyState::Failed });
            if session.copy_results.len() >= RESULTS_MAX && !session.copy_results.contains_key(&list_id) {
                session.copy_results.pop_first();
            }
            session.copy_results.insert(list_id, (status, failure));
        }
        self.finish_task(key, itt, outcome);
    }
}

/// Whether encoded sense data, of either format, is a unit attention. SPC-4 4.5.
fn is_attention(sense: &[u8]) -> bool {
    let key = match sense.first().map(|code| code & 0x7f) {
        Some(0x72 | 0x73) => sense.get(1),
        _ => sense.get(2),
    };
    key.is_some_and(|key| key & 0x0f == SenseKey::UnitAttention as u8)
}
