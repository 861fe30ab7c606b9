//! A site's log: what is appended, how much of that is on stable storage, and what it was cut of.

use super::eras::Eras;
use crate::random::mix;
use replication::{LogState, Position};
use units::{Epoch, Lsn};

/// An operation of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its place.
    pub(super) position: Position,
    /// The block that it writes.
    pub(super) block: u8,
    /// What it writes there.
    pub(super) value: u64,
    /// A number of it and all before it: logs that have the same here are the same up to here.
    pub(super) chain: u64,
}

impl Entry {
    /// The entry that follows `before`.
    #[must_use]
    pub(super) fn after(before: Option<&Self>, epoch: Epoch, block: u8, value: u64) -> Self {
        let lsn = before.map_or(Lsn(1), |entry| entry.position.lsn.next());
        let chain = mix(before.map_or(0, |entry| entry.chain) ^ mix(epoch.0) ^ mix(value) ^ u64::from(block));
        Self { position: Position { epoch, segment: None, lsn }, block, value, chain }
    }
}

/// The log.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Vec<Entry>,
    eras: Eras,
    durable: usize,
}

impl Log {
    /// All that is appended.
    #[must_use]
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The last entry.
    #[must_use]
    pub(super) fn last(&self) -> Option<&Entry> {
        self.entries.last()
    }

    /// The end.
    #[must_use]
    pub(super) fn end(&self) -> Position {
        self.eras.end()
    }

    /// Its past.
    #[must_use]
    pub(super) const fn eras(&self) -> &Eras {
        &self.eras
    }

    /// How much is on stable storage.
    #[must_use]
    pub(super) const fn durable(&self) -> Lsn {
        Lsn(self.durable as u64)
    }

    /// What a site's role machine is told, of a log that has taken on role `role`.
    #[must_use]
    pub(super) fn state(&self, role: u64) -> LogState {
        LogState { role, end: self.end(), durable: self.durable(), ..LogState::default() }
    }

    /// Appends.
    pub(super) fn append(&mut self, entry: Entry) {
        assert_eq!(entry.position.lsn, self.end().lsn.next(), "a log has no holes");
        self.eras.append(entry.position);
        self.entries.push(entry);
    }

    /// Makes durable what there is up to `lsn`.
    pub(super) fn sync(&mut self, lsn: Lsn) {
        self.durable = self.durable.max((lsn.0 as usize).min(self.entries.len()));
    }

    /// Cuts off what is behind `lsn`, durably.
    pub(super) fn cut(&mut self, lsn: Lsn) {
        self.entries.truncate(lsn.0 as usize);
        self.eras.cut(lsn);
        self.durable = self.durable.min(self.entries.len());
    }

    /// Whether this log begins as `other` does, all of it.
    #[must_use]
    pub(super) fn has_all_of(&self, other: &[Entry]) -> bool {
        let Some(last) = other.last() else { return true };
        self.entries.get(other.len() - 1).is_some_and(|entry| entry.chain == last.chain)
    }

    /// How many entries this log and `other` share.
    #[must_use]
    pub(super) fn shared_with(&self, other: &[Entry]) -> usize {
        // Equal at one place is equal before it.
        let both = self.entries.len().min(other.len());
        let (mut low, mut high) = (0, both);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if self.entries[middle - 1].chain == other[middle - 1].chain { low = middle } else { high = middle - 1 }
        }
        low
    }

    /// The content of `block` after everything up to `lsn`; 0 is what nobody wrote.
    #[must_use]
    pub(super) fn content(&self, block: u8, lsn: Lsn) -> u64 {
        let upto = &self.entries[..(lsn.0 as usize).min(self.entries.len())];
        upto.iter().rev().find(|entry| entry.block == block).map_or(0, |entry| entry.value)
    }
}
