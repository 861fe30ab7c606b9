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
use units::{GroupId, SiteId};

/// Bytes of the line in front of a promise: its name, eight digits, the end of the line.
const CHECKSUM_LINE_BYTES: usize = "checksum ".len() + 8 + 1;

/// The file that says whose promises these are.
const SITE_FILE: &str = "site";

/// Longest note of a boot, or of a site, that is looked at.
const BOOT_BYTES_MAX: usize = 256;

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
    /// A sync of the disk failed in this boot of the machine.
    #[error(
        "a sync of this site's disk failed since the machine was started, as {path} says, so that what can be read of the volume may not be \
         on the disk: see to the disk, and start the machine anew"
    )]
    FailedSync {
        /// The note.
        path: PathBuf,
    },
    /// The site is another one than it was.
    #[error(
        "{path} says that this is site {kept}, not site {told}: what a site has promised holds for it alone; start it with the number that it had"
    )]
    OtherSite {
        /// What says so.
        path: PathBuf,
        /// The site that it was.
        kept: String,
        /// The one that it is to be.
        told: SiteId,
    },
    /// The volume's other site is not the one that the daemon has.
    #[error(
        "it is mirrored with site {recorded}, and this daemon was told that the other one is site {told}: start it with the numbers that it had"
    )]
    OtherPeer {
        /// Whom the volume is mirrored with.
        recorded: u8,
        /// Whom the daemon knows.
        told: SiteId,
    },
    /// The daemon is no site of a mirror.
    #[error(
        "it is mirrored, and this daemon was not told which site it is: start it with --site and what belongs to that"
    )]
    NoSite,
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

    /// Keeps the number of the site whose promises these are, or holds it against what was kept.
    ///
    /// # Errors
    /// [`KeepError::OtherSite`]; [`KeepError::System`].
    pub fn be_of(&self, site: SiteId) -> Result<(), KeepError> {
        let path = self.path.join(SITE_FILE);
        match replaced_files::read(&self.folder, SITE_FILE, BOOT_BYTES_MAX) {
            Ok(kept) if kept == site.to_string().as_bytes() => Ok(()),
            Ok(kept) => {
                let kept = String::from_utf8_lossy(&kept).into_owned();
                Err(KeepError::OtherSite { path, kept, told: site })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let written = replaced_files::replace(&self.folder, SITE_FILE, site.to_string().as_bytes());
                written.map_err(|error| KeepError::System { what: "write", path, source: io::Error::other(error) })
            }
            Err(source) => Err(KeepError::System { what: "read", path, source }),
        }
    }

    /// Takes away the promise of a group that has ended.
    ///
    /// # Errors
    /// [`KeepError::System`].
    pub fn forget(&self, group: GroupId) -> Result<(), KeepError> {
        let name = name_of(group);
        match rustix::fs::unlinkat(&self.folder, &name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(KeepError::System { what: "remove", path: self.path.join(&name), source: error.into() }),
        }
    }

    /// Notes that a sync of the disk failed in a boot of the machine: what it covered may be gone, and can be read all the same until the
    /// machine is started anew.
    ///
    /// # Errors
    /// [`KeepError::System`].
    pub fn note_failed_sync(&self, group: GroupId, boot: &str) -> Result<(), KeepError> {
        let name = note_of(group);
        let path = self.path.join(&name);
        let written = replaced_files::replace(&self.folder, &name, boot.as_bytes());
        written.map_err(|error| KeepError::System { what: "write", path, source: io::Error::other(error) })
    }

    /// Refuses a group of which a sync failed in this boot of the machine.
    ///
    /// # Errors
    /// [`KeepError::FailedSync`]; [`KeepError::System`] when that cannot be told.
    pub fn refuse_after_failed_sync(&self, group: GroupId, boot: &str) -> Result<(), KeepError> {
        let name = note_of(group);
        let path = self.path.join(&name);
        match replaced_files::read(&self.folder, &name, BOOT_BYTES_MAX) {
            Ok(noted) if noted == boot.as_bytes() => Err(KeepError::FailedSync { path }),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(KeepError::System { what: "read", path, source }),
        }
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

fn note_of(group: GroupId) -> String {
    format!("failed-sync-{group}")
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

    /// P4. Promises are of one site.
    #[test]
    fn promises_are_of_one_site() {
        let folder = tempfile::tempdir().unwrap();
        let promises = Promises::open(folder.path()).unwrap();
        promises.be_of(SiteId(1)).unwrap();
        Promises::open(folder.path()).unwrap().be_of(SiteId(1)).unwrap();
        let error = promises.be_of(SiteId(2)).unwrap_err().to_string();
        assert!(error.contains("this is site 1, not site 2"), "{error}");
    }

    /// P1. After a failed sync the group is refused until the machine has been started anew.
    #[test]
    fn a_failed_sync_holds_for_the_boot() {
        let folder = tempfile::tempdir().unwrap();
        let promises = Promises::open(folder.path()).unwrap();
        promises.refuse_after_failed_sync(GroupId(7), "one").unwrap();
        promises.note_failed_sync(GroupId(7), "one").unwrap();
        let error = promises.refuse_after_failed_sync(GroupId(7), "one").unwrap_err().to_string();
        assert!(error.contains("start the machine anew"), "{error}");
        promises.refuse_after_failed_sync(GroupId(8), "one").unwrap();
        promises.refuse_after_failed_sync(GroupId(7), "two").unwrap();
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
