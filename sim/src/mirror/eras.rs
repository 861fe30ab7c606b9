//! What a log of this world says of its past: which epochs it has, and where each begins.

use replication::Position;
use units::{Epoch, Lsn};

/// What two sites compare to find where their logs part.
///
/// Epochs and LSNs grow from one era to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Eras {
    firsts: Vec<Position>,
    end: Lsn,
}

impl Eras {
    /// What is behind everything written.
    #[must_use]
    pub(super) fn end(&self) -> Position {
        self.firsts.last().map_or(Position::ZERO, |first| Position { lsn: self.end, ..*first })
    }

    /// Takes in that `position` was appended.
    pub(super) fn append(&mut self, position: Position) {
        debug_assert!(position.lsn == self.end.next(), "a log has no holes");
        if self.firsts.last().is_none_or(|first| first.epoch < position.epoch) {
            self.firsts.push(position);
        }
        self.end = position.lsn;
    }

    /// Takes in that everything behind `lsn` was cut off.
    pub(super) fn cut(&mut self, lsn: Lsn) {
        self.firsts.retain(|first| first.lsn <= lsn);
        self.end = self.end.min(lsn);
    }

    /// The last position that both logs have. Nothing when what they tell of their past does not reach so far back.
    #[must_use]
    pub(super) fn common(&self, other: &Self) -> Position {
        let shared = self.firsts.iter().rev().find(|first| other.firsts.contains(first));
        let Some(first) = shared else { return Position::ZERO };
        let ends = [self, other].map(|log| log.last_of(first.epoch).map_or(first.lsn, |(_, last)| last));
        let [mine, theirs] = ends;
        Position { lsn: mine.min(theirs), ..*first }
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

    fn eras(epochs: &[u64]) -> Eras {
        let mut eras = Eras::default();
        for (index, epoch) in epochs.iter().enumerate() {
            eras.append(Position { epoch: Epoch(*epoch), segment: None, lsn: Lsn(index as u64 + 1) });
        }
        eras
    }

    /// P4. The fork point of two logs is the last position that both have.
    #[test]
    fn logs_part_where_their_epochs_do() {
        let at = |epoch, lsn| Position { epoch: Epoch(epoch), segment: None, lsn: Lsn(lsn) };
        assert_eq!(eras(&[1, 1, 2]).common(&eras(&[1, 1, 2])), at(2, 3));
        assert_eq!(eras(&[1, 1, 1, 1]).common(&eras(&[1, 1, 3])), at(1, 2));
        assert_eq!(eras(&[1, 2, 2]).common(&eras(&[1, 3, 3])), at(1, 1));
        assert_eq!(eras(&[]).common(&eras(&[1])), Position::ZERO);
    }

    /// P4. It is found whoever looks, and is where what both have ends.
    #[test]
    fn the_fork_point_is_in_both() {
        for (prefix, mine, theirs) in
            (0..20_usize).flat_map(|prefix| (0..36_u64).map(move |both| (prefix, both / 6, both % 6)))
        {
            let mut a: Vec<u64> = (0..prefix).map(|index| 1 + index as u64 / 4).collect();
            let mut b = a.clone();
            a.extend((0..mine).map(|index| 10 + index / 3 * 2));
            b.extend((0..theirs).map(|index| 11 + index / 3 * 2));
            let (a, b) = (eras(&a), eras(&b));
            assert_eq!(a.common(&b), b.common(&a));
            assert_eq!(a.common(&b).lsn, Lsn(prefix as u64));
        }
    }
}
