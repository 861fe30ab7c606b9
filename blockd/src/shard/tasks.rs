//! Logical units: tasks that sessions hand to a volume, begun as the gate and the limits allow, and answered.

use super::mailbox::{SessionMessage, UnitMessage};
use super::requests::Origin;
use super::{Shard, VolumeSlot};
use crate::qos::{Ask, work_of};
use crate::unit::{
    Abort, AbortScope, Awaiting, Begun, Facts, Home, KeepReservations, LogicalUnit, NewNexus, Next, Outcome, Plan,
    SessionKey, UnitTask, operation_bytes,
};
use proto::scsi::{Access, Command, Sense, Status};
use std::collections::BTreeSet;
use units::{Monotonic, SECTOR_BYTES, VolumeId};
use volume::error::Error;
use volume::request::Completion;

/// No session's: all are told of an abort by it.
const NOBODY: SessionKey = SessionKey(0);

/// Marks the gate's keys of units; the other bits are the volume's place.
pub(super) const UNIT_BIT: usize = 1 << (usize::BITS - 1);

/// A task under way.
#[derive(Debug)]
pub(super) struct Executing {
    pub(super) place: usize,
    session: SessionKey,
    tag: u64,
    /// Absent while it is worked on.
    plan: Option<Plan>,
    pub(super) since: Monotonic,
    /// Work that it counts as under way with.
    pub(super) work: u64,
    /// Bytes that it holds under the limits.
    held_bytes: u64,
    /// Its answer is thrown away; whether its initiator is told so, which did not ask for that itself.
    is_aborted: bool,
    is_told: bool,
    /// Aborts that are answered behind it.
    awaited_by: Vec<u64>,
    /// Its initiator has the answer already.
    is_answered: bool,
}

impl Executing {
    pub(super) const fn is_aborted(&self) -> bool {
        self.is_aborted
    }
}

impl Shard {
    pub(super) fn on_unit_message(&mut self, volume: VolumeId, message: UnitMessage) {
        let place = self.by_id.get(&volume).copied();
        match message {
            UnitMessage::Attach(new) => self.attach_nexus(place, volume, *new),
            UnitMessage::Detach { session, guard } => {
                if let Some(place) = place {
                    self.detach_nexus(place, session);
                }
                drop(guard);
            }
            UnitMessage::Task { task, from } => self.take_task(place, (volume, *task), &from),
            UnitMessage::Abort { abort, from } => self.abort_tasks(place, abort, &from),
            UnitMessage::Attend { session, sense } => {
                if let Some(unit) = place.and_then(|place| self.unit_mut(place)) {
                    unit.attend(session, sense);
                }
            }
            UnitMessage::Reserved { is_kept } => {
                if let Some(place) = place {
                    self.on_reserved(place, is_kept);
                }
            }
        }
    }

    pub(super) fn unit_mut(&mut self, place: usize) -> Option<&mut LogicalUnit> {
        self.volumes.get_mut(place).map(|slot| &mut *slot.unit)
    }

    fn attach_nexus(&mut self, place: Option<usize>, volume: VolumeId, new: NewNexus) {
        let slot = place.and_then(|place| self.volumes.get_mut(place));
        let is_welcome = |slot: &VolumeSlot| slot.closing.is_none() && !new.attachment.is_expelled();
        let Some(slot) = slot.filter(|slot| is_welcome(slot)) else {
            self.deliver(new.home, new.session, SessionMessage::UnitGone { volume });
            return;
        };
        slot.stats.connections += 1;
        slot.unit.attach(new);
    }

    /// Ends a nexus: what of it has not begun never does.
    fn detach_nexus(&mut self, place: usize, session: SessionKey) {
        self.drop_queued(place, None, |task| task.session == session);
        self.mark_aborted(place, (None, 0), |task| task.session == session);
        let Some(slot) = self.volumes.get_mut(place) else { return };
        if slot.unit.detach(session) {
            slot.stats.connections -= 1;
        }
        self.touch(place);
        self.pump_unit(place);
    }

