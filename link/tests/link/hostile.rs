//! Somebody with a good certificate who breaks the protocol in a life, or takes nothing.

use crate::raw;
use crate::site::{STANDSTILL_MAX, Site, config, times};
use link::{LifeNumber, LinkConfig, Rejected, Times, Why};
use replication::wire::{ByeCode, Frame, Incoming, Kind, Outgoing, WireError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use units::{Epoch, GroupId, Lsn};
use volume::buffer::Buffer;

fn bytes_of(frame: Frame) -> Vec<u8> {
    Outgoing::new(frame).slices().flatten().copied().collect()
}

fn batch(blocks: usize) -> Frame {
    Frame::Batch { group: GroupId(1), epoch: Epoch(1), buffers: vec![Buffer::zeroed(blocks * 4096)] }
}

/// What is said to it last.
async fn last_words(stream: &mut TlsStream<TcpStream>) -> Option<ByeCode> {
    let mut received = Vec::new();
    // It may be cut off behind them.
    let _ = stream.read_to_end(&mut received).await;
    let mut input = received.as_slice();
    let mut incoming = Incoming::default();
    let mut last = None;
    while let Some(frame) = incoming.take(&mut input, u64::MAX).unwrap() {
        last = Some(frame);
    }
    match last {
        Some(Frame::Bye(bye)) => Some(bye.code),
        _ => None,
    }
}

/// Builds a link, says `bytes` on one of its connections, and tells what becomes of the life.
async fn say(connection: usize, bytes: &[u8]) -> Why {
    let mut two = Site::start(LinkConfig { window_bytes: 65536, ..config(2, None) });
    let mut streams = raw::link(&two.address(), 1).await;
    let life = two.up().await;
    assert_eq!(life, LifeNumber(1));
    streams[connection].write_all(bytes).await.unwrap();
    streams[connection].flush().await.unwrap();
    let why = two.down(life).await;
    assert_eq!(last_words(&mut streams[1 - connection]).await, Some(ByeCode::Protocol), "{why}");
    // The next one is welcome.
    let _next = raw::link(&two.address(), 2).await;
    two.up().await;
    why
}

fn protocol(why: &Why) -> (u16, WireError) {
    let Why::Protocol { connection, source } = why else { panic!("{why}") };
    (*connection, *source)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_a_life_ends_it() {
    for connection in 0..2 {
        let (on, error) = protocol(&say(connection, &[0x5a; 100]).await);
        assert_eq!((usize::from(on), error), (connection, WireError::UnknownKind { kind: 0x5a5a }));
    }
    protocol(&say(1, &[0; 24]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_too_long_end_a_life_before_they_come() {
    let mut long = bytes_of(batch(1));
    long[4..8].copy_from_slice(&(40_u32 << 20).to_le_bytes());
    let (_, error) = protocol(&say(1, &long[..24]).await);
    assert_eq!(error, WireError::Length { kind: Kind::Batch, body_bytes: 40 << 20 });
    let ping = bytes_of(Frame::Ping { number: 1 });
    let mut long = ping.clone();
    long[6] = 1;
    let (_, error) = protocol(&say(0, &long).await);
    assert_eq!(error, WireError::Length { kind: Kind::Ping, body_bytes: 0x1_0008 });
    // Nobody has consumed the first one.
    let two = [bytes_of(batch(16)), bytes_of(batch(1))].concat();
    let (_, error) = protocol(&say(1, &two).await);
    assert_eq!(error, WireError::OverCredit { bytes: 4096, credit: 0 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_in_the_wrong_place_end_a_life() {
    let committed = Frame::MakeDurable { group: GroupId(1), epoch: Epoch(1), lsn: Lsn(1) };
    let cases = [(0, committed), (0, batch(1)), (0, Frame::Credit { bytes: 1 }), (1, Frame::Credit { bytes: 1 })];
    for (connection, frame) in cases {
        let why = say(connection, &bytes_of(frame)).await;
        assert!(matches!(why, Why::Misplaced { .. }), "{why}");
    }
}

/// One who reads nothing but is heard: small frames pile up to their bound and come back then; once nothing has moved for as long as
/// silence may last the life ends, and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_reads_nothing_ends_the_life_by_its_backlog() {
    let silence = STANDSTILL_MAX;
    let mut two = Site::start(LinkConfig { times: Times { silence, ..times() }, ..config(2, None) });
    let mut streams = raw::link(&two.address(), 1).await;
    let life = two.up().await;
    let ping = bytes_of(Frame::Ping { number: 1 });
    let (mut sent, mut rejected, mut last_sent) = (0_u64, 0_u64, Instant::now());
    loop {
        let frame = Frame::MakeDurable { group: GroupId(1), epoch: Epoch(1), lsn: Lsn(sent) };
        match two.handle.send(life, frame) {
            Ok(()) => (sent, last_sent) = (sent + 1, Instant::now()),
            Err(Rejected::NoRoom(_)) => {
                rejected += 1;
                // Not silent.
                for stream in &mut streams {
                    let _ = stream.write_all(&ping).await;
                    let _ = stream.flush().await;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(Rejected::Down(_)) => break,
            Err(other) => panic!("{other}"),
        }
    }
    let why = two.down(life).await;
    assert!(matches!(why, Why::Backlog { connection: 1 }), "{why}");
    assert!(sent > 1000 && rejected > 10);
    assert!(last_sent.elapsed() >= silence / 2, "{:?}", last_sent.elapsed());
}
