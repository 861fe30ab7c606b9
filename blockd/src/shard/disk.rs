//! The pool file as a shard uses it: appends, fetches, and one sync at a time for everybody.
//!
//! Through the page cache an append is a plain write by the shard itself, a few microseconds into memory, while the same
//! write through the ring would be handed to a kernel thread. For that to stay so the kernel must never find too much
//! dirty: what was written is handed to the device early, and while much is dirty all the same, the ring writes. What the
//! device has leaves the page cache, so that the next appends find its memory.
//!
//! All of a pool's writes go through the page cache, or none (`--direct`). A mixture is not sound: the kernel keeps old pages
//! beside what was written past them, where readahead brought them, or calls what a buffered write holds dirty there lost.

use super::Token;
use super::stats::ShardStats;
use crate::limits::Limits;
use crate::memory::region_of;
use crate::open::open_past_cache;
use smallvec::SmallVec;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use units::Monotonic;
use uring::{DISCARDED_BYTES_MAX, ReadPiece, Ring};
use volume::buffer::{Buffer, total_len};
use volume::error::DiskFault;
use volume::io::{Event, FetchPiece, IoId};

/// errno of an I/O error.
const EIO: i32 = 5;

/// Bytes between two syncs up to which they count as coming after every write.
const EARLY_BYTES_MAX: u64 = 32 << 10;

/// Bytes from which on a piece of a fetch is part of a stream.
const STREAM_BYTES_MIN: usize = 64 << 10;

/// Of such a piece, the part that may be read besides, and thrown away.
const BRIDGED_PART: usize = 8;

/// Names an append, fetch or sync among those of all volumes of the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskToken {
    /// Place of the volume in the shard.
    pub(crate) volume: usize,
    pub(crate) id: IoId,
}

/// A fetch that a volume wants.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) token: DiskToken,
    pub(crate) buffer: Buffer,
    pub(crate) pieces: SmallVec<[FetchPiece; 2]>,
    pub(crate) is_second_try: bool,
}

/// A shard's own opening of the pool file, so that it sees every failure to write back.
#[derive(Debug)]
pub(crate) struct Disk {
    file: Rc<OwnedFd>,
    /// Another opening, for early write-back: it takes note of failures for itself, and the sync must hear of them too.
    write_back_file: Rc<OwnedFd>,
    /// Another, past the page cache, for what went wrong through it: a page may be bad, or not readable for the sake of its neighbour.
    /// Where there is none, the first one.
    past_cache: Rc<OwnedFd>,
    /// A write-back or a sync has failed: what was in the page cache may be gone, whoever wrote it, and no later sync may
    /// say otherwise.
    has_lost: bool,
    is_direct: bool,
    /// Where the last long read of each volume ended.
    streams: Vec<u64>,
    /// Who waits for the next sync, and who for the one in flight.
    waiting: Vec<DiskToken>,
    syncing: Vec<DiskToken>,
    sync_since: Option<Monotonic>,
    dirty: Dirty,
}

/// Bytes in the page cache that are not known to be on the disk.
#[derive(Debug, Default)]
struct Dirty {
    bytes: u64,
    /// Those of them that came after the sync in flight began.
    bytes_since_sync: u64,
    /// By volume: what was appended in a row and not yet handed to the device.
    runs: Vec<Range<u64>>,
    /// Whether the last sync had so little to write that the next will have, too: then the device is given that while the
    /// client that will ask for the sync is still reading its reply.
    is_synced_often: bool,
    /// What is to be given to the device so.
    early: Option<Range<u64>>,
}

impl Disk {
    /// The pool at `path`; with `is_direct`, past the page cache throughout.
    pub(crate) fn open(path: &Path, is_direct: bool) -> io::Result<Self> {
        let open = |is_direct| uring::file::open(path, is_direct).map(|file| Rc::new(OwnedFd::from(file)));
        let file = open(is_direct)?;
        Ok(Self {
            write_back_file: open(is_direct)?,
            past_cache: open_past_cache(path).map_or_else(|| Rc::clone(&file), |direct| Rc::new(direct.into())),
            file,
            has_lost: false,
            is_direct,
            streams: Vec::new(),
            waiting: Vec::new(),
            syncing: Vec::new(),
            sync_since: None,
            dirty: Dirty::default(),
        })
    }

    /// Whether a sync is in flight.
    pub(crate) const fn is_syncing(&self) -> bool {
        self.sync_since.is_some()
    }

