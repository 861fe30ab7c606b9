//! Small files of a directory, each replaced as a whole and durably: written to a new file, synced, moved over the old one, and the
//! directory synced. After a crash there is the old one or the new one, and `NAME.new`, which is of no use.
//!
//! All goes by the directory's handle, so that one that was moved is never mistaken for what was made in its place.
#![forbid(unsafe_code)]

use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use thiserror::Error;

/// Why a file is not replaced.
#[derive(Debug, Error)]
pub enum ReplaceError {
    /// The new one cannot be written. The old one is there.
    #[error("it cannot be written: {0}")]
    Write(io::Error),
    /// Either of them may be there, and whether it will be after a crash is not known: a second sync after a failed one proves nothing
    /// (P1).
    #[error("it cannot be made durable: {0}")]
    Unsure(io::Error),
}

/// Where the new content of a file is written first.
#[must_use]
pub fn new_name(name: &str) -> String {
    format!("{name}.new")
}

/// Replaces a file, which its owner alone may read.
///
/// # Errors
/// [`ReplaceError`].
pub fn replace(directory: &File, name: &str, content: &[u8]) -> Result<(), ReplaceError> {
    let new = new_name(name);
    write_synced(directory, &new, content).map_err(ReplaceError::Write)?;
    let moved = rustix::fs::renameat(directory, &new, directory, name).map_err(io::Error::from);
    moved.and_then(|()| directory.sync_all()).map_err(ReplaceError::Unsure)
}

fn write_synced(directory: &File, name: &str, content: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(content)?;
    file.sync_all()
}

/// A file's bytes, at most one more than `bytes_max`.
///
/// # Errors
/// What the system says.
pub fn read(directory: &File, name: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Of a pipe, nothing is waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P1. What was replaced is there, whatever a crash left of another try; and no more of it is read than is wanted.
    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let directory = File::open(folder.path()).unwrap();
        std::fs::write(folder.path().join("one.new"), "left by a crash").unwrap();
        for content in ["first", "2"] {
            replace(&directory, "one", content.as_bytes()).unwrap();
            assert_eq!(read(&directory, "one", 100).unwrap(), content.as_bytes());
        }
        assert_eq!(read(&directory, "one", 0).unwrap(), b"2");
        assert_eq!(read(&directory, "none", 9).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// P6. What cannot be written leaves what is there.
    #[test]
    fn what_cannot_be_written_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let directory = File::open(folder.path()).unwrap();
        replace(&directory, "one", b"first").unwrap();
        std::fs::create_dir(folder.path().join("one.new")).unwrap();
        assert!(matches!(replace(&directory, "one", b"second"), Err(ReplaceError::Write(_))));
        assert_eq!(read(&directory, "one", 9).unwrap(), b"first");
    }
}
