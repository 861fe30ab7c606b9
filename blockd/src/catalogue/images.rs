//! Images: volumes that are filled once from a source, then sealed and never written again.
//!
//! An import is the work of whoever copies; the catalogue keeps how far the copy is on stable storage, so that it can go
//! on after the end of the copier or of the daemon. What lies beyond that is trimmed before it does: nothing of an
//! earlier try is mixed in.

use super::record::{Record, VolumeRecord};
use super::shelf::Shelf;
use super::tenants::{Usage, tenant_of};
use super::trial::is_trial;
use super::{Book, Catalogue, CatalogueError, DEFAULT_CLASS, DEFAULT_TENANT, Entry, NewVolume, SnapshotName, ask};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use units::{BLOCK_BYTES, ByteRange, TenantId};
use volume::request::Request;

/// The name of the snapshot that an image is sealed with.
const IMAGE_SNAPSHOT: &str = "image";

/// Most bytes of what is kept of a source: a record is one block.
pub const IMAGE_SOURCE_BYTES_MAX: usize = 1024;

/// What makes a volume an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Whether it is whole and sealed.
    pub is_ready: bool,
    /// What it is copied from, for people.
    pub source: String,
    /// What tells that source from another state of it.
    pub source_state: String,
    /// Everything before it is copied and on stable storage.
    pub copied_bytes: u64,
    /// The number of its import, never used again: one that goes on has another, so that what a former one says late does
    /// not count. 0 in records that were written before there was one.
    #[serde(default)]
    pub claim: u64,
    /// Who may make volumes of it, besides its own tenant.
    #[serde(default, skip_serializing_if = "Sharing::is_nobody")]
    pub shared: Sharing,
}

/// Which other tenants may make volumes of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// None.
    #[default]
    Nobody,
    /// Every one.
    All,
    /// These, by their ids.
    With(BTreeSet<u64>),
}

/// Most tenants that an image is shared with by name: a record is one block.
pub const IMAGE_TENANTS_MAX: usize = 32;

impl Sharing {
    const fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody)
    }

    pub(super) fn includes(&self, tenant: TenantId) -> bool {
        match self {
            Self::Nobody => false,
            Self::All => true,
            Self::With(tenants) => tenants.contains(&tenant.0),
        }
    }
}

impl Catalogue {
    /// Begins the import of an image, or goes on with one of the same source.
    ///
    /// # Errors
    /// [`CatalogueError::Exists`] when the name is another's; [`CatalogueError::Importing`] when it is imported from
    /// another source; [`CatalogueError::InUse`] while somebody copies.
    pub async fn import_image(
        &self,
        name: &str,
        size_bytes: u64,
        (source, source_state): (String, String),
    ) -> Result<Entry, CatalogueError> {
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let known = self.read().names.get(name).map(|kept| kept.entry.clone());
        let Some(entry) = known else {
            let (copied_bytes, claim, shared) = (0, 0, Sharing::Nobody);
            let image = Image { is_ready: false, source, source_state, copied_bytes, claim, shared };
            let new = NewVolume { size_bytes, ..NewVolume::default() };
            return self.make(&mut book, name, new, Some(image)).await;
        };
        self.refuse_if_suspended(name)?;
        let exists = || CatalogueError::Exists { name: name.to_owned(), size_bytes: entry.size_bytes };
        let image = entry.image.as_ref().filter(|image| !image.is_ready).ok_or_else(exists)?;
        if let Some(reason) = &entry.damage {
            return Err(CatalogueError::Quarantined { name: name.to_owned(), reason: reason.clone() });
        }
        let is_same = (&image.source, &image.source_state) == (&source, &source_state);
        if !is_same || entry.size_bytes != size_bytes {
            let reason = format!("it is being imported from {}, or from what that was before it changed", image.source);
            return Err(CatalogueError::Importing { name: name.to_owned(), reason });
        }
        if is_trial() {
            return self.refuse_if_attached(name, false).map(|()| entry.clone());
        }
        let _vacant = self.vacate(name, false)?;
        // Before anything is trimmed: what the former import had copied behind that counts no more.
        let image = Image { claim: book.take_ids(1).await?, ..image.clone() };
        let entry = self.note_image(&book, Entry { image: Some(image.clone()), ..entry }).await?;
        if let Some(rest) = size_bytes.checked_sub(image.copied_bytes).filter(|rest| *rest > 0)
            && let Ok(range) = ByteRange::new(image.copied_bytes, rest)
        {
            let (_, handle) = self.shard_of(entry.volume);
            ask::submit(handle, entry.volume, Request::Trim { range, fua: true }).await?;
        }
        Ok(entry)
    }

