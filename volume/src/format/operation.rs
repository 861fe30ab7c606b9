//! One operation of the log as its 32-byte descriptor.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 1 | kind: 1 write, 2 trim, 3 write zeroes, 4 resize, 5 snapshot, 6 time mark (5 and 6 since version 2), 7 copy, |
//! | | | 8 lent (7 and 8 since version 5) |
//! | 1 | 1 | zero |
//! | 2 | 2 | of a copy, the block of its source's slot where the first block is; else zero |
//! | 4 | 4 | zero |
//! | 8 | 8 | first block; of a resize, 0; of a snapshot, the generation that it ends; of a time mark, the meter's time in |
//! | | | milliseconds (since version 4, before that it tells none) |
//! | 16 | 8 | number of blocks; of a resize, the new size in bytes; of a snapshot, its id; of a time mark, 1 where it tells the |
//! | | | meter's time, else 0 |
//! | 24 | 8 | of a snapshot or time mark, milliseconds since 1970; of a copy, the segment that its source is in; else zero |
//!
//! A copy takes as many blocks of its segment's slot as a write, and nothing is written to them: what is there is in its
//! source. The check values are those of its own blocks. What is lent is in parcels alone: blocks that no map names any more,
//! where they were written, and that are the source of a copy. A replay passes it over.

use super::FormatError;
use super::bytes::{Reader, Writer};
use crate::map::Location;
use units::{ADDRESS_SPACE_BYTES, BLOCK_BYTES, BlockIndex, BlockRange, MeterTime, SegmentId, SnapshotId};

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR_BYTES: usize = 32;

/// Most blocks that one write operation carries: 1 MiB.
pub(super) const WRITE_BLOCKS_MAX: u64 = 256;

/// Blocks of the largest slot.
const SLOT_BLOCKS_MAX: u64 = 1 << 16;

/// Generations from here on are none: 2^62 snapshots of a volume are never reached.
const GENERATION_END: u64 = 1 << 62;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Gives the blocks of `range` content, which is in the payload.
    Write,
    /// Gives the blocks of `range` the content that neighbouring blocks from `source` on have. No payload: it stays there.
    Copy {
        /// Where the first block is; of a slot, never of another copy.
        source: Location,
    },
    /// Says nothing of the blocks of `range`, for which its payload was written once. In parcels only.
    Lent,
    /// Forgets the blocks of `range`.
    Trim,
    /// Makes the blocks of `range` zeros.
    WriteZeroes,
    /// Makes the volume this many bytes long.
    Resize(u64),
    /// Ends a generation: the volume as it is here is what the snapshot shows.
    Snapshot {
        /// The generation that it ends; what comes next is of the one after.
        generation: u64,
        /// Whose state it is.
        id: SnapshotId,
        /// Milliseconds since 1970: a label, never compared.
        wall_ms: u64,
    },
    /// Tells the time, and changes nothing. Within a log the times do not go back.
    TimeMark {
        /// Milliseconds since 1970.
        wall_ms: u64,
        /// The meter's time: what follows counts from here. Older logs do not tell it.
        meter: Option<MeterTime>,
    },
}

/// One operation. Every one takes one LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operation {
    /// What it does.
    pub kind: OperationKind,
    /// To which blocks; empty but for a write, trim or write zeroes.
    pub range: BlockRange,
}

impl Operation {
    /// An operation that is about the volume as a whole.
    #[must_use]
    pub const fn without_range(kind: OperationKind) -> Self {
        Self { kind, range: BlockRange::new(BlockIndex(0), 0) }
    }

    /// Blocks that it takes of its segment's slot, each with a check value.
    #[must_use]
    pub const fn payload_blocks(&self) -> u32 {
        match self.kind {
            OperationKind::Write | OperationKind::Copy { .. } | OperationKind::Lent => self.range.count as u32,
            OperationKind::Trim
            | OperationKind::WriteZeroes
            | OperationKind::Resize(_)
            | OperationKind::Snapshot { .. }
            | OperationKind::TimeMark { .. } => 0,
        }
    }

    /// Whether it gives blocks of the volume content, which is where [`Self::payload_blocks`] are.
    #[must_use]
    pub const fn gives_content(&self) -> bool {
        matches!(self.kind, OperationKind::Write | OperationKind::Copy { .. })
    }

