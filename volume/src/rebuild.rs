//! Making the index anew from the pool alone.
//!
//! Finds every segment by its slot's header (or, where that has rotted, by what else is in the slot), replays all but the
//! newest into map pages, with bounded memory, and counts what is live. The newest is left to recovery, as after any stop.
//! Between segments there may be gaps: what was there is dead and its slot given back. Nothing is written to the pool.
//!
//! A gap may also be what a power cut took of writes that no flush had covered. Nothing tells the two apart once the slots
//! are used again, so what comes after a gap counts: it may have been flushed, and what is missing was not.

mod families;
mod slots;

pub use families::Families;

use crate::folding::Folding;
use crate::format::Superblock;
use crate::map::Map;
use crate::pool::{Index, Inheritance, Loan, OpenError, SegmentRow};
use crate::recover::{Damage, SegmentLog, Wanted, cut_at, cuts_of, mends_of, read_segment, void_of};
use crate::store::{PoolReader, Store};
use slots::look_into_slots;
use std::collections::BTreeMap;
use units::{Lsn, MeterTime, SegmentId, SlotIndex, VolumeId};

/// What a rebuild found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RebuildReport {
    /// Volumes that have segments.
    pub volumes: u64,
    /// Segments.
    pub segments: u64,
    /// Slots that hold nothing.
    pub free_slots: u64,
    /// Slots that are kept out of use, since what they hold cannot be told.
    pub kept_slots: Vec<SlotIndex>,
    /// Volumes that will not be served, and why.
    pub damaged: Vec<Damage>,
    /// Headers and footers that segments lack, by their offset in the pool: to be written and synced before the index is
    /// used. Recovery does not look into what is folded.
    pub mends: Vec<(u64, Vec<u8>)>,
    /// What else a person may want to know.
    pub notes: Vec<String>,
}

/// Makes the index of the pool in `store`, which is empty. The pool has been synced before: the index must not name what
/// is in the page cache alone. What only the catalogue knows, `families` reads once the system volume is folded.
///
/// # Errors
/// [`OpenError`] when the store fails or is not empty. Damage in the pool is reported, and keeps its volume alone from
/// being served.
pub fn rebuild_with<S: Store>(
    store: S,
    superblock: &Superblock,
    reader: &dyn PoolReader,
    families: impl FnOnce(&Index<S>) -> Families,
) -> Result<(Index<S>, RebuildReport), OpenError> {
    let mut report = RebuildReport::default();
    let found = look_into_slots(superblock, reader, &mut report);
    let mut index = Index::create_with(store, superblock, &found)?;
    report.segments = found.segments.len() as u64;
    report.kept_slots = found.kept.into_iter().collect();
    let volumes = index.volumes();
    report.volumes = volumes.len() as u64;
    let (system, others): (Vec<_>, Vec<_>) = volumes.into_iter().partition(|volume| *volume == VolumeId::SYSTEM);
    let unknown = Families::unknown();
    for volume in system {
        Fold::new(&index, superblock, (reader, &unknown), volume).run(&mut index, &mut report)?;
    }
    let families = families(&index);
    index.note_families(families.parents())?;
    for (volume, from) in families.resyncs() {
        families::leave_out_asides(&mut index, superblock, reader, ((*volume, *from), &mut report))?;
    }
    // Parents come first: their ids are lower.
    for volume in others {
        if index.inheritance(volume) != Inheritance::Ready {
            // A parent is damaged: nothing can be laid over what it had. Recovery keeps what the log has.
            continue;
        }
        let place = (reader, &families);
        Fold::new(&index, superblock, place, volume).run(&mut index, &mut report)?;
        if index.has_heirs(volume) {
            families::fold_to_end(&mut index, superblock, place, (volume, &mut report))?;
        }
    }
    let missing = index.missing_loans();
    report.notes.extend(missing.map(|(borrower, loan)| {
        let Loan { count, source, .. } = loan;
        let lender = source.segment;
        format!("{count} blocks that segment {borrower} copied cannot be read, unless written since: segment {lender} is gone")
    }));
    Ok((index, report))
}

/// The same of a pool whose families nobody knows: without clones, and with every snapshot that a log tells of.
///
/// # Errors
/// As [`rebuild_with`].
pub fn rebuild<S: Store>(
    store: S,
    superblock: &Superblock,
    reader: &dyn PoolReader,
) -> Result<(Index<S>, RebuildReport), OpenError> {
    rebuild_with(store, superblock, reader, |_| Families::unknown())
}

/// The folding of one volume's segments.
struct Fold<'a> {
    superblock: &'a Superblock,
    reader: &'a dyn PoolReader,
    families: &'a Families,
    volume: VolumeId,
    /// Oldest first, by id.
    rows: Vec<SegmentRow>,
    cuts: BTreeMap<SegmentId, Lsn>,
    folding: Folding,
    /// CRC of the header of the last batch.
    chain: Option<u32>,
    has_ended: bool,
    mends: Vec<(u64, Vec<u8>)>,
}

