//! Months of life, and the bill of each.
#![forbid(unsafe_code)]

use sim::census::Fault;
use sim::plan::Profile;
use sim::seeds;

/// P7. Whatever is written, trimmed, resized, cloned, rolled back and deleted, among kills, power cuts, reboots, steps of the wall
/// clock and changes of class, in months with a leap day or a change of the clocks: each bill is the model's, to the last unit.
#[test]
fn every_bill_is_the_models_to_the_last_unit() {
    seeds::check(
        Profile::Months,
        seeds::count(),
        &[
            Fault::Kill,
            Fault::PowerCut,
            Fault::CrashInStart,
            Fault::StoreTailLost,
            Fault::SnapshotDeleted,
            Fault::VolumeErased,
            Fault::RolledBack,
            Fault::WallClockSet,
            Fault::ClassChanged,
            Fault::LeapDayBilled,
            Fault::ClockChangeBilled,
        ],
    );
}
