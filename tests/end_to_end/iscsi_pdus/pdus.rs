//! The other PDUs: pings, text, logout, and what a target does not take. RFC 7143 11.10 to 11.18.

use super::{TARGET, World, filled, is_all, reason};
use crate::initiator::{CONTINUE, FINAL, Heard, Pdu, Session, logout, nop_out, pairs, text};
use proto::iscsi::constants::{RESERVED_TAG, logout_reason, logout_response, opcode};
use std::time::{Duration, Instant};

/// RFC 7143 11.18. What comes with a ping goes back, whatever its length; a segment longer than was declared ends the connection.
#[test]
fn what_comes_with_a_ping_goes_back() {
    let world = World::start();
    let mut session = world.session();
    for len in [0, 1, 3, 512, 4095, 65535, 65536, 65537, 262_141, 262_144] {
        let data = crate::tool::noise(9, len);
        let (itt, cmd_sn) = session.next();
        session.connections[0].send(&nop_out((itt, cmd_sn), &data));
        let answer = session.connections[0].receive();
        assert_eq!((answer.opcode(), answer.itt(), answer.word(20)), (opcode::NOP_IN, itt, RESERVED_TAG), "{len}");
        assert!(answer.data == data, "{len}");
        assert_eq!(answer.word(28), cmd_sn.wrapping_add(1), "ExpCmdSN");
    }
    // Many at once, without taking the answers at first: none is lost.
    let data = crate::tool::noise(9, 262_144);
    let first = session.cmd_sn;
    for number in 0..60 {
        let (itt, cmd_sn) = session.next();
        assert_eq!(cmd_sn, first + number);
        session.connections[0].send(&nop_out((itt, cmd_sn), &data[..if number % 2 == 0 { 9 } else { 65536 }]));
    }
    for number in 0..60 {
        let answer = session.connections[0].receive();
        assert_eq!(answer.data.len(), if number % 2 == 0 { 9 } else { 65536 });
    }
    // Without a tag no answer is wanted; it is immediate, or wrong.
    session.connections[0].send(&nop_out((RESERVED_TAG, session.cmd_sn), b"").immediate());
    session.connections[0].hear_nothing();
    session.connections[0].send(&nop_out((RESERVED_TAG, session.cmd_sn), b""));
    assert_eq!(session.connections[0].receive().opcode(), opcode::REJECT);
    session.ping(0);
    let long = nop_out(session.next(), &filled(1, 262_145));
    let bytes = session.connections[0].encode(&long, crate::initiator::Spoilt::Nothing);
    session.connections[0].try_send(&bytes);
    session.connections[0].hear_to_the_end();
    world.end();
}

/// P6, RFC 7143 11.19. An initiator that says nothing for 15 seconds is asked whether it is there, and given up if it is not.
#[test]
fn a_silent_initiator_is_asked_and_then_given_up() {
    let world = World::start();
    let (mut awake, mut asleep) = (world.session(), world.other_session());
    awake.write(0, 0, &filled(1, 512));
    let begin = Instant::now();
    let Heard::Pdu(asked) = awake.connections[0].hear(Duration::from_secs(25)) else { panic!("nobody asks") };
    assert!(begin.elapsed() > Duration::from_secs(13), "{:?}", begin.elapsed());
    assert_eq!((asked.opcode(), asked.itt()), (opcode::NOP_IN, RESERVED_TAG), "{asked:?}");
    assert_ne!(asked.word(20), RESERVED_TAG, "an answer is wanted");
    awake.connections[0].answer_ping(&asked);
    let said = asleep.connections[0].hear_to_the_end_within(Duration::from_secs(40));
    assert!(begin.elapsed() < Duration::from_secs(45), "{:?}", begin.elapsed());
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!((said[0].opcode(), said[0].itt()), (opcode::NOP_IN, RESERVED_TAG));
    // A second one may be under way to the one who answers.
    while let Heard::Pdu(pdu) = awake.connections[0].hear(Duration::from_millis(100)) {
        assert_eq!(pdu.opcode(), opcode::NOP_IN);
    }
    awake.ping(0);
    assert!(is_all(&awake.read(0, 0, 1), 1));
    drop((awake, asleep));
    world.end();
}

