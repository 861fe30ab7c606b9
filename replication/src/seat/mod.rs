//! One site's seat in a mirror: its role machine, its volume, and what both say to the other site, brought together. Sans-io.
//!
//! The driver gives events and carries out actions; it owns the volume and shows it with each event. Rules for drivers are in
//! docs/mirror.md, "The seat".
//!
//! A role of the role machine is one of the volume once that can take it: who follows or leads was still before, so that where its log
//! ended then is known; who cannot become still since something is under way is opened anew.

mod io;
mod receiving;
mod sending;

pub use io::{Action, Event, FeedId};
pub use receiving::Apart;

use crate::io::{DiskState, LogState, Role, Why};
use crate::member::{Config, Member, Start};
use crate::promise::Promise;
use crate::record::Record;
use crate::wire::Frame;
use receiving::Receiving;
use sending::Sending;
use std::time::Duration;
use units::{Epoch, GroupId, Lsn, Monotonic};
use volume::engine::Volume;
use volume::feed::FeedError;
use volume::io::FellOut;

/// What may have found no room is said again after so many ticks.
const SAY_AGAIN_TICKS: u64 = 10;

/// How long a volume that fell out is left alone before it is opened anew, the first time; doubled each time.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// And at most. One that has not fallen out for twice as long begins with the least.
const REOPEN_AFTER_MAX: Duration = Duration::from_mins(1);

/// What the volume was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    /// It is not open.
    Nothing,
    /// Nothing is appended, or will not be soon.
    Still,
    Lead {
        epoch: Epoch,
        with_peer: bool,
    },
    Follow {
        epoch: Epoch,
    },
}

/// What a request meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is begun.
    Serve,
    /// It waits.
    Wait,
    /// It is passed on to the other site, which leads ([`crate::passing`]).
    Pass,
    /// It ends with an error.
    Refuse,
}

/// The seat.
#[derive(Debug)]
pub struct Seat {
    config: Config,
    now: Monotonic,
    member: Member,
    /// The role that the role machine wants, its number, and that of the last one that the log has taken on.
    role: Role,
    number: u64,
    taken: u64,
    given: Given,
    /// Where the log ended as it came to lead, and whether all of that counts: nothing is served before.
    lead_start: Lsn,
    shows_all: bool,
    told: LogState,
    disk: (DiskState, DiskState),
    sending: Sending,
    receiving: Receiving,
    is_link_up: bool,
    ticks: u64,
    /// When it fell out last, and how long it was left alone then.
    fallen: Option<(Monotonic, Duration)>,
    reopen_at: Option<Monotonic>,
    /// What the volume is being opened up to, while it is.
    limit: Option<Lsn>,
    is_poisoned: bool,
    /// The role machine asks where the logs part.
    aligns: Option<(u64, Epoch)>,
}

impl Seat {
    /// Starts a site's seat with its volume, which was just opened and is frozen. The state of the log that `start` tells is not
    /// looked at: the volume tells it.
    pub fn start(
        config: Config,
        now: Monotonic,
        (promise, is_log_whole): (Promise, bool),
        volume: &Volume,
        actions: &mut Vec<Action>,
    ) -> Self {
        let told = LogState { end: volume.end().into(), durable: volume.synced_lsn(), ..LogState::default() };
        let mut wanted = Vec::new();
        let member = Member::start(config, now, Start { promise, log: told, is_log_whole }, &mut wanted);
        let role = member.role();
        let mut seat = Self {
            config,
            now,
            member,
            role,
            number: 0,
            taken: 0,
            given: Given::Still,
            lead_start: Lsn::ZERO,
            shows_all: false,
            told,
            disk: (DiskState::Good, DiskState::Good),
            sending: Sending::default(),
            receiving: Receiving::default(),
            is_link_up: false,
            ticks: 0,
            fallen: None,
            reopen_at: None,
            limit: None,
            is_poisoned: false,
            aligns: None,
        };
        seat.carry_out(wanted, actions);
        seat
    }

