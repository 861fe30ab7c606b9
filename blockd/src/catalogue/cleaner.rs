//! Carries out what is still to be done ([`super::chores`]), behind what is answered.

use super::chores::{Chore, chores, erasing};
use super::record::{ParentRecord, Record, SnapshotState};
use super::shelf::KeptSnapshot;
use super::{Catalogue, CatalogueError, ask};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use units::{BLOCK_BYTES, ByteRange, VolumeId};
use volume::compact::EraseError;
use volume::error::{Error, ErrorKind};
use volume::request::{Completion, Request};

/// How long it waits before it tries again what failed.
const PAUSE: Duration = Duration::from_secs(10);

/// How long a stop waits for a volume that is being erased.
const SETTLE_DURATION_MAX: Duration = Duration::from_secs(5);

/// Wakes the cleaner.
#[derive(Debug, Clone, Default)]
pub(super) struct Cleaner(Arc<Notify>);

impl Cleaner {
    pub(super) fn wake(&self) {
        self.0.notify_one();
    }

    /// Starts it; it ends with the catalogue.
    pub(super) fn start(&self, catalogue: &Arc<Catalogue>) {
        let (notify, catalogue) = (Arc::clone(&self.0), Arc::downgrade(catalogue));
        tokio::spawn(run(notify, catalogue));
    }
}

async fn run(notify: Arc<Notify>, catalogue: Weak<Catalogue>) {
    loop {
        let Some(has_failed) = clean(&catalogue).await else { return };
        if has_failed {
            // Whether it is woken or the time is over does not matter.
            let _ = tokio::time::timeout(PAUSE, notify.notified()).await;
        } else {
            notify.notified().await;
        }
    }
}

/// Works until nothing is left that can be done; tells whether some failed, and nothing when the catalogue is going.
async fn clean(catalogue: &Weak<Catalogue>) -> Option<bool> {
    loop {
        let chores = chores(&catalogue.upgrade()?.read());
        let (mut has_failed, mut has_progressed) = (false, false);
        for chore in chores {
            let catalogue = catalogue.upgrade().filter(|catalogue| !catalogue.is_stopping())?;
            match catalogue.carry_out(&chore).await {
                Ok(true) => has_progressed = true,
                Ok(false) => has_failed = true,
                // The next start goes on.
                Err(_) if catalogue.is_stopping() => return None,
                Err(error) => {
                    has_failed = true;
                    tracing::warn!(?chore, %error, "cannot clean up now, and tries again");
                }
            }
        }
        if !has_progressed {
            return Some(has_failed);
        }
    }
}

impl Catalogue {
    /// Has boundaries deleted that no record names.
    pub(super) fn give_up(&self, boundaries: impl IntoIterator<Item = ParentRecord>) {
        let mut shelf = self.write();
        boundaries.into_iter().for_each(|boundary| shelf.put_orphan(boundary));
        drop(shelf);
        self.cleaner.wake();
    }

    /// Waits for the erasing that is under way, once it is stopped: an index is at rest when no volume is half there. What
    /// takes too long is gone on with at the next start.
    pub(crate) async fn settle(&self) {
        self.stop_history();
        self.keep_last_credits().await;
        if tokio::time::timeout(SETTLE_DURATION_MAX, self.erasing.lock()).await.is_err() {
            tracing::warn!("stopped while a deleted volume was being erased");
        }
    }

    /// Erases a volume whose deletion is recorded, unless something is left that needs it.
    pub(super) async fn erase_if_unneeded(&self, volume: u64) -> Result<(), CatalogueError> {
        let chore = erasing(&self.read(), volume);
        match chore {
            Some(chore) => self.carry_out(&chore).await.map(drop),
            None => Ok(()),
        }
    }