    fn take_task(&mut self, place: Option<usize>, (volume, task): (VolumeId, UnitTask), from: &Home) {
        let place = place.filter(|place| self.volumes.get(*place).is_some_and(|slot| slot.closing.is_none()));
        let refused = match place.and_then(|place| self.unit_mut(place)) {
            Some(unit) => unit.push(task),
            None => Err(Box::new(task)),
        };
        if let Err(refused) = refused {
            let UnitTask { session, tag, payload, .. } = *refused;
            self.buffers.put_all(payload);
            tracing::debug!(%volume, tag, "a task came for a unit that is not there for it");
            let outcome = Outcome::fixed(Sense::LUN_NOT_SUPPORTED);
            self.deliver(from.clone(), session, SessionMessage::Done { tag, outcome });
            return;
        }
        if let Some(place) = place {
            self.pump_unit(place);
        }
    }

    /// Begins tasks of a unit as far as they may.
    pub(super) fn pump_unit(&mut self, place: usize) {
        loop {
            let has_room = self.held_as_seen() < self.limits.shard_bytes_max;
            let Some(slot) = self.volumes.get_mut(place) else { return };
            let Some(front) = slot.unit.front() else { return };
            let bytes = front.command.as_ref().ok().and_then(operation_bytes);
            // One may always be under way, or a small limit would let none.
            if read_bytes(front) > 0 && !has_room && slot.unit.running() > 0 {
                slot.unit.is_stalled = true;
                self.is_short = true;
                self.stats.stalls += 1;
                self.stalled_units.push(place);
                return;
            }
            if let Some(bytes) = bytes
                && let Err(queue) = self.gate.ask(self.now, slot.standing, Ask { key: UNIT_BIT | place, bytes })
            {
                slot.unit.held_in = Some(queue);
                return;
            }
            let Some(task) = slot.unit.pop() else { return };
            self.begin_task(place, task, bytes);
        }
    }

    fn begin_task(&mut self, place: usize, task: UnitTask, bytes: Option<u64>) {
        let Some(slot) = self.volumes.get_mut(place) else { return };
        let (session, tag, attribute) = (task.session, task.tag, task.attribute);
        let held_bytes = task.payload_bytes() + read_bytes(&task);
        let facts = Facts { size_bytes: slot.volume.size_bytes(), buffers: &mut self.buffers };
        match slot.unit.begin(task, facts) {
            Begun::Ended(outcome) => self.answer_task(place, (session, tag), outcome),
            Begun::Asked(plan, requests) => {
                slot.unit.note_begun(attribute);
                let work = bytes.map_or(0, work_of);
                let is_answered = matches!(plan, Plan::Unawaited);
                let key = self.executing.insert(Executing {
                    place,
                    session,
                    tag,
                    plan: Some(plan),
                    since: self.now,
                    work,
                    held_bytes,
                    is_aborted: false,
                    is_told: false,
                    awaited_by: Vec::new(),
                    is_answered,
                });
                self.held_bytes += held_bytes;
                if work > 0 {
                    self.begin_work(place, work);
                }
                for request in requests {
                    self.begin(place, request, Origin::Unit { key });
                }
                if is_answered {
                    self.answer_task(place, (session, tag), Outcome::good());
                }
            }
            Begun::Reserving(reserving) => {
                if LogicalUnit::must_be_kept(&reserving) {
                    self.keep_reservations(place, *reserving);
                } else {
                    self.finish_reserving(place, *reserving, true);
                }
            }
        }
    }

    /// Goes on with tasks of which requests have been answered.
    pub(super) fn advance_units(&mut self) {
        let mut replies = std::mem::take(&mut self.unit_replies);
        for (key, result) in replies.drain(..) {
            self.advance_task(key, result);
        }
        self.unit_replies = replies;
    }

