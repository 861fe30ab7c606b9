//! Mode parameters: what MODE SENSE shows and MODE SELECT changes.
//!
//! Spec: SPC-4 6.11 to 6.14 and 7.5; SBC-3 6.5. Pages: read-write error recovery (01h), caching (08h), control (0Ah),
//! informational exceptions control (1Ch) and logical block provisioning (1Ch/02h). Nothing is saved.

use super::SECTOR_BYTES;
use super::cdb::PageControl;
use super::sense::Sense;
use crate::wire::{take, take_bytes, take_u16};

/// THRESHOLD EXPONENT of the logical block provisioning page: none, so the mode page has no threshold descriptor.
pub(super) const THRESHOLD_EXPONENT: u8 = 0;

/// What MODE SELECT can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mode {
    /// D_SENSE: sense data come in descriptor format.
    pub descriptor_sense: bool,
    /// WCE: writes are answered before they are on stable storage.
    pub write_cache: bool,
    /// SWP: writes are refused.
    pub write_protect: bool,
}

impl Default for Mode {
    fn default() -> Self {
        Self { descriptor_sense: false, write_cache: true, write_protect: false }
    }
}

impl Mode {
    /// Everything that can be changed, as PAGE CONTROL 01b shows it.
    const CHANGEABLE: Self = Self { descriptor_sense: true, write_cache: true, write_protect: true };
}

/// What a MODE SENSE asks for: the fields of `Command::ModeSense`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModeQuery {
    /// Whether the answer has the header of MODE SENSE(10).
    pub ten: bool,
    /// Whether a long block descriptor is accepted.
    pub long_lba: bool,
    /// Whether no block descriptor is wanted.
    pub no_blocks: bool,
    /// Which values.
    pub control: PageControl,
    /// Page.
    pub page: u8,
    /// Subpage.
    pub subpage: u8,
}

/// Pages and subpages there are, ascending.
const PAGES: [(u8, u8); 5] = [(0x01, 0x00), (0x08, 0x00), (0x0a, 0x00), (0x1c, 0x00), (0x1c, 0x02)];

/// All pages.
const ALL: u8 = 0x3f;
/// All subpages.
const ALL_SUBPAGES: u8 = 0xff;

/// Mode parameters of a logical unit of so many blocks; `is_protected` says that it cannot be written for another reason
/// than its mode.
///
/// # Errors
/// SAVING PARAMETERS NOT SUPPORTED; INVALID FIELD IN CDB if there is no such page.
pub fn sense(query: &ModeQuery, mode: &Mode, blocks: u64, is_protected: bool) -> Result<Vec<u8>, Sense> {
    let mut pages = Vec::new();
    for (page, subpage) in PAGES {
        if is_wanted(query, page, subpage) {
            pages.append(&mut encode_page(page, subpage, query.control, mode)?);
        }
    }
    if pages.is_empty() {
        let is_page = PAGES.iter().any(|(page, _)| *page == query.page);
        return Err(if is_page { Sense::invalid_in_cdb(3, 7) } else { Sense::invalid_in_cdb(2, 5) });
    }
    let mut descriptor = match (query.no_blocks, query.long_lba) {
        (true, _) => Vec::new(),
        (false, true) => long_descriptor(blocks),
        (false, false) => short_descriptor(blocks),
    };
    // DPOFUA: a read or write may ask for stable storage.
    let device_specific = 0x10 | if is_protected || mode.write_protect { 0x80 } else { 0 };
    let mut data = header(query, device_specific, descriptor.len(), pages.len());
    data.append(&mut descriptor);
    data.append(&mut pages);
    Ok(data)
}

const fn is_wanted(query: &ModeQuery, page: u8, subpage: u8) -> bool {
    let is_page = query.page == page || query.page == ALL;
    let is_subpage = query.subpage == ALL_SUBPAGES || query.subpage == subpage;
    // Page 3Fh goes with subpages 00h and FFh only.
    is_page && is_subpage && (query.page != ALL || matches!(query.subpage, 0 | ALL_SUBPAGES))
}

fn header(query: &ModeQuery, device_specific: u8, descriptor_bytes: usize, pages_bytes: usize) -> Vec<u8> {
    // Both are far below what their fields hold.
    let descriptor_bytes = u8::try_from(descriptor_bytes).unwrap_or(0);
    let rest_bytes = u8::try_from(pages_bytes).unwrap_or(0).saturating_add(descriptor_bytes);
    if query.ten {
        let long_lba = u8::from(query.long_lba && descriptor_bytes != 0);
        let [high, low] = (u16::from(rest_bytes) + 6).to_be_bytes();
        vec![high, low, 0, device_specific, long_lba, 0, 0, descriptor_bytes]
    } else {
        vec![rest_bytes.saturating_add(3), 0, device_specific, descriptor_bytes]
    }
}

