//! CRC-32C, of structures and of data blocks.

use crate::controls::{Safeguard, is_missing};
use units::SegmentId;

/// CRC-32C (Castagnoli, as in RFC 3720 appendix B.4) of `bytes`.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The check value of a data block that is written as block `index` of `segment`.
///
/// The place is folded in, so that a block that was written elsewhere, or is left from an earlier use of the slot, fails
/// the check although it is whole in itself.
#[must_use]
pub fn block_check(segment: SegmentId, index: u32, block: &[u8]) -> u32 {
    if is_missing(Safeguard::DataCheck) {
        return 0;
    }
    crc32c(block) ^ place_mix(segment, index)
}

/// The check values of the same blocks from block `to` of a segment on, by those that they have from block `from` on: nothing is
/// read.
pub fn moved_checks(
    checks: &[u32],
    from: (SegmentId, u32),
    to: (SegmentId, u32),
) -> impl Iterator<Item = u32> + use<'_> {
    checks.iter().zip((from.1..).zip(to.1..)).map(move |(check, (from_block, to_block))| {
        if is_missing(Safeguard::DataCheck) {
            return 0;
        }
        check ^ place_mix(from.0, from_block) ^ place_mix(to.0, to_block)
    })
}

/// A fixed scramble of the place (the finalizer of SplitMix64), of which the upper half is used.
const fn place_mix(segment: SegmentId, index: u32) -> u32 {
    let mut z = (segment.0 << 24).wrapping_add(index as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_the_value_of_the_specification() {
        // RFC 3720 appendix B.4: 32 bytes of zeros, CRC aa 36 91 8a.
        assert_eq!(crc32c(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    }

    /// P2.
    #[test]
    fn a_block_read_from_another_place_fails_its_check() {
        let block = [7_u8; 4096];
        let right = block_check(SegmentId(5), 9, &block);
        assert_ne!(right, block_check(SegmentId(5), 10, &block));
        assert_ne!(right, block_check(SegmentId(6), 9, &block));
        assert_eq!(right, block_check(SegmentId(5), 9, &block));
        let next = block_check(SegmentId(5), 10, &block);
        let moved: Vec<u32> = moved_checks(&[right, next], (SegmentId(5), 9), (SegmentId(6), 70_000)).collect();
        assert_eq!(moved, [70_000, 70_001].map(|index| block_check(SegmentId(6), index, &block)));
    }
}
