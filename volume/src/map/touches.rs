//! Touches: what the changes of a page make of its blocks, and from when on, until it is written back.
//!
//! A change is blind: whether a block held data before is known only where the stored page is read. So each changed page
//! keeps, for every time between two marks, which blocks became data or holes. Changes that leave blocks as they are known
//! to be add nothing. Between two marks the order does not matter, since what a block was in between has no length: the last
//! word counts, and it counts over whatever the page was at any operation of that time.

use super::{Found, PAGE_BLOCKS, Page};
use smallvec::SmallVec;
use units::{Lsn, MeterTime};

/// Runs of one time after which those that say the same are joined.
const RUNS_MAX: usize = 2 * PAGE_BLOCKS as usize;

const WORD_BITS: u32 = u64::BITS;
const WORDS: usize = (PAGE_BLOCKS / WORD_BITS) as usize;

/// Which blocks of a page hold data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held([u64; WORDS]);

impl Held {
    pub(crate) const NOTHING: Self = Self([0; WORDS]);

    pub(crate) fn of(page: &Page) -> Self {
        let mut held = Self::NOTHING;
        page.visit(0, PAGE_BLOCKS, |first, count, found| {
            if matches!(found, Found::Data { .. }) {
                held.set(first, count, true);
            }
        });
        held
    }

    /// How many they are.
    pub(crate) fn count(&self) -> i64 {
        self.0.iter().map(|word| i64::from(word.count_ones())).sum()
    }

    /// Makes blocks data or holes; returns how many more hold data.
    pub(crate) fn set(&mut self, first: u32, count: u32, is_data: bool) -> i64 {
        let (mut at, end, mut more) = (first, (first + count).min(PAGE_BLOCKS), 0);
        while at < end {
            let (word, bit) = ((at / WORD_BITS) as usize, at % WORD_BITS);
            let len = (WORD_BITS - bit).min(end - at);
            let mask = (u64::MAX >> (WORD_BITS - len)) << bit;
            if let Some(word) = self.0.get_mut(word) {
                let before = word.count_ones();
                *word = if is_data { *word | mask } else { *word & !mask };
                more += i64::from(word.count_ones()) - i64::from(before);
            }
            at += len;
        }
        more
    }
}

/// A run of blocks that became data or holes: first block 11 bits, number less one 11 bits, whether data 1 bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run(u32);

impl Run {
    const fn new(first: u32, count: u32, is_data: bool) -> Self {
        Self(first | (count - 1) << 11 | (is_data as u32) << 22)
    }

    const fn first(self) -> u32 {
        self.0 & 0x7ff
    }

    const fn count(self) -> u32 {
        (self.0 >> 11 & 0x7ff) + 1
    }

    const fn end(self) -> u32 {
        self.first() + self.count()
    }

    const fn is_data(self) -> bool {
        self.0 >> 22 == 1
    }
}

/// What changes between two time marks made of blocks of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Touch {
    /// The last of the changes.
    lsn: Lsn,
    /// From when on they count.
    at: MeterTime,
    runs: SmallVec<[Run; 2]>,
}

impl Touch {
    fn heap_bytes(&self) -> usize {
        if self.runs.spilled() { self.runs.capacity() * size_of::<Run>() } else { 0 }
    }

    /// Joins runs, so that each block is told once.
    fn join(&mut self) {
        let (mut told, mut data) = (Held::NOTHING, Held::NOTHING);
        for run in &self.runs {
            told.set(run.first(), run.count(), true);
            data.set(run.first(), run.count(), run.is_data());
        }
        self.runs.clear();
        let bit = |held: &Held, at: u32| {
            held.0.get((at / WORD_BITS) as usize).is_some_and(|w| w >> (at % WORD_BITS) & 1 == 1)
        };
        for at in (0..PAGE_BLOCKS).filter(|at| bit(&told, *at)) {
            add_run(&mut self.runs, Run::new(at, 1, bit(&data, at)));
        }
    }
}

fn add_run(runs: &mut SmallVec<[Run; 2]>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.is_data() == run.is_data() && last.end() == run.first() => {
            *last = Run::new(last.first(), last.count() + run.count(), run.is_data());
        }
        _ => runs.push(run),
    }
}

/// The touches of a page that no write-back has taken, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touches(Vec<Touch>);

