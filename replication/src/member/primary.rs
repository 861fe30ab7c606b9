//! A site that leads: what it may acknowledge, and the changes of the in-sync set that it asks for.

use super::switch::Switch;
use super::{Committed, Member, Policy};
use crate::controls::{Safeguard, is_missing};
use crate::evidence::Decision;
use crate::io::{Action, DiskState, PeerAck, Role, Why};
use crate::lease::Lease;
use crate::pause::Pause;
use crate::record::Record;
use crate::times::{HOLD, JOIN_GATE_MAX, JOIN_LAG_MAX, SILENCE, WITNESS_LOOK};
use units::{Epoch, Lsn, Monotonic};

/// What a site knows as long as it leads.
#[derive(Debug)]
pub(super) struct Lead {
    /// The epoch that it leads in.
    pub(super) epoch: Epoch,
    /// The end of the log when it began: reads wait until that is committed, since any of it may have been acknowledged.
    pub(super) start: Lsn,
    /// S5. Nothing is acknowledged or read before the word has run out that this site gave as secondary.
    pub(super) acknowledges_from: Monotonic,
    /// What is acknowledged. Never goes back.
    pub(super) committed: Committed,
    pub(super) lease: Lease,
    /// When the oldest question was asked that is not answered by the other site's word.
    pub(super) unanswered_since: Monotonic,
    pub(super) switch: Option<Switch>,
    /// When the last one began.
    pub(super) switched_at: Option<Monotonic>,
    /// S3. The primary is sole and has acknowledged alone: the partner that the record names may lack something.
    is_alone: bool,
    joining: Option<Joining>,
    join_tried_at: Option<Monotonic>,
    held_since: Option<Monotonic>,
    is_hold_told: bool,
    is_held: bool,
    /// The most that the other site had, and when that last grew or nothing was waited for.
    moved: (PeerAck, Monotonic),
    pause: Pause,
}

/// A join under way: acknowledgements wait for the joining site, which need not be in sync yet.
#[derive(Debug, Clone, Copy)]
struct Joining {
    since: Monotonic,
    /// The end of all that was acknowledged alone.
    target: Lsn,
}

impl Member {
    pub(super) fn begin_lead(&mut self, record: Record, actions: &mut Vec<Action>) {
        self.lead = Some(Lead {
            epoch: record.epoch,
            start: self.log.end.lsn,
            acknowledges_from: self.secondary.word_until,
            committed: Committed::default(),
            lease: Lease::default(),
            unanswered_since: self.now,
            switch: None,
            switched_at: None,
            is_alone: record.is_sole,
            joining: None,
            join_tried_at: None,
            held_since: None,
            is_hold_told: false,
            is_held: false,
            moved: (PeerAck::default(), self.now),
            pause: Pause::default(),
        });
        if let Some(lead) = self.lead.as_mut().filter(|_| is_missing(Safeguard::LeaseRunsOut)) {
            lead.acknowledges_from = self.now;
        }
        self.give_lead_role(actions);
    }

    /// Everything that a primary does as time passes. At most one change of the record is asked for at once.
    pub(super) fn lead_on(&mut self, record: Record, actions: &mut Vec<Action>) {
        let Some(lead) = &mut self.lead else { return };
        if lead.epoch != record.epoch {
            lead.epoch = record.epoch;
            lead.unanswered_since = self.now;
        }
        if self.rebuild(record, actions) {
            return;
        }
        if self.switch_on(record, actions) {
            return;
        }
        let counts_peer = self.counts_peer();
        if counts_peer && (self.is_peer_lost() || self.peer.is_bad() || self.is_peer_stuck()) {
            self.eject(record, actions);
        } else if record.partner.is_none() || self.is_alone() {
            self.join(record, actions);
        } else {
            self.elect_before(record, actions);
        }
        self.hold(actions);
        self.give_lead_role(actions);
    }

    /// Nothing is heard of the other site, or nothing that says that it hears this one.
    fn is_peer_lost(&self) -> bool {
        let is_deaf = self.lead.as_ref().is_some_and(|lead| self.now.since(lead.unanswered_since) >= SILENCE);
        self.peer.is_lost(self.now) || self.counts_peer() && is_deaf
    }

