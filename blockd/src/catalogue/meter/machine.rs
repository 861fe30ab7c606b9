//! The meter at the start: its clock goes on, its ledger is found, and every volume has a meter before it is served.

use super::super::book::Book;
use super::super::record::{MeterRecord, Record, VolumeRecord};
use super::super::shelf::Shelf;
use super::super::{CatalogueError, ask, shard_of};
use super::ledger::{LEDGER_BYTES, LedgerVolume};
use super::looks::Looks;
use super::rounds::requests_of;
use super::{Keeping, MeterConfig, MeterKeeper, Requests};
use crate::metering::{MeterTimes, clocks};
use crate::shard::ShardHandle;
use crate::store::StoreHandle;
use metering::{ClockEvent, Clocks, Dimension, KeptClock, MeterClock, Reading};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use tokio::sync::Mutex;
use units::{MeterTime, VolumeId};
use volume::error::{Error, ErrorKind};
use volume::pool::{Gauge, Gauged, MeterReading, MeterStart};

/// What the meter begins with.
pub(in super::super) struct Beginning {
    pub(in super::super) times: MeterTimes,
    pub(in super::super) config: MeterConfig,
    /// What was kept of it.
    pub(in super::super) record: Option<MeterRecord>,
    /// The latest time that a log tells.
    pub(in super::super) floor: MeterTime,
}

impl Beginning {
    /// Has the clock go on; returns what the keeper is to be made of.
    ///
    /// # Errors
    /// When the machine's clocks cannot be read; the system volume's.
    pub(in super::super) async fn resume(self, book: &mut Book) -> Result<Resumed, CatalogueError> {
        let failed = |error: std::io::Error| Error::new(ErrorKind::Unavailable, format!("the meter's clock: {error}"));
        let now = clocks().map_err(failed)?;
        let kept = self.record.as_ref().map(kept_clock);
        let (clock, event) = MeterClock::resume(kept, self.floor, now);
        self.times.follow(&clock);
        let is_new = self.record.is_none();
        let record = match self.record {
            Some(record) => record,
            None => new_record(book.take_ids(1).await?).map_err(failed)?,
        };
        let record = with_clock(record, &clock, event);
        if is_new || event.is_some() {
            book.put(&Record::Meter(record.clone())).await?;
        }
        if let Some(event) = event {
            tracing::info!(?event, "the meter's clock goes on");
        }
        Ok(Resumed { record, clock, event, times: self.times, config: self.config })
    }
}

/// A meter whose clock goes on.
pub(in super::super) struct Resumed {
    record: MeterRecord,
    clock: MeterClock,
    event: Option<ClockEvent>,
    times: MeterTimes,
    config: MeterConfig,
}

impl Resumed {
    /// The ledger's volume, which is to be served before [`Resumed::begin`].
    pub(in super::super) const fn volume(&self) -> (VolumeId, u64) {
        (VolumeId(self.record.id), LEDGER_BYTES)
    }

    /// Finds the ledger, and begins the meters of volumes that have none.
    pub(in super::super) async fn begin(
        self,
        (shards, store): (&[ShardHandle], &StoreHandle),
        shelf: &Shelf,
    ) -> Result<MeterKeeper, CatalogueError> {
        let volume = VolumeId(self.record.id);
        let shard = shards.get(shard_of(volume, shards.len())).cloned().ok_or(CatalogueError::Ended("a shard"))?;
        let place = LedgerVolume { shard, volume };
        let now = self.times.now();
        let mut keeping = Keeping {
            record: self.record,
            clock: self.clock,
            events: self.event.into_iter().collect(),
            ledger: None,
            told: None,
            last: BTreeMap::new(),
            next_round: now,
        };
        if let Err(error) = keeping.open(&place, &wanted(shelf)).await {
            tracing::error!(%error, "the ledger is out of order: readings are taken when it can be written again");
            keeping.told = Some(error.to_string());
        }
        let noted = ask::noted_requests(store).await?.map_err(|fault| ask::store_failed("what was asked", fault))?;
        let mut requests = Requests::default();
        noted.into_iter().for_each(|(volume, counts)| requests.raise(volume, counts));
        keeping.last.iter().for_each(|(volume, reading)| requests.raise(*volume, requests_of(reading)));
        let starts = shelf
            .metered()
            .map(|record| (VolumeId(record.id), start_of(record, keeping.last.get(&VolumeId(record.id)), now)));
        ask::begin_meters(store, starts.collect()).await?.map_err(|fault| ask::store_failed("begin meters", fault))?;
        let (config, times, keeping) = (self.config, self.times, Mutex::new(keeping));
        let requests = std::sync::Mutex::new(requests);
        Ok(MeterKeeper {
            config,
            times,
            place,
            requests,
            keeping,
            accounts: Mutex::default(),
            looks: Looks::default(),
            figures: std::sync::Mutex::default(),
        })
    }
}

