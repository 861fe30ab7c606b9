//! The meter: reads the registers of all volumes, and writes what they say to the ledger.
//!
//! What a volume has used is counted with its log (`volume`, "the meter"). Here it is read: at the end of every period, when its
//! tenant or class changes, and when it is deleted. A reading that is durable in the ledger is never taken again, and one that
//! is not is taken once more after a crash, with the same result. Of what clients ask only the counts of the last second are
//! lost with the process; they are never counted twice.
//!
//! The ledger lies in a volume of its own, which nobody can name. Where it cannot be written the registers go on, and
//! readings of the time are taken when it can.

mod books;
mod endings;
mod ledger;
mod looks;
mod machine;
mod rounds;

pub(super) use machine::{Beginning, Resumed};

use super::CatalogueError;
use super::record::MeterRecord;
use crate::metering::MeterTimes;
use books::Accounts;
use ledger::{LedgerVolume, Lines, OpenLedger};
use looks::Looks;
use metering::ledger::{Date, Kind, NewEntry, SigningKey, decode_readings};
use metering::{ClockEvent, MeterClock, Reading};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};
use tokio::sync::Mutex;
use units::{MeterTime, VolumeId};
use volume::pool::RequestCounts;

/// How readings are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterConfig {
    /// How often, in milliseconds.
    pub period_ms: u64,
    /// For how many days they are kept.
    pub kept_days: u16,
}

impl Default for MeterConfig {
    fn default() -> Self {
        Self { period_ms: 300_000, kept_days: 92 }
    }
}

/// Who keeps the meter.
#[derive(Debug)]
pub(super) struct MeterKeeper {
    config: MeterConfig,
    times: MeterTimes,
    place: LedgerVolume,
    requests: std::sync::Mutex<Requests>,
    keeping: Mutex<Keeping>,
    /// Taken before `keeping`.
    accounts: Mutex<Accounts>,
    /// Each taken before `keeping`.
    looks: Looks,
    figures: std::sync::Mutex<MeterFigures>,
}

/// What is to be watched of the meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MeterFigures {
    /// How often since the start registers did not say what the map has: a bill may be wrong.
    pub differences: u64,
    /// When all volumes were read last, milliseconds since 1970; 0 before that.
    pub read_ms: u64,
}

/// What it knows.
#[derive(Debug)]
pub(super) struct Keeping {
    record: MeterRecord,
    clock: MeterClock,
    /// Clock events that the ledger does not have yet.
    events: Vec<ClockEvent>,
    /// `None` while it is out of order.
    ledger: Option<OpenLedger>,
    /// Why that is, as it was told last.
    told: Option<String>,
    /// The last reading of each volume that is in the ledger.
    last: BTreeMap<VolumeId, Reading>,
    next_round: MeterTime,
}

/// What was asked of each volume.
#[derive(Debug, Default)]
struct Requests {
    /// In all, and what its shard said last: since the volume was opened.
    of: BTreeMap<VolumeId, (RequestCounts, RequestCounts)>,
}

impl Requests {
    /// Counts what a shard says was asked of a volume since it was opened; tells whether that is more than before.
    fn count(&mut self, volume: VolumeId, said: RequestCounts) -> bool {
        let (total, seen) = self.of.entry(volume).or_default();
        // Less than before: it was opened anew.
        let is_anew = said.reads < seen.reads || said.writes < seen.writes;
        let more = if is_anew { said } else { said.since(*seen) };
        (*total, *seen) = (total.plus(more), said);
        more != RequestCounts::default()
    }

    /// What was asked of a volume in all.
    fn total(&self, volume: VolumeId) -> RequestCounts {
        self.of.get(&volume).map(|(total, _)| *total).unwrap_or_default()
    }

    /// At least so much was asked of a volume before.
    fn raise(&mut self, volume: VolumeId, to: RequestCounts) {
        let (total, _) = self.of.entry(volume).or_default();
        *total = total.max(to);
    }
}

impl MeterKeeper {
    /// The meter's time.
    pub(super) fn now(&self) -> MeterTime {
        self.times.now()
    }

