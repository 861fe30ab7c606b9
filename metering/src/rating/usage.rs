//! Use of a period: the differences of consecutive readings, each in its place.
//!
//! Only a tenant's own readings count, as they are in its book. A stretch between two of one epoch belongs to the class that the
//! first of them names, unless that one ends the resource's time with the tenant, or the next one begins it anew. It begins when
//! the wall clock said at the first one, and is as long as the meter's clock says: a step of the wall clock takes no time.
//! What straddles a border (of the month, or between two cards) is split by time, and a note says so: into whole units of the register,
//! so that numbers stay short however many stretches are split. Each is on one side, and both sides find the same.

use std::collections::BTreeMap;

use units::{ClassId, TenantId, VolumeId};

use super::exact::Exact;
use super::note::{Note, NoteKind};
use super::period::{Span, milliseconds, moment};
use super::{ReadingError, Wrong};
use crate::reading::{Dimension, Mark, Reading};

/// How far the wall clock may be from the meter's after a stretch, before that is noted.
const CLOCK_STEP_MS: u64 = 1_000;

/// What one resource used, of one class, in one part of the period.
#[derive(Debug, Clone)]
pub(crate) struct Used([Sum; Dimension::ALL.len()]);

impl Used {
    pub(crate) fn of(&self, dimension: Dimension) -> Option<&Sum> {
        self.0.get(dimension as usize).filter(|sum| sum.total > 0)
    }
}

/// How far a register went on.
#[derive(Debug, Clone)]
pub(crate) struct Sum {
    pub(crate) total: u128,
    /// Where a stretch was split.
    pub(crate) notes: Vec<Note>,
}

/// What a tenant used in the parts of a period.
#[derive(Debug)]
pub(crate) struct Usage {
    parts: Vec<Span>,
    /// By part, class and resource.
    pub(crate) used: BTreeMap<(usize, ClassId, VolumeId), Used>,
    pub(crate) notes: Vec<Note>,
}

impl Usage {
    /// Finds it from `readings`, in whatever order and however often they come.
    pub(crate) fn of(readings: &[Reading], tenant: TenantId, parts: Vec<Span>) -> Result<Self, ReadingError> {
        let mut usage = Self { parts, used: BTreeMap::new(), notes: Vec::new() };
        let mut sorted: Vec<&Reading> = readings.iter().filter(|reading| reading.tenant == tenant).collect();
        sorted.sort_by_key(|reading| (reading.resource, reading.epoch, reading.sequence));
        for of_resource in sorted.chunk_by(|one, next| one.resource == next.resource) {
            usage.note_ends(of_resource);
            for pair in of_resource.windows(2) {
                if let [first, next] = pair {
                    usage.take(first, next)?;
                }
            }
        }
        Ok(usage)
    }

    fn take(&mut self, first: &Reading, next: &Reading) -> Result<(), ReadingError> {
        if first.epoch != next.epoch {
            if next.at < first.at {
                return Err(wrong(next, Wrong::Overlap { other: first.epoch }));
            }
            self.note_gap(first, next);
            return Ok(());
        }
        if first.sequence == next.sequence {
            return if first == next { Ok(()) } else { Err(wrong(next, Wrong::Conflict)) };
        }
        check_order(first, next)?;
        if first.mark == Mark::Ends || next.mark == Mark::Begins {
            self.note_gap(first, next);
            return Ok(());
        }
        self.note_stretch(first, next);
        self.spread(first, next)
    }

    /// Puts a stretch into the parts of the period that it lies in.
    fn spread(&mut self, first: &Reading, next: &Reading) -> Result<(), ReadingError> {
        let dwell = next.at.since(first.at);
        let (from, to) = stretch(first, next);
        for index in 0..self.parts.len() {
            let Some(part) = self.parts.get(index) else { continue };
            let (begin, end) = (milliseconds(part.from), milliseconds(part.to));
            let overlap = if dwell == 0 {
                u64::from(begin <= from && from < end)
            } else {
                to.min(end).saturating_sub(from.max(begin))
            };
            if overlap == 0 {
                continue;
            }
            let border = if from < begin { part.from } else { part.to };
            let note = || Note { kind: NoteKind::Split { at: border }, ..of_stretch(first, from, to) };
            let used = self.used.entry((index, first.class, first.resource)).or_insert_with(nothing);
            for (dimension, sum) in Dimension::ALL.into_iter().zip(&mut used.0) {
                let went_on = next.registers.value(dimension) - first.registers.value(dimension);
                let until = |moment: u64| until(went_on, moment.saturating_sub(from), dwell);
                let own = if dwell == 0 { went_on } else { until(end) - until(begin) };
                let total = sum.total.checked_add(own);
                sum.total = total.ok_or_else(|| wrong(next, Wrong::TooMuch { dimension }))?;
                if own > 0 && overlap < dwell {
                    sum.notes.push(note());
                }
            }
        }
        Ok(())
    }

