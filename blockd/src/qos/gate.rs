//! Who may pass: the ceilings of volumes and tenants, the share of each tenant in the shard, and who waits for which.
//!
//! A connection whose next request may not pass waits in the queue of what keeps it: a ceiling, which opens by time, or a
//! share, which opens when requests of its sharer are answered. A request passes everything at once or
//! pays nothing, and waits in one queue at a time; who has waited longest comes first in each, wherever that was. Queues are
//! called in the order in which they opened, one connection of each before the next, however many open at once: so nobody waits
//! for ever.
//!
//! Shares are windows: while several sharers have been active lately, each that is busy may have its part of [`WINDOW`] under
//! way, and one request at least. What is under way is what the next one waits for, on the shard's thread and in the disk's queue, so that
//! one who asks for little finds short queues; and sharers with equal windows are served equally. A request that is larger than
//! the part goes alone, and when another one waits behind it, its sharer then rests for as long as it took. Alone, nobody has a limit.

use super::bucket::Bucket;
use super::credits::Credits;
use super::division::TenantUse;
use super::limits::{Ceiling, QosLimits};
use slab::Slab;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;
use units::{Monotonic, TenantId};

/// Work that all sharers together may have under way on a shard while there are several; in bytes.
const WINDOW: u64 = 48 << 10;

/// What a request costs the shard beside the bytes that it moves, in such bytes.
const REQUEST_WORK: u64 = 8 << 10;

/// So long after its last request a sharer counts as active: the pause of one who asks for one thing after the other.
const ACTIVE_FOR: Duration = Duration::from_millis(100);

/// Between whom a shard is shared fairly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FairShares {
    /// Nobody.
    Off,
    /// Tenants, whatever number of volumes they have.
    #[default]
    Tenants,
    /// Volumes, whosever they are.
    Volumes,
}

/// The work of a request that moves so many bytes.
pub(crate) const fn work_of(bytes: u64) -> u64 {
    REQUEST_WORK + bytes
}

/// A volume's place in the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    volume: usize,
    tenant: usize,
    /// Who has the share: one of them, or nobody.
    sharer: Option<usize>,
}

/// A request that wants to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Whose connection: it is called when it may try again.
    pub(crate) key: usize,
    /// Bytes that it reads or writes.
    pub(crate) bytes: u64,
}

/// Where a connection waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// For the ceiling of the party at this place.
    Ceiling(usize),
    /// For the share of the party at this place.
    Share(usize),
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    ask: Ask,
    /// Its place among all that wait, whichever queue they are in.
    ticket: u64,
    since: Monotonic,
    /// The volume, which counts the wait.
    volume: usize,
}

/// When a queue opens. Of those that do at one moment, who was noted first comes first.
type Opening = (Monotonic, u64);

/// What is left of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CreditStatus {
    /// Whole credits; below 0 what is owed.
    pub left: i64,
    /// Credits spent since the start.
    pub spent: u64,
}

/// What there is to tell of a volume's quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QosStatus {
    /// Its ceilings.
    pub limits: QosLimits,
    /// Of operations; absent without a ceiling.
    pub iops: Option<CreditStatus>,
    /// Of bytes.
    pub bandwidth: Option<CreditStatus>,
    /// Requests that waited for a ceiling, the volume's or its tenant's.
    pub throttled_requests: u64,
    /// Time that they did, each at the head of its connection, in nanoseconds.
    pub throttled_ns: u64,
    /// Requests that waited for their tenant's share.
    pub shared_requests: u64,
    /// Time that they did, in nanoseconds.
    pub shared_ns: u64,
}

/// A volume, or a tenant.
#[derive(Debug, Default)]
struct Party {
    ceilings: Ceilings,
    waiting: VecDeque<Waiter>,
    /// When the ceiling opens for who waits first.
    opening: Option<Opening>,
    share: Share,
    /// Requests that have waited for its ceiling.
    waited: u64,
    status: QosStatus,
}

/// The buckets of a party.
#[derive(Debug, Default)]
struct Ceilings {
    limits: QosLimits,
    operations: Option<Bucket>,
    bytes: Option<Bucket>,
}

