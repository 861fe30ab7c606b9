//! What a site's driver does: it carries out what the seat and the volume want, keeps requests that wait, and holds back what may not be
//! shown yet.

use super::node::Origin;
use super::{Happening, MICROSECOND, MILLISECOND, Next, Pair};
use crate::mirror::site::PromiseFile;
use crate::trace::Finding;
use crate::twins::site::Wish as SiteWish;
use replication::seat::{Action, Event, Seat};
use replication::{AskId, Record, Revision, SwapAnswer};
use units::{Lsn, MeterTime};
use volume::buffer::BufferPool;
use volume::engine::{Context, Volume};
use volume::request::{Completion, Reply};

/// Ticks of the seat in one of the volume.
const TICKS_OF_VOLUME: u64 = 4;

impl Pair {
    pub(super) fn on_node(&mut self, node: usize, next: Next) {
        if self.nodes[node].seat.is_none() {
            return;
        }
        match next {
            Next::Tick => self.on_tick(node),
            Next::Poll => self.with_volume(node, Volume::poll_append),
            Next::TransferEnds(life, id) => {
                if self.nodes[node].site.life == life
                    && let Some(event) = self.nodes[node].site.end(id)
                {
                    self.give(node, event);
                }
            }
            Next::StoreTurn(life) => {
                if self.nodes[node].site.life == life
                    && let Some(event) = self.nodes[node].site.take_store_turn()
                {
                    self.give(node, event);
                }
            }
            Next::Seat(event) => return self.tell(node, *event),
            Next::Promised(file) => {
                self.nodes[node].file = file;
                return self.tell(node, Event::Promised);
            }
            Next::Frame(life, frame) => return self.on_frame(node, life, *frame),
            Next::Link(life) => {
                self.nodes[node].link_life = life;
                self.forget_passed(node);
                return self.tell(node, Event::Link { is_up: life.is_some() });
            }
            Next::Room(life) => {
                if self.nodes[node].link_life == Some(life) {
                    self.send_answers(node);
                    return self.tell(node, Event::Room);
                }
            }
            Next::Fed(id, mut feed, up_to) => {
                let batch = self.nodes[node].site.read_on(&mut feed, up_to);
                return self.tell(node, Event::Fed { id, feed, batch });
            }
            Next::Reopened(limit) => return self.on_reopened(node, limit),
            Next::Request(request) => self.on_request(node, request),
        }
        self.tell(node, Event::Looked);
    }

