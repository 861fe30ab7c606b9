//! What an export is and can do, as the handshake tells it and the transmission phase holds clients to it.

use super::constants::{BASE_ALLOCATION, PAYLOAD_BYTES_MAX};

/// Transmission flags: NBD proto.md, "Transmission flags".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransmissionFlags(u16);

impl TransmissionFlags {
    /// No ability but to be read. Bit 0 says that the field is valid and is always set.
    pub const NONE: Self = Self(1 << 0);
    /// Writes are refused.
    pub const READ_ONLY: Self = Self(1 << 1);
    /// Flush is understood.
    pub const SEND_FLUSH: Self = Self(1 << 2);
    /// FUA is understood.
    pub const SEND_FUA: Self = Self(1 << 3);
    /// Seeks are slow.
    pub const ROTATIONAL: Self = Self(1 << 4);
    /// Trim is understood.
    pub const SEND_TRIM: Self = Self(1 << 5);
    /// Write-zeroes is understood.
    pub const SEND_WRITE_ZEROES: Self = Self(1 << 6);
    /// A read can be answered in one piece. Told only to clients that can be answered in several.
    pub const SEND_DF: Self = Self(1 << 7);
    /// A flush on one connection covers the writes answered on all.
    pub const CAN_MULTI_CONN: Self = Self(1 << 8);
    /// Cache is understood.
    pub const SEND_CACHE: Self = Self(1 << 10);
    /// Write-zeroes can be asked to be fast or to fail. Means nothing without [`Self::SEND_WRITE_ZEROES`].
    pub const SEND_FAST_ZERO: Self = Self(1 << 11);

    /// Every ability that this implementation has, for an export that is written.
    pub const WRITABLE: Self = Self::NONE
        .with(Self::SEND_FLUSH)
        .with(Self::SEND_FUA)
        .with(Self::SEND_TRIM)
        .with(Self::SEND_WRITE_ZEROES)
        .with(Self::SEND_DF)
        .with(Self::CAN_MULTI_CONN)
        .with(Self::SEND_CACHE)
        .with(Self::SEND_FAST_ZERO);

    /// The abilities of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These abilities without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self((self.0 & !other.0) | Self::NONE.0)
    }

    /// Whether every ability of `other` is among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The field on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u16 {
        self.0
    }

    /// The abilities in a field from the wire, unknown ones included.
    #[must_use]
    pub const fn from_wire(bits: u16) -> Self {
        Self(bits | Self::NONE.0)
    }
}

/// Limits on offsets and lengths: NBD proto.md, "Size constraints".
///
/// `min_bytes <= preferred_bytes <= payload_bytes_max`; the first two are powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockSizes {
    /// Offsets and lengths are multiples of it; at most 65,536.
    pub min_bytes: u32,
    /// Multiples of it are served best; at least 512.
    pub preferred_bytes: u32,
    /// The longest payload of a request or read, at most [`PAYLOAD_BYTES_MAX`].
    pub payload_bytes_max: u32,
}

impl Default for BlockSizes {
    /// What a client that does not ask may take for granted.
    fn default() -> Self {
        Self { min_bytes: 1, preferred_bytes: 4096, payload_bytes_max: PAYLOAD_BYTES_MAX }
    }
}

/// When a write-zeroes is faster than writing zeros, so that one which insists on it may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FastZero {
    /// Never; each one that insists fails.
    Never,
    /// When it may leave a hole.
    WithHole,
    /// Always.
    Always,
}

/// An export, as the driver describes it to the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its name, at most 4096 bytes.
    pub name: String,
    /// For people; may be empty. At most 4096 bytes.
    pub description: String,
    /// Its size.
    pub size_bytes: u64,
    /// What it can do. The handshake withholds from a client the abilities that need what it has not negotiated.
    pub flags: TransmissionFlags,
    /// Limits on offsets and lengths.
    pub block_sizes: BlockSizes,
    /// When write-zeroes is fast.
    pub fast_zero: FastZero,
    /// Names of its metadata contexts; a context's id is its place here.
    pub contexts: Vec<String>,
}

impl Export {
    /// Describes an export that can do everything and knows `base:allocation`.
    #[must_use]
    pub fn writable(name: impl Into<String>, size_bytes: u64) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            size_bytes,
            flags: TransmissionFlags::WRITABLE,
            block_sizes: BlockSizes::default(),
            fast_zero: FastZero::WithHole,
            contexts: vec![BASE_ALLOCATION.to_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_the_bits_of_the_protocol() {
        assert_eq!(TransmissionFlags::WRITABLE.to_wire(), 0b1101_1110_1101);
        let no_df = TransmissionFlags::WRITABLE.without(TransmissionFlags::SEND_DF);
        assert!(!no_df.contains(TransmissionFlags::SEND_DF));
        assert!(no_df.contains(TransmissionFlags::SEND_TRIM));
        assert_eq!(no_df.without(TransmissionFlags::NONE).to_wire() & 1, 1);
    }
}
