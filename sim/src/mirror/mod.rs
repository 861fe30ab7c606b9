//! The world of a mirror: two sites with logs and role machines, a witness, networks, clients, and an oracle that judges.
//!
//! What is judged: every block is linearizable over all clients (P2); what was acknowledged is in the log of every site that
//! begins to lead (P1); epochs of acknowledgements never go back and have one site each (P4); a joining site has all that was
//! acknowledged; after the last fault the group serves within [`SERVED_WITHIN`] and its logs become equal (P6); each change
//! of roles has its evidence.

pub(crate) mod clients;
mod driver;
mod eras;
pub(crate) mod faults;
pub(crate) mod history;
mod judge;
mod link;
mod log;
pub mod plan;
pub mod seeds;
pub(crate) mod site;
pub(crate) mod witness;

use crate::random::Random;
use crate::trace::{Finding, Trace};
use clients::Client;
use faults::Fault;
use judge::Judge;
use link::Link;
use plan::{Case, Plan};
use replication::{Config, Event, Policy, Record, Revision};
use site::{PromiseFile, Request, Site};
use std::collections::BTreeMap;
use std::time::Duration;
use units::{Epoch, GroupId, SiteId};
use witness::Witness;

/// Blocks that clients use.
const BLOCKS: u64 = 6;

/// After the last fault every client is served within this time.
pub const SERVED_WITHIN: Duration = Duration::from_mins(1);

/// And within this time the sites are in sync: the longest pause before a join, and some.
const EQUAL_WITHIN: Duration = Duration::from_mins(16);

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;

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
    /// Times that acknowledged operations were lost with an excuse.
    pub excuses: u64,
    /// The number of all that happened.
    pub trace: u64,
}

/// What happens next.
#[derive(Debug)]
enum Next {
    Tick,
    Member(Event),
    /// The site's log is told of.
    Report,
    Appended,
    Synced {
        upto: u64,
    },
    Promised(PromiseFile),
    Data(link::Data),
    /// A site streams on.
    Stream,
    Request(Request),
}

/// To whom it happens.
#[derive(Debug)]
enum Happening {
    Site { site: usize, run: u64, next: Next },
    WitnessRead { site: usize, run: u64, id: replication::AskId },
    WitnessSwap { site: usize, run: u64, id: replication::AskId, expected: Option<Revision>, record: Record },
    Reply { client: usize, attempt: u64, answer: clients::Answer },
    Client { client: usize, attempt: u64 },
    Start { site: usize },
    Fault(Fault),
}

/// The world.
#[derive(Debug)]
pub struct World {
    random: Random,
    time: u64,
    count: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    sites: [Site; 2],
    witness: Witness,
    /// Changes that reach the witness wait.
    witness_holds: bool,
    held_changes: Vec<Happening>,
    link: Link,
    clients: Vec<Client>,
    judge: Judge,
    end_of_faults: u64,
    is_healed: bool,
    trace: Trace,
    finding: Option<Finding>,
}