fn short_descriptor(blocks: u64) -> Vec<u8> {
    let mut descriptor = u32::try_from(blocks).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    descriptor.extend_from_slice(&SECTOR_BYTES.to_be_bytes());
    descriptor
}

fn long_descriptor(blocks: u64) -> Vec<u8> {
    let mut descriptor = blocks.to_be_bytes().to_vec();
    descriptor.extend_from_slice(&[0; 4]);
    descriptor.extend_from_slice(&SECTOR_BYTES.to_be_bytes());
    descriptor
}

fn encode_page(page: u8, subpage: u8, control: PageControl, mode: &Mode) -> Result<Vec<u8>, Sense> {
    match control {
        PageControl::Current => Ok(encode_values(page, subpage, true, mode)),
        PageControl::Default => Ok(encode_values(page, subpage, true, &Mode::default())),
        PageControl::Changeable => Ok(encode_values(page, subpage, false, &Mode::CHANGEABLE)),
        PageControl::Saved => Err(Sense::SAVING_NOT_SUPPORTED),
    }
}

/// A page with the bits of `mode`; those that cannot be changed are there only if `fixed`, else zero.
fn encode_values(page: u8, subpage: u8, fixed: bool, mode: &Mode) -> Vec<u8> {
    let constant = |value: u8| if fixed { value } else { 0 };
    let bit = |is_set: bool, mask: u8| if is_set { mask } else { 0 };
    let mut data = Vec::new();
    match (page, subpage) {
        // Nothing is reallocated or retried: the engine recovers below.
        (0x01, _) => {
            data.extend_from_slice(&[0x01, 0x0a]);
            data.resize(12, 0);
        }
        (0x08, _) => {
            data.extend_from_slice(&[0x08, 0x12, bit(mode.write_cache, 0x04)]);
            data.resize(20, 0);
        }
        (0x0a, _) => {
            // GLTSD; unrestricted reordering; TAS; BUSY TIMEOUT PERIOD without limit.
            data.extend_from_slice(&[0x0a, 0x0a, constant(0x02) | bit(mode.descriptor_sense, 0x04), constant(0x10)]);
            data.extend_from_slice(&[bit(mode.write_protect, 0x08), constant(0x40), 0, 0]);
            data.extend_from_slice(&[constant(0xff), constant(0xff), 0, 0]);
        }
        (_, 0x00) => {
            // DEXCPT: no informational exceptions are told.
            data.extend_from_slice(&[0x1c, 0x0a, constant(0x08)]);
            data.resize(12, 0);
        }
        _ => {
            data.extend_from_slice(&[0x5c, subpage, 0, 0x0c]);
            data.resize(16, 0);
        }
    }
    data
}

/// The mode after a MODE SELECT with this parameter list, on a logical unit of so many blocks. An empty list changes
/// nothing. All is judged before anything changes. SP, which the CDB has, is the caller's to refuse.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR if it ends within a header, descriptor or page; INVALID FIELD IN PARAMETER LIST if it names
/// an unknown page or changes what cannot be changed.
pub fn select(ten: bool, list: &[u8], mode: &Mode, blocks: u64) -> Result<Mode, Sense> {
    if list.is_empty() {
        return Ok(*mode);
    }
    let mut rest = list;
    let (descriptor_bytes, is_long) = take_header(ten, &mut rest).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let descriptor = take_bytes(&mut rest, descriptor_bytes).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let header_bytes = if ten { 8 } else { 4 };
    if !is_descriptor_in_force(descriptor, is_long, blocks) {
        return Err(Sense::invalid_in_parameters(header_bytes));
    }
    let mut next = *mode;
    while !rest.is_empty() {
        let at = u16::try_from(list.len().saturating_sub(rest.len())).unwrap_or(u16::MAX);
        next = select_page(&mut rest, at, &next)?;
    }
    Ok(next)
}

