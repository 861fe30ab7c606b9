//! A site: what survives its process, and the process.

use super::clients::Request;
use super::faults::Plan;
use crate::mirror::site::PromiseFile;
use crate::random::Random;
use crate::trace::Finding;
use crate::twins::site::Site;
use replication::passing::{Answer, Answerer, Asker, Guest, Held};
use replication::seat::{self, Seat};
use replication::{Config, Policy};
use std::collections::{BTreeMap, VecDeque};
use units::{Epoch, GroupId, Monotonic, SiteId};
use volume::request::{Completion, RequestId};

/// Whose a request is that was begun.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    Client(Request),
    Guest(Guest),
}

impl Origin {
    pub(super) const fn client(self) -> Option<Request> {
        match self {
            Self::Client(request) => Some(request),
            Self::Guest(_) => None,
        }
    }
}

/// A site.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) config: Config,
    pub(super) site: Site,
    pub(super) seat: Option<Seat>,
    pub(super) file: PromiseFile,
    /// Counts boots of the machine, and starts of the process.
    pub(super) boot: u64,
    pub(super) run: u64,
    pub(super) stalled_until: u64,
    /// How fast its clock goes, in thousandths, and where it began.
    pub(super) rate: u64,
    pub(super) offset: u64,
    /// A power cut took from its log, and it has not joined since.
    pub(super) has_lost: bool,
    /// The life of the link that it was told of.
    pub(super) link_life: Option<u64>,
    /// What the volume was asked, and when that came.
    pub(super) asked: BTreeMap<RequestId, (Origin, Monotonic)>,
    pub(super) next_request: u64,
    /// Requests that wait, in their order.
    pub(super) waiting: VecDeque<Held<Origin>>,
    /// What reads have found and may not show yet.
    pub(super) found: Vec<(Origin, Monotonic, Completion)>,
    /// What was passed on, and when more may be.
    pub(super) asker: Asker<Origin>,
    pub(super) ask_again_at: u64,
    /// What the other site has passed on, and answers for which there was no room.
    pub(super) answerer: Answerer,
    pub(super) answers: VecDeque<Answer>,
    /// What the seat has still to be told.
    pub(super) news: VecDeque<seat::Event>,
}

impl Node {
    pub(super) fn new(index: u8, plan: &Plan, random: &mut Random) -> Result<Self, Finding> {
        let mut site = Site::new(index, random)?;
        // It was closed well.
        site.die(false, random);
        site.slots_wanted = plan.slots_wanted;
        Ok(Self {
            config: Config {
                group: GroupId(1),
                me: SiteId(1 + index),
                peer: SiteId(2 - index),
                policy: Policy::Available,
                reads: plan.reads,
            },
            site,
            seat: None,
            file: PromiseFile::default(),
            boot: 0,
            run: 0,
            stalled_until: 0,
            rate: plan.rates[usize::from(index)],
            offset: random.below(1 << 40),
            has_lost: false,
            link_life: None,
            asked: BTreeMap::new(),
            next_request: 0,
            waiting: VecDeque::new(),
            found: Vec::new(),
            asker: Asker::default(),
            ask_again_at: 0,
            answerer: Answerer::default(),
            answers: VecDeque::new(),
            news: VecDeque::new(),
        })
    }

    /// Its clock.
    pub(super) const fn clock(&self, time: u64) -> Monotonic {
        Monotonic(self.offset + time / 1000 * self.rate)
    }

    /// The epoch that it has promised.
    pub(super) fn epoch(&self) -> Epoch {
        self.seat.as_ref().map_or(Epoch(0), |seat| seat.member().epoch())
    }

    /// Every request that was begun and has no answer yet, taken away.
    pub(super) fn take_begun(&mut self) -> Vec<Origin> {
        let asked = std::mem::take(&mut self.asked).into_values().map(|(origin, _)| origin);
        asked.chain(self.found.drain(..).map(|(origin, ..)| origin)).collect()
    }

    /// The process ends: who waits for nothing that the other site may yet begin, and who waits for such.
    pub(super) fn lose_requests(&mut self, time: u64) -> (Vec<Request>, Vec<Request>) {
        let now = self.clock(time);
        let passed = self.asker.take_all();
        let (free, tried): (Vec<_>, Vec<_>) = self.waiting.drain(..).chain(passed).partition(|held| held.may_fail(now));
        let free = self.take_begun().into_iter().chain(free.into_iter().map(|held| held.key));
        let free = free.filter_map(Origin::client).collect();
        (self.answerer, self.asker) = (Answerer::default(), Asker::default());
        self.answers.clear();
        (free, tried.into_iter().filter_map(|held| held.key.client()).collect())
    }
}
