//! The disk under the pool: what reads see, what is durable, and the writes in between.
//!
//! A write is in the page cache at once and on the medium at a sync. A power cut leaves any subset of what was not synced,
//! sector by sector, but of one sector no older version after a newer one. A failed sync loses part of what it covered for
//! good: the page cache shows it until that is dropped, and no later sync brings it back.

use crate::pattern::SECTOR_LEN;
use crate::random::Random;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use units::{BLOCK_BYTES, BLOCK_LEN};
use volume::error::DiskFault;
use volume::store::PoolReader;

/// Names a write of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteNumber(u64);

/// What a power cut made of the writes that waited to be synced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PowerCut {
    /// Writes of which nothing is left.
    pub dropped: u64,
    /// Writes of which some sectors are left.
    pub torn: u64,
    /// Writes that are left whole, though one before them is not.
    pub reordered: u64,
}

#[derive(Debug)]
struct Unsynced {
    number: WriteNumber,
    offset: usize,
    bytes: Vec<u8>,
    /// Whoever wrote it has been told.
    has_ended: bool,
}

impl Unsynced {
    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    fn sectors(&self) -> impl Iterator<Item = (usize, &[u8])> {
        (self.offset..).step_by(SECTOR_LEN).zip(self.bytes.chunks(SECTOR_LEN))
    }
}

/// A simulated disk.
#[derive(Debug)]
pub struct SimDisk {
    cache: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
    next: u64,
    /// Sectors that a failed sync lost: the cache shows what the medium has not.
    forgotten: BTreeSet<usize>,
    /// Blocks of the pool that do not hold what was last written there.
    damaged: BTreeSet<u64>,
    /// Reads of a thousand, by [`PoolReader`], that fail.
    read_faults: Cell<u32>,
    reader_random: RefCell<Random>,
    faults: Cell<u64>,
}

impl SimDisk {
    /// Makes a disk of zeros.
    #[must_use]
    pub fn new(bytes: u64, random: Random) -> Self {
        Self {
            cache: vec![0; bytes as usize],
            durable: vec![0; bytes as usize],
            unsynced: Vec::new(),
            next: 0,
            forgotten: BTreeSet::new(),
            damaged: BTreeSet::new(),
            read_faults: Cell::new(0),
            reader_random: RefCell::new(random),
            faults: Cell::new(0),
        }
    }

    /// Sets how many reads of a thousand, made at rest, fail.
    pub fn set_read_faults(&self, per_mille: u32) {
        self.read_faults.set(per_mille);
    }

