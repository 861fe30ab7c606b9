//! What the listener needs to know of exports, told by whoever keeps the catalogue.

use super::attachment::Attachment;
use crate::catalogue::ViewLease;
use crate::shard::ShardHandle;
use proto::nbd::constants::DIRTY_BITMAP;
use proto::nbd::{Export, FastZero, Refusal, TransmissionFlags};
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use units::{TenantId, VolumeId};
use volume::pool::Parent;

/// Finds exports by name. Called on tokio's threads: it answers from memory.
pub trait Exports: Send + Sync {
    /// The export of that name, empty for the default one, for this client, which enters it.
    ///
    /// # Errors
    /// Why the client does not get it.
    fn find(&self, name: &str, client: &Client) -> Result<Found, Refusal>;

    /// The export of that name, for a client that only asks: it is counted nowhere.
    ///
    /// # Errors
    /// As of [`Exports::find`].
    fn describe(&self, name: &str, client: &Client) -> Result<Export, Refusal> {
        self.find(name, client).map(|found| found.export)
    }

    /// Makes an export that was found ready for a client that enters it. Only then is it told that it may.
    fn open(&self, found: Found) -> Opening<'_> {
        Box::pin(std::future::ready(Ok(found)))
    }

    /// Names and descriptions of the exports that this client may see.
    ///
    /// # Errors
    /// Why the client gets no list.
    fn list(&self, client: &Client) -> Result<Vec<Listing>, Refusal>;
}

/// What [`Exports::open`] answers, in its own time.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<Found, Refusal>> + Send + 'a>>;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its address, for people.
    pub peer: String,
    /// Where it came in.
    pub entrance: Entrance,
    /// Whether it talks TLS.
    pub is_tls: bool,
    /// The certificate by which it was authenticated.
    pub certificate: Option<CertificateDer<'static>>,
}

/// Where a client came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// Over the network, from this address.
    Network(IpAddr),
    /// By a Unix socket that is no tenant's.
    Socket {
        /// Whether it is of the user whose daemon this is, or of root.
        is_own_user: bool,
    },
    /// By the Unix socket of this tenant.
    TenantSocket(TenantId),
}

/// An export, and where its volume lives.
#[derive(Debug)]
pub struct Found {
    /// As clients are told, made by [`describe`].
    pub export: Export,
    /// The volume behind it.
    pub volume: VolumeId,
    /// The shard that has the volume open, or will.
    pub shard: ShardHandle,
    /// Counts the client among those of the volume.
    pub attachment: Attachment,
    /// Of a snapshot: its id, until it is open.
    pub snapshot: Option<u64>,
    /// Of a snapshot that is open: keeps it so.
    pub view: Option<Arc<ViewLease>>,
    /// What the export's metadata contexts beside `base:allocation` tell.
    pub changes: Vec<ChangesContext>,
}

/// A metadata context that tells what has changed since a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesContext {
    /// Its name, with the prefix.
    pub name: String,
    /// The snapshot: of the volume, or of one that it inherits from.
    pub since: Parent,
}

impl Found {
    /// An export without snapshots, of a volume whose clients nobody counts.
    #[must_use]
    pub fn new(export: Export, volume: VolumeId, shard: ShardHandle) -> Self {
        let attachment = Attachment::default();
        Self { export, volume, shard, attachment, snapshot: None, view: None, changes: Vec::new() }
    }

    /// Has clients ask what has changed since the snapshot of that name, by the context `qemu:dirty-bitmap:` and the name.
    #[must_use]
    pub fn with_snapshot(mut self, snapshot: &str, since: Parent) -> Self {
        let name = format!("{DIRTY_BITMAP}{snapshot}");
        self.export.contexts.push(name.clone());
        self.changes.push(ChangesContext { name, since });
        self
    }
}

/// A line of the list of exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The export's name.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
}

/// Describes an export with all that a shard can do for it.
#[must_use]
pub fn describe(name: impl Into<String>, size_bytes: u64, is_read_only: bool) -> Export {
    let mut export = Export::writable(name, size_bytes);
    export.fast_zero = FastZero::Always;
    if is_read_only {
        export.flags = export.flags.with(TransmissionFlags::READ_ONLY);
    }
    export
}
