//! Making, resizing and deleting volumes. Each takes the records' lock first and keeps it to the end.

use super::record::{Metered, Record, VolumeRecord, VolumeState};
use super::shelf::Kept;
use super::snapshots::missing;
use super::tenants::{Usage, tenant_of};
use super::trial::is_trial;
use super::{Book, Catalogue, CatalogueError, DEFAULT_CLASS, Entry, History, Image, ask};
use crate::open::wall_ms;
use tokio::sync::MutexGuard;
use units::{BLOCK_BYTES, ByteRange, VolumeId};
use volume::error::ErrorKind;
use volume::recover::fresh;
use volume::request::{Completion, Request};

/// A volume to be made.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewVolume<'a> {
    /// Its size.
    pub size_bytes: u64,
    /// The name of its class; the default one when it is not told.
    pub class: Option<&'a str>,
    /// For how long its history is kept, or that it is not; as its class says when it is not told.
    pub history: Option<Option<History>>,
}

impl Catalogue {
    /// Makes a volume.
    ///
    /// # Errors
    /// [`CatalogueError::Exists`]; [`CatalogueError::NoTenant`], [`CatalogueError::Suspended`],
    /// [`CatalogueError::QuotaExceeded`]; or the system volume's, when the record cannot be written.
    pub async fn create(&self, name: &str, size_bytes: u64) -> Result<Entry, CatalogueError> {
        self.create_with(name, NewVolume { size_bytes, ..NewVolume::default() }).await
    }

    /// Makes a volume of a class, with history or without.
    ///
    /// # Errors
    /// As of [`Catalogue::create`]; [`CatalogueError::NoClass`].
    pub async fn create_with(&self, name: &str, new: NewVolume<'_>) -> Result<Entry, CatalogueError> {
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let made = self.make(&mut book, name, new, None).await;
        self.history.wake();
        made
    }

    /// Makes a volume or an image.
    pub(super) async fn make(
        &self,
        book: &mut Book,
        name: &str,
        new: NewVolume<'_>,
        image: Option<Image>,
    ) -> Result<Entry, CatalogueError> {
        let size_bytes = new.size_bytes;
        let (class, policy) = self.read().class_named(new.class.unwrap_or(DEFAULT_CLASS))?;
        let tenant = self.admit(name, Usage::volume(size_bytes))?;
        self.refuse_if_taken(name)?;
        let mut record = VolumeRecord {
            id: 0,
            name: name.to_owned(),
            tenant: tenant.0,
            size_bytes,
            created_ms: wall_ms(),
            state: VolumeState::Live,
            parent: None,
            line: None,
            image,
            history: new.history.unwrap_or(policy.history),
            qos: policy.qos,
            metered: Metered::default(),
            class: class.0,
            meter_changes: Vec::new(),
            mirror: None,
        };
        if is_trial() {
            return Ok(Entry::of(&record, 0));
        }
        let id = book.take_ids(1).await?;
        record.id = id;
        if let Some(image) = &mut record.image {
            image.claim = id;
        }
        record.metered = self.metered_from_now();
        self.begin_meter(&record).await?;
        if let Err(error) = book.put(&Record::Volume(record.clone())).await {
            // Whether it is there nobody knows: it must not be a volume at the next start.
            if let Err(error) = book.remove(id, 1).await {
                tracing::warn!(volume = name, %error, "a volume that was refused may be there after a restart");
            }
            return Err(error);
        }
        let shard = self.serve(fresh(VolumeId(id), size_bytes), (tenant, record.qos))?;
        let entry = Entry::of(&record, shard);
        let name = entry.name.as_str();
        tracing::info!(name, id, size_bytes, "made a volume");
        self.put(record, entry.clone());
        self.show_by_default(book).await;
        Ok(entry)
    }

    /// Changes a volume's size.
    ///
    /// # Errors
    /// [`CatalogueError::QuotaExceeded`]; [`CatalogueError::ShrinkRefused`] when data lies beyond the new size, unless `discard_tail`;
    /// [`CatalogueError::Request`] when that is no multiple of 4096; or the volume's.
    pub async fn resize(&self, name: &str, size_bytes: u64, discard_tail: bool) -> Result<Entry, CatalogueError> {
        let _book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let entry = self.show_served(name)?;
        self.refuse_if_mirrored(entry.volume, "another size of")?;
        let more = Usage::bytes(size_bytes.saturating_sub(entry.size_bytes));
        self.read().refuse_over_quota(tenant_of(name), more)?;
        self.resize_entry(&entry, size_bytes, discard_tail).await
    }

