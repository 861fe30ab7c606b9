//! Without faults: no error but a full pool's, and every read right.
#![forbid(unsafe_code)]

use sim::census::Fault;
use sim::plan::Profile;
use sim::seeds;

/// P2, P5, P6. Where nothing goes wrong, no request fails but for want of room, and every byte read is right.
#[test]
fn nothing_fails_where_nothing_goes_wrong() {
    seeds::check(Profile::Calm, seeds::count(), &[Fault::PoolFull]);
}