    fn figures(&self) -> MutexGuard<'_, MeterFigures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Every change of it is one call.
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeping {
    /// Finds the ledger unless it is open, and in it the last reading of each of `wanted`.
    async fn open(&mut self, place: &LedgerVolume, wanted: &BTreeSet<VolumeId>) -> Result<(), CatalogueError> {
        if self.ledger.is_none() {
            let seed = machine::unhex(&self.record.seed).ok_or_else(|| ledger::broken("its key is damaged"))?;
            let id = machine::unhex(&self.record.ledger).ok_or_else(|| ledger::broken("its id is damaged"))?;
            let opened = OpenLedger::open(place.clone(), (SigningKey::from_seed(&seed), id)).await?;
            self.last = last_readings(&opened, wanted).await?;
            self.ledger = Some(opened);
        }
        Ok(())
    }

    /// The ledger, where it is open.
    fn open_ledger(&self) -> Result<&OpenLedger, CatalogueError> {
        self.ledger.as_ref().ok_or_else(out_of_order)
    }

    /// Signs the ledger as the end of a day.
    async fn sign(&mut self, date: Date) -> Result<(), CatalogueError> {
        let mut open = self.taken()?;
        let signed = open.sign(date).await;
        self.keep_if_sound(open, signed)
    }

    /// Appends entries of the meter or of accounts. Where that fails the ledger is found again before the next.
    async fn append(&mut self, entries: &[NewEntry<'_>]) -> Result<(), CatalogueError> {
        let mut open = self.taken()?;
        let appended = open.append(entries).await;
        self.keep_if_sound(open, appended)
    }

    /// Gives up readings of before a date that are older than those of so many days.
    async fn give_up_before(&mut self, date: Date, days: u16) -> Result<(), CatalogueError> {
        let mut open = self.taken()?;
        let given_up = open.give_up_before(date, days).await;
        self.keep_if_sound(open, given_up)
    }

    /// The ledger, taken out for a write: when whoever writes is given up on the way, it is found again before the next.
    fn taken(&mut self) -> Result<OpenLedger, CatalogueError> {
        self.ledger.take().ok_or_else(out_of_order)
    }

    /// After a write that failed nobody knows what is in the volume.
    fn keep_if_sound(&mut self, open: OpenLedger, result: Result<(), CatalogueError>) -> Result<(), CatalogueError> {
        if matches!(result, Ok(()) | Err(CatalogueError::Request(_))) {
            self.ledger = Some(open);
        }
        result
    }
}

fn out_of_order() -> CatalogueError {
    ledger::broken("it is out of order")
}

/// The last reading of each of `wanted`, from the end of the ledger: as far back as needed.
async fn last_readings(
    open: &OpenLedger,
    wanted: &BTreeSet<VolumeId>,
) -> Result<BTreeMap<VolumeId, Reading>, CatalogueError> {
    let (mut last, mut end) = (BTreeMap::new(), open.ledger().end_block());
    let heads: Vec<u64> = open.ledger().heads().iter().rev().map(|place| place.block).collect();
    let from = open.ledger().whole_from_block();
    for begin in heads.into_iter().chain([from]).map(|block| block.max(from)) {
        let mut of_part: BTreeMap<VolumeId, Reading> = BTreeMap::new();
        let (mut lines, place) = (Lines::of(begin..end), open.place());
        while let Some(line) = lines.next(&place).await? {
            of_part.extend(readings_of(&line)?.into_iter().map(|reading| (reading.resource, reading)));
        }
        for (volume, reading) in of_part {
            last.entry(volume).or_insert(reading);
        }
        end = begin;
        if wanted.iter().all(|volume| last.contains_key(volume)) {
            break;
        }
    }
    Ok(last)
}

/// The readings that a line of the ledger has.
fn readings_of(line: &[u8]) -> Result<Vec<Reading>, CatalogueError> {
    let Ok(entry) = metering::ledger::Entry::parse(line) else { return Ok(Vec::new()) };
    if entry.kind != Kind::Readings {
        return Ok(Vec::new());
    }
    let readings = decode_readings(entry.tenant, entry.payload);
    readings
        .ok_or_else(|| ledger::broken(&format!("entry {} of tenant {} has no readings", entry.number, entry.tenant)))
}
