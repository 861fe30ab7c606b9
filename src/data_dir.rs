//! The data directory and its lock: one process at a time works on it.

use crate::failure::{Exit, Failure};
use anyhow::Context;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A data directory that this process holds. Gives it up when dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Holds the lock by being open.
    _lock: File,
}

impl DataDir {
    /// Locks the directory, making it first when it is missing.
    pub(crate) fn make_and_lock(path: &Path) -> Result<Self, Failure> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("cannot make data directory {}", path.display()))?;
        Self::lock(path)
    }

    /// Locks the directory, which must be there.
    pub(crate) fn lock(path: &Path) -> Result<Self, Failure> {
        if !path.is_dir() {
            let detail = format!("data directory {} is not there", path.display());
            return Err(Failure::new(Exit::NotFound, "data_dir_not_found", detail));
        }
        let lock_path = path.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let opened = options.open(&lock_path);
        let mut lock = opened.with_context(|| format!("cannot open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(path, &mut lock)),
            Err(TryLockError::Error(error)) => {
                let error = anyhow::Error::new(error).context(format!("cannot lock {}", lock_path.display()));
                return Err(error.into());
            }
        }
        note_pid(&mut lock).with_context(|| format!("cannot write {}", lock_path.display()))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the API's unix socket is.
    pub(crate) fn api_socket(&self) -> PathBuf {
        self.path.join("api.sock")
    }

    /// Where the first token is, for commands on this machine.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.path.join(TOKEN_FILE)
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token_file().exists()
    }

    /// Keeps a token for who may read this directory, in place of the one that was there.
    pub(crate) fn write_token(&self, text: &str) -> Result<(), Failure> {
        self.write_secret(&self.token_file(), text)
    }

    /// The key of which the secrets come that webhooks are signed by, when there is one.
    pub(crate) fn read_webhook_key(&self) -> Result<Option<String>, Failure> {
        let path = self.webhook_key_file();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(anyhow::Error::new(error).context(format!("cannot read {}", path.display())).into()),
        }
    }

    /// Keeps that key.
    pub(crate) fn write_webhook_key(&self, text: &str) -> Result<(), Failure> {
        self.write_secret(&self.webhook_key_file(), text)
    }

    fn webhook_key_file(&self) -> PathBuf {
        self.path.join("webhook.key")
    }

    fn write_secret(&self, path: &Path, text: &str) -> Result<(), Failure> {
        let refused = || format!("cannot write {}", path.display());
        let mut file = tempfile::NamedTempFile::new_in(&self.path).with_context(refused)?;
        writeln!(file, "{text}").and_then(|()| file.as_file().sync_all()).with_context(refused)?;
        file.persist(path).map_err(|error| error.error).with_context(refused)?;
        File::open(&self.path).and_then(|folder| folder.sync_all()).with_context(refused)?;
        Ok(())
    }

    /// Takes the API's socket away, so that commands see at once that no daemon is there.
    pub(crate) fn remove_api_socket(&self) {
        if let Err(error) = fs::remove_file(self.api_socket())
            && error.kind() != ErrorKind::NotFound
        {
            tracing::debug!(%error, "cannot remove the API's socket");
        }
    }
}

/// Keeps a token in a data directory, in place of the one that was there.
pub(crate) fn write_token(folder: &Path, text: &str) -> Result<(), Failure> {
    let path = folder.join(TOKEN_FILE);
    let refused = || format!("cannot write {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(refused)?;
    writeln!(file, "{text}").and_then(|()| file.as_file().sync_all()).with_context(refused)?;
    file.persist(&path).map_err(|error| error.error).with_context(refused)?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(refused)?;
    Ok(())
}

/// The lock alone decides; what is written in it only helps people.
fn note_pid(lock: &mut File) -> std::io::Result<()> {
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())
}

fn held(path: &Path, lock: &mut File) -> Failure {
    let mut text = String::new();
    let holder = match lock.take(PID_LEN_MAX).read_to_string(&mut text).map(|_| text.trim().parse::<u32>()) {
        Ok(Ok(pid)) => format!("process {pid}"),
        _ => "another process".to_owned(),
    };
    let detail = format!("data directory {} is in use by {holder}: stop it first", path.display());
    Failure::new(Exit::Conflict, "data_dir_in_use", detail)
}

/// The name of the file that holds the first token.
pub(crate) const TOKEN_FILE: &str = "token";

/// Most bytes of a lock file that are looked at.
const PID_LEN_MAX: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// P4. Two daemons never open one pool.
    #[test]
    fn a_second_holder_is_refused_and_told_who_the_first_is() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        let first = DataDir::make_and_lock(&path).unwrap();
        let refused = DataDir::lock(&path).unwrap_err();
        assert_eq!(refused.exit, Exit::Conflict);
        assert!(refused.detail.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        assert!(DataDir::lock(&path).is_ok());
    }

    #[test]
    fn a_directory_that_is_made_is_private_and_one_that_is_missing_is_not_found() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/data");
        assert_eq!(DataDir::lock(&path).unwrap_err().exit, Exit::NotFound);
        let _held = DataDir::make_and_lock(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    /// P8. Nobody else reads the token.
    #[test]
    fn the_token_is_private() {
        let root = tempfile::tempdir().unwrap();
        let held = DataDir::lock(root.path()).unwrap();
        assert!(!held.has_token());
        for text in ["alj_1_a", "alj_2_b"] {
            held.write_token(text).unwrap();
            assert_eq!(fs::read_to_string(held.token_file()).unwrap().trim(), text);
        }
        assert_eq!(fs::metadata(held.token_file()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// P6. What a crash left in the lock file keeps nobody out.
    #[test]
    fn rubbish_in_the_lock_file_does_no_harm() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("lock"), b"99999999\xff\xff and more that is no pid").unwrap();
        let held = DataDir::lock(root.path()).unwrap();
        let text = fs::read_to_string(root.path().join("lock")).unwrap();
        assert_eq!(text.trim(), std::process::id().to_string());
        drop(held);
    }
}
