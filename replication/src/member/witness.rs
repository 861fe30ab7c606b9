//! What the witness is asked, and what its answers teach.

use super::Member;
use crate::controls::{Safeguard, is_missing};
use crate::evidence::Decision;
use crate::io::{Action, AskId, Asked, ReadAnswer, Seen, SwapAnswer};
use crate::record::{Record, Revision};
use crate::times::{WITNESS_LOOK, WITNESS_PATIENCE, WITNESS_RETRY};
use units::{Epoch, Monotonic};

/// Most different changes that may be on their way at one revision. There are fewer kinds.
const MAY_LAND_MAX: usize = 16;

/// What a site knows of the witness.
#[derive(Debug)]
pub(super) struct Witness {
    /// The newest committed record that this site has heard of, from the witness or the other site.
    pub(super) known: Option<Seen>,
    /// When the witness last answered anything.
    pub(super) answered_at: Monotonic,
    /// The last answer to a read, and when that was asked.
    pub(super) latest: Option<(Monotonic, ReadAnswer)>,
    /// S8. The witness knows less than this site has promised.
    pub(super) has_gone_back: bool,
    /// Changes at the known revision that were asked for and may yet come into force.
    may_land: Vec<(AskId, Record)>,
    /// The change that is waited for.
    pub(super) swapping: Option<Asked>,
    /// Since when the outcome of a change is not known: S4, a read must tell before there is another one.
    unresolved_since: Option<Monotonic>,
    reading: Option<Asked>,
    read_at: Option<Monotonic>,
    last_id: u64,
}

impl Witness {
    pub(super) const fn new(known: Option<Seen>, now: Monotonic) -> Self {
        Self {
            known,
            answered_at: now,
            latest: None,
            has_gone_back: false,
            may_land: Vec::new(),
            swapping: None,
            unresolved_since: None,
            reading: None,
            read_at: None,
            last_id: 0,
        }
    }

    /// Records that are not in force, as far as is known, and may yet be.
    pub(super) fn may_land(&self) -> impl Iterator<Item = &Record> {
        self.may_land.iter().map(|(_, record)| record)
    }

    /// Whether a change may be asked for: none is waited for, and what became of the last one is known.
    pub(super) const fn is_ready(&self) -> bool {
        self.swapping.is_none() && self.unresolved_since.is_none() && !self.has_gone_back
    }

    /// Whether the outcome of a change is not known yet.
    pub(super) const fn is_undecided(&self) -> bool {
        self.swapping.is_some() || self.unresolved_since.is_some()
    }

    /// Whether the last read, not long ago, found a frail witness.
    pub(super) fn is_frail(&self, now: Monotonic) -> Option<bool> {
        let (at, ReadAnswer::Found { is_frail, .. }) = self.latest? else { return None };
        (now.since(at) < WITNESS_LOOK * 2).then_some(is_frail)
    }

    /// Whether a read that was asked at `moment` or later has told the record that is known.
    pub(super) fn has_told_since(&self, moment: Monotonic) -> bool {
        let Some((at, ReadAnswer::Found { seen, .. })) = self.latest else { return false };
        at >= moment && self.known.is_some_and(|known| known.record == seen.record)
    }

    /// Whether nothing that was asked for may yet come into force.
    pub(super) fn is_settled(&self) -> bool {
        self.may_land.is_empty() && !self.is_undecided() && !self.has_gone_back
    }

    /// Whether the answer to a change is waited for.
    pub(super) const fn is_waited_for(&self) -> bool {
        self.swapping.is_some()
    }

    /// The revision of what the last read found.
    pub(super) const fn latest_revision(&self) -> Option<Revision> {
        match self.latest {
            Some((_, ReadAnswer::Found { seen, .. })) => Some(seen.revision),
            Some((_, ReadAnswer::Nothing | ReadAnswer::Unreachable)) | None => None,
        }
    }

    /// Whether it has said that there is no record.
    pub(super) const fn is_empty(&self) -> bool {
        matches!(self.latest, Some((_, ReadAnswer::Nothing)))
    }

    const fn next_id(&mut self) -> AskId {
        self.last_id += 1;
        AskId(self.last_id)
    }
}

impl Member {
    /// Reads the record when it is time, and gives up on answers that do not come.
    pub(super) fn ask_witness(&mut self, actions: &mut Vec<Action>) {
        let now = self.now;
        let is_late = |asked: &Asked| now.since(asked.at) >= WITNESS_PATIENCE;
        if let Some(asked) = self.witness.swapping.filter(is_late) {
            self.on_swapped(asked.id, SwapAnswer::Unknown, actions);
        }
        if self.witness.reading.filter(is_late).is_some() {
            self.witness.reading = None;
        }
        let is_waited_for = self.witness.known.is_none()
            || self.witness.unresolved_since.is_some()
            || self.lead.is_none() && !self.is_following();
        let every = if is_waited_for { WITNESS_RETRY } else { WITNESS_LOOK };
        let is_due = self.witness.read_at.is_none_or(|at| now.since(at) >= every);
        if self.witness.reading.is_none() && is_due {
            let id = self.witness.next_id();
            self.witness.reading = Some(Asked { id, at: now, promised: self.epoch() });
            self.witness.read_at = Some(now);
            actions.push(Action::ReadWitness { id });
        }
    }

