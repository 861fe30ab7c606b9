//! A set of pages: a bit for each, where any is near.

use crate::io::PageIndex;
use std::collections::BTreeMap;

const WORD_BITS: u64 = u64::BITS as u64;

/// A set of pages.
#[derive(Debug, Default)]
pub(super) struct Presence {
    words: BTreeMap<u64, u64>,
}

impl Presence {
    pub(super) fn insert(&mut self, page: PageIndex) {
        *self.words.entry(page.0 / WORD_BITS).or_default() |= 1 << (page.0 % WORD_BITS);
    }

    pub(super) fn contains(&self, page: PageIndex) -> bool {
        self.words.get(&(page.0 / WORD_BITS)).is_some_and(|word| word >> (page.0 % WORD_BITS) & 1 == 1)
    }

    /// The first one that is not before `from`.
    pub(super) fn next_from(&self, from: PageIndex) -> Option<PageIndex> {
        let first = from.0 / WORD_BITS;
        let within = |(at, word): (&u64, &u64)| {
            let word = if *at == first { word & (u64::MAX << (from.0 % WORD_BITS)) } else { *word };
            (word != 0).then(|| PageIndex(at * WORD_BITS + u64::from(word.trailing_zeros())))
        };
        self.words.range(first..).find_map(within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(pages in proptest::collection::btree_set(0_u64..400, 0..40), asked in 0_u64..420) {
            let mut presence = Presence::default();
            pages.iter().for_each(|page| presence.insert(PageIndex(*page)));
            let expected: BTreeSet<u64> = pages;
            prop_assert_eq!(presence.contains(PageIndex(asked)), expected.contains(&asked));
            let next = expected.range(asked..).next().map(|page| PageIndex(*page));
            prop_assert_eq!(presence.next_from(PageIndex(asked)), next);
        }
    }
}
