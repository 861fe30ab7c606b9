//! What crosses, in which order, and how much of it at a time.

use crate::site::{Site, config, pair};
use link::{LifeNumber, LinkConfig, LinkHandle, News, Rejected};
use replication::wire::{BATCH_BYTES_MAX, Bye, ByeCode, Frame, Outgoing, Text};
use replication::{Body, Life, Message, Position};
use std::sync::atomic::Ordering;
use std::time::Duration;
use units::{Epoch, GroupId, Lsn};
use volume::buffer::Buffer;
use volume::engine::PeerLog;
use volume::io::FellOut;

pub(crate) fn bytes_of(frame: Frame) -> Vec<u8> {
    Outgoing::new(frame).slices().flatten().copied().collect()
}

pub(crate) fn batch(group: u64, epoch: u64, blocks: usize) -> Frame {
    let buffers = vec![Buffer::copy_of(&vec![epoch.to_le_bytes()[0]; blocks * 4096])];
    Frame::Batch { group: GroupId(group), epoch: Epoch(epoch), buffers }
}

/// The frames of the log that a group sends in epoch `number`.
fn log_frames(group: u64, number: u64) -> Vec<Frame> {
    let (group, epoch) = (GroupId(group), Epoch(number));
    let log = PeerLog { segment: None, appended: Lsn(number), durable: Lsn(number) };
    vec![
        Frame::Want { group, epoch, number, segment: None, lsn: Lsn(number) },
        Frame::Begins { group, epoch, number },
        batch(group.0, number, 1 + number as usize % 40),
        Frame::Committed { group, epoch, log },
        Frame::MakeDurable { group, epoch, lsn: Lsn(number) },
        Frame::Has { group, epoch, log },
        Frame::FellOut { group, epoch, why: FellOut::NoSlot },
    ]
}

pub(crate) fn say(group: u64, number: u64) -> Frame {
    let body = Body::HandOver { end: Position { epoch: Epoch(1), segment: None, lsn: Lsn(number) } };
    let message = Message { life: Life(1), heard: Life(2), number, epoch: Epoch(number), body };
    Frame::Say { group: GroupId(group), message: Box::new(message) }
}

fn consume(handle: &LinkHandle, life: LifeNumber, frame: &Frame) {
    if let (Frame::Batch { group, .. }, bytes) = (frame, frame.payload_bytes()) {
        handle.consumed(life, *group, bytes);
    }
}

/// Sends all, waiting for room wherever there is none.
pub(crate) async fn send_all(site: &mut Site, life: LifeNumber, frames: Vec<Frame>) {
    for mut frame in frames {
        loop {
            match site.handle.send(life, frame) {
                Ok(()) => break,
                Err(Rejected::NoRoom(back) | Rejected::NoCredit(back)) => frame = back,
                Err(other) => panic!("{other}"),
            }
            while !matches!(site.next().await, News::Room { .. }) {}
        }
    }
}

/// Frames of all kinds cross, both ways at once, each group's in its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_frames_cross_in_the_order_of_their_group() {
    const GROUPS: u64 = 5;
    const ROUNDS: u64 = 60;
    let ([mut one, mut two], lives) = pair().await;
    let sent = |group: u64| -> Vec<Frame> { (0..ROUNDS).flat_map(|round| log_frames(group, round)).collect() };
    let mixed = || -> Vec<Frame> {
        (0..ROUNDS)
            .flat_map(|round| {
                (0..GROUPS).flat_map(move |group| log_frames(group, round).into_iter().chain([say(group, round)]))
            })
            .collect()
    };
    let count = mixed().len();
    let sender = tokio::spawn(async move {
        send_all(&mut one, lives[0], mixed()).await;
        one
    });
    let mut logs: Vec<Vec<Vec<u8>>> = vec![Vec::new(); GROUPS as usize];
    let mut says: Vec<Vec<Vec<u8>>> = logs.clone();
    for _ in 0..count {
        let frame = two.frame(lives[1]).await;
        consume(&two.handle, lives[1], &frame);
        let group = frame.group().unwrap().0 as usize;
        let to = if matches!(frame, Frame::Say { .. }) { &mut says } else { &mut logs };
        to[group].push(bytes_of(frame));
    }
    for group in 0..GROUPS {
        let expected: Vec<Vec<u8>> = sent(group).into_iter().map(bytes_of).collect();
        assert!(logs[group as usize] == expected);
        let expected: Vec<Vec<u8>> = (0..ROUNDS).map(|round| bytes_of(say(group, round))).collect();
        assert!(says[group as usize] == expected);
    }
    // And back.
    let mut one = sender.await.unwrap();
    two.handle.send(lives[1], say(1, 1)).unwrap();
    assert_eq!(bytes_of(one.frame(lives[0]).await), bytes_of(say(1, 1)));
    let statistics = one.handle.statistics();
    assert!(statistics.frames_sent.load(Ordering::Relaxed) >= count as u64);
    let received = two.handle.statistics().bytes_received.load(Ordering::Relaxed);
    assert!(received > 0 && statistics.bytes_sent.load(Ordering::Relaxed) >= received);
}

