//! The other site sends any bytes: openings and frames are decoded without harm however they are divided, what is kept of them is
//! bounded, and what is decoded is encoded to the same. First byte: openings, or frames and how they are divided.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replication::wire::{Incoming, Opening, Outgoing};

/// What a batch may have: little, since a fuzzer has better uses for its time than zeros.
const CREDIT: u64 = 1 << 20;

fn openings(mut bytes: &[u8]) {
    while let Ok(Some(opening)) = Opening::decode(&mut bytes) {
        assert_eq!(Opening::decode(&mut opening.encode().as_slice()), Ok(Some(opening)));
    }
}

fn frames(bytes: &[u8], piece_bytes: usize) {
    let mut incoming = Incoming::default();
    let mut kept: Vec<u8> = Vec::new();
    let mut pieces = bytes.chunks(piece_bytes);
    let mut passed = 0;
    loop {
        let mut input = kept.as_slice();
        let Ok(frame) = incoming.take(&mut input, CREDIT) else { return };
        kept = input.to_vec();
        if let Some(frame) = frame {
            assert!(frame.payload_bytes() <= CREDIT);
            let again: Vec<u8> = Outgoing::new(frame).slices().flatten().copied().collect();
            assert!(bytes[passed..].starts_with(&again), "what was read is written the same");
            passed += again.len();
            continue;
        }
        let Some(mut piece) = pieces.next() else { return };
        while let Some(space) = incoming.space().filter(|_| kept.is_empty() && !piece.is_empty()) {
            let count = space.len().min(piece.len());
            space[..count].copy_from_slice(&piece[..count]);
            incoming.advance(count);
            piece = &piece[count..];
        }
        kept.extend_from_slice(piece);
        assert!(kept.len() <= Incoming::INPUT_BYTES + piece_bytes);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind {
        0 => openings(bytes),
        _ => frames(bytes, usize::from(*kind) * usize::from(*kind)),
    }
});
