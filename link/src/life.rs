//! One life of the link: its connections, from the moment that all are open until one is lost or the link is closed.

use crate::connection::{Reader, lost, write};
use crate::link::Shared;
use crate::news::{LifeNumber, News, Peer, Why};
use crate::opening::{Connections, Stream};
use crate::outbox::{Bounds, Outbox};
use crate::slowness::Slowness;
use crate::statistics::Statistics;
use replication::wire::{Bye, ByeCode, Text};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use units::GroupId;

/// How long the end of a life waits for the other site to take its farewell.
const FAREWELL: Duration = Duration::from_millis(250);

/// What the tasks of a life and those who send share.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) number: LifeNumber,
    pub(crate) shared: Arc<Shared>,
    /// Of the control connection, then of those that carry data.
    outboxes: Vec<Outbox>,
    slowness: Mutex<Slowness>,
    /// Whether nothing is told any more. Held while something is.
    is_over: RwLock<bool>,
}

impl Life {
    /// The connection that carries the frames of a group's log.
    pub(crate) fn connection_of(&self, group: GroupId) -> u16 {
        let data_connections = self.outboxes.len().saturating_sub(1).max(1) as u64;
        u16::try_from(group.0 % data_connections).map_or(0, |index| index + 1)
    }

    pub(crate) fn outbox(&self, connection: u16) -> Option<&Outbox> {
        self.outboxes.get(usize::from(connection))
    }

    pub(crate) fn slowness(&self) -> MutexGuard<'_, Slowness> {
        self.slowness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells news of this life, unless it is over.
    pub(crate) fn tell(&self, news: News) {
        let is_over = self.is_over.read().unwrap_or_else(PoisonError::into_inner);
        if !*is_over {
            self.shared.sink.take(news);
        }
    }
}

/// A life with its tasks: one reads and one writes on each connection.
#[derive(Debug)]
pub(crate) struct Running {
    life: Arc<Life>,
    readers: JoinSet<Why>,
    writers: JoinSet<Why>,
    /// Dropped at the end: who connects may do so again.
    _over: Option<oneshot::Sender<()>>,
}

impl Running {
    /// Tells that the link is up, and begins to read and write.
    pub(crate) fn begin(shared: &Arc<Shared>, number: LifeNumber, connections: Connections) -> Self {
        let Connections { peer, streams, over } = connections;
        let bounds = |peer_window| Bounds {
            queue_bytes: shared.config.queue_bytes,
            peer_window,
            own_window: shared.config.window_bytes,
        };
        let life = Arc::new(Life {
            number,
            shared: Arc::clone(shared),
            outboxes: streams.iter().map(|stream| Outbox::new(bounds(stream.peer_window))).collect(),
            slowness: Mutex::new(Slowness::new(shared.now())),
            is_over: RwLock::new(false),
        });
        let mut running =
            Self { life: Arc::clone(&life), readers: JoinSet::new(), writers: JoinSet::new(), _over: over };
        running.tell_up(peer);
        for (connection, stream) in (0_u16..).zip(streams) {
            running.carry(connection, stream);
        }
        running
    }

    fn tell_up(&self, peer: Peer) {
        let life = self.life.number;
        let statistics = &self.life.shared.statistics;
        Statistics::add(&statistics.lives, 1);
        Statistics::set(&statistics.is_up, 1);
        // Who is told may send at once.
        self.life.shared.set_current(Some(Arc::clone(&self.life)));
        self.life.shared.sink.take(News::Up { life, peer });
    }

    fn carry(&mut self, connection: u16, stream: Stream) {
        let (read, write_half) = tokio::io::split(stream.tls);
        let reader = Reader::new(read, connection, (Arc::clone(&self.life), &stream.leftover));
        self.readers.spawn(reader.run());
        self.writers.spawn(write(write_half, Arc::clone(&self.life), connection));
    }

    /// Waits until the life cannot go on.
    pub(crate) async fn ended(&mut self) -> Why {
        tokio::select! {
            biased;
            Some(why) = self.readers.join_next() => why.unwrap_or_else(broken),
            Some(why) = self.writers.join_next() => why.unwrap_or_else(broken),
            else => Why::Broken("no task is left".to_owned()),
        }
    }

    /// Ends the life: nothing of it is told behind [`News::Down`], and the other site is told why as far as it listens.
    pub(crate) async fn end(mut self, why: Why) {
        let Self { life, readers, writers, .. } = &mut self;
        life.shared.set_current(None);
        *life.is_over.write().unwrap_or_else(PoisonError::into_inner) = true;
        let statistics = &life.shared.statistics;
        Statistics::set(&statistics.is_up, 0);
        Statistics::set(&statistics.is_slow, 0);
        let bye = farewell(&why);
        life.shared.sink.take(News::Down { life: life.number, why });
        life.outboxes.iter().for_each(|outbox| outbox.close(bye.clone()));
        readers.shutdown().await;
        let all_written = async { while writers.join_next().await.is_some() {} };
        // Whoever takes nothing is left without a farewell.
        let _ = tokio::time::timeout(FAREWELL, all_written).await;
        writers.shutdown().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A life and what it shares hold each other.
        self.life.shared.set_current(None);
        *self.life.is_over.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// What the other site is told of the end; nothing where it has ended the life itself.
fn farewell(why: &Why) -> Option<Bye> {
    let code = match why {
        Why::Bye(_) => return None,
        Why::Closing => ByeCode::Closing,
        Why::Replaced => ByeCode::Replaced,
        Why::Silent { .. } => ByeCode::Silence,
        Why::Backlog { .. } => ByeCode::Backlog,
        Why::Protocol { .. } | Why::Misplaced { .. } | Why::Opening(_) => ByeCode::Protocol,
        Why::Lost { .. }
        | Why::Broken(_)
        | Why::Unreachable { .. }
        | Why::Tls(_)
        | Why::Refused(_)
        | Why::Refuses(_)
        | Why::Late(_) => ByeCode::Lost,
    };
    Some(Bye { code, text: Text::new(&why.to_string()) })
}

// By value: that is what a join gives.
#[expect(clippy::needless_pass_by_value, reason = "it is the error of a result")]
fn broken(error: JoinError) -> Why {
    if error.is_panic() { Why::Broken(error.to_string()) } else { lost(0, "its task was ended") }
}
