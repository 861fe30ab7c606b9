//! Answers that are kept: who asks again by the same `Idempotency-Key` is answered the same, and nothing is done twice.
//!
//! Each is a line of JSON in `answers.log`, synced before it is answered for the first time. A line holds of the request a
//! hash alone, and no secret. What is older than a day goes, and the oldest of a tenant when that has too many: of its own
//! only, so that nobody pushes out what is another's. The file is written anew when most of it is of no more use.

use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is kept at most.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    age: SignedDuration,
    /// Of each tenant.
    count: usize,
    /// Of each tenant.
    bytes: u64,
    /// Of what is of no more use in the file, beyond as much as is of use.
    waste_bytes: u64,
}

const BOUNDS: Bounds =
    Bounds { age: SignedDuration::from_hours(24), count: 10_000, bytes: 8 << 20, waste_bytes: 1 << 20 };

/// Most bytes of an answer that is kept.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Whose key it is: of one token, whose numbers are never used again. The tenant is whose bounds it counts against.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) token: Option<u64>,
    pub(crate) tenant: Option<String>,
}

/// An answer, as it is given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptAnswer {
    pub(crate) status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<String>,
    /// Absent where it is not kept, since it bears a secret or is too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<String>,
}

/// What there is of a key.
pub(crate) enum Known {
    /// Nothing: the request is to be carried out, and what comes of it told.
    New(UnderWay),
    /// The same request, and what it was answered.
    Answered(KeptAnswer),
    /// The same request, which has not ended.
    UnderWay,
    /// Another request.
    Other,
}

/// The answers, in a file.
#[derive(Debug)]
pub(crate) struct KeptAnswers {
    path: PathBuf,
    bounds: Bounds,
    state: Mutex<State>,
}

/// A request that is carried out. Dropped, it is as if it had never been asked for.
#[derive(Debug)]
pub(crate) struct UnderWay {
    answers: Arc<KeptAnswers>,
    key: Key,
    request: String,
}

type Key = (Owner, String);

#[derive(Debug)]
struct State {
    file: File,
    file_bytes: u64,
    /// Whether the last line of the file may be a part of one.
    is_cut: bool,
    under_way: BTreeMap<Key, String>,
    lines: BTreeMap<Key, Line>,
    /// By tenant, the oldest first.
    shares: BTreeMap<Option<String>, Share>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Share {
    keys: VecDeque<(Key, u64)>,
    bytes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    at: Timestamp,
    #[serde(flatten)]
    owner: Owner,
    key: String,
    /// A hash of what was asked for.
    request: String,
    #[serde(flatten)]
    answer: KeptAnswer,
}

impl KeptAnswers {
    /// Opens the file in a folder, which must be there.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(crate) fn open(folder: &Path) -> io::Result<Arc<Self>> {
        Self::bounded(folder, BOUNDS)
    }

    fn bounded(folder: &Path, bounds: Bounds) -> io::Result<Arc<Self>> {
        let path = folder.join("answers.log");
        let read = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let mut state = State {
            file: open_end(&path)?,
            file_bytes: read.len() as u64,
            is_cut: false,
            under_way: BTreeMap::new(),
            lines: BTreeMap::new(),
            shares: BTreeMap::new(),
            bytes: 0,
        };
        // What a crash cut short was not answered.
        let lines = read.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Line>(line).ok());
        lines.for_each(|line| state.take(line, bounds));
        let answers = Self { path, bounds, state: Mutex::new(state) };
        answers.rewrite(&mut answers.state())?;
        Ok(Arc::new(answers))
    }

    /// What there is of a key; `request` is all that was asked for, part by part.
    pub(crate) fn begin(self: &Arc<Self>, owner: Owner, key: String, request: &[&[u8]]) -> Known {
        let (key, request) = ((owner, key), hash_of(request));
        let mut state = self.state();
        state.forget_old(&key.0.tenant, self.bounds.age);
        let known = state.under_way.get(&key).map(|request| (request, None));
        let known = known.or_else(|| state.lines.get(&key).map(|line| (&line.request, Some(line.answer.clone()))));
        match known {
            Some((known, _)) if *known != request => Known::Other,
            Some((_, Some(answer))) => Known::Answered(answer),
            Some((_, None)) => Known::UnderWay,
            None => {
                state.under_way.insert(key.clone(), request.clone());
                drop(state);
                Known::New(UnderWay { answers: Arc::clone(self), key, request })
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: Line) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        let mut state = self.state();
        // Known from now on, whatever the disk says.
        state.take(line, self.bounds);
        if state.is_cut {
            bytes.insert(0, b'\n');
        }
        state.is_cut = true;
        state.file.write_all(&bytes)?;
        state.file.sync_data()?;
        state.is_cut = false;
        state.file_bytes += bytes.len() as u64;
        if state.file_bytes > state.bytes.saturating_mul(2).saturating_add(self.bounds.waste_bytes) {
            self.rewrite(&mut state)?;
        }
        Ok(())
    }

    /// Writes what is of use to a new file, which takes the place of the old one.
    fn rewrite(&self, state: &mut State) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut bytes = Vec::new();
        for key in state.shares.values().flat_map(|share| &share.keys).map(|(key, _)| key) {
            if let Some(line) = state.lines.get(key) {
                serde_json::to_writer(&mut bytes, line)?;
                bytes.push(b'\n');
            }
        }
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        (state.file, state.file_bytes, state.is_cut) = (open_end(&self.path)?, bytes.len() as u64, false);
        Ok(())
    }
}

