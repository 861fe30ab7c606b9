//! A set of numbers kept as disjoint half-open ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, non-touching, non-empty ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RangeSet {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The set of all numbers.
    pub(super) fn all() -> Self {
        Self { ranges: BTreeMap::from([(0, u64::MAX)]) }
    }

    /// The end of the range that `number` is in, or `None` when it is in none.
    pub(super) fn end_of(&self, number: u64) -> Option<u64> {
        self.ranges.range(..=number).next_back().map(|(_, end)| *end).filter(|end| *end > number)
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.end_of(number).is_some()
    }

    pub(super) fn contains_all(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.end_of(range.start).is_some_and(|end| end >= range.end)
    }

    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&other_start, &other_end)) = self.ranges.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            start = start.min(other_start);
            end = end.max(other_end);
            self.ranges.remove(&other_start);
        }
        self.ranges.insert(start, end);
    }

    pub(super) fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.ranges.range(..range.end).next_back() {
            if end <= range.start {
                break;
            }
            self.ranges.remove(&start);
            if start < range.start {
                self.ranges.insert(start, range.start);
            }
            if end > range.end {
                self.ranges.insert(range.end, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_a_set_of_numbers(steps in proptest::collection::vec((any::<bool>(), 0_u64..60, 0_u64..20), 0..60)) {
            let mut set = RangeSet::default();
            let mut model = [false; 100];
            for (is_insert, start, len) in steps {
                let range = start..start + len;
                if is_insert { set.insert(range.clone()) } else { set.remove(&range) }
                model[start as usize..(start + len) as usize].fill(is_insert);
            }
            for number in 0..100_u64 {
                prop_assert_eq!(set.contains(number), model[number as usize]);
                let end = (number..100).find(|n| !model[*n as usize]).unwrap_or(100);
                prop_assert_eq!(set.end_of(number), (end > number).then_some(end));
                prop_assert!(set.contains_all(&(number..end)));
                prop_assert!(!set.contains_all(&(number..end + 1)));
            }
        }
    }
}
