//! A payload that is arriving: filled piece by piece, each piece taken from the pool as the bytes for it come.
//!
//! What comes out keeps the rule of [`Payload`]: every piece but the last holds [`PIECE_BYTES_MAX`] bytes.

use std::ops::Range;
use volume::buffer::{Buffer, BufferPool};
use volume::request::{PIECE_BYTES_MAX, Payload};

/// Missing bytes from which on they are received straight into their piece.
const DIRECT_BYTES_MIN: usize = 8 << 10;

/// A payload of known length, of which the first bytes are there.
#[derive(Debug, Default)]
pub(crate) struct ArrivingPayload {
    payload: Payload,
    /// The piece being filled; absent while it is lent or none was needed yet.
    piece: Option<Buffer>,
    /// Bytes of the piece that are filled.
    filled: usize,
    /// Bytes of the payload that are in no piece.
    left: usize,
    is_lent: bool,
}

impl ArrivingPayload {
    /// Makes one of `len` bytes, of which none is there.
    pub(crate) fn new(len: usize) -> Self {
        Self { left: len, ..Self::default() }
    }

    /// Whether all of it is there.
    pub(crate) const fn is_complete(&self) -> bool {
        self.left == 0 && self.piece.is_none() && !self.is_lent
    }

    /// Bytes that are filled of the piece that is being filled.
    pub(crate) const fn filled(&self) -> usize {
        self.filled
    }

    /// Whether a piece has been begun.
    pub(crate) const fn has_piece(&self) -> bool {
        self.piece.is_some()
    }

    /// Copies from `bytes` what it lacks; returns how much. Leaves an unfilled piece when `bytes` do not suffice.
    pub(crate) fn take(&mut self, mut bytes: &[u8], buffers: &mut BufferPool) -> usize {
        let before = bytes.len();
        while !self.is_complete() {
            if self.piece.is_none() {
                let len = self.left.min(PIECE_BYTES_MAX);
                self.left -= len;
                self.filled = 0;
                self.piece = Some(buffers.take(len));
            }
            let Some(piece) = &mut self.piece else { break };
            let space = piece.as_mut_slice().get_mut(self.filled..).unwrap_or_default();
            let count = space.len().min(bytes.len());
            let (taken, rest) = bytes.split_at_checked(count).unwrap_or((&[], &[]));
            space.split_at_mut(count).0.copy_from_slice(taken);
            bytes = rest;
            self.filled += count;
            self.finish_full_piece();
            if bytes.is_empty() {
                break;
            }
        }
        before - bytes.len()
    }

    /// Lends the piece that is being filled, for at most `limit` bytes, when so much is missing that it is worth a receive.
    pub(crate) fn lend(&mut self, limit: usize) -> Option<(Buffer, Range<usize>)> {
        let filled = self.filled;
        let piece = self.piece.take_if(|piece| (piece.len() - filled).min(limit) >= DIRECT_BYTES_MIN)?;
        self.is_lent = true;
        let end = piece.len().min(filled.saturating_add(limit));
        Some((piece, filled..end))
    }

    /// Takes the lent piece back, `received` bytes of which were filled.
    pub(crate) fn take_back(&mut self, piece: Buffer, received: usize) {
        self.is_lent = false;
        self.filled += received;
        self.piece = Some(piece);
        self.finish_full_piece();
    }

    /// Memory for the next bytes of the piece that is being filled.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let filled = self.filled;
        self.piece.as_mut().and_then(|piece| piece.as_mut_slice().get_mut(filled..)).unwrap_or_default()
    }

    /// Says that the first `len` bytes of [`ArrivingPayload::space`] were filled.
    pub(crate) fn advance(&mut self, len: usize) {
        self.filled += len;
        self.finish_full_piece();
    }

    /// The payload, which is complete.
    pub(crate) fn finish(&mut self) -> Payload {
        std::mem::take(&mut self.payload)
    }

    /// Gives back what was taken for one that never becomes complete.
    pub(crate) fn abandon(&mut self, buffers: &mut BufferPool) {
        buffers.put_all(self.payload.drain(..).chain(self.piece.take()));
    }

    fn finish_full_piece(&mut self) {
        let filled = self.filled;
        self.payload.extend(self.piece.take_if(|piece| filled == piece.len()));
    }
}
