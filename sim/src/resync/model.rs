//! What the volume holds, as its only client knows: after each operation, so that it can be told for any of them.

use std::collections::BTreeMap;
use std::ops::Range;
use units::{BLOCK_BYTES, Lsn};
use volume::pool::Boundary;

/// What each block holds that holds anything; zeros are nothing.
pub(super) type Image = BTreeMap<u64, u64>;

/// What an operation did.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Blocks got a value each, counted from it.
    Write(Range<u64>, u64),
    /// Blocks were forgotten, or made zeros.
    Clear(Range<u64>),
    /// The volume became so many bytes long.
    Resize(u64),
}

/// All that was done.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Each with the last operation of the log then.
    changes: Vec<(Lsn, Change)>,
    pub(super) boundaries: BTreeMap<u64, Boundary>,
}

impl Model {
    pub(super) fn note(&mut self, lsn: Lsn, change: Change) {
        self.changes.push((lsn, change));
    }

    /// What the volume held after an operation.
    pub(super) fn at(&self, lsn: Lsn) -> Image {
        let mut image = Image::new();
        for (_, change) in self.changes.iter().take_while(|(at, _)| *at <= lsn) {
            match change {
                Change::Write(blocks, value) => image.extend(blocks.clone().zip(*value..)),
                Change::Clear(blocks) => image.retain(|block, _| !blocks.contains(block)),
                Change::Resize(bytes) => image.retain(|block, _| *block < bytes / BLOCK_BYTES),
            }
        }
        image
    }
}
