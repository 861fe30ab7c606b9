//! The log engine of a volume, sans-io: a state machine that is given events and returns actions.
#![forbid(unsafe_code)]

pub mod buffer;
pub mod check;
pub mod compact;
pub mod controls;
pub mod engine;
pub mod error;
pub mod feed;
mod folding;
pub mod format;
pub mod history;
pub mod io;
pub mod map;
pub mod parting;
pub mod pool;
pub mod rebuild;
pub mod recover;
pub mod request;
pub mod rest;
pub mod resync;
pub mod scrub;
pub mod store;
