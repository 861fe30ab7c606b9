//! iSCSI: other people's initiators against the real program, alone and beside NBD clients of the same volumes.
//!
//! The initiators are qemu's and libiscsi's own programs, its suite, and `tests/iscsi/initiator.c` for what none of
//! them says.

mod access;
mod capacity;
mod kills;
mod race;
mod reservations;
mod session;
mod sharing;
mod suite;

use crate::daemon::Daemon;

/// What there is before a target is made: it shows the default tenant's volumes, to whoever is on this machine.
const DEFAULT_TARGET: &str = "iqn.2026-11.io.aljibe:default";

/// Initiators that are ours.
const FIRST: &str = "iqn.2004-10.com.example:first";
const SECOND: &str = "iqn.2004-10.com.example:second";
const THIRD: &str = "iqn.2004-10.com.example:third";

/// A daemon that serves iSCSI, with these volumes, which are LUNs from 0 on.
fn daemon_with(volumes: &[(&str, &str)]) -> Daemon {
    let daemon = Daemon::start_iscsi(tempfile::tempdir().unwrap(), &[]);
    for (name, size) in volumes {
        daemon.create_volume(name, size);
    }
    daemon
}

/// A LUN of the default target, as libiscsi and qemu write it.
fn url(daemon: &Daemon, lun: u8) -> String {
    format!("iscsi://{}/{DEFAULT_TARGET}/{lun}", daemon.iscsi())
}
