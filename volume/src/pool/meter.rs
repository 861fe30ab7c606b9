//! What volumes have used: registers of bytes by time, kept with the stored map.
//!
//! A register is how much there is, and the sum of how much there has been by time: byte-milliseconds. What was written is a
//! pure function of the log: an operation counts from the meter's time of the mark before it. A write-back tells of each page
//! what its changes made of its blocks, and when; what that comes to over the stored page goes into the registers in the
//! commit that stores the page. A stored page tells the last change that it has, and what changes up to there made of it was
//! counted with it: a log that is replayed after a crash comes to the same registers, to the last unit.
//!
//! Changes are kept with their times until a reading has been taken, so that registers can be read at the end of every period,
//! or any other moment that the stored map is complete to. What nobody takes is joined, oldest first; nothing is lost by that
//! but the readings between.
//!
//! The bytes that snapshots, history and the pool hold are measured: a level holds until it is measured again, also while
//! the daemon is down.
//!
//! The row: flags 1 (bit 0: what it inherits is not counted yet), since 8, the last resize 8, number of emptied pages 4; of each
//! register, in the order of [`Gauge`]: sum 16, level 8, number of changes 4; then changes: time 8, bytes more 16, signed; then
//! emptied pages: first, end and last change 8 each.

use super::rows::{self, Fields};
use super::{Index, Inheritance};
use crate::error::DiskFault;
use crate::io::PageIndex;
use crate::store::{Durability, Store, StoreWrite};
use std::ops::Range;
use units::{BLOCK_BYTES, Lsn, MeterTime, VolumeId};

/// Changes of a register after which the oldest are joined, as far as the stored map is complete.
const CHANGES_MAX: usize = 512;

/// What a register measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gauge {
    /// The volume's size.
    Provisioned,
    /// Bytes that hold data in the volume as it is, inherited ones among them.
    Written,
    /// Bytes that its snapshots hold beyond that.
    Snapshots,
    /// Bytes that its history holds beyond both.
    History,
    /// Bytes that it takes of the pool.
    Physical,
}

impl Gauge {
    /// All of them, in the order of their registers.
    pub const ALL: [Self; 5] = [Self::Provisioned, Self::Written, Self::Snapshots, Self::History, Self::Physical];
}

/// What a register says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Gauged {
    /// Bytes that there are.
    pub bytes: u64,
    /// Bytes by milliseconds since the meter began.
    pub byte_ms: u128,
}

/// What the registers of a volume say at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MeterReading {
    /// When. What changed at that very millisecond is not in the levels yet.
    pub at: MeterTime,
    gauges: [Gauged; Gauge::ALL.len()],
}

impl MeterReading {
    /// A reading of a meter that begins: nothing has been used, and there are so many bytes.
    #[must_use]
    pub fn zero(at: MeterTime, bytes: impl Fn(Gauge) -> u64) -> Self {
        Self { at, gauges: Gauge::ALL.map(|gauge| Gauged { bytes: bytes(gauge), byte_ms: 0 }) }
    }

    /// A reading that was taken before: what each register said, in the order of [`Gauge::ALL`].
    #[must_use]
    pub const fn taken(at: MeterTime, gauges: [Gauged; Gauge::ALL.len()]) -> Self {
        Self { at, gauges }
    }

    /// What one of the registers says.
    #[must_use]
    pub fn of(&self, gauge: Gauge) -> Gauged {
        self.gauges.get(gauge as usize).copied().unwrap_or_default()
    }

    /// The same later, when all that there was held on until then.
    #[must_use]
    pub fn carried_to(&self, at: MeterTime) -> Self {
        let carry = |gauged: Gauged| {
            let more = u128::from(gauged.bytes) * u128::from(at.since(self.at));
            Gauged { byte_ms: gauged.byte_ms.saturating_add(more), ..gauged }
        };
        Self { at: at.max(self.at), gauges: self.gauges.map(carry) }
    }
}

/// How the meter of a volume begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterStart {
    /// When the volume was made; or when the meter goes on in an index that was made anew.
    pub at: MeterTime,
    /// The volume's size when it was made: counts where the index does not tell a later one.
    pub size_bytes: u64,
    /// Of a meter that goes on: the last reading of it. What there was then holds until it begins again.
    pub last: Option<MeterReading>,
}

/// What snapshots, history and the pool hold of a volume, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Measured {
    /// What its snapshots hold beyond the volume as it is.
    pub snapshots: u64,
    /// What its history holds beyond both.
    pub history: u64,
    /// What it takes of the pool.
    pub physical: u64,
}

/// How much there is of something, and how much of it there has been by time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Register {
    /// Up to where the meter was joined.
    sum: u128,
    /// There.
    level: u64,
    /// What changed since, by time.
    changes: Vec<(MeterTime, i128)>,
}