#[derive(Debug)]
struct Share {
    weight: u64,
    in_flight: u64,
    last_asked: Monotonic,
    is_active: bool,
    /// Whether it has something under way, or somebody waits for it.
    is_busy: bool,
    /// When it may have room for who waits first.
    opening: Option<Opening>,
    /// When what is under way began, and whether it has been more than its part.
    begun: Monotonic,
    is_large: bool,
    /// When a large one ended, until its rest is known; and until when it rests.
    ended: Option<Monotonic>,
    rests_until: Monotonic,
    waiting: VecDeque<Waiter>,
}

impl Default for Share {
    fn default() -> Self {
        let waiting = VecDeque::new();
        Self {
            weight: 1,
            in_flight: 0,
            last_asked: Monotonic::default(),
            is_active: false,
            is_busy: false,
            opening: None,
            begun: Monotonic::default(),
            is_large: false,
            ended: None,
            rests_until: Monotonic::default(),
            waiting,
        }
    }
}

impl Share {
    /// Until when it rests behind a request that was larger than its part; `now` where it does not. How long that took is known
    /// in a later turn, with what its reply cost.
    fn rests_until(&mut self, now: Monotonic) -> Monotonic {
        match self.ended {
            Some(ended) if now <= ended => return Monotonic(ended.0 + 1),
            Some(_) => {
                self.ended = None;
                self.rests_until = now.plus(now.since(self.begun));
            }
            None => {}
        }
        self.rests_until.max(now)
    }
}

impl Ceilings {
    fn advance(&mut self, now: Monotonic) {
        self.buckets().for_each(|bucket| bucket.advance(now));
    }

    fn buckets(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.operations.iter_mut().chain(&mut self.bytes)
    }

    fn priced(&self, bytes: u64) -> impl Iterator<Item = (&Bucket, u64)> {
        let operations = self.operations.iter().map(move |bucket| (bucket, self.limits.operations(bytes)));
        operations.chain(self.bytes.iter().map(move |bucket| (bucket, bytes)))
    }

    fn admits(&self, bytes: u64) -> bool {
        self.priced(bytes).all(|(bucket, cost)| bucket.admits(cost))
    }

    fn opens_at(&self, bytes: u64) -> Monotonic {
        self.priced(bytes).map(|(bucket, cost)| bucket.opens_at(cost)).max().unwrap_or_default()
    }

    fn take(&mut self, bytes: u64) {
        let operations = self.limits.operations(bytes);
        self.operations.iter_mut().for_each(|bucket| bucket.take(operations));
        self.bytes.iter_mut().for_each(|bucket| bucket.take(bytes));
    }

    /// Changes the ceilings; returns the credits that find no room. Where there was no ceiling, `credits` are there.
    fn set(&mut self, now: Monotonic, limits: QosLimits, credits: Credits) -> (u64, u64) {
        self.limits = limits;
        (
            set_bucket(&mut self.operations, now, limits.iops, credits.operations),
            set_bucket(&mut self.bytes, now, limits.bandwidth, credits.bytes),
        )
    }
}

fn set_bucket(bucket: &mut Option<Bucket>, now: Monotonic, ceiling: Option<Ceiling>, credits: Option<i64>) -> u64 {
    match (bucket.as_mut(), ceiling) {
        (Some(bucket), Some(ceiling)) => return bucket.set_ceiling(now, ceiling),
        (None, Some(ceiling)) => {
            let new = |credits| Bucket::new(ceiling, now, credits);
            *bucket = Some(credits.map_or_else(|| Bucket::full(ceiling, now), new));
        }
        (_, None) => *bucket = None,
    }
    0
}

/// The gate of a shard.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    fair_shares: FairShares,
    parties: Slab<Party>,
    tenants: HashMap<TenantId, usize>,
    /// Queues in which somebody waits, by when they open; a share is in it when it may have room.
    openings: BTreeMap<Opening, Queue>,
    next_opening: u64,
    /// Sharers that have asked lately, and when it is looked who has not.
    active: Vec<usize>,
    looks_at: Monotonic,
    /// The weights of those that are busy, together.
    busy_weight: u64,
    /// How many wait for a share.
    share_waiters: usize,
    /// Who was called last, and from where.
    called: Option<(Waiter, Queue)>,
    next_ticket: u64,
}

