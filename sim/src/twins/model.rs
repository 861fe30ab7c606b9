//! What a mirrored volume may show: the last acknowledged value of each block, or that of a write that was never answered.

use std::collections::{BTreeMap, BTreeSet};

/// What a block holds; 0 is zeros.
pub(super) type Value = u64;

#[derive(Debug, Default)]
struct Block {
    /// What it held, newest last, and the moment at which that was acknowledged. A power cut may bring back what no flush
    /// covers; the first one is what a flush does, or nothing.
    held: Vec<(u64, Value)>,
    /// Writes that were never answered, and may have come or not.
    unanswered: BTreeSet<Value>,
}

/// All blocks.
#[derive(Debug, Default)]
pub(super) struct Model {
    blocks: BTreeMap<u64, Block>,
    moment: u64,
}

impl Model {
    /// A moment of its own.
    pub(super) const fn now(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    fn block(&mut self, block: u64) -> &mut Block {
        let made = || Block { held: vec![(0, 0)], unanswered: BTreeSet::new() };
        self.blocks.entry(block).or_insert_with(made)
    }

    /// A change was acknowledged.
    pub(super) fn acknowledge(&mut self, block: u64, value: Value) {
        let now = self.now();
        let state = self.block(block);
        state.held.push((now, value));
        state.unanswered.clear();
    }

    /// A change will never be answered.
    pub(super) fn abandon(&mut self, block: u64, value: Value) {
        self.block(block).unanswered.insert(value);
    }

    /// What was acknowledged up to `moment` is on stable storage.
    pub(super) fn flush(&mut self, moment: u64) {
        for state in self.blocks.values_mut() {
            let newest = state.held.iter().rposition(|(at, _)| *at <= moment).unwrap_or(0);
            state.held.drain(..newest);
        }
    }

    /// The same of some blocks.
    pub(super) fn flush_blocks(&mut self, blocks: std::ops::Range<u64>, moment: u64) {
        for (_, state) in self.blocks.range_mut(blocks) {
            let newest = state.held.iter().rposition(|(at, _)| *at <= moment).unwrap_or(0);
            state.held.drain(..newest);
        }
    }

    /// The power was cut wherever it was: what no flush covers may be there or not.
    pub(super) fn lose_unflushed(&mut self) {
        for state in self.blocks.values_mut() {
            let later: Vec<Value> = state.held.drain(1..).map(|(_, value)| value).collect();
            state.unanswered.extend(later);
        }
    }

    /// What a block may hold.
    pub(super) fn allowed(&mut self, block: u64) -> BTreeSet<Value> {
        let state = self.block(block);
        let last = state.held.last().map_or(0, |(_, value)| *value);
        state.unanswered.iter().copied().chain([last]).collect()
    }

    /// A block was seen to hold this, which is so from now on.
    pub(super) fn see(&mut self, block: u64, value: Value) {
        let now = self.now();
        let state = self.block(block);
        if state.unanswered.remove(&value) {
            state.held.push((now, value));
        }
        state.unanswered.clear();
    }
}
