//! What a site's driver does: it carries out what the role machine wants, appends, syncs, and answers clients.

use super::clients::Answer;
use super::log::Entry;
use super::site::{PromiseFile, Request, Wish};
use super::{Happening, MICROSECOND, MILLISECOND, Next, World};
use replication::{Action, AskId, Decision, Event, LogState, Position, Promise, Record, Revision, Role, SwapAnswer};
use units::Lsn;

impl World {
    pub(super) fn on_site(&mut self, site: usize, next: Next) {
        match next {
            Next::Tick => {
                self.tell(site, Event::Tick);
                self.want_again(site);
                self.site_at(self.time + 50 * MILLISECOND, site, Next::Tick);
            }
            Next::Member(event) => {
                let is_up = event == Event::Link { is_up: true };
                self.tell(site, event);
                if is_up {
                    self.want(site);
                }
            }
            Next::Report => {
                let number = self.sites[site].process.as_ref().map_or(0, |process| process.role_number);
                let peer = self.sites[site].process.as_ref().and_then(|process| process.ack);
                let log = &self.sites[site].log;
                let has =
                    |at: &Position| *at == Position::ZERO || log.entries().iter().any(|entry| entry.position == *at);
                let process = self.sites[site].process.as_ref();
                let handed = process.and_then(|process| process.member.hand_over()).filter(has);
                let state = LogState { peer, handed, ..log.state(number) };
                self.tell(site, Event::Log(state));
            }
            Next::Appended => self.on_appended(site),
            Next::Synced { upto } => {
                self.sites[site].log.sync(Lsn(upto));
                if let Some(process) = &mut self.sites[site].process {
                    process.is_syncing = false;
                }
                self.on_grown(site);
            }
            Next::Promised(file) => {
                self.sites[site].file = file;
                self.tell(site, Event::Promised);
            }
            Next::Data(data) => self.on_data(site, data),
            Next::Stream => self.stream(site),
            Next::Request(request) => self.on_request(site, request),
        }
        self.answer(site);
    }

    pub(super) fn start(&mut self, site: usize) {
        if self.sites[site].process.is_some() {
            return;
        }
        let mut actions = Vec::new();
        let time = self.time;
        self.sites[site].start(time, &mut actions);
        self.say(|| format!("site {} starts", site + 1));
        self.carry_out(site, actions);
        self.site_at(self.time, site, Next::Tick);
        self.reset_link();
    }

    /// Gives the role machine an event, and does what it wants.
    pub(super) fn tell(&mut self, site: usize, event: Event) {
        let now = self.sites[site].clock(self.time);
        let Some(process) = &mut self.sites[site].process else { return };
        let mut actions = Vec::new();
        process.member.handle(now, event, &mut actions);
        self.carry_out(site, actions);
    }

    fn carry_out(&mut self, site: usize, actions: Vec<Action>) {
        let mut told = None;
        for action in actions {
            match action {
                Action::ReadWitness { id } => {
                    let run = self.sites[site].run;
                    let at = self.time + self.witness_delay();
                    self.at(at, Happening::WitnessRead { site, run, id });
                }
                Action::Swap { id, expected, record } => self.ask_swap(site, id, expected, record),
                Action::Send(message) => self.say_to_peer(site, message),
                Action::Promise(promise) => self.write_promise(site, promise),
                Action::SetRole { number, role } => {
                    if told != Some(Decision::Role(role)) {
                        self.find(format!("P4: site {} {role} without evidence", site + 1));
                    }
                    self.give_role(site, number, role);
                }
                Action::Align { number, epoch } => self.ask_alignment(site, number, epoch),
                Action::KeepBranch { from, to } => {
                    self.judge.branches += 1;
                    self.say(|| format!("site {} keeps a branch from {from} to {to}", site + 1));
                }
                Action::Tell(evidence) => {
                    told = Some(evidence.decision);
                    self.say(|| format!("site {} {evidence}", site + 1));
                }
            }
        }
    }

