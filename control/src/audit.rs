//! The audit log: who changed what, when, and what came of it.
//!
//! A line is written and synced before a change begins, and another one with its outcome when it has ended, so that no change is
//! without a trace, a crash or not. Lines are JSON, in `audit.log`; when that is full it becomes `audit.log.1`, that one
//! `audit.log.2`, and the oldest goes. Bodies of requests are not in it, so that no secret is.

use crate::error::ServiceError;
use crate::name::Name;
use crate::token::Role;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use utoipa::ToSchema;

/// Most bytes of a file, and most files: about a million changes in all.
const FILE_BYTES_MAX: u64 = 32 << 20;
const FILES_MAX: usize = 16;

/// A change that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its number; later ones have greater ones.
    pub number: u64,
    /// When it was asked for. RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The number of the token by which it was; absent where none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// The token's role; absent where nobody knows who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The tenant that the token is for; absent where it is for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What was to be done, such as `volume.create`.
    pub action: String,
    /// What it was to be done to.
    pub target: String,
    /// What came of it.
    pub outcome: Outcome,
    /// The code of the problem; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How many refusals it tells of, where that is more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// The request's id, as in the daemon's log.
    pub request_id: String,
}

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has not ended, or the daemon ended before it had: what there is tells what became of it.
    Begun,
    /// It is done.
    Done,
    /// It is not done; the code tells why.
    Failed,
    /// It was not let in: nobody knows who asked, or they may not.
    Refused,
}

/// Changes, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// In that order.
    pub entries: Vec<AuditEntry>,
    /// What gives the next part, as `?cursor=`; absent in the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// The log, in a folder of its own.
#[derive(Debug)]
pub(crate) struct AuditLog {
    folder: PathBuf,
    file_bytes_max: u64,
    end: Mutex<End>,
    reading: Mutex<()>,
}

/// Where it goes on.
#[derive(Debug)]
struct End {
    file: File,
    bytes: u64,
    next: u64,
}

impl AuditLog {
    /// Opens the log in a folder, which is made when it is missing.
    ///
    /// # Errors
    /// When the folder or the newest file cannot be written.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        Self::with_files_of(folder, FILE_BYTES_MAX)
    }

    pub(crate) fn with_files_of(folder: &Path, file_bytes_max: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let last = |number| {
            let bytes = read_file(&path_of(folder, number))?;
            io::Result::Ok(lines(&bytes).map(|line| line.number).max())
        };
        // One that was just begun may hold nothing yet.
        let next = last(0)?.max(last(1)?).map_or(1, |last| last + 1);
        let mut file = open_end(folder)?;
        let bytes = file.metadata()?.len();
        // What a crash cut short is left as a line that is none.
        let is_cut = fs::read(path_of(folder, 0))?.last().is_some_and(|byte| *byte != b'\n');
        if is_cut {
            file.write_all(b"\n")?;
        }
        let end = Mutex::new(End { file, bytes: bytes + u64::from(is_cut), next });
        Ok(Self { folder: folder.to_owned(), file_bytes_max, end, reading: Mutex::default() })
    }

    /// Notes that a change begins; it is on stable storage when this is answered, and has its number.
    pub(crate) async fn begin(self: &Arc<Self>, entry: AuditEntry) -> io::Result<AuditEntry> {
        self.write(entry).await
    }

    /// Notes what came of a change.
    pub(crate) async fn end<T: Sync>(self: &Arc<Self>, begun: AuditEntry, result: &Result<T, ServiceError>) {
        let (outcome, code) = match result {
            Ok(_) => (Outcome::Done, None),
            Err(error) => (Outcome::Failed, Some(error.code.as_str().to_owned())),
        };
        let number = begun.number;
        if let Err(error) = self.write(AuditEntry { outcome, code, ..begun }).await {
            tracing::error!(number, %error, "what came of a change is not in the audit log");
        }
    }

    async fn write(self: &Arc<Self>, entry: AuditEntry) -> io::Result<AuditEntry> {
        let log = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || log.append(entry)).await;
        written.map_err(io::Error::other)?
    }

    /// An entry with number 0 gets the next one.
    fn append(&self, mut entry: AuditEntry) -> io::Result<AuditEntry> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if entry.number == 0 {
            entry.number = end.next;
        }
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        if end.bytes > 0 && end.bytes + line.len() as u64 > self.file_bytes_max {
            self.rotate()?;
            (end.file, end.bytes) = (open_end(&self.folder)?, 0);
        }
        end.next = end.next.max(entry.number + 1);
        end.file.write_all(&line)?;
        end.bytes += line.len() as u64;
        end.file.sync_data()?;
        Ok(entry)
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (0..FILES_MAX - 1).rev() {
            match fs::rename(path_of(&self.folder, number), path_of(&self.folder, number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        File::open(&self.folder)?.sync_all()
    }

    /// The newest changes before a number, each with what came of it: as many as asked for, of a tenant's tokens and things
    /// where one is given, since it was made. One at a time looks, since that may take all there is.
    pub(crate) fn read(
        &self,
        tenant: Option<&(Name, Option<Timestamp>)>,
        before: u64,
        count: usize,
    ) -> io::Result<Vec<AuditEntry>> {
        let _one_at_a_time = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        let mut ended = BTreeSet::new();
        for number in 0..FILES_MAX {
            let bytes = read_file(&path_of(&self.folder, number))?;
            for entry in lines(&bytes).rev() {
                let is_first = ended.insert(entry.number);
                if is_first && entry.number < before && tenant.is_none_or(|tenant| is_of(&entry, tenant)) {
                    found.push(entry);
                }
            }
            // What began before them may have ended behind them, so that one more is wanted than asked for.
            if found.len() > count {
                break;
            }
        }
        found.sort_by_key(|entry| std::cmp::Reverse(entry.number));
        found.truncate(count);
        Ok(found)
    }
}

/// Whether a tenant's token asked for it, or it was done to what is a tenant's, or to itself. What is older than the tenant was of
/// another one of its name.
fn is_of(entry: &AuditEntry, (tenant, since): &(Name, Option<Timestamp>)) -> bool {
    let owner = entry.target.split_once('/').map(|(owner, _)| owner);
    let is_itself = entry.target == tenant.as_str() && OF_TENANTS.iter().any(|kind| entry.action.starts_with(kind));
    let is_named = entry.tenant.as_deref() == Some(tenant.as_str()) || owner == Some(tenant.as_str()) || is_itself;
    is_named && since.is_none_or(|since| entry.at >= since)
}

/// What actions on a tenant itself begin with.
const OF_TENANTS: [&str; 4] = ["tenant.", "invoice.", "budget.", "billing."];

fn path_of(folder: &Path, number: usize) -> PathBuf {
    folder.join(if number == 0 { "audit.log".to_owned() } else { format!("audit.log.{number}") })
}

fn open_end(folder: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path_of(folder, 0))
}

