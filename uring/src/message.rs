//! A message for a socket, gathered from small pieces that it copies and regions that it owns.

use crate::region::Region;
use std::ops::Range;

/// Bytes to be sent in order: headers, which are copied in, and regions, which are not.
///
/// It is kept and filled again after it was sent, so that in the steady state nothing is allocated.
#[derive(Debug, Default)]
pub struct Message {
    copied: Vec<u8>,
    regions: Vec<Region>,
    pieces: Vec<Piece>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    source: Source,
    start: usize,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Copied,
    Region(usize),
}

impl Message {
    /// Makes an empty message.
    #[must_use]
    pub const fn new() -> Self {
        Self { copied: Vec::new(), regions: Vec::new(), pieces: Vec::new(), len: 0 }
    }

    /// Number of bytes to send.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a copy of `bytes`.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = self.copied.len();
        self.copied.extend_from_slice(bytes);
        self.len += bytes.len();
        match self.pieces.last_mut() {
            // Copied bytes lie one after the other, so neighbours are one piece.
            Some(last) if last.source == Source::Copied => last.len += bytes.len(),
            _ => self.pieces.push(Piece { source: Source::Copied, start, len: bytes.len() }),
        }
    }

    /// Adds the bytes `range` of `region`'s view; the region comes back in [`Message::take_regions`].
    ///
    /// # Panics
    /// When the range leaves the view.
    pub fn push_region(&mut self, region: Region, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= region.len(), "{range:?} leaves {region:?}");
        if !range.is_empty() {
            let source = Source::Region(self.regions.len());
            self.pieces.push(Piece { source, start: range.start, len: range.len() });
            self.len += range.len();
        }
        self.regions.push(region);
    }

    /// Adds another range of the region that was added last: what lies between is sent between.
    ///
    /// # Panics
    /// When there is none, or the range leaves its view.
    pub fn push_more(&mut self, range: Range<usize>) {
        let index = self.regions.len().checked_sub(1).expect("a region was added");
        let view = self.regions.get(index).map_or(0, Region::len);
        assert!(range.start <= range.end && range.end <= view, "{range:?} leaves a region of {view} bytes");
        if !range.is_empty() {
            self.pieces.push(Piece { source: Source::Region(index), start: range.start, len: range.len() });
            self.len += range.len();
        }
    }

    /// The view of the region that was added last.
    #[must_use]
    pub fn last_region(&self) -> &[u8] {
        self.regions.last().map_or(&[], Region::as_slice)
    }

    /// The bytes in order, piece by piece.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| {
            let whole = match piece.source {
                Source::Copied => self.copied.as_slice(),
                Source::Region(index) => self.regions.get(index).map_or(&[][..], Region::as_slice),
            };
            whole.get(piece.start..piece.start + piece.len).unwrap_or_default()
        })
    }

    /// Empties the message and gives its regions back, in the order they came in.
    pub fn take_regions(&mut self) -> impl Iterator<Item = Region> {
        self.copied.clear();
        self.pieces.clear();
        self.len = 0;
        self.regions.drain(..)
    }

    /// Address and length of each piece from byte `skip` of the message on.
    ///
    /// The addresses stay valid while the message, wherever it moves, is neither changed nor dropped: copied bytes and
    /// regions both live on the heap.
    pub(crate) fn extents(&self, skip: usize) -> impl Iterator<Item = (*const u8, usize)> {
        let mut left = skip;
        self.slices().filter_map(move |slice| {
            let Some(rest) = slice.get(left..).filter(|rest| !rest.is_empty()) else {
                left -= slice.len();
                return None;
            };
            left = 0;
            Some((rest.as_ptr(), rest.len()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(bytes: &[u8]) -> Region {
        Region::new(bytes.into(), 0, bytes.len())
    }

    fn message() -> Message {
        let mut message = Message::new();
        message.push_bytes(b"ab");
        message.push_bytes(b"cd");
        message.push_region(region(b"0123456789"), 2..5);
        message.push_region(region(b"empty"), 1..1);
        message.push_bytes(b"ef");
        message
    }

    #[test]
    fn pieces_come_out_in_the_order_they_went_in_and_neighbouring_copies_are_one() {
        let message = message();
        assert_eq!(message.slices().collect::<Vec<_>>(), [&b"abcd"[..], b"234", b"ef"]);
        assert_eq!(message.len(), 9);
    }

    #[test]
    fn a_region_is_sent_in_parts_with_headers_between() {
        let mut message = Message::new();
        message.push_region(region(b"0123456789"), 0..0);
        for (header, range) in [(b"<", 0..4), (b"|", 4..9)] {
            message.push_bytes(header);
            message.push_more(range);
        }
        assert_eq!(message.slices().collect::<Vec<_>>(), [&b"<"[..], b"0123", b"|", b"45678"]);
        assert_eq!((message.len(), message.last_region().len(), message.take_regions().count()), (11, 10, 1));
    }

    #[test]
    fn every_split_of_a_message_leaves_its_rest() {
        let message = message();
        let whole: Vec<u8> = message.slices().flatten().copied().collect();
        for skip in 0..=whole.len() {
            let mut at = skip;
            for (address, len) in message.extents(skip) {
                let expected = &whole[at..at + len];
                assert!(
                    message.slices().any(|slice| slice.as_ptr_range().contains(&address) && slice.ends_with(expected))
                );
                at += len;
            }
            assert_eq!(at, whole.len());
        }
    }

    #[test]
    fn an_emptied_message_gives_all_its_regions_back_and_can_be_filled_again() {
        let mut message = message();
        assert_eq!(message.take_regions().map(|r| r.len()).collect::<Vec<_>>(), [10, 5]);
        assert!(message.is_empty());
        message.push_bytes(b"x");
        assert_eq!(message.slices().collect::<Vec<_>>(), [b"x"]);
    }
}
