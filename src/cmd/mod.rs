//! The commands, one noun a file.

pub(crate) mod pool;
pub(crate) mod snapshot;
pub(crate) mod volume;
