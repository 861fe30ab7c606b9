//! INQUIRY: standard data and vital product data pages.
//! Spec: SPC-4 6.6 "INQUIRY" and 7.8 "Vital product data parameters"; SBC-3 6.6 for pages B0h to B2h.

use super::copy;
use super::mode;

/// T10 vendor identification, filled up with spaces.
pub const VENDOR: [u8; 8] = *b"ALJIBE  ";

/// Product identification of standard inquiry data, filled up with spaces.
pub const PRODUCT: [u8; 16] = *b"Block volume    ";

/// Product revision level.
pub const REVISION: [u8; 4] = *b"0001";

/// SAM-5, SPC-4, SBC-3 and iSCSI, none with a version claimed.
const VERSION_DESCRIPTORS: [u16; 4] = [0x00a0, 0x0460, 0x04c0, 0x0960];

/// SCSI name strings are at most this long, so that a designator's length fits a byte.
const NAME_STRING_BYTES_MAX: usize = 252;

/// Who a logical unit is, and through which port it is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Serial number, ASCII.
    pub serial: &'a str,
    /// NAA identifier, of the locally assigned form (3h).
    pub naa: [u8; 8],
    /// iSCSI name of the target.
    pub target_name: &'a str,
    /// Relative target port identifier.
    pub port: u16,
    /// Target port group.
    pub port_group: u16,
    /// Product, as the T10 vendor designator names it; at most 16 bytes of it.
    pub product: &'a str,
}

/// The most that one command may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Blocks of a read or write.
    pub transfer_blocks_max: u32,
    /// Blocks up to which a longer read or write pays.
    pub optimal_blocks: u32,
    /// Blocks of all descriptors of an UNMAP.
    pub unmap_blocks_max: u32,
    /// Descriptors of an UNMAP.
    pub unmap_descriptors_max: u32,
    /// Blocks of a WRITE SAME.
    pub write_same_blocks_max: u64,
    /// Blocks of a COMPARE AND WRITE.
    pub compare_and_write_max: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transfer_blocks_max: 65_536,
            optimal_blocks: 2_048,
            // libiscsi's conformance suite takes more than 2^20 for insane.
            unmap_blocks_max: 1 << 20,
            unmap_descriptors_max: 256,
            write_same_blocks_max: 8_388_608,
            compare_and_write_max: 255,
        }
    }
}

/// Standard inquiry data of a logical unit.
#[must_use]
pub fn standard() -> Vec<u8> {
    // A direct access block device, SPC-4, HISUP, TPGS implicit, 3PC, CMDQUE.
    let mut data = vec![0x00, 0x00, 0x06, 0x12, 91, 0x18, 0x00, 0x02];
    data.extend_from_slice(&VENDOR);
    data.extend_from_slice(&PRODUCT);
    data.extend_from_slice(&REVISION);
    data.resize(58, 0);
    for version in VERSION_DESCRIPTORS {
        data.extend_from_slice(&version.to_be_bytes());
    }
    data.resize(96, 0);
    data
}

/// Standard inquiry data where there is no logical unit: qualifier 011b, device type 1Fh.
#[must_use]
pub fn absent() -> Vec<u8> {
    let mut data = vec![0x7f, 0x00, 0x06, 0x12, 31, 0x00, 0x00, 0x02];
    data.extend_from_slice(&VENDOR);
    data.extend_from_slice(&PRODUCT);
    data.extend_from_slice(&REVISION);
    data
}

/// Codes of the pages there are, ascending.
const PAGES: [u8; 8] = [0x00, 0x80, 0x83, 0x86, 0x8f, 0xb0, 0xb1, 0xb2];

/// A vital product data page; `None` if there is no such page.
#[must_use]
pub fn page(code: u8, identity: &Identity<'_>, limits: &Limits) -> Option<Vec<u8>> {
    let content = match code {
        0x00 => PAGES.to_vec(),
        0x80 => identity.serial.as_bytes().to_vec(),
        0x83 => designators(identity),
        0x86 => extended_inquiry(),
        0x8f => copy::third_party_copy_descriptors(),
        0xb0 => block_limits(limits),
        0xb1 => block_characteristics(),
        0xb2 => provisioning(),
        _ => return None,
    };
    let mut page = vec![0x00, code];
    page.extend_from_slice(&u16::try_from(content.len()).ok()?.to_be_bytes());
    page.extend_from_slice(&content);
    Some(page)
}

