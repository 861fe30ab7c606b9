//! The sessions that there are: who is logged in where. RFC 7143 6.3.

use crate::catalogue::{Catalogue, MappedLun, TargetAccess};
use crate::iscsi::NewLun;
use crate::listener::Client;
use crate::shard::{SessionMessage, ShardHandle};
use crate::unit::{SessionKey, naa_of};
use proto::iscsi::{Admitted, LoginStatus};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use units::PoolId;

/// After how long a session that is to end is told again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Most sessions of all initiators.
const SESSIONS_MAX: usize = 4096;

/// Sessions by key.
#[derive(Debug, Default)]
pub(super) struct Registry {
    sessions: Mutex<Sessions>,
    /// Told whenever one has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Sessions {
    by_key: BTreeMap<SessionKey, Known>,
    last_key: u64,
    last_tsih: u16,
}

#[derive(Debug)]
struct Known {
    tsih: u16,
    initiator: String,
    isid: [u8; 6],
    target: String,
    client: Client,
    shard_number: usize,
    shard: ShardHandle,
    /// Its connections, by their numbers; those that have ended stay until somebody looks.
    places: Vec<(u16, Weak<()>)>,
    connections_max: u16,
}

/// A session that a connection is of.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) key: SessionKey,
    pub(super) tsih: u16,
    pub(super) shard: ShardHandle,
    /// Counts the connection among the session's.
    pub(super) place: Arc<()>,
    /// Dropped when the session is over; of a connection that joins one there is none.
    pub(super) guard: Option<Ended>,
}

/// Takes a session out of the registry when it is dropped.
#[derive(Debug)]
pub(super) struct Ended {
    key: SessionKey,
    registry: Arc<Registry>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.registry.lock().by_key.remove(&self.key);
        self.registry.ended.notify_waiters();
    }
}

impl Registry {
    // Every change of it is one call, so that a panic leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the session of an initiator port with a target, if there is one; returns when it is over.
    pub(super) async fn end(&self, target: &str, initiator: &str, isid: [u8; 6]) {
        loop {
            // Before the look, so that an end between it and the wait is not missed.
            let ended = self.ended.notified();
            let found = {
                let sessions = self.lock();
                let mut all = sessions.by_key.iter();
                all.find(|(_, known)| known.is_of(target, initiator, isid))
                    .map(|(key, known)| (*key, known.shard.clone()))
            };
            let Some((key, shard)) = found else { return };
            if shard.send_session(key, SessionMessage::End).is_err() {
                return;
            }
            // One that its shard does not know yet is told again.
            let _ = tokio::time::timeout(AGAIN_AFTER, ended).await;
        }
    }

    /// Notes a session that begins; nothing while there is another one of the same port.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn begin(
        self: &Arc<Self>,
        admitted: &Admitted,
        (access, client): (&TargetAccess, &Client),
        (shard_number, shard): (usize, ShardHandle),
    ) -> Result<Option<Begun>, LoginStatus> {
        let mut sessions = self.lock();
        let is_same = |known: &Known| known.is_of(&access.name, &admitted.initiator, admitted.isid);
        if sessions.by_key.values().any(is_same) {
            return Ok(None);
        }
        if sessions.by_key.len() >= SESSIONS_MAX {
            return Err(LoginStatus::OUT_OF_RESOURCES);
        }
        let tsih = sessions.free_tsih();
        sessions.last_key += 1;
        let key = SessionKey(sessions.last_key);
        let place = Arc::new(());
        sessions.by_key.insert(
            key,
            Known {
                tsih,
                initiator: admitted.initiator.clone(),
                isid: admitted.isid,
                target: access.name.clone(),
                client: client.clone(),
                shard_number,
                shard: shard.clone(),
                places: vec![(admitted.cid, Arc::downgrade(&place))],
                connections_max: admitted.parameters.max_connections,
            },
        );
        let guard = Some(Ended { key, registry: Arc::clone(self) });
        Ok(Some(Begun { key, tsih, shard, place, guard }))
    }

    /// Finds the session that a connection is to join.
    ///
    /// # Errors
    /// There is none of the initiator's with that handle, or it has as many as it may.
    pub(super) fn join(&self, admitted: &Admitted, target: &str) -> Result<Begun, LoginStatus> {
        let mut sessions = self.lock();
        let is_it = |known: &&mut Known| {
            known.tsih == admitted.tsih
                && known.isid == admitted.isid
                && known.target == target
                && known.initiator.eq_ignore_ascii_case(&admitted.initiator)
        };
        let mut all = sessions.by_key.iter_mut();
        let (key, known) = all.find(|(_, known)| is_it(known)).ok_or(LoginStatus::NO_SESSION)?;
        // One of the same number gives its place up.
        known.places.retain(|(cid, place)| *cid != admitted.cid && place.strong_count() > 0);
        if known.places.len() >= usize::from(known.connections_max) {
            return Err(LoginStatus::TOO_MANY_CONNECTIONS);
        }
        let (place, shard) = (Arc::new(()), known.shard.clone());
        known.places.push((admitted.cid, Arc::downgrade(&place)));
        Ok(Begun { key: *key, tsih: known.tsih, shard, place, guard: None })
    }

    /// Has every session follow what the catalogue says: it ends, or has these LUNs.
    pub(super) fn remap(&self, catalogue: &Catalogue) {
        let sessions = self.lock();
        sessions.by_key.iter().for_each(|(key, known)| known.remap(catalogue, *key));
    }

    /// Has one follow, whose shard has just come to know it.
    pub(super) fn remap_one(&self, catalogue: &Catalogue, key: SessionKey) {
        if let Some(known) = self.lock().by_key.get(&key) {
            known.remap(catalogue, key);
        }
    }
}

impl Known {
    fn is_of(&self, target: &str, initiator: &str, isid: [u8; 6]) -> bool {
        self.target == target && self.isid == isid && self.initiator.eq_ignore_ascii_case(initiator)
    }

    fn remap(&self, catalogue: &Catalogue, key: SessionKey) {
        let known = self;
        let message = match catalogue.find_target(&known.target, &known.initiator, &known.client) {
            Ok(access) => {
                let luns = catalogue.luns_of(access.target).into_iter();
                let luns = luns.map(|lun| new_lun(catalogue.pool_id(), lun, known.shard_number)).collect();
                SessionMessage::Remap { luns }
            }
            // Its shards end it, in order.
            Err(crate::catalogue::TargetRefusal::Stopping) => return,
            Err(refusal) => {
                tracing::info!(initiator = known.initiator, target = known.target, %refusal, "a session is ended");
                SessionMessage::End
            }
        };
        // A shard that has ended has no session.
        let _ = known.shard.send_session(key, message);
    }
}

impl Sessions {
    /// A handle that no session has; 0 stands for none. RFC 7143 11.12.6.
    fn free_tsih(&mut self) -> u16 {
        loop {
            self.last_tsih = self.last_tsih.checked_add(1).unwrap_or(1);
            if self.by_key.values().all(|known| known.tsih != self.last_tsih) {
                return self.last_tsih;
            }
        }
    }
}

/// A LUN for a session of a shard.
pub(super) fn new_lun(pool: &PoolId, mapped: MappedLun, shard_number: usize) -> NewLun {
    let MappedLun { lun, volume, line, shard, attachment, .. } = mapped;
    let shard = (mapped.shard_number != shard_number).then_some(shard);
    NewLun { lun, volume, shard, naa: naa_of(pool, line), attachment }
}
