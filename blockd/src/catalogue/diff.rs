//! What a volume, or a later snapshot, has that a snapshot has not: part by part, so that no answer grows with the volume.

use super::shelf::boundary_of;
use super::snapshots::{SnapshotName, find_sound, missing};
use super::views::ViewLease;
use super::{Catalogue, CatalogueError, ask};
use std::sync::Arc;
use std::time::{Duration, Instant};
use units::{ByteRange, VolumeId};
use volume::error::{Error, ErrorKind};
use volume::pool::{Change, Parent};
use volume::request::Request;

/// Most extents of one part.
const EXTENTS_MAX: usize = 4096;

/// After this long a part ends, though it is not full.
const PART_DURATION_MAX: Duration = Duration::from_secs(2);

/// What a snapshot is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiffTo {
    /// A volume as it is now.
    Volume(String),
    /// A later snapshot.
    Snapshot(SnapshotName),
}

/// A part of what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// The id of the snapshot.
    pub since_id: u64,
    /// The id of what it is compared with.
    pub to_id: u64,
    /// The size of that.
    pub size_bytes: u64,
    /// What differs, by offset; all of it up to where the next part begins.
    pub extents: Vec<DiffExtent>,
    /// Where the next part begins; nothing when this is the last.
    pub next_offset: Option<u64>,
}

/// Bytes that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiffExtent {
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub len: u64,
    /// Whether they are data now; if not, they are a hole and read as zeros.
    pub is_data: bool,
}

/// What is to be compared.
struct Compared {
    since: Parent,
    since_id: u64,
    to_id: u64,
    size_bytes: u64,
    /// The snapshot that has to be opened for it.
    view: Option<u64>,
}

impl Catalogue {
    /// Tells what `to` has that `since` has not, from an offset on. What was written with the same content differs too.
    ///
    /// # Errors
    /// [`CatalogueError::Unrelated`]; [`CatalogueError::NotFound`], [`CatalogueError::SnapshotNotFound`]; or the volume's.
    pub async fn diff(&self, since: &SnapshotName, to: &DiffTo, from: u64) -> Result<Diff, CatalogueError> {
        self.refuse_if_stopping()?;
        let compared = self.compared(since, to)?;
        // Kept to the end.
        let _lease: Option<Arc<ViewLease>> = match compared.view {
            Some(snapshot) => Some(self.open_view(snapshot).await?),
            None => None,
        };
        let (extents, next_offset) = self.differing(&compared, from).await?;
        let Compared { since_id, to_id, size_bytes, .. } = compared;
        Ok(Diff { since_id, to_id, size_bytes, extents, next_offset })
    }

    fn compared(&self, since: &SnapshotName, to: &DiffTo) -> Result<Compared, CatalogueError> {
        let shelf = self.read();
        let earlier = find_sound(&shelf, since)?;
        let (end, (to_id, size_bytes, view)) = match to {
            DiffTo::Volume(name) => {
                let kept = shelf.names.get(name).filter(|kept| !kept.is_leaving && kept.entry.image.is_none());
                let kept = kept.ok_or_else(|| missing(name))?;
                if let Some(reason) = kept.entry.damage.clone() {
                    return Err(CatalogueError::Quarantined { name: name.clone(), reason });
                }
                let id = kept.entry.volume.0;
                ((id, u64::MAX), (id, kept.entry.size_bytes, None))
            }
            DiffTo::Snapshot(name) => {
                let record = &find_sound(&shelf, name)?.record;
                // Its own generation comes before its end, so that it may be compared with itself.
                let end = (record.of, record.generation.saturating_add(1));
                (end, (record.id, record.size_bytes, Some(record.id)))
            }
        };
        if !shelf.is_behind(&earlier.record, end) {
            return Err(CatalogueError::Unrelated { snapshot: since.to_string(), to: to.to_string() });
        }
        Ok(Compared {
            since: boundary_of(&earlier.record).into(),
            since_id: earlier.record.id,
            to_id,
            size_bytes,
            view,
        })
    }

    /// The next part of what differs, and where the one behind it begins.
    async fn differing(
        &self,
        compared: &Compared,
        from: u64,
    ) -> Result<(Vec<DiffExtent>, Option<u64>), CatalogueError> {
        let (volume, since) = (VolumeId(compared.to_id), compared.since);
        let (_, shard) = self.shard_of(volume);
        let (mut extents, mut at, begin) = (Vec::new(), from, Instant::now());
        loop {
            let len = compared.size_bytes.saturating_sub(at);
            let extents_max = EXTENTS_MAX.saturating_sub(extents.len());
            if len == 0 {
                return Ok((extents, None));
            }
            if extents_max == 0 || begin.elapsed() > PART_DURATION_MAX {
                return Ok((extents, Some(at)));
            }
            let outside = |_| Error::new(ErrorKind::InvalidRequest, "the offset lies outside of every volume");
            let range = ByteRange::new(at, len).map_err(outside)?;
            let request = Request::Changed { since, range, extents_max };
            for extent in ask::changed(ask::submit(shard, volume, request).await?)? {
                push(&mut extents, (at, extent.len), extent.change);
                at = at.saturating_add(extent.len);
            }
        }
    }
}

fn push(extents: &mut Vec<DiffExtent>, (offset, len): (u64, u64), change: Change) {
    let is_data = match change {
        Change::None => return,
        Change::Data => true,
        Change::Hole => false,
    };
    let end_of = |extent: &DiffExtent| extent.offset.saturating_add(extent.len);
    match extents.last_mut().filter(|last| last.is_data == is_data && end_of(last) == offset) {
        Some(last) => last.len = last.len.saturating_add(len),
        None => extents.push(DiffExtent { offset, len, is_data }),
    }
}

impl std::fmt::Display for DiffTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Volume(name) => f.write_str(name),
            Self::Snapshot(name) => name.fmt(f),
        }
    }
}
