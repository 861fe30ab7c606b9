//! The data of commands: what is out of order, too much, too little, or for a command that has none. RFC 7143 11.3, 11.4, 11.7.

use super::{World, filled, is_all, reason};
use crate::initiator::{
    OVERFLOW, Pdu, READ, SIMPLE, Session, UNDERFLOW, WRITE, command, data_out, len_of, read10, send_asked, write10,
};
use proto::iscsi::constants::{RESERVED_TAG, opcode};

const CHECK_CONDITION: u8 = 2;
const ABORTED_COMMAND: u8 = 0x0b;

/// A volume of ones, and somebody who watches it.
fn watched() -> (World, Session) {
    let world = World::start();
    let mut other = world.other_session();
    other.write(0, 0, &filled(1, 1 << 20));
    (world, other)
}

/// A write whose data breaks the rules fails at once, and with it nothing else: RFC 7143 11.4.7.2.
fn has_failed(session: &mut Session, at: usize, itt: u32) {
    let answer = session.finish(at, itt, &[]);
    assert_eq!(answer.status, CHECK_CONDITION, "{answer:?}");
    let (key, asc, _) = answer.sense.unwrap();
    assert!(key == ABORTED_COMMAND && [0x0c, 0x47].contains(&asc), "{answer:?}");
    session.ping(at);
}

/// P2. Data that was asked for and comes otherwise is not written, and no other write is the worse for it.
#[test]
fn data_that_comes_otherwise_than_asked_for_is_not_written() {
    let (world, mut other) = watched();
    let data = filled(2, 16384);
    for case in 0..9 {
        let mut session = world.session();
        let (itt, asked) = session.open_write(0, 0, 16384);
        let ttt = asked.word(20);
        let wrong = match case {
            0 => data_out(true, (itt, ttt), 1, 0, &data),
            1 => data_out(true, (itt, ttt), 0, 512, &data[512..]),
            2 => data_out(true, (itt, ttt ^ 0x100), 0, 0, &data),
            3 => data_out(true, (itt, RESERVED_TAG), 0, 0, &data),
            4 => data_out(true, (itt, ttt), 0, 0, &filled(2, 16384 + 512)),
            5 => data_out(true, (itt, ttt), 0, 0, &data[..8192]),
            6 => data_out(false, (itt, ttt), 0, u32::MAX - 511, &data),
            7 => data_out(true, (itt, ttt), 0, 0, &[]),
            // All is there, and nothing says that it is the last.
            _ => data_out(false, (itt, ttt), 0, 0, &data),
        };
        session.connections[0].send(&wrong);
        if case == 8 {
            session.connections[0].hear_nothing();
            session.connections[0].send(&data_out(true, (itt, ttt), 1, 16384, &data[..512]));
        }
        has_failed(&mut session, 0, itt);
        // What would have been right is too late.
        session.connections[0].send(&data_out(true, (itt, ttt), 0, 0, &data));
        session.connections[0].hear_nothing();
        assert!(is_all(&other.read(0, 0, 64), 1), "case {case}");
        other.ping(0);
    }
    // A second PDU that does not follow on the first.
    for (data_sn, offset) in [(0, 8192), (2, 8192), (1, 0), (1, 12288)] {
        let mut session = world.session();
        let (itt, asked) = session.open_write(0, 0, 16384);
        session.connections[0].send(&data_out(false, (itt, asked.word(20)), 0, 0, &data[..8192]));
        session.connections[0].send(&data_out(true, (itt, asked.word(20)), data_sn, offset, &data[8192..]));
        has_failed(&mut session, 0, itt);
        assert!(is_all(&other.read(0, 0, 64), 1), "({data_sn}, {offset})");
    }
    drop(other);
    world.end();
}

/// P2. A write whose data is out of order fails, the others of its session go on, whichever connections they are on.
#[test]
fn data_out_of_order_fails_one_write_of_the_session() {
    let (world, other) = watched();
    let mut session = world.session();
    session.join(2);
    let (kept, asked) = session.open_write(1, 0, 8192);
    let (itt, wrong) = session.open_write(0, 16, 8192);
    // Data of the other connection's write counts on none but that one.
    session.connections[0].send(&data_out(true, (kept, asked.word(20)), 0, 0, &filled(9, 8192)));
    session.ping(0);
    session.connections[0].send(&data_out(true, (itt, wrong.word(20)), 5, 0, &filled(9, 8192)));
    has_failed(&mut session, 0, itt);
    send_asked(&mut session.connections[1], &asked, &filled(3, 8192));
    assert_eq!(session.finish(1, kept, &[]).status, 0);
    assert!(is_all(&session.read(1, 0, 16), 3) && is_all(&session.read(1, 16, 16), 1));
    drop((session, other));
    world.end();
}

