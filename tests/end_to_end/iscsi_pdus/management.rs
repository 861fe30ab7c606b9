//! Task management, against writes that wait for their data. RFC 7143 11.5, 11.6; SAM-5 7.

use super::{HOST, World, filled, is_all};
use crate::initiator::{ORDERED, Pdu, SIMPLE, Session, WRITE, command, data_out, lun, send_asked, task, write10};
use proto::iscsi::constants::{opcode, task_function, task_response};

const TASK_ABORTED: u8 = 0x40;

/// Sends all the data of a write that may have been aborted.
fn send_anyway(session: &mut Session, (itt, asked): &(u32, Pdu), data: &[u8]) {
    let pdu = data_out(true, (*itt, asked.word(20)), 0, 0, data);
    session.connections[0].send(&pdu);
}

/// P2, RFC 7143 11.5.1. A write that is aborted while its data is on the way is not carried out and not answered.
#[test]
fn a_write_is_aborted_while_its_data_is_on_the_way() {
    let world = World::start();
    let mut session = world.session();
    session.write(0, 0, &filled(1, 16384));
    for has_begun in [false, true] {
        let write = session.open_write(0, 0, 16384);
        let cmd_sn = session.cmd_sn.wrapping_sub(1);
        let ttt = write.1.word(20);
        if has_begun {
            session.connections[0].send(&data_out(false, (write.0, ttt), 0, 0, &filled(2, 8192)));
        }
        assert_eq!(session.manage(0, task_function::ABORT_TASK, (write.0, cmd_sn)), task_response::COMPLETE);
        if has_begun {
            session.connections[0].send(&data_out(true, (write.0, ttt), 1, 8192, &filled(2, 8192)));
        } else {
            send_anyway(&mut session, &write, &filled(2, 16384));
        }
        session.connections[0].hear_nothing();
        session.ping(0);
        assert!(is_all(&session.read(0, 0, 32), 1));
        // The tag is free again.
        let numbers = (write.0, session.next().1);
        session.connections[0].send(&command(WRITE | SIMPLE, numbers, 512, &write10(64, 1)).with_data(&filled(3, 512)));
        assert_eq!(session.finish(0, write.0, &[]).status, 0);
    }
    drop(session);
    world.end();
}

/// RFC 7143 11.5.1, 11.6.1. What is over cannot be aborted; what is to come is answered for, and is not carried out when it comes.
#[test]
fn an_abort_of_what_is_over_or_to_come_says_so() {
    let world = World::start();
    let mut session = world.session();
    session.write(0, 0, &filled(1, 4096));
    let done = session.next();
    session.connections[0].send(&command(SIMPLE, done, 0, &[0; 6]));
    assert_eq!(session.finish(0, done.0, &[]).status, 0);
    assert_eq!(session.manage(0, task_function::ABORT_TASK, done), task_response::NO_TASK);
    // One that is still to come: its number lies before the function's own.
    let to_come = session.next();
    assert_eq!(session.manage(0, task_function::ABORT_TASK, to_come), task_response::COMPLETE);
    session.connections[0].send(&command(WRITE | SIMPLE, to_come, 4096, &write10(0, 8)).with_data(&filled(2, 4096)));
    session.connections[0].hear_nothing();
    session.ping(0);
    assert!(is_all(&session.read(0, 0, 8), 1));
    // Two at once, the later one first.
    let (first, second) = (session.next(), session.next());
    assert_eq!(session.manage(0, task_function::ABORT_TASK, second), task_response::COMPLETE);
    assert_eq!(session.manage(0, task_function::ABORT_TASK, first), task_response::COMPLETE);
    session.ping(0);
    // Far outside of the window.
    let far = (0x9999, session.cmd_sn.wrapping_add(5000));
    assert_eq!(session.manage(0, task_function::ABORT_TASK, far), task_response::NO_TASK);
    drop(session);
    world.end();
}

/// RFC 7143 11.5.1: "less than the CmdSN of the Task Management function request itself". A number that is not before the
/// function's own stays for the command that will have it.
#[test]
fn an_abort_does_not_take_a_number_that_is_behind_its_own() {
    let world = World::start();
    let mut session = world.session();
    let unused = (0x4444, session.cmd_sn);
    assert_eq!(session.manage(0, task_function::ABORT_TASK, unused), task_response::NO_TASK);
    session.ping(0);
    drop(session);
    world.end();
}

