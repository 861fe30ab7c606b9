//! The thread that reads, writes and syncs for the compactor, so that the store's thread does not wait for the disk.
//!
//! It writes as the shards do: through the page cache, and then hands what it wrote to the device at once, or past it
//! (`--direct`). It reads past the page cache where the file system lets it: what is copied is not what clients read, and
//! what is read back of a pack must come from the device.

use super::thread::Command;
use crate::open::{PastCache, PoolFile};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use units::{BLOCK_BYTES, BLOCK_LEN};
use volume::buffer::{Buffer, total_len};
use volume::compact::Urgency;
use volume::error::DiskFault;
use volume::io::{Action, Event, FetchPiece};

/// Blocks that are not wanted are read along where no more bytes of them lie between two that are: a read costs more.
const GAP_BYTES: u64 = 32 << 10;

/// Most bytes of one such read.
const SPAN_BYTES_MAX: u64 = 4 << 20;

/// Bytes read and written in a second while slots are plenty.
const PACE_BYTES: u64 = 96 << 20;

/// The same while slots are owed: with it 1 GiB is back within a minute where two thirds of every slot are live, which is
/// 2 GiB read, written and read back.
const PACE_BYTES_OWING: u64 = 256 << 20;

/// Something to be done.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) action: Action,
    pub(super) urgency: Urgency,
}

/// The pool as the compactor reads and writes it.
struct Disk {
    pool: Arc<PoolFile>,
    past_cache: PastCache,
    writes_direct: bool,
}

/// Starts the thread; it ends when its channel does.
pub(super) fn start(
    pool: Arc<PoolFile>,
    writes_direct: bool,
    done: mpsc::Sender<Command>,
) -> io::Result<(mpsc::Sender<Work>, JoinHandle<()>)> {
    let (sender, work) = mpsc::channel::<Work>();
    let disk = Disk { past_cache: PastCache::new(&pool), pool, writes_direct };
    let thread = thread::Builder::new().name("compactor".to_owned()).spawn(move || {
        for Work { action, urgency } in work {
            let began = Instant::now();
            let Some((event, bytes)) = disk.carry_out(action) else { continue };
            if done.send(Command::Disk(event)).is_err() {
                return;
            }
            thread::sleep(pause_after(bytes, urgency).saturating_sub(began.elapsed()));
        }
    })?;
    Ok((sender, thread))
}

/// How long so many bytes take at the pace. Single blocks are headers, which free slots.
const fn pause_after(bytes: u64, urgency: Urgency) -> Duration {
    let pace = match urgency {
        Urgency::Plenty => PACE_BYTES,
        Urgency::Owing => PACE_BYTES_OWING,
        Urgency::Short => return Duration::ZERO,
    };
    if bytes <= BLOCK_BYTES {
        return Duration::ZERO;
    }
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / pace)
}

