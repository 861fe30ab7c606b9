//! Segments that another site sent and that are kept aside until all of them are there: [`crate::resync`].
//!
//! They are in packs of this pool, and nothing sees them: a volume does not read them, compaction does not move them, recovery
//! does not replay them. Their rows survive a restart, so that only what is missing is sent again. One durable commit makes all of them
//! segments of the volume, or forgets them.
//!
//! From then on the volume's log has gaps up to where it was joined to, and the stored map lacks most of it: until
//! [`crate::resync::fold`] has brought that there, recovery refuses the volume.

use super::index::{Entry, Index};
use super::rows::{self, Fields};
use super::{Boundary, Home, Lease, Live, OpenError, Parcels, SegmentRow, Survivors};
use crate::controls::{Safeguard, is_missing};
use crate::error::DiskFault;
use crate::format::PartSet;
use crate::recover::Recovered;
use crate::store::{Durability, Store, StoreWrite};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use units::{Epoch, Lsn, SegmentId, VolumeId};

/// Where the resync of a volume stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resync {
    /// The volume's log as it is, and as it stays until it is joined, ends here.
    pub from: Lsn,
    /// Once it is joined: to where, and what is to be known for the fold.
    pub joined: Option<Joined>,
}

/// What a log was joined to, while the stored map does not have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The last operation that is there.
    pub to: Lsn,
    /// The ends of generations up to there that somebody needs, oldest first: the operations may be gone.
    pub boundaries: Vec<Boundary>,
}

/// What is to be known of a segment as a whole, and is the same in all of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Whose it is.
    pub volume: VolumeId,
    /// Its first operation.
    pub first_lsn: Lsn,
    /// Its last operation. `last_lsn >= first_lsn`.
    pub last_lsn: Lsn,
    /// Of its last batch.
    pub epoch: Epoch,
    /// The volume's size before its first operation.
    pub size_bytes: u64,
    /// CRC of the header of the batch before its first.
    pub chain_before: u32,
    /// CRC of the header of its last batch.
    pub chain_after: u32,
}

/// A segment that is kept aside, as far as it is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Which.
    pub segment: SegmentId,
    /// The segment as a whole.
    pub whole: Whole,
    /// Where the parts are that are here.
    pub parcels: Parcels,
    /// Which blocks of it are here.
    pub survivors: Survivors,
    /// The parts that it is complete with.
    pub parts: PartSet,
    /// Whether trims, zeroes or resizes are in it.
    pub has_holes: bool,
    /// What is missing of it was dead by the sender's stored map, which was complete up to here.
    pub as_of: Lsn,
}

/// What the other site's log has behind where this one ends, and up to where its stored map was complete then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Its segments up to where the log is to be joined to.
    pub segments: Vec<SegmentId>,
    /// What was missing among them by then had left since it was dead up to here.
    pub as_of: Lsn,
    /// The ends of generations that somebody needs there.
    pub boundaries: Vec<Boundary>,
}

/// Why a log is not joined. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinError {
    /// There is no resync of the volume.
    NotBegun,
    /// The volume is open, or its log does not end where the resync began.
    OtherEnd,
    /// Not all of a segment is here that the other site has.
    Missing(SegmentId),
    /// No segment ends at the operation.
    NoEnd,
    /// What is missing of the segments may have been dead only later: the log has to be joined to this operation or a later one.
    TooEarly(Lsn),
    /// A segment does not follow on the one before it.
    Chain(SegmentId),
    /// An end of a generation bears the number of one that the log has already: the other site has forgotten that there was one, by a
    /// rebuild. Only a copy that is made anew can be joined.
    Generation(u64),
    /// A pack that was given up is not void yet: later.
    NotVoid,
    /// The store failed: it may have come through all the same, and is to be tried again.
    Store(DiskFault),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBegun => f.write_str("no resync of the volume was begun"),
            Self::OtherEnd => f.write_str("the log does not end where the resync began"),
            Self::Missing(segment) => write!(f, "segment {segment} is not all there"),
            Self::NoEnd => f.write_str("no segment ends there"),
            Self::TooEarly(lsn) => write!(f, "what was sent may lack what counts before operation {lsn}"),
            Self::Chain(segment) => write!(f, "segment {segment} does not follow on the one before it"),
            Self::Generation(generation) => {
                write!(f, "the log has a generation {generation} already, which ended earlier")
            }
            Self::NotVoid => f.write_str("a pack that was given up is not void yet"),
            Self::Store(fault) => write!(f, "{fault}"),
        }
    }
}

