//! Which segments may leave the pool: no stored page names them, the stored map has all that they say, and their volume
//! needs them no more as a tail of its log.
//!
//! A segment with trims, or with a resize, which counts as one beyond the end, is kept until it is the volume's oldest: older
//! ones may hold what it trimmed, and a rebuild without the trim would bring that back; one of an heir is kept for ever, since
//! what it trimmed may be inherited, unless its trims were dropped as it was moved. The newest one on stable storage tells a rebuild the volume's size and where its log
//! goes on.
//!
//! What is kept for history's sake stays, and is not moved. While a peer lacks trims, they stay ([`Index::keep_for_peer`]).

use super::index::Entry;
use super::{Index, Parcels, SegmentRow};
use crate::controls::{Safeguard, is_missing};
use crate::error::DiskFault;
use crate::store::{Durability, Store};
use units::{Lsn, SegmentId, VolumeId};

/// What an open volume has no more use for as a tail of its log. Both ids only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// This segment and all older ones are folded, their footers are durable, and none before them was given up without
    /// its slot having gone back.
    pub up_to: SegmentId,
    /// The newest segment with an operation on stable storage.
    pub newest_durable: SegmentId,
}

/// How far a peer is that lacks what is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerBehind {
    /// It has this for certain, on stable storage.
    pub durable: Lsn,
    /// It may have this: the last operation that it was sent of the log as it was written. `durable <= sent`.
    pub sent: Lsn,
}

impl<S: Store> Index<S> {
    /// Notes what an open volume has no more use for.
    pub fn settle(&mut self, volume: VolumeId, settled: Settled) {
        self.settled.insert(volume, settled);
    }

    /// A volume is closed: nothing of it leaves until it has been opened again and has told anew.
    pub fn unsettle(&mut self, volume: VolumeId) {
        self.settled.remove(&volume);
    }

    /// The segments of `volume` that may leave now, oldest first.
    #[must_use]
    pub fn dead_segments(&self, volume: VolumeId) -> Vec<SegmentRow> {
        let Some(settled) = self.settled.get(&volume) else { return Vec::new() };
        let is_dead = |entry: &&Entry| {
            entry.live.is_some_and(|live| live.total() == 0)
                && self.is_folded(&entry.row)
                && entry.row.segment <= settled.up_to
                && entry.row.segment < settled.newest_durable
                && !self.is_history(&entry.row)
                && !self.is_wanted_by_peer(&entry.row)
                && !self.is_lent(entry.row.segment)
        };
        let range = (volume, SegmentId(0))..=(volume, settled.up_to);
        let with_holes = |entry: &&Entry| entry.row.has_holes;
        let oldest = self.owned.range(range.clone()).next().and_then(|(_, segment)| self.entry(*segment));
        let oldest = oldest.filter(|_| self.parent(volume).is_none());
        let unnamed = self.unnamed.range(range).filter_map(|(_, segment)| self.entry(*segment));
        // Behind the first that is kept, all are.
        let unnamed = unnamed.take_while(|entry| !self.is_history(&entry.row));
        oldest.filter(with_holes).into_iter().chain(unnamed).filter(is_dead).map(|entry| entry.row).collect()
    }

    /// Whether a segment is sealed and the stored map has all of it.
    pub(crate) fn is_folded(&self, row: &SegmentRow) -> bool {
        let folded_to = self.volume_row(row.volume).map_or(Lsn::ZERO, |row| row.folded_to);
        row.last_lsn.is_some_and(|last| last <= folded_to)
    }

    /// Whether a segment may be moved as far as its volume goes: that is open, and has no more use for the segment as a
    /// tail of its log; the stored map has all of it; it is not kept whole; and the place where it was before is void.
    #[must_use]
    pub fn may_move(&self, segment: SegmentId) -> bool {
        let Some(entry) = self.entry(segment) else { return false };
        entry.live.is_some()
            && !self.is_history(&entry.row)
            && !self.is_end_of_peer(&entry.row)
            && self.is_folded(&entry.row)
            && self.settled.get(&entry.row.volume).is_some_and(|settled| segment <= settled.up_to)
            && self.left_of(segment).is_none()
    }