    fn advance_task(&mut self, key: usize, result: Result<Completion, Error>) {
        let Some(executing) = self.executing.get_mut(key) else { return };
        let (place, plan) = (executing.place, executing.plan.take());
        let is_aborted = executing.is_aborted;
        let (Some(slot), Some(plan)) = (self.volumes.get(place), plan) else { return };
        match slot.unit.advance(plan, result, &mut self.buffers) {
            Next::Wait(plan) => executing.plan = Some(plan),
            // What goes on piece by piece ends at a piece when it is aborted.
            Next::Ask(plan, request) if !is_aborted => {
                executing.plan = Some(plan);
                self.begin(place, request, Origin::Unit { key });
            }
            Next::Ask(plan, request) => {
                plan.discard(&mut self.buffers);
                self.buffers.put_all(request.into_buffers());
                self.end_task(key, Outcome::Aborted);
            }
            Next::End(outcome) => self.end_task(key, outcome),
        }
    }

    fn end_task(&mut self, key: usize, outcome: Outcome) {
        let executing = self.executing.remove(key);
        let Executing { place, session, tag, work, held_bytes, is_aborted, is_told, .. } = executing;
        let (awaited_by, is_answered) = (executing.awaited_by, executing.is_answered);
        self.held_bytes -= held_bytes;
        self.has_released = true;
        if work > 0 {
            self.end_work(place, work);
        }
        let aborts = self.unit_mut(place).map(|unit| unit.note_ended(&awaited_by)).unwrap_or_default();
        if is_aborted || is_answered {
            outcome.discard(&mut self.buffers);
        } else {
            self.answer_task(place, (session, tag), outcome);
        }
        if is_aborted {
            self.answer_task(place, (session, tag), aborted(is_told));
        }
        for (session, answer) in aborts {
            match answer {
                Awaiting::Function { tag } => self.answer_abort(place, session, tag),
                Awaiting::Command { tag, outcome } => self.answer_task(place, (session, tag), outcome),
            }
        }
        self.touch(place);
        self.pump_unit(place);
    }

    fn answer_task(&mut self, place: usize, (session, tag): (SessionKey, u64), outcome: Outcome) {
        let home = self.unit_mut(place).and_then(|unit| unit.home_of(session));
        match home {
            Some(home) => self.deliver(home, session, SessionMessage::Done { tag, outcome }),
            None => outcome.discard(&mut self.buffers),
        }
    }

    fn answer_abort(&mut self, place: usize, session: SessionKey, tag: u64) {
        if let Some(home) = self.unit_mut(place).and_then(|unit| unit.home_of(session)) {
            self.deliver(home, session, SessionMessage::Aborted { tag });
        }
    }

    /// Passes something on to a session, on whichever shard that is.
    fn deliver(&mut self, home: Home, session: SessionKey, message: SessionMessage) {
        match home {
            Home::Here => self.session_news.push((session, message)),
            Home::Elsewhere(shard) => {
                // One that has ended needs no answer.
                let _ = shard.send_session(session, message);
            }
        }
    }

    /// Takes out of the queue what is not to begin, and has its sessions forget it. Others than `by` are told.
    fn drop_queued(&mut self, place: usize, by: Option<SessionKey>, is_concerned: impl Fn(&UnitTask) -> bool) {
        let Some(slot) = self.volumes.get_mut(place) else { return };
        let dropped = slot.unit.take_queued(is_concerned);
        // Whoever waited for it was the first of the queue, which is another one now.
        let queue = slot.unit.held_in.take();
        if let Some(queue) = queue {
            self.gate.leave(queue, UNIT_BIT | place);
        }
        for UnitTask { session, tag, payload, .. } in dropped {
            self.buffers.put_all(payload);
            self.answer_task(place, (session, tag), aborted(by.is_some_and(|by| by != session)));
        }
    }

