//! The buffer that a connection's byte stream is received into and parsed in, for every protocol.
//!
//! Headers and little data are parsed where they were received, many from one receive; what is missing of much data is received
//! straight into the payload that it belongs to.

use crate::memory::{buffer_of, region_of};
use crate::payload::ArrivingPayload;
use std::ops::Range;
use uring::Region;
use volume::buffer::Buffer;

/// Bytes of a connection's receive buffer, and most that one receive takes into it.
pub(crate) const RECEIVE_BYTES: usize = 256 << 10;

/// Bytes received at a time behind much data: the next header and little of its data, which is to be received where it
/// belongs.
pub(crate) const SHORT_RECEIVE_BYTES: usize = 4 << 10;

/// Data from this length on is much.
const LARGE_BYTES: usize = 64 << 10;

/// Memory lent for one receive.
#[derive(Debug)]
pub(crate) struct Loan {
    pub(crate) region: Region,
    pub(crate) range: Range<usize>,
    /// Whether all of the range is wanted before anything can go on.
    pub(crate) is_whole: bool,
}

/// A connection's receive buffer.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Of [`RECEIVE_BYTES`] or more; absent while it is lent.
    buffer: Option<Region>,
    /// What was received and not parsed: `buffer[unread]`.
    unread: Range<usize>,
    is_short: bool,
    is_lent: bool,
}

impl Stream {
    /// Makes one that begins with `leftover`, which was received before.
    pub(crate) fn new(leftover: &[u8]) -> Self {
        let mut buffer = Region::zeroed(RECEIVE_BYTES.max(leftover.len()));
        if let Some(start) = buffer.as_mut_slice().get_mut(..leftover.len()) {
            start.copy_from_slice(leftover);
        }
        Self { buffer: Some(buffer), unread: 0..leftover.len(), is_short: false, is_lent: false }
    }

    /// What was received and not parsed; nothing while the buffer is lent.
    pub(crate) fn unread(&self) -> &[u8] {
        self.buffer.as_ref().and_then(|buffer| buffer.as_slice().get(self.unread.clone())).unwrap_or_default()
    }

    /// Says that the first `len` bytes of [`Stream::unread`] are parsed.
    pub(crate) const fn consume(&mut self, len: usize) {
        self.unread.start += len;
    }

    /// Says how much data comes next, behind which there is a header.
    pub(crate) const fn expect_data(&mut self, len: usize) {
        self.is_short = len >= LARGE_BYTES;
    }

    /// Lends the memory for the next receive, or nothing when it is lent already: that of the payload that the stream's next
    /// bytes belong to, for at most so many bytes, when it is worth a receive.
    pub(crate) fn lend(&mut self, payload: Option<(&mut ArrivingPayload, usize)>) -> Option<Loan> {
        if std::mem::replace(&mut self.is_lent, true) {
            return None;
        }
        if let Some((piece, range)) = payload.and_then(|(payload, limit)| payload.lend(limit)) {
            return Some(Loan { region: region_of(piece), range, is_whole: true });
        }
        self.compact();
        let buffer = self.buffer.take()?;
        let limit = if self.is_short { SHORT_RECEIVE_BYTES } else { RECEIVE_BYTES };
        let range = self.unread.end..(self.unread.end + limit).min(buffer.len());
        Some(Loan { region: buffer, range, is_whole: false })
    }

    /// Takes lent memory back, of which `received` bytes were filled; returns it where it is a payload's.
    pub(crate) fn take_back(&mut self, region: Region, received: usize) -> Option<Buffer> {
        self.is_lent = false;
        if self.buffer.is_some() {
            return Some(buffer_of(region));
        }
        self.unread.end += received;
        self.buffer = Some(region);
        None
    }

    /// Memory for the stream's next bytes, where they come from a source other than a receive.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.compact();
        let space = self.buffer.as_mut().and_then(|buffer| buffer.as_mut_slice().get_mut(self.unread.end..));
        space.unwrap_or_default()
    }

    /// Says that the first `len` bytes of [`Stream::space`] were filled.
    pub(crate) const fn advance(&mut self, len: usize) {
        self.unread.end += len;
    }

    /// Forgets what is unread.
    pub(crate) const fn clear(&mut self) {
        self.unread = 0..0;
    }

    /// Moves what is unread to the front, when that costs little or there is no space behind it.
    fn compact(&mut self) {
        let Some(buffer) = &mut self.buffer else { return };
        let len = self.unread.len();
        if self.unread.start > 0 && (len < SHORT_RECEIVE_BYTES || self.unread.end == buffer.len()) {
            buffer.as_mut_slice().copy_within(self.unread.clone(), 0);
            self.unread = 0..len;
        }
    }
}
