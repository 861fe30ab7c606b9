//! iSCSI targets by the real program: what is said of them stays over a kill, is a tenant's own, and holds no secret that is shown.

use crate::daemon::Daemon;
use crate::tool::{fail, json, output_of, succeed};
use std::fs;
use std::process::Command;

const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const CONFLICT: i32 = 4;
const NOT_ALLOWED: i32 = 9;

const HOST: &str = "iqn.2004-10.com.example:host";

fn exit_code(command: &mut Command) -> i32 {
    output_of(command).status.code().expect("it was not killed")
}

fn token(daemon: &Daemon, role: &str, tenant: &str) -> String {
    let made = json(&mut daemon.aljibe(&["token", "create", role, "--role", role, "--tenant", tenant]));
    made["text"].as_str().unwrap().to_owned()
}

/// P2, P8. A target with its volumes and initiators is there after a kill, its secrets are shown nowhere, and what contradicts it
/// is refused by the codes that scripts know.
#[test]
fn a_target_stays_over_a_kill_and_shows_no_secret() {
    let mut daemon = Daemon::start();
    for name in ["a", "b"] {
        daemon.create_volume(name, "16M");
    }
    let made = json(&mut daemon.aljibe(&["target", "create", "db"]));
    assert_eq!(made["iqn"], "iqn.2026-11.io.aljibe:db");
    assert_eq!(exit_code(&mut daemon.aljibe(&["target", "create", "db"])), CONFLICT);
    assert_eq!(exit_code(&mut daemon.aljibe(&["target", "create", "Db"])), USAGE);
    assert_eq!(json(&mut daemon.aljibe(&["target", "map", "db", "a"]))["lun"], 0);
    assert_eq!(json(&mut daemon.aljibe(&["target", "map", "db", "b", "--lun", "9"]))["lun"], 9);
    assert_eq!(exit_code(&mut daemon.aljibe(&["target", "map", "db", "b", "--lun", "0"])), CONFLICT);
    assert_eq!(exit_code(&mut daemon.aljibe(&["target", "map", "db", "none"])), NOT_FOUND);
    let (own, theirs) = (daemon.folder().join("own"), daemon.folder().join("theirs"));
    fs::write(&own, "secret-of-the-target\n").unwrap();
    fs::write(&theirs, "secret-of-the-host\n").unwrap();
    let (own, theirs) = (own.to_str().unwrap(), theirs.to_str().unwrap());
    let chap = ["target", "allow", "db", HOST, "--chap-user", "host", "--chap-secret-file", theirs];
    let same = ["--mutual-user", "us", "--mutual-secret-file", theirs];
    assert!(fail(daemon.aljibe(&chap).args(same)).contains("another one"));
    succeed(daemon.aljibe(&chap).args(["--mutual-user", "us", "--mutual-secret-file", own]));
    succeed(&mut daemon.aljibe(&["target", "allow", "db", "*"]));
    let before = json(&mut daemon.aljibe(&["target", "list"]));
    daemon.kill9();
    daemon.restart();
    let after = json(&mut daemon.aljibe(&["target", "list"]));
    assert_eq!(after, before);
    assert_eq!(after["targets"][0]["initiators"][1]["chap_user"], "host", "{after}");
    let (shown, audited) =
        (succeed(&mut daemon.aljibe(&["target", "show", "db"])), json(&mut daemon.aljibe(&["audit"])));
    let audit = fs::read_to_string(daemon.data().join("audit/audit.log")).unwrap();
    for text in [&shown, &audited.to_string(), &after.to_string(), &daemon.log(), &audit] {
        assert!(!text.contains("secret-of"), "{text}");
    }
    succeed(&mut daemon.aljibe(&["target", "deny", "db", "*"]));
    assert_eq!(exit_code(&mut daemon.aljibe(&["target", "deny", "db", "*"])), NOT_FOUND);
    succeed(&mut daemon.aljibe(&["target", "unmap", "db", "9"]));
    assert_eq!(exit_code(&mut daemon.aljibe(&["target", "unmap", "db", "9"])), NOT_FOUND);
    succeed(&mut daemon.aljibe(&["volume", "delete", "a"]));
    let left = json(&mut daemon.aljibe(&["target", "show", "db"]));
    assert_eq!(
        (left["luns"].as_array().unwrap().len(), left["initiators"].as_array().unwrap().len()),
        (0, 1),
        "{left}"
    );
    succeed(&mut daemon.aljibe(&["target", "delete", "db"]));
    assert_eq!(exit_code(&mut daemon.aljibe(&["target", "show", "db"])), NOT_FOUND);
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// P8. A tenant has targets of its own, shows its own volumes by them, and says who enters by its admin alone.
#[test]
fn a_tenants_targets_are_its_own() {
    let mut daemon = Daemon::start();
    for tenant in ["acme", "beta"] {
        succeed(&mut daemon.aljibe(&["tenant", "create", tenant]));
        daemon.create_volume(&format!("{tenant}/vm"), "16M");
    }
    let (admin, user) = (token(&daemon, "tenant-admin", "acme"), token(&daemon, "tenant-user", "acme"));
    let made = json(&mut daemon.aljibe_by(&user, &["target", "create", "db"]));
    assert_eq!((&made["name"], &made["tenant"]), (&"acme/db".into(), &"acme".into()));
    assert_eq!(made["iqn"], "iqn.2026-11.io.aljibe:acme:db");
    succeed(&mut daemon.aljibe(&["target", "create", "db", "--tenant", "beta"]));
    assert_eq!(json(&mut daemon.aljibe_by(&user, &["target", "map", "db", "vm"]))["volume"], "acme/vm");
    assert_eq!(exit_code(&mut daemon.aljibe_by(&user, &["target", "map", "db", "beta/vm"])), NOT_FOUND);
    assert_eq!(exit_code(&mut daemon.aljibe(&["target", "map", "acme/db", "beta/vm"])), USAGE);
    assert_eq!(exit_code(&mut daemon.aljibe_by(&user, &["target", "allow", "db", HOST])), NOT_ALLOWED);
    succeed(&mut daemon.aljibe_by(&admin, &["target", "allow", "db", HOST]));
    for verb in ["show", "delete"] {
        assert_eq!(exit_code(&mut daemon.aljibe_by(&admin, &["target", verb, "beta/db"])), NOT_FOUND);
    }
    let listed = json(&mut daemon.aljibe_by(&user, &["target", "list"]));
    assert_eq!(listed["targets"].as_array().unwrap().len(), 1, "{listed}");
    succeed(&mut daemon.aljibe_by(&user, &["volume", "delete", "vm"]));
    succeed(&mut daemon.aljibe(&["tenant", "delete", "acme"]));
    let listed = json(&mut daemon.aljibe(&["target", "list"]));
    assert_eq!(listed["targets"].as_array().unwrap().len(), 1, "its targets go with it: {listed}");
    daemon.stop_without_complaint();
}
