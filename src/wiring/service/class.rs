//! Storage classes in the API's words.

use super::{kept, qos, service_error, timestamp};
use blockd::catalogue::{self, CatalogueError, ClassPolicy};
use blockd::qos::{Ceiling, QosLimits};
use control::{Class, KeepHistory, ServiceError, SetClass, SetQos};

pub(super) fn shown(class: catalogue::Class) -> Class {
    let catalogue::Class { id, name, created_ms, policy, volumes } = class;
    let history = policy.history.map_or_else(KeepHistory::default, |history| KeepHistory {
        seconds: Some(history.seconds),
        limit_bytes: history.limit_bytes,
    });
    let created_at = created_ms.map(timestamp);
    Class { name, id: id.0, qos: shown_qos(policy.qos), history, volumes: Some(volumes), created_at }
}

/// A catalogue's answer about a class.
pub(super) fn answer(class: Result<catalogue::Class, CatalogueError>) -> Result<Class, ServiceError> {
    class.map(shown).map_err(service_error)
}

/// What a class is to give its volumes.
pub(super) fn policy(qos: SetQos, history: KeepHistory) -> Result<ClassPolicy, ServiceError> {
    let limits = qos::limits(QosLimits::default(), qos)?;
    Ok(ClassPolicy { qos: Some(limits).filter(|limits| !limits.is_open()), history: kept(None, history) })
}

/// What a class is to give from now on.
pub(super) fn changed(known: ClassPolicy, wanted: SetClass) -> Result<ClassPolicy, ServiceError> {
    let new = policy(wanted.qos.unwrap_or_default(), wanted.history.unwrap_or_default())?;
    Ok(ClassPolicy {
        qos: if wanted.qos.is_some() { new.qos } else { known.qos },
        history: if wanted.history.is_some() { new.history } else { known.history },
    })
}

fn shown_qos(limits: Option<QosLimits>) -> SetQos {
    let QosLimits { iops, bandwidth, operation_bytes } = limits.unwrap_or_default();
    let rate = |ceiling: Option<Ceiling>| ceiling.map(|ceiling| ceiling.rate);
    let burst = |ceiling: Option<Ceiling>| ceiling.map(|ceiling| ceiling.burst);
    SetQos {
        iops: rate(iops),
        iops_burst: burst(iops),
        bandwidth_bytes: rate(bandwidth),
        bandwidth_burst_bytes: burst(bandwidth),
        operation_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P7. What is shown of a class makes the same class again, and what is not told of a change stays.
    #[test]
    fn a_class_is_shown_as_it_was_made() {
        let wanted = SetQos { iops: Some(1000), bandwidth_bytes: Some(1 << 24), ..SetQos::default() };
        let history = KeepHistory { seconds: Some(3600), limit_bytes: None };
        let made = policy(wanted, history).unwrap();
        let (id, created_ms) = (units::ClassId(3), Some(5));
        let class = shown(catalogue::Class { id, name: "gold".to_owned(), created_ms, policy: made, volumes: 0 });
        assert_eq!((class.qos.iops_burst, class.history), (Some(1000), history));
        assert_eq!(policy(class.qos, class.history).unwrap(), made);
        let without = SetClass { history: Some(KeepHistory::default()), ..SetClass::default() };
        assert_eq!(changed(made, without).unwrap(), ClassPolicy { history: None, ..made });
        assert_eq!(policy(SetQos::default(), KeepHistory::default()).unwrap(), ClassPolicy::default());
    }
}
