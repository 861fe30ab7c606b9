//! Storage classes: what a volume may be asked for and how long its past is kept, unless its own is told; and by which prices
//! its use is billed. The default class has no record, asks for nothing, and is always there.
//!
//! A volume that is made, or changes its class, takes the class's ceilings and history into its record; what it has of its
//! class follows that, what it was told by itself stays. So nothing that opens or serves a volume knows classes.

use super::record::{ClassRecord, MeterChange, Record, VolumeRecord, VolumeState};
use super::shelf::Shelf;
use super::snapshots::missing;
use super::trial::is_trial;
use super::{Book, Catalogue, CatalogueError, Entry, History, ask};
use crate::open::wall_ms;
use crate::qos::QosLimits;
use units::{ClassId, MeterTime, VolumeId};
use volume::request::Request;

/// The name of the class that a volume has when none was told.
pub const DEFAULT_CLASS: &str = "default";

/// Most changes of a volume's class or tenant that wait for the next reading: so many fit in its record.
pub(super) const METER_CHANGES_MAX: usize = 24;

/// What a volume of a class gets unless its own is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClassPolicy {
    /// Ceilings, when it has some.
    pub qos: Option<QosLimits>,
    /// For how long history is kept, when it is.
    pub history: Option<History>,
}

/// A storage class, as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Its number, by which its use is billed; never used again.
    pub id: ClassId,
    /// Its name.
    pub name: String,
    /// When it was made, milliseconds since 1970; nothing of the default one.
    pub created_ms: Option<u64>,
    /// What its volumes get.
    pub policy: ClassPolicy,
    /// How many volumes and images are of it.
    pub volumes: u64,
}

impl ClassRecord {
    const fn policy(&self) -> ClassPolicy {
        ClassPolicy { qos: self.qos, history: self.history }
    }
}

impl Shelf {
    /// The class of that name, and what its volumes get.
    ///
    /// # Errors
    /// [`CatalogueError::NoClass`].
    pub(super) fn class_named(&self, name: &str) -> Result<(ClassId, ClassPolicy), CatalogueError> {
        if name == DEFAULT_CLASS {
            return Ok((ClassId::DEFAULT, ClassPolicy::default()));
        }
        let record = self.classes.get(name).ok_or_else(|| CatalogueError::NoClass { name: name.to_owned() })?;
        Ok((ClassId(record.id), record.policy()))
    }

    /// What the volumes of a class get.
    pub(super) fn policy_of(&self, class: ClassId) -> ClassPolicy {
        let record = self.classes.values().find(|record| record.id == class.0);
        record.map(ClassRecord::policy).unwrap_or_default()
    }

    /// A class's name.
    fn class_name(&self, class: ClassId) -> String {
        if class == ClassId::DEFAULT {
            return DEFAULT_CLASS.to_owned();
        }
        let record = self.classes.values().find(|record| record.id == class.0);
        // One whose record has rotted.
        record.map_or_else(|| class.to_string(), |record| record.name.clone())
    }

    /// How many volumes are of a class. What has no name any more still has bytes.
    fn volumes_of_class(&self, class: ClassId) -> u64 {
        let of = self.volumes().filter(|record| record.class == class.0 && record.state != VolumeState::Deleting);
        of.count() as u64
    }

    fn described(&self, record: &ClassRecord) -> Class {
        let id = ClassId(record.id);
        Class {
            id,
            name: record.name.clone(),
            created_ms: Some(record.created_ms),
            policy: record.policy(),
            volumes: self.volumes_of_class(id),
        }
    }

    fn default_class(&self) -> Class {
        let volumes = self.volumes_of_class(ClassId::DEFAULT);
        let (name, policy) = (DEFAULT_CLASS.to_owned(), ClassPolicy::default());
        Class { id: ClassId::DEFAULT, name, created_ms: None, policy, volumes }
    }
}

impl Catalogue {
    /// Every class, by name, the default one first.
    #[must_use]
    pub fn list_classes(&self) -> Vec<Class> {
        let shelf = self.read();
        let made = shelf.classes.values().map(|record| shelf.described(record));
        std::iter::once(shelf.default_class()).chain(made).collect()
    }

