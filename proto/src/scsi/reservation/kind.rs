//! The types of persistent reservation, taken apart into what they keep out and whom they let in.
//! Spec: SPC-4 6.15.3.4, "TYPE field".

/// Whom a reservation lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Its one holder.
    Holder,
    /// Whoever is registered; one of them holds it.
    RegistrantsOnly,
    /// Whoever is registered; all of them hold it.
    AllRegistrants,
}

/// A type of persistent reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// Whether reads are kept out too (exclusive access), not only writes (write exclusive).
    pub(super) keeps_reads_out: bool,
    /// Whom it lets in.
    pub(super) reach: Reach,
}

impl Kind {
    /// Reads the TYPE field; obsolete and reserved types are `None`.
    pub(super) const fn from_wire(code: u8) -> Option<Self> {
        let (keeps_reads_out, reach) = match code {
            1 => (false, Reach::Holder),
            3 => (true, Reach::Holder),
            5 => (false, Reach::RegistrantsOnly),
            6 => (true, Reach::RegistrantsOnly),
            7 => (false, Reach::AllRegistrants),
            8 => (true, Reach::AllRegistrants),
            _ => return None,
        };
        Some(Self { keeps_reads_out, reach })
    }

    /// The TYPE field.
    pub(super) const fn to_wire(self) -> u8 {
        match (self.reach, self.keeps_reads_out) {
            (Reach::Holder, false) => 1,
            (Reach::Holder, true) => 3,
            (Reach::RegistrantsOnly, false) => 5,
            (Reach::RegistrantsOnly, true) => 6,
            (Reach::AllRegistrants, false) => 7,
            (Reach::AllRegistrants, true) => 8,
        }
    }
}

/// The TYPE mask of REPORT CAPABILITIES: all six types (SPC-4 6.15.4).
pub(super) const TYPE_MASK: [u8; 2] = [0xea, 0x01];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_names_the_types_that_are_read_and_written() {
        let known: Vec<u8> = (0..=u8::MAX).filter(|&code| Kind::from_wire(code).is_some()).collect();
        assert_eq!(known, [1, 3, 5, 6, 7, 8]);
        for code in known {
            assert_eq!(Kind::from_wire(code).unwrap().to_wire(), code);
        }
        // WR_EX bit 1, EX_AC 3, WR_EX_RO 5, EX_AC_RO 6, WR_EX_AR 7 of the first byte; EX_AC_AR is bit 0 of the second.
        assert_eq!(TYPE_MASK, [1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7, 1]);
    }
}
