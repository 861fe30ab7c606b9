//! Operations in flight: what each owns, how far it is, and what the kernel is asked next.

use crate::message::Message;
use crate::region::{Region, Scratch};
use io_uring::{opcode, squeue, types};
use smallvec::SmallVec;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

/// Names an operation in flight, to cancel it. Never names another one later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OperationId {
    pub(crate) index: u32,
    pub(crate) serial: u32,
}

/// Part of a scattered read: `len` bytes of the file from `file_offset` go to the region's view from `region_offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPiece {
    /// Byte in the file.
    pub file_offset: u64,
    /// Byte in the region's view; `None` where nobody wants the bytes, [`DISCARDED_BYTES_MAX`] of them at most: whether they can
    /// be read does not matter then.
    pub region_offset: Option<usize>,
    /// Bytes; not 0.
    pub len: usize,
}

/// Most bytes of a piece that nobody wants.
pub const DISCARDED_BYTES_MAX: usize = 32 << 10;

/// What a poll waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Something can be read, or the peer is gone.
    Readable,
    /// Something can be written, or the peer is gone.
    Writable,
}

/// An operation that ended, and all that it owned.
#[derive(Debug)]
pub struct Completion<T> {
    /// Of the operation.
    pub id: OperationId,
    /// What the submitter gave with it.
    pub token: T,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an operation ended. A cancelled one has the error ECANCELED.
#[derive(Debug)]
pub enum Outcome {
    /// A receive ended.
    Received {
        /// Of the operation.
        region: Region,
        /// Bytes received; fewer than asked for, down to 0, when the peer has closed.
        result: io::Result<usize>,
    },
    /// A send ended.
    Sent {
        /// Of the operation.
        message: Message,
        /// On success all of it is with the kernel.
        result: io::Result<()>,
    },
    /// A scattered read ended.
    Read {
        /// Of the operation.
        region: Region,
        /// On success every piece is filled; `UnexpectedEof` when the file ends in one.
        result: io::Result<()>,
    },
    /// A write ended.
    Written {
        /// Of the operation.
        regions: Vec<Region>,
        /// On success all of it is written.
        result: io::Result<()>,
    },
    /// A sync, writeback, shutdown or poll ended.
    Done {
        /// Whether it succeeded.
        result: io::Result<()>,
    },
}

/// Most pieces the kernel is given at a time; what is beyond them follows.
pub(crate) const VECTORS_MAX: usize = 128;

/// Bytes of a message that the kernel is given at a time, roughly. The operation goes on by itself; each part that ends
/// shows that the peer reads.
pub(crate) const SEND_PART_BYTES_MAX: usize = 1 << 20;

/// The same for a receive of all that is asked for, whose peer sends.
pub(crate) const WHOLE_PART_BYTES_MAX: usize = 256 << 10;

/// What the kernel reads a scattered operation's addresses from. On the heap, since operations move.
pub(crate) struct Vectors {
    header: libc::msghdr,
    list: [libc::iovec; VECTORS_MAX],
}

impl Vectors {
    pub(crate) fn new() -> Box<Self> {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: a `msghdr` is integers and pointers, for which zeros are a value.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self { header, list: [empty; VECTORS_MAX] })
    }

    /// Lists as many extents as fit; returns how many.
    fn fill(&mut self, extents: impl Iterator<Item = (*const u8, usize)>) -> usize {
        let mut count = 0;
        for (slot, (address, len)) in self.list.iter_mut().zip(extents) {
            *slot = libc::iovec { iov_base: address.cast_mut().cast(), iov_len: len };
            count += 1;
        }
        count
    }
}

/// What an operation owns and how far it is.
pub(crate) enum Work {
    Receive {
        socket: Rc<OwnedFd>,
        region: Region,
        start: usize,
        len: usize,
        whole: bool,
        done: usize,
    },
    Send {
        socket: Rc<OwnedFd>,
        message: Message,
        vectors: Box<Vectors>,
        done: usize,
    },
    /// What nobody wants goes to `discarded`, of all operations together.
    Read {
        file: Rc<OwnedFd>,
        region: Region,
        discarded: Rc<Scratch>,
        pieces: SmallVec<[ReadPiece; 2]>,
        open: usize,
        errno: Option<i32>,
    },
    Write {
        file: Rc<OwnedFd>,
        offset: u64,
        regions: Vec<Region>,
        vectors: Box<Vectors>,
        len: usize,
        done: usize,
    },
    Plain {
        fd: Rc<OwnedFd>,
        entry: PlainEntry,
    },
}

/// An operation without memory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PlainEntry {
    SyncData,
    Writeback { offset: u64, len: u32 },
    Forget { offset: u64, len: u32 },
    Shutdown,
    Poll(Readiness),
}