    /// The class of that name.
    ///
    /// # Errors
    /// [`CatalogueError::NoClass`].
    pub fn show_class(&self, name: &str) -> Result<Class, CatalogueError> {
        let shelf = self.read();
        if name == DEFAULT_CLASS {
            return Ok(shelf.default_class());
        }
        let record = shelf.classes.get(name).ok_or_else(|| CatalogueError::NoClass { name: name.to_owned() })?;
        Ok(shelf.described(record))
    }

    /// The name of the class of that number.
    #[must_use]
    pub fn class_name(&self, class: ClassId) -> String {
        self.read().class_name(class)
    }

    /// Makes a class.
    ///
    /// # Errors
    /// [`CatalogueError::ClassExists`]; [`CatalogueError::Request`] for ceilings that cannot be kept; or the system volume's.
    pub async fn create_class(&self, name: &str, policy: ClassPolicy) -> Result<Class, CatalogueError> {
        check(policy)?;
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        if name == DEFAULT_CLASS || self.read().classes.contains_key(name) {
            return Err(CatalogueError::ClassExists { name: name.to_owned() });
        }
        if is_trial() {
            return Ok(Class {
                id: ClassId(0),
                name: name.to_owned(),
                created_ms: Some(wall_ms()),
                policy,
                volumes: 0,
            });
        }
        let id = book.take_ids(1).await?;
        let ClassPolicy { qos, history } = policy;
        let record = ClassRecord { id, name: name.to_owned(), created_ms: wall_ms(), qos, history };
        if let Err(error) = book.put(&Record::Class(record.clone())).await {
            if let Err(error) = book.remove(id, 1).await {
                tracing::warn!(class = name, %error, "a class that was refused may be there after a restart");
            }
            return Err(error);
        }
        self.write().classes.insert(name.to_owned(), record);
        tracing::info!(class = name, id, "made a class");
        self.show_class(name)
    }

    /// Gives a class another policy. Its volumes follow, each in what it was not told by itself.
    ///
    /// # Errors
    /// [`CatalogueError::NoClass`]; [`CatalogueError::Request`] of the default one, or for ceilings that cannot be kept; or the
    /// system volume's: then some volumes have followed, and the same again goes on with the others.
    pub async fn set_class(&self, name: &str, policy: ClassPolicy) -> Result<Class, CatalogueError> {
        check(policy)?;
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let record = self.class_record(name)?;
        let members: Vec<String> = {
            let shelf = self.read();
            let of = shelf.names.values().filter(|kept| kept.entry.class.0 == record.id && kept.entry.image.is_none());
            of.map(|kept| kept.entry.name.clone()).collect()
        };
        if is_trial() {
            return Ok(Class { policy, ..self.show_class(name)? });
        }
        for member in members {
            self.follow_class(&book, &member, (ClassId(record.id), record.policy(), policy)).await?;
        }
        // Last, so that who asks again after a failure finds those that have not followed.
        let ClassPolicy { qos, history } = policy;
        let record = ClassRecord { qos, history, ..record };
        book.put(&Record::Class(record.clone())).await?;
        self.write().classes.insert(name.to_owned(), record);
        self.history.wake();
        tracing::info!(class = name, ?policy, "a class has another policy");
        self.show_class(name)
    }