    pub(super) async fn resize_entry(
        &self,
        entry: &Entry,
        size_bytes: u64,
        discard_tail: bool,
    ) -> Result<Entry, CatalogueError> {
        let name = entry.name.as_str();
        if size_bytes == entry.size_bytes {
            return Ok(entry.clone());
        }
        if !size_bytes.is_multiple_of(BLOCK_BYTES) {
            let (below, above) = (
                size_bytes - size_bytes % BLOCK_BYTES,
                size_bytes.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(size_bytes),
            );
            let detail =
                format!("a volume is resized to a multiple of {BLOCK_BYTES} bytes: {below} and {above} are next");
            return Err(CatalogueError::Request(detail));
        }
        if is_trial() {
            return self.would_resize(entry, size_bytes, discard_tail).await;
        }
        let request = Request::Resize { size_bytes, discard_tail };
        let (_, handle) = self.shard_of(entry.volume);
        match ask::submit(handle, entry.volume, request).await {
            Err(CatalogueError::Volume(error))
                if error.kind == ErrorKind::InvalidRequest && size_bytes < entry.size_bytes =>
            {
                return Err(CatalogueError::ShrinkRefused { name: name.to_owned() });
            }
            result => result?,
        };
        if let Some(kept) = self.write().names.get_mut(name) {
            kept.entry.size_bytes = size_bytes;
        }
        self.tell_targets();
        tracing::info!(name, size_bytes, "resized a volume");
        Ok(Entry { size_bytes, ..entry.clone() })
    }

    /// Whether a volume would take another size.
    async fn would_resize(&self, entry: &Entry, size_bytes: u64, discard_tail: bool) -> Result<Entry, CatalogueError> {
        let tail = entry.size_bytes.checked_sub(size_bytes).and_then(|len| ByteRange::new(size_bytes, len).ok());
        if let Some(range) = tail.filter(|_| !discard_tail) {
            let (_, handle) = self.shard_of(entry.volume);
            // A hole and what comes behind it.
            let request = Request::Extents { range, extents_max: 2 };
            if let Completion::Extents(extents) = ask::submit(handle, entry.volume, request).await?
                && extents.iter().any(|extent| extent.is_data)
            {
                return Err(CatalogueError::ShrinkRefused { name: entry.name.clone() });
            }
        }
        Ok(Entry { size_bytes, ..entry.clone() })
    }

