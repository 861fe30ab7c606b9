//! Real NBD clients against a volume: what each writes, each reads.

use crate::daemon::Daemon;
use crate::tool::{self, are_here, noise, python, run, succeed};
use serde_json::Value;
use std::fs;

const MIB: usize = 1 << 20;

fn daemon_with(volume: &str, size: &str) -> Daemon {
    let daemon = Daemon::start();
    daemon.create_volume(volume, size);
    daemon
}

#[test]
fn nbdinfo_sees_names_sizes_and_abilities() {
    if !are_here("nbdinfo_sees_names_sizes_and_abilities", &["nbdinfo"]) {
        return;
    }
    let mut daemon = daemon_with("first", "1G");
    daemon.create_volume("second", "1P");
    let list: Value = serde_json::from_str(&run("nbdinfo", ["--list", "--json", &daemon.uri("")])).unwrap();
    let exports = list["exports"].as_array().unwrap();
    let mut named: Vec<(&str, u64)> = exports
        .iter()
        .map(|export| (export["export-name"].as_str().unwrap(), export["export-size"].as_u64().unwrap()))
        .collect();
    named.sort_unstable();
    assert_eq!(named, [("first", 1 << 30), ("second", 1 << 50)]);
    let one: Value = serde_json::from_str(&run("nbdinfo", ["--json", &daemon.uri("first")])).unwrap();
    let export = &one["exports"][0];
    for ability in ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_cache", "can_df"] {
        assert_eq!(export[ability], Value::Bool(true), "{ability} of {export}");
    }
    assert_eq!(export["is_read_only"], Value::Bool(false));
    assert_eq!(run("nbdinfo", ["--size", &daemon.uri("second")]).trim(), (1_u64 << 50).to_string());
    tool::fail(tool::command("nbdinfo").arg(daemon.uri("third")));
    daemon.stop_without_complaint();
}

/// P2. What nbdcopy writes on four connections, it reads on four connections.
#[test]
fn nbdcopy_brings_back_what_it_wrote() {
    if !are_here("nbdcopy_brings_back_what_it_wrote", &["nbdcopy", "nbdinfo"]) {
        return;
    }
    let mut daemon = daemon_with("copy", "192M");
    let source = daemon.folder().join("source");
    let mut bytes = noise(1, 192 * MIB);
    bytes[10 * MIB..90 * MIB].fill(0);
    fs::write(&source, &bytes).unwrap();
    let back = daemon.folder().join("back");
    let (source, back, uri) = (source.to_str().unwrap(), back.to_str().unwrap(), daemon.uri("copy"));
    run("nbdcopy", ["--connections=4", "--flush", source, &uri]);
    run("nbdcopy", ["--connections=4", &uri, back]);
    assert!(fs::read(back).unwrap() == bytes, "other bytes came back");
    // What was never written stays a hole.
    let map: Value = serde_json::from_str(&run("nbdinfo", ["--map", "--json", &uri])).unwrap();
    let holes = map.as_array().unwrap().iter().filter(|extent| extent["type"].as_u64().unwrap() & 1 == 1);
    let hole_bytes: u64 = holes.map(|extent| extent["length"].as_u64().unwrap()).sum();
    assert_eq!(hole_bytes, 80 * MIB as u64, "{map}");
    daemon.stop_without_complaint();
    daemon.restart();
    run("nbdcopy", ["--connections=4", &uri, back]);
    assert!(fs::read(back).unwrap() == bytes, "other bytes came back after a restart");
}

#[test]
fn every_option_is_answered_as_the_protocol_has_it() {
    if !are_here("every_option_is_answered_as_the_protocol_has_it", &["python3-libnbd"]) {
        return;
    }
    let daemon = daemon_with("options", "64M");
    succeed(python("options.py").arg(daemon.socket()).arg("options"));
}

#[test]
fn every_command_is_answered_as_the_protocol_has_it() {
    if !are_here("every_command_is_answered_as_the_protocol_has_it", &["python3-libnbd"]) {
        return;
    }
    let daemon = daemon_with("commands", "64M");
    succeed(python("commands.py").arg(daemon.socket()).arg("commands"));
}

