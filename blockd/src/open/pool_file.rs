//! The pool's file or device: made, found, locked, and read and written outside of the shards.
//!
//! Format: the superblocks of `docs/format.md`. One of the two copies is always whole: a new one is written over the
//! older, and made durable before anything relies on it.

use super::error::OpenError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use units::{BLOCK_LEN, PoolId, SlotIndex};
use uring::file::Advice;
use volume::error::DiskFault;
use volume::format::{
    FORMAT_VERSION, FormatError, Geometry, POOL_DATA_OFFSET, SUPERBLOCK_OFFSETS, SlotHeader, Superblock,
};
use volume::store::PoolReader;

/// Part of a file system's free bytes that a pool made without a size may come to use, in percent.
const FREE_SHARE_PERCENT: u64 = 80;

/// Fewest slots of a pool.
const SLOTS_MIN: u64 = 8;

/// Superblocks of a pool.
const BOTH: u8 = 2;

/// What a pool that is made looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolShape {
    /// Its size; without one, what its device has or 80 % of what is free. A pool that is there grows to it.
    pub pool_bytes: Option<u64>,
    /// Bytes of a slot. A pool that is there keeps its own.
    pub slot_bytes: u64,
}

/// A pool's file, locked for this process.
#[derive(Debug)]
pub struct PoolFile {
    file: File,
    path: PathBuf,
    is_device: bool,
    superblock: Superblock,
    /// Superblocks that are to be renewed before anything else is written.
    renewals_due: u8,
}