    fn write_promise(&mut self, site: usize, promise: Promise) {
        let file = PromiseFile { promise, boot: self.sites[site].boot };
        let at = self.time + self.random.within(500, 8000) * MICROSECOND;
        self.site_at(at, site, Next::Promised(file));
    }

    fn ask_swap(&mut self, site: usize, id: AskId, expected: Option<Revision>, record: Record) {
        let run = self.sites[site].run;
        let tries = if self.witness.is_slow && self.random.chance(200) { 2 } else { 1 };
        for _ in 0..tries {
            let at = self.time + self.witness_delay();
            self.at(at, Happening::WitnessSwap { site, run, id, expected, record });
        }
    }

    fn witness_delay(&mut self) -> u64 {
        if self.witness.is_slow && self.random.chance(300) {
            return self.random.within(100, 30_000) * MILLISECOND;
        }
        self.random.within(500, 5000) * MICROSECOND
    }

    fn is_witness_reached(&self, site: usize) -> bool {
        let has_quorum = !self.witness.is_frail || self.link.is_up && self.link.is_cut == [false; 2];
        !self.witness.is_down && !self.witness.is_cut[site] && has_quorum
    }

    fn reply_of_witness(&mut self, site: usize, run: u64, event: Event) {
        if self.witness.is_slow && self.random.chance(300) || self.witness.is_cut[site] {
            return;
        }
        let at = self.time + self.witness_delay();
        self.at(at, Happening::Site { site, run, next: Next::Member(event) });
    }

    pub(super) fn on_witness_read(&mut self, site: usize, run: u64, id: AskId) {
        let answer = self.witness.answer(self.is_witness_reached(site));
        self.reply_of_witness(site, run, Event::Read { id, answer });
    }

    pub(super) fn on_witness_swap(
        &mut self,
        site: usize,
        (run, id): (u64, AskId),
        expected: Option<Revision>,
        record: Record,
    ) {
        if !self.is_witness_reached(site) {
            return self.reply_of_witness(site, run, Event::Swapped { id, answer: SwapAnswer::Unknown });
        }
        let before = self.witness.seen().map(|seen| seen.record);
        let answer = self.witness.swap(expected, record);
        if matches!(answer, SwapAnswer::Won { .. }) {
            self.say(|| format!("the witness has epoch {}", record.epoch));
            self.on_record(before, record);
        }
        self.reply_of_witness(site, run, Event::Swapped { id, answer });
    }

    fn give_role(&mut self, site: usize, number: u64, role: Role) {
        let Some(process) = &mut self.sites[site].process else { return };
        process.pending = Some((number, role));
        self.take_on(site);
    }

    /// Takes on the role that is waiting, once nothing is being appended.
    fn take_on(&mut self, site: usize) {
        let Some(process) = &mut self.sites[site].process else { return };
        if !process.appending.is_empty() {
            return;
        }
        let Some((number, role)) = process.pending.take() else { return };
        (process.role, process.role_number) = (role, number);
        let is_lost = match role {
            Role::Lead { .. } => false,
            Role::Follow { .. } | Role::SealAndCut { .. } => true,
            Role::Freeze { why } => why.ends_requests(),
        };
        if is_lost {
            process.stream = None;
            for request in process.take_requests() {
                self.reply(request, Answer::Refused);
            }
        }
        match role {
            Role::SealAndCut { to } => self.sites[site].log.cut(to),
            Role::Follow { .. } => self.want(site),
            Role::Lead { epoch, .. } => self.on_lead(site, epoch),
            Role::Freeze { .. } => {}
        }
        self.on_grown(site);
    }

    pub(super) fn on_request(&mut self, site: usize, request: Request) {
        if self.clients[request.client].attempt != request.attempt {
            return;
        }
        let Some(process) = &mut self.sites[site].process else { return };
        let is_leading = matches!(process.role, Role::Lead { .. }) && process.pending.is_none();
        match process.role {
            Role::Lead { .. } if is_leading => self.admit(site, request),
            Role::Follow { .. } => self.reply(request, Answer::Refused),
            Role::Freeze { why } if why.ends_requests() => self.reply(request, Answer::Refused),
            Role::Lead { .. } | Role::Freeze { .. } | Role::SealAndCut { .. } => process.held.push(request),
        }
    }

