//! Kills, power cuts, crashes of the start itself, a store that loses its end or all of itself.
#![forbid(unsafe_code)]

use sim::plan::Profile;
use sim::seeds;

/// P1. An acknowledged write survives a kill, a flushed one a power cut; what else a power cut leaves is a prefix of the log.
#[test]
fn nothing_acknowledged_is_lost_by_a_kill_and_nothing_flushed_by_a_power_cut() {
    seeds::check(Profile::Durability, seeds::count());
}

/// P1. An append that failed and is on the disk all the same never comes back among what was acknowledged after it.
#[test]
fn what_was_given_up_does_not_come_back() {
    seeds::check(Profile::Chain, seeds::count());
}
