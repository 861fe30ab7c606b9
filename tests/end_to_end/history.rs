//! Point in time: a volume with history is cloned as it was at any second; history is bounded, seen, and never in the way.

use crate::daemon::Daemon;
use crate::tool::{self, are_here, fail, json, output_of, run, succeed, wait_until};
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Waits for the next second, and returns which that is.
fn next_second() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let next = now.as_secs() + 1;
    std::thread::sleep(Duration::from_secs(next) - now + Duration::from_millis(1));
    next
}

/// A second as the command line takes it.
fn written(second: u64) -> String {
    run("date", ["-u", "-d", &format!("@{second}"), "+%Y-%m-%dT%H:%M:%SZ"]).trim().to_owned()
}

fn steps(daemon: &Daemon, export: &str, steps: &[&str]) {
    let arguments = steps.iter().flat_map(|step| ["-c", step]);
    succeed(tool::command("qemu-io").args(["-f", "raw", "-d", "unmap"]).args(arguments).arg(daemon.uri(export)));
}

fn history(daemon: &Daemon, volume: &str) -> Value {
    json(&mut daemon.aljibe(&["volume", "show", volume]))["history"].clone()
}

/// Makes a volume with history, and waits until it has some.
fn create(daemon: &Daemon, volume: &str, arguments: &[&str]) {
    succeed(daemon.aljibe(&["volume", "create", volume]).args(arguments));
    wait_until("history has begun", || !history(daemon, volume)["since"].is_null());
    next_second();
}

