//! Accepts clients and shakes hands with them on tokio, then hands each socket to the shard of its volume.
//!
//! A client that says nothing costs a task and a few kilobytes until its time is up; how many may do so at once, and how
//! many may be connected in all, is limited.

mod address;
mod attachment;
mod exports;
mod handshake;
mod iscsi;
mod socket;
mod tenants;

pub use address::{Address, AddressError};
pub use attachment::Attachment;
pub(crate) use attachment::Clients;
pub use exports::{ChangesContext, Client, Entrance, Exports, Found, Listing, Opening, describe};
pub use handshake::Service;
pub use iscsi::Portal;
pub use socket::{BindError, Inherited};
pub use tenants::SocketFolder;

use crate::limits::ListenerLimits;
use crate::nbd::Permit;
use handshake::{Failure, Welcomes};
use socket::{Accepted, Socket};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

/// How long to wait before accepting again when the system had nothing left to accept with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often clients that cannot be let in are told of in the log, at most.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(1);

/// Bytes that the kernel is asked to buffer for a Unix socket, so that long replies take few turns.
const UNIX_BUFFER_BYTES: usize = 1 << 20;

/// After how long without traffic the kernel asks whether the peer is there, and how often before it gives up.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 6);

/// Sockets that clients can connect to.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<Socket>,
    tenants: Option<SocketFolder>,
    limits: ListenerLimits,
}

impl Listener {
    /// Listens on `addresses`, and on the sockets in `inherited`.
    ///
    /// # Errors
    /// [`BindError`] names the address that cannot be had.
    pub async fn bind(
        addresses: &[Address],
        inherited: Option<Inherited>,
        limits: ListenerLimits,
    ) -> Result<Self, BindError> {
        let mut sockets = inherited.map(Inherited::into_sockets).unwrap_or_default();
        for address in addresses {
            match Socket::bind(address).await {
                Ok(socket) => sockets.push(socket),
                Err(error) => {
                    sockets.into_iter().for_each(Socket::close);
                    return Err(error);
                }
            }
        }
        Ok(Self { sockets, tenants: None, limits })
    }

    /// Listens on tenants' own sockets, too.
    #[must_use]
    pub fn with_tenants(self, folder: SocketFolder) -> Self {
        Self { tenants: Some(folder), ..self }
    }

    /// Where clients can connect, with the ports that were chosen.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.sockets.iter().filter_map(Socket::address).collect()
    }

    /// Serves iSCSI initiators as [`Listener::serve`] does NBD clients.
    pub async fn serve_iscsi(self, portal: Arc<Portal>, stop: watch::Receiver<bool>) {
        let following = tokio::spawn(Arc::clone(&portal).follow(stop.clone()));
        self.welcome_all(portal, stop).await;
        if let Err(error) = following.await {
            tracing::error!(%error, "sessions do not follow their targets any more");
        }
    }

    /// Serves until `stop` is true or its sender is gone. Handshakes under way are broken off then; connections that
    /// have reached their shard are not its concern.
    pub async fn serve(self, service: Arc<Service>, stop: watch::Receiver<bool>) {
        self.welcome_all(service, stop).await;
    }

    async fn welcome_all<W: Welcomes>(self, service: Arc<W>, stop: watch::Receiver<bool>) {
        let gate = Arc::new(Gate {
            service,
            limits: self.limits,
            connections: Arc::new(Semaphore::new(self.limits.connections_max)),
            handshakes: Arc::new(Semaphore::new(self.limits.handshakes_max)),
            last_complaint: Mutex::new(None),
        });
        let mut loops = JoinSet::new();
        for socket in self.sockets {
            loops.spawn(Arc::clone(&gate).accept_until(socket, stop.clone()));
        }
        if let Some(folder) = self.tenants {
            loops.spawn(folder.serve(gate, stop));
        }
        while loops.join_next().await.is_some() {}
    }
}

/// Lets clients in, as far as the limits allow.
struct Gate<W> {
    service: Arc<W>,
    limits: ListenerLimits,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    last_complaint: Mutex<Option<Instant>>,
}

impl<W: Welcomes> Gate<W> {
    async fn accept_until(self: Arc<Self>, socket: Socket, mut stop: watch::Receiver<bool>) {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                accepted = socket.accept() => match accepted {
                    Ok(accepted) => self.admit(accepted, &mut handshakes),
                    Err(error) => {
                        self.complain(|| tracing::warn!(%error, "cannot accept"));
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                // Keeps the set from growing with what has ended.
                Some(_) = handshakes.join_next(), if !handshakes.is_empty() => {}
            }
        }
        socket.close();
    }

    fn admit(self: &Arc<Self>, accepted: Accepted, handshakes: &mut JoinSet<()>) {
        let connection = Arc::clone(&self.connections).try_acquire_owned();
        let handshake = Arc::clone(&self.handshakes).try_acquire_owned();
        let (Ok(connection), Ok(handshake)) = (connection, handshake) else {
            self.complain(|| tracing::warn!("refused a connection: there are too many"));
            return;
        };
        handshakes.spawn(Arc::clone(self).shake_hands(accepted, connection, handshake));
    }

    /// Writes to the log, unless it was written to a moment ago: whoever cannot be let in should not fill it.
    fn complain(&self, complaint: impl FnOnce()) {
        let now = Instant::now();
        let mut last = self.last_complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.duration_since(last) >= COMPLAINT_PERIOD) {
            *last = Some(now);
            complaint();
        }
    }

    async fn shake_hands(
        self: Arc<Self>,
        accepted: Accepted,
        connection: OwnedSemaphorePermit,
        handshake: OwnedSemaphorePermit,
    ) {
        let permit = Permit::new(connection);
        let (peer, result) = match accepted {
            Accepted::Tcp(stream, client) => {
                let tuned = tune_tcp(&stream);
                (client.peer.clone(), self.within_time(tuned, self.service.welcome(stream, client, permit)).await)
            }
            Accepted::Unix(stream, client) => {
                let tuned = tune_unix(&stream);
                (client.peer.clone(), self.within_time(tuned, self.service.welcome(stream, client, permit)).await)
            }
        };
        if let Err(failure) = result {
            tracing::info!(client = %peer, %failure, "a client left in the handshake");
        }
        drop(handshake);
    }

    async fn within_time(
        &self,
        tuned: io::Result<()>,
        welcome: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        tuned?;
        tokio::time::timeout(self.limits.handshake_max, welcome).await.unwrap_or(Err(Failure::Late))
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, which stops too.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn tune_tcp(stream: &tokio::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (idle, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(retries);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn tune_unix(stream: &tokio::net::UnixStream) -> io::Result<()> {
    SockRef::from(stream).set_send_buffer_size(UNIX_BUFFER_BYTES)
}
