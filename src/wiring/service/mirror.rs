//! Mirrored volumes in the API's words.

use super::{PoolService, service_error, tenant_of, timestamp};
use blockd::catalogue::{CatalogueError, is_trial};
use blockd::mirror::{MirrorView, RoleEvidence};
use control::{ErrorCode, LinkState, Mirror, MirrorEvidence, MirrorRole, Name, Page, Place, ServiceError, VolumeName};
use replication::{Role, Why};
use units::SiteId;

impl PoolService {
    pub(super) async fn mirrors(&self, tenant: Option<Name>, page: Page) -> Result<Vec<Mirror>, ServiceError> {
        let mirrors = self.catalogue.mirrors().await.map_err(service_error)?;
        let of = |(name, _): &(String, MirrorView)| tenant.as_ref().is_none_or(|of| of.as_str() == tenant_of(name));
        let mirrors = mirrors.into_iter().filter(of).map(|(name, view)| shown(name, view));
        Ok(page.of(mirrors, |mirror| Place::named(&mirror.volume)))
    }

    pub(super) async fn mirror_of(&self, name: VolumeName) -> Result<Mirror, ServiceError> {
        self.mirror_answer(&name, self.catalogue.mirror_view(name.as_str()).await)
    }

    pub(super) async fn mirror_to(&self, name: VolumeName, to: u8) -> Result<Mirror, ServiceError> {
        if is_trial() {
            self.catalogue.show(name.as_str()).map_err(service_error)?;
            let detail = format!("site {to} alone tells whether volume {name} can be there: a dry run does not ask it");
            return Err(ServiceError::new(ErrorCode::MirrorRefused, detail));
        }
        self.mirror_answer(&name, self.catalogue.mirror(name.as_str(), SiteId(to)).await)
    }

    pub(super) async fn unmirror(&self, name: VolumeName) -> Result<(), ServiceError> {
        if is_trial() {
            return self.mirror_of(name).await.map(drop);
        }
        let ended = self.catalogue.end_mirror(name.as_str()).await;
        ended.map_err(|error| self.mirror_error(&name, error))
    }

    pub(super) async fn move_to(&self, name: VolumeName, to: u8) -> Result<Mirror, ServiceError> {
        if is_trial() {
            return self.mirror_of(name).await;
        }
        self.mirror_answer(&name, self.catalogue.move_volume(name.as_str(), SiteId(to)).await)
    }

    pub(super) async fn force(&self, name: VolumeName) -> Result<Mirror, ServiceError> {
        if is_trial() {
            return self.mirror_of(name).await;
        }
        self.mirror_answer(&name, self.catalogue.fail_over(name.as_str()).await)
    }

    fn mirror_answer(
        &self,
        name: &VolumeName,
        view: Result<MirrorView, CatalogueError>,
    ) -> Result<Mirror, ServiceError> {
        view.map(|view| shown(name.to_string(), view)).map_err(|error| self.mirror_error(name, error))
    }

    /// What is not there is not mirrored either: that it is not there is what who asks must know.
    fn mirror_error(&self, name: &VolumeName, error: CatalogueError) -> ServiceError {
        let is_missing = matches!(error, CatalogueError::NotMirrored { .. });
        match self.catalogue.show(name.as_str()) {
            Err(missing) if is_missing => service_error(missing),
            Ok(_) | Err(_) => service_error(error),
        }
    }
}

fn shown(volume: String, view: MirrorView) -> Mirror {
    let MirrorView { site, peer, role, serves, epoch, record, is_link_up, end, problem, evidence } = view;
    Mirror {
        volume,
        site: site.0,
        peer: peer.0,
        role: shown_role(role),
        serves,
        state: state_of(role),
        epoch: epoch.0,
        primary: record.map(|record| record.primary.0),
        in_sync: record.is_some_and(|record| record.partner.is_some()),
        link: if is_link_up { LinkState::Up } else { LinkState::Down },
        log_end: end.0,
        problem,
        evidence: evidence.into_iter().map(shown_evidence).collect(),
    }
}

fn shown_evidence(RoleEvidence { at_ms, text }: RoleEvidence) -> MirrorEvidence {
    MirrorEvidence { at: timestamp(at_ms), text }
}

