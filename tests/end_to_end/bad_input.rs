//! Clients that speak nonsense, say nothing or never listen: memory stays bounded, others are served, nothing dies.

use crate::daemon::Daemon;
use crate::tool::{are_here, noise, python, run, succeed};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const MIB: u64 = 1 << 20;

/// A volume with known content, and the means to see that it is still served and still right.
struct Served {
    daemon: Daemon,
    source: String,
}

impl Served {
    fn start() -> Self {
        let daemon = Daemon::start();
        daemon.create_volume("served", "16M");
        let source = daemon.folder().join("source");
        fs::write(&source, noise(4, 16 << 20)).unwrap();
        let served = Self { source: source.to_str().unwrap().to_owned(), daemon };
        run("nbdcopy", [&served.source, &served.daemon.uri("served")]);
        served
    }

    /// A client of good manners is served the right bytes.
    fn check(&self) {
        let back = self.daemon.folder().join("back");
        run("nbdcopy", ["--connections=4", &self.daemon.uri("served"), back.to_str().unwrap()]);
        run("cmp", [&self.source, back.to_str().unwrap()]);
    }

    /// Starts a script that holds connections until it is let go, and reads its first line.
    fn hold(&self, script: &str, arguments: &[&str]) -> (Child, String) {
        let mut command: Command = python(script);
        command.arg(self.daemon.socket()).arg("served").args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (child, line)
    }

    fn let_go(mut child: Child) {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}

/// P2. Random bytes, random options and requests, and a handshake cut off at each byte harm nobody.
#[test]
fn nonsense_and_truncated_handshakes_harm_nobody() {
    if !are_here("nonsense_and_truncated_handshakes_harm_nobody", &["nbdcopy", "python3-libnbd"]) {
        return;
    }
    let mut served = Served::start();
    let before = served.daemon.resident_bytes();
    succeed(python("garbage.py").arg(served.daemon.socket()).arg("served"));
    served.check();
    let grown = served.daemon.resident_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "{grown} bytes more than before");
    assert!(!served.daemon.log().contains("panicked"), "{}", served.daemon.log());
    assert!(served.daemon.stop().success());
}

#[test]
fn a_thousand_silent_connections_cost_little_and_harm_nobody() {
    if !are_here("a_thousand_silent_connections_cost_little_and_harm_nobody", &["nbdcopy", "python3-libnbd"]) {
        return;
    }
    let mut served = Served::start();
    // 64 KiB for each, and what was served meanwhile. Writes that never come may hold what the volume's shard gives to
    // requests, and as much again where a crowd waits for it.
    let shard_bytes_max = 128 * MIB;
    for (stage, grown_max) in
        [("greeting", 128 * MIB), ("option", 128 * MIB), ("request", 128 * MIB + 2 * shard_bytes_max)]
    {
        let before = served.daemon.resident_bytes();
        let (holder, line) = served.hold("silence.py", &["1000", stage]);
        assert!(line.starts_with("holding "), "{line}");
        served.check();
        let grown = served.daemon.resident_bytes().saturating_sub(before);
        assert!(grown < grown_max, "{grown} bytes for connections that are silent after their {stage}");
        Served::let_go(holder);
        served.check();
    }
    assert!(served.daemon.stop().success());
}

#[test]
fn clients_that_never_listen_hold_a_bounded_amount_of_memory() {
    if !are_here("clients_that_never_listen_hold_a_bounded_amount_of_memory", &["nbdcopy", "python3-libnbd"]) {
        return;
    }
    let mut served = Served::start();
    let before = served.daemon.resident_bytes();
    // 32 times 4,096 reads of 1 MiB: 128 GiB, were they all carried out.
    let (holder, line) = served.hold("slow_reader.py", &["32", "4096"]);
    assert!(line.starts_with("asked "), "{line}");
    served.check();
    let grown = served.daemon.resident_bytes().saturating_sub(before);
    assert!(grown < 512 * MIB, "{grown} bytes for answers that nobody takes");
    Served::let_go(holder);
    served.check();
    assert!(served.daemon.stop().success());
}
