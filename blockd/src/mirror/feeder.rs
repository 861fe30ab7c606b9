//! Reads the log of a volume for the other site, which is behind: many batches at a time, so that each does not wait for threads and disk
//! by itself.

use super::host::SeatHandle;
use crate::catalogue::segments;
use crate::open::PoolFile;
use crate::shard::MirrorMessage;
use crate::store::StoreHandle;
use replication::seat::FeedId;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;
use units::{Lsn, VolumeId};
use volume::buffer::{Buffer, total_len};
use volume::feed::{Feed, FeedError};
use volume::pool::SegmentRow;

/// Bytes of batches that are read at a time: the last of them may go beyond.
const AHEAD_BYTES: u64 = 2 << 20;

/// What a feeder is asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: FeedId,
    pub(super) feed: Feed,
    pub(super) up_to: Lsn,
}

/// Reads the log of a volume.
pub(super) struct Feeder {
    pub(super) pool: Arc<PoolFile>,
    pub(super) store: StoreHandle,
    pub(super) volume: VolumeId,
    pub(super) seat: SeatHandle,
}

/// A batch that was read, and the places before and behind it.
#[derive(Debug)]
pub struct ReadBatch {
    /// Its first operation.
    pub from: Lsn,
    /// The place behind it.
    pub behind: Feed,
    /// Its header and its payload.
    pub buffers: Vec<Buffer>,
}

impl Feeder {
    /// Answers until nobody asks any more.
    pub(super) async fn run(self, mut asked: mpsc::UnboundedReceiver<Asked>) {
        while let Some(Asked { id, feed, up_to }) = asked.recv().await {
            let batches = self.read(feed, up_to).await;
            self.seat.send(MirrorMessage::Fed { id, feed, batches });
        }
    }

    async fn read(&self, feed: Feed, up_to: Lsn) -> Result<VecDeque<ReadBatch>, FeedError> {
        // Where the index has ended there is no log to be read any more.
        let rows = segments(&self.store, self.volume).await.unwrap_or_default();
        let pool = Arc::clone(&self.pool);
        let read = tokio::task::spawn_blocking(move || read_some(&pool, feed, (&rows, up_to)));
        // A panic while reading has read nothing.
        read.await.unwrap_or_else(|_| Err(FeedError::Rotten(feed.next_lsn())))
    }
}

/// Reads batches from a place on. Only the first may fail: behind it, what cannot be read is asked for again.
fn read_some(
    pool: &PoolFile,
    mut feed: Feed,
    (rows, up_to): (&[SegmentRow], Lsn),
) -> Result<VecDeque<ReadBatch>, FeedError> {
    let (mut batches, mut bytes) = (VecDeque::new(), 0);
    while bytes < AHEAD_BYTES {
        let from = feed.next_lsn();
        match feed.next_batch(pool, pool.superblock(), (rows, up_to)) {
            Ok(Some(buffers)) => {
                bytes += total_len(&buffers);
                batches.push_back(ReadBatch { from, behind: feed, buffers });
            }
            Ok(None) => break,
            Err(error) if batches.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(batches)
}

/// Writes what the log has behind an operation to a file of its own: the batches, one behind the other.
pub(super) fn write_branch(
    pool: &PoolFile,
    (rows, first, last): (&[SegmentRow], Lsn, Lsn),
    path: &std::path::Path,
) -> Result<(), String> {
    use std::io::Write as _;
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut feed = Feed::new(first);
    let mut file = std::fs::File::create(path).map_err(failed)?;
    while let Some(batch) = feed.next_batch(pool, pool.superblock(), (rows, last)).map_err(|error| error.to_string())? {
        for buffer in &batch {
            file.write_all(buffer.as_slice()).map_err(failed)?;
        }
    }
    file.sync_all().map_err(failed)
}
