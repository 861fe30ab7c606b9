//! Parameter data of the commands on capacity, provisioning, logical units and target ports.
//! Spec: SBC-3 5.15 and 5.16 "READ CAPACITY", 5.4 "GET LBA STATUS", 5.28 "UNMAP"; SPC-4 6.33 "REPORT LUNS", 6.37 "REPORT
//! TARGET PORT GROUPS".

use super::cdb::Span;
use super::inquiry::Limits;
use super::lun::Lun;
use super::sense::Sense;
use super::{SECTOR_BYTES, SECTORS_PER_BLOCK_EXPONENT};
use crate::wire::{take, take_u16, take_u32, take_u64};

/// READ CAPACITY(10): the last block, or all ones if it needs the other command, and the length of a block.
#[must_use]
pub fn read_capacity10(blocks: u64) -> Vec<u8> {
    let last = u32::try_from(blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    let mut data = last.to_be_bytes().to_vec();
    data.extend_from_slice(&SECTOR_BYTES.to_be_bytes());
    data
}

/// READ CAPACITY(16): the last block, no protection, the physical block, thin provisioning with zeros in holes.
#[must_use]
pub fn read_capacity16(blocks: u64) -> Vec<u8> {
    let mut data = blocks.saturating_sub(1).to_be_bytes().to_vec();
    data.extend_from_slice(&SECTOR_BYTES.to_be_bytes());
    // LBPME and LBPRZ; block 0 is aligned.
    data.extend_from_slice(&[0, SECTORS_PER_BLOCK_EXPONENT, 0xc0, 0]);
    data.resize(32, 0);
    data
}

/// REPORT LUNS: each logical unit, in the order given.
#[must_use]
pub fn report_luns(luns: impl IntoIterator<Item = Lun>) -> Vec<u8> {
    let mut data = vec![0; 8];
    for lun in luns {
        data.extend_from_slice(&lun.encode());
    }
    write_length(&mut data, 8);
    data
}

/// GET LBA STATUS: runs of blocks, the first of which begins with `lba`, and whether they are mapped.
#[must_use]
pub fn lba_status(lba: u64, runs: impl IntoIterator<Item = (u32, bool)>) -> Vec<u8> {
    let mut data = vec![0; 8];
    let mut next = lba;
    for (blocks, is_mapped) in runs {
        data.extend_from_slice(&next.to_be_bytes());
        data.extend_from_slice(&blocks.to_be_bytes());
        // 0 mapped, 1 deallocated.
        data.extend_from_slice(&[u8::from(!is_mapped), 0, 0, 0]);
        next = next.saturating_add(blocks.into());
    }
    write_length(&mut data, 4);
    data
}

/// UNMAP's parameter list: the blocks to unmap, in order; they may overlap and be empty. An empty list asks for nothing.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR if it is shorter than it says; INVALID FIELD IN PARAMETER LIST if it has more descriptors or
/// names more blocks than the limits allow.
pub fn unmap_list(list: &[u8], limits: &Limits) -> Result<Vec<Span>, Sense> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let mut rest = list;
    let descriptors_bytes = take_unmap_header(&mut rest).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let (descriptors, _) = rest.split_at_checked(descriptors_bytes).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    // A last descriptor that is not whole is ignored, as the standard says.
    let (descriptors, _) = descriptors.as_chunks::<16>();
    if u32::try_from(descriptors.len()).is_ok_and(|count| count > limits.unmap_descriptors_max) {
        return Err(Sense::invalid_in_parameters(2));
    }
    let mut spans = Vec::with_capacity(descriptors.len());
    let mut blocks: u64 = 0;
    for descriptor in descriptors {
        let mut fields = descriptor.as_slice();
        let (Some(lba), Some(count)) = (take_u64(&mut fields), take_u32(&mut fields)) else { break };
        blocks = blocks.saturating_add(count.into());
        spans.push(Span { lba, blocks: count.into() });
    }
    if blocks > limits.unmap_blocks_max.into() {
        return Err(Sense::INVALID_FIELD_IN_PARAMETERS);
    }
    Ok(spans)
}

/// UNMAP DATA LENGTH, UNMAP BLOCK DESCRIPTOR DATA LENGTH, reserved. The first must be enough for the second.
fn take_unmap_header(rest: &mut &[u8]) -> Option<usize> {
    let data_bytes = take_u16(rest)?;
    let descriptors_bytes = take_u16(rest)?;
    let _reserved: [u8; 4] = take(rest)?;
    (usize::from(data_bytes) >= usize::from(descriptors_bytes) + 6).then_some(descriptors_bytes.into())
}

