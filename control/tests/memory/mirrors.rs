//! Mirrors in memory: this is site 1, the other site is always in sync and does what it is asked.

use super::{MemoryService, State};
use control::{ErrorCode, LinkState, Mirror, MirrorEvidence, MirrorRole, Name, Page, Place, ServiceError, VolumeName};

const SITE: u8 = 1;

fn refused(detail: String) -> ServiceError {
    ServiceError::new(ErrorCode::MirrorRefused, detail)
}

/// One more thing that the site decided.
fn decided(mirror: &mut Mirror, text: String) {
    mirror.epoch += 1;
    mirror.evidence.push(MirrorEvidence { at: super::tenants::now(), text });
}

impl State {
    fn mirror(&mut self, name: &VolumeName) -> Result<&mut Mirror, ServiceError> {
        self.find(name)?;
        self.mirrors.get_mut(name.as_str()).ok_or_else(|| ServiceError::not_mirrored(name.as_str()))
    }
}

impl MemoryService {
    pub(super) fn mirrors_of(&self, tenant: Option<&Name>, page: &Page) -> Vec<Mirror> {
        let state = self.state.lock().unwrap();
        let of = |(name, _): &(&String, &Mirror)| {
            let name: VolumeName = name.parse().unwrap();
            tenant.is_none_or(|tenant| name.tenant() == tenant)
        };
        let mirrors = state.mirrors.iter().rev().filter(of).map(|(_, mirror)| mirror.clone());
        page.of(mirrors, |mirror| Place::named(&mirror.volume))
    }

    pub(super) fn change_mirror(
        &self,
        name: &VolumeName,
        change: impl FnOnce(&mut Mirror),
    ) -> Result<Mirror, ServiceError> {
        let mut state = self.state.lock().unwrap();
        let mirror = state.mirror(name)?;
        change(mirror);
        Ok(mirror.clone())
    }

    pub(super) fn make_mirror(&self, name: &VolumeName, to: u8) -> Result<Mirror, ServiceError> {
        let mut state = self.state.lock().unwrap();
        state.find(name)?;
        if state.mirrors.contains_key(name.as_str()) || to == SITE {
            return Err(refused(format!("volume {name} is mirrored, or site {to} is this one")));
        }
        let mut mirror = Mirror {
            volume: name.to_string(),
            site: SITE,
            peer: to,
            role: MirrorRole::Primary,
            serves: true,
            state: "leads".to_owned(),
            epoch: 0,
            primary: Some(SITE),
            in_sync: true,
            link: LinkState::Up,
            log_end: 0,
            problem: None,
            evidence: Vec::new(),
        };
        decided(&mut mirror, format!("mirrored to site {to}"));
        state.mirrors.insert(name.to_string(), mirror.clone());
        Ok(mirror)
    }

    pub(super) fn take_mirror(&self, name: &VolumeName) -> Result<(), ServiceError> {
        let mut state = self.state.lock().unwrap();
        state.mirror(name)?;
        state.mirrors.remove(name.as_str());
        Ok(())
    }

    pub(super) fn switch_mirror(&self, name: &VolumeName, to: u8) -> Result<Mirror, ServiceError> {
        if self.change_mirror(name, |_| ())?.primary == Some(to) {
            return Err(refused(format!("site {to} is the primary of volume {name}")));
        }
        self.change_mirror(name, |mirror| {
            mirror.serves = to == SITE;
            mirror.role = if mirror.serves { MirrorRole::Primary } else { MirrorRole::Secondary };
            mirror.primary = Some(to);
            decided(mirror, format!("moved to site {to}"));
        })
    }

    pub(super) fn force_mirror(&self, name: &VolumeName) -> Result<Mirror, ServiceError> {
        self.change_mirror(name, |mirror| {
            (mirror.role, mirror.serves, mirror.primary) = (MirrorRole::PrimaryAlone, true, Some(SITE));
            mirror.in_sync = false;
            decided(mirror, "forced".to_owned());
        })
    }
}