    /// Advances the seat by one event. `volume` is the volume as it is now, while it is open.
    pub fn handle(&mut self, now: Monotonic, event: Event, volume: Option<&Volume>, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        // What is decided now is decided of the log as it is now.
        self.report(volume, actions);
        if !matches!(event, Event::Link { .. }) {
            self.consume(volume, actions);
        }
        self.take(event, volume, actions);
        // A few roles may follow one another, none of which waits for anything.
        for _ in 0..8 {
            let before = (self.number, self.given, self.told);
            self.report(volume, actions);
            if let Some(volume) = volume {
                self.turn(volume, actions);
                self.align(volume, actions);
            }
            if (self.number, self.given, self.told) == before {
                break;
            }
        }
        if let (Given::Lead { .. }, Some(volume)) = (self.given, volume) {
            self.pump(volume, actions);
        }
    }

    /// What becomes of a request that comes now.
    #[must_use]
    pub fn admits(&self) -> Admission {
        let is_taken = self.taken == self.number;
        match self.role {
            Role::Lead { .. } if is_taken && self.shows_all => Admission::Serve,
            Role::Lead { .. } => Admission::Wait,
            // The other one is primary.
            Role::Freeze { why: Why::Aligning } | Role::SealAndCut { .. } | Role::Follow { .. } => self.admits_there(),
            Role::Freeze { why } if !why.ends_requests() => Admission::Wait,
            Role::Freeze { .. } => Admission::Refuse,
        }
    }

    /// What becomes of one that is the other site's to serve: without a link it waits where this one may take over.
    fn admits_there(&self) -> Admission {
        let may_take_over = |record: Record| record.partner == Some(self.config.me) && !record.is_sole;
        if self.is_link_up {
            Admission::Pass
        } else if self.member.record().is_some_and(may_take_over) {
            Admission::Wait
        } else {
            Admission::Refuse
        }
    }

    /// S5. Whether what a read that came at `arrived` has found may be shown now. To be asked just before it goes out.
    #[must_use]
    pub fn may_read(&self, now: Monotonic, arrived: Monotonic) -> bool {
        self.taken == self.number && self.shows_all && self.member.may_read(now, arrived)
    }

    /// The role machine, which tells what it decided and why.
    #[must_use]
    pub const fn member(&self) -> &Member {
        &self.member
    }

    /// Bytes of batches that came and of which [`Action::Consumed`] has not told.
    #[must_use]
    pub const fn unconsumed(&self) -> u64 {
        self.receiving.unconsumed()
    }

    /// Why the log cannot follow the primary's, where that is so.
    #[must_use]
    pub const fn apart(&self) -> Option<Apart> {
        self.receiving.apart
    }

    /// Why the other site cannot be sent the log, where that is so.
    #[must_use]
    pub fn gone(&self) -> Option<FeedError> {
        self.sending.gone()
    }

    fn take(&mut self, event: Event, volume: Option<&Volume>, actions: &mut Vec<Action>) {
        match event {
            Event::Tick => self.on_tick(volume, actions),
            Event::Read { id, answer } => self.tell(crate::Event::Read { id, answer }, actions),
            Event::Swapped { id, answer } => self.tell(crate::Event::Swapped { id, answer }, actions),
            Event::Promised => self.tell(crate::Event::Promised, actions),
            Event::Link { is_up } => self.on_link(is_up, actions),
            Event::Frame(frame) => self.on_frame(frame, volume, actions),
            Event::NoRoom => self.on_no_room(),
            Event::Room => self.on_room(),
            Event::Command(command) => self.tell(crate::Event::Command(command), actions),
            Event::Disk(disk) => {
                self.disk.0 = disk;
                self.tell_disk(actions);
            }
            Event::PeerSlow(is_slow) => self.tell(crate::Event::PeerSlow(is_slow), actions),
            Event::Preferred(is_preferred) => self.tell(crate::Event::Preferred(is_preferred), actions),
            Event::ReadWaits => self.tell(crate::Event::ReadWaits, actions),
            Event::Opened => {
                self.given = Given::Still;
                if !self.is_poisoned && std::mem::take(&mut self.disk.1) != DiskState::Good {
                    self.tell_disk(actions);
                }
                // What was known of the end of the log was so of the one that was closed.
                self.tell(crate::Event::Reopened, actions);
            }
            Event::OpenFailed => self.on_open_failed(actions),
            Event::Fed { id, feed, batch } => self.on_fed((id, feed), batch, actions),
            Event::Shipped { buffers, batch } => self.on_shipped(buffers, &batch, actions),
            Event::SyncPeer(lsn) => self.on_sync_peer(lsn, actions),
            Event::TellPrimary(log) => self.on_tell_primary(log, actions),
            Event::FellOut(why) => self.on_fell_out(why, volume, actions),
            Event::Looked => {}
        }
    }

