//! Who may enter which target, and what a session sees when that changes.

use super::session::{Session, can_run};
use super::{FIRST, SECOND, THIRD, daemon_with};
use crate::daemon::Daemon;
use crate::tool::{are_here, command, fail, run, succeed};
use std::fs;

/// qemu's name when it is told none.
const QEMU: &str = "iqn.2008-11.org.linux-kvm";

const THEIRS: &str = "secret-of-the-host";
const OURS: &str = "secret-of-the-target";

fn iqn(target: &str) -> String {
    format!("iqn.2026-11.io.aljibe:{target}")
}

/// LUN 0 of a target; `login` is `USER%SECRET@` or nothing, `mutual` a query or nothing.
fn entry(daemon: &Daemon, target: &str, login: &str, mutual: &str) -> String {
    format!("iscsi://{login}{}/{}/0{mutual}", daemon.iscsi(), iqn(target))
}

fn aljibe(daemon: &Daemon, arguments: &[&str]) {
    succeed(&mut daemon.aljibe(arguments));
}

/// A file with a secret.
fn secret(daemon: &Daemon, text: &str) -> String {
    let path = daemon.folder().join(text);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// P8. With CHAP an initiator gets in by its own secret alone, and a target that is to say who it is does; both by
/// libiscsi and qemu.
#[test]
fn chap_keeps_out_who_has_not_the_secret() {
    let test = "chap_keeps_out_who_has_not_the_secret";
    if !can_run(test) || !are_here(test, &["qemu-img"]) {
        return;
    }
    let mut daemon = daemon_with(&[("vm", "16M")]);
    aljibe(&daemon, &["target", "create", "db"]);
    aljibe(&daemon, &["target", "map", "db", "vm"]);
    let (theirs, ours) = (secret(&daemon, THEIRS), secret(&daemon, OURS));
    let one_way = |name| ["target", "allow", "db", name, "--chap-user", "host", "--chap-secret-file", &theirs];
    for name in [FIRST, QEMU] {
        aljibe(&daemon, &one_way(name));
    }
    succeed(daemon.aljibe(&one_way(SECOND)).args(["--mutual-user", "us", "--mutual-secret-file", &ours]));
    let right = format!("host%{THEIRS}@");
    let wrongs = [String::new(), "host%secret-of-the-hosT@".to_owned(), format!("hosts%{THEIRS}@")];
    for wrong in &wrongs {
        for name in [FIRST, SECOND] {
            Session::refused(name, &entry(&daemon, "db", wrong, ""));
        }
        fail(command("qemu-img").args(["info", "-f", "raw", &entry(&daemon, "db", wrong, "")]));
    }
    Session::iscsi(FIRST, &entry(&daemon, "db", &right, "")).expect("write 0 8 11", "good");
    run("qemu-img", ["info", "-f", "raw", &entry(&daemon, "db", &right, "")]);
    let mutual = |secret: &str| format!("?target_user=us&target_password={secret}");
    Session::iscsi(SECOND, &entry(&daemon, "db", &right, &mutual(OURS))).expect("read 0 8", "good 11");
    // A target that knows another secret is not the one that is meant.
    Session::refused(SECOND, &entry(&daemon, "db", &right, &mutual("secret-of-a-stranger")));
    Session::refused(THIRD, &entry(&daemon, "db", &right, ""));
    assert!(!daemon.log().contains("secret-of"), "{}", daemon.log());
    daemon.stop_without_complaint();
}

/// P8. Who may enter no more is out at once, and is let in nowhere else.
#[test]
fn a_denied_initiator_loses_its_session() {
    if !can_run("a_denied_initiator_loses_its_session") {
        return;
    }
    let mut daemon = daemon_with(&[("vm", "16M")]);
    aljibe(&daemon, &["target", "create", "db"]);
    aljibe(&daemon, &["target", "map", "db", "vm"]);
    for name in [FIRST, SECOND] {
        aljibe(&daemon, &["target", "allow", "db", name]);
    }
    let url = entry(&daemon, "db", "", "");
    let (mut first, mut second) = (Session::iscsi(FIRST, &url), Session::iscsi(SECOND, &url));
    first.expect("write 0 8 11", "good");
    aljibe(&daemon, &["target", "deny", "db", FIRST]);
    first.expect("write 0 8 22", "lost");
    Session::refused(FIRST, &url);
    second.expect("read 0 8", "good 11");
    second.expect("write 0 8 33", "good");
    // The default target is not there beside others.
    Session::refused(FIRST, &entry(&daemon, "default", "", ""));
    daemon.stop_without_complaint();
}

/// P8. A session hears that the LUNs are others; one that is shown no more is not there, the rest is as it was.
#[test]
fn a_lun_that_is_unmapped_vanishes() {
    if !can_run("a_lun_that_is_unmapped_vanishes") {
        return;
    }
    let mut daemon = daemon_with(&[("a", "16M"), ("b", "16M"), ("c", "16M")]);
    aljibe(&daemon, &["target", "create", "db"]);
    aljibe(&daemon, &["target", "allow", "db", "*"]);
    for (lun, name) in [("0", "a"), ("5", "b")] {
        aljibe(&daemon, &["target", "map", "db", name, "--lun", lun]);
    }
    let url = entry(&daemon, "db", "", "");
    let (mut zero, mut five) = (Session::iscsi(FIRST, &url), Session::iscsi(FIRST, &url.replace("/0", "/5")));
    five.expect("write 0 8 55", "good");
    zero.expect("luns", "good 0 5");
    aljibe(&daemon, &["target", "unmap", "db", "5"]);
    zero.expect("tur", "check 6/3f/0e");
    zero.expect("luns", "good 0");
    zero.expect("tur", "good");
    five.expect("read 0 8", "check 5/25/00");
    aljibe(&daemon, &["target", "map", "db", "c", "--lun", "9"]);
    zero.expect("tur", "check 6/3f/0e");
    zero.expect("luns", "good 0 9");
    zero.expect("write 0 8 11", "good");
    daemon.stop_without_complaint();
}

/// P8. Discovery names what an initiator may enter, and a LUN of another tenant cannot be reached by any name.
#[test]
fn another_tenants_volume_cannot_be_seen() {
    let test = "another_tenants_volume_cannot_be_seen";
    if !can_run(test) || !are_here(test, &["iscsi-ls"]) {
        return;
    }
    let mut daemon = daemon_with(&[]);
    for (tenant, name) in [("acme", FIRST), ("beta", SECOND)] {
        aljibe(&daemon, &["tenant", "create", tenant]);
        daemon.create_volume(&format!("{tenant}/vm"), "16M");
        aljibe(&daemon, &["target", "create", &format!("{tenant}/db")]);
        aljibe(&daemon, &["target", "map", &format!("{tenant}/db"), &format!("{tenant}/vm")]);
        aljibe(&daemon, &["target", "allow", &format!("{tenant}/db"), name]);
    }
    let listed = |name: &str| {
        let portal = format!("iscsi://{}", daemon.iscsi());
        succeed(command("iscsi-ls").args(["-s", "-i", name, &portal]))
    };
    for (name, own, others) in [(FIRST, "acme:db", "beta"), (SECOND, "beta:db", "acme")] {
        let said = listed(name);
        assert!(said.contains(&iqn(own)) && said.contains("Lun:0 ") && !said.contains(others), "{said}");
    }
    let said = listed(THIRD);
    assert!(!said.contains("acme") && !said.contains("beta"), "{said}");
    Session::refused(FIRST, &entry(&daemon, "beta:db", "", ""));
    Session::iscsi(SECOND, &entry(&daemon, "beta:db", "", "")).expect("write 0 8 22", "good");
    Session::iscsi(FIRST, &entry(&daemon, "acme:db", "", "")).expect("read 0 8", "good 00");
    daemon.stop_without_complaint();
}
