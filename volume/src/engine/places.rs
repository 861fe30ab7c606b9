//! Segments of other volumes: a clone names blocks that its parents wrote. Where such a segment is, the store's side is asked
//! once; it then tells of every move. While the first answer is awaited, what needs it waits.

use super::{Context, Parked, Volume};
use crate::error::{Error, ErrorKind};
use crate::io::Action;
use crate::map::ResolvedRun;
use crate::pool::{Place, SegmentRow, Survivors};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;
use units::SegmentId;

/// Segments of other volumes.
#[derive(Debug, Default)]
pub(super) struct Places {
    known: BTreeMap<SegmentId, Place>,
    /// What waits to be told where a segment is.
    waiters: BTreeMap<SegmentId, Vec<Parked>>,
}

impl Places {
    pub(super) fn is_idle(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn of(&self, segment: SegmentId) -> Option<&Place> {
        self.known.get(&segment)
    }

    /// A segment is somewhere else now.
    pub(super) fn note_moved(&mut self, row: SegmentRow, survivors: Arc<Survivors>) {
        // One that is not known is asked for when it is needed.
        if let Some(place) = self.known.get_mut(&row.segment) {
            *place = Place { row, survivors: Some(survivors), loans: None };
        }
    }

    pub(super) fn forget(&mut self, segment: SegmentId) {
        self.known.remove(&segment);
    }
}

impl Volume {
    /// Asks where those segments are that `runs` are in, or that these borrow from, and nobody has told of. Returns one that is
    /// awaited then, the last one to be answered.
    pub(super) fn ask_places(&mut self, context: &mut Context<'_>, runs: &[ResolvedRun]) -> Option<SegmentId> {
        if !self.is_heir && self.loans.is_empty() {
            return None;
        }
        let mut wanted: SmallVec<[SegmentId; 4]> = SmallVec::new();
        for run in runs {
            let Some(location) = run.location else { continue };
            wanted.push(location.segment);
            let borrowed = self.loans_of(location.segment).map(|loans| loans.split(location, run.count));
            wanted.extend(borrowed.into_iter().flatten().map(|(source, _)| source.segment));
        }
        let mut awaited = None;
        for segment in wanted {
            if self.segments.contains_key(&segment) || self.places.known.contains_key(&segment) {
                continue;
            }
            self.places.waiters.entry(segment).or_insert_with(|| {
                context.actions.push(Action::LoadPlace { segment });
                Vec::new()
            });
            awaited = Some(segment);
        }
        awaited
    }

    pub(super) fn park_for_place(&mut self, segment: SegmentId, parked: Parked) {
        self.places.waiters.entry(segment).or_default().push(parked);
    }

    pub(super) fn on_place(&mut self, context: &mut Context<'_>, segment: SegmentId, place: Option<Box<Place>>) {
        let waiters = self.places.waiters.remove(&segment).unwrap_or_default();
        let is_there = place.is_some();
        self.places.known.extend(place.map(|place| (segment, *place)));
        for parked in waiters {
            if is_there {
                self.resume(context, parked);
                continue;
            }
            let detail = format!("the map of volume {} names segment {segment}, which no volume has", self.id);
            let error = Error::new(ErrorKind::Corrupt, format!("{detail}; rebuild the index"));
            self.fail_parked(context, parked, error);
        }
    }
}
