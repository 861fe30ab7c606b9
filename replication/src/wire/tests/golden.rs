//! The bytes of each frame as docs/mirror.md has them: they change with the version only.

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A header's hex: kind, bytes of the body, group, epoch.
fn is_written(frame: Frame, vector: &str) {
    let vector: String = vector.split_whitespace().collect();
    let bytes = bytes_of(frame);
    let shown = hex(&bytes[..bytes.len().min(vector.len() / 2)]);
    assert_eq!(shown, vector);
    let [read] = <[Frame; 1]>::try_from(read_all(&bytes, bytes.len()).unwrap()).unwrap();
    assert_eq!(hex(&bytes_of(read)), hex(&bytes));
}

const IDS: (GroupId, Epoch) = (GroupId(0x0102), Epoch(7));
const HEAD: &str = "0201000000000000 0700000000000000";

/// P4. The frames of a group's log are these bytes.
#[test]
fn frames_of_the_log() {
    let (group, epoch) = IDS;
    let want = format!("0200 0000 18000000 {HEAD} 0700000000000000 0600000000000000 3412000000000000");
    let (segment, lsn) = (Some(SegmentId(6)), Lsn(0x1234));
    is_written(Frame::Want { group, epoch, number: 7, segment, lsn }, &want);
    let want = format!("0200 0000 18000000 {HEAD} 0700000000000000 ffffffffffffffff 0000000000000000");
    is_written(Frame::Want { group, epoch, number: 7, segment: None, lsn: Lsn::ZERO }, &want);
    is_written(Frame::Begins { group, epoch, number: 7 }, &format!("0e00 0000 08000000 {HEAD} 0700000000000000"));
    let stretch = Stretch { segment: SegmentId(6), first_lsn: Lsn(0x1200), last_lsn: Lsn(0x1234) };
    let bytes = "0600000000000000 0012000000000000 3412000000000000";
    let align = format!("0c00 0000 38000000 {HEAD} 0900000000000000 {bytes} {bytes}");
    is_written(Frame::Align { group, epoch, number: 9, stretches: vec![stretch, stretch] }, &align);
    let aligned = format!("0d00 0000 11000000 {HEAD} 0900000000000000 01 3412000000000000");
    is_written(Frame::Aligned { group, epoch, number: 9, parting: Parting::Behind(lsn) }, &aligned);
    let untold = format!("0d00 0000 11000000 {HEAD} 0900000000000000 00 0000000000000000");
    is_written(Frame::Aligned { group, epoch, number: 9, parting: Parting::Untold }, &untold);
    let buffers = vec![Buffer::copy_of(&[0xaa; 4096]), Buffer::copy_of(&[0xbb; 8192])];
    let batch = format!("0300 0000 0c300000 {HEAD} 02000000 01000000 02000000 aaaa");
    is_written(Frame::Batch { group, epoch, buffers }, &batch);
    let durable = format!("0500 0000 08000000 {HEAD} 0500000000000000");
    is_written(Frame::MakeDurable { group, epoch, lsn: Lsn(5) }, &durable);
    let log = PeerLog { segment: Some(SegmentId(9)), appended: Lsn(8), durable: Lsn(6) };
    let has = format!("0600 0000 18000000 {HEAD} 0900000000000000 0800000000000000 0600000000000000");
    is_written(Frame::Has { group, epoch, log }, &has);
    is_written(Frame::Committed { group, epoch, log }, &has.replacen("0600", "0400", 1));
    let log = PeerLog { segment: None, ..log };
    let has = format!("0600 0000 18000000 {HEAD} ffffffffffffffff 0800000000000000 0600000000000000");
    is_written(Frame::Has { group, epoch, log }, &has);
    for (code, why) in (1_u8..).zip(frame::FELL_OUTS) {
        is_written(Frame::FellOut { group, epoch, why }, &format!("0700 0000 01000000 {HEAD} {code:02x}"));
    }
}