/// What to do after a completion of the kernel.
pub(crate) enum Step {
    /// Submit the entry of this piece again, for what is left of it.
    Again(usize),
    /// Other pieces are still with the kernel.
    Wait,
    /// It is over.
    End(Outcome),
}

impl Work {
    /// How many entries the operation starts with, one for each piece.
    pub(crate) fn pieces(&self) -> usize {
        match self {
            Self::Read { pieces, .. } => pieces.len(),
            Self::Receive { .. } | Self::Send { .. } | Self::Write { .. } | Self::Plain { .. } => 1,
        }
    }

    /// Bytes known to have been sent or received so far; 0 for what concerns no socket.
    pub(crate) const fn moved_bytes(&self) -> usize {
        match self {
            Self::Receive { done, .. } | Self::Send { done, .. } => *done,
            Self::Read { .. } | Self::Write { .. } | Self::Plain { .. } => 0,
        }
    }

    /// What the kernel is asked for what is left of a piece.
    ///
    /// Every address in it points to heap memory that `self` owns, alone or with others who never look at it, and that stays where
    /// it is when `self` moves.
    pub(crate) fn entry(&mut self, piece: usize) -> squeue::Entry {
        match self {
            Self::Receive { socket, region, start, len, whole, done } => {
                let len = if *whole { (*len - *done).min(WHOLE_PART_BYTES_MAX) } else { *len - *done };
                let from = *start + *done;
                let rest = region.as_mut_slice().get_mut(from..from + len).unwrap_or_default();
                let flags = if *whole { libc::MSG_WAITALL } else { 0 };
                opcode::Recv::new(target(socket), rest.as_mut_ptr(), length(rest.len())).flags(flags).build()
            }
            Self::Send { socket, message, vectors, done } => {
                let left = message.len() - *done;
                // A short rest goes with what is before it, such as the header of a reply that is one part long.
                let part = if left < SEND_PART_BYTES_MAX * 3 / 2 { left } else { SEND_PART_BYTES_MAX };
                let count = vectors.fill(first_bytes(message.extents(*done), part));
                // Without NOSIGNAL a send to a closed socket would kill the process. With WAITALL the kernel goes on by
                // itself after a short send, where it can.
                let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
                if let ([one], 1) = (vectors.list.first_chunk::<1>().unwrap_or(&NO_VECTOR), count) {
                    return opcode::Send::new(target(socket), one.iov_base.cast(), length(one.iov_len))
                        .flags(flags)
                        .build();
                }
                vectors.header.msg_iov = vectors.list.as_mut_ptr();
                vectors.header.msg_iovlen = count;
                opcode::SendMsg::new(target(socket), &raw const vectors.header).flags(flags.cast_unsigned()).build()
            }
            Self::Read { file, region, discarded, pieces, .. } => {
                let Some(left) = pieces.get(piece).copied() else { return opcode::Nop::new().build() };
                let (address, len) = match left.region_offset {
                    Some(start) => {
                        let rest = region.as_mut_slice().get_mut(start..start + left.len).unwrap_or_default();
                        (rest.as_mut_ptr(), rest.len())
                    }
                    None => (discarded.first_byte(), left.len.min(discarded.len())),
                };
                opcode::Read::new(target(file), address, length(len)).offset(left.file_offset).build()
            }
            Self::Write { file, offset, regions, vectors, done, .. } => {
                let count = vectors.fill(extents_of(regions, *done));
                opcode::Writev::new(target(file), vectors.list.as_ptr(), length(count))
                    .offset(*offset + *done as u64)
                    .build()
            }
            Self::Plain { fd, entry } => entry.build(fd),
        }
    }

