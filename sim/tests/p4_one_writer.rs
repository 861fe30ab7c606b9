//! Volumes opened over and over in slots full of what earlier segments left. Fencing between daemons comes with the mirror.
#![forbid(unsafe_code)]

use sim::census::Fault;
use sim::plan::Profile;
use sim::seeds;

/// P4. What an earlier life, or an earlier segment of the same slot, left is never taken for this one's.
#[test]
fn what_an_earlier_life_left_is_not_taken() {
    seeds::check(
        Profile::OneWriter,
        seeds::count(),
        &[Fault::Kill, Fault::PowerCut, Fault::CrashInStart, Fault::StoreTailLost, Fault::Rebuild, Fault::PoolFull],
    );
}
