//! A start of the daemon, as the program does it: superblock, index, recovery of every volume. Each write and sync of it is
//! a step at which it may be cut short.

use super::{Checked, Happening, TICK, World};
use crate::census::Fault;
use crate::oracle::Loss;
use crate::plan::FaultRates;
use crate::trace::Finding;
use units::{BLOCK_BYTES, BLOCK_LEN, Lsn, SECTOR_BYTES};
use volume::engine::Volume;
use volume::format::{SUPERBLOCK_OFFSETS, Superblock};
use volume::pool::{Index, OpenError};
use volume::rebuild::rebuild_with;
use volume::recover::{Recovered, recover};
use volume::store::PoolReader;

/// Why a start did not end with volumes served.
#[derive(Debug)]
enum Failed {
    /// It was cut short.
    Crashed,
    /// Something failed it; a person would start it again.
    Faulted(String),
    /// It must not.
    Found(Finding),
}

/// Starts of one life that may fail by injected faults before these end.
const FAULTED_STARTS_MAX: u32 = 3;

impl World {
    /// Makes the pool and its index, as the first start does.
    pub(super) fn make_pool(&mut self) -> Checked {
        for generation in [0, 1] {
            let superblock = Superblock { generation, ..self.superblock };
            self.disk.write(superblock.offset(), superblock.encode());
        }
        self.sync_all();
        Index::create(self.store.clone(), &self.superblock).map_err(|error| Finding(format!("no index: {error}")))?;
        Ok(())
    }

    pub(super) fn start(&mut self) -> Checked {
        let mut faulted = 0;
        loop {
            self.apply_rates(if faulted < FAULTED_STARTS_MAX { self.plan.rates } else { FaultRates::default() });
            let steps = self.random.chance(self.plan.ends.in_start).then(|| self.random.below(16));
            self.fuse.set(steps);
            let started = self.try_start(faulted < FAULTED_STARTS_MAX);
            let is_blown = self.fuse.is_blown();
            self.fuse.set(None);
            match started {
                Ok(()) => break,
                Err(Failed::Found(finding)) => return Err(finding),
                Err(Failed::Crashed) => self.crash_in_start(),
                Err(Failed::Faulted(_)) if is_blown => self.crash_in_start(),
                Err(Failed::Faulted(why)) => {
                    self.trace.tell(|| format!("start failed: {why}"));
                    if faulted >= FAULTED_STARTS_MAX || !self.has_faults() {
                        return Err(Finding(format!("nothing explains why the daemon does not start: {why}")));
                    }
                    faulted += 1;
                }
            }
        }
        self.apply_rates(self.plan.rates);
        self.outcome.starts += 1;
        Ok(())
    }

    pub(super) fn has_faults(&self) -> bool {
        let rates = &self.plan.rates;
        rates.start_read + rates.start_write + rates.store_commit + rates.store_read > 0
    }

    fn crash_in_start(&mut self) {
        self.note(Fault::CrashInStart);
        self.crash();
    }

    pub(super) fn apply_rates(&mut self, rates: FaultRates) {
        self.rates = rates;
        self.disk.set_read_faults(rates.start_read);
        self.store.set_faults(rates.store_commit, rates.store_read);
    }

    fn try_start(&mut self, may_fault: bool) -> Result<(), Failed> {
        self.injected.syncs = 0;
        self.outage = None;
        self.queue.clear();
        self.resume_clock();
        // After a failed sync the page cache may show what the medium has not: the driver drops it before it recovers.
        self.disk.drop_cache();
        let superblock = self.read_superblock()?;
        let mut index = self.open_index(&superblock)?;
        self.resume_deletions(&mut index);
        let superblock = Superblock { generation: superblock.generation + 1, ..superblock };
        // The superblock that was read may be in the page cache only, left by a start that was killed.
        self.start_sync()?;
        index.note_generation(superblock.generation).map_err(|fault| Failed::Faulted(fault.to_string()))?;
        // That was durable, so an index that has been made anew is there to stay.
        self.is_store_deleted = false;
        self.start_write(superblock.offset(), &superblock.encode())?;
        self.start_sync()?;
        self.superblock = superblock;
        let parents = self.parents();
        let unsound = index.note_families(&parents).map_err(|fault| Failed::Faulted(fault.to_string()))?;
        if !unsound.is_empty() {
            return Err(Failed::Found(Finding(format!("clones are not known to the index: {unsound:?}"))));
        }
        self.begin_meters(&mut index).map_err(|fault| Failed::Faulted(fault.to_string()))?;
        let recovered = self.recover_all(&index, may_fault)?;
        self.write_recovered(&mut index, recovered)?;
        self.index = Some(index);
        self.wake_cleaner();
        self.open_compactor().map_err(Failed::Found)?;
        for site in 0..self.sites.len() {
            if self.sites[site].volume.is_some() {
                let wait = self.random.below(TICK);
                self.after(wait, Happening::Tick(site));
            }
        }
        Ok(())
    }

