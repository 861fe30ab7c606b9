//! A witness without a cluster: a durable register that the daemons of one machine share, and nobody else.
//!
//! It is no consensus: with its machine it is gone, and a copy of its directory is another witness that knows nothing of this one.
//! So it is served over a unix socket alone, and a directory that was another machine's, or that several could mount, is refused.

mod client;
mod machine;
mod message;
mod server;
mod store;

pub use client::RegisterClient;
pub use message::{Answer, MessageError, Request};
pub use server::RegisterServer;
pub use store::{GROUPS_MAX, Register, RegisterError, RegisterOptions, Swapped};
