//! Who may write a mirrored consistency group: the role machine of one site, sans-io.
//!
//! [`Member`] is told what happens ([`Event`]) and tells what to do ([`Action`]); time is an argument. It owns no file, socket,
//! clock, thread or random source, so that the simulator runs the very same code. [`seat`] has it and a volume work together. The
//! protocol is in docs/mirror.md.
//! [`wire`] has the bytes of what two sites send each other.

#![forbid(unsafe_code)]

pub mod controls;
mod evidence;
mod io;
mod lease;
mod member;
mod message;
pub mod passing;
mod pause;
mod position;
mod promise;
mod record;
pub mod seat;
pub mod times;
pub mod wire;

pub use evidence::{Decision, Evidence, Sight};
pub use io::{
    Action, AskId, Command, DiskState, Event, LogState, PeerAck, ReadAnswer, Reads, Role, Seen, SwapAnswer, Why,
};
pub use member::{Committed, Config, Member, Policy, Start};
pub use message::{Body, Message};
pub use position::Position;
pub use promise::{KeptPromise, Life, PROMISE_BYTES_MAX, Promise, PromiseError};
pub use record::{EPOCH_MAX, Fork, RECORD_BYTES_MAX, Record, RecordError, Revision};
