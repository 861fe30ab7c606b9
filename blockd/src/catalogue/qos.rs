//! Ceilings of volumes and tenants: set while they serve, divided among shards, and what is left of them kept.
//!
//! One task looks at all this a few times a second. A tenant's parts follow its demand: they are taken from shards that use
//! less, and what they held with them, before others get them, so that all shards together never let more through than the
//! ceiling, but for an operation and a byte a second of each shard, and the largest request of each that is paid for
//! afterwards. What is left of credits goes to the index every few seconds: a kill forgets what was spent since, and a bucket
//! is never fuller than full after it.

use super::record::{Record, TenantRecord, VolumeRecord};
use super::snapshots::missing;
use super::trial::is_trial;
use super::{Catalogue, CatalogueError, Entry, Tenant, ask};
use crate::qos::{Credits, Division, KeptCredits, QosLimits, TenantUse, VolumeQos, encode};
use crate::shard::ShardQos;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use units::TenantId;
use volume::error::{Error, ErrorKind};

/// How often parts of ceilings follow the demand.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// Every so many looks credits are kept.
const LOOKS_PER_NOTE: u32 = 20;

/// The largest weight of a tenant's share.
const WEIGHT_MAX: u64 = 100;

/// What all volumes of a tenant together are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantQos {
    /// Ceilings.
    #[serde(flatten)]
    pub limits: QosLimits,
    /// How large its share of each shard is, where those of others are 1.
    pub weight: u64,
}

impl Default for TenantQos {
    fn default() -> Self {
        Self { limits: QosLimits::default(), weight: 1 }
    }
}

/// Whose a volume is that is opened, and its own ceilings.
pub(super) type Limited = (TenantId, Option<QosLimits>);

/// What a volume brings along that is opened.
pub(super) fn volume_qos((tenant, limits): Limited, credits: Credits) -> VolumeQos {
    VolumeQos { tenant, limits: limits.unwrap_or_default(), credits }
}

/// Who keeps ceilings.
#[derive(Debug)]
pub(super) struct QosKeeper(Mutex<Ceilings>);

#[derive(Debug)]
struct Ceilings {
    /// Those of tenants.
    divisions: BTreeMap<TenantId, Division>,
    /// What the index has of credits; of tenants it stays until their ceilings are set.
    kept: KeptCredits,
    looked_at: Instant,
}

impl QosKeeper {
    pub(super) fn new(kept: KeptCredits) -> Self {
        Self(Mutex::new(Ceilings { divisions: BTreeMap::new(), kept, looked_at: Instant::now() }))
    }
}

async fn keep(catalogue: Weak<Catalogue>) {
    for look in 1_u32.. {
        tokio::time::sleep(LOOK_PERIOD).await;
        let Some(catalogue) = catalogue.upgrade().filter(|catalogue| !catalogue.is_stopping()) else { return };
        let done = match catalogue.follow_demand().await {
            Ok(()) if look.is_multiple_of(LOOKS_PER_NOTE) => catalogue.keep_credits().await,
            done => done,
        };
        if let Err(error) = done
            && !catalogue.is_stopping()
        {
            tracing::warn!(%error, "ceilings stay as they are for now");
        }
    }
}

impl Catalogue {
    /// Starts who keeps ceilings. It ends with the catalogue.
    pub(super) fn start_qos(self: &Arc<Self>) {
        tokio::spawn(keep(Arc::downgrade(self)));
    }

    /// Holds a volume to other ceilings, from its next request on and after a restart.
    ///
    /// # Errors
    /// [`CatalogueError::Request`] for some that cannot be kept; [`CatalogueError::NotFound`],
    /// [`CatalogueError::Quarantined`]; or the system volume's.
    pub async fn set_qos(&self, name: &str, limits: QosLimits) -> Result<Entry, CatalogueError> {
        limits.check().map_err(|error| CatalogueError::Request(error.to_string()))?;
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let entry = self.show_served(name)?;
        let known = self.read().volume(entry.volume.0).cloned().ok_or_else(|| missing(name))?;
        let qos = Some(limits).filter(|limits| !limits.is_open());
        if is_trial() {
            return Ok(Entry { qos, ..entry });
        }
        let record = VolumeRecord { qos, ..known };
        book.put(&Record::Volume(record.clone())).await?;
        {
            let mut shelf = self.write();
            if let Some(kept) = shelf.names.get_mut(name) {
                kept.entry.qos = qos;
            }
            shelf.put_volume(record);
        }
        let (_, shard) = self.shard_of(entry.volume);
        // One that is not open is opened with them.
        ask::set_volume_qos(shard, entry.volume, limits).await?;
        tracing::info!(name, ?limits, "a volume has other ceilings");
        Ok(Entry { qos, ..entry })
    }

