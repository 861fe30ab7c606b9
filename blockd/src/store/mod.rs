//! The index of the pool and the thread that owns it.
//!
//! [`RocksStore`] is where the index keeps its rows; [`StoreThread`] takes what the volumes of all shards ask of the index,
//! in the order they ask, and answers by messages to their shards.

mod disk;
mod jobs;
mod keeper;
mod pacing;
mod rocks;
mod sealing;
mod thread;

pub use rocks::RocksStore;
pub use thread::{StoreEnded, StoreHandle, StoreThread};
