//! Sockets through the ring, its waker, cancelling, and a ring dropped with operations in flight.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "a surprise is a failed test"
)]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use uring::{Completion, Config, Message, Outcome, Readiness, Region, Ring, Want};

const ECANCELED: i32 = 125;

fn ring() -> Ring<u32> {
    Ring::new(Config::default()).unwrap()
}

fn pair() -> (Rc<OwnedFd>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Rc::new(ours.into()), theirs)
}

fn next(ring: &mut Ring<u32>) -> Completion<u32> {
    loop {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        ring.enter(Want::Completion(None)).unwrap();
    }
}

fn received(completion: Completion<u32>) -> (Region, usize) {
    match completion.outcome {
        Outcome::Received { region, result } => (region, result.unwrap()),
        other => panic!("{other:?}"),
    }
}

fn errno_of(outcome: &Outcome) -> Option<i32> {
    match outcome {
        Outcome::Received { result, .. } => result.as_ref().err()?.raw_os_error(),
        Outcome::Sent { result, .. } | Outcome::Done { result } => result.as_ref().err()?.raw_os_error(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_receive_takes_what_is_there_into_its_range() {
    let mut ring = ring();
    let (socket, mut peer) = pair();
    peer.write_all(b"hello").unwrap();
    ring.receive(3, &socket, Region::zeroed(64), 10..64);
    let (region, len) = received(next(&mut ring));
    assert_eq!(len, 5);
    assert_eq!(&region.as_slice()[9..16], b"\0hello\0");
    drop(peer);
    ring.receive(3, &socket, region, 0..64);
    assert_eq!(received(next(&mut ring)).1, 0);
}

#[test]
fn a_whole_receive_waits_for_all_of_it_or_the_end() {
    let mut ring = ring();
    let (socket, mut peer) = pair();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 3) as u8).collect();
    let sent = bytes.clone();
    let sender = thread::spawn(move || {
        for part in sent.chunks(77_777) {
            peer.write_all(part).unwrap();
        }
        peer.write_all(b"end").unwrap();
    });
    ring.receive_whole(1, &socket, Region::zeroed(3_000_000), 0..3_000_000);
    let (region, len) = received(next(&mut ring));
    assert_eq!(len, 3_000_000);
    assert_eq!(region.as_slice(), bytes);
    ring.receive_whole(1, &socket, region, 0..10);
    assert_eq!(received(next(&mut ring)).1, 3);
    sender.join().unwrap();
}

#[test]
fn a_message_of_many_pieces_arrives_whole_though_the_peer_reads_slowly() {
    let mut ring = ring();
    let (socket, mut peer) = pair();
    let mut message = Message::new();
    let mut expected = Vec::new();
    for i in 0..1000_u32 {
        let header = i.to_be_bytes();
        message.push_bytes(&header);
        message.push_region(Region::new(vec![i as u8; 5000].into(), 0, 5000), 100..4196);
        expected.extend_from_slice(&header);
        expected.extend_from_slice(&[i as u8; 4096]);
    }
    let len = expected.len();
    let reader = thread::spawn(move || {
        let mut got = vec![0; len];
        for part in got.chunks_mut(99_991) {
            peer.read_exact(part).unwrap();
        }
        got
    });
    ring.send(1, &socket, message);
    let Outcome::Sent { mut message, result } = next(&mut ring).outcome else { panic!() };
    result.unwrap();
    assert_eq!(message.take_regions().count(), 1000);
    assert!(reader.join().unwrap() == expected);
}

#[test]
fn a_long_send_and_a_long_receive_tell_how_far_their_peer_is() {
    const LEN: usize = 8 << 20;
    let mut ring = ring();
    let (socket, mut peer) = pair();
    let mut message = Message::new();
    message.push_region(Region::zeroed(LEN), 0..LEN);
    let send = ring.send(1, &socket, message);
    let receive = ring.receive_whole(2, &socket, Region::zeroed(LEN), 0..LEN);
    let (pause, is_paused) = mpsc::channel();
    let (resume, is_resumed) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut half = vec![0; LEN / 2];
        peer.read_exact(&mut half).unwrap();
        peer.write_all(&half).unwrap();
        pause.send(()).unwrap();
        is_resumed.recv().unwrap();
        peer.read_exact(&mut half).unwrap();
        peer.write_all(&half).unwrap();
    });
    while is_paused.try_recv().is_err() {
        assert!(ring.next_completion().is_none());
        ring.enter(Want::Completion(Some(Duration::from_millis(1)))).unwrap();
    }
    // Known by parts, and the kernel has buffers of its own.
    let half = LEN / 4..=LEN * 3 / 4;
    assert!(half.contains(&ring.moved_bytes(send)) && half.contains(&ring.moved_bytes(receive)));
    resume.send(()).unwrap();
    let ended = [next(&mut ring), next(&mut ring)].map(|completion| completion.token);
    assert!(ended == [1, 2] || ended == [2, 1]);
    assert_eq!((ring.moved_bytes(send), ring.moved_bytes(receive)), (0, 0));
    reader.join().unwrap();
}

