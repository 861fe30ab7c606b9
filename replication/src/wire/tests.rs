use super::*;
use crate::io::{DiskState, Seen};
use crate::message::{Body, Message};
use crate::passing::{Answer, Ask, Outcome, What};
use crate::position::Position;
use crate::promise::Life;
use crate::record::{EPOCH_MAX, Fork, Record, Revision};
use proptest::prelude::*;
use units::{BLOCK_LEN, ByteRange, Epoch, GroupId, Lsn, PoolId, SegmentId, SiteId, VolumeId};
use volume::buffer::{Buffer, total_len};
use volume::engine::PeerLog;
use volume::error::{Error, ErrorKind};
use volume::io::FellOut;
use volume::parting::{Parting, Stretch};
use volume::request::Extent;

mod golden;

const ALL_CREDIT: u64 = u64::MAX;

fn bytes_of(frame: Frame) -> Vec<u8> {
    Outgoing::new(frame).slices().flatten().copied().collect()
}

/// Reads all frames of `bytes`, received in pieces: into the buffers of batches directly wherever that is offered.
fn read_all(bytes: &[u8], piece_bytes: usize) -> Result<Vec<Frame>, WireError> {
    let mut incoming = Incoming::default();
    let mut kept: Vec<u8> = Vec::new();
    let mut frames = Vec::new();
    let mut bytes = bytes;
    loop {
        loop {
            let mut input = kept.as_slice();
            let frame = incoming.take(&mut input, ALL_CREDIT)?;
            kept = input.to_vec();
            let Some(frame) = frame else { break };
            frames.push(frame);
        }
        if bytes.is_empty() {
            return Ok(frames);
        }
        let count = bytes.len().min(piece_bytes);
        let (here, rest) = match incoming.space() {
            Some(space) if kept.is_empty() => {
                let count = count.min(space.len());
                space[..count].copy_from_slice(&bytes[..count]);
                incoming.advance(count);
                (&bytes[..0], &bytes[count..])
            }
            Some(_) | None => bytes.split_at(count),
        };
        kept.extend_from_slice(here);
        assert!(kept.len() <= Incoming::INPUT_BYTES + piece_bytes, "what is kept is bounded");
        bytes = rest;
    }
}

fn position() -> impl Strategy<Value = Position> {
    (any::<u64>(), segment(), any::<u64>()).prop_map(|(epoch, segment, lsn)| Position {
        epoch: Epoch(epoch),
        segment,
        lsn: Lsn(lsn),
    })
}

fn segment() -> impl Strategy<Value = Option<SegmentId>> {
    prop::option::of((0..=SegmentId::MAX.0).prop_map(SegmentId))
}

fn stretch() -> impl Strategy<Value = Stretch> {
    (0..=SegmentId::MAX.0, any::<[u64; 2]>()).prop_map(|(segment, [a, b])| Stretch {
        segment: SegmentId(segment),
        first_lsn: Lsn(a.min(b)),
        last_lsn: Lsn(a.max(b)),
    })
}

fn log() -> impl Strategy<Value = PeerLog> {
    (segment(), any::<[u64; 2]>()).prop_map(|(segment, [a, b])| PeerLog {
        segment,
        appended: Lsn(a.max(b)),
        durable: Lsn(a.min(b)),
    })
}

fn seen() -> impl Strategy<Value = Seen> {
    (any::<u64>(), 1..=EPOCH_MAX.0, any::<u8>(), any::<bool>(), prop::option::of(position())).prop_map(
        |(revision, epoch, primary, is_sole, fork)| Seen {
            revision: Revision(revision),
            record: Record {
                epoch: Epoch(epoch),
                primary: SiteId(primary),
                partner: Some(SiteId(primary.wrapping_add(1))),
                is_sole,
                lineage: revision,
                fork: fork.map(Fork::from),
            },
        },
    )
}

fn body() -> impl Strategy<Value = Body> {
    let disk = prop::sample::select(vec![DiskState::Good, DiskState::Slow, DiskState::Full, DiskState::Failing]);
    let heartbeat = (prop::option::of(seen()), position(), any::<bool>(), any::<bool>(), disk);
    prop_oneof![
        heartbeat.prop_map(|(seen, end, leads, asks_word, disk)| Body::Heartbeat { seen, end, leads, asks_word, disk }),
        any::<u64>().prop_map(|of| Body::Word { of }),
        position().prop_map(|end| Body::HandOver { end }),
        any::<u64>().prop_map(|of| Body::Ready { of }),
    ]
}

