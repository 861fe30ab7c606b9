//! The footer at the end of a sealed segment: an index of everything in it, so that nothing has to be scanned.
//!
//! It fills the last blocks of the slot: the index, then one trailer block.
//!
//! Index: for each operation its 32-byte descriptor and the block of the slot where its payload begins (4 bytes, 0 without
//! payload); then the check data of all payload blocks in order; zeros to the end of the block.
//!
//! | trailer offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `ALJFOOT\0` |
//! | 8 | 2 | format version |
//! | 10 | 2 | bytes of check data per block |
//! | 12 | 4 | blocks of the slot that batches fill |
//! | 16 | 16 | pool id |
//! | 32 | 8 | segment id |
//! | 40 | 8 | volume id |
//! | 48 | 8 | epoch of the last batch |
//! | 56 | 8 | first LSN |
//! | 64 | 8 | last LSN |
//! | 72 | 8 | bytes of the volume after the last operation |
//! | 80 | 4 | number of operations |
//! | 84 | 4 | number of payload blocks |
//! | 88 | 4 | chain before the first batch |
//! | 92 | 4 | CRC of the last batch's header |
//! | 96 | 4 | blocks of the index |
//! | 100 | 4 | CRC-32C of the index |
//! | 4092 | 4 | CRC-32C of the bytes before |

use super::bytes::{Reader, Writer, check_block, expect_crc, seal_block};
use super::checksum::crc32c;
use super::operation::DESCRIPTOR_BYTES;
use super::{CHECK_BYTES, FormatError, Operation};
use units::{BLOCK_LEN, Epoch, Lsn, PoolId, SegmentId, VolumeId};

const MAGIC: [u8; 8] = *b"ALJFOOT\0";
const ENTRY_BYTES: usize = DESCRIPTOR_BYTES + 4;

/// A sealed segment's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The pool's id.
    pub pool: PoolId,
    /// Of this segment.
    pub segment: SegmentId,
    /// Whose.
    pub volume: VolumeId,
    /// Of the last batch.
    pub epoch: Epoch,
    /// The first operation.
    pub first_lsn: Lsn,
    /// The volume's size after the last operation.
    pub size_bytes: u64,
    /// Blocks of the slot, from its start, that its header and batches fill.
    pub filled_blocks: u32,
    /// CRC of the header of the batch before the first one.
    pub chain_before: u32,
    /// CRC of the header of the last batch.
    pub chain_after: u32,
    /// Every operation in order, with the block of the slot where its payload begins. May be empty.
    pub entries: Vec<(Operation, u32)>,
    /// Check data of every payload block in order.
    pub checks: Vec<u32>,
}

impl Footer {
    /// The last operation; the one before `first_lsn` when there is none.
    #[must_use]
    pub const fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + self.entries.len() as u64 - 1)
    }
}

/// Blocks of the footer of a segment with so many operations and payload blocks.
#[must_use]
pub const fn footer_blocks(operations: usize, payload_blocks: usize) -> u32 {
    (operations * ENTRY_BYTES + payload_blocks * CHECK_BYTES).div_ceil(BLOCK_LEN) as u32 + 1
}

/// Encodes the footer; the bytes end where the slot ends.
#[must_use]
pub fn encode_footer(footer: &Footer) -> Vec<u8> {
    let blocks = footer_blocks(footer.entries.len(), footer.checks.len()) as usize;
    let mut out = vec![0; blocks * BLOCK_LEN];
    let (index, trailer) = out.split_at_mut((blocks - 1) * BLOCK_LEN);
    let mut w = Writer::new(index);
    for (operation, payload_block) in &footer.entries {
        operation.encode(&mut w);
        w.u32(*payload_block);
    }
    for check in &footer.checks {
        w.u32(*check);
    }
    encode_trailer(footer, crc32c(index), (blocks - 1) as u32, trailer);
    out
}

fn encode_trailer(footer: &Footer, index_crc: u32, index_blocks: u32, trailer: &mut [u8]) {
    let mut w = Writer::new(trailer);
    w.start(MAGIC);
    w.u16(CHECK_BYTES as u16);
    w.u32(footer.filled_blocks);
    w.put(&footer.pool.0);
    w.u64(footer.segment.0);
    w.u64(footer.volume.0);
    w.u64(footer.epoch.0);
    w.u64(footer.first_lsn.0);
    w.u64(footer.last_lsn().0);
    w.u64(footer.size_bytes);
    w.u32(footer.entries.len() as u32);
    w.u32(footer.checks.len() as u32);
    w.u32(footer.chain_before);
    w.u32(footer.chain_after);
    w.u32(index_blocks);
    w.u32(index_crc);
    seal_block(trailer);
}

/// What a trailer says: a footer whose index is still to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FooterTrailer {
    footer: Footer,
    operation_count: usize,
    payload_blocks: usize,
    /// Blocks of index just before the trailer.
    pub index_blocks: u32,
    index_crc: u32,
}