impl<'a> Fold<'a> {
    fn new<S: Store>(
        index: &Index<S>,
        superblock: &'a Superblock,
        (reader, families): (&'a dyn PoolReader, &'a Families),
        volume: VolumeId,
    ) -> Self {
        let mut rows = index.segments(volume);
        rows.sort_by_key(|row| row.segment);
        let cuts = cuts_of(&rows);
        let map = Map::new(index.parent(volume).is_none());
        Self {
            superblock,
            reader,
            families,
            volume,
            rows,
            cuts,
            folding: Folding::new(volume, map, families.boundaries_of(volume).collect(), (Lsn::ZERO, 0)),
            chain: None,
            has_ended: false,
            mends: Vec::new(),
        }
    }

    /// Replays all but the newest segment, which is left for recovery. Damage ends it.
    fn run<S: Store>(mut self, index: &mut Index<S>, report: &mut RebuildReport) -> Result<(), OpenError> {
        let durable_lsn = self.durable_lsn();
        let mut rows = self.rows.clone();
        let Some(newest) = rows.pop() else { return Ok(()) };
        let mut left = newest.first_lsn;
        for row in rows {
            match self.read(row, durable_lsn) {
                // Torn off whole, or given up.
                Ok(log) if log.is_empty() || self.breaks_off(&log, durable_lsn) => {
                    self.leave_out(index, &log)?;
                }
                Ok(log) => self.take(index, &log)?,
                Err(found) => {
                    // Recovery meets it again, and does not serve the volume.
                    report.damaged.push(found);
                    left = row.first_lsn;
                    break;
                }
            }
        }
        let newest = self.read(newest, durable_lsn).ok();
        if self.folding.applied == Lsn::ZERO {
            self.folding.size_bytes = newest.as_ref().and_then(|log| log.size_at_open).unwrap_or(0);
        }
        let newest = newest.filter(|log| !log.is_empty());
        if let Some(log) = newest.filter(|log| self.breaks_off(log, durable_lsn)) {
            self.leave_out(index, &log)?;
            left = Lsn(left.0.min(self.folding.applied.next().0));
        }
        let folded_to = Lsn(left.0.saturating_sub(1)).max(self.folding.applied);
        if folded_to > Lsn::ZERO {
            self.folding.pass_to(index, folded_to)?;
            self.folding.write_back(index)?;
            self.folding.end(index, (folded_to, MeterTime(0)))?;
        }
        report.mends.append(&mut self.mends);
        Ok(())
    }

    /// Whether the log ends before this segment: it goes on at the right operation and not from the right batch, so what it
    /// follows on was lost in a power cut, and what had been given up before is in its place.
    fn breaks_off(&mut self, log: &SegmentLog, durable_lsn: Lsn) -> bool {
        let is_next = log.row.first_lsn == self.folding.applied.next() && log.row.first_lsn > durable_lsn;
        self.has_ended |= is_next && self.chain.is_some_and(|chain| chain != log.chain_before);
        self.has_ended
    }

    /// Nothing of the segment counts.
    fn leave_out<S: Store>(&mut self, index: &mut Index<S>, log: &SegmentLog) -> Result<(), OpenError> {
        self.mends.extend(void_of(self.superblock, log));
        Ok(index.release(log.row.segment)?)
    }

    fn read(&self, row: SegmentRow, durable_lsn: Lsn) -> Result<SegmentLog, Damage> {
        let cut = cut_at(&self.cuts, &row);
        let (reader, superblock) = (self.reader, self.superblock);
        read_segment(&Wanted {
            reader,
            superblock,
            row,
            cut,
            durable_lsn,
            known_to: Lsn::ZERO,
            distrusts_footer: false,
        })
    }

    /// What the newest segments say was on stable storage.
    fn durable_lsn(&self) -> Lsn {
        let mut durable_lsn = Lsn::ZERO;
        for row in self.rows.iter().rev() {
            // Damage is met again when the segment's turn comes.
            let Ok(log) = self.read(*row, durable_lsn) else { continue };
            durable_lsn = durable_lsn.max(log.durable_seen);
            if !log.is_empty() && log.end() <= durable_lsn.next() {
                break;
            }
        }
        durable_lsn
    }

    fn take<S: Store>(&mut self, index: &mut Index<S>, log: &SegmentLog) -> Result<(), OpenError> {
        let mut boundaries = Vec::new();
        let size_bytes = self.folding.size_bytes;
        log.each_boundary(size_bytes, |boundary| boundaries.push(boundary));
        let told = boundaries.into_iter().filter_map(|boundary| self.families.told(self.volume, boundary));
        told.into_iter().try_for_each(|boundary| index.note_boundary(self.volume, boundary))?;
        self.folding.take(index, log)?;
        self.chain = Some(log.chain_after);
        self.mends.extend(mends_of(self.superblock, log, (Some(size_bytes), size_bytes)));
        index.note_segment(SegmentRow { last_lsn: Some(log.last_lsn), has_holes: log.has_holes(), ..log.row })?;
        let loans = log.loans();
        if !loans.is_empty() {
            index.note_loans(log.row.segment, &loans)?;
        }
        Ok(self.folding.write_back_if_full(index)?)
    }
}

#[cfg(test)]
mod tests;