fn ask(session: &mut Session, keys: &[u8]) -> Pdu {
    let numbers = session.next();
    session.connections[0].send(&text(FINAL, numbers, RESERVED_TAG, keys));
    let answer = session.connections[0].receive();
    assert_eq!(
        (answer.opcode(), answer.itt(), answer.has(FINAL)),
        (opcode::TEXT_RESPONSE, numbers.0, true),
        "{answer:?}"
    );
    answer
}

/// RFC 7143 11.10, appendix C. A session is told of its own target, by text in one piece or several; what cannot be asked for
/// then is refused.
#[test]
fn a_session_asks_by_text_for_its_own_target() {
    let world = World::start();
    let mut session = world.session();
    let address = format!("{},1", world.daemon.iscsi());
    let own = [("TargetName".to_owned(), TARGET.to_owned()), ("TargetAddress".to_owned(), address)];
    for keys in ["SendTargets=\0".to_owned(), "SendTargets=All\0".to_owned(), format!("SendTargets={TARGET}\0")] {
        assert_eq!(pairs(&ask(&mut session, keys.as_bytes()).data), own, "{keys}");
    }
    let answer = ask(&mut session, b"SendTargets=iqn.2026-11.io.aljibe:other\0MaxBurstLength=512\0X-what=1\0");
    let told = pairs(&answer.data);
    assert!(told.iter().all(|(key, _)| key != "TargetName"), "{told:?}");
    assert!(told.contains(&("MaxBurstLength".to_owned(), "Reject".to_owned())), "{told:?}");
    assert!(told.contains(&("X-what".to_owned(), "NotUnderstood".to_owned())), "{told:?}");
    // In pieces: each is asked for on with the target's tag. RFC 7143 11.10.4.
    let (itt, mut ttt) = (session.next_itt(), RESERVED_TAG);
    let keys = b"SendTargets=All\0";
    for (place, piece) in keys.chunks(5).enumerate() {
        let is_last = place == 3;
        let cmd_sn = session.next().1;
        session.connections[0].send(&text(if is_last { FINAL } else { CONTINUE }, (itt, cmd_sn), ttt, piece));
        let answer = session.connections[0].receive();
        assert_eq!((answer.opcode(), answer.itt()), (opcode::TEXT_RESPONSE, itt), "{answer:?}");
        ttt = answer.word(20);
        if is_last {
            assert_eq!(pairs(&answer.data), own);
            assert!(answer.has(FINAL) && ttt == RESERVED_TAG, "{answer:?}");
        } else {
            assert!(answer.data.is_empty() && !answer.has(FINAL) && ttt != RESERVED_TAG, "{answer:?}");
        }
    }
    for (flags, keys) in [(FINAL | CONTINUE, &b"SendTargets=\0"[..]), (FINAL, b"nonsense\0"), (FINAL, b"A=\xff\0")] {
        let immediate = session.next_immediate();
        session.connections[0].send(&text(flags, immediate, RESERVED_TAG, keys).immediate());
        assert_eq!(session.connections[0].receive().opcode(), opcode::REJECT);
    }
    // Segments as small as is told now.
    ask(&mut session, b"MaxRecvDataSegmentLength=512\0");
    let data = crate::tool::noise(4, 8192);
    session.write(0, 0, &data);
    assert!(session.read(0, 0, 16) == data);
    drop(session);
    world.end();
}

/// P6. Text that never ends is bounded.
#[test]
fn text_that_never_ends_is_bounded() {
    let world = World::start();
    let mut session = world.session();
    let itt = session.next_itt();
    let mut refused = 0;
    for _ in 0..100 {
        let cmd_sn = session.next().1;
        session.connections[0].send(&text(CONTINUE, (itt, cmd_sn), RESERVED_TAG, &filled(b'a', 8192)));
        refused += usize::from(session.connections[0].receive().opcode() == opcode::REJECT);
    }
    assert!(refused > 0);
    session.ping(0);
    drop(session);
    world.end();
}

