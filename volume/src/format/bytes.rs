//! Bounds-checked reading and writing of little-endian fields.

use super::FormatError;

/// Takes fields off the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(FormatError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(FormatError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        self.take::<1>().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, FormatError> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        self.take().map(u64::from_le_bytes)
    }

    /// Checks the magic number and the version that every structure begins with: magic 8, version 2. Returns the version.
    pub(super) fn expect(&mut self, magic: [u8; 8]) -> Result<u16, FormatError> {
        self.expect_since(magic, super::FORMAT_VERSION_OLDEST)
    }

    /// The same of a structure that there is since version `first`.
    pub(super) fn expect_since(&mut self, magic: [u8; 8], first: u16) -> Result<u16, FormatError> {
        if self.take::<8>()? != magic {
            return Err(FormatError::Magic);
        }
        let version = self.u16()?;
        if (first..=super::FORMAT_VERSION).contains(&version) {
            Ok(version)
        } else {
            Err(FormatError::Version(version))
        }
    }
}

/// Puts fields one after the other into a slice that is known to be long enough.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(super) const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn put(&mut self, field: &[u8]) {
        let end = self.at + field.len();
        self.bytes.get_mut(self.at..end).expect("the caller sized the slice for its fields").copy_from_slice(field);
        self.at = end;
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.put(&value.to_le_bytes());
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    pub(super) fn start(&mut self, magic: [u8; 8]) {
        self.put(&magic);
        self.u16(super::FORMAT_VERSION);
    }

    /// Fills up to `end` with zeros.
    pub(super) fn pad_to(&mut self, end: usize) {
        if let Some(gap) = self.bytes.get_mut(self.at..end) {
            gap.fill(0);
            self.at = end;
        }
    }
}

/// Puts the CRC of all bytes but the last four into the last four.
pub(super) fn seal_block(block: &mut [u8]) {
    if let Some((body, tail)) = block.split_last_chunk_mut::<4>() {
        *tail = super::checksum::crc32c(body).to_le_bytes();
    }
}

/// Checks what [`seal_block`] put.
pub(super) fn check_block(block: &[u8]) -> Result<(), FormatError> {
    let (body, tail) = block.split_last_chunk::<4>().ok_or(FormatError::Short)?;
    expect_crc(super::checksum::crc32c(body), u32::from_le_bytes(*tail))
}

/// Compares checksums. Under fuzzing all match, so that the fields behind them are reached.
pub(super) const fn expect_crc(computed: u32, stored: u32) -> Result<(), FormatError> {
    if cfg!(fuzzing) || computed == stored { Ok(()) } else { Err(FormatError::Checksum) }
}
