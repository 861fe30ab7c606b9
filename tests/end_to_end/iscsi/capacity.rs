//! Space as an initiator learns of it: a volume that grows, a pool that is full and has room again.

use super::session::{Session, can_run};
use super::{FIRST, daemon_with, url};
use crate::daemon::Daemon;
use crate::tool::{run, succeed, wait_until};

const MIB_BLOCKS: u64 = 2048;

/// P2. A session hears of a volume's new size once, and READ CAPACITY and other programs know it.
#[test]
fn a_resize_is_told_to_the_initiator() {
    if !can_run("a_resize_is_told_to_the_initiator") {
        return;
    }
    let mut daemon = daemon_with(&[("grows", "16M"), ("stays", "16M")]);
    let (mut grows, mut stays) = (Session::iscsi(FIRST, &url(&daemon, 0)), Session::iscsi(FIRST, &url(&daemon, 1)));
    let last = format!("write {} 8 55", 24 * MIB_BLOCKS - 8);
    grows.expect("capacity", &format!("good {}", 16 * MIB_BLOCKS));
    grows.expect(&last, "check 5/21/00");
    succeed(&mut daemon.aljibe(&["volume", "resize", "grows", "--size", "24M"]));
    grows.expect("tur", "check 6/2a/09");
    grows.expect("tur", "good");
    grows.expect("capacity", &format!("good {}", 24 * MIB_BLOCKS));
    grows.expect(&last, "good");
    stays.expect("tur", "good");
    let info = run("qemu-img", ["info", "--output=json", "-f", "raw", &url(&daemon, 0)]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["virtual-size"], 24 << 20, "{info}");
    drop((grows, stays));
    daemon.stop_without_complaint();
}

/// P6. Writes into a full pool are refused as SPACE ALLOCATION FAILED, WRITE PROTECT; reads go on, and writes too after
/// a volume was deleted, and again after an unmap.
#[test]
fn a_full_pool_is_told_to_the_initiator() {
    if !can_run("a_full_pool_is_told_to_the_initiator") {
        return;
    }
    let flags = ["--pool-size", "128M", "--slot-size", "1M"];
    let mut daemon = Daemon::start_iscsi(tempfile::tempdir().unwrap(), &flags);
    for name in ["full", "ballast"] {
        daemon.create_volume(name, "512M");
    }
    let mut nbd = Session::nbd(&daemon, "ballast");
    nbd.expect(&format!("write 0 {} 77", 32 << 20), "good");
    nbd.leave();
    // A target of its own, since a session is a client of all that its target shows.
    for verb in [["create", "db"].as_slice(), &["map", "db", "full"], &["allow", "db", "*"]] {
        succeed(&mut daemon.aljibe(&[&["target"], verb].concat()));
    }
    let url = format!("iscsi://{}/iqn.2026-11.io.aljibe:db/0", daemon.iscsi());
    let mut session = Session::iscsi(FIRST, &url);
    let first = fill(&mut session, 0);
    assert!(first > 20, "it was full after {first} MiB");
    session.expect("read 0 2048", "good 01");
    session.expect(&format!("read {} 2048", (first - 1) * MIB_BLOCKS), &format!("good {:02x}", first % 256));
    succeed(&mut daemon.aljibe(&["volume", "delete", "ballast"]));
    let mut second = first;
    wait_until("there is room after the delete", || {
        second = fill(&mut session, second);
        second > first + 8
    });
    session.expect(&format!("unmap 0 {}", 16 * MIB_BLOCKS), "good");
    let mut third = second;
    wait_until("there is room after the unmap", || {
        third = fill(&mut session, third);
        third > second + 4
    });
    for piece in 16..third {
        session.expect(&format!("read {} 2048", piece * MIB_BLOCKS), &format!("good {:02x}", (piece + 1) % 256));
    }
    session.expect("read 0 2048", "good 00");
    session.expect("flush", "good");
    drop(session);
    assert!(daemon.stop().success(), "{}", daemon.log());
    daemon.check_pool();
}

/// Writes MiB after MiB until there is no room, and returns how many hold something.
fn fill(session: &mut Session, mut pieces: u64) -> u64 {
    loop {
        let answer = session.ask(&format!("write {} 2048 {:02x}", pieces * MIB_BLOCKS, (pieces + 1) % 256));
        // A threshold that was crossed is told once, before the command that comes next.
        if answer == "check 6/38/07" {
            continue;
        }
        if answer != "good" {
            assert_eq!(answer, "check 7/27/07", "a full pool is called so");
            return pieces;
        }
        pieces += 1;
    }
}
