//! What copies share. A copy moves no data: its blocks stand for blocks of other segments, which are lent to
//! the segment that has the copy, and must stay as long as that is in its own slot. When it is moved its blocks are read where
//! they are lent from and written as its own; a loan ends once the slot is void.
//!
//! A lent block is one that the map named when it was lent, and that a stored version names until all that came before the
//! copy has been written back: so a loan that is noted before that is noted in time. A power cut may take the row of a loan whose
//! copy is durable: then the copy is behind what the stored map is complete to, and recovery tells of it, of all volumes before
//! any of them is served.
//!
//! Of a copy to another volume the lender's volume tells what it has, and pledges it until the borrower's has noted the loan. A volume
//! is erased when no other one borrows from it any more.

use super::index::Index;
use super::survivors::Survivors;
use super::{Stretch, rows};
use crate::controls::{Safeguard, is_missing};
use crate::error::DiskFault;
use crate::map::Location;
use crate::store::{Durability, Store, StoreWrite};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use units::{SegmentId, VolumeId};

/// What keeps blocks that are to be borrowed by another volume, until that has noted the loan: as long as anybody has a copy of it.
#[derive(Debug, Clone, Default)]
pub struct Pledge(Arc<()>);

impl Pledge {
    /// Whether only the index still has it.
    fn is_over(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

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

    /// Whether a loan is one of them.
    pub(crate) fn has(&self, loan: &Loan) -> bool {
        self.runs.get(&loan.block) == Some(&(loan.count, loan.source))
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
    /// The same by lender: who borrows from it, for which block of theirs.
    borrowers: BTreeSet<(SegmentId, SegmentId, u32)>,
    /// Borrowers whose loans a failed commit left unwritten.
    unsaved: BTreeSet<(SegmentId, u32)>,
    /// Lenders of which somebody does not borrow any more, since that was last asked.
    freed: BTreeSet<SegmentId>,
    /// Blocks that another volume is about to borrow, and how many there are of each run.
    pledges: Vec<(Pledge, Vec<(Location, u32)>)>,
}

impl Lending {
    pub(super) fn new(loans: impl IntoIterator<Item = (SegmentId, Loan)>) -> Self {
        let mut lending = Self::default();
        loans.into_iter().for_each(|(borrower, loan)| lending.add(borrower, loan));
        lending
    }

    fn add(&mut self, borrower: SegmentId, loan: Loan) {
        if let Some(before) = self.loan((borrower, loan.block)) {
            self.borrowers.remove(&(before.source.segment, borrower, loan.block));
            self.freed.insert(before.source.segment);
        }
        Arc::make_mut(self.loans.entry(borrower).or_default()).add(loan);
        self.borrowers.insert((loan.source.segment, borrower, loan.block));
    }

    fn remove(&mut self, borrower: SegmentId) {
        let Some(loans) = self.loans.remove(&borrower) else { return };
        for loan in loans.each() {
            self.borrowers.remove(&(loan.source.segment, borrower, loan.block));
            self.unsaved.remove(&(borrower, loan.block));
            self.freed.insert(loan.source.segment);
        }
    }

    /// Drops the pledges that nobody has any more.
    fn end_pledges(&mut self) {
        for (_, runs) in self.pledges.extract_if(.., |(pledge, _)| pledge.is_over()) {
            self.freed.extend(runs.iter().map(|(location, _)| location.segment));
        }
    }

    /// Runs of `lender` that are about to be borrowed.
    fn pledged(&self, lender: SegmentId) -> impl Iterator<Item = (Location, u32)> {
        let live = self.pledges.iter().filter(|(pledge, _)| !pledge.is_over());
        live.flat_map(|(_, runs)| runs).filter(move |(location, _)| location.segment == lender).copied()
    }

    /// Who borrows from `lender`, and for which blocks of theirs.
    fn lent_by(&self, lender: SegmentId) -> impl Iterator<Item = (SegmentId, u32)> {
        let all = self.borrowers.range((lender, SegmentId(0), 0)..=(lender, SegmentId::MAX, u32::MAX));
        all.map(|(_, borrower, block)| (*borrower, *block))
    }

    fn borrowers_of(&self, lender: SegmentId) -> impl Iterator<Item = SegmentId> {
        let mut last = None;
        self.lent_by(lender)
            .map(|(borrower, _)| borrower)
            .filter(move |borrower| last.replace(*borrower) != Some(*borrower))
    }

    fn loan(&self, (borrower, block): (SegmentId, u32)) -> Option<Loan> {
        let (count, source) = *self.loans.get(&borrower)?.runs.get(&block)?;
        Some(Loan { block, count, source })
    }

    /// The rows that a failed commit left unwritten.
    pub(super) fn unsaved_rows(&self) -> impl Iterator<Item = StoreWrite> {
        self.unsaved.iter().filter_map(|place| {
            let loan = self.loan(*place)?;
            Some(StoreWrite::Put(rows::loan_key(place.0, loan.block), rows::encode_loan(&loan)))
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

    /// Keeps blocks for another volume, which the map of theirs names now, until nobody else has the pledge. Given before
    /// anything is written back that comes later.
    pub fn pledge(&mut self, pledge: Pledge, runs: Vec<(Location, u32)>) {
        self.lending.pledges.push((pledge, runs));
    }

    /// Segments of which something is not borrowed any more, since the last call.
    pub(crate) fn take_freed(&mut self) -> BTreeSet<SegmentId> {
        self.lending.end_pledges();
        std::mem::take(&mut self.lending.freed)
    }

    /// Whether anything is lent, or pledged.
    pub(crate) fn is_lending(&self) -> bool {
        !self.lending.borrowers.is_empty() || !self.lending.pledges.is_empty()
    }

    /// The volumes that lend something.
    pub(crate) fn lending_volumes(&self) -> BTreeSet<VolumeId> {
        let (borrowers, mut from) = (&self.lending.borrowers, SegmentId(0));
        let lenders = std::iter::from_fn(|| {
            let (lender, _, _) = *borrowers.range((from, SegmentId(0), 0)..).next()?;
            from = SegmentId(lender.0 + 1);
            Some(lender)
        });
        self.volumes_of(lenders)
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

    /// The same of one block, which is in one piece.
    #[must_use]
    pub fn locate_one(&self, location: Location) -> Option<Stretch> {
        let source = self.loans(location.segment).map_or(location, |loans| loans.resolve(location, 1).0);
        let survivors = self.survivors(source.segment).map(AsRef::as_ref);
        self.segment(source.segment)?.locate(survivors, u32::from(source.block), 1)
    }

    /// Whether another segment borrows from this one, which must then stay.
    #[must_use]
    pub fn is_lent(&self, segment: SegmentId) -> bool {
        let mut others = self.lending.borrowers_of(segment).filter(|borrower| *borrower != segment);
        !is_missing(Safeguard::Loans)
            && (others.any(|borrower| self.is_read(borrower)) || self.lending.pledged(segment).next().is_some())
    }

    /// Whether anybody may read a block of a segment: a version of the map that is stored names one, or one may that is not stored
    /// yet. What is not read borrows nothing any more, though it may stay for its trims.
    pub(crate) fn is_read(&self, segment: SegmentId) -> bool {
        self.entry(segment)
            .is_none_or(|entry| !self.is_folded(&entry.row) || entry.live.is_none_or(|live| live.total() > 0))
    }

    /// The segments of other volumes, but those that `go` too, that borrow from one of `volume`. While there is any, or one is to come,
    /// the volume must stay.
    #[must_use]
    pub fn borrowers_abroad(&self, volume: VolumeId, go: &BTreeSet<VolumeId>) -> Vec<SegmentId> {
        let own = self.owned.range((volume, SegmentId(0))..=(volume, SegmentId::MAX)).map(|(_, segment)| *segment);
        let all = own.flat_map(|segment| self.lending.borrowers_of(segment));
        let all = all.filter(|borrower| self.is_read(*borrower));
        let stays = |other: VolumeId| other != volume && !go.contains(&other) && !self.is_being_erased(other);
        let abroad = all.filter(|borrower| self.segment(*borrower).is_some_and(|row| stays(row.volume)));
        abroad.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether another volume, but those that `go` too, borrows from `volume`, or is about to.
    #[must_use]
    pub fn lends_abroad(&self, volume: VolumeId, go: &BTreeSet<VolumeId>) -> bool {
        let mut own = self.owned.range((volume, SegmentId(0))..=(volume, SegmentId::MAX));
        !is_missing(Safeguard::Loans)
            && (own.any(|(_, segment)| self.lending.pledged(*segment).next().is_some())
                || !self.borrowers_abroad(volume, go).is_empty())
    }

    /// The blocks of a segment that are borrowed, by others and by itself: a copy of such a copy may be about to borrow them.
    #[must_use]
    pub fn lent_blocks(&self, segment: SegmentId) -> Survivors {
        let mut lent = Survivors::none(self.superblock().geometry.slot_blocks());
        if is_missing(Safeguard::Loans) {
            return lent;
        }
        let borrowed = self.lending.lent_by(segment).filter(|(borrower, _)| self.is_read(*borrower));
        let borrowed = borrowed.filter_map(|place| self.lending.loan(place)).map(|loan| (loan.source, loan.count));
        for (source, count) in borrowed.chain(self.lending.pledged(segment)) {
            (u32::from(source.block)..).take(count as usize).for_each(|block| lent.insert(block));
        }
        lent
    }

    /// What is borrowed from segments that are not there: the disk has lost them.
    pub(crate) fn missing_loans(&self) -> impl Iterator<Item = (SegmentId, Loan)> {
        let all = self.lending.loans.iter().flat_map(|(borrower, loans)| loans.each().map(|loan| (*borrower, loan)));
        all.filter(|(borrower, loan)| self.entry(loan.source.segment).is_none() && self.is_read(*borrower))
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
