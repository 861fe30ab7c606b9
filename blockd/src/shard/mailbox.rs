//! How other threads talk to a shard.

use super::mirror::{MirrorMessage, SeatSettings, SharedLog};
use super::stats::{ShardStats, VolumeStats};
use crate::catalogue::KeptReservations;
use crate::iscsi;
use crate::listener::{Attachment, ChangesContext};
use crate::nbd::Permit;
use crate::qos::{Credits, QosLimits, TenantUse, VolumeQos};
use crate::unit::{Abort, Home, NewNexus, Outcome, SessionKey, UnitTask};
use proto::nbd::Negotiated;
use proto::scsi::Sense;
use rustls::ServerConnection;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use units::{TenantId, VolumeId};
use uring::Waker;
use volume::engine::Volume;
use volume::error::Error;
use volume::io::Event;
use volume::pool::RequestCounts;
use volume::request::{Completion, Request};

/// Called on the shard's thread with a result: it must not block.
pub type Callback<T> = Box<dyn FnOnce(T) + Send>;

/// What a shard can be told.
pub enum Message {
    /// Serve a connection whose handshake is over.
    AddConnection(Box<NewConnection>),
    /// Serve a volume.
    OpenVolume {
        /// It.
        volume: Box<Volume>,
        /// Whose it is, and what may be asked of it.
        qos: VolumeQos,
        /// What it is as a logical unit.
        unit: Box<UnitSettings>,
        /// What its seat begins with, when it is mirrored: it is frozen then.
        mirror: Option<Box<SeatSettings>>,
    },
    /// Tell of each mirrored volume how far the other site surely is with its log.
    Shared(Callback<Vec<SharedLog>>),
    /// Of a mirrored volume, or one that is to be.
    Mirror {
        /// Which.
        volume: VolumeId,
        /// What.
        message: Box<MirrorMessage>,
    },
    /// Of iSCSI: a connection, or what sessions and logical units tell each other.
    Iscsi(IscsiMessage),
    /// Close a volume's connections when their requests are answered, checkpoint it, and forget it.
    CloseVolume {
        /// Which.
        volume: VolumeId,
        /// Told when it is done. An error says that the checkpoint failed; the volume is forgotten all the same.
        done: Callback<Result<(), Error>>,
    },
    /// Close a volume's connections when their requests are answered, and checkpoint it. It stays open.
    DetachClients {
        /// Which.
        volume: VolumeId,
        /// Told when it is done. An error says that the checkpoint failed; the connections are gone all the same.
        done: Callback<Result<(), Error>>,
    },
    /// Carry out a request of the daemon itself.
    Submit {
        /// Of which volume.
        volume: VolumeId,
        /// What.
        request: Request,
        /// Told the outcome.
        done: Callback<Result<Completion, Error>>,
    },
    /// The store has answered, or has news.
    Store {
        /// For whom.
        volume: VolumeId,
        /// What.
        event: Event,
    },
    /// Tell the counters.
    Stats(Callback<ShardStats>),
    /// Tell the counters of one volume; nothing of one that is not open.
    VolumeStats {
        /// Which.
        volume: VolumeId,
        /// Told them.
        done: Callback<Option<VolumeStats>>,
    },
    /// Tell what was carried out for clients, of each volume that is open.
    Requests(Callback<Vec<(VolumeId, RequestCounts)>>),
    /// Hold a volume to other ceilings from now on.
    SetVolumeQos {
        /// Which.
        volume: VolumeId,
        /// What may be asked of it.
        limits: QosLimits,
        /// Told when it is so, and whether the volume is open.
        done: Callback<bool>,
    },
    /// Hold a tenant to another part of its ceilings from now on.
    SetTenantQos {
        /// Which.
        tenant: TenantId,
        /// The shard's part.
        limits: QosLimits,
        /// Credits that are put in.
        credits: Credits,
        /// Told the credits that found no room.
        done: Callback<Credits>,
    },
    /// Give a tenant a share of the shard that is so many times as large as one of 1.
    SetTenantWeight {
        /// Which.
        tenant: TenantId,
        /// How many times.
        weight: u64,
    },
    /// Tell what is left of ceilings, and what was used.
    Qos(Callback<ShardQos>),
    /// Take no more requests, answer those under way, checkpoint every volume, and end.
    Stop,
}

/// What a logical unit is known by, and what its initiators have reserved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitSettings {
    /// Its NAA identifier, the same for the life of its volume, and of those that replace it by rollbacks.
    pub naa: [u8; 8],
    /// Whether it takes no writes at all.
    pub is_read_only: bool,
    /// Reservations that were to survive a restart.
    pub reservations: Option<KeptReservations>,
}

/// What concerns iSCSI.
#[derive(Debug)]
pub struct IscsiMessage(pub(crate) IscsiNews);

/// See [`IscsiMessage`].
#[derive(Debug)]
pub(crate) enum IscsiNews {
    /// Serve a connection whose login is over.
    Connect(Box<iscsi::NewConnection>),
    /// For the logical unit that a volume is.
    Unit { volume: VolumeId, message: UnitMessage },
    /// For a session. One that has ended takes no notice.
    Session { session: SessionKey, message: SessionMessage },
}

