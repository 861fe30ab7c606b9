//! Slots that volumes keep for what they may write some day: when slots are few, those that rest are asked to seal their
//! open segments, so that compaction can pack these together.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use units::{SegmentId, VolumeId};

/// How long it may take until a volume has been at rest for a tick and its segment is settled.
const PATIENCE: Duration = Duration::from_secs(3);

/// How soon the same ones are asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// Fewer sealed segments give no slot back: what is left of them takes one itself.
const SEGMENTS_MIN: usize = 2;

/// Who was asked.
#[derive(Debug, Default)]
pub(super) struct Sealing {
    /// Open segments whose volumes were asked.
    asked: BTreeSet<SegmentId>,
    asked_at: Option<Instant>,
    /// Until when what was asked first may give slots.
    until: Option<Instant>,
}

impl Sealing {
    /// Takes the segments that are `open` now; returns whom to ask.
    pub(super) fn ask(&mut self, now: Instant, open: Vec<(VolumeId, SegmentId)>) -> Vec<VolumeId> {
        let new = open.iter().filter(|(_, segment)| !self.asked.contains(segment)).count();
        if new >= SEGMENTS_MIN {
            self.until = Some(now + PATIENCE);
        }
        let is_soon = self.asked_at.is_some_and(|at| now.duration_since(at) < AGAIN);
        if open.len() < SEGMENTS_MIN || (new == 0 && is_soon) {
            return Vec::new();
        }
        self.asked_at = Some(now);
        self.asked = open.iter().map(|(_, segment)| *segment).collect();
        open.into_iter().map(|(volume, _)| volume).collect()
    }

    /// Whether what was asked for may still give slots.
    pub(super) fn may_give(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(segments: std::ops::Range<u64>) -> Vec<(VolumeId, SegmentId)> {
        segments.map(|segment| (VolumeId(segment), SegmentId(segment))).collect()
    }

    /// P6. A full pool says so at once when nobody has anything to give, and not for ever again later.
    #[test]
    fn slots_are_waited_for_once_for_each_segment_that_may_be_sealed() {
        let mut sealing = Sealing::default();
        let now = Instant::now();
        assert!(sealing.ask(now, open(1..2)).is_empty());
        assert!(!sealing.may_give(now));
        assert_eq!(sealing.ask(now, open(1..3)), [VolumeId(1), VolumeId(2)]);
        assert!(sealing.ask(now, open(1..3)).is_empty(), "it was asked just now");
        assert!(sealing.may_give(now) && !sealing.may_give(now + PATIENCE));
        let later = now + PATIENCE;
        assert_eq!(sealing.ask(later, open(1..3)).len(), 2, "they may have come to rest only now");
        assert!(!sealing.may_give(later));
        sealing.ask(later, open(1..5));
        assert!(sealing.may_give(later));
    }
}