impl State {
    fn take(&mut self, line: Line, bounds: Bounds) {
        let (key, tenant) = ((line.owner.clone(), line.key.clone()), line.owner.tenant.clone());
        let bytes = serde_json::to_vec(&line).map_or(0, |line| line.len() as u64 + 1);
        if self.lines.insert(key.clone(), line).is_none() {
            let share = self.shares.entry(tenant.clone()).or_default();
            share.keys.push_back((key, bytes));
            share.bytes += bytes;
            self.bytes += bytes;
        }
        self.forget_old(&tenant, bounds.age);
        while self
            .shares
            .get(&tenant)
            .is_some_and(|share| share.keys.len() > bounds.count || share.bytes > bounds.bytes)
        {
            self.forget_first(&tenant);
        }
    }

    fn forget_old(&mut self, tenant: &Option<String>, age: SignedDuration) {
        let now = Timestamp::now();
        let is_old = |line: &Line| now.duration_since(line.at) > age;
        loop {
            let first = self.shares.get(tenant).and_then(|share| share.keys.front());
            if !first.and_then(|(key, _)| self.lines.get(key)).is_some_and(is_old) {
                return;
            }
            self.forget_first(tenant);
        }
    }

    fn forget_first(&mut self, tenant: &Option<String>) {
        let Some(share) = self.shares.get_mut(tenant) else { return };
        if let Some((key, bytes)) = share.keys.pop_front() {
            share.bytes -= bytes;
            self.bytes -= bytes;
            self.lines.remove(&key);
        }
        if share.keys.is_empty() {
            self.shares.remove(tenant);
        }
    }
}

impl UnderWay {
    /// Keeps what it was answered; on stable storage when this ends, or in memory alone where the disk refuses.
    pub(crate) async fn answered(self, answer: KeptAnswer) {
        let answers = Arc::clone(&self.answers);
        let (owner, key) = self.key.clone();
        let line = Line { at: Timestamp::now(), owner, key, request: self.request.clone(), answer };
        let kept = tokio::task::spawn_blocking(move || answers.append(line)).await;
        if let Err(error) = kept.map_err(io::Error::other).and_then(|kept| kept) {
            tracing::error!(%error, "an answer is kept until the next start only");
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.answers.state().under_way.remove(&self.key);
    }
}

fn open_end(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn hash_of(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(token: u64, tenant: &str) -> Owner {
        Owner { token: Some(token), tenant: Some(tenant.to_owned()) }
    }

    async fn answer(answers: &Arc<KeptAnswers>, owner: Owner, key: &str, body: &str) {
        let Known::New(new) = answers.begin(owner, key.to_owned(), &[b"a"]) else { panic!("{key} is known") };
        new.answered(KeptAnswer { status: 201, location: None, body: Some(body.to_owned()) }).await;
    }

    fn body(answers: &Arc<KeptAnswers>, owner: Owner, key: &str) -> Option<String> {
        match answers.begin(owner, key.to_owned(), &[b"a"]) {
            Known::Answered(answer) => answer.body,
            Known::New(_) => None,
            Known::UnderWay | Known::Other => panic!("{key}"),
        }
    }

    fn lines(folder: &Path) -> usize {
        fs::read_to_string(folder.join("answers.log")).unwrap().lines().count()
    }

    /// P8. What one tenant keeps is bounded, and pushes out none of another's.
    #[tokio::test]
    async fn a_tenant_has_a_bounded_share_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let bounds = Bounds { count: 10, bytes: 3000, waste_bytes: 1000, ..BOUNDS };
        let answers = KeptAnswers::bounded(folder.path(), bounds).unwrap();
        answer(&answers, owner(1, "beta"), "k", "kept").await;
        for number in 0..100 {
            answer(&answers, owner(2 + number % 3, "acme"), &format!("k{number}"), "x").await;
        }
        answer(&answers, owner(2, "acme"), "long", &"y".repeat(2500)).await;
        assert_eq!(body(&answers, owner(1, "beta"), "k").as_deref(), Some("kept"));
        assert_eq!(body(&answers, owner(2, "acme"), "k0"), None);
        assert_eq!(body(&answers, owner(2, "acme"), "long").map(|body| body.len()), Some(2500));
        assert_eq!(answers.state().lines.len(), 3, "those that fit beside a long one");
        assert!(fs::metadata(folder.path().join("answers.log")).unwrap().len() < 8000);
    }

    /// P1. What was answered is known after a crash that cut a line, whatever was of no more use is gone.
    #[tokio::test]
    async fn what_is_kept_survives_a_crash_and_its_age_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let answers = KeptAnswers::open(folder.path()).unwrap();
        for key in ["a", "b"] {
            answer(&answers, owner(1, "acme"), key, key).await;
        }
        let begun = answers.begin(owner(1, "acme"), "c".to_owned(), &[b"a"]);
        assert!(matches!(answers.begin(owner(1, "acme"), "c".to_owned(), &[b"a"]), Known::UnderWay));
        assert!(matches!(answers.begin(owner(1, "acme"), "c".to_owned(), &[b"b"]), Known::Other));
        drop(begun);
        let mut file = OpenOptions::new().append(true).open(folder.path().join("answers.log")).unwrap();
        file.write_all(b"{\"at\": \"2026").unwrap();
        let answers = KeptAnswers::open(folder.path()).unwrap();
        assert_eq!((lines(folder.path()), body(&answers, owner(1, "acme"), "b").as_deref()), (2, Some("b")));
        assert_eq!(body(&answers, owner(2, "acme"), "b"), None, "another token's key is another");
        answer(&answers, owner(1, "acme"), "c", "c").await;
        let young = Bounds { age: SignedDuration::from_secs(-1), ..BOUNDS };
        let answers = KeptAnswers::bounded(folder.path(), young).unwrap();
        assert_eq!((lines(folder.path()), body(&answers, owner(1, "acme"), "b")), (0, None));
    }
}
