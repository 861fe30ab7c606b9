//! The ledger as its daemon and its readers use it, over a volume in memory.

mod attacks;
mod edits;
mod recovery;
mod stories;

use super::*;
use crate::{Dimension, Mark, Reading, Registers};
use std::collections::BTreeMap;
use units::{BLOCK_LEN, ClassId, Epoch, MeterTime, TenantId, VolumeId};

pub(super) const CAPACITY_BLOCKS: u64 = 1 << 20;

pub(super) const ID: LedgerId = LedgerId([0xab; 16]);

/// The ledger and its volume.
pub(super) struct World {
    pub(super) disk: BTreeMap<u64, Vec<u8>>,
    pub(super) ledger: Ledger,
    pub(super) day: u8,
    round: u64,
}

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

pub(super) fn trusting(seed: u8) -> Trust {
    Trust { keys: vec![key(seed).public()], heads: Vec::new() }
}

impl World {
    pub(super) fn new() -> Self {
        let (ledger, write) = Ledger::create(CAPACITY_BLOCKS, ID);
        let mut world = Self { disk: BTreeMap::new(), ledger, day: 0, round: 0 };
        world.write(&write);
        world
    }

    /// Writes, and says that it is durable.
    pub(super) fn write(&mut self, write: &BlockWrite) {
        for (block, bytes) in (write.first..).zip(write.bytes.chunks(BLOCK_LEN)) {
            self.disk.insert(block, bytes.to_vec());
        }
        self.ledger.on_durable();
    }

    pub(super) fn block(&self, block: u64) -> Vec<u8> {
        self.disk.get(&block).cloned().unwrap_or_else(|| vec![0; BLOCK_LEN])
    }

    /// A round of readings: of each of `tenants`, of its two volumes.
    pub(super) fn readings(&mut self, tenants: &[u64]) -> BlockWrite {
        self.round += 1;
        let payloads: Vec<(u64, String)> = tenants
            .iter()
            .flat_map(|tenant| {
                let readings: Vec<Reading> =
                    (1..=2).map(|volume| self.reading(*tenant, 10 * tenant + volume)).collect();
                encode_readings(&readings).into_iter().map(|payload| (*tenant, payload))
            })
            .collect();
        let entry = |(tenant, payload): &(u64, String)| (Kind::Readings, *tenant, payload.clone());
        let entries: Vec<_> = payloads.iter().map(entry).collect();
        self.append(&entries)
    }

    fn reading(&self, tenant: u64, volume: u64) -> Reading {
        let at = 300_000 * self.round;
        let registers = Registers::default()
            .with(Dimension::Provisioned, u128::from(at) << 30)
            .with(Dimension::Written, u128::from(at * volume) << 20)
            .with(Dimension::Writes, u128::from(self.round * volume));
        let wall_ms = 1_795_824_000_000 + at;
        let first = Reading::first(VolumeId(volume), TenantId(tenant), ClassId::DEFAULT, MeterTime(at), wall_ms);
        Reading { sequence: self.round, mark: Mark::Usual, registers, ..first }
    }

    pub(super) fn append(&mut self, entries: &[(Kind, u64, String)]) -> BlockWrite {
        let time_ms = 1_795_824_000_000 + self.round;
        let entries: Vec<NewEntry<'_>> = entries
            .iter()
            .map(|(kind, tenant, payload)| NewEntry { tenant: TenantId(*tenant), kind: *kind, time_ms, payload })
            .collect();
        self.ledger.append(&entries).expect("entries")
    }

    pub(super) fn note(&mut self, tenant: u64, text: &str) -> BlockWrite {
        self.append(&[(Kind::Note, tenant, format!("{{\"text\":\"{text}\"}}"))])
    }

    /// The head of the next day.
    pub(super) fn head(&mut self, seed: u8, next_seed: Option<u8>) -> BlockWrite {
        self.day += 1;
        let date = Date::new(2026, 11, self.day).expect("a day of November");
        self.ledger.sign_head(date, &key(seed), next_seed.map(|seed| key(seed).public())).expect("a head")
    }

    /// A day of `tenants`: two rounds of readings, a note each, the head.
    pub(super) fn day(&mut self, tenants: &[u64], seed: u8, next_seed: Option<u8>) {
        for _ in 0..2 {
            let write = self.readings(tenants);
            self.write(&write);
        }
        for tenant in tenants {
            let write = self.note(*tenant, "all is well");
            self.write(&write);
        }
        let write = self.head(seed, next_seed);
        self.write(&write);
    }

    pub(super) fn export(&self, export: Export) -> Result<Vec<u8>, ExportError> {
        let (mut exporter, mut reader, mut out) = (Exporter::new(export), LineReader::default(), Vec::new());
        let heads = self.ledger.heads();
        let after = heads.iter().find(|place| Some(place.number) == export.after);
        for block in after.map_or(1, |place| place.block)..self.ledger.end_block() {
            for line in reader.block(block, &self.block(block)).expect("a block") {
                exporter.line(&line, &mut out)?;
            }
        }
        assert!(exporter.is_done());
        Ok(out)
    }

    /// What a start of the daemon finds.
    pub(super) fn recover(&self) -> Result<Ledger, RecoverError> {
        let mut recovery = Recovery::new(CAPACITY_BLOCKS);
        let mut reads = 0;
        while let Some(blocks) = recovery.wants() {
            recovery.take(&blocks.map(|block| self.block(block)).collect::<Vec<_>>().concat())?;
            reads += 1;
            assert!(reads < 10_000, "it comes to no end");
        }
        recovery.finish().map(|ledger| ledger.expect("there is a ledger"))
    }
}

pub(super) const fn export(tenant: u64, after: Option<u64>, last: u64) -> Export {
    Export { tenant: TenantId(tenant), books: Books::Both, after, last }
}

/// Four days of three tenants, of which the third comes on the second day; the key changes after the second.
pub(super) fn four_days() -> World {
    let mut world = World::new();
    world.day(&[1, 2], 1, None);
    world.day(&[1, 2, 3], 1, Some(9));
    world.day(&[1, 2, 3], 9, None);
    world.day(&[1, 2, 3], 9, None);
    world
}