impl World {
    /// Makes the world of a seed.
    #[must_use]
    pub fn new(seed: u64, is_told: bool) -> Self {
        let mut random = Random::new(seed);
        let case = Case::of(seed);
        let plan = Plan::new(case, &mut random);
        let sites = [0, 1].map(|index| {
            let config = Config {
                group: GroupId(1),
                me: SiteId(1 + index as u8),
                peer: SiteId(2 - index as u8),
                policy: if plan.is_strict { Policy::Strict } else { Policy::Available },
                reads: plan.reads,
            };
            Site {
                config,
                log: log::Log::default(),
                file: PromiseFile::default(),
                process: None,
                run: 0,
                boot: 0,
                stalled_until: 0,
                rate: plan.rates[index],
                offset: random.below(1 << 40),
                sync_max: random.within(2, plan.sync_ms_max) * MILLISECOND,
                has_lost: false,
            }
        });
        let mut witness = Witness::default();
        let first =
            Record { epoch: Epoch(1), primary: SiteId(1), partner: None, is_sole: false, lineage: 1, fork: None };
        if case != Case::Calm {
            witness.swap(None, first);
        }
        let readers = plan.clients..plan.clients + 2;
        let clients = (0..readers.end).map(|index| Client::new(index, readers.contains(&index), &mut random)).collect();
        let mut world = Self {
            random,
            time: MILLISECOND,
            count: 0,
            queue: BTreeMap::new(),
            sites,
            witness,
            witness_holds: false,
            held_changes: Vec::new(),
            link: Link { delay_ms: plan.link_ms, ..Link::default() },
            clients,
            judge: Judge::default(),
            end_of_faults: plan.end,
            is_healed: false,
            trace: Trace::new(is_told),
            finding: None,
        };
        for (at, fault) in plan.faults {
            world.at(at, Happening::Fault(fault));
        }
        world
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// What no promise allows.
    pub fn run(&mut self) -> Result<Outcome, Finding> {
        for site in 0..2 {
            self.at(self.time, Happening::Start { site });
        }
        for client in 0..self.clients.len() {
            self.at(self.time + MILLISECOND, Happening::Client { client, attempt: 0 });
        }
        self.run_until(self.end_of_faults)?;
        self.heal();
        self.run_until(self.end_of_faults + SERVED_WITHIN.as_nanos() as u64)?;
        self.judge_service()?;
        let end = self.time + EQUAL_WITHIN.as_nanos() as u64;
        while self.time < end && !self.is_equal() {
            self.run_until(self.time + 1000 * MILLISECOND)?;
        }
        self.judge_end()?;
        self.trace.note(&[self.time, self.judge.answers]);
        Ok(Outcome { trace: self.trace.hash(), ..self.judge.outcome() })
    }

    /// What happened lately.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.trace.lines()
    }

    fn run_until(&mut self, end: u64) -> Result<(), Finding> {
        while let Some(((at, _), _)) = self.queue.first_key_value()
            && *at <= end
        {
            let Some(((at, order), happening)) = self.queue.pop_first() else { break };
            self.time = at;
            self.happen(order, happening);
            if let Some(finding) = self.finding.take() {
                self.say(|| format!("{finding}"));
                return Err(finding);
            }
        }
        self.time = end;
        Ok(())
    }

    fn happen(&mut self, order: u64, happening: Happening) {
        match happening {
            Happening::Site { site, run, next } => {
                if self.sites[site].run != run || self.sites[site].process.is_none() {
                    return;
                }
                let stalled_until = self.sites[site].stalled_until;
                if stalled_until > self.time {
                    // It happens when the site goes on, in the order in which it would have.
                    self.queue.insert((stalled_until, order), Happening::Site { site, run, next });
                    return;
                }
                self.on_site(site, next);
            }
            Happening::WitnessRead { site, run, id } => self.on_witness_read(site, run, id),
            happening @ Happening::WitnessSwap { .. } if self.witness_holds => self.held_changes.push(happening),
            Happening::WitnessSwap { site, run, id, expected, record } => {
                self.on_witness_swap(site, (run, id), expected, record);
            }
            Happening::Reply { client, attempt, answer } => self.on_reply(client, attempt, answer),
            Happening::Client { client, attempt } => self.on_client(client, attempt),
            Happening::Start { site } => self.start(site),
            Happening::Fault(fault) => self.on_fault(fault),
        }
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.count += 1;
        self.queue.insert((time.max(self.time), self.count), happening);
    }

    fn site_at(&mut self, time: u64, site: usize, next: Next) {
        let run = self.sites[site].run;
        self.at(time, Happening::Site { site, run, next });
    }

    fn find(&mut self, finding: String) {
        self.finding.get_or_insert(Finding(finding));
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        let time = self.time;
        self.trace.tell(|| format!("{:>10.3} {}", time as f64 / 1e9, line()));
    }
}
