//! Parcels: what is decoded is what was encoded, and what no writer gives is refused.

use super::super::{OperationKind, vectors};
use super::*;
use proptest::prelude::*;
use units::{BlockIndex, BlockRange};

fn operation(kind: OperationKind, first: u64, count: u64) -> Operation {
    Operation { kind, range: BlockRange::new(BlockIndex(first), count) }
}

fn entry(lsn: u64, kind: OperationKind, range: (u64, u64), block: u32) -> ParcelEntry {
    ParcelEntry { lsn: Lsn(lsn), operation: operation(kind, range.0, range.1), block }
}

const fn header() -> ParcelHeader {
    ParcelHeader {
        block: 17,
        copy: 8190,
        parcels: 3,
        pool: PoolId([9; 16]),
        pack: SegmentId(78),
        segment: SegmentId(77),
        part: 2,
        cut: Cut::FINEST,
        parts: PartSet::of_bits(0b101),
        volume: VolumeId(3),
        epoch: Epoch(2),
        first_lsn: Lsn(1000),
        last_lsn: Lsn(1999),
        size_bytes: 1 << 40,
        clean_lsn: Lsn(2500),
        chain_before: 0xdead_beef,
        chain_after: 0xfeed_f00d,
        moves: 1,
    }
}

fn sample() -> Parcel {
    let entries = vec![
        entry(1000, OperationKind::Write, (500, 2), 2),
        entry(1000, OperationKind::Write, (510, 1), 12),
        entry(1003, OperationKind::Trim, (0, 1 << 40), 0),
        entry(1900, OperationKind::Write, (7, 1), 4000),
    ];
    Parcel { header: header(), entries, checks: vec![0x1111_1111, 0x2222_2222, 0x3333_3333, 0x4444_4444] }
}

fn decode(bytes: &[u8]) -> Result<Parcel, FormatError> {
    decode_parcel_start(bytes)?.with_index(bytes)
}

/// What the parcel is decoded to after `change`, made by a writer that sums up whatever it has.
fn changed(change: impl FnOnce(&mut Parcel)) -> Result<Parcel, FormatError> {
    let mut parcel = sample();
    change(&mut parcel);
    decode(&encode_parcel(&parcel))
}

/// What the start is decoded to when the number at `at` is `value` and the CRC is right.
fn start_with(at: usize, value: u32) -> Result<ParcelStart, FormatError> {
    let mut bytes = encode_parcel(&sample());
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let crc = crc32c(&bytes[..CRC_AT]);
    bytes[CRC_AT..INDEX_AT].copy_from_slice(&crc.to_le_bytes());
    decode_parcel_start(&bytes)
}

#[test]
fn the_golden_parcel_is_read_and_written() {
    let golden = vectors::block(include_str!("../../../vectors/parcel-v5.hex"));
    assert_eq!(decode(&golden), Ok(sample()));
    assert_eq!(encode_parcel(&sample()), golden);
    let start = decode_parcel_start(&golden).unwrap();
    assert_eq!((start.header_blocks(), start.payload_blocks, start.total_blocks()), (1, 4, 5));
    assert_eq!(sample().pack_blocks(), 6);
    let mut voided = golden;
    start.make_void(&mut voided);
    assert_eq!(voided, vectors::block(include_str!("../../../vectors/parcel-void-v5.hex")));
}

/// Version 2 had no parts: what it wrote is all of a segment.
#[test]
fn parcels_of_the_versions_before_are_read() {
    let third = (include_str!("../../../vectors/parcel-v3.hex"), include_str!("../../../vectors/parcel-void-v3.hex"));
    let fourth = (include_str!("../../../vectors/parcel-v4.hex"), include_str!("../../../vectors/parcel-void-v4.hex"));
    for (golden, voided) in [third, fourth].map(|(golden, voided)| (vectors::block(golden), vectors::block(voided))) {
        assert_eq!(decode(&golden), Ok(sample()));
        assert!(decode_parcel_start(&voided).is_ok_and(|start| start.is_void && start.header == header()));
    }
    let whole = ParcelHeader { part: 0, cut: Cut::WHOLE, parts: PartSet::default(), ..header() };
    let golden = vectors::block(include_str!("../../../vectors/parcel-v2.hex"));
    assert_eq!(decode(&golden), Ok(Parcel { header: whole, ..sample() }));
    let voided = vectors::block(include_str!("../../../vectors/parcel-void-v2.hex"));
    assert!(decode_parcel_start(&voided).is_ok_and(|start| start.is_void && start.header == whole));
}

