//! How the ledger lies in the blocks of its volume: batches of lines, each in whole blocks of its own, none ever written again.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `ALJLEDG\0` |
//! | 8 | 2 | format version: 1 |
//! | 10 | 2 | bytes of text |
//! | 12 | 2 | where in the text the first line that begins in it begins; 65,535 when none does |
//! | 14 | 1 | 1 when a line or part of one is kept for ever, 0 when all are of books of the meter |
//! | 15 | 1 | zero |
//! | 16 | 8 | which block of the volume this is |
//! | 24 | 8 | batch: the first is 1, the next 2 |
//! | 32 | 4 | which block of the batch this is |
//! | 36 | 4 | blocks of the batch |
//! | 40 | 8 | block where the batch of the newest head before this batch begins; 0 when there is none |
//! | 48 | 4 | chain: the CRC of the block before; 0 in block 1 |
//! | 52 | 12 | zero |
//! | 64 | | text: lines, each with its line feed; then zeros |
//! | 4092 | 4 | CRC-32C of the bytes before |
//!
//! Little-endian. Block 0 is apart, and the only one that is written again. A block of zeros is not there.
//! Spec: `docs/metering.md`, "Blocks".

use std::fmt;
use units::BLOCK_LEN;

/// Most blocks of a batch: 64 MiB.
pub const BATCH_BLOCKS_MAX: u32 = 16_384;

/// Bytes of text that a block has room for.
pub(super) const TEXT_BYTES_MAX: usize = CRC_AT - HEADER_BYTES;

const MAGIC: [u8; 8] = *b"ALJLEDG\0";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 64;
const ZEROS: [u8; BLOCK_LEN] = [0; BLOCK_LEN];
const CRC_AT: usize = BLOCK_LEN - 4;
const NO_LINE: u16 = u16::MAX;

/// Where a batch is, and what it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Its first block.
    pub(super) first: u64,
    /// Its number.
    pub(super) batch: u64,
    /// Block where the newest head before it begins, or 0.
    pub(super) head: u64,
    /// CRC of the block before it.
    pub(super) chain: u32,
}

/// A block that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block<'a> {
    pub(super) batch: u64,
    pub(super) index: u32,
    pub(super) blocks: u32,
    pub(super) head: u64,
    pub(super) chain: u32,
    pub(super) crc: u32,
    pub(super) is_kept: bool,
    /// What of the text comes before the first line that begins in it.
    pub(super) begun: &'a [u8],
    /// The rest of the text.
    pub(super) lines: &'a [u8],
}

/// A line of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// Whether it is kept for ever.
    pub(super) is_kept: bool,
}

/// Lays `lines` out as a batch; gives its bytes and the CRC of its last block. `None` when they are too many for a batch.
pub(super) fn encode_batch(place: Place, lines: &[Line]) -> Option<(Vec<u8>, u32)> {
    let text_bytes: usize = lines.iter().map(|line| line.text.len() + 1).sum();
    let blocks =
        u32::try_from(text_bytes.div_ceil(TEXT_BYTES_MAX)).ok().filter(|blocks| *blocks <= BATCH_BLOCKS_MAX)?;
    let mut text = Vec::with_capacity(text_bytes);
    let mut kept = Vec::new();
    let mut starts = Vec::new();
    for line in lines {
        let start = text.len();
        text.extend_from_slice(line.text.as_bytes());
        text.push(b'\n');
        starts.push(start);
        if line.is_kept {
            kept.push(start / TEXT_BYTES_MAX..(text.len() - 1) / TEXT_BYTES_MAX + 1);
        }
    }
    let mut bytes = vec![0; text_bytes.div_ceil(TEXT_BYTES_MAX) * BLOCK_LEN];
    let (mut chain, mut starts, mut kept) = (place.chain, starts.into_iter().peekable(), kept.into_iter().peekable());
    for ((index, text), block) in (0..).zip(text.chunks(TEXT_BYTES_MAX)).zip(bytes.chunks_exact_mut(BLOCK_LEN)) {
        let number = usize::try_from(index).ok()?;
        let end = (number + 1) * TEXT_BYTES_MAX;
        let first_line = starts.peek().filter(|start| **start < end).map(|start| start % TEXT_BYTES_MAX);
        while starts.next_if(|start| *start < end).is_some() {}
        while kept.next_if(|range| range.end <= number).is_some() {}
        let is_kept = kept.peek().is_some_and(|range| range.contains(&number));
        let first_line = first_line.and_then(|at| u16::try_from(at).ok()).unwrap_or(NO_LINE);
        let header = header_bytes(Place { chain, ..place }, (index, blocks), (first_line, is_kept), text.len());
        chain = fill(block, &header?, text)?;
    }
    Some((bytes, chain))
}