impl Gate {
    pub(crate) fn new(fair_shares: FairShares) -> Self {
        Self { fair_shares, ..Self::default() }
    }

    /// Takes a volume in.
    pub(crate) fn open(&mut self, now: Monotonic, qos: super::VolumeQos) -> Standing {
        let tenant = self.tenant(qos.tenant);
        let volume = self.parties.insert(Party::default());
        if let Some(party) = self.parties.get_mut(volume) {
            party.ceilings.set(now, qos.limits, qos.credits);
        }
        let sharer = match self.fair_shares {
            FairShares::Off => None,
            FairShares::Tenants => Some(tenant),
            FairShares::Volumes => Some(volume),
        };
        Standing { volume, tenant, sharer }
    }

    /// Forgets a volume. Nobody waits for it any more.
    pub(crate) fn close(&mut self, standing: Standing) {
        let party = self.parties.remove(standing.volume);
        for opening in [party.opening, party.share.opening].into_iter().flatten() {
            self.openings.remove(&opening);
        }
        self.active.retain(|place| *place != standing.volume);
        if party.share.is_busy {
            self.busy_weight -= party.share.weight;
        }
    }

    /// A tenant stays known for as long as the shard is: there are few, and its credits must not come anew with a volume.
    fn tenant(&mut self, tenant: TenantId) -> usize {
        let parties = &mut self.parties;
        *self.tenants.entry(tenant).or_insert_with(|| parties.insert(Party::default()))
    }

    /// Changes a volume's ceilings. What it owes it goes on to owe: else whoever may change its class would pay nothing.
    pub(crate) fn set_volume(&mut self, now: Monotonic, standing: Standing, limits: QosLimits) {
        if let Some(party) = self.parties.get_mut(standing.volume) {
            party.ceilings.set(now, limits, Credits::default());
        }
        self.schedule(now, standing.volume);
    }

    /// Changes the shard's part of a tenant's ceilings, and puts credits in that were taken out elsewhere: into buckets
    /// that come anew as all that they hold. Returns the credits that found no room.
    pub(crate) fn set_tenant(
        &mut self,
        now: Monotonic,
        tenant: TenantId,
        (limits, credits): (QosLimits, Credits),
    ) -> Credits {
        let place = self.tenant(tenant);
        let Some(party) = self.parties.get_mut(place) else { return Credits::default() };
        let ceilings = &mut party.ceilings;
        let (had_operations, had_bytes) = (ceilings.operations.is_some(), ceilings.bytes.is_some());
        let (operations, bytes) = ceilings.set(now, limits, credits);
        let deposit = |bucket: &mut Option<Bucket>, had: bool, credits: Option<i64>| {
            let credits = credits.and_then(|credits| u64::try_from(credits).ok()).filter(|_| had);
            bucket.as_mut().zip(credits).map_or(0, |(bucket, credits)| bucket.deposit(credits))
        };
        let operations = operations + deposit(&mut ceilings.operations, had_operations, credits.operations);
        let bytes = bytes + deposit(&mut ceilings.bytes, had_bytes, credits.bytes);
        self.schedule(now, place);
        let whole = |credits| Some(i64::try_from(credits).unwrap_or(i64::MAX));
        Credits { operations: whole(operations), bytes: whole(bytes) }
    }

    /// Gives a tenant a larger or smaller share than others.
    pub(crate) fn set_weight(&mut self, tenant: TenantId, weight: u64) {
        let place = self.tenant(tenant);
        if let Some(party) = self.parties.get_mut(place) {
            let before = std::mem::replace(&mut party.share.weight, weight.max(1));
            if party.share.is_busy {
                self.busy_weight = self.busy_weight - before + party.share.weight;
            }
        }
    }

