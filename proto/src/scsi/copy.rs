//! Third-party copy: EXTENDED COPY(LID1) with block-to-block segments, RECEIVE COPY RESULTS, and what page 8Fh tells of them.
//!
//! Spec: SPC-4 6.4 "EXTENDED COPY(LID1)", 6.18 to 6.20 "RECEIVE COPY ...", 7.8.17 "Third-Party Copy VPD page". Copy targets
//! are named by identification descriptors (E4h), segments are of type 02h; there are no inline data and no held data.

use super::SECTOR_BYTES;
use super::sense::{Sense, Status};
use crate::wire::{take, take_bytes, take_u16, take_u32, take_u64};

/// Most CSCD descriptors of a list.
pub const TARGETS_MAX: u16 = 16;
/// Most segment descriptors of a list.
pub const SEGMENTS_MAX: u16 = 16;

const TARGET_BYTES: u32 = 32;
const SEGMENT_BYTES: u32 = 28;
const DESCRIPTORS_BYTES_MAX: u32 = TARGETS_MAX as u32 * TARGET_BYTES + SEGMENTS_MAX as u32 * SEGMENT_BYTES;
const HEADER_BYTES: u16 = 16;

const IDENTIFICATION_TARGET: u8 = 0xe4;
const BLOCK_TO_BLOCK: u8 = 0x02;

/// Most bytes of a segment: a 16-bit number of blocks.
pub const SEGMENT_COPY_BYTES_MAX: u32 = 0xffff * SECTOR_BYTES;

/// Copies under way at once in the whole target, as told to initiators.
const CONCURRENT_COPIES: u8 = 16;

/// The logarithm of a logical block's length.
const GRANULARITY_EXPONENT: u8 = 9;
const _: () = assert!(1 << GRANULARITY_EXPONENT == SECTOR_BYTES);

/// A logical unit that a copy reads from or writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyTarget {
    /// DESIGNATOR TYPE: 3 for NAA.
    pub designator_type: u8,
    /// Designator, as page 83h shows it.
    pub designator: Vec<u8>,
    /// Length of its logical blocks, as the initiator knows it.
    pub sector_bytes: u32,
}

/// Blocks to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopySegment {
    /// Index of the target to read from, within the list.
    pub source: usize,
    /// Index of the target to write to, within the list.
    pub destination: usize,
    /// First block to read.
    pub source_lba: u64,
    /// First block to write.
    pub destination_lba: u64,
    /// Number of blocks.
    pub blocks: u64,
}

/// An EXTENDED COPY's parameter list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyList {
    /// The copy's name, if `is_listed`.
    pub list_id: u8,
    /// Whether RECEIVE COPY RESULTS can ask for the copy by its name.
    pub is_listed: bool,
    /// Logical units taking part.
    pub targets: Vec<CopyTarget>,
    /// What to copy, in this order.
    pub segments: Vec<CopySegment>,
}

/// The list's head: lengths of its parts.
struct Head {
    targets_bytes: u32,
    segments_bytes: u32,
    inline_bytes: u32,
}

