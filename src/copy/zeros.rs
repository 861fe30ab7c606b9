//! Blocks that are not written because they hold only zeros.

use std::ops::Range;
use units::BLOCK_LEN;

/// Bytes that are looked at together.
const STEP: usize = 64;

/// The runs of blocks of `data` that hold something, as ranges of bytes in it.
pub(super) fn data_runs(data: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (number, block) in data.chunks(BLOCK_LEN).enumerate() {
        if is_zero(block) {
            continue;
        }
        let from = number * BLOCK_LEN;
        let range = from..from + block.len();
        match runs.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => runs.push(range),
        }
    }
    runs
}

fn is_zero(block: &[u8]) -> bool {
    // One look at many bytes is a few instructions, and data shows itself early.
    block.chunks(STEP).all(|step| step.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of zeros and blocks with one byte of data somewhere in every order, and an end within a block.
    #[test]
    fn what_is_left_out_is_zeros() {
        for pattern in 0_u32..256 {
            let mut data = vec![0; 8 * BLOCK_LEN + 512];
            for block in (0..8).filter(|block| pattern >> block & 1 == 1) {
                data[block * BLOCK_LEN + (pattern as usize * 31 + block * 577) % BLOCK_LEN] = 1;
            }
            data[8 * BLOCK_LEN + 511] = u8::from(pattern.is_multiple_of(3));
            let runs = data_runs(&data);
            let mut copy = vec![0; data.len()];
            for run in &runs {
                copy[run.clone()].copy_from_slice(&data[run.clone()]);
                assert!(run.start.is_multiple_of(BLOCK_LEN));
                assert!(data[run.clone()].chunks(BLOCK_LEN).all(|block| block.iter().any(|byte| *byte != 0)));
            }
            assert!(copy == data, "{pattern:#010b}: {runs:?}");
            assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start), "neighbours are one run: {runs:?}");
        }
    }
}
