//! What clients write: every sector says which write it belongs to and where, so that a read tells what it found.

use crate::random::mix;
use units::SECTOR_BYTES;

/// [`SECTOR_BYTES`] for indexing memory.
pub const SECTOR_LEN: usize = SECTOR_BYTES as usize;

/// What a sector holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Zeros throughout.
    Zero,
    /// What the write of this stamp put there.
    Written(Stamp),
    /// Bytes that nobody wrote at this place.
    Foreign,
}

/// Names one write of one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub u64);

/// Fills `out`, whole sectors from `first_sector` of the volume on, as the write of `stamp` does.
pub fn fill(stamp: Stamp, first_sector: u64, out: &mut [u8]) {
    for (sector, bytes) in (first_sector..).zip(out.chunks_exact_mut(SECTOR_LEN)) {
        for (word, place) in words(stamp, sector).zip(bytes.chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// Tells what `bytes`, read as sector `sector`, are.
#[must_use]
pub fn read(sector: u64, bytes: &[u8]) -> Value {
    let word_at = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().unwrap());
    if bytes.iter().all(|byte| *byte == 0) {
        return Value::Zero;
    }
    let stamp = Stamp(word_at(0));
    let is_whole = words(stamp, sector).enumerate().all(|(at, word)| word_at(at) == word);
    if is_whole { Value::Written(stamp) } else { Value::Foreign }
}

fn words(stamp: Stamp, sector: u64) -> impl Iterator<Item = u64> {
    let salt = mix(stamp.0.wrapping_mul(0x0001_0000_01b3) ^ sector);
    (0..SECTOR_LEN as u64 / 8).map(move |at| if at == 0 { stamp.0 } else { salt.wrapping_add(at << 40 | at) })
}
