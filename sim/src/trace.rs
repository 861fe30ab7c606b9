//! What happened in a world, as one number, and as text when it is asked for.

use std::fmt;

/// Most lines that are kept.
const LINES_MAX: usize = 4000;

/// The trace of a run: equal for equal seeds.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// Makes an empty trace, that keeps its last lines when `is_told`.
    #[must_use]
    pub const fn new(is_told: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: if is_told { Some(Vec::new()) } else { None } }
    }

    /// Adds numbers that tell what happened.
    pub fn note(&mut self, numbers: &[u64]) {
        for byte in numbers.iter().flat_map(|number| number.to_le_bytes()) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Adds a line, when lines are kept.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            if lines.len() >= 2 * LINES_MAX {
                lines.drain(..LINES_MAX);
            }
            lines.push(line());
        }
    }

    /// The number of all that happened.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

/// Something that no promise allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding(pub String);

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
