//! Where two logs part, told by their segments: an id is given out once, by one site, and what is written in a segment is written
//! once. So two logs that have an operation in the same segment are equal up to it.
//!
//! A site does not know all of its own past: segments of which nothing is left are forgotten. Where it cannot be told that what
//! follows is not the same, nothing is said, rather than that the logs part earlier than they do.

use crate::engine::Volume;
use crate::pool::SegmentRow;
use units::{Lsn, SegmentId};

/// What a log has in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The segment.
    pub segment: SegmentId,
    /// The first operation in it.
    pub first_lsn: Lsn,
    /// The last one. `last_lsn >= first_lsn`.
    pub last_lsn: Lsn,
}

/// Where a log leaves another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// Behind this operation, which both have, or with the first one.
    Behind(Lsn),
    /// It cannot be told: what would tell is not kept any more.
    Untold,
}

/// What a log that ends at `end` has in its segments, newest first.
#[must_use]
pub fn stretches(rows: &[SegmentRow], end: Lsn) -> Vec<Stretch> {
    let stretch = |row: &SegmentRow| Stretch {
        segment: row.segment,
        first_lsn: row.first_lsn,
        last_lsn: row.last_lsn.unwrap_or(end).min(end),
    };
    let mut stretches: Vec<Stretch> = rows.iter().filter(|row| row.first_lsn <= end).map(stretch).collect();
    stretches.sort_by_key(|stretch| std::cmp::Reverse(stretch.segment));
    stretches
}

/// Where a log of which `theirs` are the newest stretches leaves the one that has all of `ours`; both newest first.
#[must_use]
pub fn parting(ours: &[Stretch], theirs: &[Stretch]) -> Parting {
    let shared = theirs.iter().enumerate().find_map(|(their, stretch)| {
        let our = ours.binary_search_by(|row| stretch.segment.cmp(&row.segment)).ok()?;
        Some((our, their))
    });
    // What is newer than the newest segment that both have, oldest first, and the last operation before it.
    let (our, their) = shared.unwrap_or((ours.len(), theirs.len()));
    let (one, other) = (ours.get(our), theirs.get(their));
    let (our_last, their_last) =
        (one.map_or(Lsn::ZERO, |one| one.last_lsn), other.map_or(Lsn::ZERO, |one| one.last_lsn));
    let follows = |stretches: &[Stretch], at: usize, last: Lsn| {
        let next = at.checked_sub(1).and_then(|next| stretches.get(next));
        next.is_none_or(|next| next.first_lsn == last.next())
    };
    let is_within = our_last != their_last;
    if is_within || follows(ours, our, our_last) && follows(theirs, their, their_last) {
        return Parting::Behind(our_last.min(their_last));
    }
    Parting::Untold
}

impl Volume {
    /// Whether this log has the operation in the segment, so that it is equal to any other one that has, up to it. Every log has what is
    /// before its first.
    #[must_use]
    pub fn has(&self, lsn: Lsn, segment: Option<SegmentId>) -> bool {
        let end = self.end().lsn;
        let Some(segment) = segment else { return lsn == Lsn::ZERO };
        let row = self.segment(segment).filter(|row| row.first_lsn <= lsn);
        row.is_some_and(|row| lsn <= row.last_lsn.unwrap_or(end).min(end))
    }

    /// What is appended, by segments, newest first.
    #[must_use]
    pub fn stretches(&self) -> Vec<Stretch> {
        stretches(&self.segments(), self.end().lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Home;
    use units::{SlotIndex, VolumeId};

    fn rows(parts: &[(u64, u64, u64)]) -> Vec<SegmentRow> {
        let row = |(segment, first, last): &(u64, u64, u64)| SegmentRow {
            segment: SegmentId(*segment),
            volume: VolumeId(1),
            home: Home::Own(SlotIndex(0)),
            first_lsn: Lsn(*first),
            last_lsn: (*last > 0).then_some(Lsn(*last)),
            has_holes: false,
        };
        parts.iter().map(row).collect()
    }

    fn part(ours: &[(u64, u64, u64)], end: u64, theirs: &[(u64, u64, u64)], their_end: u64) -> Parting {
        parting(&stretches(&rows(ours), Lsn(end)), &stretches(&rows(theirs), Lsn(their_end)))
    }

    /// P1. A log that is behind, equal, or goes on elsewhere is told so.
    #[test]
    fn what_is_known_is_told() {
        let ours = [(1, 1, 10), (5, 11, 20), (9, 21, 0)];
        assert_eq!(part(&ours, 25, &[], 0), Parting::Behind(Lsn::ZERO));
        assert_eq!(part(&ours, 25, &[(1, 1, 0)], 7), Parting::Behind(Lsn(7)), "a part of it");
        assert_eq!(part(&ours, 25, &ours, 25), Parting::Behind(Lsn(25)), "the same");
        assert_eq!(
            part(&ours, 25, &[(5, 11, 20), (9, 21, 0)], 28),
            Parting::Behind(Lsn(25)),
            "more in the last segment"
        );
        assert_eq!(part(&ours, 25, &[(1, 1, 10), (5, 11, 0)], 23), Parting::Behind(Lsn(20)), "more than was kept");
        assert_eq!(
            part(&ours, 25, &[(5, 11, 15), (6, 16, 0)], 30),
            Parting::Behind(Lsn(15)),
            "left it within a segment"
        );
        assert_eq!(part(&ours, 25, &[(5, 11, 20), (8, 21, 0)], 30), Parting::Behind(Lsn(20)), "left it between two");
        assert_eq!(part(&ours, 25, &[(9, 21, 25), (12, 26, 0)], 30), Parting::Behind(Lsn(25)), "goes on where it ends");
        assert_eq!(part(&ours, 25, &[(2, 1, 0)], 9), Parting::Behind(Lsn::ZERO), "nothing in common");
    }

    /// P1. Where what would tell is not kept, nothing is said: least of all that less is common than is.
    #[test]
    fn what_is_not_known_is_not_told() {
        let gap = [(1, 1, 10), (9, 21, 0)];
        assert_eq!(part(&gap, 25, &[(1, 1, 10), (5, 11, 0)], 15), Parting::Untold, "the segment between may be theirs");
        let late = [(9, 21, 0)];
        assert_eq!(part(&late, 25, &[(1, 1, 10), (5, 11, 0)], 15), Parting::Untold);
        assert_eq!(part(&late, 25, &[(5, 11, 20), (9, 21, 0)], 23), Parting::Behind(Lsn(23)), "the last one is here");
        let whole = [(1, 1, 10), (5, 11, 20), (9, 21, 0)];
        assert_eq!(part(&whole, 25, &[(1, 1, 10), (12, 21, 0)], 30), Parting::Untold, "they may have had what is here");
        assert_eq!(part(&whole, 25, &[(12, 21, 0)], 30), Parting::Untold);
    }
}
