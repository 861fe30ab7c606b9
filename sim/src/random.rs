//! The one source of chance of a world: SplitMix64, seeded.

/// Random numbers that follow from a seed alone.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Makes the sequence of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `end`; 0 when `end` is.
    pub const fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { ((self.bits() as u128 * end as u128) >> 64) as u64 }
    }

    /// A number of `first..=last`.
    pub const fn within(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// Whether something that happens `per_mille` times in a thousand does.
    pub const fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < per_mille as u64
    }

    /// One of `choices`.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// A sequence of its own, so that what one part draws does not move what another does.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self::new(self.bits())
    }
}

/// A fixed scramble of 64 bits.
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let z = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