fn header_bytes(
    place: Place,
    (index, blocks): (u32, u32),
    (first_line, is_kept): (u16, bool),
    text_bytes: usize,
) -> Option<Vec<u8>> {
    let fields: [&[u8]; 12] = [
        &MAGIC,
        &VERSION.to_le_bytes(),
        &u16::try_from(text_bytes).ok()?.to_le_bytes(),
        &first_line.to_le_bytes(),
        &[u8::from(is_kept), 0],
        &(place.first + u64::from(index)).to_le_bytes(),
        &place.batch.to_le_bytes(),
        &index.to_le_bytes(),
        &blocks.to_le_bytes(),
        &place.head.to_le_bytes(),
        &place.chain.to_le_bytes(),
        &[0; 12],
    ];
    Some(fields.concat())
}

/// Fills a block of zeros; gives its CRC.
fn fill(block: &mut [u8], header: &[u8], text: &[u8]) -> Option<u32> {
    block.get_mut(..header.len())?.copy_from_slice(header);
    block.get_mut(header.len()..header.len() + text.len())?.copy_from_slice(text);
    let crc = crc_fast::crc32_iscsi(block.get(..CRC_AT)?);
    block.get_mut(CRC_AT..)?.copy_from_slice(&crc.to_le_bytes());
    Some(crc)
}

/// Reads block `number` of the volume; `None` when it is not there.
pub(super) fn decode_block(number: u64, bytes: &[u8]) -> Result<Option<Block<'_>>, BlockError> {
    if bytes.len() != BLOCK_LEN {
        return Err(BlockError::Length);
    }
    if bytes == ZEROS {
        return Ok(None);
    }
    let mut fields = Fields(bytes);
    if fields.take()? != MAGIC {
        return Err(BlockError::Magic);
    }
    let crc = Fields(bytes.get(CRC_AT..).unwrap_or_default()).u32()?;
    let computed = crc_fast::crc32_iscsi(bytes.get(..CRC_AT).unwrap_or_default());
    // Under fuzzing all match, so that the fields behind it are reached.
    if !cfg!(fuzzing) && computed != crc {
        return Err(BlockError::Checksum);
    }
    let version = fields.u16()?;
    if version != VERSION {
        return Err(BlockError::Version(version));
    }
    let (text_bytes, first_line) = (usize::from(fields.u16()?), fields.u16()?);
    let [is_kept, zero] = fields.take()?;
    let own_number = fields.u64()?;
    let (batch, index, blocks, head) = (fields.u64()?, fields.u32()?, fields.u32()?, fields.u64()?);
    let chain = fields.u32()?;
    let zeros: [u8; 12] = fields.take()?;
    let text = bytes.get(HEADER_BYTES..HEADER_BYTES + text_bytes).filter(|_| text_bytes <= TEXT_BYTES_MAX);
    let text = text.filter(|text| !text.is_empty()).ok_or(BlockError::Field)?;
    let begun_bytes = if first_line == NO_LINE { text.len() } else { usize::from(first_line) };
    let is_sound = is_kept <= 1
        && zero == 0
        && zeros == [0; 12]
        && (first_line == NO_LINE || begun_bytes < text.len())
        && batch < 1 << 63
        && index < blocks
        && blocks <= BATCH_BLOCKS_MAX
        && head < number.max(1);
    if own_number != number || !is_sound {
        return Err(BlockError::Field);
    }
    let (begun, lines) = text.split_at_checked(begun_bytes).ok_or(BlockError::Field)?;
    Ok(Some(Block { batch, index, blocks, head, chain, crc, is_kept: is_kept == 1, begun, lines }))
}

/// Little-endian fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BlockError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(BlockError::Length)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u16(&mut self) -> Result<u16, BlockError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, BlockError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, BlockError> {
        self.take().map(u64::from_le_bytes)
    }
}

/// Whether block `number`, whose bytes these are, has nothing but what was measured and may therefore be trimmed once that is
/// dropped. A block that is not there has nothing. Block 1 stays: where block 0 is gone, it tells that there was a ledger.
///
/// # Errors
/// [`BlockError`] when nobody can tell.
pub fn is_droppable(number: u64, bytes: &[u8]) -> Result<bool, BlockError> {
    Ok(decode_block(number, bytes)?.is_none_or(|block| !block.is_kept && number > 1))
}

/// Puts lines together from blocks in ascending order, of which some may have been dropped.
#[derive(Debug, Default)]
pub struct LineReader {
    /// The beginning of a line, and the block and batch that go on with it.
    partial: Option<(Vec<u8>, u64, u64)>,
}