    /// Where the content of its blocks is, when that is not where they are.
    #[must_use]
    pub const fn source(&self) -> Option<Location> {
        match self.kind {
            OperationKind::Copy { source } => Some(source),
            OperationKind::Write
            | OperationKind::Lent
            | OperationKind::Trim
            | OperationKind::WriteZeroes
            | OperationKind::Resize(_)
            | OperationKind::Snapshot { .. }
            | OperationKind::TimeMark { .. } => None,
        }
    }

    /// Whether it may take away what older segments hold: a trim, zeroes, or a resize, beyond which nothing lies.
    #[must_use]
    pub const fn makes_holes(&self) -> bool {
        matches!(self.kind, OperationKind::Trim | OperationKind::WriteZeroes | OperationKind::Resize(_))
    }

    pub(super) fn encode(&self, w: &mut Writer<'_>) {
        let (first, count) = (self.range.first.0, self.range.count);
        let (kind, first, count, wall_ms) = match self.kind {
            OperationKind::Write => (1, first, count, 0),
            OperationKind::Copy { source } => (7 | u64::from(source.block) << 16, first, count, source.segment.0),
            OperationKind::Lent => (8, first, count, 0),
            OperationKind::Trim => (2, first, count, 0),
            OperationKind::WriteZeroes => (3, first, count, 0),
            OperationKind::Resize(size_bytes) => (4, 0, size_bytes, 0),
            OperationKind::Snapshot { generation, id, wall_ms } => (5, generation, id.0, wall_ms),
            OperationKind::TimeMark { wall_ms, meter } => {
                (6, meter.unwrap_or_default().0, u64::from(meter.is_some()), wall_ms)
            }
        };
        w.u64(kind);
        w.u64(first);
        w.u64(count);
        w.u64(wall_ms);
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, FormatError> {
        let kind = r.u8()?;
        r.u8()?;
        let source_block = r.u16()?;
        r.bytes(4)?;
        let first = r.u64()?;
        let count = r.u64()?;
        let wall_ms = r.u64()?;
        let kind = match kind {
            1 if count <= WRITE_BLOCKS_MAX => OperationKind::Write,
            7 if count <= WRITE_BLOCKS_MAX => {
                OperationKind::Copy { source: source_of((wall_ms, source_block), count)? }
            }
            8 if count <= WRITE_BLOCKS_MAX => OperationKind::Lent,
            2 => OperationKind::Trim,
            3 => OperationKind::WriteZeroes,
            4 if count > ADDRESS_SPACE_BYTES => return Err(FormatError::Field("size")),
            4 => return Ok(Self::without_range(OperationKind::Resize(count))),
            5 if first >= GENERATION_END => return Err(FormatError::Field("generation")),
            5 => {
                let id = SnapshotId(count);
                return Ok(Self::without_range(OperationKind::Snapshot { generation: first, id, wall_ms }));
            }
            6 if count > 1 || (count == 0 && first > 0) => return Err(FormatError::Field("time mark")),
            6 => {
                let meter = (count == 1).then_some(MeterTime(first));
                return Ok(Self::without_range(OperationKind::TimeMark { wall_ms, meter }));
            }
            _ => return Err(FormatError::Field("operation")),
        };
        let blocks_max = ADDRESS_SPACE_BYTES / BLOCK_BYTES;
        if count == 0 || first.checked_add(count).is_none_or(|end| end > blocks_max) {
            return Err(FormatError::Field("range"));
        }
        Ok(Self { kind, range: BlockRange::new(BlockIndex(first), count) })
    }
}

/// Where a copy of so many blocks has them from: block 0 of a slot is its header.
const fn source_of((segment, block): (u64, u16), count: u64) -> Result<Location, FormatError> {
    let is_segment = segment > 0 && segment <= SegmentId::MAX.0;
    if !is_segment || block == 0 || block as u64 + count > SLOT_BLOCKS_MAX {
        return Err(FormatError::Field("source"));
    }
    Ok(Location { segment: SegmentId(segment), block })
}

#[cfg(test)]
mod tests {
    use super::super::vectors;
    use super::*;
    use proptest::prelude::*;

    const SECOND: &str = include_str!("../../vectors/operations-v2.hex");
    const FOURTH: &str = include_str!("../../vectors/operations-v4.hex");
    const FIFTH: &str = include_str!("../../vectors/operations-v5.hex");

    fn encoded(operation: Operation) -> [u8; DESCRIPTOR_BYTES] {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        operation.encode(&mut Writer::new(&mut bytes));
        bytes
    }

