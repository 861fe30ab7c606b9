//! I/O errors once and for long, a full pool, a full file system below it, a failing store, slow I/O.
#![forbid(unsafe_code)]

use sim::census::Fault;
use sim::plan::Profile;
use sim::seeds;

/// P6. Faults fail requests and lose nothing that was acknowledged; when they are gone, service resumes.
#[test]
fn faults_fail_requests_and_lose_nothing() {
    seeds::check(
        Profile::Faults,
        seeds::count(),
        &[
            Fault::AppendIo,
            Fault::AppendNoSpace,
            Fault::SlotNoSpace,
            Fault::PoolFull,
            Fault::FetchIo,
            Fault::SyncIo,
            Fault::StartReadIo,
            Fault::StartWriteIo,
            Fault::StoreIo,
            Fault::MapPageRot,
            Fault::PassingOutage,
            Fault::LastingOutage,
            Fault::Slow,
            Fault::CrashInStart,
        ],
    );
}
