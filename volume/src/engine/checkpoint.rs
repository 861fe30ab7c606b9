//! Writing the map back. Pages are captured, the log that they name is made durable, then they go to the store: never the
//! other way round, since a stored page must not name what a power cut can take away.

use super::{Context, Volume, reply};
use crate::error::{DiskFault, Error, ErrorKind};
use crate::io::{Action, IoId};
use crate::map::Capture;
use crate::request::{Completion, RequestId};
use std::time::Duration;
use units::{Lsn, Monotonic, SegmentId};

/// Most pages of one write-back: at most 5 MiB.
const PAGES_MAX: usize = 256;

/// How long the store is left alone after it failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The state of writing back.
#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    /// Captured with the volume's size of that moment, and waits for the log to be durable.
    captured: Option<(Capture, u64)>,
    storing: Option<(IoId, Lsn)>,
    /// Write-backs go on until the stored map is complete to here.
    target: Lsn,
    waiters: Vec<(RequestId, Lsn)>,
    not_before: Monotonic,
    applied_at_last_tick: Lsn,
    /// A write-back is due though nothing has changed: it tells of segments that died before the volume was opened and
    /// were not given back.
    looks_for_dead: bool,
}

impl Checkpoint {
    pub(super) fn of_opened(has_segments: bool) -> Self {
        Self { looks_for_dead: has_segments, ..Self::default() }
    }

    pub(super) const fn wants_tick(&self) -> bool {
        self.looks_for_dead
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
            self.checkpoint.target = self.applied_lsn;
            self.checkpoint.waiters.push((id, self.applied_lsn));
            self.checkpoint.not_before = context.now.min(self.checkpoint.not_before);
            self.checkpoint_if_due(context, false);
        }
    }

    /// Whether dead segments may be found or given back soon; sees to it that they are.
    pub(super) fn may_gain_space(&mut self, context: &mut Context<'_>) -> bool {
        if self.is_poisoned || context.now < self.checkpoint.not_before {
            return false;
        }
        self.checkpoint.target = self.applied_lsn;
        self.checkpoint_if_due(context, false);
        self.release_dead(context);
        self.checkpoint.is_folding() || self.release.may_free_slots()
    }

    pub(super) fn checkpoint_if_due(&mut self, context: &mut Context<'_>, is_tick: bool) {
        let is_quiet = self.checkpoint.applied_at_last_tick == self.applied_lsn;
        if is_tick {
            self.checkpoint.applied_at_last_tick = self.applied_lsn;
        }
        if self.checkpoint.is_folding() || self.is_poisoned || context.now < self.checkpoint.not_before {
            return;
        }
        if self.unfolded_segments() > self.config.unfolded_segments_max
            || (is_tick && is_quiet && self.folded_to < self.applied_lsn)
        {
            self.checkpoint.target = self.applied_lsn;
        }
        let looks_for_dead = is_tick && self.checkpoint.looks_for_dead;
        if looks_for_dead
            || self.checkpoint.target > self.folded_to
            || self.map.dirty_bytes() > self.config.map_limit_bytes / 2
        {
            let capture = self.map.capture(self.applied_lsn, PAGES_MAX);
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
        if capture.complete_at > self.durable_lsn || !has_footers {
            self.checkpoint.captured = Some((capture, size_bytes));
            // A footer that is on its way calls again when it has been written.
            if has_footers || !self.log.is_writing_footers() {
                self.want_sync(context);
            }
            return;
        }
        let id = self.next_io();
        self.checkpoint.storing = Some((id, capture.folded_to));
        context.actions.push(Action::WriteBack { id, pages: capture.writes, folded_to: capture.folded_to, size_bytes });
    }

    pub(super) fn on_wrote_back(
        &mut self,
        context: &mut Context<'_>,
        id: IoId,
        result: Result<Vec<SegmentId>, DiskFault>,
    ) {
        let Some((_, folded_to)) = self.checkpoint.storing.take_if(|(storing, _)| *storing == id) else { return };
        self.map.write_back_ended(result.is_ok());
        self.log.waits_for_space = false;
        match result {
            Ok(dead) => {
                self.folded_to = self.folded_to.max(folded_to);
                self.checkpoint.looks_for_dead = false;
                self.answer_checkpoints(context);
                self.release.note_dead(dead);
                self.release_dead(context);
                self.map.shrink_to(self.config.map_limit_bytes);
                self.checkpoint_if_due(context, false);
            }
            Err(fault) => {
                self.status.store_faults += 1;
                self.checkpoint.not_before = context.now.plus(RETRY_AFTER);
                let detail = format!("the index store failed to take map pages ({fault}); the log has everything");
                self.fail_checkpoints(context, &Error::new(ErrorKind::Unavailable, detail));
            }
        }
    }

    fn answer_checkpoints(&mut self, context: &mut Context<'_>) {
        let folded_to = self.folded_to;
        self.checkpoint.waiters.retain(|(id, target)| {
            if *target <= folded_to {
                reply(context, *id, Ok(Completion::Done));
            }
            *target > folded_to
        });
    }

    fn fail_checkpoints(&mut self, context: &mut Context<'_>, error: &Error) {
        for (id, _) in std::mem::take(&mut self.checkpoint.waiters) {
            reply(context, id, Err(error.clone()));
        }
    }

    /// The log cannot be made durable any more: nothing may be written back.
    pub(super) fn abandon_checkpoint(&mut self, context: &mut Context<'_>) {
        if self.checkpoint.captured.take().is_some() {
            self.map.write_back_ended(false);
        }
        self.fail_checkpoints(context, &super::poisoned());
    }
}