    /// Begins what a client wants.
    fn admit(&mut self, site: usize, request: Request) {
        let now = self.sites[site].clock(self.time);
        let delay = self.random.within(10, 500) * MICROSECOND;
        let last = self.sites[site].log.last().copied();
        let Some(process) = &mut self.sites[site].process else { return };
        let Role::Lead { epoch, .. } = process.role else { return };
        let before = process.appending.last().copied().or(last);
        match request.wish {
            Wish::Read { .. } => {
                process.reads.push((request, now));
                self.site_at(self.time, site, Next::Member(Event::ReadWaits));
            }
            Wish::Flush => {
                let lsn = before.map_or(Lsn::ZERO, |entry| entry.position.lsn);
                process.flushes.push((request, lsn));
            }
            Wish::Write { block, value } => {
                let entry = Entry::after(before.as_ref(), epoch, block, value);
                process.appending.push(entry);
                process.writes.push((request, entry.position.lsn));
                self.site_at(self.time + delay, site, Next::Appended);
                self.stream(site);
            }
        }
    }

    fn on_appended(&mut self, site: usize) {
        let Some(process) = &mut self.sites[site].process else { return };
        if process.appending.is_empty() {
            return;
        }
        let entry = process.appending.remove(0);
        self.sites[site].log.append(entry);
        self.on_grown(site);
        self.take_on(site);
    }

    /// The log has changed: it is synced by and by, and the role machine is told.
    pub(super) fn on_grown(&mut self, site: usize) {
        let upto = self.sites[site].log.end().lsn;
        let is_durable = self.sites[site].log.durable() == upto;
        self.on_up_to_date(site);
        let delay = self.random.below(self.sites[site].sync_max) + 100 * MICROSECOND;
        let Some(process) = &mut self.sites[site].process else { return };
        if !is_durable && !process.is_syncing {
            process.is_syncing = true;
            self.site_at(self.time + delay, site, Next::Synced { upto: upto.0 });
        }
        self.say_what_it_has(site);
        self.site_at(self.time, site, Next::Report);
    }

    /// Answers what can be answered.
    fn answer(&mut self, site: usize) {
        let now = self.sites[site].clock(self.time);
        let Some(process) = &mut self.sites[site].process else { return };
        let is_leading = matches!(process.role, Role::Lead { .. }) && process.pending.is_none();
        for request in if is_leading { std::mem::take(&mut process.held) } else { Vec::new() } {
            self.admit(site, request);
        }
        let Some(process) = &mut self.sites[site].process else { return };
        let readable = process.member.readable(now);
        let may_read = |arrived| process.member.may_read(now, arrived);
        let (reads, waiting) = process.reads.iter().partition(|(_, arrived)| may_read(*arrived));
        process.reads = waiting;
        if let Some(readable) = readable.filter(|_| !reads.is_empty()) {
            self.on_shown(site, readable);
        }
        for (request, _) in reads {
            let Wish::Read { block } = request.wish else { continue };
            let value = self.sites[site].log.content(block, readable.unwrap_or_default());
            self.reply(request, Answer::Content(value));
        }
        let Some(process) = &mut self.sites[site].process else { return };
        let Some(committed) = process.member.committed(now) else { return };
        let (writes, waiting) = process.writes.iter().partition(|(_, lsn)| *lsn <= committed.appended);
        process.writes = waiting;
        let (flushes, waiting): (Vec<_>, _) = process.flushes.iter().partition(|(_, lsn)| *lsn <= committed.durable);
        process.flushes = waiting;
        for (request, lsn) in writes {
            self.on_acknowledged(site, lsn);
            self.reply(request, Answer::Done);
        }
        for (request, lsn) in flushes {
            self.on_acknowledged(site, lsn);
            self.judge.flush(lsn);
            self.reply(request, Answer::Done);
        }
    }
}
