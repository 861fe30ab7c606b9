//! Places in the log of a group, and what a log says of its past.

use std::fmt;
use units::{Epoch, Lsn};

/// Most eras that a site tells of its log.
pub const ERAS_MAX: usize = 1024;

/// An operation of a group's log: its LSN, and the epoch in which its author wrote it.
///
/// An epoch has one author, who writes each LSN once; so two logs that both have a position are equal up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The epoch of the operation.
    pub epoch: Epoch,
    /// Its place.
    pub lsn: Lsn,
}

impl Position {
    /// Before everything.
    pub const ZERO: Self = Self { epoch: Epoch(0), lsn: Lsn::ZERO };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.lsn)
    }
}

/// Which epochs a log has, and where each begins: what two sites compare to find where their logs part.
///
/// Epochs and LSNs grow from one era to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Eras {
    firsts: Vec<Position>,
    end: Lsn,
}

impl Eras {
    /// What is behind everything written.
    #[must_use]
    pub fn end(&self) -> Position {
        self.firsts.last().map_or(Position::ZERO, |first| Position { epoch: first.epoch, lsn: self.end })
    }

    /// Takes in that `position` was appended.
    pub fn append(&mut self, position: Position) {
        debug_assert!(position.lsn == self.end.next(), "a log has no holes");
        if self.firsts.last().is_none_or(|first| first.epoch < position.epoch) {
            self.firsts.push(position);
            if self.firsts.len() > ERAS_MAX {
                self.firsts.remove(0);
            }
        }
        self.end = position.lsn;
    }

    /// Takes in that everything behind `lsn` was cut off.
    pub fn cut(&mut self, lsn: Lsn) {
        self.firsts.retain(|first| first.lsn <= lsn);
        self.end = self.end.min(lsn);
    }

    /// Whether the log has `position`.
    #[must_use]
    pub fn contains(&self, position: Position) -> bool {
        position == Position::ZERO
            || self.last_of(position.epoch).is_some_and(|(first, last)| (first..=last).contains(&position.lsn))
    }

    /// The last position that both logs have. Nothing when what they tell of their past does not reach so far back.
    #[must_use]
    pub fn common(&self, other: &Self) -> Position {
        let shared = self.firsts.iter().rev().find(|first| other.firsts.contains(first));
        let Some(first) = shared else { return Position::ZERO };
        let ends = [self, other].map(|log| log.last_of(first.epoch).map_or(first.lsn, |(_, last)| last));
        let [mine, theirs] = ends;
        Position { epoch: first.epoch, lsn: mine.min(theirs) }
    }

    fn last_of(&self, epoch: Epoch) -> Option<(Lsn, Lsn)> {
        let index = self.firsts.iter().position(|first| first.epoch == epoch)?;
        let first = self.firsts.get(index)?.lsn;
        let last = self.firsts.get(index + 1).map_or(self.end, |next| Lsn(next.lsn.0 - 1));
        Some((first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn eras(epochs: &[u64]) -> Eras {
        let mut eras = Eras::default();
        for (index, epoch) in epochs.iter().enumerate() {
            eras.append(Position { epoch: Epoch(*epoch), lsn: Lsn(index as u64 + 1) });
        }
        eras
    }

    /// P4. The fork point of two logs is the last position that both have.
    #[test]
    fn logs_part_where_their_epochs_do() {
        let at = |epoch, lsn| Position { epoch: Epoch(epoch), lsn: Lsn(lsn) };
        assert_eq!(eras(&[1, 1, 2]).common(&eras(&[1, 1, 2])), at(2, 3));
        assert_eq!(eras(&[1, 1, 1, 1]).common(&eras(&[1, 1, 3])), at(1, 2));
        assert_eq!(eras(&[1, 2, 2]).common(&eras(&[1, 3, 3])), at(1, 1));
        assert_eq!(eras(&[]).common(&eras(&[1])), Position::ZERO);
    }

    proptest! {
        /// P4. It is found whoever looks, and both logs have it.
        #[test]
        fn the_fork_point_is_in_both(prefix in 0_usize..20, mine in 0_u64..6, theirs in 0_u64..6) {
            let mut a: Vec<u64> = (0..prefix).map(|index| 1 + index as u64 / 4).collect();
            let mut b = a.clone();
            a.extend((0..mine).map(|index| 10 + index / 3 * 2));
            b.extend((0..theirs).map(|index| 11 + index / 3 * 2));
            let (a, b) = (eras(&a), eras(&b));
            prop_assert_eq!(a.common(&b), b.common(&a));
            prop_assert_eq!(a.common(&b).lsn, Lsn(prefix as u64));
            prop_assert!(a.contains(a.common(&b)) && b.contains(a.common(&b)));
        }
    }
}