impl PoolFile {
    /// Opens the pool at `path`.
    ///
    /// # Errors
    /// [`OpenError`]: it is missing, in use, or no whole pool.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = open_locked(path, false)?;
        let is_device = is_device(&file, path)?;
        drop_cached(&file, path)?;
        match read_superblock(&file, path)? {
            Some(found) => {
                let mut pool = Self::found(file, path, is_device, &found).checked()?;
                pool.refuse_if_cut_down(&found)?;
                Ok(pool)
            }
            None => Err(OpenError::Missing { path: path.to_owned() }),
        }
    }

    /// Opens the pool at `path`, or makes one where there is nothing; tells whether it was made.
    ///
    /// A device, or a file that is there, becomes a pool only when its first MiB holds zeros.
    ///
    /// # Errors
    /// [`OpenError`]: it is in use, no whole pool, or does not fit.
    pub fn open_or_make(path: &Path, shape: PoolShape) -> Result<(Self, bool), OpenError> {
        let file = open_locked(path, true)?;
        let is_device = is_device(&file, path)?;
        drop_cached(&file, path)?;
        match read_superblock(&file, path)? {
            Some(found) => {
                let mut pool = Self::found(file, path, is_device, &found).checked()?;
                pool.grow(shape.pool_bytes)?;
                pool.refuse_if_cut_down(&found)?;
                Ok((pool, false))
            }
            None => Ok((Self::make(file, path, is_device, shape)?, true)),
        }
    }

    fn found(file: File, path: &Path, is_device: bool, found: &Found) -> Self {
        let renewals_due = if found.is_one_older { BOTH } else { 0 };
        Self { file, path: path.to_owned(), is_device, superblock: found.superblock, renewals_due }
    }

    fn make(mut file: File, path: &Path, is_device: bool, shape: PoolShape) -> Result<Self, OpenError> {
        refuse_unless_blank(&file, path)?;
        let pool_bytes = match (shape.pool_bytes, is_device) {
            (Some(asked), false) => asked,
            (asked, true) => device_bytes(&mut file, path, asked)?,
            (None, false) => share_of_free_bytes(&file, path)?,
        };
        let geometry = geometry_of(pool_bytes, shape.slot_bytes)?;
        let pool = random_pool_id().map_err(OpenError::system("read", "/dev/urandom"))?;
        let superblock = Superblock { pool, geometry, generation: 0, created_ms: wall_ms() };
        let mut made = Self { file, path: path.to_owned(), is_device, superblock, renewals_due: BOTH };
        made.extend()?;
        // Both copies are written, so that from the start one is whole whatever happens to the other.
        while made.must_renew() {
            made.renew()?;
        }
        made.sync_folder()?;
        Ok(made)
    }

    /// Adds slots, up to `pool_bytes`. They count from the next [`PoolFile::renew`] on.
    fn grow(&mut self, pool_bytes: Option<u64>) -> Result<(), OpenError> {
        let Some(pool_bytes) = pool_bytes else { return Ok(()) };
        let geometry = geometry_of(pool_bytes, self.superblock.geometry.slot_bytes)?;
        let (has, asked) = (self.superblock.geometry.slot_count, geometry.slot_count);
        if asked < has {
            let detail = format!("pool {} has {has} slots and cannot shrink to {asked}", self.path.display());
            return Err(OpenError::Setting(format!("{detail}: give its size or a larger one")));
        }
        if asked > has {
            tracing::info!(pool = %self.path.display(), from = has, to = asked, "the pool grows");
            self.superblock.geometry = geometry;
            self.extend()?;
            self.renewals_due = BOTH;
        }
        Ok(())
    }

    /// Whether a superblock must be renewed before anything else is written: both, when this opening added slots, which
    /// losing one superblock would lose, or when one is of an older format version, by which a program that knows no newer
    /// one would open the pool.
    pub(crate) const fn must_renew(&self) -> bool {
        self.renewals_due > 0
    }

    /// Refuses a pool that had grown, when the superblock that knew it is damaged: slots beyond those of the other one hold
    /// segments, and would be taken for lost. A crash while a pool grows leaves no such segments.
    fn refuse_if_cut_down(&mut self, found: &Found) -> Result<(), OpenError> {
        if !found.is_other_damaged {
            return Ok(());
        }
        let measured = self.file.seek(SeekFrom::End(0)).map_err(OpenError::system("measure", &self.path))?;
        let geometry = self.superblock.geometry;
        let slots = measured.saturating_sub(POOL_DATA_OFFSET).checked_div(geometry.slot_bytes).unwrap_or(0);
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        for slot in (geometry.slot_count..slots).map(SlotIndex) {
            let mut block = vec![0; BLOCK_LEN];
            self.read_at(geometry.slot_offset(slot), &mut block).map_err(OpenError::Disk)?;
            if SlotHeader::decode(&block).is_ok_and(|header| header.pool == self.superblock.pool) {
                let path = self.path.display();
                let detail = format!("one superblock of pool {path} is damaged, and the other knows {slot} slots only");
                let bytes = POOL_DATA_OFFSET + u64::from(slots) * geometry.slot_bytes;
                return Err(OpenError::Damaged(format!(
                    "{detail}, while those beyond hold segments: serve it with the size that it had grown to, at most {bytes} \
                     bytes"
                )));
            }
        }
        Ok(())
    }

    /// Makes the file as long as its slots reach. No space is taken by that.
    fn extend(&mut self) -> Result<(), OpenError> {
        if self.is_device {
            let has = device_bytes(&mut self.file, &self.path, None)?;
            let wants = self.superblock.geometry.pool_bytes();
            if wants > has {
                let detail = format!("device {} has {has} bytes, the pool would have {wants}", self.path.display());
                return Err(OpenError::NoSpace(detail));
            }
            return Ok(());
        }
        let extended = self.file.set_len(self.superblock.geometry.pool_bytes());
        extended.map_err(OpenError::system("extend", &self.path))
    }

    /// Writes the superblock of the next generation over the older copy, durably.
    ///
    /// # Errors
    /// [`OpenError::System`].
    pub fn renew(&mut self) -> Result<(), OpenError> {
        self.superblock.generation += 1;
        let written = self.file.write_all_at(&self.superblock.encode(), self.superblock.offset());
        let synced = written.and_then(|()| self.file.sync_all());
        synced.map_err(OpenError::system("write the superblock of", &self.path))?;
        self.renewals_due = self.renewals_due.saturating_sub(1);
        Ok(())
    }

    fn sync_folder(&self) -> Result<(), OpenError> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(OpenError::system("sync", folder))
    }

    fn checked(mut self) -> Result<Self, OpenError> {
        let wants = self.superblock.geometry.pool_bytes();
        let has = self.file.seek(SeekFrom::End(0)).map_err(OpenError::system("measure", &self.path))?;
        if has < wants {
            let detail = format!("pool {} has {has} bytes, its superblock says {wants}", self.path.display());
            return Err(OpenError::Damaged(format!("{detail}: its end was cut off")));
        }
        Ok(self)
    }

    /// What the pool is.
    #[must_use]
    pub const fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a block device.
    #[must_use]
    pub const fn is_device(&self) -> bool {
        self.is_device
    }

    /// The file.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// Writes whole blocks.
    ///
    /// # Errors
    /// [`DiskFault`].
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskFault> {
        self.file.write_all_at(bytes, offset).map_err(|error| self.fault("write", &error))
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// [`DiskFault`].
    pub fn sync(&self) -> Result<(), DiskFault> {
        self.file.sync_data().map_err(|error| self.fault("sync", &error))
    }

    /// Lets another process have the pool. Nothing may be done with it any more.
    pub(crate) fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }

    /// How an error of the system counts; it is logged.
    pub(crate) fn fault(&self, doing: &str, error: &io::Error) -> DiskFault {
        tracing::error!(pool = %self.path.display(), %error, "cannot {doing} the pool");
        fault_of(error)
    }
}

