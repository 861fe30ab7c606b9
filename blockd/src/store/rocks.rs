//! The index store on RocksDB: one ordered map in a directory, with a write-ahead log.
//!
//! Small on purpose: what it holds is map pages and segment rows, whose hot part the shards cache by themselves. A commit
//! survives the process when it returns, and power loss when it is durable; none is ever lost before one that stays.

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, LogLevel, Options, ReadOptions, WriteBatch,
    WriteOptions,
};
use std::cell::Cell;
use std::fmt;
use std::path::{Path, PathBuf};
use volume::store::{Durability, Store, StoreFault, StoreWrite};

/// Bytes of read blocks, indexes and filters kept in memory.
const CACHE_BYTES: usize = 32 << 20;

/// Bytes of a write buffer; there are two at most.
const WRITE_BUFFER_BYTES: usize = 16 << 20;

/// Bytes of log after which the write buffers are written out.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a read block: a few map pages.
const READ_BLOCK_BYTES: usize = 8 << 10;

/// Bits per key of the filters that tell without reading that a page is not there.
const FILTER_BITS: f64 = 10.0;

/// Threads that write out and merge.
const BACKGROUND_THREADS: i32 = 2;

/// Most files held open.
const OPEN_FILES_MAX: i32 = 256;

/// Files of the database's own log, and the bytes of each.
const INFO_LOG: (usize, usize) = (2, 1 << 20);

/// An index store in a directory. One process at a time has it open.
pub struct RocksStore {
    db: DB,
    path: PathBuf,
    has_failed: Cell<bool>,
}

impl RocksStore {
    /// Makes an empty store in a directory that is not there yet.
    ///
    /// # Errors
    /// [`StoreFault`] when it cannot be made, or is there.
    pub fn create(path: &Path) -> Result<Self, StoreFault> {
        let mut options = options();
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        Self::open_with(path, &options)
    }

    /// Opens the store in a directory.
    ///
    /// # Errors
    /// [`StoreFault`] when it is not there, damaged, or open elsewhere.
    pub fn open(path: &Path) -> Result<Self, StoreFault> {
        Self::open_with(path, &options())
    }

    fn open_with(path: &Path, options: &Options) -> Result<Self, StoreFault> {
        let db = DB::open(options, path).map_err(|error| StoreFault(format!("{}: {error}", path.display())))?;
        Ok(Self { db, path: path.to_owned(), has_failed: Cell::new(false) })
    }

    /// Makes everything durable and closes.
    ///
    /// # Errors
    /// [`StoreFault`] when it cannot be made durable.
    pub fn close(self) -> Result<(), StoreFault> {
        self.db.flush_wal(true).map_err(|error| self.fault(&error))
    }

    /// Tells of a fault; the first one is also logged, since those who asked only learn that the store failed.
    fn fault(&self, error: &rocksdb::Error) -> StoreFault {
        let fault = StoreFault(format!("{}: {error}", self.path.display()));
        if !self.has_failed.replace(true) {
            tracing::error!(%fault, "the index store fails; its volumes keep their logs and serve what they have in memory");
        }
        fault
    }
}

