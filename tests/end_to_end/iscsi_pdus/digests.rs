//! Digests that fit and digests that do not. RFC 7143 7.7, 7.8, 13.1, 13.2.

use super::{World, filled, is_all, reason};
use crate::initiator::{SIMPLE, Session, Spoilt, WRITE, command, data_out, nop_out, write10};
use proto::iscsi::constants::opcode;

fn session(world: &World, header: &str, data: &str) -> Session {
    world.session_with(&[("HeaderDigest", header), ("DataDigest", data)])
}

/// P2. Whatever digests were agreed on, what is written is read, and every answer's digest fits.
#[test]
fn data_is_the_same_with_every_pair_of_digests() {
    let world = World::start();
    let mut seed = 0;
    for header in ["None", "CRC32C"] {
        for digest in ["None", "CRC32C"] {
            let mut session = session(&world, header, digest);
            for blocks in [1_u16, 7, 8, 300, 2048] {
                seed += 1;
                let data = crate::tool::noise(seed, usize::from(blocks) * 512);
                session.write(0, 3, &data);
                assert!(session.read(0, 3, blocks) == data, "{blocks} blocks with {header} and {digest}");
            }
            for len in [0, 1, 2, 3, 4, 511, 4097] {
                let numbers = session.next();
                let data = crate::tool::noise(seed, len);
                session.connections[0].send(&nop_out(numbers, &data));
                assert!(session.connections[0].receive().data == data);
            }
        }
    }
    world.end();
}

/// P2, RFC 7143 7.7. A header whose digest does not fit ends the connection; nothing of it is taken for true.
#[test]
fn a_header_that_does_not_fit_its_digest_ends_the_connection() {
    let world = World::start();
    let mut other = world.other_session();
    other.write(0, 0, &filled(1, 4096));
    for with_data in [true, false] {
        let mut session = session(&world, "CRC32C", "None");
        session.join(2);
        let numbers = session.next();
        let pdu = command(WRITE | SIMPLE, numbers, 4096, &write10(0, 8)).with_data(&filled(2, 4096));
        let pdu = if with_data { pdu } else { nop_out(numbers, b"") };
        session.connections[0].send_spoilt(&pdu, Spoilt::HeaderDigest);
        let said = session.connections[0].hear_to_the_end();
        assert!(said.is_empty(), "{said:?}");
        assert!(is_all(&other.read(0, 0, 8), 1));
        // The number was not used: the session may use it.
        session.cmd_sn = numbers.1;
        session.ping(1);
    }
    drop(other);
    world.end();
}

/// P2, RFC 7143 7.8. Data whose digest does not fit is rejected and not written, and at level 0 the connection ends.
#[test]
fn data_that_does_not_fit_its_digest_is_rejected_and_not_written() {
    let world = World::start();
    let mut other = world.other_session();
    other.write(0, 0, &filled(1, 128 << 10));
    for kind in ["immediate", "unsolicited", "solicited", "large", "ping"] {
        let mut session = session(&world, "CRC32C", "CRC32C");
        let bytes = if kind == "large" { 128 << 10 } else { 4096 };
        let spoilt = if kind == "solicited" || kind == "large" {
            let (itt, asked) = session.open_write(0, 0, bytes);
            let data = filled(2, usize::try_from(bytes).unwrap());
            data_out(true, (itt, asked.word(20)), 0, 0, &data)
        } else {
            let numbers = session.next();
            let written = command(WRITE | SIMPLE, numbers, 4096, &write10(0, 8));
            match kind {
                "immediate" => written.with_data(&filled(2, 4096)),
                "unsolicited" => {
                    session.connections[0].send(&written.not_final());
                    data_out(true, (numbers.0, u32::MAX), 0, 0, &filled(2, 4096))
                }
                _ => nop_out(numbers, b"abc"),
            }
        };
        session.connections[0].send_spoilt(&spoilt, Spoilt::DataDigest);
        let said = session.connections[0].hear_to_the_end();
        assert_eq!(said.len(), 1, "{kind}: {said:?}");
        assert_eq!((said[0].opcode(), said[0].bhs[2]), (opcode::REJECT, reason::DATA_DIGEST), "{kind}: {said:?}");
        assert_eq!(said[0].data[16..20], spoilt.bhs[16..20], "the header that is refused comes back");
        assert!(is_all(&other.read(0, 0, 256), 1), "{kind}");
    }
    drop(other);
    world.end();
}