/// Decodes the last block of a slot.
///
/// # Errors
/// [`FormatError`] when it is no trailer of this version.
pub fn decode_footer_trailer(block: &[u8]) -> Result<FooterTrailer, FormatError> {
    let mut r = Reader::new(block);
    r.expect(MAGIC)?;
    check_block(block)?;
    if usize::from(r.u16()?) != CHECK_BYTES {
        return Err(FormatError::Field("check data width"));
    }
    let filled_blocks = r.u32()?;
    let pool = PoolId(r.take()?);
    let segment = SegmentId(r.u64()?);
    let volume = VolumeId(r.u64()?);
    let epoch = Epoch(r.u64()?);
    let first_lsn = Lsn(r.u64()?);
    let last_lsn = Lsn(r.u64()?);
    let size_bytes = r.u64()?;
    let operation_count = r.u32()? as usize;
    let payload_blocks = r.u32()? as usize;
    let chain_before = r.u32()?;
    let chain_after = r.u32()?;
    let index_blocks = r.u32()?;
    let index_crc = r.u32()?;
    let index_bytes =
        operation_count.checked_mul(ENTRY_BYTES).and_then(|n| n.checked_add(payload_blocks * CHECK_BYTES));
    if index_bytes.is_none_or(|n| n.div_ceil(BLOCK_LEN) != index_blocks as usize) {
        return Err(FormatError::Field("index blocks"));
    }
    // The LSN after the last operation must be one too.
    let next_lsn = first_lsn.0.checked_add(operation_count as u64);
    if next_lsn.is_none() || next_lsn != last_lsn.0.checked_add(1) || first_lsn == Lsn::ZERO {
        return Err(FormatError::Field("last LSN"));
    }
    let footer = Footer {
        pool,
        segment,
        volume,
        epoch,
        first_lsn,
        size_bytes,
        filled_blocks,
        chain_before,
        chain_after,
        entries: Vec::new(),
        checks: Vec::new(),
    };
    Ok(FooterTrailer { footer, operation_count, payload_blocks, index_blocks, index_crc })
}

impl FooterTrailer {
    /// Whose slot this is the end of: pool and segment.
    #[must_use]
    pub const fn identity(&self) -> (PoolId, SegmentId) {
        (self.footer.pool, self.footer.segment)
    }

    /// Completes the footer with its index, the [`Self::index_blocks`] before the trailer.
    ///
    /// # Errors
    /// [`FormatError`] when the index is not what the trailer's CRC was made of.
    pub fn with_index(mut self, index: &[u8]) -> Result<Footer, FormatError> {
        if index.len() != self.index_blocks as usize * BLOCK_LEN {
            return Err(FormatError::Short);
        }
        expect_crc(crc32c(index), self.index_crc)?;
        let mut r = Reader::new(index);
        self.footer.entries = (0..self.operation_count)
            .map(|_| Ok((Operation::decode(&mut r)?, r.u32()?)))
            .collect::<Result<Vec<_>, FormatError>>()?;
        self.footer.checks = (0..self.payload_blocks).map(|_| r.u32()).collect::<Result<Vec<_>, _>>()?;
        let payload: u64 = self.footer.entries.iter().map(|(op, _)| u64::from(op.payload_blocks())).sum();
        if payload != self.payload_blocks as u64 {
            return Err(FormatError::Field("payload blocks"));
        }
        Ok(self.footer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::OperationKind;
    use super::*;
    use units::{BlockIndex, BlockRange};

    fn sample(operations: u32) -> Footer {
        let write = |n: u32| {
            let range = BlockRange::new(BlockIndex(u64::from(n)), 1);
            (Operation { kind: OperationKind::Write, range }, 2 * n + 2)
        };
        Footer {
            pool: PoolId([1; 16]),
            segment: SegmentId(3),
            volume: VolumeId(2),
            epoch: Epoch(0),
            first_lsn: Lsn(10),
            size_bytes: 1 << 30,
            filled_blocks: 2 * operations + 1,
            chain_before: 5,
            chain_after: 6,
            entries: (0..operations).map(write).collect(),
            checks: (0..operations).collect(),
        }
    }

    #[test]
    fn decodes_what_it_encodes() {
        for operations in [0, 1, 500] {
            let footer = sample(operations);
            let bytes = encode_footer(&footer);
            assert_eq!(bytes.len(), footer_blocks(operations as usize, operations as usize) as usize * BLOCK_LEN);
            let (index, trailer) = bytes.split_at(bytes.len() - BLOCK_LEN);
            let decoded = decode_footer_trailer(trailer).unwrap();
            assert_eq!(decoded.index_blocks as usize * BLOCK_LEN, index.len());
            assert_eq!(decoded.with_index(index), Ok(footer));
        }
    }

    #[test]
    fn an_index_that_rotted_is_refused() {
        let bytes = encode_footer(&sample(500));
        let (index, trailer) = bytes.split_at(bytes.len() - BLOCK_LEN);
        let mut index = index.to_vec();
        index[100] ^= 1;
        assert_eq!(decode_footer_trailer(trailer).unwrap().with_index(&index), Err(FormatError::Checksum));
    }

    #[test]
    fn an_lsn_after_which_there_is_none_is_refused() {
        let bytes = encode_footer(&sample(2));
        let mut trailer = bytes[bytes.len() - BLOCK_LEN..].to_vec();
        let lsns = |first: u64, last: u64| [first.to_le_bytes(), last.to_le_bytes()].concat();
        let at = trailer.windows(16).position(|window| window == lsns(10, 11)).unwrap();
        trailer[at..at + 16].copy_from_slice(&lsns(u64::MAX - 1, u64::MAX));
        seal_block(&mut trailer);
        assert_eq!(decode_footer_trailer(&trailer), Err(FormatError::Field("last LSN")));
    }
}
