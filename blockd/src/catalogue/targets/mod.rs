//! iSCSI targets: which there are, which volumes each shows as which LUN, and which initiators may enter it.
//!
//! A target is one tenant's, as are its volumes. While there is no target that somebody made, a default one shows the default tenant's
//! volumes to initiators on this machine; its LUNs are kept, so that they stay what they were. Names: RFC 3720 3.2.6; CHAP: RFC 7143 9.2.1.

mod entrance;
mod initiators;
mod luns;
mod names;
pub(super) mod records;
mod reservations;

pub use entrance::{MappedLun, TargetAccess, TargetRefusal};
pub use initiators::{CHAP_SECRET_BYTES, CHAP_USER_BYTES_MAX, ChapSecrets, INITIATORS_MAX, Initiator};
pub use luns::{LUN_MAX, Lun};
pub use names::{ANY_INITIATOR, DEFAULT_TARGET, ISCSI_NAME_BYTES_MAX};
pub use records::KeptNexus;
pub use reservations::{KeptReservations, REGISTRATIONS_MAX};

use super::record::Record;
use super::shelf::Shelf;
use super::tenants::tenant_of;
use super::trial::is_trial;
use super::{Book, Catalogue, CatalogueError, Usage};
use crate::open::wall_ms;
use records::{InitiatorRecord, ReservationRecord, TargetRecord};
use reservations::KeptSet;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;
use units::TenantId;

/// Most targets of a tenant.
pub const TARGETS_MAX: u64 = 256;

/// The relative target port of the default target.
const DEFAULT_PORT: u16 = 1;

/// A target, as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its id; 0 of the default one before it has shown a volume.
    pub id: u64,
    /// Its name, with `TENANT/` in front where it is not the default tenant's.
    pub name: String,
    /// Its iSCSI name.
    pub iqn: String,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its relative target port.
    pub port: u16,
    /// When it was made, milliseconds since 1970; nothing of the default one before it has shown a volume.
    pub created_ms: Option<u64>,
    /// Whether it is the one that is there while there is no other.
    pub is_default: bool,
    /// Its volumes, by LUN.
    pub luns: Vec<Lun>,
    /// Who may enter it, by name.
    pub initiators: Vec<Initiator>,
    /// How many sessions it has.
    pub sessions: u64,
}

/// A session's part in a target's count, as each of its clones.
#[derive(Debug, Clone, Default)]
pub struct SessionCount(Arc<()>);

impl SessionCount {
    /// How many clones are there, but for the target's own.
    fn count(&self) -> u64 {
        (Arc::strong_count(&self.0) - 1) as u64
    }
}

/// A target that somebody made.
#[derive(Debug)]
struct KeptTarget {
    record: TargetRecord,
    /// By name.
    initiators: BTreeMap<String, InitiatorRecord>,
    sessions: SessionCount,
    /// It is being deleted: nobody finds it.
    is_leaving: bool,
}

/// What is known of targets.
#[derive(Debug, Default)]
pub(super) struct TargetShelf {
    /// Those that somebody made, by name.
    named: BTreeMap<String, KeptTarget>,
    /// The default one's record, when it has one.
    default: Option<TargetRecord>,
    default_sessions: SessionCount,
    /// By the volume's line.
    reservations: BTreeMap<u64, KeptSet>,
}

/// Tells those who serve targets what is new.
#[derive(Debug, Default)]
pub(super) struct TargetKeeper {
    changed: watch::Sender<u64>,
    is_served: AtomicBool,
}

/// The records of targets and what belongs to them, as they were read.
#[derive(Debug, Default)]
pub(super) struct TargetRecords {
    pub(super) targets: Vec<TargetRecord>,
    pub(super) initiators: Vec<InitiatorRecord>,
    pub(super) reservations: Vec<ReservationRecord>,
}

impl TargetRecords {
    /// Puts them on the shelf, which has all volumes; returns the ids of those that nobody needs any more.
    pub(super) fn put(self, shelf: &mut Shelf) -> Vec<u64> {
        let is_unsure = shelf.is_unsure();
        let lines: BTreeSet<u64> = self.targets.iter().flat_map(|record| record.luns.values().copied()).collect();
        let gone: BTreeSet<u64> =
            lines.into_iter().filter(|line| !is_unsure && shelf.head_of(*line).is_none()).collect();
        let mut by_id: BTreeMap<u64, KeptTarget> = BTreeMap::new();
        for mut record in self.targets {
            record.luns.retain(|_, line| !gone.contains(line));
            by_id.insert(record.id, KeptTarget::new(record));
        }
        let mut unneeded = Vec::new();
        for initiator in self.initiators {
            match by_id.get_mut(&initiator.target) {
                Some(target) => drop(target.initiators.insert(initiator.name.clone(), initiator)),
                None => unneeded.push(initiator.id),
            }
        }
        for target in by_id.into_values() {
            if target.record.is_default {
                shelf.targets.default = Some(target.record);
            } else {
                shelf.targets.named.insert(target.record.name.clone(), target);
            }
        }
        let (sets, stale) = reservations::newest(self.reservations);
        unneeded.extend(stale);
        for (line, set) in sets {
            if is_unsure || shelf.head_of(line).is_some() {
                shelf.targets.reservations.insert(line, set);
            } else {
                unneeded.extend(set.ids());
            }
        }
        // While a record cannot be read, it may be what they belong to.
        if is_unsure { Vec::new() } else { unneeded }
    }
}