/// What a designator names (ASSOCIATION).
const OF_UNIT: u8 = 0x00;
/// The target port; PIV is set, for the protocol identifier counts.
const OF_PORT: u8 = 0x90;
/// The target device; PIV likewise.
const OF_DEVICE: u8 = 0xa0;

const BINARY: u8 = 0x01;
const ASCII: u8 = 0x02;
const ISCSI_BINARY: u8 = 0x51;
const ISCSI_UTF8: u8 = 0x53;

/// The NAA name comes first: some initiators look at 255 bytes only, and names can be long.
fn designators(identity: &Identity<'_>) -> Vec<u8> {
    let mut page = Vec::new();
    add_designator(&mut page, [BINARY, OF_UNIT | 0x03], &identity.naa);
    let mut vendor_name = VENDOR.to_vec();
    vendor_name.extend(identity.product.bytes().chain(std::iter::repeat(b' ')).take(16));
    vendor_name.extend(identity.serial.bytes().take(64));
    add_designator(&mut page, [ASCII, OF_UNIT | 0x01], &vendor_name);
    let [port_high, port_low] = identity.port.to_be_bytes();
    add_designator(&mut page, [ISCSI_BINARY, OF_PORT | 0x04], &[0, 0, port_high, port_low]);
    let [group_high, group_low] = identity.port_group.to_be_bytes();
    add_designator(&mut page, [ISCSI_BINARY, OF_PORT | 0x05], &[0, 0, group_high, group_low]);
    let port_name = format!("{},t,0x{:04x}", identity.target_name, identity.port);
    add_name_string(&mut page, OF_PORT, &port_name);
    add_name_string(&mut page, OF_DEVICE, identity.target_name);
    page
}

fn add_designator(page: &mut Vec<u8>, [code_set, kind]: [u8; 2], value: &[u8]) {
    // A value too long for its length field is left out; callers see to it that there is none.
    if let Ok(bytes) = u8::try_from(value.len()) {
        page.extend_from_slice(&[code_set, kind, 0, bytes]);
        page.extend_from_slice(value);
    }
}

/// A SCSI name string, ended with one to four NULs so that its length is a multiple of four.
fn add_name_string(page: &mut Vec<u8>, association: u8, name: &str) {
    let padded_bytes = (name.len() + 1).next_multiple_of(4);
    if padded_bytes <= NAME_STRING_BYTES_MAX {
        let mut value = name.as_bytes().to_vec();
        value.resize(padded_bytes, 0);
        add_designator(page, [ISCSI_UTF8, association | 0x08], &value);
    }
}

/// Page 86h: tasks may be simple, ordered and head of queue; there is a volatile cache.
fn extended_inquiry() -> Vec<u8> {
    let mut content = vec![0x00, 0x07, 0x01];
    content.resize(60, 0);
    content
}

/// Page B0h. The engine's block is both the granularity of transfers and of unmapping, which is aligned to zero.
fn block_limits(limits: &Limits) -> Vec<u8> {
    let block = 1u16 << super::SECTORS_PER_BLOCK_EXPONENT;
    // Not WSNZ: a WRITE SAME of no blocks means all to the end.
    let mut content = vec![0x00, limits.compare_and_write_max];
    content.extend_from_slice(&block.to_be_bytes());
    content.extend_from_slice(&limits.transfer_blocks_max.to_be_bytes());
    content.extend_from_slice(&limits.optimal_blocks.to_be_bytes());
    // MAXIMUM PREFETCH LENGTH: no limit of its own.
    content.extend_from_slice(&[0; 4]);
    content.extend_from_slice(&limits.unmap_blocks_max.to_be_bytes());
    content.extend_from_slice(&limits.unmap_descriptors_max.to_be_bytes());
    content.extend_from_slice(&u32::from(block).to_be_bytes());
    // UGAVALID, and the alignment.
    content.extend_from_slice(&0x8000_0000_u32.to_be_bytes());
    content.extend_from_slice(&limits.write_same_blocks_max.to_be_bytes());
    content.resize(60, 0);
    content
}

/// Page B1h: a medium that does not rotate.
fn block_characteristics() -> Vec<u8> {
    let mut content = vec![0x00, 0x01];
    content.resize(60, 0);
    content
}

