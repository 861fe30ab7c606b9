//! Writing the map back. Pages are captured, the log that they name is made durable, then they go to the store: never the
//! other way round, since a stored page must not name what a power cut can take away.

use super::{Context, Volume, reply};
use crate::error::{DiskFault, Error, ErrorKind};
use crate::io::{Action, IoId};
use crate::map::Capture;
use crate::request::{Completion, RequestId};
use std::time::Duration;
use units::{Lsn, MeterTime, Monotonic};

/// How long the store is left alone after it failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Ticks after which a trim is in the stored map also where writes never pause: before, nobody knows what it gave up.
const TICKS_UNTIL_TRIMS_FOLDED: u32 = 10;

/// Who waits until the stored map is complete to an operation.
#[derive(Debug)]
struct Waiter {
    id: RequestId,
    target: Lsn,
    /// What the answer is: a time that nothing behind the operation counts from before; `None` where it is only done.
    metered_to: Option<MeterTime>,
}

impl Waiter {
    fn answer(&self) -> Completion {
        self.metered_to.map_or(Completion::Done, Completion::Metered)
    }
}

/// The state of writing back.
#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    /// Captured with the volume's size of that moment, and waits for the log to be durable.
    captured: Option<(Capture, u64)>,
    storing: Option<(IoId, Lsn)>,
    /// Write-backs go on until the stored map is complete to here.
    target: Lsn,
    /// The newest snapshot's place. It becomes the target when it is durable: a sync for the write-back before would stand
    /// in front of the one that the snapshot is answered by.
    snapshot: Lsn,
    waiters: Vec<Waiter>,
    not_before: Monotonic,
    applied_at_last_tick: Lsn,
    /// Ticks since the map took in a trim that no write-back is to bring to the store yet.
    ticks_of_trims: Option<u32>,
}

impl Checkpoint {
    /// Sees to it that the stored map comes to hold everything up to `lsn`.
    pub(super) fn fold_to(&mut self, lsn: Lsn) {
        self.target = self.target.max(lsn);
    }

    /// Sees to it that the stored map comes to hold everything up to a snapshot, once that is durable or a tick has passed.
    pub(super) fn fold_to_snapshot(&mut self, lsn: Lsn) {
        self.snapshot = self.snapshot.max(lsn);
    }

    /// Whether the stored map is to come to hold more than it does.
    pub(super) fn is_wanted_beyond(&self, folded_to: Lsn) -> bool {
        self.target.max(self.snapshot) > folded_to
    }

    /// The map has taken in a trim.
    pub(super) fn note_trim(&mut self) {
        self.ticks_of_trims.get_or_insert(0);
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.is_folding() && self.waiters.is_empty()
    }

    /// Whether pages are on their way to the store.
    pub(super) const fn is_folding(&self) -> bool {
        self.captured.is_some() || self.storing.is_some()
    }
}

impl Volume {
    pub(super) fn on_checkpoint(&mut self, context: &mut Context<'_>, id: RequestId) {
        if self.is_poisoned {
            reply(context, id, Err(super::poisoned()));
        } else if self.folded_to == self.applied_lsn {
            self.answer_when_durable(context, id, self.applied_lsn);
        } else {
            self.await_fold(context, id, None);
        }
    }

    /// Everything is written back that has been taken in. What comes later counts from the mark before it, which is not before
    /// the one that is before the first batch in flight; where there is none, not before the second of now.
    pub(super) fn on_meter(&mut self, context: &mut Context<'_>, id: RequestId) {
        let metered_to = match self.log.in_flight.front() {
            Some(_) => self.map.meter_time(),
            None => self.time.next_meter_time(context),
        };
        if self.is_poisoned {
            reply(context, id, Err(super::poisoned()));
        } else if self.folded_to == self.applied_lsn {
            reply(context, id, Ok(Completion::Metered(metered_to)));
        } else {
            self.await_fold(context, id, Some(metered_to));
        }
    }

    fn await_fold(&mut self, context: &mut Context<'_>, id: RequestId, metered_to: Option<MeterTime>) {
        let target = self.applied_lsn;
        self.checkpoint.target = target;
        self.checkpoint.waiters.push(Waiter { id, target, metered_to });
        self.checkpoint.not_before = context.now.min(self.checkpoint.not_before);
        self.checkpoint_if_due(context, false);
    }

    /// Whether space may come back soon by what the volume does; sees to it that it does.
    pub(super) fn may_gain_space(&mut self, context: &mut Context<'_>) -> bool {
        if self.is_poisoned || context.now < self.checkpoint.not_before {
            return false;
        }
        self.checkpoint.target = self.applied_lsn;
        self.checkpoint_if_due(context, false);
        self.void_empty(context);
        self.checkpoint.is_folding() || self.release.may_free_slots()
    }

