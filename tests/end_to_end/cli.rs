//! The command line against a running daemon: what it prints, how it fails, and who may run beside whom.

use crate::daemon::{Daemon, binary};
use crate::tool::{self, are_here, json, output_of, python, run, succeed};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const CONFLICT: i32 = 4;
const UNREACHABLE: i32 = 5;

fn exit_code(command: &mut Command) -> i32 {
    let output = output_of(command);
    let code = output.status.code().expect("it was not killed");
    assert_eq!(output.stderr.is_empty(), code == 0, "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    code
}

fn names(daemon: &Daemon) -> Vec<String> {
    let list = json(&mut daemon.aljibe(&["volume", "list"]));
    let volumes = list["volumes"].as_array().unwrap();
    let mut names: Vec<String> = volumes.iter().map(|volume| volume["name"].as_str().unwrap().to_owned()).collect();
    names.sort_unstable();
    names
}

#[test]
fn volumes_are_created_listed_shown_resized_and_deleted() {
    let mut daemon = Daemon::start();
    assert!(names(&daemon).is_empty());
    let made = json(&mut daemon.aljibe(&["volume", "create", "vm-1", "--size", "10G"]));
    assert_eq!((made["name"].as_str(), made["size_bytes"].as_u64()), (Some("vm-1"), Some(10 << 30)));
    daemon.create_volume("vm-2", "1P");
    assert_eq!(names(&daemon), ["vm-1", "vm-2"]);
    let table = succeed(&mut daemon.aljibe(&["volume", "list"]));
    assert!(table.contains("vm-1") && table.contains("vm-2"), "{table}");
    let resized = json(&mut daemon.aljibe(&["volume", "resize", "vm-1", "--size", "20G"]));
    assert_eq!(resized["size_bytes"].as_u64(), Some(20 << 30));
    let shown = json(&mut daemon.aljibe(&["volume", "show", "vm-1"]));
    assert_eq!(shown["size_bytes"].as_u64(), Some(20 << 30));
    succeed(&mut daemon.aljibe(&["volume", "delete", "vm-2"]));
    assert_eq!(names(&daemon), ["vm-1"]);
    let pool = json(&mut daemon.aljibe(&["pool", "show"]));
    assert!(pool["size_bytes"].as_u64() > Some(0), "{pool}");
    daemon.stop_without_complaint();
    daemon.restart();
    assert_eq!(names(&daemon), ["vm-1"]);
    daemon.kill9();
    daemon.restart();
    assert_eq!(names(&daemon), ["vm-1"]);
}

#[test]
fn failures_have_their_exit_codes() {
    let mut daemon = Daemon::start();
    daemon.create_volume("one", "1G");
    let codes: [(&[&str], i32); 9] = [
        (&["volume", "create", "one", "--size", "1G"], CONFLICT),
        (&["volume", "show", "two"], NOT_FOUND),
        (&["volume", "delete", "two"], NOT_FOUND),
        (&["volume", "resize", "two", "--size", "1G"], NOT_FOUND),
        (&["volume", "create", "a/b/c", "--size", "1G"], USAGE),
        (&["volume", "create", "two", "--size", "10GB"], USAGE),
        (&["volume", "create", "two", "--size", "1000"], USAGE),
        (&["volume", "create", "two"], USAGE),
        (&["pool", "check"], CONFLICT),
    ];
    for (arguments, code) in codes {
        assert_eq!(exit_code(&mut daemon.aljibe(arguments)), code, "{arguments:?}");
    }
    let output = output_of(&mut daemon.aljibe(&["volume", "show", "two", "--json"]));
    let failure: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(failure["error"]["exit_code"].as_i64(), Some(i64::from(NOT_FOUND)), "{failure}");
    daemon.kill9();
    assert_eq!(exit_code(&mut daemon.aljibe(&["volume", "list"])), UNREACHABLE);
}

/// P4. One daemon at a time has a pool: a second one on the same folder is refused and the first is not disturbed.
#[test]
fn a_second_daemon_on_the_same_data_is_refused() {
    let daemon = Daemon::start();
    daemon.create_volume("owned", "1G");
    let mut second = tool::command(binary());
    second.args(["serve", "--nbd", "127.0.0.1:0", "--api", "127.0.0.1:0", "--data"]).arg(daemon.data());
    assert_eq!(exit_code(&mut second), CONFLICT);
    assert_eq!(names(&daemon), ["owned"]);
}

/// P4. Two data folders cannot share a pool file either.
#[test]
fn a_second_daemon_on_the_same_pool_is_refused() {
    let mut daemon = Daemon::start_with(&["--pool", "FOLDER/shared-pool"]);
    let mut second = tool::command(binary());
    second.args(["serve", "--nbd", "127.0.0.1:0", "--api", "127.0.0.1:0", "--pool-size", "8G", "--data"]);
    second.arg(daemon.folder().join("other-data")).arg("--pool").arg(daemon.folder().join("shared-pool"));
    let output = output_of(&mut second);
    assert!(!output.status.success());
    daemon.stop_without_complaint();
}

/// P2, P5. A volume grows while clients are attached; new space is zeros, and data is not thrown away by accident.
#[test]
fn a_volume_grows_online_and_shrinks_only_on_purpose() {
    if !are_here("a_volume_grows_online_and_shrinks_only_on_purpose", &["qemu-io", "nbdinfo"]) {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.create_volume("grown", "16M");
    let uri = daemon.uri("grown");
    let qemu_io = |steps: &[&str]| {
        let steps = steps.iter().flat_map(|step| ["-c", step]);
        run("qemu-io", ["-f", "raw"].into_iter().chain(steps).chain([uri.as_str()]));
    };
    qemu_io(&["write -P 1 15M 1M"]);
    succeed(&mut daemon.aljibe(&["volume", "resize", "grown", "--size", "32M"]));
    assert_eq!(run("nbdinfo", ["--size", &uri]).trim(), (32 << 20).to_string());
    qemu_io(&["read -P 1 15M 1M", "read -P 0 16M 16M", "write -P 2 31M 1M"]);
    assert_eq!(exit_code(&mut daemon.aljibe(&["volume", "resize", "grown", "--size", "16M"])), CONFLICT);
    succeed(&mut daemon.aljibe(&["volume", "resize", "grown", "--size", "24M", "--discard-tail"]));
    succeed(&mut daemon.aljibe(&["volume", "resize", "grown", "--size", "32M"]));
    qemu_io(&["read -P 1 15M 1M", "read -P 0 16M 16M"]);
    daemon.stop_without_complaint();
}

#[test]
fn a_deleted_volume_gives_its_space_back() {
    if !are_here("a_deleted_volume_gives_its_space_back", &["qemu-io"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let free = |daemon: &Daemon| json(&mut daemon.aljibe(&["pool", "show"]))["slots"]["free"].as_u64().unwrap();
    // The first volume's record takes a slot for the catalogue itself.
    daemon.create_volume("lasting", "1G");
    let before = free(&daemon);
    daemon.create_volume("short-lived", "1G");
    run("qemu-io", ["-f", "raw", "-c", "write -P 1 0 256M", &daemon.uri("short-lived")]);
    assert!(free(&daemon) < before);
    succeed(&mut daemon.aljibe(&["volume", "delete", "short-lived"]));
    daemon.stop_without_complaint();
    daemon.restart();
    assert!(free(&daemon) >= before, "{} of {before} slots are free", free(&daemon));
    daemon.stop_without_complaint();
    daemon.check_pool();
}

#[test]
fn settings_come_from_a_file_too() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("aljibe.toml"), "map-cache = '64M'\nlog-format = 'json'\nshards = 1\n").unwrap();
    let daemon = Daemon::start_in(folder, &["--config", "FOLDER/aljibe.toml"]);
    daemon.create_volume("configured", "1G");
    let log = daemon.log();
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "not JSON: {line}");
    }
}