    fn on_tick(&mut self, volume: Option<&Volume>, actions: &mut Vec<Action>) {
        self.ticks += 1;
        self.tell(crate::Event::Tick, actions);
        if self.reopen_at.take_if(|at| *at <= self.now).is_some() {
            if self.given == Given::Nothing {
                actions.push(Action::Reopen { limit: self.limit });
            } else {
                self.reopen(None, actions);
            }
        }
        let Some(volume) = volume else { return };
        self.tick_of_secondary(volume, actions);
        if self.is_time_to_say_again() && matches!(self.given, Given::Lead { .. }) {
            self.say_to_secondary_again(volume, actions);
        }
    }

    const fn is_time_to_say_again(&self) -> bool {
        self.ticks.is_multiple_of(SAY_AGAIN_TICKS)
    }

    fn on_link(&mut self, is_up: bool, actions: &mut Vec<Action>) {
        self.is_link_up = is_up;
        self.tell(crate::Event::Link { is_up }, actions);
        self.receiving.forget_credit();
        match self.given {
            Given::Lead { .. } => {
                self.sending.forget();
                self.give_engine_lead(actions);
            }
            // Part of what was on its way has come: what is asked for next depends on where the log ends then.
            Given::Follow { .. } => self.give_still(actions),
            Given::Nothing | Given::Still => {}
        }
    }

    fn on_frame(&mut self, frame: Frame, volume: Option<&Volume>, actions: &mut Vec<Action>) {
        if let Frame::Say { message, .. } = frame {
            return self.tell(crate::Event::Heard(*message), actions);
        }
        if let Frame::Batch { epoch, buffers, .. } = frame {
            return self.on_batch(epoch, buffers, actions);
        }
        let Some(volume) = volume.filter(|_| self.given != Given::Nothing) else { return };
        match frame {
            Frame::Align { epoch, number, stretches, .. } => {
                self.on_align(volume, (epoch, number), &stretches, actions);
            }
            Frame::Aligned { epoch, number, parting, .. } => {
                let told = self.on_aligned(volume, (epoch, number), parting);
                told.into_iter().for_each(|event| self.tell(event, actions));
            }
            Frame::Want { epoch, number, segment, lsn, .. } => {
                self.on_want(volume, (epoch, number), (segment, lsn), actions);
            }
            Frame::Begins { epoch, number, .. } => self.on_begins(epoch, number),
            Frame::Committed { epoch, log, .. } => self.on_committed(epoch, log, actions),
            Frame::MakeDurable { epoch, lsn, .. } => self.on_make_durable(epoch, lsn, actions),
            Frame::Has { epoch, log, .. } => self.on_has(epoch, log, actions),
            Frame::FellOut { epoch, .. } => match self.given {
                Given::Lead { .. } => self.sending.stop(),
                // The primary does not send on: it lacks what this log ends with, or was opened anew.
                Given::Follow { epoch: followed } if followed == epoch => self.tell(crate::Event::Reopened, actions),
                Given::Follow { .. } | Given::Nothing | Given::Still => {}
            },
            Frame::Say { .. }
            | Frame::Batch { .. }
            | Frame::Enrol { .. }
            | Frame::Enrolled { .. }
            | Frame::Ask { .. }
            | Frame::Answer { .. }
            | Frame::Credit { .. }
            | Frame::Ping { .. }
            | Frame::Pong { .. }
            | Frame::Bye(_) => {}
        }
    }

    /// The volume cannot go on as it was told.
    fn on_fell_out(&mut self, why: FellOut, volume: Option<&Volume>, actions: &mut Vec<Action>) {
        if let Role::Follow { epoch, .. } = self.role {
            self.send(actions, |group| Frame::FellOut { group, epoch, why });
        }
        self.note_poison(volume, actions);
        if self.is_poisoned {
            return;
        }
        if why == FellOut::NotAtRest {
            return self.reopen(None, actions);
        }
        self.reopen_later();
    }

    /// A volume that does not open is tried again; one whose stored map goes beyond what is common cannot be.
    fn on_open_failed(&mut self, actions: &mut Vec<Action>) {
        if let Some(limit) = self.limit.take() {
            self.receiving.apart = Some(Apart::Stored(limit));
        }
        self.disk.1 = DiskState::Failing;
        self.tell_disk(actions);
        self.reopen_later();
    }

