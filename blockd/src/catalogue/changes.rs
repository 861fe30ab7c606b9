//! Making, resizing and deleting volumes. Each takes the records' lock first and keeps it to the end.

use super::record::{Record, RecordState};
use super::{Book, Catalogue, CatalogueError, Entry, Image, Kept, ask};
use crate::open::wall_ms;
use crate::shard::Message;
use units::VolumeId;
use volume::engine::Volume;
use volume::error::ErrorKind;
use volume::recover::fresh;
use volume::request::Request;

/// A volume or image to be made.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) size_bytes: u64,
    /// What makes it an image.
    pub(super) image: Option<Image>,
}

impl Catalogue {
    /// Makes a volume.
    ///
    /// # Errors
    /// [`CatalogueError::Exists`]; or the system volume's, when the record cannot be written.
    pub async fn create(&self, name: &str, size_bytes: u64) -> Result<Entry, CatalogueError> {
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        self.make(&mut book, Wanted { name, size_bytes, image: None }).await
    }

    /// Makes a volume or an image.
    pub(super) async fn make(&self, book: &mut Book, wanted: Wanted<'_>) -> Result<Entry, CatalogueError> {
        let Wanted { name, size_bytes, image } = wanted;
        if let Some(kept) = self.read().get(name) {
            return Err(CatalogueError::Exists { name: name.to_owned(), size_bytes: kept.entry.size_bytes });
        }
        let id = book.take_id().await?;
        let created_ms = wall_ms();
        let volume = VolumeId(id);
        let (shard, handle) = self.shard_of(volume);
        let entry = Entry { volume, name: name.to_owned(), size_bytes, created_ms, shard, damage: None, image };
        if let Err(error) = book.put(&Record::of(&entry, RecordState::Live)).await {
            // Whether it is there nobody knows: it must not be a volume at the next start.
            if let Err(error) = book.remove(id).await {
                tracing::warn!(volume = name, %error, "a volume that was refused may be there after a restart");
            }
            return Err(error);
        }
        let engine = Volume::open(self.config, fresh(volume, size_bytes));
        handle.send(Message::OpenVolume(Box::new(engine))).map_err(|_| CatalogueError::Ended("a shard"))?;
        self.write().insert(name.to_owned(), Kept { entry: entry.clone(), is_leaving: false });
        tracing::info!(name, id, size_bytes, "made a volume");
        Ok(entry)
    }

    /// Changes a volume's size.
    ///
    /// # Errors
    /// [`CatalogueError::ShrinkRefused`] when data lies beyond the new size, unless `discard_tail`; or the volume's.
    pub async fn resize(&self, name: &str, size_bytes: u64, discard_tail: bool) -> Result<Entry, CatalogueError> {
        let _book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let entry = self.show_served(name)?;
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
        if let Some(kept) = self.write().get_mut(name) {
            kept.entry.size_bytes = size_bytes;
        }
        tracing::info!(name, size_bytes, "resized a volume");
        Ok(Entry { size_bytes, ..entry })
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
        self.delete_entry(&book, entry, is_forced).await
    }

    pub(super) async fn delete_entry(&self, book: &Book, entry: Entry, is_forced: bool) -> Result<(), CatalogueError> {
        let name = entry.name.as_str();
        // From here on no client finds it, so that the count of those attached cannot grow.
        let was_leaving = self.set_leaving(name, true);
        if let Err(error) = self.refuse_if_in_use(&entry, is_forced).await {
            self.set_leaving(name, was_leaving);
            return Err(error);
        }
        if let Err(error) = book.put(&Record::of(&entry, RecordState::Deleting)).await {
            return Err(self.leave_undecided(&entry, error).await);
        }
        if entry.damage.is_none() {
            let (_, handle) = self.shard_of(entry.volume);
            // Whether it could be checkpointed does not matter any more.
            let _ = ask::close(handle, entry.volume).await?;
        }
        self.write().remove(name);
        tracing::info!(name, id = entry.volume.0, "deleted a volume");
        if let Err(error) = self.finish_deletion(book, entry.volume).await {
            tracing::warn!(name, %error, "the space of a deleted volume is given back at the next start");
        }
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
            if let Some(kept) = self.write().get_mut(&entry.name) {
                kept.entry.damage = Some(reason.to_owned());
            }
        }
        let CatalogueError::Volume(error) = error else { return error };
        let detail = format!("{}; volume {} is closed: {reason}", error.detail, entry.name);
        CatalogueError::Volume(volume::error::Error::new(error.kind, detail))
    }

    /// Gives back what a deleted volume held, then takes its record away.
    pub(super) async fn finish_deletion(&self, book: &Book, volume: VolumeId) -> Result<(), CatalogueError> {
        let erased = ask::erase(&self.store, volume).await?;
        erased.map_err(|fault| {
            volume::error::Error::new(ErrorKind::Unavailable, format!("erase its segments: {fault}"))
        })?;
        book.remove(volume.0).await
    }

    pub(super) async fn refuse_if_in_use(&self, entry: &Entry, is_forced: bool) -> Result<(), CatalogueError> {
        if is_forced || entry.damage.is_some() {
            return Ok(());
        }
        let stats = self.shard_stats(entry.shard).await?;
        let found = stats.volumes.iter().find(|(volume, _)| *volume == entry.volume);
        match found.map_or(0, |(_, stats)| stats.connections) {
            0 => Ok(()),
            connections => Err(CatalogueError::InUse { name: entry.name.clone(), connections }),
        }
    }

    pub(super) fn show_served(&self, name: &str) -> Result<Entry, CatalogueError> {
        let entry = self.show(name)?;
        match entry.damage {
            Some(reason) => Err(CatalogueError::Quarantined { name: name.to_owned(), reason }),
            None => Ok(entry),
        }
    }

    /// Tells what was set before.
    pub(super) fn set_leaving(&self, name: &str, is_leaving: bool) -> bool {
        let mut volumes = self.write();
        volumes.get_mut(name).is_some_and(|kept| std::mem::replace(&mut kept.is_leaving, is_leaving))
    }

    pub(super) fn refuse_if_stopping(&self) -> Result<(), CatalogueError> {
        if self.is_stopping() { Err(CatalogueError::Stopping) } else { Ok(()) }
    }
}