/// P2. An image converted in compares equal, in content and in holes, and survives a benchmark beside it.
#[test]
fn qemu_img_converts_compares_maps_and_benches() {
    if !are_here("qemu_img_converts_compares_maps_and_benches", &["qemu-img"]) {
        return;
    }
    let mut daemon = daemon_with("image", "128M");
    let raw = daemon.folder().join("image.raw");
    let mut bytes = noise(2, 128 * MIB);
    bytes[MIB..64 * MIB].fill(0);
    fs::write(&raw, &bytes).unwrap();
    let qcow = daemon.folder().join("image.qcow2");
    let (raw, qcow, uri) = (raw.to_str().unwrap(), qcow.to_str().unwrap(), daemon.uri("image"));
    run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, qcow]);
    run("qemu-img", ["convert", "-n", "-m", "8", "-W", "-f", "qcow2", "-O", "raw", qcow, &uri]);
    run("qemu-img", ["compare", "-f", "raw", "-F", "raw", raw, &uri]);
    let map: Value = serde_json::from_str(&run("qemu-img", ["map", "--output=json", "-f", "raw", &uri])).unwrap();
    let zero_bytes: u64 = map
        .as_array()
        .unwrap()
        .iter()
        .filter(|extent| extent["zero"] == Value::Bool(true))
        .map(|extent| extent["length"].as_u64().unwrap())
        .sum();
    assert_eq!(zero_bytes, 63 * MIB as u64, "{map}");
    run("qemu-img", ["bench", "-f", "raw", "-c", "4000", "-d", "32", "-s", "4096", "-S", "36864", &uri]);
    daemon.create_volume("bench", "128M");
    let bench = daemon.uri("bench");
    run(
        "qemu-img",
        [
            "bench",
            "-w",
            "-f",
            "raw",
            "-c",
            "4000",
            "-d",
            "32",
            "-s",
            "4096",
            "-S",
            "20480",
            "--flush-interval=100",
            &bench,
        ],
    );
    run("qemu-img", ["compare", "-f", "raw", "-F", "raw", raw, &uri]);
    daemon.stop_without_complaint();
}

/// P2, P5. Patterns of any alignment are read back; discarded and zeroed ranges are zeros.
#[test]
fn qemu_io_verifies_patterns_of_any_alignment() {
    if !are_here("qemu_io_verifies_patterns_of_any_alignment", &["qemu-io"]) {
        return;
    }
    let mut daemon = daemon_with("patterns", "64M");
    let steps = [
        "write -P 0x11 0 1M",
        "read -P 0x11 0 1M",
        "write -P 0x22 512 512",
        "read -P 0x11 0 512",
        "read -P 0x22 512 512",
        "read -P 0x11 1024 3072",
        "write -P 0x33 4000 200",
        "read -P 0x33 4000 200",
        "read -P 0x11 3900 100",
        "read -P 0x11 4200 100",
        "write -f -P 0x44 8191 2",
        "read -P 0x44 8191 2",
        "read -P 0x11 8190 1",
        "read -P 0x11 8193 1",
        "write -P 0x55 1000001 3000017",
        "read -P 0x55 1000001 3000017",
        "read -P 0 4000018 5000",
        "write -z 65536 65536",
        "read -P 0 65536 65536",
        "read -P 0x11 131072 4096",
        "write -z -u 200000 10000",
        "read -P 0 200000 10000",
        "read -P 0x11 199000 1000",
        "discard 262144 131072",
        "read -P 0 262144 131072",
        "read -P 0x11 393216 4096",
        "aio_write -P 0x66 8M 2M",
        "aio_write -P 0x77 10M 2M",
        "aio_flush",
        "read -P 0x66 8M 2M",
        "read -P 0x77 10M 2M",
        "write -P 0x88 67108352 512",
        "read -P 0x88 67108352 512",
        "flush",
    ];
    let arguments = |steps: &[&str]| -> Vec<String> {
        ["-f", "raw"].into_iter().chain(steps.iter().flat_map(|step| ["-c", step])).map(str::to_owned).collect()
    };
    let uri = daemon.uri("patterns");
    run("qemu-io", arguments(&steps).iter().chain([&uri]));
    daemon.kill9();
    daemon.restart();
    let after = [
        "read -P 0x22 512 512",
        "read -P 0x33 4000 200",
        "read -P 0 262144 131072",
        "read -P 0x77 10M 2M",
        "read -P 0x88 67108352 512",
    ];
    run("qemu-io", arguments(&after).iter().chain([&uri]));
}

/// P1, P2. fio verifies on four connections at depth 32 what it wrote, and again after a kill.
#[test]
fn fio_verifies_at_depth_32_on_four_connections() {
    if !are_here("fio_verifies_at_depth_32_on_four_connections", &["fio"]) {
        return;
    }
    let mut daemon = daemon_with("verify", "256M");
    for (block, name) in [("4k-4k", "blocks"), ("512-20k", "sectors")] {
        let uri = format!("--uri={}", daemon.uri("verify"));
        let sizes = format!("--bsrange={block}");
        let job = [
            "--name",
            name,
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            &sizes,
            "--blockalign=512",
            "--iodepth=32",
            "--numjobs=4",
            "--size=24m",
            "--offset_increment=64m",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--group_reporting",
        ];
        let aligned: Vec<&str> =
            job.into_iter().filter(|argument| block != "4k-4k" || *argument != "--blockalign=512").collect();
        let fio = |more: &[&str]| {
            let mut command = tool::command("fio");
            succeed(command.args(&aligned).args(more).current_dir(daemon.folder()));
        };
        fio(&["--do_verify=1"]);
        daemon.kill9();
        daemon.restart();
        let mut again = tool::command("fio");
        succeed(again.args(&aligned).arg("--verify_only").current_dir(daemon.folder()));
    }
    daemon.stop_without_complaint();
}
