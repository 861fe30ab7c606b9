//! The scrub of a running daemon: what it reads, what it finds, and that it goes on after a restart.

use crate::daemon::Daemon;
use crate::tool::{are_here, noise, output_of, run};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;
const DAMAGE: i32 = 7;
const CONFLICT: i32 = 4;

/// Longer than a scrub takes to be anywhere on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn json(command: &mut Command) -> (i32, Value) {
    let output = output_of(command.arg("--json"));
    let code = output.status.code().expect("it was not killed");
    (code, serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

/// Writes noise over a volume from its start.
fn write(daemon: &Daemon, volume: &str, bytes: &[u8]) {
    let source = daemon.folder().join("source");
    fs::write(&source, bytes).unwrap();
    run("nbdcopy", ["--flush", source.to_str().unwrap(), &daemon.uri(volume)]);
}

/// A daemon with a volume of 8 MiB whose first half was written twice, in slots of 1 MiB, with all of it sealed.
fn written(rate: &str) -> (Daemon, Vec<u8>, Vec<u8>) {
    let mut daemon = Daemon::start_with(&["--slot-size", "1M", "--scrub-rate", rate, "--shards", "1"]);
    daemon.create_volume("data", "8M");
    let (old, new) = (noise(11, 8 * MIB), noise(12, 4 * MIB));
    write(&daemon, "data", &old);
    write(&daemon, "data", &new);
    daemon.stop_without_complaint();
    daemon.restart();
    (daemon, old, new)
}

/// Flips a bit of a block in the pool, which is found by its content.
fn rot(daemon: &Daemon, content: &[u8]) {
    let path = daemon.data().join("pool");
    // Slots are used from the first on; all of the pool would be much to read.
    let mut pool = Vec::new();
    File::open(&path).unwrap().take(64 * MIB as u64).read_to_end(&mut pool).unwrap();
    let at = pool.chunks(BLOCK).position(|block| block == content).expect("the block is in the pool") * BLOCK;
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[content[100] ^ 1], at as u64 + 100).unwrap();
}

/// P2. A sound pool gives nothing; rot in a block that counts and in one that was overwritten are told apart.
#[test]
fn a_scrub_finds_rot_in_live_and_in_dead_blocks() {
    if !are_here("a_scrub_finds_rot_in_live_and_in_dead_blocks", &["nbdcopy"]) {
        return;
    }
    let (mut daemon, old, new) = written("32M");
    let (code, before) = json(&mut daemon.aljibe(&["pool", "scrub", "--status"]));
    assert!(code == 0 && before["begun_at"].is_null() && before["is_running"] == false, "{before}");
    let (code, sound) = json(&mut daemon.aljibe(&["pool", "scrub", "--now"]));
    assert!(code == 0 && sound["rotten_blocks"] == 0 && sound["unreadable_blocks"] == 0, "{sound}");
    assert!(sound["ended_at"].is_string() && sound["slots_done"] == sound["slots_total"], "{sound}");
    // At least what is live; what was overwritten may have been given back.
    assert!(sound["blocks"].as_u64().unwrap() >= 2048, "{sound}");

    let live = 5 * MIB;
    rot(&daemon, &old[live..live + BLOCK]);
    rot(&daemon, &new[..BLOCK]);
    let (code, found) = json(&mut daemon.aljibe(&["pool", "scrub", "--now"]));
    assert_eq!((code, &found["rotten_blocks"]), (DAMAGE, &Value::from(2)), "{found}");
    let mut findings = found["findings"].as_array().unwrap().clone();
    findings.sort_by_key(|finding| finding["offset_bytes"].as_u64());
    for (finding, offset) in findings.iter().zip([0, live]) {
        assert_eq!((&finding["volume"], &finding["part"]), (&Value::from("data"), &Value::from("payload")), "{found}");
        assert_eq!((&finding["offset_bytes"], &finding["is_live"]), (&Value::from(offset), &Value::from(true)));
    }
    // Overwritten, the bad block is nobody's any more.
    write(&daemon, "data", &noise(13, BLOCK));
    assert!(daemon.stop().success());
    daemon.restart();
    let output = output_of(&mut daemon.aljibe(&["pool", "scrub", "--now"]));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(DAMAGE), "{said}");
    assert!(said.contains(", dead data, once at byte 0\n") && said.contains(", live data at byte 5242880\n"), "{said}");
}

