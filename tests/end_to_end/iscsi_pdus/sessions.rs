//! Sessions of several connections, and sessions that take the place of others. RFC 7143 4.2.2.1, 6.3.5, 7.1.

use super::{World, filled, is_all};
use crate::initiator::{
    Heard, Login, ORDERED, READ, SIMPLE, Session, WRITE, command, len_of, read10, send_asked, write10,
};
use crate::tool::succeed;
use proto::iscsi::constants::opcode;
use std::time::{Duration, Instant};

const TOO_MANY_CONNECTIONS: (u8, u8) = (2, 6);

/// P2. Commands are carried out in the order of their CmdSNs, whichever connections they come by and whenever.
#[test]
fn commands_of_several_connections_are_carried_out_in_the_order_of_their_numbers() {
    let world = World::start();
    for connections in [2, 4] {
        let mut session = world.session();
        (2..=connections).for_each(|cid| session.join(cid));
        let connections = usize::from(connections);
        for round in 0..8_u32 {
            let first = session.cmd_sn;
            // A write of each number to one place, and a read behind each; the first of all comes last.
            let count = 24;
            session.cmd_sn += count;
            let mut places: Vec<u32> = (1..count).map(|place| 1 + (place * 7 + round) % (count - 1)).collect();
            places.push(0);
            let mut itts = Vec::new();
            for place in places {
                let itt = session.next_itt();
                let at = usize::try_from(itt).unwrap() % connections;
                let byte = u8::try_from(place / 2 + 1).unwrap();
                let numbers = (itt, first + place);
                let pdu = if place % 2 == 0 {
                    command(WRITE | ORDERED, numbers, 4096, &write10(64, 8)).with_data(&filled(byte, 4096))
                } else {
                    command(READ | ORDERED, numbers, 4096, &read10(64, 8))
                };
                session.connections[at].send(&pdu);
                itts.push((at, itt, place, byte));
                assert!(
                    place == 0
                        || round > 0
                        || matches!(session.connections[at].hear(Duration::from_millis(2)), Heard::Silence)
                );
            }
            for (at, itt, place, byte) in in_order_of_answers(itts) {
                let answer = session.finish(at, itt, &[]);
                assert_eq!(answer.status, 0, "{answer:?}");
                assert!(
                    place % 2 == 0 || is_all(&answer.data, byte),
                    "the read behind write {byte}: {:?}",
                    answer.data[0]
                );
            }
            assert!(is_all(&session.read(0, 64, 8), 12));
        }
    }
    world.end();
}

/// Ordered commands are answered in their order, on each connection.
fn in_order_of_answers(mut itts: Vec<(usize, u32, u32, u8)>) -> Vec<(usize, u32, u32, u8)> {
    itts.sort_by_key(|(_, _, place, _)| *place);
    itts
}

/// P6. A connection that dies takes its commands with it and nothing else; the session goes on by the others.
#[test]
fn a_session_outlives_a_connection() {
    let world = World::start();
    let mut session = world.session();
    (2..=4).for_each(|cid| session.join(cid));
    session.write(3, 0, &filled(1, 8192));
    // One waits for data, one for a command before it that never comes by the connection.
    let (_, _) = session.open_write(1, 0, 8192);
    let lost = session.next();
    let behind = session.next();
    session.connections[1].send(&command(WRITE | SIMPLE, behind, 8192, &write10(8, 16)).with_data(&filled(9, 8192)));
    session.connections[1].shut_down();
    // Taken out of the list by its end only.
    std::thread::sleep(Duration::from_millis(300));
    // What was lost comes by another connection: the number of the one that is gone counts as used.
    session.connections[2].send(&command(SIMPLE, lost, 0, &[0; 6]));
    assert_eq!(session.finish(2, lost.0, &[]).status, 0);
    for at in [0, 2, 3] {
        session.ping(at);
        assert!(is_all(&session.read(at, 0, 16), 1));
        assert!(is_all(&session.read(at, 8, 8), 1), "what waited on the dead connection is not written");
    }
    let window = session.connections[3].max_cmd_sn.wrapping_sub(session.connections[3].exp_cmd_sn).wrapping_add(1);
    assert_eq!(window, 128, "the dead connection's commands give their places back");
    session.join(9);
    session.ping(4);
    drop(session);
    world.end();
}

