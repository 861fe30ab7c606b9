//! The frames of the link between the daemons of two sites, as bytes. Knows bytes, not connections: crate `link` carries them.
//!
//! A connection begins with one [`Opening`] each way; then come frames, each a header of [`HEADER_BYTES`] and a body. Little-endian
//! throughout. No checksum here: TLS has one for the link, and what goes to a disk bears its own.
//!
//! | offset | size | header |
//! | --- | --- | --- |
//! | 0 | 2 | [`Kind`] |
//! | 2 | 2 | zero |
//! | 4 | 4 | bytes of the body |
//! | 8 | 8 | group; zero in what concerns the connection alone |
//! | 16 | 8 | epoch; zero where none applies |
//!
//! Bytes are distrusted: a length is held against the bounds of its kind before anything is allocated, and what cannot be, or is not
//! known, is an error that ends the connection.

mod arriving;
mod bytes;
mod enrolment;
mod error;
mod frame;
mod opening;
mod outgoing;
mod passing;
mod say;
mod text;

pub use arriving::Incoming;
pub use enrolment::Enrolment;
pub use error::{OpeningError, WireError};
pub use frame::{BATCH_BYTES_MAX, BUFFERS_MAX, Bye, ByeCode, Frame, HEADER_BYTES, Kind, STRETCHES_MAX};
pub use opening::{
    CONNECTIONS_MAX, Hello, LinkId, OPENING_BYTES_MAX, Opening, Refusal, RefusalCode, VERSIONS, Versions,
};
pub use outgoing::Outgoing;
pub use passing::answer_bytes;
pub use text::{TEXT_BYTES_MAX, Text};

#[cfg(test)]
mod tests;