impl Register {
    fn add(&mut self, at: MeterTime, more: i128) {
        if more == 0 {
            return;
        }
        let after = self.changes.partition_point(|(of, _)| *of <= at);
        let same = after.checked_sub(1).and_then(|last| self.changes.get_mut(last)).filter(|(of, _)| *of == at);
        match same {
            Some((_, bytes)) => *bytes += more,
            None => self.changes.insert(after, (at, more)),
        }
    }

    /// How much there is when all that was told has come.
    fn newest_level(&self) -> i128 {
        i128::from(self.level) + self.changes.iter().map(|(_, more)| more).sum::<i128>()
    }

    /// What it says at `to`, when it was joined up to `from`; and how many changes came before that.
    fn at(&self, from: MeterTime, to: MeterTime) -> (Gauged, usize) {
        let (mut sum, mut level, mut at) = (self.sum, i128::from(self.level), from);
        let before = self.changes.partition_point(|(of, _)| *of < to);
        let dwell = |level: i128, from: MeterTime, to: MeterTime| {
            u128::try_from(level).unwrap_or(0).saturating_mul(u128::from(to.since(from)))
        };
        for (of, more) in self.changes.iter().take(before) {
            sum = sum.saturating_add(dwell(level, at, *of));
            (level, at) = (level + more, *of);
        }
        let bytes = u64::try_from(level.max(0)).unwrap_or(u64::MAX);
        (Gauged { bytes, byte_ms: sum.saturating_add(dwell(level, at, to)) }, before)
    }
}

/// Pages that were emptied, and have no version that could tell the last change it had.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Emptied {
    pages: Range<u64>,
    lsn: Lsn,
}

/// What a volume has used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meter {
    /// Up to where the registers are joined.
    since: MeterTime,
    /// A clone whose parent was not complete when it was made.
    awaits_inheritance: bool,
    /// The last resize that is counted.
    size_lsn: Lsn,
    registers: [Register; Gauge::ALL.len()],
    emptied: Vec<Emptied>,
}

impl Meter {
    fn new(start: MeterReading, awaits_inheritance: bool) -> Self {
        let register = |gauged: Gauged| Register { sum: gauged.byte_ms, level: gauged.bytes, changes: Vec::new() };
        let registers = start.gauges.map(register);
        Self { since: start.at, awaits_inheritance, size_lsn: Lsn::ZERO, registers, emptied: Vec::new() }
    }

    fn register(&mut self, gauge: Gauge) -> &mut Register {
        let [provisioned, written, snapshots, history, physical] = &mut self.registers;
        match gauge {
            Gauge::Provisioned => provisioned,
            Gauge::Written => written,
            Gauge::Snapshots => snapshots,
            Gauge::History => history,
            Gauge::Physical => physical,
        }
    }

    /// Counts so many more bytes from `at` on; what came before the meter began counts from there.
    fn add(&mut self, gauge: Gauge, at: MeterTime, more: i128) {
        let at = at.max(self.since);
        self.register(gauge).add(at, more);
    }

    /// Counts blocks that hold data, more or less, from `at` on.
    pub(super) fn add_written(&mut self, at: MeterTime, blocks: i64) {
        self.add(Gauge::Written, at, i128::from(blocks) * i128::from(BLOCK_BYTES));
    }

    /// Counts a size that operation `lsn` gave the volume, unless it was counted.
    pub(super) fn add_resize(&mut self, lsn: Lsn, at: MeterTime, size_bytes: u64) {
        if lsn > self.size_lsn {
            self.size_lsn = lsn;
            self.set(Gauge::Provisioned, at, size_bytes);
        }
    }

    /// The volume has a size: of a log with gaps, as a rebuild may leave it, not every resize was told.
    pub(super) fn end_resizes(&mut self, at: MeterTime, size_bytes: u64) {
        self.set(Gauge::Provisioned, at, size_bytes);
    }

    fn set(&mut self, gauge: Gauge, at: MeterTime, bytes: u64) {
        let more = i128::from(bytes) - self.register(gauge).newest_level();
        self.add(gauge, at, more);
    }

    /// The last change of a page that has no version, as far as it may be met again.
    pub(super) fn emptied_at(&self, page: PageIndex) -> Lsn {
        let of_page = self.emptied.iter().filter(|emptied| emptied.pages.contains(&page.0));
        of_page.map(|emptied| emptied.lsn).max().unwrap_or(Lsn::ZERO)
    }

