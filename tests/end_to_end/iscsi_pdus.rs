//! iSCSI to the letter and against it, by an initiator of our own: what no library lets its user say.

mod copies;
mod data;
mod digests;
mod garbage;
mod login;
mod management;
mod pdus;
mod sessions;
mod window;

use crate::daemon::Daemon;
use crate::initiator::{Login, Session};
use crate::tool::succeed;
use std::sync::atomic::{AtomicU8, Ordering};

const HOST: &str = "iqn.2004-10.com.example:host";
const OTHER_HOST: &str = "iqn.2004-10.com.example:other";
const TARGET: &str = "iqn.2026-11.io.aljibe:db";

/// Reasons of a Reject: RFC 7143 11.17.1.
mod reason {
    pub(super) const DATA_DIGEST: u8 = 0x02;
    pub(super) const SNACK: u8 = 0x03;
    pub(super) const PROTOCOL: u8 = 0x04;
    pub(super) const NOT_SUPPORTED: u8 = 0x05;
    pub(super) const TOO_MANY_IMMEDIATE: u8 = 0x06;
    pub(super) const INVALID_FIELD: u8 = 0x09;
}

/// A daemon with one volume as LUN 0 of a target that lets everybody in.
struct World {
    daemon: Daemon,
    sessions: AtomicU8,
}

impl World {
    fn start() -> Self {
        let daemon = Daemon::start_iscsi(tempfile::tempdir().unwrap(), &["--shards", "1"]);
        daemon.create_volume("a", "64M");
        for arguments in [&["create", "db"][..], &["map", "db", "a"], &["allow", "db", "*"]] {
            succeed(daemon.aljibe(&["target"]).args(arguments));
        }
        Self { daemon, sessions: AtomicU8::new(0) }
    }

    fn login(&self, initiator: &str) -> Login {
        Login::new(&self.daemon.iscsi(), initiator, TARGET)
    }

    /// A session that takes no other's place.
    fn session(&self) -> Session {
        self.session_with(&[])
    }

    /// One that offers some keys of its own.
    fn session_with(&self, keys: &[(&str, &str)]) -> Session {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        let login = Login { isid: [0x80, 0, 0, 0, 1, number], ..self.login(HOST) };
        Session::begin(keys.iter().fold(login, |login, (key, value)| login.with(key, value)))
    }

    fn other_session(&self) -> Session {
        Session::begin(self.login(OTHER_HOST))
    }

    /// The daemon has had nothing to complain of.
    fn end(mut self) {
        self.daemon.stop_without_complaint();
    }
}

/// So many bytes of one value.
fn filled(byte: u8, len: usize) -> Vec<u8> {
    vec![byte; len]
}

/// Whether bytes are all of one value.
fn is_all(bytes: &[u8], byte: u8) -> bool {
    bytes.iter().all(|found| *found == byte)
}
