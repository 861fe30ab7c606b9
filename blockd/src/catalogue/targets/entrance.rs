//! What those who serve targets ask: who may enter which target, and which volumes that shows. Answered from memory.

use super::super::Catalogue;
use super::super::shelf::{Kept, Shelf};
use super::initiators::ChapSecrets;
use super::names::{self, ANY_INITIATOR, DEFAULT_TARGET};
use super::{DEFAULT_PORT, KeptTarget, SessionCount};
use crate::listener::{Attachment, Client, Entrance};
use crate::shard::ShardHandle;
use units::{TenantId, VolumeId};

/// A target that an initiator may enter, once it has said who it is.
#[derive(Debug, Clone)]
pub struct TargetAccess {
    /// Its iSCSI name.
    pub name: String,
    /// Its id; 0 of the default one before it has shown a volume.
    pub target: u64,
    /// Its relative target port.
    pub port: u16,
    /// Whose it is.
    pub tenant: TenantId,
    /// What the initiator says who it is by, when it must.
    pub chap: Option<ChapSecrets>,
    /// Counts a session, as long as it, or a clone of it, is there.
    pub sessions: SessionCount,
}

/// Why a target cannot be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetRefusal {
    /// There is none for this initiator.
    #[error("there is no such target")]
    Unknown,
    /// The default one, which is for initiators on this machine.
    #[error("the default target is for initiators on its own machine")]
    NotAllowed,
    /// Its tenant is suspended.
    #[error("the target's tenant is suspended")]
    Suspended,
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// A volume that a target shows, and where it lives.
#[derive(Debug)]
pub struct MappedLun {
    /// Its number.
    pub lun: u16,
    /// The volume.
    pub volume: VolumeId,
    /// The first volume of its line: the same after a rollback.
    pub line: u64,
    /// The volume's name.
    pub name: String,
    /// Its size now.
    pub size_bytes: u64,
    /// The number of the shard that serves it.
    pub shard_number: usize,
    /// The shard.
    pub shard: ShardHandle,
    /// Counts a client of the volume, as long as it is there.
    pub attachment: Attachment,
}

impl Catalogue {
    /// The target of an iSCSI name, where an initiator may enter it.
    ///
    /// # Errors
    /// [`TargetRefusal`]; where it may not, the target is as if it were not there.
    pub fn find_target(&self, iqn: &str, initiator: &str, client: &Client) -> Result<TargetAccess, TargetRefusal> {
        if self.is_stopping() {
            return Err(TargetRefusal::Stopping);
        }
        let name = names::target_of(iqn).ok_or(TargetRefusal::Unknown)?;
        let shelf = self.read();
        if name == DEFAULT_TARGET {
            return self.enter_default(&shelf, client);
        }
        let kept = shelf.targets.named.get(&name).filter(|kept| !kept.is_leaving).ok_or(TargetRefusal::Unknown)?;
        // What is said of it by name comes before what is said of all.
        let initiator = initiator.to_ascii_lowercase();
        let rule = kept.initiators.get(&initiator).or_else(|| kept.initiators.get(ANY_INITIATOR));
        let rule = rule.ok_or(TargetRefusal::Unknown)?;
        if shelf.is_suspended(&name) {
            return Err(TargetRefusal::Suspended);
        }
        Ok(TargetAccess {
            name: names::iqn_of(&name),
            target: kept.record.id,
            port: kept.record.port,
            tenant: TenantId(kept.record.tenant),
            chap: rule.chap.clone().map(Into::into),
            // Counted while the shelf is locked: whoever deletes the target looks then.
            sessions: kept.sessions.clone(),
        })
    }

    fn enter_default(&self, shelf: &Shelf, client: &Client) -> Result<TargetAccess, TargetRefusal> {
        if !self.serves_targets() || !shelf.targets.has_default() {
            return Err(TargetRefusal::Unknown);
        }
        if !is_local(client) {
            return Err(TargetRefusal::NotAllowed);
        }
        Ok(TargetAccess {
            name: names::iqn_of(DEFAULT_TARGET),
            target: shelf.targets.default.as_ref().map_or(0, |record| record.id),
            port: DEFAULT_PORT,
            tenant: TenantId::DEFAULT,
            chap: None,
            sessions: shelf.targets.default_sessions.clone(),
        })
    }

    /// The iSCSI names of the targets that an initiator may enter, in order.
    #[must_use]
    pub fn targets_for(&self, initiator: &str, client: &Client) -> Vec<String> {
        if self.is_stopping() {
            return Vec::new();
        }
        let shelf = self.read();
        let initiator = initiator.to_ascii_lowercase();
        let is_let_in = |kept: &&KeptTarget| {
            let has_rule = kept.initiators.contains_key(&initiator) || kept.initiators.contains_key(ANY_INITIATOR);
            has_rule && !kept.is_leaving && !shelf.is_suspended(&kept.record.name)
        };
        let named = shelf.targets.named.values().filter(is_let_in).map(|kept| names::iqn_of(&kept.record.name));
        let default = self.enter_default(&shelf, client).ok().map(|access| access.name);
        default.into_iter().chain(named).collect()
    }

    /// The volumes of a target that are served, by LUN; none of one that is not there. Each counts as a client's.
    #[must_use]
    pub fn luns_of(&self, target: u64) -> Vec<MappedLun> {
        if self.is_stopping() {
            return Vec::new();
        }
        let shelf = self.read();
        let default = shelf.targets.default.as_ref().filter(|_| self.serves_targets() && shelf.targets.has_default());
        let mut records = shelf.targets.named.values().filter(|kept| !kept.is_leaving).map(|kept| &kept.record);
        let record = records.find(|record| record.id == target);
        let Some(record) = record.or_else(|| default.filter(|record| record.id == target)) else { return Vec::new() };
        let mapped = record.luns.iter().filter_map(|(lun, line)| {
            let head = shelf.head_of(*line).filter(|head| head.tenant == record.tenant)?;
            let kept = shelf.names.get(&head.name).filter(|kept| kept.entry.volume.0 == head.id)?;
            let is_served = !kept.is_leaving && !shelf.is_suspended(&head.name);
            is_served.then(|| self.mapped((*lun, *line), kept))?
        });
        mapped.collect()
    }

    fn mapped(&self, (lun, line): (u16, u64), kept: &Kept) -> Option<MappedLun> {
        let Kept { entry, clients, .. } = kept;
        if entry.damage.is_some() || entry.image.is_some() {
            return None;
        }
        let (shard_number, shard) = self.shard_of(entry.volume);
        Some(MappedLun {
            lun,
            volume: entry.volume,
            line,
            name: entry.name.clone(),
            size_bytes: entry.size_bytes,
            shard_number,
            shard: shard.clone(),
            attachment: clients.attach(),
        })
    }
}

/// Whether a client is on this machine, as it comes over the network.
fn is_local(client: &Client) -> bool {
    match client.entrance {
        Entrance::Network(address) => address.to_canonical().is_loopback(),
        Entrance::Socket { .. } | Entrance::TenantSocket(_) => false,
    }
}