    /// It is heard, and its log does not come on though something waits for that.
    fn is_peer_stuck(&self) -> bool {
        self.lead.as_ref().is_some_and(|lead| self.now.since(lead.moved.1) >= SILENCE)
    }

    /// The log has changed, or time has passed.
    pub(super) fn note_moved(&mut self) {
        let (end, awaited, now) = (self.log.end.lsn, self.log.awaited, self.now);
        let Some(lead) = &mut self.lead else { return };
        let (most, since) = &mut lead.moved;
        // What was given up is appended again under the same LSNs.
        (most.appended, most.durable) = (most.appended.min(end), most.durable.min(end));
        let Some(ack) = self.log.peer else { return };
        let has_all = ack.appended >= end && ack.durable >= awaited;
        // That it asks for the log again and again is no progress.
        if has_all || ack.appended > most.appended || ack.durable > most.durable {
            *since = now;
            (most.appended, most.durable) = (most.appended.max(ack.appended), most.durable.max(ack.durable));
        }
    }

    fn is_alone(&self) -> bool {
        self.lead.as_ref().is_some_and(|lead| lead.is_alone)
    }

    fn is_joining(&self) -> bool {
        self.lead.as_ref().is_some_and(|lead| lead.joining.is_some())
    }

    /// Whether the other site is in sync by a record that is in force or may come into force: then it may take over.
    pub(super) fn counts_peer(&self) -> bool {
        let is_alone = self.is_alone();
        let counts = |record: &Record| {
            record.primary != self.config.me || record.partner.is_some() && !(record.is_sole && is_alone)
        };
        let known = self.witness.known.map(|known| known.record);
        self.record().iter().chain(&known).any(counts)
            || !is_missing(Safeguard::MayLand) && self.witness.may_land().any(counts)
    }

    /// S1. Whether an acknowledgement needs the other site.
    pub(super) fn needs_peer(&self) -> bool {
        let is_strict = self.config.policy == Policy::Strict && !self.is_forced;
        !is_missing(Safeguard::AllInSync) && (is_strict || self.is_joining() || self.counts_peer())
    }

    /// Takes in what is acknowledged now.
    pub(super) fn commit(&mut self) {
        let needs_peer = self.needs_peer();
        let ack = self.log.peer;
        let Some(lead) = &mut self.lead else { return };
        if self.now < lead.acknowledges_from {
            return;
        }
        let mut reached = Committed { appended: self.log.end.lsn, durable: self.log.durable };
        if needs_peer {
            let Some(ack) = ack.filter(|ack| ack.epoch == lead.epoch) else { return };
            reached.appended = reached.appended.min(ack.appended);
            reached.durable = reached.durable.min(ack.durable);
        }
        lead.committed.appended = lead.committed.appended.max(reached.appended);
        lead.committed.durable = lead.committed.durable.max(reached.durable);
    }

    pub(super) fn give_lead_role(&mut self, actions: &mut Vec<Action>) {
        let Some(lead) = &self.lead else { return };
        if lead.is_held {
            return self.freeze(Why::Alone, actions);
        }
        let (epoch, with_peer) = (lead.epoch, self.needs_peer());
        self.set_role(Role::Lead { epoch, with_peer }, actions);
    }

    /// S3. Only the primary takes the other site out of the in-sync set: by asking, or because it is sole.
    fn eject(&mut self, record: Record, actions: &mut Vec<Action>) {
        let for_slowness = !self.is_peer_lost();
        let now = self.now;
        let is_sole =
            record.is_sole && self.witness.may_land().all(|record| record.is_sole || record.partner.is_none());
        let may_shrink = self.config.policy == Policy::Available || self.is_forced;
        let Some(lead) = &mut self.lead else { return };
        lead.joining = None;
        if !may_shrink {
            return;
        }
        if is_sole && !lead.is_alone {
            lead.is_alone = true;
            lead.pause.eject(now, for_slowness);
            self.look_now();
            return;
        }
        if self.witness.is_ready() {
            let epoch = Epoch(record.epoch.0 + 1);
            let next = Record { epoch, partner: None, is_sole: false, ..record };
            self.swap(next, actions);
        }
    }

