//! One life of the daemon: a start, a full readback, clients for a while, and an end.

use super::compaction::Compaction;
use super::driver::{Append, Transfers};
use super::months::Calendar;
use super::{Checked, World};
use crate::census::Fault;
use crate::oracle::{BLOCK_SECTORS, Loss, Readback};
use crate::plan::FaultRates;
use crate::trace::Finding;
use crate::workload::Wish;
use std::ops::Range;
use units::SECTOR_BYTES;
use volume::request::Completion;

/// Sectors of one read of a readback.
const READBACK_SECTORS: u64 = 128;

impl World {
    pub(super) fn live(&mut self) -> Checked {
        self.start()?;
        self.read_back()?;
        if self.random.chance(500) {
            self.check_meters()?;
        }
        self.open_clients(self.plan.requests);
        if let Some(steps) = self.crash_after {
            return self.live_for(steps);
        }
        let draw = self.random.below(1000) as u32;
        let is_crash = draw < self.plan.ends.kill + self.plan.ends.power;
        if is_crash {
            let happenings = self.random.below(self.plan.requests * 12);
            for _ in 0..happenings {
                self.advance()?;
                self.let_months_pass()?;
            }
            self.crash();
        } else {
            if self.months.is_some() {
                for _ in 0..self.random.below(self.plan.requests * 12) {
                    self.advance()?;
                    self.let_months_pass()?;
                }
            }
            self.stop()?;
        }
        // Who is told that a page of the map is damaged makes the index anew, sooner or later.
        let chance = if self.store.has_rotten_page() { 500 } else { self.plan.ends.store_deleted };
        if self.random.chance(chance) {
            self.trace.tell(|| "the store is deleted".to_owned());
            self.is_store_deleted = true;
        }
        Ok(())
    }

    /// Crashes after so many steps, or stops when there are none left.
    fn live_for(&mut self, steps: u64) -> Checked {
        self.steps = 0;
        while self.steps <= steps && !self.is_at_rest() {
            self.advance()?;
        }
        if self.steps > steps {
            self.outcome.was_cut = true;
            self.crash();
            return Ok(());
        }
        self.stop()
    }

    /// Lets everything under way end, and stops.
    fn stop(&mut self) -> Checked {
        self.come_to_rest()?;
        self.check_slots()?;
        if self.outage.is_none() {
            // The counting is to read what is there.
            self.store.set_faults(0, 0);
            self.check_live_blocks()?;
            self.apply_rates(self.rates);
        }
        if self.random.chance(500) {
            for site in self.open_sites() {
                // One that is being erased may be closed meanwhile.
                if self.sites[site].volume.is_some() {
                    self.ask_and_wait(site, Wish::Checkpoint)?;
                }
            }
            if self.random.chance(500) {
                self.come_to_rest()?;
            }
        }
        self.trace.tell(|| "a stop".to_owned());
        self.end_process();
        Ok(())
    }

    pub(super) fn open_sites(&self) -> Vec<usize> {
        (0..self.sites.len()).filter(|site| self.sites[*site].volume.is_some()).collect()
    }

    /// Kills the process, or cuts the power.
    pub(super) fn crash(&mut self) {
        let ends = self.plan.ends;
        let is_power = self.random.below(u64::from(ends.kill + ends.power).max(1)) >= u64::from(ends.kill);
        self.trace.note(&[30, self.now, u64::from(is_power)]);
        self.trace.tell(|| format!("[{}] crash, of power: {is_power}", self.step));
        self.note(if is_power { Fault::PowerCut } else { Fault::Kill });
        let all = self.sites.iter().map(|site| &site.transfers).chain([&self.compaction.transfers]);
        let (appends, syncs) = all.fold((false, false), |(appends, syncs), transfers| {
            (appends || transfers.is_appending(), syncs || transfers.is_syncing())
        });
        for (fault, is) in [
            (Fault::CrashInAppend, appends),
            (Fault::CrashInSync, syncs),
            (Fault::CrashInStore, !self.jobs.is_empty()),
            (Fault::CrashInCompaction, self.compaction.is_moving()),
        ] {
            self.outcome.census.note_many(fault, u64::from(is));
        }
        let all = self.sites.iter_mut().map(|site| &mut site.transfers).chain([&mut self.compaction.transfers]);
        let appends: Vec<Append> = all.flat_map(Transfers::take_appends).collect();
        for append in appends {
            // One that has not landed may have got as far as anywhere.
            if append.landed.is_none() && self.random.chance(600) {
                let bytes: Vec<u8> = append.buffers.iter().flat_map(|buffer| buffer.as_slice()).copied().collect();
                let all = bytes.len() as u64;
                // A kernel copies page by page; no sector is torn, by a kill or by a power cut.
                let cut = *self.random.pick(&[512, 4096]);
                let kept = (self.random.below(all + cut) / cut * cut).min(all) as usize;
                self.write_part(append.pool_offset, &bytes, kept);
            }
        }
        self.end_process();
        if is_power {
            self.clocks.calendar().into_iter().for_each(Calendar::reboot);
            let cut = self.disk.power_cut(self.plan.cuts_whole_writes, &mut self.random);
            let commits = self.store.power_cut(&mut self.random);
            let census = &mut self.outcome.census;
            census.note_many(Fault::WriteDropped, cut.dropped);
            census.note_many(Fault::WriteTorn, cut.torn);
            census.note_many(Fault::WriteReordered, cut.reordered);
            census.note_many(Fault::StoreTailLost, u64::from(commits > 0));
            self.loss = self.loss.max(Loss::Unflushed);
        }
    }

