//! Replies into a connection's next message: headers copied, data by ownership.

use super::errno::errno_of;
use crate::memory::{buffer_of, region_of};
use proto::nbd::constants::{STATE_DIRTY, STATE_HOLE, STATE_ZERO};
use proto::nbd::{Errno, ErrorReply, ReplyStyle, ReplyTo, StatusChunk, StatusExtent};
use uring::Message;
use volume::buffer::{Buffer, BufferPool};
use volume::error::Error;
use volume::pool::Change;
use volume::request::Completion;

/// What the reply to a request needs to know of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) to: ReplyTo,
    /// Bytes that the request concerns.
    pub(crate) len_bytes: u64,
    /// Whether it wants one extent only.
    pub(crate) one_extent: bool,
}

/// What one context tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StatusPart {
    pub(crate) context_id: u32,
    pub(crate) extents: Vec<StatusExtent>,
}

/// A volume's answer as a context tells it. A hole reads as zeros, so that it is both; data may be anything.
pub(crate) fn status_part(context_id: u32, answer: &Completion) -> StatusPart {
    let extents = match answer {
        Completion::Extents(extents) => {
            let status = |is_data| if is_data { 0 } else { STATE_HOLE | STATE_ZERO };
            let told = extents.iter();
            told.map(|extent| StatusExtent { len_bytes: extent.len, status: status(extent.is_data) }).collect()
        }
        Completion::Changed(extents) => {
            let status = |change| match change {
                Change::None => 0,
                Change::Data | Change::Hole => STATE_DIRTY,
            };
            // Changed data and a hole beside it are one extent here.
            let mut told: Vec<StatusExtent> = Vec::with_capacity(extents.len());
            for extent in extents {
                let status = status(extent.change);
                match told.last_mut().filter(|last| last.status == status) {
                    Some(last) => last.len_bytes += extent.len,
                    None => told.push(StatusExtent { len_bytes: extent.len, status }),
                }
            }
            told
        }
        Completion::Read { .. }
        | Completion::Done
        | Completion::Miscompare { .. }
        | Completion::Metered(_)
        | Completion::Lent(_)
        | Completion::Snapshot(_) => Vec::new(),
    };
    StatusPart { context_id, extents }
}

/// Replies that wait to be sent, in a form negotiated for all of them.
#[derive(Debug)]
pub(crate) struct Replies {
    style: ReplyStyle,
    next: Message,
    /// Emptied messages, to be filled again.
    spare: Vec<Message>,
    /// Bytes that the replies in `next` hold under the limits, and their number.
    held_bytes: u64,
    count: usize,
    scratch: Vec<u8>,
}

impl Replies {
    pub(crate) const fn new(style: ReplyStyle) -> Self {
        Self { style, next: Message::new(), spare: Vec::new(), held_bytes: 0, count: 0, scratch: Vec::new() }
    }

    /// Whether no reply waits.
    pub(crate) const fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// Number of replies that wait.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Adds the answer to a request. It holds `held_bytes` until it is sent.
    pub(crate) fn push(&mut self, asked: Asked, held_bytes: u64, result: Result<Completion, Error>) {
        self.held_bytes += held_bytes;
        match result {
            Ok(Completion::Read { buffer, skip, len }) => self.push_data(asked, buffer, skip..skip + len),
            // The others are answers to what no client asks in this way.
            Ok(
                Completion::Done
                | Completion::Miscompare { .. }
                | Completion::Metered(_)
                | Completion::Lent(_)
                | Completion::Snapshot(_)
                | Completion::Extents(_)
                | Completion::Changed(_),
            ) => {
                self.push_done(asked.to);
            }
            Err(error) => self.push_error(asked.to, errno_of(error.kind), &error.to_string()),
        }
    }

    fn push_data(&mut self, asked: Asked, buffer: Buffer, range: std::ops::Range<usize>) {
        let len = u32::try_from(range.len()).expect("the session limits reads to 32 MiB");
        assert_eq!(u64::from(len), asked.len_bytes, "a read is answered in full");
        self.next.push_bytes(self.style.read(asked.to, len).as_slice());
        self.next.push_region(region_of(buffer), range);
        self.count += 1;
    }

    /// Adds the answer to a block status request: what each context tells, in the client's order.
    pub(crate) fn push_status(&mut self, asked: Asked, held_bytes: u64, parts: Result<&[StatusPart], Error>) {
        self.held_bytes += held_bytes;
        let parts = match parts {
            Ok(parts) => parts,
            Err(error) => return self.push_error(asked.to, errno_of(error.kind), &error.to_string()),
        };
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        for (place, part) in parts.iter().enumerate() {
            let about = StatusChunk {
                context_id: part.context_id,
                len_bytes_max: asked.len_bytes,
                one_extent: asked.one_extent,
                is_last: place + 1 == parts.len(),
            };
            if self.style.encode_status(asked.to, about, part.extents.iter().copied(), &mut out) == 0 {
                out.clear();
                break;
            }
        }
        if out.is_empty() {
            self.push_error(asked.to, Errno::Io, "the state of the range is not known");
        } else {
            self.next.push_bytes(&out);
            self.count += 1;
        }
        self.scratch = out;
    }

