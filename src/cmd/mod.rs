//! The commands, one noun a file.

pub(crate) mod audit;
mod diff;
pub(crate) mod image;
pub(crate) mod operation;
pub(crate) mod pool;
mod scrub;
pub(crate) mod snapshot;
pub(crate) mod tenant;
pub(crate) mod token;
pub(crate) mod volume;