    /// Deletes a class that no volume is of.
    ///
    /// # Errors
    /// [`CatalogueError::NoClass`], [`CatalogueError::ClassInUse`]; [`CatalogueError::Request`] of the default one.
    pub async fn delete_class(&self, name: &str) -> Result<(), CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let record = self.class_record(name)?;
        let volumes = self.read().volumes_of_class(ClassId(record.id));
        if volumes > 0 {
            return Err(CatalogueError::ClassInUse { name: name.to_owned(), volumes });
        }
        if is_trial() {
            return Ok(());
        }
        book.remove(record.id, 1).await?;
        self.write().classes.remove(name);
        tracing::info!(class = name, id = record.id, "deleted a class");
        Ok(())
    }

    /// Gives a volume another class while it serves, at a moment of the meter's clock: what it uses from then on is billed by that.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`], [`CatalogueError::Quarantined`], [`CatalogueError::NoClass`], [`CatalogueError::Suspended`],
    /// [`CatalogueError::ManyChanges`]; or the system volume's.
    pub async fn set_volume_class(&self, name: &str, class: &str) -> Result<Entry, CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        self.refuse_if_suspended(name)?;
        let entry = self.show_served(name)?;
        let (class, policy) = self.read().class_named(class)?;
        if class == entry.class {
            return Ok(entry);
        }
        let known = self.read().volume(entry.volume.0).cloned().ok_or_else(|| missing(name))?;
        let before = self.read().policy_of(entry.class);
        if is_trial() {
            return Ok(Entry { class, ..entry });
        }
        let mut record = VolumeRecord { class: class.0, ..known };
        let (at, unread) = self.moment_of_change(&mut record).await;
        note_meter_change(&mut record, (at, entry.class))?;
        self.put_followed(&book, &entry, record, (before, policy)).await?;
        drop(unread);
        self.history.wake();
        drop(book);
        if let Err(error) = self.read_change(entry.volume).await {
            tracing::debug!(name, %error, "the next round takes the reading of a change of class");
        }
        tracing::info!(name, %class, "a volume has another class");
        self.show(name)
    }

    fn class_record(&self, name: &str) -> Result<ClassRecord, CatalogueError> {
        if name == DEFAULT_CLASS {
            let detail = "the default class has neither ceilings nor history, and is always there: make another one";
            return Err(CatalogueError::Request(detail.to_owned()));
        }
        self.read().classes.get(name).cloned().ok_or_else(|| CatalogueError::NoClass { name: name.to_owned() })
    }

    /// Has a volume of a class that has another policy follow.
    async fn follow_class(
        &self,
        book: &Book,
        name: &str,
        (class, before, policy): (ClassId, ClassPolicy, ClassPolicy),
    ) -> Result<(), CatalogueError> {
        let Ok(entry) = self.show(name) else { return Ok(()) };
        let known = self.read().volume(entry.volume.0).filter(|record| record.class == class.0).cloned();
        let Some(known) = known else { return Ok(()) };
        self.put_followed(book, &entry, known, (before, policy)).await
    }

    /// Writes a volume's record with what follows its class, and has its shard follow.
    async fn put_followed(
        &self,
        book: &Book,
        entry: &Entry,
        record: VolumeRecord,
        (before, policy): (ClassPolicy, ClassPolicy),
    ) -> Result<(), CatalogueError> {
        let qos = if record.qos == before.qos { policy.qos } else { record.qos };
        // Those that are mirrored keep no history yet.
        let follows = record.history == before.history && record.mirror.is_none();
        let history = if follows { policy.history } else { record.history };
        let is_served = entry.damage.is_none();
        let (has_other_qos, begins) = (qos != record.qos, record.history.is_none() && history.is_some());
        let record = VolumeRecord { qos, history, ..record };
        book.put(&Record::Volume(record.clone())).await?;
        {
            let mut shelf = self.write();
            if let Some(kept) = shelf.names.get_mut(&entry.name) {
                (kept.entry.qos, kept.entry.history, kept.entry.class) = (qos, history, ClassId(record.class));
            }
            shelf.put_volume(record);
        }
        let (_, shard) = self.shard_of(entry.volume);
        if has_other_qos && is_served {
            ask::set_volume_qos(shard, entry.volume, qos.unwrap_or_default()).await?;
        }
        if begins && is_served {
            ask::submit(shard, entry.volume, Request::KeepTime { is_kept: true }).await?;
        }
        Ok(())
    }

    /// The changes of a volume's class that no reading tells yet, the oldest first.
    #[must_use]
    pub fn meter_changes(&self, volume: VolumeId) -> Vec<MeterChange> {
        self.read().volume(volume.0).map(|record| record.meter_changes.clone()).unwrap_or_default()
    }
}

/// Notes in a volume's record from when on its use is its new class's, durable with the change itself.
fn note_meter_change(record: &mut VolumeRecord, (at, before): (MeterTime, ClassId)) -> Result<(), CatalogueError> {
    if record.meter_changes.len() >= METER_CHANGES_MAX {
        return Err(CatalogueError::ManyChanges { name: record.name.clone() });
    }
    let change = MeterChange { at: at.0, class: record.class, before: before.0 };
    record.meter_changes.push(change);
    Ok(())
}

fn check(policy: ClassPolicy) -> Result<(), CatalogueError> {
    let limits = policy.qos.unwrap_or_default();
    limits.check().map_err(|error| CatalogueError::Request(error.to_string()))
}
