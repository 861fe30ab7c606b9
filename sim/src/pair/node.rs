//! A site: what survives its process, and the process.

use super::clients::Request;
use super::faults::Plan;
use crate::mirror::site::PromiseFile;
use crate::random::Random;
use crate::trace::Finding;
use crate::twins::site::Site;
use replication::seat::{self, Seat};
use replication::{Config, Policy};
use std::collections::{BTreeMap, VecDeque};
use units::{GroupId, Monotonic, SiteId};
use volume::request::RequestId;

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
    pub(super) asked: BTreeMap<RequestId, (Request, Monotonic)>,
    pub(super) next_request: u64,
    /// Requests that wait for a role.
    pub(super) held: Vec<Request>,
    /// What reads have found and may not show yet.
    pub(super) found: Vec<(Request, Monotonic, u64)>,
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
            held: Vec::new(),
            found: Vec::new(),
            news: VecDeque::new(),
        })
    }

    /// Its clock.
    pub(super) const fn clock(&self, time: u64) -> Monotonic {
        Monotonic(self.offset + time / 1000 * self.rate)
    }

    /// Every request that has no answer yet, taken away.
    pub(super) fn take_requests(&mut self) -> Vec<Request> {
        let asked = std::mem::take(&mut self.asked).into_values().map(|(request, _)| request);
        let found = self.found.drain(..).map(|(request, ..)| request);
        asked.chain(found).chain(self.held.drain(..)).collect()
    }
}