    fn mark(meter: Option<MeterTime>) -> Operation {
        Operation::without_range(OperationKind::TimeMark { wall_ms: 0x01a2_b3c5, meter })
    }

    fn copies() -> [Operation; 2] {
        let range = BlockRange::new(BlockIndex(0x0102), 0x80);
        let source = Location { segment: SegmentId(0x0a0b_0c0d), block: 0x0e0f };
        [Operation { kind: OperationKind::Copy { source }, range }, Operation { kind: OperationKind::Lent, range }]
    }

    fn samples() -> [Operation; 6] {
        let range = BlockRange::new(BlockIndex(0x0102), 0x80);
        [
            Operation { kind: OperationKind::Write, range },
            Operation { kind: OperationKind::Trim, range },
            Operation { kind: OperationKind::WriteZeroes, range },
            Operation::without_range(OperationKind::Resize(1 << 40)),
            Operation::without_range(OperationKind::Snapshot {
                generation: 7,
                id: SnapshotId(19),
                wall_ms: 0x01a2_b3c4,
            }),
            mark(None),
        ]
    }

    #[test]
    fn every_kind_is_as_it_was_released() {
        let [second, fourth, fifth] = [SECOND, FOURTH, FIFTH].map(vectors::block);
        let marks = [mark(Some(MeterTime(0x0d1e_2f30))), mark(Some(MeterTime(0)))];
        let second = samples().into_iter().zip(second.chunks(DESCRIPTOR_BYTES));
        let fourth = marks.into_iter().zip(fourth.chunks(DESCRIPTOR_BYTES));
        let fifth = copies().into_iter().zip(fifth.chunks(DESCRIPTOR_BYTES));
        for (operation, bytes) in second.chain(fourth).chain(fifth) {
            assert_eq!(encoded(operation), bytes, "{operation:?}");
            assert_eq!(Operation::decode(&mut Reader::new(bytes)), Ok(operation));
        }
    }

    #[test]
    fn a_kind_a_range_a_size_or_a_generation_that_cannot_be_is_refused() {
        let refusal = |at: usize, bytes: &[u8], sample: usize| {
            let mut descriptor = encoded(samples()[sample]);
            descriptor[at..at + bytes.len()].copy_from_slice(bytes);
            Operation::decode(&mut Reader::new(&descriptor))
        };
        assert_eq!(refusal(0, &[0], 0), Err(FormatError::Field("operation")));
        assert_eq!(refusal(0, &[9], 4), Err(FormatError::Field("operation")));
        let source = |at: usize, bytes: &[u8]| {
            let mut descriptor = encoded(copies()[0]);
            descriptor[at..at + bytes.len()].copy_from_slice(bytes);
            Operation::decode(&mut Reader::new(&descriptor))
        };
        assert_eq!(source(2, &[0, 0]), Err(FormatError::Field("source")));
        assert_eq!(source(2, &[0x81, 0xff]), Err(FormatError::Field("source")));
        assert_eq!(source(24, &[0; 8]), Err(FormatError::Field("source")));
        assert_eq!(source(24, &[0xff; 8]), Err(FormatError::Field("source")));
        assert_eq!(refusal(16, &257_u64.to_le_bytes(), 0), Err(FormatError::Field("operation")));
        assert_eq!(refusal(16, &0_u64.to_le_bytes(), 1), Err(FormatError::Field("range")));
        assert_eq!(refusal(8, &u64::MAX.to_le_bytes(), 2), Err(FormatError::Field("range")));
        assert_eq!(refusal(16, &u64::MAX.to_le_bytes(), 3), Err(FormatError::Field("size")));
        assert_eq!(refusal(8, &(1_u64 << 62).to_le_bytes(), 4), Err(FormatError::Field("generation")));
        assert_eq!(refusal(8, &[1], 5), Err(FormatError::Field("time mark")));
        assert_eq!(refusal(16, &[2], 5), Err(FormatError::Field("time mark")));
        assert_eq!(Operation::decode(&mut Reader::new(&encoded(samples()[5])[1..])), Err(FormatError::Short));
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused_or_say_the_same_again(mut bytes: [u8; DESCRIPTOR_BYTES], kind in 0..10_u8) {
            bytes[0] = kind;
            if let Ok(operation) = Operation::decode(&mut Reader::new(&bytes)) {
                prop_assert_eq!(Operation::decode(&mut Reader::new(&encoded(operation))), Ok(operation));
            }
        }
    }
}
