//! io_uring with types: an operation owns its buffers and its file until its completion gives them back.
//!
//! The only crate with unsafe code. One rule carries all of it: what the kernel may touch is owned by the [`Ring`] from
//! submission to completion, as raw heap memory that nobody else can name ([`Region`], [`Message`]), and a ring that is
//! dropped cancels what is in flight and waits for it. Forgetting a ring leaks that memory, which is sound.
//!
//! Besides: the few file calls that the standard library lacks ([`mod@file`]), the boot clock ([`clock`]),
//! and pinning a thread to a core ([`cpu`]).
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

pub mod clock;
pub mod cpu;
pub mod file;
mod message;
mod operation;
mod region;
mod ring;
mod setup;
mod waker;

pub use message::Message;
pub use operation::{Completion, DISCARDED_BYTES_MAX, OperationId, Outcome, ReadPiece, Readiness};
pub use region::Region;
pub use ring::{Counters, Ring, Want};
pub use setup::{Config, Features, SetupCause, SetupError};
pub use waker::Waker;
