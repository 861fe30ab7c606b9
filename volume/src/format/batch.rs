//! A batch: what one group commit appends. A header of whole blocks, then the payload of its writes in order.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `ALJBATCH` |
//! | 8 | 2 | format version |
//! | 10 | 2 | bytes of check data per block |
//! | 12 | 4 | block of the slot where this header begins |
//! | 16 | 8 | volume id |
//! | 24 | 8 | segment id |
//! | 32 | 8 | epoch |
//! | 40 | 8 | LSN of the first operation |
//! | 48 | 8 | durable LSN: everything up to here was on stable storage when the batch was made |
//! | 56 | 8 | milliseconds since 1970, advisory |
//! | 64 | 4 | number of operations |
//! | 68 | 4 | blocks of payload |
//! | 72 | 4 | chain: CRC of the header of the volume's batch before |
//! | 76 | 4 | CRC-32C of the header up to the end of its check data, this field taken as 0 |
//! | 80 | 32 each | operation descriptors |
//! | | 4 each | check data of the payload blocks in order |
//! | | | zeros to the next block, then the payload |

use super::bytes::{Reader, Writer, expect_crc};
use super::checksum::crc32c;
use super::operation::DESCRIPTOR_BYTES;
use super::{CHECK_BYTES, FormatError, Operation};
use crate::controls::{Safeguard, is_missing};
use units::{BLOCK_LEN, Epoch, Lsn, SegmentId, VolumeId};

const MAGIC: [u8; 8] = *b"ALJBATCH";
const FIXED_BYTES: usize = 80;
const CRC_AT: usize = 76;

/// Most operations of one batch.
pub const BATCH_OPERATIONS_MAX: usize = 2048;

/// Most payload blocks that a header may announce: a whole slot of the largest size.
const PAYLOAD_BLOCKS_MAX: usize = 1 << 16;

/// A batch's header as it is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchHeader {
    /// The block of the slot where the header begins.
    pub block: u32,
    /// Whose log this is.
    pub volume: VolumeId,
    /// In which segment.
    pub segment: SegmentId,
    /// The right under which it was written.
    pub epoch: Epoch,
    /// The first operation; the others follow it.
    pub first_lsn: Lsn,
    /// Everything up to here was durable when the batch was made. `durable_lsn < first_lsn`.
    pub durable_lsn: Lsn,
    /// Advisory: when, milliseconds since 1970.
    pub wall_ms: u64,
    /// CRC of the header before, which ties the log together.
    pub chain: u32,
    /// The operations in order; not empty.
    pub operations: Vec<Operation>,
    /// One per payload block.
    pub checks: Vec<u32>,
}

impl BatchHeader {
    /// The last operation.
    #[must_use]
    pub const fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + self.operations.len() as u64 - 1)
    }

    /// Blocks of header, before the payload.
    #[must_use]
    pub const fn header_blocks(&self) -> u32 {
        batch_header_blocks(self.operations.len(), self.checks.len())
    }

    /// Blocks of header and payload.
    #[must_use]
    pub const fn total_blocks(&self) -> u32 {
        self.header_blocks() + self.checks.len() as u32
    }
}

/// Blocks of the header of a batch with so many operations and payload blocks.
#[must_use]
pub const fn batch_header_blocks(operations: usize, payload_blocks: usize) -> u32 {
    header_bytes(operations, payload_blocks, CHECK_BYTES).div_ceil(BLOCK_LEN) as u32
}

const fn header_bytes(operations: usize, payload_blocks: usize, check_bytes: usize) -> usize {
    FIXED_BYTES + operations * DESCRIPTOR_BYTES + payload_blocks * check_bytes
}

/// Encodes a header into `out`, which has its [`BatchHeader::header_blocks`]; returns the CRC, the chain of the next batch.
///
/// # Panics
/// When `out` has another length.
pub fn encode_batch(header: &BatchHeader, out: &mut [u8]) -> u32 {
    assert_eq!(out.len(), header.header_blocks() as usize * BLOCK_LEN, "a header fills its blocks");
    let mut w = Writer::new(out);
    w.start(MAGIC);
    w.u16(CHECK_BYTES as u16);
    w.u32(header.block);
    w.u64(header.volume.0);
    w.u64(header.segment.0);
    w.u64(header.epoch.0);
    w.u64(header.first_lsn.0);
    w.u64(header.durable_lsn.0);
    w.u64(header.wall_ms);
    w.u32(header.operations.len() as u32);
    w.u32(header.checks.len() as u32);
    w.u32(header.chain);
    w.u32(0);
    for operation in &header.operations {
        operation.encode(&mut w);
    }
    for check in &header.checks {
        w.u32(*check);
    }
    let used = header_bytes(header.operations.len(), header.checks.len(), CHECK_BYTES);
    w.pad_to(header.header_blocks() as usize * BLOCK_LEN);
    let crc = out.get(..used).map_or(0, crc32c);
    if let Some(field) = out.get_mut(CRC_AT..CRC_AT + 4) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
    chain_of(crc)
}