    /// Has the witness read at the next look.
    pub(super) const fn look_now(&mut self) {
        self.witness.read_at = None;
    }

    pub(super) fn on_read(&mut self, id: AskId, answer: ReadAnswer, actions: &mut Vec<Action>) {
        let asked = self.witness.reading.take_if(|asked| asked.id == id);
        let record_epoch = match answer {
            ReadAnswer::Unreachable => return,
            ReadAnswer::Nothing => Epoch(0),
            ReadAnswer::Found { seen, .. } => seen.record.epoch,
        };
        self.witness.answered_at = self.now;
        if let ReadAnswer::Found { seen, .. } = answer {
            self.learn(seen);
        }
        // A late answer teaches what it says, and proves nothing of now.
        let Some(asked) = asked else { return };
        self.witness.latest = Some((asked.at, answer));
        self.judge_rollback(record_epoch < asked.promised, answer, actions);
        if self.witness.unresolved_since.is_some_and(|since| asked.at >= since) {
            self.witness.unresolved_since = None;
        }
    }

    /// S8. What was promised was once committed: a witness that knows less has been restored from a backup.
    fn judge_rollback(&mut self, has_gone_back: bool, answer: ReadAnswer, actions: &mut Vec<Action>) {
        if has_gone_back && is_missing(Safeguard::RolledBack) {
            if let ReadAnswer::Found { seen, .. } = answer {
                self.witness.known = Some(seen);
                self.promise.seen = Some(seen);
                self.is_fresh = true;
                self.lead = None;
                self.secondary.forget_alignment();
            }
            return;
        }
        if has_gone_back && !self.witness.has_gone_back {
            self.tell(Decision::RolledBack, actions);
        }
        self.witness.has_gone_back = has_gone_back;
    }

    pub(super) fn on_swapped(&mut self, id: AskId, answer: SwapAnswer, actions: &mut Vec<Action>) {
        let was_waited_for = self.witness.swapping.take_if(|asked| asked.id == id).is_some();
        let record = self.witness.may_land.iter().find(|(asked, _)| *asked == id).map(|(_, record)| *record);
        match answer {
            SwapAnswer::Won { revision } => {
                self.witness.answered_at = self.now;
                if let Some(record) = record {
                    self.learn(Seen { revision, record });
                }
            }
            SwapAnswer::Lost { found } => {
                self.witness.answered_at = self.now;
                self.witness.may_land.retain(|(asked, _)| *asked != id);
                if let Some(found) = found {
                    self.learn(found);
                }
                if was_waited_for {
                    self.leave_unresolved();
                }
            }
            SwapAnswer::Unknown => {
                if let Some(record) = record.filter(|_| was_waited_for) {
                    self.on_unknown(record, actions);
                }
            }
        }
    }

    /// S4. Nothing is decided by a change of which the outcome is not known, until a read has told.
    fn on_unknown(&mut self, record: Record, actions: &mut Vec<Action>) {
        self.tell(Decision::Unknown(record), actions);
        if is_missing(Safeguard::UnknownIsNotWon) {
            let revision = self.witness.known.map_or(0, |known| known.revision.0) + 1;
            self.learn(Seen { revision: Revision(revision), record });
            return;
        }
        self.leave_unresolved();
    }

    fn leave_unresolved(&mut self) {
        self.witness.unresolved_since = Some(self.now);
        self.look_now();
    }

    /// Takes in a record that is committed. Records are ordered by their epochs, since every change raises that.
    pub(super) fn learn(&mut self, seen: Seen) {
        let known = self.witness.known.map_or(Epoch(0), |known| known.record.epoch);
        if seen.record.epoch < known || seen.record.epoch < self.epoch() {
            return;
        }
        if seen.record.epoch == known {
            if self.witness.known.is_some_and(|known| known.record == seen.record) {
                self.witness.known = Some(seen);
            }
            return;
        }
        self.witness.known = Some(seen);
        // What was asked for at an older revision never comes into force now.
        self.witness.may_land.clear();
        self.witness.swapping = None;
        self.witness.unresolved_since = None;
        self.peer.is_news_due = true;
        if self.witness.has_gone_back {
            self.look_now();
        }
        self.on_learned(seen.record);
    }

    /// Asks for `record` in place of the known one. Says whether it was asked for.
    pub(super) fn swap(&mut self, record: Record, actions: &mut Vec<Action>) -> bool {
        let expected = self.witness.known.map(|known| known.revision);
        self.witness.is_ready() && self.swap_at(expected, record, actions)
    }

    pub(super) fn swap_at(&mut self, expected: Option<Revision>, record: Record, actions: &mut Vec<Action>) -> bool {
        self.witness.may_land.retain(|(_, asked)| *asked != record);
        if self.witness.may_land.len() >= MAY_LAND_MAX {
            return false;
        }
        let id = self.witness.next_id();
        self.witness.may_land.push((id, record));
        self.witness.swapping = Some(Asked { id, at: self.now, promised: self.epoch() });
        self.tell(Decision::Ask(record), actions);
        actions.push(Action::Swap { id, expected, record });
        true
    }
}
