//! Would the simulator notice, if a safeguard were gone? Each test takes one away and wants a finding.
#![forbid(unsafe_code)]

use sim::plan::Profile;
use sim::seeds;
use sim::world::Broken;
use volume::controls::{Safeguard, take_away};

/// Seeds of families of which one notices.
const FAMILIES_MAX: u64 = 20;

/// The first finding in a world where a safeguard is missing, or something else is broken, and the seed.
fn first_finding(
    profile: Profile,
    safeguard: Option<Safeguard>,
    broken: Broken,
    seeds_max: u64,
) -> Option<(u64, String)> {
    take_away(safeguard);
    let found = seeds::first_finding(profile, broken, seeds_max);
    take_away(None);
    found.map(|(seed, finding)| (seed, finding.0))
}

/// The same, which there is; in the same world without anything amiss nothing is found.
fn is_noticed(profile: Profile, safeguard: Option<Safeguard>, broken: Broken, seeds_max: u64) -> String {
    let (seed, finding) = first_finding(profile, safeguard, broken, seeds_max).expect("some seed notices");
    assert_eq!(seeds::run(seed, Broken::Nothing).err(), None, "the same world with nothing amiss");
    finding
}

/// The same in a world of families.
fn is_noticed_in_families(safeguard: Option<Safeguard>, broken: Broken) -> String {
    is_noticed(Profile::Families, safeguard, broken, FAMILIES_MAX)
}

/// P1. With syncs that are answered and do nothing, flushed writes are missed after a power cut.
#[test]
fn a_flush_barrier_that_does_nothing_is_noticed() {
    is_noticed(Profile::Durability, None, Broken::FlushBarrier, 20);
}

/// P2. Without the check of data blocks, reads give what rotted or was lost.
#[test]
fn a_read_without_its_check_is_noticed() {
    is_noticed(Profile::Integrity, Some(Safeguard::DataCheck), Broken::Nothing, 20);
}

/// P1. Without the chain, a batch that was given up stands for one that was lost, and what followed that is taken for its
/// successor.
#[test]
fn a_log_without_its_chain_is_noticed() {
    is_noticed(Profile::Chain, Some(Safeguard::Chain), Broken::Nothing, 4000);
}

/// P3. With other changes of its blocks going on meanwhile, a merge brings back what they have overwritten, and of two
/// compare-and-writes that expect the same both win.
#[test]
fn a_merge_that_is_not_alone_is_noticed() {
    is_noticed(Profile::Atomicity, Some(Safeguard::MergesAlone), Broken::Nothing, 20);
}

/// P2. Without waiting for the reads that use a slot, one of them gets what the slot's next segment holds. A read of a segment
/// that was moved gets that at its first try only: the second one goes where the segment is now.
#[test]
fn a_slot_that_is_given_back_under_a_read_is_noticed() {
    is_noticed(Profile::Reuse, Some(Safeguard::Pins), Broken::Nothing, 40);
}

/// P2. The same without waiting for the reads of those who inherit.
#[test]
fn a_slot_that_is_given_back_under_a_read_of_an_heir_is_noticed() {
    is_noticed(Profile::Reuse, Some(Safeguard::HeirsPins), Broken::Nothing, 40);
}

/// P2. With pages of a later generation written back before those of an earlier one, a snapshot shows what came after it.
#[test]
fn a_later_generation_that_is_written_back_first_is_noticed() {
    is_noticed_in_families(Some(Safeguard::OldestFirst), Broken::Nothing);
}

/// P2. A boundary that the store is told of after the pages that came after it has lost what it is to show.
#[test]
fn a_boundary_that_is_told_too_late_is_noticed() {
    is_noticed_in_families(None, Broken::BoundaryOrder);
}

/// P1. With volumes of a group that are not held, a write is answered before the last snapshot that its own lacks.
#[test]
fn a_group_that_is_not_held_is_noticed() {
    let finding = is_noticed_in_families(Some(Safeguard::Hold), Broken::Nothing);
    assert!(finding.contains("group of snapshots") || finding.contains("sector"), "{finding}");
}

/// P1. A snapshot that is deleted though a volume began as it takes what that shows, which a rebuild misses. The index refuses
/// what the catalogue must not ask for; were it not to, the oracle notices at once.
#[test]
fn a_snapshot_that_is_deleted_under_a_clone_is_noticed() {
    is_noticed_in_families(None, Broken::SnapshotPin);
    let finding = is_noticed_in_families(Some(Safeguard::HeirsBoundary), Broken::SnapshotPin);
    assert!(!finding.contains("hangs on it"), "{finding}");
}

/// P2. A deletion that takes what the snapshot before it shows is noticed.
#[test]
fn a_deletion_that_takes_from_another_snapshot_is_noticed() {
    is_noticed_in_families(Some(Safeguard::OtherBoundaries), Broken::Nothing);
}

/// P5. A deletion that leaves what nothing shows any more: its live counts agree with what is stored, and not with what is
/// shown.
#[test]
fn a_deletion_that_gives_nothing_back_is_noticed() {
    let finding = is_noticed_in_families(Some(Safeguard::EveryUnneeded), Broken::Nothing);
    assert!(finding.contains("P5"), "{finding}");
}

/// P5. What a volume without a name had beyond its snapshots is missed as space.
#[test]
fn a_volume_without_a_name_that_is_not_emptied_is_noticed() {
    let finding = is_noticed_in_families(None, Broken::FullGhosts);
    assert!(finding.contains("has no name, and holds"), "{finding}");
}

/// P1. A block that is left behind when its segment is moved is missed.
#[test]
fn a_survivor_that_is_not_copied_is_noticed() {
    is_noticed(Profile::Compaction, Some(Safeguard::EverySurvivor), Broken::Nothing, 20);
}

/// P1. Survivors that were found before all of their segment had come to the stored map are too few. The second check, which
/// comes when it has, tells.
#[test]
fn stale_survivors_are_noticed_and_the_second_check_tells() {
    is_noticed(Profile::Compaction, Some(Safeguard::SecondCheck), Broken::Nothing, 40);
    let missed = first_finding(Profile::Compaction, Some(Safeguard::FoldedFirst), Broken::Nothing, 40);
    // In such a world a round may be tried again and again: what is never folded does not pass the check.
    let missed = missed.filter(|(_, finding)| !finding.starts_with("no rest"));
    assert_eq!(missed, None, "stale survivors with the second check");
}

/// P1, P5. A slot that is free before its void header is durable comes back with a rebuild.
#[test]
fn a_slot_that_is_free_before_it_is_void_is_noticed() {
    is_noticed(Profile::Compaction, Some(Safeguard::VoidFirst), Broken::Nothing, 40);
}

/// P1. What copies borrow is missed when nothing keeps it.
#[test]
fn loans_that_are_not_kept_are_noticed() {
    is_noticed(Profile::Compaction, Some(Safeguard::Loans), Broken::Nothing, 20);
}

/// P7. What is counted again, when a page that was stored ahead is replayed after a crash, is on the bill twice. One world in some
/// hundreds comes to that.
#[test]
fn what_is_counted_twice_is_noticed() {
    let finding = is_noticed(Profile::Months, Some(Safeguard::CountedOnce), Broken::Nothing, 2000);
    assert!(finding.contains("P7"), "{finding}");
}