impl PoolReader for PoolFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskFault> {
        self.file.read_exact_at(buffer, offset).map_err(|error| self.fault("read", &error))
    }
}

/// How an error of the system counts for a volume.
pub(crate) fn fault_of(error: &io::Error) -> DiskFault {
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    if is_full { DiskFault::NoSpace } else { DiskFault::Io }
}

/// Now, in milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn open_locked(path: &Path, may_make: bool) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(may_make).truncate(false).mode(0o600);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !may_make => {
            return Err(OpenError::Missing { path: path.to_owned() });
        }
        opened => opened.map_err(OpenError::system("open the pool", path))?,
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(OpenError::system("lock", path)(error)),
    }
}

fn is_device(file: &File, path: &Path) -> Result<bool, OpenError> {
    let kind = file.metadata().map_err(OpenError::system("look at", path))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let detail = format!("{} is neither a file nor a block device and cannot be a pool", path.display());
        return Err(OpenError::Setting(detail));
    }
    Ok(kind.is_block_device())
}

/// Has everything read from the disk itself. Pages that the disk refused to take stay in the page cache as if it had:
/// recovery would believe them, and a power cut take them after all.
fn drop_cached(file: &File, path: &Path) -> Result<(), OpenError> {
    // What a killed process left is the disk's first: only clean pages can be dropped.
    file.sync_data().map_err(OpenError::system("sync", path))?;
    // Nor may readahead bring in what nobody asked for: with `--direct` shards write past the page cache.
    let advise = |advice| uring::file::advise(file, 0, 0, advice);
    advise(Advice::DontNeed).map_err(OpenError::system("drop the cached pages of", path))?;
    advise(Advice::Random).map_err(OpenError::system("end readahead of", path))
}

/// What the superblocks tell.
#[derive(Debug)]
struct Found {
    /// The newest.
    superblock: Superblock,
    /// Whether the other one cannot be read.
    is_other_damaged: bool,
    /// Whether one is of an older format version than this program writes.
    is_one_older: bool,
}

/// The newest superblock; none where there is nothing but zeros.
fn read_superblock(file: &File, path: &Path) -> Result<Option<Found>, OpenError> {
    let copies = SUPERBLOCK_OFFSETS.map(|offset| {
        let mut block = vec![0; BLOCK_LEN];
        read_what_is_there(file, &mut block, offset).map(|()| block)
    });
    let [first, second] = copies;
    let first = first.map_err(OpenError::system("read the superblock of", path))?;
    let second = second.map_err(OpenError::system("read the superblock of", path))?;
    if first.iter().chain(&second).all(|byte| *byte == 0) {
        return Ok(None);
    }
    let versions = [&first, &second].map(|block| Superblock::version_of(block));
    let is_one_older = versions.into_iter().flatten().any(|version| version < FORMAT_VERSION);
    let copies = [Superblock::decode(&first), Superblock::decode(&second)];
    let is_other_damaged = copies.iter().any(Result::is_err);
    match Superblock::newest(copies) {
        Ok(superblock) => Ok(Some(Found { superblock, is_other_damaged, is_one_older })),
        Err(FormatError::Magic) => Err(no_pool(path)),
        Err(fault) => {
            Err(OpenError::Damaged(format!("neither superblock of pool {} is whole: {fault}", path.display())))
        }
    }
}

fn refuse_unless_blank(file: &File, path: &Path) -> Result<(), OpenError> {
    let mut bytes = vec![0; usize::try_from(POOL_DATA_OFFSET).unwrap_or(BLOCK_LEN)];
    read_what_is_there(file, &mut bytes, 0).map_err(OpenError::system("read", path))?;
    if bytes.iter().any(|byte| *byte != 0) { Err(no_pool(path)) } else { Ok(()) }
}