    /// How many reads made at rest were failed.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.get()
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.cache.len() as u64
    }

    /// Whether it has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// What reads see at `offset`.
    #[must_use]
    pub fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        &self.cache[offset as usize..offset as usize + len]
    }

    /// Writes to the page cache.
    pub fn write(&mut self, offset: u64, bytes: Vec<u8>) -> WriteNumber {
        let at = offset as usize;
        self.cache[at..at + bytes.len()].copy_from_slice(&bytes);
        for block in blocks(offset, bytes.len()) {
            self.damaged.remove(&block);
        }
        for sector in (at..at + bytes.len()).step_by(SECTOR_LEN) {
            self.forgotten.remove(&sector);
        }
        let number = WriteNumber(self.next);
        self.next += 1;
        self.unsynced.push(Unsynced { number, offset: at, bytes, has_ended: false });
        number
    }

    /// Notes that whoever wrote has been told: a sync that begins now covers it.
    pub fn end_write(&mut self, number: WriteNumber) {
        if let Some(write) = self.unsynced.iter_mut().find(|write| write.number == number) {
            write.has_ended = true;
        }
    }

    /// What a sync that begins now covers: every write that has ended, and by chance some that have not.
    pub fn begin_sync(&self, random: &mut Random) -> BTreeSet<WriteNumber> {
        let mut covered = BTreeSet::new();
        let mut later: Vec<&Unsynced> = Vec::new();
        for write in self.unsynced.iter().rev() {
            let is_under = later.iter().any(|above| write.offset < above.end() && above.offset < write.end());
            if write.has_ended || is_under || random.chance(300) {
                covered.insert(write.number);
                later.push(write);
            }
        }
        covered
    }

    /// Every write that waits to be synced.
    #[must_use]
    pub fn all_unsynced(&self) -> BTreeSet<WriteNumber> {
        self.unsynced.iter().map(|write| write.number).collect()
    }

    /// Makes what a sync covers durable.
    pub fn end_sync(&mut self, covered: &BTreeSet<WriteNumber>) {
        let (synced, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unsynced).into_iter().partition(|write| covered.contains(&write.number));
        self.unsynced = rest;
        for write in synced {
            self.durable[write.offset..write.end()].copy_from_slice(&write.bytes);
        }
    }

    /// Fails a sync: of what it covers some sectors are durable, the others never will be.
    pub fn fail_sync(&mut self, covered: &BTreeSet<WriteNumber>, random: &mut Random) {
        let (lost, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unsynced).into_iter().partition(|write| covered.contains(&write.number));
        self.unsynced = rest;
        for write in lost {
            let kept = *random.pick(&[0, 500, 900]);
            for (at, sector) in write.sectors() {
                if random.chance(kept) {
                    self.durable[at..at + sector.len()].copy_from_slice(sector);
                    self.forgotten.remove(&at);
                } else {
                    self.forgotten.insert(at);
                }
            }
        }
    }

    /// Drops what the page cache holds beyond the medium, but for what waits to be synced.
    pub fn drop_cache(&mut self) {
        for at in std::mem::take(&mut self.forgotten) {
            self.cache[at..at + SECTOR_LEN].copy_from_slice(&self.durable[at..at + SECTOR_LEN]);
        }
        for write in &self.unsynced {
            self.cache[write.offset..write.end()].copy_from_slice(&write.bytes);
        }
    }

    /// Cuts the power. Writes are torn unless it `takes_whole_writes`.
    pub fn power_cut(&mut self, takes_whole_writes: bool, random: &mut Random) -> PowerCut {
        let mut cut = PowerCut::default();
        let modes = [(500, 1000), (0, 0), (1000, 1000), (1000, 500), (800, 900), (300, 700)];
        let (by_write, by_sector) = if takes_whole_writes { modes[0] } else { *random.pick(&modes) };
        for write in std::mem::take(&mut self.unsynced) {
            if !random.chance(by_write) {
                cut.dropped += 1;
                continue;
            }
            let mut kept = 0;
            // Some writes are cut at one place, as a device does that fills its cache in order.
            let torn_at = if !takes_whole_writes && random.chance(200) {
                random.below(write.bytes.len() as u64 + 1) as usize
            } else {
                usize::MAX
            };
            for (at, sector) in write.sectors() {
                if at - write.offset < torn_at && random.chance(by_sector) {
                    self.durable[at..at + sector.len()].copy_from_slice(sector);
                    kept += sector.len();
                }
            }
            if kept == write.bytes.len() {
                cut.reordered += u64::from(cut.dropped + cut.torn > 0);
            } else if kept > 0 {
                cut.torn += 1;
            } else {
                cut.dropped += 1;
            }
        }
        self.forgotten.clear();
        self.cache.copy_from_slice(&self.durable);
        cut
    }

    /// Flips bits of a block, in the medium and in what reads see.
    pub fn rot(&mut self, block: u64, random: &mut Random) {
        for _ in 0..random.within(1, 3) {
            let (at, bit) = ((block * BLOCK_BYTES + random.below(BLOCK_BYTES)) as usize, 1 << random.below(8));
            self.cache[at] ^= bit;
            self.durable[at] ^= bit;
        }
        self.damaged.insert(block);
    }

    /// Notes that these bytes do not hold what was written there.
    pub fn note_damage(&mut self, offset: u64, len: usize) {
        self.damaged.extend(blocks(offset, len));
    }

    /// Whether a block of these does not hold what was last written there.
    #[must_use]
    pub fn is_damaged(&self, offset: u64, len: usize) -> bool {
        self.damaged.range(blocks(offset, len)).next().is_some()
    }

    /// Blocks of the pool that are known to be damaged.
    #[must_use]
    pub fn damage(&self) -> usize {
        self.damaged.len()
    }

    /// Whether a write to these bytes waits to be synced.
    #[must_use]
    pub fn is_unsynced(&self, offset: u64, len: usize) -> bool {
        let (start, end) = (offset as usize, offset as usize + len);
        self.unsynced.iter().any(|write| write.offset < end && start < write.end())
    }
}

impl PoolReader for SimDisk {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskFault> {
        assert!(
            offset.is_multiple_of(BLOCK_BYTES) && buffer.len().is_multiple_of(BLOCK_LEN),
            "reads are of whole blocks"
        );
        if self.read_faults.get() > 0 && self.reader_random.borrow_mut().chance(self.read_faults.get()) {
            self.faults.set(self.faults.get() + 1);
            return Err(DiskFault::Io);
        }
        buffer.copy_from_slice(self.bytes(offset, buffer.len()));
        Ok(())
    }
}

fn blocks(offset: u64, len: usize) -> std::ops::Range<u64> {
    offset / BLOCK_BYTES..(offset + len as u64).div_ceil(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_may_tear_what_was_not() {
        let mut random = Random::new(7);
        let (mut kept, mut lost) = (0, 0);
        for _ in 0..200 {
            let mut disk = SimDisk::new(16384, Random::new(0));
            let first = disk.write(0, vec![1; 4096]);
            disk.end_write(first);
            let covered = disk.begin_sync(&mut random);
            disk.write(4096, vec![2; 4096]);
            disk.end_sync(&covered);
            disk.power_cut(false, &mut random);
            assert_eq!(disk.bytes(0, 4096), [1; 4096]);
            kept += u32::from(disk.bytes(4096, 4096) == [2; 4096]);
            lost += u32::from(disk.bytes(4096, 4096) == [0; 4096]);
        }
        assert!(kept > 0 && lost > 0 && kept + lost < 200, "{kept} kept, {lost} lost, the rest torn");
    }

    #[test]
    fn what_a_failed_sync_lost_is_seen_until_the_cache_is_dropped() {
        let mut random = Random::new(1);
        let mut disk = SimDisk::new(8192, Random::new(0));
        let write = disk.write(0, vec![9; 8192]);
        disk.end_write(write);
        let covered = disk.begin_sync(&mut random);
        disk.fail_sync(&covered, &mut random);
        assert_eq!(disk.bytes(0, 8192), [9; 8192]);
        let again = disk.begin_sync(&mut random);
        disk.end_sync(&again);
        disk.drop_cache();
        assert_ne!(disk.bytes(0, 8192), [9; 8192]);
    }
}
