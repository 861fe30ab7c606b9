//! How lives end, and that the next one begins.

use crate::carrying::batch;
use crate::relay::Relay;
use crate::site::{STANDSTILL_MAX, Site, config, pair, times};
use link::{LifeNumber, LinkConfig, News, Times, Why};
use replication::wire::{ByeCode, Frame};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Handle;
use units::{Epoch, GroupId, Lsn};

/// Two sites with a relay between them.
pub(crate) fn apart() -> ([Site; 2], Relay) {
    apart_with(times())
}

pub(crate) fn apart_with(times: Times) -> ([Site; 2], Relay) {
    let two = Site::start(LinkConfig { times, ..config(2, None) });
    let relay = Relay::start(two.address());
    let one = Site::start(LinkConfig { times, ..config(1, Some(relay.address())) });
    ([one, two], relay)
}

/// Two sites with a relay between them, soon tired of silence.
fn impatient() -> ([Site; 2], Relay) {
    apart_with(Times { silence: Duration::from_secs(1), ..times() })
}

fn is_silence(why: &Why) -> bool {
    match why {
        Why::Silent { .. } => true,
        Why::Bye(bye) => bye.code == ByeCode::Silence,
        _ => false,
    }
}

/// A relay that stops without closing anything is noticed at both ends, and a new life begins once it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_a_life() {
    let ([mut one, mut two], relay) = impatient();
    let lives = [one.up().await, two.up().await];
    relay.hold([true, true]);
    for (site, life) in [&mut one, &mut two].into_iter().zip(lives) {
        let why = site.down(life).await;
        assert!(matches!(why, Why::Silent { .. }), "{why}");
    }
    relay.hold([false, false]);
    assert!(one.up().await > lives[0] && two.up().await > lives[1]);
}

/// One direction that is silent is enough, whichever it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_of_one_direction_ends_a_life() {
    for is_held in [[true, false], [false, true]] {
        let ([mut one, mut two], relay) = impatient();
        let lives = [one.up().await, two.up().await];
        relay.hold(is_held);
        for (site, life) in [&mut one, &mut two].into_iter().zip(lives) {
            let why = site.down(life).await;
            assert!(is_silence(&why), "{why}");
        }
        relay.hold([false, false]);
        one.up().await;
        two.up().await;
    }
}

/// A link on which nothing is sent is not silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_at_rest_stays_up() {
    let times = Times { silence: STANDSTILL_MAX, ..times() };
    let mut two = Site::start(LinkConfig { times, ..config(2, None) });
    let mut one = Site::start(LinkConfig { times, ..config(1, Some(two.address())) });
    one.up().await;
    two.up().await;
    // Far longer than a silence that is not allowed.
    tokio::time::sleep(STANDSTILL_MAX * 2).await;
    for site in [&mut one, &mut two] {
        // A machine that is slow may be told as a slow way.
        let told = site.told_but_slowness();
        assert!(told.is_none(), "{told:?}");
    }
    assert!(one.handle.statistics().rtt_ns.load(Ordering::Relaxed) > 0);
}