/// P2, RFC 7143 13.10, 13.11, 13.14. Data that comes unasked keeps to what was agreed on, or is not written.
#[test]
fn unasked_data_beyond_what_was_agreed_is_not_written() {
    let (world, mut other) = watched();
    let agreed = |keys: &[(&str, &str)]| world.session_with(&[&[("FirstBurstLength", "4096")], keys].concat());
    for (initial_r2t, immediate_data, case) in
        [("No", "Yes", 0), ("No", "Yes", 1), ("No", "No", 2), ("Yes", "Yes", 3), ("Yes", "No", 4)]
    {
        let mut session = agreed(&[("InitialR2T", initial_r2t), ("ImmediateData", immediate_data)]);
        let (itt, cmd_sn) = session.next();
        let write = command(WRITE | SIMPLE, (itt, cmd_sn), 16384, &write10(0, 32));
        let (first, then) = match case {
            0 => (write.with_data(&filled(2, 4608)), None),
            1 => (
                write.not_final().with_data(&filled(2, 2048)),
                Some(data_out(true, (itt, RESERVED_TAG), 0, 2048, &filled(2, 2560))),
            ),
            2 | 4 => (write.with_data(&filled(2, 512)), None),
            _ => (write.not_final(), Some(data_out(true, (itt, RESERVED_TAG), 0, 0, &filled(2, 4096)))),
        };
        session.connections[0].send(&first);
        if let Some(then) = then {
            let bytes = session.connections[0].encode(&then, crate::initiator::Spoilt::Nothing);
            session.connections[0].try_send(&bytes);
        }
        has_failed(&mut session, 0, itt);
        assert!(is_all(&other.read(0, 0, 64), 1), "case {case}");
    }
    // What keeps to it is written: all at once, in two, and the rest as it is asked for.
    let mut session = agreed(&[]);
    let data = crate::tool::noise(7, 16384);
    let (itt, cmd_sn) = session.next();
    let write = command(WRITE | SIMPLE, (itt, cmd_sn), 16384, &write10(0, 32)).not_final().with_data(&data[..1024]);
    session.connections[0].send(&write);
    session.connections[0].hear_nothing();
    session.connections[0].send(&data_out(false, (itt, RESERVED_TAG), 0, 1024, &data[1024..2048]));
    session.connections[0].send(&data_out(true, (itt, RESERVED_TAG), 1, 2048, &data[2048..4096]));
    let answer = session.finish(0, itt, &data);
    assert_eq!((answer.status, answer.asked), (0, vec![(4096, 12288)]));
    assert!(other.read(0, 0, 32) == data);
    drop((session, other));
    world.end();
}

/// RFC 7143 11.3.1. Data with a command that has none is refused, and the number stays to be used.
#[test]
fn data_with_a_command_that_takes_none_is_rejected() {
    let (world, other) = watched();
    let mut session = world.session();
    let numbers = session.next();
    let read = command(READ | SIMPLE, numbers, 512, &read10(0, 1));
    let unannounced = command(SIMPLE, numbers, 512, &write10(0, 1)).with_data(&filled(2, 512));
    for wrong in [read.clone().with_data(&filled(2, 512)), unannounced, read.clone().not_final()] {
        session.connections[0].send(&wrong);
        let refused = session.connections[0].receive();
        assert_eq!((refused.opcode(), refused.bhs[2]), (opcode::REJECT, reason::INVALID_FIELD), "{refused:?}");
        assert_eq!(refused.data[16..28], wrong.bhs[16..28], "the header comes back");
    }
    // RFC 7143 7.3: the initiator fills the gap with a command of that number.
    session.connections[0].send(&read);
    assert!(is_all(&session.finish(0, numbers.0, &[]).data, 1));
    // Data-Out for a command that there is none of, or that reads, is thrown away.
    for itt in [0x7777, numbers.0] {
        session.connections[0].send(&data_out(true, (itt, 1), 0, 0, &filled(2, 4096)));
        session.ping(0);
    }
    assert!(is_all(&session.read(0, 0, 64), 1));
    drop((session, other));
    world.end();
}

