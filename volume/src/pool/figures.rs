//! What a volume takes, in figures that are cheap: what the index knows without looking at pages. What a single snapshot
//! holds is dear, and is found by [`super::Reclaim`].

use super::{Home, Index};
use crate::store::Store;
use units::{BLOCK_BYTES, VolumeId};

/// What a volume takes. Counted as the stored map is, which follows the log within about a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VolumeSpace {
    /// Its size.
    pub size_bytes: u64,
    /// Blocks that hold data in the volume as it is now, those among them that a clone inherits.
    pub mapped_blocks: u64,
    /// Blocks of its log that somebody needs: the volume as it is now, snapshots, or deletions that have not come to them.
    pub live_blocks: u64,
    /// Those that the volume as it is now has overwritten or trimmed, and which snapshots hold. Not known of a clone that
    /// has snapshots: a search for what the deletion of all of them gives back tells it.
    pub snapshot_blocks: Option<u64>,
    /// Snapshots.
    pub boundaries: u64,
    /// Those that are being deleted: what they held is still counted until they are gone.
    pub leaving_boundaries: u64,
    /// Segments.
    pub segments: u64,
    /// Segments whose live blocks are not known: they are counted as taken, not as live.
    pub unknown_segments: u64,
    /// Bytes of the pool that it takes: whole slots for segments where they were written, and its parts of packs.
    pub pool_bytes: u64,
}

impl<S: Store> Index<S> {
    /// What a volume takes. As many steps as it has segments and snapshots.
    #[must_use]
    pub fn volume_space(&self, volume: VolumeId) -> VolumeSpace {
        let row = self.volume_row(volume);
        let mut space = VolumeSpace {
            size_bytes: row.map_or(0, |row| row.size_bytes),
            mapped_blocks: self.mapped_blocks(volume),
            ..VolumeSpace::default()
        };
        for row in self.boundaries(volume) {
            space.boundaries += 1;
            space.leaving_boundaries += u64::from(row.is_leaving);
        }
        let slot_bytes = self.superblock().geometry.slot_bytes;
        for entry in self.entries_of(volume) {
            space.segments += 1;
            match entry.live {
                None => space.unknown_segments += 1,
                Some(live) => space.live_blocks += live.total(),
            }
            space.pool_bytes += match entry.row.home {
                Home::Own(_) => slot_bytes,
                Home::Parcels(parcels) => {
                    let left = self.survivors(entry.row.segment).map_or(0, |left| left.count());
                    let headers: u32 = parcels.places().map(|place| 2 * place.header_blocks).sum();
                    u64::from(headers + left) * BLOCK_BYTES
                }
            };
        }
        space.snapshot_blocks = match self.parent(volume) {
            None => Some(space.live_blocks.saturating_sub(space.mapped_blocks)),
            // What it has of its own is its own.
            Some(_) if space.boundaries == 0 => Some(0),
            Some(_) => None,
        };
        space
    }
}
