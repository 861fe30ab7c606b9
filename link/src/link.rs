//! The link from outside: started, sent on, closed.

use crate::config::{ConfigError, LinkConfig};
use crate::life::{Life, Running};
use crate::news::{LifeNumber, News, Sink, Why};
use crate::opening::{Connections, accept, connect};
use crate::outbox::Refused;
use crate::statistics::Statistics;
use crate::tls::{self, TlsConfigs};
use replication::wire::{Frame, Kind, Outgoing};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use units::{GroupId, Monotonic};

/// How often failed tries are told in the long run, and for how long none may have been told that are made up for at once.
const NOT_UP_PAUSE: Duration = Duration::from_millis(100);
const NOT_UP_BURST: Duration = Duration::from_secs(1);

/// A link to the other site, which comes up again whenever it was lost. Dropped, it is cut off without a farewell, and soon tells
/// nothing more.
#[derive(Debug)]
pub struct Link {
    handle: LinkHandle,
    listens_at: Option<SocketAddr>,
    /// Those who open connections.
    openers: JoinSet<()>,
    closing: Option<oneshot::Sender<()>>,
    keeper: JoinHandle<()>,
}

impl Link {
    /// Starts a link, whose tasks run where this is called.
    ///
    /// # Errors
    /// [`ConfigError`] says what of the configuration is of no use.
    ///
    /// # Panics
    /// Outside of a tokio runtime with a clock and sockets.
    pub fn start(config: LinkConfig, sink: Arc<dyn Sink>) -> Result<Self, ConfigError> {
        config.check()?;
        let tls = tls::load(&config.tls, config.peer)?;
        let listener = config.listen.map(listen).transpose()?;
        let listens_at = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let address = config.peer_address.clone().filter(|_| config.connects());
        let shared = Arc::new(Shared::new(config, tls, sink));
        let (lives, connections) = mpsc::channel(1);
        let mut openers = JoinSet::new();
        if let Some(listener) = listener {
            openers.spawn(accept(Arc::clone(&shared), listener, lives.clone()));
        }
        if let Some(address) = address {
            openers.spawn(connect(Arc::clone(&shared), address, lives));
        }
        let (closing, is_closing) = oneshot::channel();
        let keeper = tokio::spawn(keep(Arc::clone(&shared), connections, is_closing));
        Ok(Self { handle: LinkHandle { shared }, listens_at, openers, closing: Some(closing), keeper })
    }

    /// What sends.
    #[must_use]
    pub fn handle(&self) -> LinkHandle {
        self.handle.clone()
    }

    /// Where the link listens.
    #[must_use]
    pub const fn listens_at(&self) -> Option<SocketAddr> {
        self.listens_at
    }

    /// Says farewell to the other site, tells that the life is over, and ends all tasks.
    pub async fn close(mut self) {
        self.openers.shutdown().await;
        self.closing = None;
        // It has ended whatever it says: a sink that panics is the only way for it to fail.
        let _ = (&mut self.keeper).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// What sends on a link; may be copied and used from any thread.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    shared: Arc<Shared>,
}

/// A frame that is not sent, and why.
#[derive(Debug)]
pub enum Rejected {
    /// The life is over, or not yet.
    Down(Frame),
    /// Too much waits for being sent on the way of this frame, batches or others: [`News::Room`] tells when there is room.
    NoRoom(Frame),
    /// A batch that the other site cannot take before it has consumed others: [`News::Room`] tells when it can.
    NoCredit(Frame),
    /// No frame that is sent this way: a batch that is none, or what the link itself says.
    Unsendable(Frame),
}

impl Rejected {
    /// The frame.
    #[must_use]
    pub fn into_frame(self) -> Frame {
        match self {
            Self::Down(frame) | Self::NoRoom(frame) | Self::NoCredit(frame) | Self::Unsendable(frame) => frame,
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down(_) => "the life of the link is over",
            Self::NoRoom(_) => "too much waits for being sent",
            Self::NoCredit(_) => "the other site takes no more now",
            Self::Unsendable(_) => "no frame that is sent",
        })
    }
}

impl std::error::Error for Rejected {}

impl LinkHandle {
    /// Sends a frame in a life of the link, if there is room; waits for nothing. What is taken for one group arrives in its order, or not at all
    /// where the life ends before. **Of a group whose batch was rejected no later one may be sent**: the log is fed from there on.
    /// Other frames come back too where 1 MiB of them waits on their connection, as when all groups align at once: they are sent again at
    /// [`News::Room`], each group's in its order, or left where a newer one says the same. It may take several turns.
    ///
    /// # Errors
    /// [`Rejected`] gives the frame back.
    pub fn send(&self, life: LifeNumber, frame: Frame) -> Result<(), Rejected> {
        let sent = self.push(life, frame);
        if sent.is_err() {
            Statistics::add(&self.shared.statistics.rejected, 1);
        }
        sent
    }

