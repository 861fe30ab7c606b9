//! Copies one NBD export to another: what holds data and nothing else, with several requests in flight.
//!
//! What the source tells to be zeros is not read, and blocks of zeros are not written: the target holds zeros there
//! already. How far everything is flushed is told as the copy goes, so that another one can go on from there.

mod pieces;
mod zeros;

use crate::nbd::{Connection, NbdError};
use pieces::{Piece, Pieces};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use units::{BLOCK_BYTES, BLOCK_LEN, SECTOR_BYTES};

/// Pieces in flight.
const IN_FLIGHT_MAX: usize = 16;

/// How often what was written is flushed and noted.
const NOTE_PERIOD: Duration = Duration::from_secs(2);

/// How often progress is told.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// Which side of a copy failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CopyError {
    /// What is read.
    Source(NbdError),
    /// What is written.
    Target(NbdError),
    /// Noting how far it is.
    Note(crate::failure::Failure),
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Everything before it is copied.
    pub(crate) position: u64,
    /// Where it ends.
    pub(crate) end: u64,
    /// Bytes written to the target.
    pub(crate) written_bytes: u64,
}

/// What watches over a copy.
pub(crate) trait Observer {
    /// Shows how far it is.
    fn progress(&mut self, progress: Progress);

    /// Notes that everything before `position` is on stable storage.
    async fn flushed(&mut self, position: u64) -> Result<(), crate::failure::Failure>;
}

/// A step of the copy that has ended.
enum Ended {
    /// A piece, and how many bytes of it were written.
    Copied(Piece, u64),
    /// A flush that was asked for when the copy was at this position.
    Flushed(u64),
}

struct Copy<'a, O> {
    source: &'a Arc<Connection>,
    target: &'a Arc<Connection>,
    observer: &'a mut O,
    steps: JoinSet<Result<Ended, CopyError>>,
    /// Where the pieces in flight begin.
    in_flight: BTreeSet<u64>,
    progress: Progress,
    /// The next position to flush at, unless a flush is under way.
    next_note: Option<Instant>,
}

/// Copies `source` from `start` on, which is a whole number of blocks, and flushes the target.
///
/// # Errors
/// [`CopyError`]; what was noted before stays true.
pub(crate) async fn copy(
    source: &Arc<Connection>,
    target: &Arc<Connection>,
    start: u64,
    observer: &mut impl Observer,
) -> Result<Progress, CopyError> {
    let end = source.facts().size_bytes;
    let progress = Progress { position: start, end, written_bytes: 0 };
    let next_note = Some(Instant::now() + NOTE_PERIOD);
    let mut copy =
        Copy { source, target, observer, steps: JoinSet::new(), in_flight: BTreeSet::new(), progress, next_note };
    copy.run(start).await
}

impl<O: Observer> Copy<'_, O> {
    async fn run(&mut self, start: u64) -> Result<Progress, CopyError> {
        let mut pieces = Pieces::new(Arc::clone(self.source), start, (self.piece_bytes_max(), self.alignment()));
        let mut ticks = interval(PROGRESS_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_more = true;
        while is_more || !self.steps.is_empty() {
            while is_more && self.in_flight.len() < IN_FLIGHT_MAX {
                match pieces.next().await.map_err(CopyError::Source)? {
                    Some(piece) => self.begin(piece),
                    None => is_more = false,
                }
                // Ends that came while the source told its extents.
                while let Some(ended) = self.steps.try_join_next() {
                    self.on_ended(ended, pieces.position()).await?;
                }
            }
            tokio::select! {
                Some(ended) = self.steps.join_next() => self.on_ended(ended, pieces.position()).await?,
                _ = ticks.tick() => {}
            }
            self.progress.position = self.in_flight.first().copied().unwrap_or_else(|| pieces.position());
            self.observer.progress(self.progress);
            self.note_if_due();
        }
        self.target.flush().await.map_err(CopyError::Target)?;
        self.observer.flushed(self.progress.end).await.map_err(CopyError::Note)?;
        self.progress.position = self.progress.end;
        self.observer.progress(self.progress);
        Ok(self.progress)
    }

    /// What pieces begin at multiples of: blocks, or more where a side wants more.
    fn alignment(&self) -> u32 {
        let block = u32::try_from(BLOCK_BYTES).unwrap_or(u32::MAX);
        [self.source, self.target].into_iter().fold(block, |most, side| most.max(side.facts().alignment))
    }

    /// The longest piece that both sides take.
    fn piece_bytes_max(&self) -> u32 {
        let limits = [self.source, self.target].map(|side| side.facts().payload_bytes_max);
        let limit = limits.into_iter().flatten().fold(pieces::PIECE_BYTES_MAX, u32::min);
        let alignment = self.alignment();
        (limit - limit % alignment).max(alignment)
    }

    fn begin(&mut self, piece: Piece) {
        self.in_flight.insert(piece.offset);
        let (source, target) = (Arc::clone(self.source), Arc::clone(self.target));
        self.steps.spawn(async move {
            let mut data = source.read(piece.offset, piece.len).await.map_err(CopyError::Source)?;
            // A source of odd size ends within a sector; a volume is made of whole ones.
            data.resize(data.len().next_multiple_of(usize::try_from(SECTOR_BYTES).unwrap_or(BLOCK_LEN)), 0);
            let mut written_bytes = 0;
            for run in zeros::data_runs(&data) {
                let at = piece.offset + run.start as u64;
                let bytes = data.get(run).unwrap_or_default();
                target.write(at, bytes).await.map_err(CopyError::Target)?;
                written_bytes += bytes.len() as u64;
            }
            Ok(Ended::Copied(piece, written_bytes))
        });
    }

    async fn on_ended(
        &mut self,
        ended: Result<Result<Ended, CopyError>, JoinError>,
        position: u64,
    ) -> Result<(), CopyError> {
        let panicked = |error: JoinError| CopyError::Source(NbdError::Protocol(error.to_string()));
        match ended.map_err(panicked)?? {
            Ended::Copied(piece, written_bytes) => {
                self.in_flight.remove(&piece.offset);
                self.progress.written_bytes += written_bytes;
                self.progress.position = self.in_flight.first().copied().unwrap_or(position);
            }
            Ended::Flushed(position) => {
                self.observer.flushed(position).await.map_err(CopyError::Note)?;
                self.next_note = Some(Instant::now() + NOTE_PERIOD);
            }
        }
        Ok(())
    }

    /// Begins a flush of all that is copied by now.
    fn note_if_due(&mut self) {
        if self.next_note.is_some_and(|at| at <= Instant::now()) {
            self.next_note = None;
            let (target, position) = (Arc::clone(self.target), self.progress.position);
            self.steps.spawn(async move {
                target.flush().await.map_err(CopyError::Target)?;
                Ok(Ended::Flushed(position))
            });
        }
    }
}