    /// Notes that everything before `copied_bytes` is copied and flushed.
    ///
    /// # Errors
    /// [`CatalogueError::NoImage`]; [`CatalogueError::Superseded`]; [`CatalogueError::Importing`] when it cannot be that
    /// far.
    pub async fn mark_image(&self, name: &str, claim: Option<u64>, copied_bytes: u64) -> Result<Entry, CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let entry = self.claimed_image(name, claim)?;
        self.refuse_if_suspended(name)?;
        let image = entry.image.as_ref().filter(|image| !image.is_ready);
        let image =
            image.ok_or_else(|| CatalogueError::Exists { name: name.to_owned(), size_bytes: entry.size_bytes })?;
        let is_whole = copied_bytes.is_multiple_of(BLOCK_BYTES) || copied_bytes == entry.size_bytes;
        if !is_whole || copied_bytes > entry.size_bytes {
            let reason = format!("{copied_bytes} bytes are not whole blocks of its {}", entry.size_bytes);
            return Err(CatalogueError::Importing { name: name.to_owned(), reason });
        }
        // One that comes late is still true.
        let copied_bytes = copied_bytes.max(image.copied_bytes);
        let marked = Entry { image: Some(Image { copied_bytes, ..image.clone() }), ..entry };
        self.note_image(&book, marked).await
    }

    /// Seals an image whose copy is complete: nobody writes to it any more. Does nothing to one that is sealed.
    ///
    /// # Errors
    /// [`CatalogueError::NoImage`]; [`CatalogueError::Superseded`]; [`CatalogueError::Importing`] unless all of it is copied;
    /// [`CatalogueError::InUse`] while somebody may still write.
    pub async fn seal_image(&self, name: &str, claim: Option<u64>) -> Result<Entry, CatalogueError> {
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let entry = self.claimed_image(name, claim)?;
        self.refuse_if_suspended(name)?;
        let Some(image) = entry.image.clone().filter(|image| !image.is_ready) else { return Ok(entry) };
        if image.copied_bytes < entry.size_bytes {
            let reason = format!("{} of {} bytes are copied", image.copied_bytes, entry.size_bytes);
            return Err(CatalogueError::Importing { name: name.to_owned(), reason });
        }
        if is_trial() {
            self.refuse_if_attached(name, false)?;
            return Ok(Entry { image: Some(Image { is_ready: true, ..image }), ..entry });
        }
        let _vacant = self.vacate(name, false)?;
        let sealed = self.snapshot_and_seal(&mut book, &entry, image).await?;
        tracing::info!(name, "sealed an image");
        Ok(sealed)
    }

    /// Deletes an image and its data.
    ///
    /// # Errors
    /// As [`Catalogue::delete`]; [`CatalogueError::NoImage`]; [`CatalogueError::Superseded`].
    pub async fn delete_image(&self, name: &str, claim: Option<u64>, is_forced: bool) -> Result<(), CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let entry = self.claimed_image(name, claim)?;
        self.delete_entry(book, entry, is_forced).await
    }

    /// Says which other tenants may make volumes of an image of the default one: those of these names, all without any, none
    /// when there is no name.
    ///
    /// # Errors
    /// [`CatalogueError::NoImage`], [`CatalogueError::NoTenant`]; [`CatalogueError::Request`] of another tenant's image, or
    /// for too many names.
    pub async fn share_image(&self, name: &str, with: Option<&[String]>) -> Result<Entry, CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let entry = self.show_image(name)?;
        if entry.tenant != TenantId::DEFAULT {
            return Err(CatalogueError::Request(format!("only images of tenant {DEFAULT_TENANT} are shared")));
        }
        let shared = match with {
            None => Sharing::All,
            Some([]) => Sharing::Nobody,
            Some(names) if names.len() > IMAGE_TENANTS_MAX => {
                let detail = format!("an image is shared with up to {IMAGE_TENANTS_MAX} tenants by name, or with all");
                return Err(CatalogueError::Request(detail));
            }
            Some(names) => {
                let ids = names.iter().map(|name| self.show_tenant(name).map(|tenant| tenant.id.0));
                Sharing::With(ids.collect::<Result<_, _>>()?)
            }
        };
        let image = entry.image.clone().map(|image| Image { shared, ..image });
        let noted = self.note_image(&book, Entry { image, ..entry }).await?;
        tracing::info!(name, shared = ?noted.image.as_ref().map(|image| &image.shared), "an image is shared");
        Ok(noted)
    }

    /// The names of those whom an image is shared with; nothing when that is everyone.
    #[must_use]
    pub fn shared_with(&self, image: &Image) -> Option<Vec<String>> {
        let shelf = self.read();
        match &image.shared {
            Sharing::All => None,
            Sharing::Nobody => Some(Vec::new()),
            Sharing::With(ids) => {
                let named = shelf.tenants.values().filter(|tenant| ids.contains(&tenant.number));
                Some(named.map(|tenant| tenant.name.clone()).collect())
            }
        }
    }

    /// Makes a volume that begins as the first of some images that is there for its tenant, and is as large or as large as
    /// asked for.
    ///
    /// # Errors
    /// [`CatalogueError::NoImage`], [`CatalogueError::Importing`], [`CatalogueError::NoClass`]; [`CatalogueError::Request`] when it is to be smaller;
    /// or as of [`Catalogue::clone_snapshot`] and [`Catalogue::resize`].
    pub async fn clone_image(
        &self,
        images: &[&str],
        name: &str,
        size_bytes: Option<u64>,
        class: Option<&str>,
    ) -> Result<Entry, CatalogueError> {
        // Kept to the end, so that the name is that of one volume throughout.
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let tenant = self.admit(name, Usage::default())?;
        let source = usable(&self.read(), images, tenant)?;
        let image = source.name.as_str();
        if !source.image.as_ref().is_some_and(|image| image.is_ready) {
            let reason = "its import has not ended".to_owned();
            return Err(CatalogueError::Importing { name: image.to_owned(), reason });
        }
        if let Some(asked) = size_bytes.filter(|asked| *asked < source.size_bytes) {
            let detail = format!("image {image} has {} bytes: a volume of {asked} cannot hold it", source.size_bytes);
            return Err(CatalogueError::Request(detail));
        }
        let more = Usage::volume(size_bytes.unwrap_or(source.size_bytes));
        self.read().refuse_over_quota(tenant_of(name), more)?;
        // Not the image's: that is what its owner pays.
        let class = class.unwrap_or(DEFAULT_CLASS);
        let entry = self.make_clone(&mut book, &snapshot_of(image), name, Some(class)).await?;
        let resized = self.resize_entry(&entry, size_bytes.unwrap_or(entry.size_bytes), false).await;
        if resized.is_err() && !is_trial() {
            // Whoever is told that it failed does not look for a volume.
            if let Err(error) = self.delete_entry(book, entry, true).await {
                tracing::warn!(name, %error, "a volume that could not be made as large as asked for is left");
            }
        }
        resized
    }

    /// The image of that name, ready or not.
    ///
    /// # Errors
    /// [`CatalogueError::NoImage`].
    pub fn show_image(&self, name: &str) -> Result<Entry, CatalogueError> {
        let entry = self.read().names.get(name).map(|kept| kept.entry.clone());
        entry.filter(|entry| entry.image.is_some()).ok_or_else(|| CatalogueError::NoImage { name: name.to_owned() })
    }

    /// The image of that name, as long as its import is the one that is meant, when one is.
    fn claimed_image(&self, name: &str, claim: Option<u64>) -> Result<Entry, CatalogueError> {
        let entry = self.show_image(name)?;
        let is_meant = |claim| entry.image.as_ref().is_some_and(|image| image.claim == claim);
        if claim.is_none_or(is_meant) { Ok(entry) } else { Err(CatalogueError::Superseded { name: name.to_owned() }) }
    }

    /// Every image, by name.
    #[must_use]
    pub fn list_images(&self) -> Vec<Entry> {
        let shelf = self.read();
        shelf.names.values().map(|kept| &kept.entry).filter(|entry| entry.image.is_some()).cloned().collect()
    }

    /// Every image, or those that a tenant has and may make volumes of, by name.
    ///
    /// # Errors
    /// [`CatalogueError::NoTenant`].
    pub fn list_images_for(&self, tenant: Option<&str>) -> Result<Vec<Entry>, CatalogueError> {
        let mut images = self.list_images();
        if let Some(tenant) = tenant {
            let id = self.show_tenant(tenant)?.id;
            images.retain(|entry| is_usable(entry, id));
        }
        Ok(images)
    }

    async fn snapshot_and_seal(&self, book: &mut Book, entry: &Entry, image: Image) -> Result<Entry, CatalogueError> {
        let snapshot = snapshot_of(&entry.name);
        // A crash may have come between it and the record.
        let is_taken = self.read().find_snapshot(&entry.name, IMAGE_SNAPSHOT).is_some();
        if !is_taken {
            self.take(book, &[snapshot], std::slice::from_ref(entry), None).await?;
        }
        self.note_image(book, Entry { image: Some(Image { is_ready: true, ..image }), ..entry.clone() }).await
    }

    /// Writes what an image is now, durably, and knows it.
    async fn note_image(&self, book: &Book, entry: Entry) -> Result<Entry, CatalogueError> {
        if is_trial() {
            return Ok(entry);
        }
        let known = self.read().volume(entry.volume.0).cloned();
        let record = known.ok_or_else(|| CatalogueError::NoImage { name: entry.name.clone() })?;
        let record = VolumeRecord { image: entry.image.clone(), ..record };
        book.put(&Record::Volume(record.clone())).await?;
        let mut shelf = self.write();
        shelf.put_volume(record);
        if let Some(kept) = shelf.names.get_mut(&entry.name) {
            kept.entry.image.clone_from(&entry.image);
        }
        Ok(entry)
    }
}

/// The first of some images that a tenant may use. One that it may not is not told from one that is not there.
fn usable(shelf: &Shelf, images: &[&str], tenant: TenantId) -> Result<Entry, CatalogueError> {
    let mut known = images.iter().filter_map(|name| shelf.names.get(*name)).map(|kept| &kept.entry);
    let known = known.find(|entry| is_usable(entry, tenant));
    let missing = || CatalogueError::NoImage { name: images.first().copied().unwrap_or_default().to_owned() };
    known.cloned().ok_or_else(missing)
}

fn is_usable(entry: &Entry, tenant: TenantId) -> bool {
    let is_shared = |image: &Image| entry.tenant == tenant || image.shared.includes(tenant);
    entry.image.as_ref().is_some_and(is_shared)
}

/// What volumes begin as that are made of an image.
fn snapshot_of(image: &str) -> SnapshotName {
    SnapshotName { volume: image.to_owned(), snapshot: IMAGE_SNAPSHOT.to_owned() }
}
