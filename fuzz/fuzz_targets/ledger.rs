//! Whatever is handed in as a bundle, and whatever a volume returns as the ledger's blocks, is answered without harm; a line
//! that is taken is written as it was read. First byte: what it is. Under fuzzing the CRC of blocks is not compared.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metering::ledger::{
    Entry, Head, Kind, LineReader, NewEntry, Recovery, SigningKey, Trust, Verifier, decode_readings, encode_readings,
    is_droppable, verify,
};
use units::TenantId;

const BLOCK: usize = 4096;
const CAPACITY_BLOCKS: u64 = 300;

fn bundle(bytes: &[u8]) {
    let trust = Trust { keys: vec![SigningKey::from_seed(&[1; 32]).public()], heads: Vec::new() };
    let whole = verify(bytes, trust.clone());
    let mut verifier = Verifier::new(trust);
    let mut pushed = Ok(());
    for piece in bytes.chunks(7) {
        pushed = verifier.push(piece, &mut |_| ());
    }
    assert_eq!(pushed.and_then(|()| verifier.finish()), whole);
}

fn lines(bytes: &[u8]) {
    if let Ok(head) = Head::parse(bytes) {
        assert_eq!(head.line().as_bytes(), bytes);
        assert_eq!(Head::parse(bytes).map(|again| again.hash()), Ok(head.hash()));
    }
    if let Ok(entry) = Entry::parse(bytes)
        && let Some(readings) = decode_readings(entry.tenant, entry.payload)
    {
        assert_eq!(encode_readings(&readings), [entry.payload]);
    }
}

/// Blocks 0, 1, 2 and so on of a volume that is else zeros.
fn volume(bytes: &[u8]) {
    let block = |number: u64| {
        let begin = usize::try_from(number).unwrap() * BLOCK;
        let there = bytes.get(begin..).unwrap_or_default();
        let mut block = there[..there.len().min(BLOCK)].to_vec();
        block.resize(BLOCK, 0);
        block
    };
    let mut reader = LineReader::default();
    for number in 0..4 {
        let droppable = is_droppable(number, &block(number));
        assert_eq!(reader.block(number, &block(number)).is_ok(), droppable.is_ok());
    }
    let mut recovery = Recovery::new(CAPACITY_BLOCKS);
    let mut reads = 0;
    while let Some(blocks) = recovery.wants() {
        reads += 1;
        assert!(reads < 1000 && blocks.start < blocks.end && blocks.end <= CAPACITY_BLOCKS);
        if recovery.take(&blocks.flat_map(block).collect::<Vec<_>>()).is_err() {
            return;
        }
    }
    if let Ok(Some(mut ledger)) = recovery.finish() {
        ledger.on_durable();
        let note = NewEntry { tenant: TenantId(1), kind: Kind::Note, time_ms: 0, payload: "1" };
        assert!(ledger.append(&[note]).is_ok());
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 3 {
        0 => bundle(bytes),
        1 => lines(bytes),
        _ => volume(bytes),
    }
});