/// Parses an EXTENDED COPY's parameter list. An empty one asks for nothing.
///
/// # Errors
/// As SPC-4 has them: PARAMETER LIST LENGTH ERROR, TOO MANY TARGET (SEGMENT) DESCRIPTORS, UNSUPPORTED TARGET (SEGMENT)
/// DESCRIPTOR TYPE CODE, INLINE DATA LENGTH EXCEEDED, INVALID FIELD IN PARAMETER LIST; UNREACHABLE COPY TARGET if a segment
/// names a target that is not in the list.
pub fn parse(list: &[u8]) -> Result<CopyList, Sense> {
    if list.is_empty() {
        return Ok(CopyList::default());
    }
    let mut rest = list;
    let (mut copy, head) = take_head(&mut rest).ok_or(Sense::PARAMETER_LIST_LENGTH)??;
    head.check(rest.len())?;
    let too_short = Sense::PARAMETER_LIST_LENGTH;
    let mut targets =
        usize::try_from(head.targets_bytes).ok().and_then(|len| take_bytes(&mut rest, len)).ok_or(too_short)?;
    let mut segments =
        usize::try_from(head.segments_bytes).ok().and_then(|len| take_bytes(&mut rest, len)).ok_or(too_short)?;
    let place = |part: &[u8], after: u32| {
        let before = after.saturating_sub(u32::try_from(part.len()).unwrap_or(u32::MAX));
        u16::try_from(before).unwrap_or(u16::MAX).saturating_add(HEADER_BYTES)
    };
    while let Some(&kind) = targets.first() {
        if copy.targets.len() >= usize::from(TARGETS_MAX) {
            return Err(Sense::TOO_MANY_TARGETS);
        }
        if kind != IDENTIFICATION_TARGET {
            return Err(Sense::TARGET_DESCRIPTOR_TYPE);
        }
        let at = place(targets, head.targets_bytes);
        copy.targets.push(take_target(&mut targets).ok_or_else(|| Sense::invalid_in_parameters(at))?);
    }
    while let Some(&kind) = segments.first() {
        if copy.segments.len() >= usize::from(SEGMENTS_MAX) {
            return Err(Sense::TOO_MANY_SEGMENTS);
        }
        if kind != BLOCK_TO_BLOCK {
            return Err(Sense::SEGMENT_DESCRIPTOR_TYPE);
        }
        let at = place(segments, head.targets_bytes.saturating_add(head.segments_bytes));
        let segment = take_segment(&mut segments).ok_or_else(|| Sense::invalid_in_parameters(at))?;
        if segment.source.max(segment.destination) >= copy.targets.len() {
            return Err(Sense::COPY_TARGET_UNREACHABLE);
        }
        copy.segments.push(segment);
    }
    Ok(copy)
}

impl Head {
    /// `rest_bytes` are those that follow the head.
    fn check(&self, rest_bytes: usize) -> Result<(), Sense> {
        let descriptors_bytes = self.targets_bytes.saturating_add(self.segments_bytes);
        if descriptors_bytes > DESCRIPTORS_BYTES_MAX {
            return Err(Sense::PARAMETER_LIST_LENGTH);
        }
        if self.inline_bytes != 0 {
            return Err(Sense::INLINE_DATA);
        }
        match usize::try_from(descriptors_bytes) {
            Ok(len) if len <= rest_bytes => Ok(()),
            _ => Err(Sense::PARAMETER_LIST_LENGTH),
        }
    }
}

fn take_head(rest: &mut &[u8]) -> Option<Result<(CopyList, Head), Sense>> {
    // STR and PRIORITY only advise.
    let [list_id, flags] = take(rest)?;
    let targets_bytes = take_u16(rest)?.into();
    let _reserved: [u8; 4] = take(rest)?;
    let head = Head { targets_bytes, segments_bytes: take_u32(rest)?, inline_bytes: take_u32(rest)? };
    let is_listed = match (flags >> 3 & 0x03, list_id) {
        (0 | 2, _) => true,
        (3, 0) => false,
        (3, _) => return Some(Err(Sense::invalid_in_parameters(0))),
        _ => return Some(Err(Sense::invalid_in_parameters(1))),
    };
    Some(Ok((CopyList { list_id, is_listed, ..CopyList::default() }, head)))
}

/// `None`: cut short, not a disk, or with a designator longer than its place.
fn take_target(rest: &mut &[u8]) -> Option<CopyTarget> {
    let [_, device_type, _, _] = take(rest)?;
    let [_, kind, _, designator_bytes] = take(rest)?;
    let designator: [u8; 20] = take(rest)?;
    let [_, a, b, c] = take(rest)?;
    // LU ID TYPE and NUL are to be ignored.
    if device_type & 0x1f != 0 {
        return None;
    }
    Some(CopyTarget {
        designator_type: kind & 0x0f,
        designator: designator.get(..usize::from(designator_bytes))?.to_vec(),
        sector_bytes: u32::from_be_bytes([0, a, b, c]),
    })
}