fn no_pool(path: &Path) -> OpenError {
    OpenError::Damaged(format!(
        "{} holds something that is no pool: name another path, or fill its first MiB with zeros if it may be lost",
        path.display()
    ))
}

/// Fills `buffer`, with zeros beyond the file's end.
fn read_what_is_there(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    match file.read_exact_at(buffer, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            buffer.fill(0);
            let mut done = 0;
            while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, offset + done as u64)? {
                    0 => break,
                    len => done += len,
                }
            }
            Ok(())
        }
        result => result,
    }
}

fn device_bytes(file: &mut File, path: &Path, asked: Option<u64>) -> Result<u64, OpenError> {
    let has = file.seek(SeekFrom::End(0)).map_err(OpenError::system("measure", path))?;
    Ok(asked.map_or(has, |asked| asked.min(has)))
}

fn share_of_free_bytes(file: &File, path: &Path) -> Result<u64, OpenError> {
    let figures = rustix::fs::fstatvfs(file).map_err(|error| OpenError::system("measure", path)(error.into()))?;
    Ok((figures.f_bavail.saturating_mul(figures.f_frsize) / 100).saturating_mul(FREE_SHARE_PERCENT))
}

fn geometry_of(pool_bytes: u64, slot_bytes: u64) -> Result<Geometry, OpenError> {
    let slots = pool_bytes.saturating_sub(POOL_DATA_OFFSET).checked_div(slot_bytes).unwrap_or(0);
    let geometry = Geometry { slot_bytes, slot_count: u32::try_from(slots).unwrap_or(u32::MAX) };
    if !(Geometry { slot_count: 1, ..geometry }).is_valid() {
        let (least, most) = (Geometry::SLOT_BYTES_MIN, Geometry::SLOT_BYTES_MAX);
        let detail = format!("a slot of {slot_bytes} bytes cannot be: give a power of two from {least} to {most}");
        return Err(OpenError::Setting(detail));
    }
    if slots < SLOTS_MIN {
        let least = POOL_DATA_OFFSET + SLOTS_MIN * slot_bytes;
        let detail = format!("a pool of {pool_bytes} bytes is too small for slots of {slot_bytes}");
        return Err(OpenError::NoSpace(format!("{detail}: make it {least} bytes or more, or the slots smaller")));
    }
    Ok(geometry)
}

