//! A link whose news are collected.

use link::{LifeNumber, Link, LinkConfig, LinkHandle, News, Sink, Times, TlsFiles, Trust, Why};
use replication::wire::{Frame, VERSIONS};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use units::{PoolId, SiteId};

/// Nothing takes so long: a test that waits for more hangs.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pem").join(name)
}

/// The files of one who holds the certificate of this name.
pub(crate) fn files(name: &str, trust: Trust) -> TlsFiles {
    TlsFiles { certificate: pem(&format!("{name}.pem")), key: pem(&format!("{name}-key.pem")), trust }
}

pub(crate) fn authority() -> Trust {
    Trust::Authority(pem("authority.pem"))
}

/// How long a machine may stand still before a test takes it for silence: its clock goes on meanwhile, and nobody asks or answers.
pub(crate) const STANDSTILL_MAX: Duration = Duration::from_secs(3);

/// A site that is not tired of silence before a test is over. One that waits for that says how long it takes.
pub(crate) fn times() -> Times {
    Times {
        ping: Duration::from_millis(50),
        silence: PATIENCE,
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(50),
        ..Times::default()
    }
}

/// A site that listens, and connects where `peer` says; of two data connections.
pub(crate) fn config(site: u8, peer_address: Option<String>) -> LinkConfig {
    LinkConfig {
        site: SiteId(site),
        peer: SiteId(3 - site),
        pool: PoolId([site; 16]),
        versions: VERSIONS,
        listen: Some("127.0.0.1:0".parse().unwrap()),
        peer_address,
        tls: files(&format!("site-{site}"), authority()),
        data_connections: 2,
        window_bytes: 1 << 20,
        queue_bytes: 1 << 20,
        times: times(),
    }
}

struct Collector {
    sender: mpsc::UnboundedSender<News>,
    /// How long it takes for a frame.
    pause: Duration,
}

impl Sink for Collector {
    fn take(&self, news: News) {
        if matches!(news, News::Frame { .. }) && !self.pause.is_zero() {
            std::thread::sleep(self.pause);
        }
        // A test that has ended asks for no more.
        let _ = self.sender.send(news);
    }
}

pub(crate) struct Site {
    pub(crate) link: Link,
    pub(crate) handle: LinkHandle,
    news: mpsc::UnboundedReceiver<News>,
}

impl Site {
    pub(crate) fn start(config: LinkConfig) -> Self {
        Self::start_slowly(config, Duration::ZERO)
    }

    /// A site that takes so long for each frame.
    pub(crate) fn start_slowly(config: LinkConfig, pause: Duration) -> Self {
        let (sender, news) = mpsc::unbounded_channel();
        let link = Link::start(config, Arc::new(Collector { sender, pause })).unwrap();
        Self { handle: link.handle(), link, news }
    }

    pub(crate) fn address(&self) -> String {
        self.link.listens_at().unwrap().to_string()
    }

    pub(crate) async fn next(&mut self) -> News {
        tokio::time::timeout(PATIENCE, self.news.recv()).await.expect("something happens").expect("the link lives")
    }

    /// What is told already.
    pub(crate) fn told(&mut self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// What else is told already than that the way is slow, or is so no more.
    pub(crate) fn told_but_slowness(&mut self) -> Option<News> {
        std::iter::from_fn(|| self.told()).find(|news| !matches!(news, News::Slow { .. }))
    }

    /// The next life; tries that fail before are passed over.
    pub(crate) async fn up(&mut self) -> LifeNumber {
        loop {
            match self.next().await {
                News::Up { life, peer } => {
                    assert_ne!(peer.pool, PoolId([0; 16]));
                    return life;
                }
                News::NotUp { .. } => {}
                other => panic!("not up: {other:?}"),
            }
        }
    }

    /// The end of this life; what it tells before is passed over.
    pub(crate) async fn down(&mut self, of: LifeNumber) -> Why {
        loop {
            match self.next().await {
                News::Down { life, why } => {
                    assert_eq!(life, of);
                    return why;
                }
                News::Frame { life, .. } | News::Slow { life, .. } | News::Room { life, .. } => assert_eq!(life, of),
                News::NotUp { .. } => {}
                News::Up { life, .. } => panic!("life {life} begins before {of} is over"),
            }
        }
    }

    /// Why the next try fails.
    pub(crate) async fn not_up(&mut self) -> Why {
        match self.next().await {
            News::NotUp { why } => why,
            other => panic!("no failure: {other:?}"),
        }
    }

    /// The next frame of a life.
    pub(crate) async fn frame(&mut self, of: LifeNumber) -> Frame {
        loop {
            match self.next().await {
                News::Frame { life, frame } => {
                    assert_eq!(life, of);
                    return frame;
                }
                News::NotUp { .. } | News::Room { .. } | News::Slow { .. } => {}
                other @ (News::Up { .. } | News::Down { .. }) => panic!("no frame: {other:?}"),
            }
        }
    }
}

/// Two sites that are up, the first of which connects.
pub(crate) async fn pair() -> ([Site; 2], [LifeNumber; 2]) {
    let mut two = Site::start(config(2, None));
    let mut one = Site::start(config(1, Some(two.address())));
    let lives = [one.up().await, two.up().await];
    ([one, two], lives)
}
