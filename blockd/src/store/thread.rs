//! The store's thread, and how shards and the catalogue talk to it.

use super::disk;
use super::keeper::{Helpers, Keeper, Wanted};
use super::rocks::RocksStore;
use crate::open::{PoolFile, Space};
use crate::shard::{Callback, Message, ShardHandle, StoreAsk, StorePort};
use crate::throttle::Throttle;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use units::{Lsn, VolumeId};
use volume::compact::EraseError;
use volume::error::DiskFault;
use volume::io::Event;
use volume::pool::{DeletionError, Index, Lease, PoolFigures};

/// What somebody who is no volume asks the index; it must not take long.
pub(crate) type Question = Box<dyn FnOnce(&mut Index<RocksStore>) + Send>;

/// Behind which operation the log of each volume with history is kept, and whether history that was begun is among these.
pub(crate) type Histories = (BTreeMap<VolumeId, Lsn>, bool);

/// What is called when a volume waits for a slot that only history can give up.
pub(crate) type Starved = Box<dyn Fn() + Send>;

/// What the store's thread can be told.
pub(super) enum Command {
    /// Where answers to each shard go. Comes before any question.
    Attach(Vec<ShardHandle>),
    /// A shard's volume asks.
    Ask { shard: usize, ask: StoreAsk },
    /// The slot of a lease is filled with zeros, or could not be.
    Prepared(Lease),
    /// An action of the compactor has ended.
    Disk(Event),
    /// Tell the figures.
    Figures(Callback<PoolFigures>),
    /// Forget a volume that no shard serves, with all its segments.
    Erase { volume: VolumeId, done: Callback<Result<(), EraseError>> },
    /// Delete a snapshot.
    DeleteSnapshot { volume: VolumeId, generation: u64, done: Callback<Result<(), DeletionError>> },
    /// Tell what the deletion of each of some sets of snapshots gives back.
    Search { volume: VolumeId, sets: Vec<BTreeSet<u64>>, done: Callback<Result<Vec<u64>, DiskFault>> },
    /// Keep the logs of volumes whole behind these operations, and of no other.
    KeepHistory { history: Histories, done: Callback<()> },
    /// Call this whenever a volume waits for a slot that only history can give up. Without, nobody waits.
    OnStarving(Option<Starved>),
    /// Ask the index what no volume asks.
    Question(Question),
    /// Make everything durable and end.
    Stop,
}

/// The store's thread has ended, so that nothing can be told to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store's thread has ended")]
pub struct StoreEnded;

/// Talks to the store's thread, from any thread.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    sender: mpsc::Sender<Command>,
}

/// The running store.
#[derive(Debug)]
pub struct StoreThread {
    handle: StoreHandle,
    thread: JoinHandle<()>,
    /// Fill slots ahead, and write for the compactor; they end when the thread does.
    helpers: [JoinHandle<()>; 2],
}

/// A shard's way to the store.
struct Port {
    shard: usize,
    sender: mpsc::Sender<Command>,
}

impl StoreThread {
    /// Starts the thread. Nothing may be asked before [`StoreHandle::attach`].
    ///
    /// # Errors
    /// What the system says when there is no thread to be had.
    pub(crate) fn start(
        index: Index<RocksStore>,
        space: Arc<Space>,
        pool: Arc<PoolFile>,
        (writes_direct, throttle): (bool, Arc<Throttle>),
    ) -> io::Result<Self> {
        let (sender, commands) = mpsc::channel();
        let (wanted, preparer) = start_preparer(Arc::clone(&space), sender.clone())?;
        let (disk, writer) = disk::start(Arc::clone(&pool), writes_direct, sender.clone())?;
        let keeper = Keeper::new(index, space, pool, Helpers { preparer: wanted, disk, throttle });
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || run(keeper, &commands))?;
        Ok(Self { handle: StoreHandle { sender }, thread, helpers: [preparer, writer] })
    }

    /// Talks to it.
    #[must_use]
    pub fn handle(&self) -> StoreHandle {
        self.handle.clone()
    }

    /// Which of its threads has ended, if one has. With the first the others end, too.
    #[must_use]
    pub fn ended_thread(&self) -> Option<&'static str> {
        let [preparer, writer] = &self.helpers;
        let threads = [
            (&self.thread, "the index's thread"),
            (preparer, "the thread that prepares slots"),
            (writer, "the compactor's thread"),
        ];
        threads.into_iter().find(|(thread, _)| thread.is_finished()).map(|(_, name)| name)
    }

    /// Makes everything durable and ends the thread. The shards must have ended.
    ///
    /// # Errors
    /// When it has panicked.
    pub fn stop(self) -> io::Result<()> {
        // It may have ended already; joining tells.
        let _ = self.handle.send(Command::Stop);
        let (thread, helpers) = (self.thread.join(), self.helpers.map(JoinHandle::join));
        let ended: thread::Result<()> = [thread].into_iter().chain(helpers).collect();
        ended.map_err(|_| io::Error::other("a thread of the store panicked"))
    }
}

