//! Snapshots, views, clones; deletions, rollbacks and groups.
#![forbid(unsafe_code)]

use sim::census::Fault;
use sim::plan::Profile;
use sim::seeds;

/// P1, P2, P5. A snapshot shows what the volume was at one moment until it is deleted, and clones what they wrote over that:
/// through crashes, rot, compaction, and with the index made anew. What is deleted gives its space back, and nothing else.
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
            Fault::PoolFull,
            Fault::AppendIo,
            Fault::SyncIo,
            Fault::StoreIo,
            Fault::PayloadRot,
            Fault::WriteLost,
            Fault::WriteMisdirected,
            Fault::PackWritten,
            Fault::CrashInCompaction,
            Fault::SlotsFew,
            Fault::SnapshotUnrecorded,
            Fault::HeirEarly,
            Fault::SnapshotDeleted,
            Fault::VolumeErased,
            Fault::RolledBack,
            Fault::GhostEmptied,
            Fault::GroupTaken,
            Fault::GroupGivenUp,
            Fault::CrashInGroup,
            Fault::CrashInClone,
            Fault::CrashInRollback,
            Fault::CrashInDeletion,
            Fault::CrashInErasing,
            Fault::CrashInCleaning,
        ],
    );
}

/// P1, P3. A kill or a power cut at every step of a small world with all of that, one after the other.
#[test]
fn no_step_of_the_catalogue_is_a_bad_one_to_crash_at() {
    seeds::sweep(Profile::FamilySweep, seeds::count().div_ceil(40));
}