#[test]
fn a_send_to_a_closed_socket_fails_and_the_process_lives() {
    let mut ring = ring();
    let (socket, peer) = pair();
    drop(peer);
    let mut message = Message::new();
    message.push_bytes(b"x");
    ring.send(1, &socket, message);
    let completion = next(&mut ring);
    assert_eq!(errno_of(&completion.outcome), Some(32));
}

#[test]
fn a_cancelled_operation_completes_as_cancelled_and_gives_back_what_it_owned() {
    let mut ring = ring();
    let (socket, _peer) = pair();
    let first = ring.receive(1, &socket, Region::zeroed(32), 0..32);
    ring.enter(Want::Nothing).unwrap();
    assert!(ring.next_completion().is_none());
    ring.cancel(first);
    let completion = next(&mut ring);
    assert_eq!((completion.id, completion.token), (first, 1));
    assert_eq!(errno_of(&completion.outcome), Some(ECANCELED));
    let Outcome::Received { region, .. } = completion.outcome else { panic!() };
    assert_eq!(region.len(), 32);
    assert_eq!(Rc::strong_count(&socket), 1);

    // A name of the past must not hit the operation that took its place.
    let second = ring.receive(2, &socket, region, 0..32);
    ring.cancel(first);
    assert!(!ring.spin(Duration::from_millis(1)) || ring.next_completion().is_none());
    ring.cancel(second);
    assert_eq!(next(&mut ring).token, 2);
}

#[test]
fn a_shut_down_socket_ends_its_receive() {
    let mut ring = ring();
    let (socket, mut peer) = pair();
    ring.receive(1, &socket, Region::zeroed(8), 0..8);
    ring.shut_down(2, &socket);
    let mut tokens = [next(&mut ring).token, next(&mut ring).token];
    tokens.sort_unstable();
    assert_eq!(tokens, [1, 2]);
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_poll_says_when_there_is_something_to_read() {
    let mut ring = ring();
    let (socket, mut peer) = pair();
    ring.poll(1, &socket, Readiness::Readable);
    ring.poll(2, &socket, Readiness::Writable);
    assert_eq!(next(&mut ring).token, 2);
    peer.write_all(b"x").unwrap();
    assert_eq!(next(&mut ring).token, 1);
    peer.shutdown(Shutdown::Both).unwrap();
}

#[test]
fn a_ring_dropped_with_operations_in_flight_lets_go_of_everything() {
    let (socket, mut peer) = pair();
    {
        let mut ring = ring();
        for token in 0..50 {
            ring.receive(token, &socket, Region::zeroed(4096), 0..4096);
        }
        let mut message = Message::new();
        message.push_region(Region::zeroed(8 << 20), 0..8 << 20);
        ring.send(99, &socket, message);
        ring.enter(Want::Nothing).unwrap();
    }
    assert_eq!(Rc::strong_count(&socket), 1);
    peer.set_nonblocking(true).unwrap();
    peer.write_all(b"nobody receives this").unwrap();
}

#[test]
fn a_ring_dropped_before_anything_was_submitted_does_not_hang() {
    let (socket, _peer) = pair();
    let mut ring = ring();
    ring.receive(1, &socket, Region::zeroed(16), 0..16);
    drop(ring);
    assert_eq!(Rc::strong_count(&socket), 1);
}

#[test]
fn a_wait_ends_at_its_limit() {
    let mut ring = ring();
    let start = Instant::now();
    ring.enter(Want::Completion(Some(Duration::from_millis(20)))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert!(ring.next_completion().is_none());
    assert!(!ring.take_woken());
}

#[test]
fn every_wake_ends_a_wait() {
    let mut ring = ring();
    let waker = ring.waker();
    let (turns, turn) = mpsc::channel();
    let other = thread::spawn(move || {
        while turn.recv().is_ok() {
            waker.wake();
        }
    });
    for _ in 0..200 {
        turns.send(()).unwrap();
        while !ring.take_woken() {
            ring.enter(Want::Completion(None)).unwrap();
            assert!(ring.next_completion().is_none());
        }
    }
    drop(turns);
    other.join().unwrap();
}

#[test]
fn a_spin_sees_what_another_thread_sends() {
    let mut ring = ring();
    let (socket, mut peer) = pair();
    ring.receive(1, &socket, Region::zeroed(16), 0..16);
    ring.enter(Want::Nothing).unwrap();
    assert!(!ring.spin(Duration::from_micros(50)));
    let sender = thread::spawn(move || peer.write_all(b"x").unwrap());
    assert!(ring.spin(Duration::from_secs(10)));
    ring.enter(Want::Nothing).unwrap();
    assert_eq!(received(ring.next_completion().unwrap()).1, 1);
    sender.join().unwrap();
}
