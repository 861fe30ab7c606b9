//! The scrub: a thread that reads everything in the pool against its check data, slot by slot, at a pace that leaves the
//! disk to others.
//!
//! It reads past the page cache where it can: what is checked is what the disk holds, and nothing is pushed out of memory.
//! A slot is read whole, then judged; what looks bad is read once more, and counts only if the index says before and after
//! that the segment is there. What is moved meanwhile has been checked by the compactor; what is written meanwhile is for
//! the next pass. How far a pass is, with what it found, is noted in the index: a pass goes on after a restart where it was
//! a few seconds before its end, and a rebuild of the index ends it.

mod pass;
mod report;
mod slot_image;

pub use report::{ScrubFinding, ScrubReport};

use crate::open::PoolFile;
use crate::store::StoreHandle;
use pass::Pass;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// What the thread is told.
#[derive(Debug, Clone, Copy)]
struct Begin;

/// What the thread and those who ask it share.
#[derive(Debug)]
pub(crate) struct Shared {
    report: Mutex<ScrubReport>,
    is_paced: AtomicBool,
    is_stopping: AtomicBool,
    is_cancelling: AtomicBool,
}

/// Talks to the scrub, from any thread.
#[derive(Debug, Clone)]
pub struct ScrubHandle {
    sender: mpsc::Sender<Begin>,
    shared: Arc<Shared>,
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct ScrubThread {
    handle: ScrubHandle,
    thread: JoinHandle<()>,
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, ScrubReport> {
        // A panic while the lock is held leaves figures that are a step behind.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Whether a pass is to end where it is.
    fn is_ending(&self) -> bool {
        self.is_stopping() || self.is_cancelling.load(Ordering::Acquire)
    }

    fn is_paced(&self) -> bool {
        self.is_paced.load(Ordering::Acquire)
    }
}

impl ScrubHandle {
    /// Begins a pass unless one is under way. Without pace it is as fast as the disk gives, also where it was begun with.
    pub fn begin(&self, is_paced: bool) -> ScrubReport {
        let mut report = self.shared.report();
        if !report.is_running {
            *report = ScrubReport::begun(crate::open::wall_ms());
            self.shared.is_paced.store(is_paced, Ordering::Release);
            // Its thread ends with the pool, and then nobody asks.
            let _ = self.sender.send(Begin);
        } else if !is_paced {
            self.shared.is_paced.store(false, Ordering::Release);
        }
        report.is_paced = self.shared.is_paced();
        report.clone()
    }

    /// Ends the pass that is under way, where there is one; it has ended within a slot.
    pub fn cancel(&self) -> ScrubReport {
        let mut report = self.shared.report();
        if report.is_running {
            report.is_cancelled = true;
            self.shared.is_cancelling.store(true, Ordering::Release);
        }
        report.clone()
    }

    /// What [`Self::begin`] would answer.
    #[must_use]
    pub fn would_begin(&self, is_paced: bool) -> ScrubReport {
        let report = self.report();
        if !report.is_running {
            return ScrubReport { is_paced, ..ScrubReport::begun(crate::open::wall_ms()) };
        }
        ScrubReport { is_paced: report.is_paced && is_paced, ..report }
    }

    /// How far it is, and what it found; of the last pass where none is under way.
    #[must_use]
    pub fn report(&self) -> ScrubReport {
        self.shared.report().clone()
    }
}

impl ScrubThread {
    /// Starts the thread, which goes on with the pass that `note` tells of.
    ///
    /// # Errors
    /// What the system says when there is no thread to be had.
    pub(crate) fn start(
        pool: Arc<PoolFile>,
        store: StoreHandle,
        (bytes_per_second, note): (u64, Option<Vec<u8>>),
    ) -> io::Result<Self> {
        let report = note.and_then(|note| serde_json::from_slice::<ScrubReport>(&note).ok()).unwrap_or_default();
        let (sender, begins) = mpsc::channel();
        // One that was cancelled as the daemon stopped does not go on.
        let report = ScrubReport { is_running: report.is_running && !report.is_cancelled, ..report };
        let is_under_way = report.is_running;
        let shared = Arc::new(Shared {
            report: Mutex::new(ScrubReport { is_paced: is_under_way, ..report }),
            is_paced: AtomicBool::new(true),
            is_stopping: AtomicBool::new(false),
            is_cancelling: AtomicBool::new(false),
        });
        if is_under_way {
            // The other end is in this function.
            let _ = sender.send(Begin);
        }
        let handle = ScrubHandle { sender, shared: Arc::clone(&shared) };
        let thread = thread::Builder::new().name("scrub".to_owned()).spawn(move || {
            for Begin in begins {
                if shared.is_stopping() || Pass::new(&pool, &store, &shared, bytes_per_second).run().is_none() {
                    return;
                }
            }
        })?;
        Ok(Self { handle, thread })
    }

    /// Talks to it.
    pub(crate) fn handle(&self) -> ScrubHandle {
        self.handle.clone()
    }

    /// Whether its thread has ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the thread, which notes how far it is. The store must not have ended.
    ///
    /// # Errors
    /// When it has panicked.
    pub(crate) fn stop(self) -> io::Result<()> {
        self.handle.shared.is_stopping.store(true, Ordering::Release);
        // Wakes it where it waits for a pass to begin.
        let _ = self.handle.sender.send(Begin);
        self.thread.join().map_err(|_| io::Error::other("the scrub's thread panicked"))
    }
}
