//! Opening a pool: its file, its index, and what its volumes' logs say.
//!
//! What is promised: one process has a pool at a time; a pool that was torn in any way that a crash can do opens again; a
//! missing index is made anew from the pool; an index that is not the pool's is refused, never used. Format of the pool:
//! `docs/format.md`.

mod error;
mod index;
mod past_cache;
mod pool_file;
mod recovery;
mod space;

pub use error::OpenError;
pub use index::{OpenPool, PoolConfig, open_for_check, rebuild_index};
pub use pool_file::{PoolFile, PoolShape};

pub(crate) use past_cache::{PastCache, open_past_cache};
pub(crate) use pool_file::{fault_of, wall_ms};
pub(crate) use recovery::{Notes, Recovery, recover_all};
pub(crate) use space::Space;