    /// Whether something waits for [`Disk::write_early`].
    pub(crate) const fn has_early(&self) -> bool {
        self.dirty.early.is_some()
    }

    pub(crate) const fn dirty_bytes(&self) -> u64 {
        self.dirty.bytes
    }

    /// Appends; returns the event when it is done already.
    pub(crate) fn append(
        &mut self,
        io: &mut Io<'_>,
        token: DiskToken,
        pool_offset: u64,
        buffers: Vec<Buffer>,
    ) -> Option<Event> {
        let len = total_len(&buffers);
        io.stats.appends += 1;
        io.stats.append_bytes += len;
        if self.is_direct || self.dirty.bytes > io.limits.dirty_bytes_max {
            let regions = buffers.into_iter().map(region_of).collect();
            io.ring.write(Token::Append { token, pool_offset, since: io.now }, &self.file, pool_offset, regions);
            return None;
        }
        io.stats.appends_inline += 1;
        let since = Instant::now();
        let mut slices: SmallVec<[IoSlice<'_>; 64]> =
            buffers.iter().map(|buffer| IoSlice::new(buffer.as_slice())).collect();
        let result = uring::file::write_all_vectored_at(&self.file, &mut slices, pool_offset);
        io.stats.append_ns.record_time(since.elapsed());
        drop(slices);
        self.note_dirty(io, (token.volume, pool_offset), len);
        let result = note_fault(io.stats, result);
        Some(Event::Appended { id: token.id, buffers, result })
    }

    /// Notes that so many bytes were appended at `pool_offset`: unless they went past it, they are in the page cache.
    pub(crate) fn note_dirty(&mut self, io: &mut Io<'_>, (volume, pool_offset): (usize, u64), len: u64) {
        if self.is_direct {
            return;
        }
        self.dirty.bytes += len;
        self.dirty.bytes_since_sync += len;
        if self.dirty.is_synced_often {
            self.dirty.early = Some(pool_offset..pool_offset + len);
        }
        for run in self.dirty.extend(volume, pool_offset..pool_offset + len, io.limits.writeback_bytes) {
            self.write_back(io, run);
        }
    }

    /// Hands a run of dirty bytes to the device.
    fn write_back(&self, io: &mut Io<'_>, run: Range<u64>) {
        if let Ok(len) = u32::try_from(run.end - run.start)
            && len > 0
        {
            io.ring.write_back(Token::WriteBack { offset: run.start, len }, &self.write_back_file, run.start, len);
        }
    }

    /// Notes that a run of dirty bytes is on the device, or could not be brought there, of which the next sync tells.
    pub(crate) fn on_written_back(&mut self, len: u32, result: &io::Result<()>) {
        self.note_loss(result);
        self.dirty.bytes = self.dirty.bytes.saturating_sub(u64::from(len));
    }

    /// Has what is on the device leave the page cache: its memory takes the next appends. A log that stayed would fill the page cache
    /// with what is overwritten soon, at the cost of what is read; and memory that was free long may be slow to get. If it stays,
    /// nothing is lost.
    pub(crate) fn forget(&self, io: &mut Io<'_>, offset: u64, len: u32) {
        io.ring.forget(Token::Ignored, &self.file, offset, len);
    }

    fn note_loss(&mut self, result: &io::Result<()>) {
        if let Err(error) = result
            && is_loss(error)
        {
            tracing::error!(%error, "the pool's disk failed to take what was written; nothing more will be called durable");
            self.has_lost = true;
        }
    }

    /// Begins to write out what the next sync will ask for. To be called when all replies are on their way.
    pub(crate) fn write_early(&mut self, io: &mut Io<'_>) {
        let Some(early) = self.dirty.early.take().filter(|_| self.sync_since.is_none()) else { return };
        io.stats.early_write_backs += 1;
        let begun = uring::file::begin_write_back(&self.write_back_file, early.start, early.end - early.start);
        self.note_loss(&begun);
    }

    /// Hands what volumes have not added to for a while to the device.
    pub(crate) fn write_back_remains(&mut self, io: &mut Io<'_>) {
        for run in std::mem::take(&mut self.dirty.runs) {
            self.write_back(io, run);
        }
    }

    /// Begins a fetch.
    pub(crate) fn fetch(&mut self, io: &mut Io<'_>, fetch: Fetch) {
        let Fetch { token, buffer, pieces, is_second_try } = fetch;
        io.stats.fetches += 1;
        io.stats.fetch_pieces += pieces.len() as u64;
        let mut asked = SmallVec::new();
        for piece in pieces {
            io.stats.fetch_bytes += piece.len as u64;
            if !is_second_try && let Some(bridge) = self.bridge(token.volume, &piece) {
                io.stats.bridged_bytes += bridge.len as u64;
                asked.push(bridge);
            }
            let FetchPiece { pool_offset: file_offset, buffer_offset, len } = piece;
            asked.push(ReadPiece { file_offset, region_offset: Some(buffer_offset), len });
        }
        let file = if is_second_try { &self.past_cache } else { &self.file };
        io.ring.read(Token::Fetch(token), file, region_of(buffer), asked);
    }

    /// The bytes between the last long read of a volume and the next one, where these are few: the headers of batches. With them
    /// read too, the kernel sees one stream: it reads ahead, and keeps it in large folios, which are copied from at half the cost.
    fn bridge(&mut self, volume: usize, piece: &FetchPiece) -> Option<ReadPiece> {
        if self.is_direct || piece.len < STREAM_BYTES_MIN {
            return None;
        }
        if self.streams.len() <= volume {
            self.streams.resize(volume + 1, 0);
        }
        let from = std::mem::replace(self.streams.get_mut(volume)?, piece.pool_offset + piece.len as u64);
        let between = usize::try_from(piece.pool_offset.checked_sub(from)?).ok()?;
        let is_few = (1..=DISCARDED_BYTES_MAX.min(piece.len / BRIDGED_PART)).contains(&between);
        is_few.then_some(ReadPiece { file_offset: from, region_offset: None, len: between })
    }

    /// Notes that a volume wants a sync. It begins with [`Disk::start_sync`].
    pub(crate) fn want_sync(&mut self, stats: &mut ShardStats, token: DiskToken) {
        stats.syncs_asked += 1;
        self.waiting.push(token);
    }

    /// Begins a sync for all who wait, unless one is in flight: that one may have begun before their appends.
    pub(crate) fn start_sync(&mut self, io: &mut Io<'_>) {
        if self.waiting.is_empty() || self.is_syncing() {
            return;
        }
        io.stats.syncs += 1;
        std::mem::swap(&mut self.waiting, &mut self.syncing);
        self.sync_since = Some(io.now);
        self.dirty.is_synced_often = self.dirty.bytes_since_sync <= EARLY_BYTES_MAX;
        self.dirty.early = None;
        self.dirty.bytes_since_sync = 0;
        io.ring.sync_data(Token::Sync, &self.file);
    }

    /// Takes the end of the sync in flight: the volumes that waited for it, and what to tell them.
    pub(crate) fn on_synced(
        &mut self,
        stats: &mut ShardStats,
        now: Monotonic,
        result: io::Result<()>,
    ) -> (std::vec::Drain<'_, DiskToken>, Result<(), DiskFault>) {
        let took = self.sync_since.take().map_or(Duration::ZERO, |since| now.since(since));
        stats.sync_ns.record_time(took);
        self.has_lost |= result.is_err();
        if !self.has_lost {
            self.dirty.bytes = self.dirty.bytes_since_sync;
        }
        let result = if self.has_lost { result.and_then(|()| Err(io::Error::from_raw_os_error(EIO))) } else { result };
        (self.syncing.drain(..), note_fault(stats, result))
    }
}

/// What carrying something out needs of the shard.
#[derive(Debug)]
pub(crate) struct Io<'a> {
    pub(crate) ring: &'a mut Ring<Token>,
    pub(crate) stats: &'a mut ShardStats,
    pub(crate) limits: &'a Limits,
    pub(crate) now: Monotonic,
}

