//! Clones of snapshots, and volumes that go back to one.
//!
//! A clone is a record that names its parent; from then on the parent's snapshot cannot go. It is answered when that is
//! durable: nothing is copied. To roll a volume back is to make a clone that takes its name, in one record; the volume that
//! had it lives on without, for its snapshots.

use super::book::Book;
use super::record::{Metered, Record, VolumeRecord, VolumeState};
use super::shelf::boundary_of;
use super::snapshots::{SnapshotEntry, SnapshotName, find_sound, would_be};
use super::tenants::{Usage, refuse_other_tenant, tenant_of};
use super::trial::is_trial;
use super::{Catalogue, CatalogueError, Entry, ask};
use crate::open::wall_ms;
use units::{ClassId, TenantId, VolumeId};
use volume::error::{Error, ErrorKind};
use volume::recover::fresh_clone;

impl Catalogue {
    /// Makes a volume that begins as a snapshot.
    ///
    /// # Errors
    /// [`CatalogueError::Exists`], [`CatalogueError::SnapshotNotFound`]; [`CatalogueError::Quarantined`] where the snapshot
    /// cannot be read; or the system volume's, when the record cannot be written.
    pub async fn clone_snapshot(&self, snapshot: &SnapshotName, name: &str) -> Result<Entry, CatalogueError> {
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        refuse_other_tenant(&snapshot.volume, name)?;
        let made = self.make_clone(&mut book, snapshot, name, None).await;
        self.history.wake();
        made
    }

    pub(super) async fn make_clone(
        &self,
        book: &mut Book,
        snapshot: &SnapshotName,
        name: &str,
        class: Option<&str>,
    ) -> Result<Entry, CatalogueError> {
        let record = self.heir_of(snapshot, name)?;
        let record = self.in_class(record, class)?;
        let tenant = self.admit(name, Usage::volume(record.size_bytes))?;
        self.refuse_if_taken(name)?;
        if is_trial() {
            return Ok(Entry::of(&VolumeRecord { tenant: tenant.0, ..record }, 0));
        }
        let record = VolumeRecord { id: book.take_ids(1).await?, tenant: tenant.0, ..record };
        let entry = self.begin(book, record).await?;
        self.show_by_default(book).await;
        tracing::info!(name, id = entry.volume.0, %snapshot, "made a clone");
        Ok(entry)
    }

    /// Makes a volume what it was at a snapshot; first a snapshot of what it is now is taken, which is called `undo`, or
    /// something longer. Returns the volume and that snapshot.
    ///
    /// # Errors
    /// [`CatalogueError::InUse`] while clients are attached, unless `is_forced`, which cuts them off;
    /// [`CatalogueError::SnapshotNotFound`]; or as of [`Catalogue::clone_snapshot`]: the volume is as it was.
    pub async fn rollback(
        &self,
        snapshot: &SnapshotName,
        undo: &str,
        is_forced: bool,
    ) -> Result<(Entry, SnapshotEntry), CatalogueError> {
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let entry = self.show_served(&snapshot.volume)?;
        let record = VolumeRecord { tenant: entry.tenant.0, ..self.heir_of(snapshot, &snapshot.volume)? };
        let bytes = record.size_bytes.saturating_sub(entry.size_bytes);
        self.read().refuse_over_quota(tenant_of(&entry.name), Usage { bytes, ..Usage::snapshots(1) })?;
        if is_trial() {
            self.refuse_if_attached(&entry.name, is_forced)?;
            let undo = SnapshotName { volume: entry.name.clone(), snapshot: self.free_name(&entry.name, undo) };
            let undo = would_be(&undo, &entry, None);
            return Ok((Entry { size_bytes: record.size_bytes, ..entry }, undo));
        }
        let _vacant = self.vacate(&entry.name, is_forced)?;
        let (entry, undo) = self.replace(&mut book, &entry, record, undo).await?;
        tracing::info!(name = entry.name, id = entry.volume.0, %snapshot, undo = %undo.name, "rolled a volume back");
        self.cleaner.wake();
        Ok((entry, undo))
    }

