//! Asks a register over its unix socket.

use super::message::{ANSWER_BYTES_MAX, Answer, LENGTH_BYTES, PAGE_LEN_MAX, Request};
use super::store::GROUPS_MAX;
use crate::listing::{ListError, Listed};
use replication::times::WITNESS_PATIENCE;
use replication::{ReadAnswer, Record, Revision, SwapAnswer};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use units::GroupId;

/// Most asks under way, each on a connection of its own; later ones wait for one to end.
const ASKS_MAX: usize = 16;

/// Most connections that are kept for later, and for how long: others are to be served, too.
const IDLE_LEN_MAX: usize = 2;
const IDLE_DURATION_MAX: Duration = Duration::from_secs(2);

/// A client of a register on this machine.
#[derive(Debug)]
pub struct RegisterClient {
    path: PathBuf,
    /// Each since when.
    idle: Mutex<Vec<(Instant, UnixStream)>>,
    asks: Semaphore,
    /// An operator was told that it does not answer.
    has_complained: Mutex<bool>,
}

impl RegisterClient {
    /// Asks the register that listens at `path`.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::new(Vec::new()),
            asks: Semaphore::const_new(ASKS_MAX),
            has_complained: Mutex::new(false),
        }
    }

    /// Reads a group's record. Takes a second at most.
    ///
    /// The register is never frail: it is on the machine of both daemons, so that no loss of one of them, or of the connection
    /// between them, takes it; and with the machine both are lost.
    pub async fn read(&self, group: GroupId) -> ReadAnswer {
        match self.ask(&Request::Read { group }).await {
            Ok(Answer::Read(Some(seen))) => ReadAnswer::Found { seen, is_frail: false },
            Ok(Answer::Read(None)) => ReadAnswer::Nothing,
            Ok(Answer::Won(_) | Answer::Lost(_) | Answer::Page { .. } | Answer::Failed { .. }) | Err(_) => {
                ReadAnswer::Unreachable
            }
        }
    }

    /// Puts `record` in place of what has revision `expected`, or of nothing. Takes a second at most. Asked once: whatever goes
    /// wrong on the way leaves it unknown, and `Lost` may tell of the very record that was asked for, as with etcd.
    pub async fn swap(&self, group: GroupId, expected: Option<Revision>, record: &Record) -> SwapAnswer {
        match self.ask(&Request::Swap { group, expected, record: *record }).await {
            Ok(Answer::Won(revision)) => SwapAnswer::Won { revision },
            Ok(Answer::Lost(found)) => SwapAnswer::Lost { found },
            Ok(Answer::Read(_) | Answer::Page { .. } | Answer::Failed { .. }) | Err(_) => SwapAnswer::Unknown,
        }
    }

    /// What the register has of all groups, by their numbers. Pages that come one after the other.
    ///
    /// # Errors
    /// [`ListError`]: a page did not come.
    pub async fn list(&self) -> Result<Vec<Listed>, ListError> {
        let unreachable = |reason: String| ListError::Unreachable { reason };
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let answer = self.ask(&Request::Page { after, limit: PAGE_LEN_MAX }).await;
            let (groups, has_more) = match answer.map_err(|error| unreachable(error.to_string()))? {
                Answer::Page { groups, has_more } => (groups, has_more),
                Answer::Failed { reason } => return Err(unreachable(reason)),
                Answer::Read(_) | Answer::Won(_) | Answer::Lost(_) => {
                    return Err(unreachable("it answers something else".to_owned()));
                }
            };
            let last = groups.last().map(|(group, _)| *group);
            listed.extend(groups.into_iter().map(|(group, seen)| Listed { group, seen: Ok(seen) }));
            if listed.len() > GROUPS_MAX {
                return Err(ListError::TooMany { most: GROUPS_MAX });
            }
            // A page that leads no further ends the list, whatever it says.
            if !has_more || last <= after {
                return Ok(listed);
            }
            after = last;
        }
    }

    async fn ask(&self, request: &Request) -> io::Result<Answer> {
        let asked = timeout(WITNESS_PATIENCE, async {
            let _permit = self.asks.acquire().await.map_err(io::Error::other)?;
            let mut stream = match self.take_idle() {
                Some(stream) => stream,
                None => UnixStream::connect(&self.path).await?,
            };
            stream.write_all(&request.encode()).await?;
            let answer = answer_of(&mut stream).await?;
            // Kept only when nothing is under way on it: an ask that is given up takes its connection with it.
            self.keep(stream);
            Ok(answer)
        });
        let answer = asked.await.unwrap_or_else(|late| Err(io::Error::from(late)));
        let reason = match &answer {
            Ok(Answer::Failed { reason }) => Some(reason.clone()),
            Ok(Answer::Read(_) | Answer::Won(_) | Answer::Lost(_) | Answer::Page { .. }) => None,
            Err(error) => Some(error.to_string()),
        };
        self.note(reason.as_deref());
        answer
    }

    fn keep(&self, stream: UnixStream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, _)| since.elapsed() < IDLE_DURATION_MAX);
        if idle.len() < IDLE_LEN_MAX {
            idle.push((Instant::now(), stream));
        }
    }

    /// A connection that was kept, not for long, and that nobody has ended since.
    fn take_idle(&self) -> Option<UnixStream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, _)| since.elapsed() < IDLE_DURATION_MAX);
        while let Some((_, stream)) = idle.pop() {
            // Nothing is to be read between two requests: neither an end nor bytes.
            if stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return Some(stream);
            }
        }
        None
    }

    /// Tells once when it begins to fail, and once when it answers again.
    fn note(&self, reason: Option<&str>) {
        let mut has_complained = self.has_complained.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = self.path.display().to_string();
        match (*has_complained, reason) {
            (false, Some(reason)) => tracing::warn!(socket, reason, "the register does not answer"),
            (true, None) => tracing::info!(socket, "the register answers again"),
            (false, None) | (true, Some(_)) => {}
        }
        *has_complained = reason.is_some();
    }
}

async fn answer_of(stream: &mut UnixStream) -> io::Result<Answer> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > ANSWER_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Answer::decode(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
