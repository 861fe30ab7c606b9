//! Two links on one machine, over real sockets and real TLS, with a relay between them that loses, stops and cuts.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "a surprise is a failed test"
)]

mod carrying;
mod crowding;
mod hostile;
mod losing;
mod opening;
mod raw;
mod relay;
mod site;