    /// `false`: it has to wait, and is tried again.
    async fn carry_out(&self, chore: &Chore) -> Result<bool, CatalogueError> {
        match chore {
            Chore::Snapshot(record) => {
                self.book.lock().await.put(&Record::Snapshot(record.clone())).await?;
                self.write().put_snapshot(KeptSnapshot { record: record.clone(), damage: None });
            }
            Chore::Volume(record) => {
                self.book.lock().await.put(&Record::Volume(record.clone())).await?;
                self.write().put_volume(record.clone());
            }
            Chore::Empty(volume) => self.empty(*volume).await?,
            Chore::Delete(record) => {
                debug_assert_eq!(record.state, SnapshotState::Deleting, "what is deleted has a record that says so");
                self.delete_boundary(ParentRecord { volume: record.of, generation: record.generation }).await?;
                self.drop_records(&[record.id]).await?;
            }
            Chore::DeleteOrphan(boundary) => {
                self.delete_boundary(*boundary).await?;
                self.write().forget_orphan(*boundary);
            }
            Chore::Erase(volume, snapshots) => return self.erase(*volume, snapshots).await,
            Chore::DropSnapshot(id) => self.drop_records(&[*id]).await?,
            Chore::DropGroup(id) => {
                self.book.lock().await.drop_all(&[*id]).await?;
                self.write().forget_group(*id);
            }
        }
        Ok(true)
    }

    /// Throws away what a volume without a name has beyond the ends of its generations: what was written since the last
    /// one is needed by nobody, and would keep what a deletion gives back. One that has been emptied has a block without
    /// data, and its log is left as it is: a volume of no size at all is one whose size is not known, in a log. The index
    /// knows then, too, so that what it tells of the ends of generations is right.
    pub(super) async fn empty(&self, volume: u64) -> Result<(), CatalogueError> {
        // One that is damaged is not open, and is left as it is.
        if self.read().damage_of(volume).is_none() {
            let (id, (_, shard)) = (VolumeId(volume), self.shard_of(VolumeId(volume)));
            let resize = Request::Resize { size_bytes: BLOCK_BYTES, discard_tail: true };
            ask::submit(shard, id, resize).await?;
            if let Ok(range) = ByteRange::new(0, BLOCK_BYTES)
                && let Completion::Extents(extents) =
                    ask::submit(shard, id, Request::Extents { range, extents_max: 1 }).await?
                && extents.iter().any(|extent| extent.is_data)
            {
                ask::submit(shard, id, Request::Trim { range, fua: true }).await?;
            }
            ask::submit(shard, id, Request::Checkpoint).await?;
        }
        self.write().note_emptied(volume);
        Ok(())
    }

    pub(super) async fn delete_boundary(&self, boundary: ParentRecord) -> Result<(), CatalogueError> {
        let ParentRecord { volume, generation } = boundary;
        let deleted = ask::delete_boundary(&self.store, VolumeId(volume), generation).await?;
        deleted.map_err(|fault| unavailable(&format!("delete a snapshot from the index: {fault}")))
    }

    /// Gives back what a volume held that nobody needs, then takes its records away: its own last, which tells of the rest. `false`
    /// while other volumes have copies that share with it.
    async fn erase(&self, volume: u64, snapshots: &[u64]) -> Result<bool, CatalogueError> {
        let _one_at_a_time = self.erasing.lock().await;
        self.refuse_if_stopping()?;
        if self.read().volume(volume).is_none() {
            return Ok(true);
        }
        let (_, shard) = self.shard_of(VolumeId(volume));
        if let Err(error) = ask::close(shard, VolumeId(volume)).await? {
            // It need not be open any more.
            tracing::debug!(volume, %error, "closed a volume that is erased");
        }
        let erased = ask::erase(&self.store, VolumeId(volume)).await?;
        if erased == Err(EraseError::Lent) {
            tracing::info!(volume, "a deleted volume is erased later: others have copies that share with it");
            return Ok(false);
        }
        erased.map_err(|fault| unavailable(&format!("erase its segments: {fault}")))?;
        // The record has the end of its meter until the ledger does.
        self.settle_ending(volume).await?;
        self.drop_records(snapshots).await?;
        self.book.lock().await.drop_all(&[volume]).await?;
        let mut shelf = self.write();
        let orphans: Vec<ParentRecord> = shelf.orphans().filter(|orphan| orphan.volume == volume).collect();
        orphans.into_iter().for_each(|orphan| shelf.forget_orphan(orphan));
        shelf.forget_volume(volume);
        drop(shelf);
        // What it began as may be needed no more.
        self.cleaner.wake();
        Ok(true)
    }

    async fn drop_records(&self, snapshots: &[u64]) -> Result<(), CatalogueError> {
        self.book.lock().await.drop_all(snapshots).await?;
        let mut shelf = self.write();
        snapshots.iter().for_each(|id| shelf.forget_snapshot(*id));
        Ok(())
    }
}

fn unavailable(detail: &str) -> CatalogueError {
    Error::new(ErrorKind::Unavailable, detail).into()
}
