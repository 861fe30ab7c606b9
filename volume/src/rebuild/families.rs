//! What no log tells: who inherits from whom, and which ends of generations somebody still needs.

use super::RebuildReport;
use super::slots::void_segment;
use crate::folding::PAGES_MAX;
use crate::format::Superblock;
use crate::pool::{Boundary, Index, OpenError, Parent, SegmentRow};
use crate::recover::{recover, void_parcel, walk_pack};
use crate::store::{PoolReader, Store};
use std::collections::{BTreeMap, BTreeSet};
use units::{Lsn, SegmentId, VolumeId};

/// What the catalogue's records say of the volumes of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Families {
    parents: BTreeMap<VolumeId, Parent>,
    boundaries: Option<BTreeMap<(VolumeId, u64), Boundary>>,
    unreadable: BTreeSet<VolumeId>,
    resyncs: BTreeMap<VolumeId, Lsn>,
}

impl Families {
    /// Nobody can tell: every snapshot that a log tells of is kept, and no volume inherits.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// Each clone with what it inherits, and each boundary that lives, with its volume.
    #[must_use]
    pub fn new(
        parents: BTreeMap<VolumeId, Parent>,
        boundaries: impl IntoIterator<Item = (VolumeId, Boundary)>,
    ) -> Self {
        let boundaries = boundaries.into_iter().map(|(volume, boundary)| ((volume, boundary.generation), boundary));
        Self { parents, boundaries: Some(boundaries.collect()), ..Self::default() }
    }

    /// The same where some records cannot be read: every snapshot that a log tells of is kept.
    #[must_use]
    pub fn with_unknown_boundaries(parents: BTreeMap<VolumeId, Parent>) -> Self {
        Self { parents, ..Self::default() }
    }

    /// With volumes whose own records cannot be read: what they inherit, if anything, nobody can tell. None of their
    /// boundaries is kept, so that what was made of them is lost rather than shown with holes.
    #[must_use]
    pub fn with_unreadable(self, volumes: impl IntoIterator<Item = VolumeId>) -> Self {
        Self { unreadable: volumes.into_iter().collect(), ..self }
    }

    /// With volumes of which a resync is under way ([`crate::resync`]): each log ends at that operation. What is behind was kept aside,
    /// or may not be all there: it is left out.
    #[must_use]
    pub fn with_resyncs(self, resyncs: BTreeMap<VolumeId, Lsn>) -> Self {
        Self { resyncs, ..self }
    }

    pub(super) const fn resyncs(&self) -> &BTreeMap<VolumeId, Lsn> {
        &self.resyncs
    }

    pub(super) const fn parents(&self) -> &BTreeMap<VolumeId, Parent> {
        &self.parents
    }

    /// The boundaries of a volume that are told, oldest first.
    pub(super) fn boundaries_of(&self, volume: VolumeId) -> impl Iterator<Item = Boundary> {
        let all = self.boundaries.iter().filter(move |_| !self.unreadable.contains(&volume));
        all.flat_map(move |all| all.range((volume, 0)..=(volume, u64::MAX))).map(|(_, boundary)| *boundary)
    }

    /// A boundary that a log tells of as it is to be noted, if it is.
    pub(super) fn told(&self, volume: VolumeId, boundary: Boundary) -> Option<Boundary> {
        if self.unreadable.contains(&volume) {
            return None;
        }
        match &self.boundaries {
            Some(all) => all.get(&(volume, boundary.generation)).copied(),
            None => Some(boundary),
        }
    }
}

/// Leaves out what is behind the operation at which the resync of a volume began.
pub(super) fn leave_out_asides<S: Store>(
    index: &mut Index<S>,
    superblock: &Superblock,
    reader: &dyn PoolReader,
    ((volume, from), report): ((VolumeId, Lsn), &mut RebuildReport),
) -> Result<(), OpenError> {
    let rows: Vec<SegmentRow> = index.segments(volume).into_iter().filter(|row| row.first_lsn > from).collect();
    let gone: BTreeSet<SegmentId> = rows.iter().map(|row| row.segment).collect();
    let packs: BTreeSet<SegmentId> =
        rows.iter().flat_map(|row| row.home.each_parcel()).map(|place| place.pack).collect();
    for (pack, slot) in index.packs().filter(|(pack, _)| packs.contains(pack)) {
        let walked = walk_pack(reader, superblock, (slot, pack));
        let parcels = walked.parcels.iter().filter(|listed| gone.contains(&listed.start.header.segment));
        report.mends.extend(parcels.flat_map(|listed| void_parcel(reader, superblock, (slot, listed))));
    }
    for row in rows {
        report.mends.extend(row.own_slot().map(|slot| void_segment(superblock, (slot, &row))));
        index.release(row.segment)?;
    }
    Ok(())
}

/// Folds what a volume's newest segment has, as recovery would: heirs' pages are laid over its own, and are folded next.
/// Damage is met again at the start.
pub(super) fn fold_to_end<S: Store>(
    index: &mut Index<S>,
    superblock: &Superblock,
    (reader, families): (&dyn PoolReader, &Families),
    (volume, report): (VolumeId, &mut RebuildReport),
) -> Result<(), OpenError> {
    let Ok(mut recovered) = recover(reader, superblock, &index.known(volume, 0)) else { return Ok(()) };
    report.mends.append(&mut recovered.writes);
    recovered.sealed.into_iter().try_for_each(|row| index.note_segment(row))?;
    recovered.voided.into_iter().try_for_each(|segment| index.release(segment))?;
    recovered.borrowed.into_iter().try_for_each(|(segment, loans)| index.note_loans(segment, &loans))?;
    for boundary in recovered.boundaries {
        let told = families.told(volume, boundary);
        told.map_or(Ok(()), |boundary| index.note_boundary(volume, boundary))?;
    }
    let applied = Lsn(recovered.next_lsn.0.saturating_sub(1));
    loop {
        let capture = recovered.map.capture(applied, PAGES_MAX);
        let folded = capture.folded(recovered.size_bytes);
        let written = index.write_back(volume, capture.generation, &capture.writes, folded);
        recovered.map.write_back_ended(written.is_ok());
        written?;
        if !recovered.map.is_dirty() {
            return Ok(());
        }
    }
}