impl LineReader {
    /// Takes block `number`; gives the lines that end in it, without their line feeds. Blocks below where the ledger goes on only
    /// ([`super::Ledger::end_block`]): what is behind is nobody's.
    ///
    /// # Errors
    /// [`BlockError`] when it is none.
    pub fn block(&mut self, number: u64, bytes: &[u8]) -> Result<Vec<Vec<u8>>, BlockError> {
        let begun = self.partial.take();
        let Some(block) = decode_block(number, bytes)? else { return Ok(Vec::new()) };
        let mut open = begun.filter(|(_, next, batch)| (*next, *batch) == (number, block.batch)).map(|(text, ..)| text);
        if let Some(text) = &mut open {
            text.extend_from_slice(block.begun);
        }
        let mut lines = Vec::new();
        // What ends here without its beginning is left out.
        let ended = open.take_if(|text| text.last() == Some(&b'\n'));
        lines.extend(ended.map(|mut text| {
            text.pop();
            text
        }));
        for piece in block.lines.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(line) => lines.push(line.to_vec()),
                None => open = Some(piece.to_vec()),
            }
        }
        self.partial = open.map(|text| (text, number + 1, block.batch));
        Ok(lines)
    }
}

/// Why bytes are no block of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockError {
    /// Not the length of a block.
    Length,
    /// Something else is here.
    Magic,
    /// Written by a version that this program does not know.
    Version(u16),
    /// The CRC does not match: since a block is written whole or not at all, it has rotted.
    Checksum,
    /// A field has a value that no writer gives it.
    Field,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("not the length of a block"),
            Self::Magic => f.write_str("wrong magic number"),
            Self::Version(found) => write!(f, "ledger format version {found}, this program reads {VERSION}"),
            Self::Checksum => f.write_str("checksum mismatch"),
            Self::Field => f.write_str("a field has an impossible value"),
        }
    }
}

impl std::error::Error for BlockError {}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { first: 7, batch: 3, head: 2, chain: 99 };

    fn line(len: usize, is_kept: bool) -> Line {
        Line { text: "x".repeat(len), is_kept }
    }

    fn blocks_of(bytes: &[u8]) -> Vec<(u64, &[u8])> {
        (PLACE.first..).zip(bytes.chunks(BLOCK_LEN)).collect()
    }

    #[test]
    fn lines_come_back_as_they_were_laid_out() {
        for lens in [&[1][..], &[TEXT_BYTES_MAX - 1, 5], &[TEXT_BYTES_MAX, 5], &[10, 9000, 1, 4000, 0, 12_000]] {
            let lines: Vec<Line> = lens.iter().map(|len| line(*len, false)).collect();
            let (bytes, crc) = encode_batch(PLACE, &lines).unwrap();
            let (mut reader, mut found) = (LineReader::default(), Vec::new());
            for (number, block) in blocks_of(&bytes) {
                found.extend(reader.block(number, block).unwrap());
            }
            assert!(found.iter().map(Vec::as_slice).eq(lines.iter().map(|line| line.text.as_bytes())), "{lens:?}");
            let (number, last) = blocks_of(&bytes).pop().unwrap();
            assert_eq!(decode_block(number, last).unwrap().unwrap().crc, crc);
        }
    }

    /// P7. A block is dropped only when nothing that is kept for ever has a byte in it, and what is kept can be read without it.
    #[test]
    fn what_is_kept_for_ever_is_read_when_the_rest_is_gone() {
        let lines = [line(9000, false), line(6000, true), line(20_000, false), line(3, true), line(9000, false)];
        let (bytes, _) = encode_batch(PLACE, &lines).unwrap();
        let (mut reader, mut found, mut dropped) = (LineReader::default(), Vec::new(), 0);
        for (number, block) in blocks_of(&bytes) {
            if is_droppable(number, block).unwrap() {
                dropped += 1;
            } else {
                found.extend(reader.block(number, block).unwrap());
            }
        }
        assert_eq!(dropped, 8, "of {}", bytes.len() / BLOCK_LEN);
        assert!(found.iter().map(Vec::len).eq([6000, 3]), "{:?}", found.iter().map(Vec::len).collect::<Vec<_>>());
    }

    /// P7. Every single wrong bit of a block is found.
    #[test]
    fn a_wrong_bit_makes_no_block() {
        let (mut bytes, _) = encode_batch(PLACE, &[line(100, true)]).unwrap();
        for at in 0..BLOCK_LEN * 8 {
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(decode_block(7, &bytes).is_err(), "bit {at}");
            bytes[at / 8] ^= 1 << (at % 8);
        }
        assert!(decode_block(7, &bytes).unwrap().is_some());
        assert_eq!(decode_block(8, &bytes), Err(BlockError::Field), "a block in a wrong place");
        assert_eq!(decode_block(7, &[0; BLOCK_LEN]), Ok(None));
        assert_eq!(decode_block(7, &bytes[1..]), Err(BlockError::Length));
    }
}
