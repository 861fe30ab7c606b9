//! Trims and zeroes of all sizes, through crashes and rebuilds, and the space that they give back.
#![forbid(unsafe_code)]

use sim::census::Fault;
use sim::plan::Profile;
use sim::seeds;

/// P5. What is trimmed reads as zeros and its space comes back: an emptied volume keeps next to no segment.
#[test]
fn trimmed_space_reads_as_zeros_and_comes_back() {
    seeds::check(Profile::Trim, seeds::count(), &[Fault::Kill, Fault::PowerCut, Fault::Rebuild]);
}
