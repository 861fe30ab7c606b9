//! A logical unit: a volume as SCSI initiators see it. Knows commands, nexuses and reservations; the shard moves the bytes.
//!
//! It lives with its volume, whichever shard the sessions are on, so that there is one task set, one set of reservations, and
//! one place where NBD clients are held against these. Spec: SAM-5, SPC-4, SBC-3.
//!
//! A task waits in the queue until it may begin, in order of arrival but for those that go to its head; from then on it is
//! under way until its requests are answered. What is under way is not broken off by an abort: its answer is thrown away, and
//! the abort is answered after it, so that nothing of it comes later.

mod answers;
mod begin;
mod medium;
mod nexus;
mod plan;
mod reserve;
mod task;

pub(crate) use begin::{Begun, Facts, operation_bytes};
pub(crate) use nexus::{Home, NewNexus, SessionKey};
pub(crate) use plan::{Next, Plan};
pub use reserve::Registrar;
pub(crate) use reserve::{KeepReservations, Reserving, reservations_of};
pub(crate) use task::{Abort, AbortScope, DataIn, Outcome, UnitTask};

use crate::qos::Queue;
use crate::shard::UnitSettings;
use nexus::NexusState;
use proto::iscsi::Attribute;
use proto::scsi::{Mode, Reservations, Sense};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use units::{Monotonic, PoolId};

/// Least time between two reports that the pool is nearly full.
const SOFT_THRESHOLD_PERIOD_NS: u64 = 600_000_000_000;

/// What a unit is known by, stable for the life of its volume and of those that replace it by rollbacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitIdentity {
    /// 16 hexadecimal digits.
    pub(crate) serial: Arc<str>,
    /// The NAA identifier, locally assigned. SPC-4 7.8.6.6.4.
    pub(crate) naa: [u8; 8],
    /// Whether it takes no writes at all.
    pub(crate) is_read_only: bool,
}

/// An abort that waits for tasks under way.
#[derive(Debug)]
struct PendingAbort {
    session: SessionKey,
    answer: Awaiting,
    open: usize,
}

/// What is answered when the tasks that an abort concerns have ended.
#[derive(Debug)]
pub(crate) enum Awaiting {
    /// The management function of this tag.
    Function { tag: u64 },
    /// The command that had them aborted.
    Command { tag: u64, outcome: Outcome },
}

/// A logical unit.
#[derive(Debug)]
pub(crate) struct LogicalUnit {
    identity: UnitIdentity,
    reservations: Reservations,
    mode: Mode,
    nexuses: BTreeMap<SessionKey, NexusState>,
    queue: VecDeque<UnitTask>,
    /// Tasks under way, and whether one of them lets no other begin.
    running: usize,
    is_ordered_running: bool,
    /// Aborts that are not answered, by number.
    aborts: BTreeMap<u64, PendingAbort>,
    next_abort: u64,
    /// Where the first task of the queue waits.
    pub(crate) held_in: Option<Queue>,
    /// Whether the first task of the queue waits for memory.
    pub(crate) is_stalled: bool,
    /// Whether a change of the reservations is being made durable.
    pub(crate) is_reserving: bool,
    /// Whether no task begins any more, since the volume is being closed.
    pub(crate) is_closing: bool,
    size_bytes: u64,
    soft_threshold_at: Option<Monotonic>,
}

impl UnitIdentity {
    fn of(settings: &UnitSettings) -> Self {
        let digits = settings.naa.map(|byte| format!("{byte:02x}")).concat();
        Self { serial: digits.into(), naa: settings.naa, is_read_only: settings.is_read_only }
    }
}

impl LogicalUnit {
    pub(crate) fn new(settings: &UnitSettings, size_bytes: u64) -> Self {
        let reservations = settings.reservations.as_ref().map(reservations_of).unwrap_or_default();
        Self {
            identity: UnitIdentity::of(settings),
            reservations,
            mode: Mode::default(),
            nexuses: BTreeMap::new(),
            queue: VecDeque::new(),
            running: 0,
            is_ordered_running: false,
            aborts: BTreeMap::new(),
            next_abort: 0,
            held_in: None,
            is_stalled: false,
            is_reserving: false,
            is_closing: false,
            size_bytes,
            soft_threshold_at: None,
        }
    }

    /// Whether a client that is no nexus may read or write.
    pub(crate) fn admits_other(&self, access: proto::scsi::Access) -> bool {
        self.reservations.check(None, access)
    }

    /// Tasks under way.
    pub(crate) const fn running(&self) -> usize {
        self.running
    }

