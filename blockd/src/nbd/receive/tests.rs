use super::*;
use crate::stream::{RECEIVE_BYTES, SHORT_RECEIVE_BYTES};
use proto::nbd::constants::{REQUEST_MAGIC, command};
use proto::nbd::{BlockSizes, Errno, FastZero, ReplyStyle, TransmissionFlags};
use volume::request::PIECE_BYTES_MAX;

const SESSION: Session = Session {
    size_bytes: 1 << 40,
    flags: TransmissionFlags::WRITABLE,
    style: ReplyStyle::Structured,
    block_sizes: BlockSizes { min_bytes: 1, preferred_bytes: 4096, payload_bytes_max: 32 << 20 },
    fast_zero: FastZero::Always,
    has_contexts: false,
};

fn header(command: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes
}

fn write(cookie: u64, len: usize) -> Vec<u8> {
    let mut bytes = header(command::WRITE, cookie, 0, u32::try_from(len).unwrap());
    bytes.extend((0..len).map(|at| fill(cookie, at)));
    bytes
}

fn fill(cookie: u64, at: usize) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 12) ^ usize::try_from(cookie).unwrap()).to_le_bytes()[0]
}

/// Feeds a stream in receives of at most `step` bytes; returns what came out, each payload checked, and how many bytes
/// were received straight into a payload.
fn feed(stream: &[u8], step: usize) -> (Vec<(u64, &'static str)>, usize) {
    let mut buffers = BufferPool::new(8 << 20);
    let mut receiver = Receiver::new(&[]);
    let mut rest = stream;
    let (mut seen, mut direct) = (Vec::new(), 0);
    loop {
        match receiver.next(&SESSION, u64::MAX, &mut buffers, &mut |_| true).unwrap() {
            Arrival::Request { to, request, payload } => {
                let bytes: Vec<u8> = payload.iter().flat_map(|piece| piece.as_slice()).copied().collect();
                assert_eq!(bytes.len() as u64, request.payload_bytes());
                assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == fill(to.cookie.0, at)));
                let (_, full) =
                    payload.as_slice().split_last().map_or((None, &[][..]), |(last, full)| (Some(last), full));
                assert!(full.iter().all(|piece| piece.len() == PIECE_BYTES_MAX));
                seen.push((to.cookie.0, "request"));
            }
            Arrival::Rejected { to, .. } => seen.push((to.cookie.0, "rejected")),
            Arrival::NoRoom | Arrival::Held => panic!("there is room"),
            Arrival::Incomplete if rest.is_empty() => return (seen, direct),
            Arrival::Incomplete => {
                let Loan { mut region, range, is_whole } = receiver.lend().unwrap();
                assert!(receiver.lend().is_none(), "memory is lent once");
                let count = range.len().min(rest.len()).min(if is_whole { usize::MAX } else { step });
                region.as_mut_slice()[range][..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                direct += if is_whole { count } else { 0 };
                receiver.take_back(region, count);
            }
        }
    }
}

#[test]
fn any_division_of_the_stream_gives_the_same_requests() {
    let mut stream = Vec::new();
    for (cookie, len) in [(1, 512), (2, 4096), (3, 9000), (4, 70_000), (5, 1), (6, 300_000)] {
        stream.extend(write(cookie, len));
        stream.extend(header(command::READ, cookie + 100, 4096, 4096));
    }
    let whole = feed(&stream, usize::MAX).0;
    assert_eq!(whole.len(), 12);
    for step in [1, 7, 28, 29, 4095, 4096, 65_536] {
        assert_eq!(feed(&stream, step).0, whole, "{step}");
    }
}

#[test]
fn many_small_requests_come_out_of_one_receive() {
    let stream: Vec<u8> = (0..60).flat_map(|cookie| write(cookie, 4096)).collect();
    let (seen, direct) = feed(&stream, usize::MAX);
    assert_eq!(seen.len(), 60);
    assert_eq!(direct, 0);
}

#[test]
fn most_of_a_large_payload_is_received_where_it_belongs() {
    let stream: Vec<u8> = (0..4).flat_map(|cookie| write(cookie, 3 << 20)).collect();
    let (seen, direct) = feed(&stream, usize::MAX);
    assert_eq!(seen.len(), 4);
    assert!(direct > stream.len() - RECEIVE_BYTES - 4 * SHORT_RECEIVE_BYTES, "{direct}");
}