#[test]
fn metrics_and_the_openapi_document_are_served() {
    if !are_here("metrics_and_the_openapi_document_are_served", &["curl"]) {
        return;
    }
    let daemon = Daemon::start();
    daemon.create_volume("measured", "1G");
    let api = daemon.data().join("api.sock");
    let curl = |path: &str| {
        let url = format!("http://localhost{path}");
        let socket = ["--unix-socket", api.to_str().unwrap()];
        run("curl", [&["--silent", "--fail", "--header", &daemon.authorization()], &socket[..], &[&url]].concat())
    };
    let metrics = curl("/metrics");
    // Making the volume was a write with FUA to the catalogue.
    for family in ["log_append_duration_seconds_count", "log_sync_duration_seconds_count", "map_cache_limit_bytes"] {
        let of_family = |line: &&str| line.strip_prefix("aljibe_").is_some_and(|name| name.starts_with(family));
        let values = metrics.lines().filter(of_family).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        assert!(values.sum::<f64>() > 0.0, "{family} in {metrics}");
    }
    let list: Value = serde_json::from_str(&curl("/v1/volumes")).unwrap();
    assert_eq!(list["volumes"][0]["name"].as_str(), Some("measured"));
    let document: Value = serde_json::from_str(&curl("/v1/openapi.json")).unwrap();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{document}");
}

/// A service manager that listens hands its socket over: clients connect before the daemon serves.
#[test]
fn a_socket_can_be_inherited() {
    if !are_here("a_socket_can_be_inherited", &["nbdinfo"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("inherited.sock");
    let mut command = python("activate.py");
    command.arg(&socket).arg(binary()).args(["serve", "--api", "127.0.0.1:0", "--pool-size", "1G", "--data"]);
    let mut daemon = command.arg(folder.path().join("data")).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let listed =
        output_of(tool::command("nbdinfo").args(["--list", &format!("nbd+unix:///?socket={}", socket.display())]));
    let text = String::from_utf8_lossy(&listed.stderr).into_owned();
    // To the daemon itself, which its lock names: `timeout`, under which the command runs, would pass a signal on twice.
    let holder = fs::read_to_string(folder.path().join("data/lock")).unwrap();
    run("kill", ["-TERM", holder.trim()]);
    let status = daemon.wait().unwrap();
    assert!(ready.starts_with("ready "), "{ready}");
    assert!(listed.status.success(), "{text}");
    assert!(status.success(), "{status}");
}
