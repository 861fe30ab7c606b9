//! iSCSI in the full feature phase: connections and sessions. Knows PDUs and their order; the shard moves bytes, units carry
//! commands out. RFC 7143.
//!
//! All connections of a session live on one shard, that of its first LUN's volume; the units of its other LUNs may be elsewhere
//! and are spoken to by messages. The stream is always read: what a session may have under way is bounded by its command
//! window, what it sends unasked by FirstBurstLength, and the rest of a write is asked for (R2T) when there is room.

mod copy;
mod outbox;
mod receive;
mod session;

pub(crate) use copy::{CopyJob, CopyStep};
pub(crate) use outbox::{Cut, Outbox};
pub(crate) use receive::{Arrival, Receiver, Sink};
pub(crate) use session::{Item, Management, OWN_TAG, Pending, Route, Session, Stage, Task, go_on, is_behind};

use crate::nbd::{Permit, Phase};
use crate::unit::SessionKey;
use proto::iscsi::{LongText, Parameters};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use units::{Monotonic, VolumeId};
use uring::OperationId;

/// Commands of a session under way at most. RFC 7143 4.2.2.1: what MaxCmdSN tells.
pub(crate) const WINDOW: u32 = 128;

/// Most bytes of a data segment that is not a write's.
pub(crate) const DATA_SEGMENT_BYTES_MAX: u32 = 256 << 10;

/// Dropped when nothing of a session is left on any shard.
#[derive(Clone)]
pub(crate) struct Guard(#[expect(dead_code, reason = "kept for its drop")] Arc<dyn Send + Sync>);

impl Guard {
    pub(crate) fn new(kept: impl Send + Sync + 'static) -> Self {
        Self(Arc::new(kept))
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guard")
    }
}

/// A connection that enters the full feature phase.
pub(crate) struct NewConnection {
    /// Its socket, in blocking mode.
    pub(crate) socket: OwnedFd,
    /// The session that it is of.
    pub(crate) session: SessionKey,
    /// The connection's number within the session.
    pub(crate) cid: u16,
    /// What the login has settled for it.
    pub(crate) parameters: Parameters,
    /// The end of the login, which is to be sent first: by then the session is there.
    pub(crate) greeting: Vec<u8>,
    /// The StatSN of its next response.
    pub(crate) stat_sn: u32,
    /// Bytes that were received behind the login.
    pub(crate) leftover: Vec<u8>,
    /// Of a session that begins with it.
    pub(crate) begins: Option<Box<NewSession>>,
    /// Dropped when the connection ends.
    pub(crate) permit: Permit,
}

/// A session that begins.
pub(crate) struct NewSession {
    /// The initiator's iSCSI name.
    pub(crate) initiator: String,
    /// Its part of the session's identifier.
    pub(crate) isid: [u8; 6],
    /// The target's iSCSI name.
    pub(crate) target: Arc<str>,
    /// Where the target is found: address, port and portal group.
    pub(crate) address: String,
    /// The target port's relative number.
    pub(crate) port: u16,
    /// The CmdSN of its first command.
    pub(crate) cmd_sn: u32,
    /// Its LUNs.
    pub(crate) luns: Vec<NewLun>,
    pub(crate) guard: Guard,
}

/// A LUN of a session.
pub(crate) struct NewLun {
    /// Its number.
    pub(crate) lun: u16,
    /// The volume behind it.
    pub(crate) volume: VolumeId,
    /// The volume's shard, when that is another than the session's.
    pub(crate) shard: Option<crate::shard::ShardHandle>,
    /// The unit's NAA identifier.
    pub(crate) naa: [u8; 8],
    /// Counts the session among the volume's clients.
    pub(crate) attachment: crate::listener::Attachment,
}

/// A connection of a shard.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: Rc<OwnedFd>,
    pub(crate) session: SessionKey,
    pub(crate) cid: u16,
    pub(crate) receiver: Receiver,
    pub(crate) outbox: Outbox,
    /// What the data that is arriving belongs to.
    pub(crate) pending: Option<Pending>,
    /// The header of the PDU that is being taken, for a reject.
    pub(crate) bhs: [u8; 48],
    pub(crate) phase: Phase,
    pub(crate) receiving: Option<OperationId>,
    pub(crate) sending: Option<Sending>,
    /// Bytes of data that is not sent.
    pub(crate) held_bytes: u64,
    /// Writes whose data is not asked for yet, since there is no room for it: their tags, those first that wait longest.
    pub(crate) ungranted: VecDeque<u32>,
    /// Whether it is on the shard's list of connections that may have got room.
    pub(crate) is_queued: bool,
    pub(crate) has_news: bool,
    /// Whether it takes no PDUs since too many answers wait to be sent.
    pub(crate) is_full: bool,
    /// Text that a request has not ended yet.
    pub(crate) text: Vec<u8>,
    /// What is left of the answer to one.
    pub(crate) text_answer: Option<LongText>,
    pub(crate) parameters: Parameters,
    /// When data came last that was asked for, or some was asked for after none was missing.
    pub(crate) fed_at: Monotonic,
    /// When something came last, and whether a ping is under way since.
    pub(crate) heard_at: Monotonic,
    pub(crate) is_pinged: bool,
    #[expect(dead_code, reason = "kept for its drop")]
    permit: Permit,
}

/// A send in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    pub(crate) id: OperationId,
    pub(crate) held_bytes: u64,
    pub(crate) since: Monotonic,
    pub(crate) moved: usize,
}

impl Connection {
    pub(crate) fn new(new: NewConnection, now: Monotonic) -> Self {
        let NewConnection { socket, session, cid, parameters, greeting, stat_sn, leftover, permit, .. } = new;
        let framing = parameters.framing();
        Self {
            socket: Rc::new(socket),
            session,
            cid,
            receiver: Receiver::new(framing, DATA_SEGMENT_BYTES_MAX, &leftover),
            outbox: Outbox::new(framing, stat_sn, &greeting),
            pending: None,
            bhs: [0; 48],
            phase: Phase::Open,
            receiving: None,
            sending: None,
            held_bytes: 0,
            ungranted: VecDeque::new(),
            is_queued: false,
            has_news: false,
            is_full: false,
            text: Vec::new(),
            text_answer: None,
            parameters,
            fed_at: now,
            heard_at: now,
            is_pinged: false,
            permit,
        }
    }

    /// Whether everything it owed is done with, so that it can be forgotten.
    pub(crate) fn is_over(&self) -> bool {
        let owes = !self.outbox.is_empty() && self.phase != Phase::Dead;
        self.phase != Phase::Open && !owes && self.sending.is_none() && self.receiving.is_none()
    }
}

impl std::fmt::Debug for NewConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewConnection({:?}, CID {}, begins {})", self.session, self.cid, self.begins.is_some())
    }
}

impl std::fmt::Debug for NewSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewSession({} at {}, {} LUNs)", self.initiator, self.target, self.luns.len())
    }
}

impl std::fmt::Debug for NewLun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewLun({}, volume {})", self.lun, self.volume)
    }
}