    fn read_superblock(&self) -> Result<Superblock, Failed> {
        let copy = |at: u64| Superblock::decode(self.disk.bytes(at, BLOCK_LEN));
        Superblock::newest(SUPERBLOCK_OFFSETS.map(copy))
            .map_err(|error| Failed::Found(Finding(format!("no superblock is whole: {error}"))))
    }

    fn open_index(&mut self, superblock: &Superblock) -> Result<Index<crate::store::SimStore>, Failed> {
        if !self.is_store_deleted {
            match Index::open(self.store.clone(), superblock, &self.disk) {
                Ok(index) => return Ok(index),
                // The superblock that counts has rotted: the operator rebuilds.
                Err(OpenError::Stale { .. }) if self.injected.lies > 0 => {}
                Err(OpenError::Disk(_) | OpenError::Store(_)) if self.fuse.is_blown() => return Err(Failed::Crashed),
                Err(error @ (OpenError::Disk(_) | OpenError::Store(_))) => {
                    return Err(Failed::Faulted(error.to_string()));
                }
                Err(error) => return Err(Failed::Found(Finding(format!("the index does not open: {error}")))),
            }
        }
        self.is_store_deleted = true;
        self.start_sync()?;
        self.is_order_lost |= self.loss() > Loss::Nothing;
        self.note(Fault::Rebuild);
        self.clocks.note_rebuild();
        self.note_store_faults();
        self.injected.map_pages = 0;
        self.injected.may_revive |= self.injected.lost_voids > 0;
        self.injected.may_lack |= self.injected.lies > 0;
        self.store = crate::store::SimStore::new(self.random.fork(), self.fuse.clone());
        self.store.set_faults(self.rates.store_commit, self.rates.store_read);
        let told = self.read_records(self.is_order_lost);
        match rebuild_with(self.store.clone(), superblock, &self.disk, |_| told) {
            Ok((index, report)) => {
                self.trace.tell(|| {
                    format!(
                        "rebuilt: {} segments, {} mends, damaged {:?}, notes {:?}",
                        report.segments,
                        report.mends.len(),
                        report.damaged,
                        report.notes
                    )
                });
                for (offset, bytes) in &report.mends {
                    self.start_write(*offset, bytes)?;
                }
                self.start_sync()?;
                Ok(index)
            }
            Err(_) if self.fuse.is_blown() => Err(Failed::Crashed),
            Err(error @ (OpenError::Disk(_) | OpenError::Store(_))) => Err(Failed::Faulted(error.to_string())),
            Err(error) => Err(Failed::Found(Finding(format!("rebuild fails: {error}")))),
        }
    }

    fn recover_all(
        &mut self,
        index: &Index<crate::store::SimStore>,
        may_fault: bool,
    ) -> Result<Vec<(usize, Recovered)>, Failed> {
        let mut all = Vec::new();
        for site in (0..self.sites.len()).filter(|at| self.is_to_be_opened(*at)).collect::<Vec<_>>() {
            let known = index.known(self.sites[site].id, self.sites[site].created_bytes);
            match recover(&self.disk, &self.superblock, &known) {
                Ok(recovered) => {
                    self.trace.note(&[20, recovered.next_lsn.0, u64::from(recovered.chain)]);
                    self.trace.tell(|| {
                        format!(
                            "{site}: recovered to {}, folded to {}, {} segments, {} writes, sealed {:?}, voided {:?}",
                            recovered.next_lsn,
                            recovered.folded_to,
                            recovered.segments.len(),
                            recovered.writes.len(),
                            recovered.sealed,
                            recovered.voided
                        )
                    });
                    self.note_log_end(site, &recovered)?;
                    self.note_found(index, site, &recovered).map_err(|fault| Failed::Faulted(fault.to_string()))?;
                    all.push((site, recovered));
                }
                Err(damage) if self.injected.lies > 0 => {
                    self.trace.tell(|| format!("{site}: damaged: {damage}"));
                    self.outcome.quarantined += u64::from(!self.sites[site].is_damaged);
                    self.sites[site].is_damaged = true;
                }
                Err(damage) if may_fault && self.rates.start_read > 0 => {
                    return Err(Failed::Faulted(damage.to_string()));
                }
                Err(damage) => return Err(Failed::Found(Finding(format!("nothing explains the damage: {damage}")))),
            }
        }
        Ok(all)
    }