    async fn replace(
        &self,
        book: &mut Book,
        entry: &Entry,
        record: VolumeRecord,
        undo: &str,
    ) -> Result<(Entry, SnapshotEntry), CatalogueError> {
        let (_, shard) = self.shard_of(entry.volume);
        // What of it is not in the index is in its log, and its engine stays open.
        if let Err(error) = ask::detach(shard, entry.volume).await? {
            tracing::warn!(name = entry.name, %error, "not all of a volume that is rolled back is in the index yet");
        }
        let undo = SnapshotName { volume: entry.name.clone(), snapshot: self.free_name(&entry.name, undo) };
        let taken = self.take(book, std::slice::from_ref(&undo), std::slice::from_ref(entry), None).await?;
        let undo =
            taken.into_iter().next().ok_or_else(|| CatalogueError::SnapshotNotFound { snapshot: undo.to_string() })?;
        let line = Some(self.read().line_of(entry.volume.0));
        let Entry { history, qos, class: ClassId(class), .. } = *entry;
        // Where the meter of what it is now ends, that of what it will be begins.
        let end = self.end_meter(entry.volume).await;
        let metered = Metered { from: Some(end.at), end: None };
        self.note_end(book, entry.volume, end).await?;
        let record = VolumeRecord { id: book.take_ids(1).await?, line, history, qos, class, metered, ..record };
        let entry = self.begin(book, record).await?;
        self.history.wake();
        Ok((entry, undo))
    }

    /// The name that is asked for, or else that with a number that makes it a free one.
    fn free_name(&self, volume: &str, wanted: &str) -> String {
        let shelf = self.read();
        let numbered = (2..).map(|number: u64| format!("{wanted}-{number}"));
        let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
        names.find(|name| shelf.find_snapshot(volume, name).is_none()).unwrap_or_else(|| wanted.to_owned())
    }

    /// The record of a volume that begins as a snapshot, without its id and tenant.
    fn heir_of(&self, snapshot: &SnapshotName, name: &str) -> Result<VolumeRecord, CatalogueError> {
        let shelf = self.read();
        let kept = find_sound(&shelf, snapshot)?;
        Ok(VolumeRecord {
            id: 0,
            name: name.to_owned(),
            tenant: TenantId::DEFAULT.0,
            size_bytes: kept.record.size_bytes,
            created_ms: wall_ms(),
            state: VolumeState::Live,
            parent: Some(boundary_of(&kept.record)),
            line: None,
            image: None,
            history: None,
            qos: None,
            metered: self.metered_from_now(),
            class: shelf.volume(kept.record.of).map_or(ClassId::DEFAULT.0, |record| record.class),
            meter_changes: Vec::new(),
            mirror: None,
        })
    }

    /// The record of a volume to be made, in a class, or in the one of what it begins as; with what its class gives it.
    pub(super) fn in_class(&self, record: VolumeRecord, class: Option<&str>) -> Result<VolumeRecord, CatalogueError> {
        let shelf = self.read();
        let (class, policy) = match class {
            Some(name) => shelf.class_named(name)?,
            None => (ClassId(record.class), shelf.policy_of(ClassId(record.class))),
        };
        Ok(VolumeRecord { class: class.0, qos: policy.qos, history: policy.history, ..record })
    }

    /// Writes the record of a volume with a parent, and serves it under its name.
    async fn begin(&self, book: &Book, record: VolumeRecord) -> Result<Entry, CatalogueError> {
        if let Err(error) = self.record_heir(book, &record).await {
            if let Err(again) = book.remove(record.id, 1).await {
                tracing::warn!(name = record.name, error = %again, "a volume that was refused may be there after a restart");
                self.close_if_replaced(&record).await;
            }
            return Err(error);
        }
        let fresh = fresh_clone(VolumeId(record.id), record.size_bytes);
        let shard = self.serve(fresh, (TenantId(record.tenant), record.qos))?;
        let entry = Entry::of(&record, shard);
        self.put(record, entry.clone());
        Ok(entry)
    }

    pub(super) async fn record_heir(&self, book: &Book, record: &VolumeRecord) -> Result<(), CatalogueError> {
        book.put(&Record::Volume(record.clone())).await?;
        let Some(parent) = record.parent else { return Ok(()) };
        let noted = ask::note_parent(&self.store, VolumeId(record.id), parent.into()).await?;
        noted.map_err(|error| Error::new(ErrorKind::Unavailable, format!("note what it begins as: {error}")))?;
        self.begin_meter(record).await
    }

    /// A record that may be there at the next start makes a former volume of the one that has its name now: what was
    /// written to that one since would be gone.
    async fn close_if_replaced(&self, record: &VolumeRecord) {
        let Ok(entry) = self.show(&record.name) else { return };
        let (_, shard) = self.shard_of(entry.volume);
        let closed = ask::close(shard, entry.volume).await;
        tracing::error!(name = record.name, ?closed, "a volume is closed, as it may be rolled back");
        let reason = "its rollback failed: whether it is done is known after the next start";
        self.write().set_aside(&record.name, reason);
        self.tell_targets();
    }
}
