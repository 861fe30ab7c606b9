//! Reading what segments wrote, where they are: the footer of a slot, or the headers of parcels. Nothing is believed that
//! fails its check, and what has no whole index is not looked into any further.

use super::{Context, Ids};
use crate::buffer::Buffer;
use crate::error::DiskFault;
use crate::format::{Geometry, Superblock, decode_footer_trailer};
use crate::io::{Action, FetchPiece, IoId};
use crate::pool::{Home, ParcelPlace, SegmentRow};
use crate::recover::{SegmentLog, Wanted, read_segment};
use crate::store::PoolReader;
use smallvec::SmallVec;
use units::{BLOCK_LEN, Lsn, SlotIndex};

/// The reading of one segment's index.
#[derive(Debug)]
pub(super) struct Reading {
    row: SegmentRow,
    pieces: Pieces,
    /// What is being read: where it is in the pool.
    asked: SmallVec<[FetchPiece; 2]>,
    has_trailer: bool,
}

/// What a fetch has come to.
#[derive(Debug)]
pub(super) enum Read {
    /// There is more to fetch.
    More(IoId),
    /// What the segment says.
    Whole(Box<SegmentLog>),
    /// That cannot be told.
    Nothing,
}

/// Blocks that are to be read: the slot, the first, and how many.
type Wanting = (SlotIndex, u32, u32);

/// What has been read of the pool.
#[derive(Debug, Default)]
struct Pieces(Vec<(u64, Vec<u8>)>);

impl PoolReader for Pieces {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskFault> {
        let held = self.0.iter().find_map(|(start, bytes)| {
            let skip = usize::try_from(offset.checked_sub(*start)?).ok()?;
            bytes.get(skip..skip.checked_add(buffer.len())?)
        });
        buffer.copy_from_slice(held.ok_or(DiskFault::Io)?);
        Ok(())
    }
}

impl Reading {
    /// Begins with the headers of parcels in both their places, or with both ends of a slot.
    pub(super) fn begin<S>(
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        (row, geometry): (SegmentRow, Geometry),
    ) -> (Self, IoId) {
        let last = geometry.slot_blocks() - 1;
        let wanted: Vec<Wanting> = match &row.home {
            Home::Own(slot) => vec![(*slot, 0, 1), (*slot, last, 1)],
            Home::Parcels(parcels) => {
                let headers = |at: ParcelPlace| at.headers().map(|block| (at.slot, block, at.header_blocks));
                parcels.places().flat_map(headers).collect()
            }
        };
        let mut reading = Self { row, pieces: Pieces::default(), asked: SmallVec::new(), has_trailer: row.is_moved() };
        let id = reading.ask(context, ids, (geometry, &wanted));
        (reading, id)
    }

    fn ask<S>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        (geometry, wanted): (Geometry, &[Wanting]),
    ) -> IoId {
        let mut len = 0;
        self.asked.clear();
        for (slot, block, count) in wanted {
            let pool_offset = geometry.block_offset(*slot, *block);
            self.asked.push(FetchPiece { pool_offset, buffer_offset: len, len: *count as usize * BLOCK_LEN });
            len += *count as usize * BLOCK_LEN;
        }
        let id = ids.next();
        context.actions.push(Action::Fetch {
            id,
            buffer: Buffer::zeroed(len),
            pieces: self.asked.clone(),
            is_second_try: false,
        });
        id
    }

    /// Takes what was read.
    pub(super) fn on_fetched<S>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        (superblock, buffer): (&Superblock, &Buffer),
    ) -> Read {
        for piece in &self.asked {
            let bytes = buffer.as_slice().get(piece.buffer_offset..piece.buffer_offset + piece.len).unwrap_or_default();
            self.pieces.0.push((piece.pool_offset, bytes.to_vec()));
        }
        if !self.has_trailer {
            self.has_trailer = true;
            let trailer = self.pieces.0.last().and_then(|(_, block)| decode_footer_trailer(block).ok());
            let last = superblock.geometry.slot_blocks() - 1;
            let Some(blocks) = trailer.map(|trailer| trailer.index_blocks).filter(|blocks| *blocks < last) else {
                return Read::Nothing;
            };
            if let Some(slot) = self.row.own_slot().filter(|_| blocks > 0) {
                let id = self.ask(context, ids, (superblock.geometry, &[(slot, last - blocks, blocks)]));
                return Read::More(id);
            }
        }
        self.log(superblock).map_or(Read::Nothing, |log| Read::Whole(Box::new(log)))
    }

    fn log(&self, superblock: &Superblock) -> Option<SegmentLog> {
        let last = self.row.last_lsn?;
        let wanted = Wanted {
            reader: &self.pieces,
            superblock,
            row: self.row,
            cut: Lsn(u64::MAX),
            durable_lsn: last,
            known_to: last,
            distrusts_footer: false,
        };
        let log = read_segment(&wanted).ok()?;
        // Without its header, the volume's size before the segment is not told.
        let is_whole = log.has_footer && (log.header.is_some() || self.row.is_moved());
        (is_whole && !log.is_empty() && log.last_lsn == last).then_some(log)
    }
}
