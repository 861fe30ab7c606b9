//! How PDUs follow one another on a connection: header segments, digests, padding.
//!
//! ```text
//! BHS 48 | AHS 0..1020 | header digest 0 or 4 | data segment | padding to 4 | data digest 0 or 4, only behind data
//! ```
//!
//! Knows no opcode but what lengths say. Spec: RFC 7143 11.1, 11.2, 13.1 (CRC32C, stored least significant byte first).

use super::constants::{BHS_BYTES, DATA_SEGMENT_BYTES_MAX, DIGEST_BYTES};
use crate::wire::{take, take_bytes};
use crc_fast::{CrcAlgorithm, Digest};

/// Which digests a connection's PDUs carry. None during login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Framing {
    /// Behind the header segments.
    pub header_digest: bool,
    /// Behind the data segment, when there is one.
    pub data_digest: bool,
}

/// The header segments of a PDU, checked against their digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The basic header segment.
    pub bhs: [u8; BHS_BYTES],
    /// The additional header segments, most often none; at most 1020 bytes.
    pub ahs: Vec<u8>,
    /// Length of the data segment without padding.
    pub data_bytes: u32,
}

/// What ends a connection, since nothing tells any more where the next PDU starts, or whether to believe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The header digest does not fit the header.
    HeaderDigest,
    /// The data segment is longer than was declared to be taken.
    DataTooLong {
        /// Its length.
        bytes: u32,
    },
}

/// Takes the header segments of one PDU, and their digest, off the front of `input`; `Ok(None)` takes nothing and means
/// that more bytes are needed.
///
/// [`Head::data_field_bytes`] of data segment, padding and digest follow.
///
/// # Errors
/// [`FrameError`] ends the connection.
pub fn decode_header(input: &mut &[u8], framing: Framing, data_bytes_max: u32) -> Result<Option<Head>, FrameError> {
    let mut rest = *input;
    let Some(bhs) = take::<BHS_BYTES>(&mut rest) else {
        return Ok(None);
    };
    let [_, _, _, _, ahs_words, length @ ..] = bhs;
    let Some(ahs) = take_bytes(&mut rest, usize::from(ahs_words) * 4) else {
        return Ok(None);
    };
    if framing.header_digest {
        let Some(told) = take::<DIGEST_BYTES>(&mut rest) else {
            return Ok(None);
        };
        if told != digest(&[&bhs, ahs]) {
            return Err(FrameError::HeaderDigest);
        }
    }
    let [high, middle, low, ..] = length;
    let data_bytes = u32::from_be_bytes([0, high, middle, low]);
    // Only now: a flipped bit in the length is a digest error first.
    if data_bytes > data_bytes_max {
        return Err(FrameError::DataTooLong { bytes: data_bytes });
    }
    *input = rest;
    Ok(Some(Head { bhs, ahs: ahs.to_vec(), data_bytes }))
}

impl Head {
    /// The opcode, without the immediate bit.
    #[must_use]
    pub const fn opcode(&self) -> u8 {
        let [first, ..] = self.bhs;
        first & 0x3f
    }

    /// The initiator task tag.
    #[must_use]
    pub const fn itt(&self) -> u32 {
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d, ..] = self.bhs;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Bytes that follow the header: data segment, padding and data digest.
    #[must_use]
    pub fn data_field_bytes(&self, framing: Framing) -> usize {
        // 24 bits fit wherever this runs.
        let data_bytes = usize::try_from(self.data_bytes).unwrap_or(usize::MAX);
        let digest_bytes = if framing.data_digest && data_bytes > 0 { DIGEST_BYTES } else { 0 };
        padded(data_bytes).saturating_add(digest_bytes)
    }
}

