//! Jobs that take long, in the API's words.

use super::{PoolService, service_error, tenant_of, timestamp};
use blockd::catalogue::{Entry, Erasure, is_trial};
use blockd::scrub::ScrubReport;
use control::{ErrorCode, Operation, OperationKind, OperationState, ServiceError};

impl PoolService {
    pub(super) async fn operations(&self) -> Result<Vec<Operation>, ServiceError> {
        let erasures = self.catalogue.erasures().await.map_err(service_error)?;
        let erasures = erasures.into_iter().map(erasing);
        let imports = self.catalogue.list_images().into_iter().filter_map(importing);
        Ok(scrubbing(&self.serving.scrub().report()).into_iter().chain(imports).chain(erasures).collect())
    }

    pub(super) async fn cancel(&self, operation: Operation) -> Result<Operation, ServiceError> {
        match operation.kind {
            OperationKind::Scrub if is_trial() => {
                Ok(Operation { state: OperationState::Cancelling, is_cancellable: false, ..operation })
            }
            OperationKind::Scrub => scrubbing(&self.serving.scrub().cancel()).ok_or_else(|| gone(&operation)),
            OperationKind::Import => {
                let claim = operation.id.strip_prefix("import-").and_then(|claim| claim.parse().ok());
                let claim: u64 = claim.ok_or_else(|| gone(&operation))?;
                let deleted = self.catalogue.delete_image(&operation.target, Some(claim), true).await;
                deleted.map_err(service_error)?;
                Ok(Operation { state: OperationState::Cancelled, is_cancellable: false, ..operation })
            }
            OperationKind::Erase => Err(gone(&operation)),
        }
    }
}

fn gone(operation: &Operation) -> ServiceError {
    ServiceError::new(ErrorCode::OperationNotCancellable, format!("operation {} has ended", operation.id))
}

fn scrubbing(report: &ScrubReport) -> Option<Operation> {
    let begun_ms = report.begun_ms?;
    let state = match (report.is_running, report.is_cancelled) {
        (true, false) => OperationState::Running,
        (true, true) => OperationState::Cancelling,
        (false, true) => OperationState::Cancelled,
        (false, false) => OperationState::Done,
    };
    Some(Operation {
        id: format!("scrub-{begun_ms}"),
        kind: OperationKind::Scrub,
        target: "pool".to_owned(),
        tenant: None,
        state,
        left: report.slots_total.saturating_sub(report.slots_done),
        total: Some(report.slots_total),
        unit: "slots".to_owned(),
        is_cancellable: state == OperationState::Running,
        begun_at: Some(timestamp(begun_ms)),
        ended_at: report.ended_ms.map(timestamp),
    })
}

fn importing(entry: Entry) -> Option<Operation> {
    let image = entry.image.filter(|image| !image.is_ready)?;
    Some(Operation {
        id: format!("import-{}", image.claim),
        kind: OperationKind::Import,
        tenant: Some(tenant_of(&entry.name)),
        target: entry.name,
        state: OperationState::Running,
        left: entry.size_bytes.saturating_sub(image.copied_bytes),
        total: Some(entry.size_bytes),
        unit: "bytes".to_owned(),
        is_cancellable: true,
        begun_at: Some(timestamp(entry.created_ms)),
        ended_at: None,
    })
}

fn erasing(erasure: Erasure) -> Operation {
    Operation {
        id: format!("erase-{}", erasure.volume.0),
        kind: OperationKind::Erase,
        target: erasure.name,
        tenant: erasure.tenant,
        state: OperationState::Running,
        left: erasure.left_bytes,
        total: None,
        unit: "bytes".to_owned(),
        is_cancellable: false,
        begun_at: None,
        ended_at: None,
    }
}
