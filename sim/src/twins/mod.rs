//! Two sites with one mirrored volume: the engine itself at both, a link that is slow and breaks, clients of whoever is primary,
//! and an incident that leaves one site. Which role a site has is said by the world, which is never wrong about it: that
//! is what the witness is for, elsewhere.

mod model;
pub(crate) mod site;

use crate::random::Random;
use crate::trace::{Finding, Trace};
use model::{Model, Value};
use site::{SIZE_BYTES, Site, Wish, block_of};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use units::{BLOCK_BYTES, BLOCK_LEN, ByteRange, Epoch, Lsn, MeterTime, Monotonic, SegmentId, SnapshotId};
use volume::buffer::{Buffer, BufferPool};
use volume::engine::{Context, PeerLog, Role};
use volume::feed::Feed;
use volume::io::{Action, Event, IoId};
use volume::parting::{Parting, parting};
use volume::request::{Completion, Reply, Request, RequestId};

/// What a negative control switches off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    Nothing,
    /// The primary is told that the peer has what was only sent to it.
    AckBeforePeer,
    /// The secondary says that it has made durable what it has not.
    FlushAtPeer,
}

const MS: u64 = 1_000_000;
const TICK: u64 = 100 * MS;
/// Blocks that clients use.
const BLOCKS: u64 = 64;
const REQUESTS: u64 = 160;
/// How many operations a site may lack that joins.
const JOIN_LAG_MAX: u64 = 64;
/// How many operations are sent ahead of what the secondary has told.
const SENT_AHEAD_MAX: u64 = 100;

#[derive(Debug)]
enum Happening {
    Client,
    Poll(usize),
    Tick(usize),
    TransferEnds(usize, IoId),
    StoreTurn(usize),
    /// What was sent on the link arrives at a site.
    Arrives(usize, Message),
}

#[derive(Debug)]
enum Message {
    Batch(Vec<Buffer>),
    Sync(Lsn),
    Committed(PeerLog),
    Told(PeerLog),
}

#[derive(Debug)]
enum Asked {
    Change {
        blocks: Range<u64>,
        value: Value,
    },
    Copy {
        blocks: Range<u64>,
        values: Vec<Value>,
    },
    Read {
        blocks: Range<u64>,
    },
    /// It covers what was acknowledged before.
    Flush {
        moment: u64,
    },
    Snapshot,
}

/// The world of one seed.
#[derive(Debug)]
pub struct Twins {
    random: Random,
    broken: Broken,
    now: u64,
    queue: BTreeMap<(u64, u64), (u64, Happening)>,
    next_happening: u64,
    sites: [Site; 2],
    primary: usize,
    epoch: u64,
    has_peer: bool,
    /// When the last message to each site arrives: the link keeps their order.
    arrives_at: [u64; 2],
    committed_told: PeerLog,
    /// What the secondary is sent next.
    stream: Feed,
    /// What the secondary has told of its log.
    told: PeerLog,
    model: Model,
    asked: BTreeMap<RequestId, (Asked, bool)>,
    busy: BTreeSet<u64>,
    next_request: u64,
    requests_left: u64,
    buffers: BufferPool,
    finding: Option<Finding>,
    trace: Trace,
    answers: u64,
}

type Checked<T = ()> = Result<T, Finding>;

impl Twins {
    /// Runs the world of a seed; returns its trace and the number of answers.
    ///
    /// # Errors
    /// The first finding.
    pub fn run(seed: u64, broken: Broken) -> Checked<(u64, u64)> {
        let mut random = Random::new(seed);
        let sites = [Site::new(0, &mut random)?, Site::new(1, &mut random)?];
        let mut twins = Self {
            random,
            broken,
            now: 0,
            queue: BTreeMap::new(),
            next_happening: 0,
            sites,
            primary: 0,
            epoch: 0,
            has_peer: true,
            arrives_at: [0; 2],
            committed_told: PeerLog::default(),
            stream: Feed::new(Lsn(1)),
            told: PeerLog::default(),
            model: Model::default(),
            asked: BTreeMap::new(),
            busy: BTreeSet::new(),
            next_request: 1,
            requests_left: 0,
            buffers: BufferPool::new(16 << 20),
            finding: None,
            trace: Trace::new(false),
            answers: 0,
        };
        for site in 0..2 {
            twins.after(TICK, site, Happening::Tick(site));
        }
        twins.live()?;
        Ok((twins.trace.hash(), twins.answers))
    }