impl StoreHandle {
    fn send(&self, command: Command) -> Result<(), StoreEnded> {
        self.sender.send(command).map_err(|_| StoreEnded)
    }

    /// Makes the port of a shard.
    #[must_use]
    pub fn port(&self, shard: usize) -> Box<dyn StorePort> {
        Box::new(Port { shard, sender: self.sender.clone() })
    }

    /// Tells where the answers to each shard go, before any volume is opened.
    ///
    /// # Errors
    /// [`StoreEnded`].
    pub fn attach(&self, shards: Vec<ShardHandle>) -> Result<(), StoreEnded> {
        self.send(Command::Attach(shards))
    }

    /// Asks for the pool's figures.
    ///
    /// # Errors
    /// [`StoreEnded`]; the callback is dropped.
    pub fn figures(&self, done: Callback<PoolFigures>) -> Result<(), StoreEnded> {
        self.send(Command::Figures(done))
    }

    /// Deletes the snapshot that `generation` of a volume ended with, between other commands and over a restart. `done` is told
    /// when it is gone; of one that is not there at once.
    ///
    /// # Errors
    /// [`StoreEnded`]; the callback is dropped.
    pub fn delete_snapshot(
        &self,
        volume: VolumeId,
        generation: u64,
        done: Callback<Result<(), DeletionError>>,
    ) -> Result<(), StoreEnded> {
        self.send(Command::DeleteSnapshot { volume, generation, done })
    }

    /// Tells for each of some sets of a volume's snapshots how many blocks their deletion gives back: of a single one those that
    /// it alone holds. What is under way at that time is counted as it is found.
    ///
    /// # Errors
    /// [`StoreEnded`]; the callback is dropped.
    pub fn reclaim(
        &self,
        volume: VolumeId,
        sets: Vec<BTreeSet<u64>>,
        done: Callback<Result<Vec<u64>, DiskFault>>,
    ) -> Result<(), StoreEnded> {
        self.send(Command::Search { volume, sets, done })
    }

    /// Makes the segments of a volume that no shard serves void, durably, and forgets it.
    ///
    /// # Errors
    /// [`StoreEnded`]; the callback is dropped.
    pub fn erase(&self, volume: VolumeId, done: Callback<Result<(), EraseError>>) -> Result<(), StoreEnded> {
        self.send(Command::Erase { volume, done })
    }
}

impl StoreHandle {
    /// Keeps the logs of volumes whole behind these operations, and of no other; gives back what is kept no more.
    pub(crate) fn keep_history(&self, history: Histories, done: Callback<()>) -> Result<(), StoreEnded> {
        self.send(Command::KeepHistory { history, done })
    }

    /// Has `call` called, on the store's thread, whenever a volume waits for a slot that only history can give up.
    /// With none to call, nobody waits for that.
    pub(crate) fn on_starving(&self, call: Option<Starved>) -> Result<(), StoreEnded> {
        self.send(Command::OnStarving(call))
    }

    /// Has the index answer a question, on its thread.
    pub(crate) fn with_index(&self, question: Question) -> Result<(), StoreEnded> {
        self.send(Command::Question(question))
    }
}

impl StorePort for Port {
    fn ask(&mut self, ask: StoreAsk) {
        if self.sender.send(Command::Ask { shard: self.shard, ask }).is_err() {
            tracing::error!(shard = self.shard, "the store has ended: a volume's question has no answer");
        }
    }
}

/// Which shard serves each volume that is open and has asked something.
#[derive(Debug, Default)]
struct Homes(BTreeMap<VolumeId, usize>);

impl Homes {
    fn note(&mut self, ask: &StoreAsk, shard: usize) {
        if let StoreAsk::Closed { volume } = ask {
            self.0.remove(volume);
        } else {
            self.0.insert(ask.volume(), shard);
        }
    }
}