/// What a logical unit can be told.
#[derive(Debug)]
pub(crate) enum UnitMessage {
    /// A session uses it from now on.
    Attach(Box<NewNexus>),
    /// A session does not any more. The guard is dropped when that is so.
    Detach { session: SessionKey, guard: iscsi::Guard },
    /// Carry out a command.
    Task { task: Box<UnitTask>, from: Home },
    /// Have commands end without effect, as far as they have none yet.
    Abort { abort: Abort, from: Home },
    /// Tell an initiator something with its next command.
    Attend { session: SessionKey, sense: Sense },
    /// Reservations are durable, or could not be made so.
    Reserved { is_kept: bool },
}

/// What a session can be told.
#[derive(Debug)]
pub(crate) enum SessionMessage {
    /// A command has ended.
    Done { tag: u64, outcome: Outcome },
    /// What an abort concerns has no effect any more.
    Aborted { tag: u64 },
    /// A unit is not there any more.
    UnitGone { volume: VolumeId },
    /// Another session has had the commands of a unit aborted.
    UnitReset { volume: VolumeId },
    /// It has these LUNs from now on.
    Remap { luns: Vec<iscsi::NewLun> },
    /// It ends.
    End,
}

/// What a shard tells of ceilings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShardQos {
    /// What is left to each volume that has some.
    pub volumes: Vec<(VolumeId, Credits)>,
    /// What was used by each tenant that has some.
    pub tenants: Vec<(TenantId, TenantUse)>,
}

/// A connection that enters the transmission phase.
#[derive(Debug)]
pub struct NewConnection {
    /// Its socket, in blocking mode.
    pub socket: OwnedFd,
    /// The volume that it serves.
    pub volume: VolumeId,
    /// What the handshake has settled.
    pub negotiated: Negotiated,
    /// Plain bytes that were received behind the handshake.
    pub leftover: Vec<u8>,
    /// The TLS session, when it was started.
    pub tls: Option<ServerConnection>,
    /// What those of the selected contexts tell that are not `base:allocation`.
    pub changes: Vec<ChangesContext>,
    /// Its part in the count of the volume's clients. One that has been expelled is refused.
    pub attachment: Attachment,
    /// Dropped when the connection ends.
    pub permit: Permit,
}

/// The shard has ended, so that nothing can be told to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard has ended")]
pub struct ShardEnded;

/// Talks to a shard, from any thread.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    sender: mpsc::Sender<Message>,
    waker: Waker,
}

impl ShardHandle {
    /// Makes a handle for the shard that receives from `sender`'s channel and is woken by `waker`.
    pub(crate) const fn new(sender: mpsc::Sender<Message>, waker: Waker) -> Self {
        Self { sender, waker }
    }

    /// Sends a message. Messages of one sender arrive in order.
    ///
    /// # Errors
    /// [`ShardEnded`]; the message, and the callback in it, is dropped.
    pub fn send(&self, message: Message) -> Result<(), ShardEnded> {
        self.sender.send(message).map_err(|_| ShardEnded)?;
        self.waker.wake();
        Ok(())
    }
}

impl ShardHandle {
    /// Tells the logical unit that a volume is.
    ///
    /// # Errors
    /// [`ShardEnded`].
    pub(crate) fn send_unit(&self, volume: VolumeId, message: UnitMessage) -> Result<(), ShardEnded> {
        self.send(Message::Iscsi(IscsiMessage(IscsiNews::Unit { volume, message })))
    }

    /// Tells a session.
    ///
    /// # Errors
    /// [`ShardEnded`].
    pub(crate) fn send_session(&self, session: SessionKey, message: SessionMessage) -> Result<(), ShardEnded> {
        self.send(Message::Iscsi(IscsiMessage(IscsiNews::Session { session, message })))
    }

    /// Hands a connection over.
    ///
    /// # Errors
    /// [`ShardEnded`].
    pub(crate) fn connect(&self, new: iscsi::NewConnection) -> Result<(), ShardEnded> {
        self.send(Message::Iscsi(IscsiMessage(IscsiNews::Connect(Box::new(new)))))
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddConnection(new) => f.debug_tuple("AddConnection").field(new).finish(),
            Self::OpenVolume { volume, .. } => write!(f, "OpenVolume({})", volume.id()),
            Self::Shared(_) => f.write_str("Shared"),
            Self::Mirror { volume, message } => write!(f, "Mirror({volume}, {message:?})"),
            Self::Iscsi(IscsiMessage(news)) => write!(f, "Iscsi({news:?})"),
            Self::CloseVolume { volume, .. } => write!(f, "CloseVolume({volume})"),
            Self::DetachClients { volume, .. } => write!(f, "DetachClients({volume})"),
            Self::Submit { volume, request, .. } => write!(f, "Submit({volume}, {request:?})"),
            Self::Store { volume, event } => write!(f, "Store({volume}, {event:?})"),
            Self::Stats(_) => f.write_str("Stats"),
            Self::VolumeStats { volume, .. } => write!(f, "VolumeStats({volume})"),
            Self::Requests(_) => f.write_str("Requests"),
            Self::SetVolumeQos { volume, limits, .. } => write!(f, "SetVolumeQos({volume}, {limits:?})"),
            Self::SetTenantQos { tenant, limits, .. } => write!(f, "SetTenantQos({tenant}, {limits:?})"),
            Self::SetTenantWeight { tenant, weight } => write!(f, "SetTenantWeight({tenant}, {weight})"),
            Self::Qos(_) => f.write_str("Qos"),
            Self::Stop => f.write_str("Stop"),
        }
    }
}
