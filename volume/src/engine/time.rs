//! Time marks: operations that tell the time.
//!
//! The first batch of a second begins with one, by the wall clock's seconds or the meter's, and so does that of a segment. So
//! all that was answered before a second is before the first mark that tells this second or a later one, and all that was
//! asked for in it is behind. Times never go back: while a clock is behind the last mark, what is written counts to the
//! moment of that. What a volume uses is measured by the marks: an operation counts from the meter's time of the one before it.

use super::{Context, Volume, reply};
use crate::format::{Operation, OperationKind};
use crate::request::{Completion, RequestId};
use units::{MeterTime, VolumeId};

/// Milliseconds of a second.
const SECOND_MS: u64 = 1000;

/// What the log tells of the time.
#[derive(Debug)]
pub(super) struct TimeMarks {
    is_kept: bool,
    /// Who asked for that, and waits for the copies before it.
    waiters: Vec<RequestId>,
    last: Mark,
}

/// What a mark tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub(crate) wall_ms: u64,
    pub(crate) meter: MeterTime,
}

impl Mark {
    /// The later of both, by each clock.
    pub(crate) fn max(self, other: Self) -> Self {
        Self { wall_ms: self.wall_ms.max(other.wall_ms), meter: self.meter.max(other.meter) }
    }
}

impl TimeMarks {
    pub(super) const fn new(last: Mark) -> Self {
        Self { is_kept: false, waiters: Vec::new(), last }
    }

    /// Another site has told the time.
    pub(super) fn note(&mut self, mark: Mark) {
        self.last = self.last.max(mark);
    }

    pub(super) const fn is_kept(&self) -> bool {
        self.is_kept
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.waiters.is_empty()
    }

    /// A time that the next operation does not count from before: it follows a mark of the second of now, or one comes.
    pub(super) fn next_meter_time(&self, context: &Context<'_>) -> MeterTime {
        let second = context.meter.0 / SECOND_MS * SECOND_MS;
        self.last.meter.max(MeterTime(second))
    }
}

impl Volume {
    pub(super) fn on_keep_time(&mut self, context: &mut Context<'_>, id: RequestId, is_kept: bool) {
        self.time.is_kept = is_kept;
        self.time.waiters.push(id);
        self.answer_keep_time(context);
    }

    /// History begins behind the last copy that shares, since what that names may not be kept.
    pub(super) fn answer_keep_time(&mut self, context: &mut Context<'_>) {
        let has_copies = || self.log.operations().any(|operation| operation.source().is_some());
        if self.time.waiters.is_empty() || (self.time.is_kept && has_copies()) {
            return;
        }
        for id in std::mem::take(&mut self.time.waiters) {
            reply(context, id, Ok(Completion::Done));
        }
    }

    /// The time, which is never before a mark.
    pub(super) fn marked_ms(&self, context: &Context<'_>) -> u64 {
        context.wall_ms.max(self.time.last.wall_ms)
    }

    /// Whether batches may begin with a mark.
    pub(super) fn tells_time(&self) -> bool {
        self.time.is_kept || (self.config.is_metered && self.id != VolumeId::SYSTEM)
    }

    /// The mark that a batch begins with, if one is due.
    pub(super) fn mark_time(&mut self, context: &Context<'_>, is_first_of_segment: bool) -> Option<Operation> {
        let last = self.time.last;
        let mark = Mark { wall_ms: self.marked_ms(context), meter: context.meter.max(last.meter) };
        let is_new_second =
            mark.wall_ms / SECOND_MS > last.wall_ms / SECOND_MS || mark.meter.0 / SECOND_MS > last.meter.0 / SECOND_MS;
        if !self.tells_time() || !(is_first_of_segment || is_new_second) {
            return None;
        }
        self.time.last = mark;
        let kind = OperationKind::TimeMark { wall_ms: mark.wall_ms, meter: Some(mark.meter) };
        Some(Operation::without_range(kind))
    }
}
