//! The meter: what the registers of each volume say is held against a model after every life, to the last unit.

use super::driver::Owner;
use super::months::Calendar;
use super::{Checked, MS, Site, World};
use crate::meter::{Held, Used};
use crate::random::Random;
use crate::trace::Finding;
use crate::workload::Wish;
use units::{MeterTime, VolumeId};
use volume::buffer::Buffer;
use volume::error::DiskFault;
use volume::format::decode_batch;
use volume::io::{LoadedPage, PageIndex};
use volume::map::{Found, PAGE_BLOCKS, Page};
use volume::pool::{Index, Inheritance, MeterStart};
use volume::recover::Recovered;
use volume::request::Completion;

/// How long the daemon may be down.
const DOWN_MS_MAX: u64 = 700_000;

/// How often readings are taken.
const PERIOD_MS: u64 = 300_000;

/// How far somebody sets the wall clock.
const STEP_MS_MAX: u64 = 7_200_000;

/// The clocks that the volumes are told.
#[derive(Debug)]
pub(super) struct Clocks {
    random: Random,
    /// How long the daemon was down in all.
    down_ms: u64,
    wall_ms: u64,
    /// The index was made anew, and its meters have not been told where they go on.
    are_meters_lost: bool,
    /// Where months pass, the daemon's own clock.
    calendar: Option<Calendar>,
}

impl Clocks {
    pub(super) const fn new(seed: u64) -> Self {
        let random = Random::new(seed ^ 0x3e7e_7000);
        Self { random, down_ms: 0, wall_ms: 1_700_000_000_000, are_meters_lost: false, calendar: None }
    }

    /// The same with the daemon's own clock, from a moment of the wall clock on.
    pub(super) fn with_calendar(self, wall_ms: u64) -> Self {
        Self { wall_ms, calendar: Some(Calendar::new(wall_ms)), ..self }
    }

    pub(super) const fn calendar(&mut self) -> Option<&mut Calendar> {
        self.calendar.as_mut()
    }

    /// How long the world has been there, whoever ran meanwhile.
    pub(super) const fn passed_ms(&self, now: u64) -> u64 {
        self.down_ms + now / MS
    }

    /// Time passes all at once.
    pub(super) const fn leap(&mut self, ms: u64) {
        self.down_ms += ms;
    }

    /// The meter's time, which goes on while the daemon is down.
    pub(super) const fn meter(&self, now: u64) -> MeterTime {
        let passed_ms = self.passed_ms(now);
        match &self.calendar {
            Some(calendar) => calendar.meter(passed_ms),
            None => MeterTime(passed_ms),
        }
    }

    pub(super) const fn wall_ms(&self, now: u64) -> u64 {
        self.wall_ms + self.down_ms + now / MS
    }

    /// The daemon was down for a while.
    pub(super) fn pass_down(&mut self) {
        let most = *self.random.pick(&[0, 900, DOWN_MS_MAX]);
        self.down_ms += self.random.below(most + 1);
    }

    /// The index is made anew.
    pub(super) const fn note_rebuild(&mut self) {
        self.are_meters_lost = true;
    }

    /// Somebody sets the wall clock, now and then: tells whether that is now.
    pub(super) fn step(&mut self, now: u64) -> bool {
        let is_set = self.random.chance(20);
        if is_set {
            self.wall_ms = self.wall_ms + self.random.below(2 * STEP_MS_MAX) - STEP_MS_MAX;
        }
        self.look(now);
        is_set
    }

    /// The daemon looks at the machine's clocks.
    pub(super) fn look(&mut self, now: u64) {
        let (passed_ms, wall_ms) = (self.passed_ms(now), self.wall_ms(now));
        if let Some(calendar) = &mut self.calendar {
            calendar.look(passed_ms, wall_ms);
        }
    }

    /// The daemon starts: the meter's clock goes on, and not before what a log tells.
    pub(super) fn resume(&mut self, now: u64, floor: MeterTime) {
        let (passed_ms, wall_ms) = (self.passed_ms(now), self.wall_ms(now));
        if let Some(calendar) = &mut self.calendar {
            calendar.resume((passed_ms, wall_ms), floor);
        }
    }
}

impl World {
    pub(super) const fn meter_now(&self) -> MeterTime {
        self.clocks.meter(self.now)
    }

    /// A volume gives a batch to the disk.
    pub(super) fn note_batch(&mut self, owner: Owner, buffers: &[Buffer]) {
        let Owner::Site(site) = owner else { return };
        // The first of a segment comes behind the slot's header.
        let batch = buffers.iter().take(2).find_map(|buffer| decode_batch(buffer.as_slice()).ok());
        if let Some((batch, _)) = batch {
            self.sites[site].model.note_batch(&batch);
        }
    }

    /// The process is about to end.
    pub(super) fn note_applied(&mut self) {
        for site in &mut self.sites {
            if let Some(volume) = &site.volume {
                site.model.note_applied(volume.status().applied_lsn);
            }
        }
    }

    /// What a volume shows that is made of the end of a generation.
    pub(super) fn shown_at(&mut self, of: VolumeId, generation: u64) -> Held {
        self.note_applied();
        let at = self.sites.iter().position(|site| site.id == of);
        at.and_then(|at| self.sites[at].model.fork(generation)).unwrap_or_default()
    }

