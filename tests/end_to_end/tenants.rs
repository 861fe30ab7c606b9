//! Tenants and tokens by the real program: who gets in, what is whose, and what becomes of a tenant's clients.

use crate::daemon::Daemon;
use crate::tool::{self, are_here, fail, json, noise, output_of, run, succeed};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

const CONFLICT: i32 = 4;
const NOT_ALLOWED: i32 = 9;
const NOT_FOUND: i32 = 3;
const TRY_LATER: i32 = 8;

fn exit_code(command: &mut Command) -> i32 {
    output_of(command).status.code().expect("it was not killed")
}

/// Makes a tenant and a token of its admin.
fn tenant(daemon: &Daemon, name: &str, quota: &[&str]) -> String {
    succeed(daemon.aljibe(&["tenant", "create", name]).args(quota));
    let made = json(&mut daemon.aljibe(&["token", "create", "admin", "--role", "tenant-admin", "--tenant", name]));
    made["text"].as_str().unwrap().to_owned()
}

/// P8. A fresh daemon's token is told once, kept where only its user reads it, and without one nothing is answered.
#[test]
fn the_first_token_is_told_once_and_without_it_nothing_is_answered() {
    let mut daemon = Daemon::start();
    let file = daemon.data().join("token");
    let token = fs::read_to_string(&file).unwrap().trim().to_owned();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(daemon.log().matches(&token).count(), 1, "{}", daemon.log());
    daemon.create_volume("vm", "1G");
    assert_eq!(exit_code(&mut daemon.aljibe_by("", &["volume", "list"])), NOT_ALLOWED);
    assert_eq!(exit_code(&mut daemon.aljibe_by("alj_1_x", &["volume", "list"])), NOT_ALLOWED);
    succeed(&mut daemon.aljibe_by(&token, &["volume", "list"]));
    daemon.kill9();
    daemon.restart();
    assert_eq!(daemon.log().matches(&token).count(), 1, "a second start tells it again");
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), token);
    let listed = json(&mut daemon.aljibe(&["token", "list"]));
    assert_eq!(listed["tokens"].as_array().unwrap().len(), 1, "{listed}");
    assert!(listed["tokens"][0]["used_at"].is_string(), "{listed}");
    // Nobody is locked out for good.
    let id = listed["tokens"][0]["id"].to_string();
    succeed(&mut daemon.aljibe(&["token", "revoke", &id]));
    assert_eq!(exit_code(&mut daemon.aljibe(&["volume", "list"])), NOT_ALLOWED);
    daemon.stop_without_complaint();
    daemon.restart();
    succeed(&mut daemon.aljibe(&["volume", "show", "vm"]));
    daemon.stop_without_complaint();
}

/// P8. With `--insecure-no-auth` everybody may, and the log says so.
#[test]
fn without_authentication_the_log_warns() {
    let mut daemon = Daemon::start_with(&["--insecure-no-auth"]);
    succeed(&mut daemon.aljibe_by("", &["volume", "create", "vm", "--size", "1G"]));
    assert!(daemon.log().contains("--insecure-no-auth"), "{}", daemon.log());
    assert!(daemon.stop().success());
}

