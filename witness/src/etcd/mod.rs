//! A witness that is an etcd cluster, over etcd's JSON gateway. Versions 3.4 and later.
//!
//! A read is a linearizable range, a change one transaction that compares the key's revision. A read may be asked of several
//! members; a change is sent once in its life, and whatever is not surely known of it is `Unknown`.

mod endpoint;
mod frailty;
mod name;
mod pin;
mod wire;

pub use endpoint::HostPort;
pub use pin::{ClusterId, NotAClusterId};

use crate::listing::{ListError, Listed};
use certificates::{ClientError, ClientFiles};
use endpoint::{Endpoint, Fault};
use hyper::body::Bytes;
use pin::Pin;
use replication::times::WITNESS_PATIENCE;
use replication::{ReadAnswer, Record, Revision, Seen, SwapAnswer};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;
use units::GroupId;
use wire::{Answer, AnswerError, Outcome, RangeAnswer, TxnAnswer};

/// Most members that may be named.
pub const ENDPOINTS_MAX: usize = 16;

/// Longest prefix of keys.
pub(crate) const PREFIX_BYTES_MAX: usize = 128;

/// Most asks under way; later ones wait for one to end.
const ASKS_MAX: usize = 64;

/// How long one member may be silent before a read is asked of another one as well.
const HEDGE_AFTER: Duration = Duration::from_millis(250);

/// What the first read waits for the first look at the members, beyond its own answer.
const FIRST_LOOK_MAX: Duration = Duration::from_millis(300);

/// Groups of a page of the list: as many as surely fit into the longest answer.
const PAGE_LEN: usize = 64;

/// Most groups that are listed.
const LIST_LEN_MAX: usize = 65_536;

/// Which cluster, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// Members, of which the first is asked first.
    pub endpoints: Vec<HostPort>,
    /// What the keys of all groups begin with.
    pub prefix: String,
    /// How TLS is spoken; nothing for HTTP in clear.
    pub tls: Option<ClientFiles>,
}

/// Why a cluster cannot be asked.
#[derive(Debug, Error)]
pub enum EtcdError {
    /// No member is named, or too many.
    #[error("an etcd cluster is named by 1 to {ENDPOINTS_MAX} members, and not by {count}")]
    Endpoints {
        /// How many are.
        count: usize,
    },
    /// The files of TLS make no client.
    #[error(transparent)]
    Tls(#[from] ClientError),
}

/// A client of an etcd cluster. Looks at its members until dropped.
#[derive(Debug)]
pub struct Etcd {
    shared: Arc<Shared>,
    looking: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    endpoints: Vec<Arc<Endpoint>>,
    /// Which of them answered last.
    preferred: AtomicUsize,
    prefix: String,
    tls: Option<TlsConnectorShown>,
    pin: Arc<Pin>,
    asks: Semaphore,
    /// Groups of which an operator was told that their record is none.
    damaged: Mutex<BTreeSet<GroupId>>,
    /// Whether one more loss ends the quorum, once the members have been looked at.
    is_frail: watch::Sender<Option<bool>>,
}

/// For `Debug`, which the connector lacks.
#[derive(Clone)]
struct TlsConnectorShown(TlsConnector);

impl std::fmt::Debug for TlsConnectorShown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl Etcd {
    /// Begins to look at a cluster's members. `expected` is the cluster that is believed; without it, the first that answers is.
    /// To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`EtcdError`]: a file of TLS is of no use, or no member is named.
    pub fn new(config: EtcdConfig, expected: Option<ClusterId>) -> Result<Self, EtcdError> {
        let EtcdConfig { endpoints, prefix, tls } = config;
        if endpoints.is_empty() || endpoints.len() > ENDPOINTS_MAX {
            return Err(EtcdError::Endpoints { count: endpoints.len() });
        }
        let tls = tls.map(|files| files.load()).transpose()?.map(TlsConnector::from);
        let pin = Arc::new(Pin::new(expected));
        let endpoint = |at| Arc::new(Endpoint::new(at, tls.clone(), Arc::clone(&pin)));
        let shared = Arc::new(Shared {
            endpoints: endpoints.into_iter().map(endpoint).collect(),
            preferred: AtomicUsize::new(0),
            prefix,
            tls: tls.clone().map(TlsConnectorShown),
            pin,
            asks: Semaphore::new(ASKS_MAX),
            damaged: Mutex::new(BTreeSet::new()),
            is_frail: watch::Sender::new(None),
        });
        let looking = tokio::spawn(frailty::look_for_ever(Arc::clone(&shared)));
        Ok(Self { shared, looking })
    }

