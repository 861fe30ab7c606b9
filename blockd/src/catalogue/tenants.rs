//! Tenants: whose volumes, images and snapshots are, and how much of them each may have.
//!
//! A volume's name begins with its tenant's and `/`, but for the default tenant's, which is the provider's own: that one has no
//! record, no limits, and is always there. What a tenant has is counted from what there is, under the lock that every change
//! holds, so that no counter can be wrong.

use super::record::{Record, TenantRecord};
use super::shelf::{Kept, Shelf};
use super::trial::is_trial;
use super::{Access, Catalogue, CatalogueError, TenantQos, ask};
use crate::open::wall_ms;
use serde::{Deserialize, Serialize};
use units::TenantId;

/// The name of the tenant whose volumes' names have no prefix.
pub const DEFAULT_TENANT: &str = "default";

/// What a tenant may have; nothing where there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes of the sizes of its volumes and images together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Volumes and images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<u64>,
    /// Snapshots of volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u64>,
}

/// Whether a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Change,
    Trial,
}

/// What a tenant has, or what is to be added to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of the sizes of its volumes and images together.
    pub bytes: u64,
    /// Volumes and images.
    pub volumes: u64,
    /// Snapshots of volumes.
    pub snapshots: u64,
}

/// A tenant, as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// When it was made, milliseconds since 1970; nothing of the default one.
    pub created_ms: Option<u64>,
    /// Whether nobody may use or change what it has.
    pub is_suspended: bool,
    /// What it may have.
    pub quota: Quota,
    /// What it has.
    pub usage: Usage,
    /// Its ceilings, when it has some.
    pub qos: Option<TenantQos>,
    /// Who may enter its exports; of the default one, everybody who reaches them.
    pub access: Access,
}

impl Usage {
    /// One volume.
    pub(super) const fn volume(bytes: u64) -> Self {
        Self { bytes, volumes: 1, snapshots: 0 }
    }

    pub(super) const fn bytes(bytes: u64) -> Self {
        Self { bytes, volumes: 0, snapshots: 0 }
    }

    pub(super) const fn snapshots(snapshots: u64) -> Self {
        Self { bytes: 0, volumes: 0, snapshots }
    }
}

/// The name of the tenant that a volume of this name is of.
pub(super) fn tenant_of(name: &str) -> &str {
    name.split_once('/').map_or(DEFAULT_TENANT, |(tenant, _)| tenant)
}

impl Shelf {
    /// Whether nobody may use or change the volume of that name.
    pub(super) fn is_suspended(&self, name: &str) -> bool {
        self.tenants.get(tenant_of(name)).is_some_and(|tenant| tenant.is_suspended)
    }

    /// What a tenant has under a name.
    fn kept_of<'a>(&'a self, tenant: &'a str) -> impl Iterator<Item = &'a Kept> {
        let prefix = if tenant == DEFAULT_TENANT { String::new() } else { format!("{tenant}/") };
        let names = self.names.range(prefix.clone()..).take_while(move |(name, _)| name.starts_with(&prefix));
        names.filter(move |(name, _)| tenant_of(name) == tenant).map(|(_, kept)| kept)
    }

