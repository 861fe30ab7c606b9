//! Months of life: time passes by hours and days, classes change, readings are taken as the daemon takes them, and each month's
//! bill is held against a model that knows every operation.

use super::metering::Clocks;
use super::{Checked, World};
use crate::bill::{CLASSES, Card, DIMENSIONS, Said, Use};
use crate::census::Fault;
use crate::plan::Profile;
use crate::random::Random;
use crate::trace::Finding;
use crate::workload::Wish;
use ::metering::ledger::{decode_readings, encode_readings};
use ::metering::{Account, ClockEvent, Invoice, Issuer, KeptClock, Mark, MeterClock, Period, Reading, Registers, rate};
use std::collections::BTreeMap;
use units::{ClassId, MeterTime, TenantId, VolumeId};
use volume::pool::{Gauge, Measured, MeterReading};
use volume::request::Completion;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Between two readings.
const PERIOD_MS: u64 = 12 * HOUR_MS;

/// Tenants that volumes are of.
const TENANTS: u64 = 3;

/// Where a life begins: the month before, the first moment by the wall clock, and whose months they are. In each there is a
/// leap day or a change of the clocks.
const BEGINNINGS: [(&str, u64, &str); 4] = [
    // 2028-02-20
    ("2028-01", 1_834_617_600_000, "UTC"),
    // 2026-03-15
    ("2026-02", 1_773_532_800_000, "Europe/Berlin"),
    // 2026-10-15
    ("2026-09", 1_792_022_400_000, "America/New_York"),
    // 2028-02-25
    ("2028-01", 1_835_049_600_000, "Australia/Lord_Howe"),
];

/// Months that a run is billed for at the most.
const MONTHS_MAX: usize = 14;

/// The machine's boots, and the daemon's clock over them.
#[derive(Debug)]
pub(super) struct Calendar {
    boot: u128,
    /// How much had passed when the machine was booted, where it is to be booted anew.
    booted_ms: Option<u64>,
    clock: MeterClock,
    /// What is durable of it.
    kept: KeptClock,
    estimated_ms: u64,
}

impl Calendar {
    pub(super) fn new(wall_ms: u64) -> Self {
        let now = ::metering::Clocks { boot: 1, since_boot_ms: 0, wall_ms };
        let (clock, _) = MeterClock::resume(None, MeterTime(0), now);
        Self { boot: 1, booted_ms: Some(0), clock, kept: clock.kept(), estimated_ms: 0 }
    }

    const fn clocks(&self, passed_ms: u64, wall_ms: u64) -> ::metering::Clocks {
        ::metering::Clocks { boot: self.boot, since_boot_ms: self.since_boot(passed_ms), wall_ms }
    }

    const fn since_boot(&self, passed_ms: u64) -> u64 {
        match self.booted_ms {
            Some(booted_ms) => passed_ms - booted_ms,
            None => 0,
        }
    }

    pub(super) const fn meter(&self, passed_ms: u64) -> MeterTime {
        self.clock.at(self.since_boot(passed_ms))
    }

    pub(super) fn look(&mut self, passed_ms: u64, wall_ms: u64) {
        let _ = self.clock.look(self.clocks(passed_ms, wall_ms));
    }

    /// The machine goes down.
    pub(super) const fn reboot(&mut self) {
        self.boot += 1;
        self.booted_ms = None;
    }

    pub(super) fn resume(&mut self, (passed_ms, wall_ms): (u64, u64), floor: MeterTime) {
        self.booted_ms.get_or_insert(passed_ms);
        let now = self.clocks(passed_ms, wall_ms);
        let (clock, event) = MeterClock::resume(Some(self.kept), floor, now);
        self.clock = clock;
        if let Some(ClockEvent::Estimated { from_ms, to_ms, .. }) = event {
            self.estimated_ms += to_ms - from_ms;
            self.kept = clock.kept();
        }
    }

    /// What the wall clock says, or said, when the meter's does.
    fn wall_at(&self, at: MeterTime) -> u64 {
        let KeptClock { clocks, at_ms } = self.clock.kept();
        (clocks.wall_ms + at.0).saturating_sub(at_ms)
    }
}

/// A reading that is in the ledger, and what the model knows of the same moment.
#[derive(Debug)]
struct Taken {
    reading: Reading,
    known: [u128; 5],
}

/// What there is of a volume beside its log.
#[derive(Debug, Default)]
struct Life {
    taken: Vec<Taken>,
    classes: Vec<(MeterTime, ClassId)>,
    measured: Vec<(MeterTime, Measured)>,
}