fn run(mut keeper: Keeper, commands: &mpsc::Receiver<Command>) {
    let mut shards: Vec<ShardHandle> = Vec::new();
    let mut homes = Homes::default();
    loop {
        match next_command(&keeper, commands) {
            Ok(Command::Attach(handles)) => shards = handles,
            Ok(Command::Ask { shard, ask }) => {
                homes.note(&ask, shard);
                keeper.take(ask);
            }
            Ok(Command::Prepared(lease)) => keeper.on_prepared(lease),
            Ok(Command::Disk(event)) => keeper.on_disk(event),
            Ok(Command::Figures(done)) => done(keeper.figures()),
            Ok(Command::Erase { volume, done }) => keeper.erase(volume, done),
            Ok(Command::DeleteSnapshot { volume, generation, done }) => {
                keeper.delete_snapshot(volume, generation, done);
            }
            Ok(Command::Search { volume, sets, done }) => keeper.search(volume, sets, done),
            Ok(Command::KeepHistory { history, done }) => {
                keeper.keep_history(&history);
                done(());
            }
            Ok(Command::OnStarving(call)) => keeper.on_starving(call),
            Ok(Command::Question(question)) => keeper.answer(question),
            Err(RecvTimeoutError::Timeout) => keeper.on_time(),
            Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return keeper.close(),
        }
        keeper.turn_if_late();
        keeper.set_pace();
        for (volume, event) in keeper.take_events() {
            let shard = homes.0.get(&volume).and_then(|shard| shards.get(*shard));
            // A shard that has ended wants no answer.
            let _ = shard.map(|shard| shard.send(Message::Store { volume, event }));
        }
    }
}

/// Waits for a command. A timeout says that there is something else to do: work, when no command waits or it has waited
/// for long enough; or what is due.
fn next_command(keeper: &Keeper, commands: &mpsc::Receiver<Command>) -> Result<Command, RecvTimeoutError> {
    if keeper.is_work_due() {
        return Err(RecvTimeoutError::Timeout);
    }
    if keeper.has_work() {
        return commands.try_recv().map_err(|error| match error {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        });
    }
    match keeper.wakes_at() {
        None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(at) => commands.recv_timeout(at.saturating_duration_since(Instant::now())),
    }
}

/// Starts the thread that fills slots with zeros; it ends when its channel does.
fn start_preparer(
    space: Arc<Space>,
    prepared: mpsc::Sender<Command>,
) -> io::Result<(mpsc::Sender<Wanted>, JoinHandle<()>)> {
    let (sender, wanted) = mpsc::channel::<Wanted>();
    let thread = thread::Builder::new().name("prepare-slots".to_owned()).spawn(move || {
        for Wanted(lease) in wanted {
            if let Err(error) = space.write_zeros(lease.slot) {
                tracing::debug!(slot = %lease.slot, %error, "cannot fill a slot ahead of its use");
            }
            if prepared.send(Command::Prepared(lease)).is_err() {
                return;
            }
        }
    })?;
    Ok((sender, thread))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use volume::io::PageIndex;

    /// Volumes and views that come and go leave nothing behind.
    #[test]
    fn a_volume_that_is_closed_has_no_home() {
        let mut homes = Homes::default();
        for id in 1..100 {
            let volume = VolumeId(id);
            homes.note(&StoreAsk::LoadPage { volume, page: PageIndex(0) }, 1);
            assert_eq!(homes.0.get(&volume), Some(&1));
            homes.note(&StoreAsk::Closed { volume }, 1);
        }
        assert!(homes.0.is_empty());
    }

    /// P6. A thread without which the store does its work in part only is told of by its name.
    #[test]
    fn each_thread_that_has_ended_is_told_of() {
        let names = ["the index's thread", "the thread that prepares slots", "the compactor's thread"];
        for (at, name) in (0..).zip(names) {
            let (sender, _commands) = mpsc::channel();
            let (ends, parked): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::channel::<()>()).unzip();
            let [thread, preparer, writer] =
                <[_; 3]>::try_from(parked).unwrap().map(|end| thread::spawn(move || end.recv().unwrap_or(())));
            let store = StoreThread { handle: StoreHandle { sender }, thread, helpers: [preparer, writer] };
            assert_eq!(store.ended_thread(), None);
            ends[at].send(()).unwrap();
            while store.ended_thread().is_none() {
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(store.ended_thread(), Some(name));
            drop(ends);
            store.stop().unwrap();
        }
    }
}
