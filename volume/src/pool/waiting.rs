//! Questions of heirs that wait until the store has what they inherit: a clone is there at once, and what its parent had at
//! the snapshot comes to the store some time later.
//!
//! Whoever has one question waiting has all later ones wait behind it, since a volume relies on the order of its answers.

use super::{Index, Inheritance};
use crate::store::Store;
use std::collections::{BTreeMap, VecDeque};
use units::VolumeId;

/// Rounds after which a question is answered with an error: its parent fails, or will never write back.
const ROUNDS_MAX: u32 = 10;

/// Questions that wait, in the order in which each volume asked.
#[derive(Debug)]
pub struct Waiting<Q> {
    queues: BTreeMap<VolumeId, Queue<Q>>,
}

#[derive(Debug)]
struct Queue<Q> {
    questions: VecDeque<Q>,
    /// For how long the first of them has waited.
    rounds: u32,
}

impl<Q> Default for Waiting<Q> {
    fn default() -> Self {
        Self { queues: BTreeMap::new() }
    }
}

impl<Q> Waiting<Q> {
    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Questions that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.questions.len()).sum()
    }

    /// Takes a question of `volume`, and gives it back when it need not wait.
    pub fn ask<S: Store>(&mut self, index: &Index<S>, volume: VolumeId, question: Q) -> Option<Q> {
        if let Some(queue) = self.queues.get_mut(&volume) {
            queue.questions.push_back(question);
            return None;
        }
        if index.inheritance(volume) != Inheritance::Waits {
            return Some(question);
        }
        self.queues.insert(volume, Queue { questions: VecDeque::from([question]), rounds: 0 });
        None
    }

    /// Those that need not wait any more, in order. What comes of them may let others go on.
    pub fn take_ready<S: Store>(&mut self, index: &Index<S>) -> Vec<Q> {
        self.take(|volume, _| index.inheritance(volume) != Inheritance::Waits)
    }

    /// Those of volumes that inherit from `ancestor`, which cannot write back: to be answered with errors, in order.
    pub fn take_failed<S: Store>(&mut self, index: &Index<S>, ancestor: VolumeId) -> Vec<Q> {
        self.take(|volume, _| index.is_descendant(volume, ancestor))
    }

    /// A round has passed, of about a second. Those that have waited too long: to be answered with errors, in order.
    pub fn take_overdue(&mut self) -> Vec<Q> {
        self.take(|_, queue| {
            queue.rounds += 1;
            queue.rounds > ROUNDS_MAX
        })
    }

    /// Drops the questions of a volume that is closed.
    pub fn forget(&mut self, volume: VolumeId) {
        self.queues.remove(&volume);
    }

    fn take(&mut self, mut is_wanted: impl FnMut(VolumeId, &mut Queue<Q>) -> bool) -> Vec<Q> {
        let taken = self.queues.extract_if(.., |volume, queue| is_wanted(*volume, queue));
        taken.flat_map(|(_, queue)| queue.questions).collect()
    }
}
