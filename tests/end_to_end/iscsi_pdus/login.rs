//! Logins: the keys, the text that goes over several PDUs, and who is turned away. RFC 7143 6, 11.12, 11.13, 13.

use super::{HOST, OTHER_HOST, World, filled};
use crate::initiator::{Connection, Login, SIMPLE, Session, WRITE, len_of, write10};
use proto::iscsi::constants::opcode;

const FORBIDDEN_VERSION: (u8, u8) = (2, 5);
const NOT_FOUND: (u8, u8) = (2, 3);
const INITIATOR_ERROR: (u8, u8) = (2, 0);
const MISSING_PARAMETER: (u8, u8) = (2, 7);
const NO_SESSION: (u8, u8) = (2, 0x0a);

/// Offers out of the usual order, among them two that no RFC knows, and what is to come of each.
const OFFERS: [(&str, &str, Option<&str>); 22] = [
    ("OFMarkInt", "2048~8192", Some("Reject")),
    ("FirstBurstLength", "131072", Some("65536")),
    ("X-com.example.color", "blue", Some("NotUnderstood")),
    ("TaskReporting", "FastAbort,RFC3720", Some("RFC3720")),
    ("ErrorRecoveryLevel", "2", Some("0")),
    ("DataDigest", "None,CRC32C", Some("None")),
    ("DefaultTime2Retain", "3600", Some("0")),
    ("MaxBurstLength", "65536", Some("65536")),
    ("OFMarker", "Yes", Some("No")),
    ("IFMarker", "No", Some("No")),
    ("IFMarkInt", "2048", Some("Reject")),
    ("MaxRecvDataSegmentLength", "512", None),
    ("DataSequenceInOrder", "No", Some("Yes")),
    ("MaxConnections", "65535", Some("8")),
    ("DefaultTime2Wait", "0", Some("2")),
    ("DataPDUInOrder", "No", Some("Yes")),
    ("InitialR2T", "No", Some("No")),
    ("ImmediateData", "No", Some("No")),
    ("HeaderDigest", "CRC32C,None", Some("CRC32C")),
    ("MaxOutstandingR2T", "16", Some("1")),
    ("iSCSIProtocolLevel", "31", Some("1")),
    ("X-com.example.shape-of-the-thing", "a very long value that nobody has use for", Some("NotUnderstood")),
];

/// P2. Every operational key is answered by its rule, in whatever order and pieces it comes, and what was agreed on holds after.
#[test]
fn every_key_is_answered_by_its_rule_in_whatever_order_and_pieces() {
    let world = World::start();
    for piece_bytes in [8192, 512, 61, 7] {
        let mut login = Login { keys: Vec::new(), piece_bytes, ..world.login(HOST) };
        let is_short = piece_bytes < 30;
        // No more than 32 requests make a login, so that small pieces are for few keys.
        let offers = OFFERS.iter().filter(|(key, _, _)| !is_short || ["HeaderDigest"].contains(key));
        for (key, value, _) in offers.clone() {
            login = login.with(key, value);
        }
        let admission = login.enter().unwrap();
        for (key, _, answer) in offers.filter(|(key, _, _)| *key != "MaxRecvDataSegmentLength") {
            assert_eq!(admission.answer(key), *answer, "{key} in pieces of {piece_bytes}");
        }
        assert_eq!(admission.answer("MaxRecvDataSegmentLength"), Some("262144"));
        assert_eq!(admission.answer("TargetPortalGroupTag"), Some("1"));
        assert_ne!(admission.tsih, 0);
    }
    let login = OFFERS.iter().fold(world.login(OTHER_HOST), |login, (key, value, _)| login.with(key, value));
    let mut session = Session::begin(login);
    let data = crate::tool::noise(1, 200_704);
    let answer = session.run(0, (WRITE | SIMPLE, len_of(&data)), &write10(8, 392), &data);
    assert_eq!(answer.asked, [(0, 65536), (65536, 65536), (131_072, 65536), (196_608, 4096)]);
    assert_eq!(session.read(0, 8, 392), data, "and it comes back in segments of 512");
    drop(session);
    world.end();
}