/// A pass goes on after a restart where it was, and `--now` lifts its pace.
#[test]
fn a_scrub_goes_on_after_a_restart() {
    if !are_here("a_scrub_goes_on_after_a_restart", &["nbdcopy"]) {
        return;
    }
    let (mut daemon, old, _) = written("1M");
    rot(&daemon, &old[5 * MIB..5 * MIB + BLOCK]);
    let (_, begun) = json(&mut daemon.aljibe(&["pool", "scrub"]));
    assert!(begun["is_running"] == true && begun["is_paced"] == true, "{begun}");
    let since = Instant::now();
    let done = loop {
        let (_, scrub) = json(&mut daemon.aljibe(&["pool", "scrub", "--status"]));
        assert_eq!(scrub["is_running"], true, "it is over although a slot takes a second: {scrub}");
        assert!(since.elapsed() < PATIENCE, "{scrub}");
        match scrub["slots_done"].as_u64().unwrap() {
            0 | 1 => std::thread::sleep(Duration::from_millis(50)),
            done => break done,
        }
    };
    assert!(daemon.stop().success());
    daemon.restart();
    let (_, after) = json(&mut daemon.aljibe(&["pool", "scrub", "--status"]));
    assert!(after["is_running"] == true && after["slots_done"].as_u64().unwrap() >= done, "{after}");
    assert_eq!(after["begun_at"], begun["begun_at"]);
    let (code, ended) = json(&mut daemon.aljibe(&["pool", "scrub", "--now"]));
    assert_eq!((code, &ended["rotten_blocks"], &ended["begun_at"]), (DAMAGE, &Value::from(1), &begun["begun_at"]));
    assert_eq!(ended["slots_done"], ended["slots_total"]);
}

/// A scrub is an operation: it is listed with what is left of it, ends where it is when it is cancelled, and does not go on by itself.
#[test]
fn a_scrub_is_cancelled() {
    if !are_here("a_scrub_is_cancelled", &["nbdcopy"]) {
        return;
    }
    let (mut daemon, _, _) = written("1M");
    json(&mut daemon.aljibe(&["pool", "scrub"]));
    let (_, listed) = json(&mut daemon.aljibe(&["operation", "list"]));
    let operation = &listed["operations"][0];
    assert!(operation["kind"] == "scrub" && operation["state"] == "running", "{listed}");
    let id = operation["id"].as_str().unwrap().to_owned();
    let (code, _) = json(&mut daemon.aljibe(&["operation", "cancel", &id]));
    assert_eq!(code, 0);
    let since = Instant::now();
    loop {
        let (_, shown) = json(&mut daemon.aljibe(&["operation", "show", &id]));
        if shown["state"] == "cancelled" {
            assert!(shown["left"].as_u64().unwrap() > 0 && shown["is_cancellable"] == false, "{shown}");
            break;
        }
        assert_eq!(shown["state"], "cancelling", "{shown}");
        assert!(since.elapsed() < PATIENCE, "{shown}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(output_of(&mut daemon.aljibe(&["operation", "cancel", &id])).status.code(), Some(CONFLICT));
    assert!(daemon.stop().success());
    daemon.restart();
    let (_, shown) = json(&mut daemon.aljibe(&["operation", "show", &id]));
    assert_eq!(shown["state"], "cancelled", "{shown}");
    let (code, again) = json(&mut daemon.aljibe(&["pool", "scrub", "--now"]));
    assert!(code == 0 && again["slots_done"] == again["slots_total"], "{again}");
}
