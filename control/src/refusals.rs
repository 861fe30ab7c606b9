//! Requests that were refused, since nobody knows who asks or since they may not: in a log of their own, so that however many there
//! are, no change is pushed out of the audit log.
//!
//! The first of a kind in a minute is written at once; those that follow are counted, and told by one line when the minute is over
//! or somebody reads. There are so many kinds a minute at most, and what is beyond them is of one kind: a flood costs the disk as much as one
//! who knocks at every door.

use crate::audit::{AuditEntry, AuditLog};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long those of a kind are counted before the next one is written.
const WINDOW: Duration = Duration::from_secs(60);

/// Most kinds that are told apart in that time.
const KINDS_MAX: usize = 100;

/// Most bytes of a file; there are 16.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What those are called that are beyond the kinds that are told apart.
const OTHERS: &str = "others";

/// The log of what was refused.
#[derive(Debug)]
pub(crate) struct Refusals {
    pub(crate) log: Arc<AuditLog>,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    kinds: BTreeMap<Kind, Counted>,
}

/// By token, what was asked for, and why it was refused.
type Kind = (Option<u64>, String, Option<String>);

#[derive(Debug)]
struct Counted {
    first: AuditEntry,
    /// Those that are not written.
    unwritten: u64,
}

impl Refusals {
    /// Opens the log in a folder, which is made when it is missing.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let log = Arc::new(AuditLog::with_files_of(folder, FILE_BYTES_MAX)?);
        Ok(Self { log, window: Mutex::new(Window { began: Instant::now(), kinds: BTreeMap::new() }) })
    }

    /// Notes that a request was refused.
    pub(crate) async fn note(&self, entry: AuditEntry) {
        let written = self.take(entry);
        self.write(written).await;
    }

    /// Writes what is counted.
    pub(crate) async fn flush(&self) {
        let written = {
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            window.kinds.values_mut().filter_map(Counted::told).collect()
        };
        self.write(written).await;
    }

    /// Takes one in; returns what is to be written.
    fn take(&self, mut entry: AuditEntry) -> Vec<AuditEntry> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut written = Vec::new();
        if window.began.elapsed() >= WINDOW {
            written.extend(std::mem::take(&mut window.kinds).into_values().filter_map(|mut kind| kind.told()));
            window.began = Instant::now();
        }
        let mut kind = (entry.token, entry.action.clone(), entry.code.clone());
        if window.kinds.len() >= KINDS_MAX && !window.kinds.contains_key(&kind) {
            kind = (None, OTHERS.to_owned(), None);
            entry = AuditEntry {
                token: None,
                role: None,
                tenant: None,
                action: OTHERS.to_owned(),
                target: OTHERS.to_owned(),
                code: None,
                ..entry
            };
        }
        match window.kinds.get_mut(&kind) {
            Some(known) => known.unwritten += 1,
            None => {
                written.push(entry.clone());
                window.kinds.insert(kind, Counted { first: entry, unwritten: 0 });
            }
        }
        written
    }

    async fn write(&self, entries: Vec<AuditEntry>) {
        for entry in entries {
            if let Err(error) = self.log.begin(entry).await {
                tracing::warn!(%error, "a refused request is not in its log");
            }
        }
    }
}

impl Counted {
    fn told(&mut self) -> Option<AuditEntry> {
        let times = std::mem::take(&mut self.unwritten);
        (times > 0).then(|| AuditEntry { times: Some(times), ..self.first.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Outcome;
    use jiff::Timestamp;

    fn entry(token: u64, action: &str) -> AuditEntry {
        AuditEntry {
            number: 0,
            at: Timestamp::UNIX_EPOCH,
            token: Some(token),
            role: None,
            tenant: None,
            action: action.to_owned(),
            target: "/v1/volumes".to_owned(),
            outcome: Outcome::Refused,
            code: Some("forbidden".to_owned()),
            times: None,
            request_id: "r".to_owned(),
        }
    }

    /// P8. A flood of what is refused is a few lines, and each of it is counted.
    #[tokio::test]
    async fn a_flood_is_a_few_lines() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::open(folder.path()).unwrap();
        for number in 0..10_000 {
            refusals.note(entry(number % 3, "GET /v1/pool")).await;
        }
        refusals.flush().await;
        refusals.flush().await;
        let read = refusals.log.read(None, u64::MAX, 1000).unwrap();
        assert_eq!(read.len(), 6, "{read:?}");
        assert_eq!(read.iter().map(|entry| entry.times.unwrap_or(1)).sum::<u64>(), 10_000);
        for number in 0..1000 {
            refusals.note(entry(number, "GET /v1/volumes")).await;
        }
        refusals.flush().await;
        let read = refusals.log.read(None, u64::MAX, 1000).unwrap();
        assert!(read.len() <= 6 + KINDS_MAX + 1, "{}", read.len());
        assert_eq!(read.iter().map(|entry| entry.times.unwrap_or(1)).sum::<u64>(), 11_000);
    }
}
