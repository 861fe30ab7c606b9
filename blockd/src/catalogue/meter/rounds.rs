//! Rounds: when a period has ended, the registers of all volumes are read and written to the ledger; then what snapshots,
//! history and the pool hold is measured anew.

use super::super::record::{MeterChange, Record, VolumeRecord};
use super::super::{Catalogue, CatalogueError, ask};
use super::machine::{dimension_of, with_clock};
use super::{Keeping, MeterFigures, ledger, machine};
use crate::metering::clocks;
use metering::ledger::{Date, Kind, NewEntry, encode_readings};
use metering::{Dimension, KeptClock, Mark, Reading, Registers};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use units::{BLOCK_BYTES, ClassId, Epoch, MeterTime, TenantId, VolumeId};
use volume::pool::{Gauge, Measured, MeterReading, RequestCounts};
use volume::request::{Completion, Request};

/// How often the clocks are looked at, and what was asked of volumes is noted.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// How long after a period its readings are taken: by then volumes have told what is in it.
const READ_BEHIND_MS: u64 = 1500;

/// Volumes whose readings are appended together.
const VOLUMES_PER_APPEND: usize = 256;

/// Volumes asked about before the first answer is waited for.
const ASKED_MAX: usize = 32;

/// The registers count from 0 in the first epoch, and nobody else counts them.
const EPOCH: Epoch = Epoch(1);

/// Periods of a volume that a round reads: two weeks in which nothing ran.
const PERIODS_MAX: usize = 4096;

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// A volume that is read.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    pub(super) volume: VolumeId,
    pub(super) tenant: TenantId,
    /// When it was made, where that is known.
    from: Option<MeterTime>,
    class: ClassId,
    /// Changes of its class that may not be in the ledger yet.
    changes: Vec<MeterChange>,
}

impl Resource {
    pub(super) fn of(record: &VolumeRecord) -> Self {
        let (volume, tenant) = (VolumeId(record.id), TenantId(record.tenant));
        let (from, class) = (record.metered.from.map(MeterTime), ClassId(record.class));
        Self { volume, tenant, from, class, changes: record.meter_changes.clone() }
    }

    /// Its class at a moment.
    fn class_at(&self, at: MeterTime) -> ClassId {
        let done = self.changes.iter().rev().find(|change| change.at <= at.0).map(|change| change.class);
        let before = self.changes.first().map(|change| change.before);
        done.or(before).map_or(self.class, ClassId)
    }

    /// Its class at a moment behind a reading, and how often that has changed by then: once at least when it is another.
    pub(super) fn class_after(&self, before: &Reading, at: MeterTime) -> (ClassId, u64) {
        let class = self.class_at(at);
        let changes = self.changes_between(before.at, at).max(u64::from(class != before.class));
        (class, before.changes + changes)
    }

    /// How often its class changed behind one moment, up to another.
    fn changes_between(&self, after: MeterTime, to: MeterTime) -> u64 {
        self.changes.iter().filter(|change| after.0 < change.at && change.at <= to.0).count() as u64
    }
}

async fn keep(catalogue: Weak<Catalogue>) {
    loop {
        tokio::time::sleep(LOOK_PERIOD).await;
        let Some(catalogue) = catalogue.upgrade().filter(|catalogue| !catalogue.is_stopping()) else { return };
        if let Err(error) = catalogue.look().await
            && !catalogue.is_stopping()
        {
            catalogue.tell_of_meter(&error).await;
        }
    }
}

impl Catalogue {
    /// Starts who takes readings. It ends with the catalogue.
    pub(in super::super) fn start_meter(self: &Arc<Self>) {
        tokio::spawn(keep(Arc::downgrade(self)));
    }

    /// Logs why readings are not taken, once each time that the reason changes.
    async fn tell_of_meter(&self, error: &CatalogueError) {
        let reason = error.to_string();
        let mut keeping = self.meter.keeping.lock().await;
        if keeping.told.as_ref() != Some(&reason) {
            tracing::warn!(reason, "readings are not taken now: nothing is lost by that, and they are when it is over");
            keeping.told = Some(reason);
        }
    }