    /// Sizes of what is being made for a tenant.
    fn coming_of<'a>(&'a self, tenant: &'a str) -> impl Iterator<Item = u64> {
        self.coming.iter().filter(move |(name, _)| tenant_of(name) == tenant).map(|(_, size_bytes)| *size_bytes)
    }

    /// What a tenant has.
    pub(super) fn usage_of(&self, tenant: &str) -> Usage {
        let mut usage = Usage::default();
        for kept in self.kept_of(tenant) {
            usage.bytes = usage.bytes.saturating_add(kept.entry.size_bytes);
            usage.volumes += 1;
            // That of an image goes with it.
            if kept.entry.image.is_none() {
                usage.snapshots += self.snapshots_of(self.line_of(kept.entry.volume.0)).count() as u64;
            }
        }
        for size_bytes in self.coming_of(tenant) {
            usage.bytes = usage.bytes.saturating_add(size_bytes);
            usage.volumes += 1;
        }
        usage
    }

    /// Refuses what would give a tenant more than it may have.
    ///
    /// # Errors
    /// [`CatalogueError::QuotaExceeded`].
    pub(super) fn refuse_over_quota(&self, tenant: &str, more: Usage) -> Result<(), CatalogueError> {
        let Some(quota) =
            self.tenants.get(tenant).map(|record| record.quota).filter(|quota| *quota != Quota::default())
        else {
            return Ok(());
        };
        let used = self.usage_of(tenant);
        let checked = [
            ("bytes", quota.bytes, used.bytes, more.bytes),
            ("volumes", quota.volumes, used.volumes, more.volumes),
            ("snapshots", quota.snapshots, used.snapshots, more.snapshots),
        ];
        for (what, limit, used, asked) in checked {
            if let Some(limit) = limit
                && asked > 0
                && used.saturating_add(asked) > limit
            {
                return Err(CatalogueError::QuotaExceeded { tenant: tenant.to_owned(), what, used, asked, limit });
            }
        }
        Ok(())
    }

    /// Puts a tenant's record in. One that was deleted has no name any more.
    pub(super) fn put_tenant(&mut self, record: TenantRecord) {
        self.tenants_known = self.tenants_known.max(record.number);
        if record.deleted_ms.is_none() {
            self.tenants.insert(record.name.clone(), record);
        } else {
            self.tenants.retain(|_, known| known.number != record.number);
            self.former_tenants.insert(record.number, record);
        }
    }

    /// The number of the next tenant.
    ///
    /// # Errors
    /// [`CatalogueError::Unsure`] while a record cannot be read: it may be that of the last one.
    fn next_tenant(&self) -> Result<u64, CatalogueError> {
        if self.is_unsure() { Err(CatalogueError::Unsure) } else { Ok(self.tenants_known + 1) }
    }

    /// The numbers of all tenants that are there or were.
    pub(super) fn tenant_numbers(&self) -> impl Iterator<Item = TenantId> + use<> {
        (0..=self.tenants_known).map(TenantId)
    }

    fn tenant(&self, name: &str) -> Result<Tenant, CatalogueError> {
        let usage = self.usage_of(name);
        if name == DEFAULT_TENANT {
            return Ok(Tenant {
                id: TenantId::DEFAULT,
                name: name.to_owned(),
                created_ms: None,
                is_suspended: false,
                quota: Quota::default(),
                usage,
                qos: None,
                access: Access::default(),
            });
        }
        let record = self.tenants.get(name).cloned().ok_or_else(|| no_tenant(name))?;
        let TenantRecord { number, name, created_ms, is_suspended, quota, qos, access, .. } = record;
        Ok(Tenant { id: TenantId(number), name, created_ms: Some(created_ms), is_suspended, quota, usage, qos, access })
    }
}

impl Catalogue {
    /// Every tenant, by name, the default one too.
    #[must_use]
    pub fn list_tenants(&self) -> Vec<Tenant> {
        let shelf = self.read();
        let names = shelf.tenants.keys().map(String::as_str).chain([DEFAULT_TENANT]);
        let mut tenants: Vec<Tenant> = names.filter_map(|name| shelf.tenant(name).ok()).collect();
        tenants.sort_by(|a, b| a.name.cmp(&b.name));
        tenants
    }

    /// The tenant of that name.
    ///
    /// # Errors
    /// [`CatalogueError::NoTenant`].
    pub fn show_tenant(&self, name: &str) -> Result<Tenant, CatalogueError> {
        self.read().tenant(name)
    }