    /// Notes pages that have no version any more.
    pub(super) fn note_emptied(&mut self, pages: Range<u64>, lsn: Lsn) {
        self.emptied.retain(|other| other.lsn != lsn || other.pages.start != pages.start);
        self.emptied.push(Emptied { pages, lsn });
    }

    /// The stored map is complete to `lsn`, and what comes behind counts from `at` or later.
    pub(super) fn fold_to(&mut self, lsn: Lsn, at: MeterTime) {
        self.emptied.retain(|emptied| emptied.lsn > lsn);
        if self.registers.iter().any(|register| register.changes.len() > CHANGES_MAX) {
            let halves = self.registers.iter().filter_map(|register| register.changes.get(CHANGES_MAX / 2));
            let to = halves.map(|(of, _)| *of).max().unwrap_or_default();
            self.join_to(to.min(at));
        }
    }

    /// Joins what came before a moment.
    fn join_to(&mut self, to: MeterTime) {
        if to <= self.since {
            return;
        }
        for register in &mut self.registers {
            let (gauged, before) = register.at(self.since, to);
            register.changes.drain(..before);
            (register.sum, register.level) = (gauged.byte_ms, gauged.bytes);
        }
        self.since = to;
    }

    fn reading(&self, at: MeterTime) -> Option<MeterReading> {
        let gauges = || self.registers.each_ref().map(|register| register.at(self.since, at).0);
        (at >= self.since).then(|| MeterReading { at, gauges: gauges() })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.awaits_inheritance)];
        out.extend_from_slice(&self.since.0.to_le_bytes());
        out.extend_from_slice(&self.size_lsn.0.to_le_bytes());
        out.extend_from_slice(&count(self.emptied.len()));
        for register in &self.registers {
            out.extend_from_slice(&register.sum.to_le_bytes());
            out.extend_from_slice(&register.level.to_le_bytes());
            out.extend_from_slice(&count(register.changes.len()));
        }
        for (at, more) in self.registers.iter().flat_map(|register| &register.changes) {
            out.extend_from_slice(&at.0.to_le_bytes());
            out.extend_from_slice(&more.to_le_bytes());
        }
        for Emptied { pages, lsn } in &self.emptied {
            out.extend([pages.start, pages.end, lsn.0].into_iter().flat_map(u64::to_le_bytes));
        }
        out
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        let [flags] = fields.take()?;
        let (since, size_lsn, emptied) = (MeterTime(fields.u64()?), Lsn(fields.u64()?), fields.u32()?);
        let mut registers: [Register; Gauge::ALL.len()] = Default::default();
        let mut changes = [0; Gauge::ALL.len()];
        for (register, changes) in registers.iter_mut().zip(&mut changes) {
            register.sum = fields.take().map(u128::from_le_bytes)?;
            register.level = fields.u64()?;
            *changes = fields.u32()?;
        }
        for (register, changes) in registers.iter_mut().zip(changes) {
            for _ in 0..changes {
                register.changes.push((MeterTime(fields.u64()?), fields.take().map(i128::from_le_bytes)?));
            }
        }
        let mut left = Vec::new();
        for _ in 0..emptied {
            left.push(Emptied { pages: fields.u64()?..fields.u64()?, lsn: Lsn(fields.u64()?) });
        }
        let meter = Self { since, awaits_inheritance: flags == 1, size_lsn, registers, emptied: left };
        (flags < 2 && fields.0.is_empty()).then_some(meter)
    }
}

fn count(entries: usize) -> [u8; 4] {
    u32::try_from(entries).unwrap_or(u32::MAX).to_le_bytes()
}

impl<S: Store> Index<S> {
    /// Begins the meters of volumes that have none, durably. One that has goes on, whatever is told.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: none has begun.
    pub fn begin_meters(&mut self, starts: &[(VolumeId, MeterStart)]) -> Result<(), DiskFault> {
        let begun = starts.iter().filter(|(volume, _)| !self.meters.contains_key(volume));
        let begun: Vec<(VolumeId, Meter)> =
            begun.map(|(volume, start)| (*volume, self.meter_of(*volume, start))).collect();
        if begun.is_empty() {
            return Ok(());
        }
        let put = |(volume, meter): &(VolumeId, Meter)| StoreWrite::Put(rows::meter_key(*volume), meter.encode());
        self.commit(begun.iter().map(put).collect(), Durability::Durable)?;
        self.meters.extend(begun);
        Ok(())
    }

