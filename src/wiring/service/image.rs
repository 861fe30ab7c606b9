//! Images in the API's words.

use super::{Moment, PoolService, service_error};
use blockd::catalogue::{Entry, Space};
use control::{Image, ImageState, ServiceError, VolumeState};

impl PoolService {
    pub(super) async fn shown_image(&self, entry: Entry) -> Result<Image, ServiceError> {
        let moment = self.moment().await?;
        let space = self.catalogue.space(&entry.name).await.map_err(service_error)?;
        Ok(self.image(entry, &moment, &space))
    }

    pub(super) fn image(&self, entry: Entry, moment: &Moment, space: &Space) -> Image {
        let known = entry.image.clone();
        let shown = self.show(entry, moment, space);
        let is_ready = known.as_ref().is_some_and(|image| image.is_ready);
        let state = match shown.state {
            VolumeState::Quarantined => ImageState::Quarantined,
            VolumeState::Online | VolumeState::Poisoned if is_ready => ImageState::Ready,
            VolumeState::Online | VolumeState::Poisoned => ImageState::Importing,
        };
        Image {
            name: shown.name,
            id: shown.id,
            size_bytes: shown.size_bytes,
            written_bytes: shown.written_bytes,
            state,
            state_reason: shown.state_reason,
            copied_bytes: known.as_ref().map_or(0, |image| image.copied_bytes),
            source: known.map(|image| image.source).unwrap_or_default(),
            created_at: shown.created_at,
            nbd_uris: shown.nbd_uris,
        }
    }
}
