//! Time marks: operations that tell the time, in the logs of volumes with history.
//!
//! The first batch of a second begins with one, and so does that of a segment. So all that was answered before a second is
//! before the first mark that tells this second or a later one, and all that was asked for in it is behind. Times never go
//! back: while the clock is behind the last mark, what is written counts to the moment of that.

use super::{Context, Volume, reply};
use crate::format::{Operation, OperationKind};
use crate::request::{Completion, RequestId};

/// Milliseconds of a second.
const SECOND_MS: u64 = 1000;

/// What the log tells of the time.
#[derive(Debug)]
pub(super) struct TimeMarks {
    is_kept: bool,
    last_ms: u64,
}

impl TimeMarks {
    pub(super) const fn new(last_ms: u64) -> Self {
        Self { is_kept: false, last_ms }
    }

    pub(super) const fn is_kept(&self) -> bool {
        self.is_kept
    }
}

impl Volume {
    pub(super) fn on_keep_time(&mut self, context: &mut Context<'_>, id: RequestId, is_kept: bool) {
        self.time.is_kept = is_kept;
        reply(context, id, Ok(Completion::Done));
    }

    /// The time, which is never before a mark.
    pub(super) fn marked_ms(&self, context: &Context<'_>) -> u64 {
        context.wall_ms.max(self.time.last_ms)
    }

    /// The mark that a batch begins with, if one is due.
    pub(super) fn mark_time(&mut self, context: &Context<'_>, is_first_of_segment: bool) -> Option<Operation> {
        let wall_ms = self.marked_ms(context);
        let is_due = is_first_of_segment || wall_ms / SECOND_MS > self.time.last_ms / SECOND_MS;
        if !self.time.is_kept || !is_due {
            return None;
        }
        self.time.last_ms = wall_ms;
        Some(Operation::without_range(OperationKind::TimeMark { wall_ms }))
    }
}