    fn live(&mut self) -> Checked {
        self.give_roles(0)?;
        for _ in 0..self.random.within(0, 2) {
            self.serve(REQUESTS / 4, true)?;
            self.settle()?;
            let next = if self.random.chance(700) { 1 - self.primary } else { self.primary };
            self.give_roles(next)?;
        }
        for _ in 0..self.random.within(1, 3) {
            let is_drained = self.random.chance(200);
            self.serve(REQUESTS / 2, is_drained)?;
            self.meet_incident()?;
            self.check_all()?;
            self.serve(REQUESTS / 4, true)?;
            self.check_all()?;
            if self.random.chance(300) {
                self.restart_alone()?;
                self.check_all()?;
            }
            self.rejoin()?;
        }
        self.serve(REQUESTS / 4, true)?;
        self.settle()?;
        self.compare()?;
        self.lose(self.primary);
        self.lead_alone(1 - self.primary)?;
        self.check_all()
    }

    /// The site that was lost comes back: what it has beyond the other one's log is cut off, what it lacks is fed to it, and once it
    /// has all it counts again.
    fn rejoin(&mut self) -> Checked {
        let (primary, back) = (self.primary, 1 - self.primary);
        let theirs = self.sites[back].stretches_at_rest()?;
        let ours = self.sites[primary].volume.as_ref().map(volume::engine::Volume::stretches).unwrap_or_default();
        let Parting::Behind(mut limit) = parting(&ours, &theirs) else {
            return Err(Finding("P1: segments stay, and where the logs part is not told".to_owned()));
        };
        self.check_parting(limit)?;
        let is_part = theirs.first().is_none_or(|newest| newest.last_lsn <= limit);
        self.trace.note(&[4, self.now, limit.0, u64::from(is_part)]);
        if is_part {
            self.sites[back].recover(None)?;
        } else if self.sites[back].folded_at_rest()? <= limit {
            self.sites[back].recover(Some(limit))?;
        } else {
            // A power cut took from the one that leads what counted, and the other one's map has it: that begins anew.
            let newest =
                self.sites[primary].volume.as_ref().and_then(|volume| volume.segments().last().map(|row| row.segment));
            self.sites[back].replace(newest, &mut self.random)?;
            limit = Lsn::ZERO;
        }
        self.after(TICK, back, Happening::Tick(back));
        self.has_peer = true;
        self.committed_told = PeerLog::default();
        self.told = PeerLog { segment: None, appended: limit, durable: limit };
        self.tell(back, Event::Role(Role::Secondary { epoch: Epoch(self.epoch) }))?;
        self.stream = Feed::new(limit.next());
        self.requests_left = REQUESTS / 2;
        self.after(0, primary, Happening::Client);
        let until = self.now + 60_000 * MS;
        if self.random.chance(400) {
            return self.feed_in_vain();
        }
        while self.lag() > JOIN_LAG_MAX {
            self.advance_or_stuck()?;
            if self.now > until {
                return Err(Finding("P6: the site that came back never comes near".to_owned()));
            }
        }
        self.join()?;
        self.requests_left = 0;
        Ok(())
    }

    /// Where the logs part is told by their segments alone; the ends of all batches must say the same.
    fn check_parting(&self, limit: Lsn) -> Checked {
        let (ours, theirs) = (self.sites[self.primary].ends_served()?, self.sites[1 - self.primary].ends_at_rest()?);
        let common = ours.iter().rev().find(|end| theirs.contains(end)).map_or(Lsn::ZERO, |end| end.lsn);
        let told = self.sites[self.primary].volume.as_ref().map_or(Lsn::ZERO, |volume| volume.counted_end().lsn);
        let is_same = common == limit.min(told);
        if is_same { Ok(()) } else { Err(Finding(format!("P1: the logs part at {common}, and {limit} is told"))) }
    }

    /// The site that comes back is lost again while it is fed, and comes back again.
    fn feed_in_vain(&mut self) -> Checked {
        for _ in 0..self.random.within(1, 300) {
            self.advance_or_stuck()?;
        }
        self.requests_left = 0;
        self.lose(1 - self.primary);
        self.rejoin()
    }

    /// How many operations the secondary lacks.
    fn lag(&self) -> u64 {
        let ended = self.sites[self.primary].volume.as_ref().map_or(Lsn::ZERO, |volume| volume.status().ended_lsn);
        ended.0.saturating_sub(self.told.appended.0)
    }

