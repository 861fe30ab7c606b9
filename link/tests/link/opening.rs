//! Who comes up, who does not, and why.

use crate::raw;
use crate::site::{STANDSTILL_MAX, Site, authority, config, files, pair, pem, times};
use link::{LifeNumber, LinkConfig, News, Times, Trust, Why};
use replication::wire::{ByeCode, Hello, Opening, RefusalCode, Versions};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use units::SiteId;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sites_come_up() {
    let ([one, mut two], lives) = pair().await;
    assert_eq!(lives, [LifeNumber(1); 2]);
    one.link.close().await;
    let Why::Bye(bye) = two.down(lives[1]).await else { panic!("no farewell") };
    assert_eq!(bye.code, ByeCode::Closing);
    two.link.close().await;
}

/// The site with the higher id connects where it listens nowhere itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_cannot_be_reached_connects() {
    let mut one = Site::start(config(1, None));
    let mut two = Site::start(LinkConfig { listen: None, ..config(2, Some(one.address())) });
    one.up().await;
    two.up().await;
}

/// Starts two sites, the second of which listens, and tells why neither comes up; no more often than the pauses allow.
async fn refused(one: LinkConfig, two: LinkConfig) -> [Why; 2] {
    let pause = Duration::from_millis(150);
    let with_pause = |config: LinkConfig| LinkConfig {
        times: Times { backoff_min: pause, backoff_max: pause, ..times() },
        ..config
    };
    let began = Instant::now();
    let mut two = Site::start(with_pause(two));
    let mut one = Site::start(with_pause(LinkConfig { peer_address: Some(two.address()), ..one }));
    let first = [one.not_up().await, two.not_up().await];
    for _ in 0..3 {
        one.not_up().await;
    }
    assert!(began.elapsed() >= pause * 3, "it does not try again at once");
    assert!(one.told().is_none_or(|news| matches!(news, News::NotUp { .. })));
    first
}

fn tls_words(why: &Why) -> &str {
    let Why::Tls(words) = why else { panic!("not TLS: {why}") };
    words
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_is_refused() {
    let listens = LinkConfig { tls: files("stranger", authority()), ..config(2, None) };
    let [one, two] = refused(config(1, None), listens).await;
    assert!(tls_words(&one).contains("invalid peer certificate"), "{one}");
    assert!(tls_words(&two).contains("alert"), "{two}");
    let connects = LinkConfig { tls: files("stranger", authority()), ..config(1, None) };
    let [one, two] = refused(connects, config(2, None)).await;
    assert!(tls_words(&one).contains("alert"), "{one}");
    assert!(tls_words(&two).contains("invalid peer certificate"), "{two}");
}

/// A certificate of the right authority for another site does not pass, whoever shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_site_is_refused() {
    for name in ["site-3", "site-1"] {
        let listens = LinkConfig { tls: files(name, authority()), ..config(2, None) };
        let [one, two] = refused(config(1, None), listens).await;
        assert!(tls_words(&one).contains("site-2.aljibe"), "{one}");
        assert!(tls_words(&two).contains("alert"), "{two}");
    }
    for name in ["site-3", "site-2"] {
        let connects = LinkConfig { tls: files(name, authority()), ..config(1, None) };
        let [one, two] = refused(connects, config(2, None)).await;
        assert!(tls_words(&one).contains("alert"), "{one}");
        assert!(tls_words(&two).contains("site-1.aljibe"), "{two}");
    }
}

/// A pinned certificate needs no authority and no name, and nothing else passes for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_certificate_is_the_one_or_refused() {
    let pinned = |name: &str| Trust::Pinned(pem(name));
    let two = LinkConfig { tls: files("stranger", pinned("site-3.pem")), ..config(2, None) };
    let mut two = Site::start(two);
    let one = LinkConfig { tls: files("site-3", pinned("stranger.pem")), ..config(1, Some(two.address())) };
    let mut one = Site::start(one);
    one.up().await;
    two.up().await;
    let listens = LinkConfig { tls: files("site-2", pinned("site-1.pem")), ..config(2, None) };
    let connects = LinkConfig { tls: files("site-1", pinned("stranger.pem")), ..config(1, None) };
    let [one, two] = refused(connects, listens).await;
    assert!(tls_words(&one).contains("invalid peer certificate"), "{one}");
    assert!(tls_words(&two).contains("alert"), "{two}");
    let listens = LinkConfig { tls: files("site-2", pinned("site-3.pem")), ..config(2, None) };
    let [one, two] = refused(config(1, None), listens).await;
    assert!(tls_words(&one).contains("alert"), "{one}");
    assert!(tls_words(&two).contains("invalid peer certificate"), "{two}");
}

