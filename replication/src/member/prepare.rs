//! A site of which the record says that it is primary, and that does not lead yet: it has restarted, or was given the role.
//!
//! It leads only in an epoch in which it has written nothing, and only with a log that has all that was acknowledged. Who may
//! have lost part of its log in a power cut compares with the other site; the one with the longer log leads.

use super::{Member, Policy};
use crate::controls::{Safeguard, is_missing};
use crate::evidence::Decision;
use crate::io::{Action, Command, Why};
use crate::record::Record;
use units::Epoch;

impl Member {
    pub(super) fn settle_primary(&mut self, actions: &mut Vec<Action>) {
        let Some(record) = self.record() else { return };
        self.secondary.forget_alignment();
        if self.command.is_some_and(|(command, _)| command == Command::Force) {
            // The operator answers for what this log may lack.
            self.command = None;
            self.is_forced = true;
            self.is_certain = true;
        }
        if self.lead.is_some() {
            return self.lead_on(record, actions);
        }
        if !self.is_certain && self.has_compared() || is_missing(Safeguard::Comparison) {
            self.is_certain = true;
        }
        let is_fresh = self.is_fresh || is_missing(Safeguard::FreshEpoch);
        if is_fresh && self.is_certain {
            self.begin_lead(record, actions);
            return self.lead_on(record, actions);
        }
        self.prepare(record, actions);
    }

    /// Whether the other site's log, as of now, has nothing that this one lacks.
    fn has_compared(&self) -> bool {
        self.peer.is_heard(self.now) && self.peer.end <= self.log.end
    }

    /// Whether the other site's log has more.
    fn is_behind(&self) -> bool {
        self.peer.is_heard(self.now) && self.peer.end > self.log.end && !is_missing(Safeguard::Comparison)
    }

    fn prepare(&mut self, record: Record, actions: &mut Vec<Action>) {
        // The record of before the start, by which this site is alone: its log is all there is.
        let is_all_there_is = record.partner.is_none() && !self.is_fresh;
        let is_uncertain = !self.is_certain && !is_all_there_is;
        let is_heard = self.peer.is_heard(self.now);
        let why = match (self.witness.has_gone_back, is_uncertain && !is_heard) {
            (true, _) => Why::RolledBack,
            (false, true) => Why::Uncertain,
            (false, false) => Why::Preparing,
        };
        self.freeze(why, actions);
        if self.rebuild(record, actions) || !self.witness.is_ready() || is_uncertain && !is_heard {
            return;
        }
        if let Some(next) = self.next_to_lead(record, is_all_there_is) {
            if !self.is_certain && next.primary == self.config.me {
                self.sole_bump = Some(next);
            }
            self.swap(next, actions);
        }
    }

    /// The record by which this site or the other one may lead.
    fn next_to_lead(&self, record: Record, is_all_there_is: bool) -> Option<Record> {
        let epoch = Epoch(record.epoch.0 + 1);
        if self.is_behind() && !is_all_there_is {
            let fork = Some(self.peer.end.into());
            return Some(Record { epoch, primary: self.config.peer, partner: None, is_sole: false, fork, ..record });
        }
        let has_partner = record.partner.is_some() && !record.is_sole;
        if has_partner && self.peer.is_lost(self.now) {
            let may_go_alone = self.config.policy == Policy::Available || self.is_forced;
            return may_go_alone.then_some(Record { epoch, partner: None, ..record });
        }
        if has_partner && !self.peer.is_heard(self.now) {
            return None;
        }
        Some(Record { epoch, ..record })
    }

    /// S8. Writes the record anew on the operator's word. Says whether that is what is to be done now.
    pub(super) fn rebuild(&mut self, record: Record, actions: &mut Vec<Action>) -> bool {
        let Some((command @ Command::Rebuild { without_peer }, _)) = self.command else { return false };
        if self.witness.is_undecided() {
            return true;
        }
        let knows_peer = self.peer.is_heard(self.now) && self.peer.epoch <= self.epoch();
        if !self.witness.has_gone_back || !knows_peer && !without_peer {
            self.refuse(command, actions);
            return false;
        }
        // Epochs that the other site may know of, and this one does not, are passed over.
        let step = if knows_peer { 1 } else { EPOCHS_PASSED_OVER };
        let next = Record { epoch: Epoch(record.epoch.0 + step), lineage: record.lineage + 1, ..record };
        let expected = self.witness.latest_revision();
        if self.swap_at(expected, next, actions) {
            self.command = None;
            self.tell(Decision::Begin(command), actions);
        }
        true
    }
}

/// How many epochs a witness that is made anew without the other site leaves out.
pub(super) const EPOCHS_PASSED_OVER: u64 = 1 << 20;
