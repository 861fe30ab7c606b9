//! The side that connects.

use super::{Connections, Place, Stream, read_opening, refusal, refuse, write_opening};
use crate::backoff::Backoff;
use crate::connection::why_of;
use crate::link::Shared;
use crate::news::{Peer, Why};
use replication::wire::{LinkId, Opening, RefusalCode};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::{TlsConnector, TlsStream};

/// Connects, waits until that life is over, and again, for ever. Between two tries there is a pause.
pub(crate) async fn connect(shared: Arc<Shared>, address: String, lives: mpsc::Sender<Connections>) {
    let times = shared.config.times;
    let mut backoff = Backoff::new(times.backoff_min, times.backoff_max);
    loop {
        match open_all(&shared, &address).await {
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
            Err(why) => shared.tell_not_up(why),
        }
        sleep(backoff.pause(shared.random_u32())).await;
    }
}

async fn open_all(shared: &Arc<Shared>, address: &str) -> Result<Connections, Why> {
    let link = LinkId(shared.random_id());
    let data_connections = shared.config.data_connections;
    let place = |connection| Place { link, connection, data_connections };
    let (peer, control) = open_in_time(Arc::clone(shared), address.to_owned(), place(0)).await?;
    let mut opening = JoinSet::new();
    for connection in 1..=data_connections {
        let open = open_in_time(Arc::clone(shared), address.to_owned(), place(connection));
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

async fn open_in_time(shared: Arc<Shared>, address: String, place: Place) -> Result<(Peer, Stream), Why> {
    let limit = shared.config.times.opening;
    timeout(limit, open(&shared, &address, place)).await.unwrap_or(Err(Why::Late(limit)))
}

async fn open(shared: &Shared, address: &str, place: Place) -> Result<(Peer, Stream), Why> {
    let unreachable =
        |error: std::io::Error| Why::Unreachable { address: address.to_owned(), reason: error.to_string() };
    let tcp = TcpStream::connect(address).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
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
