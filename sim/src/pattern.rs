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
    /// What the write of this stamp put into another sector.
    Copied(Stamp, u64),
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

impl Value {
    /// The value that a copy of a sector that has it makes of another one.
    #[must_use]
    pub const fn moved(self, from: u64, to: u64) -> Self {
        let (stamp, origin) = match self {
            Self::Written(stamp) => (stamp, from),
            Self::Copied(stamp, origin) => (stamp, origin),
            Self::Zero | Self::Foreign => return self,
        };
        if origin == to { Self::Written(stamp) } else { Self::Copied(stamp, origin) }
    }

    /// Fills `out`, a sector that has it.
    pub fn put(self, sector: u64, out: &mut [u8]) {
        match self {
            Self::Written(stamp) => fill(stamp, sector, out),
            Self::Copied(stamp, origin) => fill(stamp, origin, out),
            Self::Zero | Self::Foreign => out.fill(0),
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
    let (stamp, origin) = (Stamp(word_at(0)), word_at(1));
    if words(stamp, origin).enumerate().any(|(at, word)| word_at(at) != word) {
        return Value::Foreign;
    }
    Value::Written(stamp).moved(origin, sector)
}

fn words(stamp: Stamp, sector: u64) -> impl Iterator<Item = u64> {
    let salt = mix(stamp.0.wrapping_mul(0x0001_0000_01b3) ^ sector);
    let rest = (2..SECTOR_LEN as u64 / 8).map(move |at| salt.wrapping_add(at << 40 | at));
    [stamp.0, sector].into_iter().chain(rest)
}