    /// Holds all volumes of a tenant together to ceilings, and gives it a share of each shard that is `weight` times as large as
    /// that of others, from the next request on and after a restart.
    ///
    /// # Errors
    /// As of [`Catalogue::set_quota`]; [`CatalogueError::Request`] for some that cannot be kept, too.
    pub async fn set_tenant_qos(&self, name: &str, wanted: TenantQos) -> Result<Tenant, CatalogueError> {
        wanted.limits.check().map_err(|error| CatalogueError::Request(error.to_string()))?;
        if !(1..=WEIGHT_MAX).contains(&wanted.weight) {
            return Err(CatalogueError::Request(format!("a weight is of 1 to {WEIGHT_MAX}")));
        }
        // Held to the end, so that of two changes the one that is recorded last is the one that holds.
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let qos = Some(wanted).filter(|wanted| *wanted != TenantQos::default());
        let record = TenantRecord { qos, ..self.tenant_record(name)? };
        if is_trial() {
            return Ok(Tenant { qos, ..self.show_tenant(name)? });
        }
        book.put(&Record::Tenant(record.clone())).await?;
        let tenant = TenantId(record.number);
        self.write().put_tenant(record);
        self.hold_tenant(tenant, wanted).await?;
        tracing::info!(tenant = name, ?wanted, "a tenant has other ceilings");
        self.show_tenant(name)
    }

    /// Holds every tenant to the ceilings of its record.
    pub(super) async fn hold_tenants(&self) -> Result<(), CatalogueError> {
        let of = |record: &TenantRecord| Some((TenantId(record.number), record.qos?));
        let held: Vec<(TenantId, TenantQos)> = self.read().tenants.values().filter_map(of).collect();
        for (tenant, qos) in held {
            self.hold_tenant(tenant, qos).await?;
        }
        Ok(())
    }

    /// Has every shard hold a tenant to its part of ceilings.
    pub(super) async fn hold_tenant(&self, tenant: TenantId, qos: TenantQos) -> Result<(), CatalogueError> {
        let TenantQos { limits, weight } = qos;
        let mut ceilings = self.qos.0.lock().await;
        let kept = ceilings.kept.tenants.remove(&tenant).unwrap_or_default();
        let division = match ceilings.divisions.remove(&tenant) {
            Some(known) => Division { limits, ..known },
            None => Division::new(limits, self.shards.len()),
        };
        for (shard, part) in self.shards.iter().zip(&division.parts) {
            let of = |credits: Option<i64>| credits.map(|credits| Division::credits_of(part.share, credits));
            let credits = Credits { operations: of(kept.operations), bytes: of(kept.bytes) };
            ask::set_tenant_weight(shard, tenant, weight)?;
            ask::set_tenant_qos(shard, tenant, (division.limits_of(part.share), credits)).await?;
        }
        if !limits.is_open() {
            ceilings.divisions.insert(tenant, division);
        }
        Ok(())
    }

    /// What each tenant with ceilings has left of them, on all shards together.
    ///
    /// # Errors
    /// [`CatalogueError::Ended`].
    pub async fn tenant_credits(&self) -> Result<BTreeMap<TenantId, Credits>, CatalogueError> {
        let mut all = BTreeMap::<TenantId, Credits>::new();
        for (tenant, found) in self.shard_qos().await?.into_iter().flat_map(|shard| shard.tenants) {
            let known = all.entry(tenant).or_default();
            *known = sum(*known, left_of(&found));
        }
        Ok(all)
    }