/// The sender never has more under way than the window, and all arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_batches_keep_within_the_window() {
    const WINDOW: u64 = 64 << 10;
    const BATCHES: u64 = 10_000;
    let mut two = Site::start(LinkConfig { window_bytes: WINDOW, ..config(2, None) });
    let mut one = Site::start(LinkConfig { queue_bytes: WINDOW / 2, ..config(1, Some(two.address())) });
    let lives = [one.up().await, two.up().await];
    let sender = tokio::spawn(async move {
        for number in 0..BATCHES {
            send_all(&mut one, lives[0], vec![batch(1, number, 1 + number as usize % 3)]).await;
            assert!(one.handle.unacknowledged(lives[0], GroupId(1)) <= WINDOW);
        }
        one
    });
    // What has come and was not consumed: of that the other side must know the bound.
    let mut held = std::collections::VecDeque::new();
    let mut held_bytes = 0;
    for number in 0..BATCHES {
        let frame = two.frame(lives[1]).await;
        let Frame::Batch { epoch, .. } = &frame else { panic!("no batch") };
        assert_eq!(epoch.0, number);
        held_bytes += frame.payload_bytes();
        assert!(held_bytes <= WINDOW);
        held.push_back(frame.payload_bytes());
        // A receiver that lags behind, and sometimes takes in all of it.
        while held_bytes > WINDOW / 2 || (number % 7 == 0 && !held.is_empty()) {
            let bytes = held.pop_front().unwrap();
            held_bytes -= bytes;
            two.handle.consumed(lives[1], GroupId(1), bytes);
        }
    }
    let one = sender.await.unwrap();
    held.into_iter().for_each(|bytes| two.handle.consumed(lives[1], GroupId(1), bytes));
    // The rest of the credit comes by itself.
    while one.handle.unacknowledged(lives[0], GroupId(1)) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A receiver that takes nothing in stops the sender of its connection and nobody else; nothing grows meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_consumes_nothing_stops_the_sender() {
    let ([mut one, mut two], lives) = pair().await;
    let window = 1_u64 << 20;
    let mut sent = 0;
    let rejected = loop {
        match one.handle.send(lives[0], batch(1, sent, 4)) {
            Ok(()) => sent += 1,
            Err(Rejected::NoRoom(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(other) => break other,
        }
    };
    assert!(matches!(rejected, Rejected::NoCredit(Frame::Batch { .. })));
    assert_eq!(sent, window / 16384);
    for number in 0..sent {
        let Frame::Batch { epoch, .. } = two.frame(lives[1]).await else { panic!("no batch") };
        assert_eq!(epoch.0, number);
    }
    for _ in 0..1000 {
        assert!(matches!(one.handle.send(lives[0], batch(1, sent, 1)), Err(Rejected::NoCredit(_))));
    }
    assert_eq!(one.handle.unacknowledged(lives[0], GroupId(1)), window);
    // Small frames of the group, and batches on another connection, pass.
    assert_ne!(one.handle.connection_of(lives[0], GroupId(1)), one.handle.connection_of(lives[0], GroupId(2)));
    one.handle.send(lives[0], Frame::MakeDurable { group: GroupId(1), epoch: Epoch(1), lsn: Lsn(9) }).unwrap();
    assert!(matches!(two.frame(lives[1]).await, Frame::MakeDurable { lsn: Lsn(9), .. }));
    one.handle.send(lives[0], batch(2, 1, 1)).unwrap();
    assert!(matches!(two.frame(lives[1]).await, Frame::Batch { group: GroupId(2), .. }));
    // Half of it consumed is room.
    two.handle.consumed(lives[1], GroupId(1), window / 2);
    while !matches!(one.next().await, News::Room { .. }) {}
    one.handle.send(lives[0], batch(1, sent, 1)).unwrap();
    assert!(matches!(two.frame(lives[1]).await, Frame::Batch { group: GroupId(1), .. }));
}

/// The longest batch passes, alone, through a window that is much shorter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_batch_passes_a_small_window() {
    let mut two = Site::start(LinkConfig { window_bytes: 4096, ..config(2, None) });
    let mut one = Site::start(LinkConfig { queue_bytes: 4096, ..config(1, Some(two.address())) });
    let lives = [one.up().await, two.up().await];
    for number in 0..2 {
        send_all(&mut one, lives[0], vec![batch(1, number, 1), batch(1, number, BATCH_BYTES_MAX / 4096)])
            .await_with(&mut two, lives[1])
            .await;
    }
}

/// Sending that goes on while the other site takes in what comes.
trait AwaitWith: Future<Output = ()> + Sized {
    async fn await_with(self, two: &mut Site, life: LifeNumber) {
        let mut sending = std::pin::pin!(self);
        let mut received = 0;
        let mut is_sent = false;
        while !is_sent || received < 2 {
            tokio::select! {
                () = &mut sending, if !is_sent => is_sent = true,
                frame = two.frame(life) => {
                    consume(&two.handle, life, &frame);
                    received += 1;
                }
            }
        }
    }
}

impl<F: Future<Output = ()>> AwaitWith for F {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_comes_back() {
    let ([one, _two], lives) = pair().await;
    let send = |life, frame| one.handle.send(life, frame).unwrap_err();
    assert!(matches!(send(LifeNumber(2), batch(1, 1, 1)), Rejected::Down(Frame::Batch { .. })));
    let none = Frame::Batch { group: GroupId(1), epoch: Epoch(1), buffers: Vec::new() };
    let part = Frame::Batch { group: GroupId(1), epoch: Epoch(1), buffers: vec![Buffer::zeroed(100)] };
    let long = batch(1, 1, BATCH_BYTES_MAX / 4096 + 1);
    let bye = Frame::Bye(Bye { code: ByeCode::Closing, text: Text::default() });
    for frame in [none, part, long, bye, Frame::Ping { number: 1 }, Frame::Credit { bytes: 1 }] {
        assert!(matches!(send(lives[0], frame), Rejected::Unsendable(_)));
    }
    let handle = one.handle.clone();
    one.link.close().await;
    let gone = handle.send(lives[0], say(1, 1)).unwrap_err();
    assert!(matches!(gone.into_frame(), Frame::Say { .. }));
}