/// SAM-5 7.2, 7.4, 7.5. Functions are for what they name: a set is the session's own, a LUN that is not there has none.
#[test]
fn functions_concern_what_they_name() {
    let world = World::start();
    let (mut one, mut other) = (world.session(), world.other_session());
    one.write(0, 0, &filled(1, 8192));
    let (mine, theirs) = (one.open_write(0, 0, 4096), other.open_write(0, 8, 4096));
    assert_eq!(one.manage(0, task_function::ABORT_TASK_SET, (u32::MAX, 0)), task_response::COMPLETE);
    send_anyway(&mut one, &mine, &filled(2, 4096));
    send_asked(&mut other.connections[0], &theirs.1, &filled(3, 4096));
    assert_eq!(other.finish(0, theirs.0, &[]).status, 0);
    one.ping(0);
    assert!(is_all(&one.read(0, 0, 8), 1) && is_all(&one.read(0, 8, 8), 3));
    for function in [task_function::ABORT_TASK_SET, task_function::CLEAR_TASK_SET, task_function::LOGICAL_UNIT_RESET] {
        let numbers = one.next_immediate();
        one.connections[0].send(&task(function, numbers, (u32::MAX, 0)).put(8, &lun(7)));
        let answer = one.connections[0].receive();
        assert_eq!((answer.itt(), answer.bhs[2]), (numbers.0, task_response::NO_LUN), "{answer:?}");
    }
    for (function, response) in [
        (task_function::CLEAR_ACA, task_response::UNSUPPORTED),
        (task_function::TASK_REASSIGN, task_response::REASSIGN_UNSUPPORTED),
        (77, task_response::UNSUPPORTED),
    ] {
        assert_eq!(one.manage(0, function, (u32::MAX, 0)), response);
    }
    drop((one, other));
    world.end();
}

/// P2, SAM-5 7.7. A unit that is reset forgets every session's writes, those too that wait for their data; others are told.
#[test]
fn a_reset_of_a_unit_ends_the_writes_of_every_session() {
    for function in [task_function::LOGICAL_UNIT_RESET, task_function::CLEAR_TASK_SET, task_function::TARGET_WARM_RESET]
    {
        let world = World::start();
        let (mut one, mut other) = (world.session(), world.other_session());
        one.write(0, 0, &filled(1, 16384));
        let (mine, theirs) = (one.open_write(0, 0, 4096), other.open_write(0, 8, 4096));
        assert_eq!(one.manage(0, function, (u32::MAX, 0)), task_response::COMPLETE);
        send_anyway(&mut one, &mine, &filled(2, 4096));
        send_anyway(&mut other, &theirs, &filled(3, 4096));
        one.connections[0].hear_nothing();
        // Who has not aborted it is told: the control mode page says so (TAS).
        let answer = other.connections[0].receive();
        assert_eq!(
            (answer.opcode(), answer.itt(), answer.bhs[3]),
            (opcode::RESPONSE, theirs.0, TASK_ABORTED),
            "{answer:?}"
        );
        other.connections[0].hear_nothing();
        let told = other.run(0, (SIMPLE, 0), &[0; 6], &[]);
        let sense = if function == task_function::CLEAR_TASK_SET { (6, 0x2f, 0) } else { (6, 0x29, 3) };
        assert_eq!((told.status, told.sense), (2, Some(sense)), "function {function}");
        while one.run(0, (SIMPLE, 0), &[0; 6], &[]).status != 0 {}
        assert!(is_all(&other.read(0, 0, 32), 1), "function {function}");
        drop((one, other));
        world.end();
    }
}

