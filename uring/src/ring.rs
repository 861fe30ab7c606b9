//! The ring: submissions in, completions out.

use crate::message::Message;
use crate::operation::{
    Completion, DISCARDED_BYTES_MAX, OperationId, PlainEntry, ReadPiece, Readiness, Step, Vectors, Work,
};
use crate::region::{Region, Scratch};
use crate::setup::{self, Config, Features, SetupError};
use crate::waker::Waker;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use slab::Slab;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{fmt, io};

/// An io_uring of one thread, whose operations carry a token of the caller's type.
///
/// Submissions gather until [`Ring::enter`]; [`Ring::next_completion`] then gives out what has ended. Dropping it
/// cancels what is in flight and waits until the kernel has let go of it.
pub struct Ring<T> {
    uring: IoUring,
    features: Features,
    operations: Slab<Operation<T>>,
    serial: u32,
    /// Entries that found the submission queue full.
    backlog: VecDeque<squeue::Entry>,
    /// Taken from the completion queue in one go.
    reaped: VecDeque<(u64, i32)>,
    #[expect(clippy::vec_box, reason = "the kernel is given addresses of what is in the boxes")]
    vectors: Vec<Box<Vectors>>,
    /// Where bytes go that nobody wants; never looked at.
    discarded: Rc<Scratch>,
    waker: Waker,
    is_waker_polled: bool,
    is_dropping: bool,
    counters: Counters,
}

struct Operation<T> {
    token: T,
    serial: u32,
    /// Nothing is asked of the kernel again.
    is_cancelled: bool,
    work: Work,
}

/// How long [`Ring::enter`] waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Not at all.
    Nothing,
    /// Until something completes or the ring is woken, at most this long where there is a limit.
    Completion(Option<Duration>),
}

/// What the ring has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// System calls.
    pub enters: u64,
    /// Entries submitted.
    pub submissions: u64,
    /// Completions of the kernel.
    pub completions: u64,
}

impl<T> Ring<T> {
    /// Makes a ring for the calling thread.
    ///
    /// # Errors
    /// [`SetupError`] says why this machine gives none.
    pub fn new(config: Config) -> Result<Self, SetupError> {
        let (uring, features) = setup::make_ring(config)?;
        let waker = Waker::new().map_err(SetupError::from_io)?;
        Ok(Self {
            uring,
            features,
            operations: Slab::with_capacity(256),
            serial: 0,
            backlog: VecDeque::new(),
            reaped: VecDeque::new(),
            vectors: Vec::new(),
            discarded: Rc::new(Scratch::new(DISCARDED_BYTES_MAX)),
            waker,
            is_waker_polled: false,
            is_dropping: false,
            counters: Counters::default(),
        })
    }

