//! Safeguards that can be taken away, so that the simulator's tests can show that they would notice. None is ever missing
//! without the feature `negative-controls`, which no program has.

/// A safeguard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safeguard {
    /// S1. What is acknowledged is on every in-sync site.
    AllInSync,
    /// S2. A secondary takes appends in its promised epoch alone.
    PromisedEpoch,
    /// S3. Only an in-sync site becomes primary by itself, and none while the primary is sole.
    Eligible,
    /// S4. A change of which the outcome is not known is not taken for made.
    UnknownIsNotWon,
    /// S4. In-sync sets that a change on its way may yet bring about count for acknowledgements.
    MayLand,
    /// S5. The primary reads only while the other site's word holds that it will not take over.
    Lease,
    /// S5. Who takes over acknowledges nothing before its own last word has run out.
    LeaseRunsOut,
    /// S8. A witness that has gone back is not believed.
    RolledBack,
    /// S5. It does not read before that, either.
    ReadsWaitToo,
    /// Reads see what is committed and nothing else.
    CommittedReads,
    /// A site that may have lost part of its log compares before it leads.
    Comparison,
    /// A primary that restarts writes in an epoch in which nobody wrote.
    FreshEpoch,
    /// S7. What the other site passes on late is not taken.
    InTime,
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