fn random_pool_id() -> io::Result<PoolId> {
    let mut id = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut id)?;
    Ok(PoolId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{open_for_check, rebuild_index};

    const SHAPE: PoolShape = PoolShape { pool_bytes: Some(64 << 20), slot_bytes: 1 << 20 };

    fn made() -> (tempfile::TempDir, PathBuf, Superblock) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool");
        let (pool, is_new) = PoolFile::open_or_make(&path, SHAPE).unwrap();
        assert!(is_new);
        (folder, path, *pool.superblock())
    }

    #[test]
    fn a_pool_that_was_made_is_found_again_and_takes_no_space() {
        use std::os::unix::fs::MetadataExt;
        let (_folder, path, superblock) = made();
        assert_eq!((superblock.geometry.slot_count, superblock.generation), (63, 2));
        let (pool, is_new) = PoolFile::open_or_make(&path, SHAPE).unwrap();
        assert!(!is_new);
        assert_eq!(*pool.superblock(), superblock);
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), superblock.geometry.pool_bytes());
        assert!(metadata.blocks() * 512 < 64 << 10);
    }

    /// P1. Whichever copy of the superblock is torn, the other one opens the pool.
    #[test]
    fn one_whole_superblock_is_enough() {
        for (offset, generation) in [(0, 1), (4096, 2)] {
            let (_folder, path, _) = made();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[0xee; 512], offset + 512).unwrap();
            assert_eq!(PoolFile::open(&path).unwrap().superblock().generation, generation);
            file.write_all_at(&[0xee; 512], (4096 - offset) + 512).unwrap();
            assert!(matches!(PoolFile::open(&path), Err(OpenError::Damaged(_))));
        }
    }

    #[test]
    fn a_start_is_noted_in_the_older_copy() {
        let (_folder, path, _) = made();
        let mut pool = PoolFile::open(&path).unwrap();
        pool.renew().unwrap();
        drop(pool);
        assert_eq!(PoolFile::open(&path).unwrap().superblock().generation, 3);
    }

    /// A pool of version 1, both superblocks.
    fn made_by_version_1() -> (tempfile::TempDir, PathBuf) {
        let vector = include_str!("../../../volume/vectors/superblock-v1.hex");
        let lines = vector.lines().filter(|line| !line.starts_with('#'));
        let (tail, body): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("..."));
        let bytes = |lines: &[&str]| -> Vec<u8> {
            let digits: Vec<_> = lines.concat().chars().filter(char::is_ascii_hexdigit).collect();
            digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap()).collect()
        };
        let (folder, path, _) = made();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for offset in SUPERBLOCK_OFFSETS {
            file.write_all_at(&[0; BLOCK_LEN], offset).unwrap();
            file.write_all_at(&bytes(&body), offset).unwrap();
            file.write_all_at(&bytes(&tail), offset + 4092).unwrap();
        }
        file.set_len(POOL_DATA_OFFSET + (1000 << 25)).unwrap();
        (folder, path)
    }

    /// P1. A program that reads version 1 only must not open the pool once something of version 2 may be in it, and it would
    /// by one copy.
    #[test]
    fn both_superblocks_of_an_older_version_are_written_anew() {
        let (_folder, path) = made_by_version_1();
        for must_renew in [true, true, false] {
            // As after a start that was killed between the two.
            let mut pool = PoolFile::open(&path).unwrap();
            assert_eq!(pool.must_renew(), must_renew);
            pool.renew().unwrap();
        }
    }

    /// P1. A rebuild writes headers of this version.
    #[test]
    fn a_rebuild_writes_both_superblocks_of_an_older_version_anew() {
        let (folder, path) = made_by_version_1();
        let mut pool = PoolFile::open(&path).unwrap();
        let (index, _) = rebuild_index(&folder.path().join("index"), &mut pool).unwrap();
        index.into_store().close().unwrap();
        drop(pool);
        let (pool, index) = open_for_check(&path, &folder.path().join("index")).unwrap();
        assert!(!pool.must_renew(), "the index is that of the pool as it is now");
        index.into_store().close().unwrap();
    }

    #[test]
    fn a_pool_grows_and_does_not_shrink() {
        let (_folder, path, old) = made();
        let sized = |bytes| PoolShape { pool_bytes: Some(bytes), ..SHAPE };
        let (mut pool, _) = PoolFile::open_or_make(&path, sized(128 << 20)).unwrap();
        pool.renew().unwrap();
        assert_eq!((pool.superblock().geometry.slot_count, pool.superblock().pool), (127, old.pool));
        drop(pool);
        let refusal = PoolFile::open_or_make(&path, SHAPE).unwrap_err();
        assert!(refusal.to_string().contains("cannot shrink"), "{refusal}");
        assert_eq!(PoolFile::open(&path).unwrap().superblock().geometry.slot_count, 127);
    }

    /// P4.
    #[test]
    fn a_pool_is_open_once() {
        let (_folder, path, _) = made();
        let _held = PoolFile::open(&path).unwrap();
        assert!(matches!(PoolFile::open(&path), Err(OpenError::InUse { .. })));
    }

    /// P1. What is no pool is not made one.
    #[test]
    fn foreign_bytes_are_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool");
        for at in [0, 512, 65_536] {
            let mut bytes = vec![0; 100_000];
            bytes[at] = 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(matches!(PoolFile::open_or_make(&path, SHAPE), Err(OpenError::Damaged(_))), "{at}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn shapes_that_cannot_be_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |pool_bytes, slot_bytes| {
            let path = folder.path().join("pool");
            PoolFile::open_or_make(&path, PoolShape { pool_bytes: Some(pool_bytes), slot_bytes }).unwrap_err()
        };
        assert!(matches!(refused(1 << 30, 0), OpenError::Setting(_)));
        assert!(matches!(refused(1 << 30, 3 << 20), OpenError::Setting(_)));
        assert!(matches!(refused(1 << 30, 1 << 40), OpenError::Setting(_)));
        assert!(matches!(refused(8 << 20, 1 << 20), OpenError::NoSpace(_)));
        let missing = PoolFile::open(&folder.path().join("missing")).unwrap_err();
        assert!(matches!(missing, OpenError::Missing { .. }));
        assert!(matches!(PoolFile::open(folder.path()), Err(OpenError::System { .. })));
    }

    #[test]
    fn a_pool_cut_short_is_noticed() {
        let (_folder, path, _) = made();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(32 << 20).unwrap();
        let refusal = PoolFile::open(&path).unwrap_err();
        assert!(refusal.to_string().contains("cut off"), "{refusal}");
    }
}
