//! Would the simulator notice, if a rule of the mirror were gone? Each test takes one away and wants a finding.
#![forbid(unsafe_code)]

use replication::controls::{Safeguard, take_away};
use sim::mirror::plan::Case;
use sim::mirror::seeds;

/// What is found in a world of `case` without `safeguard`, by at most `count` seeds; the same world with it finds nothing.
fn is_noticed(safeguard: Safeguard, case: Case, count: u64) -> String {
    take_away(Some(safeguard));
    let found = seeds::first_finding(case, count);
    take_away(None);
    let (number, seed, finding) = found.expect("some seed notices");
    assert_eq!(seeds::run(seed).err(), None, "the same world with nothing amiss");
    format!("{safeguard:?}: seed {number} of {case:?}, {seed:#x}: {finding}")
}

macro_rules! controls {
    ($($(#[$doc:meta])* $name:ident: $safeguard:ident in $case:ident, $count:literal;)*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                let finding = is_noticed(Safeguard::$safeguard, Case::$case, $count);
                assert!(!finding.contains("panic"), "{finding}");
                sim::seeds::print(&finding);
            }
        )*
    };
}

controls! {
    /// P1. S1: what is acknowledged by the primary alone is missed at the other site.
    an_acknowledgement_without_the_partner_is_noticed: AllInSync in KillPrimary, 100;
    /// P4. S2: a secondary that takes appends of any epoch lets a stale primary go on.
    appends_of_another_epoch_are_noticed: PromisedEpoch in StalePrimary, 3000;
    /// P1. S3: a site that is not in sync becomes primary.
    a_primary_that_was_not_in_sync_is_noticed: Eligible in StaleSite, 20;
    /// P1, P4. S4: a change of which the outcome is not known is taken for made.
    an_unknown_change_that_is_taken_for_made_is_noticed: UnknownIsNotWon in LateWitness, 50;
    /// P1. S4: a join that was given up and comes into force later.
    a_join_that_lands_late_is_noticed: MayLand in LateChange, 50;
    /// P2. S5: a primary that reads without the other site's word shows what is old.
    a_read_without_a_lease_is_noticed: Lease in Partition, 50;
    /// P2. S5: who takes over acknowledges while the other one may still read.
    a_takeover_within_a_lease_is_noticed: LeaseRunsOut in LateChange, 50;
    /// P2. S5: who takes over shows what the other one does not show yet.
    a_read_at_once_after_a_takeover_is_noticed: ReadsWaitToo in LateChange, 50;
    /// P4. S8: a witness that has gone back is believed.
    a_witness_that_has_gone_back_is_noticed: RolledBack in RestoredWitness, 20;
    /// P2. Reads that show what is not committed.
    a_read_of_what_is_not_committed_is_noticed: CommittedReads in Partition, 50;
    /// P1. A primary that lost part of its log in a power cut leads without asking.
    a_primary_that_does_not_compare_is_noticed: Comparison in KillPrimary, 300;
    /// P1. A primary that restarts writes again in the epoch in which it wrote before.
    an_epoch_that_is_used_twice_is_noticed: FreshEpoch in StalePrimary, 2000;
}
