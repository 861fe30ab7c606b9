//! One operation of the log as its 32-byte descriptor.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 1 | kind: 1 write, 2 trim, 3 write zeroes, 4 resize, 5 snapshot, 6 time mark (5 and 6 since version 2) |
//! | 1 | 7 | zero |
//! | 8 | 8 | first block; of a resize, 0; of a snapshot, the generation that it ends; of a time mark, the meter's time in |
//! | | | milliseconds (since version 4, before that it tells none) |
//! | 16 | 8 | number of blocks; of a resize, the new size in bytes; of a snapshot, its id; of a time mark, 1 where it tells the |
//! | | | meter's time, else 0 |
//! | 24 | 8 | of a snapshot or time mark, milliseconds since 1970; else zero |

use super::FormatError;
use super::bytes::{Reader, Writer};
use units::{ADDRESS_SPACE_BYTES, BLOCK_BYTES, BlockIndex, BlockRange, MeterTime, SnapshotId};

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR_BYTES: usize = 32;

/// Most blocks that one write operation carries: 1 MiB.
pub(super) const WRITE_BLOCKS_MAX: u64 = 256;

/// Generations from here on are none: 2^62 snapshots of a volume are never reached.
const GENERATION_END: u64 = 1 << 62;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Gives the blocks of `range` content, which is in the payload.
    Write,
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

    /// Blocks of payload it carries.
    #[must_use]
    pub const fn payload_blocks(&self) -> u32 {
        match self.kind {
            OperationKind::Write => self.range.count as u32,
            OperationKind::Trim
            | OperationKind::WriteZeroes
            | OperationKind::Resize(_)
            | OperationKind::Snapshot { .. }
            | OperationKind::TimeMark { .. } => 0,
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
        r.bytes(7)?;
        let first = r.u64()?;
        let count = r.u64()?;
        let wall_ms = r.u64()?;
        let kind = match kind {
            1 if count <= WRITE_BLOCKS_MAX => OperationKind::Write,
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

#[cfg(test)]
mod tests {
    use super::super::vectors;
    use super::*;
    use proptest::prelude::*;

    const SECOND: &str = include_str!("../../vectors/operations-v2.hex");
    const FOURTH: &str = include_str!("../../vectors/operations-v4.hex");

    fn encoded(operation: Operation) -> [u8; DESCRIPTOR_BYTES] {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        operation.encode(&mut Writer::new(&mut bytes));
        bytes
    }

    fn mark(meter: Option<MeterTime>) -> Operation {
        Operation::without_range(OperationKind::TimeMark { wall_ms: 0x01a2_b3c5, meter })
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
        let (second, fourth) = (vectors::block(SECOND), vectors::block(FOURTH));
        let marks = [mark(Some(MeterTime(0x0d1e_2f30))), mark(Some(MeterTime(0)))];
        let second = samples().into_iter().zip(second.chunks(DESCRIPTOR_BYTES));
        for (operation, bytes) in second.chain(marks.into_iter().zip(fourth.chunks(DESCRIPTOR_BYTES))) {
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
        assert_eq!(refusal(0, &[7], 4), Err(FormatError::Field("operation")));
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
        fn random_bytes_are_refused_or_say_the_same_again(mut bytes: [u8; DESCRIPTOR_BYTES], kind in 0..8_u8) {
            bytes[0] = kind;
            if let Ok(operation) = Operation::decode(&mut Reader::new(&bytes)) {
                prop_assert_eq!(Operation::decode(&mut Reader::new(&encoded(operation))), Ok(operation));
            }
        }
    }
}
