//! EXTENDED COPY: what stays within a volume moves no data. SPC-4 6.4, 7.8.6.

use super::{World, filled, is_all};
use crate::initiator::{Login, READ, SIMPLE, Session, WRITE, command, len_of, lun};
use crate::tool::{are_here, noise, run, succeed, wait_until};
use std::fs;

const MIB: usize = 1 << 20;

/// The NAA identifier of a LUN: INQUIRY page 83h, a designator of type 3.
fn naa(session: &mut Session, number: u8) -> Vec<u8> {
    let numbers = session.next();
    let inquiry = command(READ | SIMPLE, numbers, 255, &[0x12, 1, 0x83, 0, 255, 0]);
    session.connections[0].send(&inquiry.put(8, &lun(number)));
    let page = session.finish(0, numbers.0, &[]).data;
    let mut rest = &page[4..];
    loop {
        let (head, behind) = rest.split_at(4);
        let (designator, others) = behind.split_at(head[3].into());
        if head[1] & 0x0f == 3 {
            return designator.to_vec();
        }
        rest = others;
    }
}

/// A parameter list of one target, or from the first of two to the second, and these segments: source, destination, blocks.
fn list(targets: &[&[u8]], segments: &[(u64, u64, u16)]) -> Vec<u8> {
    let descriptor = |naa: &&[u8]| {
        let mut target = vec![0xe4, 0, 0, 0, 1, 3, 0, u8::try_from(naa.len()).unwrap()];
        target.extend_from_slice(naa);
        target.resize(28, 0);
        target.extend_from_slice(&[0, 0, 2, 0]);
        target
    };
    let descriptors: Vec<u8> = targets.iter().flat_map(descriptor).collect();
    let to = u8::from(targets.len() > 1);
    let mut list = vec![9, 0, 0, u8::try_from(descriptors.len()).unwrap(), 0, 0, 0, 0];
    list.extend_from_slice(&(28 * u32::try_from(segments.len()).unwrap()).to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    list.extend_from_slice(&descriptors);
    for (source, destination, blocks) in segments {
        list.extend_from_slice(&[2, 0, 0, 24, 0, 0, 0, to, 0, 0]);
        list.extend_from_slice(&blocks.to_be_bytes());
        list.extend_from_slice(&source.to_be_bytes());
        list.extend_from_slice(&destination.to_be_bytes());
    }
    list
}

fn copy(session: &mut Session, list: &[u8]) -> u8 {
    let mut cdb = [0; 16];
    cdb[0] = 0x83;
    cdb[10..14].copy_from_slice(&len_of(list).to_be_bytes());
    session.run(0, (WRITE | SIMPLE, len_of(list)), &cdb, list).status
}

fn write(session: &mut Session, first_lba: u32, data: &[u8]) {
    for (lba, part) in (first_lba..).step_by(512).zip(data.chunks(512 * 512)) {
        session.write(0, lba, part);
    }
}

fn read(session: &mut Session, first_lba: u32, len: usize) -> Vec<u8> {
    let parts = (first_lba..).step_by(512).take(len / (512 * 512));
    parts.flat_map(|lba| session.read(0, lba, 512)).collect()
}

/// Bytes that all logs have grown by, headers and data, since the daemon began.
fn appended(world: &World) -> f64 {
    let (authorization, socket) = (world.daemon.authorization(), world.daemon.data().join("api.sock"));
    let to = ["--unix-socket", socket.to_str().unwrap(), "http://localhost/metrics"];
    let metrics = run("curl", [&["--silent", "--fail", "--header", &authorization], &to[..]].concat());
    let value = metrics.lines().find_map(|line| line.strip_prefix("aljibe_log_appended_bytes_total{shard=\"0\"} "));
    value.unwrap_or_else(|| panic!("no such figure: {metrics}")).parse().unwrap()
}

/// P1, P2. 12 MiB are copied, and no block of data is written for it; the copy stays what it was whatever becomes of its source,
/// over a kill and a rebuild of the index too.
#[test]
fn a_copy_within_a_volume_moves_no_data_and_stays() {
    if !are_here("a_copy_within_a_volume_moves_no_data_and_stays", &["curl"]) {
        return;
    }
    let mut world = World::start();
    let mut session = world.session();
    let data = noise(3, 12 * MIB);
    write(&mut session, 0, &data);
    assert_eq!(session.run(0, (SIMPLE, 0), &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]).status, 0);
    let before = appended(&world);
    let naa = naa(&mut session, 0);
    let blocks = u16::try_from(12 * MIB / 512).unwrap();
    assert_eq!(copy(&mut session, &list(&[&naa], &[(0, 65536, blocks)])), 0);
    let more = appended(&world) - before;
    assert!(more < 262_144.0, "{more} bytes were written for a copy of 12 MiB");
    write(&mut session, 0, &filled(7, 12 * MIB));
    assert!(read(&mut session, 65536, 12 * MIB) == data && is_all(&read(&mut session, 0, 12 * MIB), 7));
    assert_eq!(session.run(0, (SIMPLE, 0), &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]).status, 0);
    world.daemon.kill9();
    world.daemon.restart();
    let mut session = world.session();
    assert!(read(&mut session, 65536, 12 * MIB) == data);
    drop(session);
    world.daemon.stop_without_complaint();
    world.daemon.check_pool();
    fs::remove_dir_all(world.daemon.data().join("index")).unwrap();
    succeed(&mut world.daemon.aljibe(&["pool", "rebuild"]));
    world.daemon.restart();
    let mut session = world.session();
    assert!(read(&mut session, 65536, 12 * MIB) == data && is_all(&read(&mut session, 0, 12 * MIB), 7));
    drop(session);
    world.end();
}