    /// From now on what is answered is at both sites, while clients go on: and once the secondary has, on stable storage, all that was
    /// answered before, it counts as in sync.
    fn join(&mut self) -> Checked {
        let (primary, back) = (self.primary, 1 - self.primary);
        self.epoch += 1;
        let epoch = Epoch(self.epoch);
        self.tell(back, Event::Role(Role::Secondary { epoch }))?;
        self.tell(primary, Event::Role(Role::Primary { epoch, peer: self.told }))?;
        let end = self.sites[primary].volume.as_ref().map_or(Lsn::ZERO, |volume| volume.status().ended_lsn);
        self.trace.note(&[5, self.now, end.0]);
        let until = self.now + 60_000 * MS;
        while self.told.durable < end {
            self.send(primary, Message::Sync(end));
            for _ in 0..20 {
                self.advance_or_stuck()?;
            }
            if self.now > until {
                return Err(Finding("P6: the site that came back never joins".to_owned()));
            }
        }
        Ok(())
    }

    /// Sends what the secondary lacks of what is appended, some ahead of what it has told.
    fn feed(&mut self) -> Checked {
        if !self.has_peer {
            return Ok(());
        }
        while self.stream.next_lsn().0 <= self.told.appended.0.saturating_add(SENT_AHEAD_MAX)
            && let Some(batch) = self.sites[self.primary].feed(&mut self.stream)?
        {
            self.send(self.primary, Message::Batch(batch));
        }
        Ok(())
    }

    fn advance_or_stuck(&mut self) -> Checked {
        if self.advance()? { Ok(()) } else { Err(Finding("P6: nothing goes on".to_owned())) }
    }

    /// Both logs are the same.
    fn compare(&self) -> Checked {
        let [one, other] = [self.sites[0].ends_served()?, self.sites[1].ends_served()?];
        if one == other { Ok(()) } else { Err(Finding("P1: the logs of both sites are not the same".to_owned())) }
    }

    /// One site is primary under a new epoch, the other one follows it.
    fn give_roles(&mut self, primary: usize) -> Checked {
        self.epoch += 1;
        let epoch = Epoch(self.epoch);
        self.primary = primary;
        let end = self.sites[primary].volume.as_ref().map_or(Lsn::ZERO, |volume| volume.status().ended_lsn);
        self.stream = Feed::new(end.next());
        self.told = PeerLog { appended: end, ..PeerLog::SAME };
        self.tell(1 - primary, Event::Role(Role::Secondary { epoch }))?;
        self.tell(primary, Event::Role(Role::Primary { epoch, peer: PeerLog::SAME }))?;
        self.settle()
    }

    /// Something goes wrong, and one site is left.
    fn meet_incident(&mut self) -> Checked {
        let (primary, secondary) = (self.primary, 1 - self.primary);
        self.trace.note(&[1, self.now]);
        match self.random.below(4) {
            // The secondary is lost: the primary goes on.
            0 => {
                self.lose(secondary);
                self.lead_alone(primary)
            }
            // The primary is lost: the secondary takes over.
            1 => {
                self.lose(primary);
                self.abandon_requests();
                self.lead_alone(secondary)
            }
            // Both processes end, and one site stays away.
            kind => {
                let is_power_cut = kind == 3;
                self.abandon_requests();
                let left = if self.random.chance(500) { primary } else { secondary };
                self.lose(1 - left);
                self.restart(left, is_power_cut)?;
                self.lead_alone(left)
            }
        }
    }

    fn lose(&mut self, site: usize) {
        self.has_peer = false;
        let is_power_cut = self.random.chance(500);
        self.sites[site].die(is_power_cut, &mut self.random);
    }

    fn restart(&mut self, site: usize, is_power_cut: bool) -> Checked {
        if is_power_cut {
            self.model.lose_unflushed();
        }
        self.sites[site].die(is_power_cut, &mut self.random);
        self.sites[site].recover(None)?;
        self.after(TICK, site, Happening::Tick(site));
        Ok(())
    }

    fn lead_alone(&mut self, site: usize) -> Checked {
        self.epoch += 1;
        self.primary = site;
        self.tell(site, Event::Role(Role::Alone { epoch: Epoch(self.epoch) }))?;
        self.settle()
    }

    fn restart_alone(&mut self) -> Checked {
        self.abandon_requests();
        let is_power_cut = self.random.chance(500);
        self.restart(self.primary, is_power_cut)?;
        self.lead_alone(self.primary)
    }