/// P2, RFC 7143 11.3.4, 11.4.5. A read gives what the initiator has room for, and tells by how much the command asked otherwise.
#[test]
fn a_read_tells_what_it_left_over() {
    let (world, mut other) = watched();
    let mut session = world.session();
    for (expected, blocks, came, residual) in [
        (4096, 8, 4096, (0, 0)),
        (4096, 4, 2048, (UNDERFLOW, 2048)),
        (1024, 8, 1024, (OVERFLOW, 3072)),
        (700, 8, 700, (OVERFLOW, 3396)),
        (0, 8, 0, (OVERFLOW, 4096)),
        (4096, 0, 0, (UNDERFLOW, 4096)),
        (1 << 20, 2000, 1_024_000, (UNDERFLOW, 24576)),
    ] {
        let answer = session.run(0, (READ | SIMPLE, expected), &read10(0, blocks), &[]);
        assert_eq!((answer.status, answer.data.len(), answer.residual), (0, came, residual), "{expected} for {blocks}");
        assert!(is_all(&answer.data, 1));
    }
    // Neither direction is said, or the wrong one.
    let answer = session.run(0, (SIMPLE, 4096), &read10(0, 8), &[]);
    assert!(answer.data.is_empty(), "{answer:?}");
    let answer = session.run(0, (WRITE | SIMPLE, 4096), &read10(0, 8), &filled(9, 4096));
    assert!(answer.data.is_empty(), "{answer:?}");
    let inquiry = session.run(0, (READ | SIMPLE, 255), &[0x12, 0, 0, 0, 36, 0], &[]);
    assert_eq!((inquiry.status, inquiry.data.len(), inquiry.residual), (0, 36, (UNDERFLOW, 219)));
    assert!(is_all(&other.read(0, 0, 64), 1));
    session.ping(0);
    drop((session, other));
    world.end();
}

/// P2, RFC 7143 11.3.4, 11.4.5. A write takes what it has use for, and of less than it asks for whole blocks.
#[test]
fn a_write_tells_what_it_left_over() {
    let (world, mut other) = watched();
    let mut session = world.session();
    let data = filled(2, 65536);
    for immediate in [0, 4096, 8192] {
        let (itt, cmd_sn) = session.next();
        let write = command(WRITE | SIMPLE, (itt, cmd_sn), 8192, &write10(0, 8)).with_data(&data[..immediate]);
        session.connections[0].send(&write);
        let answer = session.finish(0, itt, &data[..4096]);
        assert_eq!((answer.status, answer.residual), (0, (UNDERFLOW, 4096)), "{immediate} at once: {answer:?}");
        assert!(is_all(&other.read(0, 0, 8), 2) && is_all(&other.read(0, 8, 56), 1));
        other.write(0, 0, &filled(1, 4096));
    }
    // Whole blocks as far as they come.
    for (expected, immediate) in [(2048, 0), (2048, 2048), (512, 512), (1000, 1000), (100, 100), (100, 0), (0, 0)] {
        let (itt, cmd_sn) = session.next();
        let write = command(WRITE | SIMPLE, (itt, cmd_sn), expected, &write10(0, 8)).with_data(&data[..immediate]);
        session.connections[0].send(&write);
        let answer = session.finish(0, itt, &data);
        assert_eq!((answer.status, answer.residual), (0, (OVERFLOW, 4096 - expected)), "{expected}: {answer:?}");
        let whole = u16::try_from(expected / 512).unwrap();
        assert!(is_all(&other.read(0, 0, whole), 2) || whole == 0, "{expected} bytes of 4096");
        assert!(is_all(&other.read(0, u32::from(whole), 64 - whole), 1), "{expected} bytes of 4096");
        other.write(0, 0, &filled(1, 4096));
    }
    session.ping(0);
    drop((session, other));
    world.end();
}

/// P2, RFC 7143 11.4.5. A write that announces no data writes none, and is not told that all is well without a residual.
#[test]
fn a_write_that_announces_no_data_is_not_called_done() {
    let (world, mut other) = watched();
    let mut session = world.session();
    for (flags, expected) in [(READ | SIMPLE, 4096), (SIMPLE, 4096), (READ | SIMPLE, 0), (SIMPLE, 0)] {
        let answer = session.run(0, (flags, expected), &write10(0, 8), &[]);
        assert!(is_all(&other.read(0, 0, 64), 1));
        assert!(answer.status != 0 || answer.residual != (0, 0), "{flags:#x} with {expected}: {answer:?}");
    }
    drop((session, other));
    world.end();
}

