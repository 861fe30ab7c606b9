//! Error numbers of replies: NBD proto.md, "Error values". The numbers are the protocol's, not the host's.

use std::fmt;

/// Why a request failed, as the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Errno {
    /// Not permitted: a write to a read-only export.
    Perm = 1,
    /// The disk failed.
    Io = 5,
    /// No memory; never sent on purpose.
    NoMem = 12,
    /// The request breaks a rule.
    Inval = 22,
    /// No space left, or a write beyond the end.
    NoSpc = 28,
    /// Too long to be answered in one piece.
    Overflow = 75,
    /// Not to be had fast: only for a write-zeroes that asks for speed.
    NotSup = 95,
    /// The server is shutting down.
    Shutdown = 108,
}

impl Errno {
    /// Every value.
    pub const ALL: [Self; 8] =
        [Self::Perm, Self::Io, Self::NoMem, Self::Inval, Self::NoSpc, Self::Overflow, Self::NotSup, Self::Shutdown];

    /// The number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self as u32
    }

    /// The error with that number on the wire, if there is one.
    #[must_use]
    pub fn from_wire(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|errno| errno.to_wire() == number)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Perm => "operation not permitted",
            Self::Io => "input/output error",
            Self::NoMem => "cannot allocate memory",
            Self::Inval => "invalid argument",
            Self::NoSpc => "no space left on device",
            Self::Overflow => "value too large",
            Self::NotSup => "operation not supported",
            Self::Shutdown => "server is shutting down",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_protocol() {
        let numbers = Errno::ALL.map(Errno::to_wire);
        assert_eq!(numbers, [1, 5, 12, 22, 28, 75, 95, 108]);
        assert!(numbers.iter().all(|number| Errno::from_wire(*number).map(Errno::to_wire) == Some(*number)));
        assert_eq!(Errno::from_wire(2), None);
    }
}
