//! iSCSI targets in the API's words.

use super::{PoolService, service_error, tenant_of, timestamp};
use blockd::catalogue::{self, CatalogueError, ChapSecrets};
use control::{Chap, MutualChap, Name, Page, Place, ServiceError, Target, TargetInitiator, TargetLun, VolumeName};

impl PoolService {
    pub(super) fn targets(&self, tenant: Option<&Name>, page: &Page) -> Vec<Target> {
        let targets = self.catalogue.list_targets().into_iter().map(shown);
        let of = |target: &Target| tenant.is_none_or(|name| name.as_str() == target.tenant);
        page.of(targets.filter(of), |target| Place::named(&target.name))
    }

    pub(super) async fn show_volume_as(
        &self,
        (target, volume): (&VolumeName, &VolumeName),
        lun: Option<u16>,
    ) -> Result<TargetLun, ServiceError> {
        let mapped = self.catalogue.map_lun(target.as_str(), volume.as_str(), lun).await;
        mapped.map(shown_lun).map_err(service_error)
    }

    pub(super) async fn let_in(
        &self,
        target: &VolumeName,
        initiator: &str,
        chap: Option<Chap>,
    ) -> Result<Target, ServiceError> {
        answer(self.catalogue.allow_initiator(target.as_str(), initiator, chap.map(kept)).await)
    }
}

/// A catalogue's answer about a target.
pub(super) fn answer(target: Result<catalogue::Target, CatalogueError>) -> Result<Target, ServiceError> {
    target.map(shown).map_err(service_error)
}

fn shown(target: catalogue::Target) -> Target {
    let catalogue::Target { id, name, iqn, port, created_ms, is_default, luns, initiators, sessions, .. } = target;
    Target {
        tenant: tenant_of(&name),
        name,
        iqn,
        id,
        port,
        is_default,
        luns: luns.into_iter().map(shown_lun).collect(),
        initiators: initiators.into_iter().map(shown_initiator).collect(),
        sessions,
        created_at: created_ms.map(timestamp),
    }
}

fn shown_lun(lun: catalogue::Lun) -> TargetLun {
    let catalogue::Lun { lun, volume, size_bytes } = lun;
    TargetLun { lun, volume, size_bytes }
}

fn shown_initiator(initiator: catalogue::Initiator) -> TargetInitiator {
    let catalogue::Initiator { name, chap_user, mutual_user } = initiator;
    TargetInitiator { name, chap_user, mutual_user }
}

fn kept(chap: Chap) -> ChapSecrets {
    let mutual = |MutualChap { user, secret }| (user, secret.into_bytes());
    ChapSecrets { user: chap.user, secret: chap.secret.into_bytes(), mutual: chap.mutual.map(mutual) }
}
