//! Nexuses: the initiators that use a unit, and what each is to be told.

use super::LogicalUnit;
use super::task::Outcome;
use crate::listener::Attachment;
use crate::shard::ShardHandle;
use proto::scsi::{Nexus, Sense};
use std::collections::VecDeque;
use std::sync::Arc;

/// Most unit attentions that wait for an initiator: what comes beyond is told by those.
const ATTENTIONS_MAX: usize = 8;

/// A session, by a number that is never used again while the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionKey(pub(crate) u64);

/// Where a session lives.
#[derive(Debug, Clone)]
pub(crate) enum Home {
    /// On the unit's own shard.
    Here,
    /// On this one.
    Elsewhere(ShardHandle),
}

/// An initiator that comes to a unit.
#[derive(Debug)]
pub(crate) struct NewNexus {
    pub(crate) session: SessionKey,
    pub(crate) nexus: Nexus,
    /// The target's iSCSI name.
    pub(crate) target: Arc<str>,
    pub(crate) home: Home,
    /// Counts it among the volume's clients.
    pub(crate) attachment: Attachment,
}

#[derive(Debug)]
pub(super) struct NexusState {
    pub(super) nexus: Nexus,
    pub(super) target: Arc<str>,
    pub(super) home: Home,
    pub(super) attentions: VecDeque<Sense>,
    /// Whether it wants the medium to stay. Ours always does.
    pub(super) is_preventing: bool,
    #[expect(dead_code, reason = "kept for its drop")]
    attachment: Attachment,
}

impl NexusState {
    fn attend(&mut self, sense: Sense) {
        if !self.attentions.contains(&sense) && self.attentions.len() < ATTENTIONS_MAX {
            self.attentions.push_back(sense);
        }
    }
}

impl LogicalUnit {
    /// Takes a nexus in. Its first command is answered with what a power on is told by: the initiator knows nothing of this unit.
    pub(crate) fn attach(&mut self, new: NewNexus) {
        let NewNexus { session, nexus, target, home, attachment } = new;
        let attentions = VecDeque::from([Sense::POWER_ON]);
        let state = NexusState { nexus, target, home, attentions, is_preventing: false, attachment };
        self.nexuses.insert(session, state);
    }

    /// Forgets a nexus; whether it was there. What it reserved by RESERVE(6) is free. SPC-2 5.5.1.
    pub(crate) fn detach(&mut self, session: SessionKey) -> bool {
        let Some(state) = self.nexuses.remove(&session) else { return false };
        self.reservations.forget_legacy(&state.nexus);
        true
    }

    /// Whether two sessions are of one target.
    pub(crate) fn have_one_target(&self, one: SessionKey, other: SessionKey) -> bool {
        let target = |session| self.nexuses.get(&session).map(|state| &state.target);
        target(one) == target(other)
    }

    /// The sessions that are attached.
    pub(crate) fn sessions(&self) -> Vec<SessionKey> {
        self.nexuses.keys().copied().collect()
    }

    pub(crate) fn home_of(&self, session: SessionKey) -> Option<Home> {
        self.nexuses.get(&session).map(|state| state.home.clone())
    }

    /// The sessions of a nexus: there is one at most, but for a moment while another replaces it.
    pub(super) fn sessions_of(&self, nexus: &Nexus) -> Vec<SessionKey> {
        self.nexuses.iter().filter(|(_, state)| state.nexus == *nexus).map(|(key, _)| *key).collect()
    }

    /// Has every initiator told, but for the one who caused it.
    pub(crate) fn broadcast(&mut self, by: Option<SessionKey>, sense: Sense) {
        for (session, state) in &mut self.nexuses {
            if Some(*session) != by {
                state.attend(sense);
            }
        }
    }

    /// Has the initiator of a session told.
    pub(crate) fn attend(&mut self, session: SessionKey, sense: Sense) {
        if let Some(state) = self.nexuses.get_mut(&session) {
            state.attend(sense);
        }
    }

    /// Has the initiator of a nexus told.
    pub(super) fn attend_nexus(&mut self, nexus: &Nexus, sense: Sense) {
        self.nexuses.values_mut().filter(|state| state.nexus == *nexus).for_each(|state| state.attend(sense));
    }

    /// A command's end with an error that the initiator is to look at.
    pub(crate) fn check(&self, sense: &Sense) -> Outcome {
        Outcome::checked(sense.encode(self.mode.descriptor_sense))
    }
}