    /// Lets a request pass, or has its connection wait until it is called.
    ///
    /// # Errors
    /// Where it waits.
    pub(crate) fn ask(&mut self, now: Monotonic, standing: Standing, ask: Ask) -> Result<(), Queue> {
        let called = self.called.take().filter(|(waiter, _)| waiter.ask.key == ask.key);
        let ticket = called.map(|(waiter, _)| waiter.ticket);
        self.note_active(now, standing.sharer);
        let ceilings = [Queue::Ceiling(standing.volume), Queue::Ceiling(standing.tenant)];
        for queue in ceilings.into_iter().chain(standing.sharer.map(Queue::Share)) {
            if !self.is_open(now, queue, (ask, ticket)) {
                let ticket = ticket.unwrap_or(self.next_ticket);
                self.next_ticket = self.next_ticket.max(ticket + 1);
                let is_new = called.is_none_or(|(_, from)| from != queue);
                self.wait(Waiter { ask, ticket, since: now, volume: standing.volume }, (queue, is_new));
                return Err(queue);
            }
        }
        for place in [standing.volume, standing.tenant] {
            if let Some(party) = self.parties.get_mut(place) {
                party.ceilings.take(ask.bytes);
            }
        }
        Ok(())
    }

    /// Whether a request may pass what a queue is of, and those who wait in it.
    fn is_open(&mut self, now: Monotonic, queue: Queue, (ask, ticket): (Ask, Option<u64>)) -> bool {
        let is_next = |waiting: &VecDeque<Waiter>| {
            waiting.front().is_none_or(|first| ticket.is_some_and(|ticket| ticket < first.ticket))
        };
        match queue {
            Queue::Ceiling(place) => self.parties.get_mut(place).is_none_or(|party| {
                // Those who wait for a ceiling that was lifted are called: nobody else waits with them.
                if party.ceilings.limits.is_open() {
                    return true;
                }
                party.ceilings.advance(now);
                is_next(&party.waiting) && party.ceilings.admits(ask.bytes)
            }),
            Queue::Share(place) => {
                let is_resting = self.is_resting(now, place);
                self.parties.get(place).is_none_or(|Party { share, .. }| {
                    self.is_alone() || (is_next(&share.waiting) && !is_resting && self.has_room(share, ask.bytes))
                })
            }
        }
    }

    fn wait(&mut self, waiter: Waiter, (queue, is_new): (Queue, bool)) {
        if let Some(volume) = self.parties.get_mut(waiter.volume).filter(|_| is_new) {
            match queue {
                Queue::Ceiling(_) => volume.status.throttled_requests += 1,
                Queue::Share(_) => volume.status.shared_requests += 1,
            }
        }
        let (Queue::Ceiling(place) | Queue::Share(place)) = queue;
        let Some(party) = self.parties.get_mut(place) else { return };
        let waiting = match queue {
            Queue::Ceiling(_) => &mut party.waiting,
            Queue::Share(_) => &mut party.share.waiting,
        };
        // Most come last.
        let behind = waiting.partition_point(|other| other.ticket < waiter.ticket);
        waiting.insert(behind, waiter);
        match queue {
            Queue::Ceiling(_) => {
                party.waited += u64::from(is_new);
                if behind == 0 {
                    self.schedule(waiter.since, place);
                }
            }
            Queue::Share(_) => {
                self.share_waiters += 1;
                // Where nothing is under way, no answer will release it.
                if party.share.in_flight == 0 {
                    self.release(waiter.since, place);
                }
                self.note_busy(place);
            }
        }
    }

    /// Notes when the ceiling of a party opens for who waits first.
    fn schedule(&mut self, now: Monotonic, place: usize) {
        let Some(party) = self.parties.get_mut(place) else { return };
        if let Some(opening) = party.opening.take() {
            self.openings.remove(&opening);
        }
        party.ceilings.advance(now);
        if let Some(first) = party.waiting.front() {
            // One that is open already comes behind those that opened before.
            let opening = (party.ceilings.opens_at(first.ask.bytes).max(now), self.next_opening);
            self.next_opening += 1;
            self.openings.insert(opening, Queue::Ceiling(place));
            party.opening = Some(opening);
        }
    }

    /// Notes that a share may have room for who waits first.
    fn release(&mut self, now: Monotonic, place: usize) {
        let Some(share) = self.parties.get_mut(place).map(|party| &mut party.share) else { return };
        if !share.waiting.is_empty() && share.opening.is_none() {
            let opening = (share.rests_until(now), self.next_opening);
            self.next_opening += 1;
            self.openings.insert(opening, Queue::Share(place));
            share.opening = Some(opening);
        }
    }