/// P4. The frames by which a copy of a volume is asked for are these bytes.
#[test]
fn frames_of_an_enrolment() {
    let (group, head) = (GroupId(0x0102), "0201000000000000 0000000000000000");
    let (name, class) = ("ab".to_owned(), "c".to_owned());
    let volume = Box::new(Enrolment { volume: VolumeId(8), name, class, created_bytes: 0x1000, created_ms: 5 });
    let body = "0900000000000000 0800000000000000 0010000000000000 0500000000000000 0200 6162 63";
    is_written(Frame::Enrol { group, number: 9, volume }, &format!("0f00 0000 25000000 {head} {body}"));
    let taken = format!("1000 0000 09000000 {head} 0900000000000000 01");
    is_written(Frame::Enrolled { group, number: 9, result: Ok(()) }, &taken);
    let refused = format!("1000 0000 0b000000 {head} 0900000000000000 00 6e6f");
    is_written(Frame::Enrolled { group, number: 9, result: Err(Text::new("no")) }, &refused);
}

/// P4. What is passed on, and what becomes of it, are these bytes.
#[test]
fn frames_of_what_is_passed_on() {
    let (group, epoch) = IDS;
    let range = ByteRange::new(0x1000, 0x200).unwrap();
    let ask = |what, payload| {
        let ask = Ask { number: 9, tick: 0x21, waited_ms: 0x304, what, range, fua: true, payload };
        Frame::Ask { group, epoch, ask: Box::new(ask) }
    };
    let head = |bytes: &str, code: &str| format!("1100 0000 {bytes} {HEAD} 0900000000000000 2100000000000000 {code}");
    let place = "0010000000000000 0002000000000000";
    let write = format!(
        "{} 00000000 {place} 0000000000000000 02000000 01000000 02000000 aa bbbb",
        head("3f000000", "02010403")
    );
    is_written(ask(What::Write, vec![Buffer::copy_of(&[0xaa]), Buffer::copy_of(&[0xbb; 2])]), &write);
    let copy = format!("{} 00000000 {place} 0040000000000000 00000000", head("34000000", "05010403"));
    is_written(ask(What::Copy { source: 0x4000 }, Vec::new()), &copy);
    let extents = format!("{} 07000000 {place} 0000000000000000 00000000", head("34000000", "0a010403"));
    is_written(ask(What::Extents { extents_max: 7 }, Vec::new()), &extents);
    for (code, what) in [(1, What::Read), (3, What::CompareAndWrite), (4, What::OrWrite), (6, What::Trim)] {
        is_written(ask(what, Vec::new()), &head("34000000", &format!("{code:02x}010403")));
    }
    for (code, what) in [(7, What::WriteZeroes), (8, What::Flush), (9, What::Cache)] {
        is_written(ask(what, Vec::new()), &head("34000000", &format!("{code:02x}010403")));
    }

    let answer = |outcome| {
        let answer = Answer { number: 9, tick: 0x21, outcome };
        Frame::Answer { group, epoch, answer: Box::new(answer) }
    };
    let head = |bytes: &str, code: &str| format!("1200 0000 {bytes} {HEAD} 0900000000000000 2100000000000000 {code}");
    let read = Outcome::Read { buffer: Buffer::copy_of(&[0xcc; 3]), skip: 1, len: 2 };
    let vector = format!("{} 01000000 0200000000000000 01000000 03000000 cccccc", head("2b000000", "02000000"));
    is_written(answer(read), &vector);
    let miscompare = format!("{} 00000000 0500000000000000 00000000", head("24000000", "03000000"));
    is_written(answer(Outcome::Miscompare { at: 5 }), &miscompare);
    let extents = vec![Extent { len: 0x1000, is_data: true }, Extent { len: 0x2000, is_data: false }];
    let words = "0010000000000080 0020000000000000";
    let vector = format!("{} 00000000 0000000000000000 01000000 10000000 {words}", head("38000000", "04000000"));
    is_written(answer(Outcome::Extents(extents)), &vector);
    let kinds =
        [ErrorKind::InvalidRequest, ErrorKind::NoSpace, ErrorKind::Fenced, ErrorKind::Closing, ErrorKind::Corrupt];
    for (code, kind) in (1_u8..).zip(kinds.into_iter().chain([ErrorKind::Unavailable, ErrorKind::Poisoned])) {
        let vector = format!(
            "{} 00000000 0000000000000000 01000000 02000000 6e6f",
            head("2a000000", &format!("05{code:02x}0000"))
        );
        is_written(answer(Outcome::Failed(Error::new(kind, "no"))), &vector);
    }
    for (code, outcome) in [(1, Outcome::Done), (6, Outcome::NotHere), (7, Outcome::Stale), (8, Outcome::Lost)] {
        is_written(answer(outcome), &head("24000000", &format!("{code:02x}000000")));
    }
}