impl std::error::Error for JoinError {}

impl Aside {
    /// Whether all of it is here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.parts.without(self.parcels.parts()).is_empty()
    }

    /// Adds parts that came later. What the sender did not have of it any more by then is not missed.
    fn take(&mut self, other: &Self) {
        self.parcels = self.parcels.replaced(other.parcels.parts(), &other.parcels);
        self.survivors.add(&other.survivors);
        self.parts = self.parts.without(self.parts.without(other.parts));
        self.has_holes |= other.has_holes;
        self.as_of = self.as_of.max(other.as_of);
    }

    fn row(&self) -> SegmentRow {
        SegmentRow {
            segment: self.segment,
            volume: self.whole.volume,
            home: Home::Parcels(self.parcels),
            first_lsn: self.whole.first_lsn,
            last_lsn: Some(self.whole.last_lsn),
            has_holes: self.has_holes,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let whole = &self.whole;
        let numbers =
            [whole.volume.0, whole.first_lsn.0, whole.last_lsn.0, whole.epoch.0, whole.size_bytes, self.as_of.0];
        let mut out: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
        out.extend([whole.chain_before, whole.chain_after].into_iter().flat_map(u32::to_le_bytes));
        out.extend([self.parts.bits(), u8::from(self.has_holes)]);
        rows::put_home(&Home::Parcels(self.parcels), &mut out);
        rows::put_survivors(&self.survivors, &mut out);
        out
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, OpenError> {
        let parse = || {
            let segment = rows::segment_of_aside_key(key)?;
            let mut fields = Fields(value);
            let volume = VolumeId(fields.u64()?);
            let (first_lsn, last_lsn) = (Lsn(fields.u64()?), Lsn(fields.u64()?));
            let (epoch, size_bytes, as_of) = (Epoch(fields.u64()?), fields.u64()?, Lsn(fields.u64()?));
            let (chain_before, chain_after) = (fields.u32()?, fields.u32()?);
            let [parts, has_holes] = fields.take()?;
            let parcels = *rows::take_home(&mut fields)?.parcels()?;
            let survivors = rows::take_survivors(&mut fields)?;
            let whole = Whole { volume, first_lsn, last_lsn, epoch, size_bytes, chain_before, chain_after };
            let (parts, has_holes) = (PartSet::of_bits(parts), has_holes != 0);
            fields.0.is_empty().then_some(Self { segment, whole, parcels, survivors, parts, has_holes, as_of })
        };
        parse().ok_or(OpenError::Corrupt("the row of a segment that is kept aside"))
    }
}

impl Resync {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.from.0.to_le_bytes().to_vec();
        if let Some(joined) = &self.joined {
            let each =
                |boundary: &Boundary| [boundary.generation, boundary.lsn.0, boundary.size_bytes, boundary.wall_ms];
            let numbers = [joined.to.0].into_iter().chain(joined.boundaries.iter().flat_map(each));
            out.extend(numbers.flat_map(u64::to_le_bytes));
        }
        out
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<(VolumeId, Self), OpenError> {
        let parse = || {
            let volume = rows::volume_of_resync_key(key)?;
            let mut fields = Fields(value);
            let from = Lsn(fields.u64()?);
            if fields.0.is_empty() {
                return Some((volume, Self { from, joined: None }));
            }
            let to = Lsn(fields.u64()?);
            let mut boundaries = Vec::new();
            while !fields.0.is_empty() {
                let (generation, lsn) = (fields.u64()?, Lsn(fields.u64()?));
                let (size_bytes, wall_ms) = (fields.u64()?, fields.u64()?);
                boundaries.push(Boundary { generation, lsn, size_bytes, wall_ms });
            }
            Some((volume, Self { from, joined: Some(Joined { to, boundaries }) }))
        };
        parse().ok_or(OpenError::Corrupt("the row of a resync"))
    }
}

/// All that the index knows of resyncs.
#[derive(Debug, Default)]
pub(super) struct Asides {
    resyncs: BTreeMap<VolumeId, Resync>,
    segments: BTreeMap<SegmentId, Aside>,
}

impl Asides {
    pub(super) fn add_resync(&mut self, key: &[u8], value: &[u8]) -> Result<(), OpenError> {
        let (volume, resync) = Resync::decode(key, value)?;
        self.resyncs.insert(volume, resync);
        Ok(())
    }

    /// Adds a row; returns what it names.
    pub(super) fn add_segment(&mut self, key: &[u8], value: &[u8]) -> Result<Parcels, OpenError> {
        let aside = Aside::decode(key, value)?;
        let parcels = aside.parcels;
        self.segments.insert(aside.segment, aside);
        Ok(parcels)
    }

    /// Which packs have something of which segment.
    pub(super) fn in_packs(&self) -> impl Iterator<Item = (SegmentId, SegmentId)> {
        self.segments.values().flat_map(|aside| aside.parcels.places().map(|place| (place.pack, aside.segment)))
    }

    /// The newest of the segments.
    pub(super) fn newest(&self) -> Option<SegmentId> {
        self.segments.last_key_value().map(|(segment, _)| *segment)
    }
}

impl<S: Store> Index<S> {
    /// Begins the resync of a volume whose log ends at `from`; durable when it returns. One that was begun there goes on.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or another resync of the volume is under way.
    pub fn begin_resync(&mut self, volume: VolumeId, from: Lsn) -> Result<(), DiskFault> {
        let resync = Resync { from, joined: None };
        match self.asides.resyncs.get(&volume) {
            Some(before) if *before == resync => return Ok(()),
            Some(_) => return Err(DiskFault::Io),
            None => {}
        }
        let row = StoreWrite::Put(rows::resync_key(volume), resync.encode());
        self.commit(vec![row], Durability::Durable)?;
        self.asides.resyncs.insert(volume, resync);
        Ok(())
    }

    /// The resync of a volume that is under way.
    #[must_use]
    pub fn resync(&self, volume: VolumeId) -> Option<&Resync> {
        self.asides.resyncs.get(&volume)
    }

    /// What is kept aside for a volume, oldest first.
    pub fn asides(&self, volume: VolumeId) -> impl Iterator<Item = &Aside> {
        self.asides.segments.values().filter(move |aside| aside.whole.volume == volume)
    }

    /// A segment that is kept aside.
    #[must_use]
    pub fn aside(&self, segment: SegmentId) -> Option<&Aside> {
        self.asides.segments.get(&segment)
    }

    /// The rows of all that is kept aside.
    pub(crate) fn aside_rows(&self) -> impl Iterator<Item = SegmentRow> {
        self.asides.segments.values().map(Aside::row)
    }

    /// The newest segment of a volume's log.
    pub(crate) fn newest_segment(&self, volume: VolumeId) -> Option<SegmentId> {
        let owned = self.owned.range((volume, SegmentId(0))..=(volume, SegmentId::MAX)).next_back();
        owned.map(|(_, segment)| *segment)
    }

    /// Whether an id is that of something else here.
    pub(crate) fn is_id_taken(&self, segment: SegmentId) -> bool {
        self.entry(segment).is_some() || self.packs.contains_key(&segment) || self.slots.leased(segment).is_some()
    }

    /// The segment kept aside that comes before another one, and the one behind it.
    pub(crate) fn asides_around(&self, volume: VolumeId, segment: SegmentId) -> [Option<&Aside>; 2] {
        let is_of = |(_, aside): &(&SegmentId, &Aside)| aside.whole.volume == volume;
        let before = self.asides.segments.range(..segment).rev().find(is_of);
        let after = self.asides.segments.range(SegmentId(segment.0 + 1)..).find(is_of);
        [before, after].map(|found| found.map(|(_, aside)| aside))
    }

    /// Keeps aside what a pack was filled with; durable when it returns.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: it may have come through all the same, and is to be tried again, or the pack given up.
    pub(crate) fn keep_aside(&mut self, lease: Lease, parts: &[Aside]) -> Result<(), DiskFault> {
        let mut after: BTreeMap<SegmentId, Aside> = BTreeMap::new();
        for part in parts {
            let known = after.remove(&part.segment).or_else(|| self.aside(part.segment).cloned());
            let mut aside = known.unwrap_or_else(|| part.clone());
            aside.take(part);
            after.insert(part.segment, aside);
        }
        let mut slots = self.slots.clone();
        after.keys().try_for_each(|segment| slots.pass(*segment))?;
        let mut writes = vec![StoreWrite::Put(rows::pack_key(lease.segment), rows::encode_pack(lease.slot))];
        writes.extend(after.values().map(|aside| StoreWrite::Put(rows::aside_key(aside.segment), aside.encode())));
        writes.push(self.pool_row(&slots));
        self.commit(writes, Durability::Durable)?;
        self.slots = slots;
        self.note_packs(&[lease]);
        for (segment, aside) in after {
            self.parcels.extend(aside.parcels.places().map(|place| (place.pack, segment)));
            self.asides.segments.insert(segment, aside);
        }
        Ok(())
    }

    /// Notes that the sender has fewer parts of a segment by now than it is to be complete with: the others were dead up to `as_of`.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: nothing is noted.
    pub(crate) fn narrow_aside(&mut self, segment: SegmentId, parts: PartSet, as_of: Lsn) -> Result<(), DiskFault> {
        let Some(before) = self.aside(segment) else { return Ok(()) };
        let parts = before.parts.without(before.parts.without(parts));
        if parts == before.parts {
            return Ok(());
        }
        let aside = Aside { parts, as_of: before.as_of.max(as_of), ..before.clone() };
        self.commit(vec![StoreWrite::Put(rows::aside_key(segment), aside.encode())], Durability::Lazy)?;
        self.asides.segments.insert(segment, aside);
        Ok(())
    }

    /// Takes back that parts were kept aside, where it cannot be told whether [`Index::keep_aside`] came through; the pack is empty.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: to be called again.
    pub(crate) fn give_up_aside(&mut self, lease: Lease, parts: &[Aside]) -> Result<(), DiskFault> {
        let segments: BTreeSet<SegmentId> = parts.iter().map(|part| part.segment).collect();
        let mut writes = vec![StoreWrite::Put(rows::pack_key(lease.segment), rows::encode_pack(lease.slot))];
        writes.extend(segments.into_iter().map(|segment| match self.aside(segment) {
            Some(aside) => StoreWrite::Put(rows::aside_key(segment), aside.encode()),
            None => StoreWrite::Delete(rows::aside_key(segment)),
        }));
        self.commit(writes, Durability::Durable)?;
        self.note_packs(&[lease]);
        Ok(())
    }

    /// Forgets all that is kept aside for a volume, and its resync; durable when it returns. Returns the packs in which nothing is any
    /// more: they are to be made void ([`crate::compact::Compactor::void_packs`]), before the catalogue's record of the resync goes
    /// and before the volume's log goes on.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or the log was joined.
    pub fn drop_asides(&mut self, volume: VolumeId) -> Result<Vec<SegmentId>, DiskFault> {
        if self.resync(volume).is_some_and(|resync| resync.joined.is_some()) {
            return Err(DiskFault::Io);
        }
        let dropped: Vec<Aside> = self.asides(volume).cloned().collect();
        let keys = dropped.iter().map(|aside| rows::aside_key(aside.segment)).chain([rows::resync_key(volume)]);
        let writes = keys.map(StoreWrite::Delete).collect();
        self.commit(writes, Durability::Durable)?;
        self.asides.resyncs.remove(&volume);
        let mut packs = BTreeSet::new();
        for aside in dropped {
            self.asides.segments.remove(&aside.segment);
            for place in aside.parcels.places() {
                self.parcels.remove(&(place.pack, aside.segment));
                packs.insert(place.pack);
            }
        }
        Ok(packs.into_iter().filter(|pack| self.is_empty_pack(*pack)).collect())
    }

    /// Makes all that is kept aside part of the log of a volume, which is then to be folded ([`crate::resync::fold`]); durable when it
    /// returns. `recovered` is what recovery has found of the log just now, and all that it asked for is done, durably;
    /// `listing` was told by the other site when it had sent all of it.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn join(&mut self, recovered: &Recovered, to: Lsn, listing: &Listing) -> Result<(), JoinError> {
        let volume = recovered.volume;
        let resync = self.resync(volume).filter(|resync| resync.joined.is_none()).ok_or(JoinError::NotBegun)?;
        let from = resync.from;
        let ends = |row: &SegmentRow| row.last_lsn.is_some_and(|last| last <= from);
        let is_there = recovered.next_lsn == from.next() && self.segments(volume).iter().all(ends);
        if !is_there || recovered.tail.is_some() || self.settled.contains_key(&volume) {
            return Err(JoinError::OtherEnd);
        }
        if !self.empty_packs().is_empty() {
            return Err(JoinError::NotVoid);
        }
        self.check_asides((volume, from, recovered.chain), to, listing)?;
        let next = recovered.map.generation();
        let is_behind = |boundary: &&Boundary| boundary.lsn > from && boundary.generation < next;
        if let Some(boundary) = listing.boundaries.iter().find(is_behind) {
            return Err(JoinError::Generation(boundary.generation));
        }
        let mut boundaries: Vec<Boundary> =
            listing.boundaries.iter().copied().filter(|boundary| boundary.lsn <= to).collect();
        boundaries.sort_by_key(|boundary| boundary.lsn);
        let joined = Resync { from, joined: Some(Joined { to, boundaries }) };
        let asides: Vec<Aside> = self.asides(volume).cloned().collect();
        let mut writes = vec![StoreWrite::Put(rows::resync_key(volume), joined.encode())];
        for aside in &asides {
            let value = rows::encode_segment(&aside.row(), Some(Live::default()), Some(&aside.survivors));
            writes.push(StoreWrite::Put(rows::segment_key(aside.segment), value));
            writes.push(StoreWrite::Delete(rows::aside_key(aside.segment)));
        }
        self.commit(writes, Durability::Durable).map_err(JoinError::Store)?;
        self.asides.resyncs.insert(volume, joined);
        for aside in asides {
            self.asides.segments.remove(&aside.segment);
            let row = aside.row();
            self.survivors.insert(aside.segment, Arc::new(aside.survivors));
            self.put_entry(Entry { row, live: Some(Live::default()) });
        }
        Ok(())
    }

    /// Whether what is kept aside is all there is up to `to`, and follows.
    fn check_asides(
        &self,
        (volume, from, chain): (VolumeId, Lsn, u32),
        to: Lsn,
        listing: &Listing,
    ) -> Result<(), JoinError> {
        let missing = |segment: &&SegmentId| self.aside(**segment).is_none_or(|aside| aside.whole.volume != volume);
        if let Some(segment) = listing.segments.iter().find(missing) {
            return Err(JoinError::Missing(*segment));
        }
        let (mut end, mut chain, mut as_of) = (from, chain, listing.as_of);
        for aside in self.asides(volume) {
            // What has left meanwhile was dead by then, what is missing of it too.
            if !aside.is_whole() && listing.segments.contains(&aside.segment) {
                return Err(JoinError::Missing(aside.segment));
            }
            let follows = aside.whole.first_lsn != end.next() || aside.whole.chain_before == chain;
            if aside.whole.first_lsn <= end || !follows {
                return Err(JoinError::Chain(aside.segment));
            }
            (end, chain, as_of) = (aside.whole.last_lsn, aside.whole.chain_after, as_of.max(aside.as_of));
        }
        if end != to || to <= from {
            return Err(JoinError::NoEnd);
        }
        if to < as_of && !is_missing(Safeguard::LateJoin) {
            return Err(JoinError::TooEarly(as_of));
        }
        Ok(())
    }

    /// What the stored map of a volume has to be brought to before it may be opened.
    #[must_use]
    pub fn joined(&self, volume: VolumeId) -> Option<&Joined> {
        self.resync(volume).and_then(|resync| resync.joined.as_ref())
    }

    /// The log of a volume that was joined is about to be replayed.
    pub(crate) fn begin_fold(&mut self, volume: VolumeId, to: Lsn) {
        self.found_ends.insert(volume, to);
    }

    /// The stored map has all that was joined.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed.
    pub(crate) fn end_resync(&mut self, volume: VolumeId) -> Result<(), DiskFault> {
        self.commit(vec![StoreWrite::Delete(rows::resync_key(volume))], Durability::Lazy)?;
        self.asides.resyncs.remove(&volume);
        Ok(())
    }

    /// Whether a resync of a volume is under way that is not joined: something may be kept aside for it.
    pub(super) fn is_receiving(&self, volume: VolumeId) -> bool {
        self.resync(volume).is_some_and(|resync| resync.joined.is_none())
    }

    /// A volume is forgotten.
    pub(super) fn forget_resync(&mut self, volume: VolumeId) {
        self.asides.resyncs.remove(&volume);
        self.peers.remove(&volume);
    }
}
