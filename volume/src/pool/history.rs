//! History: from some operation on the log of a volume is kept whole, with what no page names any more, so that the volume
//! can be made again as it was at any moment since ([`crate::history`]).
//!
//! From where on the catalogue's records tell, durably; the index is told of it before anything may leave or move. A segment
//! with an operation behind that neither leaves nor moves.

use super::{Index, ScrubTarget, SegmentRow};
use crate::store::Store;
use std::collections::BTreeMap;
use units::{Lsn, SegmentId, VolumeId};

impl<S: Store> Index<S> {
    /// Keeps from now on all that comes to the log of `volume`, until [`Index::end_beginning`]. One volume at a time.
    pub fn begin_history(&mut self, volume: VolumeId) {
        // What is not folded neither leaves nor moves, and what history begins with is not folded yet.
        let folded_to = self.volume_row(volume).map_or(Lsn::ZERO, |row| row.folded_to);
        self.beginning = Some((volume, folded_to));
    }

    /// History that was begun is among what [`Index::keep_history`] is told next, or is not to be.
    pub fn end_beginning(&mut self) {
        self.beginning = None;
    }

    /// Takes what the catalogue says for the truth: of these volumes the operations behind those are kept, of others
    /// none. Returns the volumes of which less is kept than before. A volume without segments has nothing to keep.
    pub fn keep_history(&mut self, history: &BTreeMap<VolumeId, Lsn>) -> Vec<VolumeId> {
        let kept = history.iter().filter(|(volume, _)| self.entries_of(**volume).next().is_some());
        let kept = kept.map(|(volume, from)| (*volume, *from)).collect();
        let before = std::mem::replace(&mut self.history, kept);
        let has_less = |(volume, from): &(VolumeId, Lsn)| self.history.get(volume).is_none_or(|now| now > from);
        before.into_iter().filter(has_less).map(|(volume, _)| volume).collect()
    }

    /// Whether anything is kept for history's sake.
    #[must_use]
    pub fn has_history(&self) -> bool {
        !self.history.is_empty()
    }

    /// Whether a segment is kept whole.
    pub(super) fn is_history(&self, row: &SegmentRow) -> bool {
        let begun = self.beginning.filter(|(volume, _)| *volume == row.volume).map(|(_, from)| from);
        let from = self.history.get(&row.volume).copied().into_iter().chain(begun).min();
        from.is_some_and(|from| row.last_lsn.is_none_or(|last| last > from))
    }

    /// The segments with operations behind `from`, oldest first, as they are to be read.
    #[must_use]
    pub fn history_targets(&self, volume: VolumeId, from: Lsn) -> Vec<ScrubTarget> {
        let rows = self.segments(volume).into_iter().filter(|row| row.last_lsn.is_none_or(|last| last > from));
        rows.filter_map(|row| self.scrub_target(row.segment)).collect()
    }

    /// Blocks that are kept and that no page names: of whole slots, once they are folded.
    #[must_use]
    pub fn history_blocks(&self, volume: VolumeId) -> u64 {
        let folded_to = self.volume_row(volume).map_or(Lsn::ZERO, |row| row.folded_to);
        let slot_blocks = u64::from(self.superblock().geometry.slot_blocks());
        let newest_first = self.owned.range((volume, SegmentId(0))..=(volume, SegmentId::MAX)).rev();
        let entries = newest_first.filter_map(|(_, segment)| self.entry(*segment));
        let kept = entries.take_while(|entry| self.is_history(&entry.row));
        let is_counted = |row: &SegmentRow| !row.is_moved() && row.last_lsn.is_some_and(|last| last <= folded_to);
        let counted = kept.filter(|entry| is_counted(&entry.row)).filter_map(|entry| entry.live);
        counted.map(|live| slot_blocks.saturating_sub(live.total())).sum()
    }
}
