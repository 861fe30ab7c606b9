//! Two sites as they are: role machine, engine, disk and index of each, brought together by its seat; a witness, a link that keeps order
//! within a life, and clients of both sites who try elsewhere when they are refused.
//!
//! What is judged: every block is linearizable over all clients, through everything (P1, P2, P4); after the last fault every client is
//! served, both sites come to be in sync, and their logs end in the same batch (P6).

mod clients;
mod driver;
mod faults;
mod link;
mod node;
mod passing;

use crate::mirror::clients::Answer;
use crate::mirror::history::History;
use crate::mirror::site::PromiseFile;
use crate::mirror::witness::Witness;
use crate::random::Random;
use crate::seeds::caught;
use crate::trace::{Finding, Trace};
use clients::{Client, Request};
use faults::{Fault, Plan};
use link::Link;
use node::Node;
use replication::seat::{self, Admission, Apart, FeedId, Seat};
use replication::{AskId, Record, Revision};
use std::collections::BTreeMap;
use units::{Epoch, Lsn, SiteId};
use volume::feed::Feed;
use volume::io::IoId;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;

/// Blocks that clients use.
const BLOCKS: u64 = 8;

/// After the last fault every client is served within this time.
const SERVED_WITHIN: u64 = 90_000 * MILLISECOND;

/// And within this time the sites are in sync: the longest pause before a join, and some.
const EQUAL_WITHIN: u64 = 16 * 60_000 * MILLISECOND;

/// What a world came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Requests that were answered well.
    pub answers: u64,
    /// Epochs that the record went through.
    pub epochs: u64,
    /// Times that another site became primary.
    pub moves: u64,
    /// Branches that were kept.
    pub branches: u64,
    /// Times that a volume was opened anew while its site went on.
    pub reopened: u64,
    /// Times that unflushed writes may have been lost with an excuse.
    pub excuses: u64,
    /// Times that a site came to lack what the other one has forgotten.
    pub apart: u64,
    /// Requests that were passed on to the other site.
    pub passed: u64,
    /// The number of all that happened.
    pub trace: u64,
}

/// What happens at a site.
#[derive(Debug)]
enum Next {
    Tick,
    Poll,
    TransferEnds(u64, IoId),
    StoreTurn(u64),
    Seat(Box<seat::Event>),
    Promised(PromiseFile),
    Frame(u64, Box<replication::wire::Frame>),
    /// The link is up in this life, or down.
    Link(Option<u64>),
    Room(u64),
    Fed(FeedId, Feed, Lsn),
    Reopened(Option<Lsn>),
    Request(Request),
}

#[derive(Debug)]
enum Happening {
    Node { node: usize, run: u64, next: Next },
    WitnessRead { node: usize, run: u64, id: AskId },
    WitnessSwap { node: usize, run: u64, id: AskId, expected: Option<Revision>, record: Record },
    Reply { client: usize, attempt: u64, answer: Answer },
    Client { client: usize, attempt: u64 },
    Start(usize),
    LinkLost(u64),
    LinkUp(u64),
    Fault(Fault),
}

/// The world of a seed.
#[derive(Debug)]
pub struct Pair {
    random: Random,
    time: u64,
    count: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    nodes: [Node; 2],
    witness: Witness,
    link: Link,
    clients: Vec<Client>,
    history: History,
    /// What the halves of a block hold once a write of it is done.
    written: BTreeMap<(u8, u64), [u64; 2]>,
    /// Every write is answered once it is on stable storage, so that a power cut excuses nothing.
    is_durable: bool,
    end_of_faults: u64,
    outcome: Outcome,
    trace: Trace,
    finding: Option<Finding>,
}

impl Pair {
    /// Runs the world of a seed. Its last lines are told, too, when `is_told`.
    pub fn run(seed: u64, is_told: bool) -> (Result<Outcome, Finding>, Vec<String>) {
        Self::run_by(Plan::new, seed, is_told)
    }

    /// Runs a world of a seed in which what is passed on comes late.
    pub fn run_late(seed: u64) -> Result<Outcome, Finding> {
        Self::run_by(Plan::late, seed, false).0
    }