/// `len` with the padding that makes it a multiple of four.
#[must_use]
pub const fn padded(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// A digest over bytes that come in pieces. Padding counts as it was sent.
#[derive(Debug, Clone)]
pub struct RunningDigest(Digest);

impl RunningDigest {
    /// Begins a digest.
    #[must_use]
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest as it goes over the wire.
    #[must_use]
    pub fn finish(&self) -> [u8; DIGEST_BYTES] {
        let [a, b, c, d, ..] = self.0.finalize().to_le_bytes();
        [a, b, c, d]
    }
}

impl Default for RunningDigest {
    fn default() -> Self {
        Self::new()
    }
}

/// The digest of `parts`, one behind the other, as it goes over the wire.
#[must_use]
pub fn digest(parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
    let mut running = RunningDigest::new();
    for part in parts {
        running.update(part);
    }
    running.finish()
}

/// Appends a header and its digest.
pub fn encode_header(framing: Framing, bhs: &[u8; BHS_BYTES], out: &mut Vec<u8>) {
    out.extend_from_slice(bhs);
    if framing.header_digest {
        out.extend_from_slice(&digest(&[bhs]));
    }
}

/// Appends a whole PDU: the header with the data's length put in, and the data.
///
/// # Panics
/// When the data is longer than any data segment can be.
pub fn encode_pdu(framing: Framing, mut bhs: [u8; BHS_BYTES], data: &[u8], out: &mut Vec<u8>) {
    let data_bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
    assert!(data_bytes <= DATA_SEGMENT_BYTES_MAX, "a data segment of {data_bytes} bytes");
    let [_, length @ ..] = data_bytes.to_be_bytes();
    for (place, byte) in bhs.iter_mut().skip(5).zip(length) {
        *place = byte;
    }
    encode_header(framing, &bhs, out);
    if data.is_empty() {
        return;
    }
    let padding = [0; 3].into_iter().take(padded(data.len()) - data.len());
    let start = out.len();
    out.extend_from_slice(data);
    out.extend(padding);
    if framing.data_digest {
        let digest = digest(&[out.get(start..).unwrap_or_default()]);
        out.extend_from_slice(&digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Framing = Framing { header_digest: true, data_digest: true };

    /// RFC 7143 appendix A.4 (CRC examples).
    #[test]
    fn digests_are_those_of_the_specification() {
        assert_eq!(digest(&[&[0; 32]]), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(digest(&[&[0xff; 16], &[0xff; 16]]), [0x43, 0xab, 0xa8, 0x62]);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(digest(&[&rising]), [0x4e, 0x79, 0xdd, 0x46]);
        let read = [
            0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0, 0, 0, 0, 0x14, 0, 0, 0,
            0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(digest(&[&read]), [0x56, 0x3a, 0x96, 0xd9]);
    }

    #[test]
    fn what_was_encoded_is_decoded_whatever_the_framing() {
        for (header_digest, data_digest) in [(false, false), (true, false), (false, true), (true, true)] {
            let framing = Framing { header_digest, data_digest };
            for len in 0..9 {
                let mut out = Vec::new();
                let data: Vec<u8> = (1..=len).collect();
                encode_pdu(framing, [0; BHS_BYTES], &data, &mut out);
                let mut input = out.as_slice();
                let head = decode_header(&mut input, framing, 8).unwrap().unwrap();
                assert_eq!(head.data_bytes, u32::from(len));
                assert_eq!(head.data_field_bytes(framing), input.len());
                assert!(input.starts_with(&data));
                if data_digest && len > 0 {
                    let (field, told) = input.split_last_chunk().unwrap();
                    assert_eq!(digest(&[field]), *told);
                }
            }
        }
    }

    #[test]
    fn a_header_that_is_not_whole_is_left_alone() {
        let mut bhs = [0; BHS_BYTES];
        bhs[4] = 2;
        let ahs = [7; 8];
        let whole = [&bhs[..], &ahs, &digest(&[&bhs, &ahs])].concat();
        for len in 0..whole.len() {
            let mut input = &whole[..len];
            assert_eq!(decode_header(&mut input, BOTH, 0), Ok(None));
            assert_eq!(input.len(), len);
        }
        let mut input = whole.as_slice();
        let head = decode_header(&mut input, BOTH, 0).unwrap().unwrap();
        assert_eq!((head.ahs, input.len()), (ahs.to_vec(), 0));
    }

    #[test]
    fn a_flipped_bit_in_the_header_is_a_digest_error_before_it_is_anything_else() {
        let mut out = Vec::new();
        encode_pdu(BOTH, [0; BHS_BYTES], &[], &mut out);
        for at in (0..out.len()).filter(|at| *at != 4) {
            let mut flipped = out.clone();
            flipped[at] ^= 0x10;
            assert_eq!(decode_header(&mut flipped.as_slice(), BOTH, 0), Err(FrameError::HeaderDigest), "byte {at}");
        }
    }

    #[test]
    fn data_longer_than_declared_is_refused() {
        let mut bhs = [0; BHS_BYTES];
        bhs[6] = 2;
        let error = decode_header(&mut &bhs[..], Framing::default(), 511);
        assert_eq!(error, Err(FrameError::DataTooLong { bytes: 512 }));
        assert!(decode_header(&mut &bhs[..], Framing::default(), 512).unwrap().is_some());
    }

    #[test]
    fn lengths_are_padded_to_words() {
        assert_eq!([0, 1, 3, 4, 5].map(padded), [0, 4, 4, 4, 8]);
        assert_eq!(padded(usize::MAX), usize::MAX - 3);
    }
}
