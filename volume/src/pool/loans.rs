//! What copies share. A copy within a volume moves no data: its blocks stand for blocks of other segments, which are lent to
//! the segment that has the copy, and must stay as long as that is in its own slot. When it is moved its blocks are read where
//! they are lent from and written as its own; a loan ends once the slot is void.
//!
//! A lent block is one that the map named when it was lent, and that a stored version names until all that came before the
//! copy has been written back: so a loan that is noted before that is noted in time. A power cut may take the row of a loan whose
//! copy is durable: then the copy is behind what the stored map is complete to, and recovery tells of it.

use super::index::Index;
use super::survivors::Survivors;
use super::{Stretch, rows};
use crate::controls::{Safeguard, is_missing};
use crate::error::DiskFault;
use crate::map::Location;
use crate::store::{Durability, Store, StoreWrite};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use units::SegmentId;

/// Neighbouring blocks of a segment, and where their content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Loan {
    /// The first block of the borrower's slot.
    pub block: u32,
    /// How many there are.
    pub count: u32,
    /// Where the first one's content is; never in a block that is itself borrowed.
    pub source: Location,
}

/// What a segment borrows, by its blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loans {
    /// By the first block: how many, and where the first one is.
    runs: BTreeMap<u32, (u32, Location)>,
}

impl Loans {
    /// Adds a loan; one of the same blocks takes the place of the other.
    pub(crate) fn add(&mut self, loan: Loan) {
        self.runs.insert(loan.block, (loan.count, loan.source));
    }

    /// All of them, by their blocks.
    pub(crate) fn each(&self) -> impl Iterator<Item = Loan> {
        self.runs.iter().map(|(block, (count, source))| Loan { block: *block, count: *count, source: *source })
    }

    /// Where the content of the block at `location`, which is in the borrower, is; and of how many that follow it, at most
    /// `count` together, it is behind each other.
    pub(crate) fn resolve(&self, location: Location, count: u32) -> (Location, u32) {
        let block = u32::from(location.block);
        if let Some((first, (len, source))) = self.runs.range(..=block).next_back()
            && block - first < *len
        {
            return (source.plus(block - first), count.min(len - (block - first)));
        }
        let next = self.runs.range(block + 1..).next().map(|(next, _)| next - block);
        (location, next.map_or(count, |next| count.min(next)))
    }

    /// Cuts `count` neighbouring blocks from `location` on where their content is not behind each other.
    pub(crate) fn split(&self, location: Location, count: u32) -> impl Iterator<Item = (Location, u32)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let rest = count.checked_sub(done).filter(|rest| *rest > 0)?;
            let (at, here) = self.resolve(location.plus(done), rest);
            done += here;
            Some((at, here))
        })
    }
}

/// All that is lent in a pool.
#[derive(Debug, Default)]
pub(super) struct Lending {
    /// By borrower.
    loans: BTreeMap<SegmentId, Arc<Loans>>,
    /// Who borrows from a segment.
    borrowers: BTreeSet<(SegmentId, SegmentId)>,
    /// Borrowers whose loans a failed commit left unwritten.
    unsaved: BTreeSet<(SegmentId, u32)>,
}

impl Lending {
    pub(super) fn new(loans: impl IntoIterator<Item = (SegmentId, Loan)>) -> Self {
        let mut lending = Self::default();
        loans.into_iter().for_each(|(borrower, loan)| lending.add(borrower, loan));
        lending
    }

    fn add(&mut self, borrower: SegmentId, loan: Loan) {
        Arc::make_mut(self.loans.entry(borrower).or_default()).add(loan);
        self.borrowers.insert((loan.source.segment, borrower));
    }

    fn remove(&mut self, borrower: SegmentId) {
        let Some(loans) = self.loans.remove(&borrower) else { return };
        for loan in loans.each() {
            self.borrowers.remove(&(loan.source.segment, borrower));
            self.unsaved.remove(&(borrower, loan.block));
        }
    }

    fn borrowers_of(&self, lender: SegmentId) -> impl Iterator<Item = SegmentId> {
        self.borrowers.range((lender, SegmentId(0))..=(lender, SegmentId::MAX)).map(|(_, borrower)| *borrower)
    }

    /// The rows that a failed commit left unwritten.
    pub(super) fn unsaved_rows(&self) -> impl Iterator<Item = StoreWrite> {
        self.unsaved.iter().filter_map(|(borrower, block)| {
            let (count, source) = *self.loans.get(borrower)?.runs.get(block)?;
            let loan = Loan { block: *block, count, source };
            Some(StoreWrite::Put(rows::loan_key(*borrower, *block), rows::encode_loan(&loan)))
        })
    }

    pub(super) fn note_saved(&mut self) {
        self.unsaved.clear();
    }
}

impl<S: Store> Index<S> {
    /// Notes what a segment borrows from now on. Given before anything is written back that comes after the copy.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: the index knows it all the same, and writes it with its next commit.
    pub fn note_loans(&mut self, borrower: SegmentId, loans: &[Loan]) -> Result<(), DiskFault> {
        for loan in loans {
            self.lending.add(borrower, *loan);
            self.lending.unsaved.insert((borrower, loan.block));
        }
        self.commit(Vec::new(), Durability::Lazy)
    }

