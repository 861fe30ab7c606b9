//! Writes of many blocks and of parts of blocks, torn by kills and power cuts.
#![forbid(unsafe_code)]

use sim::census::Fault;
use sim::plan::Profile;
use sim::seeds;

/// P3. A write happens to a block as a whole or not at all, in a crash too.
#[test]
fn no_crash_tears_a_block() {
    seeds::check(
        Profile::Atomicity,
        seeds::count(),
        &[
            Fault::Kill,
            Fault::PowerCut,
            Fault::CrashInAppend,
            Fault::WriteDropped,
            Fault::WriteTorn,
            Fault::WriteReordered,
            Fault::Compared,
            Fault::Miscompared,
            Fault::BitsSet,
            Fault::Copied,
            Fault::Lent,
        ],
    );
}
