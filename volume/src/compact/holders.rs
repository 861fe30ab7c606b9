//! Who reads a segment: its owner, and heirs that have asked where it is. Before a place is given back, each of them is told
//! and answers; a volume that is closed reads nothing.

use crate::controls::{Safeguard, is_missing};
use std::collections::BTreeSet;
use units::{SegmentId, VolumeId};

/// Who reads which segment.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// Heirs that know where a segment is.
    heirs: BTreeSet<(SegmentId, VolumeId)>,
    /// The same by volume.
    held: BTreeSet<(VolumeId, SegmentId)>,
    /// Who was told of a change and has not answered.
    unanswered: BTreeSet<(SegmentId, VolumeId)>,
}

impl Holders {
    /// An heir is told where a segment is.
    pub(super) fn add(&mut self, segment: SegmentId, heir: VolumeId) {
        self.heirs.insert((segment, heir));
        self.held.insert((heir, segment));
    }

    /// Begins to wait for all that read a segment of `owner`; returns whom to tell.
    pub(super) fn ask(&mut self, segment: SegmentId, owner: VolumeId) -> Vec<VolumeId> {
        let heirs = of(&self.heirs, segment).filter(|heir| *heir != owner && !is_missing(Safeguard::HeirsPins));
        let all: Vec<VolumeId> = [owner].into_iter().chain(heirs).collect();
        self.unanswered.extend(all.iter().map(|volume| (segment, *volume)));
        all
    }

    /// Begins to wait for all others that know where the segments of a volume that goes are; returns whom to tell of which.
    pub(super) fn let_go(&mut self, owner: VolumeId, segments: &[SegmentId]) -> Vec<(SegmentId, VolumeId)> {
        let mut told = Vec::new();
        for segment in segments {
            told.extend(of(&self.heirs, *segment).filter(|heir| *heir != owner).map(|heir| (*segment, heir)));
            self.forget(*segment);
        }
        self.unanswered.extend(told.iter().copied());
        told
    }

    /// Whether somebody was told of a change of one of these segments and has not answered.
    pub(super) fn is_any_awaited(&self, segments: &[SegmentId]) -> bool {
        segments.iter().any(|segment| of(&self.unanswered, *segment).next().is_some())
    }

    /// A volume has answered. Returns whether that was the last one that was waited for.
    pub(super) fn answered(&mut self, segment: SegmentId, volume: VolumeId) -> bool {
        self.unanswered.remove(&(segment, volume)) && of(&self.unanswered, segment).next().is_none()
    }

    /// A volume is closed: it has answered all that it was asked, and holds nothing. Returns the segments of which it was
    /// the last one that was waited for.
    pub(super) fn closed(&mut self, volume: VolumeId) -> Vec<SegmentId> {
        let all = (volume, SegmentId(0))..=(volume, SegmentId::MAX);
        for (_, segment) in self.held.extract_if(all, |_| true) {
            self.heirs.remove(&(segment, volume));
        }
        let asked = self.unanswered.iter().filter(|(_, who)| *who == volume);
        let asked: Vec<SegmentId> = asked.map(|(segment, _)| *segment).collect();
        asked.into_iter().filter(|segment| self.answered(*segment, volume)).collect()
    }

    /// A segment is gone.
    pub(super) fn forget(&mut self, segment: SegmentId) {
        for (_, heir) in self.heirs.extract_if(range_of(segment), |_| true) {
            self.held.remove(&(heir, segment));
        }
    }
}

fn of(set: &BTreeSet<(SegmentId, VolumeId)>, segment: SegmentId) -> impl Iterator<Item = VolumeId> {
    set.range(range_of(segment)).map(|(_, volume)| *volume)
}

const fn range_of(segment: SegmentId) -> std::ops::RangeInclusive<(SegmentId, VolumeId)> {
    (segment, VolumeId(0))..=(segment, VolumeId(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentId = SegmentId(5);
    const OWNER: VolumeId = VolumeId(1);

    #[test]
    fn a_segment_waits_for_its_owner_and_for_every_heir_that_reads_it() {
        let mut holders = Holders::default();
        holders.add(SEGMENT, VolumeId(2));
        holders.add(SEGMENT, VolumeId(3));
        holders.add(SegmentId(6), VolumeId(4));
        assert_eq!(holders.ask(SEGMENT, OWNER), [OWNER, VolumeId(2), VolumeId(3)]);
        assert!(!holders.answered(SEGMENT, VolumeId(3)));
        assert!(!holders.answered(SEGMENT, VolumeId(3)), "twice counts once");
        assert!(!holders.answered(SEGMENT, OWNER));
        assert!(holders.answered(SEGMENT, VolumeId(2)));
        assert!(!holders.answered(SEGMENT, VolumeId(2)));
    }

    #[test]
    fn a_volume_that_is_closed_is_not_waited_for_and_not_asked_again() {
        let mut holders = Holders::default();
        holders.add(SEGMENT, VolumeId(2));
        holders.ask(SEGMENT, OWNER);
        assert_eq!(holders.closed(OWNER), []);
        assert_eq!(holders.closed(VolumeId(2)), [SEGMENT]);
        assert_eq!(holders.ask(SEGMENT, OWNER), [OWNER]);
        assert!(holders.answered(SEGMENT, OWNER));
        holders.add(SEGMENT, VolumeId(2));
        holders.forget(SEGMENT);
        assert_eq!(holders.ask(SEGMENT, OWNER), [OWNER]);
        assert!(holders.held.is_empty());
    }

    #[test]
    fn all_that_know_a_volume_that_goes_are_told_once_and_waited_for() {
        let mut holders = Holders::default();
        let segments = [SEGMENT, SegmentId(6)];
        holders.add(SEGMENT, VolumeId(2));
        holders.add(SegmentId(6), VolumeId(3));
        holders.add(SegmentId(7), VolumeId(4));
        assert!(!holders.is_any_awaited(&segments));
        assert_eq!(holders.let_go(OWNER, &segments), [(SEGMENT, VolumeId(2)), (SegmentId(6), VolumeId(3))]);
        assert_eq!(holders.let_go(OWNER, &segments), []);
        assert!(holders.answered(SEGMENT, VolumeId(2)) && holders.is_any_awaited(&segments));
        assert_eq!(holders.closed(VolumeId(3)), [SegmentId(6)]);
        assert!(!holders.is_any_awaited(&segments));
    }
}