    /// Makes a tenant.
    ///
    /// # Errors
    /// [`CatalogueError::TenantExists`]; or the system volume's, when the record cannot be written.
    pub async fn create_tenant(&self, name: &str, quota: Quota) -> Result<Tenant, CatalogueError> {
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        {
            let shelf = self.read();
            // One whose record has rotted still has its volumes.
            let is_taken = shelf.tenants.contains_key(name) || shelf.kept_of(name).next().is_some();
            if is_taken || name == DEFAULT_TENANT {
                return Err(CatalogueError::TenantExists { name: name.to_owned() });
            }
        }
        let number = self.read().next_tenant()?;
        if is_trial() {
            return Ok(Tenant {
                id: TenantId(number),
                name: name.to_owned(),
                created_ms: Some(wall_ms()),
                is_suspended: false,
                quota,
                usage: Usage::default(),
                qos: None,
                access: Access::default(),
            });
        }
        let (id, created_ms) = (book.take_ids(1).await?, wall_ms());
        let (name, access) = (name.to_owned(), Access::default());
        let record = TenantRecord {
            id,
            number,
            name: name.clone(),
            created_ms,
            deleted_ms: None,
            is_suspended: false,
            quota,
            qos: None,
            access,
        };
        if let Err(error) = book.put(&Record::Tenant(record.clone())).await {
            if let Err(error) = book.remove(id, 1).await {
                tracing::warn!(tenant = %name, %error, "a tenant that was refused may be there after a restart");
            }
            return Err(error);
        }
        tracing::info!(tenant = %name, number, "made a tenant");
        self.write().put_tenant(record);
        self.show_tenant(&name)
    }

    /// Says what a tenant may have. What it has above that it keeps.
    ///
    /// # Errors
    /// [`CatalogueError::NoTenant`]; [`CatalogueError::Request`] of the default one, which has no limits.
    pub async fn set_quota(&self, name: &str, quota: Quota) -> Result<Tenant, CatalogueError> {
        if self.change_tenant(name, |record| record.quota = quota).await? == Made::Trial {
            return Ok(Tenant { quota, ..self.show_tenant(name)? });
        }
        tracing::info!(tenant = name, ?quota, "set the quota of a tenant");
        self.show_tenant(name)
    }

    /// Suspends a tenant: nobody uses or changes what it has, its clients are cut off, and nothing of it is lost.
    ///
    /// # Errors
    /// As of [`Catalogue::set_quota`]. After [`CatalogueError::Ended`] it is suspended, and clients may still be there.
    pub async fn suspend_tenant(&self, name: &str) -> Result<Tenant, CatalogueError> {
        // From then on nobody is let in.
        if self.change_tenant(name, |record| record.is_suspended = true).await? == Made::Trial {
            return Ok(Tenant { is_suspended: true, ..self.show_tenant(name)? });
        }
        self.cut_off_tenant(name).await?;
        tracing::info!(tenant = name, "suspended a tenant");
        self.show_tenant(name)
    }

    /// Cuts off all clients of what a tenant has.
    pub(super) async fn cut_off_tenant(&self, name: &str) -> Result<(), CatalogueError> {
        let book = self.book.lock().await;
        let attached: Vec<_> = {
            let shelf = self.read();
            let expelled = shelf.kept_of(name).inspect(|kept| kept.clients.expel());
            expelled.filter(|kept| kept.entry.damage.is_none()).map(|kept| kept.entry.volume).collect()
        };
        let mut views = self.views.lock().await;
        for volume in attached {
            let (_, shard) = self.shard_of(volume);
            if let Err(error) = ask::detach(shard, volume).await? {
                tracing::warn!(%volume, %error, "not all of a volume that lost its clients is in the index yet");
            }
            let snapshots = self.read().snapshots_with(volume.0);
            self.close_views(&mut views, &snapshots, true).await?;
        }
        drop((views, book));
        Ok(())
    }

    /// Lets a suspended tenant go on.
    ///
    /// # Errors
    /// As of [`Catalogue::set_quota`].
    pub async fn resume_tenant(&self, name: &str) -> Result<Tenant, CatalogueError> {
        if self.change_tenant(name, |record| record.is_suspended = false).await? == Made::Trial {
            return Ok(Tenant { is_suspended: false, ..self.show_tenant(name)? });
        }
        tracing::info!(tenant = name, "resumed a tenant");
        self.show_tenant(name)
    }