/// What is billed.
#[derive(Debug)]
pub(super) struct Months {
    random: Random,
    card: Card,
    first: &'static str,
    zone: &'static str,
    lives: BTreeMap<VolumeId, Life>,
}

/// The clocks of a world, and its months, where it has any.
pub(super) fn begin(profile: Profile, seed: u64) -> (Option<Months>, Clocks) {
    let clocks = Clocks::new(seed);
    if profile != Profile::Months {
        return (None, clocks);
    }
    let mut random = Random::new(seed ^ 0x0b11);
    let (first, wall_ms, zone) = *random.pick(&BEGINNINGS);
    let card = Card::new(&mut random);
    (Some(Months { random, card, first, zone, lives: BTreeMap::new() }), clocks.with_calendar(wall_ms))
}

impl Life {
    fn class_at(&self, volume: VolumeId, at: MeterTime) -> ClassId {
        let done = self.classes.iter().rev().find(|(from, _)| *from <= at).map(|(_, class)| *class);
        done.unwrap_or(ClassId(volume.0 % CLASSES))
    }

    fn changes_to(&self, at: MeterTime) -> u64 {
        self.classes.iter().filter(|(from, _)| *from <= at).count() as u64
    }

    /// What the model knows to have been used before a moment.
    fn known(&self, [provisioned, written]: [u128; 2], at: MeterTime) -> [u128; 5] {
        let [mut snapshots, mut history, mut physical] = [0; 3];
        for (place, (from, measured)) in self.measured.iter().enumerate() {
            let to = self.measured.get(place + 1).map_or(at, |(next, _)| *next).min(at);
            let ms = u128::from(to.since((*from).min(to)));
            snapshots += ms * u128::from(measured.snapshots);
            history += ms * u128::from(measured.history);
            physical += ms * u128::from(measured.physical);
        }
        [provisioned, written, snapshots, history, physical]
    }
}

impl World {
    /// The daemon starts: its clock goes on.
    pub(super) fn resume_clock(&mut self) {
        if self.months.is_some() {
            let floor = self.sites.iter().map(|site| site.model.latest_mark()).max().unwrap_or_default();
            self.clocks.resume(self.now, floor);
        }
    }

    /// Now and then much time passes at once, a class changes, or readings are taken.
    pub(super) fn let_months_pass(&mut self) -> Checked {
        let Some(months) = &mut self.months else { return Ok(()) };
        match months.random.below(400) {
            0..10 => {
                let most = *months.random.pick(&[HOUR_MS, 12 * HOUR_MS, 72 * HOUR_MS, 300 * HOUR_MS]);
                let ms = months.random.below(most);
                self.trace.tell(|| format!("{ms} ms pass"));
                self.clocks.leap(ms);
            }
            10..14 => self.change_class(),
            14..20 => self.take_readings()?,
            _ => {}
        }
        Ok(())
    }

    fn change_class(&mut self) {
        let now = self.meter_now();
        let served: Vec<VolumeId> = self.metered().into_iter().map(|site| self.sites[site].id).collect();
        let Some(months) = self.months.as_mut().filter(|_| !served.is_empty()) else { return };
        let volume = *months.random.pick(&served);
        let class = ClassId(months.random.below(CLASSES));
        let life = months.lives.entry(volume).or_default();
        let last = life.taken.last().map_or(MeterTime(0), |taken| taken.reading.at);
        let is_new = life.class_at(volume, now) != class && life.classes.iter().all(|(at, _)| *at < now);
        // One made in this very millisecond begins with it.
        if is_new && last < now {
            life.classes.push((now, class));
            self.outcome.census.note(Fault::ClassChanged);
        }
    }

    fn metered(&self) -> Vec<usize> {
        let open = self.open_sites().into_iter();
        open.filter(|site| !self.sites[*site].is_view && self.takes_clients(*site)).collect()
    }

    /// A round, as the daemon's: readings of all volumes, then what is measured, then the clock is kept.
    fn take_readings(&mut self) -> Checked {
        self.clocks.look(self.now);
        let now = self.meter_now();
        // The ledger may be lost with what comes next: then they are taken once more.
        let is_kept = self.months.as_mut().is_some_and(|months| months.random.chance(800));
        let last = self.months.as_mut().is_some_and(|months| months.random.chance(50));
        let served = self.metered();
        let goes = if last && served.len() > 1 { served.first().copied() } else { None };
        for site in served {
            if self.sites[site].volume.is_none() {
                continue;
            }
            let reply = self.ask_and_wait(site, Wish::Meter)?;
            if let Ok(Completion::Metered(to)) = reply.result {
                self.read(site, (to.min(now), is_kept), goes == Some(site))?;
            }
        }
        self.measure()?;
        let now = self.now;
        self.clocks.look(now);
        if let Some(calendar) = self.clocks.calendar() {
            calendar.kept = calendar.clock.kept();
        }
        if let Some(at) = goes.filter(|at| self.metered().contains(at)) {
            self.delete_volume(at);
        }
        Ok(())
    }