    fn push(&self, number: LifeNumber, frame: Frame) -> Result<(), Rejected> {
        let Some(group) = frame.group().filter(|_| is_sendable(&frame)) else {
            return Err(Rejected::Unsendable(frame));
        };
        let Some(life) = self.shared.current(number) else { return Err(Rejected::Down(frame)) };
        let connection = if frame.kind() == Kind::Say { 0 } else { life.connection_of(group) };
        let Some(outbox) = life.outbox(connection) else { return Err(Rejected::Down(frame)) };
        outbox.push(frame).map_err(|refused| match refused {
            Refused::Room(frame) => Rejected::NoRoom(frame),
            Refused::Credit(frame) => Rejected::NoCredit(frame),
            Refused::Closed(frame) => Rejected::Down(frame),
        })
    }

    /// Says that so many bytes of batches of a group have been done with, so that the other site may send as many more.
    pub fn consumed(&self, life: LifeNumber, group: GroupId, bytes: u64) {
        if let Some(life) = self.shared.current(life)
            && let Some(outbox) = life.outbox(life.connection_of(group))
        {
            outbox.consumed(bytes);
        }
    }

    /// The connection that carries the log of a group; `None` when that life is over.
    #[must_use]
    pub fn connection_of(&self, life: LifeNumber, group: GroupId) -> Option<u16> {
        self.shared.current(life).map(|life| life.connection_of(group))
    }

    /// Bytes of batches on the way of a group's log that the other site has not consumed, and those that wait here.
    #[must_use]
    pub fn unacknowledged(&self, life: LifeNumber, group: GroupId) -> u64 {
        let life = self.shared.current(life);
        life.and_then(|life| Some(life.outbox(life.connection_of(group))?.unacknowledged())).unwrap_or(0)
    }

    /// What is counted.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.shared.statistics
    }
}

fn is_sendable(frame: &Frame) -> bool {
    frame.kind().is_of_group() && Outgoing::is_sound(frame)
}

/// What all tasks of a link share.
pub(crate) struct Shared {
    pub(crate) config: LinkConfig,
    pub(crate) tls: TlsConfigs,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) statistics: Statistics,
    current: RwLock<Option<Arc<Life>>>,
    /// Of [`Shared::now`].
    origin: Instant,
    /// What was told of failed tries, as time: it grows by [`NOT_UP_PAUSE`] with each.
    told_until: Mutex<Instant>,
}

impl Shared {
    fn new(config: LinkConfig, tls: TlsConfigs, sink: Arc<dyn Sink>) -> Self {
        let (origin, statistics) = (Instant::now(), Statistics::default());
        Self { config, tls, sink, statistics, current: RwLock::new(None), origin, told_until: Mutex::new(origin) }
    }

    pub(crate) fn now(&self) -> Monotonic {
        Monotonic(0).plus(self.origin.elapsed())
    }

    fn current(&self, number: LifeNumber) -> Option<Arc<Life>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|life| life.number == number).map(Arc::clone)
    }

    pub(crate) fn set_current(&self, life: Option<Arc<Life>>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = life;
    }

    /// Tells that a try has failed, unless many were told just now: anybody who reaches the listener can make it fail.
    pub(crate) fn tell_not_up(&self, why: Why) {
        Statistics::add(&self.statistics.failures, 1);
        let now = Instant::now();
        let mut told_until = self.told_until.lock().unwrap_or_else(PoisonError::into_inner);
        if *told_until > now + NOT_UP_BURST {
            return;
        }
        *told_until = (*told_until).max(now) + NOT_UP_PAUSE;
        drop(told_until);
        self.sink.take(News::NotUp { why });
    }

    pub(crate) fn random_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        let source = self.tls.client.crypto_provider().secure_random;
        source.fill(&mut id).expect("the system's random source is there, since TLS works");
        id
    }

    pub(crate) fn random_u32(&self) -> u32 {
        let [a, b, c, d, ..] = self.random_id();
        u32::from_le_bytes([a, b, c, d])
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Shared");
        shown.field("site", &self.config.site).field("peer", &self.config.peer).finish_non_exhaustive()
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, ConfigError> {
    let refused = |source| ConfigError::Listen { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    TcpListener::from_std(listener).map_err(refused)
}

/// Keeps at most one life at a time, the newest.
async fn keep(shared: Arc<Shared>, mut lives: mpsc::Receiver<Connections>, mut closing: oneshot::Receiver<()>) {
    let mut number = 0;
    let mut next = None;
    loop {
        let connections = match next.take() {
            Some(connections) => connections,
            None => tokio::select! {
                _ = &mut closing => return,
                Some(connections) = lives.recv() => connections,
            },
        };
        number += 1;
        let mut running = Running::begin(&shared, LifeNumber(number), connections);
        let why = tokio::select! {
            biased;
            why = running.ended() => why,
            _ = &mut closing => Why::Closing,
            Some(connections) = lives.recv() => {
                next = Some(connections);
                Why::Replaced
            }
        };
        let is_closing = why == Why::Closing;
        running.end(why).await;
        if is_closing {
            return;
        }
    }
}
