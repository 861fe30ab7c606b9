//! The side that connects.

use super::{Connections, Place, Stream, read_opening, refusal, refuse, write_opening};
use crate::backoff::Backoff;
use crate::connection::why_of;
use crate::link::Shared;
use crate::news::{Peer, Why};
use replication::wire::{LinkId, Opening, RefusalCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::{TlsConnector, TlsStream};

/// How many addresses of a name one try takes at the most: each has its share of the time, which is to be enough for one that is far.
const ADDRESSES_MAX: usize = 4;

/// Connects, waits until that life is over, and again, for ever. Between two tries there is a pause.
pub(crate) async fn connect(shared: Arc<Shared>, address: String, lives: mpsc::Sender<Connections>) {
    let times = shared.config.times;
    let mut backoff = Backoff::new(times.backoff_min, times.backoff_max);
    // Of the addresses that the name has: grows with each try that fails, so that each of them comes first at some time.
    let mut first = 0;
    loop {
        match open_all(&shared, &address, first).await {
            Ok(mut connections) => {
                let (over, is_over) = oneshot::channel();
                connections.over = Some(over);
                let began = Instant::now();
                if lives.send(connections).await.is_err() {
                    return;
                }
                // It is dropped, not sent.
                let _ = is_over.await;
                if began.elapsed() >= times.settled {
                    backoff.reset();
                }
            }
            Err(why) => {
                first = first.wrapping_add(1);
                shared.tell_not_up(why);
            }
        }
        sleep(backoff.pause(shared.random_u32())).await;
    }
}

async fn open_all(shared: &Arc<Shared>, address: &str, first: usize) -> Result<Connections, Why> {
    let link = LinkId(shared.random_id());
    let data_connections = shared.config.data_connections;
    let place = |connection| Place { link, connection, data_connections };
    let sockets = in_turn(resolve(shared, address).await?, first);
    let limit = shared.config.times.opening;
    let open_control = |at| {
        let open = open_in_time(Arc::clone(shared), at, place(0), share(limit, sockets.len()));
        async move { open.await.map(|opened| (at, opened)) }
    };
    let (at, (peer, control)) = open_first(&sockets, open_control)
        .await
        .unwrap_or_else(|| Err(unreachable(&address, &"the name has no address")))?;
    let mut opening = JoinSet::new();
    for connection in 1..=data_connections {
        let open = open_in_time(Arc::clone(shared), at, place(connection), limit);
        opening.spawn(async move { open.await.map(|(_, stream)| (connection, stream)) });
    }
    let mut data = Vec::new();
    while let Some(opened) = opening.join_next().await {
        // Whoever is still under way is given up with the first that fails.
        data.push(opened.map_err(|error| Why::Broken(error.to_string()))??);
    }
    data.sort_by_key(|(connection, _)| *connection);
    let streams = std::iter::once(control).chain(data.into_iter().map(|(_, stream)| stream)).collect();
    Ok(Connections { peer, streams, over: None })
}

fn unreachable(address: &impl ToString, reason: &impl ToString) -> Why {
    Why::Unreachable { address: address.to_string(), reason: reason.to_string() }
}

/// What the name stands for now.
async fn resolve(shared: &Shared, address: &str) -> Result<Vec<SocketAddr>, Why> {
    let limit = shared.config.times.opening;
    let found = timeout(limit, lookup_host(address)).await.map_err(|_| Why::Late(limit))?;
    Ok(found.map_err(|error| unreachable(&address, &error))?.collect())
}

/// Those of the addresses that one try takes, in their order from the `first` on, counted around.
fn in_turn(mut sockets: Vec<SocketAddr>, first: usize) -> Vec<SocketAddr> {
    let count = sockets.len().max(1);
    sockets.rotate_left(first % count);
    sockets.truncate(ADDRESSES_MAX);
    sockets
}

/// What one of so many addresses has of the time of all.
fn share(limit: Duration, addresses: usize) -> Duration {
    limit / u32::try_from(addresses.max(1)).unwrap_or(u32::MAX)
}

/// Tries one address after the other until somebody answers, be it with a refusal; `None` where there is no address.
async fn open_first<T, F: Future<Output = Result<T, Why>>>(
    sockets: &[SocketAddr],
    open: impl Fn(SocketAddr) -> F,
) -> Option<Result<T, Why>> {
    let mut last = None;
    for socket in sockets {
        let opened = open(*socket).await;
        let is_silent = matches!(opened, Err(Why::Unreachable { .. } | Why::Late(_)));
        last = Some(opened);
        if !is_silent {
            break;
        }
    }
    last
}

async fn open_in_time(
    shared: Arc<Shared>,
    at: SocketAddr,
    place: Place,
    limit: Duration,
) -> Result<(Peer, Stream), Why> {
    timeout(limit, open(&shared, at, place)).await.unwrap_or(Err(Why::Late(limit)))
}

async fn open(shared: &Shared, at: SocketAddr, place: Place) -> Result<(Peer, Stream), Why> {
    let tcp = TcpStream::connect(at).await.map_err(|error| unreachable(&at, &error))?;
    tcp.set_nodelay(true).map_err(|error| unreachable(&at, &error))?;
    let connector = TlsConnector::from(Arc::clone(&shared.tls.client));
    let connected = connector.connect(shared.tls.name.clone(), tcp).await;
    let mut tls = TlsStream::Client(connected.map_err(|error| why_of(place.connection, &error))?);
    let wrote = write_opening(&mut tls, &Opening::Hello(shared.hello(place))).await;
    // Where the hello could not be written, what can be read says why: the alert of a side that does not accept our certificate.
    let (hello, leftover) = match (read_opening(&mut tls, place.connection).await, wrote) {
        (Err(Why::Lost { .. }), Err(error)) => return Err(why_of(place.connection, &error)),
        (read, _) => read?,
    };
    let peer = match shared.judge(&hello) {
        Ok(peer) => peer,
        Err(refusal) => return Err(refuse(&mut tls, refusal).await),
    };
    if (hello.link, hello.connection, hello.data_connections) != (place.link, place.connection, place.data_connections)
    {
        let refusal = refusal(RefusalCode::Connection, "its hello answers another one");
        return Err(refuse(&mut tls, refusal).await);
    }
    Ok((peer, Stream { tls, leftover, peer_window: hello.window_bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn sockets(count: u16) -> Vec<SocketAddr> {
        (1..=count).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
    }

    #[test]
    fn each_address_comes_first_at_some_time() {
        let ports =
            |count, first| -> Vec<u16> { in_turn(sockets(count), first).iter().map(SocketAddr::port).collect() };
        assert_eq!([ports(2, 0), ports(2, 1), ports(2, 2)], [[1, 2], [2, 1], [1, 2]]);
        assert_eq!([ports(6, 0), ports(6, 5)], [[1, 2, 3, 4], [6, 1, 2, 3]]);
        assert_eq!((ports(0, 3), ports(1, usize::MAX)), (vec![], vec![1]));
        assert_eq!(share(Duration::from_secs(5), 2), Duration::from_millis(2500));
    }

    #[tokio::test]
    async fn those_that_are_silent_are_passed_over_and_an_answer_is_not() {
        let silence = Duration::from_millis(20);
        for (answer, tried) in [(Ok(()), 3), (Err(Why::Closing), 3), (Err(Why::Late(silence)), 4)] {
            let asked = Mutex::new(Vec::new());
            let open = |at: SocketAddr| {
                asked.lock().unwrap().push(at.port());
                let answer = answer.clone();
                async move {
                    match at.port() {
                        1 => timeout(silence, std::future::pending()).await.unwrap_or(Err(Why::Late(silence))),
                        2 => Err(unreachable(&at, &"refused")),
                        _ => answer,
                    }
                }
            };
            assert_eq!(open_first(&sockets(4), open).await, Some(answer.clone()));
            assert_eq!(asked.into_inner().unwrap().len(), tried);
        }
        assert_eq!(open_first(&[], |_| std::future::ready(Ok(()))).await, None);
    }
}