    /// Takes the kernel's answer for a piece. `may_continue` is false while the ring is being dropped.
    pub(crate) fn on_result(&mut self, piece: usize, result: i32, may_continue: bool) -> Step {
        // The kernel gives these where a plain system call would have been tried again.
        if matches!(result, INTERRUPTED | TRY_AGAIN) && may_continue {
            return Step::Again(piece);
        }
        match self {
            Self::Receive { region, len, whole, done, .. } => {
                let received = usize::try_from(result).unwrap_or(0);
                *done += received;
                if *whole && received > 0 && *done < *len && may_continue {
                    return Step::Again(piece);
                }
                let result = if result < 0 { Err(error(result)) } else { Ok(*done) };
                Step::End(Outcome::Received { region: take_region(region), result })
            }
            Self::Send { message, done, .. } => {
                *done += usize::try_from(result).unwrap_or(0);
                if result > 0 && *done < message.len() && may_continue {
                    return Step::Again(piece);
                }
                let result = outcome_of_write(result, *done >= message.len());
                Step::End(Outcome::Sent { message: std::mem::take(message), result })
            }
            Self::Read { region, pieces, open, errno, .. } => {
                let Some(left) = pieces.get_mut(piece) else { return Step::Wait };
                let read = usize::try_from(result).unwrap_or(0);
                left.file_offset += read as u64;
                left.region_offset = left.region_offset.map(|offset| offset + read);
                left.len = left.len.saturating_sub(read);
                if read > 0 && left.len > 0 && may_continue {
                    return Step::Again(piece);
                }
                if left.len > 0 && left.region_offset.is_some() {
                    errno.get_or_insert(result);
                }
                *open -= 1;
                if *open > 0 {
                    return Step::Wait;
                }
                let result = match *errno {
                    None => Ok(()),
                    Some(0..) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Some(negative) => Err(error(negative)),
                };
                Step::End(Outcome::Read { region: take_region(region), result })
            }
            Self::Write { regions, len, done, .. } => {
                *done += usize::try_from(result).unwrap_or(0);
                if result > 0 && *done < *len && may_continue {
                    return Step::Again(piece);
                }
                let result = outcome_of_write(result, *done >= *len);
                Step::End(Outcome::Written { regions: std::mem::take(regions), result })
            }
            Self::Plain { .. } => {
                Step::End(Outcome::Done { result: if result < 0 { Err(error(result)) } else { Ok(()) } })
            }
        }
    }

    /// The vectors of an operation that is over, for the next one.
    pub(crate) fn into_vectors(self) -> Option<Box<Vectors>> {
        match self {
            Self::Send { vectors, .. } | Self::Write { vectors, .. } => Some(vectors),
            Self::Receive { .. } | Self::Read { .. } | Self::Plain { .. } => None,
        }
    }
}

impl PlainEntry {
    pub(crate) fn build(self, fd: &OwnedFd) -> squeue::Entry {
        match self {
            Self::SyncData => opcode::Fsync::new(target(fd)).flags(types::FsyncFlags::DATASYNC).build(),
            Self::Writeback { offset, len } => {
                let flags =
                    libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
                opcode::SyncFileRange::new(target(fd), len).offset(offset).flags(flags).build()
            }
            Self::Forget { offset, len } => {
                opcode::Fadvise::new(target(fd), len.into(), libc::POSIX_FADV_DONTNEED).offset(offset).build()
            }
            Self::Shutdown => opcode::Shutdown::new(target(fd), libc::SHUT_RDWR).build(),
            Self::Poll(readiness) => {
                let events = match readiness {
                    Readiness::Readable => libc::POLLIN | libc::POLLRDHUP,
                    Readiness::Writable => libc::POLLOUT,
                };
                opcode::PollAdd::new(target(fd), u32::from(events.cast_unsigned())).build()
            }
        }
    }
}

const INTERRUPTED: i32 = -libc::EINTR;
const TRY_AGAIN: i32 = -libc::EAGAIN;
const NO_VECTOR: [libc::iovec; 1] = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }];

fn target(fd: &OwnedFd) -> types::Fd {
    let raw: RawFd = fd.as_raw_fd();
    types::Fd(raw)
}

/// A length for the kernel; a longer one is cut, and the rest follows as after a short transfer.
fn length(len: usize) -> u32 {
    const CHUNK_MAX: u32 = 1 << 30;
    u32::try_from(len).unwrap_or(CHUNK_MAX).min(CHUNK_MAX)
}

fn extents_of(regions: &[Region], skip: usize) -> impl Iterator<Item = (*const u8, usize)> {
    let mut left = skip;
    regions.iter().filter_map(move |region| {
        let Some(rest) = region.as_slice().get(left..).filter(|rest| !rest.is_empty()) else {
            left -= region.len();
            return None;
        };
        left = 0;
        Some((rest.as_ptr(), rest.len()))
    })
}

/// The first `bytes_max` bytes of `extents`.
fn first_bytes(
    extents: impl Iterator<Item = (*const u8, usize)>,
    bytes_max: usize,
) -> impl Iterator<Item = (*const u8, usize)> {
    let mut left = bytes_max;
    extents.map_while(move |(address, len)| {
        let len = len.min(left);
        left -= len;
        (len > 0).then_some((address, len))
    })
}

fn take_region(region: &mut Region) -> Region {
    std::mem::replace(region, Region::zeroed(0))
}

fn outcome_of_write(result: i32, is_complete: bool) -> io::Result<()> {
    match result {
        i32::MIN..0 => Err(error(result)),
        _ if is_complete => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

fn error(negative: i32) -> io::Error {
    io::Error::from_raw_os_error(-negative)
}