/// A cut anywhere, in the middle of frames as well, ends the life; nothing of it is told in the next one, and nothing of it is sent there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_ends_a_life_and_nothing_of_it_comes_later() {
    let ([mut one, mut two], relay) = apart();
    let mut lives = [one.up().await, two.up().await];
    for cut_after in [1, 100, 5_000, 20_000, 70_000, 150_000] {
        relay.cut_after(cut_after);
        for number in 0..20 {
            // Its life tells by the epoch which one it is of.
            let mut frame = batch(number % 3, lives[0].0, 4);
            if let Frame::Batch { epoch, .. } = &mut frame {
                *epoch = Epoch(lives[0].0);
            }
            if one.handle.send(lives[0], frame).is_err() {
                break;
            }
        }
        one.down(lives[0]).await;
        let stale = one.handle.send(lives[0], Frame::MakeDurable { group: GroupId(1), epoch: Epoch(1), lsn: Lsn(1) });
        assert!(stale.is_err());
        loop {
            match two.next().await {
                News::Frame { life, frame: Frame::Batch { epoch, .. } } => {
                    assert_eq!((life, epoch.0), (lives[1], lives[0].0));
                }
                News::Down { life, .. } => {
                    assert_eq!(life, lives[1]);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        lives = [one.up().await, two.up().await];
        let frame = Frame::MakeDurable { group: GroupId(1), epoch: Epoch(lives[0].0), lsn: Lsn(1) };
        one.handle.send(lives[0], frame).unwrap();
        let Frame::MakeDurable { epoch, .. } = two.frame(lives[1]).await else { panic!("something old") };
        assert_eq!(epoch.0, lives[0].0);
    }
}

/// A way that has become long is told, and the life goes on. When it counts as well again `slowness.rs` tests, without a clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowness_is_told() {
    let ([mut one, mut two], relay) = apart();
    let life = one.up().await;
    two.up().await;
    // The first answers are fast: they are what later ones are held against.
    while one.handle.statistics().rtt_ns.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let told = loop {
        relay.hold([true, false]);
        tokio::time::sleep(Duration::from_millis(400)).await;
        relay.hold([false, false]);
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Some(news) = one.told() {
            break news;
        }
    };
    assert!(matches!(told, News::Slow { life: of, is_slow: true } if of == life), "{told:?}");
    assert_eq!(one.handle.statistics().is_slow.load(Ordering::Relaxed), 1);
    one.handle.send(life, batch(1, 1, 1)).unwrap();
}

/// What was received and not told when a life ends is never told, however much of it there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_behind_the_end_of_a_life() {
    const FRAMES: u64 = 1000;
    let mut two = Site::start_slowly(config(2, None), Duration::from_millis(2));
    let mut one = Site::start(config(1, Some(two.address())));
    let lives = [one.up().await, two.up().await];
    for number in 0..FRAMES {
        let frame = Frame::MakeDurable { group: GroupId(1), epoch: Epoch(1), lsn: Lsn(number) };
        one.handle.send(lives[0], frame).unwrap();
    }
    // One has come, so those behind it are there or on their way.
    assert!(matches!(two.frame(lives[1]).await, Frame::MakeDurable { lsn: Lsn(0), .. }));
    one.link.close().await;
    let mut told = 1;
    while let News::Frame { .. } = two.next().await {
        told += 1;
    }
    assert!(told < FRAMES);
    let mut one = Site::start(config(1, Some(two.address())));
    let lives = [one.up().await, two.up().await];
    one.handle.send(lives[0], Frame::MakeDurable { group: GroupId(1), epoch: Epoch(2), lsn: Lsn(1) }).unwrap();
    assert!(matches!(two.frame(lives[1]).await, Frame::MakeDurable { epoch: Epoch(2), .. }));
}

/// A site that is lost without a word, as by kill -9, is noticed at once, and comes back as a new life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_goes_is_noticed_and_may_come_back() {
    let mut two = Site::start(config(2, None));
    let one = Site::start(config(1, Some(two.address())));
    let first = two.up().await;
    drop(one);
    assert!(matches!(two.down(first).await, Why::Lost { .. }));
    let mut one = Site::start(config(1, Some(two.address())));
    one.up().await;
    assert_eq!(two.up().await, LifeNumber(2));
}

/// Fifty lives leave behind what one does, and nothing once both links are closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_lives_leave_nothing_behind() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let ([mut one, mut two], relay) = apart();
    let mut lives = [one.up().await, two.up().await];
    // Of each site who keeps it, who listens, and who reads and writes three connections; of one who connects.
    let of_one_life = before + 2 * (2 + 6) + 1;
    for _ in 0..50 {
        one.handle.send(lives[0], batch(1, 1, 2)).unwrap();
        relay.cut();
        one.down(lives[0]).await;
        two.down(lives[1]).await;
        lives = [one.up().await, two.up().await];
    }
    settle(|| tasks() <= of_one_life).await;
    assert_eq!(one.handle.statistics().lives.load(Ordering::Relaxed), 51);
    one.link.close().await;
    two.link.close().await;
    settle(|| tasks() == before).await;
}

/// Waits for what happens soon, or never.
async fn settle(is_so: impl Fn() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never settles");
}

/// Whoever is told that a life begins may send at once, and what it sends arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_can_send_as_soon_as_they_are_up() {
    for _ in 0..10 {
        let ([mut one, mut two], lives) = pair().await;
        one.handle.send(lives[0], batch(1, 1, 1)).unwrap();
        two.handle.send(lives[1], batch(1, 2, 1)).unwrap();
        assert!(matches!(one.frame(lives[0]).await, Frame::Batch { .. }));
        assert!(matches!(two.frame(lives[1]).await, Frame::Batch { .. }));
    }
}