impl KeptTarget {
    fn new(record: TargetRecord) -> Self {
        Self { record, initiators: BTreeMap::new(), sessions: SessionCount::default(), is_leaving: false }
    }
}

impl TargetShelf {
    /// Whether the default target is there, where targets are served.
    fn has_default(&self) -> bool {
        self.named.values().all(|target| target.record.tenant != TenantId::DEFAULT.0)
    }

    /// The lowest port that no target has.
    fn free_port(&self) -> Option<u16> {
        let taken: BTreeSet<u16> = self.named.values().map(|target| target.record.port).collect();
        (DEFAULT_PORT + 1..=u16::MAX).find(|port| !taken.contains(port))
    }

    fn named(&self, name: &str) -> Result<&KeptTarget, CatalogueError> {
        self.named.get(name).ok_or_else(|| no_target(name))
    }
}

impl Catalogue {
    /// Begins to keep the default target, for those who serve targets: before this, nothing is written for it.
    ///
    /// # Errors
    /// The system volume's, when its record cannot be written.
    pub async fn serve_targets(&self) -> Result<(), CatalogueError> {
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        self.renumber_default(&mut book, None).await?;
        self.targets.is_served.store(true, Ordering::Release);
        self.tell_targets();
        Ok(())
    }

    /// A number that is another one whenever what is answered of targets may be: of them, their volumes and initiators.
    #[must_use]
    pub fn targets_changed(&self) -> watch::Receiver<u64> {
        self.targets.changed.subscribe()
    }

    /// Tells who watches that something may be new.
    pub(super) fn tell_targets(&self) {
        self.targets.changed.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Every target, by name; the default one while it is there.
    #[must_use]
    pub fn list_targets(&self) -> Vec<Target> {
        let shelf = self.read();
        let named = shelf.targets.named.values().map(|kept| described(&shelf, kept));
        self.default_target(&shelf).into_iter().chain(named).collect()
    }

    /// The target of that name.
    ///
    /// # Errors
    /// [`CatalogueError::NoTarget`].
    pub fn show_target(&self, name: &str) -> Result<Target, CatalogueError> {
        let shelf = self.read();
        if name == DEFAULT_TARGET {
            return self.default_target(&shelf).ok_or_else(|| no_target(name));
        }
        shelf.targets.named(name).map(|kept| described(&shelf, kept))
    }

    fn default_target(&self, shelf: &Shelf) -> Option<Target> {
        if !self.serves_targets() || !shelf.targets.has_default() {
            return None;
        }
        let record = shelf.targets.default.as_ref();
        Some(Target {
            id: record.map_or(0, |record| record.id),
            name: DEFAULT_TARGET.to_owned(),
            iqn: names::iqn_of(DEFAULT_TARGET),
            tenant: TenantId::DEFAULT,
            port: DEFAULT_PORT,
            created_ms: record.map(|record| record.created_ms),
            is_default: true,
            luns: record.map(|record| luns::described(shelf, record)).unwrap_or_default(),
            initiators: Vec::new(),
            sessions: shelf.targets.default_sessions.count(),
        })
    }

    fn serves_targets(&self) -> bool {
        self.targets.is_served.load(Ordering::Acquire)
    }

    /// Makes a target, which shows nothing to nobody yet.
    ///
    /// # Errors
    /// [`CatalogueError::TargetExists`], [`CatalogueError::NoTenant`], [`CatalogueError::Suspended`];
    /// [`CatalogueError::QuotaExceeded`] beyond [`TARGETS_MAX`] of a tenant; [`CatalogueError::Request`] for a name that cannot be part of
    /// an iSCSI name; or the system volume's.
    pub async fn create_target(&self, name: &str) -> Result<Target, CatalogueError> {
        names::check_target(name)?;
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let tenant = self.admit(name, Usage::default())?;
        let port = self.check_new_target(name, tenant)?;
        let (name, tenant) = (name.to_owned(), tenant.0);
        let (luns, created_ms) = (BTreeMap::new(), wall_ms());
        let record = TargetRecord { id: 0, name, tenant, port, luns, created_ms, is_default: false };
        if is_trial() {
            return Ok(described(&self.read(), &KeptTarget::new(record)));
        }
        let id = book.take_ids(1).await?;
        let record = TargetRecord { id, ..record };
        if let Err(error) = book.put(&Record::Target(record.clone())).await {
            if let Err(error) = book.remove(id, 1).await {
                tracing::warn!(target = record.name, %error, "a target that was refused may be there after a restart");
            }
            return Err(error);
        }
        let name = record.name.clone();
        self.write().targets.named.insert(name.clone(), KeptTarget::new(record));
        self.tell_targets();
        tracing::info!(target = name, id, port, "made a target");
        self.show_target(&name)
    }

    /// The port of a target that is to be made.
    fn check_new_target(&self, name: &str, tenant: TenantId) -> Result<u16, CatalogueError> {
        let shelf = self.read();
        if name == DEFAULT_TARGET || shelf.targets.named.contains_key(name) {
            return Err(CatalogueError::TargetExists { name: name.to_owned() });
        }
        let used = shelf.targets.named.values().filter(|kept| kept.record.tenant == tenant.0).count() as u64;
        let port = shelf.targets.free_port().filter(|_| used < TARGETS_MAX);
        port.ok_or_else(|| CatalogueError::QuotaExceeded {
            tenant: tenant_of(name).to_owned(),
            what: "targets",
            used,
            asked: 1,
            limit: TARGETS_MAX,
        })
    }

    /// Deletes a target, and what was said of its initiators. Its volumes stay.
    ///
    /// # Errors
    /// [`CatalogueError::NoTarget`]; [`CatalogueError::TargetInUse`] while it has sessions, unless `is_forced`;
    /// [`CatalogueError::Request`] of the default one; or the system volume's.
    pub async fn delete_target(&self, name: &str, is_forced: bool) -> Result<(), CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        refuse_default(name)?;
        {
            let mut shelf = self.write();
            let kept = shelf.targets.named.get_mut(name).ok_or_else(|| no_target(name))?;
            // Looked at while it is locked, so that nobody comes in behind it.
            let sessions = kept.sessions.count();
            if sessions > 0 && !is_forced {
                return Err(CatalogueError::TargetInUse { name: name.to_owned(), sessions });
            }
            kept.is_leaving = !is_trial();
        }
        if is_trial() {
            return Ok(());
        }
        let deleted = self.drop_target(&book, name).await;
        if let Some(kept) = self.write().targets.named.get_mut(name) {
            kept.is_leaving = false;
        }
        self.tell_targets();
        deleted?;
        tracing::info!(target = name, is_forced, "deleted a target");
        Ok(())
    }

