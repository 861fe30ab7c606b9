//! The side that listens.

use super::gather::Gathering;
use super::{Connections, Place, Stream, read_opening, refusal, refuse, write_opening};
use crate::connection::why_of;
use crate::link::Shared;
use crate::news::{Peer, Why};
use replication::wire::{LinkId, Opening, RefusalCode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};

/// Most connections that are being opened at a time. More wait in the listener's queue.
const OPENINGS_MAX: usize = 64;

/// How long nothing is accepted when the system has nothing to accept with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection that was let in.
struct Opened {
    peer: Peer,
    link: LinkId,
    connection: u16,
    stream: Stream,
}

/// What has come, as the tasks that open connections and the one that waits for them share it.
#[derive(Debug, Default, Clone)]
struct Gathered(Arc<Mutex<Gathering<Stream>>>);

impl Gathered {
    fn lock(&self) -> MutexGuard<'_, Gathering<Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts connections for ever, and hands on the lives that are whole.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener, lives: mpsc::Sender<Connections>) {
    let gathered = Gathered::default();
    let mut openings: JoinSet<Result<Opened, Why>> = JoinSet::new();
    let mut building: Option<(LinkId, Instant)> = None;
    loop {
        let link = gathered.lock().link();
        if link != building.map(|(link, _)| link) {
            building = link.map(|link| (link, Instant::now() + shared.config.times.opening));
        }
        tokio::select! {
            accepted = listener.accept(), if openings.len() < OPENINGS_MAX => match accepted {
                Ok((tcp, _)) => {
                    openings.spawn(open_in_time(Arc::clone(&shared), gathered.clone(), tcp));
                }
                Err(error) => {
                    shared.tell_not_up(Why::Unreachable { address: "the listener".to_owned(), reason: error.to_string() });
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(opened) = openings.join_next() => match opened {
                Ok(Ok(opened)) => {
                    if let Some(connections) = put(&gathered, opened)
                        && lives.send(connections).await.is_err()
                    {
                        return;
                    }
                }
                Ok(Err(why)) => shared.tell_not_up(why),
                Err(error) => shared.tell_not_up(Why::Broken(error.to_string())),
            },
            Some(link) = expired(building) => gathered.lock().give_up(link),
        }
    }
}

/// Waits until a life that is not whole by then is to be given up; for ever where there is none.
async fn expired(building: Option<(LinkId, Instant)>) -> Option<LinkId> {
    match building {
        Some((link, deadline)) => {
            sleep_until(deadline).await;
            Some(link)
        }
        None => std::future::pending().await,
    }
}

fn put(gathered: &Gathered, opened: Opened) -> Option<Connections> {
    let Opened { peer, link, connection, stream } = opened;
    let streams = gathered.lock().put((link, connection), stream)?;
    Some(Connections { peer, streams, over: None })
}

async fn open_in_time(shared: Arc<Shared>, gathered: Gathered, tcp: TcpStream) -> Result<Opened, Why> {
    let limit = shared.config.times.opening;
    timeout(limit, open(&shared, &gathered, tcp)).await.unwrap_or(Err(Why::Late(limit)))
}

async fn open(shared: &Shared, gathered: &Gathered, tcp: TcpStream) -> Result<Opened, Why> {
    tcp.set_nodelay(true).map_err(|error| why_of(0, &error))?;
    let accepted = TlsAcceptor::from(Arc::clone(&shared.tls.server)).accept(tcp).await;
    let mut tls = TlsStream::Server(accepted.map_err(|error| why_of(0, &error))?);
    let (hello, leftover) = match read_opening(&mut tls, 0).await {
        Ok(read) => read,
        Err(Why::Opening(error)) => {
            let refusal = refusal(RefusalCode::Protocol, &error.to_string());
            return Err(refuse(&mut tls, refusal).await);
        }
        Err(why) => return Err(why),
    };
    let judged = shared.judge(&hello).and_then(|peer| gathered.lock().admit(&hello).map(|()| peer));
    let peer = match judged {
        Ok(peer) => peer,
        Err(refusal) => return Err(refuse(&mut tls, refusal).await),
    };
    let (link, connection) = (hello.link, hello.connection);
    let place = Place { link, connection, data_connections: hello.data_connections };
    let answer = Opening::Hello(shared.hello(place));
    write_opening(&mut tls, &answer).await.map_err(|error| why_of(connection, &error))?;
    Ok(Opened { peer, link, connection, stream: Stream { tls, leftover, peer_window: hello.window_bytes } })
}