    /// The cluster that is believed, once one has answered: to be kept, and to be expected the next time.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.shared.pin.known()
    }

    /// Reads a group's record, linearizably, from whichever member answers first. Takes a second at most.
    pub async fn read(&self, group: GroupId) -> ReadAnswer {
        let shared = &self.shared;
        let by = Instant::now() + WITNESS_PATIENCE;
        let key = wire::key_of(&shared.prefix, group);
        let Ok(Ok(_permit)) = timeout_at(by, shared.asks.acquire()).await else { return ReadAnswer::Unreachable };
        let Ok(answer) = shared.ask_any::<RangeAnswer>(wire::RANGE, wire::range(&key), by).await else {
            return ReadAnswer::Unreachable;
        };
        match shared.record_of(group, answer.found(&key)) {
            Ok(Some(seen)) => ReadAnswer::Found { seen, is_frail: shared.is_frail(by).await },
            Ok(None) => ReadAnswer::Nothing,
            Err(_) => ReadAnswer::Unreachable,
        }
    }

    /// Puts `record` in place of what has revision `expected`, or of nothing. Takes a second at most.
    ///
    /// Sent to one member, once. When that may have taken it and did not say what became of it, the answer is `Unknown`, whatever
    /// the failure: an election, a timeout within etcd and a cut connection all leave a change that may yet come into force.
    /// Another member is tried only when nothing was sent.
    ///
    /// `Lost` may tell of the very record that was asked for: an earlier change by the same site, which was `Unknown`, is in force.
    /// That is left as it is. This change never comes into force, which is what `Lost` says, and the role machine learns what
    /// is there with its true revision, as from a read: a record is in force by what it says, whichever change put it there.
    pub async fn swap(&self, group: GroupId, expected: Option<Revision>, record: &Record) -> SwapAnswer {
        let shared = &self.shared;
        let by = Instant::now() + WITNESS_PATIENCE;
        let key = wire::key_of(&shared.prefix, group);
        let Ok(Ok(_permit)) = timeout_at(by, shared.asks.acquire()).await else { return SwapAnswer::Unknown };
        let Some(answer) = shared.ask_once(wire::TXN, &wire::swap(&key, expected, record), by).await else {
            return SwapAnswer::Unknown;
        };
        match shared.record_of(group, answer.outcome(&key)) {
            Ok(Outcome::Won(revision)) => SwapAnswer::Won { revision },
            Ok(Outcome::Lost(found)) => SwapAnswer::Lost { found },
            Err(_) => SwapAnswer::Unknown,
        }
    }

