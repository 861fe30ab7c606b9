//! Which parts of a range hold data; and the cache hint, which brings the map of a range near.

use super::{Context, Parked, Volume, reply};
use crate::error::{Error, ErrorKind};
use crate::request::{Completion, Extent, RequestId};
use smallvec::SmallVec;
use units::{BLOCK_BYTES, BlockIndex, BlockRange, ByteRange};

/// Most bytes that one cache hint looks at.
const CACHE_BLOCKS_MAX: u64 = 32 << 20 >> 12;

/// A walk under way.
#[derive(Debug)]
pub(super) struct ExtentsRequest {
    pub(super) id: RequestId,
    range: ByteRange,
    extents_max: usize,
    walked_bytes: u64,
    found: Vec<Extent>,
}

impl Volume {
    pub(super) fn on_extents(
        &mut self,
        context: &mut Context<'_>,
        id: RequestId,
        range: ByteRange,
        extents_max: usize,
    ) {
        match self.check_range(range) {
            Ok(()) if range.is_empty() || extents_max == 0 => {
                let error = Error::new(ErrorKind::InvalidRequest, "extents of an empty range, or none wanted");
                reply(context, id, Err(error));
            }
            Ok(()) => {
                let request = ExtentsRequest { id, range, extents_max, walked_bytes: 0, found: Vec::new() };
                self.walk_extents(context, request);
            }
            Err(error) => reply(context, id, Err(error)),
        }
    }

    pub(super) fn walk_extents(&mut self, context: &mut Context<'_>, mut request: ExtentsRequest) {
        let blocks = request.range.blocks_touched();
        let first = BlockIndex(blocks.first.0 + request.walked_bytes / BLOCK_BYTES);
        let rest = BlockRange::new(first, blocks.end().0 - first.0);
        match self.map.extents(rest, request.extents_max, &mut request.found) {
            Ok(_) => reply(context, request.id, Ok(Completion::Extents(clipped(request.found, request.range)))),
            Err((walked, page)) => {
                request.walked_bytes += walked;
                self.park(context, page, Parked::Extents(request));
            }
        }
    }

    pub(super) fn on_cache(&mut self, context: &mut Context<'_>, id: RequestId, range: ByteRange) {
        match self.check_range(range) {
            Ok(()) => {
                let blocks = range.blocks_touched();
                self.bring_near(context, id, BlockRange::new(blocks.first, blocks.count.min(CACHE_BLOCKS_MAX)));
            }
            Err(error) => reply(context, id, Err(error)),
        }
    }

    pub(super) fn bring_near(&mut self, context: &mut Context<'_>, id: RequestId, blocks: BlockRange) {
        let (mut runs, mut checks) = (SmallVec::<[_; 8]>::new(), SmallVec::<[u32; 8]>::new());
        match self.map.resolve(blocks, &mut runs, &mut checks) {
            Ok(()) => reply(context, id, Ok(Completion::Done)),
            Err(page) => self.park(context, page, Parked::Cache(id, blocks)),
        }
    }
}

/// The extents of whole blocks, cut to the bytes asked for.
fn clipped(mut extents: Vec<Extent>, range: ByteRange) -> Vec<Extent> {
    let mut skip = range.offset() % BLOCK_BYTES;
    let mut left = range.len();
    for extent in &mut extents {
        extent.len = (extent.len - skip).min(left);
        skip = 0;
        left -= extent.len;
    }
    extents.retain(|extent| extent.len > 0);
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_cut_to_the_bytes_asked_for() {
        let extent = |len, is_data| Extent { len, is_data };
        let range = ByteRange::new(512, 7680).unwrap();
        let found = clipped(vec![extent(4096, true), extent(8192, false)], range);
        assert_eq!(found, [extent(3584, true), extent(4096, false)]);
    }
}