    /// Deletes a tenant that has nothing any more, its tokens and targets.
    ///
    /// # Errors
    /// [`CatalogueError::NoTenant`]; [`CatalogueError::TenantInUse`] while it has volumes or images;
    /// [`CatalogueError::Request`] of the default one.
    pub async fn delete_tenant(&self, name: &str) -> Result<(), CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let record = self.tenant_record(name)?;
        let left = self.read().usage_of(name).volumes;
        if left > 0 {
            return Err(CatalogueError::TenantInUse { name: name.to_owned(), volumes: left });
        }
        if is_trial() {
            return Ok(());
        }
        let tenant = TenantId(record.number);
        self.revoke_all_of(&book, tenant).await?;
        self.drop_targets_of(&book, tenant).await?;
        let record = TenantRecord { deleted_ms: Some(wall_ms()), ..record };
        book.put(&Record::Tenant(record.clone())).await?;
        self.write().put_tenant(record);
        self.tell_sockets();
        self.hold_tenant(tenant, TenantQos::default()).await?;
        tracing::info!(tenant = name, number = tenant.0, "deleted a tenant");
        Ok(())
    }

    pub(super) async fn change_tenant(
        &self,
        name: &str,
        change: impl FnOnce(&mut TenantRecord) + Send,
    ) -> Result<Made, CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let mut record = self.tenant_record(name)?;
        if is_trial() {
            return Ok(Made::Trial);
        }
        change(&mut record);
        book.put(&Record::Tenant(record.clone())).await?;
        self.write().put_tenant(record);
        self.tell_targets();
        Ok(Made::Change)
    }

    pub(super) fn tenant_record(&self, name: &str) -> Result<TenantRecord, CatalogueError> {
        if name == DEFAULT_TENANT {
            let detail = "the default tenant is the provider's own: it has no limits, and is always there";
            return Err(CatalogueError::Request(detail.to_owned()));
        }
        self.read().tenants.get(name).cloned().ok_or_else(|| no_tenant(name))
    }

    /// Whose a volume of that name is, if it may be made.
    ///
    /// # Errors
    /// [`CatalogueError::NoTenant`], [`CatalogueError::Suspended`], [`CatalogueError::QuotaExceeded`].
    pub(super) fn admit(&self, name: &str, more: Usage) -> Result<TenantId, CatalogueError> {
        let shelf = self.read();
        let tenant = tenant_of(name);
        if tenant == DEFAULT_TENANT {
            return Ok(TenantId::DEFAULT);
        }
        let record = shelf.tenants.get(tenant).ok_or_else(|| no_tenant(tenant))?;
        if record.is_suspended {
            return Err(suspended(tenant));
        }
        shelf.refuse_over_quota(tenant, more)?;
        Ok(TenantId(record.number))
    }

    /// Refuses a change of what a suspended tenant has.
    ///
    /// # Errors
    /// [`CatalogueError::Suspended`].
    pub(super) fn refuse_if_suspended(&self, name: &str) -> Result<(), CatalogueError> {
        if self.read().is_suspended(name) { Err(suspended(tenant_of(name))) } else { Ok(()) }
    }
}

/// Refuses to make of one tenant's what would be another's.
///
/// # Errors
/// [`CatalogueError::Request`].
pub(super) fn refuse_other_tenant(source: &str, name: &str) -> Result<(), CatalogueError> {
    if tenant_of(source) == tenant_of(name) {
        return Ok(());
    }
    let detail = format!("{source} and {name} are of different tenants, which share images only");
    Err(CatalogueError::Request(detail))
}

fn no_tenant(name: &str) -> CatalogueError {
    CatalogueError::NoTenant { name: name.to_owned() }
}

fn suspended(tenant: &str) -> CatalogueError {
    CatalogueError::Suspended { tenant: tenant.to_owned() }
}
