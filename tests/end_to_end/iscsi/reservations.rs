//! Persistent reservations: what one initiator reserves is closed to others as they ask for it, and to NBD clients.

use super::session::{Session, can_run};
use super::{FIRST, SECOND, daemon_with, url};

const WRITE_EXCLUSIVE: u8 = 1;
const EXCLUSIVE_ACCESS: u8 = 3;
const WRITE_EXCLUSIVE_REGISTRANTS_ONLY: u8 = 5;

/// The NBD requests that a reservation may be in the way of.
const READS: [&str; 1] = ["read 0 4096"];
const WRITES: [&str; 3] = ["write 0 4096 22", "trim 8192 4096", "flush"];

/// P2, P8. EXCLUSIVE ACCESS lets nobody else in, WRITE EXCLUSIVE no writers; NBD clients are told EPERM, and go on
/// after the release.
#[test]
fn a_reservation_holds_against_nbd_clients() {
    if !can_run("a_reservation_holds_against_nbd_clients") {
        return;
    }
    let mut daemon = daemon_with(&[("reserved", "16M"), ("free", "16M")]);
    let (mut nbd, mut other) = (Session::nbd(&daemon, "reserved"), Session::nbd(&daemon, "free"));
    let mut holder = Session::iscsi(FIRST, &url(&daemon, 0));
    let mut second = Session::iscsi(SECOND, &url(&daemon, 0));
    holder.expect("write 0 8 11", "good");
    holder.expect("register 0 a1 0", "good");
    for order in READS.iter().chain(&WRITES) {
        assert!(nbd.ask(order).starts_with("good"), "a registration reserves nothing: {order}");
    }
    holder.expect("write 0 8 11", "good");
    for (kind, may_read) in [(EXCLUSIVE_ACCESS, false), (WRITE_EXCLUSIVE, true)] {
        holder.expect(&format!("reserve a1 {kind}"), "good");
        for order in READS {
            nbd.expect(order, if may_read { "good 11" } else { "error EPERM" });
        }
        for order in WRITES {
            nbd.expect(order, "error EPERM");
        }
        second.expect("read 0 8", if may_read { "good 11" } else { "conflict" });
        second.expect("write 0 8 33", "conflict");
        second.expect("flush", "conflict");
        holder.expect("read 0 8", "good 11");
        holder.expect("write 0 8 11 fua", "good");
        // A connection that comes later is no better off, and another volume no worse.
        Session::nbd(&daemon, "reserved").expect(WRITES[0], "error EPERM");
        other.expect("write 0 4096 44", "good");
        holder.expect(&format!("release a1 {kind}"), "good");
        nbd.expect("read 0 4096", "good 11");
    }
    for order in WRITES {
        nbd.expect(order, "good");
    }
    holder.expect("read 0 8", "good 22");
    second.expect("read 0 8", "good 22");
    drop((nbd, other, holder, second));
    daemon.stop_without_complaint();
}

/// P8. Of registrants only, another one that registers is let in, NBD never; who is preempted hears of it and is out.
#[test]
fn registrants_share_and_preempt() {
    if !can_run("registrants_share_and_preempt") {
        return;
    }
    let mut daemon = daemon_with(&[("reserved", "16M")]);
    let mut nbd = Session::nbd(&daemon, "reserved");
    let mut first = Session::iscsi(FIRST, &url(&daemon, 0));
    let mut second = Session::iscsi(SECOND, &url(&daemon, 0));
    first.expect("register 0 a1 0", "good");
    first.expect(&format!("reserve a1 {WRITE_EXCLUSIVE_REGISTRANTS_ONLY}"), "good");
    second.expect("write 0 8 33", "conflict");
    second.expect("register 0 b2 0", "good");
    second.expect("write 0 8 33", "good");
    nbd.expect("read 0 4096", "good 33");
    nbd.expect("write 0 4096 44", "error EPERM");
    second.expect(&format!("preempt b2 a1 {WRITE_EXCLUSIVE_REGISTRANTS_ONLY}"), "good");
    second.expect("keys", "good b2");
    second.expect("holder", &format!("good b2 {WRITE_EXCLUSIVE_REGISTRANTS_ONLY}"));
    first.expect("tur", "check 6/2a/05");
    first.expect("write 0 8 11", "conflict");
    // The end of a session leaves what it registered.
    second.expect("logout", "good");
    drop(second);
    nbd.expect("write 0 4096 44", "error EPERM");
    first.expect("keys", "good b2");
    drop((nbd, first));
    daemon.stop_without_complaint();
}