    /// Forgets a connection that waits.
    pub(crate) fn leave(&mut self, queue: Queue, key: usize) {
        let (Queue::Ceiling(place) | Queue::Share(place)) = queue;
        let Some(party) = self.parties.get_mut(place) else { return };
        match queue {
            Queue::Ceiling(_) => party.waiting.retain(|waiter| waiter.ask.key != key),
            Queue::Share(_) => {
                let before = party.share.waiting.len();
                party.share.waiting.retain(|waiter| waiter.ask.key != key);
                self.share_waiters -= before - party.share.waiting.len();
            }
        }
        self.note_busy(place);
    }

    /// The next connection that may try again. It is to be called at once: only it passes those who wait.
    pub(crate) fn call(&mut self, now: Monotonic) -> Option<usize> {
        self.called = None;
        while self.called.is_none()
            && let Some(first) = self.openings.first_entry().filter(|first| first.key().0 <= now)
        {
            let queue = first.remove();
            let waiter = match queue {
                Queue::Ceiling(place) => self.call_for_ceiling(now, place),
                Queue::Share(place) => self.call_for_share(now, place),
            };
            self.called = waiter.map(|waiter| (waiter, queue));
        }
        self.called.map(|(waiter, _)| waiter.ask.key)
    }

    fn call_for_ceiling(&mut self, now: Monotonic, place: usize) -> Option<Waiter> {
        let party = self.parties.get_mut(place)?;
        party.opening = None;
        party.ceilings.advance(now);
        let ceilings = &party.ceilings;
        let first = party.waiting.pop_front_if(|first| ceilings.admits(first.ask.bytes));
        self.schedule(now, place);
        let first = first?;
        if let Some(volume) = self.parties.get_mut(first.volume) {
            volume.status.throttled_ns += nanoseconds(now.since(first.since));
        }
        Some(first)
    }

    fn call_for_share(&mut self, now: Monotonic, place: usize) -> Option<Waiter> {
        self.parties.get_mut(place)?.share.opening = None;
        if self.is_resting(now, place) {
            self.release(now, place);
            return None;
        }
        let share = &self.parties.get(place)?.share;
        let has_room = share.waiting.front().is_some_and(|first| self.has_room(share, first.ask.bytes));
        if !has_room {
            return None;
        }
        let first = self.parties.get_mut(place)?.share.waiting.pop_front()?;
        self.share_waiters -= 1;
        self.note_busy(place);
        self.release(now, place);
        if let Some(volume) = self.parties.get_mut(first.volume) {
            volume.status.shared_ns += nanoseconds(now.since(first.since));
        }
        Some(first)
    }

    /// Whether somebody who waits may be called.
    pub(crate) fn has_callable(&self, now: Monotonic) -> bool {
        self.opens_at().is_some_and(|at| at <= now)
    }

    /// Whether somebody waits for a share.
    pub(crate) const fn has_share_waiters(&self) -> bool {
        self.share_waiters > 0
    }

    /// When the next queue opens in which somebody waits.
    pub(crate) fn opens_at(&self) -> Option<Monotonic> {
        self.openings.keys().next().map(|(at, _)| *at)
    }

    /// Counts a request as under way.
    pub(crate) fn begin_work(&mut self, now: Monotonic, standing: Standing, work: u64) {
        let Some(sharer) = standing.sharer else { return };
        let busy_weight = self.busy_weight;
        if let Some(Party { share, .. }) = self.parties.get_mut(sharer) {
            if share.in_flight == 0 {
                (share.begun, share.is_large) = (now, false);
            }
            share.in_flight += work;
            share.is_large |= share.in_flight > WINDOW * share.weight / busy_weight.max(1);
            self.note_busy(sharer);
        }
    }

    /// Counts it no more.
    pub(crate) fn end_work(&mut self, now: Monotonic, standing: Standing, work: u64) {
        let Some(sharer) = standing.sharer else { return };
        let is_alone = self.is_alone();
        if let Some(party) = self.parties.get_mut(sharer) {
            party.share.in_flight = party.share.in_flight.saturating_sub(work);
            if party.share.in_flight == 0 && party.share.is_large && !party.share.waiting.is_empty() && !is_alone {
                party.share.ended = Some(now);
            }
            self.release(now, sharer);
            self.note_busy(sharer);
        }
    }