impl Disk {
    /// Returns how it ended, and how many bytes were written or read.
    fn carry_out(&self, action: Action) -> Option<(Event, u64)> {
        match action {
            Action::Append { id, pool_offset, buffers, to_peer: _ } => {
                let bytes = total_len(&buffers);
                let mut at = pool_offset;
                let result = buffers.iter().try_for_each(|buffer| {
                    self.write(at, buffer.as_slice())?;
                    at += buffer.len() as u64;
                    Ok(())
                });
                Some((Event::Appended { id, buffers, result }, bytes))
            }
            Action::Fetch { id, mut buffer, pieces, .. } => {
                let bytes = buffer.len() as u64;
                let result = self.fetch(&mut buffer, &pieces);
                Some((Event::Fetched { id, buffer, result }, bytes))
            }
            Action::Sync { id } => Some((Event::Synced { id, result: self.pool.sync() }, 0)),
            // What the store's thread answers, or only a volume asks for.
            Action::Reply(_)
            | Action::LoadPage { .. }
            | Action::LoadPlace { .. }
            | Action::LoadChanges { .. }
            | Action::WriteBack { .. }
            | Action::Lease { .. }
            | Action::LeaseFor { .. }
            | Action::SyncPeer { .. }
            | Action::TellPrimary(_)
            | Action::FellOut { .. }
            | Action::NoteSegment(_)
            | Action::NoteBoundary(_)
            | Action::NoteLoans { .. }
            | Action::Pledge { .. }
            | Action::Settle(_)
            | Action::Unpinned { .. }
            | Action::Release { .. } => None,
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskFault> {
        if self.writes_direct
            && let Some(direct) = self.past_cache.file()
        {
            return direct.write_all_at(bytes, offset).map_err(|error| self.pool.fault("write", &error));
        }
        self.pool.write_at(offset, bytes)?;
        // How it ends is told to the sync.
        let _ = uring::file::begin_write_back(self.pool.file(), offset, bytes.len() as u64);
        Ok(())
    }

    /// Reads pieces, those that lie near each other together.
    fn fetch(&self, buffer: &mut Buffer, pieces: &[FetchPiece]) -> Result<(), DiskFault> {
        let mut rest = pieces;
        while !rest.is_empty() {
            let (near, others) = rest.split_at(near_count(rest).max(1));
            rest = others;
            // A block between them that cannot be read is nothing that is wanted.
            if near.len() > 1 && self.fetch_together(buffer, near).is_ok() {
                continue;
            }
            for piece in near {
                let range = piece.buffer_offset..piece.buffer_offset + piece.len;
                let place = buffer.as_mut_slice().get_mut(range).ok_or(DiskFault::Io)?;
                self.read(piece.pool_offset, place)?;
            }
        }
        Ok(())
    }

    fn fetch_together(&self, buffer: &mut Buffer, pieces: &[FetchPiece]) -> Result<(), DiskFault> {
        let start = pieces.first().map_or(0, |piece| piece.pool_offset);
        let end = pieces.last().map_or(0, |piece| piece.pool_offset + piece.len as u64);
        let mut span = Buffer::zeroed(usize::try_from(end - start).unwrap_or(BLOCK_LEN));
        self.read(start, span.as_mut_slice())?;
        for piece in pieces {
            let at = usize::try_from(piece.pool_offset - start).unwrap_or(usize::MAX);
            let from = span.as_slice().get(at..at.saturating_add(piece.len)).ok_or(DiskFault::Io)?;
            let range = piece.buffer_offset..piece.buffer_offset + piece.len;
            buffer.as_mut_slice().get_mut(range).ok_or(DiskFault::Io)?.copy_from_slice(from);
        }
        Ok(())
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskFault> {
        self.past_cache.read(&self.pool, offset, bytes).map_err(|error| self.pool.fault("read", &error))
    }
}

/// How many of the first pieces are read together.
fn near_count(pieces: &[FetchPiece]) -> usize {
    let Some(start) = pieces.first().map(|piece| piece.pool_offset) else { return 0 };
    let is_near = |pair: &[FetchPiece]| {
        let [one, next] = pair else { return false };
        let end = one.pool_offset + one.len as u64;
        next.pool_offset.checked_sub(end).is_some_and(|gap| gap <= GAP_BYTES)
            && next.pool_offset + next.len as u64 - start <= SPAN_BYTES_MAX
    };
    1 + pieces.windows(2).take_while(|pair| is_near(pair)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::PoolShape;
    use volume::io::IoId;

    fn piece(pool_offset: u64, buffer_offset: usize) -> FetchPiece {
        FetchPiece { pool_offset, buffer_offset, len: BLOCK_LEN }
    }

    /// P2. Pieces come from where they are, whether they are read together or one by one, and past the page cache too.
    #[test]
    fn scattered_pieces_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let shape = PoolShape { pool_bytes: Some(33 << 20), slot_bytes: 4 << 20 };
        let pool = Arc::new(PoolFile::open_or_make(&folder.path().join("pool"), shape).unwrap().0);
        let offsets = [1 << 20, (1 << 20) + 8192, (1 << 20) + 40960, (9 << 20), (9 << 20) + 4096, 3 << 20];
        for writes_direct in [false, true] {
            let disk = Disk { past_cache: PastCache::new(&pool), pool: Arc::clone(&pool), writes_direct };
            for (offset, byte) in offsets.iter().zip(1_u8..) {
                let buffers = vec![Buffer::copy_of(&[byte + u8::from(writes_direct) * 100; BLOCK_LEN])];
                let ended =
                    disk.carry_out(Action::Append { id: IoId(1), pool_offset: *offset, buffers, to_peer: None });
                assert!(matches!(ended, Some((Event::Appended { result: Ok(()), .. }, _))));
            }
            let pieces = offsets.iter().zip(0..).map(|(offset, n)| piece(*offset, n * BLOCK_LEN)).collect();
            let buffer = Buffer::zeroed(offsets.len() * BLOCK_LEN);
            let Some((Event::Fetched { buffer, result: Ok(()), .. }, _)) =
                disk.carry_out(Action::Fetch { id: IoId(2), buffer, pieces, is_second_try: false })
            else {
                panic!("a fetch fails");
            };
            let firsts: Vec<u8> = buffer.as_slice().chunks(BLOCK_LEN).map(|block| block[BLOCK_LEN - 1]).collect();
            assert_eq!(firsts, [1, 2, 3, 4, 5, 6].map(|byte: u8| byte + u8::from(writes_direct) * 100));
        }
    }
}