    /// Begins the meters of all volumes that have none, as the daemon does at every start.
    pub(super) fn begin_meters(&mut self, index: &mut Index<crate::store::SimStore>) -> Result<(), DiskFault> {
        let (now, is_rebuilt) = (self.meter_now(), self.clocks.are_meters_lost);
        let sites = self.sites.iter_mut().filter(|site| !site.is_view);
        let starts: Vec<_> = sites
            .map(|site| {
                let last = if is_rebuilt { site.model.goes_on(now) } else { None };
                let at = if is_rebuilt { now } else { site.model.began() };
                (site.id, MeterStart { at, size_bytes: site.created_bytes, last })
            })
            .collect();
        index.begin_meters(&starts)?;
        self.clocks.are_meters_lost = false;
        Ok(())
    }

    /// A recovery has found the log of a volume.
    pub(super) fn note_found(
        &mut self,
        index: &Index<crate::store::SimStore>,
        site: usize,
        recovered: &Recovered,
    ) -> Result<(), DiskFault> {
        let Recovered { volume, folded_to, next_lsn, size_bytes, .. } = *recovered;
        let model = &mut self.sites[site].model;
        model.note_found(&recovered.segments, folded_to, next_lsn);
        if model.is_to_begin_anew() && self.injected.lies == 0 {
            model.begin_anew(stored_blocks(index, volume)?, folded_to, (next_lsn, size_bytes));
        }
        Ok(())
    }

    /// Whether the registers can be told by the model.
    const fn is_metered(&self) -> bool {
        self.injected.lies == 0 && self.injected.map_pages == 0
    }

    /// P7: what every volume has used is what the model says, up to a moment of now and at the end of every period; and no
    /// reading that was taken before has become wrong.
    pub(super) fn check_meters(&mut self) -> Checked {
        for site in self.open_sites() {
            // What is on its way out may be closed meanwhile.
            if !self.is_metered() || self.sites[site].is_view || self.sites[site].volume.is_none() {
                continue;
            }
            let reply = self.ask_and_wait(site, Wish::Meter)?;
            if let Ok(Completion::Metered(at)) = reply.result {
                self.check_meter(site, at)?;
            }
        }
        Ok(())
    }

    fn check_meter(&mut self, site: usize, to: MeterTime) -> Checked {
        self.note_applied();
        let (Some(index), Site { id, model, .. }) = (&mut self.index, &mut self.sites[site]) else { return Ok(()) };
        let id = *id;
        let wrong = |what: &str, at: MeterTime, said: &Used, model: &Used| {
            Err(Finding(format!("P7: {what} of volume {id} at {} ms says {said:?}, not {model:?}", at.0)))
        };
        if to <= model.began() {
            // The second in which the meter began: nothing was used before that.
            return Ok(());
        }
        let Some(reading) = index.meter_reading(id, to) else {
            let is_early = index.inheritance(id) == Inheritance::Waits;
            return if is_early { Ok(()) } else { Err(Finding(format!("P7: no reading of volume {id} at {to:?}"))) };
        };
        // Where months pass, readings are of longer periods, and held against the model when they are taken.
        let ended = if self.months.is_some() { 0 } else { to.0 / PERIOD_MS };
        let ends: Vec<MeterTime> = (1..=ended).map(|period| MeterTime(period * PERIOD_MS)).collect();
        for reading in index.meter_readings(id, &ends).into_iter().chain([reading]) {
            let (said, used) = (Used::of(&reading), model.used(reading.at));
            if said != used {
                return wrong("the meter", reading.at, &said, &used);
            }
        }
        for taken in model.readings.iter().rev().take(3).filter(|taken| taken.at >= model.began()) {
            let (said, used) = (Used::of(taken), model.used(taken.at));
            if said.byte_ms != used.byte_ms {
                return wrong("a reading that was taken", taken.at, &said, &used);
            }
        }
        if index.meter_differences() > 0 {
            return Err(Finding(format!("P7: the meter of volume {id} does not agree with its map")));
        }
        if self.months.is_none() && self.clocks.random.chance(500) {
            model.readings.push(reading);
            if self.clocks.random.chance(500) {
                index.forget_readings(id, to);
            }
        }
        Ok(())
    }
}

/// The blocks that the stored map of a volume has.
fn stored_blocks(index: &Index<crate::store::SimStore>, volume: VolumeId) -> Result<Held, DiskFault> {
    let (mut held, mut at) = (Held::new(), Some(PageIndex(0)));
    while let Some(page) = at {
        at = match index.load_page(volume, page)? {
            LoadedPage::Absent { next } => next,
            LoadedPage::Present(encoded) => {
                let content = Page::decode(&encoded).map_err(|_| DiskFault::Io)?;
                content.visit(0, PAGE_BLOCKS, |first, count, found| {
                    if matches!(found, Found::Data { .. }) {
                        let first = page.0 * u64::from(PAGE_BLOCKS) + u64::from(first);
                        held.extend(first..first + u64::from(count));
                    }
                });
                page.0.checked_add(1).map(PageIndex)
            }
        };
    }
    Ok(held)
}
