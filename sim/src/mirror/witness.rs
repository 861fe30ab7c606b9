//! The witness: a register that is read and changed linearizably, over a network that loses, delays and repeats.

use replication::{ReadAnswer, Record, Revision, Seen, SwapAnswer};

/// The register.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    revision: u64,
    record: Option<Record>,
    /// Everything that was ever there, for a restore from a backup.
    past: Vec<Seen>,
    /// Nobody reaches it.
    pub(crate) is_down: bool,
    /// Sites that do not reach it.
    pub(crate) is_cut: [bool; 2],
    /// A cut of the link takes its quorum away.
    pub(crate) is_frail: bool,
    /// Requests and answers are late, lost or repeated.
    pub(crate) is_slow: bool,
}

impl Witness {
    /// What is there.
    #[must_use]
    pub(crate) fn seen(&self) -> Option<Seen> {
        self.record.map(|record| Seen { revision: Revision(self.revision), record })
    }

    /// What whoever reads it is told, if it is reached.
    pub(crate) fn answer(&self, is_reached: bool) -> ReadAnswer {
        match self.seen() {
            _ if !is_reached => ReadAnswer::Unreachable,
            Some(seen) => ReadAnswer::Found { seen, is_frail: self.is_frail },
            None => ReadAnswer::Nothing,
        }
    }

    /// Changes it, if `expected` is what is there.
    pub(crate) fn swap(&mut self, expected: Option<Revision>, record: Record) -> SwapAnswer {
        if self.seen().map(|seen| seen.revision) != expected {
            return SwapAnswer::Lost { found: self.seen() };
        }
        self.past.extend(self.seen());
        self.revision += 1;
        self.record = Some(record);
        SwapAnswer::Won { revision: Revision(self.revision) }
    }

    /// Restores it as it was `changes` changes ago.
    pub(crate) fn restore(&mut self, changes: usize) {
        let kept = self.past.len().saturating_sub(changes);
        let Some(seen) = self.past.get(kept).copied() else { return };
        self.past.truncate(kept);
        self.record = Some(seen.record);
        self.revision = seen.revision.0;
    }
}