/// Of which volumes the last reading is needed: of those that have a name, read or not, and those whose end is not in the ledger.
pub(super) fn wanted(shelf: &Shelf) -> BTreeSet<VolumeId> {
    let is_wanted = |record: &&VolumeRecord| shelf.has_name(record) || record.metered.end.is_some();
    shelf.volumes().filter(is_wanted).map(|record| VolumeId(record.id)).collect()
}

impl Shelf {
    /// The volumes that are metered: those that have a name and can be read. A copy is metered where it was made.
    pub(in super::super) fn metered(&self) -> impl Iterator<Item = &VolumeRecord> {
        let is_copy = |record: &VolumeRecord| record.mirror.is_some_and(|mirror| mirror.is_copy);
        self.volumes()
            .filter(move |record| self.has_name(record) && self.damage_of(record.id).is_none() && !is_copy(record))
    }

    fn has_name(&self, record: &VolumeRecord) -> bool {
        self.head_of(record.line()).is_some_and(|head| head.id == record.id)
    }
}

/// How the meter of a volume begins that has none: one that was read before lost it with its index, and goes on.
fn start_of(record: &VolumeRecord, last: Option<&Reading>, now: MeterTime) -> MeterStart {
    let size_bytes = record.size_bytes;
    match last {
        Some(last) => MeterStart { at: now, size_bytes, last: Some(taken(last)) },
        None => MeterStart { at: record.metered.from.map_or(now, MeterTime), size_bytes, last: None },
    }
}

/// What the registers said. How much there was is not in a reading; nothing is billed for the time until it is known.
fn taken(reading: &Reading) -> MeterReading {
    let gauges = Gauge::ALL.map(|gauge| Gauged { bytes: 0, byte_ms: reading.registers.value(dimension_of(gauge)) });
    MeterReading::taken(reading.at, gauges)
}

/// The dimension that a gauge measures.
pub(super) const fn dimension_of(gauge: Gauge) -> Dimension {
    match gauge {
        Gauge::Provisioned => Dimension::Provisioned,
        Gauge::Written => Dimension::Written,
        Gauge::Snapshots => Dimension::Snapshots,
        Gauge::History => Dimension::History,
        Gauge::Physical => Dimension::Physical,
    }
}

fn kept_clock(record: &MeterRecord) -> KeptClock {
    let boot = u128::from_str_radix(&record.boot, 16).unwrap_or(0);
    let clocks = Clocks { boot, since_boot_ms: record.since_boot_ms, wall_ms: record.wall_ms };
    KeptClock { clocks, at_ms: record.at_ms }
}

/// The record with what the clock says now.
pub(super) fn with_clock(record: MeterRecord, clock: &MeterClock, event: Option<ClockEvent>) -> MeterRecord {
    let KeptClock { clocks, at_ms } = clock.kept();
    let estimated_ms = match event {
        Some(ClockEvent::Estimated { from_ms, to_ms, .. }) => to_ms.saturating_sub(from_ms),
        Some(ClockEvent::Began { .. } | ClockEvent::Stepped { .. }) | None => 0,
    };
    MeterRecord {
        boot: format!("{:032x}", clocks.boot),
        since_boot_ms: clocks.since_boot_ms,
        wall_ms: clocks.wall_ms,
        at_ms,
        estimated_ms: record.estimated_ms.saturating_add(estimated_ms),
        ..record
    }
}

fn new_record(id: u64) -> std::io::Result<MeterRecord> {
    let (mut seed, mut ledger) = ([0; 32], [0; 16]);
    let mut random = File::open("/dev/urandom")?;
    random.read_exact(&mut seed)?;
    random.read_exact(&mut ledger)?;
    let (boot, since_boot_ms, wall_ms, at_ms, estimated_ms) = (String::new(), 0, 0, 0, 0);
    Ok(MeterRecord { id, ledger: hex(&ledger), seed: hex(&seed), boot, since_boot_ms, wall_ms, at_ms, estimated_ms })
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a text takes all");
    }
    text
}

pub(super) fn unhex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    if text.len() != 2 * BYTES {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}
