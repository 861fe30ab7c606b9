//! The promises of a site, one small file a group: replaced as a whole, and on stable storage before anything is done by them (S2).
//!
//! A file that cannot be read, or is not as it was written, is no promise: the group takes no part until an operator has seen to it, since
//! the site may have promised more than is known.

use replaced_files::{ReplaceError, new_name};
use replication::{KeptPromise, PROMISE_BYTES_MAX, PromiseError};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use units::GroupId;

/// Bytes of the line in front of a promise: its name, eight digits, the end of the line.
const CHECKSUM_LINE_BYTES: usize = "checksum ".len() + 8 + 1;

/// The folder of the promises. One process has it.
#[derive(Debug)]
pub struct Promises {
    path: PathBuf,
    folder: File,
    /// A change may or may not be durable, and no later sync could tell.
    is_poisoned: bool,
}

/// Why a promise is not read or kept.
#[derive(Debug, Error)]
pub enum KeepError {
    /// The system refuses it.
    #[error("cannot {what} {path}: {source}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not as it was written.
    #[error(
        "{path} is damaged ({reason}): this site may have promised more than is known, and takes no part; if the other site is \
         up to date, remove the file and have this site mirrored anew"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A change of before could not be made durable.
    #[error("a promise in {path} could not be made durable: look at its disk, then restart the daemon")]
    Poisoned {
        /// The folder.
        path: PathBuf,
    },
}

impl Promises {
    /// Opens the folder, and makes it where it is missing.
    ///
    /// # Errors
    /// [`KeepError::System`].
    pub fn open(path: &Path) -> Result<Self, KeepError> {
        let system = |what| move |source| KeepError::System { what, path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(system("make"))?;
        if let Some(parent) = path.parent() {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(system("sync the folder of"))?;
        }
        let folder = File::open(path).map_err(system("open"))?;
        Ok(Self { path: path.to_owned(), folder, is_poisoned: false })
    }

    /// The promise of a group; none where there never was one.
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn load(&self, group: GroupId) -> Result<Option<KeptPromise>, KeepError> {
        let name = name_of(group);
        let path = self.path.join(&name);
        let bytes = match replaced_files::read(&self.folder, &name, CHECKSUM_LINE_BYTES + PROMISE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KeepError::System { what: "read", path, source }),
        };
        decode(&bytes).map(Some).map_err(|reason| KeepError::Damaged { path, reason })
    }

    /// Puts a promise in place of the one before, durably.
    ///
    /// # Errors
    /// [`KeepError::System`]: the one before is kept. [`KeepError::Poisoned`]: nobody knows, and nothing is kept any more.
    pub fn keep(&mut self, group: GroupId, kept: &KeptPromise) -> Result<(), KeepError> {
        if self.is_poisoned {
            return Err(KeepError::Poisoned { path: self.path.clone() });
        }
        let name = name_of(group);
        replaced_files::replace(&self.folder, &name, encode(kept).as_bytes()).map_err(|error| match error {
            ReplaceError::Write(source) => {
                KeepError::System { what: "write", path: self.path.join(new_name(&name)), source }
            }
            ReplaceError::Unsure(error) => {
                tracing::error!(path = %self.path.display(), %error, "a promise cannot be made durable");
                self.is_poisoned = true;
                KeepError::Poisoned { path: self.path.clone() }
            }
        })
    }
}

/// The boot id of this machine, which another boot does not have.
///
/// # Errors
/// Why the system does not tell it.
pub fn boot_id() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let boot = text.trim();
    if KeptPromise::is_boot(boot) { Ok(boot.to_owned()) } else { Err(io::Error::other("the boot id is none")) }
}

fn name_of(group: GroupId) -> String {
    format!("promise-{group}")
}

fn encode(kept: &KeptPromise) -> String {
    let text = kept.encode();
    format!("checksum {:08x}\n{text}", checksum(text.as_bytes()))
}

fn decode(bytes: &[u8]) -> Result<KeptPromise, String> {
    let (line, text) = bytes.split_at_checked(CHECKSUM_LINE_BYTES).ok_or("it is cut")?;
    if line != format!("checksum {:08x}\n", checksum(text)).as_bytes() {
        return Err("its checksum is not that of what it says".to_owned());
    }
    KeptPromise::decode(text).map_err(|error: PromiseError| error.to_string())
}

fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::{Life, Promise};
    use std::os::unix::fs::PermissionsExt as _;

    fn kept(life: u64) -> KeptPromise {
        let promise = Promise { seen: None, life: Life(life), is_certain: true };
        KeptPromise { promise, boot: boot_id().unwrap() }
    }

    /// P4. What was promised is there after a restart, the newest alone, each group's for itself.
    #[test]
    fn what_was_promised_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mirror");
        let mut promises = Promises::open(&path).unwrap();
        assert_eq!(promises.load(GroupId(7)).unwrap(), None);
        promises.keep(GroupId(7), &kept(1)).unwrap();
        promises.keep(GroupId(8), &kept(5)).unwrap();
        promises.keep(GroupId(7), &kept(2)).unwrap();
        let again = Promises::open(&path).unwrap();
        assert_eq!(again.load(GroupId(7)).unwrap(), Some(kept(2)));
        assert_eq!(again.load(GroupId(8)).unwrap(), Some(kept(5)));
        let mode = std::fs::metadata(path.join("promise-7")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// P4. A file that is not as it was written is refused, whichever byte of it is wrong, and left as it is.
    #[test]
    fn what_is_damaged_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut promises = Promises::open(folder.path()).unwrap();
        promises.keep(GroupId(1), &kept(3)).unwrap();
        let path = folder.path().join("promise-1");
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(matches!(promises.load(GroupId(1)), Err(KeepError::Damaged { .. })), "byte {at}");
        }
        for bad in [&good[..0], &good[..good.len() - 1], &[good.as_slice(), b"\n"].concat(), &vec![b'x'; 4096]] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(promises.load(GroupId(1)), Err(KeepError::Damaged { .. })));
        }
    }

    /// P4. What a crash left of a promise that was being written is none, and in nobody's way.
    #[test]
    fn what_was_not_finished_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut promises = Promises::open(folder.path()).unwrap();
        promises.keep(GroupId(1), &kept(3)).unwrap();
        std::fs::write(folder.path().join("promise-1.new"), "checksum").unwrap();
        assert_eq!(promises.load(GroupId(1)).unwrap(), Some(kept(3)));
        promises.keep(GroupId(1), &kept(4)).unwrap();
        assert_eq!(promises.load(GroupId(1)).unwrap(), Some(kept(4)));
    }
}
