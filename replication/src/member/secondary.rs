//! A site of which the record says that the other one is primary: it finds where its log parts from that one's, follows it,
//! and takes over when it is lost.

use super::prepare::EPOCHS_PASSED_OVER;
use super::{Member, Policy};
use crate::controls::{Safeguard, is_missing};
use crate::evidence::Decision;
use crate::io::{Action, Command, Role, Why};
use crate::message::Body;
use crate::position::Position;
use crate::record::Record;
use crate::times::{LEASE_GIVEN, PREFERENCE, SILENCE};
use std::time::Duration;
use units::{Epoch, Lsn, Monotonic};

/// What a site knows as secondary.
#[derive(Debug)]
pub(super) struct Secondary {
    /// The epoch in which the log is known to be a part of the primary's.
    aligned: Option<Epoch>,
    /// The role, by its number, in which that was last asked for.
    asked: Option<u64>,
    /// S5. Until when this site has given its word not to take over.
    pub(super) word_until: Monotonic,
    /// The heartbeat that it last gave it to.
    word_number: u64,
    /// The end of the primary's log when that had heard of this life: who has all up to here has all that was acknowledged.
    primary_end: Option<Lsn>,
    /// The hand-over that is waited for, and its end.
    hand_over: Option<(u64, Position)>,
    taking: Option<Taking>,
}

/// A takeover under way.
#[derive(Debug, Clone, Copy)]
struct Taking {
    since: Monotonic,
    is_forced: bool,
}

impl Secondary {
    pub(super) fn new(now: Monotonic) -> Self {
        Self {
            aligned: None,
            asked: None,
            // An earlier life may have given its word just before it ended.
            word_until: now.plus(LEASE_GIVEN),
            word_number: 0,
            primary_end: None,
            hand_over: None,
            taking: None,
        }
    }

    pub(super) fn forget_alignment(&mut self) {
        self.aligned = None;
        self.primary_end = None;
        self.hand_over = None;
        self.taking = None;
    }

    /// The logs are to be compared again.
    pub(super) const fn align_anew(&mut self) {
        self.aligned = None;
        self.asked = None;
    }

    pub(super) const fn is_taking_over(&self) -> bool {
        self.taking.is_some()
    }

    /// An operator's takeover that could not be begun in time.
    pub(super) const fn give_up_force(&mut self) {
        self.taking = None;
    }

    pub(super) fn give_word(&mut self, number: u64, until: Monotonic) {
        self.word_until = until;
        self.word_number = self.word_number.max(number);
    }

    pub(super) fn on_primary_end(&mut self, end: Lsn) {
        self.primary_end.get_or_insert(end);
    }

    pub(super) const fn on_hand_over(&mut self, number: u64, end: Position) {
        self.hand_over = Some((number, end));
        // The primary reads no more by any word that it asked for before.
        if number > self.word_number {
            self.word_until = Monotonic(0);
        }
    }
}

impl Member {
    /// The end of the primary's log, which hands its role over and waits until that is durable here.
    #[must_use]
    pub fn hand_over(&self) -> Option<Position> {
        self.secondary.hand_over.map(|(_, at)| at)
    }

    pub(super) const fn is_following(&self) -> bool {
        matches!(self.role, Role::Follow { .. })
    }

    pub(super) fn settle_secondary(&mut self, actions: &mut Vec<Action>) {
        self.lead = None;
        let Some(record) = self.record() else { return };
        if self.rebuild_alone(record, actions) {
            return;
        }
        self.begin_takeover(record);
        if self.secondary.taking.is_some() {
            return self.take_over(record, actions);
        }
        let epoch = record.epoch;
        if self.has_taken_on() && matches!(self.role, Role::SealAndCut { .. }) {
            self.secondary.aligned = Some(epoch);
        }
        if self.secondary.aligned == Some(epoch) {
            self.set_role(Role::Follow { epoch, primary: record.primary }, actions);
            self.follow(actions);
        } else if !matches!(self.role, Role::SealAndCut { .. }) {
            if self.role != (Role::Freeze { why: Why::Aligning }) {
                self.peer.is_news_due = true;
            }
            self.freeze(Why::Aligning, actions);
        }
    }

    pub(super) fn is_aligning(&self) -> bool {
        self.role == Role::Freeze { why: Why::Aligning } && self.has_taken_on()
    }

    /// Whether it is to be asked for the first time where the logs part.
    pub(super) fn wants_alignment(&self) -> bool {
        self.is_aligning() && self.secondary.asked != Some(self.role_number)
    }

    /// Asks where the logs part, once nothing is appended any more.
    pub(super) fn ask_alignment(&mut self, actions: &mut Vec<Action>) {
        if self.is_aligning() {
            self.secondary.asked = Some(self.role_number);
            actions.push(Action::Align { number: self.role_number, epoch: self.epoch() });
        }
    }