impl Touches {
    /// Notes that operation `lsn`, which counts from `at` on, made blocks data or holes. Returns the bytes that it takes.
    pub(super) fn add(&mut self, (lsn, at): (Lsn, MeterTime), (first, count): (u32, u32), is_data: bool) -> usize {
        let run = Run::new(first, count, is_data);
        match self.0.last_mut().filter(|last| last.at == at) {
            Some(last) => {
                let before = last.heap_bytes();
                last.lsn = lsn;
                add_run(&mut last.runs, run);
                if last.runs.len() > RUNS_MAX {
                    last.join();
                }
                last.heap_bytes() - before
            }
            None => {
                let before = self.0.capacity();
                // Most pages are written back with one.
                self.0.reserve_exact(usize::from(self.0.is_empty()));
                self.0.push(Touch { lsn, at, runs: SmallVec::from_slice(&[run]) });
                (self.0.capacity() - before) * size_of::<Touch>()
            }
        }
    }

    /// Puts `earlier` ones before these.
    pub(super) fn put_before(&mut self, earlier: &Self) {
        self.0.splice(0..0, earlier.0.iter().cloned());
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that they take in memory beside their own struct.
    #[must_use]
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Touch>() + self.0.iter().map(Touch::heap_bytes).sum::<usize>()
    }

    /// Carries out those behind `lsn` on what a page held up to there; calls `visit` with each time and how many more blocks
    /// hold data since.
    pub(crate) fn apply(&self, lsn: Lsn, held: &mut Held, mut visit: impl FnMut(MeterTime, i64)) {
        for touch in self.0.iter().filter(|touch| touch.lsn > lsn) {
            let more = touch.runs.iter().map(|run| held.set(run.first(), run.count(), run.is_data())).sum();
            visit(touch.at, more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCKS: usize = PAGE_BLOCKS as usize;

    fn ranges() -> impl Strategy<Value = (usize, usize, bool)> {
        (0..BLOCKS, 1..300_usize, any::<bool>()).prop_map(|(first, count, is)| (first, count.min(BLOCKS - first), is))
    }

    proptest! {
        #[test]
        fn held_is_a_set_of_blocks(steps in proptest::collection::vec(ranges(), 1..20)) {
            let (mut held, mut model) = (Held::NOTHING, vec![false; BLOCKS]);
            for (first, count, is_data) in steps {
                let before = model.iter().filter(|is| **is).count() as i64;
                model[first..first + count].fill(is_data);
                let after = model.iter().filter(|is| **is).count() as i64;
                prop_assert_eq!(held.set(first as u32, count as u32, is_data), after - before);
                prop_assert_eq!(held.count(), after);
            }
        }

        /// P7. From whatever operation on, touches tell of every time how many more blocks hold data at its end.
        #[test]
        fn touches_are_right_over_what_a_page_was_at_any_operation(
            steps in proptest::collection::vec((ranges(), 0..2_u64), 1..60), from: prop::sample::Index,
        ) {
            let (mut touches, mut model, mut at) = (Touches::default(), vec![false; BLOCKS], 5);
            let mut counts = vec![(MeterTime(5), 0)];
            let from = from.index(steps.len() + 1) as u64;
            let (mut base, mut counted) = (Held::NOTHING, Vec::new());
            for (lsn, ((first, count, is_data), pause)) in (1..).zip(steps) {
                at += pause;
                model[first..first + count].fill(is_data);
                touches.add((Lsn(lsn), MeterTime(at)), (first as u32, count as u32), is_data);
                let held = model.iter().filter(|is| **is).count() as i64;
                if lsn <= from {
                    base.set(first as u32, count as u32, is_data);
                    counted = vec![(MeterTime(at), held)];
                }
                counts.push((MeterTime(at), held));
            }
            let (mut held, mut level) = (base, base.count());
            touches.apply(Lsn(from), &mut held, |at, more| {
                level += more;
                counted.retain(|(of, _)| *of != at);
                counted.push((at, level));
            });
            for (at, level) in counted {
                let last = counts.iter().rev().find(|(of, _)| *of == at).map_or(0, |(_, level)| *level);
                prop_assert_eq!(level, last, "at {:?}", at);
            }
            prop_assert_eq!(held.count(), counts.last().unwrap().1);
        }
    }

    /// P7. However often the same blocks are written and trimmed between two marks, what is kept of it is bounded.
    #[test]
    fn what_is_kept_of_one_time_is_bounded() {
        let (mut touches, mut once) = (Touches::default(), Touches::default());
        for round in 0..100_000_u32 {
            let (first, is_data) = (round.wrapping_mul(7919) % PAGE_BLOCKS, round % 3 != 0);
            touches.add((Lsn(u64::from(round)), MeterTime(1)), (first, 1), is_data);
        }
        assert!(touches.heap_bytes() < 64 << 10, "{}", touches.heap_bytes());
        once.add((Lsn(1), MeterTime(1)), (0, PAGE_BLOCKS), true);
        let (mut held, mut level) = (Held::NOTHING, 0);
        touches.apply(Lsn(0), &mut held, |_, more| level += more);
        assert_eq!(level, held.count());
    }
}
