//! Block 0 of the ledger's volume: that it is one, and from where on it is whole. Written in place; a block is whole or as before.

use super::blocks::{BlockError, Line, Place, decode_block, encode_batch};
use super::head::LedgerId;
use super::text::{NotCanonical, Text};

/// Where the first batch begins.
pub(super) const FIRST_BLOCK: u64 = 1;

/// What block 0 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// Which ledger it is.
    pub(super) id: LedgerId,
    /// Block from which on nothing was dropped: the first, or one where a head begins.
    pub(super) whole_from: u64,
    /// Block up to which all that was dropped has been trimmed; at most `whole_from`.
    pub(super) swept_to: u64,
}

impl Start {
    pub(super) const fn new(id: LedgerId) -> Self {
        Self { id, whole_from: FIRST_BLOCK, swept_to: FIRST_BLOCK }
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let Self { id, whole_from, swept_to } = self;
        let text = format!("{{\"ledger\":1,\"id\":\"{id}\",\"whole_from\":{whole_from},\"swept_to\":{swept_to}}}");
        let place = Place { first: 0, batch: 0, head: 0, chain: 0 };
        encode_batch(place, &[Line { text, is_kept: true }]).expect("a short line fits in a block").0
    }

    /// `None` when the block is not there.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<Self>, BlockError> {
        let Some(block) = decode_block(0, bytes)? else { return Ok(None) };
        let line = block.lines.strip_suffix(b"\n").filter(|_| block.batch == 0).ok_or(BlockError::Field)?;
        Self::parse(line).map(Some).map_err(|_| BlockError::Field)
    }

    fn parse(line: &[u8]) -> Result<Self, NotCanonical> {
        let mut text = Text::new(line);
        text.literal("{\"ledger\":1,\"id\":\"")?;
        let id = LedgerId(text.hex()?);
        text.literal("\",\"whole_from\":")?;
        let whole_from = text.number()?;
        text.literal(",\"swept_to\":")?;
        let refusal = text.refusal();
        let swept_to = text.number()?;
        text.literal("}")?;
        text.end()?;
        if swept_to == 0 || swept_to > whole_from {
            return Err(refusal);
        }
        Ok(Self { id, whole_from, swept_to })
    }
}