    /// The primary says where. What lies behind is a branch: nobody acknowledged it, unless an operator forced a failover.
    pub(super) fn on_aligned(&mut self, number: u64, common: Lsn, actions: &mut Vec<Action>) {
        if !self.is_aligning() || number != self.role_number {
            return;
        }
        let end = self.log.end;
        if common < end.lsn {
            self.tell(Decision::Branch { from: common, to: end }, actions);
            actions.push(Action::KeepBranch { from: common, to: end });
            self.set_role(Role::SealAndCut { to: common }, actions);
        } else {
            self.secondary.aligned = Some(self.epoch());
        }
    }

    fn follow(&mut self, actions: &mut Vec<Action>) {
        if !self.has_taken_on() {
            return;
        }
        let end = self.log.end;
        if self.secondary.primary_end.is_some_and(|primary| end.lsn >= primary) {
            self.is_certain = true;
        }
        // What the primary gave up since its disk failed it may be here as well: it was never acknowledged, and does no harm.
        let is_ready = |(_, at): &(u64, Position)| self.log.handed == Some(*at) && self.log.durable >= end.lsn;
        if let Some((of, _)) = self.secondary.hand_over.take_if(|hand_over| is_ready(hand_over)) {
            self.send(Body::Ready { of }, actions);
        }
    }

    /// S3. Whether this site has all that was acknowledged, and may say so by itself.
    fn is_eligible(&self, record: Record) -> bool {
        let is_heir = record.partner == Some(self.config.me) && !record.is_sole;
        let is_certain = self.is_certain || is_missing(Safeguard::Comparison);
        self.config.policy == Policy::Available && is_certain && is_heir || is_missing(Safeguard::Eligible)
    }

    /// S8. An operator has this site lead with a witness that has gone back, since the primary is lost. Says whether that is
    /// under way. What only a primary can do is refused here.
    fn rebuild_alone(&mut self, record: Record, actions: &mut Vec<Action>) -> bool {
        let Some((command, _)) = self.command else { return false };
        let may_be = match command {
            Command::Rebuild { without_peer } => {
                without_peer && self.witness.has_gone_back && self.peer.is_lost(self.now)
            }
            Command::Force => return false,
            Command::Found | Command::Switch | Command::Reads(_) => false,
        };
        if !may_be {
            self.refuse(command, actions);
            return false;
        }
        self.freeze(Why::TakingOver, actions);
        if !self.has_taken_on() || self.witness.is_undecided() {
            return true;
        }
        let next = Record {
            epoch: Epoch(record.epoch.0 + EPOCHS_PASSED_OVER),
            primary: self.config.me,
            partner: None,
            is_sole: false,
            lineage: record.lineage + 1,
            fork: Some(self.log.end.into()),
        };
        let expected = self.witness.latest_revision();
        if self.swap_at(expected, next, actions) {
            self.tell(Decision::Begin(command), actions);
            self.command = None;
            self.is_forced = true;
            self.sole_bump = Some(next);
        }
        true
    }

    fn begin_takeover(&mut self, record: Record) {
        let is_forced = self.command.is_some_and(|(command, _)| command == Command::Force);
        let patience = SILENCE + if self.is_preferred { Duration::ZERO } else { PREFERENCE };
        let is_lost = self.peer.silent(self.now) >= patience;
        let is_due = is_lost && self.is_eligible(record) && !self.witness.has_gone_back;
        match &mut self.secondary.taking {
            Some(taking) if is_forced => taking.is_forced = true,
            // The primary is back, and no change of this site's is on its way.
            Some(taking) if !taking.is_forced && !is_lost && !self.witness.is_undecided() => {
                self.secondary.taking = None;
                self.secondary.aligned = None;
            }
            Some(_) => {}
            None if is_due || is_forced => {
                self.secondary.taking = Some(Taking { since: self.now, is_forced });
                self.look_now();
            }
            None => {}
        }
    }

    /// S4. Freezes first; then reads; then asks to be primary; and stays frozen until it is known what became of that.
    fn take_over(&mut self, record: Record, actions: &mut Vec<Action>) {
        let Some(taking) = self.secondary.taking else { return };
        self.freeze(Why::TakingOver, actions);
        if !self.has_taken_on() || !self.witness.has_told_since(taking.since) {
            return;
        }
        if !taking.is_forced && !self.is_eligible(record) {
            self.secondary.taking = None;
            return;
        }
        let next = Record {
            epoch: Epoch(record.epoch.0 + 1),
            primary: self.config.me,
            partner: None,
            is_sole: false,
            lineage: record.lineage + u64::from(taking.is_forced),
            fork: Some(self.log.end.into()),
        };
        if self.swap(next, actions) && taking.is_forced {
            // The operator answers for what this log may lack.
            self.command = None;
            self.is_forced = true;
            self.sole_bump = Some(next);
        }
    }
}
