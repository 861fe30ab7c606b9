//! Incremental backups by real clients while writes go on: what is put together from a full copy and increments is the
//! snapshot, bit for bit.

use crate::daemon::Daemon;
use crate::tool::{are_here, json, python, run, succeed, wait_until};
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// Offset and length.
type Ranges = Vec<(u64, u64)>;

/// A client that changes a volume until it is told to end.
struct Churn {
    child: Child,
    ready: PathBuf,
}

impl Churn {
    fn start(daemon: &Daemon, seed: u32, more: &[&str]) -> Self {
        let ready = daemon.folder().join(format!("ready-{seed}"));
        let mut client = python("churn.py");
        client.arg(daemon.uri("vm")).args(["--seed", &seed.to_string()]).arg("--ready").arg(&ready).args(more);
        let churn = Self { child: client.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap(), ready };
        wait_until("much has been changed", || churn.ready.exists());
        churn
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

fn joined(ranges: impl IntoIterator<Item = (u64, u64)>) -> Ranges {
    let mut out = Ranges::new();
    for (offset, length) in ranges {
        match out.last_mut().filter(|(at, len)| at + len == offset) {
            Some((_, len)) => *len += length,
            None => out.push((offset, length)),
        }
    }
    out
}

/// The parts of a map, a JSON array, that `is_meant` says.
fn parts_of(map: &Value, start: &str, is_meant: impl Fn(&Value) -> bool) -> Ranges {
    let parts = map.as_array().unwrap().iter().filter(|part| is_meant(part));
    joined(parts.map(|part| (part[start].as_u64().unwrap(), part["length"].as_u64().unwrap())))
}

/// What has changed in `export` since a snapshot, as nbdinfo, qemu-img, libnbd and our own command tell, all alike.
fn changed(daemon: &Daemon, export: &str, since: &str) -> Ranges {
    let context = format!("qemu:dirty-bitmap:{since}");
    let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let by_nbdinfo = parse(run("nbdinfo", [&format!("--map={context}"), "--json", &daemon.uri(export)]));
    let by_nbdinfo = parts_of(&by_nbdinfo, "offset", |part| part["type"].as_u64() == Some(1));
    let socket = daemon.socket();
    let image = format!(
        "driver=nbd,export={export},server.type=unix,server.path={},x-dirty-bitmap={context}",
        socket.display()
    );
    // It shows what has changed as parts without data.
    let by_qemu = parse(run("qemu-img", ["map", "--output=json", "--image-opts", &image]));
    let by_qemu = parts_of(&by_qemu, "start", |part| !part["data"].as_bool().unwrap());
    let by_libnbd = parse(succeed(python("increment.py").arg("ranges").arg(daemon.uri(export)).arg(since)));
    let number = |value: &Value| value.as_u64().unwrap();
    let by_libnbd = joined(by_libnbd.as_array().unwrap().iter().map(|range| (number(&range[0]), number(&range[1]))));
    let by_us = json(&mut daemon.aljibe(&["snapshot", "diff", &format!("vm@{since}"), export]));
    let by_us = parts_of(&by_us, "offset", |_| true);
    assert!(by_us == by_nbdinfo && by_us == by_libnbd, "they differ: {by_us:?} {by_nbdinfo:?} {by_libnbd:?}");
    assert_eq!(by_us, by_qemu);
    by_us
}

/// Makes of a copy of an earlier snapshot one of this, and compares it with a whole one.
fn restore(daemon: &Daemon, export: &str, changed: &Ranges) {
    let restored = daemon.folder().join("restored");
    let mut apply = python("increment.py");
    apply.arg("apply").arg(daemon.uri(export)).arg(&restored).stdin(Stdio::piped());
    let mut child = apply.spawn().unwrap();
    let ranges = serde_json::to_vec(changed).unwrap();
    child.stdin.take().unwrap().write_all(&ranges).unwrap();
    assert!(child.wait().unwrap().success());
    let whole = daemon.folder().join("whole");
    run("nbdcopy", [&daemon.uri(export), whole.to_str().unwrap()]);
    run("cmp", [restored, whole]);
}

/// P2. A full copy of a snapshot and three increments, made while writes, trims, zeroes and resizes go on, are the later
/// snapshots bit for bit; over kills between them and in the middle of writing. What has changed is no more than the
/// volume: an increment is one.
#[test]
fn a_full_copy_and_three_increments_are_the_snapshots_bit_for_bit() {
    let tools = ["qemu-img", "nbdcopy", "nbdinfo", "python3-libnbd", "cmp"];
    if !are_here("a_full_copy_and_three_increments_are_the_snapshots_bit_for_bit", &tools) {
        return;
    }
    let mut daemon = Daemon::start();
    // It ends with a part of a block.
    daemon.create_volume("vm", "268435968");
    let snapshot = |daemon: &Daemon, name: &str| succeed(&mut daemon.aljibe(&["snapshot", "create", name]));
    let churn = Churn::start(&daemon, 0, &[]);
    snapshot(&daemon, "vm@s0");
    let restored = daemon.folder().join("restored");
    run("qemu-img", ["convert", "-f", "raw", "-O", "raw", &daemon.uri("vm@s0"), restored.to_str().unwrap()]);
    restore(&daemon, "vm@s0", &Ranges::new());
    churn.end();
    // Larger while it is written to, then smaller.
    let resize = |daemon: &Daemon, size: &str| {
        succeed(&mut daemon.aljibe(&["volume", "resize", "vm", "--size", size, "--discard-tail"]));
    };
    for number in 1..=3 {
        if number == 2 {
            let pid = daemon.pid().to_string();
            Churn::start(&daemon, 10, &["--kill", &pid]).end();
            daemon.was_killed();
            daemon.restart();
        }
        if number == 3 {
            resize(&daemon, "192M");
        }
        let churn = Churn::start(&daemon, number, &[]);
        if number == 2 {
            resize(&daemon, "260M");
        }
        let (since, export) = (format!("s{}", number - 1), format!("vm@s{number}"));
        snapshot(&daemon, &export);
        let found = changed(&daemon, &export, &since);
        restore(&daemon, &export, &found);
        churn.end();
        let bytes: u64 = found.iter().map(|(_, length)| length).sum();
        assert!((1..150 << 20).contains(&bytes), "{bytes} bytes have changed");
        daemon.kill9();
        daemon.restart();
        assert_eq!(changed(&daemon, &export, &since), found, "after a kill");
    }
    // From the first to the last at once.
    run("qemu-img", ["convert", "-f", "raw", "-O", "raw", &daemon.uri("vm@s0"), restored.to_str().unwrap()]);
    let found = changed(&daemon, "vm@s3", "s0");
    restore(&daemon, "vm@s3", &found);
    daemon.stop_without_complaint();
    daemon.check_pool();
}
