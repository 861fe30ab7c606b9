//! What has changed since a snapshot. The store compares what it has; so what the volume had when it was asked is written
//! back first, where the range has anything that is not.

use super::{Context, Volume, poisoned, reply};
use crate::error::{Error, ErrorKind};
use crate::io::{Action, IoId, PageIndex};
use crate::map::PAGE_BLOCKS;
use crate::pool::{Changes, ChangesError, Parent};
use crate::request::{ChangedExtent, Completion, RequestId};
use std::collections::BTreeMap;
use units::{BLOCK_BYTES, ByteRange, Lsn};

/// Most questions to the store for one request: it is answered with what has been found by then.
const QUESTIONS_MAX: u32 = 16;

/// Bytes of a page's span.
const PAGE_BYTES: u64 = PAGE_BLOCKS as u64 * BLOCK_BYTES;

/// A request under way.
#[derive(Debug)]
struct ChangesRequest {
    id: RequestId,
    since: Parent,
    range: ByteRange,
    extents_max: usize,
    /// What it was asked about.
    applied_lsn: Lsn,
    questions: u32,
    /// Up to where in the range all is found.
    told_to: u64,
    found: Vec<ChangedExtent>,
}

impl ChangesRequest {
    /// The pages that are still to be looked at.
    const fn pages(&self) -> (u64, u64) {
        (self.told_to / PAGE_BYTES, self.range.end().div_ceil(PAGE_BYTES))
    }

    /// Takes in what the store has found from the page of `told_to` on; returns whether that is all that is wanted.
    fn take(&mut self, changes: &Changes) -> bool {
        let mut at = self.told_to / PAGE_BYTES * PAGE_BYTES;
        for run in &changes.runs {
            let end = at.saturating_add(run.blocks.saturating_mul(BLOCK_BYTES));
            let len = end.min(self.range.end()).saturating_sub(at.max(self.told_to));
            at = end;
            if len == 0 {
                continue;
            }
            let is_full = self.found.len() >= self.extents_max;
            match self.found.last_mut() {
                Some(last) if last.change == run.change => last.len += len,
                _ if is_full => return true,
                _ => self.found.push(ChangedExtent { len, change: run.change }),
            }
            self.told_to += len;
        }
        self.told_to >= self.range.end() || self.questions >= QUESTIONS_MAX
    }
}

/// Requests under way.
#[derive(Debug, Default)]
pub(super) struct ChangesRequests {
    /// Those that wait for a write-back.
    waiting: Vec<ChangesRequest>,
    /// Those that the store is asked for.
    asked: BTreeMap<IoId, ChangesRequest>,
}

impl ChangesRequests {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_empty()
    }
}

impl Volume {
    pub(super) fn on_changed(
        &mut self,
        context: &mut Context<'_>,
        id: RequestId,
        (since, extents_max): (Parent, usize),
        range: ByteRange,
    ) {
        let checked = match self.check_range(range) {
            Ok(()) if range.is_empty() || extents_max == 0 => {
                Err(Error::new(ErrorKind::InvalidRequest, "changes of an empty range, or none wanted"))
            }
            checked => checked,
        };
        if let Err(error) = checked {
            reply(context, id, Err(error));
            return;
        }
        let (applied_lsn, told_to) = (self.applied_lsn, range.offset());
        let request =
            ChangesRequest { id, since, range, extents_max, applied_lsn, questions: 0, told_to, found: Vec::new() };
        self.ask_for_changes(context, request);
        self.fold_for_changes(context);
    }

    /// Asks the store, or lets the request wait until that has what it is asked about.
    fn ask_for_changes(&mut self, context: &mut Context<'_>, mut request: ChangesRequest) {
        let (first, end) = request.pages();
        let is_stored = self.folded_to >= request.applied_lsn || !self.map.lacks_in_store(&(first..end));
        if is_stored {
            let id = self.next_io();
            let pages = PageIndex(first)..PageIndex(end);
            let (since, runs_max) = (request.since, request.extents_max);
            request.questions += 1;
            self.changes.asked.insert(id, request);
            context.actions.push(Action::LoadChanges { id, since, pages, runs_max });
        } else if self.is_poisoned {
            reply(context, request.id, Err(poisoned()));
        } else {
            self.changes.waiting.push(request);
        }
    }

    /// Sees to it that those who wait for a write-back get one.
    fn fold_for_changes(&mut self, context: &mut Context<'_>) {
        if let Some(last) = self.changes.waiting.iter().map(|request| request.applied_lsn).max() {
            self.checkpoint.fold_to(last);
            self.checkpoint_if_due(context, false);
        }
    }

    pub(super) fn on_changes_loaded(
        &mut self,
        context: &mut Context<'_>,
        id: IoId,
        result: Result<Changes, ChangesError>,
    ) {
        let Some(mut request) = self.changes.asked.remove(&id) else { return };
        match result {
            Ok(changes) => {
                if request.take(&changes) {
                    reply(context, request.id, Ok(Completion::Changed(request.found)));
                } else {
                    self.ask_for_changes(context, request);
                    self.fold_for_changes(context);
                }
            }
            Err(ChangesError::Gone) => {
                let detail = format!("the snapshot is gone: what has changed in volume {} since is not known", self.id);
                reply(context, request.id, Err(Error::new(ErrorKind::InvalidRequest, detail)));
            }
            Err(ChangesError::Store(fault)) => {
                let detail = format!("what has changed in volume {} cannot be looked up: {fault}", self.id);
                reply(context, request.id, Err(Error::new(ErrorKind::Unavailable, detail)));
            }
        }
    }

    /// A write-back has ended well: some may go on.
    pub(super) fn go_on_with_changes(&mut self, context: &mut Context<'_>) {
        for request in std::mem::take(&mut self.changes.waiting) {
            self.ask_for_changes(context, request);
        }
    }

    /// What requests wait for does not come.
    pub(super) fn fail_changes(&mut self, context: &mut Context<'_>, error: &Error) {
        for request in std::mem::take(&mut self.changes.waiting) {
            reply(context, request.id, Err(error.clone()));
        }
    }
}
