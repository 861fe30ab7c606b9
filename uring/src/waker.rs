//! Waking a ring's thread from another one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes the ring's [`crate::Ring::enter`] return. Any number of wakes before the ring looks are one.
#[derive(Debug, Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    event: OwnedFd,
    is_woken: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above just opened `fd`, and nobody else knows it.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { shared: Arc::new(Shared { event, is_woken: AtomicBool::new(false) }) })
    }

    /// Wakes the ring. What was written before this call is seen by the ring's thread after
    /// [`crate::Ring::take_woken`] said so.
    pub fn wake(&self) {
        if self.shared.is_woken.swap(true, Ordering::AcqRel) {
            return;
        }
        // An eventfd counts in the host's byte order; any number but 0 and the greatest will do.
        let one = [1_u8; 8];
        // SAFETY: `one` is 8 readable bytes, and the kernel is done with them when the call returns. The result does not
        // matter: it can only fail when the counter is full, and then the ring has been woken.
        unsafe { libc::write(self.shared.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Whether a wake has not been taken.
    pub(crate) fn is_woken(&self) -> bool {
        self.shared.is_woken.load(Ordering::Acquire)
    }

    pub(crate) fn take_woken(&self) -> bool {
        // A plain load first: the swap would take the cache line from the senders on every turn.
        self.is_woken() && self.shared.is_woken.swap(false, Ordering::AcqRel)
    }

    /// Resets the event, so that waiting for it blocks again.
    pub(crate) fn reset(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: `count` is 8 writable bytes, and the kernel is done with them when the call returns. It does not block
        // (EFD_NONBLOCK); having nothing to read is as good as having read it.
        unsafe { libc::read(self.shared.event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}