    /// What the kernel granted.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.features
    }

    /// What the ring has done so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Number of operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.operations.len()
    }

    /// Wakes this ring from other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Whether the ring was woken since the last call.
    pub fn take_woken(&mut self) -> bool {
        self.waker.take_woken()
    }

    /// Receives what is there, at least a byte, into the bytes `range` of `region`'s view.
    ///
    /// The socket must be in blocking mode, or the operation ends at once when there is nothing.
    ///
    /// # Panics
    /// When the range is empty or leaves the view.
    pub fn receive(&mut self, token: T, socket: &Rc<OwnedFd>, region: Region, range: Range<usize>) -> OperationId {
        self.begin_receive(token, socket, (region, range), false)
    }

    /// Receives all of the bytes `range` of `region`'s view, as [`Ring::receive`] receives some.
    ///
    /// # Panics
    /// When the range is empty or leaves the view.
    pub fn receive_whole(
        &mut self,
        token: T,
        socket: &Rc<OwnedFd>,
        region: Region,
        range: Range<usize>,
    ) -> OperationId {
        self.begin_receive(token, socket, (region, range), true)
    }

    /// Sends all of `message`.
    ///
    /// # Panics
    /// When it is empty.
    pub fn send(&mut self, token: T, socket: &Rc<OwnedFd>, message: Message) -> OperationId {
        assert!(!message.is_empty(), "an empty message cannot be sent");
        let vectors = self.vectors.pop().unwrap_or_else(Vectors::new);
        self.begin(token, Work::Send { socket: Rc::clone(socket), message, vectors, done: 0 })
    }

    /// Reads all `pieces` of `file` into `region`. One completion when all have ended.
    ///
    /// # Panics
    /// When there is no piece, or one is empty, leaves the region's view, or is longer than what may be unwanted.
    pub fn read(
        &mut self,
        token: T,
        file: &Rc<OwnedFd>,
        region: Region,
        pieces: SmallVec<[ReadPiece; 2]>,
    ) -> OperationId {
        assert!(!pieces.is_empty() && u32::try_from(pieces.len()).is_ok(), "a read has pieces");
        for piece in &pieces {
            let has_room = match piece.region_offset {
                Some(start) => start.checked_add(piece.len).is_some_and(|end| end <= region.len()),
                None => piece.len <= self.discarded.len(),
            };
            assert!(piece.len > 0 && has_room, "{piece:?} leaves {region:?}");
        }
        let (open, discarded) = (pieces.len(), Rc::clone(&self.discarded));
        self.begin(token, Work::Read { file: Rc::clone(file), region, discarded, pieces, open, errno: None })
    }

    /// Writes all `regions`, one after the other, to `file` from `offset` on.
    ///
    /// # Panics
    /// When there is no byte.
    pub fn write(&mut self, token: T, file: &Rc<OwnedFd>, offset: u64, regions: Vec<Region>) -> OperationId {
        let len = regions.iter().map(Region::len).sum();
        assert!(len > 0, "a write has bytes");
        let vectors = self.vectors.pop().unwrap_or_else(Vectors::new);
        self.begin(token, Work::Write { file: Rc::clone(file), offset, regions, vectors, len, done: 0 })
    }

    /// Makes what was written to `file` durable, with the metadata that reading it needs (fdatasync).
    pub fn sync_data(&mut self, token: T, file: &Rc<OwnedFd>) -> OperationId {
        self.begin(token, Work::Plain { fd: Rc::clone(file), entry: PlainEntry::SyncData })
    }

    /// Writes the dirty pages of a range out and waits for them. It makes nothing durable.
    pub fn write_back(&mut self, token: T, file: &Rc<OwnedFd>, offset: u64, len: u32) -> OperationId {
        self.begin(token, Work::Plain { fd: Rc::clone(file), entry: PlainEntry::Writeback { offset, len } })
    }

    /// Has the clean pages of a range leave the page cache, by a thread of the kernel's.
    pub fn forget(&mut self, token: T, file: &Rc<OwnedFd>, offset: u64, len: u32) -> OperationId {
        self.begin(token, Work::Plain { fd: Rc::clone(file), entry: PlainEntry::Forget { offset, len } })
    }

    /// Shuts both directions of a socket down, which ends its other operations.
    pub fn shut_down(&mut self, token: T, socket: &Rc<OwnedFd>) -> OperationId {
        self.begin(token, Work::Plain { fd: Rc::clone(socket), entry: PlainEntry::Shutdown })
    }

    /// Waits until a socket is ready.
    pub fn poll(&mut self, token: T, socket: &Rc<OwnedFd>, readiness: Readiness) -> OperationId {
        self.begin(token, Work::Plain { fd: Rc::clone(socket), entry: PlainEntry::Poll(readiness) })
    }

    /// Asks the kernel to end an operation early. It still completes: with ECANCELED, or as if nobody had asked.
    /// An operation that has completed is left alone.
    pub fn cancel(&mut self, id: OperationId) {
        let Some(operation) = usize::try_from(id.index).ok().and_then(|index| self.operations.get_mut(index)) else {
            return;
        };
        if operation.serial != id.serial {
            return;
        }
        operation.is_cancelled = true;
        for piece in 0..operation.work.pieces() {
            let entry = opcode::AsyncCancel::new(user_data(id.index, piece)).build();
            self.push(entry.user_data(CANCEL));
        }
    }

    /// Bytes that a send or receive in flight is known to have moved. Grows by parts of a long one as they end, not by
    /// each byte; 0 for one that is over.
    #[must_use]
    pub fn moved_bytes(&self, id: OperationId) -> usize {
        let operation = usize::try_from(id.index).ok().and_then(|index| self.operations.get(index));
        operation.filter(|operation| operation.serial == id.serial).map_or(0, |operation| operation.work.moved_bytes())
    }

    /// Submits what has gathered and waits as `want` says. Does not wait when completions are there already.
    ///
    /// # Errors
    /// What `io_uring_enter` says, apart from what another call mends; the ring is of no use then.
    pub fn enter(&mut self, want: Want) -> io::Result<()> {
        self.poll_waker();
        self.refill();
        let is_ready = !self.reaped.is_empty() || self.waker.is_woken() || !self.backlog.is_empty();
        let (count, limit) = match want {
            Want::Completion(limit) if !is_ready => (1, limit),
            Want::Completion(_) | Want::Nothing => (0, None),
        };
        let queue = self.uring.submission();
        if count == 0 && queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        self.submit(count, limit)
    }

    /// Looks for a completion or a wake without sleeping, for at most `limit`. True when there is one.
    pub fn spin(&mut self, limit: Duration) -> bool {
        const LOOKS_PER_CLOCK: u32 = 8;
        let start = Instant::now();
        loop {
            for _ in 0..LOOKS_PER_CLOCK {
                if self.has_news() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= limit {
                return false;
            }
        }
    }

    /// Whether a completion or a wake waits; it may take an [`Ring::enter`] to fetch it.
    pub fn has_news(&mut self) -> bool {
        !self.reaped.is_empty()
            || self.waker.is_woken()
            || self.uring.submission().taskrun()
            || !self.uring.completion().is_empty()
    }

    /// The next operation that has ended.
    pub fn next_completion(&mut self) -> Option<Completion<T>> {
        loop {
            if self.reaped.is_empty() {
                let queue = self.uring.completion();
                self.reaped.extend(queue.map(|entry: cqueue::Entry| (entry.user_data(), entry.result())));
                self.counters.completions += self.reaped.len() as u64;
            }
            let (user_data, result) = self.reaped.pop_front()?;
            match user_data {
                CANCEL => {}
                WAKE => {
                    self.is_waker_polled = false;
                    self.waker.reset();
                }
                _ => {
                    if let Some(completion) = self.on_result(user_data, result) {
                        return Some(completion);
                    }
                }
            }
        }
    }

    fn on_result(&mut self, user_data: u64, result: i32) -> Option<Completion<T>> {
        let (index, piece) = split_user_data(user_data);
        let operation = self.operations.get_mut(index).expect("the kernel answers what it was asked");
        let may_continue = !self.is_dropping && !operation.is_cancelled;
        match operation.work.on_result(piece, result, may_continue) {
            Step::Wait => None,
            Step::Again(piece) => {
                let entry = operation.work.entry(piece).user_data(user_data);
                self.push(entry);
                None
            }
            Step::End(outcome) => {
                let Operation { token, work, serial, .. } = self.operations.remove(index);
                self.vectors.extend(work.into_vectors());
                let id = OperationId { index: u32::try_from(index).unwrap_or(u32::MAX), serial };
                Some(Completion { id, token, outcome })
            }
        }
    }

    fn begin_receive(
        &mut self,
        token: T,
        socket: &Rc<OwnedFd>,
        (region, range): (Region, Range<usize>),
        whole: bool,
    ) -> OperationId {
        assert!(range.start < range.end && range.end <= region.len(), "{range:?} leaves {region:?}");
        let socket = Rc::clone(socket);
        self.begin(token, Work::Receive { socket, region, start: range.start, len: range.len(), whole, done: 0 })
    }

    fn begin(&mut self, token: T, work: Work) -> OperationId {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let index = self.operations.insert(Operation { token, serial, is_cancelled: false, work });
        let id = OperationId { index: u32::try_from(index).expect("fewer than 2^32 operations fit memory"), serial };
        let pieces = self.operations.get(index).map_or(0, |operation| operation.work.pieces());
        for piece in 0..pieces {
            if let Some(operation) = self.operations.get_mut(index) {
                let entry = operation.work.entry(piece).user_data(user_data(id.index, piece));
                self.push(entry);
            }
        }
        id
    }

    /// Queues an entry, whose addresses must be of memory that an operation in `self.operations` owns.
    fn push(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() || !self.try_push(&entry) {
            // A full queue is submitted early. Where that fails, `enter` tries again and reports it.
            if self.submit(0, None).is_ok() {
                self.refill();
            }
            if !self.backlog.is_empty() || !self.try_push(&entry) {
                self.backlog.push_back(entry);
            }
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        let mut queue = self.uring.submission();
        // SAFETY: the addresses in the entry are of heap memory owned by an operation in `self.operations` (`begin` and
        // `on_result` make them from it, cancellations and polls have none). The operation leaves the slab only when
        // the kernel has completed its last entry, is not touched before, and `Drop` waits for it or leaks it. Its
        // descriptor stays open as long, since the operation holds a reference to it.
        unsafe { queue.push(entry) }.is_ok()
    }

    fn refill(&mut self) {
        while let Some(entry) = self.backlog.front().cloned() {
            if !self.try_push(&entry) {
                return;
            }
            self.backlog.pop_front();
        }
    }

    fn submit(&mut self, count: usize, limit: Option<Duration>) -> io::Result<()> {
        let timespec = limit.map(types::Timespec::from);
        let mut arguments = types::SubmitArgs::new();
        if let Some(timespec) = &timespec {
            arguments = arguments.timespec(timespec);
        }
        self.counters.enters += 1;
        match self.uring.submitter().submit_with_args(count, &arguments) {
            Ok(submitted) => {
                self.counters.submissions += submitted as u64;
                Ok(())
            }
            // ETIME: the limit has passed. EINTR: a signal came. EAGAIN, EBUSY: the kernel wants completions to be taken
            // first, which the caller does next.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Keeps a poll of the waker's event in flight, so that a wake ends a wait.
    fn poll_waker(&mut self) {
        if !self.is_waker_polled {
            let event = types::Fd(self.waker.event().as_raw_fd());
            let entry = opcode::PollAdd::new(event, u32::from(libc::POLLIN.cast_unsigned())).build();
            self.push(entry.user_data(WAKE));
            self.is_waker_polled = true;
        }
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        self.is_dropping = true;
        let open: Vec<OperationId> = self
            .operations
            .iter()
            .map(|(index, operation)| OperationId {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                serial: operation.serial,
            })
            .collect();
        for id in open {
            self.cancel(id);
        }
        while !self.operations.is_empty() {
            while self.next_completion().is_some() {}
            if !self.operations.is_empty() && self.enter(Want::Completion(None)).is_err() {
                // The kernel may still use what these own, for all we know: better leaked than freed.
                std::mem::forget(std::mem::take(&mut self.operations));
            }
        }
    }
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { features, operations, counters, .. } = self;
        write!(f, "Ring({features:?}, {} in flight, {counters:?})", operations.len())
    }
}

/// Marks the answer to a cancellation, which nobody waits for.
const CANCEL: u64 = u64::MAX;
/// Marks the poll of the waker's event.
const WAKE: u64 = u64::MAX - 1;

/// What the kernel hands back with a completion: the operation's index below, the piece above.
fn user_data(index: u32, piece: usize) -> u64 {
    u64::from(index) | (piece as u64) << 32
}

fn split_user_data(user_data: u64) -> (usize, usize) {
    let index = usize::try_from(user_data & u64::from(u32::MAX)).unwrap_or(usize::MAX);
    (index, usize::try_from(user_data >> 32).unwrap_or(usize::MAX))
}
