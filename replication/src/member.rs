//! The role machine of one site for one group: events in, actions out.
//!
//! Every event changes what the site knows; then [`Member::settle`] looks at all of that and decides what its log does, what
//! the witness is asked and what the other site is told. So no decision hangs on the order in which news came.
//!
//! Kept at every moment: a log leads or follows only in the epoch that is durably promised; who leads does so in one in which
//! nobody wrote before it; what is acknowledged is on every site that is in sync by any record that is or may come into force.

mod peer;
mod prepare;
mod primary;
mod secondary;
mod switch;
mod witness;

use crate::controls::{Safeguard, is_missing};
use crate::evidence::{Decision, Evidence, Kept, Sight};
use crate::io::{Action, Command, DiskState, Event, LogState, Reads, Role, Why};
use crate::promise::{Life, Promise};
use crate::record::Record;
use crate::times::COMMAND_PATIENCE;
use peer::Peer;
use primary::Lead;
use secondary::Secondary;
use units::{Epoch, GroupId, Lsn, Monotonic, SiteId};
use witness::Witness;

/// What a group does when its sites cannot hear each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// One of them goes on alone, and the other one is brought up to date later.
    #[default]
    Available,
    /// Nothing is acknowledged that is not at both, and no role changes by itself.
    Strict,
}

/// What a site is told once.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The group.
    pub group: GroupId,
    /// This site.
    pub me: SiteId,
    /// The other one.
    pub peer: SiteId,
    /// What to do when that is lost.
    pub policy: Policy,
    /// How reads are guarded.
    pub reads: Reads,
}

/// What a site finds when it starts.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Its durable promise; the default on a site that never made one.
    pub promise: Promise,
    /// Its log, which appends nothing until it gets a role.
    pub log: LogState,
    /// Whether the log surely has all that was ever appended: the machine has not lost power since, as its boot id tells.
    pub is_log_whole: bool,
}

/// How far the log is on every site that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    /// Writes up to here are acknowledged, and visible to reads.
    pub appended: Lsn,
    /// Flushes up to here are.
    pub durable: Lsn,
}

/// One site of one group.
#[derive(Debug)]
pub struct Member {
    config: Config,
    /// Of the event that is being handled.
    now: Monotonic,
    /// What is on stable storage.
    promise: Promise,
    /// What is on its way there.
    writing: Option<Promise>,
    /// The promise of this life has become durable: the site may speak.
    has_started: bool,
    /// The promised epoch was learned in this life, so that this site has written nothing in it.
    is_fresh: bool,
    /// The log has every operation that was acknowledged while this site was in sync.
    is_certain: bool,
    /// A record that was asked for by the only one whose log counts: once it is in force, that log is all there is.
    sole_bump: Option<Record>,
    /// An operator has this site go on alone, against its policy.
    is_forced: bool,
    witness: Witness,
    peer: Peer,
    log: LogState,
    disk: DiskState,
    role: Role,
    role_number: u64,
    lead: Option<Lead>,
    secondary: Secondary,
    command: Option<(Command, Monotonic)>,
    is_preferred: bool,
    /// The other site has heard of this life of this one, which made no promise that it knows of: its disk was lost.
    life_heard: Life,
    kept: Kept,
}

impl Member {
    /// Starts a site: frozen, until the witness or the other site tells it what it is.
    pub fn start(config: Config, now: Monotonic, start: Start, actions: &mut Vec<Action>) -> Self {
        let is_certain = start.promise.is_certain && start.is_log_whole;
        let life = start.promise.life.next();
        let writing = Promise { seen: start.promise.seen, life, is_certain };
        actions.push(Action::Promise(writing.clone()));
        Self {
            config,
            now,
            witness: Witness::new(start.promise.seen, now),
            promise: start.promise,
            writing: Some(writing),
            has_started: false,
            is_fresh: false,
            is_certain,
            sole_bump: None,
            is_forced: false,
            peer: Peer::new(now),
            log: start.log,
            disk: DiskState::Good,
            role: Role::Freeze { why: Why::Starting },
            role_number: 0,
            lead: None,
            secondary: Secondary::new(now),
            command: None,
            is_preferred: true,
            life_heard: Life(0),
            kept: Kept::default(),
        }
    }

