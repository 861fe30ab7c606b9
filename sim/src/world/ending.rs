//! The end of a run: everything that is promised of a pool at rest, checked on the one that the run left.

use super::{Checked, MS, TICK, World};
use crate::plan::FaultRates;
use crate::trace::Finding;
use crate::workload::Wish;
use units::SECTOR_BYTES;
use volume::check::{CheckOptions, Problem, ProblemKind, check};
use volume::error::ErrorKind;
use volume::request::{Completion, Reply};

/// Rounds of checkpoint and ticks in which the space of trimmed volumes must come back.
const RELEASE_ROUNDS: u32 = 6;

/// How long the space of what was trimmed may take to come back, at the most.
pub(super) const RELEASE_TIME_MAX: u64 = 60_000 * MS;

/// Segments that a volume without data may keep: the open one, and those whose trims or footers are newer.
pub(super) const EMPTY_SEGMENTS_MAX: usize = 3;

impl World {
    /// Checks the pool, makes its index anew, compares, and empties the volumes.
    pub(super) fn end(&mut self) -> Checked {
        self.plan.rates = FaultRates::default();
        self.trace.tell(|| "--- the end".to_owned());
        self.start()?;
        self.read_back()?;
        self.rest_and_check()?;
        self.check_bills()?;
        self.end_process();
        self.is_store_deleted = true;
        self.trace.tell(|| "--- rebuilt".to_owned());
        self.start()?;
        self.read_back()?;
        self.rest_and_check()?;
        self.take_families_apart()?;
        // What lies may have kept is no volume's own.
        if self.has_families() { Ok(()) } else { self.empty_volumes() }
    }

    fn rest_and_check(&mut self) -> Checked {
        self.let_chores_end()?;
        for site in self.open_sites() {
            if self.sites[site].volume.is_none() {
                // What could not be erased before is erased meanwhile.
                continue;
            }
            let reply = self.ask_and_wait(site, Wish::Checkpoint)?;
            self.must_succeed(&reply, "a checkpoint of a volume at rest")?;
        }
        self.check_meters()?;
        self.come_to_rest()?;
        let Some(index) = &self.index else { return Ok(()) };
        let report = check(index, &self.disk, CheckOptions { verify_data: true });
        self.trace.note(&[40, report.problems.len() as u64]);
        if let Some(problem) = report.problems.iter().find(|problem| !self.is_known(problem)) {
            return Err(Finding(format!("the check of the pool finds: {problem:?}")));
        }
        self.check_live_blocks()?;
        self.check_ghosts()?;
        self.let_segments_go()
    }

    /// Whether what was injected explains a problem.
    fn is_known(&self, problem: &Problem) -> bool {
        // A footer that the disk refused several times is left out.
        let has_refused = self.injected.disk + self.injected.no_space > 0;
        let is_known_footer = has_refused && problem.detail.contains("the footer is damaged");
        // A slot that could not be read at a start is kept until a rebuild reads it.
        let is_kept_slot = self.disk.faults() > 0 && problem.detail.contains("kept out of use");
        let is_map = matches!(problem.kind, ProblemKind::Map | ProblemKind::LiveCount | ProblemKind::Lineage);
        let is_known_page = self.injected.map_pages > 0 && is_map;
        self.injected.lies > 0 || is_known_footer || is_kept_slot || is_known_page
    }

    fn must_succeed(&self, reply: &Reply, what: &str) -> Checked {
        match &reply.result {
            Err(error) if self.injected.lies + self.injected.map_pages == 0 => {
                Err(Finding(format!("{what} fails: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// P5, P6: what is trimmed comes back, and a pool that was full takes writes again.
    fn empty_volumes(&mut self) -> Checked {
        for site in self.open_sites() {
            let end = self.sites[site].oracle.size_bytes() / SECTOR_BYTES;
            let trimmed =
                self.ask_and_wait(site, Wish::Zero { sectors: 0..end, is_fua: false, is_write_zeroes: false })?;
            let is_no_space = trimmed.result.as_ref().is_err_and(|error| error.kind == ErrorKind::NoSpace);
            if is_no_space && self.injected.full_reserve > 0 {
                // Trims have used up the slots that are kept back for them.
                self.outcome.exhausted += 1;
                return Ok(());
            }
            self.must_succeed(&trimmed, "a trim of the whole volume")?;
            for _ in 0..RELEASE_ROUNDS {
                self.ask_and_wait(site, Wish::Checkpoint)?;
                self.let_pass(3 * TICK)?;
            }
            let extents = self.ask_and_wait(site, Wish::Extents(0..end, 16))?;
            let is_hole =
                matches!(&extents.result, Ok(Completion::Extents(found)) if found.iter().all(|one| !one.is_data));
            if !is_hole {
                return Err(Finding(format!("P5: data is told in a volume that was trimmed: {extents:?}")));
            }
        }
        self.let_space_come_back()?;
        for site in self.open_sites() {
            self.check_released(site)?;
            let sectors = 0..8.min(self.sites[site].oracle.size_bytes() / SECTOR_BYTES);
            let reply = self.ask_and_wait(site, Wish::Write { sectors: sectors.clone(), is_fua: true })?;
            self.must_succeed(&reply, "P6: a write after the pool was emptied")?;
            self.ask_and_wait(site, Wish::Read(sectors))?;
        }
        Ok(())
    }

    /// Lets the compactor end what it is about: space is promised back within a minute.
    fn let_space_come_back(&mut self) -> Checked {
        let until = self.now + RELEASE_TIME_MAX;
        while self.now < until && self.open_sites().into_iter().any(|site| self.segments(site) > EMPTY_SEGMENTS_MAX) {
            self.let_pass(TICK)?;
        }
        Ok(())
    }

    fn segments(&self, site: usize) -> usize {
        self.sites[site].volume.as_ref().map_or(0, |volume| volume.status().segments)
    }

    fn check_released(&self, site: usize) -> Checked {
        let segments = self.segments(site);
        if segments <= EMPTY_SEGMENTS_MAX || self.injected.lies > 0 {
            return Ok(());
        }
        Err(Finding(format!("P5: an empty volume keeps {segments} segments: {:?}", self.rows(site))))
    }

    fn rows(&self, site: usize) -> Vec<volume::pool::SegmentRow> {
        self.index.as_ref().map(|index| index.segments(self.sites[site].id)).unwrap_or_default()
    }

    pub(super) fn let_pass(&mut self, time: u64) -> Checked {
        let until = self.now + time + MS;
        while self.now < until && self.advance()? {}
        Ok(())
    }
}
