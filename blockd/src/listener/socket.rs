//! Listening sockets: TCP, Unix, and those that systemd hands over.

use super::address::Address;
use super::exports::{Client, Entrance};
use crate::catalogue::SocketAccess;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use units::TenantId;

/// A folder's mode has this when what is made in it gets its group.
const SET_GROUP_ID: u32 = 0o2000;

/// Who may open a tenant's socket: its user, and the group.
const TENANT_SOCKET_MODE: u32 = 0o660;

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
    Tenant(UnixListener, OwnedPath, TenantId),
}

/// A connection that was accepted, and who it is from.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream, Client),
    Unix(UnixStream, Client),
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

    /// Listens at a path as a tenant's own socket. Nobody can open it before its permissions are as they are to be.
    pub(super) fn bind_for_tenant(path: &Path, tenant: TenantId, access: SocketAccess) -> Result<Self, BindError> {
        let address = Address::Unix(path.to_owned());
        remove_stale(path, &address)?;
        let system = |source| BindError::System { address: address.clone(), source };
        let nursery = path.with_file_name(format!(".aljibe-{}-{}", std::process::id(), tenant.0));
        DirBuilder::new().recursive(true).mode(0o700).create(&nursery).map_err(system)?;
        let born = nursery.join("s");
        let bound = UnixListener::bind(&born).and_then(|listener| {
            let gid = access.gid.or_else(|| inherited_group(path));
            gid.map_or(Ok(()), |gid| chown(&born, None, Some(gid)))?;
            std::fs::set_permissions(&born, Permissions::from_mode(TENANT_SOCKET_MODE))?;
            std::fs::rename(&born, path)?;
            Ok((listener, OwnedPath::of(path)?))
        });
        let removed = std::fs::remove_dir_all(&nursery);
        let (listener, owned) = bound.map_err(system)?;
        removed.map_err(system)?;
        Ok(Self::Tenant(listener, owned, tenant))
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let client = |peer, entrance| Client { peer, entrance, is_tls: false, certificate: None };
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let entrance = Entrance::Network(peer.ip().to_canonical());
                Ok(Accepted::Tcp(stream, client(peer.to_string(), entrance)))
            }
            Self::Unix(listener, _) => {
                let (stream, user) = accept_unix(listener).await?;
                let own = rustix::process::geteuid().as_raw();
                let is_own_user = user.is_some_and(|user| user == 0 || user == own);
                Ok(Accepted::Unix(stream, client(named(user), Entrance::Socket { is_own_user })))
            }
            Self::Tenant(listener, _, tenant) => {
                let (stream, user) = accept_unix(listener).await?;
                Ok(Accepted::Unix(stream, client(named(user), Entrance::TenantSocket(*tenant))))
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
            Self::Tenant(_, owned, _) => Some(Address::Unix(owned.path.clone())),
        }
    }

    /// Listens no more; a Unix socket that this process made is removed.
    pub(super) fn close(self) {
        match self {
            Self::Unix(_, Some(path)) | Self::Tenant(_, path, _) => path.remove(),
            Self::Unix(_, None) | Self::Tcp(_) => {}
        }
    }
}

async fn accept_unix(listener: &UnixListener) -> io::Result<(UnixStream, Option<u32>)> {
    let (stream, _) = listener.accept().await?;
    let user = stream.peer_cred().ok().map(|peer| peer.uid());
    Ok((stream, user))
}

fn named(user: Option<u32>) -> String {
    user.map_or_else(|| "unix".to_owned(), |user| format!("unix user {user}"))
}

/// The group of the folder, where what is made in it is to have that.
fn inherited_group(path: &Path) -> Option<u32> {
    let folder = path.parent()?.metadata().ok()?;
    (folder.mode() & SET_GROUP_ID != 0).then(|| folder.gid())
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