    /// Reads a volume at the ends of periods since it was read last, and when its class changed; at the end of its life now.
    fn read(&mut self, site: usize, (to, is_kept): (MeterTime, bool), is_last: bool) -> Checked {
        self.note_applied();
        let model = &self.sites[site].model;
        let (volume, from, line) = (self.sites[site].id, model.began(), self.sites[site].line);
        let (Some(months), Some(index), Some(calendar)) = (&mut self.months, &mut self.index, self.clocks.calendar())
        else {
            return Ok(());
        };
        let life = months.lives.entry(volume).or_default();
        let after = life.taken.last().map_or(from, |taken| taken.reading.at);
        let mut moments: Vec<MeterTime> =
            (after.0 / PERIOD_MS + 1..=to.0 / PERIOD_MS).map(|period| MeterTime(period * PERIOD_MS)).collect();
        moments.extend(life.classes.iter().map(|(at, _)| *at).filter(|at| *at > after && *at <= to));
        moments.extend((is_last && to > after).then_some(to));
        moments.sort_unstable();
        moments.dedup();
        let mut said = index.meter_readings(volume, &moments);
        if life.taken.is_empty() && (!said.is_empty() || moments.is_empty()) {
            said.insert(0, MeterReading::zero(from, |_| 0));
        }
        let mut taken = Vec::new();
        let used = model.used_before(&said.iter().map(|said| said.at).collect::<Vec<_>>());
        for (said, used) in said.into_iter().zip(used) {
            let gauges = Gauge::ALL.map(|gauge| said.of(gauge).byte_ms);
            let registers = DIMENSIONS.into_iter().zip(gauges);
            let registers = registers.fold(Registers::default(), |all, (dimension, value)| all.with(dimension, value));
            let sequence = (life.taken.len() + taken.len()) as u64;
            let reading = Reading {
                sequence,
                mark: if sequence == 0 { Mark::Begins } else { Mark::Usual },
                changes: life.changes_to(said.at) - life.changes_to(from),
                estimated_ms: calendar.estimated_ms,
                registers,
                ..Reading::first(
                    volume,
                    TenantId(1 + line.0 % TENANTS),
                    life.class_at(volume, said.at),
                    said.at,
                    calendar.wall_at(said.at),
                )
            };
            let known = life.known(used, said.at);
            if gauges != known {
                let at = said.at.0;
                return Err(Finding(format!("P7: volume {volume} at {at} ms: {gauges:?} was used, not {known:?}")));
            }
            taken.push(Taken { reading, known });
        }
        if is_kept {
            index.forget_readings(volume, taken.last().map_or(after, |taken| taken.reading.at));
            life.taken.extend(taken);
        }
        Ok(())
    }

    /// What snapshots, history and the pool hold is told: any number does.
    fn measure(&mut self) -> Checked {
        let now = self.meter_now();
        let volumes: Vec<VolumeId> = self.metered().into_iter().map(|site| self.sites[site].id).collect();
        let (Some(months), Some(index)) = (&mut self.months, &mut self.index) else { return Ok(()) };
        let mut bytes = || months.random.below(1 << 32);
        let with_meter =
            volumes.into_iter().filter(|volume| index.meter_since(*volume).is_some_and(|since| since < now));
        let all: Vec<(VolumeId, Measured)> = with_meter
            .map(|volume| (volume, Measured { snapshots: bytes(), history: bytes(), physical: bytes() }))
            .collect();
        index.note_measured(&all, now).map_err(|fault| Finding(format!("what was measured is not kept: {fault}")))?;
        for (volume, measured) in all {
            months.lives.entry(volume).or_default().measured.push((now, measured));
        }
        Ok(())
    }