    /// P1: what a start found, and synced, is there at the next.
    fn note_log_end(&mut self, site: usize, recovered: &Recovered) -> Result<(), Failed> {
        // The next operation may be further on: after a rebuild, behind what a power cut took.
        let last = recovered.segments.iter().filter_map(|row| row.last_lsn).max();
        let (last, seen) = (last.unwrap_or(Lsn::ZERO), self.sites[site].last_lsn_seen);
        self.sites[site].last_lsn = last;
        if last < seen && self.injected.lies == 0 {
            return Err(Failed::Found(Finding(format!("P1: a log ends at {last}, and had been found up to {seen}"))));
        }
        Ok(())
    }

    fn write_recovered(
        &mut self,
        index: &mut Index<crate::store::SimStore>,
        mut all: Vec<(usize, Recovered)>,
    ) -> Result<(), Failed> {
        for (_, recovered) in &mut all {
            for (offset, bytes) in std::mem::take(&mut recovered.writes) {
                self.start_write(offset, &bytes)?;
            }
        }
        self.start_sync()?;
        let faulted = |fault: volume::error::DiskFault| Failed::Faulted(fault.to_string());
        for (_, recovered) in &all {
            recovered.sealed.iter().try_for_each(|row| index.note_segment(*row)).map_err(faulted)?;
            recovered.voided.iter().try_for_each(|segment| index.release(*segment)).map_err(faulted)?;
            let Recovered { volume, next_lsn, boundaries, borrowed, .. } = recovered;
            borrowed.iter().try_for_each(|(segment, loans)| index.note_loans(*segment, loans)).map_err(faulted)?;
            index.note_recovered_boundaries(*volume, *next_lsn, boundaries).map_err(faulted)?;
        }
        let next_lsns = all.iter().map(|(_, recovered)| (recovered.volume, recovered.next_lsn)).collect();
        self.reconcile(index, &next_lsns).map_err(Failed::Found)?;
        // Parents come before what began as them.
        for (site, recovered) in all {
            self.sites[site].is_damaged = self.is_condemned(index, site);
            if self.sites[site].is_damaged && self.injected.lies == 0 {
                let heir = recovered.volume;
                return Err(Failed::Found(Finding(format!("P1: volume {heir} has lost what it began as"))));
            }
            if !self.sites[site].is_damaged {
                self.sites[site].volume = Some(Volume::open(self.config(), recovered));
            }
        }
        Ok(())
    }

    fn start_write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failed> {
        if self.fuse.step() {
            let kept = self.random.below(bytes.len() as u64 / SECTOR_BYTES + 1) * SECTOR_BYTES;
            self.write_part(offset, bytes, kept as usize);
            return Err(Failed::Crashed);
        }
        if self.random.chance(self.rates.start_write) {
            self.note(Fault::StartWriteIo);
            let kept = self.random.below(bytes.len() as u64 / SECTOR_BYTES + 1) * SECTOR_BYTES;
            self.write_part(offset, bytes, kept as usize);
            return Err(Failed::Faulted("a write of the start".to_owned()));
        }
        if let Some(number) = self.write_or_lie(offset, bytes.to_vec()) {
            self.disk.end_write(number);
        }
        Ok(())
    }

    fn start_sync(&mut self) -> Result<(), Failed> {
        if self.fuse.step() {
            return Err(Failed::Crashed);
        }
        if self.random.chance(self.rates.start_write) {
            self.note(Fault::StartWriteIo);
            let covered = self.disk.all_unsynced();
            self.disk.fail_sync(&covered, &mut self.random);
            self.loss = self.loss.max(Loss::Unflushed);
            return Err(Failed::Faulted("a sync of the start".to_owned()));
        }
        self.sync_all();
        Ok(())
    }

    fn sync_all(&mut self) {
        if self.broken != super::Broken::FlushBarrier {
            let covered = self.disk.all_unsynced();
            self.disk.end_sync(&covered);
        }
    }

    /// What crashes since the last readback may have taken.
    pub(super) fn loss(&self) -> Loss {
        if self.injected.lies > 0 { Loss::Anything } else { self.loss }
    }

    /// Reads a block at rest, for what looks at the pool from outside.
    #[must_use]
    pub fn block(&self, offset: u64) -> Option<Vec<u8>> {
        let mut bytes = vec![0; BLOCK_BYTES as usize];
        self.disk.read_at(offset, &mut bytes).ok().map(|()| bytes)
    }
}