/// What the next batch's chain is to be.
fn chain_of(crc: u32) -> u32 {
    if is_missing(Safeguard::Chain) { 0 } else { crc }
}

/// Decodes the header that begins `bytes`; returns it with its CRC.
///
/// # Errors
/// [`FormatError`] when no whole header of this version begins here; `Short` when more bytes could make one.
pub fn decode_batch(bytes: &[u8]) -> Result<(BatchHeader, u32), FormatError> {
    let mut r = Reader::new(bytes);
    r.expect(MAGIC)?;
    let check_bytes = usize::from(r.u16()?);
    if check_bytes != CHECK_BYTES {
        return Err(FormatError::Field("check data width"));
    }
    let block = r.u32()?;
    let volume = VolumeId(r.u64()?);
    let segment = SegmentId(r.u64()?);
    let epoch = Epoch(r.u64()?);
    let first_lsn = Lsn(r.u64()?);
    let durable_lsn = Lsn(r.u64()?);
    let wall_ms = r.u64()?;
    let operation_count = r.u32()? as usize;
    let payload_blocks = r.u32()? as usize;
    let chain = r.u32()?;
    let crc = r.u32()?;
    let is_too_late = first_lsn.0.checked_add(BATCH_OPERATIONS_MAX as u64).is_none() || first_lsn == Lsn::ZERO;
    if is_too_late
        || operation_count == 0
        || operation_count > BATCH_OPERATIONS_MAX
        || payload_blocks > PAYLOAD_BLOCKS_MAX
    {
        return Err(FormatError::Field("counts"));
    }
    let used = header_bytes(operation_count, payload_blocks, check_bytes);
    expect_crc(crc_without_field(bytes.get(..used).ok_or(FormatError::Short)?), crc)?;
    let operations = (0..operation_count).map(|_| Operation::decode(&mut r)).collect::<Result<Vec<_>, _>>()?;
    if operations.iter().map(|operation| u64::from(operation.payload_blocks())).sum::<u64>() != payload_blocks as u64 {
        return Err(FormatError::Field("payload blocks"));
    }
    let checks = (0..payload_blocks).map(|_| r.u32()).collect::<Result<Vec<_>, _>>()?;
    let header =
        BatchHeader { block, volume, segment, epoch, first_lsn, durable_lsn, wall_ms, chain, operations, checks };
    Ok((header, chain_of(crc)))
}

/// Whether `block`, which need not be whole, names itself a batch of `segment`.
#[must_use]
pub fn names_batch_of(block: &[u8], segment: SegmentId) -> bool {
    block.starts_with(&MAGIC) && block.get(24..32).is_some_and(|id| id == segment.0.to_le_bytes())
}

fn crc_without_field(header: &[u8]) -> u32 {
    let mut copy = header.to_vec();
    if let Some(field) = copy.get_mut(CRC_AT..CRC_AT + 4) {
        field.fill(0);
    }
    crc32c(&copy)
}

#[cfg(test)]
mod tests {
    use super::super::OperationKind;
    use super::*;
    use units::{BlockIndex, BlockRange};

    fn sample(writes: u64) -> BatchHeader {
        let mut operations: Vec<_> = (0..writes)
            .map(|n| Operation { kind: OperationKind::Write, range: BlockRange::new(BlockIndex(n * 3), 2) })
            .collect();
        operations.push(Operation { kind: OperationKind::Trim, range: BlockRange::new(BlockIndex(5), 1 << 40) });
        operations.push(Operation { kind: OperationKind::Resize(1 << 50), range: BlockRange::new(BlockIndex(0), 0) });
        BatchHeader {
            block: 17,
            volume: VolumeId(4),
            segment: SegmentId(8),
            epoch: Epoch(1),
            first_lsn: Lsn(100),
            durable_lsn: Lsn(90),
            wall_ms: 1,
            chain: 55,
            operations,
            checks: (0..u32::try_from(writes * 2).unwrap()).collect(),
        }
    }

    fn encoded(header: &BatchHeader) -> (Vec<u8>, u32) {
        let mut out = vec![0xee; header.header_blocks() as usize * BLOCK_LEN];
        let crc = encode_batch(header, &mut out);
        (out, crc)
    }

    #[test]
    fn decodes_what_it_encodes() {
        for writes in [0, 1, 60, 300] {
            let header = sample(writes);
            let (bytes, crc) = encoded(&header);
            assert_eq!(decode_batch(&bytes), Ok((header, crc)));
        }
    }

    #[test]
    fn every_flipped_bit_of_the_used_header_is_seen() {
        let (bytes, _) = encoded(&sample(3));
        for at in 0..header_bytes(5, 6, CHECK_BYTES) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(decode_batch(&bad).is_err(), "flip at {at}");
        }
    }

    #[test]
    fn a_header_cut_short_asks_for_more() {
        let (bytes, _) = encoded(&sample(300));
        assert_eq!(decode_batch(&bytes[..BLOCK_LEN]), Err(FormatError::Short));
        assert_eq!(decode_batch(&[]), Err(FormatError::Short));
    }
}
