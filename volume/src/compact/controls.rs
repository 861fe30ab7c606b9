//! Switches that take a safeguard away, so that the simulator's tests can show that they would notice. Built only with the
//! feature `negative-controls`, which no program has.

use std::cell::Cell;

/// A safeguard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safeguard {
    /// A slot waits for the reads that use it.
    Pins,
    /// Everything is copied that is left of a segment. Without it the second check goes too, which would tell.
    EverySurvivor,
    /// What is left of a segment is found after all that it says has come to the stored map.
    FoldedFirst,
    /// The same, and what is left is found again before it gets its new place.
    SecondCheck,
    /// A slot is free only once its void header is durable.
    VoidFirst,
}

thread_local! {
    static MISSING: Cell<Option<Safeguard>> = const { Cell::new(None) };
}

/// Takes a safeguard away from what this thread does; gives all back with `None`.
pub fn take_away(safeguard: Option<Safeguard>) {
    MISSING.set(safeguard);
}

pub(super) fn is_missing(safeguard: Safeguard) -> bool {
    MISSING.get() == Some(safeguard)
}
