//! Snapshots as exports: each is a volume that takes no changes, opened for its first client and closed after the last.

use super::record::{SnapshotRecord, SnapshotState};
use super::shelf::boundary_of;
use super::{Catalogue, CatalogueError, ask};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use tokio::sync::mpsc;
use units::{TenantId, VolumeId};
use volume::error::{Error, ErrorKind};
use volume::recover::fresh_view;

/// The views that are open, by the ids of their snapshots.
#[derive(Debug)]
pub(super) struct Views {
    open: BTreeMap<u64, Weak<ViewLease>>,
    left: mpsc::UnboundedSender<u64>,
}

/// Keeps a view open; every connection to it has one.
#[derive(Debug)]
pub struct ViewLease {
    id: u64,
    left: mpsc::UnboundedSender<u64>,
}

impl Drop for ViewLease {
    fn drop(&mut self) {
        // Nobody closes views any more when the catalogue has gone.
        let _ = self.left.send(self.id);
    }
}

impl Views {
    /// The views, none open, and where it is told that the last client of one has left.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<u64>) {
        let (left, receiver) = mpsc::unbounded_channel();
        (Self { open: BTreeMap::new(), left }, receiver)
    }

    fn is_read(&self, id: u64) -> bool {
        self.open.get(&id).is_some_and(|lease| lease.strong_count() > 0)
    }
}

/// Closes views that nobody reads any more, until the catalogue has gone.
pub(super) async fn close_left(catalogue: Weak<Catalogue>, mut left: mpsc::UnboundedReceiver<u64>) {
    while let Some(id) = left.recv().await {
        let Some(catalogue) = catalogue.upgrade() else { return };
        let mut views = catalogue.views.lock().await;
        if !views.is_read(id)
            && let Err(error) = catalogue.close_view(&mut views, id).await
            // A stop closes them all.
            && !catalogue.is_stopping()
        {
            tracing::warn!(id, %error, "a snapshot that nobody reads stays open");
        }
    }
}

impl Catalogue {
    /// Opens the view of a snapshot, unless it is open.
    pub(super) async fn open_view(&self, id: u64) -> Result<Arc<ViewLease>, CatalogueError> {
        let mut views = self.views.lock().await;
        self.refuse_if_stopping()?;
        let record = self.read().snapshot(id).map(|kept| kept.record.clone());
        let gone = || CatalogueError::SnapshotNotFound { snapshot: id.to_string() };
        let is_there = |record: &SnapshotRecord| {
            let shelf = self.read();
            // A client may have found it before its volume was deleted, or its tenant suspended.
            let head = shelf.head_of(shelf.line_of(record.of));
            let is_deleted = shelf.volume(record.of).is_some() && head.is_none();
            let is_suspended = head.is_some_and(|head| shelf.is_suspended(&head.name));
            record.state == SnapshotState::Live && !is_deleted && !is_suspended
        };
        let record = record.filter(is_there).ok_or_else(gone)?;
        if let Some(lease) = views.open.get(&id).and_then(Weak::upgrade) {
            return Ok(lease);
        }
        let lease = Arc::new(ViewLease { id, left: views.left.clone() });
        // One that the last client has left, and that is not closed yet, has a new one.
        if !views.open.contains_key(&id) {
            let noted = ask::note_parent(&self.store, VolumeId(id), boundary_of(&record).into()).await?;
            noted.map_err(|error| Error::new(ErrorKind::Unavailable, format!("open a snapshot: {error}")))?;
            let tenant = self.read().volume(record.of).map_or(TenantId::DEFAULT, |of| TenantId(of.tenant));
            self.serve(fresh_view(VolumeId(id), record.size_bytes), (tenant, None))?;
        }
        views.open.insert(id, Arc::downgrade(&lease));
        Ok(lease)
    }

    /// Closes a view and cuts off who reads it.
    async fn close_view(&self, views: &mut Views, id: u64) -> Result<(), CatalogueError> {
        if !views.open.contains_key(&id) {
            return Ok(());
        }
        let (_, shard) = self.shard_of(VolumeId(id));
        if let Err(error) = ask::close(shard, VolumeId(id)).await? {
            tracing::debug!(id, %error, "closed a snapshot");
        }
        let forgotten = ask::forget_parent(&self.store, VolumeId(id)).await?;
        views.open.remove(&id);
        forgotten.map_err(|fault| Error::new(ErrorKind::Unavailable, format!("close a snapshot: {fault}")).into())
    }

    /// Closes the views of snapshots that are to be deleted, while the views are locked.
    ///
    /// # Errors
    /// [`CatalogueError::SnapshotInUse`] while somebody reads one, unless `is_forced`, which cuts them off.
    pub(super) async fn close_views(
        &self,
        views: &mut Views,
        ids: &BTreeSet<u64>,
        is_forced: bool,
    ) -> Result<(), CatalogueError> {
        self.refuse_if_read(views, ids, is_forced)?;
        for id in ids {
            self.close_view(views, *id).await?;
        }
        Ok(())
    }

    /// What [`Self::close_views`] refuses.
    pub(super) fn refuse_if_read(
        &self,
        views: &Views,
        ids: &BTreeSet<u64>,
        is_forced: bool,
    ) -> Result<(), CatalogueError> {
        let Some(id) = ids.iter().find(|id| !is_forced && views.is_read(**id)) else { return Ok(()) };
        let name = self.read().snapshot(*id).map_or_else(String::new, |kept| kept.record.name.clone());
        Err(CatalogueError::SnapshotInUse { snapshot: name })
    }
}