    /// What was asked for will never be answered.
    fn abandon_requests(&mut self) {
        for (asked, _) in std::mem::take(&mut self.asked).into_values() {
            match asked {
                Asked::Change { blocks, value } => blocks.for_each(|block| self.model.abandon(block, value)),
                Asked::Copy { blocks, values } => {
                    blocks.zip(values).for_each(|(block, value)| self.model.abandon(block, value));
                }
                Asked::Read { .. } | Asked::Flush { .. } | Asked::Snapshot => {}
            }
        }
        self.busy.clear();
    }

    /// Clients ask so many times, until all is answered where `is_drained`, or for a part of that time.
    fn serve(&mut self, requests: u64, is_drained: bool) -> Checked {
        self.requests_left = requests;
        for _ in 0..3 {
            self.after(0, self.primary, Happening::Client);
        }
        let stop_at = if is_drained { 0 } else { self.random.below(requests) };
        while self.requests_left > stop_at || (is_drained && !self.asked.is_empty()) {
            if !self.advance()? {
                return Err(Finding("P6: requests are never answered".to_owned()));
            }
        }
        self.requests_left = 0;
        Ok(())
    }

    /// Lets everything under way come to its end.
    fn settle(&mut self) -> Checked {
        let is_busy = |site: &Site| site.volume.as_ref().is_some_and(|volume| !volume.is_idle());
        let until = self.now + 60_000 * MS;
        while self.sites.iter().any(is_busy)
            || self.queue.values().any(|(_, next)| matches!(next, Happening::Arrives(..)))
        {
            if self.now > until || !self.advance()? {
                return Err(Finding("P6: something never comes to an end".to_owned()));
            }
        }
        Ok(())
    }

    fn after(&mut self, delay: u64, site: usize, happening: Happening) {
        self.next_happening += 1;
        let life = self.sites[site].life;
        self.queue.insert((self.now + delay, self.next_happening), (life, happening));
    }

    fn delay(&mut self) -> u64 {
        let most = *self.random.pick(&[MS / 20, MS / 5, MS, 5 * MS]);
        self.random.below(most)
    }

    fn advance(&mut self) -> Checked<bool> {
        let Some(((time, _), (life, happening))) = self.queue.pop_first() else { return Ok(false) };
        self.now = self.now.max(time);
        let site = match &happening {
            Happening::Client => self.primary,
            Happening::Poll(site)
            | Happening::Tick(site)
            | Happening::TransferEnds(site, _)
            | Happening::StoreTurn(site)
            | Happening::Arrives(site, _) => *site,
        };
        if life != self.sites[site].life {
            return Ok(true);
        }
        match happening {
            Happening::Client => self.ask_next()?,
            Happening::Poll(site) => self.poll(site)?,
            Happening::Tick(site) => {
                self.after(TICK, site, Happening::Tick(site));
                self.tell(site, Event::Tick)?;
            }
            Happening::TransferEnds(site, id) => {
                let event = self.sites[site].end(id);
                event.map_or(Ok(()), |event| self.tell(site, event))?;
            }
            Happening::StoreTurn(site) => {
                let event = self.sites[site].take_store_turn();
                event.map_or(Ok(()), |event| self.tell(site, event))?;
            }
            Happening::Arrives(site, message) => self.receive(site, message)?,
        }
        self.finding.take().map_or(Ok(true), Err)
    }

    fn receive(&mut self, site: usize, message: Message) -> Checked {
        if !self.has_peer {
            return Ok(());
        }
        if let Message::Told(log) = message {
            self.told = log;
        }
        self.tell(
            site,
            match message {
                Message::Batch(buffers) => Event::Replicated { buffers },
                Message::Sync(lsn) => Event::MakeDurable { lsn },
                Message::Committed(log) => Event::Committed(log),
                Message::Told(log) => Event::PeerHas(log),
            },
        )
    }

    /// Sends to the other site: in order, and lost with the link.
    fn send(&mut self, from: usize, message: Message) {
        let to = 1 - from;
        if self.has_peer {
            let at = (self.arrives_at[to] + 1).max(self.now + self.delay());
            self.arrives_at[to] = at;
            self.after(at - self.now, to, Happening::Arrives(to, message));
        }
    }

    fn tell(&mut self, site: usize, event: Event) -> Checked {
        self.with_volume(site, |volume, context| volume.handle(context, event))?;
        let wait = if self.random.chance(500) { 0 } else { self.random.below(MS / 5) };
        self.after(wait, site, Happening::Poll(site));
        Ok(())
    }

    fn poll(&mut self, site: usize) -> Checked {
        self.with_volume(site, volume::engine::Volume::poll_append)
    }