/// `None`: cut short, or of another length. DC makes no difference, for all blocks are equally long; CAT is for streams.
fn take_segment(rest: &mut &[u8]) -> Option<CopySegment> {
    let _type_and_flags: [u8; 2] = take(rest)?;
    if u32::from(take_u16(rest)?) + 4 != SEGMENT_BYTES {
        return None;
    }
    let source = take_u16(rest)?.into();
    let destination = take_u16(rest)?.into();
    let _reserved: [u8; 2] = take(rest)?;
    let blocks = take_u16(rest)?.into();
    Some(CopySegment { source, destination, blocks, source_lba: take_u64(rest)?, destination_lba: take_u64(rest)? })
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// Not ended.
    InProgress,
    /// Ended, all was copied.
    Completed,
    /// Ended before all was copied.
    Failed,
}

/// What RECEIVE COPY STATUS(LID1) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyStatus {
    /// How far it is.
    pub state: CopyState,
    /// Segments done.
    pub segments: u16,
    /// Bytes written.
    pub bytes: u64,
}

/// RECEIVE COPY STATUS(LID1). An unknown list identifier is an INVALID FIELD IN CDB, byte 2.
#[must_use]
pub fn copy_status(status: &CopyStatus) -> Vec<u8> {
    let state = match status.state {
        CopyState::InProgress => 0x00,
        CopyState::Completed => 0x01,
        CopyState::Failed => 0x02,
    };
    let mut data = vec![0, 0, 0, 8, state];
    data.extend_from_slice(&status.segments.to_be_bytes());
    // TRANSFER COUNT UNITS: bytes, or KiB if bytes do not fit.
    let (unit, count) = u32::try_from(status.bytes)
        .map_or_else(|_| (1, u32::try_from(status.bytes / 1024).unwrap_or(u32::MAX)), |bytes| (0, bytes));
    data.push(unit);
    data.extend_from_slice(&count.to_be_bytes());
    data
}

/// RECEIVE COPY OPERATING PARAMETERS.
#[must_use]
pub fn operating_parameters() -> Vec<u8> {
    let mut content = vec![0; 4];
    content.extend_from_slice(&TARGETS_MAX.to_be_bytes());
    content.extend_from_slice(&SEGMENTS_MAX.to_be_bytes());
    content.extend_from_slice(&DESCRIPTORS_BYTES_MAX.to_be_bytes());
    content.extend_from_slice(&SEGMENT_COPY_BYTES_MAX.to_be_bytes());
    // No inline data, held data, or streams; two reserved bytes.
    content.extend_from_slice(&[0; 14]);
    content.extend_from_slice(&u16::from(CONCURRENT_COPIES).to_be_bytes());
    content.extend_from_slice(&[CONCURRENT_COPIES, GRANULARITY_EXPONENT, 0, 0]);
    content.extend_from_slice(&[0, 0, 0, 2, BLOCK_TO_BLOCK, IDENTIFICATION_TARGET]);
    with_length(content)
}

/// RECEIVE COPY FAILED SEGMENT DETAILS(LID1): how the failed copy ended; `None` if it did not fail.
#[must_use]
pub fn failed_details(failure: Option<(Status, &Sense)>) -> Vec<u8> {
    let Some((status, sense)) = failure else { return vec![0; 4] };
    let sense = sense.encode(false);
    let mut content = vec![0; 52];
    content.extend_from_slice(&[status.to_wire(), 0]);
    content.extend_from_slice(&u16::try_from(sense.len()).unwrap_or(0).to_be_bytes());
    content.extend_from_slice(&sense);
    with_length(content)
}

fn with_length(mut content: Vec<u8>) -> Vec<u8> {
    let mut data = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    data.append(&mut content);
    data
}

/// What page 8Fh has: supported commands, parameter data, descriptors, CSCD descriptor identifiers, general operations.
pub(super) fn third_party_copy_descriptors() -> Vec<u8> {
    let mut page = Vec::new();
    add_descriptor(&mut page, 0x0001, &[8, 0x83, 1, 0x00, 0x84, 3, 0x00, 0x03, 0x04]);
    let mut parameters = vec![0; 4];
    parameters.extend_from_slice(&TARGETS_MAX.to_be_bytes());
    parameters.extend_from_slice(&SEGMENTS_MAX.to_be_bytes());
    parameters.extend_from_slice(&DESCRIPTORS_BYTES_MAX.to_be_bytes());
    parameters.resize(28, 0);
    add_descriptor(&mut page, 0x0004, &parameters);
    add_descriptor(&mut page, 0x0008, &[2, BLOCK_TO_BLOCK, IDENTIFICATION_TARGET]);
    // None but those that number a list's targets.
    add_descriptor(&mut page, 0x000c, &[0, 0]);
    let mut general = u32::from(CONCURRENT_COPIES).to_be_bytes().to_vec();
    general.extend_from_slice(&u32::from(CONCURRENT_COPIES).to_be_bytes());
    general.extend_from_slice(&SEGMENT_COPY_BYTES_MAX.to_be_bytes());
    general.push(GRANULARITY_EXPONENT);
    general.resize(32, 0);
    add_descriptor(&mut page, 0x8001, &general);
    page
}

