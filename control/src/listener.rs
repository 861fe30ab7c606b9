//! Serves a router on a TCP or unix socket, with every wait and number of clients bounded.
//!
//! A client that is slow to send its request's head is cut off, and more clients than [`CONNECTIONS_MAX`] wait in the
//! kernel's queue. On stop, requests under way are answered first, for at most [`DRAIN_DURATION_MAX`].

use crate::rate::Asker;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// Most clients served at once on one socket.
pub const CONNECTIONS_MAX: usize = 256;

/// Longest wait for a request's head, on an idle connection too.
pub const HEAD_DURATION_MAX: Duration = Duration::from_secs(30);

/// Longest wait for requests under way when it stops.
pub const DRAIN_DURATION_MAX: Duration = Duration::from_secs(10);

/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// Pause after the system refused a connection, so that a lack of file descriptors does not burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket to serve on.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// On this machine.
    Unix(UnixListener),
}

/// Serves `router` until `stop` ends, then answers what is under way.
pub async fn serve(listener: Listener, router: Router, stop: impl Future<Output = ()>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept(&listener, &permits, &router, &graceful) => {
                if let Err(error) = accepted {
                    tracing::warn!(%error, "accepting an API connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    if timeout(DRAIN_DURATION_MAX, graceful.shutdown()).await.is_err() {
        tracing::warn!("API requests still under way were cut off");
    }
}

/// Tells the router who asks.
struct Known {
    asker: Asker,
    router: TowerToHyperService<Router>,
}

impl Service<Request<Incoming>> for Known {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.asker);
        self.router.call(request)
    }
}

async fn accept(
    listener: &Listener,
    permits: &Arc<Semaphore>,
    router: &Router,
    graceful: &GracefulShutdown,
) -> io::Result<()> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    match listener {
        Listener::Tcp(tcp) => {
            let (stream, peer) = tcp.accept().await?;
            stream.set_nodelay(true)?;
            let from = Known { asker: Asker::of(peer.ip()), router: TowerToHyperService::new(router.clone()) };
            tokio::spawn(attend(stream, from, graceful.watcher(), permit));
        }
        Listener::Unix(unix) => {
            let (stream, _) = unix.accept().await?;
            let from = Known { asker: Asker::Local, router: TowerToHyperService::new(router.clone()) };
            tokio::spawn(attend(stream, from, graceful.watcher(), permit));
        }
    }
    Ok(())
}

async fn attend<S>(stream: S, router: Known, watcher: Watcher, permit: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_DURATION_MAX).max_buf_size(HEAD_BYTES_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), router);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "API connection ended early");
    }
    drop(permit);
}
