//! More at once than the link keeps: it is given back, and goes when there is room.

use crate::carrying::{bytes_of, say, send_all};
use crate::losing::apart_with;
use crate::site::{STANDSTILL_MAX, pair, times};
use link::{LifeNumber, LinkHandle, News, Rejected, Times};
use replication::wire::{Frame, STRETCHES_MAX};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use units::{Epoch, GroupId, Lsn, SegmentId};
use volume::parting::Stretch;

/// The longest that a group says as the link comes up.
fn align(group: u64) -> Frame {
    let stretch = Stretch { segment: SegmentId(1), first_lsn: Lsn(1), last_lsn: Lsn(1) };
    Frame::Align { group: GroupId(group), epoch: Epoch(1), number: 1, stretches: vec![stretch; STRETCHES_MAX] }
}

/// Sends what may go; what comes back is left.
fn send_some(handle: &LinkHandle, life: LifeNumber, frames: Vec<Frame>) -> Vec<Frame> {
    let mut left = Vec::new();
    for frame in frames {
        match handle.send(life, frame) {
            Ok(()) => {}
            Err(Rejected::NoRoom(frame)) => left.push(frame),
            Err(other) => panic!("{other}"),
        }
    }
    left
}

/// 300 groups align at once over a line that takes seconds for it, longer than silence may last: all arrive, in one life.
/// Of one thread, so that nothing is written while they are sent.
#[tokio::test]
async fn many_groups_align_at_once_over_a_slow_line() {
    const GROUPS: u64 = 300;
    let ([mut one, mut two], relay) = apart_with(Times { silence: STANDSTILL_MAX, ..times() });
    relay.slow_down(Duration::from_millis(20));
    let lives = [one.up().await, two.up().await];
    let began = Instant::now();
    let mut left = send_some(&one.handle, lives[0], (0..GROUPS).map(align).collect());
    assert!(left.len() > 100, "{}", left.len());
    let sender = tokio::spawn(async move {
        while !left.is_empty() {
            match one.next().await {
                News::Room { life, .. } => left = send_some(&one.handle, life, left),
                News::Slow { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        one
    });
    let mut came = BTreeSet::new();
    while came.len() < GROUPS as usize {
        let frame = two.frame(lives[1]).await;
        let group = frame.group().unwrap();
        assert!(bytes_of(frame) == bytes_of(align(group.0)) && came.insert(group));
    }
    assert!(began.elapsed() > STANDSTILL_MAX, "{:?}", began.elapsed());
    let one = sender.await.unwrap();
    for site in [&one, &two] {
        assert_eq!(site.handle.statistics().lives.load(Ordering::Relaxed), 1);
    }
    assert!(one.handle.send(lives[0], say(1, 1)).is_ok(), "the life goes on");
}

/// What role machines say comes back at the bound as well, and arrives in its order when it is said again.
#[tokio::test]
async fn more_is_said_at_once_than_waits() {
    const SAYS: u64 = 30_000;
    let ([mut one, mut two], lives) = pair().await;
    let sender = tokio::spawn(async move {
        send_all(&mut one, lives[0], (0..SAYS).map(|number| say(number % 9, number)).collect()).await;
        one
    });
    for number in 0..SAYS {
        assert_eq!(bytes_of(two.frame(lives[1]).await), bytes_of(say(number % 9, number)));
    }
    let one = sender.await.unwrap();
    assert!(one.handle.statistics().rejected.load(Ordering::Relaxed) > 0);
}
