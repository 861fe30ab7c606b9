//! Images in the API's words.

use super::PoolService;
use blockd::catalogue::{Entry, Space};
use blockd::shard::VolumeStats;
use control::{Image, ImageState, ServiceError, VolumeState};

impl PoolService {
    pub(super) async fn shown_image(&self, entry: Entry) -> Result<Image, ServiceError> {
        let (stats, space) = self.counted_of(&entry).await?;
        Ok(self.image(entry, stats.as_ref(), &space))
    }

    pub(super) fn image(&self, entry: Entry, stats: Option<&VolumeStats>, space: &Space) -> Image {
        let known = entry.image.clone();
        let shown = self.show(entry, stats, space);
        let is_ready = known.as_ref().is_some_and(|image| image.is_ready);
        let state = match shown.state {
            VolumeState::Quarantined => ImageState::Quarantined,
            VolumeState::Online | VolumeState::Poisoned if is_ready => ImageState::Ready,
            VolumeState::Online | VolumeState::Poisoned => ImageState::Importing,
        };
        Image {
            name: shown.name,
            tenant: shown.tenant,
            sharing: known.as_ref().map(|image| self.sharing(image)).unwrap_or_default(),
            id: shown.id,
            size_bytes: shown.size_bytes,
            written_bytes: shown.written_bytes,
            state,
            state_reason: shown.state_reason,
            copied_bytes: known.as_ref().map_or(0, |image| image.copied_bytes),
            claim: known.as_ref().map_or(0, |image| image.claim),
            source: known.map(|image| image.source).unwrap_or_default(),
            created_at: shown.created_at,
            nbd_uris: shown.nbd_uris,
        }
    }
}