const fn shown_role(role: Role) -> MirrorRole {
    match role {
        Role::Lead { with_peer: true, .. } => MirrorRole::Primary,
        Role::Lead { with_peer: false, .. } => MirrorRole::PrimaryAlone,
        Role::Follow { .. } => MirrorRole::Secondary,
        Role::Freeze { .. } | Role::SealAndCut { .. } => MirrorRole::Waiting,
    }
}

/// A role in the words of docs/mirror.md.
fn state_of(role: Role) -> String {
    match role {
        Role::Lead { epoch, with_peer: true } => format!("leads in epoch {epoch}, with the other site"),
        Role::Lead { epoch, with_peer: false } => format!("leads in epoch {epoch}, alone"),
        Role::Follow { epoch, primary } => format!("follows site {primary} in epoch {epoch}"),
        Role::Freeze { why } => format!("frozen: {}", reason_of(why)),
        Role::SealAndCut { to } => format!("cuts its log behind operation {to}"),
    }
}

const fn reason_of(why: Why) -> &'static str {
    match why {
        Why::Starting => "starting, its role is not known yet",
        Why::Promising => "promising, until that is on stable storage",
        Why::Preparing => "preparing to lead: it compares its log, and needs an epoch of its own",
        Why::Uncertain => "uncertain, it may lack what the other site has, which is not heard",
        Why::Aligning => "aligning, it asks where its log parts from the primary's",
        Why::TakingOver => "taking over, the other site is lost and the witness is being asked",
        Why::Switching => "switching, as an operator asked for",
        Why::Alone => "alone, neither the other site nor the witness is heard",
        Why::RolledBack => "rolled back, the witness knows less than this site has promised",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::Record;
    use units::{Epoch, Lsn};

    fn view(role: Role, partner: Option<SiteId>) -> MirrorView {
        let (epoch, primary) = (Epoch(7), SiteId(2));
        let record = Record { epoch, primary, partner, is_sole: false, lineage: 1, fork: None };
        MirrorView {
            site: SiteId(1),
            peer: primary,
            role,
            serves: false,
            epoch,
            record: Some(record),
            is_link_up: false,
            end: Lsn(1234),
            problem: None,
            evidence: vec![RoleEvidence { at_ms: 1_767_323_045_000, text: "follows: site 2 leads".to_owned() }],
        }
    }

    /// P4. What a site is to a volume is told as it is, and in sync is only what the record says.
    #[test]
    fn a_view_is_shown_as_it_is() {
        let follow = Role::Follow { epoch: Epoch(7), primary: SiteId(2) };
        let mirror = shown("vm".to_owned(), view(follow, Some(SiteId(1))));
        assert_eq!((mirror.role, mirror.state.as_str()), (MirrorRole::Secondary, "follows site 2 in epoch 7"));
        assert_eq!((mirror.primary, mirror.in_sync, mirror.link), (Some(2), true, LinkState::Down));
        assert_eq!((mirror.log_end, mirror.evidence[0].at.to_string()), (1234, "2026-01-02T03:04:05Z".to_owned()));
        assert!(!shown("vm".to_owned(), view(follow, None)).in_sync);
        let unknown = MirrorView { record: None, ..view(follow, None) };
        let mirror = shown("vm".to_owned(), unknown);
        assert_eq!((mirror.primary, mirror.in_sync), (None, false));
    }

    /// P4. Who neither leads nor follows waits, whatever for, and says so.
    #[test]
    fn every_role_has_its_word() {
        let lead = |with_peer| Role::Lead { epoch: Epoch(7), with_peer };
        for (role, word, state) in [
            (lead(true), MirrorRole::Primary, "with the other site"),
            (lead(false), MirrorRole::PrimaryAlone, "alone"),
            (Role::Freeze { why: Why::Uncertain }, MirrorRole::Waiting, "frozen: uncertain"),
            (Role::Freeze { why: Why::RolledBack }, MirrorRole::Waiting, "frozen: rolled back"),
            (Role::SealAndCut { to: Lsn(9) }, MirrorRole::Waiting, "behind operation 9"),
        ] {
            assert_eq!(shown_role(role), word);
            assert!(state_of(role).contains(state), "{}", state_of(role));
        }
    }
}