/// P2.
#[test]
fn every_flipped_byte_of_the_header_is_refused() {
    let bytes = encode_parcel(&sample());
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x20;
        assert!(decode(&bad).is_err(), "flip at {at}");
    }
}

/// P2.
#[test]
fn a_tear_while_a_parcel_is_made_void_leaves_it_whole_or_void() {
    let before = encode_parcel(&sample());
    let mut after = before.clone();
    decode_parcel_start(&before).unwrap().make_void(&mut after);
    let sector = usize::try_from(SECTOR_BYTES).unwrap();
    assert_eq!(after[sector..], before[sector..], "one sector changes");
    let start = decode_parcel_start(&after).unwrap();
    assert!(start.is_void);
    assert_eq!(start.total_blocks(), 5, "a walk goes over it");
    assert_eq!(start.with_index(&after), Err(FormatError::Field("use")));
    // Its first sector is enough, and to make it void again changes nothing.
    assert_eq!(decode_parcel_start(&after[..sector]), Ok(start));
    let again = after.clone();
    start.make_void(&mut after);
    assert_eq!(after, again);
}

#[test]
fn a_header_cut_short_asks_for_more() {
    let bytes = encode_parcel(&sample());
    for len in 0..INDEX_AT {
        assert_eq!(decode_parcel_start(&bytes[..len]), Err(FormatError::Short), "{len} bytes");
    }
    let start = decode_parcel_start(&bytes[..INDEX_AT]).unwrap();
    assert_eq!(start.with_index(&bytes[..INDEX_AT]), Err(FormatError::Short));
    assert_eq!(start.with_index(&bytes[..bytes.len() - 1]), Err(FormatError::Short));
}

/// P6. Whatever counts a start tells, nothing is allocated for more than the bytes that are there.
#[test]
fn counts_that_no_slot_holds_are_refused() {
    for (at, what) in [(12, "block"), (132, "entries"), (136, "payload blocks"), (140, "header blocks")] {
        for value in [u32::MAX, u32::MAX - 1, 1 << 31, 1 << 16] {
            assert_eq!(start_with(at, value), Err(FormatError::Field("counts")), "{what} {value}");
        }
    }
    // 17 to 22 are the parcel.
    for copy in [0, 17, 21, 1 << 16, u32::MAX] {
        assert_eq!(start_with(96, copy), Err(FormatError::Field("block of the copy")), "{copy}");
    }
    assert!(start_with(96, 22).is_ok_and(|start| start.is_at(22) && start.is_at(17) && !start.is_at(21)));
    assert_eq!(start_with(140, 0), Err(FormatError::Field("counts")));
    assert_eq!(start_with(140, 2), Err(FormatError::Field("counts")));
    assert_eq!(start_with(12, 0), Err(FormatError::Field("block")));
}

#[test]
fn fields_that_no_writer_gives_are_refused() {
    let refused = |change: fn(&mut ParcelHeader), field| {
        assert_eq!(changed(|parcel| change(&mut parcel.header)), Err(FormatError::Field(field)));
    };
    refused(|h| h.segment = SegmentId(SegmentId::MAX.0 + 1), "segment id");
    refused(|h| h.pack = SegmentId(u64::MAX), "segment id");
    refused(|h| h.pack = h.segment, "segment id");
    refused(|h| (h.last_lsn, h.clean_lsn) = (Lsn(u64::MAX), Lsn(u64::MAX)), "last LSN");
    refused(|h| h.last_lsn = Lsn(998), "last LSN");
    refused(|h| h.clean_lsn = Lsn(1998), "clean LSN");
    refused(|h| h.moves = 0, "move");
    refused(|h| h.parcels = 0, "parcels");
    refused(|h| h.part = 8, "part");
    refused(|h| h.part = 1, "parts of the commit");
    refused(|h| (h.part, h.cut) = (0, Cut::of_log2(1).unwrap()), "parts of the commit");
    refused(|h| (h.part, h.cut) = (1, Cut::WHOLE), "part");
    assert_eq!(start_with(104, 4 << 8), Err(FormatError::Field("number of parts")));
    let first = |parcel: &mut Parcel| *parcel = Parcel { entries: Vec::new(), checks: Vec::new(), ..sample() };
    assert!(changed(first).is_ok(), "a parcel without entries tells where the log goes on");
    assert_eq!(start_with(8, 0x0401_0001), Err(FormatError::Version(1)), "version 1 had no parcels");
    assert_eq!(start_with(8, 0x0401_0006), Err(FormatError::Version(6)));
    assert_eq!(start_with(8, 0x0403_0002), Err(FormatError::Field("use")));
    assert_eq!(start_with(8, 0x1001_0002), Err(FormatError::Field("check data width")));
}