    /// Advances the site by one event; what it wants done goes to `actions`, in the order it must begin.
    pub fn handle(&mut self, now: Monotonic, event: Event, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        match event {
            Event::Tick => {}
            Event::Read { id, answer } => self.on_read(id, answer, actions),
            Event::Swapped { id, answer } => self.on_swapped(id, answer, actions),
            Event::Heard(message) => self.on_heard(message, actions),
            Event::Link { is_up } => self.peer.on_link(self.now, is_up),
            Event::Log(log) => self.log = log,
            Event::Aligned { number, common } => self.on_aligned(number, common, actions),
            Event::Reopened => self.secondary.align_anew(),
            Event::Promised => self.on_promised(actions),
            Event::Command(Command::Reads(reads)) => self.config.reads = reads,
            Event::Command(command) => self.on_command(command, actions),
            Event::Disk(disk) => self.disk = disk,
            Event::PeerSlow(is_slow) => self.peer.on_slow(self.now, is_slow),
            Event::Preferred(is_preferred) => self.is_preferred = is_preferred,
            Event::ReadWaits => self.peer.is_news_due = true,
        }
        self.note_moved();
        self.settle(actions);
        self.commit();
        self.speak(actions);
    }

    /// How far writes and flushes may be acknowledged, and reads see; nothing while this site is not to acknowledge any.
    #[must_use]
    pub fn committed(&self, now: Monotonic) -> Option<Committed> {
        let lead = self.lead.as_ref()?;
        (now >= lead.acknowledges_from).then_some(lead.committed)
    }

    /// How far reads see.
    #[must_use]
    pub fn readable(&self, now: Monotonic) -> Option<Lsn> {
        if is_missing(Safeguard::CommittedReads) {
            return self.lead.is_some().then_some(self.log.end.lsn);
        }
        if is_missing(Safeguard::ReadsWaitToo) && self.lead.is_some() && !self.needs_peer() {
            return Some(self.log.end.lsn);
        }
        self.committed(now).map(|committed| committed.appended)
    }

    /// S5. Whether a read that came at `arrived` may be answered now, with what [`Self::readable`] says. To be asked just
    /// before the answer goes out.
    #[must_use]
    pub fn may_read(&self, now: Monotonic, arrived: Monotonic) -> bool {
        let Some(lead) = &self.lead else { return false };
        let is_leading = matches!(self.role, Role::Lead { .. });
        let sees_all = self.readable(now).is_some_and(|lsn| lsn >= lead.start);
        if !is_leading || !sees_all {
            return false;
        }
        let is_guarded = match self.config.reads {
            Reads::Lease => lead.lease.holds(now),
            Reads::Confirm => lead.lease.is_answered_since(arrived),
        };
        is_guarded || !self.counts_peer() || is_missing(Safeguard::Lease)
    }

    /// What the log is to do.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// What this site decided lately, the oldest first.
    pub fn evidence(&self) -> impl Iterator<Item = &Evidence> {
        self.kept.iter()
    }