/// What a volume is at a second: its size, and the byte that each part is filled with.
type State = (u64, &'static str, &'static [&'static str]);

fn clone_at(daemon: &Daemon, second: u64, clone: &str) {
    succeed(&mut daemon.aljibe(&["volume", "clone", &format!("vm@{}", written(second)), clone]));
}

fn expect_state(daemon: &Daemon, export: &str, (second, size, reads): &State) {
    let shown = json(&mut daemon.aljibe(&["volume", "show", export]));
    let wanted = json(&mut daemon.aljibe(&["volume", "show", size]))["size_bytes"].clone();
    assert_eq!(shown["size_bytes"], wanted, "{export} at {second}");
    let arguments = reads.iter().flat_map(|step| ["-c", step]);
    let said = succeed(tool::command("qemu-io").args(["-r", "-f", "raw"]).args(arguments).arg(daemon.uri(export)));
    assert!(!said.contains("verification failed"), "{export} at {second}: {said}");
}

/// P1, P2. Clones of seconds show what had been written before each, through overwrites, trims, resizes and a kill between;
/// also when the index has been made anew.
#[test]
fn a_clone_of_a_second_shows_what_was_there() {
    if !are_here("a_clone_of_a_second_shows_what_was_there", &["qemu-io", "date"]) {
        return;
    }
    let mut daemon = Daemon::start();
    for size in ["64M", "128M", "4M", "16M"] {
        daemon.create_volume(size, size);
    }
    create(&daemon, "vm", &["--size", "64M", "--history", "1h", "--history-limit", "1G"]);
    let mut states: Vec<State> = Vec::new();
    steps(&daemon, "vm", &["write -P 1 0 2M"]);
    states.push((next_second(), "64M", &["read -P 1 0 2M", "read -P 0 2M 62M"]));
    steps(&daemon, "vm", &["write -P 2 1M 1M", "write -P 3 8M 1M", "write -P 9 1540k 3k"]);
    states.push((
        next_second(),
        "64M",
        &["read -P 1 0 1M", "read -P 2 1M 516k", "read -P 9 1540k 3k", "read -P 2 1543k 505k", "read -P 3 8M 1M"],
    ));
    daemon.kill9();
    daemon.restart();
    steps(&daemon, "vm", &["discard 0 512k", "write -P 4 8M 64k", "write -z 8256k 64k"]);
    states.push((
        next_second(),
        "64M",
        &["read -P 0 0 512k", "read -P 1 512k 512k", "read -P 4 8M 64k", "read -P 0 8256k 64k", "read -P 3 8320k 896k"],
    ));
    succeed(&mut daemon.aljibe(&["volume", "resize", "vm", "--size", "128M"]));
    steps(&daemon, "vm", &["write -P 5 100M 1M"]);
    states.push((next_second(), "128M", &["read -P 5 100M 1M", "read -P 0 101M 27M", "read -P 4 8M 64k"]));
    succeed(&mut daemon.aljibe(&["volume", "resize", "vm", "--size", "4M", "--discard-tail"]));
    states.push((next_second(), "4M", &["read -P 0 0 512k", "read -P 1 512k 512k", "read -P 0 2M 2M"]));
    succeed(&mut daemon.aljibe(&["volume", "resize", "vm", "--size", "16M"]));
    steps(&daemon, "vm", &["write -P 6 0 2M"]);
    states.push((next_second(), "16M", &["read -P 6 0 2M", "read -P 0 2M 14M"]));
    steps(&daemon, "vm", &["write -P 7 0 16M"]);

    let is_right = |daemon: &Daemon, clones: &str| {
        for (number, state) in states.iter().enumerate() {
            let clone = format!("{clones}-{number}");
            clone_at(daemon, state.0, &clone);
            expect_state(daemon, &clone, state);
        }
    };
    is_right(&daemon, "early");
    steps(&daemon, "early-0", &["write -P 8 0 2M"]);
    let to_come = fail(&mut daemon.aljibe(&["volume", "clone", "vm@2126-01-01T00:00:00Z", "x"]));
    assert!(to_come.contains("still to come"), "{to_come}");
    let before = fail(&mut daemon.aljibe(&["volume", "clone", "vm@2026-01-01T00:00:00Z", "x"]));
    assert!(before.contains("it goes back to 20"), "{before}");
    let exit = output_of(&mut daemon.aljibe(&["volume", "clone", "64M@2026-01-01T00:00:00Z", "x"])).status.code();
    assert_eq!(exit, Some(3), "a volume without history");
    assert_eq!(json(&mut daemon.aljibe(&["snapshot", "list"]))["snapshots"], Value::Array(Vec::new()));
    daemon.stop_without_complaint();
    daemon.check_pool();
    succeed(&mut daemon.aljibe(&["pool", "rebuild"]));
    daemon.check_pool();
    daemon.restart();
    is_right(&daemon, "late");
    for (number, state) in states.iter().enumerate().skip(1) {
        expect_state(&daemon, &format!("early-{number}"), state);
    }
    daemon.kill9();
    daemon.restart();
    is_right(&daemon, "killed");
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// P1. A clone of a second of which a kill came before it was there is not there, and leaves nothing; one that was told of is.
#[test]
fn a_clone_of_a_second_is_whole_or_not_there() {
    if !are_here("a_clone_of_a_second_is_whole_or_not_there", &["qemu-io", "date"]) {
        return;
    }
    let mut daemon = Daemon::start();
    // With so wide a limit no base comes between.
    create(&daemon, "vm", &["--size", "1G", "--history", "1h", "--history-limit", "1T"]);
    steps(&daemon, "vm", &["write -P 1 0 400M"]);
    let second = next_second();
    let used = || json(&mut daemon.aljibe(&["pool", "show"]))["slots"]["used"].as_u64().unwrap();
    let before = used();
    let mut cloning = daemon.aljibe(&["volume", "clone", &format!("vm@{}", written(second)), "copy"]).spawn().unwrap();
    wait_until("some of it is copied", || used() > before + 1);
    daemon.kill9();
    cloning.wait().unwrap();
    daemon.restart();
    let is_there = output_of(&mut daemon.aljibe(&["volume", "show", "copy"])).status.success();
    if !is_there {
        let used = || json(&mut daemon.aljibe(&["pool", "show"]))["slots"]["used"].as_u64().unwrap();
        wait_until("what was copied is given back", || used() <= before + 2);
        clone_at(&daemon, second, "copy");
    }
    expect_state(&daemon, "copy", &(second, "vm", &["read -P 1 0 400M"]));
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// P5. History goes with its time, with its limit, and when it is ended; what it held is given back.
#[test]
fn history_is_bounded_by_time_and_by_space() {
    if !are_here("history_is_bounded_by_time_and_by_space", &["qemu-io", "date"]) {
        return;
    }
    let mut daemon = Daemon::start_with(&["--pool-size", "512M", "--slot-size", "1M"]);
    create(&daemon, "vm", &["--size", "16M", "--history", "4s"]);
    let since = || history(&daemon, "vm")["since"].as_str().unwrap_or_default().to_owned();
    let first = since();
    let mut byte = 0;
    let mut write = || {
        byte += 1;
        std::thread::sleep(Duration::from_millis(300));
        steps(&daemon, "vm", &[&format!("write -P {byte} 0 8M")]);
    };
    wait_until("the oldest expires", || {
        write();
        since() > first
    });
    succeed(&mut daemon.aljibe(&["volume", "set", "vm", "--history", "1h", "--history-limit", "40M"]));
    let bytes = || history(&daemon, "vm")["bytes"].as_u64().unwrap_or(0);
    let limited = since();
    let mut most = 0;
    wait_until("the limit is met", || {
        write();
        most = most.max(bytes());
        most > 40 << 20 && since() > limited
    });
    wait_until("it holds less than it may", || bytes() <= 40 << 20 && bytes() > 0);
    let used = || json(&mut daemon.aljibe(&["pool", "show"]))["slots"]["used"].as_u64().unwrap();
    succeed(&mut daemon.aljibe(&["volume", "set", "vm", "--history", "0"]));
    wait_until("what history held is given back", || used() <= 16);
    assert!(history(&daemon, "vm").is_null());
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// P6. A pool of which history would hold more than there is takes every write: the oldest goes first.
#[test]
fn no_write_fails_for_the_sake_of_history() {
    if !are_here("no_write_fails_for_the_sake_of_history", &["qemu-io", "date"]) {
        return;
    }
    let mut daemon = Daemon::start_with(&["--pool-size", "128M", "--slot-size", "1M"]);
    create(&daemon, "vm", &["--size", "32M", "--history", "24h", "--history-limit", "10G"]);
    daemon.create_volume("plain", "32M");
    let first = history(&daemon, "vm")["since"].clone();
    for byte in 1..=12 {
        steps(&daemon, "vm", &[&format!("write -P {byte} 0 32M")]);
        steps(&daemon, "plain", &[&format!("write -P {byte} 0 32M")]);
    }
    assert_ne!(history(&daemon, "vm")["since"], first, "nothing was given up");
    for volume in ["vm", "plain"] {
        expect_state(&daemon, volume, &(0, volume, &["read -P 12 0 32M"]));
    }
    wait_until("history begins again", || !history(&daemon, "vm")["since"].is_null());
    daemon.stop_without_complaint();
    daemon.check_pool();
}