/// SAM-5 5.3.1. A write that another session resets away while half of a PDU of it has come is answered for, once that is whole.
#[test]
fn a_reset_in_the_middle_of_a_pdu_is_told_too() {
    let world = World::start();
    let (mut one, mut other) = (world.session(), world.other_session());
    one.write(0, 0, &filled(1, 65536));
    for len in [4096, 65536] {
        let theirs = other.open_write(0, 0, len);
        let data = filled(3, usize::try_from(len).unwrap());
        let pdu = data_out(true, (theirs.0, theirs.1.word(20)), 0, 0, &data);
        let bytes = other.connections[0].encode(&pdu, crate::initiator::Spoilt::Nothing);
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        other.connections[0].try_send(first);
        // It is there before the reset.
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(one.manage(0, task_function::LOGICAL_UNIT_RESET, (u32::MAX, 0)), task_response::COMPLETE);
        other.connections[0].try_send(rest);
        let answer = other.connections[0].receive();
        assert_eq!(
            (answer.opcode(), answer.itt(), answer.bhs[3]),
            (opcode::RESPONSE, theirs.0, TASK_ABORTED),
            "{answer:?}"
        );
        while one.run(0, (SIMPLE, 0), &[0; 6], &[]).status != 0 {}
        while other.run(0, (SIMPLE, 0), &[0; 6], &[]).status != 0 {}
        assert!(is_all(&one.read(0, 0, 128), 1));
    }
    drop((one, other));
    world.end();
}

/// P2, RFC 7143 11.5.1. TARGET COLD RESET ends the sessions of the target, all of them, and what they had begun.
#[test]
fn a_cold_reset_ends_every_session_of_the_target() {
    let world = World::start();
    let (mut one, mut other) = (world.session(), world.other_session());
    one.write(0, 0, &filled(1, 16384));
    let (mine, theirs) = (one.open_write(0, 0, 4096), other.open_write(0, 8, 4096));
    let numbers = one.next_immediate();
    one.connections[0].send(&task(task_function::TARGET_COLD_RESET, numbers, (u32::MAX, 0)));
    for (session, (itt, asked)) in [(&mut one, &mine), (&mut other, &theirs)] {
        let pdu = data_out(true, (*itt, asked.word(20)), 0, 0, &filled(2, 4096));
        let bytes = session.connections[0].encode(&pdu, crate::initiator::Spoilt::Nothing);
        session.connections[0].try_send(&bytes);
    }
    let said = one.connections[0].hear_to_the_end();
    assert!(said.iter().all(|pdu| pdu.opcode() != opcode::RESPONSE), "{said:?}");
    let mut again = Session::begin(world.login(&format!("{HOST}-again")));
    assert!(is_all(&again.read(0, 0, 8), 1));
    let said = other.connections[0].hear_to_the_end();
    assert!(said.iter().all(|pdu| pdu.opcode() != opcode::RESPONSE || pdu.bhs[3] == TASK_ABORTED), "{said:?}");
    assert!(is_all(&again.read(0, 0, 32), 1));
    drop(again);
    world.end();
}

/// P2. Aborts that race with the writes they name: one that is answered is written, one that is not is not answered later, and
/// no answer is lost.
#[test]
fn aborts_that_race_with_their_writes_leave_no_doubt() {
    let world = World::start();
    let mut session = world.session();
    for round in 0..200_u32 {
        let lba = 8 * (round % 64);
        session.write(0, lba, &filled(1, 4096));
        let write = session.next();
        let pdu = command(WRITE | ORDERED, write, 4096, &write10(lba, 8)).with_data(&filled(2, 4096));
        let abort = session.next_immediate();
        let connection = &mut session.connections[0];
        let bytes = [pdu, task(task_function::ABORT_TASK, abort, write)];
        let bytes: Vec<u8> =
            bytes.iter().flat_map(|pdu| connection.encode(pdu, crate::initiator::Spoilt::Nothing)).collect();
        assert!(connection.try_send(&bytes));
        let (mut is_answered, mut response) = (false, None);
        while response.is_none() {
            let pdu = connection.receive();
            match pdu.opcode() {
                opcode::RESPONSE => is_answered = true,
                opcode::TASK_RESPONSE => response = Some(pdu.bhs[2]),
                _ => panic!("{pdu:?}"),
            }
        }
        let expected = if is_answered { task_response::NO_TASK } else { task_response::COMPLETE };
        assert_eq!(response, Some(expected), "round {round}, answered: {is_answered}");
        // Nothing of it comes later: whatever is there now stays.
        let before = session.read(0, lba, 8);
        assert!(!is_answered || is_all(&before, 2));
        assert!(is_all(&before, 1) || is_all(&before, 2));
        session.ping(0);
        assert!(session.read(0, lba, 8) == before, "round {round}");
    }
    drop(session);
    world.end();
}
