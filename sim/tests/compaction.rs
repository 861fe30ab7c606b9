//! A full pool, compaction without rest, and everything that goes wrong.
#![forbid(unsafe_code)]

use sim::census::Fault;
use sim::plan::Profile;
use sim::seeds;

/// P1, P2, P6. What is moved is there as it was written, wherever a crash comes and whatever the disk does.
#[test]
fn what_is_moved_is_there_as_it_was_written() {
    seeds::check(
        Profile::Compaction,
        seeds::count(),
        &[
            Fault::PackWritten,
            Fault::RoundGivenUp,
            Fault::SegmentSuspect,
            Fault::CrashInCompaction,
            Fault::SlotsFew,
            Fault::Kill,
            Fault::PowerCut,
            Fault::Rebuild,
            Fault::PoolFull,
            Fault::AppendIo,
            Fault::FetchIo,
            Fault::SyncIo,
            Fault::StoreIo,
            Fault::PayloadRot,
            Fault::WriteLost,
            Fault::WriteMisdirected,
        ],
    );
}
