//! Tenants' own Unix sockets, in one folder: made, made anew and removed as it is said which tenants have one.

use super::handshake::Welcomes;
use super::socket::Socket;
use super::{Gate, stopped};
use crate::catalogue::{SocketAccess, TenantSockets};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use units::TenantId;

/// The folder of tenants' sockets, each `TENANT.sock`.
#[derive(Debug)]
pub struct SocketFolder {
    folder: PathBuf,
    wanted: watch::Receiver<TenantSockets>,
}

/// A socket that is served. It is closed when this is dropped.
struct Served {
    access: SocketAccess,
    stop: watch::Sender<bool>,
    ends: JoinHandle<()>,
}

impl Served {
    async fn end(self) {
        drop(self.stop);
        if let Err(error) = self.ends.await {
            tracing::error!(%error, "a tenant's socket has ended by itself");
        }
    }
}

impl SocketFolder {
    /// A folder that is there, and what is to be in it.
    #[must_use]
    pub const fn new(folder: PathBuf, wanted: watch::Receiver<TenantSockets>) -> Self {
        Self { folder, wanted }
    }

    /// Serves what is wanted until `stop` is true.
    pub(super) async fn serve<W: Welcomes>(mut self, gate: Arc<Gate<W>>, mut stop: watch::Receiver<bool>) {
        let mut served = BTreeMap::new();
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            follow(&gate, &self.folder, &wanted, &mut served).await;
            tokio::select! {
                () = stopped(&mut stop) => break,
                changed = self.wanted.changed() => if changed.is_err() { break },
            }
        }
        for socket in served.into_values() {
            socket.end().await;
        }
    }
}

/// Closes what is not wanted any more, or not as it is, then opens what is. A socket that cannot be opened is tried again with
/// the next change.
async fn follow<W: Welcomes>(
    gate: &Arc<Gate<W>>,
    folder: &Path,
    wanted: &TenantSockets,
    served: &mut BTreeMap<TenantId, Served>,
) {
    let is_over = |(tenant, served): &(&TenantId, &Served)| {
        wanted.get(tenant).is_none_or(|(_, access)| *access != served.access) || served.ends.is_finished()
    };
    let over: Vec<TenantId> = served.iter().filter(is_over).map(|(tenant, _)| *tenant).collect();
    for tenant in over {
        if let Some(socket) = served.remove(&tenant) {
            socket.end().await;
        }
    }
    for (tenant, (name, access)) in wanted {
        if served.contains_key(tenant) {
            continue;
        }
        match Socket::bind_for_tenant(&folder.join(format!("{name}.sock")), *tenant, *access) {
            Ok(socket) => {
                let (stop, stopping) = watch::channel(false);
                let ends = tokio::spawn(Arc::clone(gate).accept_until(socket, stopping));
                served.insert(*tenant, Served { access: *access, stop, ends });
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(tenant = name, %error, cause, "a tenant has no socket of its own");
            }
        }
    }
}
