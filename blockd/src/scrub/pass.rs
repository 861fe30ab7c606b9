//! One pass over the pool, from the slot where the report says that it is.

use super::slot_image::SlotImage;
use super::{ScrubReport, Shared};
use crate::open::{PoolFile, wall_ms};
use crate::store::{RocksStore, StoreHandle};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use units::{SegmentId, SlotIndex};
use volume::map::Location;
use volume::pool::{Index, ScrubTarget};
use volume::scrub::{BadBlock, scrub};

/// How often it is noted how far it is.
const NOTE_PERIOD: Duration = Duration::from_secs(5);

/// A pass. What ends early, since the pool is being closed, is `None`.
pub(super) struct Pass<'a> {
    pool: &'a PoolFile,
    store: &'a StoreHandle,
    shared: &'a Shared,
    image: SlotImage<'a>,
    since: Instant,
    noted: Instant,
}

impl<'a> Pass<'a> {
    pub(super) fn new(pool: &'a PoolFile, store: &'a StoreHandle, shared: &'a Shared, bytes_per_second: u64) -> Self {
        let now = Instant::now();
        Self { pool, store, shared, image: SlotImage::new(pool, shared, bytes_per_second), since: now, noted: now }
    }

    /// Goes over all slots that are left.
    pub(super) fn run(mut self) -> Option<()> {
        let first = self.shared.report().next_slot;
        let slots = self.ask(move |index| index.scrub_order(SlotIndex(first)))?;
        {
            let mut report = self.shared.report();
            report.slots_total = report.slots_done + slots.len() as u64;
            tracing::info!(slots = slots.len(), first, is_paced = self.shared.is_paced(), "scrubbing the pool");
        }
        for (slot, segments) in slots {
            if self.shared.is_cancelling.load(Ordering::Acquire) || self.slot(slot, segments).is_none() {
                return self.end_early();
            }
            if self.noted.elapsed() >= NOTE_PERIOD {
                self.note(|_| {});
            }
        }
        self.note(|report| {
            report.is_running = false;
            report.ended_ms = Some(wall_ms());
        });
        let ScrubReport { blocks, rotten_count, unreadable_count, active_ms, .. } = *self.shared.report();
        tracing::info!(blocks, rotten_count, unreadable_count, active_ms, "scrubbed the pool");
        Some(())
    }

    /// Notes how far it is, for good where it is cancelled; `None` where the pool is being closed.
    fn end_early(&mut self) -> Option<()> {
        // What is both is cancelled at the next start.
        let is_cancelled = !self.shared.is_stopping();
        self.note(|report| {
            report.is_running = report.is_running && !is_cancelled;
            report.ended_ms = is_cancelled.then(wall_ms);
        });
        self.shared.is_cancelling.store(false, Ordering::Release);
        tracing::info!(is_cancelled, "a scrub has ended early");
        is_cancelled.then_some(())
    }

    fn slot(&mut self, slot: SlotIndex, segments: Vec<SegmentId>) -> Option<()> {
        let targets = self.targets(slot, segments)?;
        let mut bad = BTreeSet::new();
        let (mut blocks, read) = (0, targets.len() as u64);
        if !targets.is_empty() {
            self.image.read(slot)?;
            let found: Vec<_> = targets.iter().map(|target| (target, self.scrub(target))).collect();
            blocks = found.iter().map(|(_, found)| found.blocks).sum();
            let doubtful = found.iter().filter(|(_, found)| !found.bad.is_empty());
            let doubtful: Vec<SegmentId> = doubtful.map(|(target, _)| target.row.segment).collect();
            if !doubtful.is_empty() {
                bad = self.confirmed(slot, doubtful)?;
            }
        }
        for found in &bad {
            self.tell(found)?;
        }
        let mut report = self.shared.report();
        report.segments += read;
        report.blocks += blocks;
        report.slots_done += 1;
        report.next_slot = slot.0.saturating_add(1);
        Some(())
    }

    /// Looks once more, between two answers of the index that say that the segments are there.
    fn confirmed(&mut self, slot: SlotIndex, segments: Vec<SegmentId>) -> Option<BTreeSet<BadBlock>> {
        let before = self.targets(slot, segments)?;
        self.image.read(slot)?;
        let found: Vec<_> = before.iter().map(|target| (target, self.scrub(target).bad)).collect();
        let after = self.targets(slot, before.iter().map(|target| target.row.segment).collect())?;
        let is_there = |target: &ScrubTarget| {
            let place = |target: &ScrubTarget| (target.row.segment, target.row.home);
            after.iter().any(|after| place(after) == place(target))
        };
        let found = found.into_iter().filter(|(target, _)| is_there(target));
        Some(found.flat_map(|(_, bad)| bad).collect())
    }

    fn scrub(&self, target: &ScrubTarget) -> volume::scrub::Scrubbed {
        scrub(&self.image, self.pool.superblock(), target)
    }

    /// Those of `segments` that are in `slot` now and can be judged.
    fn targets(&self, slot: SlotIndex, segments: Vec<SegmentId>) -> Option<Vec<ScrubTarget>> {
        self.ask(move |index| {
            let targets = segments.into_iter().filter_map(|segment| index.scrub_target(segment));
            targets.filter_map(|target| target.within(slot)).collect()
        })
    }

    fn tell(&self, found: &BadBlock) -> Option<()> {
        let BadBlock { volume, segment, slot, block, part, badness, written_as } = *found;
        let is_live = match written_as {
            None => None,
            Some((volume_block, place)) => {
                let location = Location { segment, block: u16::try_from(place).unwrap_or(u16::MAX) };
                self.ask(move |index| index.names(volume, volume_block, location).ok())?
            }
        };
        tracing::error!(%volume, %segment, %slot, block, %part, ?badness, ?is_live, "a scrub found a bad block");
        self.shared.report().add(found, is_live);
        Some(())
    }

    /// Changes the report and has it noted.
    fn note(&mut self, change: impl FnOnce(&mut ScrubReport)) {
        let mut report = self.shared.report();
        change(&mut report);
        report.active_ms += u64::try_from(self.since.elapsed().as_millis()).unwrap_or(0);
        report.is_paced = report.is_running && self.shared.is_paced();
        self.since = Instant::now();
        self.noted = self.since;
        let note = serde_json::to_vec(&*report);
        drop(report);
        if let Ok(note) = note {
            // A note that is lost costs a repetition.
            self.ask(move |index| index.note_scrub(note));
        }
    }

    /// Asks the index, on its thread.
    fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut Index<RocksStore>) -> T + Send + 'static) -> Option<T> {
        let (sender, answer) = mpsc::sync_channel(1);
        // Whoever asked waits for it.
        let asked = self.store.with_index(Box::new(move |index| drop(sender.send(question(index)))));
        asked.ok()?;
        answer.recv().ok()
    }
}