    /// Marks tasks under way as aborted, by the abort of a number; returns how many there are. Initiators of others than `by`
    /// are told.
    fn mark_aborted(
        &mut self,
        place: usize,
        (by, number): (Option<SessionKey>, u64),
        is_concerned: impl Fn(&Executing) -> bool,
    ) -> usize {
        let is_there = |task: &Executing| task.place == place && !task.is_answered && is_concerned(task);
        let concerned = self.executing.iter_mut().filter(|(_, task)| is_there(task));
        concerned
            .map(|(_, task)| {
                task.is_aborted = true;
                task.awaited_by.push(number);
                task.is_told |= by.is_some_and(|by| by != task.session);
            })
            .count()
    }

    /// Aborts tasks of a unit. SAM-5 7, and 5.9 for what others are told.
    fn abort_tasks(&mut self, place: Option<usize>, abort: Abort, from: &Home) {
        let Some(place) = place else {
            self.deliver(from.clone(), abort.session, SessionMessage::Aborted { tag: abort.tag });
            return;
        };
        let Abort { session, tag, scope } = abort;
        let concerns = move |of: SessionKey, its: u64| match scope {
            AbortScope::Task(task) => of == session && its == task,
            AbortScope::Session => of == session,
            AbortScope::Set | AbortScope::Reset | AbortScope::ColdReset => true,
        };
        self.drop_queued(place, Some(session), |task| concerns(task.session, task.tag));
        let number = self.unit_mut(place).map_or(0, LogicalUnit::take_abort_number);
        let open = self.mark_aborted(place, (Some(session), number), |task| concerns(task.session, task.tag));
        if !matches!(scope, AbortScope::Task(_) | AbortScope::Session) {
            self.tell_of_reset(place, session, scope == AbortScope::ColdReset);
        }
        if let Some(unit) = self.unit_mut(place) {
            match scope {
                AbortScope::Set => unit.broadcast(Some(session), Sense::COMMANDS_CLEARED),
                AbortScope::Reset | AbortScope::ColdReset => unit.reset(None, Sense::DEVICE_RESET),
                AbortScope::Task(_) | AbortScope::Session => {}
            }
            if open > 0 {
                unit.wait_for(number, session, (Awaiting::Function { tag }, open));
            }
        }
        if open == 0 {
            self.deliver(from.clone(), session, SessionMessage::Aborted { tag });
        }
        self.pump_unit(place);
    }

    /// Has the other sessions of a unit forget what they have not handed on yet; after a cold reset those of the same target end.
    fn tell_of_reset(&mut self, place: usize, by: SessionKey, is_cold: bool) {
        let Some(slot) = self.volumes.get(place) else { return };
        let volume = slot.volume.id();
        let others = slot.unit.sessions().into_iter().filter(|session| *session != by);
        let homes: Vec<_> = others.filter_map(|session| Some((session, slot.unit.home_of(session)?))).collect();
        for (session, home) in homes {
            let ends = is_cold && self.volumes.get(place).is_some_and(|slot| slot.unit.have_one_target(session, by));
            let message = if ends { SessionMessage::End } else { SessionMessage::UnitReset { volume } };
            self.deliver(home, session, message);
        }
    }

    fn keep_reservations(&mut self, place: usize, reserving: crate::unit::Reserving) {
        let Some(volume) = self.volumes.get(place).map(|slot| slot.volume.id()) else { return };
        let (handle, kept) = (self.handle.clone(), reserving.kept.clone());
        let done = Box::new(move |is_kept| {
            // A shard that has ended has no use for it.
            let _ = handle.send_unit(volume, UnitMessage::Reserved { is_kept });
        });
        self.reserving.insert(place, reserving);
        if self.registrar.keep(KeepReservations { volume, kept, done }).is_err() {
            self.on_reserved(place, false);
        }
    }

