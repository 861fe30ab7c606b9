//! What a snapshot shows: the volume as it was at one moment between the request and the answer.
//!
//! What was answered before the request is in it, and what was asked after the answer is not. What was under way may be in
//! it or not, and a fork holds it for unanswered; the first full read settles that.

use super::{History, Operation, Oracle, Step};
use std::collections::BTreeMap;

/// The moment at which a snapshot is asked.
#[derive(Debug, Clone)]
pub struct Moment {
    asked: Step,
    /// What the size may have been then.
    sizes: Vec<u64>,
    /// Sizes that had been asked before.
    sizes_ever: usize,
}

impl Oracle {
    /// Notes the moment at which a snapshot is asked.
    #[must_use]
    pub fn moment(&self, asked: Step) -> Moment {
        let sizes = self.sizes_possible.iter().copied().chain([self.size_bytes]).collect();
        Moment { asked, sizes, sizes_ever: self.sizes_ever.len() }
    }

    /// What a snapshot may show that was asked at `moment`, is answered now and tells of `size_bytes`. It is durable.
    ///
    /// # Errors
    /// When the volume never had that size meanwhile.
    pub fn fork(&self, moment: &Moment, size_bytes: u64) -> Result<Self, String> {
        let since = self.sizes_ever.get(moment.sizes_ever..).unwrap_or_default();
        if !moment.sizes.contains(&size_bytes) && !since.contains(&size_bytes) {
            return Err(format!(
                "a snapshot of {size_bytes} bytes, and the volume had {:?} or {since:?}",
                moment.sizes
            ));
        }
        let is_over = |ended: Option<Step>| ended.is_some_and(|ended| ended < moment.asked);
        let as_then = |operation: &Operation| match is_over(operation.ended) {
            true => *operation,
            false => Operation { ended: None, is_acked: false, ..*operation },
        };
        let seen_then = |history: &History| {
            let seen = history.seen.iter().filter(|(_, step)| *step < moment.asked);
            History { candidates: history.candidates.clone(), seen: seen.copied().collect() }
        };
        Ok(Self {
            operations: self.operations.iter().map(as_then).collect(),
            areas: self.areas.iter().map(|(area, all)| (*area, all.iter().map(seen_then).collect())).collect(),
            size_bytes,
            sizes_possible: Vec::new(),
            sizes_ever: vec![size_bytes],
            durable_before: moment.asked,
            // What has been replaced in the volume since is there, and may be replaced again in whatever is made of it.
            replaced: BTreeMap::new(),
            ..self.clone()
        })
    }

    /// Holds what a snapshot shows to what `volume` knows by now: every change that was answered before `last`, when the
    /// last snapshot of its group was taken.
    ///
    /// # Errors
    /// When a change that came after this snapshot was answered before that.
    pub fn hold_to(&mut self, volume: &Self, last: Step) -> Result<(), String> {
        let is_before = |operation: &Operation| operation.acked().is_some_and(|ended| ended < last);
        for (shown, now) in self.operations.iter_mut().zip(&volume.operations) {
            if is_before(now) {
                (shown.ended, shown.is_acked) = (now.ended, true);
            }
        }
        let mut later = (0..).zip(&volume.operations).skip(self.operations.len());
        // Zeroes over zeros change nothing, and may be answered at any time.
        if let Some((op, lacked)) = later.find(|(_, operation)| !operation.is_zero && is_before(operation)) {
            return Err(format!(
                "{op:x} of {:?} is not in its snapshot ({lacked}), the last was taken {last}",
                self.tags
            ));
        }
        self.durable_before = self.durable_before.max(last);
        Ok(())
    }

    /// What a clone of it begins with, whose own writes bear `tag`.
    #[must_use]
    pub fn with_tag(&self, tag: u64) -> Self {
        let mut oracle = self.clone();
        oracle.tags.push((oracle.operations.len() as u32, tag));
        oracle
    }
}
