//! Ceilings: set by the command line while clients are served, held to, seen, and there after a kill.

use crate::daemon::Daemon;
use crate::tool::{self, are_here, fail, json, succeed};
use serde_json::Value;
use std::time::Instant;

fn qos(daemon: &Daemon, volume: &str) -> Value {
    json(&mut daemon.aljibe(&["volume", "show", volume]))["qos"].clone()
}

/// Writes so many blocks, one after the other, and flushes.
fn write(daemon: &Daemon, volume: &str, count: usize) {
    let steps: Vec<String> = (0..count).map(|block| format!("write -P 7 {}k 4k", 4 * block)).collect();
    let arguments = steps.iter().map(String::as_str).chain(["flush"]).flat_map(|step| ["-c", step]);
    succeed(tool::command("qemu-io").args(["-t", "none", "-f", "raw"]).args(arguments).arg(daemon.uri(volume)));
}

/// P8. No more passes than a ceiling lets through; what is spent of credits is seen, and not there again after a restart; a
/// ceiling is there after a kill, and can be lifted.
#[test]
fn a_volume_keeps_to_the_ceiling_that_it_is_given() {
    if !are_here("a_volume_keeps_to_the_ceiling_that_it_is_given", &["qemu-io"]) {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.create_volume("vm", "64M");
    assert_eq!(qos(&daemon, "vm"), Value::Null);
    for wrong in [&["--iops", "1"][..], &["--iops-burst", "50"], &["--bandwidth", "4K"], &[]] {
        fail(daemon.aljibe(&["volume", "set", "vm"]).args(wrong));
    }
    let shown = succeed(&mut daemon.aljibe(&["volume", "set", "vm", "--iops", "20", "--iops-burst", "10"]));
    assert!(shown.contains("20"), "{shown}");
    let begin = Instant::now();
    write(&daemon, "vm", 40);
    let passed = begin.elapsed().as_millis();
    assert!(passed >= (40 - 10 - 1) * 1000 / 20, "40 writes in {passed} ms");
    let status = qos(&daemon, "vm");
    assert!(status["throttled_requests"].as_u64().unwrap() > 0, "{status}");
    assert_eq!((&status["iops"]["rate"], &status["iops"]["burst"]), (&Value::from(20), &Value::from(10)));

    // So slow that what is spent stays seen.
    succeed(&mut daemon.aljibe(&["volume", "set", "vm", "--iops", "10", "--iops-burst", "100000"]));
    let left = |daemon: &Daemon| qos(daemon, "vm")["iops"]["left"].as_i64().unwrap();
    let begin = Instant::now();
    let before = left(&daemon);
    assert!(before < 1000, "a larger burst is not full at once: {before}");
    daemon.stop_without_complaint();
    daemon.restart();
    let most = before + 10 * i64::try_from(begin.elapsed().as_secs() + 1).unwrap();
    assert!((before..=most).contains(&left(&daemon)), "{before} before, {} after a restart", left(&daemon));
    daemon.kill9();
    daemon.restart();
    assert!(left(&daemon) <= 100_000);
    assert_eq!(qos(&daemon, "vm")["iops"]["burst"], Value::from(100_000));
    succeed(&mut daemon.aljibe(&["volume", "set", "vm", "--iops", "0"]));
    assert_eq!(qos(&daemon, "vm"), Value::Null);
    write(&daemon, "vm", 40);
    daemon.stop_without_complaint();
}