/// Page B2h: no thresholds; LBPU, LBPWS, LBPWS10, LBPRZ; thin.
fn provisioning() -> Vec<u8> {
    vec![mode::THRESHOLD_EXPONENT, 0xe4, 0x02, 0x00]
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity<'_> = Identity {
        serial: "0123456789abcdef",
        naa: [0x30, 1, 2, 3, 4, 5, 6, 7],
        target_name: "iqn.2026-01.example:t",
        port: 0x1a,
        port_group: 1,
        product: "volume",
    };

    fn page_of(code: u8) -> Vec<u8> {
        page(code, &IDENTITY, &Limits::default()).unwrap()
    }

    /// Each designator: code set, kind, value.
    fn designators_of(page: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
        let mut rest = &page[4..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let end = 4 + usize::from(rest[3]);
            found.push((rest[0], rest[1], rest[4..end].to_vec()));
            rest = &rest[end..];
        }
        found
    }

    #[test]
    fn standard_data_say_how_long_they_are_and_what_they_keep() {
        let data = standard();
        assert_eq!(data.len(), usize::from(data[4]) + 5);
        assert_eq!(data[..8], [0, 0, 6, 0x12, 91, 0x18, 0, 2]);
        assert!(data[8..36].iter().all(|byte| (0x20..0x7f).contains(byte)));
        assert_eq!(data[58..66], [0x00, 0xa0, 0x04, 0x60, 0x04, 0xc0, 0x09, 0x60]);
    }

    #[test]
    fn an_absent_unit_has_no_device_type() {
        let data = absent();
        assert_eq!(data[0], 0x7f);
        assert_eq!(data.len(), usize::from(data[4]) + 5);
    }

    #[test]
    fn every_listed_page_is_there_and_no_other() {
        let listed = page_of(0x00)[4..].to_vec();
        assert!(listed.is_sorted());
        for code in 0..=u8::MAX {
            let found = page(code, &IDENTITY, &Limits::default());
            assert_eq!(found.is_some(), listed.contains(&code), "{code:02x}");
            if let Some(found) = found {
                assert_eq!(found[1], code);
                assert_eq!(usize::from(u16::from_be_bytes([found[2], found[3]])) + 4, found.len());
            }
        }
    }

    #[test]
    fn a_unit_is_named_by_naa_first_then_by_vendor_port_and_group() {
        let found = designators_of(&page_of(0x83));
        assert_eq!(found[0], (0x01, 0x03, IDENTITY.naa.to_vec()));
        assert_eq!(found[1], (0x02, 0x01, b"ALJIBE  volume          0123456789abcdef".to_vec()));
        assert_eq!(found[2], (0x51, 0x94, vec![0, 0, 0, 0x1a]));
        assert_eq!(found[3], (0x51, 0x95, vec![0, 0, 0, 1]));
        assert_eq!(found[4], (0x53, 0x98, b"iqn.2026-01.example:t,t,0x001a\0\0".to_vec()));
        assert_eq!(found[5], (0x53, 0xa8, b"iqn.2026-01.example:t\0\0\0".to_vec()));
    }

    #[test]
    fn the_longest_iscsi_name_fits() {
        let name = "n".repeat(223);
        let identity = Identity { target_name: &name, ..IDENTITY };
        let found = page(0x83, &identity, &Limits::default()).unwrap();
        assert_eq!(designators_of(&found).len(), 6);
    }

    #[test]
    fn block_limits_are_where_sbc_has_them() {
        let page = page_of(0xb0);
        assert_eq!(page.len(), 64);
        assert_eq!(page[4..8], [0, 255, 0, 8]);
        assert_eq!(page[8..16], [0, 1, 0, 0, 0, 0, 8, 0]);
        assert_eq!(page[20..28], [0, 0x10, 0, 0, 0, 0, 1, 0]);
        assert_eq!(page[28..36], [0, 0, 0, 8, 0x80, 0, 0, 0]);
        assert_eq!(page[36..44], [0, 0, 0, 0, 0, 0x80, 0, 0]);
    }

    #[test]
    fn holes_are_said_to_read_as_zeros() {
        assert_eq!(page_of(0xb2)[4..], [0, 0xe4, 2, 0]);
    }
}