    /// What a sync has failed may be gone though it can be read: nobody opens it anew in this boot of the machine.
    fn note_poison(&mut self, volume: Option<&Volume>, actions: &mut Vec<Action>) {
        let is_new = !self.is_poisoned && volume.is_some_and(Volume::is_poisoned);
        if is_new {
            self.is_poisoned = true;
            self.disk.1 = DiskState::Failing;
            self.tell_disk(actions);
        }
    }

    fn reopen_later(&mut self) {
        let is_fresh = |(at, _): &(Monotonic, Duration)| self.now.since(*at) < 2 * REOPEN_AFTER_MAX;
        let before = self.fallen.filter(is_fresh);
        let pause = before.map_or(REOPEN_AFTER, |(_, pause)| (2 * pause).min(REOPEN_AFTER_MAX));
        self.fallen = Some((self.now, pause));
        self.reopen_at = Some(self.now.plus(pause));
    }

    fn reopen(&mut self, limit: Option<Lsn>, actions: &mut Vec<Action>) {
        if self.given == Given::Nothing || self.is_poisoned {
            return;
        }
        self.reopen_at = None;
        self.limit = limit;
        self.take_back(Given::Nothing);
        actions.push(Action::Reopen { limit });
    }

    /// Gives the volume the role that is wanted, or what has to come before it.
    fn turn(&mut self, volume: &Volume, actions: &mut Vec<Action>) {
        if self.given == Given::Nothing || self.taken == self.number {
            return;
        }
        let is_taken = match (self.role, self.given) {
            (Role::Lead { epoch, with_peer }, Given::Lead { .. }) => {
                self.give_lead(volume, (epoch, with_peer), actions);
                true
            }
            (Role::Lead { epoch, with_peer }, Given::Still) => {
                let may_be = volume.is_still() && self.member.leads_from().is_some_and(|from| from <= self.now);
                if may_be {
                    // What it fell out of is over.
                    self.reopen_at = None;
                    self.lead_start = volume.end().lsn;
                    self.sending.forget();
                    self.give_lead(volume, (epoch, with_peer), actions);
                }
                may_be
            }
            // One that fell out takes nothing before it has been opened anew.
            (Role::Follow { .. }, Given::Still) if self.reopen_at.is_some() => false,
            (Role::Follow { epoch, .. }, Given::Still) => {
                if volume.is_still() {
                    self.give_follow(volume, epoch, actions);
                }
                volume.is_still()
            }
            (Role::Freeze { why: Why::Switching }, Given::Lead { .. }) => {
                let is_taken = volume.is_at_rest();
                if is_taken {
                    // The other site takes over once all of it is durable there: nobody else may be waiting for that.
                    self.on_sync_peer(volume.end().lsn, actions);
                }
                is_taken
            }
            (Role::Freeze { why: Why::Alone }, Given::Lead { .. }) => true,
            (Role::Freeze { .. }, Given::Still) => volume.is_still(),
            (Role::SealAndCut { to }, Given::Still) if volume.end().lsn <= to => volume.is_still(),
            (Role::SealAndCut { to }, Given::Still) => {
                if volume.is_still() {
                    self.reopen(Some(to), actions);
                }
                false
            }
            (_, Given::Nothing) => false,
            (_, Given::Lead { .. } | Given::Follow { .. }) => {
                self.give_still(actions);
                false
            }
        };
        if is_taken {
            self.taken = self.number;
        }
    }

    /// Whatever role the volume had is over, and what belongs to that.
    fn take_back(&mut self, given: Given) {
        self.given = given;
        self.taken = self.taken.min(self.number.saturating_sub(1));
        self.shows_all = false;
        self.sending.forget();
        self.sending.await_nothing();
        self.receiving.stop();
    }

    fn give_still(&mut self, actions: &mut Vec<Action>) {
        self.take_back(Given::Still);
        actions.push(Action::Volume(volume::io::Event::Role(volume::engine::Role::Still)));
    }

    fn give_follow(&mut self, volume: &Volume, epoch: Epoch, actions: &mut Vec<Action>) {
        self.given = Given::Follow { epoch };
        self.ask_for_log(volume, epoch, actions);
        actions.push(Action::Volume(volume::io::Event::Role(volume::engine::Role::Secondary { epoch })));
    }

