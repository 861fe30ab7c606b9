//! TransportIDs of iSCSI initiator ports: `name,i,0xISID`, ended and padded with zero bytes.
//! Spec: SPC-4 7.6.4.6, "TransportID for initiator ports using SCSI over iSCSI", format code 01b.

use crate::wire::{take, take_u16};

/// FORMAT CODE 01b (a port, not a device) and PROTOCOL IDENTIFIER 5h (iSCSI).
const ISCSI_PORT: u8 = 0x45;
/// Parts a name from its ISID.
const SEPARATOR: &str = ",i,0x";
/// Digits of an ISID.
const ISID_DIGITS: usize = 12;
/// The shortest ADDITIONAL LENGTH.
const ADDITIONAL_BYTES_MIN: usize = 20;
/// Longest iSCSI name (RFC 7143 4.2.7.1).
const NAME_BYTES_MAX: usize = 223;

/// Writes the TransportID of an initiator port.
pub(super) fn encode(initiator: &str, isid: [u8; 6]) -> Vec<u8> {
    let digits: String = isid.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut name = format!("{initiator}{SEPARATOR}{digits}").into_bytes();
    name.push(0);
    name.resize(name.len().next_multiple_of(4).max(ADDITIONAL_BYTES_MIN), 0);
    // A name that came in by a login is never near this limit.
    let additional_bytes = u16::try_from(name.len()).unwrap_or(u16::MAX);
    let mut id = vec![ISCSI_PORT, 0];
    id.extend(additional_bytes.to_be_bytes());
    id.extend(name);
    id
}

/// Reads a TransportID that is all of `bytes`; any other transport, and a device's name without a port, is `None`.
pub(super) fn decode(mut bytes: &[u8]) -> Option<(String, [u8; 6])> {
    let [format, _reserved] = take(&mut bytes)?;
    let additional_bytes = usize::from(take_u16(&mut bytes)?);
    let is_shaped = bytes.len() == additional_bytes
        && additional_bytes >= ADDITIONAL_BYTES_MIN
        && additional_bytes.is_multiple_of(4);
    if format != ISCSI_PORT || !is_shaped {
        return None;
    }
    let end = bytes.iter().position(|&byte| byte == 0)?;
    let text = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let (initiator, digits) = text.rsplit_once(SEPARATOR)?;
    if initiator.is_empty() || initiator.len() > NAME_BYTES_MAX {
        return None;
    }
    Some((initiator.to_owned(), parse_isid(digits)?))
}

fn parse_isid(digits: &str) -> Option<[u8; 6]> {
    // `from_str_radix` alone would take a sign.
    if digits.len() != ISID_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let [_, _, isid @ ..] = u64::from_str_radix(digits, 16).ok()?.to_be_bytes();
    Some(isid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initiator_port_is_written_as_spc_has_it() {
        let id = encode("iqn.x", [0x80, 0, 0, 0, 0, 0x0a]);
        assert_eq!(id, b"\x45\x00\x00\x18iqn.x,i,0x80000000000a\0\0");
        assert_eq!(decode(&id), Some(("iqn.x".to_owned(), [0x80, 0, 0, 0, 0, 0x0a])));
    }

    #[test]
    fn what_is_no_iscsi_port_is_refused() {
        let id = encode("iqn.x", [1; 6]);
        let mut device = id.clone();
        device[0] = 0x05;
        let mut fibre = id.clone();
        fibre[0] = 0x40;
        let mut long = id.clone();
        long.extend([0; 4]);
        let unended = b"\x45\x00\x00\x14iqn.xyz,i,0x80000000";
        let signed = b"\x45\x00\x00\x18iqn.x,i,0x+0000000000a\0\0";
        let nameless = b"\x45\x00\x00\x14,i,0x80000000000a\0\0\0";
        let shapes: [&[u8]; 7] = [&device, &fibre, &long, unended, signed, nameless, &id[..3]];
        for shape in shapes {
            assert_eq!(decode(shape), None, "{shape:x?}");
        }
    }
}
