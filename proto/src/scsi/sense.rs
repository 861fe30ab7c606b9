//! Sense data and status: what is told when a command does not end well, or when something else has happened.
//! Spec: SPC-4 4.5 "Sense data", SAM-5 5.3 "Status". Only current errors: a deferred one would be a write that was
//! answered before it was made, and there is none.

/// Kind of a condition; says what the initiator can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SenseKey {
    /// Nothing to tell.
    NoSense = 0x0,
    /// Done, with some recovery.
    RecoveredError = 0x1,
    /// The logical unit cannot be reached.
    NotReady = 0x2,
    /// Data cannot be read or written.
    MediumError = 0x3,
    /// The target failed in another way.
    HardwareError = 0x4,
    /// The command or its parameters are wrong.
    IllegalRequest = 0x5,
    /// Something happened to the logical unit since the last command.
    UnitAttention = 0x6,
    /// The logical unit may not be written.
    DataProtect = 0x7,
    /// A third-party copy stopped.
    CopyAborted = 0xa,
    /// The target gave the command up; it can be sent again.
    AbortedCommand = 0xb,
    /// Data are not what they were compared with.
    Miscompare = 0xe,
}

impl SenseKey {
    const fn to_wire(self) -> u8 {
        match self {
            Self::NoSense => 0x0,
            Self::RecoveredError => 0x1,
            Self::NotReady => 0x2,
            Self::MediumError => 0x3,
            Self::HardwareError => 0x4,
            Self::IllegalRequest => 0x5,
            Self::UnitAttention => 0x6,
            Self::DataProtect => 0x7,
            Self::CopyAborted => 0xa,
            Self::AbortedCommand => 0xb,
            Self::Miscompare => 0xe,
        }
    }
}

/// Where in a CDB or a parameter list the wrong field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FieldPointer {
    /// Whether it is in the CDB, else in the parameter list.
    pub in_cdb: bool,
    /// First byte of the field.
    pub byte: u16,
    /// Its leftmost bit, where the field is less than a byte.
    pub bit: Option<u8>,
}

impl FieldPointer {
    /// The three sense-key specific bytes: SKSV, C/D, BPV, bit pointer; field pointer.
    fn encode(self) -> [u8; 3] {
        let [high, low] = self.byte.to_be_bytes();
        let origin = if self.in_cdb { 0xc0 } else { 0x80 };
        let bit = self.bit.map_or(0, |bit| 0x08 | (bit & 0x07));
        [origin | bit, high, low]
    }
}

/// A condition to be told to the initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sense {
    /// Its kind.
    pub key: SenseKey,
    /// Additional sense code.
    pub asc: u8,
    /// Its qualifier.
    pub ascq: u8,
    /// INFORMATION field: an LBA, or the offset of a miscompare.
    pub information: Option<u64>,
    /// The field that is wrong.
    pub field: Option<FieldPointer>,
}

/// Constants of one key: name, additional sense code and qualifier, what it means.
macro_rules! conditions {
    ($key:ident: $($name:ident = $asc:literal, $ascq:literal, $doc:literal;)+) => {
        impl Sense {
            $(
                #[doc = $doc]
                pub const $name: Self = Self::new(SenseKey::$key, $asc, $ascq);
            )+
        }
    };
}

conditions! { NoSense:
    NONE = 0x00, 0x00, "Nothing to tell.";
}

conditions! { NotReady:
    NOT_READY_CAUSE = 0x04, 0x00, "Not ready, cause not reportable.";
}

conditions! { MediumError:
    UNRECOVERED_READ = 0x11, 0x00, "Unrecovered read error.";
    WRITE_ERROR = 0x0c, 0x00, "Write error.";
}

conditions! { HardwareError:
    INTERNAL_FAILURE = 0x44, 0x00, "Internal target failure.";
}