/// P8. Two tenants have volumes of one name, each with its own bytes; neither sees, names or exceeds what is the other's.
#[test]
fn tenants_have_volumes_of_their_own() {
    if !are_here("tenants_have_volumes_of_their_own", &["nbdinfo", "qemu-img"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let acme = tenant(&daemon, "acme", &["--quota", "2G", "--max-snapshots", "1"]);
    let beta = tenant(&daemon, "beta", &[]);
    let mut bytes = Vec::new();
    for (token, export, seed) in [(&acme, "acme/vm", 1), (&beta, "beta/vm", 2)] {
        let made = json(&mut daemon.aljibe_by(token, &["volume", "create", "vm", "--size", "16M"]));
        assert_eq!(made["name"], export);
        let raw = daemon.folder().join(format!("{seed}.raw"));
        bytes.push((export, raw.clone()));
        fs::write(&raw, noise(seed, 16 << 20)).unwrap();
        let uri = made["nbd_uris"][0].as_str().unwrap();
        run("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", raw.to_str().unwrap(), uri]);
    }
    daemon.kill9();
    daemon.restart();
    for (export, raw) in &bytes {
        run("qemu-img", ["compare", "-f", "raw", "-F", "raw", raw.to_str().unwrap(), &daemon.uri(export)]);
    }
    assert_eq!(run("nbdinfo", ["--size", &daemon.uri("acme/vm")]).trim(), "16777216");
    assert_eq!(exit_code(&mut daemon.aljibe_by(&acme, &["volume", "show", "beta/vm"])), NOT_FOUND);
    assert_eq!(exit_code(&mut daemon.aljibe_by(&acme, &["volume", "show", "beta/none"])), NOT_FOUND);
    assert_eq!(exit_code(&mut daemon.aljibe_by(&acme, &["volume", "delete", "beta/vm"])), NOT_FOUND);
    assert_eq!(exit_code(&mut daemon.aljibe_by(&acme, &["pool", "show"])), NOT_ALLOWED);
    assert_eq!(exit_code(&mut daemon.aljibe_by(&acme, &["tenant", "set", "acme", "--quota", "0"])), NOT_ALLOWED);
    let large = ["volume", "create", "large", "--size", "2G"];
    assert!(fail(&mut daemon.aljibe_by(&acme, &large)).contains("2147483648"));
    assert_eq!(exit_code(&mut daemon.aljibe_by(&acme, &large)), CONFLICT);
    succeed(&mut daemon.aljibe_by(&beta, &large));
    succeed(&mut daemon.aljibe_by(&acme, &["snapshot", "create", "vm@a"]));
    assert_eq!(exit_code(&mut daemon.aljibe_by(&acme, &["snapshot", "create", "vm@b"])), CONFLICT);
    succeed(&mut daemon.aljibe(&["volume", "clone", "vm@a", "copy", "--tenant", "acme"]));
    run("qemu-img", ["compare", "-f", "raw", "-F", "raw", bytes[0].1.to_str().unwrap(), &daemon.uri("acme/copy")]);
    let listed = json(&mut daemon.aljibe_by(&acme, &["volume", "list"]));
    let names: Vec<&str> =
        listed["volumes"].as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["acme/copy", "acme/vm"]);
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// P8. A suspended tenant's clients are cut off and none comes in; resumed, it goes on with every byte.
#[test]
fn a_suspended_tenants_clients_are_cut_off() {
    if !are_here("a_suspended_tenants_clients_are_cut_off", &["nbdinfo", "qemu-img", "qemu-nbd", "qemu-io"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let acme = tenant(&daemon, "acme", &[]);
    succeed(&mut daemon.aljibe_by(&acme, &["volume", "create", "vm", "--size", "16M"]));
    run("qemu-io", ["-f", "raw", "-c", "write -P 7 0 1M", "-c", "flush", &daemon.uri("acme/vm")]);
    let mut attached = tool::command("qemu-io");
    let mut attached = attached
        .args(["-f", "raw", &daemon.uri("acme/vm")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let clients = || json(&mut daemon.aljibe(&["volume", "show", "acme/vm"]))["connections"].as_u64().unwrap();
    tool::wait_until("a client is attached", || clients() == 1);
    succeed(&mut daemon.aljibe(&["tenant", "suspend", "acme"]));
    tool::wait_until("the client is cut off", || clients() == 0);
    fail(tool::command("nbdinfo").arg(daemon.uri("acme/vm")));
    assert_eq!(exit_code(&mut daemon.aljibe_by(&acme, &["volume", "delete", "vm"])), CONFLICT);
    succeed(&mut daemon.aljibe_by(&acme, &["volume", "show", "vm"]));
    succeed(&mut daemon.aljibe(&["tenant", "resume", "acme"]));
    run("qemu-io", ["-f", "raw", "-c", "read -P 7 0 1M", &daemon.uri("acme/vm")]);
    drop(attached.stdin.take());
    attached.wait().unwrap();
    succeed(&mut daemon.aljibe_by(&acme, &["volume", "delete", "vm"]));
    succeed(&mut daemon.aljibe(&["tenant", "delete", "acme"]));
    assert_eq!(exit_code(&mut daemon.aljibe_by(&acme, &["volume", "list"])), NOT_ALLOWED, "its tokens go with it");
    daemon.stop_without_complaint();
}

/// P8. What was changed before a `kill -9` is in the audit log, with who did it and what came of it; no token's text is.
#[test]
fn the_audit_log_survives_a_kill() {
    let mut daemon = Daemon::start();
    let acme = tenant(&daemon, "acme", &[]);
    succeed(&mut daemon.aljibe_by(&acme, &["volume", "create", "vm", "--size", "1G"]));
    daemon.kill9();
    daemon.restart();
    exit_code(&mut daemon.aljibe_by(&acme, &["volume", "create", "vm", "--size", "1G"]));
    let audited = json(&mut daemon.aljibe(&["audit"]));
    let word = |entry: &serde_json::Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let shown: Vec<String> = audited["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| ["role", "action", "target", "outcome", "code"].map(|name| word(entry, name)).join(" "))
        .collect();
    let expected = [
        "tenant-admin volume.create acme/vm failed volume_exists",
        "tenant-admin volume.create acme/vm done ",
        "provider-admin token.create admin done ",
        "provider-admin tenant.create acme done ",
    ];
    assert_eq!(shown, expected);
    assert!(!fs::read_to_string(daemon.data().join("audit/audit.log")).unwrap().contains("alj_"));
    assert_eq!(exit_code(&mut daemon.aljibe_by(&acme, &["audit"])), NOT_ALLOWED);
    daemon.stop_without_complaint();
}

/// P8. The token in the data directory is replaced, whoever had it gets in no more, and who tries is told.
#[test]
fn the_first_token_is_replaced() {
    let mut daemon = Daemon::start();
    let file = daemon.data().join("token");
    let old = fs::read_to_string(&file).unwrap().trim().to_owned();
    let rotated = json(&mut daemon.aljibe(&["token", "rotate"]));
    let new = fs::read_to_string(&file).unwrap().trim().to_owned();
    assert_ne!(new, old);
    assert!(!rotated.to_string().contains("alj_"), "{rotated}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(exit_code(&mut daemon.aljibe_by(&old, &["volume", "list"])), NOT_ALLOWED);
    succeed(&mut daemon.aljibe_by(&new, &["volume", "list"]));
    let refused = json(&mut daemon.aljibe_by(&new, &["audit", "--refused"]));
    assert_eq!(refused["entries"][0]["code"], "unauthenticated", "{refused}");
    daemon.stop_without_complaint();
    daemon.restart();
    succeed(&mut daemon.aljibe_by(&new, &["volume", "list"]));
    daemon.stop_without_complaint();
}

/// P8. What an address tries without a good token is bounded, and what a token asks for, too.
#[test]
fn requests_have_a_rate() {
    let daemon = Daemon::start_with(&["--api-rate", "1", "--api-refusal-rate", "1"]);
    let good = fs::read_to_string(daemon.data().join("token")).unwrap().trim().to_owned();
    let codes = |token: &str| -> Vec<i32> {
        (0..40).map(|_| exit_code(&mut daemon.aljibe_by(token, &["pool", "show"]))).collect()
    };
    let by_token = codes(&good);
    assert!(by_token.contains(&0) && by_token.contains(&TRY_LATER), "{by_token:?}");
    let without = codes("alj_1_x");
    assert!(without.contains(&NOT_ALLOWED) && without.contains(&TRY_LATER), "{without:?}");
}