/// RFC 7143 11.3.1. A command that says that it reads and writes does what it does, and neither too much nor for ever.
#[test]
fn a_bidirectional_command_is_no_trap() {
    let (world, other) = watched();
    let mut session = world.session();
    let answer = session.run(0, (READ | WRITE | SIMPLE, 4096), &write10(0, 8), &filled(2, 4096));
    assert_eq!((answer.status, answer.data.len()), (0, 0), "{answer:?}");
    assert!(is_all(&session.read(0, 0, 8), 2));
    // With a length for what it reads, in a header segment of its own: RFC 7143 11.2.2.4.
    let numbers = session.next();
    let mut both = command(READ | WRITE | SIMPLE, numbers, 4096, &write10(0, 8));
    both.ahs = [&[0, 5, 2, 0][..], &4096_u32.to_be_bytes()].concat();
    session.connections[0].send(&both);
    assert_eq!(session.finish(0, numbers.0, &filled(3, 4096)).status, 0);
    assert!(is_all(&session.read(0, 0, 8), 3));
    let answer = session.run(0, (READ | WRITE | SIMPLE, 4096), &read10(0, 8), &filled(4, 4096));
    assert!(answer.data.len() <= 4096 && is_all(&answer.data, 3), "{answer:?}");
    assert!(is_all(&session.read(0, 0, 8), 3));
    session.ping(0);
    drop((session, other));
    world.end();
}

/// RFC 7143 11.2.2. Additional header segments: a CDB's rest, and lengths that are not true.
#[test]
fn additional_header_segments_are_read_or_refused() {
    let (world, other) = watched();
    let mut session = world.session();
    let numbers = session.next();
    let with = |ahs: &[u8]| Pdu { ahs: ahs.to_vec(), ..command(READ | SIMPLE, numbers, 4096, &read10(0, 8)) };
    let long = vec![0; 1020];
    let refused: [&[u8]; 9] = [
        &[0, 0, 0, 0],
        &[0xff, 0xff, 1, 0],
        &[0, 200, 1, 0, 1, 2, 3, 4],
        &[0, 5, 9, 0, 1, 2, 3, 4],
        &[0, 5, 2, 0, 0, 0, 16, 0, 0, 5, 2, 0, 0, 0, 16, 0],
        &[0, 1, 2, 0],
        &[0, 2, 1, 0, 1, 2, 3, 4, 0, 2, 1, 0, 1, 2, 3, 4],
        &[0, 0, 1, 0, 0, 0, 1, 0],
        &long,
    ];
    for ahs in refused {
        session.connections[0].send(&with(ahs));
        let answer = session.connections[0].receive();
        assert_eq!((answer.opcode(), answer.bhs[2]), (opcode::REJECT, reason::INVALID_FIELD), "{ahs:?}: {answer:?}");
    }
    // 16 more bytes of a CDB that needs none of them.
    session.connections[0].send(&with(&[&[0, 17, 1, 0][..], &[0; 16]].concat()));
    assert_eq!(session.finish(0, numbers.0, &[]).data.len(), 4096);
    let numbers = session.next();
    let mut ping = crate::initiator::nop_out(numbers, b"x");
    ping.ahs = vec![0; 8];
    session.connections[0].send(&ping);
    assert_eq!(session.connections[0].receive().opcode(), opcode::REJECT);
    session.cmd_sn = numbers.1;
    session.ping(0);
    drop((session, other));
    world.end();
}

/// P2. A variable length CDB, longer than 16 bytes, is read as a whole or not carried out.
#[test]
fn a_variable_length_cdb_is_not_mistaken_for_another() {
    let (world, other) = watched();
    let mut session = world.session();
    let numbers = session.next();
    // WRITE(32): SBC-3 5.37. Its blocks are in the extended part.
    let mut cdb = [0; 32];
    (cdb[0], cdb[7], cdb[9], cdb[31]) = (0x7f, 0x18, 0x0b, 8);
    let mut write = command(WRITE | SIMPLE, numbers, 4096, &cdb[..16]).with_data(&filled(2, 4096));
    write.ahs = [&[0, 17, 1, 0][..], &cdb[16..]].concat();
    session.connections[0].send(&write);
    let answer = session.finish(0, numbers.0, &filled(2, 4096));
    let is_written = is_all(&session.read(0, 0, 8), 2);
    assert_eq!(answer.status == 0, is_written, "{answer:?}");
    assert!(answer.status == 0 || answer.sense == Some((5, 0x20, 0)), "{answer:?}");
    assert_eq!(len_of(&answer.data), 0);
    drop((session, other));
    world.end();
}