    fn meter_of(&self, volume: VolumeId, start: &MeterStart) -> Meter {
        let row = self.volume_row(volume);
        let last = start.last.map(|last| last.carried_to(start.at));
        let size_bytes = row.map(|row| row.size_bytes).filter(|size| *size > 0);
        let mut begun = last.unwrap_or_else(|| MeterReading::zero(start.at, |_| 0));
        for (gauge, gauged) in Gauge::ALL.into_iter().zip(&mut begun.gauges) {
            match gauge {
                Gauge::Provisioned => gauged.bytes = size_bytes.unwrap_or(start.size_bytes),
                Gauge::Written => gauged.bytes = row.map_or(0, |row| row.mapped) * BLOCK_BYTES,
                Gauge::Snapshots | Gauge::History | Gauge::Physical => {}
            }
        }
        Meter::new(begun, row.is_none() && self.parent(volume).is_some())
    }

    /// The meter of a volume as it is to be changed; what it inherits is counted from where it began.
    pub(super) fn meter_to_change(&self, volume: VolumeId) -> Option<Meter> {
        let mut meter = self.meters.get(&volume)?.clone();
        self.count_inherited(volume, &mut meter);
        Some(meter)
    }

    fn count_inherited(&self, volume: VolumeId, meter: &mut Meter) {
        if meter.awaits_inheritance && self.inheritance(volume) == Inheritance::Ready {
            meter.awaits_inheritance = false;
            meter.register(Gauge::Written).level += self.inherited_mapped(volume) * BLOCK_BYTES;
        }
    }

    /// What the registers of `volume` say at a moment which the volume has told that the stored map is complete to; `None`
    /// where it has no meter, or that has been joined beyond the moment, or what it inherits is not known yet.
    #[must_use]
    pub fn meter_reading(&self, volume: VolumeId, at: MeterTime) -> Option<MeterReading> {
        self.meter_to_change(volume).filter(|meter| !meter.awaits_inheritance)?.reading(at)
    }

    /// Up to when the registers of a volume have been joined: no reading of before can be had.
    #[must_use]
    pub fn meter_since(&self, volume: VolumeId) -> Option<MeterTime> {
        self.meters.get(&volume).map(|meter| meter.since)
    }

    /// What they said at each of some moments, in order, which the stored map is complete to and that have not been joined.
    #[must_use]
    pub fn meter_readings(&self, volume: VolumeId, moments: &[MeterTime]) -> Vec<MeterReading> {
        let Some(mut meter) = self.meter_to_change(volume).filter(|meter| !meter.awaits_inheritance) else {
            return Vec::new();
        };
        let mut readings = Vec::new();
        for at in moments {
            meter.join_to(*at);
            readings.extend(meter.reading(*at));
        }
        readings
    }

    /// Readings up to a moment have been taken, and are kept: none is asked before it any more.
    pub fn forget_readings(&mut self, volume: VolumeId, to: MeterTime) {
        if let Some(meter) = self.meters.get_mut(&volume).filter(|meter| !meter.awaits_inheritance) {
            meter.join_to(to);
        }
    }

    /// Keeps what was measured: it counts from now on, and what was measured before counts until now. Durable: a reading that
    /// is taken next says what every later one goes on from.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: what was measured before holds on.
    pub fn note_measured(&mut self, all: &[(VolumeId, Measured)], now: MeterTime) -> Result<(), DiskFault> {
        let set = |(volume, measured): &(VolumeId, Measured)| {
            let mut meter = self.meter_to_change(*volume)?;
            let before = meter.clone();
            meter.set(Gauge::Snapshots, now, measured.snapshots);
            meter.set(Gauge::History, now, measured.history);
            meter.set(Gauge::Physical, now, measured.physical);
            (meter != before).then_some((*volume, meter))
        };
        let measured: Vec<(VolumeId, Meter)> = all.iter().filter_map(set).collect();
        if measured.is_empty() {
            return Ok(());
        }
        let put = |(volume, meter): &(VolumeId, Meter)| StoreWrite::Put(rows::meter_key(*volume), meter.encode());
        self.commit(measured.iter().map(put).collect(), Durability::Durable)?;
        self.meters.extend(measured);
        Ok(())
    }

    /// How often what the registers say there is was not what the map has: never, unless something is wrong.
    #[must_use]
    pub const fn meter_differences(&self) -> u64 {
        self.meter_differences
    }

    /// The meter of a volume of which pages lose their last version, if it has to know of that.
    pub(super) fn meter_after_emptying(&self, volume: VolumeId, emptied: &[(PageIndex, Lsn)]) -> Option<Meter> {
        let folded_to = self.volume_row(volume).map_or(Lsn::ZERO, |row| row.folded_to);
        let ahead: Vec<_> = emptied.iter().filter(|(_, lsn)| *lsn > folded_to).collect();
        let mut meter = self.meter_to_change(volume).filter(|_| !ahead.is_empty())?;
        ahead.into_iter().for_each(|(page, lsn)| meter.note_emptied(page.0..page.0 + 1, *lsn));
        Some(meter)
    }
}