/// The block descriptors' length, and whether they are long. MODE DATA LENGTH is reserved, and so is the device-specific
/// parameter.
fn take_header(ten: bool, rest: &mut &[u8]) -> Option<(usize, bool)> {
    if ten {
        let [_, _, _, _, flags, _] = take(rest)?;
        Some((take_u16(rest)?.into(), flags & 0x01 != 0))
    } else {
        let [_, _, _, descriptor_bytes] = take(rest)?;
        Some((descriptor_bytes.into(), false))
    }
}

/// No descriptor, or one that keeps block length and capacity. Zero blocks, and all ones, mean those there are.
fn is_descriptor_in_force(descriptor: &[u8], is_long: bool, blocks: u64) -> bool {
    let (count, block_bytes, all_ones) = match (is_long, descriptor) {
        (_, []) => return true,
        (false, &[a, b, c, d, _, e, f, g]) => {
            (u32::from_be_bytes([a, b, c, d]).into(), u32::from_be_bytes([0, e, f, g]), u64::from(u32::MAX))
        }
        (true, &[a, b, c, d, e, f, g, h, _, _, _, _, i, j, k, l]) => {
            (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([i, j, k, l]), u64::MAX)
        }
        _ => return false,
    };
    block_bytes == SECTOR_BYTES && (count == 0 || count == all_ones || count == blocks)
}