impl Store for RocksStore {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        self.db.get(key).map_err(|error| self.fault(&error))
    }

    fn seek(&self, from: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, StoreFault> {
        if from >= end {
            return Ok(None);
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end);
        let mut iterator = self.db.raw_iterator_opt(options);
        iterator.seek(from);
        match iterator.item() {
            Some((key, value)) => Ok(Some((key.to_vec(), value.to_vec()))),
            None => iterator.status().map(|()| None).map_err(|error| self.fault(&error)),
        }
    }

    fn each(&self, from: &[u8], end: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreFault> {
        if from >= end {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end);
        let mut iterator = self.db.raw_iterator_opt(options);
        iterator.seek(from);
        while let Some((key, value)) = iterator.item() {
            visit(key, value);
            iterator.next();
        }
        iterator.status().map_err(|error| self.fault(&error))
    }

    fn commit(&mut self, writes: Vec<StoreWrite>, durability: Durability) -> Result<(), StoreFault> {
        let mut batch = WriteBatch::default();
        for write in writes {
            match write {
                StoreWrite::Put(key, value) => batch.put(key, value),
                StoreWrite::Delete(key) => batch.delete(key),
                StoreWrite::DeleteRange(from, end) => batch.delete_range(from, end),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Durable);
        self.db.write_opt(batch, &options).map_err(|error| self.fault(&error))
    }
}

impl fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RocksStore({})", self.path.display())
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(&table_options());
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_max_total_wal_size(LOG_BYTES_MAX);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_max_background_jobs(BACKGROUND_THREADS);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(INFO_LOG.0);
    options.set_max_log_file_size(INFO_LOG.1);
    options.set_log_level(LogLevel::Warn);
    // Nobody reads the statistics that it would otherwise wake up to write.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn table_options() -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_block_size(READ_BLOCK_BYTES);
    table.set_bloom_filter(FILTER_BITS, false);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use Durability::{Durable, Lazy};
    use StoreWrite::{Delete, DeleteRange, Put};

    fn put(key: &str, value: &str) -> StoreWrite {
        Put(key.into(), value.into())
    }

    fn all(store: &RocksStore) -> Vec<(String, String)> {
        let mut from = Vec::new();
        let mut found = Vec::new();
        while let Some((key, value)) = store.seek(&from, &[0xff]).unwrap() {
            from = [key.as_slice(), &[0]].concat();
            found.push((String::from_utf8(key).unwrap(), String::from_utf8(value).unwrap()));
        }
        found
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn made() -> (tempfile::TempDir, RocksStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = RocksStore::create(&folder.path().join("index")).unwrap();
        (folder, store)
    }

    #[test]
    fn writes_of_a_commit_apply_in_their_order() {
        let (_folder, mut store) = made();
        store.commit(vec![put("a", "1"), put("b", "2"), Delete(b"a".to_vec()), put("c", "3")], Lazy).unwrap();
        assert_eq!(all(&store), pairs(&[("b", "2"), ("c", "3")]));
        let drop_then_put = vec![DeleteRange(b"a".to_vec(), b"z".to_vec()), put("b", "4")];
        store.commit(drop_then_put, Durable).unwrap();
        assert_eq!(all(&store), pairs(&[("b", "4")]));
        let put_then_drop = vec![put("d", "5"), DeleteRange(b"a".to_vec(), b"d".to_vec())];
        store.commit(put_then_drop, Lazy).unwrap();
        assert_eq!(all(&store), pairs(&[("d", "5")]));
        assert_eq!(store.read(b"d").unwrap().as_deref(), Some(b"5".as_slice()));
        assert_eq!(store.read(b"b").unwrap(), None);
    }

    #[test]
    fn a_seek_stays_in_its_half_open_range() {
        let (_folder, mut store) = made();
        store.commit(vec![put("b", "1"), put("d", "2")], Lazy).unwrap();
        let seek = |from: &str, end: &str| store.seek(from.as_bytes(), end.as_bytes()).unwrap().map(|(key, _)| key);
        assert_eq!(seek("a", "z"), Some(b"b".to_vec()));
        assert_eq!(seek("b", "c"), Some(b"b".to_vec()));
        assert_eq!(seek("c", "d"), None);
        assert_eq!(seek("c", "d\0"), Some(b"d".to_vec()));
        assert_eq!(seek("d", "d"), None);
        assert_eq!(seek("z", "a"), None);
        let each = |from: &str, end: &str| {
            let mut keys = Vec::new();
            store.each(from.as_bytes(), end.as_bytes(), &mut |key, _| keys.push(key.to_vec())).unwrap();
            keys
        };
        assert_eq!(each("a", "z"), [b"b", b"d"]);
        assert_eq!(each("b", "d"), [b"b"]);
        assert!(each("d", "d").is_empty() && each("z", "a").is_empty());
    }

    /// P1. What was committed is there when the store is opened again, closed or not.
    #[test]
    fn commits_are_there_after_reopening() {
        let (folder, mut store) = made();
        let path = folder.path().join("index");
        store.commit(vec![put("lazy", "1")], Lazy).unwrap();
        drop(store);
        let mut store = RocksStore::open(&path).unwrap();
        store.commit(vec![put("durable", "2")], Durable).unwrap();
        assert!(RocksStore::open(&path).is_err(), "it is open");
        store.close().unwrap();
        let store = RocksStore::open(&path).unwrap();
        assert_eq!(all(&store), pairs(&[("durable", "2"), ("lazy", "1")]));
    }

    #[test]
    fn a_store_is_neither_made_over_another_nor_opened_where_none_is() {
        let (folder, store) = made();
        store.close().unwrap();
        assert!(RocksStore::create(&folder.path().join("index")).is_err());
        let missing = RocksStore::open(&folder.path().join("missing")).unwrap_err();
        assert!(missing.to_string().contains("missing"), "{missing}");
    }
}
