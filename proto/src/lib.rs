//! Wire protocols, sans-io: bytes in, typed facts and bytes out.
//!
//! Nothing here knows a socket, a clock or a volume. Every length that comes off a wire is checked against a named limit
//! before memory is spent on it, and no input panics.
#![forbid(unsafe_code)]

pub mod iscsi;
pub mod nbd;
pub mod scsi;
mod wire;
