//! Kills, power cuts, crashes of the start itself, a store that loses its end or all of itself.
#![forbid(unsafe_code)]

use sim::census::Fault;
use sim::plan::Profile;
use sim::seeds;

/// P1. An acknowledged write survives a kill, a flushed one a power cut; what else a power cut leaves is a prefix of the log.
#[test]
fn nothing_acknowledged_is_lost_by_a_kill_and_nothing_flushed_by_a_power_cut() {
    seeds::check(
        Profile::Durability,
        seeds::count(),
        &[
            Fault::Kill,
            Fault::PowerCut,
            Fault::CrashInAppend,
            Fault::CrashInSync,
            Fault::CrashInStore,
            Fault::CrashInStart,
            Fault::WriteDropped,
            Fault::WriteTorn,
            Fault::WriteReordered,
            Fault::StoreTailLost,
            Fault::Rebuild,
        ],
    );
}

/// P1. An append that failed and is on the disk all the same never comes back among what was acknowledged after it.
#[test]
fn what_was_given_up_does_not_come_back() {
    seeds::check(Profile::Chain, seeds::count(), &[Fault::AppendNoSpace, Fault::PowerCut, Fault::WriteDropped]);
}

/// P1, P3. A kill or a power cut at every write, sync and commit of a small world, one after the other.
#[test]
fn no_step_is_a_bad_one_to_crash_at() {
    seeds::sweep(Profile::Sweep, seeds::count().div_ceil(50));
}
