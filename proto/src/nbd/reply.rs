//! Replies to requests: headers built in place, data sent from wherever it is.
//!
//! Spec: NBD proto.md, "Simple reply message", "Structured reply chunk message", "Extended reply chunk message". A client
//! that can read chunks gets nothing else, so that its stream needs no context to be divided.

use super::constants::{
    EXTENDED_HEADER_BYTES, EXTENDED_REPLY_MAGIC, REPLY_FLAG_DONE, SIMPLE_REPLY_MAGIC, STRING_BYTES_MAX,
    STRUCTURED_REPLY_MAGIC, chunk,
};
use super::errno::Errno;
use super::request::Cookie;

/// The form of replies, and with it of request headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplyStyle {
    /// One simple reply each; compact requests.
    Simple,
    /// Structured chunks; compact requests.
    Structured,
    /// Extended chunks; extended requests.
    Extended,
}

/// The fields of a request that its replies repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplyTo {
    /// The request's cookie.
    pub cookie: Cookie,
    /// The request's offset.
    pub offset: u64,
}

/// Longest [`ReplyHeader`].
pub const REPLY_HEADER_BYTES_MAX: usize = EXTENDED_HEADER_BYTES + 12;

/// The fixed part of a reply, inline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHeader {
    bytes: [u8; REPLY_HEADER_BYTES_MAX],
    len: usize,
}

impl ReplyHeader {
    const EMPTY: Self = Self { bytes: [0; REPLY_HEADER_BYTES_MAX], len: 0 };

    /// The bytes to send.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Adds a field. The longest sum of fields is [`REPLY_HEADER_BYTES_MAX`], which the tests of every header reach.
    #[inline]
    fn put<const N: usize>(mut self, field: [u8; N]) -> Self {
        let place = self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut);
        *place.expect("a header's fields fit its longest form") = field;
        self.len += N;
        self
    }
}

/// An error to be told with a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorReply<'a> {
    /// The error.
    pub errno: Errno,
    /// For people; empty for none. What is beyond 4096 bytes is cut off.
    pub message: &'a str,
    /// The byte of the export where it happened, if known; within the request.
    pub at: Option<u64>,
}

/// A run of bytes in one state, of a metadata context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusExtent {
    /// Number of bytes.
    pub len_bytes: u64,
    /// Status flags as the context defines them; 32 bits unless headers are extended.
    pub status: u64,
}

/// What a block status chunk is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusChunk {
    /// The metadata context.
    pub context_id: u32,
    /// The length of the request; extents are cut there.
    pub len_bytes_max: u64,
    /// Whether the client wants one extent.
    pub one_extent: bool,
    /// Whether the reply ends with this chunk.
    pub is_last: bool,
}

/// Most extents in a block status chunk.
pub const STATUS_DESCRIPTORS_MAX: usize = 1 << 20;

/// What an extent too long for 32 bits is cut to: the most whole blocks of 4096 bytes.
const CUT_EXTENT_BYTES: u32 = 0xffff_f000;

impl ReplyStyle {
    /// Reports success without data. Also ends a reply that was given in chunks none of which was marked the last.
    #[inline]
    #[must_use]
    pub fn done(self, to: ReplyTo) -> ReplyHeader {
        match self {
            Self::Simple => simple(to, 0),
            Self::Structured | Self::Extended => self.chunk(to, chunk::NONE, true, 0),
        }
    }

    /// Opens the whole reply to a read that succeeded: `len_bytes` of data from the request's offset on follow.
    #[inline]
    #[must_use]
    pub fn read(self, to: ReplyTo, len_bytes: u32) -> ReplyHeader {
        match self {
            Self::Simple => simple(to, 0),
            // A content chunk of no bytes is illegal.
            Self::Structured | Self::Extended if len_bytes == 0 => self.done(to),
            Self::Structured | Self::Extended => self.data_chunk(to, to.offset, len_bytes, true),
        }
    }

    /// Opens a chunk of a read's data: `len_bytes` (not 0) from the export's byte `at` on follow. Not for simple replies.
    ///
    /// # Panics
    /// When replies are simple.
    #[inline]
    #[must_use]
    pub fn data_chunk(self, to: ReplyTo, at: u64, len_bytes: u32, is_last: bool) -> ReplyHeader {
        self.chunk(to, chunk::OFFSET_DATA, is_last, u64::from(len_bytes) + 8).put(at.to_be_bytes())
    }

    /// Makes a chunk that says that `len_bytes` (not 0) from the export's byte `at` on are zeros. Not for simple replies.
    ///
    /// # Panics
    /// When replies are simple.
    #[must_use]
    pub fn hole_chunk(self, to: ReplyTo, at: u64, len_bytes: u32, is_last: bool) -> ReplyHeader {
        self.chunk(to, chunk::OFFSET_HOLE, is_last, 12).put(at.to_be_bytes()).put(len_bytes.to_be_bytes())
    }

    /// Reports an error without a reason, and ends the reply.
    #[must_use]
    pub fn error(self, to: ReplyTo, errno: Errno) -> ReplyHeader {
        match self {
            Self::Simple => simple(to, errno.to_wire()),
            Self::Structured | Self::Extended => {
                self.chunk(to, chunk::ERROR, true, 6).put(errno.to_wire().to_be_bytes()).put([0; 2])
            }
        }
    }