    /// P7: the bill of each tenant and month is the model's, to the last unit.
    pub(super) fn check_bills(&mut self) -> Checked {
        if self.months.is_none() {
            return Ok(());
        }
        self.take_readings()?;
        self.know_anew()?;
        let end_ms = self.clocks.wall_ms(self.now);
        let Some(months) = &self.months else { return Ok(()) };
        let failed = |what: &str, error: &dyn std::fmt::Display| Finding(format!("P7: {what}: {error}"));
        let cards = months.card.real();
        let mut period = Period::of_month(months.first, months.zone).map_err(|error| failed("no month", &error))?;
        for _ in 0..MONTHS_MAX {
            for tenant in (1..=TENANTS).map(TenantId) {
                let account = Account { tenant, name: "acme".to_owned(), ..Account::default() };
                let bill = rate(&months.book(tenant)?, &cards, &period, &account);
                let bill = bill.map_err(|error| failed("no bill", &error))?;
                let issuer = Issuer { name: "host".to_owned(), region: None };
                let invoice = Invoice::open(bill, Vec::new(), issuer, period.span().to, None);
                let said = Said::of(&invoice.map_err(|error| failed("no invoice", &error))?);
                let known = months.card.known(&months.used(tenant, &period), &period);
                if said != known {
                    let month = period.month();
                    return Err(Finding(format!("P7: the bill of {tenant} for {month} says {said:?}, not {known:?}")));
                }
                if !known.is_empty() {
                    self.outcome.bills += 1;
                    self.outcome.census.note_many(Fault::LeapDayBilled, (period.milliseconds() / DAY_MS == 29).into());
                    self.outcome
                        .census
                        .note_many(Fault::ClockChangeBilled, (period.milliseconds() % DAY_MS != 0).into());
                }
            }
            if begin_ms(&period).1 > end_ms {
                break;
            }
            period = period.next(months.zone).map_err(|error| failed("no month", &error))?;
        }
        Ok(())
    }

    /// What was known when a reading was taken has not become wrong by what was found since.
    fn know_anew(&mut self) -> Checked {
        self.note_applied();
        let Some(months) = &self.months else { return Ok(()) };
        for site in self.sites.iter().filter(|site| site.volume.is_some()) {
            let taken: Vec<&Taken> = months.lives.get(&site.id).into_iter().flat_map(|life| &life.taken).collect();
            let moments: Vec<MeterTime> = taken.iter().map(|taken| taken.reading.at).collect();
            for (taken, used) in taken.into_iter().zip(site.model.used_before(&moments)) {
                if used[..] != taken.known[..2] {
                    let (id, at, was) = (site.id, taken.reading.at.0, &taken.known[..2]);
                    return Err(Finding(format!("P7: volume {id} had used {was:?} at {at} ms, and now {used:?}")));
                }
            }
        }
        Ok(())
    }
}

fn begin_ms(period: &Period) -> (u64, u64) {
    let span = period.span();
    let [from, to] = [span.from, span.to].map(|moment| u64::try_from(moment.as_millisecond()).unwrap_or(0));
    (from, to)
}

impl Months {
    /// A tenant's readings, as its book in the ledger has them.
    fn book(&self, tenant: TenantId) -> Checked<Vec<Reading>> {
        let of = |life: &Life| life.taken.iter().map(|taken| taken.reading.clone()).collect::<Vec<_>>();
        let all = self.lives.values().flat_map(of).filter(|reading| reading.tenant == tenant);
        let mut book = Vec::new();
        for payload in encode_readings(&all.collect::<Vec<_>>()) {
            let readings = decode_readings(tenant, &payload);
            book.extend(readings.ok_or_else(|| Finding("P7: a book cannot be read".to_owned()))?);
        }
        Ok(book)
    }

    /// What a tenant used in a month: between two readings by time, cut at the last whole unit at a border.
    fn used(&self, tenant: TenantId, period: &Period) -> Use {
        let (begin, end) = begin_ms(period);
        let mut used = Use::new();
        for (volume, life) in &self.lives {
            for pair in life.taken.windows(2).filter(|pair| pair[0].reading.tenant == tenant) {
                let (from, ms) = (pair[0].reading.wall_ms, pair[1].reading.at.since(pair[0].reading.at));
                let before = |border: u64, of: u128| {
                    let part = border.saturating_sub(from).min(ms);
                    if ms == 0 { 0 } else { of * u128::from(part) / u128::from(ms) }
                };
                for (place, dimension) in DIMENSIONS.into_iter().enumerate() {
                    let of = pair[1].known[place] - pair[0].known[place];
                    *used.entry((life.class_at(*volume, pair[0].reading.at), dimension, *volume)).or_default() +=
                        before(end, of) - before(begin, of);
                }
            }
        }
        used
    }
}