    /// The promised record, once there is one.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        self.promise.seen.map(|seen| seen.record)
    }

    /// Whether nobody else can come to lead by itself, whatever becomes of this site: it leads alone, and no change that was asked for may
    /// yet come into force.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let is_alone = |record: Record| record.primary == self.config.me && record.partner.is_none();
        let leads = matches!(self.role, Role::Lead { with_peer: false, .. });
        leads && self.record().is_some_and(is_alone) && self.witness.is_settled()
    }

    /// Whether it may come to lead by what was decided already: a change that was asked for may yet come into force.
    #[must_use]
    pub fn may_lead(&self) -> bool {
        self.lead.is_some() || !self.witness.is_settled()
    }

    /// The epoch that is promised.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.promise.epoch()
    }

    /// The life of the site, as it is promised.
    #[must_use]
    pub const fn life(&self) -> Life {
        self.promise.life
    }

    /// From when on what this site appends may be answered and shown; `None` while it does not lead.
    #[must_use]
    pub fn leads_from(&self) -> Option<Monotonic> {
        self.lead.as_ref().map(|lead| lead.acknowledges_from)
    }

    /// Looks at all that is known, and decides.
    fn settle(&mut self, actions: &mut Vec<Action>) {
        self.keep_promise(actions);
        if !self.has_started {
            return;
        }
        self.ask_witness(actions);
        self.drop_late_command(actions);
        let Some(known) = self.witness.known else {
            self.settle_without_record(actions);
            return;
        };
        if self.epoch() < known.record.epoch {
            // A primary that stays one leads on in its epoch until the next is promised.
            if known.record.primary != self.config.me || self.lead.is_none() {
                self.freeze(Why::Promising, actions);
                self.lead = None;
            }
            return;
        }
        if known.record.primary == self.config.me {
            self.settle_primary(actions);
        } else {
            self.settle_secondary(actions);
        }
    }

    /// S2. Whatever newer record is known is promised before anything is done by it.
    fn keep_promise(&mut self, actions: &mut Vec<Action>) {
        let is_newer = self.witness.known.is_some_and(|known| known.record.epoch > self.epoch());
        let is_lost = self.life_heard > self.promise.life;
        let is_other = is_newer || is_lost || self.is_certain != self.promise.is_certain;
        if self.writing.is_some() || !is_other {
            return;
        }
        let seen = self.witness.known.or(self.promise.seen);
        let life = if is_lost { self.life_heard.next() } else { self.promise.life };
        let writing = Promise { seen, life, is_certain: self.is_certain };
        actions.push(Action::Promise(writing.clone()));
        self.writing = Some(writing);
    }

    fn on_promised(&mut self, actions: &mut Vec<Action>) {
        let Some(written) = self.writing.take() else { return };
        let is_raised = written.epoch() > self.epoch();
        self.promise = written;
        self.has_started = true;
        self.peer.is_news_due = true;
        if is_raised {
            self.is_fresh = true;
            self.secondary.forget_alignment();
            if self.sole_bump.take().is_some_and(|record| self.record() == Some(record)) {
                self.is_certain = true;
            }
        }
        self.tell_of_promise(is_raised, actions);
    }

    fn tell_of_promise(&mut self, is_raised: bool, actions: &mut Vec<Action>) {
        if let Some(record) = self.record().filter(|_| is_raised) {
            self.tell(Decision::Learn(record), actions);
        }
    }

    fn settle_without_record(&mut self, actions: &mut Vec<Action>) {
        if self.command.is_some_and(|(command, _)| command == Command::Found) && self.witness.is_empty() {
            let record = Record {
                epoch: Epoch(1),
                primary: self.config.me,
                partner: None,
                is_sole: false,
                lineage: 1,
                fork: None,
            };
            self.sole_bump = Some(record);
            self.swap(record, actions);
        }
    }

    fn on_command(&mut self, command: Command, actions: &mut Vec<Action>) {
        self.command = Some((command, self.now));
        self.tell(Decision::Hear(command), actions);
    }

    fn drop_late_command(&mut self, actions: &mut Vec<Action>) {
        if let Some((command, _)) = self.command.filter(|(_, at)| self.now.since(*at) > COMMAND_PATIENCE) {
            self.refuse(command, actions);
        }
    }

    fn refuse(&mut self, command: Command, actions: &mut Vec<Action>) {
        self.command = None;
        if command == Command::Force {
            self.secondary.give_up_force();
        }
        self.tell(Decision::Refuse(command), actions);
    }

    fn freeze(&mut self, why: Why, actions: &mut Vec<Action>) {
        self.set_role(Role::Freeze { why }, actions);
    }

    fn set_role(&mut self, role: Role, actions: &mut Vec<Action>) {
        if self.role == role {
            return;
        }
        self.role = role;
        self.role_number += 1;
        self.tell(Decision::Role(role), actions);
        actions.push(Action::SetRole { number: self.role_number, role });
    }

    /// Whether the log has taken on its role: what is known of it is as of then.
    const fn has_taken_on(&self) -> bool {
        self.log.role == self.role_number
    }

    fn tell(&mut self, decision: Decision, actions: &mut Vec<Action>) {
        let sight = Sight {
            record: self.witness.known.map(|seen| seen.record),
            peer_silent: self.peer.silent(self.now),
            witness_silent: self.now.since(self.witness.answered_at),
            end: self.log.end,
            peer_end: self.peer.end,
            is_certain: self.is_certain,
        };
        let evidence = Evidence { at: self.now, sight, decision };
        self.kept.add(evidence.clone());
        actions.push(Action::Tell(evidence));
    }
}
