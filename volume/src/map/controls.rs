//! Switches that take a safeguard away, so that the simulator's tests can show that they would notice. Built only with the
//! feature `negative-controls`, which no program has.

use std::cell::Cell;

/// A safeguard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safeguard {
    /// A write-back takes the oldest generation first.
    OldestFirst,
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
