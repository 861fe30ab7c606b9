//! The management plane's words and its REST API: names, sizes, volumes, pools, problems, metrics.
//!
//! It knows no engine. What it offers is reached through one trait, [`Service`], that the program implements over its
//! shards. Every answer that is not a success is a problem document (RFC 9457) with a stable code.

#![forbid(unsafe_code)]

pub mod api;
mod error;
pub mod listener;
pub mod metrics;
mod model;
mod name;
mod service;
mod size;

pub use error::{ErrorCode, Problem, ServiceError};
pub use model::{
    Compaction, CreateVolume, Pool, PoolState, ResizeVolume, Slots, Status, Volume, VolumeList, VolumeState,
};
pub use name::{InvalidName, VolumeName};
pub use service::{Answer, Service};
pub use size::{InvalidSize, Size, VolumeSize};
