//! Serves volumes: shards that drive them on io_uring, NBD connections, and the listener that feeds the shards.
//!
//! [`shard`] owns volumes and connections, one thread per core; `nbd` and [`tls`] are a connection's bytes;
//! [`listener`] accepts and shakes hands on tokio and passes the socket on. What a volume does is decided in the crate
//! `volume`, what bytes mean in `proto`, what the kernel may touch in `uring`.
#![forbid(unsafe_code)]

pub mod catalogue;
mod iscsi;
mod limits;
pub mod listener;
mod memory;
mod metering;
pub mod mirror;
mod nbd;
pub mod open;
mod payload;
pub mod qos;
pub mod scrub;
mod serving;
pub mod shard;
pub mod store;
mod stream;
mod throttle;
pub mod tls;
mod unit;

pub use limits::{Limits, ListenerLimits};
pub use metering::MeterTimes;
pub use nbd::Permit;
pub use serving::{Serving, ServingConfig};
pub use throttle::Throttle;
pub use unit::Registrar;
