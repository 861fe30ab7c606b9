//! Logical unit numbers: eight bytes on the wire, a small number inside.
//! Spec: SAM-5 4.7 "Logical unit number". Only single-level LUNs: peripheral device addressing of bus 0, and flat space.

/// A logical unit's number, as initiators show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lun(pub u16);

impl Lun {
    /// The greatest number that can be written.
    pub const MAX: Self = Self(0x3fff);

    /// Reads a LUN; `None` if it can name no logical unit of ours: another bus, a second level, a well-known logical unit.
    #[must_use]
    pub const fn decode(wire: [u8; 8]) -> Option<Self> {
        let [high, low, 0, 0, 0, 0, 0, 0] = wire else { return None };
        let number = u16::from_be_bytes([high & 0x3f, low]);
        match high >> 6 {
            0 if high == 0 => Some(Self(number)),
            1 => Some(Self(number)),
            _ => None,
        }
    }

    /// Writes the LUN the shorter way there is: by peripheral device below 256, else flat. Bits above [`Lun::MAX`] are lost.
    #[must_use]
    pub const fn encode(self) -> [u8; 8] {
        let [high, low] = self.0.to_be_bytes();
        let method = if high == 0 { 0x00 } else { 0x40 };
        [method | (high & 0x3f), low, 0, 0, 0, 0, 0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_reads_back() {
        for number in 0..=Lun::MAX.0 {
            assert_eq!(Lun::decode(Lun(number).encode()), Some(Lun(number)));
        }
        assert_eq!(Lun(255).encode(), [0, 255, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Lun(256).encode(), [0x41, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn flat_addressing_of_a_small_number_is_the_same_unit() {
        assert_eq!(Lun::decode([0x40, 7, 0, 0, 0, 0, 0, 0]), Some(Lun(7)));
    }

    #[test]
    fn what_is_not_single_level_names_nothing() {
        for wire in [[1, 0], [0x3f, 0], [0x80, 0], [0xc1, 1]] {
            assert_eq!(Lun::decode([wire[0], wire[1], 0, 0, 0, 0, 0, 0]), None);
        }
        assert_eq!(Lun::decode([0, 1, 0, 0, 0, 0, 0, 1]), None);
    }
}