/// RFC 7143 11.13.5. Who is not let in is told why, and leaves the session be whose place it wanted.
#[test]
fn who_is_not_let_in_is_told_why() {
    let world = World::start();
    let mut session = world.session();
    let joining = session.joining(2);
    let isid = [0x80, 0, 0, 0, 0, 9];
    let refused = [
        (Login { tsih: joining.tsih ^ 0x55, ..joining.clone() }, NO_SESSION),
        (Login { tsih: 0xffff, ..world.login(OTHER_HOST) }, NO_SESSION),
        (Login { isid, ..joining.clone() }, NO_SESSION),
        (Login { initiator: OTHER_HOST.to_owned(), ..joining.clone() }, NO_SESSION),
        (Login { target: "iqn.2026-11.io.aljibe:none".to_owned(), ..world.login(HOST) }, NOT_FOUND),
        (Login { target: "iqn.2026-11.io.aljibe:none".to_owned(), ..joining }, NOT_FOUND),
        (Login { initiator: String::new(), ..world.login(HOST) }, MISSING_PARAMETER),
        (Login { target: String::new(), ..world.login(HOST) }, MISSING_PARAMETER),
        (world.login(HOST).with("SessionType", "Sometimes"), (2, 9)),
        // A key that is told twice; a text without an equals sign, and one that is none.
        (world.login(HOST).with("InitiatorName", HOST), INITIATOR_ERROR),
        (world.login(HOST).with("AuthMethod", "None"), INITIATOR_ERROR),
    ];
    for (login, status) in refused {
        assert_eq!(login.enter().err(), Some(status), "{login:?}");
        session.ping(0);
    }
    for (text, status) in [(&b"nonsense\0"[..], INITIATOR_ERROR), (b"InitiatorName=\xff\xfe\0", INITIATOR_ERROR)] {
        let mut connection = Connection::open(&world.daemon.iscsi());
        connection.send(&world.login(HOST).request(text, false));
        let said = connection.hear_to_the_end();
        assert_eq!((said.len(), said[0].bhs[36], said[0].bhs[37]), (1, status.0, status.1));
    }
    session.write(0, 0, &filled(1, 512));
    drop(session);
    world.end();
}

/// RFC 7143 6.3, 11.12. What is no login, or none that can be spoken to, ends the connection and nothing else.
#[test]
fn a_login_that_is_none_ends_its_connection() {
    let world = World::start();
    let mut session = world.session();
    let login = world.login(HOST);
    let mut newer = login.request(b"", false);
    (newer.bhs[2], newer.bhs[3]) = (7, 5);
    let mut long = login.request(&filled(b'a', 8193), false);
    long.data[8192] = 0;
    let mut command = login.request(b"", false);
    command.bhs[0] = opcode::COMMAND;
    for (pdu, status) in [(newer, Some(FORBIDDEN_VERSION)), (long, Some(INITIATOR_ERROR)), (command, None)] {
        let mut connection = Connection::open(&login.address);
        connection.send(&pdu);
        let said = connection.hear_to_the_end();
        let told = said.first().map(|response| (response.bhs[36], response.bhs[37]));
        assert_eq!(told, status, "{said:?}");
    }
    // Text that never ends.
    let mut connection = Connection::open(&login.address);
    let endless = login.request(&filled(b'a', 8000), true);
    let bytes = connection.encode(&endless, crate::initiator::Spoilt::Nothing);
    let taken = (0..64).take_while(|_| connection.try_send(&bytes)).count();
    let said = connection.hear_to_the_end();
    assert!(said.len() <= 32, "{taken} requests were answered by {}", said.len());
    session.ping(0);
    drop(session);
    world.end();
}
