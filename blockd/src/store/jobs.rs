//! Work on the index that takes long: deletions of snapshots, and searches for what their deletion would give back. Done
//! between commands, about a millisecond at a time, while no command waits; and now and then also when some do, so that
//! it comes to an end under any load.

use crate::shard::Callback;
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};
use units::VolumeId;
use volume::error::DiskFault;
use volume::pool::{Deletion, DeletionError, Index, Reclaim};
use volume::store::Store;

/// How long a turn takes, about.
const TURN: Duration = Duration::from_millis(1);

/// How long commands may keep the work waiting: a twentieth of the time is its own.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// Steps between two looks at the clock.
const STEPS: usize = 8;

/// The work that is under way.
#[derive(Debug)]
pub(super) struct Jobs {
    /// Those of one volume are carried out one after the other, and volumes take turns.
    deletions: VecDeque<(VolumeId, VecDeque<Deleting>)>,
    searches: VecDeque<Search>,
    is_search_next: bool,
    last_turn: Instant,
}

struct Deleting {
    deletion: Deletion,
    done: Callback<Result<(), DeletionError>>,
}

/// A search for what the deletion of each of some sets of snapshots gives back.
struct Search {
    volume: VolumeId,
    sets: VecDeque<BTreeSet<u64>>,
    under_way: Option<Reclaim>,
    found: Vec<u64>,
    done: Callback<Result<Vec<u64>, DiskFault>>,
}

impl std::fmt::Debug for Deleting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Deleting({:?})", self.deletion)
    }
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Search({}, {} sets left)", self.volume, self.sets.len())
    }
}

impl Jobs {
    /// Goes on with what a stop has left unfinished.
    pub(super) fn resume<S: Store>(index: &mut Index<S>) -> Self {
        let mut jobs = Self {
            deletions: VecDeque::new(),
            searches: VecDeque::new(),
            is_search_next: false,
            last_turn: Instant::now(),
        };
        let leaving: Vec<(VolumeId, u64)> = index.leaving_boundaries().collect();
        for (volume, generation) in leaving {
            jobs.delete(index, (volume, generation), Box::new(|_| {}));
        }
        jobs
    }

    pub(super) fn is_empty(&self) -> bool {
        self.deletions.is_empty() && self.searches.is_empty()
    }

    /// Whether a snapshot is being deleted, which may free slots.
    pub(super) fn is_deleting(&self) -> bool {
        !self.deletions.is_empty()
    }

    /// Whether there is work that commands have kept waiting for long enough.
    pub(super) fn is_due(&self) -> bool {
        !self.is_empty() && self.last_turn.elapsed() >= WAIT_MAX
    }

    /// Begins to delete a snapshot. From now on nothing is kept for it, also after a restart.
    pub(super) fn delete<S: Store>(
        &mut self,
        index: &mut Index<S>,
        (volume, generation): (VolumeId, u64),
        done: Callback<Result<(), DeletionError>>,
    ) {
        let deletion = match index.begin_deletion(volume, generation) {
            Ok(Some(deletion)) => deletion,
            Ok(None) => return done(Ok(())),
            Err(error) => return done(Err(error)),
        };
        let deleting = Deleting { deletion, done };
        match self.deletions.iter_mut().find(|(of, _)| *of == volume) {
            Some((_, queue)) => queue.push_back(deleting),
            None => self.deletions.push_back((volume, VecDeque::from([deleting]))),
        }
    }

    /// Begins a search for what the deletion of each of `sets` gives back, in blocks.
    pub(super) fn search(
        &mut self,
        volume: VolumeId,
        sets: Vec<BTreeSet<u64>>,
        done: Callback<Result<Vec<u64>, DiskFault>>,
    ) {
        let (sets, under_way, found) = (sets.into(), None, Vec::new());
        self.searches.push_back(Search { volume, sets, under_way, found, done });
    }

    /// Works for a turn; returns the volumes of which something was deleted.
    pub(super) fn work<S: Store>(&mut self, index: &mut Index<S>) -> BTreeSet<VolumeId> {
        let began = Instant::now();
        let mut changed = BTreeSet::new();
        while !self.is_empty() && began.elapsed() < TURN {
            self.is_search_next = !self.is_search_next;
            if self.searches.is_empty() || (!self.is_search_next && !self.deletions.is_empty()) {
                changed.extend(self.go_on_deleting(index));
            } else {
                self.go_on_searching(index);
            }
        }
        self.last_turn = Instant::now();
        changed
    }

    fn go_on_deleting<S: Store>(&mut self, index: &mut Index<S>) -> Option<VolumeId> {
        let (volume, mut queue) = self.deletions.pop_front()?;
        if let Some(mut first) = queue.pop_front() {
            match index.delete_some(&mut first.deletion, STEPS) {
                Ok(false) => queue.push_front(first),
                Ok(true) => (first.done)(Ok(())),
                Err(fault) => {
                    let generation = first.deletion.generation();
                    tracing::warn!(%volume, generation, %fault, "a snapshot's deletion goes on after a restart");
                    (first.done)(Err(DeletionError::Store(fault)));
                }
            }
        }
        if !queue.is_empty() {
            self.deletions.push_back((volume, queue));
        }
        Some(volume)
    }

    fn go_on_searching<S: Store>(&mut self, index: &Index<S>) {
        let Some(mut search) = self.searches.pop_front() else { return };
        if search.under_way.is_none() {
            search.under_way = search.sets.pop_front().map(|set| index.reclaim(search.volume, &set));
        }
        let Some(under_way) = &mut search.under_way else { return (search.done)(Ok(search.found)) };
        match index.reclaim_some(under_way, STEPS) {
            Ok(false) => {}
            Ok(true) => {
                search.found.push(under_way.blocks());
                search.under_way = None;
            }
            Err(fault) => return (search.done)(Err(fault)),
        }
        self.searches.push_back(search);
    }
}

#[cfg(test)]
mod tests;
