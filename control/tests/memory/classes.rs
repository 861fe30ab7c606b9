//! Classes in memory.

use super::{MemoryService, State};
use control::{Class, ErrorCode, KeepHistory, Name, ServiceError, SetClass, SetQos, Volume, VolumeName};

fn missing(name: &Name) -> ServiceError {
    ServiceError::new(ErrorCode::ClassNotFound, format!("there is no class {name}"))
}

impl State {
    pub(super) fn class(&self, name: &Name) -> Result<Class, ServiceError> {
        let volumes = self.volumes.values().filter(|volume| volume.class == name.as_str()).count() as u64;
        let volumes = Some(volumes);
        if name.as_str() == "default" {
            let (qos, history) = (SetQos::default(), KeepHistory::default());
            return Ok(Class { name: name.to_string(), id: 0, qos, history, volumes, created_at: None });
        }
        let class = self.classes.get(name.as_str()).cloned().ok_or_else(|| missing(name))?;
        Ok(Class { volumes, ..class })
    }
}

impl MemoryService {
    pub(super) fn all_classes(&self) -> Vec<Class> {
        let state = self.state.lock().unwrap();
        let names = state.classes.keys().map(|name| name.parse().unwrap());
        names.chain(["default".parse().unwrap()]).map(|name| state.class(&name).unwrap()).collect()
    }

    pub(super) fn make_class(&self, name: &Name, qos: SetQos, history: KeepHistory) -> Result<Class, ServiceError> {
        let mut state = self.state.lock().unwrap();
        if state.class(name).is_ok() {
            return Err(ServiceError::new(ErrorCode::ClassExists, format!("class {name} exists")));
        }
        state.last_id += 1;
        let created_at = Some(super::tenants::now());
        let class = Class { name: name.to_string(), id: state.last_id, qos, history, volumes: Some(0), created_at };
        state.classes.insert(name.to_string(), class.clone());
        Ok(class)
    }

    pub(super) fn change_class(&self, name: &Name, wanted: SetClass) -> Result<Class, ServiceError> {
        let mut state = self.state.lock().unwrap();
        let class = state.classes.get_mut(name.as_str()).ok_or_else(|| missing(name))?;
        class.qos = wanted.qos.unwrap_or(class.qos);
        class.history = wanted.history.unwrap_or(class.history);
        Ok(class.clone())
    }

    pub(super) fn take_class(&self, name: &Name) -> Result<(), ServiceError> {
        let mut state = self.state.lock().unwrap();
        if state.class(name)?.volumes > Some(0) {
            return Err(ServiceError::new(ErrorCode::ClassInUse, "it has volumes"));
        }
        state.classes.remove(name.as_str()).map(drop).ok_or_else(|| missing(name))
    }

    pub(super) fn reclass(&self, name: &VolumeName, class: &Name) -> Result<Volume, ServiceError> {
        let mut state = self.state.lock().unwrap();
        state.class(class)?;
        let volume = state.find(name)?;
        volume.class = class.to_string();
        Ok(volume.clone())
    }
}