conditions! { IllegalRequest:
    INVALID_FIELD_IN_INFORMATION_UNIT = 0x0e, 0x03, "Invalid field in command information unit.";
    PARAMETER_LIST_LENGTH = 0x1a, 0x00, "Parameter list length error.";
    INVALID_OPCODE = 0x20, 0x00, "Invalid command operation code.";
    LBA_OUT_OF_RANGE = 0x21, 0x00, "Logical block address out of range.";
    INVALID_FIELD_IN_CDB = 0x24, 0x00, "Invalid field in CDB.";
    LUN_NOT_SUPPORTED = 0x25, 0x00, "Logical unit not supported.";
    INVALID_FIELD_IN_PARAMETERS = 0x26, 0x00, "Invalid field in parameter list.";
    INVALID_RELEASE = 0x26, 0x04, "Invalid release of persistent reservation.";
    TOO_MANY_TARGETS = 0x26, 0x06, "Too many target descriptors.";
    TARGET_DESCRIPTOR_TYPE = 0x26, 0x07, "Unsupported target descriptor type code.";
    TOO_MANY_SEGMENTS = 0x26, 0x08, "Too many segment descriptors.";
    SEGMENT_DESCRIPTOR_TYPE = 0x26, 0x09, "Unsupported segment descriptor type code.";
    INLINE_DATA = 0x26, 0x0b, "Inline data length exceeded.";
    SAVING_NOT_SUPPORTED = 0x39, 0x00, "Saving parameters not supported.";
    MEDIUM_REMOVAL_PREVENTED = 0x53, 0x02, "Medium removal prevented.";
    INSUFFICIENT_RESOURCES = 0x55, 0x03, "Insufficient resources.";
    INSUFFICIENT_REGISTRATION_RESOURCES = 0x55, 0x04, "Insufficient registration resources.";
}

conditions! { UnitAttention:
    POWER_ON = 0x29, 0x00, "Power on, reset, or bus device reset occurred.";
    BUS_RESET = 0x29, 0x02, "SCSI bus reset occurred.";
    DEVICE_RESET = 0x29, 0x03, "Bus device reset function occurred.";
    NEXUS_LOSS = 0x29, 0x07, "I_T nexus loss occurred.";
    MODE_CHANGED = 0x2a, 0x01, "Mode parameters changed.";
    RESERVATIONS_PREEMPTED = 0x2a, 0x03, "Reservations preempted.";
    RESERVATIONS_RELEASED = 0x2a, 0x04, "Reservations released.";
    REGISTRATIONS_PREEMPTED = 0x2a, 0x05, "Registrations preempted.";
    CAPACITY_CHANGED = 0x2a, 0x09, "Capacity data has changed.";
    COMMANDS_CLEARED = 0x2f, 0x00, "Commands cleared by another initiator.";
    SOFT_THRESHOLD = 0x38, 0x07, "Thin provisioning soft threshold reached.";
    INQUIRY_CHANGED = 0x3f, 0x03, "Inquiry data has changed.";
    LUNS_CHANGED = 0x3f, 0x0e, "Reported LUNs data has changed.";
}

conditions! { DataProtect:
    WRITE_PROTECTED = 0x27, 0x00, "Write protected.";
    SOFTWARE_WRITE_PROTECTED = 0x27, 0x02, "Logical unit software write protected.";
    SPACE_ALLOCATION_FAILED = 0x27, 0x07, "Space allocation failed write protect.";
}

conditions! { CopyAborted:
    COPY_ABORTED = 0x00, 0x00, "A segment could not be copied; no more is told.";
    COPY_TARGET_UNREACHABLE = 0x08, 0x04, "Unreachable copy target: a segment names a target that is not in the list.";
    COPY_TARGET_NOT_REACHABLE = 0x0d, 0x02, "Copy target device not reachable: the list names a device unknown here.";
}

conditions! { AbortedCommand:
    UNEXPECTED_UNSOLICITED = 0x0c, 0x0c, "Write error: unexpected unsolicited data.";
    NOT_ENOUGH_UNSOLICITED = 0x0c, 0x0d, "Write error: not enough unsolicited data.";
    CRC_ERROR = 0x47, 0x05, "Protocol service CRC error.";
}

conditions! { Miscompare:
    MISCOMPARE = 0x1d, 0x00, "Miscompare during verify operation.";
}

impl Sense {
    /// A condition with neither information nor field.
    #[must_use]
    pub const fn new(key: SenseKey, asc: u8, ascq: u8) -> Self {
        Self { key, asc, ascq, information: None, field: None }
    }

    /// An invalid field in the CDB: the byte it begins in, and its leftmost bit there.
    #[must_use]
    pub const fn invalid_in_cdb(byte: u16, bit: u8) -> Self {
        Self::INVALID_FIELD_IN_CDB.with_field(FieldPointer { in_cdb: true, byte, bit: Some(bit) })
    }

