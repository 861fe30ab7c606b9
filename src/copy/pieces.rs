//! What is to be read: the source's data in order, cut into pieces of whole blocks, or of what the sides want for one.

use crate::nbd::{Connection, NbdError};
use proto::nbd::StatusExtent;
use proto::nbd::constants::STATE_ZERO;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Most bytes of a piece.
pub(super) const PIECE_BYTES_MAX: u32 = 1 << 20;

/// Bytes whose extents are asked for at a time.
const STATUS_BYTES: u64 = 1 << 30;

/// A part of the source to be read. Begins with a block; only the source's last one ends within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// The pieces of a source.
pub(super) struct Pieces {
    source: Arc<Connection>,
    cutter: Cutter,
}

/// Cuts extents into pieces.
#[derive(Debug)]
struct Cutter {
    end: u64,
    piece_bytes: u64,
    /// A multiple of blocks, of which pieces are whole ones.
    alignment: u64,
    /// All before it is told by the source.
    told_to: u64,
    /// All before it is in a piece, or zeros.
    position: u64,
    /// Data to be cut, in order.
    data: VecDeque<Range<u64>>,
}

impl Pieces {
    pub(super) fn new(source: Arc<Connection>, start: u64, (piece_bytes, alignment): (u32, u32)) -> Self {
        let cutter = Cutter::new(start, source.facts().size_bytes, (piece_bytes.into(), alignment.into()));
        Self { source, cutter }
    }

    /// The next piece; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, NbdError> {
        loop {
            if let Some(piece) = self.cutter.cut() {
                return Ok(Some(piece));
            }
            let (at, end) = (self.cutter.told_to, self.cutter.end);
            if at >= end {
                return Ok(None);
            }
            let extents = self.source.extents(at, (end - at).min(STATUS_BYTES)).await?;
            if extents.is_empty() {
                return Err(NbdError::Protocol("a block status brings no extents".to_owned()));
            }
            self.cutter.take(&extents);
        }
    }

    /// Everything before it is in a piece that was given, or zeros.
    pub(super) const fn position(&self) -> u64 {
        self.cutter.position
    }
}

impl Cutter {
    const fn new(start: u64, end: u64, (piece_bytes, alignment): (u64, u64)) -> Self {
        // What is copied a second time is the same.
        let start = start - start % alignment;
        Self { end, piece_bytes, alignment, told_to: start, position: start, data: VecDeque::new() }
    }

    /// Takes what the source tells from `told_to` on. What it does not tell to be zeros is data.
    fn take(&mut self, extents: &[StatusExtent]) {
        for extent in extents {
            let range = self.told_to..(self.told_to.saturating_add(extent.len_bytes)).min(self.end);
            self.told_to = range.end;
            if extent.status & STATE_ZERO != 0 {
                continue;
            }
            match self.data.back_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => self.data.push_back(range),
            }
        }
        if self.data.is_empty() {
            // The last piece may reach further than what is told.
            self.position = self.position.max(self.told_to - self.told_to % self.alignment);
        }
    }

    fn cut(&mut self) -> Option<Piece> {
        loop {
            let data = self.data.front_mut()?;
            // Whole blocks, each once, where data begins or ends within one.
            let from = (data.start - data.start % self.alignment).max(self.position);
            let whole_end = data.end.next_multiple_of(self.alignment).min(self.end);
            if from >= whole_end {
                self.data.pop_front();
                continue;
            }
            let cut_at = (from + self.piece_bytes) / self.piece_bytes * self.piece_bytes;
            let to = whole_end.min(cut_at);
            if to == whole_end {
                self.data.pop_front();
            } else {
                data.start = to;
            }
            self.position = to;
            return Some(Piece { offset: from, len: u32::try_from(to - from).ok()? });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::BLOCK_BYTES;

    fn pieces(alignment: u64, end: u64, extents: &[(u64, bool)], at_a_time: usize) -> Vec<Range<u64>> {
        let mut cutter = Cutter::new(0, end, (4 * BLOCK_BYTES, alignment));
        let mut found = Vec::new();
        let of = |(len_bytes, is_zero): &(u64, bool)| StatusExtent {
            len_bytes: *len_bytes,
            status: if *is_zero { STATE_ZERO } else { 0 },
        };
        for extents in extents.chunks(at_a_time) {
            cutter.take(&extents.iter().map(of).collect::<Vec<_>>());
            while let Some(piece) = cutter.cut() {
                found.push(piece.offset..piece.offset + u64::from(piece.len));
            }
        }
        assert_eq!(cutter.told_to, end);
        found
    }

    #[test]
    fn pieces_are_whole_blocks_cut_at_even_places() {
        let found = pieces(BLOCK_BYTES, 50_000, &[(5000, true), (20_000, false), (24_000, true), (1000, false)], 4);
        assert_eq!(found, [4096..16_384, 16_384..28_672, 45_056..49_152, 49_152..50_000]);
        let found = pieces(2 * BLOCK_BYTES, 50_000, &[(5000, true), (4000, false), (31_000, true), (10_000, false)], 4);
        assert_eq!(found, [0..16_384, 32_768..49_152, 49_152..50_000]);
        let going_on = Cutter::new(12_288, 50_000, (4 * BLOCK_BYTES, 2 * BLOCK_BYTES));
        assert_eq!((going_on.told_to, going_on.position), (8192, 8192));
    }

    /// Every byte of data is in one piece, no block is in two, and pieces begin with blocks.
    #[test]
    fn nothing_is_left_out_or_read_twice() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for case in 0..2000 {
            let extents: Vec<_> = (0..=random(30)).map(|_| (1 + random(40_000), random(2) == 0)).collect();
            let end = extents.iter().map(|(len, _)| len).sum();
            let alignment = BLOCK_BYTES << (case % 3);
            let found = pieces(alignment, end, &extents, 1 + case % 4);
            assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start), "{extents:?}: {found:?}");
            for piece in &found {
                assert!(piece.start % alignment == 0 && piece.end - piece.start <= 4 * BLOCK_BYTES);
                assert!(piece.end % alignment == 0 || piece.end == end);
            }
            let mut at = 0;
            for (len, is_zero) in &extents {
                let mut from = at;
                at += len;
                while !is_zero && from < at {
                    let holder = found.iter().find(|piece| piece.contains(&from));
                    from = holder.unwrap_or_else(|| panic!("byte {from} is in no piece of {found:?}: {extents:?}")).end;
                }
            }
        }
    }
}
