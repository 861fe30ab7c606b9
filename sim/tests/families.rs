//! Snapshots, views and clones.
#![forbid(unsafe_code)]

use sim::census::Fault;
use sim::plan::Profile;
use sim::seeds;

/// P1, P2. A snapshot shows for ever what the volume was at one moment, and clones what they wrote over that: through
/// crashes, and with the index made anew.
#[test]
fn snapshots_never_change_and_clones_go_their_own_ways() {
    seeds::check(
        Profile::Families,
        seeds::count(),
        &[
            Fault::Kill,
            Fault::PowerCut,
            Fault::CrashInStart,
            Fault::StoreTailLost,
            Fault::Rebuild,
            Fault::SnapshotUnrecorded,
            Fault::HeirEarly,
        ],
    );
}