/// RFC 7143 13.2. A session has no more connections than was agreed.
#[test]
fn more_connections_than_agreed_are_refused() {
    let world = World::start();
    for most in [1, 2, 8] {
        let mut session = world.session_with(&[("MaxConnections", &most.to_string())]);
        (2..=most).for_each(|cid| session.join(cid));
        assert_eq!(session.joining(most + 1).enter().err(), Some(TOO_MANY_CONNECTIONS), "of {most}");
        session.ping(0);
    }
    world.end();
}

/// RFC 7143 13.13, 13.9. What a session agreed on holds for the connections that join it, whatever these offer.
#[test]
fn a_joining_connection_keeps_to_what_the_session_agreed_on() {
    let world = World::start();
    let mut session = world.session_with(&[("MaxBurstLength", "8192"), ("FirstBurstLength", "4096")]);
    let joined = session.joining(2).with("MaxBurstLength", "1048576").enter().unwrap();
    assert_eq!(joined.answer("MaxBurstLength"), Some("Irrelevant"));
    session.connections.push(joined.connection);
    let data = crate::tool::noise(3, 65536);
    for at in [0, 1] {
        let answer = session.run(at, (WRITE | SIMPLE, 65536), &write10(0, 128), &data);
        assert_eq!(answer.asked.len(), 8, "connection {at}: {:?}", answer.asked);
        let answer = session.run(at, (READ | SIMPLE, 65536), &read10(0, 128), &[]);
        assert!(answer.data == data);
        assert_eq!(answer.sequences, 8, "connection {at}");
    }
    drop(session);
    world.end();
}

/// RFC 7143 6.3.3. A connection of a session that logs in again under its CID takes the old one's place.
#[test]
fn a_connection_is_reinstated_under_its_cid() {
    let world = World::start();
    let mut session = world.session_with(&[("MaxConnections", "2")]);
    session.join(2);
    session.write(1, 0, &filled(1, 8192));
    let (itt, asked) = session.open_write(1, 0, 8192);
    session.join(2);
    let said = session.connections[1].hear_to_the_end();
    assert!(said.is_empty(), "{said:?}");
    // Nothing of the old one's is taken from the new one.
    send_asked(&mut session.connections[2], &asked, &filled(2, 8192));
    session.ping(2);
    assert!(is_all(&session.read(2, 0, 16), 1), "the write {itt} ended with its connection");
    session.ping(0);
    // Again and again, without a place being lost.
    for at in 3..12 {
        session.join(2);
        session.ping(at);
        session.ping(0);
    }
    drop(session);
    world.end();
}