    fn give_lead(&mut self, volume: &Volume, (epoch, with_peer): (Epoch, bool), actions: &mut Vec<Action>) {
        let before = std::mem::replace(&mut self.given, Given::Lead { epoch, with_peer });
        if !matches!(before, Given::Lead { epoch: led, .. } if led == epoch) {
            // Who follows in the new epoch asks anew.
            self.sending.stop();
        }
        if !with_peer {
            self.sending.await_nothing();
        } else if !matches!(before, Given::Lead { with_peer: true, .. }) {
            // All that was acknowledged without the other site is to be durable there before that counts as in sync.
            self.on_sync_peer(volume.end().lsn, actions);
        }
        self.give_engine_lead(actions);
    }

    /// Gives the volume its role, with what is known of the other site's log: it may be less than before.
    fn give_engine_lead(&self, actions: &mut Vec<Action>) {
        let Given::Lead { epoch, with_peer } = self.given else { return };
        let role = if with_peer {
            volume::engine::Role::Primary { epoch, peer: self.sending.told() }
        } else {
            volume::engine::Role::Alone { epoch }
        };
        actions.push(Action::Volume(volume::io::Event::Role(role)));
    }

    /// Tells the role machine how the log is, when that has changed.
    fn report(&mut self, volume: Option<&Volume>, actions: &mut Vec<Action>) {
        let Some(volume) = volume.filter(|_| self.given != Given::Nothing) else { return };
        self.note_poison(Some(volume), actions);
        let leads = matches!(self.given, Given::Lead { .. });
        self.note_shown(volume);
        // Who has fallen out does not follow, whatever it was told.
        let is_out = self.reopen_at.is_some() && matches!(self.role, Role::Follow { .. });
        let end = volume.end();
        let now = LogState {
            role: if is_out { self.taken.min(self.number.saturating_sub(1)) } else { self.taken },
            end: end.into(),
            durable: volume.synced_lsn().min(end.lsn),
            peer: self.sending.ack(volume).filter(|_| leads),
            awaited: self.sending.awaited(),
            handed: self.member.hand_over().filter(|at| volume.has(at.lsn, at.segment)),
        };
        if std::mem::replace(&mut self.told, now) != now {
            self.tell(crate::Event::Log(now), actions);
        }
    }

    /// Any of what was in the log when it came to lead may have been acknowledged, and a volume that was opened anew shows all that it has:
    /// nothing is shown or served before all of that is where it has to be.
    fn note_shown(&mut self, volume: &Volume) {
        let Given::Lead { with_peer, .. } = self.given else { return };
        let is_there = !with_peer || volume.shared_with(self.sending.told()).appended >= self.lead_start;
        self.shows_all |= is_there && volume.counted_end().lsn >= self.lead_start;
    }

    fn tell_disk(&mut self, actions: &mut Vec<Action>) {
        let (outer, own) = self.disk;
        let disk = if own == DiskState::Good { outer } else { own };
        self.tell(crate::Event::Disk(disk), actions);
    }

    fn align(&mut self, volume: &Volume, actions: &mut Vec<Action>) {
        if let Some(asked) = self.aligns.take() {
            self.ask_parting(volume, asked, actions);
        }
    }

    fn tell(&mut self, event: crate::Event, actions: &mut Vec<Action>) {
        let mut wanted = Vec::new();
        self.member.handle(self.now, event, &mut wanted);
        self.carry_out(wanted, actions);
    }

    fn carry_out(&mut self, wanted: Vec<crate::Action>, actions: &mut Vec<Action>) {
        for action in wanted {
            match action {
                crate::Action::ReadWitness { id } => actions.push(Action::ReadWitness { id }),
                crate::Action::Swap { id, expected, record } => actions.push(Action::Swap { id, expected, record }),
                crate::Action::Send(message) => {
                    let message = Box::new(message);
                    self.send(actions, |group| Frame::Say { group, message });
                }
                crate::Action::Promise(promise) => actions.push(Action::Promise(promise)),
                crate::Action::SetRole { number, role } => (self.number, self.role) = (number, role),
                crate::Action::Align { number, epoch } => self.aligns = Some((number, epoch)),
                crate::Action::KeepBranch { from, to } => actions.push(Action::KeepBranch { from, to }),
                crate::Action::Tell(evidence) => actions.push(Action::Tell(evidence)),
            }
        }
    }

    fn send(&self, actions: &mut Vec<Action>, frame: impl FnOnce(GroupId) -> Frame) {
        actions.push(Action::Send(frame(self.config.group)));
    }
}
