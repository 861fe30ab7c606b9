//! The deterministic world: the engine and its index, run by a driver of this crate on a simulated disk and store, with
//! clients that ask and an oracle that judges. Everything follows from one seed.
//!
//! The tests, one file per promise, run many seeds; a failing one prints the command that replays it.
#![forbid(unsafe_code)]
#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a world is a test: a panic in it is a finding, reported with its seed"
)]

pub mod bill;
pub mod census;
pub mod disk;
pub mod fuse;
pub mod meter;
pub mod mirror;
pub mod oracle;
pub mod pair;
pub mod pattern;
pub mod plan;
pub mod random;
pub mod resync;
pub mod seeds;
pub mod store;
pub mod trace;
pub mod twins;
pub mod workload;
pub mod world;
