//! Holding a volume still, so that snapshots of several volumes show one point.
//!
//! While a volume is held it begins no batch but one of snapshots, and so answers no change but those that were in flight.
//! When every member of a group is held, then has its snapshot, and only then is let go, no change that a snapshot lacks
//! was answered before all of them were taken: what a client did next, on whichever member, is in none of them.
//!
//! A hold ends by itself, for writes wait for it. Whoever lets go is told whether it had, and then knows nothing of order.

use super::{Context, Volume, poisoned, reply};
use crate::controls::{Safeguard, is_missing};
use crate::error::{Error, ErrorKind};
use crate::request::{Completion, RequestId};
use std::time::Duration;
use units::Monotonic;

/// The longest that a volume is held.
pub const HOLD_DURATION_MAX: Duration = Duration::from_millis(200);

/// Whether the volume is held, and who waits for it to be still.
#[derive(Debug, Default)]
pub(super) struct Hold {
    until: Option<Monotonic>,
    waiter: Option<RequestId>,
}

impl Hold {
    pub(super) const fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// Whether only snapshots may be appended.
    pub(super) fn keeps_back(&self) -> bool {
        self.is_on() && !is_missing(Safeguard::Hold)
    }
}

impl Volume {
    pub(super) fn on_hold(&mut self, context: &mut Context<'_>, id: RequestId) {
        self.end_hold_if_late(context);
        let refusal = if self.is_poisoned {
            Some(poisoned())
        } else {
            self.hold.is_on().then(|| unavailable("the volume is held by another request"))
        };
        if let Some(error) = refusal {
            reply(context, id, Err(error));
            return;
        }
        self.hold = Hold { until: Some(context.now.plus(HOLD_DURATION_MAX)), waiter: Some(id) };
        self.answer_hold(context);
    }

    pub(super) fn on_release_hold(&mut self, context: &mut Context<'_>, id: RequestId) {
        self.end_hold_if_late(context);
        let was_on = self.hold.is_on();
        self.end_hold(context);
        let result = if was_on { Ok(Completion::Done) } else { Err(unavailable("the hold had ended by itself")) };
        reply(context, id, result);
    }

    /// Tells whoever holds the volume once no batch is in flight.
    pub(super) fn answer_hold(&mut self, context: &mut Context<'_>) {
        if self.log.in_flight.is_empty()
            && let Some(id) = self.hold.waiter.take()
        {
            reply(context, id, Ok(Completion::Done));
        }
    }

    pub(super) fn end_hold_if_late(&mut self, context: &mut Context<'_>) {
        if self.hold.until.is_some_and(|until| context.now >= until) {
            self.end_hold(context);
        }
    }

    pub(super) fn end_hold(&mut self, context: &mut Context<'_>) {
        self.hold.until = None;
        if let Some(id) = self.hold.waiter.take() {
            reply(context, id, Err(unavailable("the volume could not be held")));
        }
    }
}

fn unavailable(detail: &str) -> Error {
    Error::new(ErrorKind::Unavailable, detail)
}