    /// Looks at the clocks, notes what was asked, and takes the round that is due, if one is.
    pub(super) async fn look(&self) -> Result<(), CatalogueError> {
        let mut keeping = self.meter.keeping.lock().await;
        if let Ok(now) = clocks()
            && let Some(event) = keeping.clock.look(now)
        {
            tracing::warn!(?event, "the wall clock was set: nothing is billed by that");
            keeping.events.push(event);
        }
        self.note_requests().await?;
        let (now, period_ms) = (self.meter.now(), self.meter.config.period_ms);
        if now < keeping.next_round {
            return Ok(());
        }
        drop(keeping);
        self.settle_endings().await?;
        self.settle_changes().await?;
        let mut keeping = self.meter.keeping.lock().await;
        self.round(&mut keeping).await?;
        keeping.told = None;
        let end = (now.0 / period_ms + 1) * period_ms;
        keeping.next_round = MeterTime(end + READ_BEHIND_MS.min(period_ms / 2));
        Ok(())
    }

    /// Notes what was asked of volumes since it was noted last: a kill loses what comes behind.
    pub(super) async fn note_requests(&self) -> Result<(), CatalogueError> {
        let mut changed = Vec::new();
        for shard in &self.shards {
            for (volume, seen) in ask::requests(shard).await? {
                let is_metered = self.read().name_of(volume.0).is_some();
                if is_metered && self.meter.requests().count(volume, seen) {
                    changed.push((volume, self.meter.requests().total(volume)));
                }
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        let noted = ask::note_requests(&self.store, changed).await?;
        noted.map_err(|fault| ask::store_failed("note what was asked", fault))
    }

    /// Takes the readings that are due, and all else that is done now and then.
    async fn round(&self, keeping: &mut Keeping) -> Result<(), CatalogueError> {
        self.find_ledger(keeping).await?;
        self.write_events(keeping).await?;
        let is_there = |volume: &VolumeId| self.read().volume(volume.0).is_some();
        keeping.last.retain(|volume, _| is_there(volume));
        self.meter.requests().of.retain(|volume, _| is_there(volume));
        let tenants: BTreeSet<TenantId> = self.read().tenant_numbers().collect();
        self.meter.looks.retain(|tenant| tenants.contains(tenant));
        // What changes from here on is behind what is read now.
        let now = self.meter.now();
        let resources: Vec<Resource> = self.read().metered().map(Resource::of).collect();
        for part in resources.chunks(VOLUMES_PER_APPEND) {
            self.read_part(keeping, (part, now)).await?;
        }
        self.measure(&resources).await?;
        self.keep_clock(keeping).await?;
        self.sign_day(keeping).await?;
        let differences = ask::meter_differences(&self.store).await?;
        let figures = MeterFigures { differences, read_ms: crate::open::wall_ms() };
        let before = std::mem::replace(&mut *self.meter.figures(), figures);
        if differences > before.differences {
            tracing::error!(differences, "registers do not say what the map has: a bill may be wrong");
        }
        Ok(())
    }

    /// What is to be watched of the meter.
    #[must_use]
    pub fn meter_figures(&self) -> MeterFigures {
        *self.meter.figures()
    }

    /// Sees to it that the ledger is open, with books of every tenant.
    pub(super) async fn find_ledger(&self, keeping: &mut Keeping) -> Result<(), CatalogueError> {
        let wanted = machine::wanted(&self.read());
        keeping.open(&self.meter.place, &wanted).await?;
        let tenants: Vec<TenantId> = self.read().tenant_numbers().collect();
        keeping.ledger.as_mut().map_or(Ok(()), |open| open.admit(tenants))
    }

    /// Tells every tenant what happened to the clock.
    async fn write_events(&self, keeping: &mut Keeping) -> Result<(), CatalogueError> {
        while let Some(event) = keeping.events.first().copied() {
            let payload = serde_json::to_string(&event).map_err(|error| ledger::broken(&error.to_string()))?;
            let (time_ms, kind) = (crate::open::wall_ms(), Kind::ClockStep);
            let tenants: Vec<TenantId> = self.read().tenant_numbers().collect();
            let entries: Vec<NewEntry<'_>> =
                tenants.into_iter().map(|tenant| NewEntry { tenant, kind, time_ms, payload: &payload }).collect();
            keeping.append(&entries).await?;
            keeping.events.remove(0);
        }
        Ok(())
    }

    /// Reads some volumes: at the ends of all periods since they were read last.
    async fn read_part(
        &self,
        keeping: &mut Keeping,
        (part, now): (&[Resource], MeterTime),
    ) -> Result<(), CatalogueError> {
        let mut readings: BTreeMap<TenantId, Vec<Reading>> = BTreeMap::new();
        let mut taken = Vec::new();
        for few in part.chunks(ASKED_MAX) {
            let ask = |resource: &Resource| {
                let (_, shard) = self.shard_of(resource.volume);
                ask::begin(shard, resource.volume, Request::Meter)
            };
            let asked = few.iter().map(ask).collect::<Result<Vec<_>, _>>()?;
            for (resource, asked) in few.iter().zip(asked) {
                // One that is poisoned, or was deleted meanwhile, is read when it is there again, or has ended.
                let Ok(Completion::Metered(to)) = asked.end().await else { continue };
                let to = to.min(now);
                let ends = |after: MeterTime| self.period_ends(after, to);
                let of_one = self.read_one(keeping, resource, ends).await?;
                taken.extend(of_one.last().map(|last| (resource.volume, last.at)));
                readings.entry(resource.tenant).or_default().extend(of_one);
            }
        }
        self.write_readings(keeping, &readings).await?;
        ask::forget_readings(&self.store, taken).await
    }

    /// The ends of periods behind a moment, up to another; of very many the first: the next round goes on.
    pub(super) fn period_ends(&self, after: MeterTime, to: MeterTime) -> Vec<MeterTime> {
        let period_ms = self.meter.config.period_ms;
        let ends = after.0 / period_ms + 1..=to.0 / period_ms;
        ends.take(PERIODS_MAX).map(|period| MeterTime(period * period_ms)).collect()
    }

    /// What the registers of a volume said at the moments that are wanted behind its last reading; and at the very beginning.
    pub(super) async fn read_one(
        &self,
        keeping: &Keeping,
        resource: &Resource,
        wanted: impl Fn(MeterTime) -> Vec<MeterTime>,
    ) -> Result<Vec<Reading>, CatalogueError> {
        let last = keeping.last.get(&resource.volume);
        let mut moments = Vec::new();
        let mut readings = Vec::new();
        let after = match (last, resource.from) {
            (Some(last), _) => last.at,
            (None, Some(from)) => {
                readings.push(self.begun(keeping, resource, from));
                from
            }
            // It was there before it was metered.
            (None, None) => {
                let Some(since) = ask::meter_since(&self.store, resource.volume).await? else { return Ok(readings) };
                moments.push(since);
                since
            }
        };
        let wanted = wanted(after);
        let to = wanted.last().copied().unwrap_or(after);
        let changed = resource.changes.iter().map(|change| MeterTime(change.at)).filter(|at| *at <= to);
        let behind: BTreeSet<MeterTime> = wanted.iter().copied().chain(changed).filter(|at| *at > after).collect();
        moments.extend(behind);
        let said = ask::meter_readings(&self.store, resource.volume, moments).await?;
        let requests = self.meter.requests().total(resource.volume);
        let count = said.len();
        for (number, said) in said.into_iter().enumerate() {
            let before = readings.last().or(last);
            // What was asked is known for now only.
            let requests = if number + 1 == count { requests } else { before.map(requests_of).unwrap_or_default() };
            readings.push(self.reading(keeping, (resource, before), (&said, requests)));
        }
        Ok(readings)
    }

    /// The first reading of a volume: nothing has been used.
    pub(super) fn begun_at(&self, keeping: &Keeping, record: &VolumeRecord) -> Option<Reading> {
        let resource = Resource::of(record);
        resource.from.map(|from| self.begun(keeping, &resource, from))
    }

    fn begun(&self, keeping: &Keeping, resource: &Resource, from: MeterTime) -> Reading {
        let said = MeterReading::zero(from, |_| 0);
        self.reading(keeping, (resource, None), (&said, RequestCounts::default()))
    }

    fn reading(
        &self,
        keeping: &Keeping,
        (resource, before): (&Resource, Option<&Reading>),
        (said, requests): (&MeterReading, RequestCounts),
    ) -> Reading {
        let first = (resource.class_at(said.at), 0);
        let (class, changes) = before.map_or(first, |before| resource.class_after(before, said.at));
        Reading {
            resource: resource.volume,
            tenant: resource.tenant,
            class,
            epoch: EPOCH,
            sequence: before.map_or(0, |before| before.sequence + 1),
            mark: if before.is_none() { Mark::Begins } else { Mark::Usual },
            changes,
            at: said.at,
            estimated_ms: keeping.record.estimated_ms,
            wall_ms: keeping.wall_at(said.at),
            registers: registers(said, requests),
        }
    }

    /// Appends readings, of all tenants or of none, and remembers the last of each volume.
    pub(super) async fn write_readings(
        &self,
        keeping: &mut Keeping,
        readings: &BTreeMap<TenantId, Vec<Reading>>,
    ) -> Result<(), CatalogueError> {
        let encode = |(tenant, readings): (&TenantId, &Vec<Reading>)| {
            let payloads = encode_readings(readings);
            payloads.into_iter().map(|payload| (*tenant, payload)).collect::<Vec<_>>()
        };
        let payloads: Vec<(TenantId, String)> = readings.iter().flat_map(encode).collect();
        if payloads.is_empty() {
            return Ok(());
        }
        let (time_ms, kind) = (crate::open::wall_ms(), Kind::Readings);
        let entry = |(tenant, payload): &'_ (TenantId, String)| (*tenant, payload.clone());
        let owned: Vec<(TenantId, String)> = payloads.iter().map(entry).collect();
        let entries: Vec<NewEntry<'_>> =
            owned.iter().map(|(tenant, payload)| NewEntry { tenant: *tenant, kind, time_ms, payload }).collect();
        keeping.append(&entries).await?;
        keeping.last.extend(readings.values().flatten().map(|reading| (reading.resource, reading.clone())));
        Ok(())
    }

    /// Measures what snapshots, history and the pool hold of volumes.
    async fn measure(&self, resources: &[Resource]) -> Result<(), CatalogueError> {
        let mut measured = Vec::with_capacity(resources.len());
        for resource in resources {
            match self.measured(resource.volume).await {
                Ok(found) => measured.extend(found.map(|found| (resource.volume, found))),
                // It is measured in the next round.
                Err(error) => tracing::debug!(volume = %resource.volume, %error, "a volume is not measured"),
            }
        }
        let noted = ask::note_measured(&self.store, measured, self.meter.now()).await?;
        noted.map_err(|fault| ask::store_failed("keep what was measured", fault))
    }

    /// What a volume holds with all that rollbacks have left behind it; nothing of one that has been deleted.
    async fn measured(&self, volume: VolumeId) -> Result<Option<Measured>, CatalogueError> {
        let Some(name) = self.read().name_of(volume.0).map(str::to_owned) else { return Ok(None) };
        let space = self.space(&name).await?;
        let (parts, generations): (Vec<VolumeId>, Vec<u64>) = {
            let shelf = self.read();
            let generations = shelf.taken_of(volume.0).map(|kept| kept.record.generation).collect();
            (shelf.volumes_of(shelf.line_of(volume.0)).map(VolumeId).collect(), generations)
        };
        let snapshots = match space.snapshot_bytes {
            Some(bytes) => bytes,
            None => {
                let found = self.search(volume.0, vec![generations.into_iter().collect()]).await?;
                found.into_iter().sum::<u64>() * BLOCK_BYTES
            }
        };
        let mut history = 0;
        for part in parts {
            history += ask::history_blocks(&self.store, part).await? * BLOCK_BYTES;
        }
        Ok(Some(Measured { snapshots, history, physical: space.pool_bytes }))
    }

    /// Keeps what the clock says, so that the next boot has to guess no more than a period.
    async fn keep_clock(&self, keeping: &mut Keeping) -> Result<(), CatalogueError> {
        let record = with_clock(keeping.record.clone(), &keeping.clock, None);
        self.pen.put(&Record::Meter(record.clone())).await?;
        keeping.record = record;
        Ok(())
    }

    /// Signs the ledger when a day has ended since that was done last, and gives up what is too old to be disputed.
    async fn sign_day(&self, keeping: &mut Keeping) -> Result<(), CatalogueError> {
        let ago = |days: u64| Date::of_ms(crate::open::wall_ms().saturating_sub(days * DAY_MS));
        let days = self.meter.config.kept_days;
        let Some(((today, ended), kept_from)) = ago(0).zip(ago(1)).zip(ago(days.into())) else { return Ok(()) };
        // One of a day to come was signed by a clock that was wrong.
        if keeping.open_ledger()?.ledger().newest().is_none_or(|head| head.date() < ended || head.date() > today) {
            keeping.sign(ended).await?;
        }
        keeping.give_up_before(kept_from, days).await
    }
}

impl Keeping {
    /// What the wall clock of now says, or said, when the meter's clock does.
    fn wall_at(&self, at: MeterTime) -> u64 {
        let KeptClock { clocks, at_ms } = self.clock.kept();
        if at.0 >= at_ms {
            clocks.wall_ms.saturating_add(at.0 - at_ms)
        } else {
            clocks.wall_ms.saturating_sub(at_ms - at.0)
        }
    }
}

/// The registers of a reading.
pub(super) fn registers(said: &MeterReading, requests: RequestCounts) -> Registers {
    let of_time = Gauge::ALL
        .into_iter()
        .fold(Registers::default(), |registers, gauge| registers.with(dimension_of(gauge), said.of(gauge).byte_ms));
    of_time
        .with(Dimension::Reads, requests.reads.into())
        .with(Dimension::Writes, requests.writes.into())
        .with(Dimension::ReadBytes, requests.read_bytes.into())
        .with(Dimension::WriteBytes, requests.write_bytes.into())
}

/// What a reading says was asked.
pub(super) fn requests_of(reading: &Reading) -> RequestCounts {
    let of = |dimension| u64::try_from(reading.registers.value(dimension)).unwrap_or(u64::MAX);
    RequestCounts {
        reads: of(Dimension::Reads),
        writes: of(Dimension::Writes),
        read_bytes: of(Dimension::ReadBytes),
        write_bytes: of(Dimension::WriteBytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P7. A change that a reading of a later moment did not know of counts once, from the next reading on.
    #[test]
    fn a_change_that_comes_to_light_late_counts_once() {
        let (bronze, gold) = (ClassId(3), ClassId(5));
        let change = MeterChange { at: 100, class: gold.0, before: bronze.0 };
        let (volume, tenant) = (VolumeId(1), TenantId(2));
        let resource = Resource { volume, tenant, from: Some(MeterTime(0)), class: gold, changes: vec![change] };
        let read = |at, class, changes| Reading {
            resource: volume,
            tenant,
            class,
            epoch: EPOCH,
            sequence: 0,
            mark: Mark::Usual,
            changes,
            at: MeterTime(at),
            estimated_ms: 0,
            wall_ms: at,
            registers: Registers::default(),
        };
        let in_time = resource.class_after(&read(50, bronze, 0), MeterTime(150));
        let late = resource.class_after(&read(150, bronze, 0), MeterTime(200));
        let then = resource.class_after(&read(200, gold, 1), MeterTime(250));
        assert_eq!([in_time, late, then], [(gold, 1); 3]);
    }
}