    /// What a segment borrows, while it is in its own slot.
    #[must_use]
    pub fn loans(&self, segment: SegmentId) -> Option<&Arc<Loans>> {
        let is_own = self.entry(segment).is_some_and(|entry| entry.row.own_slot().is_some());
        self.lending.loans.get(&segment).filter(|_| is_own)
    }

    /// Where the content of neighbouring blocks is now, as far as it is behind each other. `None` ends it where a segment does
    /// not have them all.
    #[must_use]
    pub fn locate(&self, location: Location, count: u32) -> Vec<Option<Stretch>> {
        let none = Loans::default();
        let loans = self.loans(location.segment).map_or(&none, AsRef::as_ref);
        let mut found = Vec::new();
        for (at, count) in loans.split(location, count) {
            match self.segment(at.segment) {
                Some(row) => {
                    let survivors = self.survivors(at.segment).map(AsRef::as_ref);
                    found.extend(row.stretches(survivors, u32::from(at.block), count));
                }
                None => found.push(None),
            }
            if found.last() == Some(&None) {
                break;
            }
        }
        found
    }

    /// Whether another segment borrows from this one, which must then stay.
    #[must_use]
    pub fn is_lent(&self, segment: SegmentId) -> bool {
        !is_missing(Safeguard::Loans) && self.lending.borrowers_of(segment).any(|borrower| borrower != segment)
    }

    /// The blocks of a segment that others borrow. What it lends to itself it has moved with the rest when it is moved.
    #[must_use]
    pub fn lent_blocks(&self, segment: SegmentId) -> Survivors {
        let mut lent = Survivors::none(self.superblock().geometry.slot_blocks());
        if is_missing(Safeguard::Loans) {
            return lent;
        }
        let borrowers = self.lending.borrowers_of(segment).filter(|borrower| *borrower != segment);
        let loans = borrowers.filter_map(|borrower| self.lending.loans.get(&borrower)).flat_map(|loans| loans.each());
        for loan in loans.filter(|loan| loan.source.segment == segment) {
            (u32::from(loan.source.block)..).take(loan.count as usize).for_each(|block| lent.insert(block));
        }
        lent
    }

    /// What is borrowed from segments that are not there: the disk has lost them.
    pub(crate) fn missing_loans(&self) -> impl Iterator<Item = (SegmentId, Loan)> {
        let all = self.lending.loans.iter().flat_map(|(borrower, loans)| loans.each().map(|loan| (*borrower, loan)));
        all.filter(|(_, loan)| self.entry(loan.source.segment).is_none())
    }

    /// Nothing is borrowed by a segment any more, the slot of which is void.
    pub(super) fn end_loans(&mut self, borrower: SegmentId) {
        self.lending.remove(borrower);
    }

    /// The write that ends them in the store.
    pub(super) fn loans_end(&self, borrower: SegmentId) -> Option<StoreWrite> {
        let (from, end) = rows::loan_keys(borrower);
        self.lending.loans.contains_key(&borrower).then_some(StoreWrite::DeleteRange(from, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u64, block: u16) -> Location {
        Location { segment: SegmentId(segment), block }
    }

    fn loans(runs: &[(u32, u32, Location)]) -> Loans {
        let mut loans = Loans::default();
        runs.iter()
            .for_each(|(block, count, source)| loans.add(Loan { block: *block, count: *count, source: *source }));
        loans
    }

    #[test]
    fn blocks_are_found_where_they_are_lent_from_and_else_where_they_are() {
        let loans = loans(&[(10, 4, at(2, 100)), (14, 1, at(3, 7)), (20, 2, at(2, 5))]);
        let split = |block, count| loans.split(at(9, block), count).collect::<Vec<_>>();
        assert_eq!(split(8, 2), [(at(9, 8), 2)]);
        assert_eq!(split(8, 4), [(at(9, 8), 2), (at(2, 100), 2)]);
        assert_eq!(split(12, 5), [(at(2, 102), 2), (at(3, 7), 1), (at(9, 15), 2)]);
        assert_eq!(split(21, 3), [(at(2, 6), 1), (at(9, 22), 2)]);
        assert_eq!(split(13, 0), []);
        assert_eq!(loans.each().count(), 3);
    }

    #[test]
    fn what_a_segment_lends_is_told_until_the_last_borrower_is_gone() {
        let loan = |block, source| Loan { block, count: 1, source };
        let mut lending = Lending::new([(SegmentId(5), loan(1, at(2, 3))), (SegmentId(6), loan(1, at(2, 3)))]);
        lending.add(SegmentId(5), loan(2, at(4, 8)));
        let of = |lending: &Lending, lender| lending.borrowers_of(SegmentId(lender)).collect::<Vec<_>>();
        assert_eq!((of(&lending, 2), of(&lending, 4)), (vec![SegmentId(5), SegmentId(6)], vec![SegmentId(5)]));
        lending.remove(SegmentId(5));
        assert_eq!((of(&lending, 2), of(&lending, 4)), (vec![SegmentId(6)], vec![]));
    }
}
