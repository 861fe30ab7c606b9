//! The commands, one noun a file.

pub(crate) mod audit;
pub(crate) mod budget;
pub(crate) mod class;
mod diff;
pub(crate) mod image;
pub(crate) mod invoice;
pub(crate) mod mirror;
pub(crate) mod operation;
pub(crate) mod pool;
pub(crate) mod rate_card;
mod scrub;
pub(crate) mod site;
pub(crate) mod snapshot;
pub(crate) mod target;
pub(crate) mod tenant;
pub(crate) mod token;
pub(crate) mod usage;
pub(crate) mod volume;
