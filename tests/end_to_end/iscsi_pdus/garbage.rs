//! Nonsense, much of it. P2, P6.

use super::{HOST, World, filled, is_all};
use crate::initiator::{Connection, Heard, Login, Pdu, Spoilt, lun};
use crate::tool::{noise, succeed};
use proto::iscsi::constants::opcode;
use std::time::Duration;

const SEED: u64 = 0x5EED;
const PDUS: usize = 2000;

/// What an initiator may send, and some that it may not.
const OPCODES: [u8; 16] = [0, 1, 1, 1, 2, 2, 3, 4, 5, 5, 6, 0x10, 0x1f, 0x21, 0x3e, 0x3f];

/// Operations: of reading, writing, reserving, and one that is none.
const OPERATIONS: [u8; 24] = [
    0x00, 0x03, 0x12, 0x15, 0x1a, 0x1b, 0x25, 0x28, 0x2a, 0x2e, 0x2f, 0x35, 0x41, 0x42, 0x5e, 0x5f, 0x83, 0x84, 0x89,
    0x8b, 0x93, 0x9e, 0xa3, 0xff,
];

/// A PDU that is half right: most fields random, some within bounds so that it gets further than the first check.
fn random_pdu(random: &[u8], cmd_sn: u32) -> Pdu {
    let opcode = OPCODES[usize::from(random[0] % 16)];
    let mut pdu = Pdu::new(opcode | random[1] & 0x40, random[2]);
    pdu = pdu.put(2, &random[3..5]).put(8, &random[5..13]).put(20, &random[13..41]);
    if !random[41].is_multiple_of(4) {
        pdu = pdu.put(8, &lun(1));
    }
    // Few tags, so that they meet.
    pdu = pdu.put_word(16, u32::from(random[42] % 8));
    if !random[43].is_multiple_of(8) {
        pdu = pdu.put_word(24, cmd_sn);
    }
    if opcode == opcode::COMMAND {
        pdu.bhs[32] = OPERATIONS[usize::from(random[44] % 24)];
        pdu.bhs[1] |= 0x80;
        if random[45].is_multiple_of(2) {
            pdu.bhs[1] &= 0xf8;
        }
        // Lengths within the volume.
        pdu = pdu.put(20, &[0, 0]).put(34, &[0, 0]).put(39, &[0]);
    }
    if opcode == opcode::LOGOUT && !random[46].is_multiple_of(8) {
        pdu.bhs[0] = opcode::NOP_OUT;
    }
    // What resets the target is for the watcher too.
    if opcode == opcode::TASK {
        pdu.bhs[1] = 0x80 | (random[2] % 6);
    }
    if random[47].is_multiple_of(16) {
        pdu.ahs = random[48..48 + 4 * usize::from(random[48] % 8)].to_vec();
    }
    let data_len =
        if random[81].is_multiple_of(2) { 0 } else { usize::from(random[82]) * usize::from(random[83] % 40) };
    pdu.with_data(&noise(u64::from(random[84]), data_len))
}

/// Throws away what a connection says; whether it goes on.
fn drain(connection: &mut Connection) -> bool {
    loop {
        match connection.hear(Duration::from_micros(1)) {
            Heard::Pdu(_) => {}
            Heard::End => return false,
            Heard::Silence => return true,
        }
    }
}

/// P2, P6. Random PDUs for one LUN harm nobody: the daemon lives, and another session reads what it wrote, all the while and afterwards.
#[test]
fn random_pdus_harm_nobody_else() {
    let world = World::start();
    world.daemon.create_volume("b", "64M");
    succeed(&mut world.daemon.aljibe(&["target", "map", "db", "b", "--lun", "1"]));
    let mut watcher = world.other_session();
    watcher.write(0, 0, &filled(1, 1 << 20));
    let random = noise(SEED, PDUS * 96);
    let (mut session, mut ended) = (world.session(), 0);
    for (place, random) in random.chunks_exact(96).enumerate() {
        let connection = &mut session.connections[0];
        let cmd_sn = connection.exp_cmd_sn.wrapping_add(u32::from(random[85] % 3));
        let bytes = connection.encode(&random_pdu(random, cmd_sn), Spoilt::Nothing);
        let is_open = connection.try_send(&bytes) && drain(connection);
        if !is_open {
            ended += 1;
            session = world.session();
        }
        if place % 100 == 0 {
            assert!(is_all(&watcher.read(0, 0, 2048), 1), "PDU {place} of seed {SEED:#x}");
        }
    }
    assert!(ended > 10, "they were too tame: {ended} connections ended");
    assert!(is_all(&watcher.read(0, 0, 2048), 1));
    watcher.ping(0);
    drop((session, watcher));
    let mut again = world.session();
    assert!(is_all(&again.read(0, 0, 2048), 1));
    drop(again);
    world.end();
}

/// P6. So do random bytes, before a login and after it, with digests and without, and connections that end at any byte.
#[test]
fn random_bytes_harm_nobody_else() {
    let world = World::start();
    let mut watcher = world.other_session();
    watcher.write(0, 0, &filled(1, 65536));
    for round in 0..200_u64 {
        let bytes = noise(SEED + round, usize::try_from(round * 37).unwrap());
        let mut connection = if round % 2 == 0 {
            Connection::open(&world.daemon.iscsi())
        } else {
            let digests = if round % 4 == 1 { "CRC32C" } else { "None" };
            let login = world.login(HOST).with("HeaderDigest", digests).with("DataDigest", digests);
            // None takes another's place.
            let [.., low] = round.to_be_bytes();
            Login { isid: [0x80, 0, 0, 0, 2, low], ..login }.enter().unwrap().connection
        };
        connection.try_send(&bytes);
        if round % 3 == 0 {
            drain(&mut connection);
        }
    }
    assert!(is_all(&watcher.read(0, 0, 128), 1));
    watcher.ping(0);
    drop(watcher);
    world.end();
}