    /// Notes what is odd about a stretch of one epoch, when it touches the period.
    fn note_stretch(&mut self, first: &Reading, next: &Reading) {
        let (from, to) = stretch(first, next);
        // A clock that comes back from another year passes by all that lies between.
        if !self.is_inside(from.min(next.wall_ms), to.max(next.wall_ms)) {
            return;
        }
        if to.abs_diff(next.wall_ms) > CLOCK_STEP_MS {
            let kind = NoteKind::ClockStep { clock: moment(next.wall_ms) };
            self.notes.push(Note { kind, ..of_stretch(first, to, to) });
        }
        let changes = next.changes.saturating_sub(first.changes);
        let is_other = first.class != next.class;
        let is_seen = changes == 1 && is_other && first.sequence.checked_add(1) == Some(next.sequence);
        if (changes > 0 || is_other) && !is_seen {
            self.notes.push(Note { kind: NoteKind::UnseenChange, ..of_stretch(first, from, to) });
        }
        let milliseconds = next.estimated_ms.saturating_sub(first.estimated_ms);
        if milliseconds > 0 {
            self.notes.push(Note { kind: NoteKind::Estimated { milliseconds }, ..of_stretch(first, from, to) });
        }
    }

    fn note_gap(&mut self, last: &Reading, first: &Reading) {
        let gap = first.at.since(last.at);
        let to = last.wall_ms.saturating_add(gap);
        let is_told = last.mark == Mark::Ends && first.mark == Mark::Begins;
        // Registers begin with an epoch: what an epoch's lost first readings said is missing, however short the gap.
        if !is_told && (gap > 0 || first.sequence > 0) && self.is_inside(last.wall_ms, to) {
            self.notes.push(Note { kind: NoteKind::Gap, ..of_stretch(last, last.wall_ms, to) });
        }
    }

    /// Notes when a resource's readings begin after the period does though there were some before, and when they end before it does.
    fn note_ends(&mut self, readings: &[&Reading]) {
        let (Some(first), Some(last)) = (readings.first(), readings.last()) else { return };
        let Some((begin, end)) = self.ends() else { return };
        if first.mark != Mark::Begins && begin < first.wall_ms && first.wall_ms < end {
            self.notes.push(Note { kind: NoteKind::BeginsLate, ..of_stretch(first, begin, first.wall_ms) });
        }
        if begin < last.wall_ms && last.wall_ms < end {
            let kind = if last.mark == Mark::Ends { NoteKind::Ends } else { NoteKind::EndsEarly };
            self.notes.push(Note { kind, ..of_stretch(last, last.wall_ms, end) });
        }
    }

    fn is_inside(&self, from: u64, to: u64) -> bool {
        self.ends().is_some_and(|(begin, end)| from < end && begin <= to)
    }

    fn ends(&self) -> Option<(u64, u64)> {
        Some((milliseconds(self.parts.first()?.from), milliseconds(self.parts.last()?.to)))
    }
}

/// Holds that `next` may come after `first` in one epoch.
fn check_order(first: &Reading, next: &Reading) -> Result<(), ReadingError> {
    if next.at < first.at || next.estimated_ms < first.estimated_ms {
        return Err(wrong(next, Wrong::TimeBack));
    }
    if next.changes < first.changes {
        return Err(wrong(next, Wrong::Changes));
    }
    match Dimension::ALL.into_iter().find(|it| next.registers.value(*it) < first.registers.value(*it)) {
        Some(dimension) => Err(wrong(next, Wrong::RegisterBack { dimension })),
        None => Ok(()),
    }
}

/// From when to when, on the wall clock, a stretch between two readings lies.
fn stretch(first: &Reading, next: &Reading) -> (u64, u64) {
    (first.wall_ms, first.wall_ms.saturating_add(next.at.since(first.at)))
}

/// How far a register that goes on by `went_on` in `dwell` has gone when `elapsed` of it has passed, in whole units.
fn until(went_on: u128, elapsed: u64, dwell: u64) -> u128 {
    if elapsed >= dwell {
        return went_on;
    }
    let share = Exact::ratio(elapsed, dwell).unwrap_or_else(Exact::zero);
    (Exact::from(went_on) * share).floor_u128().unwrap_or(went_on)
}

fn of_stretch(reading: &Reading, from: u64, to: u64) -> Note {
    Note { kind: NoteKind::Gap, resource: reading.resource, from: moment(from), to: moment(to) }
}

fn nothing() -> Used {
    Used(Dimension::ALL.map(|_| Sum { total: 0, notes: Vec::new() }))
}

const fn wrong(reading: &Reading, wrong: Wrong) -> ReadingError {
    ReadingError { resource: reading.resource, epoch: reading.epoch, sequence: reading.sequence, wrong }
}
