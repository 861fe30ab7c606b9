//! The store's thread at its deletions: those of one volume one after the other, volumes in turns, some steps between
//! questions. What a stop left unfinished goes on at once, before any volume has been recovered.

use super::{Task, World};
use crate::store::SimStore;
use crate::trace::Finding;
use crate::world::{Checked, Happening};
use std::collections::VecDeque;
use units::VolumeId;
use volume::pool::{Deletion, DeletionError, Index, Parent};

/// Steps of deletions that a start takes at the most before volumes are recovered.
const EARLY_STEPS_MAX: u64 = 4;

/// What has been done, and how it ended.
type Ended = (Task, Result<(), String>);

/// The deletions under way.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    queues: VecDeque<(VolumeId, VecDeque<Deletion>)>,
    is_turn_due: bool,
}

impl Deletions {
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    fn push(&mut self, deletion: Deletion) {
        let volume = deletion.volume();
        match self.queues.iter_mut().find(|(of, _)| *of == volume) {
            Some((_, queue)) => queue.push_back(deletion),
            None => self.queues.push_back((volume, VecDeque::from([deletion]))),
        }
    }

    /// Some steps of the next one; which volume's, and what has ended.
    fn work(&mut self, index: &mut Index<SimStore>, steps: usize) -> Option<(VolumeId, Option<Ended>)> {
        let (volume, mut queue) = self.queues.pop_front()?;
        let mut ended = None;
        if let Some(mut first) = queue.pop_front() {
            let task = Task::Delete(Parent { volume, generation: first.generation() });
            match index.delete_some(&mut first, steps) {
                Ok(false) => queue.push_front(first),
                Ok(true) => ended = Some((task, Ok(()))),
                Err(fault) => ended = Some((task, Err(fault.to_string()))),
            }
        }
        if !queue.is_empty() {
            self.queues.push_back((volume, queue));
        }
        Some((volume, ended))
    }
}

impl World {
    /// Goes on with what a stop has left unfinished.
    pub(in crate::world) fn resume_deletions(&mut self, index: &mut Index<SimStore>) {
        self.families.deletions = Deletions::default();
        let leaving: Vec<(VolumeId, u64)> = index.leaving_boundaries().collect();
        let begun =
            leaving.into_iter().filter_map(|(volume, generation)| index.begin_deletion(volume, generation).ok()?);
        begun.collect::<Vec<_>>().into_iter().for_each(|deletion| self.families.deletions.push(deletion));
        if !self.families.deletions.is_empty() {
            for _ in 0..self.random.below(EARLY_STEPS_MAX + 1) {
                // One that fails is asked for again.
                let _ = self.families.deletions.work(index, 1);
            }
            self.await_deletion();
        }
    }

    /// Begins to delete the end of a generation.
    pub(in crate::world) fn delete_boundary(&mut self, boundary: Parent) -> Checked {
        let Some(index) = &mut self.index else { return Ok(()) };
        let ended = match index.begin_deletion(boundary.volume, boundary.generation) {
            Ok(Some(deletion)) => {
                self.families.deletions.push(deletion);
                self.await_deletion();
                return Ok(());
            }
            Ok(None) => Ok(()),
            // A view that the store did not forget when it was closed.
            Err(DeletionError::Pinned) if self.store.faults() == 0 => {
                return Err(Finding(format!(
                    "P5: {boundary:?} is needed by nobody, and is not deleted: something hangs on it"
                )));
            }
            Err(error) => Err(error.to_string()),
        };
        self.families.ended.insert(Task::Delete(boundary), ended);
        Ok(())
    }

    fn await_deletion(&mut self) {
        if !std::mem::replace(&mut self.families.deletions.is_turn_due, true) {
            let delay = self.delay();
            self.after(delay, Happening::DeletionTurn);
        }
    }

    pub(in crate::world) fn turn_deletions(&mut self) -> Checked {
        self.families.deletions.is_turn_due = false;
        let steps = self.random.within(1, 8) as usize;
        let Some(index) = &mut self.index else { return Ok(()) };
        let Some((volume, ended)) = self.families.deletions.work(index, steps) else { return Ok(()) };
        self.families.ended.extend(ended);
        if !self.families.deletions.is_empty() {
            self.await_deletion();
        }
        self.with_compactor(|compactor, context| compactor.look_at(context, volume))
    }
}