fn buffers() -> impl Strategy<Value = Vec<Buffer>> {
    prop::collection::vec((1_usize..4, any::<u8>()), 1..6).prop_map(|parts| {
        parts.into_iter().map(|(blocks, byte)| Buffer::copy_of(&vec![byte; blocks * BLOCK_LEN])).collect()
    })
}

fn payload() -> impl Strategy<Value = Vec<Buffer>> {
    let piece = (1_usize..9000, any::<u8>()).prop_map(|(bytes, byte)| Buffer::copy_of(&vec![byte; bytes]));
    prop::collection::vec(piece, 0..4)
}

fn ask() -> impl Strategy<Value = Ask> {
    let what = prop_oneof![
        Just(What::Read),
        Just(What::Write),
        Just(What::CompareAndWrite),
        Just(What::OrWrite),
        any::<u64>().prop_map(|source| What::Copy { source }),
        Just(What::Trim),
        Just(What::WriteZeroes),
        Just(What::Flush),
        Just(What::Cache),
        any::<u32>().prop_map(|extents_max| What::Extents { extents_max }),
    ];
    let range = any::<[u32; 2]>().prop_map(|[offset, len]| ByteRange::new(offset.into(), len.into()).unwrap());
    (any::<(u64, u64, u16)>(), what, range, any::<bool>(), payload()).prop_map(
        |((number, tick, waited_ms), what, range, fua, payload)| Ask {
            number,
            tick,
            waited_ms,
            what,
            range,
            fua,
            payload,
        },
    )
}

fn answer() -> impl Strategy<Value = Answer> {
    let kind = prop::sample::select(vec![ErrorKind::InvalidRequest, ErrorKind::NoSpace, ErrorKind::Poisoned]);
    let extent = (0..1_u64 << 63, any::<bool>()).prop_map(|(len, is_data)| Extent { len, is_data });
    let outcome = prop_oneof![
        Just(()).prop_map(|()| Outcome::Done),
        (0_usize..9000, any::<[u32; 2]>()).prop_map(|(bytes, [skip, len])| Outcome::Read {
            buffer: Buffer::zeroed(bytes),
            skip,
            len
        }),
        any::<u64>().prop_map(|at| Outcome::Miscompare { at }),
        prop::collection::vec(extent, 1..20).prop_map(Outcome::Extents),
        (kind, any::<String>()).prop_map(|(kind, detail)| Outcome::Failed(Error::new(kind, detail))),
        Just(()).prop_map(|()| Outcome::NotHere),
        Just(()).prop_map(|()| Outcome::Stale),
        Just(()).prop_map(|()| Outcome::Lost),
    ];
    (any::<u64>(), 1..u64::MAX, outcome).prop_map(|(number, tick, outcome)| Answer { number, tick, outcome })
}

fn passed() -> impl Strategy<Value = Frame> {
    let ids = || (any::<u64>(), any::<u64>()).prop_map(|(group, epoch)| (GroupId(group), Epoch(epoch)));
    prop_oneof![
        (ids(), ask()).prop_map(|((group, epoch), ask)| Frame::Ask { group, epoch, ask: Box::new(ask) }),
        (ids(), answer())
            .prop_map(|((group, epoch), answer)| { Frame::Answer { group, epoch, answer: Box::new(answer) } }),
    ]
}

