//! The catalogue's blocks in the system volume: block 0 tells the next volume id, block N is the record of volume N.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `ALJCAT\0\0` |
//! | 8 | 4 | bytes of the text, little-endian |
//! | 12 | 4 | CRC-32C of the text, little-endian |
//! | 16 | | JSON text, then zeros |
//!
//! A block of zeros is no record. Spec: `docs/format.md`, "The system volume".

use super::{Entry, Image};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use units::BLOCK_LEN;
use volume::buffer::Buffer;

const MAGIC: [u8; 8] = *b"ALJCAT\0\0";
const HEADER_BYTES: usize = 16;

/// The version of the catalogue that this code writes, and the only one it reads.
pub(super) const CATALOGUE_FORMAT: u32 = 1;

/// Block 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// [`CATALOGUE_FORMAT`].
    pub(super) format: u32,
    /// The id of the next volume; above every id given out.
    pub(super) next_id: u64,
}

/// The record of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its id, which is also the block's number.
    pub(super) id: u64,
    /// Its name.
    pub(super) name: String,
    /// Its size when it was made; later sizes are told by its log.
    pub(super) size_bytes: u64,
    /// When it was made, milliseconds since 1970.
    pub(super) created_ms: u64,
    /// Whether it is still there.
    pub(super) state: RecordState,
    /// What makes it an image, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<Image>,
}

impl Record {
    /// The record of what is known of a volume.
    pub(super) fn of(entry: &Entry, state: RecordState) -> Self {
        Self {
            id: entry.volume.0,
            name: entry.name.clone(),
            size_bytes: entry.size_bytes,
            created_ms: entry.created_ms,
            state,
            image: entry.image.clone(),
        }
    }
}

/// How far a volume's life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RecordState {
    /// It is there.
    Live,
    /// It is being deleted: its name is free, its slots may be.
    Deleting,
}

/// Why a block is no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RecordError {
    Magic,
    Length,
    Checksum,
    Text(String),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("wrong magic number"),
            Self::Length => f.write_str("impossible length"),
            Self::Checksum => f.write_str("checksum mismatch"),
            Self::Text(reason) => write!(f, "cannot be read: {reason}"),
        }
    }
}

/// Encodes one block.
///
/// # Panics
/// When the text is longer than a block, which names of bounded length rule out.
pub(super) fn encode(record: &impl Serialize) -> Buffer {
    let text = serde_json::to_vec(record).expect("a record has only texts and numbers");
    let len = u32::try_from(text.len()).expect("a record is short");
    let mut block = Buffer::zeroed(BLOCK_LEN);
    let fields = [&MAGIC[..], &len.to_le_bytes(), &crc_fast::crc32_iscsi(&text).to_le_bytes(), &text];
    let bytes = fields.concat();
    block.as_mut_slice().get_mut(..bytes.len()).expect("a record fits in a block").copy_from_slice(&bytes);
    block
}

/// Decodes one block; `None` when it holds only zeros.
pub(super) fn decode<T: DeserializeOwned>(block: &[u8]) -> Result<Option<T>, RecordError> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let (header, rest) = block.split_at_checked(HEADER_BYTES).ok_or(RecordError::Length)?;
    let (magic, numbers) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(RecordError::Magic);
    }
    let (len, crc) = numbers.split_at(4);
    let number = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).map_err(|_| RecordError::Length);
    let len = usize::try_from(number(len)?).map_err(|_| RecordError::Length)?;
    let text = rest.get(..len).ok_or(RecordError::Length)?;
    if crc_fast::crc32_iscsi(text) != number(crc)? {
        return Err(RecordError::Checksum);
    }
    serde_json::from_slice(text).map(Some).map_err(|error| RecordError::Text(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::IMAGE_SOURCE_BYTES_MAX;
    use super::*;

    fn record() -> Record {
        let state = RecordState::Deleting;
        Record { id: 7, name: "x".repeat(128), size_bytes: 1 << 63, created_ms: u64::MAX, state, image: None }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let block = encode(&record());
        assert_eq!(block.len(), BLOCK_LEN);
        assert_eq!(decode(block.as_slice()), Ok(Some(record())));
        assert_eq!(decode::<Record>(&[0; BLOCK_LEN]), Ok(None));
    }

    /// The longest record that there can be, of characters that take the most room in its text.
    #[test]
    fn the_record_of_an_image_fits() {
        let text = "\\".repeat(IMAGE_SOURCE_BYTES_MAX);
        let image =
            Image { is_ready: false, source: text.clone(), source_state: "9".repeat(100), copied_bytes: 1 << 62 };
        let record = Record { image: Some(image), ..record() };
        assert_eq!(decode(encode(&record).as_slice()), Ok(Some(record)));
    }

    /// P2. No wrong byte makes another record.
    #[test]
    fn a_damaged_record_is_refused() {
        let block = encode(&record());
        for (at, error) in [(0, RecordError::Magic), (9, RecordError::Length), (20, RecordError::Checksum)] {
            let mut bad = block.as_slice().to_vec();
            bad[at] ^= 0x40;
            assert_eq!(decode::<Record>(&bad), Err(error), "{at}");
        }
        assert_eq!(decode::<Record>(&block.as_slice()[..12]), Err(RecordError::Length));
        assert!(matches!(decode::<Head>(block.as_slice()), Err(RecordError::Text(_))));
    }
}