/// Where certificates do not tell sites apart, what they say does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_site_is_refused_at_both_ends() {
    let pinned = |name: &str| Trust::Pinned(pem(name));
    let tls = || files("site-2", pinned("site-1.pem"));
    let connects = || LinkConfig { tls: files("site-1", pinned("site-2.pem")), ..config(1, None) };
    let third = LinkConfig { site: SiteId(3), peer: SiteId(1), tls: tls(), ..config(2, None) };
    let other = LinkConfig { peer: SiteId(4), tls: tls(), ..config(2, None) };
    for listens in [third, other] {
        let [one, two] = refused(connects(), listens).await;
        let (Why::Refused(told), Why::Refuses(told_here)) = (one, two) else { panic!("not refused") };
        assert_eq!(told, told_here);
        assert_eq!(told.code, RefusalCode::Site);
        assert!(told.text.as_str().contains("it is site 1 and wants site 2"), "{}", told.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sites_without_a_common_version_are_refused_at_both_ends() {
    let newer = LinkConfig { versions: Versions { min: 2, max: 3 }, ..config(2, None) };
    let [one, two] = refused(config(1, None), newer).await;
    let (Why::Refused(told), Why::Refuses(told_here)) = (one, two) else { panic!("not refused") };
    assert_eq!(told, told_here);
    assert_eq!(told.code, RefusalCode::Version);
    assert_eq!(told.text.as_str(), "it speaks versions 1 to 1, here 2 to 3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_highest_common_version_is_spoken() {
    let mut two = Site::start(LinkConfig { versions: Versions { min: 1, max: 3 }, ..config(2, None) });
    let versions = Versions { min: 1, max: 2 };
    let mut one = Site::start(LinkConfig { versions, ..config(1, Some(two.address())) });
    for site in [&mut one, &mut two] {
        let News::Up { peer, .. } = site.next().await else { panic!("not up") };
        assert_eq!(peer.version, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_told_and_tried_again() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let mut one = Site::start(config(1, Some(address.to_string())));
    let Why::Unreachable { address: named, .. } = one.not_up().await else { panic!("somebody is there") };
    assert_eq!(named, address.to_string());
    let mut two = Site::start(LinkConfig { listen: Some(address), ..config(2, None) });
    one.up().await;
    two.up().await;
}

/// Garbage instead of TLS, TLS without a hello, and half an opening do no harm to those who come next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_at_the_door_is_told_and_harms_nobody() {
    let times = Times { opening: STANDSTILL_MAX, ..times() };
    let mut two = Site::start(LinkConfig { times, ..config(2, None) });
    let mut tcp = TcpStream::connect(two.address()).await.unwrap();
    tcp.write_all(&[0x5a; 1000]).await.unwrap();
    tls_words(&two.not_up().await);
    let mut tls = raw::connect(&two.address()).await;
    tls.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).await.unwrap();
    let Some(Opening::Refusal(refusal)) = Opening::decode(&mut answer.as_slice()).unwrap() else { panic!("let in") };
    assert_eq!(refusal.code, RefusalCode::Protocol);
    assert!(matches!(two.not_up().await, Why::Refuses(_)));
    // Says nothing, or not all of it.
    let silent = TcpStream::connect(two.address()).await.unwrap();
    assert!(matches!(two.not_up().await, Why::Late(_)));
    let mut half = raw::connect(&two.address()).await;
    half.write_all(&Opening::Hello(raw::hello(1, 0)).encode()[..20]).await.unwrap();
    assert!(matches!(two.not_up().await, Why::Late(_)));
    let mut one = Site::start(config(1, Some(two.address())));
    one.up().await;
    two.up().await;
    drop((silent, half));
}

/// A data connection that belongs to no link that is being built is refused, and so is one that comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_belongs_to_one_link() {
    let two = Site::start(config(2, None));
    let code = |opening: Opening| match opening {
        Opening::Refusal(refusal) => Some(refusal.code),
        Opening::Hello(_) => None,
    };
    let (_one, opening) = raw::open(&two.address(), raw::hello(7, 1)).await;
    assert_eq!(code(opening), Some(RefusalCode::Connection));
    let (_two, opening) = raw::open(&two.address(), raw::hello(7, 0)).await;
    assert_eq!(code(opening), None);
    let (_three, opening) = raw::open(&two.address(), raw::hello(7, 0)).await;
    assert_eq!(code(opening), Some(RefusalCode::Connection));
    let more = Hello { data_connections: 2, ..raw::hello(7, 1) };
    let (_four, opening) = raw::open(&two.address(), more).await;
    assert_eq!(code(opening), Some(RefusalCode::Connection));
}

/// A link that is built while the old one seems to live takes its place: who connects has one at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_link_takes_the_place_of_the_old_one() {
    let mut two = Site::start(config(2, None));
    let _old = raw::link(&two.address(), 1).await;
    let first = two.up().await;
    let _new = raw::link(&two.address(), 2).await;
    assert_eq!(two.down(first).await, Why::Replaced);
    assert_eq!(two.up().await, LifeNumber(2));
}