    fn note_busy(&mut self, place: usize) {
        let Some(share) = self.parties.get_mut(place).map(|party| &mut party.share) else { return };
        let is_busy = share.in_flight > 0 || !share.waiting.is_empty();
        match (std::mem::replace(&mut share.is_busy, is_busy), is_busy) {
            (false, true) => self.busy_weight += share.weight,
            (true, false) => self.busy_weight -= share.weight,
            (true, true) | (false, false) => {}
        }
    }

    /// Whether a sharer rests, so that others have as much of the shard as its last large request had.
    fn is_resting(&mut self, now: Monotonic, place: usize) -> bool {
        let is_alone = self.is_alone();
        self.parties.get_mut(place).is_some_and(|party| !is_alone && party.share.rests_until(now) > now)
    }

    /// Whether a sharer may have another request under way. One that has none may always: whoever waits for a share waits
    /// for an answer that comes.
    fn has_room(&self, share: &Share, bytes: u64) -> bool {
        self.is_alone()
            || share.in_flight == 0
            || share.in_flight + work_of(bytes) <= WINDOW * share.weight / self.busy_weight.max(1)
    }

    /// Whether several share the shard now.
    pub(crate) const fn is_shared(&self) -> bool {
        !self.is_alone()
    }

    /// Whether nobody else has been active lately.
    const fn is_alone(&self) -> bool {
        self.active.len() < 2
    }

    fn note_active(&mut self, now: Monotonic, sharer: Option<usize>) {
        let Some(sharer) = sharer else { return };
        if now >= self.looks_at {
            self.forget_inactive(now);
        }
        if let Some(party) = self.parties.get_mut(sharer) {
            party.share.last_asked = now;
            if !std::mem::replace(&mut party.share.is_active, true) {
                self.active.push(sharer);
            }
        }
    }

    /// Looks who has not asked for long, and has nothing under way.
    fn forget_inactive(&mut self, now: Monotonic) {
        self.looks_at = now.plus(ACTIVE_FOR / 4);
        let Self { active, parties, .. } = self;
        active.retain(|place| {
            let Some(share) = parties.get_mut(*place).map(|party| &mut party.share) else { return false };
            share.is_active = share.in_flight > 0 || now.since(share.last_asked) < ACTIVE_FOR;
            share.is_active
        });
    }

    /// What there is to tell of a volume.
    pub(crate) fn status(&self, now: Monotonic, standing: Standing) -> QosStatus {
        self.parties.get(standing.volume).map_or_else(QosStatus::default, |party| {
            let status = |bucket: &Option<Bucket>| bucket.as_ref().map(|bucket| credit_status(bucket, now));
            QosStatus {
                limits: party.ceilings.limits,
                iops: status(&party.ceilings.operations),
                bandwidth: status(&party.ceilings.bytes),
                ..party.status
            }
        })
    }

    /// What is left to a volume, when it has ceilings.
    pub(crate) fn credits(&self, now: Monotonic, standing: Standing) -> Option<Credits> {
        let status = self.status(now, standing);
        let left = |status: Option<CreditStatus>| status.map(|status| status.left);
        (!status.limits.is_open()).then(|| Credits { operations: left(status.iops), bytes: left(status.bandwidth) })
    }

    /// What tenants with ceilings have used of them.
    pub(crate) fn tenant_use(&self, now: Monotonic) -> Vec<(TenantId, TenantUse)> {
        let of_party = |(tenant, place): (&TenantId, &usize)| {
            let party = self.parties.get(*place).filter(|party| !party.ceilings.limits.is_open())?;
            let status = |bucket: &Option<Bucket>| bucket.as_ref().map(|bucket| credit_status(bucket, now));
            let (operations, bytes) = (status(&party.ceilings.operations), status(&party.ceilings.bytes));
            let waiting = u64::try_from(party.waiting.len()).unwrap_or(u64::MAX);
            Some((*tenant, TenantUse { operations, bytes, waiting, waited: party.waited }))
        };
        self.tenants.iter().filter_map(of_party).collect()
    }
}

fn credit_status(bucket: &Bucket, now: Monotonic) -> CreditStatus {
    let mut bucket = bucket.clone();
    bucket.advance(now);
    CreditStatus { left: bucket.credits(), spent: bucket.spent() }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