    /// What the cluster has of all groups, by their numbers. Pages that come one after the other.
    ///
    /// # Errors
    /// [`ListError`]: a page did not come or is none, or there are too many keys.
    pub async fn list(&self) -> Result<Vec<Listed>, ListError> {
        let unreachable = |reason: String| ListError::Unreachable { reason };
        let shared = &self.shared;
        let (mut from, end) = wire::all_groups(&shared.prefix);
        let (mut listed, mut count, mut strange) = (Vec::new(), 0, None);
        loop {
            let by = Instant::now() + WITNESS_PATIENCE;
            let permit = timeout_at(by, shared.asks.acquire()).await;
            let Ok(Ok(_permit)) = permit else { return Err(unreachable("too much is asked of it at once".to_owned())) };
            let page = shared.ask_any::<RangeAnswer>(wire::RANGE, wire::page(&from, &end, PAGE_LEN), by).await;
            let page = page.map_err(unreachable)?;
            let entries = page.entries().map_err(|error| unreachable(error.to_string()))?;
            if entries.is_empty() {
                break;
            }
            count += entries.len();
            if count > LIST_LEN_MAX {
                return Err(ListError::TooMany { most: LIST_LEN_MAX });
            }
            for entry in entries {
                if entry.key < from || entry.key >= end {
                    return Err(unreachable(
                        "its keys are not in their order, or not those that were asked for".to_owned(),
                    ));
                }
                // What follows the key: the same with a zero behind it.
                from.clone_from(&entry.key);
                from.push(0);
                match wire::group_of(&shared.prefix, &entry.key) {
                    Some(group) => listed.push(Shared::listed(group, entry.seen)),
                    None => strange = Some(entry.key),
                }
            }
            if !page.more {
                break;
            }
        }
        if let Some(key) = strange {
            let key = String::from_utf8_lossy(&key).into_owned();
            tracing::warn!(key, "there are keys of the witness that are no group's, this one being the last");
        }
        listed.sort_by_key(|listed: &Listed| listed.group);
        Ok(listed)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Shared {
    /// Asks members until one answers, the next one whenever one is silent for a while or has failed. For what changes nothing.
    async fn ask_any<A: Answer>(&self, path: &'static str, body: Bytes, by: Instant) -> Result<A, String> {
        let mut tries = JoinSet::new();
        let mut waiting = self.order().into_iter();
        let mut reason = String::new();
        loop {
            if let Some((index, endpoint)) = waiting.next() {
                let body = body.clone();
                tries.spawn(async move { (index, endpoint.ask::<A>(path, body, by).await) });
            }
            let has_more = waiting.len() > 0;
            tokio::select! {
                tried = tries.join_next() => match tried {
                    Some(Ok((index, Ok(answer)))) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Some(Ok((_, Err(Fault::Unsent(told) | Fault::Sent(told))))) => reason = told,
                    Some(Err(error)) => reason = error.to_string(),
                    None if !has_more => return Err(reason),
                    None => {}
                },
                () = sleep(HEDGE_AFTER), if has_more => {}
            }
        }
    }

    /// Asks one member, another one only while nothing was sent. Nothing when it is not known what became of it.
    async fn ask_once(&self, path: &'static str, body: &Bytes, by: Instant) -> Option<TxnAnswer> {
        for (index, endpoint) in self.order() {
            match endpoint.ask(path, body.clone(), by).await {
                Ok(answer) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Some(answer);
                }
                Err(Fault::Unsent(_)) => {}
                Err(Fault::Sent(reason)) => {
                    tracing::warn!(endpoint = %endpoint.at(), reason, "what became of a change of the witness is not known");
                    return None;
                }
            }
        }
        None
    }

    /// All members: first those that answered when they were last asked, and of these the one that did last.
    fn order(&self) -> Vec<(usize, Arc<Endpoint>)> {
        let count = self.endpoints.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut order: Vec<_> = self.endpoints.iter().map(Arc::clone).enumerate().collect();
        order.sort_by_key(|(index, endpoint)| (!endpoint.is_well(), (index + count - first) % count));
        order
    }

    /// What an answer tells of a group. That it is no record an operator is told, once.
    fn record_of<T>(&self, group: GroupId, found: Result<T, AnswerError>) -> Result<T, AnswerError> {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        match &found {
            Ok(_) => drop(damaged.remove(&group)),
            Err(error) => {
                if damaged.insert(group) {
                    let key = wire::key_of(&self.prefix, group);
                    tracing::error!(%group, key, %error, "the witness does not tell the record of a group: put it right there");
                }
            }
        }
        found
    }

    fn listed(group: GroupId, seen: Result<Seen, AnswerError>) -> Listed {
        let seen = match seen {
            Ok(seen) => Ok(seen),
            Err(AnswerError::Record(error)) => Err(error),
            Err(_) => Err(replication::RecordError::NotText),
        };
        Listed { group, seen }
    }

    /// As the last look at the members found it. What has not been looked at is not known to bear a loss.
    async fn is_frail(&self, by: Instant) -> bool {
        let mut looked = self.is_frail.subscribe();
        let by = by.min(Instant::now() + FIRST_LOOK_MAX);
        let found = timeout_at(by, looked.wait_for(Option::is_some)).await;
        found.ok().and_then(Result::ok).and_then(|found| *found).unwrap_or(true)
    }
}