    fn on_tick(&mut self, node: usize) {
        self.node_at(self.time + 50 * MILLISECOND, node, Next::Tick);
        if (self.time / (50 * MILLISECOND)).is_multiple_of(TICKS_OF_VOLUME) {
            self.give(node, volume::io::Event::Tick);
        }
        self.send_answers(node);
        self.tell(node, Event::Tick);
    }

    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].seat.is_some() {
            return;
        }
        let time = self.time;
        let one = &mut self.nodes[node];
        one.run += 1;
        if let Err(finding) = one.site.recover(None) {
            return self.find(finding.0);
        }
        let is_log_whole = one.file.boot == one.boot;
        let mut actions = Vec::new();
        let (config, now, promise) = (one.config, one.clock(time), one.file.promise.clone());
        let Some(volume) = &one.site.volume else { return };
        one.seat = Some(Seat::start(config, now, (promise, is_log_whole), volume, &mut actions));
        self.say(|| format!("site {} starts", node + 1));
        self.carry_out(node, actions);
        self.node_at(self.time, node, Next::Tick);
        self.end_link();
    }

    /// Gives the seat an event, and does all that comes of it.
    pub(super) fn tell(&mut self, node: usize, event: Event) {
        self.nodes[node].news.push_back(event);
        while let Some(event) = self.nodes[node].news.pop_front() {
            let now = self.nodes[node].clock(self.time);
            let one = &mut self.nodes[node];
            let Some(seat) = &mut one.seat else { return one.news.clear() };
            let mut actions = Vec::new();
            seat.handle(now, event, one.site.volume.as_ref(), &mut actions);
            self.carry_out(node, actions);
        }
        self.answer(node);
    }

    fn carry_out(&mut self, node: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::ReadWitness { id } => {
                    let (run, at) = (self.nodes[node].run, self.time + self.witness_delay());
                    self.at(at, Happening::WitnessRead { node, run, id });
                }
                Action::Swap { id, expected, record } => {
                    let (run, at) = (self.nodes[node].run, self.time + self.witness_delay());
                    self.at(at, Happening::WitnessSwap { node, run, id, expected, record });
                }
                Action::Promise(promise) => {
                    let file = PromiseFile { promise, boot: self.nodes[node].boot };
                    let at = self.time + self.random.within(500, 8000) * MICROSECOND;
                    self.node_at(at, node, Next::Promised(file));
                }
                Action::Send(frame) => {
                    if !self.send_frame(node, frame) {
                        self.nodes[node].news.push_front(Event::NoRoom);
                    }
                }
                Action::Consumed { bytes } => self.on_consumed(node, bytes),
                Action::Volume(event) => {
                    self.give(node, event);
                    self.nodes[node].news.push_back(Event::Looked);
                }
                Action::Reopen { limit } => self.begin_reopening(node, limit),
                Action::Feed { id, feed, up_to } => {
                    let at = self.time + self.random.within(50, 4000) * MICROSECOND;
                    self.node_at(at, node, Next::Fed(id, feed, up_to));
                }
                Action::KeepBranch { from, to } => {
                    self.outcome.branches += 1;
                    self.say(|| format!("site {} keeps a branch from {from} to {to}", node + 1));
                }
                Action::Tell(evidence) => self.say(|| format!("site {} {evidence}", node + 1)),
            }
        }
    }

    fn begin_reopening(&mut self, node: usize, limit: Option<Lsn>) {
        self.say(|| format!("site {} opens its volume anew, up to {limit:?}", node + 1));
        self.outcome.reopened += 1;
        self.end_begun(node);
        self.nodes[node].site.volume = None;
        let at = self.time + self.random.within(1, 60) * MILLISECOND;
        self.node_at(at, node, Next::Reopened(limit));
    }

    fn on_reopened(&mut self, node: usize, limit: Option<Lsn>) {
        let one = &mut self.nodes[node];
        // Nothing is under way any more: what has been written is in the page cache.
        one.site.die(false, &mut self.random);
        let opened = one.site.recover(limit);
        self.tell(node, Event::Opened);
        if let Err(Finding(finding)) = opened {
            self.find(finding);
        }
    }

    pub(super) fn give(&mut self, node: usize, event: volume::io::Event) {
        self.with_volume(node, |volume, context| volume.handle(context, event));
        let wait = if self.random.chance(500) { 0 } else { self.random.below(200) * MICROSECOND };
        self.node_at(self.time + wait, node, Next::Poll);
    }

    fn with_volume(&mut self, node: usize, call: impl FnOnce(&mut Volume, &mut Context<'_>)) {
        let now = self.nodes[node].clock(self.time);
        let one = &mut self.nodes[node];
        let Some(volume) = &mut one.site.volume else { return };
        let (mut actions, mut buffers) = (Vec::new(), BufferPool::new(0));
        let milliseconds = self.time / MILLISECOND;
        let (wall_ms, meter) = (milliseconds, MeterTime(milliseconds));
        call(volume, &mut Context { now, wall_ms, meter, buffers: &mut buffers, actions: &mut actions });
        for action in actions {
            let wishes = self.nodes[node].site.begin(action, &mut self.random);
            wishes.into_iter().for_each(|wish| self.grant(node, wish));
        }
    }

    fn grant(&mut self, node: usize, wish: SiteWish) {
        let life = self.nodes[node].site.life;
        let most = *self.random.pick(&[50, 200, 1000, 5000]);
        let at = self.time + self.random.below(most) * MICROSECOND;
        match wish {
            SiteWish::Transfer(id) => self.node_at(at, node, Next::TransferEnds(life, id)),
            SiteWish::StoreTurn => self.node_at(at, node, Next::StoreTurn(life)),
            SiteWish::Ship(buffers, batch) => self.nodes[node].news.push_back(Event::Shipped { buffers, batch }),
            SiteWish::Other(volume::io::Action::Reply(reply)) => self.take_answer(node, reply),
            SiteWish::Other(volume::io::Action::SyncPeer { lsn }) => {
                self.nodes[node].news.push_back(Event::SyncPeer(lsn));
            }
            SiteWish::Other(volume::io::Action::TellPrimary(log)) => {
                self.nodes[node].news.push_back(Event::TellPrimary(log));
            }
            SiteWish::Other(volume::io::Action::FellOut { why }) => {
                self.say(|| format!("site {} falls out: {why:?}", node + 1));
                self.nodes[node].news.push_back(Event::FellOut(why));
            }
            SiteWish::Other(other) => unreachable!("{other:?} is the disk's or the store's"),
        }
    }

    /// The volume has answered. What was read is shown when it may be.
    fn take_answer(&mut self, node: usize, reply: Reply) {
        let Some((origin, arrived)) = self.nodes[node].asked.remove(&reply.id) else { return };
        match reply.result {
            Ok(found @ Completion::Read { .. }) => {
                self.nodes[node].found.push((origin, arrived, found));
                self.nodes[node].news.push_back(Event::ReadWaits);
            }
            result @ (Ok(_) | Err(_)) => self.end(node, origin, result),
        }
    }

    /// Begins what waits, or ends it, and shows what may be shown.
    fn answer(&mut self, node: usize) {
        self.go_on(node);
        let one = &mut self.nodes[node];
        let Some(seat) = &one.seat else { return };
        let now = one.clock(self.time);
        let may_show = |(_, arrived, _): &(Origin, _, Completion)| seat.may_read(now, *arrived);
        let (shown, waiting): (Vec<_>, Vec<_>) = one.found.drain(..).partition(may_show);
        one.found = waiting;
        for (origin, _, found) in shown {
            self.end(node, origin, Ok(found));
        }
    }

    pub(super) fn witness_delay(&mut self) -> u64 {
        if self.witness.is_slow && self.random.chance(300) {
            return self.random.within(100, 20_000) * MILLISECOND;
        }
        self.random.within(500, 5000) * MICROSECOND
    }

    fn reply_of_witness(&mut self, node: usize, run: u64, event: Event) {
        if self.witness.is_slow && self.random.chance(300) || self.witness.is_cut[node] {
            return;
        }
        let at = self.time + self.witness_delay();
        self.at(at, Happening::Node { node, run, next: Next::Seat(Box::new(event)) });
    }

    fn is_witness_reached(&self, node: usize) -> bool {
        !self.witness.is_down && !self.witness.is_cut[node]
    }

    pub(super) fn on_witness_read(&mut self, node: usize, run: u64, id: AskId) {
        let answer = self.witness.answer(self.is_witness_reached(node));
        self.reply_of_witness(node, run, Event::Read { id, answer });
    }

    pub(super) fn on_witness_swap(
        &mut self,
        node: usize,
        (run, id): (u64, AskId),
        expected: Option<Revision>,
        record: Record,
    ) {
        if !self.is_witness_reached(node) {
            return self.reply_of_witness(node, run, Event::Swapped { id, answer: SwapAnswer::Unknown });
        }
        let before = self.witness.seen().map(|seen| seen.record);
        let answer = self.witness.swap(expected, record);
        if matches!(answer, SwapAnswer::Won { .. }) {
            self.say(|| format!("the witness has {}", record.encode().replace('\n', ", ")));
            self.outcome.epochs += 1;
            self.outcome.moves += u64::from(before.is_some_and(|before| before.primary != record.primary));
            if record.partner.is_some() && before.is_some_and(|before| before.partner.is_none()) {
                self.nodes.iter_mut().for_each(|node| node.has_lost = false);
            }
        }
        self.reply_of_witness(node, run, Event::Swapped { id, answer });
    }
}
