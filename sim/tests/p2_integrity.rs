//! A disk that lies: bits rot in every structure, writes are lost or go elsewhere. Reads that outlast what they read.
#![forbid(unsafe_code)]

use sim::census::Fault;
use sim::plan::Profile;
use sim::seeds;

/// P2. A read returns the last acknowledged write of each block, or an error, whatever the disk returns.
#[test]
fn a_disk_that_lies_is_found_out() {
    seeds::check(
        Profile::Integrity,
        seeds::count(),
        &[
            Fault::SuperblockRot,
            Fault::SlotHeaderRot,
            Fault::VoidHeaderRot,
            Fault::BatchHeaderRot,
            Fault::PayloadRot,
            Fault::FooterRot,
            Fault::MapPageRot,
            Fault::WriteLost,
            Fault::WriteMisdirected,
            Fault::CrashInStart,
            Fault::Rebuild,
        ],
    );
}

/// P2. A read that lasts while what it reads is overwritten, and its slot used again, returns what was there.
#[test]
fn a_read_that_lasts_keeps_its_slot() {
    seeds::check(Profile::Reuse, seeds::count(), &[Fault::SlowFetch]);
}