    /// Lets the other site join once it is nearly as far. No write is refused for that: acknowledgements wait for the joining
    /// site from before it is asked for until it is known what became of it.
    fn join(&mut self, record: Record, actions: &mut Vec<Action>) {
        let (now, well_since) = (self.now, self.peer.well_since);
        let ack = self.log.peer.filter(|ack| ack.epoch == record.epoch);
        let is_well = self.peer.is_heard(now) && !self.peer.is_bad();
        let is_ready = self.witness.is_ready() && self.witness.is_frail(now).is_some();
        let end = self.log.end.lsn;
        let me_then_peer = Some(self.config.peer);
        let Some(lead) = &mut self.lead else { return };
        let Some(ack) = ack.filter(|_| is_well) else {
            lead.joining = None;
            return;
        };
        let is_due = lead.pause.is_over(now, well_since)
            && lead.join_tried_at.is_none_or(|at| now.since(at) >= 2 * JOIN_GATE_MAX);
        if lead.joining.is_none() && is_due && is_ready && end.0.saturating_sub(ack.appended.0) <= JOIN_LAG_MAX {
            lead.joining = Some(Joining { since: now, target: end });
            lead.join_tried_at = Some(now);
        }
        let Some(joining) = lead.joining else { return };
        if ack.durable >= joining.target && is_ready {
            let epoch = Epoch(record.epoch.0 + 1);
            let next = Record { epoch, partner: me_then_peer, is_sole: false, ..record };
            self.swap(next, actions);
        } else if now.since(joining.since) >= JOIN_GATE_MAX && !self.witness.is_undecided() {
            lead.joining = None;
        }
    }

    /// Pre-election: while the witness would not outlive the next loss, the primary is made sole, so that it can go on then.
    fn elect_before(&mut self, record: Record, actions: &mut Vec<Action>) {
        let Some(is_frail) = self.witness.is_frail(self.now).filter(|_| self.peer.is_heard(self.now)) else { return };
        if is_frail != record.is_sole {
            let epoch = Epoch(record.epoch.0 + 1);
            self.swap(Record { epoch, is_sole: is_frail, ..record }, actions);
        }
    }

    /// Writes that wait for the other site end with an error after a while.
    fn hold(&mut self, actions: &mut Vec<Action>) {
        let must_wait = self.needs_peer() && self.is_peer_lost();
        let now = self.now;
        let Some(lead) = &mut self.lead else { return };
        let since = if must_wait { Some(*lead.held_since.get_or_insert(now)) } else { None };
        let is_first = since.is_some_and(|since| since < now) && !lead.is_hold_told;
        lead.is_hold_told = must_wait && (lead.is_hold_told || is_first);
        lead.held_since = since;
        lead.is_held = since.is_some_and(|since| now.since(since) >= HOLD);
        if is_first {
            self.tell(Decision::Hold, actions);
        }
    }

    /// A newer record has been learned while this site leads.
    pub(super) fn on_learned(&mut self, record: Record) {
        let before = self.record();
        let (now, for_slowness) = (self.now, !self.is_peer_lost());
        let Some(lead) = &mut self.lead else { return };
        lead.joining = None;
        lead.switch = None;
        let had_partner = before.is_some_and(|record| record.partner.is_some());
        match record.partner {
            None if had_partner && !lead.is_alone => lead.pause.eject(now, for_slowness),
            None => {}
            Some(_) if !had_partner || lead.is_alone => lead.pause.join(now),
            Some(_) => {}
        }
        if !record.is_sole {
            lead.is_alone = false;
        }
    }

    /// Whether the own disk asks for the other site to lead.
    pub(super) const fn is_disk_bad(&self) -> bool {
        matches!(self.disk, DiskState::Full | DiskState::Failing)
    }

    /// Whether the witness answered lately.
    pub(super) fn is_witness_heard(&self) -> bool {
        self.now.since(self.witness.answered_at) < WITNESS_LOOK * 2
    }
}