    /// Takes a target's records away, its own first, durably: those of its initiators are nobody's then.
    async fn drop_target(&self, book: &Book, name: &str) -> Result<(), CatalogueError> {
        let (id, initiators) = {
            let shelf = self.read();
            let kept = shelf.targets.named(name)?;
            let initiators: Vec<u64> = kept.initiators.values().map(|record| record.id).collect();
            (kept.record.id, initiators)
        };
        book.remove(id, 1).await?;
        self.write().targets.named.remove(name);
        if let Err(error) = book.drop_all(&initiators).await {
            tracing::warn!(target = name, %error, "what was said of a deleted target's initiators is taken away at the next start");
        }
        Ok(())
    }

    /// Takes away the targets of a tenant that is being deleted. It has no volumes any more.
    pub(super) async fn drop_targets_of(&self, book: &Book, tenant: TenantId) -> Result<(), CatalogueError> {
        let names: Vec<String> = {
            let shelf = self.read();
            let of = shelf.targets.named.values().filter(|kept| kept.record.tenant == tenant.0);
            of.map(|kept| kept.record.name.clone()).collect()
        };
        for name in names {
            self.drop_target(book, &name).await?;
        }
        self.tell_targets();
        Ok(())
    }

    /// Writes what a target is from now on, and knows it.
    async fn put_target(&self, book: &Book, record: TargetRecord) -> Result<(), CatalogueError> {
        book.put(&Record::Target(record.clone())).await?;
        {
            let mut shelf = self.write();
            match shelf.targets.named.get_mut(&record.name).filter(|_| !record.is_default) {
                Some(kept) => kept.record = record,
                None if record.is_default => shelf.targets.default = Some(record),
                None => {}
            }
        }
        self.tell_targets();
        Ok(())
    }

    /// The record of a target that is to be changed.
    fn target_record(&self, name: &str) -> Result<TargetRecord, CatalogueError> {
        refuse_default(name)?;
        self.refuse_if_suspended(name)?;
        self.read().targets.named(name).map(|kept| kept.record.clone())
    }
}

fn described(shelf: &Shelf, kept: &KeptTarget) -> Target {
    let record = &kept.record;
    Target {
        id: record.id,
        name: record.name.clone(),
        iqn: names::iqn_of(&record.name),
        tenant: TenantId(record.tenant),
        port: record.port,
        created_ms: Some(record.created_ms),
        is_default: false,
        luns: luns::described(shelf, record),
        initiators: kept.initiators.values().map(Initiator::of).collect(),
        sessions: kept.sessions.count(),
    }
}

fn refuse_default(name: &str) -> Result<(), CatalogueError> {
    if name != DEFAULT_TARGET {
        return Ok(());
    }
    let detail = "the default target is there while there is no other, and is as it is: make another one";
    Err(CatalogueError::Request(detail.to_owned()))
}

fn no_target(name: &str) -> CatalogueError {
    CatalogueError::NoTarget { name: name.to_owned() }
}
