//! Serves a register on a unix socket. A connection asks one thing after the other.

use super::message::{Answer, PAGE_LEN_MAX, REQUEST_BYTES_MAX, Request};
use super::store::{Register, RegisterError, Swapped};
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

/// Most connections; later ones wait to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// How long the rest of a message that has begun, or room for an answer, is waited for.
const MESSAGE_DURATION_MAX: Duration = Duration::from_secs(1);

/// How long a client may be silent between two requests, so that connections that are idle lock nobody out. Longer than a client
/// keeps one, so that no request meets a connection that is being ended.
const IDLE_DURATION_MAX: Duration = Duration::from_secs(5);

/// The pause after a connection could not be accepted: what is missing then does not come back at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket's device, inode and time of birth: the number of an inode that has gone may be given again.
type Birth = (u64, u64, i64, i64);

/// A register's server.
#[derive(Debug)]
pub struct RegisterServer {
    listener: UnixListener,
    register: Arc<Mutex<Register>>,
    path: PathBuf,
    /// Which socket is the own one.
    born: Birth,
    /// Holds the path by being open.
    _lock: File,
}

impl RegisterServer {
    /// Listens at `path`, for the user of this process alone. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`RegisterError`]: somebody listens there, or the system refuses.
    pub async fn bind(register: Register, path: &Path) -> Result<Self, RegisterError> {
        let lock = lock(path)?;
        if !is_free(path).await? {
            return Err(RegisterError::SocketInUse { path: path.to_owned() });
        }
        let (listener, born) = bind_private(path).map_err(RegisterError::system("listen on", path))?;
        Ok(Self { listener, register: Arc::new(Mutex::new(register)), path: path.to_owned(), born, _lock: lock })
    }

    /// Serves until `stop` ends. A change that has begun is carried to its end, answered or not.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (stopping, is_stopping) = watch::channel(());
        tokio::pin!(stop);
        loop {
            let accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
                (self.listener.accept().await, permit)
            };
            tokio::select! {
                () = &mut stop => break,
                (accepted, permit) = accepted => match accepted {
                    Ok((stream, _)) => {
                        let (register, is_stopping) = (Arc::clone(&self.register), is_stopping.clone());
                        connections.spawn(async move {
                            if let Err(error) = converse(stream, &register, is_stopping).await {
                                tracing::warn!(%error, "a connection to the register is ended");
                            }
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the register cannot accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(stopping);
        // Each ends what it has begun. The register is given up when this returns, and not before.
        while connections.join_next().await.is_some() {}
        // A socket that nobody listens on tells no client anything: it is only tidy to take it away, unless it is another one's.
        let is_own = fs::symlink_metadata(&self.path).is_ok_and(|found| birth(&found) == self.born);
        if is_own && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "cannot remove the register's socket");
        }
    }
}

fn birth(found: &fs::Metadata) -> Birth {
    (found.dev(), found.ino(), found.mtime(), found.mtime_nsec())
}

/// Holds a socket's path against other servers, by a file beside it that stays: were it removed, the next two could hold one each.
fn lock(path: &Path) -> Result<File, RegisterError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&beside);
    let lock = opened.map_err(RegisterError::system("open", &beside))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(RegisterError::SocketInUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(RegisterError::system("lock", &beside)(error)),
    }
}

/// Whether there is nothing at `path`, or a socket that was left over. That one is, only a refusal proves: one of which the queue is
/// full is somebody's.
async fn is_free(path: &Path) -> Result<bool, RegisterError> {
    let connected = match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => UnixStream::connect(path).await.map(drop),
        Ok(_) => return Ok(false),
        Err(error) => Err(error),
    };
    match connected {
        Ok(()) => Ok(false),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(true),
        Err(error) => Err(RegisterError::system("find out whether anybody listens on", path)(error)),
    }
}

/// Answers until the other side hangs up or is silent between two requests, or the server stops.
async fn converse(
    mut stream: UnixStream,
    register: &Arc<Mutex<Register>>,
    mut is_stopping: watch::Receiver<()>,
) -> io::Result<()> {
    loop {
        let requested = tokio::select! {
            requested = request_of(&mut stream) => requested?,
            // Its sender has gone.
            _ = is_stopping.changed() => None,
        };
        let Some(body) = requested else { return Ok(()) };
        let request = Request::decode(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let register = Arc::clone(register);
        // Off the runtime: a change waits for the disk.
        let answer =
            spawn_blocking(move || answer(&mut register.lock().unwrap_or_else(PoisonError::into_inner), request));
        let message = answer.await.map_err(io::Error::other)?.encode();
        timeout(MESSAGE_DURATION_MAX, stream.write_all(&message)).await.map_err(io::Error::from)??;
    }
}

/// The bytes of a request; nothing when there is none any more.
async fn request_of(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut first = [0];
    match timeout(IDLE_DURATION_MAX, stream.read(&mut first)).await {
        Ok(Ok(0)) | Err(_) => return Ok(None),
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(error),
    }
    let body = timeout(MESSAGE_DURATION_MAX, async {
        let ([high], low) = (first, stream.read_u8().await?);
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > REQUEST_BYTES_MAX {
            let reason = format!("a request of {length} bytes, at most {REQUEST_BYTES_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok(body)
    });
    body.await.map_err(io::Error::from)?.map(Some)
}

fn answer(register: &mut Register, request: Request) -> Answer {
    let answered = match request {
        Request::Read { group } => register.read(group).map(Answer::Read),
        Request::Swap { group, expected, record } => {
            register.swap(group, expected, &record).map(|swapped| match swapped {
                Swapped::Won(revision) => Answer::Won(revision),
                Swapped::Lost(found) => Answer::Lost(found),
            })
        }
        Request::Page { after, limit } => register
            .page(after, usize::from(limit.min(PAGE_LEN_MAX)))
            .map(|(groups, has_more)| Answer::Page { groups, has_more }),
    };
    answered.unwrap_or_else(|error| {
        let reason = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        tracing::warn!(reason, "the register cannot answer");
        Answer::Failed { reason }
    })
}

/// Binds a unix socket that is nobody else's from the first moment on: made in a private directory, then moved to its
/// place, over what is there. With what tells it from later ones.
fn bind_private(path: &Path) -> io::Result<(UnixListener, Birth)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let nursery = parent.join(format!(".register-{}", std::process::id()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&nursery)?;
    let born = nursery.join("s");
    let settle = |listener| {
        fs::set_permissions(&born, Permissions::from_mode(0o600))?;
        let found = fs::symlink_metadata(&born)?;
        fs::rename(&born, path)?;
        Ok((listener, birth(&found)))
    };
    let bound = UnixListener::bind(&born).and_then(settle);
    let removed = fs::remove_dir_all(&nursery);
    let bound = bound?;
    removed?;
    Ok(bound)
}