/// P1, P2, P5. A copy to another LUN moves no data either. When the volume is deleted that it is of, it is still there, and what
/// it is of goes with the volume once the copy is on its own.
#[test]
fn a_copy_to_another_volume_moves_no_data_and_outlives_its_source() {
    let test = "a_copy_to_another_volume_moves_no_data_and_outlives_its_source";
    if !are_here(test, &["curl"]) {
        return;
    }
    let mut world = World::start();
    world.daemon.create_volume("b", "64M");
    for arguments in [&["map", "db", "b"][..], &["create", "other"], &["map", "other", "b"], &["allow", "other", "*"]] {
        succeed(world.daemon.aljibe(&["target"]).args(arguments));
    }
    let mut session = world.session();
    let data = noise(8, 12 * MIB);
    write(&mut session, 0, &data);
    let sync = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(session.run(0, (SIMPLE, 0), &sync, &[]).status, 0);
    let (before, from, to) = (appended(&world), naa(&mut session, 0), naa(&mut session, 1));
    let blocks = u16::try_from(12 * MIB / 512).unwrap();
    assert_eq!(copy(&mut session, &list(&[&from, &to], &[(0, 65536, blocks)])), 0);
    let more = appended(&world) - before;
    assert!(more < 262_144.0, "{more} bytes were written for a copy of 12 MiB");
    write(&mut session, 0, &filled(7, MIB));
    drop(session);
    let begin = |world: &World| {
        let login = Login::new(&world.daemon.iscsi(), "iqn.2004-10.com.example:reader", "iqn.2026-11.io.aljibe:other");
        Session::begin(login)
    };
    let mut reader = begin(&world);
    assert!(read(&mut reader, 65536, 12 * MIB) == data);
    assert_eq!(reader.run(0, (SIMPLE, 0), &sync, &[]).status, 0);
    succeed(&mut world.daemon.aljibe(&["target", "unmap", "db", "0"]));
    succeed(&mut world.daemon.aljibe(&["volume", "delete", "a"]));
    assert!(read(&mut reader, 65536, 12 * MIB) == data);
    drop(reader);
    world.daemon.kill9();
    world.daemon.restart();
    let mut reader = begin(&world);
    assert!(read(&mut reader, 65536, 12 * MIB) == data);
    // More is written to the borrower, so that its segment is sealed.
    write(&mut reader, 0, &noise(9, 24 * MIB));
    assert_eq!(reader.run(0, (SIMPLE, 0), &sync, &[]).status, 0);
    let erasures = || succeed(&mut world.daemon.aljibe(&["operation", "list", "--json"]));
    wait_until("the deleted volume is erased", || !erasures().contains("erasing"));
    assert!(read(&mut reader, 65536, 12 * MIB) == data);
    drop(reader);
    world.daemon.stop_without_complaint();
    world.daemon.check_pool();
}

/// P2. Copies of single sectors, across blocks, onto a part of themselves and of holes are what reads and writes would make.
#[test]
fn copies_that_do_not_fit_blocks_are_the_same_to_the_sector() {
    let world = World::start();
    let mut session = world.session();
    let naa = naa(&mut session, 0);
    let mut expected = vec![0; 4 * MIB];
    let data = noise(5, MIB);
    write(&mut session, 0, &data);
    expected[..MIB].copy_from_slice(&data);
    let apart = [(3, 2051, 40), (5, 3000, 700), (1, 4096, 1), (6000, 256, 64), (8, 5000, 16), (0, 4096, 2048)];
    let onto_themselves = [(0, 1024, 2048), (17, 24, 9), (24, 16, 64)];
    let cases = apart.into_iter().chain(onto_themselves);
    for (source, destination, blocks) in cases {
        assert_eq!(copy(&mut session, &list(&[&naa], &[(source, destination, blocks)])), 0);
        let [from, to, len] = [source, destination, u64::from(blocks)].map(|n| usize::try_from(n * 512).unwrap());
        expected.copy_within(from..from + len, to);
        assert!(read(&mut session, 0, 4 * MIB) == expected, "{source} to {destination}, {blocks} blocks");
    }
    drop(session);
    world.end();
}
