//! Flush and FUA: one sync at a time for all who wait, and none for what is durable already.

use super::{Context, Volume, poisoned, reply};
use crate::error::DiskFault;
use crate::io::{Action, FellOut, IoId};
use crate::request::{Completion, RequestId};
use units::Lsn;

/// Who waits for stable storage.
#[derive(Debug, Default)]
pub(super) struct Flush {
    waiters: Vec<(RequestId, Lsn)>,
    in_flight: Option<(IoId, Lsn)>,
    /// Another sync is to follow the one in flight.
    is_wanted: bool,
}

impl Flush {
    pub(super) fn is_idle(&self) -> bool {
        self.waiters.is_empty() && self.in_flight.is_none()
    }

    /// What is behind `lsn` was cut off: the sync in flight says nothing of what comes in its place.
    pub(super) fn cut_to(&mut self, lsn: Lsn) {
        self.in_flight = self.in_flight.map(|(id, covered)| (id, covered.min(lsn)));
    }

    /// The last operation that somebody waits for.
    pub(super) fn last_awaited(&self) -> Option<Lsn> {
        self.waiters.iter().map(|(_, lsn)| *lsn).max()
    }

    /// Whether somebody waits for stable storage.
    pub(super) fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Whether the sync in flight makes everything up to `lsn` durable.
    pub(super) fn covers(&self, lsn: Lsn) -> bool {
        self.in_flight.is_some_and(|(_, covered)| lsn <= covered)
    }
}

impl Volume {
    pub(super) fn on_flush(&mut self, context: &mut Context<'_>, id: RequestId) {
        // Every write answered before has been taken in; what is in flight may be covered or not.
        self.answer_when_durable(context, id, self.applied_lsn);
    }

    /// Everything up to here has ended well, whether it counts or not.
    pub(super) fn ended_lsn(&self) -> Lsn {
        self.end().lsn
    }

    /// Answers `id` once everything up to `lsn`, which has been taken in, is on stable storage.
    pub(super) fn answer_when_durable(&mut self, context: &mut Context<'_>, id: RequestId, lsn: Lsn) {
        if self.is_poisoned {
            reply(context, id, Err(poisoned()));
        } else if lsn <= self.stable_lsn() {
            reply(context, id, Ok(Completion::Done));
        } else {
            self.flush.waiters.push((id, lsn));
            self.want_peer_sync(context, lsn);
            // A sync in flight covers all that had been taken in as it was asked for.
            if lsn > self.durable_lsn && !self.flush.covers(lsn) {
                self.want_sync(context);
            }
        }
    }

    /// Sees to it that a sync begins after this moment.
    pub(super) fn want_sync(&mut self, context: &mut Context<'_>) {
        if self.is_poisoned {
            return;
        }
        if self.flush.in_flight.is_some() {
            self.flush.is_wanted = true;
            return;
        }
        self.flush.is_wanted = false;
        let id = self.next_io();
        self.flush.in_flight = Some((id, self.ended_lsn()));
        self.log.begin_sync();
        context.actions.push(Action::Sync { id });
    }

    pub(super) fn on_synced(&mut self, context: &mut Context<'_>, id: IoId, result: Result<(), DiskFault>) {
        let Some((_, covered)) = self.flush.in_flight.take_if(|(in_flight, _)| *in_flight == id) else { return };
        if result.is_err() {
            // Never tried again: the kernel may have dropped the dirty pages and forgotten the error, so that a second
            // sync would succeed over lost writes (P1).
            self.poison(context);
            return;
        }
        // A tail that was cut off meanwhile is not there.
        self.synced_lsn = self.synced_lsn.max(covered.min(self.end_of_log()));
        self.durable_lsn = self.synced_lsn.min(self.applied_lsn);
        for segment in self.log.end_sync() {
            if let Some(row) = self.segments.get(&segment) {
                context.actions.push(Action::NoteSegment(Box::new(*row)));
            }
        }
        self.note_durable(context);
        self.release_voided(context, id);
        self.settle(context);
        self.store_captured(context);
        self.checkpoint_if_due(context, false);
        if !self.subblock.is_empty() {
            self.resume_subblocks(context);
        }
        let waits_for_this = self.flush.waiters.iter().any(|(_, lsn)| *lsn > self.durable_lsn);
        if self.flush.in_flight.is_none() && (self.flush.is_wanted || waits_for_this) {
            self.want_sync(context);
        }
        self.append_received(context);
        self.tell_primary(context);
        self.sync_for_primary(context);
    }

    /// Answers who waited for what is on stable storage now.
    pub(super) fn note_durable(&mut self, context: &mut Context<'_>) {
        let stable_lsn = self.stable_lsn();
        self.flush.waiters.retain(|(id, lsn)| {
            if *lsn <= stable_lsn {
                reply(context, *id, Ok(Completion::Done));
            }
            *lsn > stable_lsn
        });
    }

    fn poison(&mut self, context: &mut Context<'_>) {
        self.is_poisoned = true;
        self.flush.is_wanted = false;
        for (id, _) in std::mem::take(&mut self.flush.waiters) {
            reply(context, id, Err(poisoned()));
        }
        for pending in std::mem::take(&mut self.log.pending) {
            self.drop_pending(context, pending, &poisoned());
        }
        self.end_hold(context);
        self.abandon_checkpoint(context);
        self.release.abandon();
        self.fail_resize(context, poisoned());
        self.resume_subblocks(context);
        self.fall_out(context, FellOut::Disk);
    }
}