/// RFC 7143 11.14, 11.15. A connection is logged out by itself or by another one, a session as a whole, a stranger not at all.
#[test]
fn logouts_end_what_they_name() {
    let world = World::start();
    let mut session = world.session();
    (2..=4).for_each(|cid| session.join(cid));
    let say = |session: &mut Session, at: usize, reason: u8, cid: u16| {
        let numbers = session.next();
        session.connections[at].send(&logout(reason, numbers, cid));
        let answer = session.connections[at].receive();
        assert_eq!((answer.opcode(), answer.itt()), (opcode::LOGOUT_RESPONSE, numbers.0), "{answer:?}");
        answer.bhs[2]
    };
    let close = logout_reason::CLOSE_CONNECTION;
    assert_eq!(say(&mut session, 0, close, 77), logout_response::CID_NOT_FOUND);
    assert_eq!(say(&mut session, 0, logout_reason::REMOVE_FOR_RECOVERY, 2), logout_response::RECOVERY_UNSUPPORTED);
    (0..4).for_each(|at| session.ping(at));
    assert_eq!(say(&mut session, 1, close, 2), logout_response::CLOSED);
    assert!(session.connections[1].hear_to_the_end().is_empty());
    let waiting = session.open_write(2, 0, 4096);
    assert_eq!(say(&mut session, 0, close, 3), logout_response::CLOSED);
    let said = session.connections[2].hear_to_the_end();
    assert!(said.is_empty(), "{waiting:?} is not answered: {said:?}");
    session.ping(0);
    session.ping(3);
    assert_eq!(say(&mut session, 0, close, 3), logout_response::CID_NOT_FOUND, "it is gone");
    assert_eq!(say(&mut session, 3, logout_reason::CLOSE_SESSION, 0), logout_response::CLOSED);
    for at in [0, 3] {
        assert!(session.connections[at].hear_to_the_end().is_empty(), "connection {at}");
    }
    crate::tool::wait_until("the session is over", || session.joining(9).enter().err() == Some((2, 0x0a)));
    world.end();
}

/// RFC 7143 11.16, 11.17. What is not spoken here is rejected, with its own header, and the connection goes on; a login on a
/// connection that has one ends it.
#[test]
fn what_a_target_does_not_take_is_rejected() {
    let world = World::start();
    let mut session = world.session();
    let tagged = |opcode: u8, cmd_sn: u32| Pdu::new(opcode, FINAL).put_word(16, 0x5555).put_word(24, cmd_sn);
    let cmd_sn = session.cmd_sn;
    let strange = [0x07, 0x0f, 0x11, 0x1c, 0x1f, opcode::NOP_IN, opcode::RESPONSE, opcode::R2T, opcode::REJECT];
    for (opcode, why) in
        strange.map(|opcode| (opcode, reason::NOT_SUPPORTED)).into_iter().chain([(opcode::SNACK, reason::SNACK)])
    {
        for data in [&b""[..], b"abc"] {
            let pdu = tagged(opcode, cmd_sn).with_data(data);
            session.connections[0].send(&pdu);
            let refused = session.connections[0].receive();
            assert_eq!((refused.opcode(), refused.bhs[2]), (opcode::REJECT, why), "{opcode:#x}: {refused:?}");
            assert_eq!(
                refused.data[..28],
                session.connections[0].encode(&pdu, crate::initiator::Spoilt::Nothing)[..28]
            );
            assert_eq!(refused.itt(), RESERVED_TAG);
        }
    }
    // None of them has used its number.
    session.ping(0);
    let again = session.login.request(b"InitiatorName=x\0", false);
    session.connections[0].send(&again);
    let said = session.connections[0].hear_to_the_end();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!((said[0].opcode(), said[0].bhs[2]), (opcode::REJECT, reason::PROTOCOL));
    world.end();
}