    fn run_by(plan: fn(&mut Random) -> Plan, seed: u64, is_told: bool) -> (Result<Outcome, Finding>, Vec<String>) {
        let mut lines = Vec::new();
        let result = caught(|| {
            let mut pair = Self::new(plan, seed, is_told)?;
            let result = pair.live();
            lines = pair.trace.lines().to_vec();
            result.map(|()| Outcome { trace: pair.trace.hash(), ..pair.outcome })
        });
        (result, lines)
    }

    fn new(plan: fn(&mut Random) -> Plan, seed: u64, is_told: bool) -> Result<Self, Finding> {
        let mut random = Random::new(seed);
        let plan = plan(&mut random);
        let nodes = [Node::new(0, &plan, &mut random)?, Node::new(1, &plan, &mut random)?];
        let mut witness = Witness::default();
        let (primary, epoch) = (SiteId(1), Epoch(1));
        witness.swap(None, Record { epoch, primary, partner: None, is_sole: false, lineage: 1, fork: None });
        let clients = (0..7).map(|index| Client::new(index, index >= 5, &mut random)).collect();
        let mut pair = Self {
            random,
            time: MILLISECOND,
            count: 0,
            queue: BTreeMap::new(),
            nodes,
            witness,
            link: Link::new(&plan),
            clients,
            history: History::default(),
            written: BTreeMap::new(),
            is_durable: plan.is_durable,
            end_of_faults: plan.end,
            outcome: Outcome::default(),
            trace: Trace::new(is_told),
            finding: None,
        };
        for (at, fault) in plan.faults {
            pair.at(at, Happening::Fault(fault));
        }
        Ok(pair)
    }

    fn live(&mut self) -> Result<(), Finding> {
        for node in 0..2 {
            self.at(self.time + node as u64 * 20 * MILLISECOND, Happening::Start(node));
        }
        self.at(self.time, Happening::LinkUp(0));
        for client in 0..self.clients.len() {
            self.at(self.time + MILLISECOND, Happening::Client { client, attempt: 0 });
        }
        self.run_until(self.end_of_faults)?;
        self.heal();
        self.run_until(self.end_of_faults + SERVED_WITHIN)?;
        self.judge_service()?;
        self.await_equal()?;
        if self.is_apart() {
            return self.judge_history();
        }
        // Either site alone has all that was acknowledged.
        let lost = self.random.below(2) as usize;
        self.say(|| format!("site {} is lost", lost + 1));
        self.end_process(lost);
        self.read_all(1 - lost)?;
        self.judge_history()?;
        self.at(self.time, Happening::Start(lost));
        self.await_equal()?;
        if self.is_apart() {
            return self.judge_history();
        }
        self.end_process(1 - lost);
        self.read_all(lost)?;
        self.judge_history()
    }

    fn await_equal(&mut self) -> Result<(), Finding> {
        let end = self.time + EQUAL_WITHIN;
        while self.time < end && !self.is_equal() && !self.is_apart() {
            self.run_until(self.time + 500 * MILLISECOND)?;
        }
        if self.is_equal() {
            return Ok(());
        }
        if self.is_apart() {
            self.outcome.apart += 1;
            // What is stored at both sites is never to be cut off.
            let is_stored =
                |node: &Node| node.seat.as_ref().is_some_and(|seat| matches!(seat.apart(), Some(Apart::Stored(_))));
            let is_stored = self.nodes.iter().any(is_stored);
            return if is_stored { Err(Finding(format!("P1: {}", self.roles()))) } else { Ok(()) };
        }
        Err(Finding(format!("P6: the sites are not in sync and equal long after the last fault: {}", self.roles())))
    }

    /// One log cannot be brought up to date by the other one, since that has forgotten too much: it has to be made anew.
    fn is_apart(&self) -> bool {
        let is_apart =
            |node: &Node| node.seat.as_ref().is_some_and(|seat| seat.apart().is_some() || seat.gone().is_some());
        self.clients.iter().all(Client::is_idle) && self.nodes.iter().any(is_apart)
    }

