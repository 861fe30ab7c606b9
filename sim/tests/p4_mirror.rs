//! The mirror's roles in a world of two sites, a witness and clients: the cases of the fault catalogue that concern them.
#![forbid(unsafe_code)]

use sim::mirror::plan::{CASES, Case};
use sim::mirror::seeds;

macro_rules! cases {
    ($($(#[$doc:meta])* $name:ident: $case:ident;)*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                seeds::check(Case::$case, sim::seeds::count());
            }
        )*
    };
}

cases! {
    /// P1, P4. F1: the primary is killed, or loses power, at any moment.
    a_killed_primary_loses_nothing: KillPrimary;
    /// P1, P4. F2: so is the secondary.
    a_killed_secondary_loses_nothing: KillSecondary;
    /// P1, P4. F3: a planned switch ends with one primary, whatever ends or stops at whichever step.
    a_switch_ends_with_one_primary: KillInSwitch;
    /// P1, P4. F4: the link is cut, and the witness sees both sites, one, or none.
    a_partition_makes_no_second_primary: Partition;
    /// P1, P4. F5: what one site says arrives, and what the other one says does not.
    a_link_that_is_cut_in_one_direction_makes_no_second_primary: OneWay;
    /// P1, P4. F6: answers of the witness are lost, repeated, and half a minute late.
    late_answers_of_the_witness_hurt_nothing: LateWitness;
    /// P1, P2, P4. F6: a takeover or a join comes into force long after it was given up.
    a_change_that_lands_late_hurts_nothing: LateChange;
    /// P1, P4. F7: a witness that is about to be lost makes the primary sole.
    a_frail_witness_elects_before: FrailWitness;
    /// P4. F8: a witness that was restored from a backup changes no role.
    a_restored_witness_is_not_believed: RestoredWitness;
    /// P1, P4. F14: a primary returns that was replaced, also by force; its tail is a branch.
    a_stale_primary_becomes_secondary: StalePrimary;
    /// P1, P2, P4. F15: a primary that was stopped while it was replaced acknowledges and shows nothing old.
    a_stopped_primary_wakes_up_fenced: Stop;
    /// P2, P4. F16: clocks of which the rates are a tenth off.
    wrong_clocks_hurt_nothing: Clocks;
    /// P1, P4. F17: both sites fail, or one and the witness.
    double_failures_lose_what_must_be_lost_and_no_more: Double;
    /// P1. F18: a secondary that missed writes takes over only when it has them.
    a_site_that_rejoins_is_up_to_date_first: Rejoin;
    /// P1, P4. F19: a site that missed writes does not become primary because it is all that is left.
    a_stale_site_does_not_lead: StaleSite;
    /// P6. F10, F12, F13: slow and full disks eject a secondary and move a primary.
    bad_disks_change_roles_and_lose_nothing: Disks;
    /// P1, P2, P4, P6. F32: anything.
    a_mixture_of_faults_hurts_nothing: Mixed;
    /// P1, P4. F32 where nothing is ever acknowledged that is not at both sites.
    a_mixture_of_faults_hurts_nothing_strictly: Strict;
    /// P2. F32 with reads that ask the other site each time.
    a_mixture_of_faults_hurts_no_confirmed_read: Confirm;
}

/// P1, P4, P6. F11: the link flaps, some two dozen times a world; the other site is ejected and joins ever more rarely.
#[test]
fn a_flapping_link_changes_little() {
    let count = sim::seeds::count();
    let outcome = seeds::check(Case::Flapping, count);
    assert!(outcome.epochs <= 10 * count, "{} changes in {count} worlds", outcome.epochs);
}

/// P6. F9: a witness that stalls changes no role.
#[test]
fn a_stalled_witness_moves_nothing() {
    let outcome = seeds::check(Case::StalledWitness, sim::seeds::count());
    assert_eq!(outcome.moves, 0, "failovers without a need");
}

/// P6. Without faults nothing changes but that the sites find each other.
#[test]
fn a_calm_world_changes_no_role() {
    let count = sim::seeds::count();
    let outcome = seeds::check(Case::Calm, count);
    assert_eq!((outcome.moves, outcome.branches, outcome.excuses), (0, 0, 0));
    assert!(outcome.epochs <= 3 * count, "{} changes in {count} worlds", outcome.epochs);
}

/// P1 to P6. A seed that fails fails again: two runs of one seed are the same to the last event.
#[test]
fn one_seed_gives_one_trace() {
    for case in CASES {
        for number in 0..3 {
            let seed = case.seed(0x5eed + number);
            assert_eq!(seeds::run(seed), seeds::run(seed), "seed {seed:#x}");
        }
    }
}

/// Runs the seed of `ALJIBE_SIM_SEED` and prints what happens in it.
#[test]
fn replay() {
    if let Some(seed) = sim::seeds::wanted() {
        seeds::replay(seed);
    }
}