fn of_group() -> impl Strategy<Value = Frame> {
    let ids = || (any::<u64>(), any::<u64>()).prop_map(|(group, epoch)| (GroupId(group), Epoch(epoch)));
    let lives = (0..=Life::MAX.0, 0..=Life::MAX.0);
    let message = (lives, any::<[u64; 2]>(), body()).prop_map(|((life, heard), [number, epoch], body)| {
        Box::new(Message { life: Life(life), heard: Life(heard), number, epoch: Epoch(epoch), body })
    });
    let why = prop::sample::select(frame::FELL_OUTS.to_vec());
    prop_oneof![
        (any::<u64>(), message).prop_map(|(group, message)| Frame::Say { group: GroupId(group), message }),
        (ids(), any::<u64>(), prop::collection::vec(stretch(), 0..20))
            .prop_map(|((group, epoch), number, stretches)| Frame::Align { group, epoch, number, stretches }),
        (ids(), any::<u64>(), prop::option::of(any::<u64>())).prop_map(|((group, epoch), number, lsn)| {
            let parting = lsn.map_or(Parting::Untold, |lsn| Parting::Behind(Lsn(lsn)));
            Frame::Aligned { group, epoch, number, parting }
        }),
        (ids(), any::<u64>(), segment(), any::<u64>()).prop_map(|((group, epoch), number, segment, lsn)| {
            Frame::Want { group, epoch, number, segment, lsn: Lsn(lsn) }
        }),
        (ids(), any::<u64>()).prop_map(|((group, epoch), number)| Frame::Begins { group, epoch, number }),
        (ids(), buffers()).prop_map(|((group, epoch), buffers)| Frame::Batch { group, epoch, buffers }),
        (ids(), log()).prop_map(|((group, epoch), log)| Frame::Committed { group, epoch, log }),
        (ids(), any::<u64>()).prop_map(|((group, epoch), lsn)| Frame::MakeDurable { group, epoch, lsn: Lsn(lsn) }),
        (ids(), log()).prop_map(|((group, epoch), log)| Frame::Has { group, epoch, log }),
        (ids(), why).prop_map(|((group, epoch), why)| Frame::FellOut { group, epoch, why }),
        (any::<u64>(), any::<[u64; 4]>(), "[!-~]{1,256}", "[!-~]{1,256}").prop_map(|(group, numbers, name, class)| {
            let [number, id, created_bytes, created_ms] = numbers;
            let volume = Box::new(Enrolment { volume: VolumeId(id), name, class, created_bytes, created_ms });
            Frame::Enrol { group: GroupId(group), number, volume }
        }),
        (any::<[u64; 2]>(), any::<Result<(), String>>()).prop_map(|([group, number], result)| {
            let result = result.map_err(|words| Text::new(&words));
            Frame::Enrolled { group: GroupId(group), number, result }
        }),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let code = prop::sample::select(vec![ByeCode::Closing, ByeCode::Protocol, ByeCode::Silence, ByeCode::Backlog]);
    let text = any::<String>().prop_map(|words| Text::new(&words));
    prop_oneof![
        4 => of_group(),
        2 => passed(),
        1 => (1..u64::MAX).prop_map(|bytes| Frame::Credit { bytes }),
        1 => any::<u64>().prop_map(|number| Frame::Ping { number }),
        1 => any::<u64>().prop_map(|number| Frame::Pong { number }),
        1 => (code, text).prop_map(|(code, text)| Frame::Bye(Bye { code, text })),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    let connections = (1..=CONNECTIONS_MAX).prop_flat_map(|count| (0..=count, Just(count)));
    (any::<[u16; 2]>(), any::<[u8; 2]>(), any::<[[u8; 16]; 2]>(), connections, 1..u64::MAX).prop_map(
        |([a, b], [site, wants], [pool, link], (connection, data_connections), window_bytes)| Hello {
            versions: Versions { min: a.min(b), max: a.max(b) },
            site: SiteId(site),
            wants: SiteId(wants),
            pool: PoolId(pool),
            link: LinkId(link),
            connection,
            data_connections,
            window_bytes,
        },
    )
}

proptest! {
    /// P4. What is written is read, in its order, however it is divided.
    #[test]
    fn what_is_written_is_read(frames in prop::collection::vec(frame(), 1..6), piece_bytes in 1_usize..30_000) {
        let mut bytes = Vec::new();
        let mut shown = Vec::new();
        for frame in frames {
            let one = bytes_of(frame);
            shown.push(one.clone());
            bytes.extend(one);
        }
        let read: Vec<Vec<u8>> = read_all(&bytes, piece_bytes).unwrap().into_iter().map(bytes_of).collect();
        prop_assert!(read == shown);
    }

    /// P4. What is cut is not a frame, and no error either.
    #[test]
    fn a_frame_that_is_cut_waits_for_its_rest(frame in frame(), at in any::<prop::sample::Index>()) {
        let bytes = bytes_of(frame);
        let cut = &bytes[..at.index(bytes.len())];
        prop_assert!(read_all(cut, 5000).unwrap().is_empty());
    }

    /// P4. Changed bytes are refused, or are a frame that is written the same.
    #[test]
    fn changed_bytes_do_no_harm(frame in frame(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = bytes_of(frame);
        // Half of the time in the header and what follows it, which says the most.
        let end = if byte % 2 == 0 { bytes.len().min(64) } else { bytes.len() };
        bytes[at.index(end)] = byte;
        if let Ok(read) = read_all(&bytes, 5000) {
            let again: Vec<u8> = read.into_iter().flat_map(bytes_of).collect();
            prop_assert!(bytes.starts_with(&again));
        }
    }

    /// P4. Bytes of any kind do no harm, and what is kept of them is bounded.
    #[test]
    fn any_bytes_do_no_harm(kind in 0_u8..20, bytes in prop::collection::vec(any::<u8>(), 0..200), body_bytes in any::<u16>()) {
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend(u32::from(body_bytes).to_le_bytes());
        frame.extend([0; 16]);
        frame.extend(&bytes);
        let _ = read_all(&frame, 7);
        let _ = read_all(&bytes, 7);
        let _ = Opening::decode(&mut bytes.as_slice());
    }

    /// P4. An opening is read as it was written, with or without what a later version puts behind it.
    #[test]
    fn an_opening_is_read(hello in hello(), more in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut bytes = Opening::Hello(hello).encode();
        prop_assert_eq!(Opening::decode(&mut bytes.as_slice()), Ok(Some(Opening::Hello(hello))));
        for cut in 0..bytes.len() {
            prop_assert_eq!(Opening::decode(&mut &bytes[..cut]), Ok(None));
        }
        bytes.extend(&more);
        bytes[10] += u8::try_from(more.len()).unwrap();
        prop_assert_eq!(Opening::decode(&mut bytes.as_slice()), Ok(Some(Opening::Hello(hello))));
    }

    /// P4. Text of any kind becomes one that can be logged.
    #[test]
    fn a_refusal_is_read(words in any::<String>()) {
        let refusal = Opening::Refusal(Refusal { code: RefusalCode::Site, text: Text::new(&words) });
        prop_assert_eq!(Opening::decode(&mut refusal.encode().as_slice()), Ok(Some(refusal)));
    }
}

fn batch(buffers: Vec<Buffer>) -> Frame {
    Frame::Batch { group: GroupId(1), epoch: Epoch(1), buffers }
}

/// P4. The longest batch, of the most buffers, and the longest past are within the bounds.
#[test]
fn the_longest_frames_are_read() {
    let one = bytes_of(batch(vec![Buffer::zeroed(BATCH_BYTES_MAX)]));
    assert_eq!(read_all(&one, 1 << 20).unwrap().len(), 1);
    let many = bytes_of(batch((0..BUFFERS_MAX).map(|_| Buffer::zeroed(BLOCK_LEN)).collect()));
    let [Frame::Batch { buffers, .. }] = &read_all(&many, 1 << 20).unwrap()[..] else { panic!("one batch") };
    assert_eq!((buffers.len(), total_len(buffers)), (BUFFERS_MAX, BATCH_BYTES_MAX as u64));
    let stretch = |at| Stretch { segment: SegmentId(at), first_lsn: Lsn(at), last_lsn: Lsn(at) };
    let stretches = (1..=STRETCHES_MAX as u64).rev().map(stretch).collect();
    let align = bytes_of(Frame::Align { group: GroupId(1), epoch: Epoch(1), number: 2, stretches });
    assert_eq!(read_all(&align, 1000).unwrap().len(), 1);
}

/// P4. The buffers of a batch are sent as they are, and received into buffers that begin on a block.
#[test]
fn a_batch_is_not_copied() {
    let buffers = vec![Buffer::zeroed(4096), Buffer::zeroed(8192)];
    let before: Vec<*const u8> = buffers.iter().map(|buffer| buffer.as_slice().as_ptr()).collect();
    let outgoing = Outgoing::new(batch(buffers));
    let sent: Vec<*const u8> = outgoing.slices().skip(1).map(<[u8]>::as_ptr).collect();
    assert_eq!(sent, before);
    let bytes: Vec<u8> = outgoing.slices().flatten().copied().collect();
    let [Frame::Batch { buffers, .. }] = &read_all(&bytes, 100_000).unwrap()[..] else { panic!("one batch") };
    assert!(buffers.iter().all(|buffer| buffer.as_slice().as_ptr().align_offset(BLOCK_LEN) == 0));
}

/// P4. Each rule of the frames is held.
#[test]
fn what_breaks_a_rule_is_refused() {
    let changed = |frame: Frame, at: usize, byte: u8| {
        let mut bytes = bytes_of(frame);
        bytes[at] = byte;
        read_all(&bytes, 100).unwrap_err()
    };
    let value = |field| WireError::Value { field };
    let ping = || Frame::Ping { number: 1 };
    let small = || batch(vec![Buffer::zeroed(4096), Buffer::zeroed(4096)]);
    let fell = || Frame::FellOut { group: GroupId(1), epoch: Epoch(1), why: FellOut::Disk };
    assert_eq!(changed(ping(), 0, 19), WireError::UnknownKind { kind: 19 });
    assert_eq!(changed(ping(), 1, 1), WireError::UnknownKind { kind: 265 });
    assert_eq!(changed(ping(), 2, 1), WireError::Reserved);
    assert_eq!(changed(ping(), 4, 9), WireError::Length { kind: Kind::Ping, body_bytes: 9 });
    assert_eq!(changed(ping(), 8, 1), WireError::OfGroup { kind: Kind::Ping });
    assert_eq!(changed(ping(), 16, 1), WireError::OfGroup { kind: Kind::Ping });
    assert_eq!(changed(Frame::Credit { bytes: 1 }, 24, 0), value("credit"));
    assert_eq!(changed(fell(), 24, 8), value("reason"));
    let ask = |what| {
        let range = ByteRange::new(0, 512).unwrap();
        let ask = Ask { number: 1, tick: 1, waited_ms: 0, what, range, fua: false, payload: Vec::new() };
        Frame::Ask { group: GroupId(1), epoch: Epoch(1), ask: Box::new(ask) }
    };
    assert_eq!(changed(ask(What::Read), 40, 0), value("request"));
    assert_eq!(changed(ask(What::Read), 40, 11), value("request"));
    assert_eq!(changed(ask(What::Read), 41, 2), value("request"), "FUA or not");
    assert_eq!(changed(ask(What::Read), 44, 1), value("request"), "extents of a read");
    assert_eq!(changed(ask(What::Read), 64, 1), value("request"), "a source of a read");
    assert_eq!(changed(ask(What::Read), 55, 0xff), value("range"));
    assert_eq!(changed(ask(What::Read), 72, 65), value("buffers"), "more than any request has");
    assert_eq!(changed(ask(What::Read), 72, 1), value("buffers"), "its length has none");
    let answer = |outcome| {
        let answer = Answer { number: 1, tick: 1, outcome };
        Frame::Answer { group: GroupId(1), epoch: Epoch(1), answer: Box::new(answer) }
    };
    for (code, outcome) in [(0, Outcome::Done), (9, Outcome::Done), (5, Outcome::Done)] {
        assert_eq!(changed(answer(outcome), 40, code), value("answer"));
    }
    assert_eq!(changed(answer(Outcome::Done), 32, 0), value("answer"), "no tick");
    for at in [41, 42, 44, 48] {
        assert_eq!(changed(answer(Outcome::Done), at, 1), value("answer"), "byte {at}");
    }
    let one = || vec![Extent { len: 4096, is_data: true }];
    assert_eq!(changed(answer(Outcome::Extents(one())), 40, 1), value("answer"), "done with a buffer");
    assert_eq!(changed(answer(Outcome::NotHere), 40, 4), value("answer"), "extents without one");
    assert_eq!(changed(answer(Outcome::Extents(one())), 56, 2), value("buffers"), "two of them");
    let odd = Outcome::Read { buffer: Buffer::zeroed(7), skip: 0, len: 0 };
    assert_eq!(changed(answer(odd), 40, 4), value("answer"), "extents of seven bytes");
    assert_eq!(changed(small(), 24, 3), value("buffers"));
    assert_eq!(changed(small(), 24, 0), value("buffers"));
    assert_eq!(changed(small(), 28, 2), value("buffers"));
    assert_eq!(changed(small(), 28, 0), value("buffers"));
    let bytes = (BATCH_BYTES_MAX + 4 + 4 * BUFFERS_MAX + 1).to_le_bytes();
    let mut long = bytes_of(small());
    long[4..8].copy_from_slice(&bytes[..4]);
    assert!(matches!(read_all(&long, 100), Err(WireError::Length { kind: Kind::Batch, .. })));
    // Within the bound of the kind, but only with as many buffers as fit.
    let bytes = (BATCH_BYTES_MAX + 12 + 4096).to_le_bytes();
    long[4..8].copy_from_slice(&bytes[..4]);
    assert_eq!(read_all(&long, 100).unwrap_err(), value("buffers"));
    let log = PeerLog { segment: None, appended: Lsn(5), durable: Lsn(5) };
    assert_eq!(changed(Frame::Has { group: GroupId(1), epoch: Epoch(1), log }, 40, 6), value("log"));
}

/// P4. What would be refused is not sent.
#[test]
fn what_is_not_sound_is_known() {
    let has = |segment, appended, durable| Frame::Has {
        group: GroupId(1),
        epoch: Epoch(1),
        log: PeerLog { segment, appended: Lsn(appended), durable: Lsn(durable) },
    };
    for frame in [
        batch(Vec::new()),
        batch(vec![Buffer::zeroed(4096), Buffer::zeroed(0)]),
        batch(vec![Buffer::zeroed(4000)]),
        batch(vec![Buffer::zeroed(BATCH_BYTES_MAX), Buffer::zeroed(4096)]),
        has(None, 1, 2),
        has(Some(SegmentId(SegmentId::MAX.0 + 1)), 2, 1),
        Frame::Credit { bytes: 0 },
    ] {
        assert!(!Outgoing::is_sound(&frame), "{frame:?}");
    }
    assert!(Outgoing::is_sound(&has(Some(SegmentId::MAX), 2, 2)));
}

/// P4. A batch that is longer than the credit is refused before there is memory for it.
#[test]
fn credit_bounds_what_is_taken() {
    let bytes = bytes_of(batch(vec![Buffer::zeroed(8192)]));
    let mut incoming = Incoming::default();
    let refused = incoming.take(&mut &bytes[..28], 8191).unwrap_err();
    assert_eq!(refused, WireError::OverCredit { bytes: 8192, credit: 8191 });
    assert!(incoming.space().is_none());
    let mut incoming = Incoming::default();
    assert!(incoming.take(&mut bytes.as_slice(), 8192).unwrap().is_some());
}

/// P4. What says of a message what cannot be is refused.
#[test]
fn a_message_that_cannot_be_is_refused() {
    let say = |body| {
        let message = Message { life: Life(1), heard: Life(2), number: 3, epoch: Epoch(4), body };
        bytes_of(Frame::Say { group: GroupId(1), message: Box::new(message) })
    };
    let heartbeat =
        Body::Heartbeat { seen: None, end: Position::ZERO, leads: true, asks_word: false, disk: DiskState::Good };
    let value = |field| WireError::Value { field };
    for (body, at, byte, error) in [
        (Body::Word { of: 1 }, 48, 99, value("message")),
        (Body::Word { of: 1 }, 31, 255, value("life")),
        (Body::Word { of: 1 }, 36, 255, value("life")),
        (heartbeat, 49, 8, value("flags")),
        (heartbeat, 50, 4, value("disk")),
        // It says that there is a record, and there is none.
        (heartbeat, 49, 4, WireError::Cut),
        (Body::Word { of: 1 }, 48, 3, WireError::Cut),
        (Body::HandOver { end: Position::ZERO }, 48, 2, WireError::Tail),
    ] {
        let mut bytes = say(body);
        bytes[at] = byte;
        assert_eq!(read_all(&bytes, 100).unwrap_err(), error);
    }
}

/// P4. Two sites speak the highest version that both know.
#[test]
fn the_highest_common_version_is_spoken() {
    let versions = |min, max| Versions { min, max };
    assert_eq!(versions(1, 3).common(versions(2, 5)), Some(3));
    assert_eq!(versions(2, 5).common(versions(1, 3)), Some(3));
    assert_eq!(versions(1, 1).common(versions(1, 1)), Some(1));
    assert_eq!(versions(1, 2).common(versions(3, 4)), None);
}

/// P4. An opening that cannot be is refused, another protocol as soon as it shows.
#[test]
fn an_opening_that_cannot_be_is_refused() {
    let refused = |bytes: &[u8]| Opening::decode(&mut &*bytes).unwrap_err();
    assert_eq!(refused(b"GET / HTTP/1.1"), OpeningError::Magic);
    assert_eq!(refused(b"ALX"), OpeningError::Magic);
    assert_eq!(refused(b"ALJIBEMR\x03\x00\x00\x00"), OpeningError::UnknownKind { kind: 3 });
    assert_eq!(refused(b"ALJIBEMR\x01\x00\x37\x00"), OpeningError::Length { body_bytes: 55 });
    assert_eq!(refused(b"ALJIBEMR\x01\x00\xf5\x01"), OpeningError::Length { body_bytes: 501 });
    assert_eq!(refused(b"ALJIBEMR\x02\x00\x02\x00\x09\x00"), OpeningError::Value { field: "code" });
    assert_eq!(refused(b"ALJIBEMR\x02\x00\x03\x00\x01\x00\n"), OpeningError::Value { field: "text" });
}
