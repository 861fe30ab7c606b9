//! What a login needs, asks and comes to.

use crate::iscsi::chap::{CHALLENGE_BYTES, ChapSecrets};
use crate::iscsi::parameters::Parameters;
use crate::iscsi::reply::LoginStatus;

/// What one login is given.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Random bytes, for this login only.
    pub challenge: [u8; CHALLENGE_BYTES],
    /// The portal group that the connection came in by.
    pub portal_group: u16,
}

/// Says who may log in to what, and what must be proven for it.
pub trait Door {
    /// Judges an initiator before it has proven anything; `target` is `None` for a discovery session.
    ///
    /// # Errors
    /// The status to refuse the login with.
    fn enter(&self, target: Option<&str>, initiator: &str) -> Result<Entry, LoginStatus>;
}

/// How an initiator may come in.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// What it must prove to know; `None` lets anybody in who says that name.
    pub chap: Option<ChapSecrets>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// More bytes, or, after [`Step::Admitted`], [`Login::finish`](super::Login::finish).
    NeedBytes,
    /// The initiator may come in: settle the session, then finish the login.
    Admitted(Box<Admitted>),
    /// Send the output, then close the connection.
    Close(LoginFailure),
}

/// Why a login comes to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginFailure {
    /// The first thing said was no login request. There is nothing to answer with.
    NotLogin,
    /// Refused; the response is in the output.
    Refused(LoginStatus),
    /// The login was finished before.
    Over,
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// Asks for targets, and does nothing else.
    Discovery,
    /// Sends commands.
    Normal,
}

/// An initiator that may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The initiator's name.
    pub initiator: String,
    /// Its part of the session's id.
    pub isid: [u8; 6],
    /// The session it wants to join or come back to, 0 for a new one. Whether there is one is for the driver to know.
    pub tsih: u16,
    /// The connection's id.
    pub cid: u16,
    /// What the session is for.
    pub kind: SessionKind,
    /// The target's name, for a normal session.
    pub target: Option<String>,
    /// What was negotiated; a joining connection gets the session's by [`Parameters::within`].
    pub parameters: Parameters,
    /// The first place in the order of commands, for a new session.
    pub cmd_sn: u32,
    /// What people call the initiator.
    pub alias: Option<String>,
}