    /// What is left of the ceilings of every shard.
    ///
    /// # Errors
    /// [`CatalogueError::Ended`].
    pub async fn shard_qos(&self) -> Result<Vec<ShardQos>, CatalogueError> {
        let mut all = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            all.push(ask::qos(shard).await?);
        }
        Ok(all)
    }

    /// Has the parts of tenants' ceilings follow their demand.
    async fn follow_demand(&self) -> Result<(), CatalogueError> {
        let mut ceilings = self.qos.0.lock().await;
        if self.shards.len() < 2 || ceilings.divisions.is_empty() {
            return Ok(());
        }
        let told = self.shard_qos().await?;
        let elapsed = std::mem::replace(&mut ceilings.looked_at, Instant::now()).elapsed();
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        for (tenant, division) in &mut ceilings.divisions {
            let uses: Vec<TenantUse> = told.iter().map(|shard| use_of(shard, *tenant)).collect();
            if let Some(shares) = division.look(&uses, elapsed_ms) {
                self.divide(*tenant, division, &shares).await?;
            }
        }
        Ok(())
    }

    /// Takes from those shards that are to have less, then gives to the others, credits too.
    async fn divide(&self, tenant: TenantId, division: &mut Division, shares: &[u64]) -> Result<(), CatalogueError> {
        let mut moved = Credits { operations: Some(0), bytes: Some(0) };
        for gives in [false, true] {
            for (number, shard) in self.shards.iter().enumerate() {
                let Some((part, share)) = division.parts.get(number).zip(shares.get(number).copied()) else { continue };
                let before = part.share;
                if share == before || (share > before) != gives {
                    continue;
                }
                let credits = if gives { moved } else { Credits::default() };
                let rest = ask::set_tenant_qos(shard, tenant, (division.limits_of(share), credits)).await?;
                moved = if gives { rest } else { sum(moved, rest) };
                if let Some(part) = division.parts.get_mut(number) {
                    part.share = share;
                }
            }
        }
        Ok(())
    }

    /// Keeps what is left of credits, when that has changed.
    async fn keep_credits(&self) -> Result<(), CatalogueError> {
        let mut ceilings = self.qos.0.lock().await;
        let has_some = self.read().volumes().any(|record| record.qos.is_some()) || !ceilings.divisions.is_empty();
        if !has_some && ceilings.kept == KeptCredits::default() {
            return Ok(());
        }
        let mut kept = KeptCredits { tenants: ceilings.kept.tenants.clone(), ..KeptCredits::default() };
        // What was kept of these is of before.
        kept.tenants.retain(|tenant, _| !ceilings.divisions.contains_key(tenant));
        for shard in self.shard_qos().await? {
            kept.volumes.extend(shard.volumes);
            for (tenant, found) in shard.tenants {
                let all = kept.tenants.entry(tenant).or_default();
                *all = sum(*all, left_of(&found));
            }
        }
        if kept == ceilings.kept {
            return Ok(());
        }
        let noted = ask::note_credits(&self.store, encode(&kept)).await?;
        noted.map_err(|fault| Error::new(ErrorKind::Unavailable, format!("keep credits: {fault}")))?;
        ceilings.kept = kept;
        Ok(())
    }

    /// Keeps what is left at the end.
    pub(super) async fn keep_last_credits(&self) {
        if let Err(error) = self.keep_credits().await {
            tracing::warn!(%error, "what was spent of credits in the last seconds is forgotten");
        }
    }
}

fn use_of(shard: &ShardQos, tenant: TenantId) -> TenantUse {
    shard.tenants.iter().find(|(of, _)| *of == tenant).map(|(_, found)| *found).unwrap_or_default()
}

fn left_of(found: &TenantUse) -> Credits {
    let left = |status: Option<crate::qos::CreditStatus>| status.map(|status| status.left);
    Credits { operations: left(found.operations), bytes: left(found.bytes) }
}

fn sum(one: Credits, other: Credits) -> Credits {
    let of = |one: Option<i64>, other: Option<i64>| match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    };
    Credits { operations: of(one.operations, other.operations), bytes: of(one.bytes, other.bytes) }
}