    /// Puts a task in the queue; gives it back when its session has no nexus here.
    pub(crate) fn push(&mut self, task: UnitTask) -> Result<(), Box<UnitTask>> {
        if !self.nexuses.contains_key(&task.session) {
            return Err(Box::new(task));
        }
        // What a session asks for goes on to what it has: SAM-5 8.6.3.
        if task.attribute == Attribute::HeadOfQueue {
            self.queue.push_front(task);
        } else {
            self.queue.push_back(task);
        }
        Ok(())
    }

    /// The task that may begin next, if one may.
    pub(crate) fn front(&self) -> Option<&UnitTask> {
        if self.held_in.is_some() || self.is_stalled || self.is_reserving || self.is_ordered_running {
            return None;
        }
        let front = self.queue.front()?;
        let waits = front.attribute == Attribute::Ordered && self.running > 0;
        (!waits).then_some(front)
    }

    /// Takes the task that [`LogicalUnit::front`] showed.
    pub(crate) fn pop(&mut self) -> Option<UnitTask> {
        self.queue.pop_front()
    }

    /// Counts a task as under way.
    pub(crate) fn note_begun(&mut self, attribute: Attribute) {
        self.running += 1;
        self.is_ordered_running |= attribute == Attribute::Ordered;
    }

    /// Counts it no more. Returns what is to be answered of the aborts that waited for it.
    pub(crate) fn note_ended(&mut self, awaited_by: &[u64]) -> Vec<(SessionKey, Awaiting)> {
        self.running -= 1;
        // An ordered one runs alone.
        self.is_ordered_running = false;
        let mut over = Vec::new();
        for number in awaited_by {
            let Some(abort) = self.aborts.get_mut(number) else { continue };
            abort.open = abort.open.saturating_sub(1);
            if abort.open == 0
                && let Some(abort) = self.aborts.remove(number)
            {
                over.push((abort.session, abort.answer));
            }
        }
        over
    }

    /// A number for an abort that may have to wait.
    pub(crate) const fn take_abort_number(&mut self) -> u64 {
        self.next_abort += 1;
        self.next_abort
    }

    /// Notes an abort that waits for so many tasks under way.
    pub(crate) fn wait_for(&mut self, number: u64, session: SessionKey, (answer, open): (Awaiting, usize)) {
        self.aborts.insert(number, PendingAbort { session, answer, open });
    }

    /// Takes the queued tasks out that an abort concerns.
    pub(crate) fn take_queued(&mut self, is_concerned: impl Fn(&UnitTask) -> bool) -> Vec<UnitTask> {
        let (taken, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.queue).into_iter().partition(is_concerned);
        self.queue = kept.into();
        taken
    }

    /// What a reset of the unit does to its state: reservations of RESERVE(6) go, persistent ones stay, mode parameters come
    /// back. SAM-5 6.3.3.
    pub(crate) fn reset(&mut self, by: Option<SessionKey>, attention: Sense) {
        self.reservations.reset();
        self.mode = Mode::default();
        self.nexuses.values_mut().for_each(|nexus| nexus.is_preventing = false);
        self.broadcast(by, attention);
    }

    /// Notes the volume's size; initiators are told when it is another.
    pub(crate) fn note_size(&mut self, size_bytes: u64) {
        if std::mem::replace(&mut self.size_bytes, size_bytes) != size_bytes {
            self.broadcast(None, Sense::CAPACITY_CHANGED);
        }
    }

    /// The pool is nearly full: initiators are told, but not again and again. SBC-3 4.7.3.7.
    pub(crate) fn note_slots_few(&mut self, now: Monotonic) {
        let is_due = self.soft_threshold_at.is_none_or(|at| now.0.saturating_sub(at.0) >= SOFT_THRESHOLD_PERIOD_NS);
        if is_due {
            self.soft_threshold_at = Some(now);
            self.broadcast(None, Sense::SOFT_THRESHOLD);
        }
    }
}

/// The NAA identifier of the unit that a line of volumes is: locally assigned, and another one in each pool. SPC-4 7.8.6.6.4.
pub(crate) fn naa_of(pool: &PoolId, line: u64) -> [u8; 8] {
    let named = [&pool.0[..], &line.to_be_bytes()].concat();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &named);
    let mut naa = [0; 8];
    naa.copy_from_slice(hash.as_ref().first_chunk::<8>().expect("a SHA-256 has 32 bytes"));
    let [first, ..] = &mut naa;
    *first = 0x30 | (*first & 0x0f);
    naa
}

#[cfg(test)]
mod tests;
