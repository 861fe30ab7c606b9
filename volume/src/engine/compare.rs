//! Changes that depend on what is there: compare-and-write and or-write. SBC-3, "COMPARE AND WRITE command" and "ORWRITE
//! command".
//!
//! Each is an edge, see [`super::subblock`]: no other change of its blocks comes between the look at them and the change. A
//! compare-and-write is one edge and one operation of the log, so that all of it happens or nothing; an or-write is cut into
//! several, of whole blocks but for its ends.

use super::request::{Asker, check_payload};
use super::subblock::{Merge, part_of};
use super::{Context, Volume, reply};
use crate::error::{Error, ErrorKind};
use crate::request::{COMPARE_BYTES_MAX, Completion, OR_BYTES_MAX, PIECE_BYTES_MAX, Payload};
use units::{BLOCK_BYTES, ByteRange, Lsn, SECTOR_BYTES};

impl Volume {
    pub(super) fn on_compare_and_write(
        &mut self,
        context: &mut Context<'_>,
        asker: Asker,
        range: ByteRange,
        (mut expected, mut payload): (Payload, Payload),
    ) {
        let Asker { id, fua } = asker;
        let checked = self.check_compare(range).and_then(|()| check_payload(range, &expected));
        let checked = checked.and_then(|()| check_payload(range, &payload));
        if range.is_empty() || checked.is_err() {
            context.buffers.put_all(expected.into_iter().chain(payload));
            reply(context, id, checked.map(|()| Completion::Done));
            return;
        }
        let (Some(expected), Some(bytes)) = (expected.pop(), payload.pop()) else { return };
        self.begin(id, fua);
        self.add_edge(context, id, range, Merge::CompareAndWrite { expected, bytes });
        self.part_done(context, id, Ok(Lsn::ZERO));
    }

    pub(super) fn on_or_write(&mut self, context: &mut Context<'_>, asker: Asker, range: ByteRange, payload: Payload) {
        let Asker { id, fua } = asker;
        let checked = self.check_or(range).and_then(|()| check_payload(range, &payload));
        if range.is_empty() || checked.is_err() {
            context.buffers.put_all(payload);
            reply(context, id, checked.map(|()| Completion::Done));
            return;
        }
        self.begin(id, fua);
        if range.is_block_aligned() && self.operation_blocks_max() * BLOCK_BYTES >= PIECE_BYTES_MAX as u64 {
            let mut from = range.offset();
            for piece in payload {
                let part = part_of(from, from + piece.len() as u64);
                from = part.end();
                self.add_edge(context, id, part, Merge::Or(piece));
            }
        } else {
            self.or_in_parts(context, id, range, payload);
        }
        self.part_done(context, id, Ok(Lsn::ZERO));
    }

    fn check_compare(&self, range: ByteRange) -> Result<(), Error> {
        self.check_change(range)?;
        let invalid = |detail: String| Err(Error::new(ErrorKind::InvalidRequest, detail));
        if !range.offset().is_multiple_of(SECTOR_BYTES) || !range.len().is_multiple_of(SECTOR_BYTES) {
            return invalid("a compare-and-write of parts of sectors".to_owned());
        }
        if range.len() > COMPARE_BYTES_MAX {
            return invalid("a compare-and-write of more than 256 KiB".to_owned());
        }
        let (blocks, blocks_max) = (range.blocks_touched().count, self.operation_blocks_max());
        if blocks > blocks_max {
            return invalid(format!(
                "a compare-and-write of {blocks} blocks: the slots of this pool take {blocks_max} at once; ask for less"
            ));
        }
        Ok(())
    }

    fn check_or(&self, range: ByteRange) -> Result<(), Error> {
        self.check_change(range)?;
        if range.len() > OR_BYTES_MAX {
            return Err(Error::new(ErrorKind::InvalidRequest, "an or-write of more than 16 MiB; split it"));
        }
        Ok(())
    }
}
