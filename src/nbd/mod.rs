//! An NBD client for the commands that copy: one connection, any number of requests in flight.
//!
//! The wire is `proto::nbd::client`'s; here are the sockets, the handshake and the pairing of replies with requests.

mod connection;
mod dialer;
mod error;
mod handshake;
mod pending;
mod uri;

pub(crate) use connection::Connection;
pub(crate) use dialer::Dialer;
pub(crate) use error::NbdError;
pub(crate) use handshake::Facts;
pub(crate) use uri::{Host, InvalidUri, NbdUri};