/// REPORT TARGET PORT GROUPS: one group, active/optimized, with at most 255 relative target ports.
#[must_use]
pub fn report_target_port_groups(extended: bool, group: u16, ports: &[u16]) -> Vec<u8> {
    let mut data = vec![0; 4];
    if extended {
        data.extend_from_slice(&[0x10, 0, 0, 0]);
    }
    let [group_high, group_low] = group.to_be_bytes();
    let count = u8::try_from(ports.len()).unwrap_or(u8::MAX);
    // Active/optimized is the only state there is (AO_SUP).
    data.extend_from_slice(&[0x00, 0x01, group_high, group_low, 0, 0, 0, count]);
    for port in ports.iter().take(count.into()) {
        let [high, low] = port.to_be_bytes();
        data.extend_from_slice(&[0, 0, high, low]);
    }
    write_length(&mut data, 4);
    data
}

/// Writes into the first four bytes how many follow the first `not_counted`.
fn write_length(data: &mut [u8], not_counted: usize) {
    let counted = data.len().saturating_sub(not_counted);
    if let Some(length) = data.first_chunk_mut::<4>() {
        *length = u32::try_from(counted).unwrap_or(u32::MAX).to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmap_bytes(descriptors: &[(u64, u32)]) -> Vec<u8> {
        let count = u16::try_from(16 * descriptors.len()).unwrap();
        let mut list = (count + 6).to_be_bytes().to_vec();
        list.extend_from_slice(&count.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
        for (lba, blocks) in descriptors {
            list.extend_from_slice(&lba.to_be_bytes());
            list.extend_from_slice(&blocks.to_be_bytes());
            list.extend_from_slice(&[0; 4]);
        }
        list
    }

    #[test]
    fn a_capacity_that_needs_the_long_command_is_all_ones() {
        assert_eq!(read_capacity10(1), [0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(read_capacity10(1 << 32), [0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
        assert_eq!(read_capacity10(1 << 40)[..4], [0xff; 4]);
    }

    #[test]
    fn the_long_capacity_tells_of_physical_blocks_and_thin_provisioning() {
        let data = read_capacity16(0x1_0000_0000);
        assert_eq!(data.len(), 32);
        assert_eq!(data[..16], [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0, 0, 3, 0xc0, 0]);
    }

    #[test]
    fn luns_are_counted_in_bytes() {
        let data = report_luns([Lun(0), Lun(300)]);
        assert_eq!(data, [0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x41, 0x2c, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn lba_status_runs_follow_each_other() {
        let data = lba_status(8, [(8, true), (16, false)]);
        assert_eq!(data[..8], [0, 0, 0, 36, 0, 0, 0, 0]);
        assert_eq!(data[8..24], [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0]);
        assert_eq!(data[24..], [0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 16, 1, 0, 0, 0]);
    }

    #[test]
    fn an_unmap_list_gives_its_spans_even_empty_ones() {
        let limits = Limits::default();
        let spans = unmap_list(&unmap_bytes(&[(8, 16), (u64::MAX, 0)]), &limits);
        assert_eq!(spans, Ok(vec![Span { lba: 8, blocks: 16 }, Span { lba: u64::MAX, blocks: 0 }]));
        assert_eq!(unmap_list(&unmap_bytes(&[]), &limits), Ok(vec![]));
        assert_eq!(unmap_list(&[], &limits), Ok(vec![]));
    }

    #[test]
    fn an_unmap_list_that_is_cut_is_refused() {
        let whole = unmap_bytes(&[(8, 16)]);
        for len in 1..whole.len() {
            assert_eq!(unmap_list(&whole[..len], &Limits::default()), Err(Sense::PARAMETER_LIST_LENGTH));
        }
    }

    #[test]
    fn an_unmap_list_beyond_the_limits_is_refused() {
        let limits = Limits { unmap_descriptors_max: 2, unmap_blocks_max: 100, ..Limits::default() };
        assert!(unmap_list(&unmap_bytes(&[(0, 50), (0, 50)]), &limits).is_ok());
        assert_eq!(unmap_list(&unmap_bytes(&[(0, 50), (0, 51)]), &limits), Err(Sense::INVALID_FIELD_IN_PARAMETERS));
        assert_eq!(unmap_list(&unmap_bytes(&[(0, 1); 3]), &limits), Err(Sense::invalid_in_parameters(2)));
    }

    #[test]
    fn a_port_group_names_its_ports() {
        let data = report_target_port_groups(false, 7, &[1, 2]);
        assert_eq!(data, [0, 0, 0, 16, 0, 1, 0, 7, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
        let extended = report_target_port_groups(true, 7, &[1]);
        assert_eq!(extended[..8], [0, 0, 0, 16, 0x10, 0, 0, 0]);
        assert_eq!(report_target_port_groups(false, 1, &[1; 300]).len(), 4 + 8 + 4 * 255);
    }
}