    fn with_volume(
        &mut self,
        site: usize,
        call: impl FnOnce(&mut volume::engine::Volume, &mut Context<'_>),
    ) -> Checked {
        let Some(mut volume) = self.sites[site].volume.take() else { return Ok(()) };
        let mut actions = Vec::new();
        let (now, milliseconds) = (Monotonic(self.now), self.now / MS);
        let (wall_ms, meter) = (milliseconds, MeterTime(milliseconds));
        call(&mut volume, &mut Context { now, wall_ms, meter, buffers: &mut self.buffers, actions: &mut actions });
        let (end, durable) = (volume.counted_end(), volume.status().durable_lsn.min(self.told.durable));
        let counted = PeerLog { segment: end.segment, appended: end.lsn, durable: durable.min(end.lsn) };
        self.sites[site].volume = Some(volume);
        for action in actions {
            let wishes = self.sites[site].begin(action, &mut self.random);
            wishes.into_iter().try_for_each(|wish| self.grant(site, wish))?;
        }
        if site == self.primary && self.has_peer && counted != self.committed_told {
            self.committed_told = counted;
            self.send(site, Message::Committed(counted));
        }
        if site == self.primary { self.feed() } else { Ok(()) }
    }

    fn grant(&mut self, site: usize, wish: Wish) -> Checked {
        match wish {
            Wish::Transfer(id) => {
                let delay = self.delay();
                self.after(delay, site, Happening::TransferEnds(site, id));
            }
            Wish::StoreTurn => {
                let delay = self.delay();
                self.after(delay, site, Happening::StoreTurn(site));
            }
            Wish::Ship(buffers, to_peer) => {
                self.trace.note(&[2, self.now, buffers.len() as u64]);
                if self.stream.passes(&to_peer) {
                    self.send(site, Message::Batch(buffers));
                }
                if self.broken == Broken::AckBeforePeer {
                    let all = PeerLog { segment: Some(SegmentId::MAX), appended: Lsn(u64::MAX), durable: Lsn::ZERO };
                    self.after(0, site, Happening::Arrives(site, Message::Told(all)));
                }
            }
            Wish::Other(Action::Reply(reply)) => self.take_answer(reply)?,
            Wish::Other(Action::SyncPeer { lsn }) => self.send(site, Message::Sync(lsn)),
            Wish::Other(Action::TellPrimary(log)) => {
                let durable = if self.broken == Broken::FlushAtPeer { log.appended } else { log.durable };
                self.send(site, Message::Told(PeerLog { durable, ..log }));
            }
            Wish::Other(Action::FellOut { why }) => {
                return Err(Finding(format!("P6: nothing explains that site {site} fell out: {why:?}")));
            }
            Wish::Other(other) => unreachable!("{other:?} is the disk's or the store's"),
        }
        Ok(())
    }

    /// A client asks for something of blocks that nobody else is at.
    fn ask_next(&mut self) -> Checked {
        if self.requests_left == 0 {
            return Ok(());
        }
        let wait = self.random.below(2 * MS);
        self.after(wait, self.primary, Happening::Client);
        let first = self.random.below(BLOCKS);
        let blocks = first..(first + self.random.within(1, 6)).min(BLOCKS);
        if self.asked.len() >= 12 || blocks.clone().any(|block| self.busy.contains(&block)) {
            return Ok(());
        }
        self.requests_left -= 1;
        let fua = self.random.chance(200);
        let range = bytes_of(&blocks);
        let id = RequestId(self.next_request);
        let (asked, request) = match self.random.below(10) {
            0..=4 => {
                let value = self.next_request;
                let payload = blocks.clone().flat_map(|_| block_of(value)).collect::<Vec<u8>>();
                let payload = std::iter::once(Buffer::copy_of(&payload)).collect();
                (Asked::Change { blocks, value }, Request::Write { range, payload, fua })
            }
            5 => (Asked::Change { blocks, value: 0 }, Request::Trim { range, fua }),
            6 => match self.copy_to(&blocks) {
                Some((values, source)) => {
                    (Asked::Copy { blocks, values }, Request::Copy { source, target: range, fua })
                }
                None => return Ok(()),
            },
            7 => (Asked::Flush { moment: self.model.now() }, Request::Flush),
            8 if self.random.chance(200) => (Asked::Snapshot, Request::Snapshot { id: SnapshotId(self.next_request) }),
            _ => (Asked::Read { blocks }, Request::Read { range }),
        };
        if let Asked::Change { blocks, .. } | Asked::Copy { blocks, .. } | Asked::Read { blocks } = &asked {
            self.busy.extend(blocks.clone());
        }
        self.next_request += 1;
        self.asked.insert(id, (asked, fua));
        self.tell(self.primary, Event::Request { id, request })
    }

    fn ask(&mut self, asked: Asked, request: Request) -> Checked<RequestId> {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.asked.insert(id, (asked, false));
        self.tell(self.primary, Event::Request { id, request })?;
        Ok(id)
    }

    /// Blocks to copy from whose values are certain, and these.
    fn copy_to(&mut self, target: &Range<u64>) -> Option<(Vec<Value>, ByteRange)> {
        let len = target.end - target.start;
        let first = self.random.below(BLOCKS - len);
        let source = first..first + len;
        if source.start < target.end && target.start < source.end {
            return None;
        }
        let mut values = Vec::new();
        for block in source.clone() {
            let allowed = self.model.allowed(block);
            if self.busy.contains(&block) || allowed.len() != 1 {
                return None;
            }
            values.extend(allowed);
        }
        Some((values, bytes_of(&source)))
    }

    fn take_answer(&mut self, reply: Reply) -> Checked {
        let Some((asked, fua)) = self.asked.remove(&reply.id) else { return Ok(()) };
        self.answers += 1;
        let is_done = reply.result.is_ok();
        self.trace.note(&[3, self.now, reply.id.0, u64::from(is_done)]);
        if let (Err(error), false) = (&reply.result, matches!(asked, Asked::Copy { .. })) {
            return Err(Finding(format!("P6: nothing explains {error}")));
        }
        match asked {
            Asked::Change { blocks, value } => {
                let values = vec![value; (blocks.end - blocks.start) as usize];
                self.end_change(&blocks, &values, fua);
            }
            // Refused: what it would have copied lies in too many pieces.
            Asked::Copy { blocks, .. } if !is_done => self.busy.retain(|block| !blocks.contains(block)),
            Asked::Copy { blocks, values } => self.end_change(&blocks, &values, fua),
            Asked::Read { blocks } => {
                let Ok(Completion::Read { buffer, skip, .. }) = reply.result else {
                    return Err(Finding("P2: a read is answered by something else".to_owned()));
                };
                self.judge(&blocks, &buffer.as_slice()[skip..])?;
            }
            Asked::Flush { moment } => self.model.flush(moment),
            Asked::Snapshot => {}
        }
        Ok(())
    }

    fn end_change(&mut self, blocks: &Range<u64>, values: &[Value], fua: bool) {
        for (block, value) in blocks.clone().zip(values) {
            self.model.acknowledge(block, *value);
            self.busy.remove(&block);
        }
        if fua {
            // It covers no more than itself for certain; what came before it lies before it in the log.
            let moment = self.model.now();
            self.model.flush_blocks(blocks.clone(), moment);
        }
    }

    fn judge(&mut self, blocks: &Range<u64>, bytes: &[u8]) -> Checked {
        for (block, bytes) in blocks.clone().zip(bytes.chunks_exact(BLOCK_LEN)) {
            self.busy.remove(&block);
            let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
            let value = word(0);
            let allowed = self.model.allowed(block);
            if bytes != block_of(value) || !allowed.contains(&value) {
                return Err(Finding(format!("P1, P2: block {block} shows {value}, which is none of {allowed:?}")));
            }
            self.model.see(block, value);
        }
        Ok(())
    }

    /// Reads every block.
    fn check_all(&mut self) -> Checked {
        while !self.asked.is_empty() {
            if !self.advance()? {
                return Err(Finding("P6: requests are never answered".to_owned()));
            }
        }
        self.ask(Asked::Read { blocks: 0..BLOCKS }, Request::Read { range: bytes_of(&(0..BLOCKS)) })?;
        while !self.asked.is_empty() {
            if !self.advance()? {
                return Err(Finding("P6: requests are never answered".to_owned()));
            }
        }
        let segments = self.sites[self.primary].segments();
        if segments.is_sorted() { Ok(()) } else { Err(Finding(format!("segments out of order: {segments:?}"))) }
    }
}

fn bytes_of(blocks: &Range<u64>) -> ByteRange {
    let len = (blocks.end - blocks.start) * BLOCK_BYTES;
    debug_assert!(blocks.end * BLOCK_BYTES <= SIZE_BYTES);
    ByteRange::new(blocks.start * BLOCK_BYTES, len).expect("the blocks of the world are of the volume")
}