#[test]
fn entries_that_are_not_in_order_are_refused() {
    let refused = |change: fn(&mut Parcel), field| {
        assert_eq!(changed(change), Err(FormatError::Field(field)));
    };
    refused(|p| p.entries.swap(0, 1), "block of the payload");
    refused(|p| p.entries[1].block = 3, "block of the payload");
    refused(|p| p.entries[0].block = 0, "block of the payload");
    refused(|p| p.entries[3].block = 0xffff + 1, "block of the payload");
    refused(|p| p.entries[3].block = u32::MAX, "block of the payload");
    refused(|p| p.entries[2].block = 13, "block without payload");
    refused(|p| p.entries[3].lsn = Lsn(1002), "LSN");
    refused(|p| p.entries[3].lsn = Lsn(1003), "LSN");
    refused(|p| p.entries[2].lsn = Lsn(1000), "LSN");
    refused(|p| p.entries[3].lsn = Lsn(2000), "LSN");
    refused(|p| p.checks.truncate(3), "payload blocks");
    refused(|p| p.checks.push(5), "payload blocks");
    assert!(changed(|p| p.entries[3].block = 0xffff).is_ok());
}

/// An entry by how far it is from the one before: in LSNs and blocks, and what it does.
type Step = (u64, u32, u8, u64, u64);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0_u64..300, 0_u32..80, 0_u8..5, 0_u64..1 << 40, 1_u64..8), 0..300)
}

/// Turns steps into a parcel: whatever they are, LSNs and blocks ascend as a writer has them.
fn parcel_of(header: ParcelHeader, steps: &[Step]) -> Parcel {
    let mut parcel = Parcel { header, entries: Vec::new(), checks: Vec::new() };
    let (mut lsn, mut block, mut may_share) = (header.first_lsn.0, 1, false);
    for (lsns, gap, kind, first, count) in steps {
        let kind = match kind {
            0 => OperationKind::Trim,
            1 => OperationKind::WriteZeroes,
            _ => OperationKind::Write,
        };
        let is_write = kind == OperationKind::Write;
        let is_first = parcel.entries.is_empty();
        lsn += if is_first || (may_share && is_write) { *lsns } else { (*lsns).max(1) };
        may_share = is_write;
        let operation = operation(kind, *first, *count);
        let at = if is_write { block + gap } else { 0 };
        if is_write {
            block = at + operation.payload_blocks();
            parcel.checks.extend((at..block).map(|n| n.wrapping_mul(0x9e37_79b9)));
        }
        parcel.entries.push(ParcelEntry { lsn: Lsn(lsn), operation, block: at });
    }
    parcel.header.last_lsn = Lsn(lsn);
    parcel.header.clean_lsn = Lsn(lsn + 5);
    parcel
}

proptest! {
    #[test]
    fn decodes_what_it_encodes(
        steps in steps(),
        (block, first_lsn, moves) in (1_u32..1000, 1_u64..1 << 61, 1_u32..u32::MAX),
        flip in any::<prop::sample::Index>(),
    ) {
        let header = ParcelHeader { block, copy: 60_000, first_lsn: Lsn(first_lsn), moves, ..header() };
        let parcel = parcel_of(header, &steps);
        let mut bytes = encode_parcel(&parcel);
        prop_assert_eq!(bytes.len(), parcel.header_blocks() as usize * BLOCK_LEN);
        let start = decode_parcel_start(&bytes).unwrap();
        prop_assert_eq!(start.total_blocks() + start.header_blocks(), parcel.pack_blocks());
        prop_assert_eq!(start.header_blocks(), parcel.header_blocks());
        prop_assert_eq!(decode(&bytes), Ok(parcel));
        let at = flip.index(bytes.len());
        bytes[at] ^= 1;
        prop_assert!(decode(&bytes).is_err(), "flip at {}", at);
    }
}