    /// Whether the trims of a folded segment say nothing any more, so that they need not be kept when it is moved.
    ///
    /// That is so when no older segment holds, wherever a rebuild would look, what they took. Claim: it does not, when the
    /// volume never had a snapshot and inherits nothing, and every older segment lies in packs alone, with what the map
    /// named when it was complete to this segment's end or later. Proof: a volume without generations has one map. At a moment
    /// at or after the trim, that names for a block which the trim took nothing, or what was written after the trim, which
    /// is in this segment or a newer one. So no older segment had such a block among its survivors then, and nothing is
    /// ever added to them. A snapshot or a clone that is taken later begins with a map behind the trim. What was written to
    /// a pack and not taken into the index is void before anything is moved again. A rebuild does not see snapshots that were
    /// deleted with all that told of them: after one, nothing is claimed.
    #[must_use]
    pub fn has_spent_trims(&self, row: &SegmentRow) -> bool {
        let Some(last) = row.last_lsn else { return false };
        let has_one_map = self.volume_row(row.volume).is_some_and(|volume| volume.generation == 0);
        let is_clean = |older: SegmentId| {
            let is_clean = |parcels: &Parcels| parcels.places().all(|place| place.clean_lsn >= last);
            let home = self.entry(older).map(|entry| entry.row.home);
            home.is_some_and(|home| home.parcels().is_some_and(is_clean)) && self.left_of(older).is_none()
        };
        self.is_first
            && !self.keeps_trims(row)
            && has_one_map
            && self.parent(row.volume).is_none()
            && self
                .owned
                .range((row.volume, SegmentId(0))..(row.volume, row.segment))
                .all(|(_, older)| is_clean(*older))
    }

    /// Keeps what a peer needs that is behind, or may come to be: the trims of a volume behind what the peer has for certain, since its
    /// older segments still hold what these took, and it may be sent no more than what is left of the newer ones
    /// ([`crate::resync`]); and whole the segments that it may have a part of, and the next one, so that it can be fed to the
    /// end of them. Not stored: to be told at each start, before anything is compacted. With `None` nothing is kept any more.
    pub fn keep_for_peer(&mut self, volume: VolumeId, peer: Option<PeerBehind>) {
        match peer {
            Some(peer) => self.peers.insert(volume, peer),
            None => self.peers.remove(&volume),
        };
    }

    /// Whether trims of a segment are kept for a peer.
    pub(crate) fn keeps_trims(&self, row: &SegmentRow) -> bool {
        let peer = self.peers.get(&row.volume).filter(|_| !is_missing(Safeguard::KeptTrims));
        row.has_holes && peer.is_some_and(|peer| row.last_lsn.is_none_or(|last| last > peer.durable))
    }

    /// Whether a peer may have a part of a segment, or it is the next one.
    fn is_end_of_peer(&self, row: &SegmentRow) -> bool {
        let lacks = |peer: &PeerBehind| row.last_lsn.is_none_or(|last| last > peer.durable);
        self.peers.get(&row.volume).is_some_and(|peer| row.first_lsn <= peer.sent.next() && lacks(peer))
    }

    /// Whether a segment stays though nothing is live in it, since a peer needs it.
    fn is_wanted_by_peer(&self, row: &SegmentRow) -> bool {
        self.keeps_trims(row) || self.is_end_of_peer(row)
    }

    /// Whether a segment is sealed and its volume open, and it could be moved if only it were folded.
    pub(crate) fn is_sealed_of_open(&self, segment: SegmentId) -> bool {
        self.left_of(segment).is_none()
            && self
                .entry(segment)
                .is_some_and(|entry| entry.row.last_lsn.is_some() && self.settled.contains_key(&entry.row.volume))
    }

    /// Makes everything durable that has been written. What is dead is then dead after a power cut too: the store does not
    /// come back with a page that names it.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed.
    pub fn make_durable(&mut self) -> Result<(), DiskFault> {
        self.commit(vec![self.pool_row(&self.slots)], Durability::Durable)
    }
}