    /// An invalid field in the parameter list that begins with this byte.
    #[must_use]
    pub const fn invalid_in_parameters(byte: u16) -> Self {
        Self::INVALID_FIELD_IN_PARAMETERS.with_field(FieldPointer { in_cdb: false, byte, bit: None })
    }

    /// The same condition with an INFORMATION field.
    #[must_use]
    pub const fn with_information(self, information: u64) -> Self {
        Self { information: Some(information), ..self }
    }

    /// The same condition with the field that is wrong.
    #[must_use]
    pub const fn with_field(self, field: FieldPointer) -> Self {
        Self { field: Some(field), ..self }
    }

    /// Sense data, in descriptor format (72h) or in fixed format (70h), as the control mode page's D_SENSE says.
    #[must_use]
    pub fn encode(&self, is_descriptor: bool) -> Vec<u8> {
        if is_descriptor { self.encode_descriptors() } else { self.encode_fixed() }
    }

    fn encode_fixed(&self) -> Vec<u8> {
        // The field holds 32 bits; what is longer is not told, which is what VALID=0 says.
        let information = self.information.and_then(|information| u32::try_from(information).ok());
        let mut data = vec![if information.is_some() { 0xf0 } else { 0x70 }, 0, self.key.to_wire()];
        data.extend_from_slice(&information.unwrap_or(0).to_be_bytes());
        data.extend_from_slice(&[10, 0, 0, 0, 0, self.asc, self.ascq, 0]);
        data.extend_from_slice(&self.field.map_or([0; 3], FieldPointer::encode));
        data
    }

    fn encode_descriptors(&self) -> Vec<u8> {
        let mut data = vec![0x72, self.key.to_wire(), self.asc, self.ascq, 0, 0, 0, 0];
        let mut additional_bytes = 0;
        if let Some(information) = self.information {
            data.extend_from_slice(&[0x00, 0x0a, 0x80, 0]);
            data.extend_from_slice(&information.to_be_bytes());
            additional_bytes += 12;
        }
        if let Some(field) = self.field {
            let [origin, high, low] = field.encode();
            data.extend_from_slice(&[0x02, 0x06, 0, 0, origin, high, low, 0]);
            additional_bytes += 8;
        }
        if let Some(length) = data.get_mut(7) {
            *length = additional_bytes;
        }
        data
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Good = 0x00,
    /// Sense data say why not.
    CheckCondition = 0x02,
    /// Done, and what was asked is so: a PRE-FETCH that fits the cache.
    ConditionMet = 0x04,
    /// Try later.
    Busy = 0x08,
    /// A reservation of another nexus forbids it.
    ReservationConflict = 0x18,
    /// Too many commands are under way.
    TaskSetFull = 0x28,
    /// Another nexus had it aborted.
    TaskAborted = 0x40,
}

impl Status {
    /// Status byte.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Good => 0x00,
            Self::CheckCondition => 0x02,
            Self::ConditionMet => 0x04,
            Self::Busy => 0x08,
            Self::ReservationConflict => 0x18,
            Self::TaskSetFull => 0x28,
            Self::TaskAborted => 0x40,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_sense_is_18_bytes_with_the_field_at_the_end() {
        let sense = Sense::invalid_in_cdb(1, 7);
        assert_eq!(sense.encode(false), [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcf, 0, 1]);
    }

    #[test]
    fn fixed_sense_has_valid_information_only_of_32_bits() {
        let short = Sense::MISCOMPARE.with_information(0x1234_5678).encode(false);
        assert_eq!(short[..7], [0xf0, 0, 0xe, 0x12, 0x34, 0x56, 0x78]);
        let long = Sense::LBA_OUT_OF_RANGE.with_information(1 << 32).encode(false);
        assert_eq!(long[..7], [0x70, 0, 5, 0, 0, 0, 0]);
    }

    #[test]
    fn descriptor_sense_is_as_long_as_what_it_tells() {
        assert_eq!(Sense::NEXUS_LOSS.encode(true), [0x72, 6, 0x29, 7, 0, 0, 0, 0]);
        let full = Sense::invalid_in_parameters(0x102).with_information(u64::MAX).encode(true);
        assert_eq!(full[7], 20);
        assert_eq!(full[8..20], [0, 0x0a, 0x80, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(full[20..], [2, 6, 0, 0, 0x80, 1, 2, 0]);
    }
}
