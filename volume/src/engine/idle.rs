//! Volumes that are not written to for a while do not keep a slot for it: their open segment is sealed, so that it can
//! settle and be packed with others. The next write opens a new one.

use super::{Context, Volume};
use units::{Lsn, SegmentId, VolumeId};

/// Ticks without a change after which the open segment is sealed.
const TICKS_UNTIL_SEALED: u32 = 60;

/// For how long nothing has changed.
#[derive(Debug, Default)]
pub(super) struct Idle {
    next_lsn_at_tick: Lsn,
    ticks: u32,
}

impl Volume {
    /// Counts ticks without a change, and seals after many.
    pub(super) fn note_idle(&mut self, context: &mut Context<'_>) {
        self.idle.ticks = if self.is_unchanged() { self.idle.ticks + 1 } else { 0 };
        self.idle.next_lsn_at_tick = self.log.next_lsn;
        if self.idle.ticks >= TICKS_UNTIL_SEALED {
            self.seal_idle(context);
        }
    }

    /// Slots are few. A segment that is half full stays open: what is left of it is for the volume's own trims, which find
    /// no slot when the pool is full.
    pub(super) fn on_slots_few(&mut self, context: &mut Context<'_>) {
        let half = self.config.geometry.slot_blocks() / 2;
        if self.is_unchanged() && self.log.open.as_ref().is_some_and(|open| open.filled_blocks <= half) {
            self.seal_idle(context);
        }
    }

    /// What a segment borrows is waited for: it is sealed, however full it is and whether or not it is kept whole, and folded.
    /// While something is on its way to it, that fills it, and whoever waits says so again.
    pub(super) fn on_awaited(&mut self, context: &mut Context<'_>, segment: SegmentId) {
        if self.is_poisoned {
            return;
        }
        let is_open = self.log.open.as_ref().is_some_and(|open| open.segment == segment);
        if is_open && self.log.rests() && !self.hold.is_on() && self.may_write() {
            self.seal(context);
        }
        self.checkpoint.fold_to(self.applied_lsn);
        self.checkpoint_if_due(context, false);
    }

    /// Whether there has been nothing to append since the last tick.
    fn is_unchanged(&self) -> bool {
        self.log.next_lsn == self.idle.next_lsn_at_tick && self.log.rests()
    }

    /// Whether a segment will be sealed if nothing changes. Not the system volume's, whose records a full pool takes as long
    /// as they have room; nor one that is kept whole for history's sake, whose slot would not come back.
    pub(super) fn has_segment_to_seal(&self) -> bool {
        // A secondary's goes on as the primary's does.
        let may_be = !self.is_poisoned && !self.time.is_kept() && self.id != VolumeId::SYSTEM && self.may_write();
        may_be && self.log.open.as_ref().is_some_and(|open| !open.entries.is_empty())
    }

    fn seal_idle(&mut self, context: &mut Context<'_>) {
        if self.has_segment_to_seal() && !self.hold.is_on() {
            self.seal(context);
        }
    }
}
