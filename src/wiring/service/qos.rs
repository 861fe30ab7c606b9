//! Ceilings in the API's words.

use blockd::catalogue::TenantQos as TenantLimits;
use blockd::qos::{Ceiling, CreditStatus, Credits, QosLimits};
use blockd::shard::VolumeStats;
use control::{CeilingStatus, ErrorCode, ServiceError, SetQos, TenantQos, VolumeQos};

/// The ceilings of a volume, and what is left of them.
pub(super) fn shown(limits: Option<QosLimits>, stats: Option<&VolumeStats>) -> Option<VolumeQos> {
    let limits = limits?;
    let status = stats.map(|stats| stats.qos).unwrap_or_default();
    let left = |credits: Option<CreditStatus>| credits.map(|credits| credits.left);
    Some(VolumeQos {
        iops: shown_ceiling(limits.iops, left(status.iops)),
        bandwidth: shown_ceiling(limits.bandwidth, left(status.bandwidth)),
        operation_bytes: limits.operation_bytes,
        throttled_requests: status.throttled_requests,
        throttled_ms: status.throttled_ns / 1_000_000,
    })
}

/// The ceilings of a tenant, and what is left of them.
pub(super) fn shown_of_tenant(qos: &TenantLimits, credits: Credits) -> TenantQos {
    let TenantLimits { limits, weight } = *qos;
    TenantQos {
        iops: shown_ceiling(limits.iops, credits.operations),
        bandwidth: shown_ceiling(limits.bandwidth, credits.bytes),
        operation_bytes: limits.operation_bytes,
        weight,
    }
}

fn shown_ceiling(ceiling: Option<Ceiling>, left: Option<i64>) -> Option<CeilingStatus> {
    let Ceiling { rate, burst } = ceiling?;
    let lasts_seconds = left.map(|left| u64::try_from(left).unwrap_or(0) / rate.max(1));
    Some(CeilingStatus { rate, burst, left, lasts_seconds })
}

/// The ceilings that a volume or a tenant is to have which has had `known`.
pub(super) fn limits(known: QosLimits, wanted: SetQos) -> Result<QosLimits, ServiceError> {
    let operation_bytes = wanted.operation_bytes.or(known.operation_bytes).filter(|bytes| *bytes > 0);
    let limits = QosLimits {
        iops: ceiling(known.iops, wanted.iops, wanted.iops_burst)?,
        bandwidth: ceiling(known.bandwidth, wanted.bandwidth_bytes, wanted.bandwidth_burst_bytes)?,
        operation_bytes,
    };
    limits.check().map_err(|error| ServiceError::new(ErrorCode::InvalidRequest, error.to_string()))?;
    Ok(limits)
}

fn ceiling(known: Option<Ceiling>, rate: Option<u64>, burst: Option<u64>) -> Result<Option<Ceiling>, ServiceError> {
    match (known, rate, burst) {
        (_, Some(0), None) => Ok(None),
        (_, Some(rate), burst) if rate > 0 => Ok(Some(Ceiling::new(rate, burst))),
        (Some(known), None, burst) => Ok(Some(Ceiling { burst: burst.unwrap_or(known.burst), ..known })),
        (None, None, None) => Ok(None),
        (_, Some(_), _) | (None, None, Some(_)) => {
            let detail = "a burst is of a ceiling: say what may pass in a second, too";
            Err(ServiceError::new(ErrorCode::InvalidRequest, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_stays_as_it_is() {
        let change = |known, wanted| limits(known, wanted).unwrap();
        let wanted = SetQos { iops: Some(1000), bandwidth_bytes: Some(1 << 24), ..SetQos::default() };
        let first = change(QosLimits::default(), wanted);
        assert_eq!(first.iops, Some(Ceiling { rate: 1000, burst: 1000 }));
        let burst = change(first, SetQos { iops_burst: Some(9000), ..SetQos::default() });
        assert_eq!(burst.iops, Some(Ceiling { rate: 1000, burst: 9000 }));
        assert_eq!(burst.bandwidth, first.bandwidth);
        let lifted = change(burst, SetQos { iops: Some(0), operation_bytes: Some(1 << 18), ..SetQos::default() });
        assert_eq!((lifted.iops, lifted.bandwidth, lifted.operation_bytes), (None, first.bandwidth, Some(1 << 18)));
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_what_can() {
        let refused = |wanted| limits(QosLimits::default(), wanted).unwrap_err();
        let wanted = [
            SetQos { iops: Some(9), ..SetQos::default() },
            SetQos { iops_burst: Some(9), ..SetQos::default() },
            SetQos { iops: Some(0), iops_burst: Some(9), ..SetQos::default() },
            SetQos { bandwidth_bytes: Some(1), ..SetQos::default() },
        ];
        for wanted in wanted {
            assert_eq!(refused(wanted).code, ErrorCode::InvalidRequest, "{wanted:?}");
        }
    }
}
