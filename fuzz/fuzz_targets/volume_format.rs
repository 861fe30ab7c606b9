//! Whatever a disk returns: every structure of the pool and the map is decoded without harm, and what is decoded is encoded
//! to what decodes to the same. First byte: which structure. Under fuzzing the decoders do not compare checksums, so that
//! the fields behind them are reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use volume::format::{
    SlotHeader, Superblock, decode_batch, decode_footer_trailer, decode_parcel_start, encode_batch, encode_footer,
    encode_parcel,
};
use volume::map::{Change, PAGE_BLOCKS, Page};

fn superblock(bytes: &[u8]) {
    if let Ok(superblock) = Superblock::decode(bytes) {
        assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
    }
}

fn slot_header(bytes: &[u8]) {
    if let Ok(header) = SlotHeader::decode(bytes) {
        let mut block = [0; 4096];
        header.encode(&mut block);
        assert_eq!(SlotHeader::decode(&block), Ok(header));
    }
}

fn batch(bytes: &[u8]) {
    if let Ok((header, _)) = decode_batch(bytes) {
        let mut out = vec![0; header.header_blocks() as usize * 4096];
        encode_batch(&header, &mut out);
        assert_eq!(decode_batch(&out).map(|(again, _)| again), Ok(header));
    }
}

fn footer(bytes: &[u8]) {
    let Some((trailer, index)) = bytes.split_at_checked(4096) else { return };
    let Ok(trailer) = decode_footer_trailer(trailer) else { return };
    let index_len = trailer.index_blocks as usize * 4096;
    let mut padded = index.to_vec();
    padded.resize(index_len.min(1 << 16), 0);
    if let Ok(footer) = trailer.with_index(&padded) {
        assert!(!encode_footer(&footer).is_empty());
    }
}

fn parcel(bytes: &[u8]) {
    let Ok(start) = decode_parcel_start(bytes) else { return };
    assert!(start.header.block + start.total_blocks() <= start.header.copy);
    assert!(start.header.copy + start.header_blocks() <= 1 << 16);
    let mut block = [0xff; 512];
    start.make_void(&mut block);
    let void = decode_parcel_start(&block).expect("a parcel made void is one");
    assert_eq!((void.is_void, void.header, void.total_blocks()), (true, start.header, start.total_blocks()));
    let mut padded = bytes.to_vec();
    padded.resize((start.header_blocks() as usize * 4096).min(1 << 16), 0);
    if let Ok(parcel) = start.with_index(&padded) {
        let again = encode_parcel(&parcel);
        assert_eq!(decode_parcel_start(&again).and_then(|start| start.with_index(&again)), Ok(parcel));
    }
}

fn page(bytes: &[u8]) {
    let Ok(mut page) = Page::decode(bytes) else { return };
    let before = page.mapped_blocks();
    assert_eq!(Page::decode(&page.encode()), Ok(page.clone()));
    page.change(100, 50, Change::Hole);
    assert!(page.mapped_blocks() <= before);
    page.change(0, PAGE_BLOCKS, Change::Hole);
    assert_eq!(page.mapped_blocks(), 0);
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 6 {
        0 => superblock(bytes),
        1 => slot_header(bytes),
        2 => batch(bytes),
        3 => footer(bytes),
        4 => page(bytes),
        _ => parcel(bytes),
    }
});