    /// Nothing of the process is left.
    pub(super) fn end_process(&mut self) {
        self.note_applied();
        self.clocks.pass_down();
        self.end_catalogue();
        self.is_open = false;
        self.requests_left = 0;
        self.queue.clear();
        self.jobs.clear();
        self.leases.clear();
        self.index = None;
        self.compaction = Compaction::default();
        self.sealing = super::sealing::Sealing::default();
        for site in &mut self.sites {
            site.volume = None;
            site.asked.clear();
            site.answered.clear();
            site.transfers = Transfers::default();
            site.is_poll_due = false;
            site.store_answer_at = 0;
        }
    }

    /// Reads every volume from end to end, and holds it to that from now on.
    pub(super) fn read_back(&mut self) -> Checked {
        self.apply_rates(FaultRates::default());
        self.is_reading_back = true;
        for site in self.open_sites() {
            self.read_back_site(site)?;
        }
        self.read_back_views()?;
        self.is_reading_back = false;
        if (0..self.sites.len()).all(|at| self.sites[at].volume.is_some() || !self.is_to_be_opened(at)) {
            self.loss = Loss::Nothing;
            self.is_order_lost = false;
        }
        self.apply_rates(self.plan.rates);
        Ok(())
    }

    pub(super) fn read_back_site(&mut self, site: usize) -> Checked {
        // Rot in the newest batches cuts the log, even where an earlier start had found it whole.
        let is_cut = self.sites[site].last_lsn < self.sites[site].last_lsn_seen;
        let may_be_old = (self.is_order_lost || is_cut) && self.loss() == Loss::Anything;
        let mut readback = self.sites[site].oracle.begin_readback(may_be_old);
        let size_bytes = self.sites[site].volume.as_ref().map_or(0, volume::engine::Volume::size_bytes);
        for sectors in self.readback_ranges(site, size_bytes) {
            self.read_for_readback(site, sectors, &mut readback)?;
        }
        let now = self.next_step();
        // A snapshot is on stable storage, all of it.
        let is_kept = self.sites[site].is_view && self.injected.lies == 0;
        let loss = if is_kept { Loss::Nothing } else { self.loss() };
        let is_ordered = is_kept || !self.is_order_lost;
        self.sites[site].last_lsn_seen = self.sites[site].last_lsn;
        let oracle = &mut self.sites[site].oracle;
        oracle.end_readback(readback, size_bytes, (loss, is_ordered), now).map_err(Finding)
    }

    fn read_for_readback(&mut self, site: usize, sectors: Range<u64>, readback: &mut Readback) -> Checked {
        let reply = self.ask_and_wait(site, Wish::Read(sectors.clone()))?;
        let bytes = match &reply.result {
            Ok(Completion::Read { buffer, skip, len }) => buffer.as_slice().get(*skip..skip + len),
            Ok(_) | Err(_) => None,
        };
        if bytes.is_none() && sectors.end - sectors.start > BLOCK_SECTORS {
            // Block by block, so that one bad block hides no other.
            for first in sectors.clone().step_by(BLOCK_SECTORS as usize) {
                self.read_for_readback(site, first..(first + BLOCK_SECTORS).min(sectors.end), readback)?;
            }
            return Ok(());
        }
        self.sites[site].oracle.take_readback(readback, sectors, bytes).map_err(Finding)
    }

    fn readback_ranges(&self, site: usize, size_bytes: u64) -> Vec<Range<u64>> {
        let end = size_bytes / SECTOR_BYTES;
        let areas = &self.plan.volumes[site].areas;
        let ranges = areas.iter().flat_map(|area| {
            let area_end = (area.first_sector + area.sectors).min(end);
            (area.first_sector..area_end)
                .step_by(READBACK_SECTORS as usize)
                .map(move |first| first..(first + READBACK_SECTORS).min(area_end))
        });
        ranges.collect()
    }
}
