//! iSCSI targets in memory.

use super::{MemoryService, State};
use control::{Chap, ErrorCode, ServiceError, Target, TargetInitiator, TargetLun, VolumeName};

fn conflict(code: ErrorCode, detail: &str) -> ServiceError {
    ServiceError::new(code, detail)
}

impl State {
    pub(super) fn target(&mut self, name: &VolumeName) -> Result<&mut Target, ServiceError> {
        self.targets.get_mut(name.as_str()).ok_or_else(|| ServiceError::no_target(name.as_str()))
    }

    fn changed_target(&mut self, name: &VolumeName) -> Result<&mut Target, ServiceError> {
        self.check_tenant(name.tenant())?;
        self.target(name)
    }
}

impl MemoryService {
    pub(super) fn make_target(&self, name: &VolumeName) -> Result<Target, ServiceError> {
        let mut state = self.state.lock().unwrap();
        state.check_tenant(name.tenant())?;
        if state.targets.contains_key(name.as_str()) {
            return Err(conflict(ErrorCode::TargetExists, "it exists"));
        }
        state.last_id += 1;
        let target = Target {
            name: name.to_string(),
            tenant: name.tenant().to_string(),
            iqn: format!("iqn.2026-11.io.aljibe:{}", name.as_str().replace('/', ":")),
            id: state.last_id,
            port: 2,
            is_default: false,
            luns: Vec::new(),
            initiators: Vec::new(),
            sessions: 0,
            created_at: Some(super::tenants::now()),
        };
        state.targets.insert(name.to_string(), target.clone());
        Ok(target)
    }

    pub(super) fn take_target(&self, name: &VolumeName, force: bool) -> Result<(), ServiceError> {
        let mut state = self.state.lock().unwrap();
        if state.target(name)?.sessions > 0 && !force {
            return Err(conflict(ErrorCode::TargetInUse, "it has sessions"));
        }
        state.targets.remove(name.as_str());
        Ok(())
    }

    pub(super) fn map(
        &self,
        (target, volume): (&VolumeName, &VolumeName),
        lun: Option<u16>,
    ) -> Result<TargetLun, ServiceError> {
        let mut state = self.state.lock().unwrap();
        let size_bytes = Some(state.find(volume)?.size_bytes);
        let target = state.changed_target(target)?;
        let lun = lun.unwrap_or_else(|| target.luns.iter().map(|known| known.lun + 1).max().unwrap_or(0));
        let mapped = TargetLun { lun, volume: volume.to_string(), size_bytes };
        if target.luns.contains(&mapped) {
            return Ok(mapped);
        }
        if target.luns.iter().any(|known| known.lun == lun || known.volume == mapped.volume) {
            return Err(conflict(ErrorCode::LunInUse, "it is in use"));
        }
        target.luns.push(mapped.clone());
        Ok(mapped)
    }

    pub(super) fn unmap(&self, name: &VolumeName, lun: u16) -> Result<Target, ServiceError> {
        let mut state = self.state.lock().unwrap();
        let target = state.changed_target(name)?;
        let at = target.luns.iter().position(|known| known.lun == lun);
        target.luns.remove(at.ok_or_else(|| ServiceError::new(ErrorCode::LunNotFound, format!("no LUN {lun}")))?);
        Ok(target.clone())
    }

    pub(super) fn allow(
        &self,
        name: &VolumeName,
        initiator: String,
        chap: Option<Chap>,
    ) -> Result<Target, ServiceError> {
        let mut state = self.state.lock().unwrap();
        let target = state.changed_target(name)?;
        target.initiators.retain(|known| known.name != initiator);
        let mutual_user = chap.as_ref().and_then(|chap| chap.mutual.as_ref()).map(|mutual| mutual.user.clone());
        let chap_user = chap.map(|chap| chap.user);
        target.initiators.push(TargetInitiator { name: initiator, chap_user, mutual_user });
        Ok(target.clone())
    }

    pub(super) fn deny(&self, name: &VolumeName, initiator: &str) -> Result<Target, ServiceError> {
        let mut state = self.state.lock().unwrap();
        let target = state.changed_target(name)?;
        let at = target.initiators.iter().position(|known| known.name == initiator);
        let missing = || ServiceError::new(ErrorCode::InitiatorNotFound, format!("nothing is said of {initiator}"));
        target.initiators.remove(at.ok_or_else(missing)?);
        Ok(target.clone())
    }
}