    /// Both sites are in sync, nothing is under way, and both logs end in the same batch.
    fn is_equal(&self) -> bool {
        let record = self.witness.seen().map(|seen| seen.record);
        let is_in_sync = record.is_some_and(|record| record.partner.is_some() && !record.is_sole);
        let [one, other] = self.nodes.each_ref().map(|node| node.site.volume.as_ref().map(|volume| volume.end()));
        is_in_sync && self.clients.iter().all(Client::is_idle) && one.is_some() && one == other
    }

    /// Reads every block where `node` serves.
    fn read_all(&mut self, node: usize) -> Result<(), Finding> {
        let until = self.time + SERVED_WITHIN;
        self.send_readers(node);
        while self.clients.iter().any(|client| !client.is_idle()) {
            if self.time > until {
                return Err(Finding(format!("P6: the site that is left does not serve: {}", self.roles())));
            }
            self.run_until(self.time + 100 * MILLISECOND)?;
        }
        Ok(())
    }

    fn run_until(&mut self, until: u64) -> Result<(), Finding> {
        while let Some((key, _)) = self.queue.first_key_value() {
            if key.0 > until {
                break;
            }
            let Some(((at, _), happening)) = self.queue.pop_first() else { break };
            self.time = self.time.max(at);
            self.happen(happening);
            if let Some(finding) = self.finding.take() {
                return Err(finding);
            }
        }
        self.time = self.time.max(until);
        Ok(())
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Node { node, run, next } => {
                if self.nodes[node].run != run {
                    return;
                }
                if self.nodes[node].stalled_until > self.time {
                    let at = self.nodes[node].stalled_until;
                    return self.at(at, Happening::Node { node, run, next });
                }
                self.on_node(node, next);
            }
            Happening::WitnessRead { node, run, id } => self.on_witness_read(node, run, id),
            Happening::WitnessSwap { node, run, id, expected, record } => {
                self.on_witness_swap(node, (run, id), expected, record);
            }
            Happening::Reply { client, attempt, answer } => self.on_reply(client, attempt, answer),
            Happening::Client { client, attempt } => self.on_client(client, attempt),
            Happening::Start(node) => self.start(node),
            Happening::LinkLost(life) => self.on_link_lost(life),
            Happening::LinkUp(life) => self.on_link_up(life),
            Happening::Fault(fault) => self.on_fault(fault),
        }
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.count += 1;
        self.queue.insert((time, self.count), happening);
    }

    fn node_at(&mut self, time: u64, node: usize, next: Next) {
        let run = self.nodes[node].run;
        self.at(time, Happening::Node { node, run, next });
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        let time = self.time;
        self.trace.tell(|| format!("{:>10.3} {}", time as f64 / MILLISECOND as f64, line()));
    }

    fn find(&mut self, finding: String) {
        self.finding.get_or_insert(Finding(finding));
    }

    fn judge_service(&mut self) -> Result<(), Finding> {
        let is_waiting = |client: &Client| !client.is_reader && client.served_at < self.end_of_faults;
        if let Some(client) = self.clients.iter().position(is_waiting) {
            return Err(Finding(format!("P6: client {client} was not served after the last fault: {}", self.roles())));
        }
        self.clients.iter_mut().for_each(|client| client.is_done = true);
        Ok(())
    }

    fn judge_history(&self) -> Result<(), Finding> {
        self.history.fault().map_or(Ok(()), |fault| Err(Finding(fault)))
    }

    fn roles(&self) -> String {
        let role = |node: &Node| {
            let seat = node.seat.as_ref().map_or_else(
                || "down".to_owned(),
                |seat| format!("{}, apart {:?}, gone {:?}", seat.member().role(), seat.apart(), seat.gone()),
            );
            let end = node.site.volume.as_ref().map(|volume| (volume.end(), volume.counted_end().lsn));
            let admits = node.seat.as_ref().map(Seat::admits);
            format!("{seat}, log {end:?}, {:?}", admits.unwrap_or(Admission::Refuse))
        };
        let [one, other] = self.nodes.each_ref().map(role);
        let waiting: Vec<&Client> = self.clients.iter().filter(|client| !client.is_idle()).collect();
        let record = self.witness.seen().map(|seen| seen.record);
        format!("1: {one}; 2: {other}; record {record:?}; waiting {waiting:?}")
    }
}