impl Dirty {
    /// Adds to a volume's run; returns the runs that are long enough, or ended, to be handed to the device.
    fn extend(&mut self, volume: usize, added: Range<u64>, enough: u64) -> SmallVec<[Range<u64>; 2]> {
        let mut ended = SmallVec::new();
        if self.runs.len() <= volume {
            self.runs.resize(volume + 1, 0..0);
        }
        let Some(run) = self.runs.get_mut(volume) else { return ended };
        if run.end == added.start {
            run.end = added.end;
        } else {
            ended.extend(Some(std::mem::replace(run, added)).filter(|run| !run.is_empty()));
        }
        if run.end - run.start >= enough {
            ended.push(run.clone());
            run.start = run.end;
        }
        ended
    }
}

/// Whether a failed write-back may have lost bytes; an interrupted or unknown call has not.
fn is_loss(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// What the engine is told of an I/O error.
pub(crate) fn note_fault(stats: &mut ShardStats, result: io::Result<()>) -> Result<(), DiskFault> {
    result.map_err(|error| {
        stats.disk_faults += 1;
        tracing::error!(%error, "the pool's disk failed");
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if is_full { DiskFault::NoSpace } else { DiskFault::Io }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_in_a_row_are_handed_over_when_there_is_enough_of_them() {
        let mut dirty = Dirty::default();
        assert!(dirty.extend(3, 0..4, 10).is_empty());
        assert!(dirty.extend(3, 4..8, 10).is_empty());
        assert_eq!(dirty.extend(3, 8..12, 10).as_slice(), std::slice::from_ref(&(0..12)));
        assert!(dirty.extend(3, 12..16, 10).is_empty());
    }

    #[test]
    fn a_volume_that_goes_on_elsewhere_hands_over_what_it_left() {
        let mut dirty = Dirty::default();
        assert!(dirty.extend(0, 100..104, 10).is_empty());
        assert!(dirty.extend(1, 104..108, 10).is_empty());
        assert_eq!(dirty.extend(0, 200..204, 10).as_slice(), std::slice::from_ref(&(100..104)));
        assert_eq!(dirty.extend(1, 300..330, 10).as_slice(), [104..108, 300..330]);
    }

    #[test]
    fn long_reads_with_little_between_are_one_stream() {
        let pool = tempfile::NamedTempFile::new().unwrap();
        let piece = |pool_offset, len| FetchPiece { pool_offset, buffer_offset: 0, len };
        let between = |file_offset, len| Some(ReadPiece { file_offset, region_offset: None, len });
        let mut disk = Disk::open(pool.path(), false).unwrap();
        let long = 256 << 10;
        assert_eq!(disk.bridge(3, &piece(1 << 20, long)), None);
        assert_eq!(disk.bridge(2, &piece(4 << 20, long)), None);
        assert_eq!(
            disk.bridge(3, &piece((1 << 20) + 4096 + long as u64, long)),
            between((1 << 20) + long as u64, 4096)
        );
        assert_eq!(disk.bridge(2, &piece((4 << 20) + 16384, 4096)), None);
        assert_eq!(disk.bridge(2, &piece((4 << 20) + long as u64, long)), None);
        assert_eq!(disk.bridge(2, &piece(8 << 20, long)), None);
        assert_eq!(disk.bridge(2, &piece(4 << 20, long)), None);
        // As much as an eighth of the piece, and more.
        for (at, len, is_read) in [(5, 16_u64 << 10, true), (6, (16 << 10) + 4096, false)] {
            assert_eq!(disk.bridge(at, &piece(1 << 20, 128 << 10)), None);
            assert_eq!(disk.bridge(at, &piece((1 << 20) + (128 << 10) + len, 128 << 10)).is_some(), is_read);
        }
        if let Ok(mut direct) = Disk::open(pool.path(), true) {
            assert_eq!(direct.bridge(0, &piece(4096, long)), None);
        }
    }

    /// P1. The kernel tells a failure once, to one of those who ask; it holds for all who sync after.
    #[test]
    fn no_sync_succeeds_after_a_write_back_or_a_sync_failed() {
        let pool = tempfile::NamedTempFile::new().unwrap();
        let open = || Disk::open(pool.path(), false).unwrap();
        let failed = || Err(io::Error::from_raw_os_error(EIO));
        let mut stats = ShardStats::default();
        let mut disk = open();
        assert!(disk.on_synced(&mut stats, Monotonic(0), Ok(())).1.is_ok());
        disk.on_written_back(4096, &Err(io::Error::from_raw_os_error(22)));
        assert!(disk.on_synced(&mut stats, Monotonic(0), Ok(())).1.is_ok());
        disk.on_written_back(4096, &failed());
        assert!(disk.on_synced(&mut stats, Monotonic(0), Ok(())).1.is_err());
        let mut disk = open();
        assert!(disk.on_synced(&mut stats, Monotonic(0), failed()).1.is_err());
        assert!(disk.on_synced(&mut stats, Monotonic(0), Ok(())).1.is_err());
    }

    #[test]
    fn a_full_file_system_is_told_from_a_failing_disk() {
        let fault_of = |errno| note_fault(&mut ShardStats::default(), Err(io::Error::from_raw_os_error(errno)));
        assert_eq!(fault_of(28), Err(DiskFault::NoSpace));
        assert_eq!(fault_of(122), Err(DiskFault::NoSpace));
        assert_eq!(fault_of(5), Err(DiskFault::Io));
    }
}
