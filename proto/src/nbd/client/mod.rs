//! The client's side of the wire, for the program's own copies, tests, fuzzing and probes: it copies what it decodes, up
//! to the longest payload of a message, and negotiates nothing itself.

mod handshake;
mod reply;

pub use handshake::{
    OptionReply, decode_export_name_reply, decode_greeting, decode_option_reply, encode_client_flags,
    encode_export_name, encode_info, encode_meta_context, encode_option,
};
pub use reply::{Body, Reply, decode_reply, encode_request};

use std::fmt;

/// The server broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A message begins with another number than its magic.
    Magic,
    /// The greeting is that of the oldstyle handshake, which has no options.
    Oldstyle,
    /// A length is absurd or does not fit what it counts.
    Length,
    /// A chunk is of a type that the negotiation excludes, or of none.
    Type,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Magic => "a message does not begin with its magic",
            Self::Oldstyle => "the handshake is the oldstyle one",
            Self::Length => "a length is wrong",
            Self::Type => "a chunk is of a wrong type",
        })
    }
}

impl std::error::Error for Malformed {}