/// Takes one page, which begins at byte `at` of the list, and gives the mode with it.
fn select_page(rest: &mut &[u8], at: u16, mode: &Mode) -> Result<Mode, Sense> {
    let [head, second, ..] = **rest else { return Err(Sense::PARAMETER_LIST_LENGTH) };
    // PS is reserved here; SPF says that the second byte is a subpage.
    let subpage = if head & 0x40 == 0 { 0 } else { second };
    if !PAGES.contains(&(head & 0x3f, subpage)) {
        return Err(Sense::invalid_in_parameters(at));
    }
    let current = encode_values(head & 0x3f, subpage, true, mode);
    let changeable = encode_values(head & 0x3f, subpage, false, &Mode::CHANGEABLE);
    let wanted = take_bytes(rest, current.len()).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let head_bytes = if head & 0x40 == 0 { 2 } else { 4 };
    let fields = wanted.iter().zip(current.iter().zip(&changeable)).enumerate();
    for (offset, (wanted, (current, changeable))) in fields.skip(1) {
        // The head of the mask is that of the page, and is no mask: the page's length must be right.
        let changeable = if offset < head_bytes { 0 } else { *changeable };
        if (wanted ^ current) & !changeable != 0 {
            return Err(Sense::invalid_in_parameters(at.saturating_add(u16::try_from(offset).unwrap_or(u16::MAX))));
        }
    }
    let mut next = *mode;
    match *wanted {
        [_, _, flags, ..] if head & 0x3f == 0x08 => next.write_cache = flags & 0x04 != 0,
        [_, _, flags, _, protection, ..] if head & 0x3f == 0x0a => {
            next.descriptor_sense = flags & 0x04 != 0;
            next.write_protect = protection & 0x08 != 0;
        }
        _ => {}
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_PAGES: ModeQuery = ModeQuery {
        ten: false,
        long_lba: false,
        no_blocks: false,
        control: PageControl::Current,
        page: 0x3f,
        subpage: 0,
    };

    fn sense_of(query: &ModeQuery) -> Vec<u8> {
        sense(query, &Mode::default(), 2048, false).unwrap()
    }

    #[test]
    fn all_pages_come_in_order_and_with_a_length_that_is_right() {
        let data = sense_of(&ALL_PAGES);
        assert_eq!(data.len(), usize::from(data[0]) + 1);
        assert_eq!(data[..12], [67, 0, 0x10, 8, 0, 0, 8, 0, 0, 0, 2, 0]);
        assert_eq!([data[12], data[24], data[44], data[56]], [0x01, 0x08, 0x0a, 0x1c]);
        let with_subpages = sense_of(&ModeQuery { subpage: 0xff, ..ALL_PAGES });
        assert_eq!(with_subpages.len(), data.len() + 16);
        assert_eq!(with_subpages[68..72], [0x5c, 2, 0, 12]);
    }

    #[test]
    fn the_long_header_can_have_a_long_descriptor() {
        let data = sense_of(&ModeQuery { ten: true, long_lba: true, page: 0x0a, ..ALL_PAGES });
        assert_eq!(data[..8], [0, 34, 0, 0x10, 1, 0, 0, 16]);
        assert_eq!(data[8..24], [0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        let bare = sense_of(&ModeQuery { ten: true, long_lba: true, no_blocks: true, page: 0x0a, ..ALL_PAGES });
        assert_eq!(bare[..8], [0, 18, 0, 0x10, 0, 0, 0, 0]);
    }

    #[test]
    fn changeable_values_are_a_mask_of_what_select_takes() {
        let changeable = ModeQuery { no_blocks: true, control: PageControl::Changeable, ..ALL_PAGES };
        let control = sense_of(&ModeQuery { page: 0x0a, ..changeable });
        assert_eq!(control[4..], [0x0a, 0x0a, 0x04, 0, 0x08, 0, 0, 0, 0, 0, 0, 0]);
        let caching = sense_of(&ModeQuery { page: 0x08, ..changeable });
        assert_eq!(caching[4..8], [0x08, 0x12, 0x04, 0]);
        assert!(caching[8..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn saved_values_and_unknown_pages_are_refused() {
        let refused = |query| sense(&query, &Mode::default(), 1, false).unwrap_err();
        assert_eq!(refused(ModeQuery { control: PageControl::Saved, ..ALL_PAGES }), Sense::SAVING_NOT_SUPPORTED);
        assert_eq!(refused(ModeQuery { page: 0x02, ..ALL_PAGES }), Sense::invalid_in_cdb(2, 5));
        assert_eq!(refused(ModeQuery { page: 0x0a, subpage: 1, ..ALL_PAGES }), Sense::invalid_in_cdb(3, 7));
        assert_eq!(refused(ModeQuery { subpage: 2, ..ALL_PAGES }), Sense::invalid_in_cdb(2, 5));
    }

    #[test]
    fn protection_of_either_kind_shows_in_the_header() {
        let protected = Mode { write_protect: true, ..Mode::default() };
        assert_eq!(sense(&ALL_PAGES, &protected, 1, false).unwrap()[2], 0x90);
        assert_eq!(sense(&ALL_PAGES, &Mode::default(), 1, true).unwrap()[2], 0x90);
    }

    /// What sense shows can be sent back with any changeable bit changed.
    #[test]
    fn select_changes_what_is_changeable() {
        for bits in 0..8_u8 {
            let wanted =
                Mode { descriptor_sense: bits & 1 != 0, write_cache: bits & 2 != 0, write_protect: bits & 4 != 0 };
            for ten in [false, true] {
                let query = ModeQuery { ten, long_lba: ten, subpage: 0xff, ..ALL_PAGES };
                let list = sense(&query, &wanted, 2048, false).unwrap();
                assert_eq!(select(ten, &list, &Mode::default(), 2048), Ok(wanted));
            }
        }
    }

    #[test]
    fn select_refuses_to_change_anything_else() {
        let list = sense_of(&ALL_PAGES);
        let mut taken = 0;
        for at in 4..list.len() {
            for bit in 0..8 {
                let mut changed = list.clone();
                changed[at] ^= 1 << bit;
                if select(false, &changed, &Mode::default(), 2048).is_ok() {
                    taken += 1;
                }
            }
        }
        // WCE, D_SENSE, SWP; PS of four pages; of the block descriptor eight reserved bits, and 2048 blocks made zero.
        assert_eq!(taken, 3 + 4 + 8 + 1);
        let mut changed = list;
        changed[47] ^= 0x10;
        assert_eq!(select(false, &changed, &Mode::default(), 2048), Err(Sense::invalid_in_parameters(47)));
    }

    #[test]
    fn a_select_list_that_is_cut_is_refused_except_between_pages() {
        let list = sense_of(&ALL_PAGES);
        for len in 0..list.len() {
            let is_whole = [0, 12, 24, 44, 56].contains(&len);
            assert_eq!(select(false, &list[..len], &Mode::default(), 2048).is_ok(), is_whole, "{len}");
        }
    }

    #[test]
    fn a_block_descriptor_must_be_the_one_in_force() {
        let short = |blocks: u32, bytes: u32| {
            let mut list = vec![0, 0, 0, 8];
            list.extend_from_slice(&blocks.to_be_bytes());
            list.extend_from_slice(&bytes.to_be_bytes());
            select(false, &list, &Mode::default(), 2048)
        };
        assert!(short(2048, 512).is_ok() && short(0, 512).is_ok() && short(u32::MAX, 512).is_ok());
        assert_eq!(short(2047, 512), Err(Sense::invalid_in_parameters(4)));
        assert_eq!(short(2048, 4096), Err(Sense::invalid_in_parameters(4)));
    }
}