/// A descriptor, filled up so that it is a multiple of four bytes long.
fn add_descriptor(page: &mut Vec<u8>, kind: u16, content: &[u8]) {
    let padded_bytes = content.len().next_multiple_of(4);
    page.extend_from_slice(&kind.to_be_bytes());
    page.extend_from_slice(&u16::try_from(padded_bytes).unwrap_or(0).to_be_bytes());
    page.extend_from_slice(content);
    page.resize(page.len() + padded_bytes - content.len(), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAA: [u8; 8] = [0x30, 1, 2, 3, 4, 5, 6, 7];

    fn target(kind: u8) -> Vec<u8> {
        let mut bytes = vec![kind, 0x80, 0, 0, 1, 3, 0, 8];
        bytes.extend_from_slice(&NAA);
        bytes.resize(28, 0);
        bytes.extend_from_slice(&[0, 0, 2, 0]);
        bytes
    }

    fn segment(kind: u8, destination: u8) -> Vec<u8> {
        let mut bytes = vec![kind, 0x02, 0, 24, 0, 0, 0, destination, 0, 0, 8, 0];
        bytes.extend_from_slice(&5_u64.to_be_bytes());
        bytes.extend_from_slice(&9_u64.to_be_bytes());
        bytes
    }

    fn list(flags: u8, targets: &[Vec<u8>], segments: &[Vec<u8>]) -> Vec<u8> {
        let targets = targets.concat();
        let segments = segments.concat();
        let mut list = vec![1, flags];
        list.extend_from_slice(&u16::try_from(targets.len()).unwrap().to_be_bytes());
        list.extend_from_slice(&[0; 4]);
        list.extend_from_slice(&u32::try_from(segments.len()).unwrap().to_be_bytes());
        list.extend_from_slice(&[0; 4]);
        list.extend_from_slice(&targets);
        list.extend_from_slice(&segments);
        list
    }

    #[test]
    fn a_list_gives_its_targets_and_segments() {
        let copy = parse(&list(0, &[target(0xe4), target(0xe4)], &[segment(2, 1)])).unwrap();
        assert_eq!((copy.list_id, copy.is_listed), (1, true));
        assert_eq!(copy.targets[1], CopyTarget { designator_type: 3, designator: NAA.to_vec(), sector_bytes: 512 });
        let expected = CopySegment { source: 0, destination: 1, source_lba: 5, destination_lba: 9, blocks: 0x800 };
        assert_eq!(copy.segments, [expected]);
        assert_eq!(parse(&[]), Ok(CopyList::default()));
    }

    #[test]
    fn a_list_that_is_cut_is_refused() {
        let whole = list(0, &[target(0xe4)], &[segment(2, 0)]);
        for len in 1..whole.len() {
            assert_eq!(parse(&whole[..len]), Err(Sense::PARAMETER_LIST_LENGTH));
        }
    }

    #[test]
    fn more_descriptors_than_told_are_refused() {
        let targets = vec![target(0xe4); 17];
        let segments = vec![segment(2, 0); 17];
        assert!(parse(&list(0, &targets[..16], &segments[..16])).is_ok());
        assert_eq!(parse(&list(0, &targets, &segments[..1])), Err(Sense::TOO_MANY_TARGETS));
        assert_eq!(parse(&list(0, &targets[..1], &segments)), Err(Sense::TOO_MANY_SEGMENTS));
        assert_eq!(parse(&list(0, &targets, &segments)), Err(Sense::PARAMETER_LIST_LENGTH));
    }

    #[test]
    fn unknown_descriptors_are_refused() {
        assert_eq!(parse(&list(0, &[target(0xe0)], &[segment(2, 0)])), Err(Sense::TARGET_DESCRIPTOR_TYPE));
        assert_eq!(parse(&list(0, &[target(0xe4)], &[segment(3, 0)])), Err(Sense::SEGMENT_DESCRIPTOR_TYPE));
    }

    #[test]
    fn a_segment_to_a_target_not_listed_aborts_the_copy() {
        assert_eq!(parse(&list(0, &[target(0xe4)], &[segment(2, 1)])), Err(Sense::COPY_TARGET_UNREACHABLE));
    }

    #[test]
    fn inline_data_are_refused() {
        let mut with_inline = list(0, &[target(0xe4)], &[segment(2, 0)]);
        with_inline[15] = 4;
        with_inline.extend_from_slice(&[0; 4]);
        assert_eq!(parse(&with_inline), Err(Sense::INLINE_DATA));
    }

    #[test]
    fn a_wrong_descriptor_is_pointed_at() {
        let mut not_a_disk = target(0xe4);
        not_a_disk[1] = 0x01;
        let refused = parse(&list(0, &[target(0xe4), not_a_disk], &[]));
        assert_eq!(refused, Err(Sense::invalid_in_parameters(16 + 32)));
        let mut long = segment(2, 0);
        long[3] = 25;
        assert_eq!(parse(&list(0, &[target(0xe4)], &[long])), Err(Sense::invalid_in_parameters(16 + 32)));
    }

    #[test]
    fn a_copy_is_listed_unless_it_says_it_has_no_name() {
        assert!(parse(&list(0x10, &[], &[])).unwrap().is_listed);
        assert_eq!(parse(&list(0x08, &[], &[])), Err(Sense::invalid_in_parameters(1)));
        let mut nameless = list(0x18, &[], &[]);
        assert_eq!(parse(&nameless), Err(Sense::invalid_in_parameters(0)));
        nameless[0] = 0;
        assert!(!parse(&nameless).unwrap().is_listed);
    }

    #[test]
    fn operating_parameters_tell_the_limits() {
        let data = operating_parameters();
        assert_eq!(data.len(), 46);
        assert_eq!(data[..4], [0, 0, 0, 42]);
        assert_eq!(data[8..16], [0, 16, 0, 16, 0, 0, 3, 0xc0]);
        assert_eq!(data[16..20], [0x01, 0xff, 0xfe, 0x00]);
        assert_eq!(data[34..40], [0, 16, 16, 9, 0, 0]);
        assert_eq!(data[43..], [2, 0x02, 0xe4]);
    }

    #[test]
    fn copy_status_counts_in_kib_what_is_too_much_for_bytes() {
        let status = CopyStatus { state: CopyState::Completed, segments: 2, bytes: 1 << 20 };
        assert_eq!(copy_status(&status), [0, 0, 0, 8, 1, 0, 2, 0, 0, 0x10, 0, 0]);
        let status = CopyStatus { state: CopyState::Failed, segments: 2, bytes: 1 << 32 };
        assert_eq!(copy_status(&status), [0, 0, 0, 8, 2, 0, 2, 1, 0, 0x40, 0, 0]);
    }

    #[test]
    fn failed_details_hold_the_sense_data() {
        assert_eq!(failed_details(None), [0; 4]);
        let data = failed_details(Some((Status::CheckCondition, &Sense::COPY_ABORTED)));
        assert_eq!(data[..4], [0, 0, 0, 74]);
        assert_eq!(data[56..60], [2, 0, 0, 18]);
        assert_eq!(data[60..], Sense::COPY_ABORTED.encode(false));
    }

    #[test]
    fn third_party_copy_descriptors_are_multiples_of_four() {
        let page = third_party_copy_descriptors();
        let mut rest = page.as_slice();
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            kinds.push(u16::from_be_bytes([rest[0], rest[1]]));
            let len = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            assert_eq!(len % 4, 0);
            rest = &rest[4 + len..];
        }
        assert_eq!(kinds, [0x0001, 0x0004, 0x0008, 0x000c, 0x8001]);
        assert_eq!(page[..16], [0, 1, 0, 12, 8, 0x83, 1, 0, 0x84, 3, 0, 3, 4, 0, 0, 0]);
    }
}
