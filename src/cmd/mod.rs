//! The commands, one noun a file.

pub(crate) mod image;
pub(crate) mod pool;
pub(crate) mod volume;
