//! Slots that volumes keep for what they may write some day: when slots are few, those that rest are asked to seal their open
//! segments, as the daemon's store thread asks them, and a lease waits for what that may give.

use super::{MS, TICK, World};
use crate::census::Fault;
use std::collections::BTreeSet;
use units::{SegmentId, VolumeId};
use volume::compact::Urgency;
use volume::io::Event;

/// How long a lease waits for what was asked for.
const PATIENCE: u64 = 3 * TICK;

/// How soon the same ones are asked again.
const AGAIN: u64 = 50 * MS;

/// Fewer sealed segments give no slot back.
const SEGMENTS_MIN: usize = 2;

/// Who was asked.
#[derive(Debug, Default)]
pub(super) struct Sealing {
    asked: BTreeSet<SegmentId>,
    again_at: u64,
    gives_until: u64,
}

impl World {
    /// Whether slots may become free soon.
    pub(super) fn may_gain_slots(&mut self, asker: usize) -> bool {
        if self.is_freeing() {
            return true;
        }
        self.ask_to_seal(Some(self.sites[asker].id));
        self.now < self.sealing.gives_until
    }

    /// Asks volumes that rest for what they keep, while slots are few.
    pub(super) fn tick_sealing(&mut self) {
        let urgency = self.index.as_ref().map(|index| self.compaction.compactor.urgency(index));
        if urgency == Some(Urgency::Short) {
            self.ask_to_seal(None);
        }
    }

    fn ask_to_seal(&mut self, asker: Option<VolumeId>) {
        let Some(index) = &self.index else { return };
        let open: Vec<_> = index.open_segments().filter(|(volume, _)| Some(*volume) != asker).collect();
        let sealing = &mut self.sealing;
        let new = open.iter().filter(|(_, segment)| !sealing.asked.contains(segment)).count();
        if new >= SEGMENTS_MIN {
            sealing.gives_until = self.now + PATIENCE;
        }
        if open.len() < SEGMENTS_MIN || (new == 0 && self.now < sealing.again_at) {
            return;
        }
        sealing.again_at = self.now + AGAIN;
        sealing.asked = open.iter().map(|(_, segment)| *segment).collect();
        self.note(Fault::SlotsFew);
        let is_asked = |at: &usize| {
            let site = &self.sites[*at];
            site.volume.is_some() && open.iter().any(|(volume, _)| *volume == site.id)
        };
        let asked: Vec<usize> = (0..self.sites.len()).filter(is_asked).collect();
        asked.into_iter().for_each(|at| self.answer_later(at, Event::SlotsFew));
    }
}