    pub(super) fn checkpoint_if_due(&mut self, context: &mut Context<'_>, is_tick: bool) {
        let is_quiet = self.checkpoint.applied_at_last_tick == self.applied_lsn;
        if is_tick {
            self.checkpoint.ticks_of_trims.iter_mut().for_each(|ticks| *ticks += 1);
            self.checkpoint.applied_at_last_tick = self.applied_lsn;
        }
        if is_tick || self.checkpoint.snapshot <= self.durable_lsn {
            self.checkpoint.fold_to(self.checkpoint.snapshot);
        }
        if self.checkpoint.is_folding()
            || self.is_poisoned
            || self.is_frozen()
            || context.now < self.checkpoint.not_before
        {
            return;
        }
        if self.unfolded_segments() > self.config.unfolded_segments_max
            || (is_tick && is_quiet && self.folded_to < self.applied_lsn)
            || self.checkpoint.ticks_of_trims.is_some_and(|ticks| ticks >= TICKS_UNTIL_TRIMS_FOLDED)
        {
            self.checkpoint.target = self.applied_lsn;
            self.checkpoint.ticks_of_trims = None;
        }
        if self.checkpoint.target > self.folded_to || self.map.dirty_bytes() > self.config.map_limit_bytes / 2 {
            let capture = self.map.capture(self.applied_lsn, self.config.write_back_pages_max);
            self.checkpoint.captured = Some((capture, self.size_bytes));
            self.store_captured(context);
        }
    }

    /// Sealed segments, the newest ones, that hold what the stored map lacks.
    fn unfolded_segments(&self) -> usize {
        let is_unfolded = |last: Option<Lsn>| last.is_none_or(|lsn| lsn > self.folded_to);
        self.segments.values().rev().take_while(|row| is_unfolded(row.last_lsn)).count().saturating_sub(1)
    }

    /// Sends what is captured to the store once the log that it names is durable.
    pub(super) fn store_captured(&mut self, context: &mut Context<'_>) {
        let Some((capture, size_bytes)) = self.checkpoint.captured.take() else { return };
        // A segment that is folded is not looked into by recovery: its footer must be there.
        let has_footers = self.log.has_footers_to(capture.folded_to);
        let complete_at = capture.complete_at;
        if complete_at > self.stable_lsn() || !has_footers {
            self.checkpoint.captured = Some((capture, size_bytes));
            // A footer that is on its way calls again when it has been written, and the peer when it has told more.
            let is_on_its_way = !has_footers && self.log.is_writing_footers();
            if (complete_at > self.durable_lsn || !has_footers) && !is_on_its_way {
                self.want_sync(context);
            }
            self.want_peer_sync(context, complete_at);
            return;
        }
        let id = self.next_io();
        self.checkpoint.storing = Some((id, capture.folded_to));
        let folded = capture.folded(size_bytes);
        let (generation, pages) = (capture.generation, capture.writes);
        context.actions.push(Action::WriteBack { id, generation, pages, folded });
    }

    pub(super) fn on_wrote_back(&mut self, context: &mut Context<'_>, id: IoId, result: Result<(), DiskFault>) {
        let Some((_, folded_to)) = self.checkpoint.storing.take_if(|(storing, _)| *storing == id) else { return };
        self.map.write_back_ended(result.is_ok());
        self.log.waits_for_space = false;
        match result {
            Ok(()) => {
                self.folded_to = self.folded_to.max(folded_to);
                self.answer_checkpoints(context);
                self.go_on_with_changes(context);
                self.settle(context);
                self.map.shrink_to(self.config.map_limit_bytes);
                self.checkpoint_if_due(context, false);
                self.append_received(context);
            }
            Err(fault) => {
                self.status.store_faults += 1;
                self.checkpoint.not_before = context.now.plus(RETRY_AFTER);
                let detail = format!("the index store failed to take map pages ({fault}); the log has everything");
                let error = Error::new(ErrorKind::Unavailable, detail);
                self.fail_checkpoints(context, &error);
                self.fail_changes(context, &error);
            }
        }
    }

    fn answer_checkpoints(&mut self, context: &mut Context<'_>) {
        let folded_to = self.folded_to;
        self.checkpoint.waiters.retain(|waiter| {
            if waiter.target <= folded_to {
                reply(context, waiter.id, Ok(waiter.answer()));
            }
            waiter.target > folded_to
        });
    }

    fn fail_checkpoints(&mut self, context: &mut Context<'_>, error: &Error) {
        for waiter in std::mem::take(&mut self.checkpoint.waiters) {
            reply(context, waiter.id, Err(error.clone()));
        }
    }

    /// The log cannot be made durable any more: nothing may be written back.
    pub(super) fn abandon_checkpoint(&mut self, context: &mut Context<'_>) {
        if self.checkpoint.captured.take().is_some() {
            self.map.write_back_ended(false);
        }
        self.fail_checkpoints(context, &super::poisoned());
        self.fail_changes(context, &super::poisoned());
    }
}