    /// Adds an error with its reason.
    pub(crate) fn push_error(&mut self, to: ReplyTo, errno: Errno, message: &str) {
        self.scratch.clear();
        self.style.encode_error(to, ErrorReply { errno, message, at: None }, &mut self.scratch);
        self.next.push_bytes(&self.scratch);
        self.count += 1;
    }

    /// Adds a success without data.
    pub(crate) fn push_done(&mut self, to: ReplyTo) {
        self.next.push_bytes(self.style.done(to).as_slice());
        self.count += 1;
    }

    /// Takes what waits, to be sent.
    pub(crate) fn take(&mut self) -> Outgoing {
        let message = std::mem::replace(&mut self.next, self.spare.pop().unwrap_or_default());
        let held_bytes = std::mem::take(&mut self.held_bytes);
        Outgoing { message, held_bytes, count: std::mem::take(&mut self.count) }
    }

    /// An emptied message.
    pub(crate) fn spare(&mut self) -> Message {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a sent message back: its buffers go to the pool, and it will be filled again.
    pub(crate) fn recycle(&mut self, mut message: Message, buffers: &mut BufferPool) {
        buffers.put_all(message.take_regions().map(buffer_of));
        self.spare.push(message);
    }
}

/// Replies on their way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) message: Message,
    /// Bytes that they hold under the limits.
    pub(crate) held_bytes: u64,
    /// How many they are.
    pub(crate) count: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::nbd::Cookie;
    use volume::error::ErrorKind;
    use volume::request::{ChangedExtent, Extent};

    const ASKED: Asked = Asked { to: ReplyTo { cookie: Cookie(7), offset: 512 }, len_bytes: 1024, one_extent: false };

    fn sent(replies: &mut Replies) -> Vec<u8> {
        let message = replies.take().message;
        let bytes = message.slices().flatten().copied().collect();
        replies.recycle(message, &mut BufferPool::new(1 << 20));
        bytes
    }

    fn replies(style: ReplyStyle) -> Replies {
        Replies::new(style)
    }

    #[test]
    fn the_data_of_a_read_is_the_part_of_the_buffer_that_was_asked_for() {
        let mut buffer = Buffer::zeroed(4096);
        buffer.as_mut_slice()[512..1536].fill(9);
        let mut replies = replies(ReplyStyle::Structured);
        replies.push(ASKED, 0, Ok(Completion::Read { buffer, skip: 512, len: 1024 }));
        let bytes = sent(&mut replies);
        assert_eq!(bytes.len(), 28 + 1024);
        assert!(bytes[28..].iter().all(|byte| *byte == 9));
        assert!(replies.is_empty());
    }

    #[test]
    fn replies_that_wait_together_are_one_message_and_count_what_they_hold() {
        let mut replies = replies(ReplyStyle::Simple);
        replies.push(ASKED, 0, Ok(Completion::Done));
        replies.push(ASKED, 1024, Ok(Completion::Read { buffer: Buffer::zeroed(4096), skip: 0, len: 1024 }));
        replies.push(ASKED, 0, Err(Error::new(ErrorKind::NoSpace, "full")));
        let Outgoing { message, held_bytes, count } = replies.take();
        assert_eq!((message.len(), held_bytes, count), (16 + 16 + 1024 + 16, 1024, 3));
        assert_eq!(message.slices().count(), 3);
    }

    #[test]
    fn holes_are_holes_that_read_as_zeros() {
        let mut replies = replies(ReplyStyle::Structured);
        let extents = vec![Extent { len: 4096, is_data: false }, Extent { len: 4096, is_data: true }];
        let part = status_part(0, &Completion::Extents(extents));
        replies.push_status(Asked { len_bytes: 8192, ..ASKED }, 0, Ok(&[part]));
        let bytes = sent(&mut replies);
        // Chunk header 20, context id 4, then length and flags of each extent.
        assert_eq!(bytes[24..], [0, 0, 16, 0, 0, 0, 0, 3, 0, 0, 16, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn each_context_has_a_chunk_of_its_own_and_the_last_one_ends_the_reply() {
        let mut replies = replies(ReplyStyle::Structured);
        let data = status_part(0, &Completion::Extents(vec![Extent { len: 8192, is_data: true }]));
        let changed = [Change::None, Change::Data, Change::Hole].map(|change| ChangedExtent { len: 4096, change });
        let changed = status_part(2, &Completion::Changed(changed.to_vec()));
        replies.push_status(Asked { len_bytes: 12288, ..ASKED }, 0, Ok(&[data, changed]));
        let bytes = sent(&mut replies);
        let (first, second) = bytes.split_at(20 + 4 + 8);
        assert_eq!((first[5], second[5]), (0, 1), "flags");
        assert_eq!(first[20..], [0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 0]);
        assert_eq!(second[20..], [0, 0, 0, 2, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 1]);
        replies.push_status(ASKED, 0, Err(Error::new(ErrorKind::InvalidRequest, "the snapshot is gone")));
        assert!(sent(&mut replies).ends_with(b"the snapshot is gone"));
    }

    #[test]
    fn an_error_tells_its_reason_where_there_is_room() {
        let mut replies = replies(ReplyStyle::Extended);
        replies.push(ASKED, 0, Err(Error::new(ErrorKind::Corrupt, "block 3 of segment 9")));
        let bytes = sent(&mut replies);
        assert!(bytes.ends_with(b"corrupt: block 3 of segment 9"));
    }
}
