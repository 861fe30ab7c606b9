//! Safeguards that can be taken away, so that the simulator's tests can show that they would notice. None is ever missing
//! without the feature `negative-controls`, which no program has.

/// A safeguard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safeguard {
    /// The check value of each data block.
    DataCheck,
    /// The chain from batch to batch.
    Chain,
    /// A write-back takes the oldest generation first.
    OldestFirst,
    /// A slot waits for the reads that use it.
    Pins,
    /// It waits for those of heirs, too.
    HeirsPins,
    /// Everything is copied that is left of a segment. Without it the second check goes too, which would tell.
    EverySurvivor,
    /// What is left of a segment is found after all that it says has come to the stored map.
    FoldedFirst,
    /// The same, and what is left is found again before it gets its new place.
    SecondCheck,
    /// A slot is free only once its void header is durable.
    VoidFirst,
    /// A volume that is held begins no batch but of snapshots.
    Hold,
    /// No other change of its blocks goes on while one is merged with what is there.
    MergesAlone,
    /// A boundary is not deleted while something hangs on it.
    HeirsBoundary,
    /// The deletion of a boundary leaves what the one before it shows.
    OtherBoundaries,
    /// The deletion of a boundary takes away all that nothing else shows.
    EveryUnneeded,
    /// What copies share stays as long as they do.
    Loans,
    /// Trims stay while a peer lacks them.
    KeptTrims,
    /// A log is joined to where nothing is missing of what was sent.
    LateJoin,
    /// What a stored page has is not counted again when the log is replayed.
    CountedOnce,
}

#[cfg(feature = "negative-controls")]
thread_local! {
    static MISSING: std::cell::Cell<Option<Safeguard>> = const { std::cell::Cell::new(None) };
}

/// Takes a safeguard away from what this thread does; gives all back with `None`.
#[cfg(feature = "negative-controls")]
pub fn take_away(safeguard: Option<Safeguard>) {
    MISSING.set(safeguard);
}

#[cfg(feature = "negative-controls")]
pub(crate) fn is_missing(safeguard: Safeguard) -> bool {
    MISSING.get() == Some(safeguard)
}

#[cfg(not(feature = "negative-controls"))]
pub(crate) const fn is_missing(_: Safeguard) -> bool {
    false
}