    /// Appends a whole reply that reports an error, with its reason where the form has room for it, and ends the reply.
    pub fn encode_error(self, to: ReplyTo, error: ErrorReply<'_>, out: &mut Vec<u8>) {
        if self == Self::Simple {
            return out.extend_from_slice(self.error(to, error.errno).as_slice());
        }
        let message = clipped(error.message);
        let (kind, tail_len) = if error.at.is_some() { (chunk::ERROR_OFFSET, 8) } else { (chunk::ERROR, 0) };
        let message_len = u16::try_from(message.len()).expect("a clipped message is at most 4096 bytes long");
        let header = self
            .chunk(to, kind, true, 6 + u64::from(message_len) + tail_len)
            .put(error.errno.to_wire().to_be_bytes())
            .put(message_len.to_be_bytes());
        out.extend_from_slice(header.as_slice());
        out.extend_from_slice(message.as_bytes());
        out.extend(error.at.map(u64::to_be_bytes).iter().flatten());
    }

    /// Appends a block status chunk with `extents`, which follow one another from the request's offset on, and returns how
    /// many of them it holds.
    ///
    /// Takes extents until the length or number allowed is reached. Appends nothing and returns 0 when there is none, or
    /// when replies are simple: the request is then to be answered with an error.
    pub fn encode_status(
        self,
        to: ReplyTo,
        about: StatusChunk,
        extents: impl IntoIterator<Item = StatusExtent>,
        out: &mut Vec<u8>,
    ) -> usize {
        if self == Self::Simple {
            return 0;
        }
        let start = out.len();
        let placeholder = self.status_header(to, about, 0);
        out.extend_from_slice(placeholder.as_slice());
        let count = self.append_extents(about, extents, out);
        if count == 0 {
            out.truncate(start);
            return 0;
        }
        let header = self.status_header(to, about, count);
        let place = out.get_mut(start..start + header.as_slice().len());
        place.expect("the placeholder has the header's length").copy_from_slice(header.as_slice());
        count
    }

    fn append_extents(
        self,
        about: StatusChunk,
        extents: impl IntoIterator<Item = StatusExtent>,
        out: &mut Vec<u8>,
    ) -> usize {
        let descriptors_max = if about.one_extent { 1 } else { STATUS_DESCRIPTORS_MAX };
        let mut left_bytes = about.len_bytes_max;
        let mut count = 0;
        for extent in extents.into_iter().filter(|extent| extent.len_bytes > 0).take(descriptors_max) {
            let len_bytes = extent.len_bytes.min(left_bytes);
            let fits = self.append_extent(StatusExtent { len_bytes, ..extent }, out);
            count += usize::from(len_bytes > 0);
            left_bytes -= len_bytes;
            // After one that was cut short the next would not follow on.
            if left_bytes == 0 || !fits {
                break;
            }
        }
        count
    }

    /// Appends an extent; returns whether it did so whole.
    fn append_extent(self, extent: StatusExtent, out: &mut Vec<u8>) -> bool {
        if extent.len_bytes == 0 {
            return false;
        }
        if self == Self::Extended {
            out.extend_from_slice(&extent.len_bytes.to_be_bytes());
            out.extend_from_slice(&extent.status.to_be_bytes());
            return true;
        }
        let whole = u32::try_from(extent.len_bytes).ok();
        out.extend_from_slice(&whole.unwrap_or(CUT_EXTENT_BYTES).to_be_bytes());
        let [_, _, _, _, status @ ..] = extent.status.to_be_bytes();
        out.extend_from_slice(&status);
        whole.is_some()
    }

    fn status_header(self, to: ReplyTo, about: StatusChunk, count: usize) -> ReplyHeader {
        let count = u32::try_from(count).expect("at most 2^20 extents");
        let id = about.context_id.to_be_bytes();
        if self == Self::Extended {
            let len_bytes = 8 + 16 * u64::from(count);
            return self.chunk(to, chunk::BLOCK_STATUS_EXT, about.is_last, len_bytes).put(id).put(count.to_be_bytes());
        }
        self.chunk(to, chunk::BLOCK_STATUS, about.is_last, 4 + 8 * u64::from(count)).put(id)
    }

    /// A chunk's header of the negotiated form.
    #[inline]
    fn chunk(self, to: ReplyTo, kind: u16, is_last: bool, len_bytes: u64) -> ReplyHeader {
        let flags = if is_last { REPLY_FLAG_DONE } else { 0 };
        let begin = |magic: u32| {
            let header = ReplyHeader::EMPTY.put(magic.to_be_bytes()).put(flags.to_be_bytes()).put(kind.to_be_bytes());
            header.put(to.cookie.0.to_be_bytes())
        };
        match self {
            Self::Simple => unreachable!("simple replies have no chunks"),
            Self::Structured => {
                let len_bytes = u32::try_from(len_bytes).expect("payloads are limited below 4 GiB");
                begin(STRUCTURED_REPLY_MAGIC).put(len_bytes.to_be_bytes())
            }
            Self::Extended => begin(EXTENDED_REPLY_MAGIC).put(to.offset.to_be_bytes()).put(len_bytes.to_be_bytes()),
        }
    }
}

/// A simple reply's header, which is all of it unless it answers a read.
#[inline]
fn simple(to: ReplyTo, error: u32) -> ReplyHeader {
    let header = ReplyHeader::EMPTY.put(SIMPLE_REPLY_MAGIC.to_be_bytes()).put(error.to_be_bytes());
    header.put(to.cookie.0.to_be_bytes())
}

/// The longest beginning of `message` that a string may hold and that ends between characters.
pub(super) fn clipped(message: &str) -> &str {
    let end = (0..=STRING_BYTES_MAX.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
    message.get(..end.unwrap_or(0)).unwrap_or_default()
}