/// P2, RFC 7143 6.3.5. A session that takes the place of one with commands under way is behind all of them: none is seen later.
#[test]
fn a_session_that_replaces_another_is_behind_all_of_its_commands() {
    let world = World::start();
    let ceiling = |iops: &[&str]| drop(succeed(world.daemon.aljibe(&["volume", "set", "a"]).args(iops)));
    for round in 0..4_u8 {
        let login = Login { isid: [0x80, 0, 0, 0, 0, 4], ..world.login(super::HOST) };
        let mut old = Session::begin(login.clone());
        old.join(2);
        old.write(0, 0, &filled(1, 65536));
        // Some wait for data, some for the ceiling, some may be under way.
        let (_, asked) = old.open_write(1, 0, 65536);
        if round % 2 == 0 {
            ceiling(&["--iops", "20", "--iops-burst", "10"]);
        }
        for count in 0..60_u32 {
            let numbers = old.next();
            let pdu = command(WRITE | SIMPLE, numbers, 65536, &write10(0, 128)).with_data(&filled(2, 65536));
            old.connections[usize::try_from(count % 2).unwrap()].send(&pdu);
        }
        let begin = Instant::now();
        let mut new = Session::begin(login);
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        assert_ne!(new.login.tsih, old.login.tsih);
        let pdu = crate::initiator::data_out(true, (asked.itt(), asked.word(20)), 0, 0, &filled(3, 65536));
        let bytes = old.connections[1].encode(&pdu, crate::initiator::Spoilt::Nothing);
        old.connections[1].try_send(&bytes);
        if round % 2 == 0 {
            ceiling(&["--iops", "0"]);
        }
        new.write(0, 0, &filled(4, 65536));
        for connection in &mut old.connections {
            connection.hear_to_the_end();
        }
        for _ in 0..5 {
            assert!(is_all(&new.read(0, 0, 128), 4));
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(old.joining(3).enter().err(), Some((2, 0x0a)), "the old session is not there any more");
    }
    world.end();
}

/// RFC 7143 6.3.5. A session that is idle is replaced at once by one of its initiator port, and its connections are closed.
#[test]
fn an_idle_session_is_replaced_at_once() {
    let world = World::start();
    let mut old = Session::begin(world.login(super::HOST));
    old.join(2);
    for round in 0..3 {
        let begin = Instant::now();
        let again = world.login(super::HOST).enter();
        assert!(begin.elapsed() < Duration::from_secs(5), "round {round}: {:?}", begin.elapsed());
        old.connections.iter_mut().for_each(|connection| drop(connection.hear_to_the_end()));
        let admission = again.unwrap();
        old.login.tsih = admission.tsih;
        old.connections = vec![admission.connection];
        old.cmd_sn = 1;
        assert_eq!(old.run(0, (SIMPLE, 0), &[0; 6], &[]).sense, Some((6, 0x29, 0)));
        old.ping(0);
    }
    drop(old);
    world.end();
}

/// RFC 7143 6.3.5. So is one that has only just begun, and connections join one as soon as it has its number.
#[test]
fn a_session_that_has_only_just_begun_is_joined_and_replaced() {
    let world = World::start();
    let mut kept = Vec::new();
    for round in 0..100 {
        let begin = Instant::now();
        let first = world.login(super::HOST).enter().unwrap();
        let joining = Login { tsih: first.tsih, cid: 2, ..world.login(super::HOST) };
        let mut joined = joining.enter().unwrap();
        let mut session_ping = |cmd_sn: u32| {
            joined.connection.send(&crate::initiator::nop_out((cmd_sn, cmd_sn), b"").immediate());
            assert_eq!(joined.connection.receive().opcode(), opcode::NOP_IN, "round {round}");
        };
        session_ping(1);
        assert!(begin.elapsed() < Duration::from_secs(5), "round {round}: {:?}", begin.elapsed());
        // The old connections stay open on this side.
        kept.push((first.connection, joined.connection));
    }
    drop(kept);
    world.end();
}

/// A session whose every connection is closed is over: its number names none, and its initiator comes back at once.
#[test]
fn a_session_ends_with_its_last_connection() {
    let world = World::start();
    let mut session = world.session();
    session.join(2);
    session.ping(1);
    session.connections.remove(0).shut_down();
    session.ping(0);
    let gone = session.joining(3);
    session.connections.remove(0).shut_down();
    crate::tool::wait_until("the session is over", || gone.enter().err() == Some((2, 0x0a)));
    let mut again = world.session();
    let pdu = nop_of(&mut again);
    assert_eq!(pdu.opcode(), opcode::NOP_IN);
    assert_eq!(len_of(&pdu.data), 3);
    world.end();
}

fn nop_of(session: &mut Session) -> crate::initiator::Pdu {
    let numbers = session.next();
    session.connections[0].send(&crate::initiator::nop_out(numbers, b"abc"));
    session.connections[0].receive()
}