/// A file; nothing of one that is not there.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// The lines of a file, those left out that a crash cut short.
fn lines(bytes: &[u8]) -> impl DoubleEndedIterator<Item = AuditEntry> {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(action: &str, tenant: Option<&str>, target: &str) -> AuditEntry {
        AuditEntry {
            number: 0,
            at: Timestamp::UNIX_EPOCH,
            token: Some(7),
            role: Some(Role::Operator),
            tenant: tenant.map(str::to_owned),
            action: action.to_owned(),
            target: target.to_owned(),
            outcome: Outcome::Begun,
            code: None,
            times: None,
            request_id: "r".to_owned(),
        }
    }

    fn actions(log: &AuditLog, tenant: Option<&str>, before: u64, count: usize) -> Vec<(u64, Outcome)> {
        let tenant = tenant.map(|name| (name.parse().unwrap(), None));
        let found = log.read(tenant.as_ref(), before, count).unwrap();
        found.into_iter().map(|entry| (entry.number, entry.outcome)).collect()
    }

    /// P8. A change is there once, with what came of it, also after a crash that cut a line; one that never ended says so.
    #[tokio::test]
    async fn a_change_leaves_its_trace_whatever_happens() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(AuditLog::open(folder.path()).unwrap());
        let first = log.begin(entry("volume.create", None, "vm")).await.unwrap();
        let second = log.begin(entry("volume.delete", Some("acme"), "acme/vm")).await.unwrap();
        log.end(second, &Ok(())).await;
        assert_eq!(actions(&log, None, u64::MAX, 9), [(2, Outcome::Done), (1, Outcome::Begun)]);
        assert_eq!(actions(&log, Some("acme"), u64::MAX, 9), [(2, Outcome::Done)]);
        drop(log);
        let mut file = OpenOptions::new().append(true).open(folder.path().join("audit.log")).unwrap();
        file.write_all(b"{\"number\": 3, \"at\"").unwrap();
        let log = Arc::new(AuditLog::open(folder.path()).unwrap());
        let third = log.begin(entry("volume.create", None, "vm-2")).await.unwrap();
        assert_eq!(third.number, 3);
        let failed: Result<(), ServiceError> = Err(ServiceError::no_volume("vm-2"));
        log.end(third, &failed).await;
        let newest = log.read(None, u64::MAX, 1).unwrap();
        assert_eq!((newest[0].number, newest[0].code.as_deref()), (3, Some("volume_not_found")));
        assert_eq!(actions(&log, None, 3, 1), [(2, Outcome::Done)]);
        assert_eq!(first.number, 1);
    }

    /// P8. However much is written, the log is bounded, and the newest is there.
    #[tokio::test]
    async fn the_log_is_bounded_and_its_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(AuditLog::with_files_of(folder.path(), 1000).unwrap());
        for _ in 0..100 {
            let begun = log.begin(entry("volume.create", None, "vm")).await.unwrap();
            log.end(begun, &Ok(())).await;
        }
        let sizes: Vec<u64> =
            fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), FILES_MAX);
        assert!(sizes.iter().all(|size| *size <= 1000), "{sizes:?}");
        let found = actions(&log, None, u64::MAX, 1000);
        assert_eq!(found[0], (100, Outcome::Done));
        assert!(found.is_sorted_by(|a, b| a.0 == b.0 + 1), "{found:?}");
        drop(log);
        let log = Arc::new(AuditLog::with_files_of(folder.path(), 1000).unwrap());
        assert_eq!(log.begin(entry("a", None, "b")).await.unwrap().number, 101);
    }
}