    fn on_reserved(&mut self, place: usize, is_kept: bool) {
        if let Some(reserving) = self.reserving.remove(&place) {
            self.finish_reserving(place, reserving, is_kept);
            self.pump_unit(place);
        }
    }

    /// The caller goes on with the queue.
    fn finish_reserving(&mut self, place: usize, reserving: crate::unit::Reserving, is_kept: bool) {
        let asker = (reserving.session, reserving.tag);
        let Some(unit) = self.unit_mut(place) else { return };
        let (outcome, aborted) = unit.end_reserving(reserving, is_kept);
        let aborted: BTreeSet<SessionKey> = aborted.into_iter().collect();
        self.drop_queued(place, Some(asker.0), |task| aborted.contains(&task.session));
        let number = self.unit_mut(place).map_or(0, LogicalUnit::take_abort_number);
        let by = (Some(asker.0), number);
        let open = self.mark_aborted(place, by, |task| aborted.contains(&task.session));
        // What it aborts has no effect any more when it is answered. SPC-4 5.13.11.2.
        match self.unit_mut(place).filter(|_| open > 0) {
            Some(unit) => unit.wait_for(number, asker.0, (Awaiting::Command { tag: asker.1, outcome }, open)),
            None => self.answer_task(place, asker, outcome),
        }
    }

    /// Lets units go on that waited for memory.
    pub(super) fn resume_stalled_units(&mut self) {
        for place in std::mem::take(&mut self.stalled_units) {
            if let Some(unit) = self.unit_mut(place) {
                unit.is_stalled = false;
                self.pump_unit(place);
            }
        }
    }

    /// Lets a unit go on that was held by the gate.
    pub(super) fn resume_unit(&mut self, place: usize) {
        if let Some(unit) = self.unit_mut(place) {
            unit.held_in = None;
            self.pump_unit(place);
        }
    }

    /// Begins to end all nexuses of a unit that is being closed: what has not begun is not, what is under way is answered.
    pub(super) fn close_unit(&mut self, place: usize) {
        self.drop_queued(place, Some(NOBODY), |_| true);
        if let Some(unit) = self.unit_mut(place) {
            unit.is_closing = true;
        }
        self.end_nexuses_if_idle(place);
    }

    /// Forgets the nexuses of a closing unit once nothing is under way.
    pub(super) fn end_nexuses_if_idle(&mut self, place: usize) {
        // A change of reservations is not waited for: whoever closes may hold what that waits for.
        let is_over = |unit: &LogicalUnit| unit.is_closing && unit.running() == 0;
        let Some(slot) = self.volumes.get_mut(place).filter(|slot| is_over(&slot.unit)) else { return };
        let (volume, sessions) = (slot.volume.id(), slot.unit.sessions());
        for session in sessions {
            let Some(slot) = self.volumes.get_mut(place) else { return };
            let home = slot.unit.home_of(session);
            if slot.unit.detach(session) {
                slot.stats.connections -= 1;
            }
            if let Some(home) = home {
                self.deliver(home, session, SessionMessage::UnitGone { volume });
            }
        }
    }

    /// Whether an NBD client may be served what it asks for: it is no nexus, so that a reservation of any keeps it out as far as
    /// that keeps others out.
    pub(super) fn is_fenced(&self, place: usize, access: Access) -> bool {
        self.volumes.get(place).is_some_and(|slot| !slot.unit.admits_other(access))
    }
}

/// How an aborted task ends. Initiators are told of what they did not abort themselves: the control mode page has TAS set.
/// SAM-5 5.3.1.
const fn aborted(is_told: bool) -> Outcome {
    if is_told { Outcome::status(Status::TaskAborted) } else { Outcome::Aborted }
}

/// Bytes that a task reads for its initiator.
fn read_bytes(task: &UnitTask) -> u64 {
    match &task.command {
        Ok(Command::Read { span, .. }) => span.blocks.saturating_mul(SECTOR_BYTES),
        _ => 0,
    }
}