    /// Deletes a volume and its data.
    ///
    /// # Errors
    /// [`CatalogueError::InUse`] while clients are attached, unless `is_forced`, which cuts them off. After the system
    /// volume's, when the deletion cannot be recorded, the volume is not served until the next start.
    pub async fn delete(&self, name: &str, is_forced: bool) -> Result<(), CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let entry = self.show(name)?;
        self.delete_entry(book, entry, is_forced).await
    }

    /// Deletes a volume or an image.
    pub(super) async fn delete_entry(
        &self,
        mut book: MutexGuard<'_, Book>,
        entry: Entry,
        is_forced: bool,
    ) -> Result<(), CatalogueError> {
        let name = entry.name.as_str();
        if self.read().may_be_needed(entry.volume.0) {
            return Err(CatalogueError::Unsure);
        }
        if is_trial() {
            self.refuse_if_attached(name, is_forced)?;
            let views = self.views.lock().await;
            return self.refuse_if_read(&views, &self.read().snapshots_with(entry.volume.0), is_forced);
        }
        let vacant = self.vacate(name, is_forced)?;
        let mut views = self.views.lock().await;
        let snapshots = self.read().snapshots_with(entry.volume.0);
        self.close_views(&mut views, &snapshots, is_forced).await?;
        self.retire_copy(&entry).await?;
        let (_, handle) = self.shard_of(entry.volume);
        if entry.damage.is_none() {
            // What a client asks for behind the end of the meter would be on no bill. Whether it could be checkpointed does not matter
            // any more: what clones see of it, its log has.
            let _ = ask::detach(handle, entry.volume).await?;
        }
        let known = self.read().volume(entry.volume.0).cloned();
        let known = known.unwrap_or_else(|| unread(&entry));
        let metered = Metered { end: Some(self.end_meter(entry.volume).await), ..known.metered };
        let record = VolumeRecord { state: VolumeState::Deleting, size_bytes: entry.size_bytes, metered, ..known };
        if let Err(error) = book.put(&Record::Volume(record.clone())).await {
            return Err(self.leave_undecided(&entry, error).await);
        }
        if entry.damage.is_none() && !self.read().is_parent(entry.volume.0) {
            let _ = ask::close(handle, entry.volume).await?;
        }
        let line = record.line();
        self.forget_promise(&record);
        self.take_name(name, record);
        self.forget_in_targets(&mut book, line).await;
        drop((vacant, views, book));
        tracing::info!(name, id = entry.volume.0, "deleted a volume");
        if let Err(error) = self.erase_if_unneeded(entry.volume.0).await
            && !self.is_stopping()
        {
            tracing::warn!(name, %error, "the space of a deleted volume is given back later");
        }
        self.cleaner.wake();
        Ok(())
    }

    /// Takes out of service a volume whose deletion may have been recorded: were it served on, and the record there at the
    /// next start, all that was written to it since would go. Returns what its caller is told.
    async fn leave_undecided(&self, entry: &Entry, error: CatalogueError) -> CatalogueError {
        let reason = "its deletion failed: whether it is deleted is known after the next start";
        if entry.damage.is_none() {
            let (_, handle) = self.shard_of(entry.volume);
            // Checkpointed or not, its log says all.
            let closed = ask::close(handle, entry.volume).await;
            tracing::error!(name = entry.name, %error, ?closed, "a volume is closed, as it may be deleted");
            self.write().set_aside(&entry.name, reason);
            self.tell_targets();
        }
        let CatalogueError::Volume(error) = error else { return error };
        let detail = format!("{}; volume {} is closed: {reason}", error.detail, entry.name);
        CatalogueError::Volume(volume::error::Error::new(error.kind, detail))
    }

    /// Lets no client find a volume while what is returned is there, for a change that wants none to use it. `is_forced`
    /// expels those who do: whoever the shard has is still to be cut off.
    ///
    /// # Errors
    /// [`CatalogueError::InUse`] while clients are attached, unless they are expelled.
    pub(super) fn vacate(&self, name: &str, is_forced: bool) -> Result<Vacant<'_>, CatalogueError> {
        let mut shelf = self.write();
        let kept = shelf.names.get_mut(name).ok_or_else(|| missing(name))?;
        match kept.clients.count() {
            0 => {}
            _ if is_forced => kept.clients.expel(),
            connections => return Err(CatalogueError::InUse { name: name.to_owned(), connections }),
        }
        kept.is_leaving = true;
        let volume = kept.entry.volume;
        drop(shelf);
        self.tell_targets();
        Ok(Vacant { catalogue: self, name: name.to_owned(), volume })
    }

    /// What [`Self::vacate`] refuses.
    pub(super) fn refuse_if_attached(&self, name: &str, is_forced: bool) -> Result<(), CatalogueError> {
        let shelf = self.read();
        match shelf.names.get(name).ok_or_else(|| missing(name))?.clients.count() {
            connections if connections > 0 && !is_forced => {
                Err(CatalogueError::InUse { name: name.to_owned(), connections })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn refuse_if_taken(&self, name: &str) -> Result<(), CatalogueError> {
        match self.read().taken_by(name) {
            Some(size_bytes) => Err(CatalogueError::Exists { name: name.to_owned(), size_bytes }),
            None => Ok(()),
        }
    }

    /// A volume that can be changed.
    pub(super) fn show_served(&self, name: &str) -> Result<Entry, CatalogueError> {
        let entry = self.show(name)?;
        self.refuse_if_suspended(name)?;
        match entry.damage {
            Some(reason) => Err(CatalogueError::Quarantined { name: name.to_owned(), reason }),
            None => Ok(entry),
        }
    }

    /// Gives a volume its name.
    pub(super) fn put(&self, record: VolumeRecord, entry: Entry) {
        let mut shelf = self.write();
        shelf.put_volume(record);
        shelf.names.insert(entry.name.clone(), Kept::new(entry));
        drop(shelf);
        self.tell_targets();
    }

    /// Takes a volume's name away.
    fn take_name(&self, name: &str, record: VolumeRecord) {
        let mut shelf = self.write();
        shelf.names.remove(name);
        shelf.put_volume(record);
        drop(shelf);
        self.tell_targets();
    }

    pub(super) fn refuse_if_stopping(&self) -> Result<(), CatalogueError> {
        if self.is_stopping() { Err(CatalogueError::Stopping) } else { Ok(()) }
    }
}

/// A volume that no client uses, and none finds until this is dropped.
#[must_use = "clients find the volume again when it is dropped"]
pub(super) struct Vacant<'a> {
    catalogue: &'a Catalogue,
    name: String,
    volume: VolumeId,
}

impl Drop for Vacant<'_> {
    fn drop(&mut self) {
        let mut shelf = self.catalogue.write();
        // Another volume may have the name now.
        if let Some(kept) = shelf.names.get_mut(&self.name).filter(|kept| kept.entry.volume == self.volume) {
            kept.is_leaving = false;
        }
        drop(shelf);
        self.catalogue.tell_targets();
    }
}

/// What the record of a volume is made of that could not be read.
fn unread(entry: &Entry) -> VolumeRecord {
    VolumeRecord {
        id: entry.volume.0,
        name: entry.name.clone(),
        tenant: entry.tenant.0,
        size_bytes: entry.size_bytes,
        created_ms: entry.created_ms,
        state: VolumeState::Deleting,
        parent: None,
        line: None,
        image: entry.image.clone(),
        history: entry.history,
        qos: entry.qos,
        metered: Metered::default(),
        class: entry.class.0,
        meter_changes: Vec::new(),
        mirror: None,
    }
}
