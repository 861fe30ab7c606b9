//! Listening sockets: TCP, Unix, and those that systemd hands over.

use super::address::Address;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refuses.
    #[error("cannot listen on {address}")]
    System {
        /// Which.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers on the Unix socket.
    #[error("another process serves on {address}")]
    Served {
        /// Which.
        address: Address,
    },
    /// The path of the Unix socket is something else.
    #[error("{} is there and is not a socket", path.display())]
    NotASocket {
        /// Which.
        path: PathBuf,
    },
    /// A socket that was handed over is of no use.
    #[error("an inherited socket does not listen on TCP or a Unix socket")]
    Inherited(#[source] io::Error),
}

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, Option<OwnedPath>),
}

/// A connection that was accepted, and who it is from.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream, String),
    Unix(UnixStream, String),
}

impl Socket {
    pub(super) async fn bind(address: &Address) -> Result<Self, BindError> {
        let system = |source| BindError::System { address: address.clone(), source };
        match address {
            Address::Tcp(text) => TcpListener::bind(text).await.map(Self::Tcp).map_err(system),
            Address::Unix(path) => {
                remove_stale(path, address)?;
                let listener = UnixListener::bind(path).map_err(system)?;
                let owned = OwnedPath::of(path).map_err(system)?;
                Ok(Self::Unix(listener, Some(owned)))
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, peer.to_string()))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred().map(|peer| format!("unix user {}", peer.uid()));
                Ok(Accepted::Unix(stream, peer.unwrap_or_else(|_| "unix".to_owned())))
            }
        }
    }

    /// Where clients can connect, the port that was chosen included.
    pub(super) fn address(&self) -> Option<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| Address::Tcp(address.to_string())),
            Self::Unix(listener, _) => {
                listener.local_addr().ok()?.as_pathname().map(|path| Address::Unix(path.to_owned()))
            }
        }
    }

    /// Listens no more; a Unix socket that this process made is removed.
    pub(super) fn close(self) {
        if let Self::Unix(_, Some(path)) = self {
            path.remove();
        }
    }
}

/// The path of a socket that this process made, as long as nobody has put another one there.
#[derive(Debug)]
pub(super) struct OwnedPath {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl OwnedPath {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = path.symlink_metadata()?;
        Ok(Self { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) })
    }

    fn remove(&self) {
        if Self::of(&self.path).is_ok_and(|now| now.identity == self.identity)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// Removes a socket that a daemon left behind when it was killed. One on which somebody answers stays.
fn remove_stale(path: &Path, address: &Address) -> Result<(), BindError> {
    let Ok(metadata) = path.symlink_metadata() else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket { path: path.to_owned() });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| BindError::System { address: address.clone(), source })
        }
        Ok(_) => Err(BindError::Served { address: address.clone() }),
        Err(source) => Err(BindError::System { address: address.clone(), source }),
    }
}

/// Sockets that listen already when the process begins (systemd socket activation).
#[derive(Debug)]
pub struct Inherited {
    sockets: Vec<Socket>,
}

impl Inherited {
    /// Takes the sockets that the environment names. To be called once, in a tokio runtime.
    ///
    /// # Errors
    /// [`BindError::Inherited`] when one is neither TCP nor a Unix stream socket.
    pub fn from_environment() -> Result<Self, BindError> {
        let mut found = listenfd::ListenFd::from_env();
        let sockets = (0..found.len()).map(|place| take(&mut found, place)).collect::<io::Result<Vec<_>>>();
        let sockets = sockets.map_err(BindError::Inherited)?.into_iter().flatten().collect();
        Ok(Self { sockets })
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    pub(super) fn into_sockets(self) -> Vec<Socket> {
        self.sockets
    }
}

fn take(found: &mut listenfd::ListenFd, place: usize) -> io::Result<Option<Socket>> {
    if let Ok(listener) = found.take_unix_listener(place) {
        return listener.map(from_unix).transpose();
    }
    found.take_tcp_listener(place)?.map(from_tcp).transpose()
}

fn from_unix(listener: std::os::unix::net::UnixListener) -> io::Result<Socket> {
    listener.set_nonblocking(true)?;
    Ok(Socket::Unix(UnixListener::from_std(listener)?, None))
}

fn from_tcp(listener: std::net::TcpListener) -> io::Result<Socket> {
    listener.set_nonblocking(true)?;
    Ok(Socket::Tcp(TcpListener::from_std(listener)?))
}