#[test]
fn the_payload_of_a_refused_write_is_skipped_and_the_next_request_found() {
    let mut stream = header(command::WRITE, 1, (1 << 40) - 512, 100_000);
    stream.resize(stream.len() + 100_000, 0xff);
    stream.extend(header(77, 2, 0, 0));
    stream.extend(write(3, 512));
    let expected = [(1, "rejected"), (2, "rejected"), (3, "request")];
    for step in [13, 5000, usize::MAX] {
        assert_eq!(feed(&stream, step).0, expected);
    }
}

#[test]
fn a_request_without_room_stays_until_there_is_some_and_takes_no_memory() {
    let mut buffers = BufferPool::new(0);
    let mut receiver = Receiver::new(&write(1, 8192));
    for _ in 0..2 {
        assert!(matches!(receiver.next(&SESSION, 8191, &mut buffers, &mut |_| true), Ok(Arrival::NoRoom)));
    }
    assert!(matches!(receiver.next(&SESSION, 8192, &mut buffers, &mut |_| true), Ok(Arrival::Request { .. })));
    // A request that holds nothing never waits.
    receiver = Receiver::new(&header(command::TRIM, 2, 0, u32::MAX));
    assert!(matches!(receiver.next(&SESSION, 0, &mut buffers, &mut |_| true), Ok(Arrival::Request { .. })));
}

#[test]
fn a_payload_takes_memory_a_piece_at_a_time_as_it_arrives() {
    let mut buffers = BufferPool::new(64 << 20);
    let mut receiver = Receiver::new(&header(command::WRITE, 1, 0, 32 << 20));
    assert!(matches!(receiver.next(&SESSION, u64::MAX, &mut buffers, &mut |_| true), Ok(Arrival::Incomplete)));
    let loan = receiver.lend().unwrap();
    assert_eq!(loan.region.len(), PIECE_BYTES_MAX);
    receiver.take_back(loan.region, 100);
    receiver.abandon(&mut buffers);
    assert!(matches!(receiver.next(&SESSION, u64::MAX, &mut buffers, &mut |_| true), Ok(Arrival::Incomplete)));
}

#[test]
fn a_stream_that_lost_its_place_ends() {
    let mut buffers = BufferPool::new(0);
    let mut receiver = Receiver::new(b"GET / HTTP/1.1\r\n");
    let error = receiver.next(&SESSION, u64::MAX, &mut buffers, &mut |_| true).unwrap_err();
    assert_eq!(error.found, u32::from_be_bytes(*b"GET "));
}

#[test]
fn bytes_may_come_from_elsewhere_than_a_receive() {
    let mut buffers = BufferPool::new(8 << 20);
    let mut receiver = Receiver::new(&[]);
    let stream = write(9, 2_500_000);
    let mut rest = stream.as_slice();
    loop {
        match receiver.next(&SESSION, u64::MAX, &mut buffers, &mut |_| true).unwrap() {
            Arrival::Request { payload, .. } => {
                let bytes: Vec<u8> = payload.iter().flat_map(|piece| piece.as_slice()).copied().collect();
                assert!(bytes == stream[28..]);
                return;
            }
            Arrival::Incomplete => {
                let space = receiver.space();
                let count = space.len().min(rest.len()).min(16_384);
                space[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                receiver.advance(count);
            }
            Arrival::Rejected { rejection, .. } => panic!("{rejection:?}"),
            Arrival::NoRoom | Arrival::Held => panic!("there is room"),
        }
    }
}

#[test]
fn a_status_request_counts_what_its_reply_may_take() {
    let span = proto::nbd::Span { offset: 0, len_bytes: 1 << 40 };
    assert_eq!(bytes_held(&Request::BlockStatus { span, one_extent: false }), 65_536);
    assert_eq!(bytes_held(&Request::Trim { span, fua: false }), 0);
    assert_eq!(Errno::Inval.to_wire(), 22);
}

/// P8. A request that may not pass stays where it is, and its payload too, until it may.
#[test]
fn a_request_that_is_held_is_judged_again() {
    let mut buffers = BufferPool::new(1 << 20);
    let mut receiver = Receiver::new(&write(1, 8192));
    for _ in 0..2 {
        assert!(matches!(receiver.next(&SESSION, u64::MAX, &mut buffers, &mut |_| false), Ok(Arrival::Held)));
        assert_eq!(receiver.arriving_bytes(), 0);
    }
    let passes = receiver.next(&SESSION, u64::MAX, &mut buffers, &mut |_| true);
    assert!(matches!(passes, Ok(Arrival::Request { payload, .. }) if payload.len() == 1));
}
