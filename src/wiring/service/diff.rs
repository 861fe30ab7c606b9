//! What two states of a volume differ in, in the API's words.

use super::{PoolService, name_in_catalogue, service_error};
use blockd::catalogue::{self, DiffTo};
use control::{DiffExtent, DiffKind, ExportName, ServiceError, SnapshotDiff, SnapshotName};

impl PoolService {
    pub(super) async fn diff(
        &self,
        since: SnapshotName,
        to: ExportName,
        from: u64,
    ) -> Result<SnapshotDiff, ServiceError> {
        let asked = match &to {
            ExportName::Volume(name) => DiffTo::Volume(name.to_string()),
            ExportName::Snapshot(name) => DiffTo::Snapshot(name_in_catalogue(name)),
        };
        let found = self.catalogue.diff(&name_in_catalogue(&since), &asked, from).await.map_err(service_error)?;
        Ok(SnapshotDiff {
            since: since.to_string(),
            since_id: found.since_id,
            to: to.to_string(),
            to_id: found.to_id,
            size_bytes: found.size_bytes,
            extents: found.extents.into_iter().map(extent).collect(),
            next_offset: found.next_offset,
        })
    }
}

const fn extent(found: catalogue::DiffExtent) -> DiffExtent {
    let kind = if found.is_data { DiffKind::Data } else { DiffKind::Zero };
    DiffExtent { offset: found.offset, length: found.len, kind }
}
