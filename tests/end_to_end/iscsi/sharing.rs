//! One volume by two protocols: what is written or discarded by either is so by the other.

use super::session::{Session, can_run};
use super::{FIRST, daemon_with, url};
use crate::daemon::Daemon;
use crate::tool::{are_here, command, noise, run, succeed};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const MIB: u64 = 1 << 20;

/// An image with holes between what it holds.
const IMAGE_MIB: u64 = 64;
const PIECES: [(u64, usize); 4] = [(0, 3 << 20), (10 * MIB + 4096, 70_000), (31 * MIB, 1 << 20), (63 * MIB, 1 << 20)];

fn image(daemon: &Daemon) -> PathBuf {
    let path = daemon.folder().join("image");
    let file = File::create(&path).unwrap();
    file.set_len(IMAGE_MIB * MIB).unwrap();
    for (seed, (offset, length)) in (1..).zip(PIECES) {
        file.write_all_at(&noise(seed, length), offset).unwrap();
    }
    path
}

fn copy(from: &str, to: &str) {
    run("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", from, to]);
}

fn compare(left: &str, right: &str) {
    run("qemu-img", ["compare", "-f", "raw", "-F", "raw", left, right]);
}

fn qemu_io(target: &str, orders: &[&str]) {
    let mut command = command("qemu-io");
    command.args(["-f", "raw"]).args(orders.iter().flat_map(|order| ["-c", order])).arg(target);
    let said = succeed(&mut command);
    assert!(!said.contains("failed") && !said.contains("error"), "{said}");
}

/// P2. An image that was written by NBD is the same by iSCSI, and the other way round.
#[test]
fn an_image_is_the_same_by_either_protocol() {
    if !are_here("an_image_is_the_same_by_either_protocol", &["qemu-img", "nbdcopy"]) {
        return;
    }
    let mut daemon = daemon_with(&[("first", "64M"), ("second", "64M"), ("third", "64M")]);
    let image = image(&daemon);
    let image = image.to_str().unwrap();
    copy(image, &daemon.uri("first"));
    compare(image, &url(&daemon, 0));
    copy(&url(&daemon, 0), &url(&daemon, 1));
    compare(image, &daemon.uri("second"));
    run("nbdcopy", [&daemon.uri("second"), &daemon.uri("third")]);
    compare(image, &url(&daemon, 2));
    let back = daemon.folder().join("back");
    let back = back.to_str().unwrap();
    run("qemu-img", ["convert", "-f", "raw", "-O", "raw", &url(&daemon, 2), back]);
    compare(image, back);
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// P2, P5. Small writes, zeros and discards by qemu are at once what an open NBD connection sees, and its own what qemu
/// sees.
#[test]
fn what_qemu_writes_by_iscsi_is_read_by_nbd() {
    let test = "what_qemu_writes_by_iscsi_is_read_by_nbd";
    if !can_run(test) || !are_here(test, &["qemu-io"]) {
        return;
    }
    let mut daemon = daemon_with(&[("shared", "64M")]);
    let mut nbd = Session::nbd(&daemon, "shared");
    let target = url(&daemon, 0);
    qemu_io(&target, &["write -P 0xa5 1M 64k", "write -P 0x5a 5632 1536", "flush"]);
    nbd.expect("read 1048576 65536", "good a5");
    nbd.expect("read 5632 1536", "good 5a");
    nbd.expect("read 5120 512", "good 00");
    nbd.expect("read 7168 1024", "good 00");
    nbd.expect("write 1049088 512 77", "good");
    qemu_io(&target, &["read -P 0x77 1049088 512", "read -P 0xa5 1M 512", "read -P 0xa5 1049600 512"]);
    qemu_io(&target, &["write -z 1M 32k", "write -f -P 0x11 2M 4k"]);
    nbd.expect("read 1048576 32768", "good 00");
    nbd.expect("read 1081344 32768", "good a5");
    nbd.expect("read 2097152 4096", "good 11");
    drop(nbd);
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// P5. A discard by iSCSI leaves zeros and a hole that NBD's map tells of; so does a sparse image where it has holes,
/// and GET LBA STATUS, which qemu's map asks for, tells of what NBD trims.
#[test]
fn discards_by_iscsi_leave_holes_in_the_map_of_nbd() {
    let test = "discards_by_iscsi_leave_holes_in_the_map_of_nbd";
    if !can_run(test) || !are_here(test, &["qemu-io", "qemu-img"]) {
        return;
    }
    let mut daemon = daemon_with(&[("shared", "64M"), ("sparse", "64M")]);
    let (mut nbd, target) = (Session::nbd(&daemon, "shared"), url(&daemon, 0));
    nbd.expect("write 0 4194304 33", "good");
    qemu_io(&target, &["discard 1M 1M"]);
    nbd.expect("map 0 4194304", "good data 1048576 hole 1048576 data 2097152");
    nbd.expect("read 1048576 1048576", "good 00");
    let mut iscsi = Session::iscsi(FIRST, &target);
    iscsi.expect("unmap 0 2048", "good");
    nbd.expect("map 0 4194304", "good hole 2097152 data 2097152");
    nbd.expect("trim 3145728 1048576", "good");
    iscsi.expect("read 6144 2048", "good 00");
    let map = run("qemu-img", ["map", "-f", "raw", "--output=json", &target]);
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let data: Vec<_> = map.as_array().unwrap().iter().filter(|extent| extent["data"] == true).collect();
    assert_eq!(data.len(), 1, "{map}");
    assert_eq!((&data[0]["start"], &data[0]["length"]), (&(2 * MIB).into(), &MIB.into()), "{map}");
    copy(image(&daemon).to_str().unwrap(), &url(&daemon, 1));
    let mut sparse = Session::nbd(&daemon, "sparse");
    sparse.expect("map 3145728 7340032", "good hole 7340032");
    sparse.expect("map 33554432 32505856", "good hole 32505856");
    drop((nbd, iscsi, sparse));
    daemon.stop_without_complaint();
    daemon.check_pool();
}
