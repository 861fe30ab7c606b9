//! The planned switch: the primary stops, the other site has all of its log, and the record says who is primary now.
//!
//! Until the witness is asked it can be called off. Once it was, and its answer is lost, the primary goes on as before with
//! the other site's acknowledgements: whichever of the two the record names, both hold what is acknowledged.

use super::Member;
use crate::evidence::Decision;
use crate::io::{Action, Command, DiskState, Why};
use crate::message::Body;
use crate::record::Record;
use crate::times::{HOLD, JOIN_LAG_MAX, SWITCH_ABORT};
use units::{Epoch, Monotonic};

/// A planned switch under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switch {
    since: Monotonic,
    /// The hand-over that was sent.
    handed: Option<u64>,
    /// The other site is ready, and the witness was asked.
    is_asked: bool,
}

impl Member {
    /// Goes on with a switch, or begins one. Says whether one is under way.
    pub(super) fn switch_on(&mut self, record: Record, actions: &mut Vec<Action>) -> bool {
        self.begin_switch(record, actions);
        let Some(switch) = self.lead.as_ref().and_then(|lead| lead.switch) else { return false };
        let is_late = self.now.since(switch.since) >= SWITCH_ABORT;
        let is_over = if switch.is_asked { !self.witness.is_waited_for() } else { is_late };
        if is_over {
            self.set_switch(None);
            self.tell(Decision::CallOff, actions);
            return false;
        }
        self.freeze(Why::Switching, actions);
        let end = self.log.end;
        let is_there = self.log.peer.is_some_and(|ack| ack.epoch == record.epoch && ack.appended >= end.lsn);
        if switch.handed.is_none() && self.has_taken_on() && is_there {
            let number = self.send(Body::HandOver { end }, actions);
            self.set_switch(Some(Switch { handed: Some(number), ..switch }));
        }
        true
    }

    fn set_switch(&mut self, switch: Option<Switch>) {
        let now = self.now;
        if let Some(lead) = &mut self.lead {
            lead.switch = switch;
            lead.unanswered_since = now;
        }
    }

    fn begin_switch(&mut self, record: Record, actions: &mut Vec<Action>) {
        let is_asked = self.command.is_some_and(|(command, _)| command == Command::Switch);
        let is_due = self.is_disk_bad() && self.lead.as_ref().is_some_and(|lead| lead.wants_switch(self.now));
        if !is_asked && !is_due || self.lead.as_ref().is_some_and(|lead| lead.switch.is_some()) {
            return;
        }
        if !self.may_switch(record) {
            if is_asked {
                self.refuse(Command::Switch, actions);
            }
            return;
        }
        self.command = None;
        let now = self.now;
        let Some(lead) = &mut self.lead else { return };
        lead.switch = Some(Switch { since: now, handed: None, is_asked: false });
        lead.switched_at = Some(now);
        // What was asked before the hand-over is worth nothing from now on.
        lead.lease.end();
        self.tell(Decision::Begin(Command::Switch), actions);
    }

    /// In sync and nearly equal, and the witness answers.
    fn may_switch(&self, record: Record) -> bool {
        let end = self.log.end.lsn.0;
        let is_near = self
            .log
            .peer
            .is_some_and(|ack| ack.epoch == record.epoch && end.saturating_sub(ack.appended.0) <= JOIN_LAG_MAX);
        record.partner.is_some()
            && self.counts_peer()
            && is_near
            && self.peer.is_heard(self.now)
            && self.peer.disk == DiskState::Good
            && self.witness.is_ready()
            && self.is_witness_heard()
    }

    /// The other site is durable up to the end: the role is its.
    pub(super) fn on_ready(&mut self, of: u64, actions: &mut Vec<Action>) {
        let Some(record) = self.record() else { return };
        let Some(switch) = self.lead.as_ref().and_then(|lead| lead.switch) else { return };
        if switch.handed != Some(of) || switch.is_asked || self.witness.known.map(|seen| seen.record) != Some(record) {
            return;
        }
        let next = Record {
            epoch: Epoch(record.epoch.0 + 1),
            primary: self.config.peer,
            partner: Some(self.config.me),
            is_sole: false,
            fork: None,
            ..record
        };
        if self.swap(next, actions) {
            self.set_switch(Some(Switch { is_asked: true, ..switch }));
        }
    }
}

impl super::primary::Lead {
    /// Whether a switch that is due may be tried: not again at once.
    fn wants_switch(&self, now: Monotonic) -> bool {
        self.switched_at.is_none_or(|at| now.since(at) >= HOLD)
    }
}