/// P4. The frames of a connection are these bytes.
#[test]
fn frames_of_a_connection() {
    let none = "0000000000000000 0000000000000000";
    is_written(Frame::Credit { bytes: 0x2000 }, &format!("0800 0000 08000000 {none} 0020000000000000"));
    is_written(Frame::Ping { number: 3 }, &format!("0900 0000 08000000 {none} 0300000000000000"));
    is_written(Frame::Pong { number: 3 }, &format!("0a00 0000 08000000 {none} 0300000000000000"));
    for (number, code) in [
        (1, ByeCode::Closing),
        (2, ByeCode::Protocol),
        (3, ByeCode::Silence),
        (4, ByeCode::Backlog),
        (5, ByeCode::Replaced),
        (6, ByeCode::Lost),
    ] {
        let bye = Bye { code, text: Text::new("over") };
        is_written(Frame::Bye(bye), &format!("0b00 0000 06000000 {none} {number:02x}00 6f766572"));
    }
}

/// P4. What the role machines say is these bytes.
#[test]
fn messages() {
    let say = |body| Frame::Say {
        group: IDS.0,
        message: Box::new(Message { life: Life(1), heard: Life(2), number: 3, epoch: IDS.1, body }),
    };
    let said = |bytes: &str, body: &str| {
        format!("0100 0000 {bytes} {HEAD} 0100000000000000 0200000000000000 0300000000000000 {body}")
    };
    let at = Position { epoch: Epoch(6), segment: Some(SegmentId(5)), lsn: Lsn(0x1234) };
    let at_hex = "0600000000000000 0500000000000000 3412000000000000";
    let record = Record {
        epoch: Epoch(7),
        primary: SiteId(1),
        partner: Some(SiteId(2)),
        is_sole: false,
        lineage: 1,
        fork: Some(at.into()),
    };
    let text = hex(record.encode().as_bytes());
    let seen = Some(Seen { revision: Revision(9), record });
    let heartbeat = Body::Heartbeat { seen, end: at, leads: true, asks_word: true, disk: DiskState::Full };
    let vector = said("87000000", &format!("01 07 02 {at_hex} 0900000000000000 {text}"));
    is_written(say(heartbeat), &vector);
    let heartbeat = Body::Heartbeat { seen: None, end: at, leads: false, asks_word: false, disk: DiskState::Good };
    is_written(say(heartbeat), &said("33000000", &format!("01 00 00 {at_hex}")));
    is_written(say(Body::Word { of: 8 }), &said("21000000", "02 0800000000000000"));
    is_written(say(Body::HandOver { end: at }), &said("31000000", &format!("03 {at_hex}")));
    is_written(say(Body::Ready { of: 8 }), &said("21000000", "04 0800000000000000"));
}

/// P4. An opening is these bytes, in every version.
#[test]
fn openings() {
    let hello = Hello {
        versions: Versions { min: 1, max: 2 },
        site: SiteId(2),
        wants: SiteId(1),
        pool: PoolId([0x11; 16]),
        link: LinkId([0x22; 16]),
        connection: 3,
        data_connections: 4,
        window_bytes: 0x0400_0000,
    };
    let vector = format!(
        "414c4a4942454d52{}{}{}{}{}{}",
        "01003800",
        "0100020002010000",
        "0300040000000000",
        "11".repeat(16),
        "22".repeat(16),
        "0000000400000000"
    );
    assert_eq!(hex(&Opening::Hello(hello).encode()), vector);
    for (number, code) in
        [(1, RefusalCode::Version), (2, RefusalCode::Site), (3, RefusalCode::Connection), (4, RefusalCode::Protocol)]
    {
        let refusal = Opening::Refusal(Refusal { code, text: Text::new("no") });
        assert_eq!(hex(&refusal.encode()), format!("414c4a4942454d5202000400{number:02x}006e6f"));
        assert_eq!(Opening::decode(&mut refusal.encode().as_slice()), Ok(Some(refusal)));
    }
}
